"""`python -m benchmarks encoder`: how long the features of images take, shipped encoder."""

from __future__ import annotations

import argparse

import numpy as np

from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from benchmarks.common import seconds


def main(argv: list[str]) -> None:
    """Time the features of random images, after one warm-up batch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks encoder", description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="32x32 images")
    options = parser.parse_args(argv)

    encoder = load_builtin_encoder()
    side = encoder.config.image_size
    images = np.random.default_rng(0).integers(0, 256, (options.images, side, side, 3), dtype=np.uint8)
    encoder.features(images[:32])
    taken = seconds(lambda: encoder.features(images))
    print(f"{options.images} images, {side}x{side}: {taken:.2f} s, {options.images / taken:.0f} images/s")
