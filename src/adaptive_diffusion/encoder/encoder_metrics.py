"""`metrics=encoder`: measures by the project's own encoder."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..metrics.precision_recall import HELD
from ..metrics.quality import Measurement, attempt, mean_of, set_distances
from .domain import DomainDetector
from .encoder import Encoder, load_builtin_encoder, load_encoder
from .reference import FOLDER, load_kernel, load_reference, load_vicreg_reference, reference_path, vicreg_paths
from .vicreg import VICRegEncoder, load_builtin_vicreg, load_vicreg

log = logging.getLogger(__name__)


class EncoderMetrics:
    """Measure images with the project's own encoders; this needs no download.

    Args:
        converged: Also measure the distance to the converged solution of the model. This costs more network evaluations
            than the run.
        encoder: An encoder or its file; None: the shipped encoder.
        references: Folder of reference statistics; None: the shipped statistics.
        vicreg: The encoder without labels or its file; None: the shipped one.

    Raises:
        ValueError: if the file of an encoder cannot be used, or `references` is no folder.
    """

    def __init__(
        self,
        converged: bool = False,
        encoder: Encoder | str | Path | None = None,
        references: str | Path | None = None,
        vicreg: VICRegEncoder | str | Path | None = None,
    ):
        self.converged = converged
        self.encoder = load_encoder(encoder) if isinstance(encoder, str | Path) else encoder or load_builtin_encoder()
        self.vicreg = load_vicreg(vicreg) if isinstance(vicreg, str | Path) else vicreg or load_builtin_vicreg()
        self._folder = FOLDER if references is None else Path(references)
        if not self._folder.is_dir():
            raise ValueError(f"references={references} is no folder; leave it out, or give one with <domain>.npz")

    def reference(self, domain: str) -> Path | None:
        """The statistics of real images that images of a domain are compared with, or None."""
        path = reference_path(domain, self._folder)
        return path if path.is_file() else None

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure the distances to real images, clip_encoder, domain_agreement and, if wanted, perceptual_encoder.

        A domain without reference statistics, or a single image, gets no distances to real images: fd_encoder and
        kid_encoder; fd_vicreg, precision and recall. Arguments as for `PictureMetrics.measure`.
        """
        measurements: list[Measurement] = []
        if len(images) == 1:
            log.info("no distances to real images, precision and recall: they take at least two images")
        elif not reference_path(domain, self._folder).is_file():
            log.info("no distances to real images: there are no reference statistics of the domain %s", domain)
        else:
            measurements += attempt("the distance to real images", lambda: self._to_real(images, domain), [])

        if all(path.is_file() for path in vicreg_paths(domain, self._folder)) and len(images) > 1:
            measurements += attempt("fd_vicreg", lambda: self._without_labels(images, domain), [])

        measurements += attempt(
            "clip_encoder", lambda: [mean_of("clip_encoder", self.encoder.scores(images, caption))], []
        )
        if domain in self.encoder.config.domains:
            measurements += attempt("domain_agreement", lambda: [self._agreement(images, domain)], [])
        if converged is not None:
            measurements += attempt("perceptual_encoder", lambda: [self._to_converged(images, converged)], [])

        return measurements

    def _to_real(self, images: np.ndarray, domain: str) -> list[Measurement]:
        statistics = load_reference(domain, self.encoder, self._folder)
        kernel = load_kernel(domain, self.encoder, self._folder)
        return set_distances("encoder", self.encoder.features(images), self.encoder, statistics, kernel)

    def _without_labels(self, images: np.ndarray, domain: str) -> list[Measurement]:
        statistics, clusters = load_vicreg_reference(domain, self.vicreg, self._folder)
        features, n = self.vicreg.features(images), len(images)
        few = clusters.caveat(n)
        mean, spread = clusters.real_coverage(n)
        return [
            *set_distances("fd_vicreg", features, self.vicreg, statistics, None),
            Measurement("precision", clusters.precision(features), n, caveat=few or f"real images: about {HELD}"),
            Measurement("recall", clusters.recall(features), n, caveat=few or f"real images: 1 +- {spread / mean:.2g}"),
        ]

    def _agreement(self, images: np.ndarray, domain: str) -> Measurement:
        return Measurement("domain_agreement", DomainDetector(self.encoder).agreement(images, domain), len(images))

    def _to_converged(self, images: np.ndarray, converged: np.ndarray) -> Measurement:
        return mean_of("perceptual_encoder", self.encoder.perceptual_distances(images, converged))
