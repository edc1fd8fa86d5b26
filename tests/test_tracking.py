"""Runs in MLflow end as they should, and what goes wrong with the database is said in one sentence."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from tiny import mlflow_database

from adaptive_diffusion.errors import MachineError, UserError
from adaptive_diffusion.sweep import SweepRun, sweep_table
from adaptive_diffusion.tracking import PARENT, MlflowTracker, NoTracker


@pytest.fixture
def tracker(tmp_path):
    return MlflowTracker(str(mlflow_database(tmp_path)), str(tmp_path / "artifacts"), "test", 0.2, 5001)


def runs(tracker):
    return tracker.client.search_runs([tracker.experiment_id], order_by=["attributes.start_time"])


def open_run(tracker, **options):
    return tracker.open("a name", params={"seed": "0"}, tags={"fingerprint": "f"}, **options)


def test_a_run_records_settings_numbers_and_files_and_ends_finished(tracker, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "steps.csv").write_text("step\n")
    with open_run(tracker) as run:
        run.metrics({"time/step_s": 0.5, "nothing": float("inf")}, step=3)
        run.image(np.zeros((4, 4, 3), np.uint8), "samples", 3)
        run.folder(folder)
    (done,) = runs(tracker)
    assert (done.info.status, done.info.run_name) == ("FINISHED", "a name")
    assert done.data.params == {"seed": "0"}
    assert done.data.metrics == {"time/step_s": 0.5}  # an infinity would be stored as the largest float
    assert {"images", "steps.csv"} <= {a.path for a in tracker.client.list_artifacts(done.info.run_id)}
    assert done.info.artifact_uri.startswith(str(tracker.artifacts))


@pytest.mark.parametrize(("error", "status"), [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_that_does_not_end_well_says_so(tracker, error, status):
    with pytest.raises(type(error)), open_run(tracker):
        raise error
    (ended,) = runs(tracker)
    assert ended.info.status == status
    assert ended.data.tags["error"].startswith(type(error).__name__)


def test_only_a_finished_run_is_found_by_its_fingerprint(tracker):
    with pytest.raises(ValueError, match="no"), open_run(tracker):
        raise ValueError("no")
    assert tracker.finished("f") is None
    with open_run(tracker) as run:
        run.metrics({"m": 1.0})
    assert tracker.finished("f") == {"m": 1.0}
    assert tracker.finished("g") is None
    assert NoTracker().finished("f") is None


def test_an_unfinished_run_can_be_gone_on_with_and_a_finished_one_not(tracker):
    with pytest.raises(KeyboardInterrupt), open_run(tracker):
        raise KeyboardInterrupt
    with open_run(tracker, resume={"fingerprint": "f"}):
        assert [r.info.status for r in runs(tracker)] == ["RUNNING"]
    with open_run(tracker, resume={"fingerprint": "f"}):
        pass
    assert [r.info.status for r in runs(tracker)] == ["FINISHED", "FINISHED"]


def test_a_run_goes_on_with_the_same_settings_only(tracker):
    long = "x" * 7000  # longer than MLflow keeps
    with pytest.raises(KeyboardInterrupt), tracker.open("a", params={"seed": "0", "data": long}, tags={"state": "s"}):
        raise KeyboardInterrupt
    with tracker.open("b", params={"seed": "1", "data": long}, tags={}, resume={"state": "s"}):
        pass
    with tracker.open("c", params={"seed": "0", "data": long}, tags={}, resume={"state": "s"}):
        pass
    ended = {r.info.run_name: (r.info.status, r.data.params["seed"]) for r in runs(tracker)}
    assert ended == {"a": ("FINISHED", "0"), "b": ("FINISHED", "1")}


def test_a_locked_database_is_reported_within_the_timeout(tracker):
    with closing(sqlite3.connect(tracker.database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        sentence = r"mlflow\.db is locked by another program; .*tracking=none"
        with pytest.raises(MachineError, match=sentence), open_run(tracker):
            pass
    assert runs(tracker) == []  # and works again, once it is released


def test_a_database_that_gets_locked_during_the_run_fails_the_run_in_one_sentence(tracker, monkeypatch):
    monkeypatch.setattr(type(tracker.client), "log_batch", _locked)
    with pytest.raises(MachineError, match="is locked"), open_run(tracker):
        pass
    assert runs(tracker)[0].info.status == "FAILED"


def _locked(*_args, **_kwargs):
    from mlflow.exceptions import MlflowException

    try:
        raise sqlite3.OperationalError("database is locked")
    except sqlite3.OperationalError as error:
        raise MlflowException(str(error)) from error


@pytest.mark.parametrize("damage", ["noise", "truncated"])
def test_a_damaged_database_is_reported_at_once(tracker, damage):
    whole = tracker.database.read_bytes()
    tracker.database.write_bytes(os.urandom(5000) if damage == "noise" else whole[: len(whole) // 2])
    with pytest.raises(MachineError, match=r"is damaged or no MLflow database .*move it away"), open_run(tracker):
        pass


def test_a_database_that_was_interrupted_while_it_was_made_is_not_there(tmp_path, monkeypatch):
    def interrupted(uri, _artifacts):
        (tmp_path / uri.rpartition("/")[2]).write_bytes(b"half a database")
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", interrupted)
    tracker = MlflowTracker(str(tmp_path / "mlflow.db"), str(tmp_path / "artifacts"), "test", 1.0, 5001)
    with pytest.raises(KeyboardInterrupt):
        assert tracker.client
    assert [p.name for p in tmp_path.iterdir()] == ["artifacts"]


def test_a_deleted_experiment_is_named(tracker):
    tracker.client.delete_experiment(tracker.experiment_id)
    again = MlflowTracker(str(tracker.database), str(tracker.artifacts), "test", 1.0, 5001)
    with pytest.raises(UserError, match=r"experiment 'test' was deleted; give another name as tracking\.experiment"):
        assert again.experiment_id


def test_the_command_that_shows_the_runs_quotes_the_path(tmp_path):
    tracker = MlflowTracker(str(tmp_path / "my runs" / "mlflow.db"), "a", "test", 1.0, 5002)
    assert (
        f"--backend-store-uri 'sqlite:///{tmp_path}/my runs/mlflow.db' --workers 1 --port 5002" in tracker.how_to_look()
    )


def sweep_config(tracker):
    return OmegaConf.create(
        {
            "hydra": {"overrides": {"task": ["scheduler=ddim,adaptive"]}},
            "tracking": {
                "_target_": "adaptive_diffusion.tracking.MlflowTracker",
                "database": str(tracker.database),
                "artifacts": str(tracker.artifacts),
                "experiment": "test",
                "lock_timeout": 1.0,
                "ui_port": 5001,
            },
        }
    )


@pytest.fixture
def sweep(tracker, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "set_config", lambda cfg: None)
    callback = SweepRun()
    callback.on_multirun_start(sweep_config(tracker))
    yield callback
    callback._close("FAILED")
    assert PARENT not in os.environ


def test_the_runs_of_a_sweep_are_children_of_its_run(sweep, tracker, capsys):
    with open_run(tracker) as run:
        run.metrics({"time/per_picture_s": 0.25})
    sweep.on_multirun_end(sweep_config(tracker))
    parent, child = runs(tracker)
    assert parent.info.run_name == "sweep scheduler=ddim,adaptive"
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert "a name  FINISHED  0.25" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "status"), [(ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_sweep_that_hydra_does_not_end_is_closed_at_exit(sweep, tracker, error, status):
    with pytest.raises(type(error)), open_run(tracker):
        raise error
    sweep._close("FAILED")  # what atexit does
    assert [r.info.status for r in runs(tracker)] == [status, status]


def test_a_sweep_without_runs_leaves_nothing_behind(sweep, tracker):
    sweep._close("FAILED")
    assert runs(tracker) == []


def test_a_sweep_whose_run_cannot_be_made_exits_in_one_sentence(tracker, monkeypatch, capsys):
    monkeypatch.setattr(HydraConfig.instance(), "set_config", lambda cfg: None)
    tracker.database.write_bytes(b"not a database" * 400)
    with pytest.raises(SystemExit) as exit_:
        SweepRun().on_multirun_start(sweep_config(tracker))
    assert exit_.value.code == 1
    assert "is damaged or no MLflow database" in capsys.readouterr().err


def test_the_table_of_a_sweep_aligns_its_columns():
    assert sweep_table([]) == "run  status  seconds/picture  evaluations/picture"
