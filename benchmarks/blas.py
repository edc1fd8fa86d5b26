"""`python -m benchmarks blas`: matrix products with our BLAS against MLX's own, on the CPU."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass

from adaptive_diffusion.backend.prepare import BLAS_VARIABLE

_MEASURE = """
import json, sys
import adaptive_diffusion
from adaptive_diffusion.backend import prepare as backend
from adaptive_diffusion.backend import doctor
import mlx.core as mx
mx.set_default_device(mx.cpu)
blas = backend.info().blas
print(json.dumps({"blas": blas.name, "core": blas.core, "threads": blas.threads,
                  "gflops": doctor.matmul_gflops(int(sys.argv[1]), int(sys.argv[2]))}))
"""


@dataclass(frozen=True)
class Measurement:
    """Matrix products in one process.

    Attributes:
        blas: Name of the library, as in `backend.blas.Blas`.
        core: OpenBLAS's instruction set; "" for other libraries.
        threads: Threads of one product; None if unknown.
        gflops: Best float32 GFLOP/s.
    """

    blas: str
    core: str
    threads: int | None
    gflops: float


def measure(choice: str, size: int, rounds: int) -> Measurement:
    """Measure in a new process, since a process chooses its BLAS once.

    Args:
        choice: Value of ADAPTIVE_DIFFUSION_BLAS.
        size: Side of the square matrices.
        rounds: Number of products; the fastest counts.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(size), str(rounds)],
        env={**os.environ, BLAS_VARIABLE: choice},
        check=True,
        capture_output=True,
        text=True,
    )
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def main(argv: list[str]) -> None:
    """Measure both libraries in turns, and print the ratio of the best speeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks blas", description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="side of the square matrices")
    parser.add_argument("--turns", type=int, default=3, help="processes per library, alternating")
    options = parser.parse_args(argv)

    # in turns, so that other work of the machine affects both
    ours, plain = [], []
    for _ in range(options.turns):
        ours.append(measure("auto", options.size, rounds=30))
        plain.append(measure("none", options.size, rounds=2))

    best, bundled = (max(found, key=lambda m: m.gflops) for found in (ours, plain))
    for label, m in (("ours", best), ("MLX as shipped", bundled)):
        library = f"{m.blas} {m.core}".strip()
        print(f"{label:<15} {library:<20} {m.gflops:7.1f} GFLOP/s")

    print(f"ratio           {best.gflops / bundled.gflops:.1f}x ({options.size} x {options.size}, float32)")
