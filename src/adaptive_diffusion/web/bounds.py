"""What a request of the page may ask for, and the settings of sample.py that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..diffusion.checks import check_choice, check_count, check_name, check_number, check_seed
from ..diffusion.conditions import NO_LABEL
from ..errors import UserError
from ..program import in_domain
from ..runs.checks import as_user_error
from ..runs.settings_text import setting

MOST_IMAGES = 16  # of a run
MOST_STEPS = 100
MOST_GUIDANCE = 30.0
MOST_CELLS = 16  # of a sheet
FEWEST_EPISODES, MOST_EPISODES = 10, 100  # of a tuning
LONGEST_PROMPT = 300  # characters
LONGEST_TEXT = 8000  # characters of the settings in an image that is handed in
SIZES = (64, 128, 256, 512)  # pixels of a side, besides the size at which the model draws
LARGEST_UPLOAD = "8mb"
AT_ONCE = 12  # requests that are answered, all but one of which wait for the thread that computes
WAITING = 12  # further requests that wait; more are refused
MOST_PREVIEWS = 100  # files of an open page, besides those of its runs
MOST_BROWSERS = 50  # whose runs are listed; see `Sessions` for which gives way
KEPT = 24 * 3600  # seconds for which a run is listed, and those of a browser that is not used


@dataclass(frozen=True)
class Offer:
    """A model that the page draws with.

    Attributes:
        name: On the page.
        settings: Of sample.py that choose it.
        domains: What it draws, with the labels of each; {} where nobody says.
        identity: Of the model; "" where it has none.
    """

    name: str
    settings: tuple[str, ...]
    domains: Mapping[str, Sequence[str]]
    identity: str = ""

    @property
    def first(self) -> str:
        """The domain that is chosen at first; "" where there is none."""
        return "landscapes" if "landscapes" in self.domains else next(iter(self.domains), "")


@dataclass(frozen=True)
class Offers:
    """All that can be chosen on the page.

    Attributes:
        models: At least one.
        schedulers: Options of `scheduler`.
        guidance: Options of `guidance`.
        common: Settings that every run has, as they were given when the server started.
        grids: Options of `grid`.
    """

    models: tuple[Offer, ...]
    schedulers: tuple[str, ...]
    guidance: tuple[str, ...]
    common: tuple[str, ...] = ()
    grids: tuple[str, ...] = ("own",)

    def model(self, name: Any) -> Offer:
        """The model of a name.

        Raises:
            UserError: for a name that is not offered.
        """
        names = {offer.name: offer for offer in self.models}
        with as_user_error():
            check_choice("model", name, list(names))
        return names[name]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One run, as the controls of the page say. The fields are in the order of the controls.

    Attributes:
        model: Name of an offer.
        prompt: What to draw, in words; "" leaves it to domain and label.
        domain: A domain of the model; "" where it has none.
        label: A label of the domain, `NO_LABEL`, or "" for labels by their share.
        scheduler: An option of `scheduler`.
        steps: Of the scheduler.
        grid: An option of `grid`.
        guidance: An option of `guidance`.
        weight: Of guidance; None: the model's own.
        stored: Whether a stored first prediction is taken; schedulers that know none (see `STORING`) ignore it.
        images: To draw.
        seed: Of the noise.
        size: Side of the images, pixels; 0: as the model draws.
    """

    model: str
    prompt: str = ""
    domain: str = ""
    label: str = ""
    scheduler: str = "adaptive"
    steps: int = 10
    grid: str = "own"
    guidance: str = "default"
    weight: float | None = None
    stored: bool = False
    images: int = 4
    seed: int = 0
    size: int = 0

    @classmethod
    def of(cls, values: Sequence[Any]) -> Wish:
        """The values of the controls in their order, unchecked.

        Raises:
            UserError: for a weight that is no number, or a seed that the page could not read as one.
        """
        given = dict(zip(FIELDS, values, strict=True))
        if given["seed"] is None:
            raise UserError("seed must be a whole number, and its field holds none")
        texts = {name: "" if given[name] is None else given[name] for name in TEXTS}
        return cls(**{**given, **texts, "weight": _weight(given["weight"]), "stored": bool(given["stored"])})

    def checked(self, offers: Offers) -> Wish:
        """The same with whole numbers as `int`, if it is within bounds.

        Raises:
            UserError: with one sentence.
        """
        offer = offers.model(self.model)
        with as_user_error():
            for name in TEXTS:
                if getattr(self, name):
                    check_name(name, getattr(self, name))
            if len(self.prompt) > LONGEST_PROMPT:
                raise UserError(f"prompt must have at most {LONGEST_PROMPT} characters, got {len(self.prompt)}")
            if self.domain or offer.domains:
                check_choice("domain", self.domain, list(offer.domains))
            if self.label:
                check_choice("label", self.label, [NO_LABEL, *offer.domains.get(self.domain, ())])
            check_choice("scheduler", self.scheduler, offers.schedulers)
            check_choice("grid", self.grid, offers.grids)
            check_choice("guidance", self.guidance, offers.guidance)
            size = check_count("size", self.size, 0)
            check_choice("size", str(size), [str(side) for side in (0, *SIZES)])
            return replace(
                self,
                steps=check_count("steps", self.steps, 1, MOST_STEPS),
                weight=None if self.weight is None else check_number("weight", self.weight, 0, MOST_GUIDANCE),
                images=check_count("images", self.images, 1, MOST_IMAGES),
                seed=check_seed("seed", self.seed),
                size=size,
            )

    def settings(self, offers: Offers) -> list[str]:
        """The settings of sample.py, once it is checked; a prompt chooses domain and label itself."""
        domain = in_domain(self.domain) if self.domain else {}
        what = {"prompt": self.prompt} if self.prompt else {**domain, "label": self.label}
        how = {
            "scheduler": self.scheduler,
            "num_steps": self.steps,
            "grid": "" if self.grid == "own" else self.grid,
            "guidance": "" if self.guidance == "default" else self.guidance,
            "guidance_scale": "" if self.weight is None else f"{self.weight:g}",
            "num_samples": self.images,
            "seed": self.seed,
            "image_size": self.size or "",
        }
        texts = [setting(name, text) for name, text in what.items() if text]
        given = [*texts, *(f"{name}={value}" for name, value in how.items() if value != "")]
        first = [STORED] if self.stored and self.scheduler in STORING else []
        return [*offers.common, *offers.model(self.model).settings, *given, *first, "metrics=none"]


FIELDS = tuple(field.name for field in fields(Wish))  # in the order of the controls
HOW = ("scheduler", "steps", "grid", "guidance", "weight", "stored")  # the fields that say how something is drawn
TEXTS = ("model", "prompt", "domain", "label", "scheduler", "grid", "guidance")
FIRST_EVALUATION = "scheduler.first_evaluation"
STORED = f"{FIRST_EVALUATION}=stored"
STORING = ("adaptive", "tuned")  # schedulers with this setting
KEYS = {  # of sample.py -> of a wish
    **{name: name for name in ("prompt", "domain", "label", "scheduler", "grid", "guidance", "seed")},
    FIRST_EVALUATION: "stored",
    "domain.name": "domain",
    "num_steps": "steps",
    "guidance_scale": "weight",
    "num_samples": "images",
    "image_size": "size",
}


def _weight(given: Any) -> float | None:
    """The weight in a field of text, which is empty for the default."""
    try:
        return None if given in (None, "") else float(given)
    except (TypeError, ValueError):
        raise UserError(f"weight must be a number, or empty for the default, got {given!r:.40}") from None
