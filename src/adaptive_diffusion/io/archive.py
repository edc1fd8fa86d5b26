"""Zip archives from wherever they come: what they would unpack to is known before anything is unpacked."""

from __future__ import annotations

import os
import zipfile

from ..errors import UnusableFile

# An archive may unpack to this many bytes, or to so many times its own size, whichever is more.
MAX_UNPACKED, MAX_RATIO = 2**28, 100


def check_unpacked(archive: zipfile.ZipFile, remedy: str) -> None:
    """Refuse an archive that would fill the memory.

    Args:
        archive: An open one.
        remedy: What the user may do, for the error message.

    Raises:
        UnusableFile: if it would unpack to more than `MAX_UNPACKED` bytes and to more than `MAX_RATIO` times its size.
    """
    assert archive.fp is not None
    unpacked = sum(entry.file_size for entry in archive.infolist())
    packed = archive.fp.seek(0, os.SEEK_END)
    if unpacked > (limit := max(MAX_UNPACKED, MAX_RATIO * packed)):
        raise UnusableFile(
            f"{archive.filename} would unpack to {unpacked} bytes, {unpacked / packed:.0f} times its size, and {limit} "
            f"is the most; {remedy}"
        )


def why_damaged(error: Exception) -> str:
    """What is wrong with an archive that zipfile or zlib could not read, for the error message."""
    if isinstance(error, RuntimeError) and "encrypted" in str(error):
        return "it is encrypted; save it without a password"
    if isinstance(error, MemoryError):
        return "it wants more memory than there is"
    return "it is truncated, damaged or another kind of file; get or make it again"
