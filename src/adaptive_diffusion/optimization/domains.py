"""Domains: the four that ship, users' own domains, and their distances in encoder space."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from ..encoder.encoder import Encoder
from ..encoder.reference import load_reference
from ..errors import UnusableFile
from ..io.pictures import load_pictures
from ..metrics.features import picture_statistics


class DomainType(StrEnum):
    """The domains that ship; users' domains are known by their names, see `DomainAdapter.register`."""

    PORTRAITS = "portraits"
    LANDSCAPES = "landscapes"
    ABSTRACT = "abstract"
    GENERAL = "general"


def describe_domain(path: str | Path, encoder: Encoder) -> tuple[str, dict[str, Any]]:
    """Read a user's domain, and place it in encoder space.

    Args:
        path: A YAML file with `name`, `pictures` (a folder or an array file, relative to the YAML file), and
            optionally `description`.
        encoder: Computes the features that place the domain.

    Returns:
        Its name, and `description`, `features`, `encoder` and `pictures` as in `DomainRecords.domains`.

    Raises:
        UnusableFile: if the file or the images cannot be used.
    """
    import yaml  # type: ignore[import-untyped]  # comes with OmegaConf

    path = Path(path)
    if not path.is_file():
        raise UnusableFile(f"there is no domain file {path}; give a YAML file with name and pictures")

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} cannot be read as YAML ({str(error).splitlines()[0]})") from error

    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("name", "pictures")):
        raise UnusableFile(f"{path} must say name: <the domain's name> and pictures: <a folder of images>")

    folder = path.parent / content["pictures"]
    return place_domain(content["name"], folder, encoder, content.get("description") or "")


def place_domain(
    name: str, pictures: str | Path, encoder: Encoder, description: str = ""
) -> tuple[str, dict[str, Any]]:
    """Place a user's domain in encoder space, by its name and its images; see `describe_domain`.

    Raises:
        ValueError: for the name of a domain that ships, or fewer than two images.
    """
    if not name or name in set(DomainType):
        raise ValueError(f"a domain of your own needs a name other than {', '.join(DomainType)}, got {name!r}")

    images = load_pictures(pictures, encoder.config.image_size).images
    if len(images) < 2:
        raise UnusableFile(f"a domain needs at least 2 images to be placed, {pictures} holds {len(images)}")

    statistics = picture_statistics(encoder, images)
    return name, {
        "description": description,
        "features": statistics.mean.tolist(),
        "encoder": statistics.encoder_hash,
        "pictures": len(images),
    }


def nearest_domain(domain: str, own: Mapping[str, Mapping[str, Any]], encoder: Encoder, among: set[str]) -> str | None:
    """The nearest of some domains, by the Euclidean distance between the means of the encoder's features.

    Args:
        domain: Name of the domain.
        own: Users' domains, see `DomainRecords.domains`.
        encoder: Computes the features.
        among: Names to choose from.

    Returns:
        Its name; None if the features of the domain or of all domains in `among` are unknown.
    """
    here = _place(domain, own, encoder)
    if here is None:
        return None

    distances = {
        name: float(np.linalg.norm(there - here))
        for name in sorted(among - {domain})
        if (there := _place(name, own, encoder)) is not None
    }
    return min(distances, key=distances.__getitem__, default=None)


def _place(domain: str, own: Mapping[str, Mapping[str, Any]], encoder: Encoder) -> np.ndarray | None:
    """Mean features of a domain's images, or None if they are unknown."""
    if domain in own:
        known = own[domain]
        return np.array(known["features"]) if known["encoder"] == encoder.content_hash else None
    try:
        return load_reference(domain, encoder).mean
    except UnusableFile:  # of another encoder, or none at all
        return None
