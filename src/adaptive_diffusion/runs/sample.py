"""The story of one run: build the setup, open the run, draw, measure, write, tell."""

from __future__ import annotations

import csv
import json
import logging
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from omegaconf import DictConfig, OmegaConf

from .._version import __version__
from ..diffusion.guidance import identity_of
from ..diffusion.limits import Clipped, unlimited
from ..diffusion.rng import image_keys, normal
from ..errors import MachineError
from ..io import figures
from ..io.files import atomic_path, write_text
from ..io.pixels import resize, to_uint8
from ..metrics.quality import Measurement, NoMetrics, as_metrics, attempt
from ..sampling.batches import draw_batches
from ..sampling.converged import TOLERANCE, converged_pictures
from ..sampling.previews import as_pictures
from ..sampling.standard import whole
from ..tracking.jobs import Skipped
from ..tracking.provenance import fingerprint, git_state, parameters
from ..types import SampleResult, StepTrace
from .job import explain, in_sweep, job
from .naming import labels, method, origin, progress_bar, run_name
from .prompts import UNKNOWN
from .setup import Setup, prepare

log = logging.getLogger(__name__)

OBJECTIVE = "time/per_picture_s"


@job
def sample(cfg: DictConfig) -> float:
    """Draw pictures as the configuration says, and record the run.

    Args:
        cfg: `conf/sample.yaml`, composed.

    Returns:
        Seconds per picture, or of a cell of the benchmark its fd_encoder: what a sweeper may minimise.

    Raises:
        UserError: for a value that cannot be used; nothing was written then.
        MachineError: if the disk or the database refuses.
    """
    if cfg.benchmark is not None:
        from .benchmark import run_cell

        return run_cell(cfg)
    setup = prepare(cfg)
    cfg, tracker, folder = setup.cfg, setup.tracker, Path(cfg.paths.run)
    identity = fingerprint(cfg, model=setup.model.metadata.get("content_hash", ""), version=__version__)
    if cfg.skip_finished and (metrics := tracker.finished(identity)) is not None:
        log.info("skipped: a run with this configuration is finished")
        return Skipped(metrics.get(OBJECTIVE, float("nan")), metrics)
    git = git_state()
    tags = {
        "fingerprint": identity,
        "mlflow.note.content": cfg.domain.get("description", cfg.domain.name),
        **labels(cfg),
    }
    if steps := origin(setup):
        tags["steps"] = steps.strip(" ()")
    params = {**parameters(cfg), "domain": cfg.domain.name}
    with tracker.open(run_name(cfg), params=params, tags={**tags, **(git.tags if git else {})}) as run:
        mx.reset_peak_memory()
        with progress_bar(len(setup.scheduler) * -(-cfg.num_samples // cfg.batch_size), "step") as bar:
            batches = draw(setup, progress=lambda trace: bar.update())
        cost = {**measure(batches), "sampling/passes": setup.denoiser.cost.passes}
        write(folder, setup, batches, git.diff if git else "")
        quality = judge(setup, batches)  # after the pictures are safe
        metrics = {**cost, **setup.sampler.report(), **as_metrics(quality), **chosen(setup)}
        with pictures_kept(folder):
            write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
            run.metrics(metrics)
        run.folder(folder)
    tell(setup, metrics, quality, folder, run.page)
    return metrics[OBJECTIVE]


def draw(setup: Setup, progress: Callable[[StepTrace], None] | None = None) -> list[SampleResult]:
    """Draw the pictures in batches; picture i is the same whatever the batch size, up to rounding."""
    cfg = setup.cfg
    batches = draw_batches(
        setup.sampler,
        setup.denoiser,
        setup.set_timesteps,
        setup.model.state_shape,
        seed=cfg.seed,
        count=cfg.num_samples,
        batch_size=cfg.batch_size,
        condition=setup.condition,
        start=setup.start,
        progress=progress,
    )
    results: list[SampleResult] = []
    for result in batches:
        images = setup.model.decode(result.images)
        strip = result.strip[:0] if results else as_pictures(result.strip, result.images, images)  # one is shown
        results.append(replace(result, images=images, strip=strip))
    return results


def measure(batches: list[SampleResult]) -> dict[str, float]:
    """The numbers of a run; durations are synchronised, memory is what MLX allocated at most."""
    pictures = sum(len(b.images) for b in batches)
    steps = [seconds for b in batches for seconds in b.step_seconds]
    evaluations = sum(b.total_evaluations for b in batches)
    return {
        "sampling/steps": max(int(b.evaluations.max()) for b in batches),
        "sampling/evaluations": evaluations,
        "sampling/evaluations_per_picture": evaluations / pictures,
        "time/sampling_s": sum(steps),
        OBJECTIVE: sum(steps) / pictures,
        "time/step_s": statistics.median(steps),
        "time/first_step_s": steps[0],
        "memory/peak_mib": mx.get_peak_memory() / 2**20,
    }


def judge(setup: Setup, batches: list[SampleResult]) -> list[Measurement]:
    """Measure the pictures as the model drew them, before any resizing."""
    cfg = setup.cfg
    if isinstance(setup.metrics, NoMetrics):
        return []
    images = np.clip(np.concatenate([np.array(b.images) for b in batches]), -1, 1)
    if (channels := images.shape[-1]) != 3:
        log.info("nothing is measured: pictures of %d channel(s) are drawn, and the metrics take RGB ones", channels)
        return []
    if cfg.domain.name == UNKNOWN:
        log.info("nothing is measured: nobody says what this model draws; domain=<name> does")
        return []
    converged = None
    if setup.metrics.converged:
        converged = attempt("the distance to the converged solution", lambda: converged_solution(setup), None)
    about = {"domain": cfg.domain.name, "caption": setup.caption, "converged": converged}
    return attempt("the quality", lambda: setup.metrics.measure(images, **about), [])


def converged_solution(setup: Setup) -> np.ndarray | None:
    """Where the model leads from the run's noises with ever more steps; None where that is not known."""
    cfg = setup.cfg
    if setup.scheduler.stochastic:
        log.warning(
            "no distance to the converged solution: this scheduler adds noise of its own, so it has another one"
        )
        return None
    if setup.starts:
        log.warning("no distance to the converged solution: it is known for plain noise, without variation, init_image")
        return None

    model = replace(
        whole(setup.scheduler).guided(setup.denoiser, setup.conditions(cfg.num_samples)),
        limit=Clipped() if setup.model.metadata.get("bounded", True) else unlimited,
        identity=identity_of(setup.model, cfg.guidance_scale),
    )
    solution = converged_pictures(
        model,
        normal(image_keys(cfg.seed, range(cfg.num_samples)), setup.model.state_shape),
        batch_size=cfg.batch_size,
        cache=Path(cfg.paths.outputs) / "converged",
    )
    if solution.change > TOLERANCE:
        log.warning("doubling the steps of the converged solution still changes it by %.4f RMSE", solution.change)
    return np.clip(np.array(setup.model.decode(mx.array(solution.images))), -1, 1)


def chosen(setup: Setup) -> dict[str, float]:
    """How sure the choice was that a prompt led to."""
    choice = setup.choice
    if choice is None:
        return {}
    return {"prompt/domain_confidence": choice.domain_confidence, "prompt/label_confidence": choice.label_confidence}


def write(folder: Path, setup: Setup, batches: list[SampleResult], diff: str) -> None:
    """Write pictures, plots, tables and the configuration into the run's folder."""
    cfg = setup.cfg
    images = np.concatenate([np.array(b.images) for b in batches])
    if cfg.image_size not in (None, images.shape[1]):
        images = resize(images, (cfg.image_size, cfg.image_size))
    pixels = to_uint8(images)
    for i, picture in enumerate(pixels):
        figures.save_image(folder / "pictures" / f"{i:04d}.png", picture)
    with pictures_kept(folder):
        figures.save_picture_grid(folder / "pictures.png", pixels)
        strip = to_uint8(batches[0].strip)
        figures.save_image(folder / "denoising.png", figures.denoising_strip(strip))
        _plot_schedule(folder / "schedule.png", setup, batches)
        write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        if diff:
            write_text(folder / "git.diff", diff + "\n")
        with atomic_path(folder / "steps.csv") as temporary, open(temporary, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["batch", "step", "timestep", "log_snr", "seconds"])
            for number, batch in enumerate(batches):
                rows = zip(batch.timesteps, setup.schedule.log_snr(batch.timesteps), batch.step_seconds, strict=True)
                table.writerows([number, step, *row] for step, row in enumerate(rows))


@contextmanager
def pictures_kept(folder: Path) -> Iterator[None]:
    """Add to what the disk or the database refuses that the pictures, which were written before, are safe."""
    try:
        yield
    except (OSError, MachineError) as error:
        raise MachineError(f"{explain(error)[0]}; the pictures are kept in {folder / 'pictures'}") from error


def _plot_schedule(path: Path, setup: Setup, batches: list[SampleResult]) -> None:
    """Plot the way of the batch that took most steps, and how many of all pictures were evaluated at each."""
    timesteps = np.array(max((b.timesteps for b in batches), key=len))
    taken = np.concatenate([b.evaluations for b in batches])  # of each picture, at successive steps from the first on
    running = (taken[:, None] > np.arange(len(timesteps))).sum(axis=0)
    fewest, most = taken.min(), taken.max()
    title = run_name(setup.cfg, f"{most}" if fewest == most else f"{fewest} to {most}")
    figures.save_schedule_plot(path, timesteps, setup.schedule.log_snr(timesteps), title, running)


def tell(setup: Setup, metrics: dict[str, float], quality: list[Measurement], folder: Path, page: str | None) -> None:
    """Print what was done, where it is and how to look at it."""
    cfg, m = setup.cfg, metrics
    scheduler = " ".join(method(cfg))
    what = f"{cfg.num_samples} x {cfg.domain.name}" + (f" ({cfg.label})" if cfg.label else "")
    height, width = setup.model.picture_size if cfg.image_size is None else (cfg.image_size, cfg.image_size)
    rows: dict[str, str] = {}
    reads = setup.model.conditional and setup.model.domains is None
    if setup.choice is not None:
        c = setup.choice
        label = "" if reads else f", {c.label or 'no label'} ({c.label_confidence:.0%})"
        rows["prompt"] = f"{cfg.prompt[:60]!r}: domain {c.domain} ({c.domain_confidence:.0%}){label}"
    elif reads:
        rows["prompt"] = f"{setup.caption[:60]!r}, since none was given"
    rows |= {
        "pictures": f"{what}, {width}x{height}, seed {cfg.seed}, guidance {cfg.guidance_scale:g}",
        "scheduler": f"{scheduler}{origin(setup)}, {m['sampling/steps']} steps, "
        f"{m['sampling/evaluations']} network evaluations ({m['sampling/passes']:.0f} passes)",
        "time": f"{m['time/sampling_s']:.2f} s, {m[OBJECTIVE]:.3g} s per picture, "
        f"a step {m['time/step_s']:.3g} s (median)",
        "memory": f"{m['memory/peak_mib']:.0f} MiB at most",
        "saved": str(folder / "pictures.png"),
    }
    if cfg.init_image is not None:
        first = setup.scheduler.timesteps[0]
        rows["begins"] = (
            f"at init_image, noisy as at t = {first:g}: the last {len(setup.scheduler)} of {cfg.num_steps} steps"
        )
    if (estimated := m.get("sampling/estimated_quality")) is not None:
        rows["estimated"] = f"quality {estimated:.3f}"
    if (expected := m.get("sampling/expected_quality")) is not None:
        rows["expected"] = f"quality {expected:.3f} of that many steps, target {m['sampling/quality_target']:g}"
    if quality:
        rows["quality"] = f"\n{'':<11}".join(map(str, quality))
    if not in_sweep() and (command := setup.tracker.how_to_look()):
        rows["look"] = f"{command}\n{'':<11}{page}"
    log.info("%s", "\n".join(f"{name:<11}{text}" for name, text in rows.items()))
