"""Measure a model once, along its own trajectories, and lay grids of timesteps by what was seen.

With s = sigma / alpha, lambda = -log s and the rescaled state xh = x / alpha, the first-order (DDIM) step from one
noise level to another is xh' = (s' / s) xh + (1 - s' / s) D, D being the clean prediction. What a step gets wrong is
what D changes on the way, so both rules here need nothing but D and xh on a fine grid.

Of an error in xh, later steps forget a part: w = sd / sqrt(sd^2 + s^2) is left in the clean image if data are
Gaussian with standard deviation sd. Images have more contrast the lower the frequency, and so an sd for each band of
frequencies: what is wrong at high noise is forgotten in the details, but not in the layout, which is decided there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count
from ..diffusion.guided_model import GuidedModel
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import FixedGrid
from ..grids.spacings import LogSNRGrid
from ..sampling.rollout import Rollout, run
from ..solvers.dpm_solver import DPMSolver

SAME = 1e-5  # standard deviation, in [-1, 1] units, below which images are all the same


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What was seen along a model's trajectories, on m nodes uniform in log-SNR from t = T - 1 to t = 0.

    All are root mean squares over images and pixels, in [-1, 1] units, float64. "Lasting" is what the propagator w,
    at the noise level where the error is made, leaves of it in the clean image.

    Attributes:
        log_snr: (m,) lambda of the nodes, increasing.
        lasting_speed: (m,) g w of the speed g(lambda) = dD / dlambda, by central differences.
        jump_costs: (m + 1, m + 1) lasting difference between one DDIM step from the state at node i to the level of
            node j and the state that the trajectory itself has there, i < j; infinite elsewhere. Node m is the clean
            image.
    """

    log_snr: np.ndarray
    lasting_speed: np.ndarray
    jump_costs: np.ndarray


def measure_trajectory(
    model: GuidedModel,
    x_T: mx.array,
    *,
    nodes: int = 60,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Solve the ODE with DPM-Solver++(2M) on a fine grid and measure how the clean prediction moves.

    Costs `nodes` evaluations per image. All that is kept of a batch are the products of its 2 m arrays xh_i and D_i,
    for each band of frequencies: every measure is a combination of these. (In float64; the states, float32, are less
    exact.)

    Args:
        model: The model, with the conditions of the N images.
        x_T: (N, H, W, C) standard normal noise, N >= 2; some 64 are enough.
        nodes: m in [3, T].
        batch_size: Images per evaluation.
        progress: Called with the number of images after every step of every batch.

    Raises:
        ValueError: for less than two noises, images that are all alike, or a number out of range.
    """
    schedule = model.process
    m = check_count("nodes", nodes, 3, schedule.num_train_timesteps)
    n = check_count("the number of noises", len(x_T), 2)
    timesteps = LogSNRGrid()(schedule, m)
    grid = FixedGrid.of(schedule, timesteps)
    log_snr, alpha = schedule.log_snr(timesteps), schedule.alpha(timesteps)
    bands = frequencies(*x_T.shape[1:])
    products = np.zeros((len(bands), 2 * m, 2 * m))
    total = np.zeros(x_T[0].size)
    squares = np.zeros(x_T[0].size)
    for start in range(0, n, check_count("batch_size", batch_size, 1)):
        rows = np.arange(start, min(start + batch_size, n))
        begun = Rollout.begin(grid, DPMSolver(), x_T[start : start + batch_size], rows=rows)
        x_t, x0 = _solve(model, begun, progress)
        arrays = cosine_transform(np.concatenate([x_t / alpha[:, None, None, None, None], x0]))
        arrays = arrays.reshape(*arrays.shape[:2], -1)  # (2 m, B, H W C)
        for band, where in enumerate(bands):
            part = arrays[:, :, where].reshape(2 * m, -1)
            products[band] += part @ part.T / x_T.size
        total += arrays[-1].sum(axis=0)
        squares += (arrays[-1] ** 2).sum(axis=0)

    variance = np.maximum(squares - total**2 / n, 0) / (n - 1)
    if not np.sqrt(variance.mean()) > SAME:
        raise ValueError(f"the {n} images are all alike: give different noises")

    band_variance = np.array([variance[where].mean() for where in bands])[:, None]
    lasting = band_variance / (band_variance + np.exp(-2 * log_snr))  # (bands, m), w^2
    derivative = np.asarray(np.gradient(np.eye(m), log_snr, axis=0, edge_order=2))  # (m, m), to be applied to the D_i
    speed = np.maximum(((derivative @ products[:, m:, m:]) * derivative).sum(axis=2), 0)  # (bands, m), g^2
    return Trajectory(
        log_snr=log_snr,
        lasting_speed=np.sqrt((speed * lasting).sum(axis=0)),
        jump_costs=_jump_costs(log_snr, products, lasting),
    )


def equidistributed(trajectory: Trajectory, schedule: NoiseSchedule, n: int) -> np.ndarray:
    """The grid on which every step contributes the same to the error of the clean image.

    A first-order step of h in lambda errs by about h^2 g / 2, of which w lasts; steps with equal integrals of
    (g w)^(1 / (p + 1)), p = 1, make the errors equal (de Boor, 1973). Of the n + 1 quantiles the last one, t = 0, is
    left out: there the clean image takes its place.

    Args:
        trajectory: What was measured.
        schedule: The noise schedule of the model, T timesteps.
        n: Number of steps, in [1, T].

    Returns:
        (n,) float64 timesteps, strictly decreasing from T - 1.

    Raises:
        ValueError: for `n` out of range.
    """
    check_count("num_inference_steps", n, 1, schedule.num_train_timesteps)
    log_snr = trajectory.log_snr
    return schedule.timestep(equal_parts(log_snr, trajectory.lasting_speed, n))


def equal_parts(log_snr: np.ndarray, lasting_speed: np.ndarray, n: int) -> np.ndarray:
    """(n,) values of log-SNR, from the first on, between which the integral of the root of the speed is the same.

    Args:
        log_snr: (m,) increasing.
        lasting_speed: (m,) g w there, see `Trajectory`.
        n: Number of steps, >= 1.
    """
    density = np.sqrt(lasting_speed)
    integral = np.append(0.0, np.cumsum(np.diff(log_snr) * (density[1:] + density[:-1]) / 2))
    return np.interp(np.arange(n) / n * integral[-1], integral, log_snr)


def dynamic_programme(trajectory: Trajectory, schedule: NoiseSchedule, n: int) -> np.ndarray:
    """The nodes on which n first-order jumps to the clean image cost least together (GITS; Chen et al., 2024).

    A jump costs the lasting error to the power 1.5, which imitates a second-order solver: its local error falls with
    the third power of the step, not the second. (In the paper the whole error counts, whether it lasts or not.)

    Args:
        trajectory: What was measured, on m nodes.
        schedule: The noise schedule of the model.
        n: Number of steps, in [1, m].

    Returns:
        (n,) float64 timesteps, strictly decreasing from T - 1.

    Raises:
        ValueError: for a value out of range.
    """
    log_snr = trajectory.log_snr
    check_count("num_inference_steps", n, 1, len(log_snr))
    costs = trajectory.jump_costs**1.5
    best = np.append(0.0, np.full(len(log_snr), np.inf))  # cost of the cheapest way to each node, by jumps so far
    origins = []
    for _ in range(n):
        ways = best[:, None] + costs
        origins.append(ways.argmin(axis=0))
        best = ways.min(axis=0)

    path = [len(log_snr)]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return schedule.timestep(log_snr[path[:0:-1]])


def _solve(model: GuidedModel, begun: Rollout, progress: Callable[[int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """(m, B, H, W, C) float64 states x_t at the nodes, and the clean predictions there."""
    states, predictions = [np.array(begun.x_t, np.float64)], list[np.ndarray]()
    for (after,) in run(model, [begun]):
        assert after.x0 is not None
        states.append(np.array(after.x_t, np.float64))
        predictions.append(np.array(after.x0, np.float64))
        if progress is not None:
            progress(len(begun.rows))
    return np.stack(states[:-1]), np.stack(predictions)


def _jump_costs(log_snr: np.ndarray, products: np.ndarray, lasting: np.ndarray) -> np.ndarray:
    """(m + 1, m + 1) costs as in `Trajectory`, from each band's products of [xh; D] and its w^2."""
    m = len(log_snr)
    squares = np.zeros((m, m + 1))
    for band, shares in zip(products, lasting, strict=True):
        squares += np.append(shares, 1.0) * _jump_squares(np.exp(-log_snr), band)
    i, j = np.triu_indices(m + 1, 1)
    costs = np.full((m + 1, m + 1), np.inf)
    costs[i, j] = np.sqrt(np.maximum(squares[i, j], 0))  # rounding can make a square negative
    return costs


def _jump_squares(s: np.ndarray, products: np.ndarray) -> np.ndarray:
    """(m, m + 1) squares of xh_j - (s_j / s_i) xh_i - (1 - s_j / s_i) D_i, by the products of [xh; D]."""
    m = len(s)
    left = np.append(s, 0.0) / s[:, None]  # (m, m + 1), s_j / s_i
    ends = np.append(np.arange(m), 2 * m - 1)  # the trajectory ends in the clean prediction of its last node
    own = np.diag(products)
    state, clean, both = own[:m, None], own[m:, None], np.diag(products, m)[:, None]  # xh_i^2, D_i^2, xh_i D_i
    return (
        own[ends]
        - 2 * left * products[:m, ends]
        - 2 * (1 - left) * products[m:, ends]
        + left**2 * state
        + (1 - left) ** 2 * clean
        + 2 * left * (1 - left) * both
    )


def frequencies(height: int, width: int, channels: int) -> list[np.ndarray]:
    """Positions in the flat cosine transform of an image that share a whole-numbered radius and a channel."""
    y, x = np.mgrid[:height, :width]
    radius = np.rint(np.hypot(y / height, x / width) * min(height, width)).astype(int)
    band = (radius[..., None] * channels + np.arange(channels)).reshape(-1)
    return [np.flatnonzero(band == name) for name in np.unique(band)]


def cosine_transform(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, C) -> the same shape, orthonormal DCT-II of each; that of three colours is grey and two opponents."""
    for axis in (-3, -2, -1):
        n = pictures.shape[axis]
        basis = np.sqrt(2 / n) * np.cos(np.pi / n * np.outer(np.arange(n), np.arange(n) + 0.5))
        basis[0] /= np.sqrt(2)
        pictures = np.moveaxis(np.moveaxis(pictures, axis, -1) @ basis.T, -1, axis)
    return pictures
