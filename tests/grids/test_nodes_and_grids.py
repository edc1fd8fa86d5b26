"""Grids: fixed ones answer their nodes and then CLEAN, and a policy's are chosen from what is seen."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids import CLEAN, FixedGrid, PolicyGrid, Residuals, Spaced, node_at
from adaptive_diffusion.grids.spacings import BlendedGrid, PowerGrid
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler

SCHEDULE = NoiseSchedule(beta_schedule="squaredcos_cap_v2")


def test_a_node_has_the_scales_of_its_timestep() -> None:
    node = node_at(SCHEDULE, 412.5)
    assert node.t == 412.5
    assert node.alpha**2 + node.sigma**2 == pytest.approx(1)
    assert node.log_snr == pytest.approx(math.log(node.alpha / node.sigma))
    assert node.level == pytest.approx(math.exp(-node.log_snr))
    assert not node.clean
    assert CLEAN.clean
    assert CLEAN.level == 0


def test_a_fixed_grid_answers_its_nodes_and_then_clean() -> None:
    grid = FixedGrid.spaced(PowerGrid(2), SCHEDULE, 4)
    assert grid.steps == 4
    np.testing.assert_allclose(grid.timesteps, 999 * (1 - np.arange(4) / 4) ** 2)
    trail: list = []
    while not (node := grid.next(trail)[0]).clean:
        trail.append(node)
    assert tuple(trail) == grid.nodes
    assert node is CLEAN


def test_spaced_timesteps_are_those_of_diffusers_schedulers() -> None:
    for spacing in ("leading", "linspace", "trailing"):
        scheduler = DPMSolverScheduler(
            timestep_spacing=spacing, steps_offset=1, lambda_min_clipped=-5.1, beta_schedule="squaredcos_cap_v2"
        )
        scheduler.set_timesteps(9)
        grid = FixedGrid.spaced(Spaced(spacing, 1, open_end=True, lowest_log_snr=-5.1), SCHEDULE, 9)
        assert np.array_equal(grid.timesteps, scheduler.timesteps)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FixedGrid(()), "at least one node"),
        (lambda: FixedGrid.of(SCHEDULE, [10, 500]), "must decrease"),
        (lambda: FixedGrid.spaced(lambda process, n: np.linspace(999, 0, n + 1), SCHEDULE, 8), "must give 8 timesteps"),
        (lambda: Spaced("even"), "timestep_spacing"),
        (lambda: Spaced(offset=-1), "steps_offset"),
        (lambda: Spaced()(SCHEDULE, 1001), "num_inference_steps"),
    ],
)
def test_grids_that_make_no_sense_are_refused(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_actions_of_0_lead_along_the_prior() -> None:
    prior = BlendedGrid()(SCHEDULE, 6)
    residuals = Residuals(SCHEDULE, prior, np.array([1.0, 0.0]))
    grid = PolicyGrid(residuals, lambda observation: np.zeros(1))
    x0, trail, memory = mx.ones((2, 4, 4, 3)), [], ()
    node, memory = grid.next(trail, None, ())
    while not node.clean:
        trail.append(node)
        node, memory = grid.next(trail, x0 / len(trail), memory)
        assert len(memory) <= 2
    np.testing.assert_allclose([node.t for node in trail], prior, rtol=1e-5)
    assert grid.steps == 6


def test_a_policy_that_stops_answers_clean() -> None:
    residuals = Residuals(SCHEDULE, PowerGrid(2)(SCHEDULE, 6), np.empty(0), stopping=True)
    grid = PolicyGrid(residuals, lambda seen: np.array([0.0, 1.0 if seen[0] > 0.4 else -1.0]))
    x0, trail, memory = mx.ones((2, 4, 4, 3)), [], ()
    node, memory = grid.next(trail, None, ())
    while not node.clean:
        trail.append(node)
        node, memory = grid.next(trail, x0, memory)
    assert len(trail) == 3  # of 6: the first share above 0.4 is 3 / 6
    assert grid.steps is None
