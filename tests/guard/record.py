"""Record what the guard pins: python tests/guard/record.py [name ...] draws all cases, or those whose names begin so.

Record again only where images are meant to change, and say in the commit why. A case that changed by rounding alone
passes without.
"""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES

RECORDED = Path(__file__).parent / "recorded.npz"


def machine() -> str:
    """What decides the rounding of elementwise arithmetic: processor, device, and versions of the libraries."""
    device = mx.default_device()
    name = mx.device_info(device).get("device_name", "")
    return f"{platform.machine()} {device} {name} mlx {mx.__version__} numpy {np.__version__}"


def main(prefixes: list[str]) -> None:
    arrays = {"machine": np.array(machine())}
    if prefixes:
        with np.load(RECORDED) as file:
            arrays = {key: file[key] for key in file.files if not key.startswith(tuple(prefixes))}
        if str(arrays["machine"]) != machine():
            raise SystemExit(f"the others were recorded on {arrays['machine']}: record all of them again")
    for name, case in CASES.items():
        if prefixes and not name.startswith(tuple(prefixes)):
            continue
        start = time.perf_counter()
        arrays |= {f"{name}/{key}": value for key, value in case().items()}
        print(f"{time.perf_counter() - start:6.2f} s  {name}", flush=True)
    np.savez_compressed(RECORDED, **arrays)
    print(f"{RECORDED.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
