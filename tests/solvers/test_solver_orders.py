"""Convergence of the solvers on Gaussian data, whose ODE is known in closed form, and what their steps keep to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion import CLEAN, Clipped, Denoised, Node, Waiting, nodes_at
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids import FixedGrid
from adaptive_diffusion.sampling.rollout import Rollout, run
from adaptive_diffusion.solvers import DDIM, DDPM, IPNDM, Checked, DPMSolver, Fitted, Position, Solver, Stride, UniPC

MEAN, STD = 0.3, 0.5
SCHEDULE = NoiseSchedule(beta_schedule="squaredcos_cap_v2")
X = np.linspace(-2, 2, 12).reshape(1, 2, 2, 3)


class Gaussian:
    """N(MEAN, STD^2) for each pixel, in float64: D = MEAN + STD^2 / (STD^2 + s^2) (xh - MEAN), s = sigma / alpha."""

    def denoise_all(self, waiting: Sequence[Waiting]) -> list[Denoised]:
        return [self.denoised(some.x_t, some.node) for some in waiting]

    @staticmethod
    def denoised(x_t: mx.array, node: Node) -> Denoised:
        x0 = MEAN + STD**2 / (STD**2 + node.level**2) * (x_t / node.alpha - MEAN)
        return Denoised(x0, (x_t - node.alpha * x0) / node.sigma)


def truth(x: np.ndarray, begin: Node, end: Node) -> np.ndarray:
    """Along the ODE (xh - MEAN) / sqrt(STD^2 + s^2) stays as it is."""
    scale = math.sqrt((STD**2 + end.level**2) / (STD**2 + begin.level**2))
    return end.alpha * (MEAN + (x / begin.alpha - MEAN) * scale)


def states(solver: Solver, nodes: Sequence[Node]) -> list[np.ndarray]:
    """The states at each of the nodes, and the clean image."""
    with mx.stream(mx.cpu):  # float64 exists on the CPU only
        rollout = Rollout.begin(FixedGrid(tuple(nodes)), solver, mx.array(X, mx.float64))
        return [X, *(np.array(moved.x_t) for (moved,) in run(Gaussian(), [rollout]))]


def error(solver: Solver, n: int, last: float = 0.0) -> float:
    """RMSE after n steps of equal log-SNR, down to `last`."""
    ends = SCHEDULE.log_snr([999, last])
    nodes = nodes_at(SCHEDULE, SCHEDULE.timestep(np.linspace(*ends, n + 1)))
    return float(np.sqrt(np.mean((states(solver, nodes)[-2] - truth(X, nodes[0], nodes[-1])) ** 2)))


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (DDIM(), 1),
        (DPMSolver(1), 1),
        (DPMSolver(2), 2),
        (DPMSolver(2, "heun"), 2),
        (DPMSolver(2, "adams"), 2),
        (DPMSolver(3), 2),  # as published it has half the weight of the quadratic term
        (DPMSolver(3, "adams"), 3),
        (UniPC(1), 2),  # the corrector raises the order by one
        (UniPC(2, "bh1"), 3),
        (UniPC(3, lower_order_final=False), 3),  # 4 where its start, of lower order, counts little
        (IPNDM(), 2),
        (Checked(DPMSolver(2), 1.0), 2),
        (Stride(), 2),
    ],
    ids=str,
)
def test_halving_the_steps_divides_the_error_by_two_to_the_order(solver: Solver, order: int) -> None:
    errors = [error(solver, n) for n in (60, 120, 240)]
    observed = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (observed > order - 0.35).all(), observed
    assert order >= 3 or (observed < order + 0.35).all(), observed


def test_a_threshold_of_0_leaves_the_first_order() -> None:
    nodes = nodes_at(SCHEDULE, [999, 700, 400, 100])
    for checked, first in zip(states(Checked(DPMSolver(), 0.0), nodes), states(DPMSolver(1), nodes), strict=True):
        assert np.array_equal(checked, first)


@pytest.mark.parametrize("solver", [DDIM(), DPMSolver(3), IPNDM(), Checked(DPMSolver())], ids=str)
def test_the_last_step_leads_to_the_clean_prediction(solver: Solver) -> None:
    nodes = nodes_at(SCHEDULE, [999, 640, 270, 40])
    *_, before, image = states(solver, nodes)
    np.testing.assert_allclose(image, np.array(Gaussian.denoised(mx.array(before), nodes[-1]).x0), atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "left", "orders"),
    [
        (DPMSolver(3), 6, [1, 2, 3, 3, 2, 1]),
        (DPMSolver(3, lower_order_final=False), 6, [1, 2, 3, 3, 3, 3]),
        (DPMSolver(3, lower_order_final=False, euler_at_final=True), 6, [1, 2, 3, 3, 3, 1]),
        (DPMSolver(3), None, [1, 2, 3, 3, 3, 3]),  # the grid does not know its end
        (DPMSolver(3), 15, [1, 2, 3, 3, 3, 3]),
        (UniPC(3), 6, [1, 2, 3, 3, 2, 1]),
        (UniPC(3, lower_order_final=False), 6, [1, 2, 3, 3, 3, 3]),
        (UniPC(3), None, [1, 2, 3, 3, 3, 3]),
    ],
)
def test_the_order_falls_towards_an_end_that_is_known(solver: Solver, left: int | None, orders: list[int]) -> None:
    nodes, memory, taken = nodes_at(SCHEDULE, np.linspace(999, 1, 16)), (), []
    x = mx.array(X.astype(np.float32))
    for i in range(6):
        at = Position(nodes[: i + 1], nodes[i + 1], x, x, x, None if left is None else left - i)
        step = solver.step(at, memory)
        memory, _ = step.memory, taken.append(step.order)
    assert taken == orders
    assert solver.step(at._replace(then=CLEAN), memory).order == 1


def test_ddpm_and_ddim_add_the_noise_of_their_formulas() -> None:
    now, then = nodes_at(SCHEDULE, [600, 300])
    x = mx.array(X.astype(np.float32))
    beta = 1 - (now.alpha / then.alpha) ** 2
    at = Position([now], then, x, x, x)
    posterior = math.sqrt(beta * (then.sigma / now.sigma) ** 2)
    assert DDPM().step(at, ()).std == pytest.approx(posterior)
    assert DDIM(1.0).step(at, ()).std == pytest.approx(posterior)  # Song et al., 2021: eta 1 is DDPM
    assert DDIM(0.4).step(at, ()).std == pytest.approx(0.4 * posterior)
    assert DDPM("fixed_large").step(at, ()).std == pytest.approx(math.sqrt(beta))
    assert DDPM("fixed_large").step(at._replace(then=CLEAN), ()).std == 0
    h = then.log_snr - now.log_snr
    assert DPMSolver(stochastic=True).step(at, ()).std == pytest.approx(then.sigma * math.sqrt(-math.expm1(-2 * h)))


def test_ddim_takes_eps_from_the_networks_own_output() -> None:
    now, then = nodes_at(SCHEDULE, [600, 300])
    x = mx.array(X.astype(np.float32))
    at = Position([now], then, x, mx.clip(x, -0.5, 0.5), 0.25 * x)
    expected = then.alpha * np.clip(X, -0.5, 0.5) + then.sigma * 0.25 * X
    np.testing.assert_allclose(np.array(DDIM().step(at, ()).mean), expected, atol=1e-6)
    clipped = then.alpha * np.clip(X, -0.5, 0.5) + then.sigma * (X - now.alpha * np.clip(X, -0.5, 0.5)) / now.sigma
    np.testing.assert_allclose(np.array(DDIM(clipped_eps=True).step(at, ()).mean), clipped, atol=1e-6)


def test_fitted_steps_are_combinations_of_the_state_and_the_predictions() -> None:
    nodes = nodes_at(SCHEDULE, [999, 500, 100])
    rows = np.array([[0.5, 0.6, 0.0, 0.0], [0.4, 0.7, -0.1, 0.0], [0.3, 3.0, -0.2, 0.1]])
    solver = Fitted(rows, Clipped(0.9))
    seen = states(solver, nodes)
    x0s: list[np.ndarray] = []
    for i, (node, then) in enumerate(zip(nodes, (*nodes[1:], CLEAN), strict=True)):
        x0s.insert(0, np.array(Gaussian.denoised(mx.array(seen[i], mx.float64), node).x0))
        expected = rows[i, 0] * seen[i] / node.alpha + sum(w * x0 for w, x0 in zip(rows[i, 1:], x0s, strict=False))
        expected = np.clip(expected, -0.9, 0.9) if then is CLEAN else then.alpha * expected
        np.testing.assert_allclose(seen[i + 1], expected, rtol=0, atol=1e-6)
    assert np.abs(seen[-1]).max() == pytest.approx(0.9)


@pytest.mark.parametrize("begin", [1, 2, 3])
def test_a_fitted_run_from_the_middle_is_another_solvers(begin: int) -> None:
    nodes = (*nodes_at(SCHEDULE, [999, 800, 600, 500, 300, 100, 50]), CLEAN)
    solvers = Fitted(np.full((7, 5), 0.3)), DPMSolver()
    states, memories = [mx.array(X.astype(np.float32))] * 2, [(), ()]
    for i in range(begin, 7):
        for k, solver in enumerate(solvers):
            at = Position(nodes[: i + 1], nodes[i + 1], states[k], 0.5 * states[k], states[k], 7 - i)
            states[k], _, memories[k], *_ = solver.step(at, memories[k])
        assert np.array_equal(*map(np.array, states))


def test_a_stride_is_exact_for_a_prediction_linear_in_the_noise_level() -> None:
    """With D = c + d s the ODE dxh / ds = (xh - D) / s has the solution xh = c + e s - d s log s."""
    c, d, e = 0.2, -0.4, 1.3

    def state(node: Node) -> float:
        s = node.level
        return node.alpha * (c + e * s - d * s * (math.log(s) if s else 0.0))

    nodes = nodes_at(SCHEDULE, [800, 600, 350])
    x0s = [mx.full((1, 2, 2, 3), c + d * node.level) for node in nodes]
    at = Position(nodes[:2], nodes[2], mx.full((1, 2, 2, 3), state(nodes[1])), x0s[1], x0s[1])
    assert np.array(Stride().step(at, (x0s[0],)).mean)[0, 0, 0, 0] == pytest.approx(state(nodes[2]), abs=1e-6)
    at = Position(nodes, CLEAN, mx.full((1, 2, 2, 3), state(nodes[2])), x0s[2], x0s[2])
    assert np.array(Stride().step(at, (x0s[1],)).mean)[0, 0, 0, 0] == pytest.approx(c, abs=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DDIM(1.5),
        lambda: DDPM("large"),
        lambda: DPMSolver(4),
        lambda: DPMSolver(kind="euler"),
        lambda: UniPC(0),
        lambda: UniPC(kind="bh3"),
        lambda: Checked(DPMSolver(), -0.1),
    ],
)
def test_values_out_of_range_are_refused(build) -> None:
    with pytest.raises(ValueError, match="must be"):
        build()
