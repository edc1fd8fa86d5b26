"""What was wrong with a configuration, in one sentence, with the name that was probably meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ..program import SCRIPTS, title
from ..runs.wrong_values import wrong_value
from .catalog import Catalog
from .unknown_names import no_option, no_setting


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

    # Names: of a group, of an option.
    if sentence := _of_other_program(catalog, program, arguments, text):
        return sentence
    if found := re.search(r"Could not find '((?:hydra/)?\w+)/([^']*)'", text):
        group, option = found.groups()
        return no_option(catalog, group, option)
    by_hydra = isinstance(error, (HydraException, OmegaConfBaseException)) and "Config group override" not in text
    if not by_hydra and (sentence := _no_choice(catalog, arguments)):
        return sentence

    # Values.
    if sentence := wrong_value(error):
        return sentence
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", text):
        return f"{found[2]} refers to {found[1]!r}, and there is no such setting; --help lists them"

    # Keys that the option of a group sets, and keys of another group.
    if found := re.search(r"In '(\w+)/(\w+)': Could not override '([^'@]+)", text):
        group, option, key = found.groups()
        other = next(name for name in SCRIPTS if name != program)
        return f"{group}={option} sets {key!r}, which {title(program)} does not have; did you mean {title(other)}?"
    if found := re.search(r"Could not override '(\w+)'\.\s+Did you mean to override (\S+)\?", text):
        chosen = next((a.partition("=")[2] for a in arguments if a.startswith(f"{found[1]}=")), f"<{found[1]}>")
        return f"there is no {found[1]} to choose there; did you mean {found[2]}={chosen}?"

    # Values that Hydra can read in several ways.
    if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text):
        key, value = found.groups()
        if catalog.is_group(key):
            return f"{key}={value} names several options, which make a sweep: give -m as well"
        quoted, sequence = f"{key}='\"{value}\"'", f"{key}=[{value}]"
        return f"{key}={value} may be a text ({quoted}), a list ({sequence}) or a sweep (with -m); say which"

    # Keys that are there already, and keys that are not there.
    if found := re.search(r"An item is already at '([^']+)'", text):
        return f"{found[1]} is there already; leave the + out"
    if key := _unknown_key(text) or _below_null(text, catalog, program, arguments):
        if key.startswith("task.data."):
            return f"there is no domain {key.split('.')[-1]!r} yet; to add one of your own: +{key}=<folder>"
        return no_setting(catalog, program, key, arguments)
    return _in_hydras_words(text)


def _of_other_program(catalog: Catalog, program: str, arguments: Sequence[str], text: str) -> str | None:
    """For groups that only the other program has: which one it is, and what it does."""
    mine = catalog.groups(program)

    foreign: dict[str, str] = {}
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        group = key.partition(".")[0]
        if group not in mine and catalog.owner(group) and f"override {group}@" not in text:
            foreign[key] = value
    if not foreign:
        return None

    other = next(name for name in SCRIPTS if name != program)
    does = "draws" if other == "sample" else "trains and tunes"
    belong = f"{' and '.join(foreign)} {'belongs' if len(foreign) == 1 else 'belong'}"
    unknown = [
        no_option(catalog, group, option)
        for group, option in foreign.items()
        if "." not in group and not set(option.split(",")) <= {*catalog.options(group), "null"}
    ]
    return "; ".join([f"{belong} to {title(other)}, which {does}, not to {title(program)}", *unknown])


def _no_choice(catalog: Catalog, arguments: Sequence[str]) -> str | None:
    """For a group that was given a number, a list or null where the name of an option is wanted."""
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        group = key.partition("@")[0]
        for option in value.split(","):  # of a sweep
            if catalog.is_group(group) and option not in catalog.options(group):
                return no_option(catalog, group, option)
    return None


def _unknown_key(text: str) -> str | None:
    """The full name of the setting that Hydra did not find."""
    if found := re.search(r"Could not (?:override|delete from config\.(?: Could not delete)?) '([^'@]+)", text):
        within = re.search(rf"full_key: ({re.escape(found[1])}\.\S+)", text)  # of several that were given in { }
        return within[1] if within else found[1]
    if re.search(r"Key '[^']+' (?:is )?not in ", text):
        found = re.search(r"full_key: (\S+)", text) or re.search(r"Key '([^']+)'", text)
        return found[1] if found else None
    found = re.search(r"Could not append to config.*?'([^'@]+)'", text)
    return found[1] if found else None


def _below_null(text: str, catalog: Catalog, program: str, arguments: Sequence[str]) -> str | None:
    """The full name of the setting that is below a group or a setting that is null."""
    if "Unexpected type for root" not in text:
        return None
    keys = [argument.lstrip("+").partition("=")[0] for argument in arguments]
    return next((key for key in keys if "." in key and key not in catalog.settings(program)), None)


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
    said = [line for line in lines if line and not line.startswith(noise)]

    if found := re.search(r"LexerNoViableAltException: (.*)|mismatched input .* expecting EQUAL", text):
        if found[1] and (key := re.match(r"[+~]*[\w./@]+(?==)", found[1], re.ASCII)):
            return (
                f"{found[1]} cannot be read: put text with other characters than a-z, digits and blanks in quotes, "
                f"e.g. {key[0]}='\"caf\u00e9\"', or in a list {key[0]}='[\"caf\u00e9\",bar]'"
            )
        given = f"{found[1]} cannot be read" if found[1] else said[0]
        return f"{given}: settings are given as key=value, with keys of letters, digits, _ and dots"
    if "mismatched input" in text:
        said.append("a value with special characters wants quotes within quotes, e.g. prompt='\"what is this\"'")
    if "missing EQUAL" in text:
        said.append("settings are given as key=value")
    return "; ".join(dict.fromkeys(said))
