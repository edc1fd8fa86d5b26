"""MLflow: one run per job. The only module that imports mlflow, and late: it takes seconds.

Everything goes through `MlflowClient`, which has no hidden active run that one job could leave behind for the next.
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
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from ..errors import MachineError, UserError
from ..interruption import uninterrupted
from .process import Process

log = logging.getLogger(__name__)

PARENT = "ADAPTIVE_DIFFUSION_PARENT_RUN"  # environment variable: reaches the workers of every launcher
JOB = "ADAPTIVE_DIFFUSION_JOB"  # environment variable: the number of the sweep's job that this process does
PARAM_LENGTH = 6000  # characters of a setting that MLflow keeps
TAG_LENGTH = 5000
TABLES = {"alembic_version", "experiments", "runs", "params", "metrics", "tags"}  # of every database of MLflow's


class Run:
    """An open run that records nothing; what `NoTracker` opens.

    Attributes:
        page: Address of the run once the UI is open, or None.
    """

    page: str | None = None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; names may contain letters, digits and `_ - . space : /`."""

    def folder(self, path: str | Path, name: str | None = None) -> None:
        """Log every file below a folder as an artifact, in a folder called `name` if that is given."""

    def image(self, pixels: np.ndarray, key: str, step: int) -> None:
        """Log one picture, (H, W, C) uint8, of a series that the UI shows with a slider."""


class Tracker(Protocol):
    """Where runs are recorded."""

    def open(
        self, name: str, *, params: Mapping[str, str], tags: Mapping[str, str], resume: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Run]:
        """Open a run; it ends FINISHED, FAILED on an exception, KILLED on an interruption.

        Args:
            name: Shown in the UI.
            params: Settings.
            tags: Labels that can be searched for.
            resume: Tags of an unfinished run to go on with, if there is one with these settings.
        """
        ...

    def finished(self, fingerprint: str) -> dict[str, float] | None:
        """Metrics of a FINISHED run with this fingerprint, or None."""
        ...

    def how_to_look(self) -> str | None:
        """The command that shows the runs."""
        ...


class NoTracker:
    """Records nothing."""

    @contextmanager
    def open(
        self, name: str, *, params: Mapping[str, str], tags: Mapping[str, str], resume: Mapping[str, str] | None = None
    ) -> Iterator[Run]:
        """See `Tracker.open`."""
        yield Run()

    def finished(self, fingerprint: str) -> dict[str, float] | None:
        """None: nothing is remembered."""
        return None

    def how_to_look(self) -> str | None:
        """None: there is nothing to look at but the files."""
        return None


class MlflowTracker:
    """Records runs in one SQLite file.

    Every run names the process that does it. The first use of the database marks those runs KILLED whose processes
    have ended without a word.

    Args:
        database: The SQLite file; created with its folders on first use.
        artifacts: Folder of pictures, plots and configurations.
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
        self.experiment = experiment
        self.lock_timeout = lock_timeout
        self.ui_port = ui_port

    @property
    def uri(self) -> str:
        """MLflow's name for the database."""
        return _uri(self.database)

    def how_to_look(self) -> str:
        """The command that opens the UI: no usage reports, one worker, no job queue (half the memory and start-up)."""
        program = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
        return (
            f"MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {program} ui "
            f"--backend-store-uri {shlex.quote(self.uri)} --workers 1 --port {self.ui_port}"
        )

    def page(self, run_id: str = "") -> str:
        """Address in the UI of a run, or of all runs of the experiment; the UI's default pages are about LLMs."""
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

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run of this process and return its id."""
        source = {"mlflow.user": _user(), "mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
        own = {**source, **Process.this().tags, **tags}
        with self.translated():
            run = self.client.create_run(self.experiment_id, run_name=name, tags=own)
        return run.info.run_id

    def failed(self, name: str, params: Mapping[str, str], error: str) -> None:
        """Record a job that was refused before it opened a run; within a sweep, as a child of the sweep's run."""
        with uninterrupted():
            run_id = self.create(name, _sweep_tags())
            try:
                MlflowRun(self, run_id).params(params)
            finally:
                self.close(run_id, "FAILED", error)

    def close(self, run_id: str, status: str, error: str | None = None) -> None:
        """End a run, perhaps with a note of what ended it. If that fails, and the run had failed, a warning tells."""
        try:
            with self.translated():
                if error is not None:
                    self.client.set_tag(run_id, "error", error[:TAG_LENGTH])
                self.client.set_terminated(run_id, status)
        except MachineError as trouble:
            if status == "FINISHED":
                raise
            log.warning("the run could not be marked %s: %s", status, trouble)

    def finished(self, fingerprint: str) -> dict[str, float] | None:
        """See `Tracker.finished`."""
        condition = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'"
        with self.translated():
            found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        return dict(found[0].data.metrics) if found else None

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
        """The latest unfinished run with these tags, RUNNING again; None if a setting has changed or it is going on."""
        condition = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
        condition += " and attributes.status != 'FINISHED'"
        found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        if not found or any(params.get(key, old)[:PARAM_LENGTH] != old for key, old in found[0].data.params.items()):
            return None
        run_id, owner = found[0].info.run_id, Process.of(found[0].data.tags)
        if found[0].info.status == "RUNNING" and owner is not None and owner.lives() and owner != Process.this():
            return None
        for key, value in {**Process.this().tags, **_sweep_tags()}.items():  # before it is seen to run again
            self.client.set_tag(run_id, key, value)
        self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _close_orphans(self, client: Any) -> None:
        """Mark runs KILLED whose processes have ended and, as after SIGKILL, could not do so themselves."""
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
            run = client.get_run(run.info.run_id)  # as it is now: its training may have been taken up again
            owner = Process.of(run.data.tags)
            if owner is not None and owner.has_ended() and run.info.status == "RUNNING":
                client.set_tag(run.info.run_id, "error", f"process {owner.pid} ended without closing this run")
                client.set_terminated(run.info.run_id, "KILLED")

    @cached_property
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the database, which is created if need be, and without orphans."""
        self.database.parent.mkdir(parents=True, exist_ok=True)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self._check_database()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if (other := os.environ.get("MLFLOW_TRACKING_URI")) and other != self.uri:
            _say_once(f"MLFLOW_TRACKING_URI is not used; runs are recorded in {self.database} (tracking.database)")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        for name in ("mlflow", "mlflow.store.db", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors reach the user as one sentence instead
        self._check_name()
        if not self.database.exists():
            self._create_database()
        client = MlflowClient(self.uri)
        self._close_orphans(client)
        return client

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment, which is created if need be."""
        from mlflow.exceptions import MlflowException

        for _ in range(2):
            if experiment := self.client.get_experiment_by_name(self.experiment):
                if experiment.lifecycle_stage != "active":
                    raise UserError(
                        f"the MLflow experiment {self.experiment!r} was deleted; give another name as "
                        "tracking.experiment, or restore it with: mlflow experiments restore"
                    )
                return experiment.experiment_id
            try:
                return self.client.create_experiment(self.experiment, artifact_location=self._artifact_location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                    raise
        raise MachineError(f"the MLflow experiment {self.experiment!r} can neither be found nor created")

    @property
    def _artifact_location(self) -> str:
        """A path where one will do; a URI for one with signs that mean something in URIs."""
        return str(self.artifacts) if _is_plain(self.artifacts) else self.artifacts.as_uri()

    def _check_name(self) -> None:
        """Refuse a path that this SQLAlchemy would take for another one."""
        from sqlalchemy.engine import make_url

        if make_url(self.uri).database != str(self.database):
            raise UserError(
                f"MLflow cannot open {self.database} because of a ?, # or % in its path; set paths.mlruns elsewhere, "
                "or upgrade: pip install -U 'sqlalchemy>=2.1'"
            )

    def _check_database(self) -> None:
        """Fail soon and clearly: MLflow itself would try for minutes, or write into whatever database it finds."""
        if self.database.is_symlink() and not self.database.exists():
            raise MachineError(
                f"{self.database} is a link to {os.readlink(self.database)}, which does not exist; make that place "
                "available, or remove the link, or do without: tracking=none"
            )
        if not self.database.exists():
            return
        with closing(sqlite3.connect(self.database, timeout=self.lock_timeout)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            connection.rollback()
        if tables and not tables >= TABLES:
            raise UserError(
                f"{self.database} is a database of another program (its tables: {', '.join(sorted(tables)[:4])}); "
                "give a file of its own as tracking.database, or do without: tracking=none"
            )

    def _create_database(self) -> None:
        """Make the database beside its place and then link it there: whole, or not at all.

        MLflow takes seconds over a chain of migrations, and cannot go on with one that was interrupted. A link, unlike
        a renaming, does not replace what another process may have put there meanwhile.
        """
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        temporary = self.database.with_name(f".{self.database.name}.{os.getpid()}.partial")
        try:
            SqlAlchemyStore(_uri(temporary), self._artifact_location).engine.dispose()
            try:
                os.link(temporary, self.database)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(temporary, self.database)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Wait for the database no longer than told, and turn what MLflow and SQLite raise into one sentence."""
        try:
            self._check_database()
            yield
        except (MachineError, UserError):
            raise
        except Exception as error:
            link: BaseException | None = error
            while link is not None and not isinstance(link, sqlite3.Error):
                link = link.__cause__ or link.__context__
            if link is not None:
                raise MachineError(f"{self._trouble(str(link))}, or do without: tracking=none") from error
            if type(error).__name__ == "MlflowException":
                raise MachineError(self._refusal(str(error).strip())) from error
            raise

    def _refusal(self, message: str) -> str:
        schema = re.search(r"(?:found version|revision identified by) '?(\w+)", message)
        if not schema:
            return f"MLflow refused ({self.database}): {message.splitlines()[0]}"
        import mlflow

        known = Path(mlflow.__file__).parent.glob(f"store/db_migrations/versions/{schema[1]}_*.py")
        if any(known):
            upgrade = f"mlflow db upgrade {shlex.quote(self.uri)}"
            return f"the MLflow database {self.database} is older than MLflow {mlflow.__version__}; run: {upgrade}"
        return (
            f"the MLflow database {self.database} was made by a newer version than MLflow {mlflow.__version__}, which "
            "is installed; upgrade it (pip install -U mlflow), or set paths.mlruns elsewhere"
        )

    def _trouble(self, message: str) -> str:
        what = f"the MLflow database {self.database}"
        if "locked" in message:
            return f"{what} is locked by another program; close that program, or set tracking.lock_timeout higher"
        if any(sign in message for sign in ("malformed", "not a database", "no such", "already exists")):
            return f"{what} is damaged or no MLflow database ({message}); move it away, and a new one will be made"
        if "full" in message:
            return f"the disk is full: {what} cannot grow; free some space, or set paths.mlruns elsewhere"
        return f"{what} cannot be used ({message}); check who may write there, or set paths.mlruns elsewhere"


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
        with self._tracker.translated(), self._keeping(f"; all of it is kept in {path}"):
            self._client.log_artifacts(self.run_id, str(path), name)

    def image(self, pixels: np.ndarray, key: str, step: int) -> None:
        """See `Run.image`."""
        with self._tracker.translated(), self._keeping():
            self._client.log_image(self.run_id, pixels, key=key, step=step, synchronous=True)

    @contextmanager
    def _keeping(self, comfort: str = "") -> Iterator[None]:
        """Name the folder of artifacts if it cannot take a file: errors of copying name the source, or nothing."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            full = "the disk is full: " if os.strerror(errno.ENOSPC) in reason else ""
            why = "" if full else f" ({reason})"
            raise MachineError(
                f"{full}MLflow cannot keep files in {self._tracker.artifacts}{why}{comfort}; make room there, or set "
                "paths.mlruns elsewhere, or do without: tracking=none"
            ) from error


def _sweep_tags() -> dict[str, str]:
    """What ties a run to the sweep that this process belongs to, if it does."""
    tags = {"mlflow.parentRunId": os.environ.get(PARENT), "sweep.job": os.environ.get(JOB)}
    return {key: value for key, value in tags.items() if value}


def _local(setting: str, given: str) -> Path:
    """A path, absolute; MLflow's servers and other databases are addressed like `scheme://host`."""
    if not given or re.match(r"[A-Za-z][\w+.-]*:/", given):
        raise UserError(
            f"tracking.{setting} must be a path of this machine, got {given!r}; runs are recorded in a SQLite file, "
            "not on a server or in another database; give a path, or do without: tracking=none"
        )
    return Path(given).absolute()


def _is_plain(path: Path) -> bool:
    return not set("?#%") & set(str(path))


def _uri(database: Path) -> str:
    """MLflow's name for a database; the driver is named only for escaped paths, which MLflow would make folders of."""
    return f"sqlite:///{database}" if _is_plain(database) else f"sqlite+pysqlite:///{quote(str(database))}"


@cache
def _say_once(text: str) -> None:
    log.warning("%s", text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return str(os.getuid())
