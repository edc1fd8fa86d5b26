"""The types of settings: a value of another type and a misspelt key are refused before anything runs.

A constructor declares its arguments once, and the settings beside its `_target_` get their types from there, whoever
wrote it. This is done lazily, only for what was chosen.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, make_dataclass
from enum import Enum
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from hydra._internal.utils import _locate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError
from ..spelling import did_you_mean
from .wrong_values import in_words, wrong_value

PLAIN = (int, float, str, bool)


def typed(cfg: DictConfig) -> DictConfig:
    """A copy of a configuration in which every setting has the type that its constructor declares.

    Args:
        cfg: Composed by Hydra. Nodes with a `_target_` may stand in others.

    Raises:
        UserError: for a value of another type, or a setting that does not exist, with the one that was probably meant.
    """
    schema = OmegaConf.structured(_schema_of(cfg, ""))
    try:
        return cast(DictConfig, OmegaConf.merge(schema, OmegaConf.to_container(cfg, resolve=False)))
    except OmegaConfBaseException as error:
        raise UserError(wrong_value(error) or str(error).partition("\n")[0]) from error


def target_of(node: Any) -> Any:
    """What a node builds; None if it builds nothing, or its `_target_` cannot be imported, which `build` explains."""
    # Not `hydra.utils.get_object`, which logs three lines about a name that it does not find.
    path = node.get("_target_") if OmegaConf.is_dict(node) else None
    with suppress(Exception):
        return None if path is None else _locate(path)
    return None


def arguments_of(target: Any) -> tuple[dict[str, Any], bool]:
    """The arguments of a function or a class with their annotations, and whether it takes any others besides.

    An annotation that cannot be evaluated, e.g. one that is imported for type checkers only, is Any.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # not every built-in function says what it takes
        return {}, True
    sources = [*reversed(target.__mro__), target.__init__] if inspect.isclass(target) else [target]
    hints = {name: hint for source in sources for name, hint in _annotations(source).items()}

    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    arguments = {p.name: _type_of(hints.get(p.name, Any), p.default) for p in parameters if p.kind not in many}
    return arguments, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _schema_of(node: DictConfig, path: str) -> type:
    """The type of a node: its own where it has one, else the arguments of what it builds; of settings that it has."""
    own = OmegaConf.get_type(node)
    if is_dataclass(own):
        arguments, open_ = {f.name: Any for f in fields(own)}, False
    else:
        arguments, open_ = arguments_of(target_of(node))
    return _described(node, arguments, open_, path, bases=(own,) if is_dataclass(own) else ())


def _described(
    node: DictConfig, arguments: Mapping[str, Any], open_: bool, path: str, bases: tuple[type, ...] = ()
) -> type:
    """A dataclass with the types of a node's settings."""
    described: list[tuple[str, Any, Any]] = []
    for key in map(str, node):
        if key not in arguments and not open_ and not key.startswith("_"):
            meant = did_you_mean(key, [name for name in arguments if not name.startswith("_")])
            hint = f"; did you mean {path + meant!r}?" if meant else ""
            raise UserError(f"there is no setting {path + key!r}{hint}; --help lists them")

        child = node._get_node(key)
        kind = _kind_of(child, arguments.get(key, Any), f"{path}{key}.")
        if kind is not Any or not bases:
            described.append((key, kind, MISSING))
    return make_dataclass("Settings", described, bases=bases)


def _kind_of(child: Any, hint: Any, path: str) -> Any:
    """The type of a setting: that of its argument, as far as OmegaConf knows such types; else any."""
    empty = child._is_none() or child._is_missing() or child._is_interpolation()
    settings = isinstance(child, DictConfig) and not empty
    if (owner := _owner_of(hint)) is not None:
        return _described(child if settings else OmegaConf.create(), *arguments_of(owner), path)

    # A node of its own, which builds something or has a schema.
    if settings and ("_target_" in child or is_dataclass(OmegaConf.get_type(child))):
        return _schema_of(child, path)

    # A dictionary of values: OmegaConf does not look into it.
    held = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is dict), dict[str, Any])
    if settings and (inner := get_args(held)[1]) is not Any:
        for key, value in child.items_ex(resolve=False):
            if OmegaConf.is_config(value):
                raise UserError(f"{path}{key} must be {in_words(inner)}, got {value}; --help lists the settings")

    return _type_of(hint, None) if child._is_interpolation() else hint


def _annotations(source: Any) -> dict[str, Any]:
    """The annotations of a function, or of a class without those of its bases."""
    module = sys.modules.get(getattr(source, "__module__", None) or "")
    names = getattr(source, "__globals__", None) or (vars(module) if module else {})
    found: dict[str, Any] = {}
    for name, hint in inspect.get_annotations(source).items():
        with suppress(Exception):
            found[name] = eval(hint, dict(names)) if isinstance(hint, str) else hint
    return found


def _owner_of(hint: Any) -> Any:
    """Whose arguments a dictionary holds, said as Annotated[dict, ...]; None for other annotations."""
    owner = get_args(hint)[1] if get_origin(hint) is Annotated else None
    return owner if callable(owner) else None


def _type_of(hint: Any, default: Any) -> Any:
    """The type of an argument's setting, which may be null if that is the default."""
    if _owner_of(hint) is not None:
        return hint
    kind = _plain(hint)
    return kind | None if default is None and kind is not Any else kind


def _plain(hint: Any) -> Any:
    """An annotation as far as OmegaConf knows such types; Any for others."""
    origin, inner = get_origin(hint), [_plain(a) for a in get_args(hint) if a is not NoneType]

    if hint in PLAIN or (isinstance(hint, type) and issubclass(hint, Enum)):
        return hint
    if isinstance(hint, type) and issubclass(hint, PathLike):
        return str

    if origin is Annotated:
        return inner[0]
    if origin is Literal:
        kinds = {type(value) for value in get_args(hint) if value is not None}
        return kinds.pop() if len(kinds) == 1 else Any
    if origin in (Union, UnionType):
        kinds = set(inner)
        kind = kinds.pop() if len(kinds) == 1 else Any
        return kind | None if kind is not Any and NoneType in get_args(hint) else kind

    if origin in (list, tuple, Sequence, Collection, Iterable):
        return list.__class_getitem__(inner[0]) if inner and inner[0] in PLAIN else Any
    if origin in (dict, Mapping):  # null leaves an entry out
        return dict.__class_getitem__((str, inner[1] | None if inner[1] in PLAIN else Any))
    return Any
