"""The picture that a run begins with, from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UserError
from .image_file import read_image
from .pictures import to_float


def read_picture(path: str | Path, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """A picture at the size that a model draws; one of another shape is cropped in the middle, see `read_image`.

    Args:
        path: Its file.
        size: (height, width), pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA), as the model draws.

    Returns:
        (height, width, channels) float32 in [-1, 1].

    Raises:
        UserError: if there is no such file, or it cannot be read as a picture.
    """
    try:
        return to_float(read_image(Path(path).expanduser(), size, channels))
    except UserError as error:
        raise UserError(f"init_image={error}; give a picture file, e.g. a PNG or JPEG") from error
