"""The protocol of `metrics=`, and the measurements that its options share.

Numbers of our own encoder carry its name (`fd_encoder`, ...). The names `fid`, `clip_score` and `lpips` are reserved
for the published weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from ..errors import known_error, traceback_log
from .features import FeatureEncoder
from .frechet import frechet_caveat, frechet_distance
from .intervals import jackknife_interval, mean_interval
from .kernel_reference import KernelReference
from .kid import kernel_caveat, kernel_distance
from .statistics import FeatureStatistics

T = TypeVar("T")
log = logging.getLogger(__name__)

DETAILS = "details/"  # begins the names of numbers that only the file of a run keeps, not its record
NOT_MEANINGFUL = "not meaningful"  # begins a caveat about a number that says nothing by itself
SUBSETS = 100  # random subsets in the mean of a kernel distance
WIDEST = 256  # features of which the interval of a Frechet distance is taken; of wider ones it would take minutes
_SEED = 0


@dataclass(frozen=True)
class Measurement:
    """One number about a set of images.

    Attributes:
        name: Name of the measure, e.g. "fd_encoder".
        value: The number.
        n: Number of measured images.
        spread: Standard deviation over images or subsets, or None.
        caveat: A warning that belongs beside the number, or None.
        interval: 95 % confidence interval of the number, or None where none is known.
        each: (n,) the number of each image, where it is a mean over images, or None.
    """

    name: str
    value: float
    n: int
    spread: float | None = None
    caveat: str | None = None
    interval: tuple[float, float] | None = None
    each: tuple[float, ...] | None = None

    @property
    def meaningful(self) -> bool:
        """Whether the number says something by itself; of too few images it does not."""
        return not (self.caveat or "").startswith(NOT_MEANINGFUL)

    def __str__(self) -> str:
        caveat = "" if self.caveat is None else f", {self.caveat}"
        spread = "" if self.spread is None else f" +- {_in_words(self.spread, 3)}"
        return f"{self.name} {_in_words(self.value, 4)}{spread} (n = {self.n}{caveat})"


def _in_words(value: float, digits: int) -> str:
    """A number with some significant digits, and no power of ten up to a billion."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if 1e3 <= abs(rounded) < 1e9 else f"{value:.{digits}g}"


class PictureMetrics(Protocol):
    """An option of `metrics=`.

    Attributes:
        converged: Whether `measure` needs the converged images of the model from the same noises.
        reference: Optional: a function of a domain's name; the path of the real images or statistics that are compared
            with, or None. Runs record its hash.
    """

    @property
    def converged(self) -> bool: ...

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure images.

        Args:
            images: (N, H, W, 3) float32 in [-1, 1].
            domain: Domain of the real images to compare with.
            caption: Caption of the images.
            converged: (N, H, W, 3) converged solutions of the model from the same noises, in [-1, 1].
        """
        ...


class NoMetrics:
    """`metrics=none`: nothing is measured."""

    converged = False

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure nothing; arguments as for `PictureMetrics.measure`."""
        return []


def attempt(what: str, measure: Callable[[], T], otherwise: T) -> T:
    """Return the result of `measure`; if it fails, log a warning and return `otherwise`.

    The images are drawn by then. An error of one measure, whatever it is, must not lose them. The log of a run has the
    traceback, unless the error is known: NumPy raises a plain `ValueError` for a bug, too.
    """
    try:
        return measure()
    except Exception as error:
        said = str(error)
        if known_error(error) is None:
            if not isinstance(error, ValueError):
                said = f"{type(error).__name__}: {error}"
            traceback_log.error("%s could not be measured", what, exc_info=error)
        log.warning("%s could not be measured: %s", what, said or type(error).__name__)
        return otherwise


def set_distances(
    kind: str,
    features: np.ndarray,
    encoder: FeatureEncoder,
    real: np.ndarray | FeatureStatistics,
    kernel: KernelReference | None,
) -> list[Measurement]:
    """Frechet and kernel distance of features to the features of real images.

    Args:
        kind: "encoder" for fd_encoder and kid_encoder, "fid" for fid and kid, else the name of a Frechet distance.
        features: (n, d), n >= 2.
        encoder: Encoder of the features.
        real: (m, d) features of real images, or their statistics.
        kernel: Moments of the real features, if `real` is statistics; without them, no kernel distance is measured.
    """
    names = {"encoder": ("fd_encoder", "kid_encoder"), "fid": ("fid", "kid")}
    frechet_name, kernel_name = names.get(kind, (kind, f"{kind}_kernel"))
    n, d = features.shape

    def distance(some: np.ndarray) -> float:
        if isinstance(real, FeatureStatistics):
            return frechet_distance(FeatureStatistics.from_features(some, encoder.name, encoder.content_hash), real)
        return frechet_distance(some, real)

    known = real.n if isinstance(real, FeatureStatistics) else len(real)
    caveat = frechet_caveat(n, d) or frechet_caveat(known, d, "real images")
    frechet = distance(features)
    interval = jackknife_interval(distance, features, frechet) if caveat is None and d <= WIDEST else None
    measurements = [Measurement(frechet_name, frechet, n, caveat=caveat, interval=interval)]

    if isinstance(real, FeatureStatistics):
        kid = None if kernel is None else kernel.distance(features, subsets=SUBSETS, seed=_SEED)
    else:
        kid = kernel_distance(features, real, subsets=SUBSETS, seed=_SEED)

    if kid is not None:
        std = kid.std if kid.subset_size < n else None
        caveat = kernel_caveat(kid.mean, std, kid.subset_size, known)
        measurements.append(Measurement(kernel_name, kid.mean, n, std, caveat))

    return measurements


def mean_of(name: str, values: np.ndarray) -> Measurement:
    """Mean and spread of (N,) values, one of each image."""
    spread = float(values.std()) if len(values) > 1 else None
    each = tuple(float(f"{value:.6g}") for value in values)
    return Measurement(name, float(values.mean()), len(values), spread, interval=mean_interval(values), each=each)


def as_metrics(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Measurements as metrics of a run: `quality/<name>`, and as details the number of images and the spread."""
    values: dict[str, float] = {}
    for m in measurements:
        values[f"quality/{m.name}"] = m.value
        values[f"{DETAILS}{m.name}_n"] = m.n
        if m.spread is not None:
            values[f"{DETAILS}{m.name}_std"] = m.spread

    return values
