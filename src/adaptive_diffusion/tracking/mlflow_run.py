"""An open run of MLflow. What a server does not take is kept in a file, and drawing goes on."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import MachineError
from ..program import command
from .record import FILE, Input, Record, now
from .server import ServerError
from .tracker import Run

if TYPE_CHECKING:
    from .mlflow import MlflowTracker

log = logging.getLogger(__name__)

T = TypeVar("T")

PARAM_LENGTH = 6000  # characters of a setting that MLflow keeps
TAG_LENGTH = 5000
NAME_LENGTH = 250  # of a run, which databases other than SQLite refuse to exceed
DIGEST_LENGTH = 36  # characters of a dataset's hash that MLflow keeps
PER_CALL = 100  # MLflow's limit of parameters; that of metrics is higher


def recordable(values: Mapping[str, T]) -> dict[str, T]:
    """Settings or metrics with names that MLflow takes: `black & white/rmse` -> `black _ white/rmse`."""
    return {re.sub(r"[^/\w.\- :]", "_", name): value for name, value in values.items()}


class MlflowRun(Run):
    """An open run of an `MlflowTracker`.

    Args:
        tracker: Where it is recorded.
        run_id: Its id; None: it is not known there yet.
        record: All that it recorded; None: a server's refusal is an error.
        kept: Folder for the record, if a server does not take it.
    """

    def __init__(
        self, tracker: MlflowTracker, run_id: str | None, record: Record | None = None, kept: Path | None = None
    ):
        self._tracker, self.run_id = tracker, run_id
        self._record, self._kept = record, kept
        self.lost = False  # whether a server has refused something

    @property
    def page(self) -> str | None:  # type: ignore[override]
        """Address of the run in the UI; None if it is not recorded."""
        return None if self.lost or self.run_id is None else self._tracker.page(self.run_id)

    def begin(self, begin: Callable[[], str]) -> None:
        """Make the run known."""

        def call() -> None:
            self.run_id = begin()
            if self._record is not None:
                self._record.run_id = self.run_id

        self._send(call)

    def end(self, status: str, error: str | None) -> None:
        """Close the run, with the error that ended it."""
        if self._record is not None:
            self._record.status, self._record.ended = status, now()
            self._record.tags |= {} if error is None else {"error": error[:TAG_LENGTH]}

        if self.run_id is not None and not self.lost:
            self._send(lambda: self._tracker.close(str(self.run_id), status, error))
        if self.lost:
            self._save()

    def lose(self, error: ServerError) -> None:
        """Go on without the server, which is said once."""
        self.lost = True
        if self._kept is None:
            log.warning("%s; this run is no longer recorded", error)
            return
        later = f"{command('upload')} {shlex.quote(str(self._kept))}"
        log.warning(
            "%s; the run goes on, its files stay in %s, and this records it later: %s", error, self._kept, later
        )
        self._save()

    def params(self, values: Mapping[str, str]) -> None:
        """Log settings."""
        from mlflow.entities import Param

        items = [Param(key, value[:PARAM_LENGTH]) for key, value in values.items()]
        for start in range(0, len(items), PER_CALL):
            some = items[start : start + PER_CALL]
            self._send(lambda some=some: self._client.log_batch(self.run_id, params=some))  # type: ignore[misc]

    def tags(self, values: Mapping[str, str]) -> None:
        """See `Run.tags`."""
        from mlflow.entities import RunTag

        if self._record is not None:
            self._record.tags |= values
        items = [RunTag(key, value[:TAG_LENGTH]) for key, value in values.items()]
        self._send(lambda: self._client.log_batch(self.run_id, tags=items))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """See `Run.metrics`. Infinities are left out: MLflow would store the largest float instead."""
        named = recordable(values).items()
        finite = [(name, float(value), now(), step) for name, value in named if math.isfinite(value)]
        if self._record is not None:
            self._record.metrics += finite
        self.measured(finite)

    def measured(self, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Log (name, value, milliseconds since 1970, step) of numbers; the same point twice is one."""
        from mlflow.entities import Metric

        items = [Metric(*point) for point in points]
        for start in range(0, len(items), PER_CALL):
            some = items[start : start + PER_CALL]
            self._send(lambda some=some: self._client.log_batch(self.run_id, metrics=some))  # type: ignore[misc]

    def inputs(self, *inputs: Input) -> None:
        """See `Run.inputs`."""
        if self._record is not None:
            self._record.inputs += inputs
        self._send(lambda: self._log_inputs(inputs))

    def keep(self, path: str | Path, name: str | None = None) -> None:
        """See `Run.keep`."""
        if self._record is not None and self._kept is not None:
            self._record.folders.append((os.path.relpath(path, self._kept), name))
        with self._copying(f"; all of it is kept in {path}"):
            self._send(lambda: self._log_files(Path(path), name))

    def image(self, pixels: np.ndarray, key: str, step: int) -> None:
        """See `Run.image`."""
        with self._copying():
            self._send(lambda: self._client.log_image(self.run_id, pixels, key=key, step=step, synchronous=True))

    @property
    def _client(self) -> Any:
        return self._tracker.client

    def _send(self, call: Callable[[], None]) -> None:
        """Record something in MLflow, unless its server was lost before."""
        if self.lost:
            return
        try:
            with self._tracker.translated():
                call()
        except ServerError as error:
            if self._record is None:
                raise
            self.lose(error)

    def _save(self) -> None:
        if self._record is not None and self._kept is not None:
            self._record.save(self._kept)

    def _log_files(self, path: Path, name: str | None) -> None:
        """Log a file, or a folder without the record that may lie in it."""
        if path.is_file():
            self._client.log_artifact(self.run_id, str(path), name)
            return
        if not (path / FILE).exists():
            self._client.log_artifacts(self.run_id, str(path), name)
            return
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != FILE:
                within = Path(name or "") / file.relative_to(path).parent
                self._client.log_artifact(self.run_id, str(file), None if within == Path() else within.as_posix())

    def _log_inputs(self, inputs: Sequence[Input]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

        datasets = [
            DatasetInput(
                Dataset(given.name, given.digest[:DIGEST_LENGTH], "local", given.source),
                [InputTag("mlflow.data.context", given.context)],
            )
            for given in inputs
            if given.kind == "dataset"
        ]
        models = [LoggedModelInput(self._tracker.model_id(given)) for given in inputs if given.kind == "model"]
        self._client.log_inputs(self.run_id, datasets, models)

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
