"""The programs in processes that are forked from one that has imported everything and computed nothing.

A start costs milliseconds instead of seconds, so that hundreds of them can be killed or given nonsense. Linux only: MLX
must not have been used before, nor anything that leaves threads behind.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}

PATIENCE = 600  # seconds of a program that hangs; on a machine that does other things, seconds are long

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))
backend = importlib.import_module("adaptive_diffusion.backend.prepare")

MODULES = (
    *("runs.setup", "runs.sample", "runs.benchmark", "runs.train_model", "runs.train_images", "runs.calibrate"),
    *("runs.tune", "runs.train_policy", "cli.sweep", "metrics.standard_metrics", "models.unet", "io.figures"),
)
LIBRARIES = ("mlflow.store.tracking.sqlalchemy_store", "mlflow", "matplotlib.pyplot", "PIL.Image")


def prepare(*more: str) -> None:
    """Import whatever the programs will, and more modules."""
    for name in (*LIBRARIES, *more, "tiny", *(f"adaptive_diffusion.{module}" for module in MODULES)):
        importlib.import_module(name)


class Program:
    """A running program, its output in a file.

    Args:
        script: sample.py, train.py, or a script that runs one of them.
        arguments: Its command line.
        folder: Where it runs; gets `output.txt`.
    """

    def __init__(self, script: Path, arguments: list[str], folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / "output.txt"
        self.code: int | None = None
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            be(script, arguments, folder, self._output, self._output)

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._pid, number)

    def wait(self, seconds: float) -> int | None:
        """The exit code, minus the signal's number where one ended it; None if it still runs after so long."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                return None
            else:
                time.sleep(0.01)
        return self.code

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.wait(0) is None:
            self.send(signal.SIGKILL)
            self.wait(30)


def run(script: Path, arguments: list[str], folder: Path, seconds: float = PATIENCE) -> Program:
    """A program that has ended; its code is None if that took too long, and its output then says where it was."""
    program = Program(script, arguments, folder)
    if program.wait(seconds) is None:
        program.send(signal.SIGUSR1)
        time.sleep(1)
        program.end()
        program.code = None
    return program


def be(script: Path, arguments: list[str], folder: Path, out: Path, err: Path) -> NoReturn:
    """Be the program, in the child: it runs in a folder and writes to two files, or to one."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(130))  # until the script begins
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
        faulthandler.register(signal.SIGUSR1)
        os.chdir(folder)
        backend._PROCESS = os.getpid()  # MLX computed nothing before the fork
        sys.argv = [str(script), *arguments]
        try:
            runpy.run_path(str(script), run_name="__main__")
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            if isinstance(exit_.code, str):
                print(exit_.code, file=sys.stderr)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
