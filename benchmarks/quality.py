"""`python -m benchmarks quality`: how well quality is estimated, and what early stopping saves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from omegaconf import OmegaConf

from adaptive_diffusion.diffusion.conditions import Conditions, conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.encoder.encoder_metrics import EncoderMetrics
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.batches import draw_batches
from adaptive_diffusion.sampling.converged import MOST_STEPS, converged_pictures, paired_rmse
from adaptive_diffusion.sampling.quality import (
    FEATURES,
    QualityCalibration,
    QualityEstimator,
    predict_error,
    save_calibration,
    still_features,
)
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.types import PictureModel
from benchmarks.common import scheduler_settings
from benchmarks.quality_fit import fit_still, fit_weights

FIT_SEED, TEST_SEED = 5000, 6000
STOPPING = ("quality_threshold", "patience", "min_steps", "finish")  # settings of the sampler that can be given
SETTINGS = Path(__file__).parents[1] / "conf" / "sampler" / "quality_guided.yaml"


@dataclass(frozen=True)
class Run:
    """A run in which every image took every step, without its first step, which has no step before it.

    Attributes:
        features: (n - 1, N, F) features of the estimator.
        still: (n - 1, N, 2) its features of an image without a history.
        errors: (n - 1, N) RMSE of the clean predictions to the converged solution.
    """

    features: np.ndarray
    still: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Case:
    """A domain, the noises of a seed and their converged solutions."""

    domain: str
    seed: int
    denoiser: GuidedModel
    scheduler: AdaptiveScheduler
    x_T: mx.array
    conditions: Conditions
    converged: np.ndarray


def main(argv: list[str]) -> None:
    """Report rank correlations, and cost, loss and time of early stopping beside every step, by domain and steps.

    Early stopping is set as in `sampler=quality_guided` where nothing else is given.
    """
    defaults: Any = OmegaConf.load(SETTINGS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks quality", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=["landscapes", "portraits"], help="domains to draw")
    parser.add_argument("--steps", nargs="+", type=int, default=[10], help="numbers of steps, each at least 3")
    parser.add_argument("--images", type=int, default=16, help="images per domain")
    for name in STOPPING:
        option, default = f"--{name.replace('_', '-')}", defaults[name]
        parser.add_argument(option, type=type(default), default=default, help=f"sampler.{name}")
    parser.add_argument("--batch-size", type=int, default=16, help="images per evaluation")
    parser.add_argument("--cache", type=Path, default=Path("outputs/converged"), help="folder of converged solutions")
    parser.add_argument(
        "--most-steps", type=int, default=MOST_STEPS, help="at which a converged solution is left as it is"
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="what --write made; default: what ships")
    parser.add_argument("--write", type=Path, metavar="FILE", help="calibrate on other noises into FILE, and no more")
    options = parser.parse_args(argv)

    solving = {"batch_size": options.batch_size, "cache": options.cache, "most_steps": options.most_steps}
    case = partial(_case, pictures=options.images, solving=solving)
    if options.write is not None:
        cases = [case(domain, FIT_SEED) for domain in options.domains]
        save_calibration(options.write, calibrated(cases, options.steps, options.batch_size, options.most_steps))
        return

    estimator = QualityEstimator(options.calibration)
    stopping = {name: getattr(options, name) for name in STOPPING}
    stopping["calibration"] = None if options.calibration is None else str(options.calibration)

    for domain in options.domains:
        test = case(domain, TEST_SEED)
        for n in options.steps:
            _report_estimates(domain, n, _observe(test, n, options.batch_size), estimator)
            _report_stopping(test, n, options.batch_size, stopping)


def calibrated(
    cases: Sequence[Case], steps: Sequence[int], batch_size: int, most_steps: int = MOST_STEPS
) -> QualityCalibration:
    """Fit the estimator on runs with calibrated steps and on runs with the quadratic grid.

    Args:
        cases: Domains of the shipped model, all with the same noises of `FIT_SEED`.
        steps: Numbers of steps, each at least 3.
        batch_size: Images per evaluation.
        most_steps: Where the converged solutions of the cases were left as they were.
    """
    model = load_builtin_model()
    exactness = "" if most_steps == MOST_STEPS else f" --most-steps {most_steps}"
    # both kinds of schedules, so that the weights suit either
    plain = [replace(case, scheduler=AdaptiveScheduler(**scheduler_settings(model))) for case in cases]
    runs = [_observe(case, n, batch_size) for case in [*cases, *plain] for n in steps]
    domains, pictures = [case.domain for case in cases], len(cases[0].x_T)

    return QualityCalibration(
        model=model.identity,
        weights=fit_weights([step for run in runs for step in zip(run.features, run.errors, strict=True)]),
        still=fit_still(
            np.concatenate([run.still.reshape(-1, 2) for run in runs]),
            np.concatenate([run.errors.ravel() for run in runs]),
        ),
        curve=plain_curve(model),
        measured={
            "command": f"python -m benchmarks quality --domains {' '.join(domains)} --steps "
            f"{' '.join(map(str, steps))} --images {pictures}{exactness} --write FILE",
            "weights": {
                "guidance_scale": model.metadata["guidance_scale"],
                "domains": domains,
                "steps": list(steps),
                "schedules": ["calibrated", "quadratic"],
                "seed": FIT_SEED,
                "pictures": pictures,
            },
            "curve": {"scores in assets/schedules.json": "quadratic", "domains": list(model.domains or ())},
        },
    )


def plain_curve(model: PictureModel) -> dict[int, float]:
    """Number of steps -> RMSE of DPM-Solver++(2M) on the quadratic grid, on held-out noises.

    Args:
        model: The shipped model. The RMSE is a mean over its domains, at its own guidance.
    """
    known = (find_schedule(None, model.identity, d, model.metadata["guidance_scale"]) for d in model.domains or ())
    schedules = [schedule for schedule in known if schedule is not None]
    common = set.intersection(*(set(schedule.steps) for schedule in schedules))
    errors = {n: [schedule.steps[n].scores["quadratic"].mean for schedule in schedules] for n in sorted(common)}

    return {n: float(f"{np.mean(error):.4g}") for n, error in errors.items()}


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two (N,) arrays without ties."""
    first, second = (np.argsort(np.argsort(x)) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _case(domain: str, seed: int, *, pictures: int, solving: dict[str, Any]) -> Case:
    model = load_builtin_model()
    guidance = float(model.metadata["guidance_scale"])
    conditions = conditions_of(model, domain, None, "")
    calibration = find_schedule(None, model.identity, domain, guidance)
    scheduler = AdaptiveScheduler(calibration=calibration, **scheduler_settings(model))
    x_T = normal(image_keys(seed, range(pictures)), model.state_shape)

    guided = GuidedModel.from_model(model, guidance_scale=guidance)
    solved = guided.with_condition(conditions.rows(seed, range(pictures)))
    converged = converged_pictures(solved, x_T, **solving)
    return Case(domain, seed, guided, scheduler, x_T, conditions, converged.images)


def _observe(case: Case, n: int, batch_size: int) -> Run:
    """Let an estimator watch a run of n steps."""
    schedule, batches = case.scheduler.schedule, []
    for start in range(0, len(case.x_T), batch_size):
        some = slice(start, start + batch_size)
        case.scheduler.set_timesteps(n)
        estimator, rows, previous = QualityEstimator(), [], None
        condition = case.conditions.rows(case.seed, range(len(case.x_T))[some])

        for trace in StandardSampler(case.scheduler).iterate(case.denoiser, case.x_T[some], condition=condition):
            level = float(np.exp(-schedule.log_snr(trace.timestep)))
            seen = estimator.observe(level, trace.x0, previous, last=trace.index + 1 == n)
            previous = level, trace.x0
            if seen.features is not None:
                errors = paired_rmse(np.array(trace.x0), case.converged[some])
                rows.append((np.array(seen.features), np.array(still_features(trace.x0)), errors))

        batches.append([np.stack(column) for column in zip(*rows, strict=True)])

    return Run(*(np.concatenate(column, axis=1) for column in zip(*batches, strict=True)))


def _report_estimates(domain: str, n: int, run: Run, estimator: QualityEstimator) -> None:
    estimates = predict_error(estimator.calibration.weights, FEATURES, run.features)
    steps = [rank_correlation(estimate, error) for estimate, error in zip(estimates, run.errors, strict=True)]
    late = steps[n // 2 - 1 :]
    off = float(np.sqrt(np.mean(np.log(estimates / run.errors) ** 2)))
    every = rank_correlation(estimates.ravel(), run.errors.ravel())
    print(f"{domain}, {n} steps: estimates are off by {off:.0%}; rank correlation with the true error {every:.2f} over")
    print(f"  all steps, {np.mean(late):.2f} among the images of a step of the second half: ", end="")
    print(" ".join(f"{value:.2f}" for value in late), flush=True)


def _report_stopping(case: Case, n: int, batch_size: int, stopping: dict[str, Any]) -> None:
    """Print n steps for every image, early stopping, and for every image as many steps as that took in the mean."""
    count, metrics = len(case.x_T), EncoderMetrics()
    print("  stopping with " + ", ".join(f"{name} {value}" for name, value in stopping.items() if value is not None))
    header = ["sampler", "evaluations", "passes", "perceptual distance", "fd_encoder", "fd_vicreg", "seconds an image"]
    print("\n".join(table(header, [])), flush=True)

    def row(name: str, sampler: StandardSampler, steps: int) -> float:
        drawn = draw_batches(
            sampler,
            case.denoiser,
            lambda: case.scheduler.set_timesteps(steps),
            case.x_T.shape[1:],
            seed=case.seed,
            count=count,
            batch_size=batch_size,
            conditions=case.conditions,
        )
        before = case.denoiser.cost.passes
        results = list(drawn)
        images = np.concatenate([np.array(result.images) for result in results])
        evaluations = sum(result.total_evaluations for result in results) / count
        distances = metrics.encoder.perceptual_distances(images, case.converged)
        found = {m.name: m.value for m in metrics.measure(images, domain=case.domain, caption=case.domain)}
        cells = [
            f"{name}, {steps} steps",
            f"{evaluations:.2f}",
            f"{(case.denoiser.cost.passes - before) / count:.1f}",
            f"{distances.mean():.4f} +- {distances.std(ddof=1) / np.sqrt(count):.4f}",
            *(f"{found[name]:.1f}" for name in ("fd_encoder", "fd_vicreg")),
            f"{sum(result.seconds for result in results) / count:.2f}",
        ]
        print(row_of(cells), flush=True)
        return evaluations

    row("standard", StandardSampler(case.scheduler), n)
    taken = row("quality_guided", QualityGuidedSampler(case.scheduler, **stopping), n)
    if (as_many := round(taken)) < n:
        row("standard", StandardSampler(case.scheduler), as_many)

    unrelated = metrics.encoder.perceptual_distances(case.converged, np.roll(case.converged, 1, axis=0)).mean()
    print(f"  unrelated images are {unrelated:.2f} apart", flush=True)
