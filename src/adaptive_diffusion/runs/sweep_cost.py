"""What a sweep will cost, printed before it starts."""

from __future__ import annotations

import logging
import math
from typing import Any

import mlx.core as mx
from hydra.errors import HydraException
from omegaconf import DictConfig

from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import effective_guidance
from ..io.counted import count, speed
from ..models.diffusers import load_pipeline
from ..sampling.converged import CHECKED, FIRST_STEPS
from ..sampling.timing import seconds_of
from .build import build
from .open_settings import DEFAULT_STEPS
from .output import say
from .setting_types import target_of
from .sweep_overrides import sweep_overrides, takes_every_combination

log = logging.getLogger(__name__)

# what decides converged solutions
PROBLEM = ("domain", "label", "prompt", "guidance_scale", "guidance", "model", "seed")

STOP = "Stop at any time: what is finished, now or before, is not repeated."
FORGETS = "The same command repeats what is finished: that is skipped only with MLflow and skip_finished=true."


def announce(config: DictConfig, noun: str, advice: str = "", **known: Any) -> None:
    """Print what `cost` says of a sweep, and an advice; nothing where that fails, as of a value that a job refuses."""
    try:
        text = cost(config, noun, **known)
    except Exception as error:
        log.debug("no estimate of the cost: %s", error)
    else:
        say(f"{text} {advice}".rstrip())


def cost(config: DictConfig, noun: str, blocks: int = 1, converged: bool = True, kept: bool = True) -> str:
    """What a sweep will take at most, by a forward pass that is timed.

    Args:
        config: Of the sweep.
        noun: What a job is called.
        blocks: Of `num_samples` images, in each job.
        converged: Whether converged solutions are counted, also of schedulers that add noise, which have none.
        kept: Whether the same command skips what has finished.
    """
    stop = STOP if kept else FORGETS
    if not takes_every_combination(config):
        return "No estimate of the cost: the sweeper decides on its jobs one after another. " + stop
    try:
        axes = sweep_axes(config)
    except HydraException:  # such as glob(*), which only Hydra itself can spell out
        return "No estimate of the cost: the sweep's values are not spelt out. " + stop

    # a job with a number below 1 is refused, and costs nothing
    asked = axes.pop("num_steps", [config.num_steps])
    steps = [DEFAULT_STEPS if str(n) in ("None", "null") else max(0, int(n)) for n in asked]
    sizes = [max(0, int(n)) for n in axes.pop("num_samples", [config.num_samples])]
    others = math.prod(len(values) for values in axes.values())
    evaluations = others * sum(steps) * sum(sizes) * blocks

    problems = math.prod(len(v) for k, v in axes.items() if k.partition(".")[0] in PROBLEM)
    solved = (
        sum(FIRST_STEPS * (size + 2 * min(CHECKED, size)) for size in sizes) * problems * blocks if converged else 0
    )

    jobs = count(others * len(steps) * len(sizes), noun)
    each = "" if blocks == 1 else f"{blocks} x "
    images = " or ".join(f"{each}{size}" for size in [*sizes[:-1], count(sizes[-1], "image")])
    if target_of(config.model) is load_pipeline:  # reading it, and a pass through it, may take minutes
        also = f", and some {solved:,} for the converged solutions" if converged else ""
        return f"{jobs} of {images}: at most {count(evaluations, 'model evaluation')}{also}. {stop}"

    passes = passes_per_evaluation(config, model := build(config, "model"))
    rate = evaluations_per_second(model, min(config.batch_size, max(sizes)), passes)
    solutions = f", and some {solved:,} for the converged solutions ({solved * passes:,})" if converged else ""
    return (
        f"{jobs} of {images}: at most {count(evaluations, 'model evaluation')} "
        f"({count(evaluations * passes, 'pass')}){solutions}: "
        f"about {count(max(1, round((evaluations + solved) / rate / 60)), 'minute')} at {speed(rate, 'evaluation')} as "
        f"things are. {stop}"
    )


def sweep_axes(config: DictConfig) -> dict[str, list[str]]:
    """The values of every setting of a sweep; those of the command line take precedence, as Hydra's sweeper has it."""
    axes = {}
    for override in sweep_overrides(config):
        many = override.is_sweep_override()
        axes[override.get_key_element()] = list(map(str, override.sweep_string_iterator())) if many else [""]
        if not many and override.key_or_group in ("num_steps", "num_samples"):
            axes[override.key_or_group] = [override.get_value_element_as_str()]
    return axes


def passes_per_evaluation(config: DictConfig, model: Any) -> int:
    """Passes through a network that an evaluation takes at most: 2 with guidance, else 1."""
    if not model.conditional and "weak_model" not in config.guidance:  # a weaker model guides without conditions, too
        return 1
    whole = (1,) if "weak_model" in config.guidance else (0, 1)  # weights of one prediction alone
    weight = ModelFacts.of(model).guidance(config.guidance.get("weight", math.inf))  # guidance without one: any
    return 1 if effective_guidance(model, weight) in whole else 2


def evaluations_per_second(model: Any, batch: int, passes: int) -> float:
    """Evaluations of one image per second, by one batch after one that warms up."""
    x = mx.zeros((batch * passes, *model.state_shape))
    return batch / seconds_of(lambda: model(x, mx.full((len(x),), 500.0), None))
