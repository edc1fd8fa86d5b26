"""Reference statistics of real pictures, as the metrics need them."""

from __future__ import annotations

from pathlib import Path

from ..data import load_pictures
from ..errors import UserError
from ..metrics.encoder import Encoder
from ..metrics.kernel_reference import KernelReference, save_kernel_reference
from ..metrics.reference import FOLDER, kernel_reference_path, load_kernel, load_reference, reference_path
from ..metrics.statistics import FeatureStatistics, save_statistics


def write_reference(domain: str, pictures: str | Path, encoder: Encoder, folder: Path = FOLDER) -> None:
    """Encode all pictures of a domain, and write mean, covariance and third moments of their features.

    Args:
        domain: Name of the domain.
        pictures: Folder or array file.
        encoder: What encodes them.
        folder: Where the two files go.

    Raises:
        UserError: if there are no pictures.
    """
    features = encoder.features(load_pictures(pictures, encoder.config.image_size).images)
    identity = (encoder.name, encoder.content_hash)
    save_statistics(reference_path(domain, folder), FeatureStatistics.from_features(features, *identity))
    save_kernel_reference(kernel_reference_path(domain, folder), KernelReference.from_features(features, *identity))


def stale_reference(domain: str, encoder: Encoder, folder: Path = FOLDER) -> str | None:
    """Why the statistics of a domain have to be made again, or None."""
    if not (reference_path(domain, folder).is_file() and kernel_reference_path(domain, folder).is_file()):
        return "missing"
    try:
        load_reference(domain, encoder, folder)
        load_kernel(domain, encoder, folder)
    except UserError as error:
        return str(error)
    return None
