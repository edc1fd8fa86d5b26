"""What drawing costs, as ratios within one run: nothing here depends on how fast the machine is.

Times are the shortest of several, taken in turn, so that whatever else the machine does strikes both sides; on a CPU
they are this process's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx
import pytest
from shipped import Shipped

from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DDIMScheduler

REPEATS = 3
STEPS = 4
ALL = slice(None)


@pytest.fixture(scope="module")
def landscapes() -> Shipped:
    return Shipped(["landscapes"] * 4)


def ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Time of `one` over that of `other`."""
    clock = time.process_time if mx.default_device() == mx.cpu else time.perf_counter
    shortest = [float("inf")] * 2
    for _ in range(REPEATS):
        for i, run in enumerate((one, other)):
            start = clock()
            run()
            shortest[i] = min(shortest[i], clock() - start)
    return shortest[0] / shortest[1]


def drawing(
    shipped: Shipped, some: slice = ALL, sampler: type[StandardSampler] = StandardSampler
) -> Callable[[], object]:
    """Draws some of the images in few calibrated steps."""

    def draw() -> object:
        loop = sampler(shipped.adaptive(STEPS, shipped.domains[0]))
        return loop.run(shipped, shipped.x_T[some], condition=shipped.condition[some])

    return draw


def test_eight_calibrated_steps_cost_a_sixth_of_fifty_of_ddim_and_are_nearer_to_the_converged_solution():
    shipped = Shipped(["portraits", "portraits"])
    costs, errors = [], []
    for scheduler in (shipped.adaptive(8, "portraits"), shipped.classical(DDIMScheduler, PowerGrid(1), 50)):
        before = shipped.evaluations
        errors.append(shipped.errors(scheduler))
        costs.append(shipped.evaluations - before)
    assert costs == [8 * 2, 50 * 2]
    assert errors[0].mean() < errors[1].mean()


def test_the_loop_costs_little_beside_the_network(landscapes):
    timesteps = landscapes.adaptive(STEPS, "landscapes").timesteps

    def bare() -> None:
        for t in timesteps:
            mx.eval(landscapes(landscapes.x_T, mx.full((4,), float(t)), landscapes.condition))

    assert ratio(drawing(landscapes), bare) < 1.5


def test_the_solver_of_the_adaptive_scheduler_costs_no_more_than_that_of_ddim(landscapes):
    def ddim() -> None:
        scheduler = landscapes.classical(DDIMScheduler, PowerGrid(1), STEPS)
        StandardSampler(scheduler).run(landscapes, landscapes.x_T, condition=landscapes.condition)

    assert ratio(drawing(landscapes), ddim) < 1.5


def test_an_image_of_a_batch_costs_no_more_than_one_drawn_alone(landscapes):
    alone = [drawing(landscapes, slice(i, i + 1)) for i in range(4)]
    assert ratio(drawing(landscapes), lambda: [draw() for draw in alone]) < 1.3


def test_estimating_quality_costs_little(landscapes):
    assert ratio(drawing(landscapes, sampler=QualityGuidedSampler), drawing(landscapes)) < 1.5
