"""The programs as a user starts them: processes of their own, started from another working directory."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tiny import ROOT, mlflow_database, tiny_checkpoint

from adaptive_diffusion.tracking.mlflow import MlflowTracker


class Program:
    """`sample.py` with a tiny model; what it writes lies in a folder.

    Args:
        folder: An empty folder.
        settings: Given at every start, after the paths and the model.
        script: Started in the place of sample.py.
    """

    def __init__(self, folder: Path, *settings: str, script: Path = ROOT / "sample.py"):
        self.folder, self.elsewhere, self.script = folder, folder / "elsewhere", script
        self.elsewhere.mkdir()
        mlflow_database(folder / "mlruns")
        paths = (f"paths.outputs={folder}/outputs", f"paths.mlruns={folder}/mlruns")
        self.settings = [*paths, "model=checkpoint", f"model.path={tiny_checkpoint(folder)}", *settings]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The process, which can be interrupted."""
        return subprocess.Popen(
            [sys.executable, str(self.script), *self.settings, *arguments],
            cwd=self.elsewhere,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # its own, so that it can be killed with the workers of a launcher
            # a shell that runs the tests in the background lets its children ignore interruptions
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr at the end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    @property
    def client(self) -> Any:
        """MLflow's client on the program's database."""
        return self._tracker.client

    def runs(self) -> list[Any]:
        """All MLflow runs, oldest first."""
        tracker = self._tracker
        return list(tracker.client.search_runs([tracker.experiment_id], order_by=["attributes.start_time"]))

    @property
    def _tracker(self) -> MlflowTracker:
        return MlflowTracker(str(self.folder / "mlruns" / "mlflow.db"), str(self.folder), "sample", 1.0, 5001)


class Forked(Program):
    """The same, where a process that has imported everything is forked, which saves seconds of each start.

    Only on Linux: Metal does not bear forks.
    """

    def start(self, *arguments: str) -> Any:
        """The process, which can be interrupted; its output is read at its end."""
        return Child(self, *arguments) if sys.platform == "linux" else super().start(*arguments)


class Child:
    """A forked program, with the methods of `subprocess.Popen` that tests use, in a process group of its own."""

    def __init__(self, program: Program, *arguments: str):
        folder = Path(tempfile.mkdtemp(dir=program.folder))
        self._files = [folder / "stdout.txt", folder / "stderr.txt"]
        self.returncode: int | None = None
        self.pid: int = _ask("start", program.script, [*program.settings, *arguments], program.elsewhere, *self._files)

    def poll(self) -> int | None:
        """The exit code, minus the signal's number where one ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask("poll", self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Stdout and stderr, at the end."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self._files[0].parent), timeout)
            time.sleep(0.02)
        out, err = (file.read_text() for file in self._files)
        return out, err


def _ask(*request: Any) -> Any:
    """What the server answers."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request, default=str) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    """What forks for this process of the tests, and ends with it."""
    command = [sys.executable, "-m", "tests.faults.server"]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
