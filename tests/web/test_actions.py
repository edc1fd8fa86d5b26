"""What the controls of the page do, without a browser."""

from __future__ import annotations

import csv
import json
import logging
import re
import shlex
import threading
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny import ROOT, configuration, mlflow_database, tiny_checkpoint

from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.models.checkpoint import load_builtin_model, load_model
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.tracking.mlflow import MlflowTracker

gr = pytest.importorskip("gradio")

from adaptive_diffusion.benchmark.curves import leading  # noqa: E402
from adaptive_diffusion.web import drawing, jobs, looking, tuning  # noqa: E402
from adaptive_diffusion.web import sessions as page_sessions  # noqa: E402
from adaptive_diffusion.web.app import offered, prepare_process  # noqa: E402
from adaptive_diffusion.web.bounds import FIELDS, HOW, Offer, Offers, Wish  # noqa: E402
from adaptive_diffusion.web.choosing import Choosing  # noqa: E402
from adaptive_diffusion.web.curve import affordable, curves, domains, measured  # noqa: E402
from adaptive_diffusion.web.drawing import Drawing  # noqa: E402
from adaptive_diffusion.web.looking import Looking  # noqa: E402
from adaptive_diffusion.web.sessions import Sessions, settings_in  # noqa: E402
from adaptive_diffusion.web.sheet import CELL, captioned  # noqa: E402
from adaptive_diffusion.web.tuning import AIMS, Tuning, tuning_settings  # noqa: E402
from adaptive_diffusion.web.words import in_words, title  # noqa: E402
from adaptive_diffusion.web.worker import Cancelled, HowFar, Worker  # noqa: E402
from tools.curve import stale_curve  # noqa: E402
from tools.real_tables import read_rows  # noqa: E402

WISH = Wish(model="tiny", domain="landscapes", scheduler="ddim", steps=3, images=2)


class Actions(Drawing, Choosing, Looking, Tuning):
    """All that the controls do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def offers(folder):
    log = logging.getLogger("adaptive_diffusion")
    before = log.level
    mlflow_database(folder / "mlruns")
    paths = (f"paths.outputs={folder}/outputs", f"paths.mlruns={folder}/mlruns")
    prepare_process()
    yield offered([str(tiny_checkpoint(folder))], paths)
    log.setLevel(before)  # other tests follow


@pytest.fixture(scope="module")
def worker():
    one = Worker()
    yield one
    one.close()


@pytest.fixture
def actions(offers, worker, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "PREVIEW_EVERY", 0)
    monkeypatch.setattr(jobs, "PREVIEW_SHARE", -1)
    quiet = replace(offers, common=(*offers.common, "tracking=none"))
    return Actions(quiet, worker, Sessions(tmp_path))


def request(name: str = "anna") -> SimpleNamespace:
    return SimpleNamespace(session_hash=name)


def pixels(path: str | Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_a_drawing_shows_previews_and_ends_with_what_sample_draws(actions, tmp_path):
    told = list(actions.draw(request(), *astuple(WISH)))
    pictures = [picture for picture, *_ in told if isinstance(picture, str)]
    assert len(pictures) == 1 + WISH.steps
    assert len({pixels(picture).tobytes() for picture in pictures}) == WISH.steps  # the last preview is the result

    _, status, files, command = told[-1]
    assert "3 steps, 6 passes an image" in status
    assert any("Step 2 of 3" in str(line) for _, line, *_ in told)

    settings = shlex.split(command)[-len(WISH.settings(actions.offers)) :]
    cfg = configuration("sample", tmp_path, *[s for s in settings if not s.startswith("paths.")])
    sample(cfg)
    for i, file in enumerate(files):
        assert np.array_equal(pixels(file), pixels(tmp_path / "run" / "pictures" / f"{i:04d}.png"))


def test_an_image_brings_its_settings_back(actions):
    wish = replace(WISH, label="sunrise", weight=3.0, seed=9)
    *_, (_, _, files, _) = actions.draw(request(), *astuple(wish))
    assert "paths.outputs" not in " ".join(settings_in(files[0]))

    restored = dict(zip(FIELDS, actions.restore(files[1]), strict=True))
    assert (restored["scheduler"], restored["steps"], restored["weight"], restored["seed"]) == ("ddim", 3, "3", 9)
    assert restored["label"]["value"] == "sunrise"
    assert "forest" in restored["label"]["choices"]


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: path.write_bytes(b"no image"), "no PNG image"),
        (lambda path: Image.new("RGB", (8, 8)).save(path), "carries no settings"),
        (lambda path: Image.new("RGB", (8, 8)).save(path, "JPEG"), "no PNG image"),
    ],
)
def test_a_strange_image_is_refused_with_a_sentence(actions, tmp_path, write, told):
    write(tmp_path / "x.png")
    with pytest.raises(gr.Error, match=told):
        actions.restore(str(tmp_path / "x.png"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads of the system are shown by Linux alone")
def test_a_closed_worker_has_left_no_thread_that_the_end_of_the_process_could_meet():
    worker = Worker()
    thread = Path(f"/proc/self/task/{worker.do(threading.get_native_id)}")
    worker.do(lambda: mx.eval(mx.compile(mx.square)(mx.ones(3))))
    assert thread.exists()
    worker.close()
    assert not thread.exists()


def waiting_after_each(unit, monkeypatch):
    """An event that a run waits for whenever it has told of a unit of its progress."""
    event, progress = threading.Event(), jobs.Teller.progress

    def until_set(watch: jobs.Teller, told: str, *so_far: int) -> None:
        progress(watch, told, *so_far)
        assert told != unit or event.wait(60)

    monkeypatch.setattr(jobs.Teller, "progress", until_set)
    return event


def test_runs_are_recorded_as_sample_records_them_and_a_cancelled_one_is_killed(
    offers, worker, tmp_path, folder, monkeypatch
):
    actions = Actions(offers, worker, Sessions(tmp_path))
    list(actions.draw(request(), *astuple(WISH)))
    cancelled, told = waiting_after_each("step", monkeypatch), []

    def cancelled_at_its_first_step() -> None:
        for _, status, *_ in actions.draw(request(), *astuple(replace(WISH, seed=1))):
            told.append(status)
            if str(status).startswith("Step"):
                actions.cancel(request())
                cancelled.set()

    cancelled_at_its_first_step()
    assert told[-1] == "Cancelled (step 1 of 3). No image was saved."

    tracker = MlflowTracker(str(folder / "mlruns" / "mlflow.db"), str(folder), "sample", 1.0, 5001)
    runs = tracker.client.search_runs([tracker.experiment_id], order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]
    assert runs[0].data.params["num_steps"] == "3"
    assert runs[0].data.metrics["sampling/passes"] == 6
    assert "fingerprint" in runs[0].data.tags
    assert len(actions.history(request())["value"]) == 1


def test_cancel_counts_between_two_runs_and_while_a_click_waits(actions):
    def cancelled_after_its_first_image() -> None:
        for picture, status, _ in actions.sheet(request(), ["ddim"], [2, 3], *astuple(WISH)):
            told.append(status)
            if isinstance(picture, str):
                seen.append(picture)
                actions.cancel(request())

    seen, told = [], []
    cancelled_after_its_first_image()
    assert len(seen) == 1
    assert told[-1].startswith("Cancelled (1 of 2 (ddim, 2 steps)")
    assert told[-1].endswith(" The images that were finished are under History.")

    actions.ask(request(), "draw")
    actions.cancel(request())
    assert list(actions.draw(request(), *astuple(WISH)))[-1][1].startswith("Cancelled (waiting for its turn)")
    actions.ask(request(), "draw")
    assert "3 steps" in list(actions.draw(request(), *astuple(WISH)))[-1][1]


def test_what_waits_says_for_how_many_and_can_be_cancelled_meanwhile(worker):
    end, stop, begun = threading.Event(), threading.Event(), []
    first = worker.stream(lambda tell: tell("begun") or end.wait(60), threading.Event())
    assert next(first) == "begun"
    estimate = worker.stream(lambda _: "46 s", threading.Event(), run=False)
    assert in_words(next(estimate)) == "Waiting for 1 other run."
    second = worker.stream(lambda _: begun.append(2), stop)
    assert in_words(next(second)) == "Waiting for 1 other run."
    stop.set()
    with pytest.raises(Cancelled):
        next(second)
    third = worker.stream(lambda _: "third", threading.Event())
    assert in_words(next(third)) == "Waiting for 1 other run."  # neither for an estimate nor for what was cancelled
    end.set()
    assert [*first, *estimate, *third] == [True, "46 s", "third"]
    assert begun == []


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which pass only where a test says so."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(page_sessions, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def listed(sessions, page):
    """The session of a page whose browser has drawn something."""
    session = sessions.of(page)
    session.past.history.append(None)
    return session


def test_of_too_many_browsers_one_that_drew_nothing_gives_way_and_then_the_one_that_was_idle_longest(
    tmp_path, monkeypatch, clock
):
    monkeypatch.setattr(page_sessions, "MOST_BROWSERS", 3)
    sessions = Sessions(tmp_path)
    drawing, idle = listed(sessions, "drawing"), listed(sessions, "idle")
    with drawing.running("draw") as stop:
        looking = sessions.of("looking")
        clock.seconds = 1
        used = listed(sessions, "used")
        assert not looking.past.folder.exists()
        sessions.of("new")
        assert not idle.past.folder.exists()
        assert sessions.of("drawing") is drawing
        assert sessions.of("used") is used
        assert not stop.is_set()


def test_what_a_browser_has_drawn_goes_after_a_day_in_which_it_was_not_used(tmp_path, clock):
    sessions = Sessions(tmp_path)
    one, other = listed(sessions, "one").past, listed(sessions, "other").past
    clock.seconds = page_sessions.KEPT
    sessions.of("other")
    clock.seconds += 1
    assert sessions.of("new", one.token).past is not one
    assert not one.folder.exists()
    assert sessions.of("loaded anew", other.token).past is other


def test_the_time_left_of_a_second_count_is_its_own(monkeypatch):
    times = iter([0, 1, 100, 102, 200])
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: next(times)))
    told: list[HowFar] = []
    watch = jobs.Teller(told.append, threading.Event())
    for done in (1, 2, 1, 2):
        watch.progress("held-out batch", done, 5)
    assert [each.left for each in told] == [None, 3, None, 6]
    watch.progress("solver step", 7, None)
    assert in_words(told[-1]) == "Solving to convergence: step 7"


def test_nobody_sees_what_others_drew(actions):
    list(actions.draw(request("anna"), *astuple(WISH)))
    assert actions.history(request("bert"))["value"] == []
    with pytest.raises(gr.Error, match="the run"):
        actions.recall(request("bert"), selected("1: 3 steps, ddim: landscapes"))

    ((_, caption),) = actions.history(request("anna"))["value"]
    command, files, config, _ = actions.recall(request("anna"), selected(caption))
    assert "scheduler=ddim" in command
    assert "num_steps: 3" in config
    assert "outputs: <outputs>" in config
    assert str(Path.cwd()) not in config
    assert Path(files[0]).is_file()


def test_a_page_that_is_loaded_anew_lists_the_runs_of_its_browser_and_of_no_other(actions):
    token = actions.arrive(request("first"), None)
    list(actions.draw(request("first"), *astuple(WISH)))
    preview = next(iter(actions.session(request("first")).folder.glob("preview-*.png")))
    assert token not in str(preview)
    actions.leave(request("first"))
    assert not preview.exists()

    assert actions.arrive(request("anew"), token) == token
    ((image, caption),) = actions.history(request("anew"))["value"]
    assert Path(image).is_file()
    assert "scheduler=ddim" in actions.recall(request("anew"), selected(caption))[0]
    for stranger in (None, "", "guessed", ["no text"]):
        assert actions.arrive(request(f"other {stranger}"), stranger) != token
        assert actions.history(request(f"other {stranger}"))["value"] == []

    Path(image).unlink()  # as Gradio does after a day
    assert actions.history(request("anew"))["value"] == []


def test_the_run_that_was_selected_stays_the_same_when_others_are_drawn(actions):
    list(actions.draw(request(), *astuple(replace(WISH, seed=1))))
    ((_, caption),) = actions.history(request())["value"]
    list(actions.draw(request(), *astuple(replace(WISH, seed=2))))

    command, *_, number = actions.recall(request(), selected(caption))  # in a list of one run
    assert "seed=1" in command
    list(actions.draw(request(), *astuple(replace(WISH, seed=3))))
    assert dict(zip(FIELDS, actions.reuse(request(), number), strict=True))["seed"] == 1


def selected(caption):
    return SimpleNamespace(index=0, value={"caption": caption})


def test_a_mistake_is_a_sentence_and_a_fault_is_in_the_log(actions, monkeypatch, caplog):
    with pytest.raises(gr.Error, match="steps must be"):
        list(actions.draw(request(), *astuple(replace(WISH, steps=1000))))
    with pytest.raises(gr.Error, match="one weight of guidance"):  # a check of sample.py, not of the page
        list(actions.draw(request(), *astuple(replace(WISH, scheduler="learned", guidance="interval"))))
    assert caplog.records == []

    monkeypatch.setattr(drawing, "draw", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error, match="the log of the server") as told:
        list(actions.draw(request(), *astuple(WISH)))
    assert "division" not in str(told.value)
    assert "ZeroDivisionError" in caplog.text


def test_what_a_strange_image_says_is_no_html(actions, tmp_path):
    info = PngInfo()
    info.add_text("adaptive-diffusion", json.dumps(["model=<img src=x onerror=alert(1)>"]))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(gr.Error, match="&lt;img src=x onerror") as told:
        actions.restore(str(tmp_path / "x.png"))
    assert "<" not in str(told.value)


def test_in_place_of_the_cost_a_mistake_is_said_and_a_fault_is_in_the_log(actions, monkeypatch, caplog):
    assert "3 steps, 6 passes" in actions.cost(*astuple(WISH))
    assert "steps must be" in actions.cost(*astuple(replace(WISH, steps=1000)))
    assert "one weight of guidance" in actions.cost(*astuple(replace(WISH, scheduler="learned", guidance="interval")))
    assert caplog.records == []

    monkeypatch.setattr(looking, "steps_of", lambda _: 1 / 0)
    assert "the log of the server" in actions.cost(*astuple(WISH))
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("setting", ["tracking.experiment=mine", "tracking.uri=http://127.0.0.1:1", "tracking=none"])
def test_the_cost_and_the_schedule_do_not_depend_on_where_runs_are_recorded(setting, offers, worker, tmp_path):
    actions = Actions(replace(offers, common=(*offers.common, setting)), worker, Sessions(tmp_path))
    assert "3 steps, 6 passes" in actions.cost(*astuple(WISH))
    assert len(actions.schedule(request(), *astuple(WISH))[1]) == 3


def other(**changed):
    """The fields for the image on the right: the controls', but for what is changed."""
    right = replace(WISH, **changed)
    return [getattr(right, name) for name in HOW]


def test_two_ways_to_draw_are_compared_from_the_same_noise(actions):
    *_, (pair, status, commands) = actions.compare(request(), *other(), *astuple(WISH))
    left, right = map(pixels, pair)
    assert np.array_equal(left, right)

    changed = other(scheduler="dpm_solver", steps=2, grid="quadratic", guidance="constant", weight="1")
    *_, (pair, status, commands) = actions.compare(request(), *changed, *astuple(WISH))
    assert not np.array_equal(left, pixels(pair[1]))
    assert "**Left:** ddim, 3 steps, 6 passes" in status
    assert "**Right:** dpm_solver, quadratic grid, constant guidance, weight 1, 2 steps, 2 passes" in status
    assert commands.count("num_samples=1") == 2

    names = [caption for _, caption in actions.history(request())["value"]]
    assert names[0].startswith("4: compare 2, 2 steps, dpm_solver, quadratic grid")
    assert names[-1] == "1: compare 1, 3 steps, ddim: landscapes"


def test_a_sheet_has_a_cell_for_each_and_names_what_was_refused(actions):
    told = list(actions.sheet(request(), ["ddim", "learned"], [2, 3], *astuple(WISH)))
    path, status, command = [[one for one in column if isinstance(one, str)][-1] for column in zip(*told, strict=True)]
    assert "2 images drawn" in status
    assert "learned, 3 steps: " in status
    assert "sample.py -m scheduler=ddim,learned num_steps=2,3" in command
    height, width, _ = pixels(path).shape
    assert height > 2 * CELL
    assert width > 2 * CELL

    with pytest.raises(gr.Error, match="at most 16"):
        list(actions.sheet(request(), ["ddim", "adaptive"], list(range(1, 10)), *astuple(WISH)))


def test_the_commands_of_a_sheet_ask_for_a_stored_first_evaluation_where_a_scheduler_has_it(actions):
    asked = actions.sheet(request(), ["ddim", "adaptive"], [5], *astuple(replace(WISH, stored=True)))
    lines = next(asked)[2].splitlines()
    asked.close()
    assert ["scheduler=adaptive num_steps=5" in line for line in lines] == [True, False]
    assert ["scheduler.first_evaluation=stored" in line for line in lines] == [True, False]


def test_below_an_image_of_a_sheet_stands_what_it_cost():
    image = np.zeros((32, 32, 3), np.uint8)
    plain, told = captioned(image, ""), captioned(image, "7 passes")
    assert plain.shape == told.shape
    below = CELL + 2  # the image, and the gap around it
    assert np.array_equal(plain[:below], told[:below])
    assert (plain[below:] == 255).all()
    assert (told[below:] < 128).any()


def test_the_schedule_is_that_of_a_run(actions, folder):
    wish = replace(WISH, guidance="interval", steps=6)
    _, rows, line = actions.schedule(request(), *astuple(wish))
    *_, (_, status, _, _) = actions.draw(request(), *astuple(wish))
    with open(max((folder / "outputs").rglob("steps.csv"), key=lambda path: path.stat().st_mtime)) as file:
        drawn = [float(row["timestep"]) for row in csv.DictReader(file)]
    assert [row[1] for row in rows] == pytest.approx(drawn, abs=1e-3)

    passes = sum(row[-1] for row in rows)
    assert 6 < passes < 12
    assert f"{passes:g} passes" in line
    assert f"6 steps, {passes:g} passes an image" in status


def test_a_calibration_tells_how_far_it_is_and_is_used_from_then_on(actions):
    told = list(actions.calibrate(request(), 2, *astuple(replace(WISH, images=1))))
    assert any("Calibrating: evaluation" in str(status) for _, status, *_ in told)
    assert "calibrated for landscapes" in told[-1][1]
    again = list(actions.draw(request(), *astuple(replace(WISH, images=1, scheduler="adaptive", steps=2))))
    assert not any("Calibrating" in str(status) for _, status, *_ in again)
    assert np.array_equal(pixels(told[-1][2][0]), pixels(again[-1][2][0]))


def test_a_tuning_says_what_it_costs_and_what_it_found_can_be_drawn(actions, monkeypatch, folder):
    aim, small = (
        next(iter(AIMS)),
        ("reward.weight=0", "task.pictures=2", "task.batches=1", "task.verification_batches=1"),
    )
    monkeypatch.setitem(AIMS, aim, (*AIMS[aim], *small))
    wish = replace(WISH, steps=10, weight=2.0)  # its scheduler is not the default that is measured
    asked = aim, 10, *astuple(wish)
    *_, (cost, _) = told = list(actions.estimate(request(), *asked))
    command = told[0][1]
    assert cost.startswith("For landscapes in at most 10 steps at weight 2, 10 episodes of 2 images: up to 200 network")
    assert "train.py" in command
    assert "domain=landscapes task.episodes=10 task.min_steps=4 task.num_steps=10 task.max_steps=10" in command

    told = list(actions.tune(request(), *asked))
    assert any("Searching: episode 3 of 10" in str(status) for status, *_ in told)
    assert any("Verifying: round 1 of 1" in str(status) for status, *_ in told)
    status, (default, best), found, result = told[-1]
    assert result["visible"]
    assert default[:4] == ["the adaptive scheduler", 10, 20, "constant 2"]
    assert best[2] < 20
    assert (
        f"Better than the default by {1 - best[2] / 20:.3f} +- 0.000 in score" in status
    )  # passes are all that counts

    controls = dict(zip(FIELDS, actions.adopt(found), strict=True))
    assert (controls["scheduler"], controls["guidance"], controls["steps"]) == ("tuned", "tuned", best[1])
    tuned = replace(wish, scheduler="tuned", guidance="tuned", steps=best[1])
    *_, (_, line, _, _) = actions.draw(request(), *astuple(tuned))
    assert f"{best[1]} steps, {best[2]} passes an image" in line
    assert "outputs/agent/tuned.json" in line

    in_use = DomainConfig(1)  # of fewer passes than any that is tried
    model = load_model(folder / "tiny.safetensors")
    adapter = DomainAdapter(folder / "outputs/agent/tuned.json", model=model, guidance_scale=2.0)
    adapter.adopt("landscapes", in_use, quality=0, speed=10, quality_error=0.1, weight=0, provenance={})
    *_, (status, rows, found, *_) = actions.tune(request(), *asked)
    assert [row[:3] for row in rows[:2]] == [["the adaptive scheduler", 10, 20], ["in use", 1, 2]]
    assert (rows[2][0], found) == ("found", [])
    assert "the tuned setting in use stays" in status


def test_what_was_found_with_as_many_steps_as_the_default_is_not_the_default():
    default = {"hyperparameters": {"num_steps": 6}}
    found = {"hyperparameters": {"num_steps": 6, "guidance_weight": 1.1, "guidance_low": -1.75}}
    final = {**found["hyperparameters"], "source": "tuned by cem"}
    assert tuning.found_of([default, found], final) is found
    assert tuning.found_of([default], {"num_steps": 6, "source": "tuned by cem"}) is default


def test_a_tuning_can_be_cancelled_within_an_episode(actions, monkeypatch):
    late, told, denoise = [], [], GuidedModel.denoise_all
    cancelled = waiting_after_each("episode", monkeypatch)

    def cancelled_after_an_episode() -> None:
        for status, *_ in actions.tune(request(), next(iter(AIMS)), 20, *astuple(WISH)):
            told.append(str(status))
            if told[-1].startswith("Searching: episode"):
                actions.cancel(request())
                cancelled.set()

    monkeypatch.setattr(GuidedModel, "denoise_all", lambda *given: late.append(cancelled.is_set()) or denoise(*given))
    cancelled_after_an_episode()
    assert told[-1] == "Cancelled (searching: episode 1 of 20). Nothing was tuned."
    assert sum(status.startswith("Searching: episode") for status in told) == 1
    assert late
    assert not any(late)


@pytest.mark.parametrize(
    ("changed", "aim", "episodes", "told"),
    [
        ({"prompt": "a lake"}, 0, 20, "a domain is tuned, not a prompt"),
        ({}, 0, 1000, "episodes must be a whole number, between 10 and 100"),
        ({}, 0, None, "episodes must be"),
    ],
)
def test_what_cannot_be_tuned_is_refused(actions, changed, aim, episodes, told):
    with pytest.raises(gr.Error, match=told):
        list(actions.estimate(request(), list(AIMS)[aim], episodes, *astuple(replace(WISH, **changed))))


def test_a_domain_without_statistics_of_real_images_is_not_tuned_which_opening_the_tab_says_without_an_error(actions):
    mine = Actions(
        Offers((Offer("mine", (), {"shapes": ()}),), ("adaptive",), ("default",)), actions.worker, actions.sessions
    )
    asked = request(), next(iter(AIMS)), 20, *astuple(Wish(model="mine", domain="shapes"))
    with pytest.raises(gr.Error, match="no statistics of those of shapes; calibrate it instead"):
        list(mine.estimate(*asked))
    ((line, command),) = mine.look(*asked)
    assert "calibrate it instead" in line
    assert command == ""


def test_a_tuning_that_is_cancelled_during_its_estimate_does_not_begin(actions, monkeypatch):
    def cancelled(*given):
        raise Cancelled

    monkeypatch.setattr(tuning, "cost_of", cancelled)
    asked = next(iter(AIMS)), 20, *astuple(WISH)
    actions.ask(request(), "tune")
    actions.cancel(request())
    assert list(actions.estimate(request(), *asked))[-1][0] == "Cancelled (estimating)."
    assert list(actions.tune(request(), *asked))[-1][0] == "Cancelled (waiting for its turn). Nothing was tuned."


def test_groups_of_runs_have_names_of_their_own_before_any_of_them_is_drawn(tmp_path):
    session = Sessions(tmp_path).of("anna")
    names = [session.past.new_group(kind) for kind in ("sheet", "sheet", "compare")]
    assert names == ["sheet 1", "sheet 2", "compare 1"]


def test_an_open_page_keeps_its_latest_previews_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("adaptive_diffusion.web.sessions.MOST_PREVIEWS", 2)
    session = Sessions(tmp_path).of("anna")
    written = [session.write(np.zeros((1, 1, 3), np.uint8), name) for name in ("preview", "sheet", "preview")]
    assert [path.exists() for path in written] == [False, True, True]


def test_a_caption_counts_a_single_step():
    drawn = jobs.Drawn(("num_steps=1", "scheduler=ddim", "domain=general"), Path(), (), {}, "", ())
    assert title(drawn) == "1 step, ddim: general"


def test_a_caption_says_a_prompt_as_it_was_typed():
    prompt = "a \\ face, 'it is' <b> ${x}"
    settings = replace(WISH, prompt=prompt).settings(Offers((Offer("tiny", (), {}),), (), ()))
    drawn = jobs.Drawn(tuple(settings), Path(), (), {}, "", ())
    assert title(drawn) == f"3 steps, ddim: {prompt}"


def test_settings_of_a_tuning_choose_the_model_and_leave_out_what_only_drawing_has(offers):
    common = ("tracking=none", "paths.outputs=/o", "batch_size=4")
    settings = tuning_settings(replace(WISH, weight=2.0), Offers(offers.models, (), (), common), next(iter(AIMS)), 20)
    path = next(each for each in offers.models[1].settings if each.startswith("model.path="))
    assert settings[:2] == list(common[:2])
    assert "batch_size=4" not in settings
    assert {"model@task.model=checkpoint", f"task.{path}", "task.guidance_scale=2"} <= set(settings)


def test_the_dial_reads_what_was_measured_beside_real_images(actions):
    assert stale_curve() is None
    rows = read_rows(ROOT / "docs" / "real_images" / "summary.csv")
    assert len(measured()) == len(rows)
    for domain in domains():
        some = [
            float(row["fd_encoder_all"]) for row in rows if row["domain"] == domain and float(row["passes_mean"]) <= 7
        ]
        assert affordable(domain, 7)[0].distance == pytest.approx(min(some), abs=0.01)

    picture, table, line = actions.afford(request(), "landscapes", 7)
    assert Path(picture).is_file()
    assert table[0] == ["adaptive, tuned guidance", 6, "stored", 7, "4.4"]
    assert ["UniPC, log-SNR, tuned guidance", 6, "evaluated", 7] in [row[:4] for row in table]
    assert "6 steps, first evaluation stored**, which takes 7 passes" in line
    assert "real images among themselves have 1.1" in line
    shown = [curve.name.split(",")[0] for curve in leading(curves("landscapes"))]
    assert shown == ["adaptive", "UniPC", "DPM-Solver++", "DDIM"]

    assert "The fewest passes that were measured in landscapes are 5" in actions.afford(request(), "landscapes", 3)[2]
    with pytest.raises(gr.Error, match="passes must be"):
        actions.afford(request(), "landscapes", 0)
    assert actions.afford(request(), "landscapes", None)[2] == "Give a number of passes."


@pytest.mark.parametrize(("passes", "told"), [(7, "7 passes"), (100, "13 passes")])
def test_what_the_dial_found_is_drawn_with_as_many_passes_as_were_measured(actions, passes, told):
    found = list(actions.adopt_measured("landscapes", passes, *astuple(replace(WISH, prompt="a face", weight=9.0))))
    controls = [value["value"] if isinstance(value, dict) else value for value in found]
    named = dict(zip(FIELDS, controls, strict=True))
    assert (named["model"], named["domain"], named["prompt"], named["weight"]) == ("shipped", "landscapes", "", "")
    assert named["images"] == WISH.images
    assert told in actions.cost(*controls)


def test_the_dial_has_no_settings_where_nothing_was_measured(actions):
    with pytest.raises(gr.Error, match="the fewest are 5"):
        actions.adopt_measured("landscapes", 4, *astuple(WISH))


def test_the_dial_has_no_settings_for_a_model_in_the_place_of_the_one_that_was_measured(actions, offers):
    shipped, tiny = offers.models
    assert shipped.identity == load_builtin_model().identity
    other = Actions(replace(offers, models=(replace(shipped, identity=tiny.identity),)), None, None)
    with pytest.raises(gr.Error, match="another model was measured"):
        other.adopt_measured("landscapes", 7, *astuple(WISH))


def test_a_calibration_says_what_it_will_take(actions):
    assert actions.calibration(7, *astuple(replace(WISH, model="shipped", guidance="constant"))) == (
        "For landscapes in 7 steps: calibrated already, and drawn at once."
    )
    told = actions.calibration(9, *astuple(WISH))
    assert re.fullmatch(r"For landscapes in 9 steps: [\d,]+ network evaluations of an image, about .*\.", told)
    assert "in 9 steps: nothing would be calibrated, since grid or init_image sets" in actions.calibration(
        9, *astuple(replace(WISH, grid="quadratic"))
    )
    assert "steps must be" in actions.calibration(None, *astuple(WISH))


def test_images_of_sample_carry_their_settings(tmp_path):
    """As json, without the folders it wrote to: an image may be passed on."""
    found = json.loads(Image.open(_drawn(tmp_path)).info["adaptive-diffusion"])
    assert found == []  # outside of a Hydra job nobody typed any


def _drawn(folder: Path) -> Path:
    sample(configuration("sample", folder, "model=checkpoint", f"model.path={tiny_checkpoint(folder)}", "metrics=none",
                         "tracking=none", "num_samples=1", "num_steps=2", "scheduler=ddim"))  # fmt: skip
    return folder / "run" / "pictures" / "0000.png"
