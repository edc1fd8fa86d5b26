"""The command line on its way to Hydra: texts and paths, sweeps, and options that do not exist."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import get_type_hints

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny import CONF, configuration

from adaptive_diffusion.cli.arguments import PATHS, TEXTS, as_given, for_hydra
from adaptive_diffusion.cli.catalog import Catalog
from adaptive_diffusion.cli.schemas import Benchmark, Domain, Paths, Sample, Train
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.runs.setting_types import arguments_of, target_of

CATALOG = Catalog((CONF,))
NAMES = {  # settings that are texts, but take one of a few names
    *("_target_", "precision", "revision", "lpips", "model", "domain", "baseline"),
    *("beta_schedule", "prediction_type", "timestep_spacing", "variance_type", "algorithm_type", "solver_type"),
    *("metric", "calibrate", "first_evaluation", "unit", "split"),
}


def read(setting: str) -> object:
    """What the setting becomes in a configuration."""
    return OmegaConf.create({"x": OverridesParser.create().parse_override(setting).value()}).x


@pytest.mark.parametrize(
    "text",
    [
        "a lake, at dawn",
        "a dog's portrait",
        "(mountain:1.2)",
        "{a: b}",
        "[one, two]",
        "back\\slash",
        "end\\",
        "a\\'b",
        "'",
        "'a' or 'b'",
        "42",
        "true",
        "a=b",
        " blanks around ",
        "été, 夏",
        "x \N{EN DASH} \N{GRINNING FACE}",
    ],
)
@pytest.mark.parametrize(
    "key", ["prompt", "label", "model.draws", "init_image", "+task.data.cats", "task.model.path", "paths.outputs"]
)
def test_texts_and_paths_are_taken_as_they_are_written(key, text):
    setting, seed = for_hydra([f"{key}={text}", "seed=1"])
    assert read(setting) == text
    assert seed == "seed=1"


@pytest.mark.parametrize("text", [r"\${oc.env:HOME}", r"\\${oc.env:HOME}", r"a\\b \'${x}' \\"])
def test_backslashes_make_no_reference_of_a_text(text):
    (prompt,) = for_hydra([f"prompt={text}"])
    assert read(prompt) == text


def test_a_text_refers_to_no_setting_and_a_path_does():
    (prompt, path) = for_hydra(["prompt=${paths.root} costs $5", "output=${paths.root}/a (1).zip"])
    assert read(prompt) == "${paths.root} costs $5"
    assert OmegaConf.create(
        {"paths": {"root": "/r"}, "x": OverridesParser.create().parse_override(path).value()}
    ).x == ("/r/a (1).zip")


@pytest.mark.parametrize(
    "setting", ["prompt='a, b'", 'output="a"', "prompt=null", "prompt=", "model.path=plain/name.x"]
)
def test_what_is_quoted_or_plain_stays_as_it_is(setting):
    assert for_hydra([setting]) == [setting]
    assert for_hydra(["seed=1", setting, "-m"]) == ["-m", "seed=1", setting]


def test_the_home_directory_is_known_in_paths_alone():
    home = str(Path.home())
    assert read(*for_hydra(["scheduler.trained=~/a b"])) == f"{home}/a b"
    assert [read(s) for s in for_hydra(["output=~/a b", "label=~/a b", "init_image=a~/b"])] == [
        f"{home}/a b",
        "~/a b",
        "a~/b",
    ]
    study = ["hydra.sweeper.storage=~/s.log", "hydra.sweeper.study=one (2)"]
    assert [read(s) for s in for_hydra(study)] == [f"{home}/s.log", "one (2)"]


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("init_image=~/a.png,/b.png", [f"{Path.home()}/a.png", "/b.png"]),
        ("label=rose,tulip", ["rose", "tulip"]),
        ("prompt='a, b',c", ["'a, b'", "c"]),
    ],
)
def test_a_sweep_takes_several_texts(setting, values):
    _, swept = for_hydra(["-m", setting])
    assert list(OverridesParser.create().parse_override(swept).sweep_string_iterator()) == values


@pytest.mark.parametrize("text", ["photo (2).png", "[x].png", "it's, mine"])
def test_a_sweep_takes_a_single_text_as_it_is_written(text):
    assert read(for_hydra(["-m", "seed=1,2", f"init_image={text}"])[2]) == text


@pytest.mark.parametrize(
    "setting", ["paths.mlruns=", "paths.outputs=''", "output= ", "+task.data.cats=", "model.path=''"]
)
def test_an_empty_path_is_refused(setting):
    with pytest.raises(UserError, match=r"= is empty"):
        for_hydra([setting])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["seed=range(3,3)"], "names no value"),
        (["seed=range(9,2)"], "names no value"),
        (["scheduler=glob(nothing*)"], "names no value"),
        (["seed=range(0,1e8)"], "100,000,000 jobs"),
        (["seed=range(200)", "num_steps=range(2,102)"], "20,000 jobs"),
    ],
)
def test_a_sweep_of_nothing_or_without_end_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        for_hydra(["-m", *settings], CATALOG)


def test_a_group_without_a_choice_is_refused():
    with pytest.raises(UserError, match=r"domain=\{\} chooses nothing; domain takes one of abstract, general"):
        for_hydra(["domain={}"], CATALOG)
    assert for_hydra(["task.data={}"], CATALOG) == ["task.data={}"]  # no group


@pytest.mark.parametrize("setting", ["~label", "~model", "~agent", "~seed=0"])
def test_what_a_program_has_to_know_cannot_be_deleted(setting):
    with pytest.raises(UserError, match=rf" cannot be deleted; .*, or leave {setting} out$"):
        for_hydra([setting], CATALOG)
    assert for_hydra(["~scheduler.eta", "~task.data.x"], CATALOG) == ["~scheduler.eta", "~task.data.x"]


def test_a_sweep_over_options_begins_with_the_first_of_them(tmp_path):
    given = ["agent=cem,random", "reward=speed,quality", "task.episodes=4", "seed=1,2"]
    settings = for_hydra(["-m", *given], CATALOG)[1:]
    assert settings == ["agent=cem", given[0], "reward=speed", *given[1:]]
    assert as_given(settings) == given
    whole = configuration("train", tmp_path, *(s for s in settings if "," not in s))
    assert (whole.task.episodes, whole.agent.population) == (4, 10)
    assert for_hydra(["-m", "grid=glob(k*)"], CATALOG)[1] == "grid=karras"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--num_steps", "20"], "settings are given as num_steps=20"),
        (["--batch-size=4"], "settings are given as batch_size=4"),
        (["-n", "3"], "settings are given as key=value"),
        (["--cfg", "everything"], "--cfg takes one of job, hydra, all"),
        (["--config-dir"], "takes a value, got nothing"),
    ],
)
def test_an_option_that_does_not_exist_is_told_how_settings_are_given(arguments, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        for_hydra(arguments)


def test_options_may_stand_anywhere(tmp_path):
    given = ["seed=1", "--config-dir", str(tmp_path), "name=x", "--info", "-m"]
    assert for_hydra(given) == ["--config-dir", str(tmp_path), "--info", "all", "-m", "seed=1", "name=x"]


def test_a_folder_of_configurations_has_to_be_there(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        for_hydra([], Catalog.of(CONF, ["--config-dir", str(tmp_path / "typo")]))


def test_every_setting_that_is_free_text_or_a_path_is_declared():
    """A new one has to be put into `TEXTS` or `PATHS`, or among the names of this test."""
    undeclared = []
    kinds = {file: arguments_of(target_of(OmegaConf.load(file)))[0] for file in CONF.glob("*/*.yaml")}
    settings = {
        f"{file.parent.name}.{key}": kind
        for file, arguments in kinds.items()
        for key, kind in arguments.items()
        if key in OmegaConf.load(file)
    }
    for prefix, schema in {"": Sample, " ": Train, "paths.": Paths, "domain.": Domain, "benchmark.": Benchmark}.items():
        settings |= {f"{prefix.strip()}{name}": kind for name, kind in get_type_hints(schema).items()}
    for key, kind in settings.items():
        texts = kind in (str, str | None) and key.rpartition(".")[2] not in NAMES
        if texts and not any(fnmatch.fnmatch(key, p) for p in (*TEXTS, *PATHS)):
            undeclared.append(key)
    assert undeclared == []
