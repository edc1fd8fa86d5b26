"""The report on a model: whether it would notice copies, and that its crude features see what they should."""

import numpy as np

from adaptive_diffusion.bench.model import nearest_neighbours, pooled_features
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


def test_features_see_colour_layout_and_sharpness() -> None:
    flat = np.zeros((1, 8, 8, 3), np.float32)
    red = flat.copy()
    red[:, :4, :, 0] = 1
    noisy = np.random.default_rng(0).uniform(-1, 1, flat.shape).astype(np.float32)
    base, coloured, rough = (pooled_features(x)[0] for x in (flat, red, noisy))
    assert base.shape == (96,)
    assert np.abs(base).max() == 0
    assert coloured.reshape(4, 4, 6)[:2, :, 0].min() == 1
    assert rough.reshape(4, 4, 6)[..., 3:].min() > 0.1
