"""sample.py with the encoder of the tests, and references to match: what a test of the benchmark starts."""

from __future__ import annotations

import runpy
import sys

import numpy as np
from tiny import ROOT, tiny_encoder

from adaptive_diffusion.encoder import domain, encoder, reference
from adaptive_diffusion.metrics.features import picture_statistics
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.runs import benchmark


def tiny_reference(name: str, _encoder: object = None) -> FeatureStatistics:
    """Statistics of 60 noisy images, others for each domain."""
    rng = np.random.default_rng(list(name.encode()))
    return picture_statistics(tiny_encoder(), rng.uniform(-1, 1, (60, 8, 8, 3)).astype(np.float32))


if __name__ == "__main__":
    for module in (encoder, domain, benchmark):
        module.load_builtin_encoder = tiny_encoder
    for module in (reference, benchmark):
        module.load_reference = tiny_reference
    sys.argv[0] = str(ROOT / "sample.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
