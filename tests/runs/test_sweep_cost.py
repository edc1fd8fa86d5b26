"""What a sweep says of its cost before it starts."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from tiny import CONF, configuration

from adaptive_diffusion.baseline.picture_models import PlainModel
from adaptive_diffusion.cli.schemas import register
from adaptive_diffusion.runs.sweep_cost import cost, passes_per_evaluation
from adaptive_diffusion.runs.sweep_overrides import sweep_overrides


def test_a_sweep_whose_sweeper_has_no_combinations_has_no_estimate(monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_ROOT", str(tmp_path))
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("sample", ["hydra/sweeper=optuna"], return_hydra_config=True)
        with open_dict(config):
            config.hydra.overrides.task = ["num_steps=5,10"]
        assert [override.key_or_group for override in sweep_overrides(config)] == ["num_steps"]
        assert cost(config, "job").startswith("No estimate of the cost: the sweeper decides")


def test_every_number_of_images_of_a_sweep_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_ROOT", str(tmp_path))
    monkeypatch.setattr("adaptive_diffusion.runs.sweep_cost.evaluations_per_second", lambda *given: 0.25)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("sample", return_hydra_config=True)
        with open_dict(config):
            config.hydra.overrides.task = ["num_samples=4,6"]
        assert cost(config, "job").startswith("2 jobs of 4 or 6 images: ")
        assert " minutes at 4 s per evaluation as things are. " in cost(config, "job")
        assert cost(config, "cell", blocks=2).startswith("2 cells of 2 x 4 or 2 x 6 images: ")


@pytest.mark.parametrize(
    ("settings", "passes"), [((), 1), (("guidance=auto",), 2), (("guidance=auto", "guidance_scale=1"), 1)]
)
def test_a_model_without_classes_takes_two_passes_where_a_weaker_one_guides_it(settings, passes, tmp_path):
    model = PlainModel(lambda x, t, condition: x, (8, 8, 3), guidance_scale=2.0)
    assert passes_per_evaluation(configuration("sample", tmp_path, *settings), model) == passes
