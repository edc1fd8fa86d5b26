"""NumPy's array files, .npz and .npy. No file is trusted: nothing is unpickled, and damaged files are refused."""

from __future__ import annotations

import zipfile
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, read_array

from ..errors import UnusableFile
from .archive import check_unpacked, why_damaged
from .files import why_unreadable

UNNAMED = "arr_0"  # np.savez's name for an array without a name; here also the name of the array in a .npy file


def read_arrays(path: str | Path, what: str = "a NumPy array file") -> dict[str, np.ndarray]:
    """The arrays in a file, by name.

    The sizes that an archive declares are checked before anything is unpacked, its checksums afterwards.

    Args:
        path: A .npz or .npy file; its content decides which.
        what: What the file has to be, for the error message.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind, holds Python objects, or would unpack to more
            than `check_unpacked` accepts.
    """
    if trouble := why_unreadable(path):
        raise UnusableFile(f"{path} {trouble}; give {what}")

    try:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                return _unpacked(file)

            file.seek(0)
            return {UNNAMED: _array(file)}
    except UnusableFile:
        raise
    except Exception as error:  # errors of zlib, zipfile and NumPy have no common class
        raise UnusableFile(f"{path} cannot be read as {what}: {why_damaged(error)}") from error


def array_names(path: str | Path) -> list[str]:
    """The names of the arrays in a .npz file; [] for any other file."""
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
    if file.read(1):  # reading to the end also makes the archive check its sum
        raise ValueError("it holds more than the array that it declares")
    return array
