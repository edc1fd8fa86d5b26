"""`python -m benchmarks real_images`: how far real images are from other real images of their domain."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import Any

import numpy as np

from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.vicreg import load_builtin_vicreg
from adaptive_diffusion.io.pictures import load_pictures
from adaptive_diffusion.metrics.frechet import frechet_distance


def main(argv: list[str]) -> None:
    """Print, as CSV, the mean and standard deviation of Frechet distances between disjoint sets of real images.

    A Frechet distance falls with the number of images. So drawn images cannot be expected nearer to the real ones than
    as many real images are to all others.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks real_images", description=__doc__)
    parser.add_argument("pictures", nargs="+", metavar="DOMAIN=PATH", help="a folder of images or an array file")
    parser.add_argument("--images", type=int, default=264, help="that are taken from a domain at random")
    parser.add_argument("--draws", type=int, default=10, help="of them, each compared with all others of the domain")
    options = parser.parse_args(argv)

    encoders: dict[str, Any] = {"fd_encoder": load_builtin_encoder(), "fd_vicreg": load_builtin_vicreg()}
    columns = [f"{name}_{what}" for name in encoders for what in ("mean", "sd")]
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["domain", "images", "draws", *columns, *encoders])
    identities = [f"{encoder.name} {encoder.content_hash[:12]}" for encoder in encoders.values()]

    for domain, _, path in (text.partition("=") for text in options.pictures):
        if not path:
            raise ValueError(f"give each domain as DOMAIN=PATH, got {domain!r} without a path")
        found: list[float] = []
        for encoder in encoders.values():
            features = np.asarray(encoder.features(load_pictures(path, encoder.config.image_size).images))
            if not 2 <= options.images <= len(features) - 2:
                raise ValueError(f"--images must leave 2 of the {len(features)} images of {path}, got {options.images}")
            distances = [_apart(features, options.images, seed) for seed in range(options.draws)]
            found += [float(np.mean(distances)), float(np.std(distances, ddof=1))]
        table.writerow([domain, options.images, options.draws, *(f"{number:.6g}" for number in found), *identities])
        sys.stdout.flush()


def _apart(features: np.ndarray, images: int, seed: int) -> float:
    """The distance of some rows, chosen at random, from all others."""
    rows = np.random.default_rng(seed).permutation(len(features))
    return frechet_distance(features[rows[:images]], features[rows[images:]])
