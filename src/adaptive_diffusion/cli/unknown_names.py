"""An option or a setting that does not exist: one sentence, with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import MISSING, DictConfig, OmegaConf

from ..diffusion.schedule import SCHEDULE_ARGUMENTS
from ..program import pip_install
from ..spelling import did_you_mean, same_end
from .catalog import Catalog

ELSEWHERE = {  # names that other tools have for what is here
    "euler": "Euler's method is scheduler=ddim, whose scheduler.eta is 0 by default",
    "euler_discrete": "Euler's method is scheduler=ddim, whose scheduler.eta is 0 by default",
    "euler_a": "ancestral sampling is scheduler=ddpm, or scheduler=ddim scheduler.eta=1",
    "euler_ancestral": "ancestral sampling is scheduler=ddpm, or scheduler=ddim scheduler.eta=1",
    "dpmpp_2m": "DPM-Solver++(2M) is scheduler=dpm_solver",
    "dpm++": "DPM-Solver++(2M) is scheduler=dpm_solver",
    "pndm": "the nearest to PNDM is scheduler=ipndm",
    "plms": "the nearest to PLMS is scheduler=ipndm",
    "karras": "Karras' spacing is grid=karras, with any scheduler",
}
LAUNCHERS = {  # of packages of Hydra's -> the extra that brings them
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
}
SAVED = ("experiment", "debug")  # groups without settings of their own: combinations of those of the others
MOST_OPTIONS = 4  # options of a group that are all named as those with a setting; of more, one fewer
LIMITS = (  # those that follow from the model
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio"),
    "sample_max_value",
)
_NOTHING = object()  # is no setting's value


def no_option(catalog: Catalog, group: str, option: str) -> str:
    """For an option that a group of the configuration does not have."""
    options = catalog.options(group)
    if group == "hydra/launcher":
        return _no_launcher(option)
    if group == "hydra/sweeper":
        return f"{group} has no option {option!r}; without it, {group}=basic runs every combination"
    if not options:
        return f"{group} has no option {option!r}; leave it out"
    if group == "scheduler" and (hint := ELSEWHERE.get(option.lower().replace("-", "_"))):
        return f"{group} has no option {option!r}: {hint}; options: {', '.join(options)}"
    own = (
        f"; for what a model of your own draws: domain=general domain.name={option or '<name>'}"
        if group == "domain"
        else ""
    )
    return f"{group} has no option {option!r}{_meant(option, options)}; options: {', '.join(options)}{own}"


def _no_launcher(option: str) -> str:
    """For Hydra's launchers, which are packages of their own."""
    without = "without it, hydra/launcher=basic runs one job after another"
    if option in LAUNCHERS:
        return f"hydra/launcher={option} takes a package that is missing: {pip_install(LAUNCHERS[option])}; {without}"
    return f"hydra/launcher has no option {option!r}; there are {', '.join(LAUNCHERS)}; {without}"


def no_setting(catalog: Catalog, program: str, key: str, arguments: Sequence[str]) -> str:
    """For a setting that is not there: options that have it, or the name that was probably meant."""
    parts, sentence = key.split("."), f"there is no setting {key!r}"
    if parts[0] == "scheduler" and (where := _of_the_model(parts[-1], arguments)):
        return f"{sentence}: {where}"
    if len(parts) > 1 and (elsewhere := _of_other_options(catalog, key, arguments)):
        return elsewhere

    known = [name for name in _all_keys(catalog, program, arguments) if not key.startswith(f"{name}.")]

    # A setting of an option, given without its group.
    if len(parts) == 1 and not same_end(key, known):
        for group in catalog.groups(program):
            if group not in SAVED and (options := _with_setting(catalog, group, parts)):
                value = next((a.partition("=")[2] for a in arguments if a.lstrip("+").startswith(f"{key}=")), "<value>")
                return (
                    f"{sentence}; it is one of {group}={_some(options)}: "
                    f"{group}={options[0]} {group}.{key}={value or '<value>'}"
                )

    # A setting of another name, e.g. order for solver_order.
    if len(parts) == 2 and (meant := _of_any_option(catalog, *parts)):
        name, options = meant
        if name not in known:
            return f"{sentence}; did you mean {name!r}, of {parts[0]}={_some(options)}?"
    return f"{sentence}{_meant(key, known)}; --help lists them"


def _of_the_model(name: str, arguments: Sequence[str]) -> str | None:
    """Where an argument of schedulers went that is no setting, because the model decides it."""
    given = next((a.partition("=")[2] for a in arguments if a.partition("=")[0].endswith(f"scheduler.{name}")), "")
    if name in LIMITS:
        return f"the model says how its images stay in range; to overrule it: +scheduler.{name}={given or '<value>'}"
    if name == "prediction_type":
        return f"the model says what it predicts; where its file does not: model=checkpoint model.{name}={given}"
    return "the model says how it was trained; leave it out" if name in SCHEDULE_ARGUMENTS else None


def _of_other_options(catalog: Catalog, key: str, arguments: Sequence[str]) -> str | None:
    """For a setting that belongs to other options of its group than the one that was chosen."""
    parts = key.split(".")
    for place, group in enumerate(parts[:-1], 1):
        options = _with_setting(catalog, group, parts[place:])
        if not options:
            continue

        # A sweep over a group may have options with the setting, and options without it.
        swept = [o for a in arguments for o in a.partition("=")[2].split(",") if a.partition("=")[0] == group]
        lacking = [option for option in swept if option not in options]
        if len(lacking) < len(swept):
            return (
                f"{key!r} is a setting of {group}={_some(options)}, and this sweep has {group}="
                f"{','.join(lacking)} as well, without it; sweep over them in a command of their own"
            )

        at = "" if place == 1 else f"@{'.'.join(parts[:place])}"
        return f"{key!r} is a setting of {group}{at}={_some(options)}"
    return None


def _with_setting(catalog: Catalog, group: str, keys: list[str]) -> list[str]:
    """The options of a group that have a setting; first those of which it must be given."""
    found = {option: _found(catalog.content(group, option), keys) for option in catalog.options(group)}
    having = [option for option, value in found.items() if value is not _NOTHING]
    return sorted(having, key=lambda option: found[option] != MISSING)


def _some(options: Sequence[str]) -> str:
    """The options; of many the first, and how many there are besides."""
    if len(options) <= MOST_OPTIONS:
        return " or ".join(options)
    shown = options[: MOST_OPTIONS - 1]
    return f"{' or '.join(shown)} (and {len(options) - len(shown)} more)"


def _of_any_option(catalog: Catalog, group: str, key: str) -> tuple[str, list[str]] | None:
    """The setting of any option of a group that ends like a name, e.g. solver_order for order, and its options."""
    contents = {option: catalog.content(group, option) for option in catalog.options(group)}
    names = sorted({str(name) for content in contents.values() for name in content})
    name = next((name for name in names if name.endswith(f"_{key}")), None)
    if name is None:
        return None
    return f"{group}.{name}", [option for option, content in contents.items() if name in content]


def _found(content: Any, keys: list[str]) -> Any:
    """What nested dictionaries hold below a key in a key; `_NOTHING` where that is not there."""
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            return _NOTHING
        content = content[key]
    return content


def _meant(given: str, known: Iterable[str]) -> str:
    closest = did_you_mean(given, known)
    return f"; did you mean {closest!r}?" if closest and closest != given else ""


def _all_keys(catalog: Catalog, program: str, arguments: Sequence[str]) -> list[str]:
    """Every setting there is, with the choices of the command line that exist."""
    groups = catalog.groups(program)
    choices = [
        f"{group}={first}"
        for group, _, option in (argument.partition("=") for argument in arguments)
        if group in groups and (first := option.split(",")[0]) in catalog.options(group)  # the first of a sweep
    ]
    own = [f"file://{folder.absolute()}" for folder in catalog.folders[1:]]
    with initialize_config_dir(str(catalog.folders[0]), version_base="1.3"):
        cfg = compose(program, overrides=[*choices, *([f"hydra.searchpath={own}"] if own else [])])
    return [*groups, *_flat(cfg)]


def _flat(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    for key, value in plain.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from _flat(cfg[key], f"{prefix}{key}.")
