"""What every test needs: a fast BLAS (the package brings it), no telemetry, no window, no downloads."""

from __future__ import annotations

import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import functools

import pytest

import adaptive_diffusion  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def coarse_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was never trained is never solved well; 32 steps are enough for environments to compare with."""
    from adaptive_diffusion.sampling import converged

    coarse = functools.partial(converged.converged_pictures, most_steps=32)
    monkeypatch.setattr(converged, "FIRST_STEPS", 16)
    monkeypatch.setattr("adaptive_diffusion.rl.noises.converged_pictures", coarse)
