"""Prepares MLX for fast computing on this machine, and reports the device and the BLAS."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from ..program import pip_install
from . import blas
from .blas import Blas

BLAS_VARIABLE = "ADAPTIVE_DIFFUSION_BLAS"

_PROCESS = os.getpid()  # the process that imports MLX

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class BackendInfo:
    """The device and the BLAS in use.

    Attributes:
        device: MLX's default device and the name of the hardware, e.g. "cpu (AMD EPYC)".
        blas: The BLAS on the CPU.
        warnings: Problems and their remedies, one sentence each.
    """

    device: str
    blas: Blas
    warnings: tuple[str, ...]


def check_process() -> None:
    """Refuse to compute in a fork of the process that imported MLX: a fork lacks its threads and would wait for ever.

    Raises:
        ValueError: in a fork.
    """
    if os.getpid() != _PROCESS:
        raise ValueError(
            "MLX does not survive a fork, and this process is one; start it another way: "
            'gymnasium.make_vec(..., vectorization_mode="async", vector_kwargs={"context": "forkserver"}), '
            'SubprocVecEnv(..., start_method="forkserver") or multiprocessing.get_context("spawn")'
        )


def prepare() -> None:
    """Import MLX and make it fast on this machine's CPU; once per process.

    The variable ADAPTIVE_DIFFUSION_BLAS chooses the BLAS on Linux: `auto` (default), `mkl`, `openblas`, `none` (MLX's
    own), or the path of a library. Where that fails, a warning says why, and MLX's own BLAS is used.

    Raises:
        ImportError: No MLX backend is installed; the sentence says which extra to install.
    """
    global _blas, _warnings
    if _blas is not None:
        return

    _keep_freed_memory()
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        raise ImportError(_missing_backend(error)) from None  # the sentence quotes it

    found: list[str] = []
    choice = os.environ.get(BLAS_VARIABLE, "") or "auto"
    if choice not in blas.CHOICES and os.sep not in choice:
        found.append(f"{BLAS_VARIABLE}={choice} is none of {', '.join(blas.CHOICES)} or a path; auto is used instead.")
        choice = "auto"

    _blas = blas.load(choice)
    found += _blas.problems
    if _blas.name == "bundled" and choice != "none" and not _has_gpu():
        wanted = "fast BLAS" if choice == "auto" else f"BLAS for {BLAS_VARIABLE}={choice}"
        found.append(f"No {wanted} was found, so matrix products on the CPU are some 20 times slower; {blas.REMEDY}.")

    _warnings = tuple(found)
    for message in found:
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _missing_backend(error: ImportError) -> str:
    """The sentence for a failed import of MLX."""
    if sys.platform == "darwin":
        remedy = f"install it with: {pip_install()} (needs Apple silicon and a native, not Rosetta, Python)"
    else:
        remedy = f"install it with: {pip_install('cpu')}, or [cuda] in place of [cpu] for an NVIDIA GPU"
    return f"MLX has no backend here ({error}); {remedy}."


def info() -> BackendInfo:
    """The device and the BLAS in use; calls `prepare`.

    Raises:
        ImportError: No MLX backend is installed.
    """
    prepare()
    import mlx.core as mx

    assert _blas is not None
    device = mx.default_device()
    kind = "gpu" if device.type == mx.DeviceType.gpu else "cpu"
    name = mx.device_info(device).get("device_name", "") or platform.machine()
    return BackendInfo(f"{kind} ({name})", _blas, _warnings)


def product_threads() -> int:
    """Threads that a matrix product on the CPU has now; 1 where they cannot be changed, as on a Mac."""
    control = None if _blas is None else _blas.control
    return 1 if control is None else control.get()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give a matrix product one thread during the block, for several that are computed side by side.

    The threads of OpenBLAS wait for each other in a loop, which costs much where they have to share a processor.
    """
    control, before = None if _blas is None else _blas.control, product_threads()
    if control is None or before == 1:
        yield
        return

    control.set(1)
    try:
        yield
    finally:
        control.set(before)


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of handing it back to the kernel.

    MLX allocates every CPU array with malloc. By default glibc maps and unmaps each large array, so that an operation
    faults in the pages of its output again; docs/notes/tried.md has the numbers. The peak of memory stays the same.
    Settings of malloc in the environment are respected.
    """
    tuned = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or tuned or platform.libc_ver()[0] != "glibc":
        return

    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _has_gpu() -> bool:
    import mlx.core as mx

    return bool(mx.is_available(mx.gpu))


_blas: Blas | None = None
_warnings: tuple[str, ...] = ()
