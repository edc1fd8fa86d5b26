"""`metrics=standard`: FID, KID, CLIP score and LPIPS with the published weights."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..errors import UnusableFile
from ..io.array_file import array_names, read_arrays
from ..io.files import home_path
from ..io.image_folder import has_images
from ..io.pictures import load_pictures
from .clip_score import CLIP, load_clip
from .inception import load_inception
from .lpips import LPIPS, load_lpips
from .quality import Measurement, attempt, mean_of, set_distances
from .statistics import FeatureStatistics

log = logging.getLogger(__name__)


class StandardMetrics:
    """Measure FID, KID, CLIP score and LPIPS with the published weights, which the user provides.

    The constructor reads the weights, so missing weights are found before anything is drawn.

    Args:
        reference: Real images (folder or array file), or the file of a `FeatureStatistics` (`.npz`, FID only).
        inception: InceptionV3 weight file or folder; None: the download folders of PyTorch's libraries.
        clip: CLIP model folder or hub id; None: no CLIP score.
        lpips: `alex` or `vgg`; used with `converged` only.
        converged: Also measure the distance to the converged solution of the model. This costs more network evaluations
            than the run.

    Raises:
        UnusableFile: if weights are missing, with the folder where they belong and where to get them, or if the
            reference is missing or was made with other weights.
    """

    # (height, width) at which the images of the reference were read, and their features
    _encoded: tuple[tuple[int, int], np.ndarray] | None = None

    def __init__(
        self,
        reference: str,
        inception: str | None = None,
        clip: str | None = "openai/clip-vit-base-patch32",
        lpips: str = "alex",
        converged: bool = False,
    ):
        self.converged = converged
        self._inception = load_inception(inception)
        self._clip: CLIP | None = None if clip is None else load_clip(clip)
        self._lpips: LPIPS | None = load_lpips(lpips) if converged else None  # type: ignore[arg-type]
        self._path = home_path(reference)
        self._real: Path | FeatureStatistics = self._read(self._path)

    def reference(self, domain: str) -> Path:
        """The real images, or their statistics, that images of any domain are compared with."""
        return self._path

    def measure(
        self, images: np.ndarray, *, domain: str, caption: str, converged: np.ndarray | None = None
    ) -> list[Measurement]:
        """Measure fid, kid, clip_score and lpips; arguments as for `PictureMetrics.measure`."""
        measurements: list[Measurement] = []
        name = self._inception.metric_name
        clip, lpips = self._clip, self._lpips

        if len(images) > 1:
            measurements += attempt(name, lambda: self._to_real(images), [])
        else:
            log.info("no %s: it takes at least two images", name)
        if clip is not None:
            measurements += attempt(
                clip.metric_name, lambda: [mean_of(clip.metric_name, clip.scores(images, caption))], []
            )
        if lpips is not None and converged is not None:
            measurements += attempt(
                "lpips", lambda: [mean_of(lpips.metric_name, lpips.distances(images, converged))], []
            )

        return measurements

    def _to_real(self, images: np.ndarray) -> list[Measurement]:
        features, real = self._inception.features(images), self._real_features(images.shape[1:3])
        return set_distances(self._inception.metric_name, features, self._inception, real, None)

    def _real_features(self, size: tuple[int, int]) -> np.ndarray | FeatureStatistics:
        """Statistics of the reference, or the features of its images at `size`, (height, width); computed once."""
        if isinstance(self._real, FeatureStatistics):
            return self._real

        if self._encoded is None or self._encoded[0] != size:
            pictures = load_pictures(self._real, size).images
            if len(pictures) < 2:
                raise UnusableFile(f"{self._real} holds one image; give at least two")
            self._encoded = size, self._inception.features(pictures)

        return self._encoded[1]

    def _read(self, reference: Path) -> Path | FeatureStatistics:
        """The statistics in a file; or the path itself, if it has images."""
        if not reference.exists():
            raise UnusableFile(
                f"reference={reference} does not exist; give a folder or array file of real images, or a "
                "statistics file"
            )
        if reference.is_dir():
            if not has_images(reference):
                raise UnusableFile(f"reference={reference} is a folder without images")
            return reference
        if reference.suffix != ".npz" or "images" in array_names(reference):
            read_arrays(reference)  # refuses a damaged file before anything is drawn
            return reference

        statistics = FeatureStatistics.load(reference)
        if (statistics.encoder, statistics.encoder_hash) != (self._inception.name, self._inception.content_hash):
            raise UnusableFile(
                f"reference={reference} was made with {statistics.encoder}, not with these weights of "
                f"{self._inception.name}; give real images instead"
            )

        return statistics
