"""NumPy's array files, .npz and .npy, from wherever they come: nothing is unpickled, and nothing damaged passes."""

from __future__ import annotations

import zipfile
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, read_array

from ..errors import UserError
from .archive import check_unpacked, why_damaged
from .image_file import why_unreadable

UNNAMED = "arr_0"  # what np.savez calls an array without a name; so is that of a .npy file called here


def read_arrays(path: str | Path, what: str = "a NumPy array file") -> dict[str, np.ndarray]:
    """The arrays in a file, by name.

    The sums of the archive are checked to the last byte, and its sizes are before anything is unpacked.

    Args:
        path: A .npz or .npy file; its content decides which.
        what: What it is to be, for the error message.

    Raises:
        UserError: if there is no such file, it is damaged or another kind of file, holds Python objects, or would
            unpack to more than `check_unpacked` lets pass.
    """
    if trouble := why_unreadable(path):
        raise UserError(f"{path} {trouble}; give {what}")

    try:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                return _unpacked(file)
            file.seek(0)
            return {UNNAMED: _array(file)}
    except UserError:
        raise
    except Exception as error:  # zlib's, zipfile's and NumPy's own, which have no common kind
        raise UserError(f"{path} cannot be read as {what}: {why_damaged(error)}") from error


def array_names(path: str | Path) -> list[str]:
    """The names of the arrays in a .npz file; [] if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return []


def _unpacked(file: BufferedReader) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        check_unpacked(archive, "write it again with np.savez, without compression")
        arrays = {}
        for entry in archive.infolist():
            with archive.open(entry) as member:
                assert isinstance(member, zipfile.ZipExtFile)
                arrays[entry.filename.removesuffix(".npy")] = _array(member)
        return arrays


def _array(file: BufferedReader | zipfile.ZipExtFile) -> np.ndarray:
    if file.peek(len(MAGIC_PREFIX))[: len(MAGIC_PREFIX)] != MAGIC_PREFIX:
        raise ValueError("it does not begin as NumPy's arrays do")
    array: np.ndarray = read_array(file, allow_pickle=False)
    if file.read(1):  # also lets the archive check its sum
        raise ValueError("it holds more than the array it tells of")
    return array
