"""The converged solution: really converged, the same for every batch size, kept and refined."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from gaussian import ode_solution, predict

from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.spacings import BlendedGrid
from adaptive_diffusion.sampling import converged
from adaptive_diffusion.sampling.converged import converged_pictures, paired_rmse
from adaptive_diffusion.schedulers.classes import DDIMScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import IPNDMScheduler

STD = 0.1  # so small that clipping to [-1, 1] changes nothing, and the solution is known
X_T = normal(image_keys(0, range(6)), (4, 4, 3))


class Gaussian:
    """The exact denoiser of N(0, STD^2), which counts the images it is asked about."""

    def __init__(self, scheduler):
        self.scheduler, self.evaluations = scheduler, 0

    def __call__(self, x, t, condition=None):
        self.evaluations += len(x)
        return mx.array(predict(self.scheduler, float(t[0]), np.array(x, np.float64), std=STD), mx.float32)


@pytest.fixture
def model():
    return Gaussian(DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"))


def guided(model, network=None, **more):
    """What is drawn, as the loop takes it."""
    scheduler = model.scheduler
    return GuidedModel(network or model, scheduler.schedule, scheduler.prediction_type, **more)


def exact(model):
    """The ODE's solution at timestep 0, the last the model knows, and its clean prediction there."""
    schedule = model.scheduler.schedule
    scheduler = SimpleNamespace(schedule=schedule, timesteps=[999.0], prediction_type="sample")
    x_0 = ode_solution(scheduler, np.array(X_T, np.float64), 0.0, std=STD)
    return predict(scheduler, 0.0, x_0, std=STD)


@pytest.mark.parametrize("tolerance", [3e-3, 3e-4, 1e-4])
def test_it_is_as_near_to_the_exact_solution_as_the_tolerance_says(model, tolerance):
    found = converged_pictures(guided(model), X_T, tolerance=tolerance)
    assert found.change == pytest.approx(paired_rmse(found.images, found.finer).mean())
    assert found.change <= tolerance
    assert paired_rmse(found.images, exact(model)).max() <= tolerance
    assert np.abs(exact(model)).max() < 1


def test_it_doubles_the_steps_until_the_tolerance_or_the_limit(model):
    rough = converged_pictures(guided(model), X_T, tolerance=1)
    assert (rough.steps, model.evaluations) == (64, 6 * (64 + 128))
    fine = converged_pictures(guided(model), X_T, tolerance=1e-9, most_steps=300)
    assert fine.steps == 128
    assert fine.change > 1e-9
    few = converged_pictures(guided(model), X_T, tolerance=1e-9, most_steps=8)
    assert few.steps == 4


def test_only_the_first_pictures_are_checked_and_not_solved_twice(model, monkeypatch):
    monkeypatch.setattr(converged, "CHECKED", 2)
    rough = converged_pictures(guided(model), X_T, tolerance=1)
    assert (rough.steps, len(rough.finer), model.evaluations) == (64, 2, 6 * 64 + 2 * 128)
    model.evaluations = 0
    fine = converged_pictures(guided(model), X_T, tolerance=rough.change * 0.99, most_steps=256)
    assert (fine.steps, model.evaluations) == (128, 6 * 64 + 2 * 128 + 4 * 128 + 2 * 256)
    np.testing.assert_array_equal(fine.images[:2], rough.finer)
    np.testing.assert_allclose(fine.images, exact(model), atol=fine.change + 1e-4)


def test_it_is_ipndm_on_the_blended_grid_down_to_zero_whatever_the_scheduler(model):
    from gaussian import run

    solver = IPNDMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    solver.set_timesteps(timesteps=[*BlendedGrid()(solver.schedule, 63), 0.0])
    found = converged_pictures(guided(model), X_T, tolerance=1)
    np.testing.assert_allclose(found.images, run(solver, np.array(X_T), std=STD), atol=1e-5)


def test_pictures_and_conditions_are_taken_in_batches(model):
    seen = []

    def conditional(x, t, condition):
        seen.append(np.array(condition)[:, 0].tolist())
        return model(x, t)

    condition = mx.arange(6)[:, None]
    whole = converged_pictures(guided(model), X_T, tolerance=1)
    parts = converged_pictures(guided(model, conditional, condition=condition), X_T, tolerance=1, batch_size=4)
    np.testing.assert_allclose(parts.images, whole.images, atol=1e-6)
    assert seen[0] == [0, 1, 2, 3]
    assert seen[64] == [4, 5]  # after the 64 steps of the first four


def test_a_solution_is_kept_refined_when_a_smaller_tolerance_asks_for_it_and_told_from_others(model, tmp_path):
    def solve(x_T=X_T, identity="model a", **options):
        before = model.evaluations
        given = {"cache": tmp_path, "tolerance": 1, **options}
        return converged_pictures(guided(model, identity=identity), x_T, **given), (model.evaluations - before) / len(
            x_T
        )

    first, cost = solve()
    assert cost == 64 + 128
    again, cost = solve()
    assert cost == 0
    np.testing.assert_array_equal(again.images, first.images)
    refined, cost = solve(tolerance=first.change * 0.99)
    assert cost == 256
    np.testing.assert_array_equal(refined.images, first.finer)
    assert solve()[0].steps == 128
    assert len(list(tmp_path.iterdir())) == 1
    for other in ({"identity": "model b"}, {"x_T": X_T[:3]}, {"x_T": X_T + 1}):
        assert solve(**other)[1] == 64 + 128
    damaged = sorted(tmp_path.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    costs = [solve(**o)[1] for o in ({}, {"identity": "model b"}, {"x_T": X_T[:3]}, {"x_T": X_T + 1})]
    assert sorted(costs) == [0, 0, 0, 192]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"tolerance": 0}, "tolerance must be greater than 0"), ({"cache": "x"}, "needs an identity")],
)
def test_what_cannot_work_is_refused(model, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        converged_pictures(guided(model), X_T, **options)
