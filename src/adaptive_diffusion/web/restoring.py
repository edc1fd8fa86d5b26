"""What settings of sample.py, which an image may carry, mean on the page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from ..errors import UserError
from ..runs.settings_text import read_literal
from .bounds import FIRST_EVALUATION, KEYS, LONGEST_TEXT, MOST_IMAGES, STORED, Offers, Wish


def wish_of(settings: Iterable[Any], offers: Offers) -> tuple[Wish, list[str]]:
    """What an image says that drew it, as far as the page has a control for it.

    Args:
        settings: `key=value`, from a file that anybody may have written.
        offers: What there is.

    Returns:
        The wish, checked, and the settings that were left out.

    Raises:
        UserError: for a model that is not offered, and for values out of bounds.
    """
    rest = [str(each) for each in settings]
    if sum(map(len, rest)) > LONGEST_TEXT:
        raise UserError(f"the settings in the image are longer than {LONGEST_TEXT} characters")

    chosen = [each for each in rest if each.partition("=")[0] == "model" or each.startswith("model.")]
    fitting = [offer for offer in offers.models if _of_model(offer.settings) == _of_model(chosen)]
    if not fitting:
        raise UserError(
            f"the image was drawn with {' '.join(chosen) or 'the shipped model'}, which is not offered here"
        )

    values: dict[str, Any] = {"images": MOST_IMAGES}  # as many as sample.py draws unless it is told
    left_out: list[str] = []
    prompted, named = (any(each.startswith(key) for each in rest) for key in ("prompt=", "domain.name="))
    for each in rest:
        key = each.partition("=")[0]
        if key in ("domain", "domain.name") and prompted:  # on the page, the prompt alone chooses
            left_out.append(each)
        elif key in ("domain", "domain.description") and named:
            continue
        elif key == FIRST_EVALUATION:
            values["stored"] = each == STORED
            if each not in (STORED, f"{key}=network"):
                left_out.append(each)
        elif key in KEYS:
            values[KEYS[key]] = value_of(each)
        elif each not in (*chosen, "metrics=none", *offers.common):
            left_out.append(each)

    if values.get("scheduler") == "tuned" and "steps" not in values:
        left_out.append("the number of steps that was tuned")

    offer = fitting[0]
    values = {name: value for name, value in values.items() if value is not None}
    if "domain" not in values:
        values["domain"] = offer.first
    return Wish(model=offer.name, **values).checked(offers), left_out


def _of_model(settings: Iterable[str]) -> list[str]:
    """Settings that choose a model in one order, with the whole path of its file; links are not followed."""
    whole = (f"model.path={os.path.abspath(str(value_of(s)))}" if s.startswith("model.path=") else s for s in settings)
    return sorted(whole)


def value_of(given: str) -> Any:
    """What Hydra reads in a setting, if that is one text or number."""
    value: Any = object()
    with suppress(HydraException):
        value = OverridesParser.create().parse_override(given).value()
    if isinstance(value, QuotedString | str):
        value = read_literal(str(value.text if isinstance(value, QuotedString) else value))
    if not isinstance(value, str | int | float | None):
        raise UserError(f"the image holds a setting that cannot be read: {given:.80}")
    return value
