"""Every configuration composes, builds what it names, says what it means, and refuses what it should."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from tiny import CONF, LABELS, configuration, tiny_checkpoint, tiny_model

from adaptive_diffusion.cli.unknown_names import LIMITS
from adaptive_diffusion.diffusion.schedule import SCHEDULE_ARGUMENTS, NoiseSchedule
from adaptive_diffusion.models.checkpoint import load_model, save_model
from adaptive_diffusion.models.classes import class_ids
from adaptive_diffusion.models.training_config import TrainingConfig
from adaptive_diffusion.models.unet import UNetConfig
from adaptive_diffusion.runs.build import build
from adaptive_diffusion.runs.checks import checked
from adaptive_diffusion.runs.open_settings import scheduler_arguments
from adaptive_diffusion.runs.setting_types import typed
from adaptive_diffusion.runs.settings_text import literal
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.schedulers.classes import DDIMScheduler

TRAINING = ["task", "reward", "agent"]
GROUPS = ["model", "domain", "scheduler", "grid", "sampler", "metrics", "benchmark", "tracking", *TRAINING]
OPTIONS = [(g, file.stem) for g in GROUPS for file in sorted((CONF / g).glob("*.yaml"))]
EXPLAINED = [p for p in sorted(CONF.rglob("*.yaml")) if p.parent.name not in ("hydra", "help", "experiment", "debug")]
SCHEDULERS = [option for group, option in OPTIONS if group == "scheduler" and option not in ("tuned", "learned")]


def root_of(group: str) -> str:
    return "train" if group in TRAINING else "sample"


def node(group: str, option: str, folder: Path):
    return configuration(root_of(group), folder, f"{group}={option}")[group]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_spells_out_exactly_the_arguments_of_what_it_builds(group, option, tmp_path):
    chosen = node(group, option, tmp_path)
    if "_target_" not in chosen:
        return
    module, _, name = chosen._target_.rpartition(".")
    arguments = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    # programs always end at the clean image; those decide about the end of `step` alone
    of_step = {"set_alpha_to_one", "final_sigmas_type", "euler_at_final"}
    of_the_model = {*SCHEDULE_ARGUMENTS, *LIMITS, "prediction_type", *of_step} if group == "scheduler" else set()
    named = {name for name, argument in arguments.items() if argument.kind is not argument.VAR_KEYWORD}
    assert set(chosen) - {"_target_"} == named - of_the_model


def test_what_the_model_says_of_a_scheduler_is_named_in_one_more_place_only():
    assert list(inspect.signature(NoiseSchedule).parameters) == list(SCHEDULE_ARGUMENTS)
    assert set(LIMITS) <= set(inspect.signature(DDIMScheduler).parameters)


@pytest.mark.parametrize("file", sorted((CONF / "scheduler").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_scheduler_has_few_settings(file):
    assert len(re.findall(r"^ *(?!_target_)\w+:", file.read_text(), re.MULTILINE)) <= 15


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_the_types_of_an_options_settings_are_those_of_its_constructor(group, option, tmp_path):
    cfg = configuration(root_of(group), tmp_path, f"{group}={option}")
    assert OmegaConf.to_container(typed(cfg)) == OmegaConf.to_container(cfg)
    numbers = [key for key, value in OmegaConf.to_container(cfg[group]).items() if type(value) in (int, float)]
    for key in numbers if "_target_" in cfg[group] else ():
        wrong = cfg.copy()
        wrong[group][key] = "some"
        with pytest.raises(ValueError, match=rf"{group}\.{key} must be a (whole )?number.*, got 'some'"):
            typed(wrong)


@pytest.mark.parametrize("file", EXPLAINED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_setting_is_explained_on_its_line(file):
    unexplained = [
        line
        for line in file.read_text().splitlines()
        if re.match(r" *\w+: *\S", line) and "_target_" not in line and "#" not in line
    ]
    assert unexplained == []


@pytest.mark.parametrize("root", ["sample", "train"])
def test_the_help_text_names_every_choice(root):
    text = (CONF / "hydra" / "help" / f"{root}.yaml").read_text()
    defaults = (CONF / f"{root}.yaml").read_text()
    for folder in CONF.iterdir():
        offered = re.search(rf"^  - {folder.name}: ", defaults, re.MULTILINE)
        if not folder.is_dir() or not offered or folder.name in ("paths", "hydra"):
            continue
        line = re.search(rf"^ +{folder.name} +(.*)", text, re.MULTILINE)
        assert line, folder.name
        options = [
            f for f in folder.glob("*.yaml") if folder.name != "experiment" or f"python {root}.py" in f.read_text()
        ]
        assert all(file.stem in line[1] for file in options), folder.name


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_an_experiment_says_how_to_run_it_and_composes(file, tmp_path):
    command = re.search(r"# Command: +python (\w+)\.py (.*)", file.read_text())
    assert command, "the header gives the command"
    checked(configuration(command[1], tmp_path, *command[2].removeprefix("-m ").split()))


@pytest.mark.parametrize("recipe", ["train_builtin", "train_encoder"])
def test_the_recipes_of_what_ships_keep_their_split_by_name(recipe: str, tmp_path) -> None:
    assert configuration("train", tmp_path, f"experiment={recipe}").task.split == "tail"


def test_the_smoke_setting_is_small(tmp_path):
    cfg = configuration("sample", tmp_path, "debug=smoke")
    assert (cfg.num_samples, cfg.num_steps) == (2, 4)  # steps that ship, so that nothing is calibrated


def test_the_training_task_defaults_are_those_of_the_code(tmp_path):
    task = build(configuration("train", tmp_path, "task.data={portraits: x}"), "task")
    code = TrainingConfig(data={"portraits": "x"}, state="x.safetensors")
    varying = {"data", "state", "noise_schedule", "architecture"}
    for f in fields(TrainingConfig):
        if f.name not in varying:
            assert getattr(task, f.name) == getattr(code, f.name), f.name
    assert task.architecture.keys() == asdict(UNetConfig()).keys() - {"num_classes"}
    assert UNetConfig(**task.architecture) == UNetConfig()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_is_built_for_the_model(scheduler, tmp_path):
    cfg = configuration(
        "sample", tmp_path, f"scheduler={scheduler}", "model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}"
    )
    parts = prepare(cfg)
    assert parts.scheduler.config["prediction_type"] == "v_prediction"
    assert parts.scheduler.config["beta_schedule"] == "squaredcos_cap_v2"
    assert parts.scheduler.config["num_train_timesteps"] == 1000
    assert len(parts.scheduler) == 10
    assert parts.sampler.scheduler is parts.scheduler
    assert parts.denoiser.guidance_scale == 1.5
    assert sorted(np.array(parts.conditions.rows(0, range(4))).tolist()) == [[2, 2], [2, 2], [2, 3], [2, 3]]


@pytest.mark.parametrize("setting", ["beta_schedule=linear", "num_train_timesteps=500", "prediction_type=epsilon"])
def test_contradicting_the_model_is_refused(setting, tmp_path):
    cfg = configuration("sample", tmp_path, f"+scheduler.{setting}")
    key, _, value = setting.partition("=")
    with pytest.raises(ValueError, match=rf"scheduler\.{key}={value} contradicts the model"):
        scheduler_arguments(cfg, tiny_model())


def test_a_model_that_does_not_say_what_it_predicts_is_asked_about(tmp_path):
    for model, told in {
        "builtin": "its metadata need prediction_type",
        "checkpoint": r"model\.prediction_type=",
    }.items():
        with pytest.raises(ValueError, match=f"{told}.*epsilon, v_prediction or sample"):
            scheduler_arguments(configuration("sample", tmp_path, f"model={model}"), tiny_model(prediction_type=None))
    save_model(tmp_path / "silent.safetensors", tiny_model(prediction_type=None))
    model = ["model=checkpoint", f"model.path={tmp_path}/silent.safetensors"]
    parts = prepare(configuration("sample", tmp_path, *model, "model.prediction_type=sample"))
    assert parts.scheduler.config["prediction_type"] == "sample"
    assert load_model(tiny_checkpoint(tmp_path), "v_prediction").metadata["prediction_type"] == "v_prediction"
    with pytest.raises(ValueError, match="contradicts"):
        load_model(tiny_checkpoint(tmp_path), "epsilon")


def test_the_model_decides_whether_to_clip_unless_a_setting_says_it(tmp_path):
    limited = ["+scheduler.thresholding=true", "+scheduler.dynamic_thresholding_ratio=0.9"]
    cfg = configuration("sample", tmp_path, "scheduler=ddim", *limited)
    assert scheduler_arguments(cfg, tiny_model())["clip_sample"] is True
    assert scheduler_arguments(cfg, tiny_model(bounded=False))["clip_sample"] is False
    cfg = configuration("sample", tmp_path, "scheduler=ddim", "+scheduler.clip_sample=false")
    assert "clip_sample" not in scheduler_arguments(cfg, tiny_model())


class Part:
    """Something that is built, and fails in several ways."""

    def __init__(self, fails: str):
        errors = {"value": ValueError("too small"), "type": TypeError("no number"), "key": KeyError("k")}
        raise errors.get(fails) or AttributeError("none")


@pytest.mark.parametrize("nested", [False, True])
def test_a_bug_in_a_constructor_stays_what_it_is_and_a_refused_value_is_a_mistake(nested):
    def built(fails):
        part = {"_target_": "test_configs.Part", "fails": fails}
        return build(OmegaConf.create({"grid": {"_target_": "builtins.dict", "of": part} if nested else part}), "grid")

    for fails, error in {"type": TypeError, "key": KeyError, "attribute": AttributeError}.items():
        with pytest.raises(error):
            built(fails)
    with pytest.raises(ValueError, match="too small"):
        built("value")


@pytest.mark.parametrize("text", ["a ${x} lake", r"a \${x} lake \\", "${x:"])
def test_a_text_that_looks_like_a_reference_is_built_as_it_is_written(text):
    part = {"_target_": "builtins.dict", "given": literal(text), "several": [literal(text)]}
    part["of"] = {"_target_": "builtins.dict", "given": literal(text)}
    built = build(OmegaConf.create({"domain": part}), "domain")
    assert built == {"given": text, "several": [text], "of": {"given": text}}


def test_a_module_that_cannot_be_imported_is_no_mistake_and_a_misspelt_one_is(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_written.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        build(OmegaConf.create({"grid": {"_target_": "half_written.Grid"}}), "grid")
    for target in ("half_writen.Grid", "adaptive_diffusion.grids.Gird", "adaptive_diffusion.gird.PowerGrid"):
        with pytest.raises(ValueError, match="Python finds nothing of that name"):
            build(OmegaConf.create({"grid": {"_target_": target}}), "grid")


def test_labels_are_numbered_through_all_domains_of_the_model():
    model = tiny_model()
    assert model.condition("portraits", "official", "") == (1, 1)
    assert model.condition("landscapes", "sunrise", "") == (2, 3)
    assert model.condition("general", "butterfly", "") == (4, 4)
    assert model.condition("general", None, "") == (4, 0)


@pytest.mark.parametrize(
    ("domain", "label", "sentence"),
    [
        ("landscapes", "sunrize", "did you mean 'sunrise'"),
        ("landscapes", "butterfly", "'butterfly' is a label of domain=general, not of domain=landscapes"),
        ("landscapes", "buterfly", "it has forest, sunrise; did you mean domain=general label=butterfly?"),
        ("landscapes", "None", "did you mean 'none'?"),
        ("landscapes", "xyz", "it has forest, sunrise"),
        ("abstract", "xyz", "domain=abstract has no labels"),
        ("forests", None, "trained on " + ", ".join(LABELS)),
    ],
)
def test_an_unknown_domain_or_label_is_answered_with_what_there_is(domain, label, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        tiny_model().condition(domain, label, "")


def test_labels_of_the_same_domain_that_hold_the_word_come_before_those_of_others():
    labels = {"portraits": ["modern official photograph", "official photograph"], "abstract": ["office ceiling"]}
    meant = re.escape("; did you mean 'official photograph' or 'modern official photograph'?")
    with pytest.raises(ValueError, match=meant):
        class_ids(labels, "portraits", "Official")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("num_steps=0", "num_steps must be a whole number, between 1 and 1000, got 0"),
        ("num_steps=-1", "between 1 and 1000, got -1"),
        ("num_steps=1001", "between 1 and 1000, got 1001"),
        ("num_samples=0", "num_samples must be a whole number, between 1 and 1000000"),
        ("batch_size=0", "batch_size must be"),
        ("seed=4294967296", "seed must be a whole number, between 0 and 4294967295, got 4294967296"),
        ("image_size=0", "image_size must be a whole number, between 1 and 4096"),
        ("num_samples=2000000", "num_samples must be a whole number, between 1 and 1000000"),
        ("strength=nan", "strength must be a number"),
        ("strength=1.5", "strength must be a number, greater than 0 and at most 1"),
        ("scheduler.max_step_ratio=inf", "max_step_ratio must be a finite number"),
        ("guidance_scale=1e9", "at most 1000"),
        ("domain.name=../elsewhere", "domain.name must not contain /"),
        ("name='a\tb'", "name must be text in one line"),
        ("sampler.scheduler=ddim", "sampler.scheduler is given by the run"),
        ("guidance_scale=-1", "guidance_scale must be a number, at least 0"),
        ("scheduler.adaptive_threshold=2", "scheduler: adaptive_threshold must be"),
        ("tracking.lock_timeout=0", "tracking.lock_timeout must be a positive number"),
        ("+schedular=ddim", "there is no setting 'schedular'; did you mean 'scheduler'"),
        ("+scheduler.eta=1", "there is no setting 'scheduler.eta'"),
        ("+domain.picture=x", "there is no setting 'domain.picture'; did you mean 'domain.pictures'?"),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence_before_anything_runs(override, sentence, tmp_path):
    model = tiny_checkpoint(tmp_path)
    cfg = configuration("sample", tmp_path, "model=checkpoint", f"model.path={model}", override)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        prepare(cfg)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.safetensors"]


@pytest.mark.parametrize("override", ["num_steps=ten", "num_step=3", "scheduler.etta=1", "scheduler=ddmi", "domain=x"])
def test_what_the_roots_do_not_know_does_not_compose(override, tmp_path):
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration("sample", tmp_path, override)
    assert isinstance(error.value, ConfigCompositionException) or "Could not find" in str(error.value)


def test_a_missing_value_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model\.path must be given"):
        prepare(configuration("sample", tmp_path, "model=checkpoint"))
