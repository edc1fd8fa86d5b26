"""Grids and solvers of their own, without any scheduler, draw what version 0.1.0's schedulers drew."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import subjects as s
from cases import CALIBRATION, MODEL_FACTS, ROWS_5, SCHEDULERS, noise, toy_of
from record import RECORDED
from test_guard import tolerance
from toy import SHAPE, Toy

CLIP_BY_DEFAULT = (s.DDIMScheduler, s.DDPMScheduler, s.AdaptiveScheduler)


def solver_of(name: str) -> Any:
    """The solver that a scheduler of the guard stands for."""
    kind, given, _ = SCHEDULERS[name]
    settings = dict(given)
    for fact in (*MODEL_FACTS, "clip_sample", "timestep_spacing", "steps_offset", "set_alpha_to_one"):
        settings.pop(fact, None)
    if kind is s.DDIMScheduler:
        return s.DDIM(settings.get("eta", 0.0), settings.get("use_clipped_model_output", False))
    if kind is s.DDPMScheduler:
        return s.DDPM(settings.get("variance_type", "fixed_small"))
    if kind is s.UniPCScheduler:
        return s.UniPC(
            settings.get("solver_order", 2), settings.get("solver_type", "bh2"), settings.get("lower_order_final", True)
        )
    if kind is s.IPNDMScheduler:
        return s.IPNDM()
    if kind is s.DPMSolverScheduler:
        return s.DPMSolver(
            settings.get("solver_order", 2),
            settings.get("solver_type", "midpoint"),
            settings.get("algorithm_type") == "sde-dpmsolver++",
            settings.get("lower_order_final", True),
            settings.get("euler_at_final", False),
        )
    solver = s.DPMSolver()
    if name.startswith("adaptive calibrated") and "without" not in name:
        timesteps = CALIBRATION.steps[5].timesteps
        solver = s.Fitted(s.rows_of(s.NoiseSchedule(beta_schedule="squaredcos_cap_v2"), timesteps, ROWS_5), s.Clipped())
    return s.Checked(solver, settings.get("adaptive_threshold", 0.5))


def limit_of(name: str) -> Any:
    """How clean predictions are kept in their range."""
    kind, given, _ = SCHEDULERS[name]
    if given.get("thresholding"):
        return s.Thresholded(given.get("dynamic_thresholding_ratio", 0.995), given.get("sample_max_value", 1.0))
    clips = given.get("clip_sample", kind in CLIP_BY_DEFAULT)
    return s.Clipped(given.get("clip_sample_range", 1.0)) if clips else s.unlimited


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_grid_and_a_solver_draw_what_a_scheduler_drew(name: str) -> None:
    toy = toy_of(SCHEDULERS[name][1])
    keys, x_T = noise()
    model = s.GuidedModel(toy, toy.schedule, toy.prediction_type, limit_of(name))
    with np.load(RECORDED) as recorded:
        timesteps, images, strip = (recorded[f"scheduler {name}/{key}"] for key in ("timesteps", "images", "strip"))

    rollout = s.Rollout.begin(s.FixedGrid.of(toy.schedule, timesteps), solver_of(name), x_T, keys=keys)
    steps = [moved for (moved,) in s.run(model, [rollout])]

    limit = tolerance(f"scheduler {name}/images")
    np.testing.assert_allclose(np.array(steps[-1].x_t), images, rtol=0, atol=limit)
    np.testing.assert_allclose(np.stack([np.array(step.x0[0]) for step in steps]), strip, rtol=0, atol=limit)
    assert model.cost.evaluations == model.cost.passes == len(timesteps) * len(x_T)


def test_thresholds_of_the_check_matter() -> None:
    """The recorded runs contain images whose steps fall back, and images whose steps do not."""
    errors = []
    for name in ("adaptive", "adaptive falls back"):
        toy = toy_of(SCHEDULERS[name][1])
        model = s.GuidedModel(toy, toy.schedule, toy.prediction_type, s.Clipped())
        _, x_T = noise()
        grid = s.FixedGrid.spaced(s.PowerGrid(2.0), toy.schedule, 6)
        steps = [moved for (moved,) in s.run(model, [s.Rollout.begin(grid, solver_of(name), x_T)])]
        assert steps[0].error is None  # nothing to compare with
        assert steps[-1].error is None  # of first order
        errors.append(np.stack([np.array(step.error) for step in steps[1:-1]]))
    assert (errors[0] < 0.5).all()
    assert 0 < (errors[1] > 0.06).mean() < 1


def test_the_learned_policy_is_a_grid(tmp_path) -> None:
    settings = {"clip_sample": True, "prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}
    toy = Toy("v_prediction", beta_schedule="squaredcos_cap_v2")
    for stopping, name in ((False, "policy"), (True, "policy that stops")):
        env = s.TimestepEnv(s.drawing(toy, SHAPE, settings), num_steps=6, stopping=stopping, pictures=2, batches=1)
        policy, prior = s.policy_of(s.random_policy(tmp_path / f"{stopping}.zip", env, stop_at=0.6))
        grid = s.PolicyGrid(s.Residuals(toy.schedule, prior, np.empty(0), stopping), policy)
        model = s.GuidedModel(toy, toy.schedule, "v_prediction")
        _, x_T = noise()
        rollout = s.Rollout.begin(grid, s.DPMSolver(lower_order_final=False), x_T)
        steps = [moved for (moved,) in s.run(model, [rollout])]
        with np.load(RECORDED) as recorded:
            visited = [node.t for node in steps[-1].trail]
            np.testing.assert_allclose(visited, recorded[f"{name}/timesteps"], rtol=0, atol=1e-3)
            np.testing.assert_allclose(np.array(steps[-1].x_t), recorded[f"{name}/images"], rtol=0, atol=1e-5)


def test_half_precision_states_stay_half() -> None:
    toy = Toy("v_prediction", beta_schedule="squaredcos_cap_v2")
    model = s.GuidedModel(toy, toy.schedule, "v_prediction", s.unlimited)
    _, x_T = noise()
    grid = s.FixedGrid.spaced(s.Spaced("linspace", open_end=True), toy.schedule, 5)
    images = s.finished(model, [s.Rollout.begin(grid, s.DPMSolver(), x_T.astype(mx.float16))])
    assert images.dtype == mx.float16
    with np.load(RECORDED) as recorded:
        assert np.array_equal(np.array(images).astype(np.float32), recorded["float16/images"])
