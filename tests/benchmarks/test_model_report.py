"""The report on a model: whether it would notice copies."""

import numpy as np
from tiny import tiny_model

from adaptive_diffusion.io.pictures import PictureSet
from adaptive_diffusion.io.pixels import to_float
from benchmarks.model import draw, nearest_neighbours


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


def test_the_pictures_drawn_are_the_same_whatever_the_batch_and_others_for_another_domain_or_guidance() -> None:
    model = tiny_model()
    drawn = draw(model, "general", 5, steps=3, guidance=1.5)
    assert drawn.shape == (5, 8, 8, 3)
    assert np.abs(drawn).max() <= 1
    assert np.ptp(drawn, axis=0).max() > 0.1  # five images, not one
    np.testing.assert_allclose(draw(model, "general", 5, steps=3, guidance=1.5, batch=2), drawn, atol=1e-4)
    for other in (draw(model, "abstract", 5, steps=3, guidance=1.5), draw(model, "general", 5, steps=3, guidance=3.0)):
        assert np.abs(other - drawn).max() > 1e-3
