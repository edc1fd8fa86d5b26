"""What the project computes on: makes MLX fast on the CPU at hand, and reports what it found."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from . import blas

BLAS_VARIABLE = "ADAPTIVE_DIFFUSION_BLAS"

_PROCESS = os.getpid()  # that imports MLX

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class BackendInfo:
    """What the project computes on.

    Attributes:
        device: MLX's default device and the name of the hardware, e.g. "cpu (AMD EPYC)".
        blas: Library that multiplies matrices on the CPU; see `blas.Blas.name`.
        path: That library's file, None where it is MLX's or the system's.
        core: The instruction set that OpenBLAS says it uses, "" for others.
        threads: Threads one matrix product may use on the CPU, None where the library does not say.
        warnings: What is wrong and what to do about it, one sentence each.
    """

    device: str
    blas: str
    path: Path | None
    core: str
    threads: int | None
    warnings: tuple[str, ...]


def check_process() -> None:
    """Refuse to compute in a fork of the process that imported MLX, whose threads it lacks: it would wait for ever.

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
    """Import MLX and see to it that it computes fast on this machine's CPU; once per process.

    The variable ADAPTIVE_DIFFUSION_BLAS chooses the BLAS on Linux: `auto` (default), `mkl`, `openblas`, `none` (MLX's
    own), or the path of a library. What goes wrong with that is warned about and does not stop the work.

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
        remedy = "install it with: pip install -e . (needs Apple silicon and a native, not Rosetta, Python)"
    else:
        remedy = 'install it with: pip install -e ".[cpu]", or ".[cuda]" for an NVIDIA GPU'
    return f"MLX has no backend here ({error}); {remedy}."


def info() -> BackendInfo:
    """What the project computes on, found out.

    Raises:
        ImportError: No MLX backend is installed.
    """
    prepare()
    import mlx.core as mx

    assert _blas is not None
    device = mx.default_device()
    kind = "gpu" if device.type == mx.DeviceType.gpu else "cpu"
    name = mx.device_info(device).get("device_name", "") or platform.machine()
    path = None if _blas.path is None else Path(_blas.path)

    return BackendInfo(f"{kind} ({name})", _blas.name, path, _blas.core, _blas.threads, _warnings)


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of handing it back to the kernel.

    MLX allocates every CPU array with plain malloc, and by default glibc maps and unmaps each large one, so that every
    operation page-faults its output in again (6,500 faults in a forward pass of the shipped U-Net at batch 16; kept,
    24, and 1.2 times the speed). The peak does not grow; it is merely not returned. Whoever tunes malloc through the
    environment is left alone.
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


_blas: blas.Blas | None = None
_warnings: tuple[str, ...] = ()
