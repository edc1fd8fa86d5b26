"""MLflow: one run per job. The only module that imports mlflow, and late: it takes seconds.

Everything goes through `MlflowClient`, which has no hidden active run that one job could leave behind for the next.
"""

from __future__ import annotations

import getpass
import logging
import math
import os
import shlex
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .errors import MachineError, UserError

log = logging.getLogger(__name__)

PARENT = "ADAPTIVE_DIFFUSION_PARENT_RUN"  # environment variable: reaches the workers of every launcher
PARAM_LENGTH = 6000  # characters of a setting that MLflow keeps


class Run:
    """An open run that records nothing; what `NoTracker` opens.

    Attributes:
        page: Address of the run once the UI is open, or None.
    """

    page: str | None = None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; names may contain letters, digits and `_ - . space : /`."""

    def folder(self, path: str | Path) -> None:
        """Log every file below a folder as an artifact."""

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
        self.database, self.artifacts = Path(database).absolute(), Path(artifacts).absolute()
        self.experiment = experiment
        self.lock_timeout = lock_timeout
        self.ui_port = ui_port

    @property
    def uri(self) -> str:
        """MLflow's name for the database."""
        return f"sqlite:///{self.database}"

    def how_to_look(self) -> str:
        """The command that opens the UI: one worker and no job queue, which halves its memory and start-up time."""
        program = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(sys.executable)} -m mlflow"
        return (
            f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {program} ui --backend-store-uri {shlex.quote(self.uri)} "
            f"--workers 1 --port {self.ui_port}"
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
            run_id = self._reopen(resume, params) if resume else None
            run_id = run_id or self.create(name, {**tags, **_parent_tag()})
        run, status = MlflowRun(self, run_id), "FAILED"
        try:
            run.params(params)
            yield run
            status = "FINISHED"
        except BaseException as error:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            run.note("error", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.close(run_id, status)

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run and return its id."""
        source = {"mlflow.user": _user(), "mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
        run = self.client.create_run(self.experiment_id, run_name=name, tags={**source, **tags})
        return run.info.run_id

    def close(self, run_id: str, status: str) -> None:
        """End a run. If that fails while another error is under way, only a warning tells."""
        try:
            with self.translated():
                self.client.set_terminated(run_id, status)
        except MachineError as error:
            if status == "FINISHED":
                raise
            log.warning("the run could not be marked %s: %s", status, error)

    def finished(self, fingerprint: str) -> dict[str, float] | None:
        """See `Tracker.finished`."""
        condition = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'"
        with self.translated():
            found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        return dict(found[0].data.metrics) if found else None

    def children(self, run_id: str) -> list[Any]:
        """The runs of a sweep, oldest first."""
        return list(
            self.client.search_runs(
                [self.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'", order_by=["attributes.start_time"]
            )
        )

    def _reopen(self, tags: Mapping[str, str], params: Mapping[str, str]) -> str | None:
        """The latest unfinished run with these tags, set to RUNNING again; None if a setting has changed since."""
        condition = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
        condition += " and attributes.status != 'FINISHED'"
        found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        if not found or any(params.get(key, old)[:PARAM_LENGTH] != old for key, old in found[0].data.params.items()):
            return None
        self.client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id

    @cached_property
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the database, which is created if need be."""
        self._check_database()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        for name in ("mlflow", "mlflow.store.db", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors reach the user as one sentence instead
        if not self.database.exists():
            self._create_database()
        return MlflowClient(self.uri)

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
                return self.client.create_experiment(self.experiment, artifact_location=str(self.artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                    raise
        raise MachineError(f"the MLflow experiment {self.experiment!r} can neither be found nor created")

    def _check_database(self) -> None:
        """Fail soon and clearly: MLflow itself would try for minutes."""
        self.database.parent.mkdir(parents=True, exist_ok=True)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        if self.database.exists():
            with closing(sqlite3.connect(self.database, timeout=self.lock_timeout)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("SELECT count(*) FROM sqlite_master")
                connection.rollback()

    def _create_database(self) -> None:
        """Make the database beside its place and then link it there: whole, or not at all.

        MLflow takes seconds over a chain of migrations, and cannot go on with one that was interrupted. A link, unlike
        a renaming, does not replace what another process may have put there meanwhile.
        """
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        temporary = self.database.with_name(f".{self.database.name}.{os.getpid()}.partial")
        try:
            SqlAlchemyStore(f"sqlite:///{temporary}", str(self.artifacts)).engine.dispose()
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
        """Turn what MLflow and SQLite raise into one sentence."""
        try:
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
                sentence = str(error).strip().splitlines()[0]
                raise MachineError(f"MLflow refused ({self.database}): {sentence}") from error
            raise

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

    def folder(self, path: str | Path) -> None:
        """See `Run.folder`."""
        with self._tracker.translated():
            self._client.log_artifacts(self.run_id, str(path))

    def image(self, pixels: np.ndarray, key: str, step: int) -> None:
        """See `Run.image`."""
        with self._tracker.translated():
            self._client.log_image(self.run_id, pixels, key=key, step=step, synchronous=True)

    def note(self, key: str, value: str) -> None:
        """Tag the run; a failure to do so is not worth an error of its own."""
        try:
            self._client.set_tag(self.run_id, key, value[:5000])
        except Exception:
            log.debug("no tag %s", key, exc_info=True)


def _parent_tag() -> dict[str, str]:
    return {"mlflow.parentRunId": os.environ[PARENT]} if PARENT in os.environ else {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return str(os.getuid())
