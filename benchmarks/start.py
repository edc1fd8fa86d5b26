"""`python -m benchmarks start`: where the time of the main job goes, from the shell's point of view."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import seconds

JOB = ["scheduler=adaptive", "domain=landscapes", "num_samples=16", "num_steps=10"]


def main(argv: list[str]) -> None:
    """Run `sample.py` several times in fresh processes and split its wall-clock time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each, after one that is not counted")
    parser.add_argument("--script", type=Path, default=Path("sample.py"), help="the project's sample.py")
    options = parser.parse_args(argv)

    if not options.script.is_file():
        parser.error(f"there is no {options.script}; start this in the project's folder")

    with tempfile.TemporaryDirectory() as folder:
        here = [f"paths.outputs={folder}/outputs", f"paths.mlruns={folder}/mlruns"]

        def run(*arguments: str) -> float:
            command = [sys.executable, str(options.script), *JOB, *here, *arguments]
            return seconds(lambda: subprocess.run(command, check=True, capture_output=True))

        run()  # creates the database and warms the disk cache
        rows = [(run(), run("tracking=none"), run("--cfg", "job")) for _ in range(options.repeats)]
        files = sorted(Path(folder).glob("outputs/**/metrics.json"))
        sampling = float(np.median([json.loads(file.read_text())["details/seconds"] for file in files]))

    total, untracked, importing = (float(v) for v in np.median(np.array(rows), axis=0))
    rest = untracked - importing - sampling
    print(f"the whole job        {total:6.2f} s  (16 images, 10 steps; medians of {options.repeats})")

    for name, value in {
        "import and compose": importing,
        "draw": sampling,
        "build, plot, write": rest,
        "MLflow": total - untracked,
    }.items():
        print(f"  {name:18s} {value:6.2f} s  {value / total:4.0%}")
