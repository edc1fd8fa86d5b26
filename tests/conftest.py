"""What every test needs: a fast BLAS (the package brings it), no telemetry, no window, no downloads."""

from __future__ import annotations

import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import adaptive_diffusion  # noqa: F401
