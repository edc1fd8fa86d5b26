"""Reference statistics of real pictures that ship with the project, one file per domain."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..io.files import ASSETS
from ..metrics.features import FeatureEncoder
from ..metrics.kernel_reference import KernelReference, load_kernel_reference
from ..metrics.statistics import FeatureStatistics, load_statistics

FOLDER = ASSETS / "reference"


def reference_path(domain: str, folder: Path = FOLDER) -> Path:
    """Where the statistics of a domain lie."""
    return folder / f"{domain}.npz"


def kernel_reference_path(domain: str, folder: Path = FOLDER) -> Path:
    """Where the moments for the kernel distance lie."""
    return folder / f"{domain}_kernel.npz"


def load_reference(domain: str, encoder: FeatureEncoder, folder: Path = FOLDER) -> FeatureStatistics:
    """Statistics of the real pictures of a domain.

    Args:
        domain: E.g. "portraits".
        encoder: What the pictures to be compared are encoded with.
        folder: Where to look; by default the statistics that ship with the project.

    Raises:
        UserError: if there are none for the domain, or they were made with another encoder.
    """
    path = reference_path(domain, folder)
    if not path.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.npz") if not f.stem.endswith("_kernel"))) or "none"
        raise UserError(f"there are no reference statistics of the domain {domain!r}; there are those of {known}")

    found = load_statistics(path)
    _check_encoder(path, found.encoder, found.encoder_hash, encoder)
    return found


def load_kernel(domain: str, encoder: FeatureEncoder, folder: Path = FOLDER) -> KernelReference:
    """Moments of the real pictures of a domain, for the kernel distance; arguments and errors as `load_reference`."""
    path = kernel_reference_path(domain, folder)
    found = load_kernel_reference(path)
    _check_encoder(path, found.encoder, found.encoder_hash, encoder)
    return found


def _check_encoder(path: Path, name: str, content_hash: str, encoder: FeatureEncoder) -> None:
    if (name, content_hash) != (encoder.name, encoder.content_hash):
        raise UserError(
            f"the reference statistics {path} were made with {name} ({content_hash[:12]}), not with "
            f"{encoder.name} ({encoder.content_hash[:12]}); make them again: "
            "adaptive-diffusion references, and give metrics.references"
        )
