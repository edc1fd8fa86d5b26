"""What was wrong with a configuration, in one sentence, with the name that was probably meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..diffusion.schedule import SCHEDULE_ARGUMENTS
from ..errors import closest, did_you_mean, same_end
from ..program import SCRIPTS, command, title
from ..runs.wrong_values import wrong_value
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
PLUGINS = {  # Hydra's own
    "hydra/launcher": ("joblib", "rq", "ray", "submitit"),
    "hydra/sweeper": ("optuna", "ax", "nevergrad"),
}
LIMITS = (  # those that follow from the model
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio"),
    "sample_max_value",
)
NEEDS = {  # what a choice of train.py takes besides
    "reward": ("agent=ppo",),
    "task=agent": ("agent=ppo",),
    "task=policy": ("agent=ppo", "domain=landscapes"),
    "task=model": ("task.data.portraits=/path/to/pictures",),
    "task=encoder": ("task.data.portraits=/path/to/pictures", "task.data.landscapes=/path/to/others"),
}


def config_mistake(error: BaseException, conf: Path, program: str, arguments: Sequence[str]) -> str:
    """Explain an error of Hydra's; whatever it is, there is a sentence.

    Args:
        error: What Hydra or OmegaConf raised.
        conf: The folder with the configuration.
        program: `sample` or `train`, which is also the name of its root configuration.
        arguments: The command line.
    """
    try:
        return _explained(error, Catalog.of(conf, arguments), program, arguments)
    except Exception:  # a mistake within the explanation must not take its place
        return _in_hydras_words(str(error))


def _explained(error: BaseException, catalog: Catalog, program: str, arguments: Sequence[str]) -> str:
    text = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    if told := _of_other_program(catalog, program, arguments, text):
        return told
    if found := re.search(r"Could not find '((?:hydra/)?\w+)/([^']+)'", text):
        group, option = found.groups()
        return _no_option(catalog, group, option)
    if not isinstance(error, (HydraException, OmegaConfBaseException)) and (told := _no_choice(catalog, arguments)):
        return told
    if told := wrong_value(error):
        return told
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", text):
        return f"{found[2]} refers to {found[1]!r}, and there is no such setting; --help lists them"
    if found := re.search(r"In '(\w+)/(\w+)': Could not override '([^'@]+)", text):
        group, option, key = found.groups()
        other = next(name for name in SCRIPTS if name != program)
        return f"{group}={option} sets {key!r}, which {title(program)} does not have; did you mean {title(other)}?"
    if found := re.search(r"Could not override '(\w+)'\.\s+Did you mean to override (\S+)\?", text):
        chosen = next((a.partition("=")[2] for a in arguments if a.startswith(f"{found[1]}=")), f"<{found[1]}>")
        return f"there is no {found[1]} to choose there; did you mean {found[2]}={chosen}?"
    if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        key, value = found.groups()
        if catalog.is_group(key):
            return f"{key}={value} names several options, which make a sweep: give -m as well"
        quoted, sequence = f"{key}='\"{value}\"'", f"{key}=[{value}]"
        return f"{key}={value} may be a text ({quoted}), a list ({sequence}) or a sweep (with -m); say which"
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found[1]} is there already; leave the + out"
    if key := _unknown_key(text):
        if key.startswith("task.data."):
            return f"there is no domain {key.split('.')[-1]!r} yet; to add one of your own: +{key}=<pictures>"
        return _no_setting(catalog, program, key, arguments)
    return _in_hydras_words(text)


def _of_other_program(catalog: Catalog, program: str, arguments: Sequence[str], text: str) -> str | None:
    """For groups that only the other program has: which one it is, and a command that it takes."""
    mine = catalog.groups(program)
    owners: dict[str, str] = {}
    foreign: dict[str, str] = {}
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        group = key.partition(".")[0]
        if group not in mine and (owner := catalog.owner(group)) and f"override {group}@" not in text:
            owners[key], foreign[key] = owner, value
    if not foreign:
        return None
    other = next(iter(owners.values()))
    does = "draws" if other == "sample" else "trains and tunes"
    belong = f"{' and '.join(foreign)} {'belongs' if len(foreign) == 1 else 'belong'}"
    unknown = [
        _no_option(catalog, group, option)
        for group, option in foreign.items()
        if "." not in group and not set(option.split(",")) <= {*catalog.options(group), "null"}
    ]
    instead = f"{command(other)} {shlex.join(_for_program(catalog, other, arguments))}"
    return "; ".join([f"{belong} to {title(other)}, which {does}, not to {title(program)}: {instead}", *unknown])


def _for_program(catalog: Catalog, program: str, arguments: Sequence[str]) -> list[str]:
    """What a program takes of a command line, and what it needs besides."""
    groups, settings = catalog.groups(program), catalog.settings(program)
    taken: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if key in groups:
            known = catalog.options(key)
            options = [closest(option, known) or groups[key] or known[0] for option in value.split(",")]
            taken[key] = f"{key}={','.join(dict.fromkeys(options))}"
        elif not equals and argument.startswith("-"):
            taken[argument] = argument
        elif key in settings or key.split(".")[0] in (*groups, "hydra"):
            taken[key] = argument
    for choice, needed in NEEDS.items():
        if choice in taken or choice in taken.values():
            for setting in needed:
                taken.setdefault(setting.partition("=")[0], setting)
    if program == "train" and "agent" not in taken:
        taken.pop("domain", None)  # of agents only
    return list(taken.values())


def _no_option(catalog: Catalog, group: str, option: str) -> str:
    options = catalog.options(group)
    if group in PLUGINS:
        return _no_plugin(group, option)
    if not options:
        return f"{group} has no option {option!r}; leave it out"
    if group == "scheduler" and (told := ELSEWHERE.get(option.lower().replace("-", "_"))):
        return f"{group} has no option {option!r}: {told}; options: {', '.join(options)}"
    return f"{group} has no option {option!r}{_meant(option, options)}; options: {', '.join(options)}"


def _no_plugin(group: str, option: str) -> str:
    """For Hydra's launchers and sweepers, which are packages of their own."""
    kind = group.partition("/")[2]
    without = f"without it, {group}=basic runs one job after another"
    if option not in PLUGINS[group]:
        return f"{group} has no option {option!r}; {without}, and packages such as hydra-joblib-launcher add others"
    return (
        f"{group}={option} comes with a package that is not installed here: pip install hydra-{option}-{kind} "
        f"({'sweeps of images work with it' if option == 'joblib' else 'nobody has tried it here'}); {without}"
    )


def _no_setting(catalog: Catalog, program: str, key: str, arguments: Sequence[str]) -> str:
    """For a setting that is not there: options that have it, or the name that was probably meant."""
    parts, told = key.split("."), f"there is no setting {key!r}"
    if parts[0] == "scheduler" and (where := _of_the_model(parts[-1], arguments)):
        return f"{told}: {where}"
    if len(parts) > 1 and (elsewhere := _of_other_options(catalog, key, arguments)):
        return elsewhere
    known = [name for name in _all_keys(catalog, program, arguments) if not key.startswith(f"{name}.")]
    if len(parts) == 1 and not same_end(key, known):
        for group in catalog.groups(program):
            if options := _with_setting(catalog, group, parts):
                value = next((a.partition("=")[2] for a in arguments if a.lstrip("+").startswith(f"{key}=")), "<value>")
                return (
                    f"{told}; it is one of {group}={' or '.join(options)}: "
                    f"{group}={options[0]} {group}.{key}={value or '<value>'}"
                )
    if len(parts) == 2 and (meant := _of_any_option(catalog, *parts)):
        name, options = meant
        if name not in known:
            return f"{told}; did you mean {name!r}, of {parts[0]}={' or '.join(options)}?"
    return f"{told}{_meant(key, known)}; --help lists them"


def _of_the_model(name: str, arguments: Sequence[str]) -> str | None:
    """Where an argument of schedulers went that is no setting, because the model decides it."""
    given = next((a.partition("=")[2] for a in arguments if a.partition("=")[0].endswith(f"scheduler.{name}")), "")
    if name in LIMITS:
        return f"the model says how its pictures stay in range; to overrule it: +scheduler.{name}={given or '<value>'}"
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
                f"{key!r} is a setting of {group}={' or '.join(options)}, and this sweep has {group}="
                f"{','.join(lacking)} as well, without it; sweep over them in a command of their own"
            )

        at = "" if place == 1 else f"@{'.'.join(parts[:place])}"
        return f"{key!r} is a setting of {group}{at}={' or '.join(options)}"
    return None


def _with_setting(catalog: Catalog, group: str, keys: list[str]) -> list[str]:
    """The options of a group that have a setting."""
    return [option for option in catalog.options(group) if _has(catalog.content(group, option), keys)]


def _of_any_option(catalog: Catalog, group: str, key: str) -> tuple[str, list[str]] | None:
    """The setting of any option of a group that ends like a name, e.g. solver_order for order, and its options."""
    contents = {option: catalog.content(group, option) for option in catalog.options(group)}
    names = sorted({str(name) for content in contents.values() for name in content})
    name = next((name for name in names if name.endswith(f"_{key}")), None)
    if name is None:
        return None
    return f"{group}.{name}", [option for option, content in contents.items() if name in content]


def _has(content: Any, keys: list[str]) -> bool:
    """Whether nested dictionaries hold a key in a key."""
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _no_choice(catalog: Catalog, arguments: Sequence[str]) -> str | None:
    """For a group that was given a number, a list or null where the name of an option is wanted."""
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        for option in value.split(","):  # of a sweep
            if catalog.is_group(group) and option not in catalog.options(group):
                return _no_option(catalog, group, option)
    return None


def _meant(given: str, known: Iterable[str]) -> str:
    closest = did_you_mean(given, known)
    return f"; did you mean {closest!r}?" if closest and closest != given else ""


def _unknown_key(text: str) -> str | None:
    """The full name of the setting that Hydra did not find."""
    if found := re.search(r"Could not (?:override|delete from config\. Could not delete) '([^'@]+)", text):
        within = re.search(rf"full_key: ({re.escape(found[1])}\.\S+)", text)  # of several that were given in { }
        return within[1] if within else found[1]
    if re.search(r"Key '[^']+' (?:is )?not in ", text):
        found = re.search(r"full_key: (\S+)", text) or re.search(r"Key '([^']+)'", text)
        return found[1] if found else None
    found = re.search(r"Could not append to config.*?'([^'@]+)'", text)
    return found[1] if found else None


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


def _in_hydras_words(text: str) -> str:
    """What Hydra says itself, in one line."""
    lines = [line.strip().rstrip(".") for line in text.splitlines()]
    noise = (
        "full_key:",
        "reference_type=",
        "object_type=",
        "See https",
        "Available options",
        "Set the environment",
        "^",
    )
    kept = [line for line in lines if line and not line.startswith(noise)]
    if found := re.search(r"LexerNoViableAltException: (.*)|mismatched input .* expecting EQUAL", text):
        given = f"{found[1]} cannot be read" if found[1] else kept[0]
        return f"{given}: settings are given as key=value, with keys of letters, digits, _ and dots"
    if "mismatched input" in text:
        kept.append("a value with special characters wants quotes within quotes, e.g. prompt='\"what is this\"'")
    if "missing EQUAL" in text:
        kept.append("settings are given as key=value")
    return "; ".join(dict.fromkeys(kept))
