"""`adaptive-diffusion doctor`: the device and BLAS of this installation, its speed, and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator

from .._version import __version__
from ..program import command, pip_install
from . import blas
from . import prepare as backend

REQUIRED = ("mlx", "numpy", "hydra-core", "omegaconf", "mlflow", "pillow", "matplotlib", "tqdm")
EXTRAS = {  # name -> purpose, packages
    "rl": ("agent=ppo, Gymnasium and PyTorch's own weight files", ("gymnasium", "stable-baselines3", "torch")),
    "standard": ("metrics=standard and models of the hub", ("tokenizers", "huggingface_hub")),
    "tune": ("agent=tpe, agent=cmaes and hydra/sweeper=optuna", ("optuna", "cmaes")),
    "web": ("adaptive-diffusion app", ("gradio",)),
    "test": ("the tests", ("pytest", "diffusers", "transformers", "safetensors")),
}
BACKENDS = ("mlx-cpu", "mlx-cuda-13", "mlx-cuda-12", "mlx-metal", "scipy", "mkl")


def matmul_gflops(size: int = 1024, rounds: int = 10) -> float:
    """Speed of a `size` x `size` float32 matrix product on MLX's default device, in GFLOP/s: the best of `rounds`."""
    import mlx.core as mx

    a = mx.random.normal((size, size), key=mx.random.key(0))
    b = mx.random.normal((size, size), key=mx.random.key(1))
    mx.eval(a @ b)
    best = float("inf")

    for _ in range(rounds):
        start = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - start)

    return 2 * size**3 / best / 1e9


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def report() -> tuple[dict[str, str], list[str]]:
    """Facts by name, and a sentence of advice for each thing to mend."""
    facts = {
        "package": f"adaptive-diffusion-optimizer {__version__}",
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}; processors: {os.cpu_count()}",
    }

    advice: list[str] = []
    try:
        found = backend.info()
    except ImportError as error:
        facts["device"] = "none"
        advice.append(str(error))
    else:
        facts["device"] = found.device
        facts["BLAS"] = " ".join(_describe_blas(found.blas))
        if (threads := backend.product_threads()) > 1 and found.device.startswith("cpu"):
            facts["batches"] = f"large ones go through a network in {threads} parts, side by side"
        facts["matmul"] = f"{matmul_gflops():.0f} GFLOP/s (1024 x 1024, float32, {found.device.split()[0]})"
        advice += found.warnings
        advice += _core_advice(found.blas.core)

    of_extras = [name for _, names in EXTRAS.values() for name in names]
    installed = {name: version(name) for name in (*REQUIRED, *BACKENDS, *of_extras)}
    facts["versions"] = ", ".join(f"{name} {number}" for name, number in installed.items() if number)

    # a missing extra is a fact, a missing requirement is a fault
    for extra, (purpose, names) in EXTRAS.items():
        lacking = [name for name in names if not installed[name]]
        state = f"without {', '.join(lacking)}; {pip_install(extra)}" if lacking else "installed"
        facts[f"extra {extra}"] = f"{state} (for {purpose})"

    if missing := [name for name in REQUIRED if not installed[name]]:
        advice.append(f"Not installed: {', '.join(missing)}; get what is missing with: {pip_install()}")
    if sys.platform == "linux" and facts["device"].startswith("cpu") and shutil.which("g++") is None:
        advice.append("g++ was not found, so mx.compile runs functions uncompiled; get it with: apt install g++")
    return facts, advice


def _describe_blas(found: blas.Blas) -> Iterator[str]:
    yield found.name
    if found.core:
        yield f"({found.core} kernels)"
    if found.threads is not None:
        yield f"with {found.threads} thread{'' if found.threads == 1 else 's'}"
    if found.path is not None:
        yield f"from {found.path}"


def _core_advice(core: str) -> Iterator[str]:
    """Advice where the environment keeps OpenBLAS from using the whole processor."""
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    if chosen and core and blas.has_avx512() and core in ("Haswell", "Zen", "Prescott", "Barcelona"):
        yield (
            f"OPENBLAS_CORETYPE={chosen} keeps OpenBLAS from using this processor's AVX-512, which is about twice as "
            "fast on Intel's; unset it, unless it is there to make results repeat exactly on other machines."
        )


def main(argv: list[str]) -> None:
    """Print the report."""
    argparse.ArgumentParser(prog=command("doctor"), description=__doc__).parse_args(argv)
    facts, advice = report()
    width = max(len(name) for name in facts)

    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    if advice:
        print("\nTo look at:")
        for sentence in advice:
            print(f"  - {sentence}")
    else:
        print("\nNothing that drawing needs is missing.")
