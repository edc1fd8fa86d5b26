"""Training pictures: a folder or an array file -> NHWC batches, in an order that is a pure function of the seed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import UserError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one domain.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N,) index into `label_names`, or -1 where a picture has no label.
        label_names: Names of the labels, sorted as in the source.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def split(self, validation_fraction: float) -> tuple[PictureSet, PictureSet]:
        """Training and validation part: the last `validation_fraction` of the rows, one block, is kept back."""
        if not 0 <= validation_fraction < 1:
            raise UserError(f"validation_fraction must lie in [0, 1), got {validation_fraction}")
        cut = len(self) - round(len(self) * validation_fraction)
        first, last = slice(None, cut), slice(cut, None)
        return (
            PictureSet(self.images[first], self.labels[first], self.label_names),
            PictureSet(self.images[last], self.labels[last], self.label_names),
        )


def load_pictures(path: str | Path, image_size: int) -> PictureSet:
    """Read pictures from a folder or an array file.

    Args:
        path: A folder of pictures (the names of its sub-folders become labels), a `.npz` file with `images`
            (N, H, W, 3) uint8 and optionally `labels` (N,) and `label_names` (K,), or a `.npy` file of images.
        image_size: Side in pixels; other sizes are cropped to the central square and resized with antialiasing.

    Raises:
        UserError: if there is nothing at `path`, no readable picture in it, or arrays of another form.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, image_size)
    if path.suffix in (".npz", ".npy") and path.is_file():
        return _from_arrays(path, image_size)
    raise UserError(f"no pictures at {path}: give an existing folder of pictures, or a .npz or .npy array file")


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] -> float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float in [-1, 1] (clipped) -> uint8 in [0, 255], rounded."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic resizing.

    Args:
        images: (N, H, W, C) float32.
        size: (height, width) in pixels.

    Returns:
        (N, height, width, C) float32, each channel resized without quantisation.
    """
    from PIL import Image

    def channel(plane: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BICUBIC))

    images = np.asarray(images, np.float32)
    return np.stack([np.stack([channel(p) for p in np.moveaxis(image, -1, 0)], axis=-1) for image in images])


class BatchOrder:
    """Which pictures make up batch number `step`: groups drawn equally often, each reshuffled every epoch.

    A pure function of seed and step, so training can resume at any step and split a batch over processes.

    Args:
        group_sizes: Number of pictures in each group, all positive.
        batch_size: Pictures per batch.
        seed: Seed of the order and of the flips.
    """

    def __init__(self, group_sizes: list[int], batch_size: int, seed: int):
        self._sizes, self._batch_size, self._seed = group_sizes, batch_size, seed
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Group (B,), row within the group (B,) and whether to mirror (B,) of each picture of batch `step`."""
        slots = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        groups = slots % len(self._sizes)
        draws = slots // len(self._sizes)
        rows = np.array([self._row(g, d) for g, d in zip(groups.tolist(), draws.tolist(), strict=True)])
        mirror = np.random.default_rng([self._seed, 1, step]).random(self._batch_size) < 0.5
        return groups, rows, mirror

    def _row(self, group: int, draw: int) -> int:
        """The row of the `draw`-th picture taken from a group."""
        epoch, position = divmod(draw, self._sizes[group])
        if self._permutations.get(group, (-1,))[0] != epoch:
            rng = np.random.default_rng([self._seed, 0, group, epoch])
            self._permutations[group] = epoch, rng.permutation(self._sizes[group])
        return int(self._permutations[group][1][position])


def _from_folder(folder: Path, image_size: int) -> PictureSet:
    from PIL import Image, ImageOps, UnidentifiedImageError

    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    images, names = [], []
    for file in files:
        try:
            with Image.open(file) as image:
                square = ImageOps.fit(image.convert("RGB"), (image_size, image_size), Image.Resampling.BICUBIC)
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            log.warning("skipped %s: it cannot be read as a picture (%s)", file, error)
            continue
        images.append(np.asarray(square, np.uint8))
        names.append("" if file.parent == folder else file.parent.relative_to(folder).parts[0])
    if not images:
        raise UserError(
            f"no readable pictures in {folder} ({len(files)} files looked like pictures); "
            f"accepted are {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    label_names = tuple(sorted(set(names) - {""}))
    index = {name: i for i, name in enumerate(label_names)}
    return PictureSet(np.stack(images), np.array([index.get(n, -1) for n in names], np.int32), label_names)


def _from_arrays(file: Path, image_size: int) -> PictureSet:
    try:
        loaded = np.load(file, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"images": loaded}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read as a NumPy array file: {error}") from error
    images = arrays.get("images")
    if images is None or images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
        found = "no array 'images'" if images is None else f"{images.dtype} {images.shape}"
        raise UserError(f"{file} must hold 'images' as (N, H, W, 3) uint8 with N > 0, got {found}")
    if images.shape[1:3] != (image_size, image_size):
        side = min(images.shape[1:3])
        top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
        square = to_float(images[:, top : top + side, left : left + side])
        images = to_uint8(resize(square, (image_size, image_size)))
    label_names = tuple(str(name) for name in arrays.get("label_names", ()))
    labels = arrays.get("labels", np.full(len(images), -1)).astype(np.int32)
    if labels.shape != (len(images),) or labels.min() < -1 or labels.max() >= max(len(label_names), 1):
        raise UserError(
            f"{file}: 'labels' must be ({len(images)},) indices into the {len(label_names)} 'label_names', "
            f"got shape {labels.shape} with values {labels.min()} to {labels.max()}"
        )
    return PictureSet(images, labels, label_names)
