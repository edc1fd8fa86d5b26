"""The loop: images at different nodes share evaluations, leave when they like, and do not depend on each other."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion import Denoised, GuidedModel, Waiting
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids import FixedGrid
from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.sampling.rollout import InBatches, Rollout, finished, run
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.solvers import DDPM, IPNDM, Checked, DPMSolver, Stride, UniPC

SHAPE = (4, 4, 3)
SCHEDULE = NoiseSchedule(beta_schedule="squaredcos_cap_v2")


def network(x: mx.array, t: mx.array, condition: mx.array | None) -> mx.array:
    """x0 of something bimodal, moved by the condition."""
    shift = 0.0 if condition is None else 0.1 * condition.astype(mx.float32).reshape(-1, 1, 1, 1)
    return 0.5 * mx.tanh(2 * x) + shift


def model(condition: mx.array | None = None) -> GuidedModel:
    return GuidedModel(network, SCHEDULE, "sample", condition=condition)


def begin(n: int, solver, rows=(0, 1, 2), seed: int = 2) -> Rollout:
    keys = image_keys(seed, rows)
    grid = FixedGrid.spaced(PowerGrid(2), SCHEDULE, n)
    return Rollout.begin(grid, solver, normal(keys, SHAPE), rows=np.array(rows), keys=keys)


def test_rollouts_of_several_lengths_and_solvers_share_evaluations() -> None:
    counted = model(mx.array([[0], [1], [2], [3]]))
    rollouts = [begin(3, UniPC(), rows=(0, 2)), begin(5, DDPM(), rows=(1,)), begin(1, IPNDM(), rows=(3,))]
    sizes = [[len(r.rows) for r in moved] for moved in run(counted, rollouts)]
    assert sizes == [[2, 1, 1], [2, 1], [2, 1], [1], [1]]
    assert counted.cost.evaluations == 2 * 3 + 5 + 1

    together = np.array(finished(counted, rollouts))
    for rollout in rollouts:
        alone = [moved for (moved,) in run(counted, [rollout])][-1]
        np.testing.assert_allclose(together[rollout.rows], np.array(alone.x_t), rtol=0, atol=1e-6)


def test_a_rollout_does_not_change() -> None:
    rollout = begin(4, DPMSolver())
    first, again = np.array(finished(model(), [rollout])), np.array(finished(model(), [rollout]))
    assert np.array_equal(first, again)
    assert rollout.trail == ()
    assert not rollout.done


@pytest.mark.parametrize("solver", [UniPC(3), IPNDM(), DPMSolver(3), DDPM(), Checked(DPMSolver(2), 0.1)], ids=str)
def test_images_that_leave_do_not_disturb_those_that_stay(solver) -> None:
    def leave(before: Rollout, denoised: Denoised, after: Rollout) -> list[Rollout]:
        if len(before.trail) != 2:
            return [after]
        gone = after.select(np.array([1])).end(denoised.x0[1:2])
        return [after.select(np.array([True, False, True])), gone]

    everyone = np.array(finished(model(), [begin(6, solver)]))
    some = np.array(finished(model(), [begin(6, solver)], leave))
    np.testing.assert_allclose(some[[0, 2]], everyone[[0, 2]], rtol=0, atol=1e-6)
    assert np.abs(some[1] - everyone[1]).max() > 1e-3


def test_images_go_another_way_from_where_they_were_seen() -> None:
    """What a `decide` is for: from the node before, with the same evaluation, on another grid with another solver."""
    short = FixedGrid.of(SCHEDULE, [*PowerGrid(2)(SCHEDULE, 8)[:3], 30.0])

    def shorten(before: Rollout, denoised: Denoised, after: Rollout) -> list[Rollout]:
        if len(before.trail) != 2 or len(before.rows) < 3:
            return [after]
        assert before.x0 is not None
        other = before.go_on(short, Stride(), (before.x0,)).step(denoised)
        return [after.select(np.array([0, 2])), other.select(np.array([1]))]

    lengths = {}
    for moved in run(model(), [begin(8, DPMSolver())], shorten):
        for rollout in moved:
            lengths |= dict.fromkeys(rollout.rows.tolist(), len(rollout.trail))
    assert lengths == {0: 8, 1: 4, 2: 8}


def test_noise_is_of_the_image_and_not_of_its_batch() -> None:
    together = np.array(finished(model(), [begin(5, DDPM(), rows=(0, 1, 2))]))
    alone = replace(begin(5, DDPM(), rows=(1,)), rows=np.array([0]))
    np.testing.assert_allclose(together[1:2], np.array(finished(model(), [alone])), rtol=0, atol=1e-6)


def test_noise_without_keys_is_refused() -> None:
    rollout = replace(begin(3, DDPM()), keys=None)
    with pytest.raises(ValueError, match="DDPM adds noise"):
        rollout.step(model().denoise(rollout.x_t, rollout.node, rollout.rows))


def test_batches_of_a_model_change_nothing_but_their_number() -> None:
    counted: list[int] = []
    rollout = begin(4, UniPC(), rows=range(7))
    condition = mx.arange(7)[:, None]
    whole = np.array(finished(model(condition), [rollout]))
    parts = np.array(finished(InBatches(model(condition), 3, counted.append), [rollout]))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)
    assert counted == [3, 3, 1] * 4


def test_images_at_their_end_are_not_evaluated() -> None:
    class Refuses:
        def denoise_all(self, waiting: list[Waiting]) -> list[Denoised]:
            raise AssertionError("evaluated")

    ended = begin(3, DPMSolver()).end(mx.zeros((3, *SHAPE)))
    assert list(run(Refuses(), [ended])) == []


def test_a_sampler_refuses_a_scheduler_that_no_loop_can_take_apart() -> None:
    with pytest.raises(ValueError, match="made of a grid and a solver, such as a SchedulerBase, got object"):
        StandardSampler(object())  # type: ignore[arg-type]
