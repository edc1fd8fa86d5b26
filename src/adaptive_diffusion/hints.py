"""What was wrong with a configuration, in one sentence, with the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from .wrong_values import wrong_value

NO_CHOICE = "Config group override must be a string"  # how Hydra begins what it says of scheduler=null


def config_mistake(error: BaseException, conf: Path, config_name: str, arguments: list[str]) -> str:
    """Explain an error of Hydra's.

    Args:
        error: What Hydra or OmegaConf raised.
        conf: The folder with the configuration.
        config_name: The root configuration, e.g. `sample`.
        arguments: The command line.
    """
    text = str(error) if error.__cause__ is None else f"{error}\n{error.__cause__}"
    if found := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, option = found.groups()
        return _no_option(conf, group, option)
    if NO_CHOICE in text:
        return _no_choice(conf, arguments)
    if told := wrong_value(error):
        return told
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", text):
        return f"{found[2]} refers to {found[1]!r}, and there is no such setting; --help lists them"
    if found := re.search(r"In '(\w+)/(\w+)': Could not override '([^'@]+)", text):
        group, option, key = found.groups()
        other = "train" if config_name == "sample" else "sample"
        return f"{group}={option} sets {key!r}, which {config_name}.py does not have; did you mean {other}.py?"
    if found := re.search(r"Could not override '(\w+)'\.\s+Did you mean to override (\S+)\?", text):
        chosen = next((a.partition("=")[2] for a in arguments if a.startswith(f"{found[1]}=")), f"<{found[1]}>")
        return f"there is no {found[1]} to choose there; did you mean {found[2]}={chosen}?"
    if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        key, value = found.groups()
        quoted, sequence = f"{key}='\"{value}\"'", f"{key}=[{value}]"
        return f"{key}={value} may be a text ({quoted}), a list ({sequence}) or a sweep (with -m); say which"
    if key := _unknown_key(text):
        if key.startswith("task.data."):
            return f"there is no domain {key.split('.')[-1]!r} yet; to add one of your own: +{key}=<pictures>"
        if told := _of_other_options(conf, key):
            return told
        return f"there is no setting {key!r}{_meant(key, _all_keys(conf, config_name, arguments))}; --help lists them"
    lines = [line.strip().rstrip(".") for line in text.splitlines()]
    noise = ("full_key:", "reference_type=", "object_type=", "See https", "Available options", "Set the environment")
    kept = [line for line in lines if line and not line.startswith(noise)]
    if "LexerNoViableAlt" in text or "mismatched input" in text:
        kept.append("a value with special characters wants quotes within quotes, e.g. prompt='\"what is this\"'")
    if "missing EQUAL" in text:
        kept.append("settings are given as key=value")
    return "; ".join(dict.fromkeys(kept))


def _no_option(conf: Path, group: str, option: str) -> str:
    options = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    return f"{group} has no option {option!r}{_meant(option, options)}; options: {', '.join(options)}"


def _of_other_options(conf: Path, key: str) -> str | None:
    """For a setting that belongs to other options of its group than the one that was chosen."""
    parts = key.split(".")
    for place, group in enumerate(parts[:-1], 1):
        files = sorted((conf / group).glob("*.yaml"))
        if options := [f.stem for f in files if _has(OmegaConf.to_container(OmegaConf.load(f)), parts[place:])]:
            at = "" if place == 1 else f"@{'.'.join(parts[:place])}"
            return f"{key!r} is a setting of {group}{at}={' or '.join(options)}"
    return None


def _has(content: Any, keys: list[str]) -> bool:
    """Whether nested dictionaries hold a key in a key."""
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _no_choice(conf: Path, arguments: list[str]) -> str:
    """For a group that was given a number or null where the name of an option is wanted."""
    for argument in arguments:
        group, _, options = argument.partition("=")
        for option in options.split(","):  # of a sweep
            if (conf / group).is_dir() and not (conf / group / f"{option}.yaml").exists():
                return _no_option(conf, group, option)
    return "a group takes the name of one of its options; --help lists them"


def did_you_mean(given: str, known: list[str]) -> str | None:
    """The known name closest to a misspelt one, if any is close."""
    ends = [name for name in known if name.split(".")[-1] == given.split(".")[-1]]
    close = ends or difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return close[0] if close else None


def _meant(given: str, known: list[str]) -> str:
    closest = did_you_mean(given, known)
    return f"; did you mean {closest!r}?" if closest else ""


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


def _all_keys(conf: Path, config_name: str, arguments: list[str]) -> list[str]:
    """Every setting there is, with the choices of the command line that exist."""
    choices = [
        a for a in arguments if (m := re.fullmatch(r"(\w+)=(\w+)", a)) and (conf / m[1] / f"{m[2]}.yaml").exists()
    ]
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose(config_name, overrides=choices)
    groups = [folder.name for folder in conf.iterdir() if folder.is_dir() and folder.name != "hydra"]
    return groups + list(_flat(cfg))


def _flat(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    for key, value in plain.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from _flat(cfg[key], f"{prefix}{key}.")
