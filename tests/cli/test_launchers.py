"""Launchers of Hydra that run the jobs of a sweep side by side, each in a process of its own."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from program import Forked, Program

from adaptive_diffusion.tracking.jobs import Skipped
from adaptive_diffusion.tracking.tracker import Finished


def test_what_a_skipped_job_returns_reaches_the_sweep_from_another_process():
    earlier = Finished({"sampling/nfe": 10.0}, None)
    returned = pickle.loads(pickle.dumps(Skipped(0.5, earlier)))
    assert (returned, returned.run) == (0.5, earlier)


@pytest.mark.slow
def test_joblib_runs_jobs_in_processes_of_their_own_that_belong_to_one_sweep(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    program = Forked(tmp_path, "-m", "num_samples=2", "metrics=none")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    code, out, err = program.run(*launcher, "num_steps=2,3,0")
    assert code == 2, err
    assert "#2 num_steps=0  REFUSED" in out
    parent, *children = program.runs()
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    processes = {run.data.tags["process.pid"] for run in children}
    assert parent.data.tags["process.pid"] not in processes
    assert str(os.getpid()) not in processes


@pytest.mark.slow
def test_a_joblib_sweep_that_is_killed_twice_in_its_jobs_is_completed_by_the_same_command(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    program = Program(tmp_path, "-m", "num_samples=1", "metrics=none", "scheduler=ddim")
    sweep = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "num_steps=400,401,402")  # far longer than a look
    for kill in (os.killpg, os.kill):  # the sweep with its workers; the sweep, whose workers end by themselves
        before, process = len(_jobs(tmp_path)), program.start(*sweep)
        while len(_jobs(tmp_path)) == before and process.poll() is None:
            time.sleep(0.02)
        kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)  # until nobody writes any more
        assert process.returncode == -signal.SIGKILL

    code, out, err = program.run(*sweep)
    assert code == 0, out + err
    assert {status for status, _ in _runs(tmp_path)} == {"FINISHED", "KILLED"}
    finished = [fingerprint for status, fingerprint in _jobs(tmp_path) if status == "FINISHED"]
    assert len(finished) == len(set(finished)) == 3
    *_, results = sorted(tmp_path.glob("outputs/sweeps/*/*/results.csv"))
    ended = [line.split(",")[1] for line in results.read_text().splitlines()[1:]]
    assert len(ended) == 3
    assert set(ended) <= {"FINISHED", "SKIPPED"}


def _runs(folder: Path) -> list[tuple[str, str | None]]:
    """Status and fingerprint of all runs; a tracker would mark those of ended processes as KILLED."""
    query = "SELECT status, value FROM runs LEFT JOIN tags ON runs.run_uuid = tags.run_uuid AND key = 'fingerprint'"
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        return database.execute(query).fetchall()


def _jobs(folder: Path) -> list[tuple[str, str | None]]:
    """The runs of a sweep's jobs, without the sweep's own."""
    return [run for run in _runs(folder) if run[1] is not None]
