"""`metrics=encoder`: measures by the project's own encoder."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..metrics.quality import Measurement, attempt, mean_of, set_distances
from .domain import DomainDetector
from .encoder import Encoder, load_builtin_encoder, load_encoder
from .reference import FOLDER, load_kernel, load_reference, reference_path

log = logging.getLogger(__name__)


class EncoderMetrics:
    """Measure images with the project's own encoder; this needs no download.

    Args:
        converged: Also measure the distance to the converged solution of the model. This costs more network evaluations
            than the run.
        encoder: An encoder or its file; None: the shipped encoder.
        references: Folder of reference statistics; None: the shipped statistics.

    Raises:
        ValueError: if the file of the encoder cannot be used, or `references` is no folder.
    """

    def __init__(self, converged: bool = False, encoder: Encoder | str | None = None, references: str | None = None):
        self.converged = converged
        self.encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder or load_builtin_encoder()
        self._folder = FOLDER if references is None else Path(references)
        if not self._folder.is_dir():
            raise ValueError(f"references={references} is no folder; leave it out, or give one with <domain>.npz")

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure fd_encoder, kid_encoder, clip_encoder, domain_agreement and, with `converged`, perceptual_encoder.

        A domain without reference statistics, or a single image, gets no fd_encoder and kid_encoder. Arguments as for
        `PictureMetrics.measure`.
        """
        measurements: list[Measurement] = []
        if not reference_path(domain, self._folder).is_file():
            log.info("no distances to real images: there are no reference statistics of the domain %s", domain)
        elif len(images) > 1:
            measurements += attempt("the distance to real images", lambda: self._to_real(images, domain), [])

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

    def _agreement(self, images: np.ndarray, domain: str) -> Measurement:
        detected = DomainDetector(self.encoder).from_images(images)
        return Measurement("domain_agreement", float(np.mean([d.domain == domain for d in detected])), len(images))

    def _to_converged(self, images: np.ndarray, converged: np.ndarray) -> Measurement:
        return mean_of("perceptual_encoder", self.encoder.perceptual_distances(images, converged))
