"""What counts as images: one check for every metric."""

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.metrics.pictures import as_float, as_uint8, check_pictures


def test_bytes_and_floats_are_the_same_pictures() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    floats = as_float(pixels)
    assert (floats.min(), floats.max()) == (-1, 1)
    np.testing.assert_array_equal(as_uint8(floats), pixels)
    np.testing.assert_array_equal(as_uint8(mx.array(pixels)), pixels)
    np.testing.assert_array_equal(as_uint8(mx.array(floats).astype(mx.bfloat16)).shape, pixels.shape)


def test_rounding_at_the_ends_is_clipped() -> None:
    assert check_pictures(np.full((1, 2, 2, 3), 1.0005)).max() == 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3)), r"one image of shape \(8, 8, 3\); give images\[None\]"),
        (np.zeros((2, 8, 8)), "for grey images"),
        (np.zeros((2, 8, 8, 1)), "grey images.*np.repeat"),
        (np.zeros((2, 8, 8, 4)), "RGBA"),
        (np.zeros((2, 3, 8, 8)), "channels first"),
        (np.zeros((2, 8, 8, 2)), "2 channels"),
        (np.zeros((8, 8)), r"got shape \(8, 8\)"),
        (np.zeros((0, 8, 8, 3)), "at least one image"),
        (np.zeros((2, 8, 8, 3), np.uint16), "got uint16; for 16-bit"),
        (np.zeros((2, 8, 8, 3), bool), "got bool"),
        (np.full((2, 8, 8, 3), np.nan), "NaN or infinity in 2 of 2"),
        (np.full((2, 8, 8, 3), 255.0), r"got \[255, 255\]; convert images in \[0, 255\]"),
        (np.full((2, 8, 8, 3), 1.1), "clip them"),
        (np.array([None, None]), "different sizes"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pictures(images)
