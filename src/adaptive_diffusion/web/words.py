"""What the page says of runs: commands, how far they are, what they cost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .. import program
from ..io.addresses import without_login
from ..io.counted import count
from ..metrics.quality import DETAILS
from ..sampling.timing import duration
from .bounds import KEYS, value_of
from .jobs import PREPARING, WAITING, Drawn, Progress, Steps

DOING = {
    "evaluation": "Calibrating: evaluation",
    "episode": "Searching: episode",
    "held-out batch": "Measuring on held-out noises: batch",
    "solver step": "Solving to convergence: step",
    "round": "Verifying: round",
}


def command(settings: Sequence[str], name: str = "sample") -> str:
    """The command that does the same, without passwords."""
    return f"{program.command(name)} {shlex.join(map(without_login, settings))}"


def in_words(progress: Progress) -> str:
    """How far a run is."""
    if progress == PREPARING:
        return "Preparing."
    if progress.unit == WAITING:
        return f"Waiting for {count(progress.done, 'other run')}."
    total = f" of {progress.total:,}" if progress.total else ""
    left = "" if progress.left is None else f", {duration(progress.left)} left"
    return f"{DOING.get(progress.unit, progress.unit.capitalize())} {progress.done:,}{total}{left}"


def summary(drawn: Drawn) -> str:
    """What a run cost, and what is to be known of it."""
    m = drawn.metrics
    steps, passes = count(round(m[f"{DETAILS}steps"]), "step"), count(round(m["sampling/passes"]), "pass")
    spent = f"{steps}, {passes} an image, {m[f'{DETAILS}seconds']:.2f} s{_in_brackets(drawn.source)}."
    return "\n\n".join([spent, *(f"Note: {note}" for note in drawn.notes)])


def title(drawn: Drawn) -> str:
    """A run in a few words."""
    named = {key: str(value_of(each)) for each in drawn.settings if (key := each.partition("=")[0]) in KEYS}
    what = named.get("prompt") or " ".join(
        filter(None, (named.get("domain.name", named.get("domain")), named.get("label")))
    )
    return f"{named['scheduler']} {named['num_steps']}, {what}"


def cost_in_words(steps: Steps) -> str:
    """What steps cost."""
    cost = f"{count(len(steps.timesteps), 'step')}, {count(steps.passes.sum(), 'pass')} an image"
    return cost + _in_brackets(steps.source)


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
