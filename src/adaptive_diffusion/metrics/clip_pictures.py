"""Preparation of images for CLIP: bicubic resize of the shortest side to 224, centre crop, normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnusableFile, plainly
from ..io.files import read_json

_BICUBIC = 3  # Pillow's number, as in the files


@dataclass(frozen=True)
class Preparation:
    """The steps that a `preprocessor_config.json` describes.

    Attributes:
        size: Shortest side after resizing, pixels.
        crop: Side of the square that is cut from the centre, pixels.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
    """

    size: int = 224
    crop: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 -> (N, crop, crop, 3) float32.

        Pillow resizes with antialiasing, as in Hugging Face's implementation.
        """
        from PIL import Image

        height, width = images.shape[1:3]
        short = min(height, width)
        rows, columns = (self.size if side == short else int(self.size * side / short) for side in (height, width))
        if (rows, columns) != (height, width):
            resized = [
                np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC)) for image in images
            ]
            images = np.stack(resized)

        top, left = (rows - self.crop) // 2, (columns - self.crop) // 2
        x = images[:, top : top + self.crop, left : left + self.crop].astype(np.float32) / np.float32(255)
        return (x - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)


def read_preparation(folder: Path, image_size: int) -> Preparation:
    """Read `preprocessor_config.json` or the newer `processor_config.json`.

    A folder without these files gets OpenAI's constants at the size of the network.

    Args:
        folder: Model folder.
        image_size: Side of the input of the network, pixels.

    Raises:
        UnusableFile: if the file describes other steps than CLIP's, or another size of the images.
    """
    for path in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        if path.is_file():
            settings = read_json(path)
            return _from_dict(settings.get("image_processor") or settings, path, image_size)

    return Preparation(image_size, image_size)


def _from_dict(settings: dict[str, Any], path: Path, image_size: int) -> Preparation:
    plain = Preparation()
    try:
        preparation = Preparation(
            _side(settings.get("size", image_size), "shortest_edge"),
            _side(settings.get("crop_size", image_size), "height"),
            tuple(map(float, settings.get("image_mean", plain.mean))),
            tuple(map(float, settings.get("image_std", plain.std))),
        )
    except (KeyError, TypeError, ValueError) as error:
        unlike = f"{path} describes a preparation that is not CLIP's ({plainly(error)}); get the file again"
        raise UnusableFile(unlike) from error

    steps = ("do_resize", "do_center_crop", "do_normalize", "do_rescale")
    odd = [step for step in steps if settings.get(step, True) is not True]
    if odd or settings.get("resample", _BICUBIC) != _BICUBIC or preparation.crop > preparation.size:
        raise UnusableFile(f"{path} asks for a preparation that is not CLIP's (bicubic resize, centre crop, normalise)")
    if preparation.crop != image_size:
        raise UnusableFile(f"{path} gives images of {preparation.crop} pixels, but the network takes {image_size}")

    return preparation


def _side(value: Any, key: str) -> int:
    """A length: a number in old files, {"shortest_edge": 224} or {"height": 224, ...} in new files."""
    return int(value[key]) if isinstance(value, dict) else int(value)
