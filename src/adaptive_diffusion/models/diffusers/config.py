"""The base of all architectures: a frozen dataclass from a `config.json` of diffusers or transformers.

Missing keys get the defaults of the reference class. An option that is not supported is refused by name, because a
model without it would draw wrong images.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from ...diffusion.checks import check_count

log = logging.getLogger(__name__)

MOST_LAYERS = 2000  # no real network has more


def _tuples(value: Any) -> Any:
    """Convert JSON lists, also nested lists, to tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of a model; the fields of a subclass have the names of the reference class's arguments.

    Attributes:
        ONLY: Further options of the reference class, with the values that are supported.
        IGNORED: Further options without effect at inference.
        WARN_UNKNOWN: Whether to warn of other keys.
    """

    ONLY: ClassVar[dict[str, tuple[Any, ...]]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    WARN_UNKNOWN: ClassVar[bool] = True

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from the content of a `config.json`; keys with a leading `_` are skipped.

        Raises:
            ValueError: for a value that is not supported or out of range, with the name of the option.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        given = {key: _tuples(value) for key, value in values.items() if not key.startswith("_")}
        for key in given.keys() & cls.ONLY.keys():
            levels = given[key] if isinstance(given[key], tuple) and given[key] else (given[key],)
            if any(level not in cls.ONLY[key] for level in levels):
                accepted = " or ".join(repr(value) for value in cls.ONLY[key])
                raise ValueError(f"{key} = {given[key]!r} is not supported, only {accepted}")

        unknown = sorted(given.keys() - names - cls.ONLY.keys() - cls.IGNORED)
        if unknown and cls.WARN_UNKNOWN:
            log.warning("unknown option %s in config.json: ignored", ", ".join(unknown))

        return cls(**{key: value for key, value in given.items() if key in names})

    def _count(self, *names: str) -> None:
        """Check that the named fields are whole numbers, at least 1."""
        for name in names:
            check_count(name, getattr(self, name), 1)

    def _names(self, name: str, accepted: Sequence[str | None]) -> None:
        """Check that the named field, or each of its entries, is one of `accepted`."""
        value = getattr(self, name)
        for entry in value if isinstance(value, tuple) else (value,):
            if entry not in accepted:
                options = ", ".join("null" if option is None else option for option in accepted)
                raise ValueError(f"{name}: {entry!r} is not supported, only {options}")

    def _widths(self, name: str, divisor_name: str) -> None:
        """Check that the named field is a list of positive multiples of the divisor."""
        widths, divisor = getattr(self, name), check_count(divisor_name, getattr(self, divisor_name), 1)
        if not isinstance(widths, tuple) or not widths:
            raise ValueError(f"{name} must be a list of channel counts, got {widths!r}")

        for width in widths:
            if check_count(name, width, 1) % divisor:
                raise ValueError(f"{name}: {width} is not a multiple of {divisor_name} = {divisor}")


def check_layers(count: float) -> None:
    """Check the number of layers before they are built, because a small file could ask for any number.

    Raises:
        ValueError: for more than `MOST_LAYERS`.
    """
    if count > MOST_LAYERS:
        raise ValueError(f"it describes {count} layers, and at most {MOST_LAYERS} are built")


def per_level(name: str, value: Any, levels: int) -> tuple[Any, ...]:
    """One entry per resolution level; a single value is repeated.

    Raises:
        ValueError: for a list of another length.
    """
    if not isinstance(value, tuple):
        return (value,) * levels
    if len(value) != levels:
        raise ValueError(f"{name} must have one entry for each of {levels} levels, got {len(value)}")
    return value
