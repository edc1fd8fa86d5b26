"""`train.py task=schedule`: calibrate a model in each domain, and write the file that `scheduler=adaptive` reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from omegaconf import DictConfig

from ..calibration.calibrate import ScheduleCalibration, best_classical
from ..calibration.quick import QuickCalibration
from ..calibration.store import ScheduleFile
from ..diffusion.checks import check_distinct, check_guidance
from ..diffusion.conditions import conditions_of
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Constant, Guidance, checked_guidance, in_effect, name_of
from ..diffusion.guided_model import GuidedModel
from ..encoder.captions import plain_caption
from ..errors import UserError
from ..grids.calibrated_schedule import CalibratedSchedule
from ..io.counted import count
from ..io.files import write_text
from ..io.progress import Progress
from ..sampling.timing import duration, seconds_per_evaluation
from ..types import PictureModel
from .build import build
from .checks import as_user_error
from .guidance_settings import warn_without_effect
from .inputs import model_input
from .naming import GRIDS, candidate
from .output import log_rows
from .recorded import recorded
from .settings_text import domain_settings, draw_command, setting

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """The model and the domains to calibrate; the other base of a task is the recipe.

    Args:
        model: The network.
        domains: Names of the domains; None: all that the model knows.
        guidance_scale: Weight of classifier-free guidance, >= 0; None: the model's default.
        guidance: Makes guidance, given its `weight` unless it has one of its own, and the domain and the model where it
            leaves them open.
    """

    model: PictureModel
    domains: Sequence[str] | None = None
    guidance_scale: float | None = None
    guidance: Any = Constant
    result: ClassVar[str] = "schedule/schedules.json"
    merged: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.domains is not None and not self.domains:
            raise ValueError("domains must name at least one domain; null stands for all that the model knows")
        check_distinct("domains", self.domains or ())
        if self.guidance_scale is not None:
            check_guidance(self.guidance_scale)
        super().__post_init__()  # type: ignore[misc]  # the recipe's

    def guided_in(self, domain: str) -> float | Guidance:
        """The guidance that is calibrated for in a domain."""
        settings = getattr(self.guidance, "keywords", {"weight": None})
        if "weight" not in settings:  # guidance of one's own
            if self.guidance_scale is not None:
                raise ValueError("task.guidance_scale has no effect: this guidance says its weights itself")
            return checked_guidance(self.guidance())
        given = [weight for weight in (settings["weight"], self.guidance_scale) if weight is not None]
        if len(set(given)) > 1:
            raise ValueError("task.guidance_scale and task.guidance.weight contradict each other; give one of them")
        weight = given[0] if given else ModelFacts.of(self.model).guidance(None)
        known = {"domain": domain, "model": self.model.identity}
        left_open = {name: value for name, value in known.items() if settings.get(name, value) is None}
        return checked_guidance(self.guidance(weight=weight, **left_open))

    def run(self, cfg: DictConfig) -> float:
        """Calibrate, domain after domain; what is finished is in the file at once.

        Schedules of other models, domains and guidance that the file holds already stay in it, and so do other
        numbers of steps.

        Args:
            cfg: `conf/train.yaml`, composed and checked.

        Returns:
            Mean over domains and numbers of steps of the held-out RMSE, relative to the best classical grid's.

        Raises:
            UserError: for a value that cannot be used; nothing was written then.
            MachineError: if the disk or the database refuses.
        """
        task = cast(AnyTask, self)
        problems = _problems(task)
        found = ScheduleFile(Path(cfg.output))
        found.read()  # a file that cannot be read is refused here
        tracker = build(cfg, "tracking")
        log.info("%s", _plan(problems, task))

        ratios: list[float] = []
        inputs = model_input(cfg.task.model, task.model)
        with recorded(cfg, tracker, f"calibrate {' '.join(p.domain for p in problems)}", inputs=inputs) as run:
            try:
                for problem in problems:
                    for schedule, n in _calibrated(problem, task, found):
                        ratios.append(_report(schedule, n))
                        scores = {"rmse": schedule.steps[n].score.mean, "ratio": ratios[-1]}
                        run.metrics({f"{problem.domain}/{key}": value for key, value in scores.items()}, n)
            except KeyboardInterrupt:
                kept = f"finished so far: {count(len(ratios), 'calibration')}, kept in {cfg.output}"
                go_on = "the same command goes on with the others"
                anew = "nothing is finished yet; the same command begins anew"
                log.info("%s", f"{kept}; {go_on}" if ratios else anew)
                raise
            write_text(Path(cfg.paths.run) / "schedules.json", Path(cfg.output).read_text(encoding="utf-8"))

        where, domain = setting("scheduler.calibration.path", cfg.output), domain_settings(problems[0].domain)
        draw = draw_command("scheduler=adaptive", where, *domain, f"num_steps={min(task.steps)}")
        log_rows({"saved": cfg.output, "draw": draw})
        return sum(ratios) / len(ratios)


@dataclass(frozen=True, kw_only=True)
class ScheduleTask(_Task, QuickCalibration):
    """What `task=schedule` builds.

    Args:
        model, domains, guidance_scale, guidance: What is calibrated.
        steps, ...: See `QuickCalibration`.

    Raises:
        ValueError: for a value out of range.
    """


@dataclass(frozen=True, kw_only=True)
class ThoroughScheduleTask(_Task, ScheduleCalibration):
    """What `task=schedule_thorough` builds.

    Args:
        model, domains, guidance_scale, guidance: What is calibrated.
        steps, ...: See `ScheduleCalibration`.

    Raises:
        ValueError: for a value out of range.
    """


AnyTask = ScheduleTask | ThoroughScheduleTask


def _plan(problems: Sequence[GuidedModel], task: AnyTask) -> str:
    """What a calibration will do, and that it may be stopped."""
    evaluations = sum(task.evaluations(problem) for problem in problems)
    seconds = evaluations * seconds_per_evaluation(problems[0], task.batch_size)
    return (
        f"{count(len(problems), 'domain')}, each with {', '.join(map(str, task.steps))} steps: about "
        f"{evaluations:,} network evaluations of an image, {duration(seconds)} as things are. "
        "Stop at any time: the numbers of steps that are finished "
        "are kept, and the same command goes on with the others"
    )


def _calibrated(problem: GuidedModel, task: AnyTask, file: ScheduleFile) -> Iterator[tuple[CalibratedSchedule, int]]:
    """A schedule with each number of steps, as soon as it is in the file; first those that are in it already."""
    if done := file.finished(problem, task):
        listed = ", ".join(map(str, sorted(done.steps)))
        log.info("%s: %s has %s steps by the same recipe already", problem.domain, file.path, listed)
        yield from ((done, n) for n in sorted(done.steps))

    if replaced := file.replaced(problem, task):
        adds = [n for n in task.steps if n not in replaced and n not in (done.steps if done else ())]
        others = f"; task.steps=[{','.join(map(str, adds))}] adds to it" if adds else ""
        log.warning(
            "%s: the calibration of %s steps in %s is replaced, as the recipe, the list of steps, the shares of labels "
            "or the version differs; output=<another file> keeps it%s",
            *(problem.domain, ", ".join(map(str, replaced)), file.path, others),
        )

    # What is finished already is not counted, so the end may come earlier.
    with Progress(problem.domain, None if done else task.evaluations(problem), unit="evaluation") as shown:
        yield from file.calibrate(problem, task, shown.update)


def _problems(task: AnyTask) -> list[GuidedModel]:
    """The model in each domain."""
    model = task.model
    domains = task.domains or list(model.domains or ())
    if not domains:
        raise UserError("this model has no domains of its own; give task.domains=[landscapes], or others")
    with as_user_error():
        guided = {domain: task.guided_in(domain) for domain in domains}
        for guidance in {name_of(guidance): guidance for guidance in guided.values()}.values():
            warn_without_effect(model, guidance)
        return [
            GuidedModel.from_model(
                model,
                conditions_of(model, domain, None, plain_caption(domain, None)),
                in_effect(guidance, model.conditional),
                domain=domain,
            )
            for domain, guidance in guided.items()
        ]


def _report(schedule: CalibratedSchedule, n: int) -> float:
    """Log the candidates of a number of steps; the chosen one's score relative to the best classical one's."""
    steps = schedule.steps[n]
    chosen = f"{candidate(steps.rule)}, held-out RMSE {steps.score.mean:.4f}"
    rivals = [f"{GRIDS.get(name, name)} {score.mean:.4f}" for name, score in steps.scores.items() if name != steps.rule]
    log.info("%s, %s: %s", schedule.domain, count(n, "step"), "; ".join(filter(None, (chosen, ", ".join(rivals)))))
    return steps.score.mean / best_classical(steps)
