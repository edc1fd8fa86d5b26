"""The picture that a run begins with, from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .data import to_float
from .errors import UserError


def read_picture(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """A picture at the size that a model draws; one of another shape is cropped in the middle.

    Args:
        path: Its file.
        size: (height, width), pixels.

    Returns:
        (height, width, 3) float32 in [-1, 1].

    Raises:
        UserError: if there is no such file, or it cannot be read as a picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"init_image={path} does not exist; give a picture file, e.g. a PNG or JPEG")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            fitted = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.BICUBIC)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"init_image={path} cannot be read as a picture ({error}); give a PNG or JPEG") from error
    return to_float(np.asarray(fitted, np.uint8))
