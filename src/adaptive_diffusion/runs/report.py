"""`adaptive-diffusion report RUN...`: one HTML file about runs and sweeps, which needs nothing beside it.

RUN is the folder of a run or of a sweep (outputs/sample/..., outputs/sweeps/...), the id of an MLflow run, or the name
of an MLflow experiment. Without any, the latest sweep.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..errors import UnusableFile, UserError, sentence
from ..io.counted import count
from ..io.files import read_json, write_text
from ..program import command
from ..tracking.jobs import DONE, RESULT, Job, jobs_of
from ..tracking.mlflow import MlflowTracker, artifacts_of
from ..tracking.trouble import without_settings
from .report_page import page

log = logging.getLogger(__name__)


def main(argv: list[str]) -> None:
    """Find the runs, and write the page."""
    parser = argparse.ArgumentParser(prog=command("report"), description=__doc__)
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="folder, MLflow run id or experiment; default: the latest sweep"
    )
    parser.add_argument("--output", type=Path, default=Path("outputs/report.html"), help="HTML file to write")
    parser.add_argument("--mlruns", type=Path, default=Path("mlruns"), help="folder of mlflow.db")
    options = parser.parse_args(argv)

    if options.output.is_dir():
        raise UserError(f"--output {options.output} is a folder; give a file, e.g. {options.output / 'report.html'}")

    runs = options.runs or [_latest_sweep(Path("outputs/sweeps"))]
    jobs = [job for run in runs for job in found(run, options.mlruns / "mlflow.db")]
    jobs = [replace(job, number=number) for number, job in enumerate(jobs)]
    if not _have_drawn(jobs):
        own = [str(file) for run in runs if (file := Path(run) / "benchmark" / "summary.md").is_file()]
        hint = f"; the report of a benchmark is its own, {', '.join(own)}" if own else ""
        raise UserError(f"{', '.join(runs)}: no run there has drawn images and finished{hint}")
    write_text(options.output, page(" ".join(runs), jobs))
    print(f"{count(len(jobs), 'run')}: {options.output}")


def _have_drawn(jobs: Sequence[Job]) -> bool:
    """Whether any job is finished that is no training, which has a result alone."""
    return any(job.status in DONE and job.metrics.keys() - {RESULT} for job in jobs)


def found(run: str, database: Path) -> list[Job]:
    """The jobs of a folder, of an MLflow run or of an experiment.

    Args:
        run: As given on the command line.
        database: MLflow's, where `run` is not a folder.

    Raises:
        UserError: if there are none.
        UnusableFile: if the metrics.json of every run is damaged.
    """
    if not run.strip():
        raise UserError("a run's name is empty; give the folder of a run or of a sweep, or the id of an MLflow run")
    folder = Path(run)
    if not folder.is_dir():
        return _recorded(run, database)
    if (folder / "jobs").is_dir():
        return jobs_of(folder)
    folders = [file.parent for file in sorted(folder.rglob("metrics.json"))]
    if not folders:
        raise UserError(f"{run} is not the folder of a run or of a sweep: it has no metrics.json, and no jobs")
    return _of_folders(folders)


def _of_folders(folders: Sequence[Path]) -> list[Job]:
    """Runs that have finished, without those whose metrics.json is damaged, unless all are."""
    jobs, troubles = [], []
    for folder in folders:
        try:
            jobs.append(_of_folder(folder))
        except UnusableFile as error:
            troubles.append(error)

    last = None if jobs or not troubles else troubles.pop()
    for trouble in troubles:
        log.warning("left out of the report: %s", trouble)
    if last is not None:
        raise last
    return jobs


def _of_folder(folder: Path) -> Job:
    """A run that has finished, as the job of a sweep."""
    metrics, settings = read_json(folder / "metrics.json"), _settings_of(folder / ".hydra" / "overrides.yaml")
    return Job(number=0, settings=settings, status="FINISHED", metrics=metrics, folder=str(folder))


def _settings_of(file: Path) -> tuple[str, ...]:
    """A run's settings; () without the file, or, with a warning, if it is damaged."""
    try:
        return tuple(map(str, OmegaConf.to_object(OmegaConf.load(file))))  # type: ignore[arg-type]
    except FileNotFoundError:
        return ()
    except Exception as error:  # the numbers are worth more
        log.warning("left out: %s is damaged (%s)", file, sentence(error))
        return ()


def _recorded(run: str, database: Path) -> list[Job]:
    """The jobs of an MLflow run, of its children, or of an experiment, by the files that MLflow keeps."""
    if not database.is_file():
        raise UserError(
            f"there is no folder {run}, and no {database} that could know a run of this name; give --mlruns"
        )
    tracker = MlflowTracker(str(database), str(database.parent), run)
    with without_settings(), tracker.translated():
        experiment = tracker.client.get_experiment_by_name(run)
        runs = _search(tracker, [experiment.experiment_id]) if experiment else _with_children(tracker, run)
        if not runs:
            raise UserError(f"there is no folder {run}, and {database} knows no run or experiment of this name")
    folders = [Path(artifacts_of(each)) for each in runs]
    return _of_folders([folder for folder in folders if (folder / "metrics.json").is_file()])


def _with_children(tracker: MlflowTracker, run: str) -> list[Any]:
    if not run.isalnum():  # no id, and it may hold quotes
        return []
    experiments = [e.experiment_id for e in tracker.client.search_experiments()]
    return [
        *_search(tracker, experiments, f"attributes.run_id = '{run}'"),
        *_search(tracker, experiments, f"tags.mlflow.parentRunId = '{run}'", order_by=["start_time"]),
    ]


def _search(tracker: MlflowTracker, experiments: list[str], *given: Any, **settings: Any) -> list[Any]:
    """All runs that MLflow finds; it hands over a thousand at a time."""
    runs: list[Any] = []
    token = None
    while True:
        some = tracker.client.search_runs(experiments, *given, page_token=token, **settings)
        runs += some
        if not (token := some.token):
            return runs


def _latest_sweep(folder: Path) -> str:
    """The folder of the sweep that was begun last, of those that have drawn images."""
    for path in sorted(folder.glob("*/*/jobs"), reverse=True):
        if _have_drawn(jobs_of(path.parent)):
            return str(path.parent)
    raise UserError(
        f"there is no sweep in {folder} that has drawn images; name the folder of a run, or the id of an MLflow run"
    )
