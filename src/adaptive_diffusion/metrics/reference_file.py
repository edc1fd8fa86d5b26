"""Frozen records of real images as `.npz` files, an array for each field; nothing is pickled."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import UnusableFile
from ..io.array_file import read_arrays
from ..io.files import atomic_path

Record = TypeVar("Record")
_SCALARS = {"int": int, "float": float, "str": str}


def save_record(path: str | Path, record: Any, format: str) -> None:
    """Write a dataclass of numbers, strings and arrays atomically.

    Args:
        path: The file.
        record: The dataclass.
        format: Name and version of the kind of file.
    """
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(record, field.name)) for field in fields(record)}
    with atomic_path(path) as temporary:
        np.savez(temporary, format=np.array(format), **arrays)


def load_record(path: str | Path, kind: type[Record], format: str, what: str) -> Record:
    """Read a file of `save_record`.

    Args:
        path: The file.
        kind: The dataclass.
        format: As it was written.
        what: What the file has to be, for the error message.

    Raises:
        UnusableFile: if the file is missing, damaged, or of another kind.
    """
    arrays: dict[str, Any] = dict(read_arrays(path, what))
    try:
        if str(arrays.pop("format", "")) != format:
            raise ValueError("it is another kind of file")
        scalars = {field.name: _SCALARS[field.type] for field in fields(kind) if field.type in _SCALARS}  # type: ignore
        return kind(**{name: scalars[name](value) if name in scalars else value for name, value in arrays.items()})
    except (ValueError, TypeError, OverflowError) as error:
        raise UnusableFile(f"{path} cannot be read as {what} ({error}); make it again") from error
