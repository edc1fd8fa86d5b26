"""Runs of MLflow that did not end: those to go on with, and those whose process is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .mlflow_run import PARAM_LENGTH
from .process import Process


def reopen(
    client: Any, experiment_id: str, tags: Mapping[str, str], params: Mapping[str, str], new_tags: Mapping[str, str]
) -> str | None:
    """Resume the latest unfinished run with some tags.

    Args:
        client: An `mlflow.MlflowClient`.
        experiment_id: Of the experiment to look in.
        tags: What the run has.
        params: The settings that it must have been begun with.
        new_tags: What it gets, its new process among them; the error that ended it is forgotten.

    Returns:
        Its id; None if there is none, its settings differ, or its process still lives.
    """
    condition = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
    condition += " and attributes.status != 'FINISHED'"

    found = client.search_runs([experiment_id], condition, max_results=1)
    if not found or any(params.get(key, old)[:PARAM_LENGTH] != old for key, old in found[0].data.params.items()):
        return None

    # a run whose process still works is left to it
    run_id, owner = found[0].info.run_id, Process.of(found[0].data.tags)
    if found[0].info.status == "RUNNING" and owner is not None and owner.lives() and owner != Process.this():
        return None

    # the new owner comes before the new status, so that nobody takes the run for an orphan
    for key, value in new_tags.items():
        client.set_tag(run_id, key, value)

    if "error" in found[0].data.tags:
        client.delete_tag(run_id, "error")
    client.update_run(run_id, status="RUNNING")
    return str(run_id)


def close_orphans(client: Any, experiments: Iterable[Any]) -> None:
    """Mark runs as KILLED whose processes ended without closing them, as after SIGKILL."""
    ids = [experiment.experiment_id for experiment in experiments if experiment is not None]
    for run in client.search_runs(ids, "attributes.status = 'RUNNING'") if ids else []:
        run = client.get_run(run.info.run_id)  # read again: another process may have resumed it
        owner = Process.of(run.data.tags)

        if owner is not None and owner.has_ended() and run.info.status == "RUNNING":
            client.set_tag(run.info.run_id, "error", f"process {owner.pid} ended without closing this run")
            client.set_terminated(run.info.run_id, "KILLED")
