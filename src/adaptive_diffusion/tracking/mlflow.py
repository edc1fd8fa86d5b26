"""MLflow: one run per job.

All calls use `MlflowClient`: MLflow's module-level functions have a hidden active run, which one job would leave behind
for the next.
"""

from __future__ import annotations

import getpass
import importlib.util
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from ..errors import MachineError, MissingPackage, UserError
from ..interruption import uninterrupted
from ..io.addresses import without_login
from ..io.locks import in_turn
from ..program import command
from .client import find_experiment, open_client
from .database import LOCK_TIMEOUT, Database
from .mlflow_run import NAME_LENGTH, TAG_LENGTH, MlflowRun, recordable
from .process import Process
from .record import Input, Record
from .server import Server, ServerError
from .tracker import Finished, Run, Tracker
from .ui import PORT
from .unfinished import close_orphans, reopen

log = logging.getLogger(__name__)

PARENT = "ADAPTIVE_DIFFUSION_PARENT_RUN"  # environment variable, which reaches the workers of every launcher
ADDRESS = re.compile(r"https?://[^/]|sqlite:///")  # how the address of a server, or of a SQLite file, begins
INTERVAL = 5.0  # seconds between two system metrics
JOB = "ADAPTIVE_DIFFUSION_JOB"  # environment variable: the number of this process's job in its sweep
BEST_FIRST = (  # by which of these the runs of a sweep are sorted, the smallest first
    *("quality/perceptual_encoder", "quality/lpips", "quality/fid", "quality/fd_encoder"),
    *("validation/loss", "time/seconds_per_image"),
)


class MlflowTracker(Tracker):
    """Records runs in one SQLite file, or on a server.

    Every run names its process. The first use marks runs as KILLED whose processes ended unnoticed.

    Args:
        database: The SQLite file; created with its folders on first use.
        artifacts: Folder of images, plots and configurations.
        experiment: MLflow experiment that the runs belong to.
        lock_timeout: Seconds to wait for a database that another program has locked, > 0.
        ui_port: Port in the command that opens the UI.
        uri: Address of a server, `http://...`, or of another SQLite file, `sqlite:///FILE`; None or "": `database`.
        system_metrics: Whether use of CPU, memory, disk and network is recorded too.

    Raises:
        UserError: for a value out of range.
        MissingPackage: for system metrics without psutil.
    """

    def __init__(
        self,
        database: str,
        artifacts: str,
        experiment: str,
        lock_timeout: float = LOCK_TIMEOUT,
        ui_port: int = PORT,
        uri: str | None = None,
        system_metrics: bool = False,
    ):
        if not 0 < lock_timeout < math.inf:
            raise UserError(f"tracking.lock_timeout must be a positive number of seconds, got {lock_timeout}")
        if not 0 < ui_port < 65536:
            raise UserError(f"tracking.ui_port must lie in 1..65535, got {ui_port}")

        if not experiment.strip():
            raise UserError("tracking.experiment is empty; give a name, or leave it out")

        if system_metrics and importlib.util.find_spec("psutil") is None:
            raise MissingPackage("tracking.system_metrics=true needs psutil: pip install psutil")

        if uri and uri.startswith("sqlite:///"):
            database = uri.removeprefix("sqlite:///")
        elif uri and not ADDRESS.match(uri):
            raise UserError(
                f"tracking.uri must begin with http://, https:// or sqlite:///, got {without_login(uri)!r}; "
                "tracking.uri=null records in paths.mlruns, whatever MLFLOW_TRACKING_URI says"
            )
        self.database, self.artifacts = _local("database", database), _local("artifacts", artifacts)
        on_server = uri and not uri.startswith("sqlite:")
        self._store = Server(str(uri)) if on_server else Database(self.database, self.artifacts, lock_timeout)
        self.experiment, self.ui_port, self.system_metrics = experiment, ui_port, system_metrics

    def how_to_look(self) -> str | None:
        """The command that opens the UI; None for a server."""
        if isinstance(self._store, Server):
            return None
        port = [] if self.ui_port == PORT else ["--port", str(self.ui_port)]
        return f"{command('ui')} {shlex.join([str(self.database), *port])}"

    def page(self, run_id: str = "") -> str:
        """Address in the UI of a run, or of all runs of the experiment; the default pages would be about LLMs."""
        place = self._store.name if isinstance(self._store, Server) else f"http://127.0.0.1:{self.ui_port}"
        address = f"{place}/#/experiments/{self.experiment_id}/runs/{run_id}"
        return f"{address.rstrip('/')}?workflowType=machine_learning"

    def comparison(self, run_id: str) -> str:
        """Address in the UI of the charts of a sweep's runs, the best first.

        Sorting by a metric is what makes MLflow show the children of a run beside each other.
        """
        measured = {name for child in self.children(run_id) for name in child.data.metrics}
        by = next((name for name in BEST_FIRST if name in measured), next(iter(sorted(measured)), None))
        if by is None:
            return self.page(run_id)

        wanted = quote(f"tags.mlflow.parentRunId = '{run_id}'"), quote(f"metrics.`{by}`")
        view = "orderByAsc=true&compareRunsMode=CHART"
        return f"{self.page()}&searchFilter={wanted[0]}&orderByKey={wanted[1]}&{view}"

    @contextmanager
    def open(
        self,
        name: str,
        *,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        resume: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
    ) -> Iterator[Run]:
        """See `Tracker.open`. Within a sweep the run becomes a child of the sweep's run."""
        everything, params = {**_source(), **Process.this().tags, **tags, **_sweep_tags()}, recordable(params)
        record = self._record(name, params=params, tags=everything)
        run = MlflowRun(self, None, record, None if folder is None else Path(folder))
        status, note = "FINISHED", None
        self._reach(run)
        try:
            with uninterrupted():
                run.begin(lambda: self._begin(name, params, everything, resume))

            run.params(params)
            with self._watched(run):
                yield run
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            note = f"{type(error).__name__}: {error}"
            raise
        finally:
            with uninterrupted():
                run.end(status, note)

    def _reach(self, run: MlflowRun) -> None:
        """Find the experiment, which takes seconds at first and may be interrupted.

        A server that does not answer is an error, since its address may be mistyped; not so in a sweep, for which it
        answered at the beginning.
        """
        try:
            with self.translated():
                _ = self.experiment_id
        except ServerError as error:
            if not _sweep_tags():
                raise
            run.lose(error)

    @contextmanager
    def _watched(self, run: MlflowRun) -> Iterator[None]:
        """Record what the machine does during the block, if that is wanted."""
        if not self.system_metrics or run.run_id is None:
            yield
            return

        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(
            run.run_id, sampling_interval=INTERVAL, resume_logging=True, tracking_uri=self._store.uri
        )
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def translated(self) -> AbstractContextManager[None]:
        """See `Database.translated` and `Server.translated`."""
        return self._store.translated()

    def parent(self, run_id: str, name: str, folder: str | Path) -> MlflowRun:
        """The run of a sweep, which `create` made; what a server does not take of it is kept in the sweep's folder."""
        return MlflowRun(self, run_id, self._record(name, run_id=run_id), Path(folder))

    def _record(self, name: str, **more: Any) -> Record:
        server = self._store.name if isinstance(self._store, Server) else ""
        return Record(server=server, experiment=self.experiment, name=name, **more)

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a run of this process and return its id."""
        own = {**_source(), **Process.this().tags, **tags}
        with self.translated():
            run = self.client.create_run(self.experiment_id, run_name=name[:NAME_LENGTH], tags=own)
        return run.info.run_id

    def failed(self, name: str, params: Mapping[str, str], error: str) -> None:
        """Record a job that was refused before it opened a run; in a sweep, as a child of the sweep's run."""
        with uninterrupted():
            run_id = self.create(name, _sweep_tags())
            try:
                MlflowRun(self, run_id).params(recordable(params))
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
            if status == "FINISHED" or isinstance(trouble, ServerError):
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
        places = (artifacts_of(run), run.data.tags.get("folder", ""))
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
            known = reopen(self.client, self.experiment_id, resume, params, tags) if resume else None
        return known or self.create(name, tags)

    @cached_property
    def client(self) -> Any:
        """An `mlflow.MlflowClient` on the server, or on the database, which is created if there is none."""
        client = open_client(self._store)
        # of a server that others use too, only the runs of this experiment
        ours = [client.get_experiment_by_name(self.experiment)] if isinstance(self._store, Server) else None
        close_orphans(client, ours or client.search_experiments())
        return client

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment, which is created if there is none."""
        return find_experiment(self.client, self.experiment, self._store.artifact_location)

    def model_id(self, model: Input) -> str:
        """Id of a model among MLflow's models; it is noted there if nobody did before."""
        from mlflow.entities import LoggedModelStatus

        known = self.client.search_logged_models([self.experiment_id], f"tags.sha256 = '{model.digest}'", max_results=1)
        if known:
            return str(known[0].model_id)

        tags = {"sha256": model.digest, "source": model.source}
        made = self.client.create_logged_model(self.experiment_id, model.name, tags=tags)
        self.client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        return str(made.model_id)


def artifacts_of(run: Any) -> str:
    """The folder of a run's files, where that is one of this machine, which need not exist; else their address."""
    place = str(run.info.artifact_uri)
    return url2pathname(urlsplit(place).path) if place.startswith("file:") else place


def _sweep_tags() -> dict[str, str]:
    """The tags of a run in the sweep of this process; {} outside a sweep."""
    tags = {"mlflow.parentRunId": os.environ.get(PARENT), "sweep.job": os.environ.get(JOB)}
    return {key: value for key, value in tags.items() if value}


def _local(setting: str, given: str) -> Path:
    """An absolute path; addresses such as `scheme://host`, of MLflow's servers and other databases, are refused."""
    if not given or re.match(r"[A-Za-z][\w+.-]*:/", given):
        raise UserError(
            f"tracking.{setting} must be a path of this machine, got {given!r}; give a path, the address of a server "
            "as tracking.uri, or do without: tracking=none"
        )
    return Path(given).absolute()


def _source() -> dict[str, str]:
    """The tags by which MLflow shows who ran what."""
    return {"mlflow.user": _user(), "mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # this user id has no name, as in some containers
        return str(os.getuid())
