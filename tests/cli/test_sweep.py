"""A sweep: its run in MLflow, and the table of its jobs, whatever became of them."""

from __future__ import annotations

import os
import pickle
import shlex

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf
from tiny import CONF, mlflow_database

from adaptive_diffusion import interruption, program
from adaptive_diffusion.cli.schemas import register
from adaptive_diffusion.cli.sweep import SweepRun, _planned
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.runs.job import Stop
from adaptive_diffusion.tracking.jobs import Job, Skipped, count_failures, jobs_of, plan_jobs, table
from adaptive_diffusion.tracking.mlflow import JOB, PARENT, MlflowTracker
from adaptive_diffusion.tracking.tracker import Finished


@pytest.fixture
def tracker(tmp_path):
    return MlflowTracker(str(mlflow_database(tmp_path)), str(tmp_path / "artifacts"), "test", 0.2, 5001)


def runs(tracker):
    return tracker.client.search_runs([tracker.experiment_id], order_by=["attributes.start_time"])


def open_run(tracker):
    return tracker.open("a name", params={"seed": "0"}, tags={})


def config(tracker, number=0, *settings):
    folder = tracker.database.parent
    return OmegaConf.create(
        {
            "hydra": {
                "mode": RunMode.MULTIRUN,
                "overrides": {"task": list(settings) or ["scheduler=ddim,adaptive"]},
                "sweep": {"dir": str(folder / "sweep")},
                "job": {"num": number},
                "launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
                "runtime": {"output_dir": str(folder / "sweep" / str(number))},
            },
            "tracking": {
                "_target_": "adaptive_diffusion.tracking.mlflow.MlflowTracker",
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
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config(tracker))
    monkeypatch.setattr(interruption, "interrupted", False)
    callback = SweepRun()
    callback.on_multirun_start(config(tracker))
    yield callback
    callback._close_at_exit()
    assert not {PARENT, JOB} & set(os.environ)


@pytest.fixture
def do(sweep, tracker):
    """Do a job as Hydra would: with callbacks before and after, and errors turned into a status."""

    def job(number, setting, task):
        given, result = config(tracker, number, setting, "seed=7"), JobReturn()
        sweep.on_job_start(given)
        try:
            result.return_value, result.status = task(), JobStatus.COMPLETED
        except Exception as error:
            result.return_value, result.status = error, JobStatus.FAILED
        sweep.on_job_end(given, result)
        return result

    return job


def drawn(tracker, number):
    def task():
        with open_run(tracker):
            folder = tracker.database.parent / "sweep" / str(number)
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text('{"time/seconds_per_image": 0.25}')
        return 0.25

    return task


def refused():
    raise UserError("eta must lie in [0, 1], got 3")


def test_the_runs_of_a_sweep_are_children_of_its_run(sweep, do, tracker, capsys):
    do(0, "scheduler=ddim", drawn(tracker, 0))
    sweep.on_multirun_end(config(tracker))
    parent, child = runs(tracker)
    assert parent.info.run_name == "sweep scheduler=ddim,adaptive"
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    out = capsys.readouterr().out
    assert "#0 scheduler=ddim seed=7  FINISHED  0.25" in out
    assert "failed" not in out


def test_texts_are_named_without_the_escapes_of_hydra(sweep, do, tracker, capsys):
    do(0, "label=a\\ face", drawn(tracker, 0))
    do(1, "label='a, b'", drawn(tracker, 1))
    sweep.on_multirun_end(config(tracker))
    out = capsys.readouterr().out
    assert "#0 label=a face  FINISHED" in out
    assert "#1 label=a, b    FINISHED" in out


def test_a_job_that_fails_is_in_the_table_and_in_mlflow_with_its_sentence(sweep, do, tracker, capsys):
    def broken():
        with open_run(tracker):
            raise ZeroDivisionError("by zero")

    do(0, "scheduler.eta=3", refused)
    do(1, "scheduler.eta=1", drawn(tracker, 1))
    do(2, "scheduler.eta=0", broken)
    sweep._close_at_exit()
    parent, *children = runs(tracker)
    assert [run.info.status for run in (parent, *children)] == ["FAILED", "FAILED", "FINISHED", "FAILED"]
    assert children[0].info.run_name == "scheduler.eta=3 seed=7"
    assert children[0].data.params == {"scheduler.eta": "3", "seed": "7"}
    assert children[0].data.tags["error"] == "eta must lie in [0, 1], got 3"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    note = parent.data.tags["mlflow.note.content"]
    assert "1 of 3 jobs failed, 1 was refused" in note
    assert "`#0 scheduler.eta=3`: eta must lie in [0, 1], got 3" in note
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("#0 "))
    assert row.split(maxsplit=3) == ["#0", "scheduler.eta=3", "REFUSED", "eta must lie in [0, 1], got 3"]
    assert any(line.startswith("#2 scheduler.eta=0  FAILED") and "by zero" in line for line in lines)
    assert "1 of 3 jobs failed, 1 was refused" in lines


def test_a_tracker_that_cannot_be_built_is_one_sentence(tracker, capsys):
    given = config(tracker)
    given.tracking._target_ = "adaptive_diffusion.tracking.mlflow.MlflowTraker"
    with pytest.raises(SystemExit) as end:
        SweepRun().on_multirun_start(given)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(
        "tracking: _target_ is 'adaptive_diffusion.tracking.mlflow.MlflowTraker', and Python finds nothing"
    )


def test_a_refused_job_is_recorded_with_the_choices_of_groups_below_others(sweep, do, tracker, caplog):
    do(0, "model@task.model=checkpoint", refused)
    _, child = runs(tracker)
    assert child.info.run_name == "model@task.model=checkpoint seed=7"
    assert child.data.params == {"model_task.model": "checkpoint", "seed": "7"}
    assert caplog.records == []


def test_what_was_told_of_a_job_is_not_announced_once_more(do, tracker, capsys):
    assert do(0, "scheduler.eta=1", drawn(tracker, 0)).return_value == 0.25
    with pytest.raises(UserError, match="eta must lie"):
        _ = do(1, "scheduler.eta=3", refused).return_value
    assert "overrides" not in capsys.readouterr().err


def test_a_job_that_was_done_before_is_listed_with_its_numbers(sweep, do, tracker, capsys, tmp_path):
    do(0, "seed=1", drawn(tracker, 0))
    do(1, "seed=2", lambda: Skipped(0.5, Finished({"time/seconds_per_image": 0.5}, tmp_path)))
    sweep.on_multirun_end(config(tracker))
    out = capsys.readouterr().out
    assert "#1 seed=2  SKIPPED   0.5" in out
    assert "go on" not in out
    assert [job.folder for job in jobs_of(tracker.database.parent / "sweep")][1] == str(tmp_path)
    assert len(runs(tracker)) == 2


def test_a_skipped_result_can_be_sent_to_another_process(tmp_path):
    sent = pickle.loads(pickle.dumps(Skipped(0.5, Finished({"m": 1.0}, tmp_path))))
    assert (sent, sent.run) == (0.5, Finished({"m": 1.0}, tmp_path))


@pytest.mark.parametrize("finished", [True, False])
def test_a_sweep_whose_jobs_would_be_refused_again_names_no_command_that_goes_on(finished, sweep, do, tracker, capsys):
    do(0, "seed=1", drawn(tracker, 0) if finished else refused)
    do(1, "seed=2", refused)
    sweep._close_at_exit()
    out = capsys.readouterr().out
    assert "of 2 jobs w" in out
    assert "seed=1,2" not in out
    assert ("go on      mend what was refused, and start the sweep again" in out) is finished


@pytest.mark.parametrize("benchmark", [None, {}])
def test_without_mlflow_only_a_benchmark_that_is_interrupted_goes_on(benchmark, tracker, monkeypatch, capsys):
    program.started("sample", ["-m", "seed=1,2", "tracking=none"])
    nowhere = {"_target_": "adaptive_diffusion.tracking.tracker.NoTracker"}
    given = OmegaConf.merge(config(tracker), {"skip_finished": True, "benchmark": benchmark})
    given.tracking = nowhere
    callback = SweepRun()
    callback.on_multirun_start(given)
    monkeypatch.setattr(interruption, "interrupted", True)
    callback._close_at_exit()
    assert ("go on" in capsys.readouterr().out) is (benchmark is not None)


def test_a_sweep_that_is_interrupted_is_killed_in_a_job(sweep, do, tracker, capsys):
    def interrupted():
        with open_run(tracker):
            raise KeyboardInterrupt

    server = "tracking.uri=http://{}here:1"
    program.started("sample", ["-m", "seed=1,2", "name='a b'", server.format("me:se'cret@"), "skip_finished=false"])
    do(0, "seed=1", refused)
    with pytest.raises(KeyboardInterrupt):
        do(1, "seed=2", interrupted)
    sweep._close_at_exit()
    assert [run.info.status for run in runs(tracker)] == ["KILLED", "FAILED", "KILLED"]
    out = capsys.readouterr().out
    assert "#1 seed=2  KILLED" in out
    (last,) = (line.split(maxsplit=2)[2] for line in out.splitlines() if line.startswith("go on "))
    assert shlex.split(last)[-4:] == ["-m", "seed=1,2", "name='a b'", server.format("")]


def test_a_sweep_that_is_interrupted_is_killed_between_jobs(sweep, do, tracker, monkeypatch):
    do(0, "seed=1", drawn(tracker, 0))
    do(1, "seed=2", refused)
    monkeypatch.setattr(interruption, "interrupted", True)
    sweep._close_at_exit()
    assert runs(tracker)[0].info.status == "KILLED"


def test_a_sweep_that_is_interrupted_before_its_first_job_says_how_to_go_on(sweep, monkeypatch, capsys):
    program.started("sample", ["-m", "seed=1,2"])
    monkeypatch.setattr(interruption, "interrupted", True)
    sweep._close_at_exit()
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()] == [["go", "on"]]


def test_a_sweep_without_runs_leaves_nothing_behind(sweep, tracker):
    sweep._close_at_exit()
    assert runs(tracker) == []


def test_a_sweep_whose_run_cannot_be_made_exits_in_one_sentence(tracker, capsys):
    tracker.database.write_bytes(b"not a database" * 400)
    with pytest.raises(SystemExit) as exit_:
        SweepRun().on_multirun_start(config(tracker))
    assert exit_.value.code == 1
    assert "is damaged or no MLflow database" in capsys.readouterr().err


def test_the_jobs_of_an_earlier_sweep_in_the_same_folder_are_not_listed(sweep, do, tracker):
    do(5, "seed=5", drawn(tracker, 5))
    folder = tracker.database.parent / "sweep"
    assert [job.number for job in jobs_of(folder)] == [5]
    SweepRun().on_multirun_start(config(tracker))
    assert jobs_of(folder) == []


def test_the_table_shows_what_differs_and_aligns_its_columns():
    metrics = {"time/seconds_per_image": 0.5, "sampling/nfe": 10.0}
    jobs = [
        Job(number=9, settings=("a=1", "b=2"), status="FINISHED", metrics=metrics),
        Job(number=10, settings=("a=1", "b=3"), status="REFUSED", reason="no 3"),
    ]
    assert table(jobs).splitlines() == [
        "job      status    seconds/image  evaluations/image",
        "#9 b=2   FINISHED  0.5            10",
        "#10 b=3  REFUSED                                     no 3",
    ]


def test_a_table_of_some_jobs_names_them_by_what_differs_in_the_whole_sweep():
    jobs = [Job(number=n, settings=("a=1", f"b={n}"), status="FAILED", reason="why") for n in range(2)]
    assert "#1 b=1  FAILED  why" in table(jobs[1:], jobs)


def test_a_single_job_is_named_by_what_it_does_and_not_by_where_it_writes():
    (line,) = table([Job(number=0, settings=("paths.outputs=/x", "tracking=none", "b=2"))]).splitlines()[1:]
    assert line == "#0 b=2  RUNNING"


def test_jobs_that_were_not_begun_are_listed_and_many_of_them_are_counted(tmp_path):
    plan_jobs(tmp_path, [[f"seed={n}"] for n in range(30)])
    Job(number=0, settings=("seed=0",), status="FINISHED", metrics={"result": 2.5}).save(tmp_path)
    jobs = jobs_of(tmp_path)
    assert [job.status for job in jobs] == ["FINISHED"] + ["NOT BEGUN"] * 29
    lines = table(jobs).splitlines()
    assert lines[:3] == [
        "job          status     result",
        "#0 seed=0    FINISHED   2.5",
        "#1 seed=1    NOT BEGUN",
    ]
    assert lines[-1] == "9 more jobs were not begun"
    assert table(jobs[:22]).splitlines()[-1] == "1 more job was not begun"


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        (["FINISHED"], ""),
        (["FAILED"], "1 of 1 job failed"),
        (["FAILED", "FINISHED"], "1 of 2 jobs failed"),
        (["REFUSED", "REFUSED"], "2 of 2 jobs were refused"),
        (["REFUSED", "FAILED", "FINISHED"], "1 of 3 jobs failed, 1 was refused"),
    ],
)
def test_refused_jobs_are_not_called_failed(statuses, sentence):
    assert count_failures([Job(number=n, settings=(), status=s) for n, s in enumerate(statuses)]) == sentence


def test_before_a_sweep_each_choice_and_each_name_is_tried_not_each_value(monkeypatch):
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_ROOT", "/nowhere")
    register()
    seeds, tried = ",".join(map(str, range(20))), []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        given = [f"seed={seeds}", "scheduler=ddim,adaptive", "num_steps=5"]
        swept = loader.load_configuration("sample", given, RunMode.MULTIRUN)
        load = loader.load_sweep_config
        monkeypatch.setattr(loader, "load_sweep_config", lambda *given: tried.append(given[1]) or load(*given))
        assert len(_planned(swept)) == 40
        assert tried == [["seed=0", f"scheduler={each}", "num_steps=5"] for each in ("ddim", "adaptive")]

        for wrong in ("scheduler=ddim,unknown", "unknown=1,2"):
            swept = loader.load_configuration("sample", [f"seed={seeds}", wrong], RunMode.MULTIRUN)
            with pytest.raises(Stop):
                _planned(swept)
