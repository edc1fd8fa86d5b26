"""The report on a model: whether it would notice copies."""

import numpy as np

from adaptive_diffusion.bench.model import nearest_neighbours
from adaptive_diffusion.data import PictureSet, to_float


def pictures(n: int, seed: int) -> PictureSet:
    images = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return PictureSet(images, np.full(n, -1), ())


def test_a_mirrored_copy_is_found() -> None:
    train, held_back = pictures(30, 0), pictures(10, 1)
    samples = to_float(pictures(20, 2).images)
    samples[7] = to_float(train.images[3])[:, ::-1]
    report, pairs = nearest_neighbours(samples, train, held_back)
    assert report.closest_sample < 1e-3
    assert report.samples > 0.5
    assert report.closest_held_back > 0.5
    np.testing.assert_allclose(pairs[0], samples[7])
    np.testing.assert_allclose(pairs[1][:, ::-1], samples[7], atol=1e-6)
