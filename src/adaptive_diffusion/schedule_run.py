"""The story of `train.py task=schedule`: calibrate a model in each domain, and write what the scheduler reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from . import figures
from .baseline.checks import check_guidance
from .baseline.schedulers import DPMSolverScheduler
from .errors import UserError
from .metrics.captions import plain_caption
from .models.guidance import GuidedDenoiser
from .parts import build
from .provenance import draw_command, git_state, parameters
from .rng import image_keys, normal
from .run import labels, progress_bar, training_configuration
from .sampling.batches import conditions
from .schedulers.calibrate import CLASSICAL, Problem, ScheduleCalibration, calibrate
from .schedulers.calibrated_schedule import CalibratedSchedule
from .schedulers.schedule_file import load_schedules, save_schedules
from .types import PictureModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScheduleTask(ScheduleCalibration):
    """What `task=schedule` builds: what to calibrate, and how.

    Args:
        model: The network.
        domains: Names of the domains; None: all that the model knows.
        guidance_scale: Weight of classifier-free guidance, >= 0; None: the model's default.
        steps, ...: See `ScheduleCalibration`.

    Raises:
        ValueError: for a value out of range.
    """

    model: PictureModel
    domains: Sequence[str] | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.domains is not None and not self.domains:
            raise ValueError("domains must name at least one domain; null stands for all that the model knows")
        if self.guidance_scale is not None:
            check_guidance(self.guidance_scale)


def calibrate_schedules(cfg: DictConfig) -> float:
    """Calibrate, domain after domain; what is finished is in the file at once.

    Schedules of other models, domains and guidance that the file holds already stay in it, and so do other numbers of
    steps.

    Args:
        cfg: `conf/train.yaml`, composed, with a `ScheduleTask` as its task.

    Returns:
        Mean over domains and numbers of steps of the held-out RMSE, relative to the best classical grid's.

    Raises:
        UserError: for a value that cannot be used; nothing was written then.
        MachineError: if the disk or the database refuses.
    """
    cfg = training_configuration(cfg, "schedule/schedules.json")
    known = list(load_schedules(cfg.output)) if Path(cfg.output).exists() else []
    task: ScheduleTask = build(cfg, "task")
    problems = _problems(task)
    tracker, git = build(cfg, "tracking"), git_state(cfg.paths.root)
    tags = {**labels(cfg), **(git.tags if git else {})}
    name = cfg.name or f"calibrate {' '.join(p.domain for p in problems)}"
    ratios: list[float] = []
    log.info(
        "%d domains, %d numbers of steps: some %s model evaluations of a picture. Stop at any time: the numbers of "
        "steps that are finished are kept, and task.steps and task.learned_steps can name the others",
        *(len(problems), len(task.steps), f"{len(problems) * task.evaluations():,}"),
    )
    with tracker.open(name, params=parameters(cfg), tags=tags) as run:
        for problem in problems:
            kept = [s for s in known if not _same(s, problem)]
            before = {n: steps for s in known if _same(s, problem) for n, steps in s.steps.items()}
            with progress_bar(0, "evaluation", unit_scale=True) as bar:
                bar.set_description(problem.domain)
                for schedule in calibrate(problem, task, bar.update):
                    n = max(schedule.steps)
                    ratios.append(_report(schedule, n))
                    scores = {"rmse": _chosen(schedule, n), "ratio": ratios[-1]}
                    run.metrics({f"{problem.domain}/{key}": value for key, value in scores.items()}, n)
                    known = [*kept, replace(schedule, steps={**before, **schedule.steps})]
                    save_schedules(cfg.output, known)
        figures.write_text(Path(cfg.paths.run) / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        figures.write_text(Path(cfg.paths.run) / "schedules.json", Path(cfg.output).read_text(encoding="utf-8"))
        run.folder(cfg.paths.run)
    log.info("%-11s%s", "saved", cfg.output)
    where, domain = f"scheduler.calibration.path={cfg.output}", f"domain={problems[0].domain}"
    log.info("%-11s%s", "draw", draw_command("scheduler=adaptive", where, domain, f"num_steps={min(task.steps)}"))
    return sum(ratios) / len(ratios)


def _problems(task: ScheduleTask) -> list[Problem]:
    """One for each domain."""
    model, metadata = task.model, task.model.metadata
    domains = task.domains or list(model.domains or ())
    if not domains:
        raise UserError("this model has no domains of its own; give task.domains=[landscapes], or others")
    guidance = float(metadata.get("guidance_scale", 1.0)) if task.guidance_scale is None else task.guidance_scale
    scheduler = DPMSolverScheduler(
        prediction_type=metadata["prediction_type"],
        clip_sample=metadata.get("bounded", True),
        **metadata.get("noise_schedule", {}),
    )
    return [
        Problem(
            denoiser=GuidedDenoiser(model, guidance),
            scheduler=scheduler,
            noise=lambda seed, count: normal(image_keys(seed, range(count)), model.state_shape),
            condition=partial(conditions, model.condition(domain, None, plain_caption(domain, None))),
            model=model.identity,
            domain=domain,
            guidance_scale=guidance,
        )
        for domain in domains
    ]


def _same(schedule: CalibratedSchedule, problem: Problem) -> bool:
    """Whether a schedule is what the calibration of a problem replaces."""
    return (schedule.model, schedule.domain, schedule.guidance_scale) == (
        problem.model,
        problem.domain,
        problem.guidance_scale,
    )


def _chosen(schedule: CalibratedSchedule, n: int) -> float:
    """Held-out score of the chosen rule."""
    steps = schedule.steps[n]
    return steps.scores[steps.rule].mean


def _report(schedule: CalibratedSchedule, n: int) -> float:
    """Log the candidates of a number of steps; the chosen one's score relative to the best classical one's."""
    steps = schedule.steps[n]
    scores = {name: round(score.mean, 4) for name, score in steps.scores.items()}
    log.info("%s %d steps: %s; held-out RMSE %s", schedule.domain, n, steps.rule, json.dumps(scores))
    return _chosen(schedule, n) / min(steps.scores[name].mean for name in CLASSICAL)
