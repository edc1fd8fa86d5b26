"""MLflow, and where a result comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .mlflow import MlflowRun, MlflowTracker, NoTracker

__all__ = ["MlflowRun", "MlflowTracker", "NoTracker"]

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(__all__, "mlflow"))
