"""What calibration finds for a model in one domain: the solution for each number of steps, and how it was judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..diffusion.checks import check_count, check_number
from ..diffusion.fingerprint import Fingerprint
from ..diffusion.first_prediction import FirstPrediction, first_prediction_from
from ..diffusion.guidance import Guidance, name_of
from ..diffusion.kept_guidance import KeptGuidance, content_of, factor_between, guidance_from, kept_guidance
from ..diffusion.schedule import NoiseSchedule
from .base import custom_timesteps

OTHER_PROCESS = "another noise process"  # why the weights are left out
LEVELS = 5  # timesteps at which a noise process is compared
OPTIONAL = ("drawn_guidance", "first", "fingerprint", "state_shape", "log_snr", "otherwise")  # in a file
REACH = 2.0  # factor of guidance, up or down, within which calibrated weights are used; see `CalibratedSchedule`


@dataclass(frozen=True)
class Score:
    """A solution's error on held-out noises.

    Attributes:
        mean: Mean over the noises, smaller is better.
        standard_error: Of that mean.
    """

    mean: float
    standard_error: float


@dataclass(frozen=True)
class StoredFirst:
    """Weights of the same timesteps where the prediction at the first one is stored, which saves an evaluation.

    Attributes:
        corrections: (n, K + 1) of the solver's weights, as in `CalibratedSteps`.
        score: The held-out score with them.
    """

    corrections: tuple[tuple[float, ...], ...]
    score: Score


@dataclass(frozen=True)
class CalibratedSteps:
    """The solution for one number of steps, and why it is this one.

    Attributes:
        timesteps: (n,) strictly decreasing from T - 1.
        corrections: (n, K + 1) of the solver's weights, see `solvers.fitted.multistep_rows`; None: DPM-Solver++(2M).
        rule: Name of the rule that made them.
        scores: Name -> held-out score, of that rule and of its rivals.
        stored: The weights that take the place of `corrections` where the first prediction is stored; None: unknown.
    """

    timesteps: tuple[float, ...]
    corrections: tuple[tuple[float, ...], ...] | None
    rule: str
    scores: Mapping[str, Score]
    stored: StoredFirst | None = None

    @property
    def score(self) -> Score:
        """The held-out score."""
        return self.scores[self.rule]


@dataclass(frozen=True)
class CalibratedSchedule:
    """The solutions for a model in one domain.

    Their weights are used where the guidance that draws is within a factor of `REACH` of the calibrated one, at every
    noise level: of an interval, both the weight in it and 1, that outside, count. Guidance of one's own is known by its
    name, and has to be the same. Elsewhere, and for a model that is not quite the calibrated one, the timesteps are
    used alone, with DPM-Solver++(2M): see docs/evidence/guidance.md for what was measured.

    Attributes:
        model: Content hash of the model's file.
        guidance_scale: Guidance that they were calibrated with: a weight >= 0, an `Interval`, or a name.
        domain: Name of the domain whose images were drawn.
        num_train_timesteps: T of the model.
        metric: What the scores are, e.g. `rmse` to the converged solution.
        noises: Noises that the trajectory was measured from.
        held_out: Other noises, which the scores are of.
        steps: n -> solution of n steps, at least one.
        first: What the model predicts at the first timestep, at this guidance; None: not measured.
        fingerprint: Of the network, where `model` is a name that a user gave it; None: it is a hash, or unknown.
        state_shape: (H, W, C) of the states that they were calibrated with; None: as the model itself says.
        log_snr: Of the noise process, at equally spaced timesteps from 0 to T - 1; None: unknown.
        drawn_guidance: Guidance that images are drawn with, in the same way; None: as calibrated.
        otherwise: In what the model that draws differs from the calibrated one, e.g. "another negative prompt"; "":
            in nothing that is known.

    Raises:
        ValueError: for a grid that is none, or a number out of range.
    """

    model: str
    guidance_scale: KeptGuidance
    domain: str
    num_train_timesteps: int
    metric: str
    noises: int
    held_out: int
    steps: Mapping[int, CalibratedSteps]
    first: FirstPrediction | None = None
    fingerprint: Fingerprint | None = None
    state_shape: tuple[int, ...] | None = None
    log_snr: tuple[float, ...] | None = None
    drawn_guidance: KeptGuidance | None = field(default=None, repr=False)
    otherwise: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for name in ("guidance_scale", "drawn_guidance"):
            if isinstance(weight := getattr(self, name), int | float):
                check_number(name, weight, 0)
        check_count("num_train_timesteps", self.num_train_timesteps, 2)
        check_count("noises", self.noises, 2)
        check_count("held_out", self.held_out, 2)
        if self.log_snr is not None and len(self.log_snr) != LEVELS:
            raise ValueError(f"log_snr must be known at {LEVELS} timesteps, got {len(self.log_snr)}")
        if not self.steps:
            raise ValueError("a calibrated schedule needs the grid of at least one number of steps")

        for n, steps in self.steps.items():
            grid = custom_timesteps(steps.timesteps, self.num_train_timesteps)
            if len(grid) != n or grid[0] != self.num_train_timesteps - 1:
                raise ValueError(
                    f"a calibrated grid of {n} steps must have {n} timesteps, from {self.num_train_timesteps - 1} on, "
                    f"got {len(grid)} from {grid[0]:g} on"
                )
            _check_corrections(steps.corrections, n)
            _check_corrections(None if steps.stored is None else steps.stored.corrections, n)

    @property
    def weights_hold(self) -> bool:
        """Whether guidance and model are near enough to the calibrated ones for the weights to help."""
        return self.guidance_factor <= REACH and not self.otherwise

    @property
    def guidance_factor(self) -> float:
        """Largest factor between the guidance that draws and the calibrated one, at any noise level; 1 for the same."""
        return 1.0 if self.drawn_guidance is None else factor_between(self.guidance_scale, self.drawn_guidance)

    def used(self, n: int) -> CalibratedSteps | None:
        """The solution of n steps, if there is one; without its weights where they do not hold."""
        steps = self.steps.get(n)
        return steps if steps is None or self.weights_hold else replace(steps, corrections=None)

    def with_stored_first(self, n: int) -> CalibratedSteps | None:
        """The solution of n steps whose first prediction is stored, by the weights for it.

        Returns:
            The solution; None where none was measured, where the weights do not hold, and where n - 1 steps, which
            take as many evaluations, were not measured to be worse by more than the standard error.
        """
        steps, rival = self.steps.get(n), self.steps.get(n - 1)
        if not self.weights_hold or steps is None or steps.stored is None or rival is None:
            return None

        found, other = steps.stored.score, rival.score
        better = other.mean - found.mean > math.hypot(other.standard_error, found.standard_error)
        return replace(steps, corrections=steps.stored.corrections) if better else None

    def drawn_at(self, guidance: float | Guidance) -> CalibratedSchedule:
        """The same solutions, to draw with at some guidance: a number >= 0, or `Guidance`."""
        drawn = kept_guidance(guidance) if isinstance(guidance, Guidance) else guidance
        return replace(self, drawn_guidance=None if drawn == self.guidance_scale else drawn)

    def drawn_on(self, process: NoiseSchedule) -> CalibratedSchedule:
        """The same solutions, to draw with a noise process of T timesteps."""
        if self.otherwise not in ("", OTHER_PROCESS):
            return self
        same = self.log_snr is None or np.allclose(self.log_snr, log_snr_of(process), rtol=0, atol=0.01)
        otherwise = "" if same else OTHER_PROCESS
        return self if otherwise == self.otherwise else replace(self, otherwise=otherwise)

    @property
    def as_calibrated(self) -> CalibratedSchedule:
        """The same solutions, whatever they are drawn with."""
        return replace(self, drawn_guidance=None, otherwise="")

    def content(self) -> dict[str, Any]:
        """What `schedule_from` makes a schedule of."""
        content = asdict(replace(self, first=None))
        for name in ("guidance_scale", "drawn_guidance"):
            content[name] = content_of(getattr(self, name))
        content["first"] = None if self.first is None else self.first.content()

        # What is not known is left out, as in files of versions that did not ask for it.
        optional = [(content, name) for name in OPTIONAL]
        for found, name in [*optional, *((steps, "stored") for steps in content["steps"].values())]:
            if found[name] in (None, ""):
                del found[name]
        return content

    @property
    def origin(self) -> str:
        """For whom it was calibrated, in a few words."""
        return f"calibrated for {self.domain or 'this model'} at guidance {name_of(self.guidance_scale)}"

    def __str__(self) -> str:
        """Its origin, whether the guidance that draws is another, and whether only its timesteps are used."""
        if self.weights_hold:
            drawn = "" if self.drawn_guidance is None else f", the nearest to {name_of(self.drawn_guidance)}"
            return self.origin + drawn if self.guidance_factor > 1 else self.origin
        if self.otherwise or self.drawn_guidance is None:
            return f"{self.origin} with {self.otherwise}; its timesteps only"
        return f"{self.origin}; at guidance {name_of(self.drawn_guidance)} its timesteps only"


def log_snr_of(process: NoiseSchedule) -> tuple[float, ...]:
    """Log-SNR of a noise process at `LEVELS` timesteps, by which `CalibratedSchedule` knows it."""
    timesteps = np.linspace(0, process.num_train_timesteps - 1, LEVELS)
    return tuple(round(level, 4) for level in process.log_snr(timesteps).tolist())


def schedule_from(content: Mapping[str, Any]) -> CalibratedSchedule:
    """A schedule from its `content`, whether or not it has been JSON since.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is none.
    """
    rest = dict(content)
    steps = {int(n): _steps(**found) for n, found in rest.pop("steps").items()}
    first = rest.pop("first", None)
    for name in ("guidance_scale", "drawn_guidance"):
        if rest.get(name) is not None:
            rest[name] = guidance_from(rest[name])
    if (known := rest.pop("fingerprint", None)) is not None:
        rest["fingerprint"] = Fingerprint(tuple(known["numbers"]), tuple(known["shape"]), bool(known["conditioned"]))
    if (shape := rest.pop("state_shape", None)) is not None:
        rest["state_shape"] = tuple(map(int, shape))
    if (levels := rest.pop("log_snr", None)) is not None:
        rest["log_snr"] = tuple(map(float, levels))
    return CalibratedSchedule(steps=steps, first=None if first is None else first_prediction_from(first), **rest)


def _steps(
    timesteps: Sequence[float],
    corrections: Sequence[Sequence[float]] | None,
    rule: str,
    scores: dict[str, dict[str, float]],
    stored: dict[str, Any] | None = None,
) -> CalibratedSteps:
    known = None if stored is None else StoredFirst(_rows(stored["corrections"]), Score(**stored["score"]))
    judged = {name: Score(**found) for name, found in scores.items()}
    return CalibratedSteps(tuple(timesteps), None if corrections is None else _rows(corrections), rule, judged, known)


def _rows(corrections: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in corrections)


def _check_corrections(rows: tuple[tuple[float, ...], ...] | None, n: int) -> None:
    if rows is None:
        return
    widths = {len(row) for row in rows}
    if len(rows) != n or len(widths) != 1 or min(widths) < 3 or not np.isfinite(rows).all():
        raise ValueError(f"the corrections of {n} steps must be {n} rows of equally many finite numbers, at least 3")
