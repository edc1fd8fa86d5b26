"""`scheduler=adaptive` calibrates itself the first time it meets a model, domain, guidance or number of steps."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from program import Program
from tiny import configuration, tiny_checkpoint

from adaptive_diffusion.calibration.first_use import PATIENCE, Estimate
from adaptive_diffusion.diffusion import Interval
from adaptive_diffusion.grids.calibrated import find_schedule, kept_file
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules, save_schedules
from adaptive_diffusion.io.figures import save_image
from adaptive_diffusion.models.checkpoint import load_model, save_model
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.runs import first_use as run_first_use
from adaptive_diffusion.runs import setup as run_setup
from adaptive_diffusion.runs.sample import sample

AUTO = "scheduler.calibrate=auto"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def kept(model, tmp_path) -> Path:
    return kept_file(tmp_path / "outputs" / "calibrations", load_model(model).identity)


def draw(model: Path, folder: Path, *overrides: str) -> list[float]:
    """The timesteps of a run of three steps."""
    settings = ("model=checkpoint", f"model.path={model}", "num_samples=2", "metrics=none", "tracking=none")
    sample(configuration("sample", folder, *settings, "num_steps=3", *overrides))
    with open(folder / "run" / "steps.csv", newline="") as file:
        return [float(row["timestep"]) for row in csv.DictReader(file)]


def test_guidance_at_every_step_is_calibrated_where_an_interval_was(model, tmp_path, kept):
    draw(model, tmp_path, AUTO, "guidance=interval", "guidance.low=-1", "guidance.high=1")
    draw(model, tmp_path, AUTO, "guidance=constant")
    constant, interval = sorted(
        load_schedules(kept), key=lambda schedule: isinstance(schedule.guidance_scale, Interval)
    )
    assert (constant.guidance_scale, interval.guidance_scale) == (1.5, Interval(1.5, -1.0, 1.0))


def test_what_nothing_fits_is_calibrated_once_and_then_drawn_with(model, tmp_path, kept, caplog):
    caplog.set_level(logging.INFO)
    timesteps = draw(model, tmp_path, AUTO)
    (schedule,) = load_schedules(kept)
    assert (schedule.domain, schedule.guidance_scale, set(schedule.steps)) == ("landscapes", 1.5, {3})
    assert timesteps == pytest.approx(schedule.steps[3].timesteps, abs=1e-3)
    assert "calibrating once: 294 evaluations, about " in caplog.text
    assert "calibrated for landscapes at guidance 1.5: " in caplog.text

    caplog.clear()
    before = kept.read_bytes()
    assert draw(model, tmp_path, AUTO) == pytest.approx(timesteps)
    assert "calibrating" not in caplog.text
    assert kept.read_bytes() == before


@pytest.mark.parametrize("change", ["domain=portraits", "guidance_scale=6", "num_steps=4"])
def test_another_domain_guidance_or_number_of_steps_is_calibrated_too(model, tmp_path, kept, change):
    draw(model, tmp_path, AUTO)
    draw(model, tmp_path, AUTO, change)
    problems = {(s.domain, s.guidance_scale, n) for s in load_schedules(kept) for n in s.steps}
    assert len(problems) == 2
    assert ("landscapes", 1.5, 3) in problems


def test_a_model_that_is_told_nothing_is_calibrated_once_for_all_domains(tmp_path, monkeypatch, caplog):
    network = SimpleUNet(UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=()))
    network._metadata = {"prediction_type": "epsilon"}
    save_model(tmp_path / "m.safetensors", network)
    monkeypatch.setattr("adaptive_diffusion.runs.prompts.given", lambda name: name == "domain.name")
    drawn = [draw(tmp_path / "m.safetensors", tmp_path, AUTO, f"domain.name={name}") for name in ("a", "b")]
    identity = load_model(tmp_path / "m.safetensors").identity
    (schedule,) = load_schedules(kept_file(tmp_path / "outputs" / "calibrations", identity))
    assert (schedule.domain, drawn[0]) == ("a", drawn[1])
    assert "was not calibrated" not in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        *("scheduler.calibrate=never", "grid=karras", "scheduler.calibration=null", "scheduler=ddim", "num_steps=1"),
        *("num_steps=501", "init_image={folder}/image.png"),
    ],
)
def test_nothing_is_calibrated_where_nothing_would_use_it(model, tmp_path, kept, change):
    save_image(tmp_path / "image.png", np.zeros((8, 8, 3), np.uint8))
    auto = [] if "never" in change or "ddim" in change else [AUTO]
    draw(model, tmp_path, *auto, change.replace("{folder}", str(tmp_path)))
    assert not kept.exists()


@pytest.mark.parametrize("choice", ["auto", "always"])
@pytest.mark.parametrize("content", ["", "{", "folder"])
def test_a_damaged_file_of_kept_calibrations_is_set_aside_and_made_anew(model, tmp_path, kept, content, choice, caplog):
    kept.parent.mkdir(parents=True)
    kept.mkdir() if content == "folder" else kept.write_text(content)
    timesteps = draw(model, tmp_path, f"scheduler.calibrate={choice}")
    (schedule,) = load_schedules(kept)
    assert timesteps == pytest.approx(schedule.steps[3].timesteps, abs=1e-3)
    damaged = kept.with_suffix(".damaged")
    assert damaged.is_dir() if content == "folder" else damaged.read_text() == content
    (said,) = (record.message for record in caplog.records if str(kept) in record.message)
    assert said.endswith(f"when the model is calibrated again, the file becomes {damaged.name}")


def test_a_damaged_file_stays_where_nothing_is_calibrated(model, tmp_path, kept, caplog):
    kept.parent.mkdir(parents=True)
    kept.write_text("{")
    assert draw(model, tmp_path, "scheduler.calibrate=never") == pytest.approx([999, 444, 111], abs=1e-3)
    assert kept.read_text() == "{"
    assert "calibrations that were kept are not used" in caplog.text


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("scheduler.calibration=null", "is null, or names a file"),
        ("scheduler.calibration.kept=null", "keeps none"),
        ("grid=karras", "sets other timesteps"),
        ("num_steps=1", "2 to 500 steps can be calibrated, and this run has 1"),
    ],
)
def test_a_run_that_cannot_calibrate_though_it_should_always_says_why(model, tmp_path, kept, setting, why, caplog):
    draw(model, tmp_path, "scheduler.calibrate=always", setting)
    assert not kept.exists()
    (said,) = (record.message for record in caplog.records if "calibrates nothing: " in record.message)
    assert said.endswith(why)


@pytest.mark.parametrize(("choice", "said"), [("auto", 0), ("always", 1)])
def test_a_model_of_fewer_timesteps_than_a_calibration_takes_draws_with_the_power_grid(tmp_path, choice, said, caplog):
    model = tiny_checkpoint(tmp_path, noise_schedule={"num_train_timesteps": 15})
    assert draw(model, tmp_path, f"scheduler.calibrate={choice}") == pytest.approx([14, 56 / 9, 14 / 9], abs=1e-3)
    assert caplog.text.count("3 steps takes 20 training timesteps, and this model has 15") == said


def test_a_folder_that_cannot_be_made_does_not_stop_a_run(model, tmp_path, kept, caplog):
    kept.parent.parent.mkdir(parents=True)
    kept.parent.write_text("in the way")
    assert draw(model, tmp_path, AUTO) == pytest.approx([999, 444, 111], abs=1e-3)
    assert "nothing was calibrated, since it cannot be kept" in caplog.text


def test_a_calibration_that_takes_long_is_left_to_the_user(model, tmp_path, kept, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(run_first_use, "estimate", lambda *_: Estimate(201, 121.0, 5.0))
    assert draw(model, tmp_path, AUTO) == pytest.approx([999, 444, 111], abs=1e-3)
    assert "scheduler.calibrate=always calibrates them first, with 201 evaluations, about 2 min" in caplog.text
    assert not kept.exists()
    draw(model, tmp_path, "scheduler.calibrate=always")
    assert kept.exists()


@pytest.mark.parametrize(
    ("seconds", "run", "affordable"),
    [(PATIENCE - 1, 1, True), (PATIENCE + 1, 1, False), (PATIENCE + 1, PATIENCE + 2, True), (3000, 2000, False)],
)
def test_a_run_pays_for_two_minutes_or_for_as_long_as_it_takes_itself(seconds, run, affordable):
    assert Estimate(1, seconds, run).affordable is affordable


def test_a_wrong_choice_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="calibrate must be one of"):
        draw(model, tmp_path, "scheduler.calibrate=sometimes")


def test_an_interrupted_calibration_leaves_nothing_half_done(model, tmp_path, kept, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("adaptive_diffusion.calibration.quick.fit_corrections", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw(model, tmp_path, AUTO)
    assert not kept.exists()
    draw(model, tmp_path, AUTO)
    assert kept.exists()


def test_what_another_run_keeps_while_this_one_is_set_up_is_drawn_with(model, tmp_path, kept, monkeypatch):
    calibrated = draw(model, tmp_path, AUTO)
    content = kept.read_bytes()
    kept.unlink()

    def kept_just_now(*about):
        kept.write_bytes(content)
        return run_first_use.calibrate_on_first_use(*about)

    monkeypatch.setattr(run_setup, "calibrate_on_first_use", kept_just_now)
    assert draw(model, tmp_path, AUTO) == pytest.approx(calibrated)


def test_of_two_programs_at_once_one_calibrates(model, tmp_path):
    program = Program(tmp_path)
    program.settings = [s for s in program.settings if not s.startswith("model")]
    program.settings += ["model=checkpoint", f"model.path={model}", "num_steps=3", "num_samples=2", "metrics=none"]
    processes = [program.start("tracking=none", f"seed={seed}") for seed in (1, 2)]
    texts = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        texts.append(out + err)
    (path,) = (tmp_path / "outputs" / "calibrations").glob("*.json")
    (schedule,) = load_schedules(path)
    assert set(schedule.steps) == {3}
    assert all("calibrated for landscapes at guidance 1.5" in text for text in texts)
    assert sum("calibrating once" in text for text in texts) == 1


def test_an_interval_is_calibrated_and_found_again(model, tmp_path, kept, caplog):
    caplog.set_level(logging.INFO)
    interval = ("guidance=interval", "guidance.weight=3", "guidance.low=-2", "guidance.high=1")
    draw(model, tmp_path, AUTO)
    timesteps = draw(model, tmp_path, AUTO, *interval, "guidance.weight=4")
    known = {schedule.guidance_scale: schedule for schedule in load_schedules(kept)}
    assert set(known) == {1.5, Interval(4, -2, 1)}
    assert timesteps == pytest.approx(known[Interval(4, -2, 1)].steps[3].timesteps, abs=1e-3)
    assert timesteps != pytest.approx(known[1.5].steps[3].timesteps, abs=1e-3)

    before = kept.read_bytes()
    draw(model, tmp_path, AUTO, *interval)
    assert kept.read_bytes() == before
    said = "calibrated for landscapes at guidance "
    assert caplog.text.count(f"{said}4.0 where log-SNR is -2.0 to 1.0: ") == 1
    near = "4.0 where log-SNR is -2.0 to 1.0, the nearest to 3.0 where log-SNR is -2.0 to 1.0: "
    assert caplog.text.count(f"{said}{near}") == 1, "the last run takes what is near"
    assert caplog.text.count(f"{said}1.5: ") == 1

    draw(model, tmp_path, "scheduler=dpm_solver", "grid=calibrated", *interval, "guidance.weight=4")
    assert "timesteps calibrated for landscapes at guidance 4.0 where log-SNR is -2.0 to 1.0" in caplog.text


def test_steps_of_another_guidance_are_told_and_always_calibrates_for_the_runs_own(model, tmp_path, kept, caplog):
    """Which of two near calibrations an earlier run kept decides what `auto` draws, and nothing of `always`."""
    caplog.set_level(logging.INFO)
    interval = ("guidance=interval", "guidance.weight=1.3", "guidance.low=-2", "guidance.high=1")
    name = "1.3 where log-SNR is -2.0 to 1.0"

    def steps(*overrides: str) -> tuple[str | None, str]:
        caplog.clear()
        draw(model, tmp_path, *overrides)
        tags = json.loads((tmp_path / "run" / "provenance.json").read_text())
        said = f"the nearest to {name}: " in caplog.text, "scheduler.calibrate=always calibrates for" in caplog.text
        assert said == (("steps.guidance" in tags),) * 2
        return tags.get("steps.guidance"), tags["steps.digest"]

    own = steps("scheduler.calibrate=always", *interval)
    kept.unlink()
    constant = steps(AUTO)
    nearest = steps(AUTO, *interval)
    assert nearest == ("1.5", constant[1])
    assert own[0] is None
    assert own[1] != nearest[1]
    assert steps("scheduler.calibrate=always", *interval) == own
    assert steps(AUTO, *interval) == own, "what was calibrated for the same guidance wins"
    assert "calibrating once" not in caplog.text


def test_guidance_of_ones_own_is_calibrated_by_its_name(model, tmp_path, kept, monkeypatch):
    (tmp_path / "steep_guidance.py").write_text(
        "class Steep:\n"
        "    name = 'steep'\n"
        "    def weight_at(self, node):\n"
        "        return 6.0 if node.log_snr < 0 else 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ("model=checkpoint", f"model.path={model}", "num_samples=2", "num_steps=3", "metrics=none")
    for _ in range(2):
        cfg = configuration("sample", tmp_path, *settings, "tracking=none", AUTO)
        OmegaConf.set_struct(cfg, False)
        cfg.guidance = {"_target_": "steep_guidance.Steep"}
        sample(cfg)
        (schedule,) = load_schedules(kept)
        assert schedule.guidance_scale == "steep"


def test_kept_calibrations_add_to_the_shipped_ones(tmp_path):
    shipped = next(s for s in load_schedules(SHIPPED) if s.domain == "abstract")
    eleven = replace(shipped.steps[12], timesteps=tuple(np.linspace(999, 9, 11)), corrections=None)
    changed = replace(shipped.steps[10], rule="mine")
    save_schedules(kept_file(tmp_path, shipped.model), [replace(shipped, steps={11: eleven, 10: changed})])
    found = find_schedule(None, shipped.model, "abstract", 1.5, tmp_path)
    assert set(found.steps) == {*shipped.steps, 11}
    assert found.steps[10] == shipped.steps[10], "what ships comes first"
