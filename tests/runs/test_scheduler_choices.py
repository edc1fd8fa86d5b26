"""No choice of scheduler, grid and sampler drops calibrated steps in silence."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from omegaconf import OmegaConf, open_dict
from rl.policy_files import random_policy
from tiny import CONF, configuration, tiny_checkpoint

from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.grids.schedule_file import save_schedules
from adaptive_diffusion.models.checkpoint import load_model
from adaptive_diffusion.optimization.records import CALIBRATED, DomainRecord, DomainRecords
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from adaptive_diffusion.runs.naming import timesteps_source
from adaptive_diffusion.runs.sample import _tags
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.solvers import Fitted

STEPS, DOMAIN, GUIDANCE = 6, "abstract", 2.0
OPTIONS = {group: sorted(file.stem for file in (CONF / group).glob("*.yaml")) for group in ("grid", "sampler")}
SCHEDULERS = sorted(file.stem for file in (CONF / "scheduler").glob("*.yaml"))
TUNED = [f"tuned {solver}" for solver in ("dpm_solver", "unipc")]


def calibrated(model: str, domain: str = DOMAIN, guidance: float = GUIDANCE) -> CalibratedSchedule:
    """Steps that pass for calibrated ones, with weights that are nearly those of the textbook."""
    t = tuple(999 * (1 - np.arange(STEPS) / STEPS) ** 1.7)
    rows = tuple((0.0, 0.001, 0.0) for _ in t)
    steps = {STEPS: CalibratedSteps(t, rows, "made up", {"made up": Score(0.1, 0.01)})}
    return CalibratedSchedule(model, guidance, domain, 1000, "rmse", 2, 2, steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, calibrated steps, a tuned configuration for each solver, and a policy."""
    folder = tmp_path_factory.mktemp("choices")
    model = load_model(tiny_checkpoint(folder))
    save_schedules(folder / "s.json", [calibrated(model.identity)])
    for solver in ("dpm_solver", "unipc"):
        config = {"num_steps": STEPS, "adaptive_threshold": 0.5, "progress_power": 1.5, "solver": solver}
        known = DomainRecord(model.identity, GUIDANCE, DOMAIN, config=config, provenance={CALIBRATED: True})
        (folder / f"tuned {solver}.json").write_text(json.dumps(DomainRecords([known]).to_dict()))
    env = TimestepEnv(drawing_of(model, DOMAIN, GUIDANCE), num_steps=STEPS, pictures=2, batches=2)
    random_policy(folder / "policy.zip", env)
    return folder


@pytest.fixture(scope="module")
def nodes(folder):
    """The settings of every grid and sampler."""
    found = {}
    for group, options in OPTIONS.items():
        for option in options:
            own = [f"grid.path={folder}/s.json"] if option == "calibrated" else []
            cfg = composed(folder, f"{group}={option}", *own)
            found[group, option] = OmegaConf.to_container(cfg[group], resolve=False)
    return found


def composed(folder, *overrides: str):
    base = [f"model.path={folder}/tiny.safetensors", f"domain={DOMAIN}", f"guidance_scale={GUIDANCE}"]
    none = ["model=checkpoint", "tracking=none", "metrics=none", f"num_steps={STEPS}"]
    return configuration("sample", folder, *none, *base, *overrides)


def scheduler_overrides(folder, scheduler: str) -> list[str]:
    name, _, solver = scheduler.partition(" ")
    own = [f"scheduler.calibration.path={folder}/s.json"] if name in ("adaptive", "tuned") else []
    files = {
        "tuned": f"scheduler.path='{folder}/tuned {solver}.json'",
        "learned": f"scheduler.path={folder}/policy.zip",
    }
    return [f"scheduler={name}", *own, *([files[name]] if name in files else [])]


@pytest.mark.parametrize("scheduler", [*(s for s in SCHEDULERS if s != "tuned"), *TUNED])
def test_every_choice_says_what_is_used_of_the_calibration_or_is_refused(scheduler, folder, nodes, caplog):
    cfg = composed(folder, *scheduler_overrides(folder, scheduler))
    known, ran = f"calibrated for {DOMAIN} at guidance {GUIDANCE:g}", 0
    refused: list[str] = []
    for grid, sampler in itertools.product(*OPTIONS.values()):
        one = cfg.copy()
        with open_dict(one):
            for group, option in (("grid", grid), ("sampler", sampler)):
                one[group] = OmegaConf.create(nodes[group, option])
        caplog.clear()
        try:
            parts = prepare(one)
        except ValueError as error:
            refused.append(str(error))
            continue
        ran, said = ran + 1, timesteps_source(parts)
        steps = parts.scheduler
        if isinstance(steps, AdaptiveScheduler) and grid == "own":
            assert known in said
            assert isinstance(steps.recipe.solver, Fitted)  # the weights are used indeed
        elif isinstance(steps, AdaptiveScheduler):
            assert "without calibrated weights" in said
            assert "instead of the calibrated ones" in caplog.text
        elif scheduler.startswith("tuned"):
            assert "tuned unipc.json" in said
            assert ("replaces the timesteps" in caplog.text) == (grid != "own")
        if grid == "calibrated":
            assert f"timesteps {known}" in said
    assert ran >= 2
    assert all(20 < len(sentence) < 400 and "\n" not in sentence for sentence in refused)


def test_the_calibrated_grid_beside_a_scheduler_that_takes_calibrated_steps_itself_is_refused(folder):
    for scheduler in ("adaptive", "tuned dpm_solver"):
        overrides = [*scheduler_overrides(folder, scheduler), "grid=calibrated", f"grid.path={folder}/s.json"]
        with pytest.raises(ValueError, match=r"leave grid out .* scheduler=dpm_solver"):
            prepare(composed(folder, *overrides))


@pytest.mark.parametrize(
    ("guidance", "weights"), [(0.9, False), (1.0, True), (2.0, True), (4.0, True), (4.1, False), (12.0, False)]
)
def test_weights_are_used_near_their_guidance_only_and_the_line_says_so(guidance, weights, folder):
    overrides = [*scheduler_overrides(folder, "adaptive"), f"guidance_scale={guidance}"]
    parts = prepare(composed(folder, *overrides))
    said = timesteps_source(parts)
    assert ("its timesteps only" in said) != weights
    assert ("guidance 2" in said, f"at guidance {guidance:g} its" in said) == (True, not weights)
    own = prepare(composed(folder, *scheduler_overrides(folder, "adaptive")))
    np.testing.assert_array_equal(parts.scheduler.timesteps, own.scheduler.timesteps)
    assert isinstance(parts.scheduler.recipe.solver, Fitted) == weights


def test_the_tag_of_a_run_says_where_its_steps_come_from_to_the_last_bracket(folder, monkeypatch):
    said = "calibrated for d at guidance interval(1.5, -2.5, 0.35)"
    monkeypatch.setattr("adaptive_diffusion.runs.sample.timesteps_source", lambda setup: said)
    assert _tags(prepare(composed(folder, "scheduler=ddim")), "")["steps"] == said


def test_steps_of_another_domain_are_taken_with_a_word(folder, caplog):
    parts = prepare(composed(folder, *scheduler_overrides(folder, "adaptive"), "domain=portraits"))
    assert "domain=portraits was not calibrated: the steps are those of abstract" in caplog.text
    assert "calibrated for abstract" in timesteps_source(parts)


def test_a_curve_of_another_guidance_reduces_no_steps(folder):
    overrides = [*scheduler_overrides(folder, "adaptive"), "sampler=step_reduction", "guidance_scale=9"]
    with pytest.raises(ValueError, match="calibrated for abstract at guidance 2; at guidance 9"):
        prepare(composed(folder, *overrides))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("calibration.model=0badc0de", "no calibrated steps with scheduler.calibration.model=0badc0de"),
        ("calibration.domain=abstrakt", "scheduler.calibration.domain=abstrakt, of this model there are abstract"),
        ("calibration.guidance_scale=-3", "scheduler.calibration.guidance_scale must be"),
        ("calibration.guidance_scale=nan", "scheduler.calibration.guidance_scale must be"),
        ("calibration.guidance_scale=high", "scheduler.calibration.guidance_scale must be"),
    ],
)
@pytest.mark.parametrize("shipped", [True, False])
def test_calibrated_steps_that_are_named_and_not_there_are_refused(setting, sentence, shipped, folder):
    path = [] if shipped else [f"scheduler.calibration.path={folder}/s.json"]
    sentence = sentence.replace("of this model there are abstract", "nor others") if shipped else sentence
    with pytest.raises(ValueError, match=sentence):
        prepare(composed(folder, "scheduler=adaptive", *path, f"scheduler.{setting}"))
    if not shipped and "high" not in setting:  # which Hydra itself refuses there
        grid = setting.removeprefix("calibration.")
        with pytest.raises(ValueError, match=sentence.replace("scheduler.calibration.", "grid.")):
            prepare(composed(folder, "scheduler=ddim", "grid=calibrated", f"grid.path={folder}/s.json", f"grid.{grid}"))
