"""The command that a training prints draws with the model that was trained for."""

from __future__ import annotations

import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra.conf import ConfigSourceInfo
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict, read_write
from tiny import CONF, ROOT

from adaptive_diffusion.cli.arguments import for_hydra
from adaptive_diffusion.cli.schemas import register
from adaptive_diffusion.errors import Unusable, UserError
from adaptive_diffusion.runs.settings_text import (
    advice_for_this_model,
    domain_settings,
    draw_command,
    resolved_settings,
    setting,
)


@pytest.fixture
def hydra_job(monkeypatch):
    """Lets this process be a job of train.py."""
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_ROOT", str(ROOT))
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    register()

    def begin(*overrides: str, root: str = "train") -> None:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            HydraConfig.instance().set_config(compose(root, overrides=list(overrides), return_hydra_config=True))

    return begin


def test_outside_a_job_only_what_is_given_is_said():
    assert draw_command("scheduler=tuned", "domain=general") == "python sample.py scheduler=tuned domain=general"


def test_another_model_and_guidance_are_said_as_sample_takes_them(hydra_job, tmp_path):
    folder = tmp_path / "a model"
    hydra_job("task=schedule", "model@task.model=diffusers", f"task.model.path={folder}", "task.guidance_scale=3")
    said = shlex.split(draw_command("scheduler=adaptive", "num_steps=5"))
    assert said[:4] == ["python", "sample.py", "scheduler=adaptive", "num_steps=5"]
    assert said[4:] == ["model=diffusers", f"model.path={folder}", "guidance_scale=3"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("sample", overrides=said[2:]).model.path == str(folder)


def test_a_text_that_looks_like_a_reference_is_said_as_sample_reads_it_back(hydra_job):
    (text,) = for_hydra(["task.model.negative_prompt=a ${x}"])
    hydra_job("task=schedule", "model@task.model=diffusers", "task.model.path=m", text)
    said = for_hydra(shlex.split(draw_command())[2:])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("sample", overrides=said).model.negative_prompt == "a ${x}"


@pytest.mark.parametrize("prompt", ["a ${x}", r"a \${x}", r"it's \\\${x} \\"])
def test_resolved_settings_name_values_and_are_read_back_as_they_were_meant(prompt, hydra_job):
    hydra_job(*for_hydra([f"prompt={prompt}", "seed=4", "batch_size=${seed}"]), root="sample")
    assert (settings := resolved_settings())[1:] == ["seed=4", "batch_size=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("sample", overrides=settings).prompt == prompt


def test_advice_to_train_names_the_model_that_draws(hydra_job):
    advice, command = (
        Unusable("nothing was tuned; tune it", "agent", domain="general"),
        "train.py agent=cem domain=general",
    )
    assert str(advice_for_this_model(advice)) == f"nothing was tuned; tune it: python {command}"
    hydra_job("seed=1", root="sample")
    assert str(advice_for_this_model(advice)) == f"nothing was tuned; tune it: python {command}"
    hydra_job("model=diffusers", "model.path=/a b", "seed=1", root="sample")
    said = str(advice_for_this_model(advice)).partition("tune it: ")[2]
    assert shlex.split(said)[2:] == [
        "model@task.model=diffusers",
        "task.model.path=/a b",
        "agent=cem",
        "domain=general",
    ]


def test_settings_of_the_task_alone_are_left_out(hydra_job):
    hydra_job("task=schedule", "task.steps=[5]", "task.guidance_scale=null", "tracking=none")
    assert draw_command() == "python sample.py"


@pytest.mark.parametrize(
    "path",
    [
        "/a/b.zip",
        "it's (mine), [new]",
        "a=b",
        "ends in \\",
        "50% of ${HOME}",
        "naïve café",
        "a, b",
        " x ",
        "~/x",
        "1e3",
        "null",
    ],
)
def test_a_setting_reads_back_as_it_was(path, tmp_path):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("sample", overrides=["model=checkpoint", setting("model.path", path)])
    assert cfg.model.path == path


def test_folders_and_own_configurations_are_said_again(hydra_job):
    hydra_job("task=schedule", "paths.outputs='/a b/out'", "paths.mlruns=/c", "paths.data=/pictures")
    with read_write(HydraConfig.get()), open_dict(HydraConfig.get()):
        HydraConfig.get().runtime.config_sources = [ConfigSourceInfo("/my conf", "file", "command-line")]
    said = shlex.split(draw_command("scheduler=adaptive"))
    assert said[2:] == ["--config-dir", "/my conf", "scheduler=adaptive", "paths.outputs='/a b/out'", "paths.mlruns=/c"]
    advice = str(advice_for_this_model(UserError("python train.py agent=ppo")))
    assert shlex.split(advice)[2:] == ["--config-dir", "/my conf", "agent=ppo"]


def test_a_domain_without_a_file_is_said_by_its_name():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert domain_settings("abstract") == ["domain=abstract"]
        own = domain_settings("old maps")
        cfg = compose("sample", overrides=own)
    assert (cfg.domain.name, cfg.domain.description) == ("old maps", "old maps")
