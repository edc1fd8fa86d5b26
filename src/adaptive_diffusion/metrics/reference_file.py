"""Frozen records of real images as `.npz` files, an array for each field; nothing is pickled."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import UnusableFile, plainly
from ..io.array_file import read_arrays
from ..io.files import atomic_path

_SCALARS = {"int": int, "float": float, "str": str}


@dataclass(frozen=True, eq=False)
class ReferenceFile:
    """Numbers, strings and arrays that are kept in a file, but for fields whose names begin with _.

    Attributes:
        FORMAT: Name and version of the kind of file.
        WHAT: What the file holds, for error messages.
    """

    FORMAT: ClassVar[str]
    WHAT: ClassVar[str]

    def save(self, path: str | Path) -> None:
        """Write the record atomically; parent folders are created.

        Raises:
            ValueError: if `path` does not end in `.npz`.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"a file of {self.WHAT} must end in .npz, got {path.name!r}")

        names = [field.name for field in fields(self) if not field.name.startswith("_")]
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in names}
        with atomic_path(path) as temporary:
            np.savez(temporary, format=np.array(self.FORMAT), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of `save`.

        Raises:
            UnusableFile: if the file is missing, damaged, or of another kind.
        """
        arrays: dict[str, Any] = dict(read_arrays(path, cls.WHAT))
        try:
            if str(arrays.pop("format", "")) != cls.FORMAT:
                raise ValueError("it is another kind of file")
            scalars = {field.name: _SCALARS[field.type] for field in fields(cls) if field.type in _SCALARS}
            return cls(**{name: scalars[name](value) if name in scalars else value for name, value in arrays.items()})
        except (ValueError, TypeError, OverflowError) as error:
            raise UnusableFile(f"{path} cannot be read as {cls.WHAT} ({plainly(error)}); make it again") from error
