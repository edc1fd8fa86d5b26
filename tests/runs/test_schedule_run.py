"""`train.py task=schedule`: from a model to steps that `scheduler=adaptive` draws with."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from program import Program
from tiny import ROOT, configuration, tiny_checkpoint

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.calibration import store
from adaptive_diffusion.calibration.calibrate import CLASSICAL, ScheduleCalibration
from adaptive_diffusion.calibration.reference import record
from adaptive_diffusion.diffusion import GuidedModel, Interval
from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.first_prediction import SHARED
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.calibrated import find_schedule, merged
from adaptive_diffusion.grids.calibrated_schedule import Score
from adaptive_diffusion.grids.candidates import in_words
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules, save_schedules
from adaptive_diffusion.io.figures import save_image
from adaptive_diffusion.models.checkpoint import load_builtin_model, load_model
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.train import train
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler
from tools.__main__ import stale_quality, stale_schedules

SMALL = (
    *("task.steps=[2,3]", "task.learned_steps=[3]", "task.noises=4", "task.held_out=3", "task.learned_noises=2"),
    *("task.iterations=1", "task.batch_size=4", "tracking=none"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


def calibrate(model: Path, folder: Path, *overrides: str) -> float:
    chosen = (
        "task=schedule_thorough",
        "model@task.model=checkpoint",
        f"task.model.path={model}",
        f"output={folder}/s.json",
    )
    return train(configuration("train", folder, *chosen, f"output={folder}/s.json", *SMALL, *overrides))


class Counted:
    """A model that remembers its calls."""

    def __init__(self, model, calls: list[int]):
        self._model, self._calls = model, calls

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def __call__(self, x, t, condition=None):
        self._calls.append(len(x))
        return self._model(x, t, condition)


def draw(model: Path, folder: Path, *overrides: str) -> list[float]:
    """The timesteps of a run."""
    chosen = ("model=checkpoint", f"model.path={model}", "num_samples=2", "metrics=none", "tracking=none")
    sample(configuration("sample", folder, *chosen, *overrides))
    with open(folder / "run" / "steps.csv", newline="") as file:
        return [float(row["timestep"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def better(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file by which 3 steps with a stored first prediction, of no label, are better than 2 without."""
    folder, network = tmp_path_factory.mktemp("better"), load_model(model)
    null = conditions_of(network, "landscapes", "none", "")
    task = ScheduleCalibration((2, 3), (3,), noises=4, held_out=3, learned_noises=2, iterations=1, batch_size=4)
    *_, found = task.calibrate(GuidedModel.from_model(network, null, domain="landscapes"))
    stored = found.steps[3].stored
    assert found.first is not None
    assert stored is not None
    steps = {**found.steps, 3: replace(found.steps[3], stored=replace(stored, score=Score(0.0, 0.0)))}
    save_schedules(folder / "better.json", [replace(found, steps=steps)])
    return folder / "better.json"


@pytest.mark.parametrize(
    ("choices", "evaluations"),
    [
        (["scheduler.first_evaluation=network"], 2 * 3),
        (["scheduler.first_evaluation=stored", "label=none"], 2 * 2),
        (["scheduler.first_evaluation=stored", "label=none", "batch_size=1"], 2 * 2),
        (["scheduler.first_evaluation=stored", "batch_size=1"], 2 * 3),
        (["scheduler.first_evaluation=stored", "label=forest"], 2 * 3),
        (["scheduler.first_evaluation=shared", "batch_size=1"], 2 * 3),
        (["scheduler.first_evaluation=shared", "label=forest", "batch_size=1"], 2 * 2 + SHARED),
        (["scheduler.first_evaluation=stored", "label=none", "variation=0.1"], 2 * 3),
        (["scheduler.first_evaluation=stored", "label=none", "init_image=image.png", "strength=1"], 2 * 3),
        (["scheduler.first_evaluation=stored", "label=none", "grid=uniform"], 2 * 3),
    ],
)
def test_a_run_counts_what_a_stored_first_prediction_saves(model, better, choices, evaluations, tmp_path, caplog):
    save_image(tmp_path / "image.png", np.zeros((8, 8, 3), np.uint8))
    choices = [choice.replace("image.png", f"{tmp_path}/image.png") for choice in choices]
    draw(model, tmp_path, f"scheduler.calibration.path={better}", "num_steps=3", "domain=landscapes", *choices)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["details/steps"], metrics["details/evaluations"]) == (3, evaluations)
    assert metrics["details/passes"] == 2 * evaluations  # guided
    assert metrics["sampling/nfe"] == evaluations / 2

    # that the setting changes nothing is said once, and not where it was not given or another setting says so
    silent = any(word in " ".join(choices) for word in ("network", "variation", "init_image"))
    assert caplog.text.count("no first evaluation is stored") == (evaluations == 2 * 3 and not silent)


def test_a_pipeline_saves_the_first_evaluation_too(model, better):
    (calibration,) = load_schedules(better)
    images, evaluations = {}, {}
    for choice in ("network", "stored"):
        network, calls = load_model(model), []
        counted = Counted(network, calls)
        scheduler = AdaptiveScheduler(calibration=calibration, first_evaluation=choice)
        pipeline = DiffusionPipeline(counted, scheduler, image_size=None)
        images[choice] = np.array(pipeline.generate(2, 3, seed=1, domain="landscapes", label="none"))
        evaluations[choice] = len(calls)
    assert evaluations == {"network": 3, "stored": 2}
    assert images["stored"].shape == images["network"].shape == (2, 8, 8, 3)
    assert not np.array_equal(images["stored"], images["network"])

    # one image of labels by share is drawn as many are
    calls.clear()
    scheduler.reconfigure(first_evaluation="shared")
    pipeline.generate(1, 3, seed=1, domain="landscapes")
    assert len(calls) == 3


def test_a_model_is_calibrated_domain_by_domain_and_drawn_with(model, tmp_path, caplog):
    ratio = calibrate(model, tmp_path, "task.domains=[landscapes]")
    (first,) = load_schedules(tmp_path / "s.json")
    assert (first.domain, first.guidance_scale, set(first.steps)) == ("landscapes", 1.5, {2, 3})
    assert 0 < ratio <= 1
    calibrate(model, tmp_path, "task.domains=[portraits,landscapes]", "task.guidance_scale=2", "task.seed=7")
    assert [(s.domain, s.guidance_scale) for s in load_schedules(tmp_path / "s.json")] == [
        ("landscapes", 1.5),
        ("portraits", 2),
        ("landscapes", 2),
    ]
    path = f"scheduler.calibration.path={tmp_path}/s.json"
    assert draw(model, tmp_path, path, "num_steps=3") == pytest.approx(first.steps[3].timesteps, abs=1e-3)
    plain = draw(model, tmp_path, "num_steps=3")
    assert plain == pytest.approx([999, 444, 111], abs=1e-3)  # nothing shipped fits this model
    assert draw(model, tmp_path, path, "scheduler.calibration=null", "num_steps=3") == plain
    timesteps_alone = draw(
        model, tmp_path, "scheduler=ddim", "grid=calibrated", f"grid.path={tmp_path}/s.json", "num_steps=3"
    )
    assert timesteps_alone == pytest.approx(first.steps[3].timesteps, abs=1e-3)
    with pytest.raises(ValueError, match="no calibrated grid ships for this model"):
        draw(model, tmp_path, "scheduler=ddim", "grid=calibrated")
    another = draw(model, tmp_path, path, "domain=abstract", "num_steps=3")
    assert another == pytest.approx(first.steps[3].timesteps, abs=1e-3)
    assert "domain=abstract was not calibrated: the steps are those of landscapes; calibrate it with" in caplog.text
    nearest = load_schedules(tmp_path / "s.json")[2]
    assert draw(model, tmp_path, path, "guidance_scale=3", "num_steps=3") == pytest.approx(
        nearest.steps[3].timesteps, abs=1e-3
    )


def test_a_run_says_where_its_steps_come_from(model, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    calibrate(model, tmp_path, "task.domains=[landscapes]")
    (schedule,) = load_schedules(tmp_path / "s.json")
    assert "1 domain, each with " in caplog.text
    assert f"path={tmp_path}/s.json domain=landscapes num_steps=2" in caplog.text
    path = f"scheduler.calibration.path={tmp_path}/s.json"
    for overrides, sentence in (
        (
            (path, "num_steps=3"),
            f"calibrated for landscapes at guidance 1.5: {in_words(schedule.steps[3].rule)}",
        ),
        (
            (path, "num_steps=3", "guidance_scale=6"),
            "calibrated for landscapes at guidance 1.5; at guidance 6 its timesteps only: ",
        ),
        (
            (path, "num_steps=7"),
            "steps      resampled from 3 steps calibrated for landscapes at guidance 1.5\n",
        ),
        (("scheduler.calibration=null", "num_steps=3"), "steps      timesteps spaced by the power 2\n"),
        (
            (path, "num_steps=3", "grid=karras"),
            "steps      DPM-Solver++(2M), without calibrated weights\n",
        ),
        (("scheduler.calibration=null", "num_steps=3", "grid=karras"), "steps      DPM-Solver++(2M)\n"),
        (("scheduler=ddim", "num_steps=3", "grid=karras"), "DDIMScheduler karras, 3 steps"),
        (
            ("scheduler=ddim", "num_steps=3", "grid=calibrated", f"grid.path={tmp_path}/s.json"),
            "steps      timesteps calibrated for landscapes at guidance 1.5\n",
        ),
    ):
        caplog.clear()
        draw(model, tmp_path, *overrides)
        assert sentence.replace("karras", "KarrasGrid") in caplog.text


def test_the_number_of_evaluations_is_told_before(model):
    counted: list[int] = []
    network = load_model(model)
    problem = GuidedModel.from_model(network, domain="landscapes")
    task = ScheduleCalibration((4, 6), (6,), noises=5, held_out=4, learned_noises=3, iterations=2, batch_size=5)
    list(task.calibrate(problem, counted.append))
    assert 0.9 * task.evaluations() <= sum(counted) <= task.evaluations()


def test_a_schedule_that_is_calibrated_again_takes_the_place_of_the_old_one(model, tmp_path):
    for seed in (1, 2):
        calibrate(model, tmp_path, "task.domains=[landscapes]", f"task.seed={seed}")
    (only,) = load_schedules(tmp_path / "s.json")
    assert set(only.steps) == {2, 3}
    calibrate(model, tmp_path, "task.domains=[landscapes]", "task.steps=[4]", "task.learned_steps=[]")
    (more,) = load_schedules(tmp_path / "s.json")
    assert set(more.steps) == {2, 3, 4}
    assert more.steps[3] == only.steps[3]


def counted(monkeypatch) -> list[tuple[str, list[int]]]:
    """The domains and numbers of steps that are calibrated from now on."""
    calls: list[tuple[str, list[int]]] = []

    def counting(recipe, problem, progress=None):
        calls.append((problem.domain, list(recipe.steps)))
        return before(recipe, problem, progress)

    before = ScheduleCalibration.calibrate
    monkeypatch.setattr(ScheduleCalibration, "calibrate", counting)
    return calls


def test_a_calibration_that_was_interrupted_goes_on_with_what_is_missing(model, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    save, saved = store.save_schedules, []

    def interrupted(path, schedules, recipes):
        save(path, schedules, recipes)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    two = ("task.domains=[landscapes,portraits]", "task.steps=[2,3,4]")
    monkeypatch.setattr(store, "save_schedules", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, tmp_path, *two)
    assert "the same command goes on" in caplog.text
    monkeypatch.setattr(store, "save_schedules", save)
    calls = counted(monkeypatch)
    ratio = calibrate(model, tmp_path, *two)
    assert calls == [("landscapes", [4]), ("portraits", [2, 3, 4])]
    assert " has 2, 3 steps by the same recipe already" in caplog.text
    assert calibrate(model, tmp_path, *two) == pytest.approx(ratio)
    assert len(calls) == 2, "all of it was there"
    calibrate(model, tmp_path, *two, "task.noises=5")
    assert calls[2:] == [("landscapes", [2, 3, 4]), ("portraits", [2, 3, 4])]


def test_calibrations_at_once_all_stay_in_one_file(model, tmp_path):
    program = Program(tmp_path, script=ROOT / "train.py")
    program.settings = [*program.settings[:2], "task=schedule_thorough", "model@task.model=checkpoint", *SMALL]
    program.settings += [f"task.model.path={model}", "task.learned_steps=[]"]
    processes = [
        program.start(f"task.domains=[{domain}]", f"task.steps={steps}")
        for domain, steps in (("general", "[2,4]"), ("general", "[3]"), ("abstract", "[5,6]"))
    ]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    known = {s.domain: set(s.steps) for s in load_schedules(tmp_path / "outputs" / "schedule" / "schedules.json")}
    assert known == {"general": {2, 3, 4}, "abstract": {5, 6}}


def test_what_is_learned_by_default_is_among_the_steps(model, tmp_path):
    assert ScheduleCalibration(steps=(4, 8, 9, 12)).learned == [8, 12]
    assert ScheduleCalibration(steps=(4, 7)).learned == []
    calibrate(model, tmp_path, "task.domains=[abstract]", "task.steps=[7]", "task.learned_steps=null")
    (found,) = load_schedules(tmp_path / "s.json")
    assert "learned" not in found.steps[7].scores


def test_a_calibration_says_that_it_replaces_one_of_another_recipe(model, tmp_path, caplog):
    calibrate(model, tmp_path, "task.domains=[landscapes]")
    assert "is replaced" not in caplog.text
    calibrate(model, tmp_path, "task.domains=[landscapes]", "task.seed=9", "task.steps=[3]")
    assert "landscapes: the calibration of 3 steps in" in caplog.text
    assert "adds to it" not in caplog.text
    calibrate(model, tmp_path, "task.domains=[landscapes]", "task.seed=8", "task.steps=[3,6,7]")
    assert "keeps it; task.steps=[6,7] adds to it" in caplog.text


def test_the_quick_recipe_is_the_default(model, tmp_path):
    chosen = ("task=schedule", "model@task.model=checkpoint", f"task.model.path={model}", "task.domains=[landscapes]")
    ratio = train(configuration("train", tmp_path, *chosen, "task.steps=[3]", "tracking=none"))
    (found,) = load_schedules(tmp_path / "outputs" / "schedule" / "schedules.json")
    assert (found.noises, found.held_out, set(found.steps)) == (10, 2, {3})
    assert 0 < ratio <= 1


@pytest.mark.parametrize(
    ("overrides", "guidance"),
    [
        (["guidance@task.guidance=interval", "task.guidance.low=-1"], Interval(1.5, -1, 0.35)),
        (["guidance@task.guidance=interval", "task.guidance_scale=2"], Interval(2, -2.5, 0.35)),
        (["task.guidance.weight=3"], 3),
    ],
)
def test_a_task_takes_any_guidance(model, tmp_path, overrides, guidance):
    chosen = ("task=schedule", "model@task.model=checkpoint", f"task.model.path={model}", "task.domains=[landscapes]")
    train(configuration("train", tmp_path, *chosen, "task.steps=[3]", "tracking=none", *overrides))
    (found,) = load_schedules(tmp_path / "outputs" / "schedule" / "schedules.json")
    assert found.guidance_scale == guidance


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task.domains=[faces]"], "the model has no domain 'faces'"),
        (["task.domains=[abstract,abstract]"], "task: domains must name each value once, got abstract, abstract"),
        (["task.steps=[99]"], "task: steps must be a whole number, between 2 and 60, got 99"),
        (["task.guidance_scale=-1"], "task: guidance_scale must be"),
        (["task.guidance_scale=2", "task.guidance.weight=3"], "contradict each other"),
        (["guidance@task.guidance=interval", "task.guidance.low=5"], "must have low < high"),
        (["output=schedules.txt"], "output must be a .json file, got 'schedules.txt'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(model, tmp_path, overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        calibrate(model, tmp_path, *overrides)
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("model", "overrides", "warned"),
    [
        ("plain", ["task.guidance_scale=3"], True),
        ("plain", ["guidance@task.guidance=interval"], True),
        ("asking", [], False),
    ],
)
def test_guidance_that_guides_nothing_is_not_calibrated_for(model, overrides, warned, tmp_path, caplog):
    own = ("model@task.model=builtin", f"task.model._target_=runs.test_own_models.{model}", "task.domains=[a,b]")
    train(configuration("train", tmp_path, "task=schedule", *own, *overrides, "task.steps=[3]", "tracking=none"))
    found = load_schedules(tmp_path / "outputs" / "schedule" / "schedules.json")
    assert {schedule.guidance_scale for schedule in found} == {1}
    assert caplog.text.count("has no effect: the model is told nothing that guidance could weigh") == warned  # once


def test_what_ships_fits_the_shipped_model_in_all_its_domains():
    assert stale_schedules() is None
    assert stale_quality() is None
    for schedule in merged(load_schedules(SHIPPED)):
        many = set() if isinstance(schedule.guidance_scale, Interval) else {12, 15, 20}
        assert {5, 6, 8, 10} | many <= set(schedule.steps)
        for steps in schedule.steps.values():
            best = min(steps.scores[name].mean for name in CLASSICAL)
            assert steps.scores[steps.rule].mean <= best


def test_five_calibrated_steps_of_the_shipped_model_err_half_as_much_as_the_best_classical_ones():
    model = load_builtin_model()
    count, solvers = 8, {}
    settings = {"prediction_type": model.metadata["prediction_type"], **model.metadata["noise_schedule"]}
    calibration = find_schedule(None, model.identity, "landscapes", 1.5)
    solvers["adaptive"] = AdaptiveScheduler(num_inference_steps=5, calibration=calibration, **settings)
    for name, grid in CLASSICAL.items():
        solvers[name] = DPMSolverScheduler(clip_sample=True, **settings)
        solvers[name].set_timesteps(timesteps=grid(solvers[name].schedule, 5))
    denoiser = GuidedModel.from_model(model, (), 1.5)
    condition = mx.array([model.condition("landscapes", None, "")] * count)
    noise = normal(image_keys(123, range(count)), model.state_shape)
    reference = record(InBatches(solvers["adaptive"].guided(denoiser, condition)), noise)
    errors = {}
    for name, solver in solvers.items():
        pictures = np.array(StandardSampler(solver).run(denoiser, noise, condition=condition).images)
        errors[name] = paired_rmse(pictures, reference.images).mean()
    assert errors["adaptive"] < 0.5 * min(errors[name] for name in CLASSICAL)
