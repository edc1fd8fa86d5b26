"""An image file -> pixels of the size and the channels wanted: the one reader of images."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import UnusableFile
from .files import home_path, why_unreadable
from .pixels import prepare, to_float

log = logging.getLogger(__name__)

MAX_PIXELS = 2**27  # of one image; beyond this a small file may fill the memory

# Ghostscript would run what is in the first; the others are pieces or containers of images that Pillow cannot decode.
NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})


@cache
def formats() -> dict[str, str]:
    """Suffix of a file, in small letters -> Pillow's name of its format; of all formats that can be read."""
    from PIL import Image

    known = Image.registered_extensions()
    return {suffix: name for suffix, name in known.items() if name in Image.OPEN and name not in NOT_DECODED}


def read_image(path: str | Path, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """The image in a file, turned upright as its EXIF data say, cropped in the middle and resized; see `prepare`.

    Of an animation or a file with several pages, the first.

    Args:
        path: The file. Its content decides how it is read, not its suffix.
        size: (height, width) wanted, pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).

    Returns:
        (height, width, channels) uint8.

    Raises:
        UnusableFile: if there is no such file, or it cannot be read as an image.
    """
    return read_sized(path, size, channels)[0]


def read_sized(path: str | Path, size: tuple[int, int], channels: int = 3) -> tuple[np.ndarray, tuple[int, int]]:
    """What `read_image` reads, and the (height, width) that the upright image had in its file, pixels."""
    from PIL import Image, ImageOps

    if trouble := why_unreadable(path):
        raise UnusableFile(f"{path} {trouble}")

    try:
        with warnings.catch_warnings():
            # Pillow's warnings name no file, and MAX_PIXELS is the limit here
            warnings.simplefilter("ignore")
            with Image.open(path, formats=sorted(set(formats().values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError

                ImageOps.exif_transpose(image, in_place=True)
                return prepare(image, size, channels), (image.height, image.width)
    except Exception as error:  # Pillow's decoders raise errors of any kind for a damaged file
        raise UnusableFile(f"{path} cannot be read as an image ({_in_words(error)})") from error


def read_picture(path: str | Path, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """The image that a run starts from, at the size that its model draws; see `read_image`. A smaller one is warned of.

    Args:
        path: Its file; `~` is the home folder.
        size: (height, width), pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA), as the model draws.

    Returns:
        (height, width, channels) float32 in [-1, 1].

    Raises:
        UnusableFile: if there is no such file, or it cannot be read as an image.
    """
    try:
        pixels, found = read_sized(home_path(path), size, channels)
    except UnusableFile as error:
        raise UnusableFile(f"init_image={error}; give an image file, e.g. a PNG or JPEG") from error

    if found[0] < size[0] or found[1] < size[1]:
        log.warning("init_image=%s is enlarged from %dx%d to %dx%d pixels", path, *found[::-1], *size[::-1])
    return to_float(pixels)


def _in_words(error: Exception) -> str:
    """Why an image cannot be read."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is none, or of an unknown format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels"

    in_words = isinstance(error, (OSError, ValueError)) and str(error)
    return str(error).splitlines()[0] if in_words else "it is damaged"
