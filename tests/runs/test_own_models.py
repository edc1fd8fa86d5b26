"""Runs with a model of the user's own: what it does wrong ends in a sentence, and never in a wrong image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from omegaconf import OmegaConf
from tiny import configuration

from adaptive_diffusion.baseline.picture_models import PlainModel
from adaptive_diffusion.errors import Unusable, UserError
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.sampling.starts import set_timesteps
from adaptive_diffusion.schedulers.classes import DDIMScheduler


def network(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
    return 0.1 * x


def plain() -> PlainModel:
    return PlainModel(network, (8, 8, 3), "plain", prediction_type="epsilon")


def of_nan() -> PlainModel:
    return PlainModel(lambda x, t, c: x * math.nan, (8, 8, 3), "of nan", prediction_type="epsilon")


def asking() -> PlainModel:
    return PlainModel(network, (8, 8, 3), "asking", prediction_type="epsilon", guidance_scale=2.0)


def of_shapes() -> PlainModel:
    model = plain()
    model.domains = {"shapes": ()}
    return model


def nothing() -> None:
    pass


def draw(folder: Path, model: str, *overrides: str) -> Any:
    few = ("num_samples=1", "num_steps=2", "scheduler=ddim", "metrics=none", "tracking=none")
    return sample(configuration("sample", folder, f"model._target_=runs.test_own_models.{model}", *few, *overrides))


def test_predictions_of_nan_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="hold NaN or infinity"):
        draw(tmp_path, "of_nan")
    assert not (tmp_path / "run" / "pictures").exists()


def test_a_label_of_a_model_that_is_told_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label=round was given, but the model was trained without classes"):
        draw(tmp_path, "plain", "label=round")
    draw(tmp_path, "plain", "label=none")


@pytest.mark.parametrize("guidance", ["guidance=constant", "guidance=interval", "guidance=default"])
def test_guidance_of_a_model_that_is_told_nothing_has_no_effect_and_says_so(
    guidance: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path, "plain")
    draw(tmp_path, "asking")
    assert "has no effect" not in caplog.text  # nobody but the model asked for guidance
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").guidance_scale == 1
    draw(tmp_path, "plain", guidance, "guidance_scale=4")
    assert "has no effect: the model is told nothing that guidance could weigh" in caplog.text
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").guidance_scale == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["sampling/passes"] == 2


class Metric:
    converged = False

    def __init__(self, gives: Any):
        self.gives = gives

    def measure(self, images: np.ndarray, **about: Any) -> Any:
        return self.gives


def test_a_factory_that_makes_nothing_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="makes a NoneType, which is no model"):
        draw(tmp_path, "nothing")


@pytest.mark.parametrize("gives", ["null", "3.0", "[1.0,2.0]"])
def test_a_metric_that_returns_no_measurements_gets_a_sentence_and_costs_the_measures_alone(
    gives: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path, "of_shapes", "metrics._target_=runs.test_own_models.Metric", f"+metrics.gives={gives}")
    assert "the quality could not be measured: measure of Metric must return a list of Measurement" in caplog.text
    assert "sampling/nfe" in json.loads((tmp_path / "run" / "metrics.json").read_text())


@pytest.mark.parametrize("timesteps", [np.linspace(999, 0, 3), None])
def test_a_grid_that_gives_another_number_of_timesteps_is_refused(timesteps: Any) -> None:
    scheduler = DDIMScheduler()
    with pytest.raises(Unusable, match="the grid must give 2 timesteps, as many as there are steps, got"):
        set_timesteps(scheduler, lambda process, n: timesteps, scheduler.schedule, 2)
