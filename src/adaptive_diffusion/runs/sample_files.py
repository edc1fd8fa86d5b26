"""The files of a sampling run: images, plots, tables, configuration."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from ..errors import MachineError
from ..io import figures
from ..io.counted import count
from ..io.files import write_csv, write_text
from ..io.pixels import resize, to_uint8
from ..tracking.jobs import telling
from ..types import SampleResult
from .guidance_settings import as_drawn
from .job import explain
from .naming import run_name
from .recorded import write_config
from .settings_text import resolved_settings
from .setup import Setup

log = logging.getLogger(__name__)

QUALITY = "quality.json"  # of a run: what was measured, with its intervals
PROVENANCE = "provenance.json"  # version, model, labels, and the state of the repository
GUIDANCE = "guidance"  # in it: what the run draws with
GUIDANCE_OF_STEPS = "steps.guidance"  # in it: what the steps were calibrated with, where the run's guidance is another
DIGEST_OF_STEPS = "steps.digest"  # in it: of calibrated timesteps and weights; runs with the same one took the same
MOST_SHOWN, MOST_BYTES = 1024, 2**27  # images in pictures.png, and bytes of large ones, before they are compressed
SHEET = 12  # images of a run that a sweep's sheet shows
DIFF = "git.diff"  # of a run: changes in the repository, where there were any
SETTINGS = "adaptive-diffusion"  # of a PNG file: the text with the settings that drew it


def write_files(folder: Path, setup: Setup, batches: list[SampleResult], diff: str) -> None:
    """Write images, plots, tables and the configuration.

    Args:
        folder: Of the run.
        setup: What drew.
        batches: What was drawn.
        diff: Changes in the repository; "" for none.

    Raises:
        OSError: if the disk refuses the images.
        MachineError: if the disk refuses something after them.
    """
    pixels, text = _pixels(setup, batches), {SETTINGS: json.dumps(telling(resolved_settings()))}
    for i, image in enumerate(pixels):
        figures.save_image(folder / "pictures" / f"{i:04d}.png", image, text)
    _forget_earlier(folder, len(pixels))

    with images_are_safe(folder):
        shown = pixels[: min(MOST_SHOWN, 1 + MOST_BYTES // pixels[0].nbytes)]
        if len(shown) < len(pixels):
            log.info("pictures.png shows the first %d of %d images; pictures/ holds all", len(shown), len(pixels))
        figures.save_picture_grid(folder / "pictures.png", shown, numbered=True, text=text)
        figures.save_image(folder / "denoising.png", _denoising(setup, batches[0]))
        _plot_schedule(folder / "schedule.png", setup, batches)
        _write_steps(folder / "steps.csv", setup, batches)
        write_config(folder, _recipe(setup))
        if diff:
            write_text(folder / DIFF, diff + "\n")


def _recipe(setup: Setup) -> DictConfig:
    """The configuration by which another run draws the same images."""
    cfg = as_drawn(setup.cfg, setup.denoiser.guidance_scale)
    if cfg.prompt is not None:
        cfg.label = None  # the prompt chooses it again
    return cfg


def _forget_earlier(folder: Path, images: int) -> None:
    """Remove what an earlier run in the same folder (hydra.run.dir) drew beyond this one, its code and its numbers."""
    for name in (DIFF, "metrics.json", QUALITY):
        (folder / name).unlink(missing_ok=True)
    for path in [*(folder / "pictures").glob("*.png"), *(folder / "converged").glob("*.png")]:
        if path.stem.isdecimal() and (path.parent.name == "converged" or int(path.stem) >= images):
            path.unlink()


def write_converged(folder: Path, images: np.ndarray) -> None:
    """Write the first of (N, H, W, C) converged solutions in [-1, 1], for a sweep's sheet."""
    for i, image in enumerate(to_uint8(images[:SHEET])):
        figures.save_image(folder / "converged" / f"{i:04d}.png", image)


@contextmanager
def images_are_safe(folder: Path) -> Iterator[None]:
    """A block after the images were written: an interruption, or an error of disk or database, says where they are."""
    try:
        yield
    except KeyboardInterrupt:
        log.info("the images are kept in %s", folder / "pictures")
        raise
    except (OSError, MachineError) as error:
        raise MachineError(f"{explain(error)[0]}; the images are kept in {folder / 'pictures'}") from error


def _pixels(setup: Setup, batches: list[SampleResult]) -> np.ndarray:
    """(N, H, W, C) uint8 images of all batches, at the size that was asked for."""
    images = np.concatenate([np.array(batch.images) for batch in batches])
    side = setup.cfg.image_size
    if side not in (None, images.shape[1]):
        images = resize(images, (side, side))
    return to_uint8(images)


def _denoising(setup: Setup, batch: SampleResult) -> np.ndarray:
    """The clean predictions of the first images; each column says its step, its timestep and its noise level."""
    timesteps = np.array(batch.timesteps)
    labels = [
        f"step {step}\nt = {t:.4g}\nnoise {sigma:.2f}"
        for step, (t, sigma) in enumerate(zip(timesteps, setup.schedule.sigma(timesteps), strict=True), 1)
    ]
    return figures.denoising_strip(to_uint8(batch.strip), labels)


def _plot_schedule(path: Path, setup: Setup, batches: list[SampleResult]) -> None:
    """Plot the timesteps of the batch that took most steps, and how many of all images were evaluated at each."""
    timesteps = np.array(max((batch.timesteps for batch in batches), key=len))
    known = max(batch.known for batch in batches)  # steps without an evaluation; from there on without a gap
    taken = np.concatenate([batch.known + batch.evaluations for batch in batches])
    steps = np.arange(len(timesteps))
    running = ((steps >= known) & (taken[:, None] > steps)).sum(axis=0)

    fewest, most = taken.min(), taken.max()
    title = run_name(setup.cfg, count(most, "step") if fewest == most else f"{fewest} to {most} steps")
    figures.save_schedule_plot(path, timesteps, setup.schedule.log_snr(timesteps), title, running)


def _write_steps(path: Path, setup: Setup, batches: list[SampleResult]) -> None:
    """Write a table with a row for every step of every batch."""
    lines: list[list[object]] = [["batch", "step", "timestep", "log_snr", "seconds"]]
    for number, batch in enumerate(batches):
        rows = zip(batch.timesteps, setup.schedule.log_snr(batch.timesteps), batch.step_seconds, strict=True)
        lines += [[number, step, *row] for step, row in enumerate(rows)]
    write_csv(path, lines)
