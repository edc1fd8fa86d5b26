"""`metrics=encoder`: measures by the encoder that ships with the project."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..errors import UserError
from .domain import DomainDetector
from .encoder import Encoder, load_builtin_encoder, load_encoder
from .quality import Measurement, mean_of, set_distances
from .reference import FOLDER, load_kernel, load_reference, reference_path

log = logging.getLogger(__name__)


class EncoderMetrics:
    """`metrics=encoder`: by the encoder that ships with the project; needs no download.

    Args:
        converged: Also measure the distance to the model's converged solution; costs more evaluations than the run.
        encoder: An encoder or its file; None: the one that ships with the project.
        references: Folder of reference statistics; None: those that ship with the project.

    Raises:
        UserError: if the encoder's file cannot be used.
    """

    def __init__(self, converged: bool = False, encoder: Encoder | str | None = None, references: str | None = None):
        self.converged = converged
        self.encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder or load_builtin_encoder()
        self._folder = FOLDER if references is None else Path(references)
        if not self._folder.is_dir():
            raise UserError(
                f"metrics.references={references} is no folder; leave it out, or give one with <domain>.npz"
            )

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """fd_encoder, kid_encoder, clip_encoder, domain_agreement and, to converged pictures, perceptual_encoder.

        The distances are left out for a domain without reference statistics, and for a single picture. Arguments as for
        `PictureMetrics.measure`.
        """
        found: list[Measurement] = []
        if not reference_path(domain, self._folder).is_file():
            log.info("no distances to real pictures: there are no reference statistics of the domain %s", domain)
        features = self.encoder.features(images)
        if len(images) > 1 and reference_path(domain, self._folder).is_file():
            statistics = load_reference(domain, self.encoder, self._folder)
            kernel = load_kernel(domain, self.encoder, self._folder)
            found += set_distances("encoder", features, self.encoder, statistics, kernel)
        scores = self.encoder.scores(images, caption)
        found.append(mean_of("clip_encoder", scores))
        if domain in self.encoder.config.domains:
            detected = DomainDetector(self.encoder).from_images(images)
            agreement = float(np.mean([d.domain == domain for d in detected]))
            found.append(Measurement("domain_agreement", agreement, len(images)))
        if converged is not None:
            found.append(mean_of("perceptual_encoder", self.encoder.perceptual_distances(images, converged)))
        return found
