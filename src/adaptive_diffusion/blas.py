"""Which BLAS does MLX compute with on the Linux CPU?

The Linux wheel of MLX bundles the reference BLAS, which multiplies matrices some 15 to 50 times slower than MKL or
OpenBLAS. Here a faster library is found and loaded, and MLX's calls to BLAS and LAPACK are led to it. On a Mac MLX uses
Accelerate and Metal, and nothing here applies.
"""

from __future__ import annotations

import contextlib
import ctypes
import fnmatch
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import elf

CHOICES = ("auto", "mkl", "openblas", "none")
REMEDY = 'install one with: pip install -e ".[cpu]" (or on Debian and Ubuntu: apt install libopenblas0-pthread)'

_SYSTEM_OPENBLAS = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
_IMPORTS = re.compile(r"cblas_[a-z0-9_]+|[sdcz][a-z0-9]+_")  # of MLX, from BLAS and LAPACK
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


@dataclass(frozen=True)
class Candidate:
    """A library that may be loaded.

    Attributes:
        name: "openblas", "mkl" or "custom".
        path: The file, or a bare name for the dynamic linker to find.
        core_type: OPENBLAS_CORETYPE to load it under, None where its own detection is to be trusted.
    """

    name: str
    path: str
    core_type: str | None = None


@dataclass(frozen=True)
class Blas:
    """What was loaded.

    Attributes:
        name: "openblas", "mkl", "custom", "linked" (MLX was built with or preloaded with another), "accelerate"
            (macOS), or "bundled" (the slow one of the Linux wheel).
        path: The library, None for those of MLX and macOS.
        core: The instruction set that OpenBLAS says it uses, "" for others.
        problems: What went wrong on the way, one sentence each.
    """

    name: str
    path: str | None = None
    core: str = ""
    problems: tuple[str, ...] = ()

    def threads(self) -> int | None:
        """Threads that one matrix product may use, None where the library does not say."""
        if self.name == "bundled":
            return 1
        library = None if self.path is None else ctypes.CDLL(self.path)
        for query in ("openblas_get_num_threads", "MKL_Get_Max_Threads"):
            if hasattr(library, query):
                return int(getattr(library, query)())
        return None


def cpu_vendor_and_flags(cpuinfo: str = "/proc/cpuinfo") -> tuple[str, frozenset[str]]:
    """The processor's vendor and instruction sets as Linux names them; empty where it does not (ARM)."""
    vendor, flags = "", frozenset[str]()
    with contextlib.suppress(OSError), open(cpuinfo, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "vendor_id":
                vendor = value.strip()
            elif key.strip() == "flags":
                flags = frozenset(value.split())
            elif not line.strip() and flags:
                break  # one processor tells all
    return vendor, flags


def has_avx512() -> bool:
    """Whether this processor has the AVX-512 subset that BLAS kernels need."""
    return cpu_vendor_and_flags()[1] >= _AVX512


def candidates(choice: str = "auto", cpu: tuple[str, frozenset[str]] | None = None) -> list[Candidate]:
    """Libraries to try, best first.

    On AMD, OpenBLAS goes before MKL, which runs an AVX2 kernel there whatever the processor can do (measured on Zen 5,
    float32, one core: MKL 93 GFLOP/s; OpenBLAS 115 with AVX2 and 220 with AVX-512).

    Args:
        choice: One of `CHOICES`, or the path of a library.
        cpu: Vendor and flags, those of this machine by default.
    """
    vendor, flags = cpu_vendor_and_flags() if cpu is None else cpu
    if choice == "none":
        return []
    if choice not in CHOICES:
        return [Candidate("custom", choice)]
    mkl = [Candidate("mkl", path) for path in _files("lib", "libmkl_rt.so*", beside_packages=True)]
    openblas = [
        *(
            Candidate("openblas", path, _core_type(flags))
            for path in _files("opencv_*.libs", "libopenblas*.so*", beside_packages=False)
        ),
        *(Candidate("openblas", path) for path in _files("lib", "libopenblas.so.0", beside_packages=True)),
        *(Candidate("openblas", name) for name in _SYSTEM_OPENBLAS),
    ]
    if choice == "mkl":
        return mkl
    if choice == "openblas":
        return openblas
    return openblas + mkl if vendor in ("AuthenticAMD", "HygonGenuine") else mkl + openblas


def load(choice: str) -> Blas:
    """Load the first candidate that works and let MLX, which has to be imported already, compute with it.

    Args:
        choice: As for `candidates`.
    """
    if sys.platform == "darwin":
        return Blas("accelerate")
    mlx = elf.find("/libmlx.so") if sys.platform == "linux" else None
    calls = {} if mlx is None else {name: to for name, to in mlx.calls().items() if _IMPORTS.fullmatch(name)}
    if mlx is None or "cblas_sgemm" not in calls:
        return Blas("bundled", problems=("This build of MLX calls no BLAS that could be replaced.",))
    present = elf.owner(calls["cblas_sgemm"])
    if not fnmatch.fnmatch(present, "*/mlx*.libs/*"):
        return Blas("linked", present)  # a source build, or LD_PRELOAD: somebody chose
    problems = []
    for candidate in candidates(choice):
        try:
            with _environment("OPENBLAS_CORETYPE", candidate.core_type):
                library = ctypes.CDLL(candidate.path)
        except OSError as error:
            if os.sep in candidate.path:  # the bare names are mere guesses
                problems.append(f"{candidate.path} could not be loaded: {error}.")
            continue
        found = {name: elf.function_address(library, name) for name in calls}
        targets = {name: address for name, address in found.items() if address is not None}
        if not {"cblas_sgemm", "cblas_dgemm"} <= targets.keys():
            problems.append(f"{candidate.path} was passed over: it has no function cblas_sgemm or cblas_dgemm.")
        elif not mlx.redirect(targets):
            problems.append(f"{candidate.path} is not used: the system forbids to change where MLX's calls go.")
        else:
            path = elf.owner(targets["cblas_sgemm"]) or candidate.path
            return Blas(candidate.name, path, _core_name(library), tuple(problems))
    return Blas("bundled", problems=tuple(problems))


def _files(folder: str, pattern: str, *, beside_packages: bool) -> list[str]:
    """Files that wheels brought, in `folder` within a package folder or, `beside_packages`, within its prefix.

    The folders of `sys.path` are asked instead of the wheels' records: this finds them in virtual environments, user
    installs and conda alike, and takes no import of `importlib.metadata`.
    """
    packages = [Path(p) for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    # .../lib/python3.11/site-packages -> ..., whose lib/ is where wheels put their data files
    roots = [Path(sys.prefix), *(p.parents[2] for p in packages if len(p.parents) > 2)] if beside_packages else packages
    found = [str(path) for root in dict.fromkeys(roots) for path in sorted(root.glob(f"{folder}/{pattern}"))]
    return list(dict.fromkeys(found))


def _core_type(flags: frozenset[str]) -> str | None:
    """The OpenBLAS kernels for a processor with these flags.

    OpenCV's wheel carries the OpenBLAS of 2021, which takes processors younger than itself for ancient ones (Zen 5
    for Barcelona: 52 GFLOP/s instead of 220). What matters is the instruction set, and that the flags tell.
    """
    if flags >= _AVX512:
        return "SkylakeX"
    return "Haswell" if flags >= {"avx2", "fma"} else None


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable for the duration, unless the user has set it."""
    if value is None or name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _core_name(library: ctypes.CDLL) -> str:
    if not hasattr(library, "openblas_get_corename"):
        return ""
    library.openblas_get_corename.restype = ctypes.c_char_p
    return bytes(library.openblas_get_corename()).decode()
