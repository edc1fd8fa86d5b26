"""The shipped reference statistics of real images, one file per domain."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnusableFile
from ..io.files import ASSETS
from ..metrics.features import FeatureEncoder
from ..metrics.kernel_reference import KernelReference
from ..metrics.precision_recall import ClusterReference
from ..metrics.statistics import FeatureStatistics

FOLDER = ASSETS / "reference"
OTHERS = ("_kernel", "_vicreg", "_clusters")  # ends of the names of the other files of a domain, thus of no domain


def reference_path(domain: str, folder: Path = FOLDER) -> Path:
    """Path of the statistics of a domain."""
    return folder / f"{domain}.npz"


def kernel_reference_path(domain: str, folder: Path = FOLDER) -> Path:
    """Path of the moments of a domain for the kernel distance."""
    return folder / f"{domain}_kernel.npz"


def vicreg_paths(domain: str, folder: Path = FOLDER) -> tuple[Path, Path]:
    """Paths of the statistics and of the clusters of a domain by the VICReg encoder."""
    return folder / f"{domain}_vicreg.npz", folder / f"{domain}_clusters.npz"


def load_reference(domain: str, encoder: FeatureEncoder, folder: Path = FOLDER) -> FeatureStatistics:
    """Load the statistics of the real images of a domain.

    Args:
        domain: E.g. "portraits".
        encoder: The encoder of the images to compare.
        folder: Folder of the statistics; by default the shipped statistics.

    Raises:
        UnusableFile: if the domain has no statistics, or another encoder made them.
    """
    path = reference_path(domain, folder)
    if not path.is_file():
        domains = ", ".join(sorted(f.stem for f in folder.glob("*.npz") if not f.stem.endswith(OTHERS))) or "none"
        raise UnusableFile(f"there are no reference statistics of the domain {domain!r}; there are those of {domains}")

    statistics = FeatureStatistics.load(path)
    _check_encoder(path, statistics.encoder, statistics.encoder_hash, encoder)
    return statistics


def load_kernel(domain: str, encoder: FeatureEncoder, folder: Path = FOLDER) -> KernelReference:
    """Load the moments of the real images of a domain for the kernel distance.

    Arguments and errors as for `load_reference`.
    """
    path = kernel_reference_path(domain, folder)
    moments = KernelReference.load(path)
    _check_encoder(path, moments.encoder, moments.encoder_hash, encoder)
    return moments


def load_vicreg_reference(
    domain: str, encoder: FeatureEncoder, folder: Path = FOLDER
) -> tuple[FeatureStatistics, ClusterReference]:
    """Load the statistics and the clusters of the real images of a domain by the VICReg encoder.

    Arguments as for `load_reference`.

    Raises:
        UnusableFile: if a file is missing or damaged, or if another encoder made it.
    """
    path, clusters_path = vicreg_paths(domain, folder)
    statistics, clusters = FeatureStatistics.load(path), ClusterReference.load(clusters_path)
    _check_encoder(path, statistics.encoder, statistics.encoder_hash, encoder)
    _check_encoder(clusters_path, clusters.encoder, clusters.encoder_hash, encoder)
    return statistics, clusters


def _check_encoder(path: Path, name: str, content_hash: str, encoder: FeatureEncoder) -> None:
    if (name, content_hash) != (encoder.name, encoder.content_hash):
        raise UnusableFile(
            f"the reference statistics {path} were made with {name} ({content_hash[:12]}), not with "
            f"{encoder.name} ({encoder.content_hash[:12]}); make them again "
            "with `adaptive-diffusion references`, and give their folder as references"
        )
