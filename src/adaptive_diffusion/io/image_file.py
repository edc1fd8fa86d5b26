"""An image file -> pixels of the size and the channels wanted: the one reader of images."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name of them
GROUND = (255, 255, 255)  # what lies behind transparent pixels: white
MAX_PIXELS = 2**27  # of one image; beyond this a small file may fill the memory
SLACK = 1e-3  # float rounding at the ends of a range

# Ghostscript would run what is in the first; the others are pieces or containers of images that Pillow cannot decode.
NOT_DECODED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})


@cache
def formats() -> dict[str, str]:
    """Suffix of a file, in small letters -> Pillow's name of its format, of all that can be read."""
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
        UserError: if there is no such file, or it cannot be read as an image.
    """
    from PIL import Image, ImageOps

    if trouble := why_unreadable(path):
        raise UserError(f"{path} {trouble}")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, which name no file; MAX_PIXELS is the limit here
            with Image.open(path, formats=sorted(set(formats().values()))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                ImageOps.exif_transpose(image, in_place=True)
                return prepare(image, size, channels)
    except Exception as error:  # of a damaged file, Pillow's decoders raise whatever they come across
        raise UserError(f"{path} cannot be read as a picture ({_in_words(error)})") from error


def _in_words(error: Exception) -> str:
    """Why an image cannot be read."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is none, or of an unknown format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels"
    in_words = isinstance(error, (OSError, ValueError)) and str(error)
    return str(error).splitlines()[0] if in_words else "it is damaged"


def why_unreadable(path: str | Path, folder: bool = False) -> str | None:
    """What is wrong with a path before anything is read: `does not exist`, `is a folder`, ...; None: nothing."""
    try:
        is_folder = os.path.isdir(path) if os.stat(path) else False
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})".lower()

    if is_folder != folder:
        return "is a folder" if is_folder else "is no folder"
    if not folder and not os.path.isfile(path):
        return "is no file that can be read from the beginning to the end"
    if not os.access(path, os.R_OK | os.X_OK if folder else os.R_OK):
        return "may not be read (permission denied)"
    return None


def prepare(image: Image.Image, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """An image as (height, width, channels) uint8: cropped in the middle to the aspect ratio wanted, and resized.

    Every image goes this way, whether it is trained on, compared with or judged, so that equal images stay equal.
    Transparent pixels become `GROUND`, unless an alpha channel is wanted. Values of more than 8 bits are scaled from
    the range that they lie in, see `_eight_bits`.

    Args:
        image: Of any mode of Pillow.
        size: (height, width) wanted, pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ValueError: for values that lie in no usual range, or modes that Pillow cannot convert.
    """
    from PIL import Image

    mode = MODES[channels]
    whole = _eight_bits(image)
    transparent = whole.mode in ("P", "PA", "LA", "RGBA", "RGBa") or "transparency" in whole.info
    fitted = _fitted(whole.convert("RGBA" if transparent else mode), size)
    if transparent and mode != "RGBA":
        fitted = Image.alpha_composite(Image.new("RGBA", fitted.size, GROUND), fitted)

    pixels = np.array(fitted.convert(mode), np.uint8).reshape(*size, channels)
    if mode == "RGBA":
        pixels[pixels[..., 3] == 0, :3] = GROUND  # what hides there is nobody's choice
    return pixels


def prepare_all(images: np.ndarray, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """`prepare` of (N, H, W, C) uint8 images, C 1, 3 or 4; those of that size and those channels stay what they are."""
    from PIL import Image

    if images.shape[1:] == (*size, channels):
        return images
    grey = images.shape[-1] == 1
    return np.stack([prepare(Image.fromarray(i[..., 0] if grey else i), size, channels) for i in images])


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest part in the middle of an image with the aspect ratio of `size`, (height, width), resized to it.

    It is cut out in whole pixels before anything is resized, so that nothing around it shows. Pillow weights colours by
    their alpha when it resizes, so that nothing that is transparent shows either.
    """
    from PIL import Image

    width = min(image.width, max(1, round(image.height * size[1] / size[0])))
    height = min(image.height, max(1, round(image.width * size[0] / size[1])))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if (width, height) != image.size:
        image = image.crop((left, top, left + width, top + height))
    return image if (height, width) == size else image.resize(size[::-1], Image.Resampling.BICUBIC)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel; deeper ones are grey, and are scaled from the range of their values.

    16-bit integers from [0, 65535]; 32-bit integers and floats from the first of [0, 1] or [-1, 1] (floats), [0, 255],
    [0, 65535], [0, 2^31 - 1] (integers) in which all values lie.
    """
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image

    values = np.asarray(image)
    low, high = _range(image, float(values.min()), float(values.max()))
    scaled = values.astype(np.float32)  # in place from here on, as images may be large
    scaled -= low
    scaled *= 255 / (high - low)
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)  # no more than `SLACK`
    grey = Image.fromarray(scaled.astype(np.uint8))

    if isinstance(hidden := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def _range(image: Image.Image, smallest: float, largest: float) -> tuple[float, float]:
    """The values of black and white."""
    floats = image.mode == "F"
    if image.mode.startswith("I;16") or (image.format == "PPM" and not floats):
        return 0, 65535  # Pillow reads PGM files of more than 8 bits like this
    ranges = [(0, 1), (-1, 1), (0, 255), (0, 65535)] if floats else [(0, 255), (0, 65535), (0, 2**31 - 1)]

    for low, high in ranges:
        doubtful = floats and high > 1 and largest <= 2  # beyond white of [0, 1], or next to black of [0, 255]?
        if low - SLACK <= smallest and largest <= high + SLACK and not doubtful:
            return low, high
    accepted = ", ".join(f"[{low}, {high}]" for low, high in ranges)
    raise ValueError(f"its values, {smallest:.4g} to {largest:.4g}, fit none of the ranges {accepted}")
