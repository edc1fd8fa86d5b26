"""Runs in MLflow end as they should, and what goes wrong with the database is said in one sentence."""

from __future__ import annotations

import errno
import gc
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
from sqlalchemy.engine import make_url
from tiny import configuration, mlflow_database, tiny_checkpoint

from adaptive_diffusion.errors import MachineError, MissingPackage, UnusableFile, UserError
from adaptive_diffusion.io import files
from adaptive_diffusion.runs.report import found
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.tracking import ui
from adaptive_diffusion.tracking.database import Database
from adaptive_diffusion.tracking.mlflow import PARENT, MlflowTracker
from adaptive_diffusion.tracking.process import Process, _started
from adaptive_diffusion.tracking.provenance import parameters
from adaptive_diffusion.tracking.tracker import NoTracker


@pytest.fixture
def tracker(tmp_path):
    return MlflowTracker(str(mlflow_database(tmp_path)), str(tmp_path / "artifacts"), "test", 0.2, 5001)


def test_the_garbage_collector_leaves_alone_what_mlflow_is_made_of_not_what_a_second_client_meets(tracker, tmp_path):
    assert tracker.client
    gc.unfreeze()  # what the import of mlflow may have left, here or in another test
    second = MlflowTracker(str(mlflow_database(tmp_path)), str(tmp_path / "artifacts"), "test", 0.2, 5001)
    assert second.client
    assert gc.get_freeze_count() == 0


def runs(tracker):
    return tracker.client.search_runs([tracker.experiment_id], order_by=["attributes.start_time"])


def open_run(tracker, **options):
    return tracker.open("a name", params={"seed": "0"}, tags={"fingerprint": "f"}, **options)


def finished(tracker, fingerprint):
    with tracker.claimed(fingerprint) as run:
        return run


def test_a_run_records_settings_numbers_and_files_and_ends_finished(tracker, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "steps.csv").write_text("step\n")
    with open_run(tracker) as run:
        run.metrics({"details/step_seconds": 0.5, "nothing": float("inf")}, step=3)
        run.image(np.zeros((4, 4, 3), np.uint8), "samples", 3)
        run.keep(folder)
    (done,) = runs(tracker)
    assert (done.info.status, done.info.run_name) == ("FINISHED", "a name")
    assert done.data.params == {"seed": "0"}
    assert done.data.metrics == {"details/step_seconds": 0.5}  # an infinity would be stored as the largest float
    assert {"images", "steps.csv"} <= {a.path for a in tracker.client.list_artifacts(done.info.run_id)}
    assert done.info.artifact_uri.startswith(str(tracker.artifacts))


def test_a_metric_may_have_any_name(tracker):
    with open_run(tracker) as run:
        run.metrics({"black & white (+)/rmse": 0.5, "l'été/rmse": 0.25}, step=3)
    (done,) = runs(tracker)
    assert done.data.metrics == {"black _ white ___/rmse": 0.5, "l_été/rmse": 0.25}


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
    assert finished(tracker, "f") is None
    with open_run(tracker) as run:
        run.metrics({"m": 1.0})
    assert finished(tracker, "f").metrics == {"m": 1.0}
    assert finished(tracker, "g") is None
    assert finished(NoTracker(), "f") is None


def test_the_second_of_two_equal_jobs_waits_and_takes_what_the_first_recorded(tracker, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    claimed, taken = threading.Event(), []

    def second():
        claimed.wait()
        taken.append(finished(tracker, "f"))

    thread = threading.Thread(target=second)
    thread.start()
    with tracker.claimed("f") as before, open_run(tracker) as run:
        claimed.set()
        thread.join(0.2)
        assert (before, taken) == (None, [])
        run.keep(tmp_path / "run")
        run.metrics({"m": 1.0})
    thread.join()
    assert taken[0].metrics == {"m": 1.0}
    assert (taken[0].folder / "metrics.json").is_file()


def test_an_unfinished_run_can_be_gone_on_with_and_a_finished_one_not(tracker):
    with pytest.raises(KeyboardInterrupt), open_run(tracker):
        raise KeyboardInterrupt
    with open_run(tracker, resume={"fingerprint": "f"}):
        assert [r.info.status for r in runs(tracker)] == ["RUNNING"]
    with open_run(tracker, resume={"fingerprint": "f"}):
        pass
    assert [r.info.status for r in runs(tracker)] == ["FINISHED", "FINISHED"]


def test_a_run_that_goes_on_has_the_tags_of_its_new_process_and_no_error(tracker):
    with pytest.raises(KeyboardInterrupt), tracker.open("a", params={}, tags={"state": "s", "commit": "old"}):
        raise KeyboardInterrupt
    (before,) = runs(tracker)
    assert before.data.tags["error"].startswith("KeyboardInterrupt")
    with tracker.open("a", params={}, tags={"commit": "new"}, resume={"state": "s"}):
        pass
    (after,) = runs(tracker)
    assert "error" not in after.data.tags
    assert (after.data.tags["commit"], after.data.tags["state"]) == ("new", "s")


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
    with pytest.raises(MachineError, match=r"damaged .*move it away"), open_run(tracker):
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
    with pytest.raises(UserError, match=r"'test' was deleted; .*tracking\.experiment"):
        assert again.experiment_id


def test_the_runs_of_a_sweep_are_compared_the_best_first(tracker, monkeypatch):
    sweep = tracker.create("sweep", {"kind": "sweep"})
    assert tracker.comparison(sweep) == tracker.page(sweep)  # nothing was measured
    monkeypatch.setenv(PARENT, sweep)
    with open_run(tracker) as run:
        run.metrics({"time/seconds_per_image": 0.5, "quality/fd_encoder": 40.0, "sampling/nfe": 10.0})
    address, _, query = tracker.comparison(sweep).partition("?")
    assert address == f"http://127.0.0.1:5001/#/experiments/{tracker.experiment_id}/runs"
    assert dict(parse_qsl(query)) == {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.mlflow.parentRunId = '{sweep}'",
        "orderByKey": "metrics.`quality/fd_encoder`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART",
    }


def test_system_metrics_are_recorded_on_request(tracker, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    watched = MlflowTracker(str(tracker.database), str(tracker.artifacts), "test", 1.0, 5001, system_metrics=True)
    with open_run(watched) as run:
        until = time.monotonic() + 30  # on a loaded machine
        while time.monotonic() < until and not _watched_so_far(watched, run):
            time.sleep(0.1)
    assert any(name.startswith("system/cpu") for name in runs(watched)[0].data.metrics)


def _watched_so_far(tracker, run):
    return any(name.startswith("system/") for name in tracker.client.get_run(run.run_id).data.metrics)


def test_system_metrics_without_their_package_say_so_at_once(tracker, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="pip install psutil"):
        MlflowTracker(str(tracker.database), str(tracker.artifacts), "test", 1.0, 5001, system_metrics=True)


def test_a_name_is_as_long_as_databases_other_than_sqlite_allow(tracker):
    tracker.close(tracker.create("long " * 99, {}), "FINISHED")
    assert [len(run.info.run_name) for run in runs(tracker)] == [250]


def test_the_command_that_shows_the_runs_quotes_the_path(tmp_path):
    tracker = MlflowTracker(str(tmp_path / "my runs" / "mlflow.db"), "a", "test", 1.0, 5002)
    assert tracker.how_to_look().endswith(f" ui '{tmp_path}/my runs/mlflow.db' --port 5002")
    assert "--port" not in MlflowTracker("x.db", "a", "test", 1.0, 5001).how_to_look()


@pytest.mark.parametrize("name", ["why?", "100%", "50%25", "no#1", "one two", "Zo\u00eb?#%3F"])
def test_signs_that_mean_something_in_addresses_are_taken_as_they_are(name, tmp_path):
    folder = tmp_path / name / "runs"
    mlflow_database(folder)
    tracker = MlflowTracker(str(folder / "mlflow.db"), str(folder / "kept"), "test", 1.0, 5001)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "steps.csv").write_text("step\n")
    with open_run(tracker) as run:
        run.keep(tmp_path / "run")
        run.image(np.zeros((4, 4, 3), np.uint8), "samples", 0)
    (done,) = runs(tracker)
    assert [p.name for p in (folder / "kept").rglob("*.csv")] == ["steps.csv"]
    assert list((folder / "kept").rglob("*.png"))
    assert Path(tracker.client.download_artifacts(done.info.run_id, "steps.csv")).read_text() == "step\n"
    assert {p.name for p in tmp_path.iterdir()} == {name, "run"}
    assert shlex.split(tracker.how_to_look())[-1] == str(tracker.database)
    assert make_url(Database(tracker.database, folder, 1.0).uri).database == str(tracker.database)


def test_a_new_database_below_a_question_mark_lies_there_and_nowhere_else(tmp_path):
    tracker = MlflowTracker(str(tmp_path / "what?" / "mlflow.db"), str(tmp_path / "what?" / "a"), "test", 1.0, 5001)
    assert runs(tracker) == []
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["what?", "what?/mlflow.db", "what?/a"]


@pytest.mark.parametrize("place", ["https://mlflow.example", "mysql://me@host/runs", "s3://bucket/runs", ""])
def test_what_is_no_path_is_refused_before_anything_is_made(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for database, artifacts in ((place, "artifacts"), ("mlflow.db", place)):
        with pytest.raises(UserError, match="a path of this machine"):
            MlflowTracker(database, artifacts, "test", 1.0, 5001)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", " "])
def test_an_experiment_needs_a_name(name, tmp_path):
    with pytest.raises(UserError, match=r"tracking\.experiment is empty"):
        MlflowTracker(str(tmp_path / "mlflow.db"), str(tmp_path / "artifacts"), name, 1.0, 5001)


def test_a_database_of_another_program_is_refused_and_stays_as_it_is(tmp_path):
    with closing(sqlite3.connect(tmp_path / "photos.db")) as other:
        other.execute("CREATE TABLE runs (name TEXT)")
    before = (tmp_path / "photos.db").read_bytes()
    foreign = MlflowTracker(str(tmp_path / "photos.db"), str(tmp_path / "artifacts"), "test", 0.2, 5001)
    with (
        pytest.raises(UnusableFile, match=r"another program .*; give a file of its own as tracking\.database"),
        open_run(foreign),
    ):
        pass
    with pytest.raises(UserError, match=r"another program \(its tables: runs\); what sample and train print"):
        ui.main([str(tmp_path / "photos.db")])
    assert (tmp_path / "photos.db").read_bytes() == before


def test_commands_without_settings_advise_none(tmp_path, monkeypatch):
    (damaged := tmp_path / "damaged.db").write_bytes(b"no database" * 200)
    for show in (lambda: ui.main([str(damaged)]), lambda: found("a run", damaged)):
        with pytest.raises(MachineError, match=r"damaged or no MLflow database .*; give another one$"):
            show()

    monkeypatch.setattr(Database.__init__, "__defaults__", (0.1,))  # seconds that it waits
    with closing(sqlite3.connect(tmp_path / "locked.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MachineError, match=r"locked\.db is locked by another program; close that program$"):
            ui.main([str(tmp_path / "locked.db")])


def test_ui_says_at_once_what_it_starts(tracker, monkeypatch, capsys):
    monkeypatch.setattr("os.execve", lambda *_: None)
    assert tracker.client  # makes the database
    ui.main([str(tracker.database), "--port", "5003"])
    assert capsys.readouterr().out == (
        f"starting MLflow's pages about {tracker.database}: http://127.0.0.1:5003 in some seconds\n"
    )


@pytest.mark.parametrize(("schema", "told"), [("f" * 12, "made by a newer version"), ("451aebb31d03", "is older than")])
def test_a_database_of_another_version_is_named_in_one_sentence(schema, told, tracker):
    with closing(sqlite3.connect(tracker.database)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
        database.commit()
    with pytest.raises(MachineError, match=told) as error, open_run(tracker):
        pass
    assert "<" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_link_to_nothing_is_told_at_once(tmp_path):
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "gone" / "mlflow.db")
    tracker = MlflowTracker(str(tmp_path / "mlflow.db"), str(tmp_path / "artifacts"), "test", 5.0, 5001)
    with pytest.raises(MachineError, match=r"link to .*gone/mlflow\.db"), open_run(tracker):
        pass
    assert not (tmp_path / "gone").exists()


def test_an_open_run_waits_for_a_locked_database_no_longer_than_told(tracker):
    with pytest.raises(MachineError, match="is locked"), closing(sqlite3.connect(tracker.database)) as other:
        _log_a_loss_while_locked_by(other, tracker)
    assert runs(tracker)[0].info.status == "RUNNING"  # it could not be closed either
    with open_run(tracker):
        pass


def _log_a_loss_while_locked_by(other, tracker):
    started = time.monotonic()
    try:
        with open_run(tracker) as run:
            other.execute("BEGIN EXCLUSIVE")
            run.metrics({"loss": 1.0})
    finally:
        assert time.monotonic() - started < 5  # MLflow's own patience is 20 seconds


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/a.png"), None])
def test_a_full_disk_of_artifacts_is_named_with_what_is_kept(tracker, tmp_path, monkeypatch, error):
    error = error or shutil.Error([("/run/a.png", "/there/a.png", f"[Errno 28] {os.strerror(errno.ENOSPC)}")])

    def full(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(type(tracker.client), "log_artifacts", full)
    sentence = f"the disk is full: MLflow cannot keep files in {tracker.artifacts}; all of it is kept in {tmp_path}/run"
    with pytest.raises(MachineError, match=re.escape(sentence)), open_run(tracker) as run:
        run.keep(tmp_path / "run")


def orphan(tracker, **tags):
    """A run that is RUNNING, as a process leaves it that is killed."""
    return tracker.create("left behind", tags)


def seen_by_the_next(tracker, run_id):
    """The run's status and tags once another program has begun to use the database."""
    following = MlflowTracker(str(tracker.database), str(tracker.artifacts), "elsewhere", 1.0, 5001)
    found = following.client.get_run(run_id)
    return found.info.status, found.data.tags


@pytest.fixture
def ended():
    """A process that is over."""
    child = subprocess.Popen(["sleep", "60"])
    process = replace(Process.this(), pid=child.pid, started=_started(child.pid))
    child.kill()
    child.wait()
    return process


def test_a_run_whose_process_has_ended_is_marked_killed_by_the_next_program(tracker, ended):
    run_id = orphan(tracker, **ended.tags)
    status, tags = seen_by_the_next(tracker, run_id)
    assert status == "KILLED"
    assert f"process {ended.pid} ended" in tags["error"]


def test_a_process_id_that_was_given_to_another_process_does_not_keep_a_run_open(tracker):
    before = replace(Process.this(), started="1")
    assert seen_by_the_next(tracker, orphan(tracker, **before.tags))[0] == "KILLED"


def test_runs_of_the_living_of_other_hosts_and_of_nobody_stay_open(tracker, ended):
    with subprocess.Popen(["sleep", "60"]) as child:
        living = replace(ended, pid=child.pid, started=_started(child.pid))
        elsewhere = replace(ended, host="another host")
        nobody = {"process.pid": "", "process.host": "", "process.started": ""}
        for tags in (living.tags, elsewhere.tags, nobody, Process.this().tags):
            assert seen_by_the_next(tracker, orphan(tracker, **tags))[0] == "RUNNING"
        child.kill()


def test_an_orphan_can_be_gone_on_with(tracker, ended):
    run_id = orphan(tracker, state="s", **ended.tags)
    with tracker.open("again", params={}, tags={}, resume={"state": "s"}) as run:
        assert run.run_id == run_id
        assert seen_by_the_next(tracker, run_id)[0] == "RUNNING"  # since it has a new owner
    assert seen_by_the_next(tracker, run_id)[0] == "FINISHED"


def test_a_run_that_another_process_is_at_is_not_taken_over(tracker):
    with subprocess.Popen(["sleep", "60"]) as child:
        living = replace(Process.this(), pid=child.pid, started=_started(child.pid))
        run_id = orphan(tracker, state="s", **living.tags)
        with tracker.open("second", params={}, tags={}, resume={"state": "s"}) as run:
            assert run.run_id != run_id
        child.kill()


@pytest.mark.parametrize(("moment", "status"), [("create_run", "KILLED"), ("set_terminated", "FINISHED")])
def test_an_interruption_while_a_run_is_made_or_closed_leaves_none_open(tracker, monkeypatch, moment, status):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    method = getattr(type(tracker.client), moment)

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return method(*args, **kwargs)

    monkeypatch.setattr(type(tracker.client), moment, interrupted)
    with pytest.raises(KeyboardInterrupt), open_run(tracker):
        pass
    assert [r.info.status for r in runs(tracker)] == [status]


def small(tmp_path, *overrides):
    mlflow_database(tmp_path / "mlruns")
    model = ("model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}", "num_samples=2", "num_steps=2")
    return configuration("sample", tmp_path, *model, "metrics=none", *overrides)


def test_what_the_run_builds_itself_is_no_setting_of_it(tmp_path):
    told = parameters(small(tmp_path, "sampler=quality_guided"))
    assert told["sampler.patience"]
    assert "sampler.scheduler" not in told


@pytest.mark.parametrize("file", ["config.yaml", "metrics.json"])
def test_a_disk_that_gets_full_after_the_pictures_names_its_file_and_says_that_they_are_kept(
    tmp_path, monkeypatch, file
):
    replaced = os.replace

    def full(source, target):
        if str(target).endswith(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replaced(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(MachineError) as error:
        sample(small(tmp_path))
    assert re.search(
        rf"the disk is full: cannot write {tmp_path}/run/{file}; .* kept in {tmp_path}/run", str(error.value)
    )
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 2
