"""Redirect a loaded library's calls to other functions, by rewriting its table of imported functions in memory.

Loading the other functions with RTLD_GLOBAL instead would reach every library of the process. PyTorch would then use
the same BLAS, and compute wrong complex dot products, since it is compiled for MKL's calling convention.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# elf.h
_PT_DYNAMIC, _PT_GNU_RELRO = 2, 0x6474E552
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 2, 5, 6, 23
_PROGRAM_HEADER = struct.Struct("=IIQQQQQQ")  # type, flags, offset, vaddr, paddr, filesz, memsz, align
_DYNAMIC_ENTRY = struct.Struct("=qQ")  # tag, value
_RELOCATION = struct.Struct("=QQq")  # offset, symbol << 32 | type, addend
_SYMBOL_SIZE = 24


class _Header(ctypes.Structure):
    """The beginning of struct dl_phdr_info (link.h)."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("count", ctypes.c_uint16),
    )


_VISITOR = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Header), ctypes.c_size_t, ctypes.c_void_p)


@dataclass(frozen=True)
class LoadedLibrary:
    """A shared library in this process's memory.

    Attributes:
        address: Where it is loaded.
        headers: Its program headers: type, flags, offset, vaddr, paddr, filesz, memsz, align.
    """

    address: int
    headers: tuple[tuple[int, ...], ...]

    def _segment(self, kind: int) -> tuple[int, int] | None:
        """Address and size of its first segment of this kind."""
        return next(((self.address + h[3], h[6]) for h in self.headers if h[0] == kind), None)

    def calls(self) -> dict[str, int]:
        """Imported functions by name, and the address that each call goes to."""
        return {name: ctypes.c_uint64.from_address(slot).value for name, slot in self._slots()}

    def redirect(self, targets: Mapping[str, int]) -> bool:
        """Redirect calls of imported functions.

        Args:
            targets: Name of the function -> address of the code to run instead.

        Returns:
            False if the system forbids it; nothing has changed then.
        """
        slots = [(slot, targets[name]) for name, slot in self._slots() if name in targets]

        # the loader has write-protected the pages of this segment
        start, size = self._segment(_PT_GNU_RELRO) or (0, 0)
        sealed = {slot - slot % mmap.PAGESIZE for slot, _ in slots if start <= slot < start + size}
        if not all(_make_writable(page) for page in sealed):
            return False

        for slot, address in slots:
            ctypes.c_uint64.from_address(slot).value = address
        return True

    def _slots(self) -> Iterator[tuple[str, int]]:
        """Each imported function's name, and the address of the pointer to its code."""
        dynamic = self._segment(_PT_DYNAMIC)
        if dynamic is None:
            return

        tags = dict(_DYNAMIC_ENTRY.iter_unpack(ctypes.string_at(*dynamic)[: dynamic[1] // 16 * 16]))
        if not {_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL} <= tags.keys():
            return

        # each relocation names a symbol and the slot that holds its address
        for offset, info, _ in _RELOCATION.iter_unpack(ctypes.string_at(tags[_DT_JMPREL], tags[_DT_PLTRELSZ])):
            symbol = tags[_DT_SYMTAB] + (info >> 32) * _SYMBOL_SIZE
            name = ctypes.string_at(tags[_DT_STRTAB] + ctypes.c_uint32.from_address(symbol).value)
            yield name.decode("ascii", "replace"), self.address + offset


class _Symbol(ctypes.Structure):
    """Dl_info (dlfcn.h)."""

    _fields_ = (
        ("library", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def owner(address: int) -> str:
    """Path of the library that holds the code at an address, or ""."""
    found = _Symbol()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(found)):
        return ""
    return (found.library or b"").decode(errors="replace")


def function_address(library: ctypes.CDLL, name: str) -> int | None:
    """The address of a function in memory, or None."""
    function = getattr(library, name, None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def find(name: str) -> LoadedLibrary | None:
    """The loaded library whose path ends in `name` (64-bit Linux with glibc)."""
    found: list[LoadedLibrary] = []

    def visit(header: ctypes._Pointer[_Header], size: int, _: int | None) -> int:
        library = header.contents
        if not (library.name or b"").endswith(name.encode()):
            return 0

        raw = ctypes.string_at(library.headers, library.count * _PROGRAM_HEADER.size)
        found.append(LoadedLibrary(library.address, tuple(_PROGRAM_HEADER.iter_unpack(raw))))
        return 1

    ctypes.CDLL(None).dl_iterate_phdr(_VISITOR(visit), None)
    return found[0] if found else None


def _make_writable(page: int) -> bool:
    """Undo the loader's write protection of a page of pointers."""
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    return ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), rights) == 0
