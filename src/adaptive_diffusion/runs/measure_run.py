"""The numbers of a sampling run: its cost, and the quality of its images."""

from __future__ import annotations

import logging
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.facts import ModelFacts
from ..diffusion.rng import image_keys, normal
from ..errors import Unusable
from ..io.counted import count
from ..io.progress import Progress
from ..metrics.quality import DETAILS, Measurement, NoMetrics, PictureMetrics, attempt
from ..sampling.batches import decoded
from ..sampling.converged import TOLERANCE, converged_pictures
from ..types import UNKNOWN, SampleResult
from .sample_files import write_converged
from .setup import Setup

log = logging.getLogger(__name__)

SECONDS_PER_IMAGE = "time/seconds_per_image"  # the metric that a sweeper may minimise


def measure_cost(setup: Setup, batches: list[SampleResult]) -> dict[str, float]:
    """Evaluations, passes and seconds per image, memory, and as details the totals.

    Durations are synchronised; memory is the most that MLX allocated.
    """
    images = sum(len(batch.images) for batch in batches)
    steps = [seconds for batch in batches for seconds in batch.step_seconds]
    evaluations = setup.denoiser.cost.evaluations  # also those that all images share

    return {
        f"{DETAILS}steps": max(int(batch.evaluations.max()) + batch.known for batch in batches),
        f"{DETAILS}evaluations": evaluations,
        "sampling/nfe": evaluations / images,
        f"{DETAILS}passes": setup.denoiser.cost.passes,
        "sampling/passes": setup.denoiser.cost.passes / images,
        f"{DETAILS}seconds": sum(steps),
        SECONDS_PER_IMAGE: sum(steps) / images,
        f"{DETAILS}step_seconds": statistics.median(steps),
        f"{DETAILS}first_step_seconds": steps[0],
        "sampling/peak_mib": mx.get_peak_memory() / 2**20,
    }


def measure_quality(setup: Setup, batches: list[SampleResult]) -> list[Measurement]:
    """Measure the images as the model drew them, before any resizing; what cannot be measured is warned of."""
    cfg = setup.cfg
    if isinstance(setup.metrics, NoMetrics):
        return []

    images = np.clip(np.concatenate([np.array(batch.images) for batch in batches]), -1, 1)
    if (channels := images.shape[-1]) != 3:
        log.info("nothing is measured: the images have %d channel(s), and the metrics need RGB", channels)
        return []
    if cfg.domain.name == UNKNOWN:
        advice = "model.draws=<name>" if setup.model.conditional else "domain=<name> or domain.name=<name>"
        log.info("nothing is measured: nobody says what this model draws; %s does", advice)
        return []

    converged = None
    if setup.metrics.converged:
        converged = attempt("the distance to the converged solution", lambda: converged_solution(setup), None)
    if converged is not None:
        write_converged(Path(cfg.paths.run), converged)
    about = {"domain": cfg.domain.name, "caption": setup.caption, "converged": converged}
    return attempt("the quality", lambda: _measured(setup.metrics, images, about), [])


def _measured(metrics: PictureMetrics, images: np.ndarray, about: dict[str, Any]) -> list[Measurement]:
    """What the metrics return, if it is measurements."""
    measured: Any = metrics.measure(images, **about)
    if not isinstance(measured, list | tuple) or not all(isinstance(each, Measurement) for each in measured):
        kind = type(metrics).__name__
        raise Unusable(f"measure of {kind} must return a list of Measurement, as of mean_of, got {measured!r:.80}")
    return list(measured)


def converged_solution(setup: Setup) -> np.ndarray | None:
    """(N, H, W, C) images that the model converges to from the run's noises; None where these are not defined."""
    cfg = setup.cfg
    if setup.scheduler.stochastic:
        log.warning("no distance to the converged solution: this scheduler adds noise, so its solution is another one")
        return None
    if setup.starts:
        log.warning("no distance to the converged solution: it is known for plain noise, without variation, init_image")
        return None

    # The converged solution belongs to the model alone: a limit that the scheduler sets must not change it.
    model = replace(
        setup.scheduler.guided(setup.denoiser, setup.conditions.rows(cfg.seed, range(cfg.num_samples))),
        limit=ModelFacts.of(setup.model).limit,
        identity=setup.model.identity,
    )
    with Progress(f"converged solutions of {count(cfg.num_samples, 'image')}", unit="solver step") as shown:
        solution = converged_pictures(
            model,
            normal(image_keys(cfg.seed, range(cfg.num_samples)), setup.model.state_shape),
            batch_size=cfg.batch_size,
            cache=Path(cfg.paths.outputs) / "converged",
            progress=shown.update,
        )
    if solution.change > TOLERANCE:
        log.warning("doubling the steps of the converged solution still changes it by %.4f RMSE", solution.change)
    return np.clip(np.array(decoded(setup.model, mx.array(solution.images))), -1, 1)


def choice_confidence(setup: Setup) -> dict[str, float]:
    """How sure the choice of domain and label by a prompt was, as details; {} without a prompt."""
    choice = setup.choice
    if choice is None:
        return {}
    domain = {} if choice.domain_confidence is None else {"domain": choice.domain_confidence}
    confidence = {**domain, "label": choice.label_confidence}
    return {f"{DETAILS}{name}_confidence": value for name, value in confidence.items()}
