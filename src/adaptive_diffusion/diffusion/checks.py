"""Argument checks that end in one sentence: what was given and what is accepted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any
from unicodedata import category

import numpy as np

LARGEST_GUIDANCE = 1000.0
LARGEST_IMAGE = 4096  # side, pixels
STRONG_GUIDANCE = 20.0  # above it, images of the shipped model turn into noise; 1 to 15 are common
CONTROL = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and line ends


def check_count(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int, if it is a whole number in [low, high]; booleans and fractions are refused."""
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool) or not whole or value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be a whole number, {span}, got {value!r}")
    return int(value)


def check_seed(name: str, value: Any) -> int:
    """`value` as an int, if every generator takes it as a seed, MLX's and PyTorch's and NumPy's old one: 32 bits."""
    return check_count(name, value, 0, 2**32 - 1)


def check_state_shape(value: Any) -> tuple[int, int, int]:
    """`value` as a tuple of ints, if it is (height, width, channels) of states."""
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"state_shape must be (height, width, channels), got {value!r:.80}")
    height, width, channels = value
    return (
        check_count("height of state_shape", height, 1),
        check_count("width of state_shape", width, 1),
        check_count("channels of state_shape", channels, 1),
    )


def check_class_ids(condition: Any, classes: Sequence[int]) -> None:
    """Refuse conditions that are no class ids of a network; MLX would read what lies beyond its tables.

    Args:
        condition: (B, K) class ids.
        classes: (K,) classes of each column, numbered from 1, and 0 for none; () for a network without classes.

    Raises:
        ValueError: for another shape or type, or ids out of range.
    """
    if not classes:
        raise ValueError("the model was trained without classes, so that it takes no condition; leave it out")
    ids = np.array(condition)
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.shape[1] != len(classes):
        raise ValueError(
            f"a condition must be whole numbers of the shape (B, {len(classes)}), class ids of each image, got "
            f"{ids.dtype} of the shape {ids.shape}"
        )
    for k, most in enumerate(classes):
        if ids.size and not 0 <= ids[:, k].min() <= ids[:, k].max() <= most:
            raise ValueError(f"column {k} of the condition must be class ids from 0 to {most}, got {ids[:, k]}")


def check_counts(name: str, values: Any, low: int) -> tuple[int, ...]:
    """`values` as a tuple of ints, if they are a list of whole numbers >= `low`."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f"{name} must be a list of whole numbers, got {values!r:.80}")
    return tuple(check_count(f"each of {name}", value, low) for value in values)


def check_widths(values: Any) -> tuple[int, ...]:
    """`values` as a tuple of ints, if they are numbers of channels of the levels of a network."""
    if not (widths := check_counts("widths", values, 1)):
        raise ValueError("widths must name at least one number of channels, got none")
    return widths


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False
) -> float:
    """`value` as a float, if it is a finite number in [low, high], or in (low, high] with `above`."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high or (above and value == low):
        left = f", greater than {low:g}" if above else f", at least {low:g}" if low > -math.inf else ""
        right = "" if high == math.inf else f"{' and' if left else ','} at most {high:g}"
        kind = "a finite number" if number and math.isinf(value) else "a number"
        raise ValueError(f"{name} must be {kind}{left}{right}, got {value!r}")
    return float(value)


def check_guidance(value: Any) -> float:
    """`value` as a float, if it is a weight of classifier-free guidance: in [0, 1000]."""
    return check_number("guidance_scale", value, 0, LARGEST_GUIDANCE)


def check_name(name: str, value: Any, *, of_file: bool = False) -> str:
    """`value`, if it is text in one line without control characters; with `of_file`, if files can be named by it."""
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{name} must hold more than spaces, got {value!r:.80}")
    if not isinstance(value, str) or any(category(sign) in CONTROL for sign in value):
        raise ValueError(f"{name} must be text in one line, without control characters, got {value!r:.80}")
    if of_file and (set(value) & set("/\\") or value.startswith(".")):
        raise ValueError(
            f"{name} must not contain / or \\, nor begin with a dot, since files are named by it, got {value!r}"
        )
    return value


def check_flag(name: str, value: Any) -> bool:
    """`value` as a bool, if it is true or false; any text would count as true, "no" as well."""
    if value not in (True, False):
        raise ValueError(f"{name} must be true or false, got {value!r:.80}")
    return bool(value)


def check_distinct(name: str, values: Sequence[Any]) -> None:
    """Refuse values of which one is given twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"{name} must name each value once, got {', '.join(map(str, values))}")


def check_choice(name: str, value: Any, options: Sequence[str]) -> None:
    """Refuse a value that is not one of `options`."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
