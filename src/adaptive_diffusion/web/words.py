"""What the page says of runs: commands, how far they are, what they cost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .. import program
from ..io.addresses import without_login
from ..io.counted import count
from ..metrics.quality import DETAILS
from ..sampling.timing import duration
from .bounds import FIRST_EVALUATION, KEYS
from .jobs import Drawn, Steps
from .restoring import value_of
from .worker import PREPARING, WAITING, HowFar

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


def in_words(progress: HowFar) -> str:
    """How far a run is."""
    if progress == PREPARING:
        return "Preparing."
    if progress.unit == WAITING:
        return f"Waiting for {count(progress.done, 'other run')}."
    total = f" of {progress.total:,}" if progress.total else ""
    left = "" if progress.left is None else f", {duration(progress.left)} left"
    return f"{DOING.get(progress.unit, progress.unit.capitalize())} {progress.done:,}{total}{left}"


def passes(drawn: Drawn) -> str:
    """The passes of a run through the network, for an image."""
    return count(round(drawn.metrics["sampling/passes"]), "pass")


def summary(drawn: Drawn) -> str:
    """What a run cost, and what is to be known of it."""
    steps, seconds = round(drawn.metrics[f"{DETAILS}steps"]), drawn.metrics[f"{DETAILS}seconds"]
    spent = f"{count(steps, 'step')}, {passes(drawn)} an image, {seconds:.2f} s{_in_brackets(drawn.source)}."
    return "\n\n".join([spent, *(f"Note: {note}" for note in drawn.notes)])


def way(settings: Sequence[str]) -> str:
    """How a run draws, in a few words: the scheduler, and what is not left to the defaults."""
    named = _named(settings)
    extra = {
        "grid": "{} grid",
        "guidance": "{} guidance",
        "guidance_scale": "weight {}",
        FIRST_EVALUATION: "first evaluation {}",
    }
    return ", ".join([named["scheduler"], *(text.format(named[key]) for key, text in extra.items() if key in named)])


def title(drawn: Drawn) -> str:
    """A run in a few words."""
    named = _named(drawn.settings)
    what = named.get("prompt") or " ".join(
        filter(None, (named.get("domain.name", named.get("domain")), named.get("label")))
    )
    return f"{count(int(named['num_steps']), 'step')}, {way(drawn.settings)}: {what}"


def _named(settings: Sequence[str]) -> dict[str, str]:
    return {key: str(value_of(each)) for each in settings if (key := each.partition("=")[0]) in KEYS}


def steps_cost(steps: Steps) -> str:
    """What steps cost."""
    cost = f"{count(len(steps.timesteps), 'step')}, {count(steps.passes.sum(), 'pass')} an image"
    return cost + _in_brackets(steps.source)


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
