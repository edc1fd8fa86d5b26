"""A data set of images: read from a folder or an array file, and split into a training and a held-back part."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Unusable, UnusableFile
from .array_file import UNNAMED, read_arrays
from .counted import count
from .files import home_path, why_unreadable
from .image_file import read_sized
from .image_folder import image_files, label_of
from .pixels import MODES, prepare_all
from .pixels import resize as resize  # this module had them in version 0.1.0
from .pixels import to_float as to_float
from .splits import SPLITS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureSet:
    """Images of one domain, with their labels.

    Attributes:
        images: (N, H, W, C) uint8.
        labels: (N,) index into `label_names`, or -1 where an image has no label.
        label_names: Names of the labels, sorted as in the source.
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def split(
        self, validation_fraction: float, rule: str = "per_label", seed: int = 0
    ) -> tuple[PictureSet, PictureSet]:
        """The images to train on, and the images held back.

        Args:
            validation_fraction: Share of the images to hold back, in [0, 1).
            rule: Which images: a name in `splits.SPLITS`.
            seed: Decides about random choices.

        Raises:
            ValueError: for a share or a rule that does not exist.
            Unusable: if nothing is left to train on.
        """
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), got {validation_fraction}")
        if rule not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {rule!r}")

        held = SPLITS[rule](self.labels, validation_fraction, seed)
        trained = np.setdiff1d(np.arange(len(self)), held)
        if not len(trained):
            raise Unusable(
                f"validation_fraction={validation_fraction} of {count(len(self), 'image')} leaves none to train on"
            )

        train, held_back = self._rows(trained), self._rows(held)
        if len(held):
            self._warn_of_rare_labels(train)
        return train, held_back

    def split_as_trained(self, recipe: Mapping[str, Any]) -> tuple[PictureSet, PictureSet]:
        """The split of the training whose recipe stands in a network's file."""
        rule = recipe.get("split", "tail")  # files of version 0.1.0 name no rule
        return self.split(recipe["validation_fraction"], rule, recipe["seed"])

    def _rows(self, rows: np.ndarray) -> PictureSet:
        return PictureSet(self.images[rows], self.labels[rows], self.label_names)

    def _warn_of_rare_labels(self, train: PictureSet) -> None:
        """Warn of labels without an image in `train`, and of labels whose only image is there."""
        counts, trained = (np.bincount(s.labels[s.labels >= 0], minlength=len(self.label_names)) for s in (self, train))
        groups = {
            "no training images": (counts > 0) & (trained == 0),
            "only one image": (counts == 1) & (trained == 1),
        }

        for what, affected in groups.items():
            if names := [name for name, yes in zip(self.label_names, affected, strict=True) if yes]:
                some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                then = ", which is trained on, and none is kept back" if what == "only one image" else ""
                log.warning("labels with %s%s: %d (%s)", what, then, len(names), some)


def load_pictures(path: str | Path, image_size: int | tuple[int, int], channels: int = 3) -> PictureSet:
    """Read images from a folder or an array file.

    Args:
        path: A folder of image files (the names of its sub-folders become labels), a `.npz` file with `images`
            (N, H, W, C) uint8 and optionally `labels` (N,) and `label_names` (K,), or a `.npy` file of images.
        image_size: Side, or (height, width), in pixels; images of other sizes are cropped in the middle and resized
            with antialiasing, see `pixels.prepare`; a warning counts those that are enlarged.
        channels: 1 (grey), 3 (RGB, transparent pixels on white) or 4 (RGBA); images are converted to it.

    Raises:
        Unusable: for another number of channels.
        UnusableFile: if there is nothing at `path`, no readable image in it, or arrays of another form.
    """
    if channels not in MODES:
        raise Unusable(f"images are read with 1 (grey), 3 (RGB) or 4 (RGBA) channels, got {channels}")

    path = home_path(path)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size

    is_array = path.suffix.lower() in (".npz", ".npy")
    if trouble := why_unreadable(path, folder=not is_array):
        raise UnusableFile(f"no images at {path}: it {trouble}; give a folder of images, or a .npz or .npy array file")
    read = _from_arrays(path, size, channels) if is_array else _from_folder(path, size, channels)
    labels = f" with {count(len(read.label_names), 'label')}" if read.label_names else ""
    log.info("read %s%s from %s", count(len(read), "image"), labels, path)
    return read


def _from_folder(folder: Path, size: tuple[int, int], channels: int) -> PictureSet:
    files = image_files(folder)

    images, sizes, names, skipped = [], [], [], ""
    for file in files:
        try:
            image, found = read_sized(file, size, channels)
            images.append(image)
            sizes.append(found)
            names.append(label_of(file, folder))
        except UnusableFile as error:
            log.warning("skipped: %s", error)
            skipped = f", e.g. {error}"

    if not images:
        raise UnusableFile(
            f"no readable images in {folder}: {count(len(files), 'file')} with the suffix of an image{skipped}; "
            "give a folder of PNG, JPEG or other images"
        )

    _warn_of_enlarged(folder, sizes, size)
    label_names = tuple(sorted(set(names) - {""}))
    index = {name: i for i, name in enumerate(label_names)}
    return PictureSet(np.stack(images), np.array([index.get(n, -1) for n in names], np.int32), label_names)


def _from_arrays(file: Path, size: tuple[int, int], channels: int) -> PictureSet:
    arrays = read_arrays(file)
    images = arrays.get("images", arrays.get(UNNAMED))
    if (
        images is None
        or images.ndim != 4
        or images.shape[-1] not in MODES
        or images.dtype != np.uint8
        or not images.size
    ):
        found = "no array 'images'" if images is None else f"{images.dtype} {images.shape}"
        raise UnusableFile(
            f"{file} must hold 'images' as (N, H, W, 3) uint8 with N > 0 (or 1 or 4 channels), got {found}"
        )

    labels, names = arrays.get("labels", np.full(len(images), -1)), arrays.get("label_names", np.array([], str))
    _check_labels(file, len(images), labels, names)
    _warn_of_enlarged(file, [images.shape[1:3]] * len(images), size)
    return PictureSet(prepare_all(images, size, channels), labels.astype(np.int32), tuple(map(str, names)))


def _warn_of_enlarged(path: Path, sizes: Sequence[tuple[int, ...]], size: tuple[int, int]) -> None:
    """Warn of images of fewer pixels than are wanted, (height, width) each: they are blurred."""
    if small := [found for found in sizes if found[0] < size[0] or found[1] < size[1]]:
        log.warning(
            "%s of %d in %s enlarged to %dx%d pixels, the smallest from %dx%d",
            *(count(len(small), "image"), len(sizes), path, *size[::-1], *min(small, key=math.prod)[::-1]),
        )


def _check_labels(file: Path, n: int, labels: np.ndarray, names: np.ndarray) -> None:
    """Refuse labels that do not index the names, and names that are not different texts."""
    if names.ndim != 1 or (names.size and names.dtype.kind != "U"):
        raise UnusableFile(f"{file}: 'label_names' must be (K,) texts, got {names.dtype} {names.shape}")
    if len(set(names.tolist())) < len(names) or "" in names:
        raise UnusableFile(f"{file}: 'label_names' must be different texts, none of them empty")

    wanted = f"{file}: 'labels' must be ({n},) indices into the {len(names)} 'label_names'"
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise UnusableFile(f"{wanted}, got {labels.dtype} of shape {labels.shape}")
    if labels.min() < -1 or labels.max() >= len(names):
        raise UnusableFile(f"{wanted}, or -1, got shape {labels.shape} with values {labels.min()} to {labels.max()}")
