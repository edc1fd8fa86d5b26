"""MLflow: one run per job. mlflow is imported late, since its import takes seconds.

All calls use `MlflowClient`: MLflow's module-level functions have a hidden active run, which one job would leave behind
for the next.
"""

from __future__ import annotations

import errno
import getpass
import logging
import math
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from ..errors import MachineError, UserError
from ..interruption import uninterrupted
from ..io.locks import in_turn
from .database import Database
from .process import Process
from .tracker import Finished, Run

log = logging.getLogger(__name__)

PARENT = "ADAPTIVE_DIFFUSION_PARENT_RUN"  # environment variable, which reaches the workers of every launcher
JOB = "ADAPTIVE_DIFFUSION_JOB"  # environment variable: the number of this process's job in its sweep
PARAM_LENGTH = 6000  # characters of a setting that MLflow keeps
TAG_LENGTH = 5000


class MlflowTracker:
    """Records runs in one SQLite file.

    Every run names its process. The first use of the database marks runs as KILLED whose processes ended unnoticed.

    Args:
        database: The SQLite file; created with its folders on first use.
        artifacts: Folder of images, plots and configurations.
        experiment: MLflow experiment that the runs belong to.
        lock_timeout: Seconds to wait for a database that another program has locked, > 0.
        ui_port: Port in the command that opens the UI.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, database: str, artifacts: str, experiment: str, lock_timeout: float, ui_port: int):
        if not 0 < lock_timeout < math.inf:
            raise UserError(f"tracking.lock_timeout must be a positive number of seconds, got {lock_timeout}")
        if not 0 < ui_port < 65536:
            raise UserError(f"tracking.ui_port must lie in 1..65535, got {ui_port}")

        self.database, self.artifacts = _local("database", database), _local("artifacts", artifacts)
        self._store = Database(self.database, self.artifacts, lock_timeout)
        self.experiment, self.ui_port = experiment, ui_port

    def how_to_look(self) -> str:
        """The command that opens the UI, without usage reports; one worker and no job queue halve its memory."""
        program = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
        return (
            f"MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {program} ui "
            f"--backend-store-uri {shlex.quote(self._store.uri)} --workers 1 --port {self.ui_port}"
        )

    def page(self, run_id: str = "") -> str:
        """Address in the UI of a run, or of all runs of the experiment; the default pages would be about LLMs."""
        address = f"http://127.0.0.1:{self.ui_port}/#/experiments/{self.experiment_id}/runs/{run_id}"
        return f"{address.rstrip('/')}?workflowType=machine_learning"

    @contextmanager
    def open(
        self, name: str, *, params: Mapping[str, str], tags: Mapping[str, str], resume: Mapping[str, str] | None = None
    ) -> Iterator[Run]:
        """See `Tracker.open`. Within a sweep the run becomes a child of the sweep's run."""
        with self.translated():
            _ = self.experiment_id  # takes seconds at first, which may be interrupted

        run_id, status, note = None, "FINISHED", None
        try:
            with uninterrupted():
                run_id = self._begin(name, params, tags, resume)

            run = MlflowRun(self, run_id)
            run.params(params)
            yield run
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            note = f"{type(error).__name__}: {error}"
            raise
        finally:
            if run_id is not None:
                with uninterrupted():
                    self.close(run_id, status, note)

    def translated(self) -> AbstractContextManager[None]:
        """See `Database.translated`."""
        return self._store.translated()

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run of this process and return its id."""
        source = {"mlflow.user": _user(), "mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
        own = {**source, **Process.this().tags, **tags}
        with self.translated():
            run = self.client.create_run(self.experiment_id, run_name=name, tags=own)
        return run.info.run_id

    def failed(self, name: str, params: Mapping[str, str], error: str) -> None:
        """Record a job that was refused before it opened a run; in a sweep, as a child of the sweep's run."""
        with uninterrupted():
            run_id = self.create(name, _sweep_tags())
            try:
                MlflowRun(self, run_id).params(params)
            finally:
                self.close(run_id, "FAILED", error)

    def close(self, run_id: str, status: str, error: str | None = None) -> None:
        """End a run, with the error that ended it. If the database fails, a run that had failed gets a warning only."""
        try:
            with self.translated():
                if error is not None:
                    self.client.set_tag(run_id, "error", error[:TAG_LENGTH])

                self.client.set_terminated(run_id, status)
        except MachineError as trouble:
            if status == "FINISHED":
                raise

            log.warning("the run could not be marked %s: %s", status, trouble)

    @contextmanager
    def claimed(self, fingerprint: str) -> Iterator[Finished | None]:
        """See `Tracker.claimed`."""
        with in_turn(self.artifacts / "claims" / fingerprint, lambda who: log.info("waiting for the same by %s", who)):
            yield self._finished(fingerprint)

    def _finished(self, fingerprint: str) -> Finished | None:
        condition = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'"
        with self.translated():
            found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        if not found:
            return None

        # The files are artifacts, or lie where the run wrote them.
        run = found[0]
        kept, written = run.info.artifact_uri, run.data.tags.get("folder", "")
        places = (url2pathname(urlsplit(kept).path) if kept.startswith("file:") else kept, written)
        folder = next((Path(place) for place in places if place and Path(place, "metrics.json").is_file()), None)
        return Finished(dict(run.data.metrics), folder)

    def children(self, run_id: str, job: str | None = None) -> list[Any]:
        """The runs of a sweep, or of one of its jobs, oldest first."""
        condition = f"tags.mlflow.parentRunId = '{run_id}'" + (f" and tags.`sweep.job` = '{job}'" if job else "")
        with self.translated():
            return list(self.client.search_runs([self.experiment_id], condition, order_by=["attributes.start_time"]))

    def _begin(
        self, name: str, params: Mapping[str, str], tags: Mapping[str, str], resume: Mapping[str, str] | None
    ) -> str:
        with self.translated():
            known = self._reopen(resume, params) if resume else None
        return known or self.create(name, {**tags, **_sweep_tags()})

    def _reopen(self, tags: Mapping[str, str], params: Mapping[str, str]) -> str | None:
        """Resume the latest unfinished run with these tags; None if its settings differ, or its process still lives."""
        condition = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
        condition += " and attributes.status != 'FINISHED'"

        found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        if not found or any(params.get(key, old)[:PARAM_LENGTH] != old for key, old in found[0].data.params.items()):
            return None

        # a run whose process still works is left to it
        run_id, owner = found[0].info.run_id, Process.of(found[0].data.tags)
        if found[0].info.status == "RUNNING" and owner is not None and owner.lives() and owner != Process.this():
            return None

        # the new owner comes before the new status, so that nobody takes the run for an orphan
        for key, value in {**Process.this().tags, **_sweep_tags()}.items():
            self.client.set_tag(run_id, key, value)

        self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _close_orphans(self, client: Any) -> None:
        """Mark runs as KILLED whose processes ended without closing them, as after SIGKILL."""
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
            run = client.get_run(run.info.run_id)  # read again: another process may have resumed it
            owner = Process.of(run.data.tags)

            if owner is not None and owner.has_ended() and run.info.status == "RUNNING":
                client.set_tag(run.info.run_id, "error", f"process {owner.pid} ended without closing this run")
                client.set_terminated(run.info.run_id, "KILLED")

    @cached_property
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the database, which is created if there is none."""
        self._store.make_folders()
        self._store.check()

        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if (other := os.environ.get("MLFLOW_TRACKING_URI")) and other != self._store.uri:
            _say_once(f"MLFLOW_TRACKING_URI is not used; runs are recorded in {self.database} (tracking.database)")

        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        for name in ("mlflow", "mlflow.store.db", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors reach the user as one sentence instead

        self._store.create()
        client = MlflowClient(self._store.uri)
        self._close_orphans(client)
        return client

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment, which is created if there is none."""
        from mlflow.exceptions import MlflowException

        for _ in range(2):  # twice, as another process may create it in between
            if experiment := self.client.get_experiment_by_name(self.experiment):
                if experiment.lifecycle_stage != "active":
                    raise UserError(
                        f"the MLflow experiment {self.experiment!r} was deleted; give another name as "
                        "tracking.experiment, or restore it with: mlflow experiments restore"
                    )

                return experiment.experiment_id

            try:
                return self.client.create_experiment(self.experiment, artifact_location=self._store.artifact_location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                    raise

        raise MachineError(f"the MLflow experiment {self.experiment!r} can neither be found nor created")


class MlflowRun(Run):
    """An open run of an `MlflowTracker`."""

    def __init__(self, tracker: MlflowTracker, run_id: str):
        self._tracker, self._client, self.run_id = tracker, tracker.client, run_id
        self.page = tracker.page(run_id)

    def params(self, values: Mapping[str, str]) -> None:
        """Log settings."""
        from mlflow.entities import Param

        items = [Param(key, value[:PARAM_LENGTH]) for key, value in values.items()]
        with self._tracker.translated():
            for start in range(0, len(items), 100):  # MLflow's limit per call
                self._client.log_batch(self.run_id, params=items[start : start + 100])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """See `Run.metrics`. Infinities are left out: MLflow would store the largest float instead."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(key, float(value), now, step) for key, value in values.items() if math.isfinite(value)]
        with self._tracker.translated():
            self._client.log_batch(self.run_id, metrics=batch)

    def folder(self, path: str | Path, name: str | None = None) -> None:
        """See `Run.folder`."""
        with self._tracker.translated(), self._copying(f"; all of it is kept in {path}"):
            self._client.log_artifacts(self.run_id, str(path), name)

    def file(self, path: str | Path) -> None:
        """Log one file as an artifact."""
        with self._tracker.translated(), self._copying(f"; it is kept in {path}"):
            self._client.log_artifact(self.run_id, str(path))

    def image(self, pixels: np.ndarray, key: str, step: int) -> None:
        """See `Run.image`."""
        with self._tracker.translated(), self._copying():
            self._client.log_image(self.run_id, pixels, key=key, step=step, synchronous=True)

    @contextmanager
    def _copying(self, where: str = "") -> Iterator[None]:
        """Name the folder of artifacts in errors of copying, which name the source or nothing."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            full = "the disk is full: " if os.strerror(errno.ENOSPC) in reason else ""
            why = "" if full else f" ({reason})"
            raise MachineError(
                f"{full}MLflow cannot keep files in {self._tracker.artifacts}{why}{where}; make room there, or set "
                "paths.mlruns elsewhere, or do without: tracking=none"
            ) from error


def _sweep_tags() -> dict[str, str]:
    """The tags of a run in the sweep of this process; {} outside a sweep."""
    tags = {"mlflow.parentRunId": os.environ.get(PARENT), "sweep.job": os.environ.get(JOB)}
    return {key: value for key, value in tags.items() if value}


def _local(setting: str, given: str) -> Path:
    """An absolute path; addresses such as `scheme://host`, of MLflow's servers and other databases, are refused."""
    if not given or re.match(r"[A-Za-z][\w+.-]*:/", given):
        raise UserError(
            f"tracking.{setting} must be a path of this machine, got {given!r}; runs are recorded in a SQLite file, "
            "not on a server or in another database; give a path, or do without: tracking=none"
        )
    return Path(given).absolute()


@cache
def _say_once(text: str) -> None:
    log.warning("%s", text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # this user id has no name, as in some containers
        return str(os.getuid())
