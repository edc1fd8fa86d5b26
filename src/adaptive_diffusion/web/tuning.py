"""How the page tunes guidance and steps: what it asks train.py for, and what it makes of the answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from .. import program
from ..diffusion.checks import check_choice, check_count
from ..diffusion.guidance import Constant
from ..encoder.reference import reference_path
from ..errors import UserError
from ..optimization.domain_adapter import DomainAdapter
from ..program import in_domain
from ..runs.checks import as_user_error
from ..runs.settings_text import setting
from ..runs.train import task_of
from ..runs.tune import AgentTask
from ..schedulers.configuration import Configuration
from .bounds import FEWEST_EPISODES, MOST_EPISODES, Offers, Wish
from .handlers import Handlers, errors_shown, reports_cancel
from .jobs import job, watched_job
from .words import command, in_words
from .worker import HowFar

AIMS = {  # what counts -> settings of train.py; the cross-entropy method needs no package beside the page's
    "near to real images, in fewer passes": ("reward=hybrid", "reward.metric=real", "reward.unit=passes"),
    "near to real images, whatever it costs": ("reward=real",),
}
FEWEST_STEPS = 4  # that are tried, unless the controls say less
FOR_ALL = ("tracking", "paths")  # groups that train.py has in common with sample.py


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        steps: Of what it found; None where that is not kept.
        reason: Why, in a sentence.
        rows: Of the default, which is the adaptive scheduler at constant guidance, of the tuned setting in use, and of
            what it found: name, steps, passes an image, guidance, gain in quality.
        notes: Warnings.
    """

    steps: int | None
    reason: str
    rows: list[list[Any]]
    notes: tuple[str, ...]


def tuning_settings(wish: Wish, offers: Offers, aim: Any, episodes: Any) -> list[str]:
    """The settings of train.py that tune a domain; scheduler, guidance and label of the controls do not matter.

    The steps of the controls are the most, and with their weight those of the default.

    Args:
        wish: What the controls say, checked.
        offers: What can be chosen.
        aim: One of `AIMS`.
        episodes: Of the search.

    Raises:
        UserError: for a wish that has no domain, or one of which no real images are known, or a value out of bounds.
    """
    with as_user_error():
        check_choice("what counts", aim, list(AIMS))
        check_count("episodes", episodes, FEWEST_EPISODES, MOST_EPISODES)
    if wish.prompt:
        raise UserError("a domain is tuned, not a prompt; leave the prompt empty, and choose a domain")
    if not wish.domain:
        raise UserError("guidance is tuned by the real images of a domain, and this model has none")
    if not reference_path(wish.domain).is_file():
        raise UserError(
            f"a tuning compares with real images, and there are no statistics of those of {wish.domain}; calibrate it "
            f"instead, or give {program.title('train')} agent=cem, which compares with converged images"
        )

    task = {
        "episodes": episodes,
        "min_steps": min(FEWEST_STEPS, wish.steps),
        "num_steps": wish.steps,
        "max_steps": wish.steps,
        **({} if wish.weight is None else {"guidance_scale": f"{wish.weight:g}"}),
    }
    common = [each for each in offers.common if each.lstrip("+~").startswith(FOR_ALL)]
    chosen = [_for_task(each) for each in offers.model(wish.model).settings]
    numbers = [f"task.{name}={value}" for name, value in task.items()]
    of = [setting(name, value) for name, value in in_domain(wish.domain).items()]
    return [*common, "agent=cem", *AIMS[aim], *chosen, *of, *numbers]


def _for_task(chosen: str) -> str:
    """A setting of sample.py that chooses the model, as train.py reads it."""
    return f"task.{chosen}" if chosen.startswith("model.") else f"model@task.{chosen}"


def cost_of(settings: Sequence[str]) -> str:
    """What a tuning will take, in words; an evaluation is timed for it, and nothing is recorded."""
    with job(settings, "train") as cfg:
        cfg, task = task_of(cfg)
        assert isinstance(task, AgentTask)  # agent=cem chooses it
        return task.cost(cfg)


def tune(settings: Sequence[str], tell: Callable[[HowFar], None], stop: threading.Event) -> Tuned:
    """Do what train.py does with these settings.

    Args:
        settings: `key=value`, as Hydra reads them.
        tell: Called on the way.
        stop: Ends the run, once it is set.

    Raises:
        Cancelled: if `stop` was set meanwhile.
    """
    with watched_job(settings, "train", tell, stop) as (cfg, notes):
        cfg, task = task_of(cfg)
        assert isinstance(task, AgentTask)  # agent=cem chooses it
        task.run(cfg)
        weight = DomainAdapter(model=task.model, guidance_scale=task.guidance_scale).guidance_scale
        found = json.loads((Path(cfg.paths.run) / "history.json").read_text(encoding="utf-8"))[-1]

    rows = [_row("the adaptive scheduler", found["verification"][0], weight)]
    for name, config in (("in use", found["in_use_config"]), ("found", found["found_config"])):
        if config is not None:
            rows.append(_row(name, found_of(found["verification"], config), weight))
    steps = found["final_config"]["num_steps"] if found["improved"] else None
    return Tuned(steps, found["reason"], rows, tuple(notes))


def found_of(verified: Sequence[dict[str, Any]], final: dict[str, Any]) -> dict[str, Any]:
    """What was measured of a configuration; one of constant guidance has a part of the same numbers."""
    same = [each for each in verified if each["hyperparameters"].items() <= final.items()]
    return max(same, key=lambda each: len(each["hyperparameters"]))


def _row(name: str, measured: dict[str, Any], weight: float) -> list[Any]:
    """A row of `Tuned`; where nothing was found about guidance, it has a constant weight."""
    guidance = Configuration(**measured["hyperparameters"]).guidance or Constant(weight)
    named = f"constant {guidance.name}" if isinstance(guidance, Constant) else guidance.name
    quality = f"{measured['quality']:+.2f} +- {measured['quality_error']:.2f}"
    return [name, measured["evaluations"], measured["passes"], named, quality]


class Tuning(Handlers):
    """What tunes."""

    def look(self, request: gr.Request, *asked: Any) -> Iterator[tuple[Any, ...]]:
        """See `estimate`; why nothing can be tuned is said in its place, since nobody has asked to tune yet."""
        try:
            yield from self.estimate(request, *asked)
        except gr.Error as error:
            yield str(error.message), ""

    @reports_cancel("", 0)
    def estimate(self, request: gr.Request, aim: Any, episodes: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
        """What a tuning of the domain would take, and the command that does the same."""
        session = self.session(request)
        with errors_shown("train"), session.running("estimate") as stop:
            wish = Wish.of(values).checked(self.offers)
            settings = tuning_settings(wish, self.offers, aim, episodes)
            # it names what it is said of, as the controls may have changed meanwhile
            weight = "" if wish.weight is None else f" at weight {wish.weight:g}"
            asked = f"For {wish.domain} in at most {wish.steps} steps{weight}, "
            yield "Estimating.", command(settings, "train")
            for told in self.worker.stream(lambda _: cost_of(settings), stop, run=False):
                yield in_words(told) if isinstance(told, HowFar) else f"{asked}{told}.", gr.skip()

    @reports_cancel("Nothing was tuned.", 0)
    def tune(self, request: gr.Request, aim: Any, episodes: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Tune guidance and steps of the domain, as train.py does.

        Yields:
            How far it is, the rows of `Tuned`, settings of sample.py for what was found, [] where nothing was, and
            whether there is a result to show.
        """
        session = self.session(request)
        with errors_shown("train"), session.running("tune") as stop:
            wish = Wish.of(values).checked(self.offers)
            settings = tuning_settings(wish, self.offers, aim, episodes)
            yield "Waiting for its turn.", [], [], gr.update(visible=False)
            for told in self.worker.stream(lambda tell: tune(settings, tell, stop), stop):
                if isinstance(told, HowFar):
                    yield in_words(told), gr.skip(), gr.skip(), gr.skip()
                else:
                    yield outcome(told), told.rows, self._found(wish, told), gr.update(visible=True)

    def _found(self, wish: Wish, tuned: Tuned) -> list[str]:
        if tuned.steps is None:
            return []
        return replace(wish, scheduler="tuned", guidance="tuned", steps=tuned.steps).settings(self.offers)


def outcome(tuned: Tuned) -> str:
    """What a tuning found, in words."""
    sentence = f"{tuned.reason[0].upper()}{tuned.reason[1:]}."
    if tuned.steps is not None:
        sentence += (
            " It is kept: `scheduler=tuned` draws with it from now on, and without a label `guidance=default` does."
        )
    return "\n\n".join([sentence, *(f"Note: {note}" for note in tuned.notes)])
