"""How good a run's pictures are: one facade over the metrics, one class per choice of `metrics=`.

Numbers of our own encoder carry its name (`fd_encoder`, ...); `fid`, `clip_score` and `lpips` are only used for the
published weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data import load_pictures
from ..errors import UserError
from .clip_score import CLIP, load_clip
from .domain import DomainDetector
from .encoder import Encoder, load_builtin_encoder
from .features import FeatureEncoder
from .frechet import frechet_caveat, frechet_distance
from .inception import load_inception
from .kernel_reference import KernelReference, load_kernel_reference
from .kid import kernel_distance
from .lpips import LPIPS, load_lpips
from .reference import kernel_reference_path, load_reference, reference_path
from .statistics import FeatureStatistics, check_same_encoder, load_statistics

SUBSETS = 100  # random halves that a kernel distance is averaged over
_SEED = 0


@dataclass(frozen=True)
class Measurement:
    """One number about a set of pictures.

    Attributes:
        name: E.g. "fd_encoder".
        value: The number.
        n: Pictures it was measured on.
        spread: Standard deviation over pictures or subsets, where there is one.
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
        converged: Whether `measure` wants the model's converged pictures from the same noises.
    """

    @property
    def converged(self) -> bool: ...

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure pictures.

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


class EncoderMetrics:
    """`metrics=encoder`: by the encoder that ships with the project; needs no download.

    Args:
        converged: Also measure the distance to the model's converged solution; costs more evaluations than the run.
        encoder: The encoder; None: the one that ships with the project.
        references: Folder of reference statistics; None: those that ship with the project.
    """

    def __init__(self, converged: bool = False, encoder: Encoder | None = None, references: str | None = None):
        self.converged = converged
        self.encoder = encoder or load_builtin_encoder()
        self._references = {} if references is None else {"folder": Path(references)}

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """fd_encoder, kid_encoder, clip_encoder, domain_agreement and, to converged pictures, perceptual_encoder.

        The distances are left out for a domain without reference statistics, and for a single picture. Arguments as for
        `PictureMetrics.measure`.
        """
        found: list[Measurement] = []
        features = self.encoder.features(images)
        if len(images) > 1 and reference_path(domain, **self._references).is_file():
            statistics = load_reference(domain, self.encoder, **self._references)
            kernel = load_kernel_reference(kernel_reference_path(domain, **self._references))
            found += set_distances("encoder", features, self.encoder, statistics, kernel)
        scores = self.encoder.scores(images, caption)
        found.append(Measurement("clip_encoder", float(scores.mean()), len(images), float(scores.std())))
        if domain in self.encoder.config.domains:
            detected = DomainDetector(self.encoder).from_images(images)
            agreement = float(np.mean([d.domain == domain for d in detected]))
            found.append(Measurement("domain_agreement", agreement, len(images)))
        if converged is not None:
            found.append(paired("perceptual_encoder", self.encoder.perceptual_distances, images, converged))
        return found


class StandardMetrics:
    """`metrics=standard`: FID, CLIP score and LPIPS with the published weights, which the user provides.

    Weights are read at once, so that missing ones are found before anything is drawn.

    Args:
        reference: Real pictures (folder or array file), or a statistics file (`.npz` of `save_statistics`, FID only).
        inception: InceptionV3 weight file or folder; None: where PyTorch's libraries keep it.
        clip: CLIP model folder or hub id; None: no CLIP score.
        lpips: `alex` or `vgg`; used with `converged` only.
        converged: Also measure the distance to the model's converged solution; costs more evaluations than the run.

    Raises:
        UserError: if weights or reference are missing; the sentence says where they belong and how to get them.
    """

    def __init__(
        self,
        reference: str,
        inception: str | None = None,
        clip: str | None = "openai/clip-vit-base-patch32",
        lpips: str = "alex",
        converged: bool = False,
    ):
        self.converged = converged
        if not Path(reference).exists():
            raise UserError(
                f"metrics.reference={reference} does not exist; give a folder or array file of real pictures, or a "
                "statistics file"
            )
        self._inception = load_inception(inception)
        self._clip: CLIP | None = None if clip is None else load_clip(clip)
        self._lpips: LPIPS | None = load_lpips(lpips) if converged else None  # type: ignore[arg-type]
        self._reference = Path(reference)
        self._real: np.ndarray | FeatureStatistics | None = None  # features are computed when first needed

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """fid and kid to the reference, clip_score, lpips. See `PictureMetrics.measure`."""
        found: list[Measurement] = []
        name = self._inception.metric_name
        if len(images) > 1:
            features, real = self._inception.features(images), self._real_features(images.shape[1])
            found += set_distances(name, features, self._inception, real, None)
        if self._clip is not None:
            scores = self._clip.scores(images, caption)
            found.append(Measurement(self._clip.metric_name, float(scores.mean()), len(images), float(scores.std())))
        if self._lpips is not None and converged is not None:
            found.append(paired(self._lpips.metric_name, self._lpips.distances, images, converged))
        return found

    def _real_features(self, side: int) -> np.ndarray | FeatureStatistics:
        if self._real is None:
            try:
                self._real = load_statistics(self._reference)
            except (UserError, IsADirectoryError):  # then it is pictures
                self._real = self._inception.features(load_pictures(self._reference, side).images)
        return self._real


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
        found.append(Measurement(kernel_name, spread.mean, n, spread.std))
    return found


def paired(
    name: str, distances: Callable[[Any, Any], np.ndarray], images: np.ndarray, converged: np.ndarray
) -> Measurement:
    """Mean and spread of the distances of pictures from their converged solutions."""
    values = distances(images, converged)
    return Measurement(name, float(values.mean()), len(values), float(values.std()))


def as_metrics(found: Sequence[Measurement]) -> dict[str, float]:
    """Measurements as metrics of a run: the value, its spread as `..._std`, and the sample size as `..._n`."""
    values: dict[str, float] = {}
    for m in found:
        values[f"quality/{m.name}"] = m.value
        values[f"quality/{m.name}_n"] = m.n
        if m.spread is not None:
            values[f"quality/{m.name}_std"] = m.spread
    return values
