"""Arrays and Pillow images -> pixels of the size, the channels and the range wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name of them
GROUND = (255, 255, 255)  # what lies behind transparent pixels: white
SLACK = 1e-3  # float rounding at the ends of a range


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] -> float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float in [-1, 1], clipped -> uint8 in [0, 255], rounded."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def to_pil(images: Any) -> list[Image.Image]:
    """Images as those of Pillow.

    Args:
        images: (N, H, W, C), floats in [-1, 1], clipped, or uint8; C 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ValueError: for another shape or type, or floats that are not finite.
    """
    from PIL import Image

    x = np.asarray(images)
    if x.ndim != 4 or x.shape[-1] not in MODES:
        raise ValueError(
            f"images must be an array (N, H, W, C) with 1, 3 or 4 channels, got the shape {x.shape}; of one image give "
            "images[None]"
        )
    if x.dtype != np.uint8:
        if x.dtype.kind != "f":
            raise ValueError(f"images must be uint8, or floats in [-1, 1], got {x.dtype}")
        if not np.isfinite(x).all():
            raise ValueError("images must be finite, got NaN or infinity")
        x = to_uint8(x)

    return [Image.fromarray(pixels[..., 0] if x.shape[-1] == 1 else pixels) for pixels in x]


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic resizing, without quantisation.

    Args:
        images: (N, H, W, C) float32.
        size: (height, width), pixels.

    Returns:
        (N, height, width, C) float32.
    """
    from PIL import Image

    def channel(plane: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BICUBIC))

    # Pillow resizes float images of one channel only
    images = np.asarray(images, np.float32)
    return np.stack([np.stack([channel(p) for p in np.moveaxis(image, -1, 0)], axis=-1) for image in images])


def prepare(image: Image.Image, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """An image as (height, width, channels) uint8: cropped in the middle to the aspect ratio wanted, and resized.

    Training, metrics and starts all prepare their images here, so that equal images stay equal. Transparent pixels
    become `GROUND`, unless an alpha channel is wanted. Values of more than 8 bits are scaled, see `_eight_bits`.

    Args:
        image: Of any mode of Pillow.
        size: (height, width) wanted, pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ValueError: for values outside every usual range, or a mode that Pillow cannot convert.
    """
    from PIL import Image

    mode = MODES[channels]
    whole = _eight_bits(image)
    transparent = whole.mode in ("P", "PA", "LA", "RGBA", "RGBa") or "transparency" in whole.info

    # alpha is needed while resizing, so that hidden colours do not bleed into visible ones
    fitted = _fitted(whole.convert("RGBA" if transparent else mode), size)
    if transparent and mode != "RGBA":
        fitted = Image.alpha_composite(Image.new("RGBA", fitted.size, GROUND), fitted)

    pixels = np.array(fitted.convert(mode), np.uint8).reshape(*size, channels)
    if mode == "RGBA":
        pixels[pixels[..., 3] == 0, :3] = GROUND  # nobody chose the colour of a pixel that cannot be seen

    return pixels


def prepare_all(images: np.ndarray, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """`prepare` each of (N, H, W, C) uint8 images, C 1, 3 or 4; grey and RGB images that fit are returned unchanged."""
    from PIL import Image

    if images.shape[1:] == (*size, channels) and MODES[channels] != "RGBA":
        return images

    grey = images.shape[-1] == 1
    return np.stack([prepare(Image.fromarray(i[..., 0] if grey else i), size, channels) for i in images])


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest part in the middle of an image with the aspect ratio of `size`, (height, width), resized to it.

    The part is cut out in whole pixels before it is resized, so that nothing around it shows. Pillow weights colours by
    their alpha when it resizes, so that nothing transparent shows either.
    """
    from PIL import Image

    width = min(image.width, max(1, round(image.height * size[1] / size[0])))
    height = min(image.height, max(1, round(image.width * size[0] / size[1])))

    left, top = (image.width - width) // 2, (image.height - height) // 2
    if (width, height) != image.size:
        image = image.crop((left, top, left + width, top + height))

    return image if (height, width) == size else image.resize(size[::-1], Image.Resampling.BICUBIC)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel. A deeper image is grey, and is scaled from the range of its values.

    16-bit integers: from [0, 65535]. 32-bit integers and floats: from the first range that holds all values, of [0, 1]
    and [-1, 1] (floats), [0, 255], [0, 65535], and [0, 2^31 - 1] (integers).
    """
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image

    values = np.asarray(image)
    low, high = _range(image, float(values.min()), float(values.max()))

    # in place from here on, as images may be large
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255 / (high - low)
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)  # clips no more than `SLACK`
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
        # floats of 1.5, say, may lie beyond the white of [0, 1] or next to the black of [0, 255]
        doubtful = floats and high > 1 and largest <= 2
        if low - SLACK <= smallest and largest <= high + SLACK and not doubtful:
            return low, high

    accepted = ", ".join(f"[{low}, {high}]" for low, high in ranges)
    raise ValueError(f"its values, {smallest:.4g} to {largest:.4g}, fit none of the ranges {accepted}")
