"""Runs on an MLflow server, which may go away while images are drawn."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pytest
import yaml
from omegaconf import open_dict
from tiny import configuration, mlflow_database, tiny_checkpoint

from adaptive_diffusion.cli.arguments import as_given
from adaptive_diffusion.cli.entry import ChecksBeforeWriting
from adaptive_diffusion.errors import MachineError, UnusableFile, UserError
from adaptive_diffusion.io.addresses import without_login
from adaptive_diffusion.program import command
from adaptive_diffusion.runs import sample as sampling
from adaptive_diffusion.runs import upload as program
from adaptive_diffusion.runs.recorded import write_config
from adaptive_diffusion.tracking.jobs import plan_jobs, planned_jobs
from adaptive_diffusion.tracking.mlflow import PARENT, MlflowTracker
from adaptive_diffusion.tracking.process import Process
from adaptive_diffusion.tracking.record import FILE, Record, load_record
from adaptive_diffusion.tracking.server import Server
from adaptive_diffusion.tracking.upload import upload


@pytest.fixture
def nowhere(monkeypatch):
    """The address of a server that is not there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://me:secret@127.0.0.1:{free_port()}"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def on_server(tmp_path, uri):
    return MlflowTracker(str(tmp_path / "unused.db"), str(tmp_path / "unused"), "test", 1.0, 5001, uri)


def in_file(tmp_path):
    """A tracker of a database at the place of an upload, and the address of that."""
    path = mlflow_database(tmp_path / "later")
    return MlflowTracker(str(path), str(tmp_path / "later" / "artifacts"), "test", 1.0, 5001), f"sqlite:///{path}"


def test_a_server_that_does_not_answer_is_said_before_anything_is_drawn(tmp_path, nowhere):
    with (
        pytest.raises(MachineError, match=r"server http://127.*does not answer.*tracking\.uri") as error,
        on_server(tmp_path, nowhere).open("a", params={}, tags={}, folder=tmp_path),
    ):
        pass
    assert "secret" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_tries_of_a_server_that_does_not_answer_are_not_told(tmp_path, nowhere, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with (
        pytest.raises(MachineError, match="does not answer"),
        on_server(tmp_path, nowhere).open("a", params={}, tags={}),
    ):
        pass
    assert [record.getMessage() for record in caplog.records] == []


def test_a_job_of_a_sweep_goes_on_without_the_server_and_is_recorded_later(tmp_path, nowhere, monkeypatch, caplog):
    folder = tmp_path / "run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "0000.png").write_bytes(b"an image")
    monkeypatch.setenv(PARENT, "parent")
    with on_server(tmp_path, nowhere).open("a job", params={"seed": "1"}, tags={"own": "tag"}, folder=folder) as run:
        run.metrics({"sampling/nfe": 10.0}, step=2)
        run.tags({"late": "tag"})
        run.keep(folder)
        assert run.page is None
    assert caplog.text.count("does not answer") == 1
    assert f"{command('upload')} {folder}" in caplog.text

    monkeypatch.delenv(PARENT)
    tracker, uri = in_file(tmp_path)
    upload(folder / FILE, uri)
    (made,) = tracker.client.search_runs([tracker.experiment_id])
    assert (made.info.run_name, made.info.status) == ("a job", "FINISHED")
    assert (made.data.params, made.data.metrics) == ({"seed": "1"}, {"sampling/nfe": 10.0})
    assert {"own", "late"} <= set(made.data.tags)
    assert made.data.tags["mlflow.parentRunId"] == "parent"
    assert [found.path for found in tracker.client.list_artifacts(made.info.run_id)] == ["pictures"]
    assert made.info.end_time - made.info.start_time < 60_000  # when it was drawn, not when it was uploaded
    assert not (folder / FILE).exists()


def test_a_run_that_the_server_knows_is_gone_on_with(tmp_path):
    tracker, uri = in_file(tmp_path)
    with tracker.open("known", params={"seed": "1"}, tags={}, folder=tmp_path) as run:
        run.metrics({"loss": 1.0})
    (point,) = tracker.client.get_metric_history(run.run_id, "loss")
    told = [("loss", 1.0, point.timestamp, 0), ("loss", 0.5, point.timestamp + 1, 1)]
    Record(server=uri, experiment="test", name="known", run_id=run.run_id, params={"seed": "1"}, metrics=told).save(
        tmp_path
    )
    upload(tmp_path / FILE, None)
    (made,) = tracker.client.search_runs([tracker.experiment_id])
    assert made.info.status == "KILLED"  # its record was never closed
    assert [p.value for p in tracker.client.get_metric_history(run.run_id, "loss")] == [1.0, 0.5]


def test_a_run_that_still_draws_is_left_to_its_process(tmp_path, capsys):
    _, uri = in_file(tmp_path)
    Record(server="http://gone", experiment="test", name="a", tags=Process.this().tags).save(tmp_path)
    program.main([str(tmp_path), "--uri", uri])
    assert "still works on it" in (said := capsys.readouterr().out)
    assert said.endswith("0 runs recorded\n")
    assert load_record(tmp_path / FILE).run_id is None


def test_a_run_of_another_machine_is_left_to_it_unless_the_user_says_that_it_has_ended(tmp_path, capsys):
    tracker, uri = in_file(tmp_path)
    elsewhere = replace(Process.this(), host="another host")
    Record(server="http://gone", experiment="test", name="a", tags=elsewhere.tags).save(tmp_path)
    program.main([str(tmp_path), "--uri", uri])
    assert capsys.readouterr().out.endswith("0 runs recorded\n")
    assert (tmp_path / FILE).exists()
    program.main([str(tmp_path), "--uri", uri, "--ended"])
    assert [run.info.status for run in tracker.client.search_runs([tracker.experiment_id])] == ["KILLED"]
    assert not (tmp_path / FILE).exists()


def test_an_upload_advises_no_settings(tmp_path, nowhere):
    Record(server=nowhere, experiment="test", name="a", status="FINISHED").save(tmp_path)
    with pytest.raises(MachineError, match=r"does not answer; start it$"):
        program.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"^--uri must begin with http://, https:// or sqlite:///, got 'mlruns'$"):
        program.main([str(tmp_path), "--uri", "mlruns"])


def test_what_is_no_record_is_named_and_where_there_is_none_that_is_said(tmp_path):
    (tmp_path / FILE).write_text('{"name": 1}')
    with pytest.raises(UnusableFile, match=FILE):
        load_record(tmp_path / FILE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no unrecorded"):
        program.main([str(tmp_path / "empty")])


def test_a_damaged_record_does_not_keep_the_others_from_being_recorded(tmp_path, capsys):
    tracker, uri = in_file(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / FILE).write_text("{")
    Record(server=uri, experiment="test", name="whole", status="FINISHED").save(tmp_path / "b")
    assert program.main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "is damaged" in said.err
    assert said.out.endswith("1 run recorded\n")
    assert [run.info.run_name for run in tracker.client.search_runs([tracker.experiment_id])] == ["whole"]


@pytest.mark.parametrize("uri", ["file:///runs", "postgresql://host/runs", "http://", "ftp://me:secret@x", "mlruns"])
def test_an_address_that_is_no_server_is_refused(tmp_path, uri):
    with pytest.raises(UserError, match=r"tracking\.uri must begin with") as error:
        on_server(tmp_path, uri)
    assert "secret" not in str(error.value)


def test_the_environment_names_the_server_unless_the_settings_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert configuration("sample", tmp_path).tracking.uri == "http://somewhere:5000"
    assert configuration("sample", tmp_path, "tracking.uri=http://else:1").tracking.uri == "http://else:1"
    assert configuration("sample", tmp_path, "tracking.uri=null").tracking.uri is None


def test_a_configuration_is_written_without_the_password_of_the_server(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:se@cret@somewhere:5000/path")
    (cfg := configuration("sample", tmp_path, "num_steps=7")).prompt = r"\${ braces"
    write_config(tmp_path, cfg)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["tracking"]["uri"] == "https://somewhere:5000/path"
    assert (written["num_steps"], written["prompt"]) == (7, r"\${ braces")
    assert cfg.tracking.uri.startswith("https://me")
    assert "cret" not in (tmp_path / "config.yaml").read_text()
    assert cfg.paths.run == f"{tmp_path}/run"
    assert written["paths"]["run"] == "${hydra:runtime.output_dir}", "a run with this file has a folder of its own"


def test_a_password_on_the_command_line_gives_a_warning_and_is_no_name(tmp_path, caplog):
    given = ["tracking.uri=http://me:secret@here:1", "num_steps=5,6"]
    cfg = configuration("sample", tmp_path)
    with open_dict(cfg):
        cfg.hydra = {"overrides": {"task": given}}
    ChecksBeforeWriting().on_run_start(cfg)
    assert "MLFLOW_TRACKING_PASSWORD" in caplog.text
    assert "secret" not in caplog.text
    assert as_given(given) == ["tracking.uri=http://here:1", "num_steps=5,6"]

    caplog.clear()
    plan_jobs(tmp_path, [given])
    (job,) = planned_jobs(tmp_path)
    replace(job, settings=tuple(given)).save(tmp_path)
    written = [path.read_text() for path in (tmp_path / "jobs").iterdir()]
    assert len(written) == 2
    assert all("http://here:1" in text and "secret" not in text for text in written)

    cfg.hydra.overrides.task[0] = "tracking.uri=http://here:1"
    ChecksBeforeWriting().on_run_start(cfg)
    cfg.hydra.overrides.task.append("prompt='${nothing}'")
    ChecksBeforeWriting().on_run_start(cfg)
    assert caplog.text == ""


@pytest.mark.parametrize("uri", ["sqlite:////a/b@c.db", "http://here:1", "sqlite:///"])
def test_an_address_without_a_name_stays_as_it_is(uri):
    assert without_login(uri) == uri


def test_refusals_of_a_server_are_told_apart():
    from mlflow.exceptions import MlflowException

    def said(error):
        with pytest.raises(MachineError) as found, Server("http://here").translated():
            raise error
        return str(found.value)

    assert "MLFLOW_TRACKING_USERNAME" in said(MlflowException("API request failed with error code 401 != 200"))
    assert "refused (no room)" in said(MlflowException("no room"))
    assert "does not answer" in said(ConnectionError("refused"))


@pytest.fixture
def server(tmp_path):
    """`mlflow server` on a database of its own; its process and its address."""
    database, port = mlflow_database(tmp_path / "server"), free_port()
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(tmp_path / "server")]
    with subprocess.Popen(
        command, env=os.environ | quiet, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process)
            yield process, f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _wait_for(address, process):
    deadline = time.monotonic() + 300  # of a loaded machine
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the server does not start")


def _stop(process):
    if process.poll() is None:
        os.killpg(process.pid, 15)
        process.wait(60)


@pytest.mark.slow
def test_a_real_server_records_runs_and_when_it_goes_away_drawing_goes_on(tmp_path, server, monkeypatch, caplog):
    process, uri = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    model = ("model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}", "num_samples=2", "num_steps=2")

    def draw(name):
        settings = (*model, "metrics=none", f"tracking.uri={uri}", f"name={name}", f"paths.run={tmp_path}/{name}")
        return sampling.sample(configuration("sample", tmp_path, *settings))

    draw("first")
    tracker = on_server(tmp_path, uri)
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.metrics["sampling/nfe"] == 2
    assert tracker.client.get_run(run.info.run_id).inputs.model_inputs
    assert {"pictures.png", "metrics.json"} <= {a.path for a in tracker.client.list_artifacts(run.info.run_id)}

    measure = sampling.measure_quality

    def then_it_is_gone(*given):
        _stop(process)
        return measure(*given)

    monkeypatch.setattr(sampling, "measure_quality", then_it_is_gone)
    assert draw("second") > 0
    assert caplog.text.count("does not answer") == 1
    assert (tmp_path / "second" / "pictures" / "0001.png").is_file()

    later, place = in_file(tmp_path)
    program.main([str(tmp_path), "--uri", place])
    (run,) = later.client.search_runs([later.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.metrics["sampling/nfe"]) == ("second", "FINISHED", 2)
    assert "pictures.png" in {a.path for a in later.client.list_artifacts(run.info.run_id)}
