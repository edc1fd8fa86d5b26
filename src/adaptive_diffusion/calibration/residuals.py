"""Grids laid by what fitted steps would get wrong, read off recorded reference trajectories without the network.

A fitted step is a linear combination of the state and the latest clean predictions (see `fitting`). All of these lie on
the reference trajectory, and between its nodes they are linear combinations of what was recorded there. So the best
weights of any step between any two noise levels, and what they miss, follow from the products of the recorded arrays
with each other: (2 m, 2 m) numbers for m nodes. A grid is judged in a millisecond, and thousands of them in seconds.

Of what a step misses, later steps forget a part: w^2 = v / (v + s^2) of its square lasts from the noise level s, where
data are Gaussian with variance v. It differs with frequency, so the products are kept for bands of alike variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..diffusion.schedule import NoiseSchedule
from ..grids.grids import BlendedGrid
from ..solvers.fitted import DATA_VARIANCE
from .fitting import HISTORY, RIDGE
from .reference import ReferenceTrajectories
from .trajectory import cosine_transform, frequencies

BANDS = 12  # of frequencies
MOVE = 0.25  # of the distance to a neighbour that a node moves at first
SMALLEST_MOVE = 0.005
SWEEPS = 30  # over the nodes, at most


@dataclass(frozen=True, eq=False)
class Residuals:
    """What fitted steps miss along reference trajectories of m nodes.

    Args:
        process: The noise process of the model.
        levels: (m,) noise levels s = sigma / alpha of the nodes, decreasing.
        products: (bands, 2 m, 2 m) mean products of the states xh and the clean predictions, in each band.
        variances: (bands,) of the clean images.
    """

    process: NoiseSchedule
    levels: np.ndarray
    products: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, reference: ReferenceTrajectories, process: NoiseSchedule) -> Residuals:
        """Along recorded trajectories.

        Args:
            reference: At least two images, m >= 4 nodes.
            process: The noise process of the model.
        """
        images = reference.states.shape[1:]
        recorded = cosine_transform(np.concatenate([reference.states, reference.predictions]).astype(np.float64))
        recorded = recorded.reshape(*recorded.shape[:2], -1)

        radii = frequencies(*images[1:])
        clean = recorded[-1]
        variance = np.array([clean[:, where].var(axis=0, ddof=1).mean() for where in radii])
        bands = [np.concatenate([radii[i] for i in some]) for some in np.array_split(np.argsort(variance), BANDS) if len(some)]

        products = []
        for band in bands:
            rows = recorded[:, :, band].reshape(len(recorded), -1)
            products.append(rows @ rows.T / np.prod(images))
        variances = np.array([clean[:, band].var(axis=0, ddof=1).mean() for band in bands])
        return cls(process, reference.levels, np.stack(products), variances)

    def lasting_error(self, levels: np.ndarray) -> float:
        """What the steps of a grid miss, as far as it lasts: mean square over pixels and images, summed over steps.

        Args:
            levels: (n,) noise levels of the grid, decreasing.
        """
        states, predictions = self._states(levels), self._predictions(levels)
        image = np.eye(len(self.products[0]))[-1]
        total, products = 0.0, self.products.sum(axis=0)

        for i, level in enumerate(levels):
            last = i + 1 == len(levels)
            then, target = (0.0, image) if last else (levels[i + 1], states[i + 1])
            left = 1 - then / level

            newest = predictions[i]
            columns = [newest, (states[i] - newest) / np.sqrt(level**2 + DATA_VARIANCE)]
            columns += [newest - predictions[i - j] for j in range(1, min(i, HISTORY - 1) + 1)]
            matrix = left * np.stack(columns)
            missing = target - then / level * states[i] - left * newest

            gram = matrix @ products @ matrix.T
            gram += np.diag(RIDGE * np.diag(gram) + 1e-12)
            missed = missing - np.linalg.solve(gram, matrix @ products @ missing) @ matrix

            squares = np.maximum(np.einsum("i,bij,j->b", missed, self.products, missed), 0)
            total += float(squares @ (self.variances / (self.variances + then**2)))
        return total

    def least(self, n: int) -> np.ndarray:
        """(n,) timesteps whose steps miss least, descended from the blended grid, one node at a time.

        Args:
            n: Number of steps, >= 1.
        """
        nodes = -self.process.log_snr(BlendedGrid()(self.process, n))  # log of the noise levels
        best, moves = self.lasting_error(np.exp(nodes)), np.full(n, MOVE)

        for _ in range(SWEEPS):
            for k in range(1, n):
                lower = nodes[k + 1] if k + 1 < n else np.log(self.levels[-1])
                for room in (nodes[k - 1] - nodes[k], lower - nodes[k]):
                    moved = nodes.copy()
                    moved[k] += moves[k] * room
                    if (error := self.lasting_error(np.exp(moved))) < best:
                        best, nodes = error, moved
                        break
                else:
                    moves[k] /= 2

            if n == 1 or moves[1:].max() < SMALLEST_MOVE:
                break
        return self._timesteps(-nodes)

    def even(self, n: int, points: int = 121) -> np.ndarray:
        """(n,) timesteps between which the clean prediction does the same to the error of first-order steps.

        See `trajectory.equidistributed`, here with the derivative along the recorded trajectories.
        """
        log_snr = np.linspace(*-np.log(self.levels[[0, -1]]), points)
        slopes = np.gradient(self._predictions(np.exp(-log_snr)), log_snr, axis=0, edge_order=2)
        speeds = np.maximum(np.einsum("li,bij,lj->lb", slopes, self.products, slopes), 0)
        lasting = self.variances / (self.variances + np.exp(-2 * log_snr)[:, None])

        density = (speeds * lasting).sum(axis=1) ** 0.25
        integral = np.append(0.0, np.cumsum(np.diff(log_snr) * (density[1:] + density[:-1]) / 2))
        return self._timesteps(np.interp(np.arange(n) / n * integral[-1], integral, log_snr))

    def _timesteps(self, log_snr: np.ndarray) -> np.ndarray:
        """Timesteps of a grid, which begins at T - 1 exactly."""
        return np.append(self.process.num_train_timesteps - 1.0, self.process.timestep(log_snr[1:]))

    def _predictions(self, levels: np.ndarray) -> np.ndarray:
        """(n, 2 m) coefficients of the clean predictions at noise levels: Lagrange's cubic in log s."""
        m, known, result = len(self.levels), np.log(self.levels), np.zeros((len(levels), 2 * len(self.levels)))
        for row, x in zip(result, np.log(levels), strict=True):
            first = int(np.clip(np.searchsorted(-known, -x) - 2, 0, m - 4))
            nodes = known[first : first + 4]
            for j, node in enumerate(nodes):
                others = np.delete(nodes, j)
                row[m + first + j] = np.prod((x - others) / (node - others))
        return result

    def _states(self, levels: np.ndarray) -> np.ndarray:
        """(n, 2 m) coefficients of the states at noise levels: the cubic that has the ODE's slopes, as `reference.at`."""
        m, result = len(self.levels), np.zeros((len(levels), 2 * len(self.levels)))
        for row, s in zip(result, levels, strict=True):
            for node, value, slope in hermite(self.levels, s):
                row[node] += value + slope / self.levels[node]
                row[m + node] -= slope / self.levels[node]
        return result
