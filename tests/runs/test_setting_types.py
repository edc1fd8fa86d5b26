"""Settings have the types of the arguments that they become, whoever wrote the constructor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from omegaconf import DictConfig, OmegaConf

from adaptive_diffusion.errors import UserError
from adaptive_diffusion.runs.setting_types import typed

if TYPE_CHECKING:
    from decimal import Decimal


class Colour(Enum):
    RED = 1


@dataclass
class Base:
    steps: int = 3
    ratio: float | None = None


@dataclass
class Of:
    width: int = 1


@dataclass
class Many(Base):
    file: str | Path = "x"
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    sizes: Sequence[int] = ()
    names: Mapping[str, str] | None = None
    only_for_checkers: Decimal | None = None
    unit: Annotated[float, "seconds"] = 1.0
    of: Annotated[dict[str, Any], Of] | Any = None
    inner: Annotated[dict[str, Any], Of] = None  # type: ignore[assignment]


class Loose:
    def __init__(self, power: int, **more: Any):
        pass


def part(target: type = Many, **settings: Any) -> DictConfig:
    return typed(OmegaConf.create({"part": {"_target_": f"test_setting_types.{target.__name__}", **settings}}))


def test_values_become_what_the_annotation_says():
    given = part(
        steps="4", ratio=2, file=5, colour="RED", sizes=[1, "2"], names={"a": "b", "c": None}, inner={"width": 2}
    )
    found = OmegaConf.to_container(given)["part"]
    assert type(found["ratio"]) is float
    assert {k: found[k] for k in ("steps", "file", "colour", "sizes")} == {
        "steps": 4,
        "file": "5",
        "colour": Colour.RED,
        "sizes": [1, 2],
    }
    assert (found["names"], found["inner"]) == ({"a": "b", "c": None}, {"width": 2})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 1.5}, "part.steps must be a whole number, got 1.5"),
        ({"steps": None}, "part.steps must be a whole number, got null"),
        ({"ratio": "wide"}, "part.ratio must be a number or null, got 'wide'"),
        ({"colour": "BLUE"}, "part.colour must be one of RED"),
        ({"kind": [1]}, "part.kind must be a text"),
        ({"sizes": 3}, "part.sizes must be a list of whole numbers"),
        ({"unit": "s"}, "part.unit must be a number"),
        ({"names": {"a": [1]}}, "part.names.a must be a text or null"),
        ({"inner": {"width": "x"}}, "part.inner.width must be a whole number"),
        ({"inner": {"widht": 3}}, "there is no setting 'part.inner.widht'; did you mean 'part.inner.width'?"),
        ({"step": 3}, "there is no setting 'part.step'; did you mean 'part.steps'?"),
        ({"of": {"_target_": "test_setting_types.Of", "width": "x"}}, "part.of.width must be a whole number"),
    ],
)
def test_a_wrong_value_or_name_is_told_of_by_its_full_name(settings, told):
    with pytest.raises(UserError) as error:
        part(**settings)
    assert str(error.value).startswith(told)


def test_what_cannot_be_known_is_left_alone():
    assert part(only_for_checkers="1.5", of=[1]).part.of == [1]
    assert part(Loose, power="2", anything="goes").part == {
        "_target_": "test_setting_types.Loose",
        "power": 2,
        "anything": "goes",
    }
    unknown = OmegaConf.create({"part": {"_target_": "nowhere.Nothing", "x": 1}, "number": 1})
    assert typed(unknown) == unknown


def test_a_reference_stays_a_reference_until_it_is_used():
    cfg = typed(OmegaConf.create({"n": None, "part": {"_target_": "test_setting_types.Many", "steps": "${n}"}}))
    assert cfg.part.steps is None
    cfg.n = 7
    assert cfg.part.steps == 7
