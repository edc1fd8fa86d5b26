"""How good a run's images are: what every choice of `metrics=` offers, and what they share.

Numbers of our own encoder carry its name (`fd_encoder`, ...); `fid`, `clip_score` and `lpips` are only used for the
published weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from .features import FeatureEncoder
from .frechet import frechet_caveat, frechet_distance
from .kernel_reference import KernelReference
from .kid import kernel_caveat, kernel_distance
from .statistics import FeatureStatistics, check_same_encoder

T = TypeVar("T")
log = logging.getLogger(__name__)

SUBSETS = 100  # random halves that a kernel distance is averaged over
_SEED = 0


@dataclass(frozen=True)
class Measurement:
    """One number about a set of images.

    Attributes:
        name: E.g. "fd_encoder".
        value: The number.
        n: Images it was measured on.
        spread: Standard deviation over images or subsets, where there is one.
        caveat: What has to be said beside it, or None.
    """

    name: str
    value: float
    n: int
    spread: float | None = None
    caveat: str | None = None

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" +- {self.spread:.3g}"
        caveat = "" if self.caveat is None else f", {self.caveat}"
        return f"{self.name} {self.value:.4g}{spread} (n = {self.n}{caveat})"


class PictureMetrics(Protocol):
    """What `metrics=` chooses.

    Attributes:
        converged: Whether `measure` wants the model's converged images from the same noises.
    """

    @property
    def converged(self) -> bool: ...

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure images.

        Args:
            images: (N, H, W, 3) float32 in [-1, 1].
            domain: What they are to be compared with.
            caption: What they are to show.
            converged: (N, H, W, 3) the model's converged solutions from the same noises, in [-1, 1].
        """
        ...


class NoMetrics:
    """`metrics=none`: nothing is measured."""

    converged = False

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Nothing."""
        return []


def attempt(what: str, measure: Callable[[], T], otherwise: T) -> T:
    """What a measurement returns; where it cannot be taken, a warning says why, and `otherwise` takes its place.

    The images were drawn and paid for by then: whatever is wrong with a measure must not undo the run.
    """
    try:
        return measure()
    except Exception as error:
        log.warning("%s could not be measured: %s", what, str(error) or type(error).__name__)
        return otherwise


def set_distances(
    kind: str,
    features: np.ndarray,
    encoder: FeatureEncoder,
    real: np.ndarray | FeatureStatistics,
    kernel: KernelReference | None,
) -> list[Measurement]:
    """Frechet and kernel distance of features to real ones.

    Args:
        kind: "encoder" for fd_encoder and kid_encoder, "fid" for fid and kid, else the name of a Frechet distance.
        features: (n, d), n >= 2.
        encoder: What they were encoded with.
        real: (m, d) features, or statistics.
        kernel: Moments of the real features, where `real` is statistics; None: no kernel distance then.
    """
    names = {"encoder": ("fd_encoder", "kid_encoder"), "fid": ("fid", "kid")}
    frechet_name, kernel_name = names.get(kind, (kind, f"{kind}_kernel"))
    n, d = features.shape
    own = FeatureStatistics.from_features(features, encoder.name, encoder.content_hash)

    if isinstance(real, FeatureStatistics):
        check_same_encoder(own, real)
        frechet = frechet_distance(own, real)
        spread = None if kernel is None else kernel.distance(features, subsets=SUBSETS, seed=_SEED)
    else:
        frechet = frechet_distance(features, real)
        spread = kernel_distance(features, real, subsets=SUBSETS, seed=_SEED)

    found = [Measurement(frechet_name, frechet, n, caveat=frechet_caveat(n, d))]
    if spread is not None:
        std = spread.std if spread.subset_size < n else None
        caveat = kernel_caveat(spread.mean, std, spread.subset_size)
        found.append(Measurement(kernel_name, spread.mean, n, std, caveat))

    return found


def mean_of(name: str, values: np.ndarray) -> Measurement:
    """Mean of a number of each image, (N,), and its spread over them."""
    spread = float(values.std()) if len(values) > 1 else None
    return Measurement(name, float(values.mean()), len(values), spread)


def as_metrics(found: Sequence[Measurement]) -> dict[str, float]:
    """Measurements as metrics of a run: the value, its spread as `..._std`, and the sample size as `..._n`."""
    values: dict[str, float] = {}
    for m in found:
        values[f"quality/{m.name}"] = m.value
        values[f"quality/{m.name}_n"] = m.n
        if m.spread is not None:
            values[f"quality/{m.name}_std"] = m.spread

    return values
