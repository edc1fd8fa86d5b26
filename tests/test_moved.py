"""Old module names lead to the very modules that have the new ones."""

from __future__ import annotations

import importlib
import sys

import pytest
from hydra.utils import get_object, instantiate

from adaptive_diffusion.moved import MOVED

NAMES = {  # of version 0.1.0: module -> what its users import from it
    "": "DiffusionPipeline DDIMScheduler load_model",
    "baseline.pipeline": "DiffusionPipeline",
    "baseline.schedulers": "DDPMScheduler DDIMScheduler DPMSolverScheduler",
    "baseline.noise_schedule": "NoiseSchedule",
    "config": "register",
    "data": "load_pictures to_float resize",
    "files": "atomic_path read_json",
    "init_image": "read_picture",
    "metrics.captions": "plain_caption",
    "metrics.domain": "DomainDetector",
    "metrics.encoder": "load_builtin_encoder",
    "metrics.quality": "Measurement",
    "metrics.words": "WordVectors load_words",
    "models.checkpoint": "load_builtin_model load_model save_model",
    "models.diffusers": "load_pipeline",
    "optimization.domain_adapter": "DomainAdapter DomainType",
    "optimization.pipeline": "OptimizationPipeline",
    "rl.environment": "DiffusionHyperparameterEnv",
    "rl.ppo_agent": "HyperparameterTuningAgent",
    "rl.reward": "QualityReward SpeedReward HybridReward",
    "rng": "image_keys normal",
    "sampling.quality_guided": "QualityGuidedSampler",
    "sampling.starts": "NearNoise FromPicture",
    "sampling.step_reduction": "StepReductionSampler",
    "schedulers.adaptive": "AdaptiveScheduler",
    "schedulers.calibrated": "find_schedule find_grid",
    "schedulers.grids": "KarrasGrid LogSNRGrid PowerGrid",
    "schedulers.solvers": "UniPCScheduler IPNDMScheduler",
    "tracking": "MlflowTracker NoTracker",
}


@pytest.mark.filterwarnings("ignore:adaptive_diffusion:DeprecationWarning")
@pytest.mark.parametrize("module", NAMES)
def test_what_the_first_version_documented_can_be_imported(module):
    found = importlib.import_module(f"adaptive_diffusion.{module}".rstrip("."))
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_warns_and_gives_the_same_module(old, monkeypatch):
    monkeypatch.delitem(sys.modules, f"adaptive_diffusion.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=MOVED[old]):
        moved = importlib.import_module(f"adaptive_diffusion.{old}")
    new = importlib.import_module(f"adaptive_diffusion.{MOVED[old]}")
    assert moved is new
    assert new.__spec__.name == new.__name__ == f"adaptive_diffusion.{MOVED[old]}"


@pytest.mark.filterwarnings("ignore:adaptive_diffusion:DeprecationWarning")
def test_old_targets_of_configurations_still_build():
    from adaptive_diffusion.grids.spacings import KarrasGrid

    assert isinstance(instantiate({"_target_": "adaptive_diffusion.schedulers.grids.KarrasGrid"}), KarrasGrid)
    assert get_object("adaptive_diffusion.tracking.MlflowTracker").__name__ == "MlflowTracker"


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="datas"):
        importlib.import_module("adaptive_diffusion.datas")
