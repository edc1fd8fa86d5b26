"""`adaptive-diffusion references`: statistics of real images, by an encoder of your own.

For example `--encoder mine.safetensors --output references portraits=/pictures/faces landscapes=/pictures/hills`; then
`sample.py metrics.encoder=mine.safetensors metrics.references=references` compares with them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from ..diffusion.checks import check_name
from ..encoder.encoder import BUILTIN_ENCODER, Encoder, load_encoder
from ..encoder.reference import FOLDER, OTHERS, kernel_reference_path, reference_path, vicreg_paths
from ..encoder.vicreg import BUILTIN_VICREG, VICRegEncoder, load_vicreg
from ..errors import UserError
from ..io.pictures import load_pictures
from ..metrics.frechet import frechet_caveat
from ..metrics.kernel_reference import KernelReference
from ..metrics.precision_recall import ClusterReference
from ..metrics.statistics import FeatureStatistics
from ..program import command
from .checks import as_user_error

log = logging.getLogger(__name__)


def main(argv: list[str]) -> None:
    """Write the statistics of every domain that is given."""
    parser = argparse.ArgumentParser(prog=command("references"), description=__doc__)
    parser.add_argument("--encoder", type=Path, default=BUILTIN_ENCODER, help="default: the one that ships")
    parser.add_argument(
        "--vicreg", type=Path, default=BUILTIN_VICREG, help="the encoder without labels; default: the one that ships"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to, for metrics.references")
    parser.add_argument("pictures", nargs="+", metavar="DOMAIN=PATH", help="a folder of images or an array file")
    options = parser.parse_args(argv)

    given = dict(text.partition("=")[::2] for text in options.pictures)
    if wrong := [name for name, path in given.items() if not name or not path]:
        raise UserError(f"give each domain as DOMAIN=PATH, got {wrong[0]!r} without a path")

    with as_user_error():
        for name in given:
            check_name("the domain", name, of_file=True)
            if name.endswith(OTHERS):
                raise UserError(
                    f"a domain's name must not end in {', '.join(OTHERS)}: other files of a domain do, got {name!r}"
                )
    if len(given) < len(options.pictures):
        raise UserError("a domain is given twice; put its images into one folder")

    encoder, vicreg = load_encoder(options.encoder), load_vicreg(options.vicreg)
    for domain, path in given.items():
        sizes = {encoder.config.image_size, vicreg.config.image_size}
        images = {size: load_pictures(path, size).images for size in sizes}  # once where both take the same
        write_reference(domain, images[encoder.config.image_size], encoder, options.output)
        write_vicreg_reference(domain, images[vicreg.config.image_size], vicreg, options.output)
        print(f"{domain:<12}{reference_path(domain, options.output)}", flush=True)


def write_reference(domain: str, images: np.ndarray, encoder: Encoder, folder: Path = FOLDER) -> None:
    """Encode all images of a domain, and write mean, covariance and third moments of their features.

    Args:
        domain: Name of the domain.
        images: (N, H, W, 3) uint8, at the size of the encoder.
        encoder: What encodes them.
        folder: Where the two files go.

    Raises:
        UserError: if there is only one.
    """
    _check_enough(domain, images)
    features = encoder.features(images)
    if caveat := frechet_caveat(len(images), features.shape[1], "real images"):
        log.warning("%s: a distance to these images is %s", domain, caveat)
    identity = (encoder.name, encoder.content_hash)
    FeatureStatistics.from_features(features, *identity).save(reference_path(domain, folder))
    KernelReference.from_features(features, *identity).save(kernel_reference_path(domain, folder))


def write_vicreg_reference(domain: str, images: np.ndarray, vicreg: VICRegEncoder, folder: Path = FOLDER) -> None:
    """Encode all images of a domain without labels, and write mean, covariance and clusters of their features.

    Arguments and errors as for `write_reference`.
    """
    _check_enough(domain, images)
    features = vicreg.features(images)
    path, clusters_path = vicreg_paths(domain, folder)
    identity = (vicreg.name, vicreg.content_hash)
    FeatureStatistics.from_features(features, *identity).save(path)
    ClusterReference.from_features(features, *identity).save(clusters_path)


def _check_enough(domain: str, images: np.ndarray) -> None:
    if len(images) < 2:
        raise UserError(f"{domain} has one image; statistics take at least 2, and hundreds to mean something")
