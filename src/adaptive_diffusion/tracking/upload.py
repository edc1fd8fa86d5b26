"""Recording a run later that a server did not take."""

from __future__ import annotations

from pathlib import Path

from ..interruption import uninterrupted
from .mlflow import MlflowTracker
from .mlflow_run import NAME_LENGTH, MlflowRun
from .process import Process
from .record import Record, load_record

UNFINISHED = ("RUNNING", "SCHEDULED")


def upload(file: Path, uri: str | None, ended: bool = False) -> str | None:
    """Record a run, and remove the file that kept it; may be repeated after an error.

    Args:
        file: See `record.FILE`; the files of the run lie beside it.
        uri: Address of the server, or of a SQLite file; None: as it was.
        ended: Whether a process of another machine, which nobody sees here, is taken to have ended.

    Returns:
        Address of the run; None if its process may still work on it, where nothing was done.

    Raises:
        UnusableFile: if the file is damaged.
        UserError: for an address that cannot be used.
        MachineError: if the server does not answer, or refuses.
    """
    record, folder = load_record(file), file.parent
    owner = Process.of(record.tags)
    if record.status in UNFINISHED and owner is not None and (owner.lives() if ended else not owner.has_ended()):
        return None

    place = uri or record.server
    artifacts = Path(place.removeprefix("sqlite:///")).parent / "artifacts" if place.startswith("sqlite:") else folder
    tracker = MlflowTracker(str(file), str(artifacts), record.experiment, uri=place)

    with tracker.translated():
        run_id = _known(tracker, record)
        if run_id is None:
            made = tracker.client.create_run(
                tracker.experiment_id, start_time=record.started, run_name=record.name[:NAME_LENGTH], tags=record.tags
            )
            run_id = made.info.run_id

    # From here on, a repetition goes on with the same run.
    record.run_id = run_id
    record.save(folder)

    run = MlflowRun(tracker, run_id)
    run.params(record.params)
    run.tags(record.tags)
    run.measured(record.metrics)
    if record.inputs:
        run.inputs(*record.inputs)
    for path, name in record.folders:
        if (folder / path).exists():
            run.keep(folder / path, name)

    # A record that was never closed belongs to a process that was killed.
    status = "KILLED" if record.status in UNFINISHED else record.status
    with tracker.translated(), uninterrupted():
        tracker.client.set_terminated(run_id, status, end_time=record.ended)
        file.unlink()
    return tracker.page(run_id)


def _known(tracker: MlflowTracker, record: Record) -> str | None:
    """The run's id, if the server knows it."""
    from mlflow.exceptions import MlflowException

    if record.run_id is None:
        return None
    try:
        return str(tracker.client.get_run(record.run_id).info.run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
