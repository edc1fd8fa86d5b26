"""The command line as Hydra wants it: options first, texts and paths as written, sweeps of a sensible size."""

from __future__ import annotations

import argparse
import fnmatch
import functools
import math
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep
from hydra.errors import HydraException

from ..errors import UserError
from ..io.addresses import without_login
from ..program import COMPLETION, SCRIPTS
from ..runs.settings_text import literal, quoted
from .catalog import Catalog

SWEEP = ("-m", "--multirun")
LARGEST_SWEEP = 10_000  # jobs

# Settings that are taken as they are written, blanks, commas and brackets included; a new one belongs in one of the two
TEXTS = (
    *("prompt", "label", "name", "*.negative_prompt", "*.draws", "domain.name", "domain.description"),
    *("tracking.experiment", "tracking.uri", "hydra.sweeper.study"),
)
PATHS = (  # `~` is the home directory in these; ${...} refers to a setting
    *("paths.*", "output", "init_image", "*.path", "*.kept", "task.data.*", "task.state", "task.start_from"),
    *("task.calibration", "sampler.calibration", "metrics.encoder", "metrics.reference", "metrics.references"),
    *("metrics.vicreg", "metrics.inception", "metrics.clip", "*.weak_model", "*.trained"),
    *("tracking.database", "tracking.artifacts", "domain.pictures"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweeper.storage"),
)
QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)


def for_hydra(arguments: Sequence[str], catalog: Catalog | None = None) -> list[str]:
    """The command line as Hydra wants it.

    Args:
        arguments: As the shell hands them over.
        catalog: The groups there are; None: what a sweep chooses among is left alone.

    Raises:
        UserError: for an option that does not exist, an empty path, a setting that cannot be deleted, a group without
            a choice, or a sweep of no or of too many jobs.
    """
    if any(argument in COMPLETION for argument in arguments):
        return list(arguments)
    options, settings = _options_and_settings(arguments)
    if "--hydra-help" in options:  # a text about Hydra, whatever the settings
        return options
    sweeping = any(option in SWEEP for option in options)

    settings = [_as_written(setting, sweeping) for setting in settings]
    if catalog is not None:
        for folder in catalog.folders:
            if not folder.is_dir():
                raise UserError(f"there is no folder {folder} to read configurations from")
        _check_deletions(settings, catalog)
        _check_choices(settings, catalog)
        _check_size(settings, catalog)
        settings = [each for setting in settings for each in _with_first_choice(setting, catalog)]
    return options + settings


def as_given(settings: Sequence[str]) -> list[str]:
    """The settings of a sweep without those that `for_hydra` added, and without passwords."""
    return list({setting.partition("=")[0]: without_login(setting) for setting in settings}.values())


def parsed(setting: str) -> Override | None:
    """What Hydra reads in a setting, or None if it cannot."""
    try:
        return _parser().parse_override(setting)
    except HydraException:
        return None


def plain(setting: str) -> str:
    """A setting whose text is written without Hydra's quotes and escapes."""
    override = parsed(setting)
    value = None if override is None else override.value()
    return f"{setting.partition('=')[0]}={value}" if isinstance(value, str) else setting


def _options_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What begins with - and is Hydra's, with its values, and the rest; argparse wants the first before the second."""
    known = get_args_parser()._option_string_actions
    options: list[str] = []
    settings: list[str] = []

    rest = deque(arguments)
    while rest:
        argument = rest.popleft()
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            settings.append(argument)
        elif name not in known:
            raise UserError(_no_option(name, value or (rest[0] if rest else "")))
        else:
            value = value if equals else _value_of(known[name], rest)
            options += [name, value] if value else [name]
    return options, settings


def _value_of(option: argparse.Action, rest: deque[str]) -> str:
    """The value that follows an option, which is taken from the rest; "" for one that takes none."""
    if option.nargs == 0:
        return ""

    choices = option.choices
    if option.nargs == "?" and not (rest and choices and rest[0] in choices):
        return str(option.const)

    value = rest.popleft() if rest else ""
    if not value or (choices is not None and value not in choices):
        takes = "a value" if choices is None else f"one of {', '.join(choices)}"
        raise UserError(f"{option.option_strings[0]} takes {takes}, got {value or 'nothing'}; --hydra-help says more")
    return value


def _no_option(name: str, value: str) -> str:
    key = name.lstrip("-").replace("-", "_")
    example = f"{key}={value or '<value>'}" if name.startswith("--") and key else "key=value, e.g. num_steps=20"
    return f"there is no option {name}; settings are given as {example}; --help lists them"


def _as_written(setting: str, sweeping: bool) -> str:
    """A setting whose text Hydra reads as it stands there, unless it is quoted, or several are given for a sweep."""
    key, equals, text = setting.partition("=")
    if (equals and not key.strip("+~ ")) or (not equals and not setting.startswith("~")):
        hint = "a text with blanks wants quotes, e.g. prompt='a red bird'"
        raise UserError(f"settings are given as key=value, got {setting!r}; {hint}")

    is_path = _is_one_of(key, PATHS)
    if not equals or not (is_path or _is_one_of(key, TEXTS)):
        return setting
    if is_path and re.fullmatch(r"\s*(['\"]?)\s*\1\s*", text):
        raise UserError(f"{key}= is empty; give a file or folder, or leave it out")

    # What the user quoted is left alone.
    if text in ("", "null") or QUOTED.fullmatch(text):
        return setting

    if is_path:
        text = re.sub(r"^~(?=/|$)" if not sweeping else r"(?:^|(?<=,))~(?=/|,|$)", lambda _: str(Path.home()), text)

    # Plain where Hydra reads the same text, or values of a sweep; else in quotes, also where something is escaped:
    # a command that repeats this setting comes here again.
    escaped = text if is_path else literal(text)
    read = parsed(f"{key}={escaped}")
    if read is not None and (read.value() == text or (sweeping and read.is_sweep_override())):
        return f"{key}={escaped}"
    return quoted(key, escaped)


def _is_one_of(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key.lstrip("+"), pattern) for pattern in patterns)


def _check_deletions(settings: Sequence[str], catalog: Catalog) -> None:
    """Refuse to delete what a program has to know."""
    needed = {name for program in SCRIPTS for name in (*catalog.groups(program), *catalog.settings(program))}
    for setting in settings:
        if setting.startswith("~") and (key := setting[1:].partition("=")[0]) in needed:
            raise UserError(f"{key} cannot be deleted; give it another value, {key}=<value>, or leave {setting} out")


def _check_choices(settings: Sequence[str], catalog: Catalog) -> None:
    """Refuse a group that is given {}, which chooses nothing and changes nothing: Hydra takes it without a word."""
    for setting in settings:
        key, _, value = setting.partition("=")
        if re.fullmatch(r"\{\s*\}", value.strip()) and catalog.is_group(key):
            raise UserError(f"{setting} chooses nothing; {key} takes one of {', '.join(catalog.options(key))}")


def _check_size(settings: Sequence[str], catalog: Catalog) -> None:
    """Refuse a sweep without jobs, and one that would never end."""
    jobs = 1
    for setting in settings:
        if (read := _sweep(setting)) is None:
            continue
        if (size := _size(read, catalog)) == 0:
            raise UserError(f"{setting} names no value, so that there is nothing to run")
        jobs *= size

    if jobs > LARGEST_SWEEP:
        raise UserError(f"this sweep has {jobs:,} jobs, and at most {LARGEST_SWEEP:,} are taken; give fewer values")


def _size(sweep: Override, catalog: Catalog) -> int:
    """How many values a part of a sweep has; 1 where nobody knows."""
    values: Any = sweep.value()
    if isinstance(values, Glob):
        return len(values.filter(catalog.options(sweep.key_or_group)))
    if isinstance(values, ChoiceSweep):
        return len(values.list)
    if isinstance(values, RangeSweep) and values.start is not None and values.stop is not None:
        span = float(values.stop) - float(values.start)
        return max(0, math.ceil(span / values.step)) if values.step else 0
    return 1


def _with_first_choice(setting: str, catalog: Catalog) -> list[str]:
    """A setting, after the first of its values if it sweeps over the options of a group.

    Hydra composes a configuration for the whole sweep before those of the jobs, and leaves out of it what is swept.
    Settings that only the chosen options have would be refused there. The sweep takes the last of two equal keys.
    """
    read = _sweep(setting)
    if read is None or not read.is_choice_sweep() or not catalog.is_group(read.key_or_group):
        return [setting]
    values: Any = read.value()
    options = values.filter(catalog.options(read.key_or_group)) if isinstance(values, Glob) else None
    first = options[0] if options else next(read.sweep_string_iterator())
    return [f"{read.get_key_element()}={first}", setting]


def _sweep(setting: str) -> Override | None:
    """What Hydra reads in a setting with several values; None for one with a single value."""
    read = parsed(setting) if re.search(r"[,(]", setting) else None
    return read if read is not None and read.is_sweep_override() else None


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
