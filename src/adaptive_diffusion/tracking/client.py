"""How MLflow is opened: imported late, since its import takes seconds, in silence and without reports of its usage."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from ..errors import MachineError, UserError
from ..imports import without_garbage_collection
from .database import Database
from .server import Server


def open_client(store: Database | Server) -> Any:
    """An `mlflow.MlflowClient` on a server, or on a database, which is created if there is none."""
    store.prepare()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if "mlflow" not in sys.modules:
        with without_garbage_collection():
            import mlflow

            if isinstance(store, Database):
                import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    from mlflow import MlflowClient

    for name in ("mlflow", "mlflow.store.db", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors reach the user as one sentence instead

    store.create()
    return MlflowClient(store.uri)


def find_experiment(client: Any, name: str, artifact_location: str | None) -> str:
    """Id of an experiment, which is created if there is none.

    Args:
        client: An `mlflow.MlflowClient`.
        name: Of the experiment.
        artifact_location: Where the files of its runs go, if it is created; None: the server decides.

    Raises:
        UserError: if the experiment was deleted.
        MachineError: if it can neither be found nor created.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(2):  # twice, as another process may create it in between
        if experiment := client.get_experiment_by_name(name):
            if experiment.lifecycle_stage != "active":
                raise UserError(
                    f"the MLflow experiment {name!r} was deleted; give another name as tracking.experiment, or restore "
                    "it with: mlflow experiments restore"
                )
            return str(experiment.experiment_id)

        try:
            return str(client.create_experiment(name, artifact_location=artifact_location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was quicker
                raise

    raise MachineError(f"the MLflow experiment {name!r} can neither be found nor created")
