"""Launchers of Hydra that run the jobs of a sweep side by side, each in a process of its own."""

from __future__ import annotations

import os
import pickle

import pytest
from program import Program

from adaptive_diffusion.tracking.jobs import Skipped
from adaptive_diffusion.tracking.tracker import Finished


def test_what_a_skipped_job_returns_reaches_the_sweep_from_another_process():
    earlier = Finished({"sampling/nfe": 10.0}, None)
    returned = pickle.loads(pickle.dumps(Skipped(0.5, earlier)))
    assert (returned, returned.run) == (0.5, earlier)


@pytest.mark.slow
def test_joblib_runs_jobs_in_processes_of_their_own_that_belong_to_one_sweep(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    program = Program(tmp_path, "-m", "num_samples=2", "metrics=none")
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
