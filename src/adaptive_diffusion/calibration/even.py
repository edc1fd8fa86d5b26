"""A grid of equal errors, laid on recorded reference trajectories without any further evaluation of the network.

It is that of `trajectory.equidistributed`: steps in which the clean prediction moves alike, each frequency counting
as far as a movement of it lasts. The derivative comes from the recorded predictions, between the nodes by a cubic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..diffusion.schedule import NoiseSchedule
from .reference import ReferenceTrajectories
from .trajectory import cosine_transform, equal_parts, frequencies

POINTS = 121  # in log-SNR, at which the speed is taken


@dataclass(frozen=True, eq=False)
class EvenGrid:
    """Timesteps between which first-order steps err alike; see `Spacing`.

    Attributes:
        log_snr: (k,) where the speed is known, increasing.
        lasting_speed: (k,) g w of `trajectory.Trajectory` there.
    """

    log_snr: np.ndarray
    lasting_speed: np.ndarray

    @classmethod
    def of(cls, reference: ReferenceTrajectories) -> EvenGrid:
        """Measured on trajectories of at least two images on at least four nodes."""
        log_snr = np.linspace(-np.log(reference.levels[0]), -np.log(reference.levels[-1]), POINTS)
        return cls(log_snr, _lasting_speed(reference, log_snr))

    def __call__(self, process: NoiseSchedule, n: int, /) -> np.ndarray:
        """(n,) timesteps from T - 1 on, n >= 1."""
        nodes = equal_parts(self.log_snr, self.lasting_speed, n)
        return np.append(process.num_train_timesteps - 1.0, process.timestep(nodes[1:]))


def _lasting_speed(reference: ReferenceTrajectories, log_snr: np.ndarray) -> np.ndarray:
    """(k,) g w of `trajectory.Trajectory` at k values of log-SNR."""
    shape = reference.predictions.shape
    predictions = cosine_transform(reference.predictions.astype(np.float64)).reshape(*shape[:2], -1)
    variance = predictions[-1].var(axis=0, ddof=1)
    slopes = np.gradient(_cubic(-np.log(reference.levels), log_snr), log_snr, axis=0, edge_order=2)

    squares = np.zeros(len(log_snr))
    for where in frequencies(*shape[2:]):
        band = predictions[:, :, where].reshape(len(predictions), -1)
        speed = np.einsum("ki,ij,kj->k", slopes, band @ band.T, slopes)
        mean_variance = variance[where].mean()
        squares += np.maximum(speed, 0) * mean_variance / (mean_variance + np.exp(-2 * log_snr))
    return np.sqrt(squares)


def _cubic(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(k, m) coefficients of Lagrange's cubic through the four nearest of m increasing nodes, at k places."""
    result = np.zeros((len(at), len(nodes)))
    for row, x in zip(result, at, strict=True):
        first = int(np.clip(np.searchsorted(nodes, x) - 2, 0, len(nodes) - 4))
        near = nodes[first : first + 4]
        for j, node in enumerate(near):
            others = np.delete(near, j)
            row[first + j] = np.prod((x - others) / (node - others))
    return result
