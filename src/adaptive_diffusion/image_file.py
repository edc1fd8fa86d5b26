"""An image file -> pixels of the size and the channels wanted: the one reader of images."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name of them
GROUND = (255, 255, 255)  # what lies behind transparent pixels: white
MAX_PIXELS = 2**27  # of one image; beyond this a small file may fill the memory

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
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise ValueError(f"it has {pixels} pixels, and {MAX_PIXELS} is the most")
                return prepare(ImageOps.exif_transpose(image), size, channels)
    except Exception as error:  # of a damaged file, Pillow's decoders raise whatever they come across
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        reason = str(error) if isinstance(error, (OSError, ValueError)) and str(error) else reason
        raise UserError(f"{path} cannot be read as a picture ({reason})") from error


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
    if whole.mode in ("P", "PA", "LA", "RGBA", "RGBa") or "transparency" in whole.info:
        whole = whole.convert("RGBA")
        if mode != "RGBA":
            whole = Image.alpha_composite(Image.new("RGBA", whole.size, GROUND), whole)

    middle = whole.convert(mode).crop(_middle(whole.size, size))
    if middle.size != (size[1], size[0]):
        middle = middle.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = np.array(middle, np.uint8).reshape(*size, channels)
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


def _middle(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box in the middle of an image, (width, height), with the aspect ratio of `size`, (height, width).

    It is cut out in whole pixels before anything is resized, so that nothing around it shows.
    """
    width = min(whole[0], max(1, round(whole[1] * size[1] / size[0])))
    height = min(whole[1], max(1, round(whole[0] * size[0] / size[1])))
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    return left, top, left + width, top + height


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel; deeper ones are grey, and are scaled from the range of their values.

    16-bit integers from [0, 65535]; 32-bit integers and floats from the first of [0, 1] or [-1, 1] (floats), [0, 255],
    [0, 65535], [0, 2^31 - 1] (integers) in which all values lie.
    """
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image

    values = np.asarray(image).astype(np.float64)
    low, high = _range(image, values)
    grey = Image.fromarray(np.rint((values - low) * (255 / (high - low))).astype(np.uint8))
    if isinstance(hidden := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def _range(image: Image.Image, values: np.ndarray) -> tuple[float, float]:
    """The values of black and white."""
    floats = image.mode == "F"
    if image.mode.startswith("I;16") or (image.format == "PPM" and not floats):
        return 0, 65535  # Pillow reads PGM files of more than 8 bits like this
    ranges = [(0, 1), (-1, 1), (0, 255), (0, 65535)] if floats else [(0, 255), (0, 65535), (0, 2**31 - 1)]

    smallest, largest = float(values.min()), float(values.max())
    for low, high in ranges:
        if low <= smallest and largest <= high:
            return low, high
    accepted = ", ".join(f"[{low}, {high}]" for low, high in ranges)
    raise ValueError(f"its values, {smallest:.4g} to {largest:.4g}, lie in none of the ranges {accepted}")
