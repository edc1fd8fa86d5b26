"""Without Gymnasium, Stable-Baselines3 and PyTorch everything works but PPO, which says what to install."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from program import Program
from rl.policy_files import random_policy
from tiny import ROOT

from adaptive_diffusion.models.checkpoint import load_model
from adaptive_diffusion.program import pip_install
from adaptive_diffusion.rl.drawing import drawing_in
from adaptive_diffusion.rl.timestep_environment import TimestepEnv

RL = ("gymnasium", "stable_baselines3", "torch")
SMALL = ("domain=general", "tracking=none", "task.episodes=2", "task.pictures=2", "task.batches=1")


@pytest.fixture(autouse=True)
def without_rl(tmp_path_factory, monkeypatch):
    """Programs that are started find none of the packages."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({RL})\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))


@pytest.fixture
def train(tmp_path):
    """`train.py` with a tiny model."""
    program = Program(tmp_path, "task.model.path=", script=ROOT / "train.py")
    *paths, _, model, _ = program.settings
    program.settings = [*paths, "model@task.model=checkpoint", f"task.{model}"]
    return program


def python(code: str) -> str:
    """What a program writes."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_every_module_can_be_imported_but_those_of_ppo_and_diffusers():
    code = """
import importlib, pkgutil, adaptive_diffusion
for module in pkgutil.walk_packages(adaptive_diffusion.__path__, "adaptive_diffusion."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name.rpartition(".")[2], error.name)
"""
    assert python(code).split("\n")[:-1] == ["calibrated_scheduler torch", "vector stable_baselines3.common"]


def test_pictures_are_drawn_by_schedules_and_by_a_learned_policy(tmp_path):
    program = Program(tmp_path, "num_samples=2", "metrics=none", "tracking=none", "domain=portraits")
    drawing = drawing_in(load_model(tmp_path / "tiny.safetensors"), "portraits", 1.5)
    policy = random_policy(tmp_path / "policy.zip", TimestepEnv(drawing, num_steps=4, pictures=2, batches=1))
    for settings in (["scheduler=adaptive", "num_steps=2"], ["scheduler=learned", f"scheduler.path={policy}"]):
        code, _, err = program.run(*settings)
        assert code == 0, err
    assert len(list((tmp_path / "outputs").rglob("*.png"))) >= 4


def test_the_agents_that_search_are_trained(train, tmp_path):
    code, _, err = train.run("-m", "agent=cem,random,fixed", *SMALL, "task.verification_batches=1", "task.max_steps=10")
    assert code == 0, err
    assert len(list((tmp_path / "outputs").rglob("tuned.json"))) == 3


@pytest.mark.parametrize("task", [["task=agent"], ["task=policy", "task.num_steps=4"]], ids=["agent", "policy"])
def test_ppo_says_what_to_install_before_anything_is_drawn(train, tmp_path, task):
    code, _, err = train.run(*task, "agent=ppo", *SMALL)
    assert (code, err.count("\n")) == (2, 1), err
    assert pip_install("rl") in err
    assert not (tmp_path / "outputs" / "converged").exists()


def test_environments_are_played_as_with_gymnasium():
    code = """
import numpy as np
from adaptive_diffusion.rl import DiffusionHyperparameterEnv, TimestepEnv
from tiny import tiny_model
for kind, settings in ((DiffusionHyperparameterEnv, {"max_steps": 10}), (TimestepEnv, {"num_steps": 4})):
    env = kind(tiny_model(), "abstract", pictures=2, batches=2, **settings)
    seen, _ = env.reset(seed=3)
    env.reset()
    played = env.step(0.5 * env.action_space.high)
    print(seen.round(5).tolist(), np.round(played[0], 5).tolist(), round(played[1], 5), env.action_space.shape)
"""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n{code}"
    assert python(code) == python(f"import sys\nfor name in {RL}: sys.modules.pop(name)\n{code}")
