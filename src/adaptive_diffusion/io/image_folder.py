"""The image files below a folder, and the label of each."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .counted import count
from .image_file import formats

log = logging.getLogger(__name__)

# Left behind by operating systems, file managers and notebooks. Names that begin with a dot are left out as well.
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "@eadir"})


def image_files(folder: Path) -> list[Path]:
    """The files below a folder that have the suffix of an image, sorted; a warning counts the files that have not.

    Linked folders are followed, each once; hidden folders and files are left out.
    """
    files = [file for file in _files(folder) if not _is_litter(file.name)]
    images = [file for file in files if file.suffix.lower() in formats()]

    if others := Counter(file.suffix.lower() or "without suffix" for file in set(files).difference(images)):
        counts = ", ".join(f"{n} {suffix}" for suffix, n in sorted(others.items()))
        log.warning("left out of %s: %s of kinds that are not read (%s)", folder, count(others.total(), "file"), counts)

    return sorted(images)


def has_images(folder: Path) -> bool:
    """Whether any file below a folder has the suffix of an image."""
    return any(file.suffix.lower() in formats() and not _is_litter(file.name) for file in _files(folder))


def label_of(file: Path, folder: Path) -> str:
    """The name of the sub-folder that holds a file; "" for a file in the folder itself."""
    first, *rest = file.relative_to(folder).parts
    return first if rest else ""


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Links are followed last, so that a linked folder keeps the label of its real place."""
    seen: set[tuple[int, int]] = set()
    starts = [folder]

    for start in starts:  # grows by the links that are found
        for place, folders, files in os.walk(start, onerror=_unreadable):
            identity = os.stat(place).st_dev, os.stat(place).st_ino
            if identity in seen:
                log.warning("left out %s: it is a link to a folder that is read already", place)
                folders.clear()
                continue

            seen.add(identity)
            folders[:] = sorted(name for name in folders if not _is_litter(name))
            here = Path(place)
            starts += [here / name for name in folders if (here / name).is_symlink()]
            yield from (here / name for name in files)


def _unreadable(error: OSError) -> None:
    log.warning("left out %s: it cannot be read (%s)", error.filename, (error.strerror or "").lower())
