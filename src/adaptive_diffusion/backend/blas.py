"""The BLAS that MLX computes with on a Linux CPU.

The Linux wheel of MLX bundles the slow reference BLAS. This module finds a faster library, loads it, and redirects
MLX's calls of BLAS and LAPACK to it. SciPy's wheel, which MLflow installs, brings an OpenBLAS. On a Mac, MLX uses
Accelerate and Metal, and this module does nothing. Measured ratios: docs/notes/tried.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import fnmatch
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..program import pip_install
from . import elf

CHOICES = ("auto", "mkl", "openblas", "none")
REMEDY = f"install one with: {pip_install('cpu')} (or on Debian and Ubuntu: apt install libopenblas0-pthread)"

_SYSTEM_OPENBLAS = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
_IMPORTS = re.compile(r"cblas_[a-z0-9_]+|[sdcz][a-z0-9]+_")  # functions of BLAS and LAPACK
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


@dataclass(frozen=True)
class Candidate:
    """A library to try.

    Attributes:
        name: "openblas", "mkl" or "custom".
        path: The file, or a bare name for the dynamic linker to find.
        prefix: The beginning of its functions' names; `scipy_` in SciPy's wheel.
    """

    name: str
    path: str
    prefix: str = ""


@dataclass(frozen=True)
class Threads:
    """The threads that a library computes one matrix product with, which can be set at any time."""

    get: Callable[[], int]
    set: Callable[[int], object]


@dataclass(frozen=True)
class Blas:
    """The BLAS in use.

    Attributes:
        name: "openblas", "mkl", "custom", "linked" (MLX was built or preloaded with its own), "accelerate" (macOS),
            or "bundled" (the reference BLAS of the Linux wheel).
        path: The library; None for those of MLX and macOS.
        core: The instruction set that OpenBLAS reports; "" for other libraries.
        threads: Threads of one matrix product; None if the library does not report them.
        control: Changes them; None if the library has no such function.
        problems: Libraries that could not be used, and why, one sentence each.
    """

    name: str
    path: str | None = None
    core: str = ""
    threads: int | None = None
    control: Threads | None = None
    problems: tuple[str, ...] = ()


def cpu_flags(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str]:
    """The processor's instruction sets under Linux's names; empty on ARM, where Linux lists none."""
    with contextlib.suppress(OSError), open(cpuinfo, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "flags":
                return frozenset(value.split())  # all processors are alike
    return frozenset()


def has_avx512() -> bool:
    """Whether this processor has the AVX-512 subset that BLAS kernels need."""
    return cpu_flags() >= _AVX512


def candidates(choice: str = "auto") -> list[Candidate]:
    """Libraries to try, best first: OpenBLAS of SciPy's wheel, of conda, of the system, then MKL.

    Args:
        choice: One of `CHOICES`, or the path of a library.
    """
    if choice == "none":
        return []
    if choice not in CHOICES:
        return [Candidate("custom", choice)]

    openblas = [
        *(Candidate("openblas", path, "scipy_") for path in _beside_packages("scipy.libs/libscipy_openblas-*.so")),
        *(Candidate("openblas", path) for path in _in_prefix("lib/libopenblas.so.0")),
        *(Candidate("openblas", name) for name in _SYSTEM_OPENBLAS),
    ]
    mkl = [Candidate("mkl", path) for path in _in_prefix("lib/libmkl_rt.so*")]
    return {"openblas": openblas, "mkl": mkl, "auto": openblas + mkl}[choice]


def load(choice: str) -> Blas:
    """Load the first candidate that works, and redirect MLX's calls to it. MLX has to be imported already.

    Args:
        choice: As for `candidates`.
    """
    if sys.platform == "darwin":
        return Blas("accelerate")

    # can MLX's calls be redirected here, and should they be?
    mlx = elf.find("/libmlx.so") if sys.platform == "linux" else None
    calls = {} if mlx is None else {name: to for name, to in mlx.calls().items() if _IMPORTS.fullmatch(name)}
    if mlx is None or "cblas_sgemm" not in calls:
        return Blas("bundled", threads=1, problems=("This build of MLX calls no BLAS that could be replaced.",))

    present = elf.owner(calls["cblas_sgemm"])
    if not fnmatch.fnmatch(present, "*/mlx*.libs/*"):
        return Blas("linked", present)  # a source build or LD_PRELOAD: the user chose

    problems = []
    for candidate in candidates(choice):
        try:
            library = ctypes.CDLL(candidate.path)
        except OSError as error:
            if os.sep in candidate.path:  # bare names are guesses, whose failure is no problem
                problems.append(f"{candidate.path} could not be loaded: {error}.")
            continue

        # functions that the library lacks stay with MLX's own
        found = {name: elf.function_address(library, candidate.prefix + name) for name in calls}
        targets = {name: address for name, address in found.items() if address is not None}

        if not {"cblas_sgemm", "cblas_dgemm"} <= targets.keys():
            problems.append(f"{candidate.path} was passed over: it has no function cblas_sgemm or cblas_dgemm.")
        elif not mlx.redirect(targets):
            problems.append(f"{candidate.path} is not used: the system forbids to change where MLX's calls go.")
        else:
            path = elf.owner(targets["cblas_sgemm"]) or candidate.path
            core, control = _core(library, candidate.prefix), _control(library, candidate.prefix)
            threads = None if control is None else control.get()
            return Blas(candidate.name, path, core, threads, control, tuple(problems))

    return Blas("bundled", threads=1, problems=tuple(problems))


def _beside_packages(pattern: str) -> list[str]:
    """Files of wheels beside the packages.

    The folders of `sys.path` are searched: this works in virtual environments, user installs and conda alike, and needs
    no slow import of `importlib.metadata`.
    """
    return _found(_package_folders(), pattern)


def _in_prefix(pattern: str) -> list[str]:
    """Files of wheels in the prefix, three folders above .../lib/python3.11/site-packages."""
    above = [folder.parents[2] for folder in _package_folders() if len(folder.parents) > 2]
    return _found([Path(sys.prefix), *above], pattern)


def _package_folders() -> list[Path]:
    return [Path(p) for p in sys.path if p.endswith(("site-packages", "dist-packages"))]


def _found(folders: list[Path], pattern: str) -> list[str]:
    return list(dict.fromkeys(str(path) for folder in folders for path in sorted(folder.glob(pattern))))


def _core(library: ctypes.CDLL, prefix: str) -> str:
    """The instruction set that OpenBLAS reports; "" for another library."""
    name = getattr(library, f"{prefix}openblas_get_corename", None)
    if name is None:
        return ""
    name.restype = ctypes.c_char_p
    return bytes(name()).decode()


def _control(library: ctypes.CDLL, prefix: str) -> Threads | None:
    """The functions of a library that say and set its threads, or None."""
    for get, change in (
        (f"{prefix}openblas_get_num_threads", f"{prefix}openblas_set_num_threads"),
        ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ):
        if hasattr(library, get) and hasattr(library, change):
            return Threads(getattr(library, get), getattr(library, change))
    return None
