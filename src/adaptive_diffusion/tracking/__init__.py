"""Records of runs: MLflow, the jobs of a sweep, and the provenance of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .mlflow import MlflowTracker
    from .mlflow_run import MlflowRun
    from .tracker import NoTracker

__all__ = ["MlflowRun", "MlflowTracker", "NoTracker"]

__getattr__, __dir__ = lazy(__name__, {"MlflowRun": "mlflow_run", "MlflowTracker": "mlflow", "NoTracker": "tracker"})
