"""Runs with a model of the user's own: what it does wrong ends in a sentence, and never in a wrong image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import configuration

from adaptive_diffusion.baseline.picture_models import PlainModel
from adaptive_diffusion.runs.sample import sample


def network(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
    return 0.1 * x


def plain() -> PlainModel:
    return PlainModel(network, (8, 8, 3), "plain", prediction_type="epsilon")


def of_nan() -> PlainModel:
    return PlainModel(lambda x, t, c: x * math.nan, (8, 8, 3), "of nan", prediction_type="epsilon")


def draw(folder: Path, model: str, *overrides: str) -> Any:
    few = ("num_samples=1", "num_steps=2", "scheduler=ddim", "metrics=none", "tracking=none")
    return sample(configuration("sample", folder, f"model._target_=runs.test_own_models.{model}", *few, *overrides))


def test_predictions_of_nan_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="hold NaN or infinity"):
        draw(tmp_path, "of_nan")
    assert not (tmp_path / "run" / "pictures").exists()
