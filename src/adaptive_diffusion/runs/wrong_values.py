"""What a value of the wrong type should have been, from the schema of its setting."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf.errors import ConfigTypeError, OmegaConfBaseException, ValidationError

WORDS: dict[Any, tuple[str, str]] = {  # type -> one, several
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a text", "texts"),
}


def wrong_value(error: BaseException) -> str | None:
    """One sentence about a value that its setting does not take.

    Args:
        error: What Hydra or OmegaConf raised.

    Returns:
        The sentence; None for another kind of error, or where no schema says what is taken.
    """
    links = (error, error.__cause__, error.__context__)
    cause = next((e for e in links if isinstance(e, (ValidationError, ConfigTypeError)) and e.full_key), None)
    taken = None if cause is None else _type_of(cause)
    if cause is None or taken is None:
        return None

    override = re.search(r"Error merging override \+*([^=\s]+)=(.*)", str(error))
    place = re.search(r"In '([\w/]+)'", str(error))
    key = str(cause.full_key).partition("[")[0]
    if override and override[1] == key:
        given = override[2] or "nothing"
    else:
        given = "null" if repr(cause.value) == "None" else repr(cause.value)  # also of a node that holds None
    where = f"conf/{place[1]}.yaml: " if place and not override else ""
    return f"{where}{key} must be {in_words(taken)}, got {given}; --help lists the settings"


def _type_of(cause: OmegaConfBaseException) -> Any:
    """The declared type of the setting, or None."""
    if cause.key is not None and is_dataclass(cause.object_type):
        return get_type_hints(cause.object_type).get(str(cause.key))
    kind = _without_null(cause.ref_type)
    if get_origin(kind) is dict and cause.key is not None:
        return get_args(kind)[1]
    return cause.ref_type if get_origin(kind) in (list, dict) else None


def _without_null(kind: Any) -> Any:
    kinds = [k for k in get_args(kind) if k is not NoneType]
    return kinds[0] if NoneType in get_args(kind) else kind


def in_words(kind: Any) -> str:
    """A type as a user reads it."""
    plain = _without_null(kind)
    null = "" if plain is kind else " or null"
    if get_origin(plain) is list:
        several = WORDS[get_args(plain)[0]][1]
        return f"a list of {several} in [ ]{null}"
    if isinstance(plain, type) and issubclass(plain, Enum):
        return f"one of {', '.join(plain.__members__)}{null}"
    return WORDS.get(plain, ("a group of settings in { }", ""))[0] + null
