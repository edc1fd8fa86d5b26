"""`sample.py`: draw images as the configuration says, measure them, and record the run."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import mlx.core as mx
from omegaconf import DictConfig

from .._version import __version__
from ..diffusion.guidance import name_of
from ..io.counted import count
from ..io.files import write_json, write_text
from ..io.progress import Progress
from ..metrics.quality import DETAILS, Measurement, as_metrics
from ..sampling.batches import decoded, draw_batches
from ..sampling.previews import as_pictures
from ..tracking.jobs import Skipped
from ..tracking.provenance import git_state, parameters
from ..types import SampleResult, StepTrace
from .identity import identity_of_run
from .inputs import sampling_inputs
from .job import job
from .measure_run import SECONDS_PER_IMAGE, choice_confidence, measure_cost, measure_quality
from .naming import digest_of_steps, guidance_of_steps, run_name, timesteps_source
from .recorded import run_tags
from .sample_files import (
    DIGEST_OF_STEPS,
    GUIDANCE,
    GUIDANCE_OF_STEPS,
    PROVENANCE,
    QUALITY,
    images_are_safe,
    write_files,
)
from .sample_summary import print_summary
from .setup import Setup, prepare

log = logging.getLogger(__name__)

NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description


@job
def sample(cfg: DictConfig) -> float:
    """Draw images as the configuration says, and record the run.

    Args:
        cfg: `conf/sample.yaml`, composed.

    Returns:
        Seconds per image, or of a cell of the benchmark its fd_encoder: what a sweeper may minimise.

    Raises:
        UserError: for a value that cannot be used; nothing was written then.
        MachineError: if the disk or the database refuses.
    """
    if cfg.benchmark is not None:
        from .benchmark import run_cell

        return run_cell(cfg)

    setup = prepare(cfg)
    cfg = setup.cfg
    identity = identity_of_run(setup)
    with setup.tracker.claimed(identity) if cfg.skip_finished else contextlib.nullcontext() as finished:
        if finished is not None:
            where = finished.folder or "its files are gone, its numbers are recorded"
            log.info("skipped: a run with this configuration has finished: %s", where)
            return Skipped(finished.metrics.get(SECONDS_PER_IMAGE, float("nan")), finished)
        return draw_and_record(setup, identity)[SECONDS_PER_IMAGE]


def draw_and_record(setup: Setup, identity: str, watch: Callable[[StepTrace], None] | None = None) -> dict[str, float]:
    """Draw the images, write them to the folder of the run, measure them, record the run and print a summary.

    Args:
        setup: What draws.
        identity: Of the run.
        watch: Called after every step; it may raise KeyboardInterrupt, which ends the run as Ctrl-C does.

    Returns:
        The metrics of the run.
    """
    cfg, folder = setup.cfg, Path(setup.cfg.paths.run)
    params, tags = {**parameters(cfg), "domain": cfg.domain.name}, {**_tags(setup, identity), **run_tags(cfg)}
    with setup.tracker.open(run_name(cfg), params=params, tags=tags, folder=folder) as run:
        run.inputs(*sampling_inputs(setup))
        batches = _draw_with_progress(setup, watch)
        cost = measure_cost(setup, batches)
        git = git_state()
        write_files(folder, setup, batches, git.diff if git else "")
        write_json(folder / PROVENANCE, {"version": __version__, "model": setup.model.identity, **tags})

        # The images are written before they are measured: whatever fails from here on, they are kept.
        with images_are_safe(folder):
            quality = measure_quality(setup, batches)
            metrics = {**cost, **setup.sampler.report(), **as_metrics(quality), **choice_confidence(setup)}
            write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
            write_json(folder / QUALITY, [asdict(measurement) for measurement in quality])
            run.metrics({name: value for name, value in metrics.items() if not name.startswith(DETAILS)})
            run.tags(_caveats(quality, _description(cfg)))
        run.keep(folder)

    print_summary(setup, metrics, quality, folder, run.page)
    return metrics


def draw(setup: Setup, progress: Callable[[StepTrace], None] | None = None) -> list[SampleResult]:
    """Draw the images in batches; image i is the same whatever the batch size, up to rounding."""
    cfg = setup.cfg
    batches = draw_batches(
        setup.sampler,
        setup.denoiser,
        setup.set_timesteps,
        setup.model.state_shape,
        seed=cfg.seed,
        count=cfg.num_samples,
        batch_size=cfg.batch_size,
        conditions=setup.conditions,
        start=setup.start,
        progress=progress,
    )

    results: list[SampleResult] = []
    for result in batches:
        images = decoded(setup.model, result.images)
        # Only the strip of the first batch is shown.
        strip = result.strip[:0] if results else as_pictures(result.strip, result.images, images)
        results.append(replace(result, images=images, strip=strip))
    return results


def _draw_with_progress(setup: Setup, watch: Callable[[StepTrace], None] | None) -> list[SampleResult]:
    """Draw the images, with progress over the steps of all batches."""
    cfg = setup.cfg
    steps = len(setup.scheduler) * -(-cfg.num_samples // cfg.batch_size)
    mx.reset_peak_memory()
    with Progress(f"drawing {count(cfg.num_samples, 'image')}", steps) as shown:

        def step_done(trace: StepTrace) -> None:
            if watch is not None:
                watch(trace)
            shown.update()

        return draw(setup, progress=step_done)


def _tags(setup: Setup, identity: str) -> dict[str, str]:
    """The tags of a sampling run alone."""
    tags = {"fingerprint": identity, "folder": str(setup.cfg.paths.run), NOTE: _description(setup.cfg)}
    tags[GUIDANCE] = name_of(setup.denoiser.guidance_scale)
    if source := timesteps_source(setup):
        tags["steps"] = source
    if guidance := guidance_of_steps(setup):
        tags[GUIDANCE_OF_STEPS] = guidance
    if digest := digest_of_steps(setup):
        tags[DIGEST_OF_STEPS] = digest
    if labels := str(setup.conditions) or setup.cfg.label:
        tags["labels"] = labels
    return tags


def _description(cfg: DictConfig) -> str:
    return str(cfg.domain.get("description", cfg.domain.name))


def _caveats(quality: list[Measurement], description: str) -> dict[str, str]:
    """The tags of a run whose images are too few for some of its numbers; {} if they are enough for all."""
    doubtful = {m.name: m.caveat for m in quality if not m.meaningful}
    if not doubtful:
        return {}
    reasons = "\n".join(f"- {name}: {caveat}" for name, caveat in doubtful.items())
    return {"not_meaningful": ", ".join(doubtful), NOTE: f"{description}\n\n{reasons}"}
