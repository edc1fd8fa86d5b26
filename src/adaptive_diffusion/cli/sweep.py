"""One parent MLflow run per multirun, which closes itself however the sweep ends, and a table of its jobs."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from .. import interruption
from ..errors import MachineError, UserError
from ..interruption import uninterrupted
from ..io.addresses import without_login
from ..program import again
from ..runs.job import Stop, explain, in_sweep
from ..runs.output import look, rows_text, say
from ..runs.sweep_overrides import sweep_overrides, takes_every_combination
from ..tracking.jobs import (
    DONE,
    FAILED,
    NOT_BEGUN,
    RESULT,
    Job,
    Skipped,
    count_failures,
    failures,
    jobs_of,
    plan_jobs,
    table,
    telling,
)
from ..tracking.mlflow import JOB, PARENT, MlflowTracker
from ..tracking.process import Process, end_with
from ..tracking.server import ServerError
from .arguments import as_given, plain

log = logging.getLogger(__name__)


class SweepReport(Protocol):
    """What a sweep says before its first job, and makes of the results after its last."""

    def begin(self, config: DictConfig) -> None:
        """Called with the sweep's configuration before anything runs; an exception ends the sweep."""
        ...

    def end(self, config: DictConfig, jobs: Sequence[Job]) -> Sequence[Path]:
        """Called with the jobs when the sweep ends, however it ends; the files and folders that were made."""
        ...


class SweepRun(Callback):
    """One parent run per multirun, configured as a Hydra callback.

    Hydra does not call `on_multirun_end` when a job failed, so the parent is closed at exit at the latest. A parent
    without children (every job was skipped) and without a report is removed.

    Args:
        report: Replaces the table of jobs at the end, except for those without a result; None: the table.
    """

    _config: DictConfig | None = None  # while a sweep is open in this process
    _run_id: str | None = None  # of the parent
    _name: str  # of the parent
    _folder: str  # of the sweep
    _process: Process  # that runs the sweep; its workers get a copy

    def __init__(self, report: SweepReport | None = None):
        self._report = report

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the database, once and before any worker does, and the parent run; if that fails, exit."""
        planned = _planned(config)
        _check_folders(config, len(planned))
        self._process = Process.this()
        try:
            tracker = _tracker(config)
            if self._report is not None:
                self._report.begin(config)

            if isinstance(tracker, MlflowTracker):
                with tracker.translated():
                    _ = tracker.experiment_id  # takes seconds at first, which may be interrupted
            plan_jobs(Path(config.hydra.sweep.dir), [[plain(setting) for setting in job] for job in planned])

            # From here on, the parent run is closed however the sweep ends.
            with uninterrupted():
                if isinstance(tracker, MlflowTracker):
                    self._name = "sweep " + " ".join(as_given(config.hydra.overrides.task))
                    self._folder = config.hydra.sweep.dir
                    os.environ[PARENT] = self._run_id = tracker.create(self._name, {"kind": "sweep"})
                self._config = config
                atexit.register(self._close_at_exit)
        except Exception as error:  # Hydra would turn it into a warning, and let every job fail in turn
            sentence, code = explain(error)
            print(sentence, file=sys.stderr, flush=True)
            raise SystemExit(code) from error

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record that a job of the sweep has begun; this may be a process of a launcher's."""
        if in_sweep():
            os.environ[JOB] = str(config.hydra.job.num)
            if config.hydra.launcher._target_.endswith("JoblibLauncher"):
                end_with(self._process)
            _record(config, _job(config))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record how the job ended. A job that was refused before it opened a run gets a run."""
        if in_sweep():
            _record(config, _ended(config, job_return))
            job_return.__class__ = _Reported
            os.environ.pop(JOB, None)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The sweeper ended without an error: all jobs succeeded, or with Optuna, the study has its trials."""
        self._close("FINISHED")

    def _close_at_exit(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            self._close("FAILED")

    def _close(self, status: str) -> None:
        with uninterrupted():
            config, self._config = self._config, None
            if config is not None:
                self._end(config, status)

    def _end(self, config: DictConfig, status: str) -> None:
        for variable in (PARENT, JOB):
            os.environ.pop(variable, None)

        jobs = jobs_of(Path(config.hydra.sweep.dir))
        made = self._end_report(config, jobs)
        failed = [job for job in jobs if job.status in FAILED]
        left = [job for job in jobs if job.status not in DONE]
        if interruption.interrupted or any(job.status == "KILLED" for job in jobs):
            status = "KILLED"

        # A sweep that was refused as a whole has begun no job; its one sentence follows.
        begun = any(job.status != NOT_BEGUN for job in jobs)
        if shown := (left if made else jobs) if begun else []:
            say(f"\n{table(shown, jobs)}")
        if failed:
            say(count_failures(jobs))

        if self._run_id is not None:
            self._end_run(_tracker(config), self._run_id, status, jobs, made)

        # What has finished is skipped by what is recorded or kept; what was refused would be refused again.
        remembers = self._run_id is not None or "skip_finished" not in config or config.benchmark is not None
        stopped_at_once = interruption.interrupted and not begun  # before the first job had begun
        if remembers and (stopped_at_once or (begun and any(job.status != "REFUSED" for job in left))):
            say(rows_text({"go on": without_login(again())}))
        elif remembers and left and len(left) < len(jobs):
            mend = "mend what was refused, and start the sweep again: what is finished is not repeated"
            say(rows_text({"go on": mend}))

    def _end_run(self, tracker: MlflowTracker, run_id: str, status: str, jobs: list[Job], made: Sequence[Path]) -> None:
        """Close the parent run, with a note of what failed and the report, or remove it if it has no children."""
        run = tracker.parent(run_id, self._name, self._folder)
        try:
            if not made and not tracker.children(run_id):
                tracker.close(run_id, status)
                with tracker.translated():
                    tracker.client.delete_run(run_id)
                return
            if note := failures(jobs):
                run.tags({"mlflow.note.content": note})
            for path in made:
                run.keep(path, path.name if path.is_dir() else None)
        except ServerError as error:
            run.lose(error)
        except MachineError as error:
            log.warning("%s", error)

        try:
            run.end(status, None)
            if not run.lost:
                say(f"\n{rows_text(look(tracker, tracker.comparison(run_id)))}")
        except MachineError as error:
            log.warning("the sweep's run could not be closed: %s", error)

    def _end_report(self, config: DictConfig, jobs: list[Job]) -> Sequence[Path]:
        if self._report is None:
            return ()
        try:
            return self._report.end(config, jobs)
        except Exception as error:
            log.warning("the sweep's report could not be made: %s", explain(error)[0])
            return ()


class _Reported(JobReturn):
    """How a job ended that has printed its error; Hydra would print the error once more after the last job."""

    @property
    def return_value(self) -> Any:
        """What the job returned, or the error that ended it, raised."""
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _tracker(config: DictConfig) -> Any:
    """The tracker, built as every job builds it."""
    from ..runs.build import build  # late: it loads MLX

    return build(config, "tracking")


def _planned(config: DictConfig) -> list[list[str]]:
    """The settings of each job of a sweep; [] for a sweeper that decides on them one after another.

    Each setting's name and each choice of a group is tried in one job's configuration. Hydra tries all jobs, but later.

    Raises:
        Stop: for a setting or an option that does not exist.
    """
    if not takes_every_combination(config):
        return []
    loader, tried = GlobalHydra.instance().config_loader(), set[str]()
    try:
        given = sweep_overrides(config, loader)
        groups = {each.get_key_element() for each in given if loader.get_group_options(each.key_or_group)}
        (jobs,) = BasicSweeper.split_arguments(given, None)
        for job in jobs:
            new = {s if (name := s.partition("=")[0]) in groups else name for s in job} - tried
            if new:
                loader.load_sweep_config(config, job)
                tried |= new
    except Exception as error:  # HydraException, or whatever Hydra raises
        raise Stop from error
    return jobs


def _check_folders(config: DictConfig, jobs: int) -> None:
    """Refuse a sweep whose jobs would write over each other.

    Raises:
        Stop: for a `hydra.sweep.subdir` without a reference, which is the same for all jobs.
    """
    subdir = OmegaConf.to_container(config.hydra.sweep, resolve=False).get("subdir", "${}")  # type: ignore[union-attr]
    if jobs > 1 and "${" not in str(subdir):
        raise Stop from UserError(
            f"the jobs of this sweep would all write to hydra.sweep.subdir={subdir}; leave it out, or name the job in "
            "it: hydra.sweep.subdir='job ${hydra.job.num}'"
        )


def _record(config: DictConfig, job: Job) -> None:
    """Write a job's file, and if it failed without a run, one that says so; the job itself does not depend on it."""
    parent, number = os.environ.get(PARENT), str(job.number)
    try:
        job.save(Path(config.hydra.sweep.dir))
        tracker = _tracker(config) if job.status in FAILED and parent else None
        if tracker is not None and not tracker.children(parent, number):
            settings = telling(job.settings)
            tracker.failed(" ".join(settings), dict(s.lstrip("+~").partition("=")[::2] for s in settings), job.reason)
    except (MachineError, ValueError, OSError) as error:
        log.warning("what became of job %s could not be recorded: %s", number, explain(error)[0])


def _job(config: DictConfig) -> Job:
    return Job(number=config.hydra.job.num, settings=tuple(map(plain, config.hydra.overrides.task)))


def _ended(config: DictConfig, job_return: JobReturn) -> Job:
    """The job as it ended; `return_value` would raise the error, and print a line of Hydra's."""
    job, result = replace(_job(config), folder=config.hydra.runtime.output_dir), job_return._return_value
    if job_return.status != JobStatus.COMPLETED:
        sentence, code = explain(result)
        left = job.folder if Path(job.folder).is_dir() else ""  # a job that was refused leaves none
        return replace(job, status="REFUSED" if code == 2 else "FAILED", reason=sentence, folder=left)
    if isinstance(result, Skipped):
        folder = result.run.folder
        kept = result.run.metrics if folder is None else _numbers(folder) or result.run.metrics
        return replace(job, status="SKIPPED", metrics=kept, folder=str(folder or ""))

    # A training writes no metrics; what it returned is all that the table can show.
    returned = {RESULT: float(result)} if isinstance(result, int | float) else {}
    return replace(job, status="FINISHED", metrics=_numbers(Path(job.folder)) or returned)


def _numbers(folder: Path) -> dict[str, float]:
    """Every number of a run; {} of one that writes none."""
    file = folder / "metrics.json"
    numbers: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    return numbers
