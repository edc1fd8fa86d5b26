"""One parent MLflow run per multirun, which closes itself however the sweep ends."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from pathlib import Path
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig

from .arguments import as_given
from .cli import explain, say
from .errors import MachineError
from .tracking import PARENT, MlflowTracker

log = logging.getLogger(__name__)


class SweepReport(Protocol):
    """What a sweep says before its first job, and makes of the results after its last."""

    def begin(self, config: DictConfig) -> None:
        """Called with the sweep's configuration before anything runs; an exception ends the sweep."""
        ...

    def end(self, config: DictConfig) -> Path | None:
        """Called when the sweep ends, however it ends; the folder with what was made, or None."""
        ...


class SweepRun(Callback):
    """One parent run per multirun, configured as a Hydra callback.

    Hydra does not call `on_multirun_end` when a job failed, so the parent is closed at exit at the latest. A parent
    without children (every job was refused or skipped) and without a report is removed.

    Args:
        report: Takes the place of the table of runs at the end; None: the table.
    """

    _tracker: MlflowTracker | None = None
    _config: DictConfig | None = None

    def __init__(self, report: SweepReport | None = None):
        self._report = report

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the database, once and before any worker does, and the parent run; if that fails, exit."""
        HydraConfig.instance().set_config(config)  # the callback comes before Hydra does it; names refer to it
        try:
            tracker = instantiate(config.tracking)
            if self._report is not None:
                self._report.begin(config)
                self._config = config
                atexit.register(self._close, "FAILED")
            if not isinstance(tracker, MlflowTracker):
                return
            with tracker.translated():
                self._run_id = tracker.create(
                    "sweep " + " ".join(as_given(config.hydra.overrides.task)), {"kind": "sweep"}
                )
        except Exception as error:  # Hydra would turn it into a warning, and let every job fail in turn
            sentence, code = explain(error)
            print(sentence, file=sys.stderr, flush=True)
            raise SystemExit(code) from error
        self._tracker = tracker
        os.environ[PARENT] = self._run_id
        atexit.register(self._close, "FAILED")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs succeeded."""
        self._close("FINISHED")

    def _close(self, status: str) -> None:
        tracker, self._tracker = self._tracker, None
        os.environ.pop(PARENT, None)
        folder = self._end_report()
        if tracker is None:
            return
        try:
            with tracker.translated():
                children = tracker.children(self._run_id)
                if folder is not None:
                    tracker.client.log_artifacts(self._run_id, str(folder), folder.name)
                elif not children:
                    tracker.client.set_terminated(self._run_id, status)
                    tracker.client.delete_run(self._run_id)
                    return
        except MachineError as error:
            log.warning("%s", error)
            children = []
        if any(child.info.status == "KILLED" for child in children):
            status = "KILLED"
        tracker.close(self._run_id, status)
        if folder is None:
            say(sweep_table(children))
        say(f"\n{'look':<11}{tracker.how_to_look()}\n{'':<11}{tracker.page(self._run_id)}")

    def _end_report(self) -> Path | None:
        config, self._config = self._config, None
        if self._report is None or config is None:
            return None
        try:
            return self._report.end(config)
        except Exception as error:
            log.warning("the sweep's report could not be made: %s", explain(error)[0])
            return None


def sweep_table(runs: list[Any]) -> str:
    """The runs of a sweep side by side, as text."""
    columns = {"seconds/picture": "time/per_picture_s", "evaluations/picture": "sampling/evaluations_per_picture"}
    rows = [["run", "status", *columns]]
    for run in runs:
        values = [run.data.metrics.get(key) for key in columns.values()]
        rows.append([run.info.run_name, run.info.status, *("" if v is None else f"{v:.4g}" for v in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
