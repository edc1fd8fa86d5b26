"""Tables of the shipped assets: held-out errors of the calibrated steps, and tuned configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_diffusion.calibration.calibrate import best_classical
from adaptive_diffusion.diffusion.guidance import name_of
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps
from adaptive_diffusion.io.markdown import MINUS, MISSING, table
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.records import CALIBRATED, DomainRecord
from adaptive_diffusion.schedulers.configuration import DPM_SOLVER, Configuration

SHOWN = (5, 6, 8, 10, 12, 15, 20, 50)  # numbers of steps that fit the width of a page
SOLVERS = {DPM_SOLVER: "adaptive", "unipc": "UniPC", "ipndm": "iPNDM"}


def calibrated_steps(schedules: Sequence[CalibratedSchedule]) -> list[str]:
    """A row per schedule: held-out scores of the best classical grid and of the calibrated steps; [] without any."""
    if not schedules:
        return []

    columns = [n for n in SHOWN if any(n in schedule.steps for schedule in schedules)]
    rows = [[_problem(schedule), *(_scores(schedule.steps.get(n)) for n in columns)] for schedule in schedules]
    return table(["held-out RMSE: best classical → calibrated", *map(str, columns)], rows)


def tuned_configurations(records: Sequence[DomainRecord]) -> list[str]:
    """A row per domain: the default and the chosen configuration, on fresh noises; [] without records."""
    if not records:
        return []
    header = ["domain", "default → chosen", "evaluations", "passes", "quality", "n", "confidence"]
    return table(header, [_tuned(record) for record in records], "llrrrrr")


def _problem(schedule: CalibratedSchedule) -> str:
    """The domain, and guidance that is not constant."""
    known = schedule.guidance_scale
    return schedule.domain if isinstance(known, int | float) else f"{schedule.domain}, guidance {name_of(known)}"


def _scores(steps: CalibratedSteps | None) -> str:
    return "" if steps is None else f"{best_classical(steps):.4f} → {steps.score.mean:.4f}"


def _tuned(record: DomainRecord) -> list[str]:
    measured = record.provenance
    default, chosen = measured.get("default"), measured.get("chosen")
    plain = DomainConfig().to_dict() if default is None else default["hyperparameters"]
    calibrated = bool(measured.get(CALIBRATED))
    after = "the default stays" if record.config == plain else _described(record.config, calibrated)
    numbers = [MISSING] * 3

    if default is not None and chosen is not None:
        numbers = [
            f"{default['evaluations']:g} → {chosen['evaluations']:g}",
            f"{default['passes']:g} → {chosen['passes']:g}",
            f"{chosen['quality']:+.2f} ± {chosen['quality_error']:.2f}".replace("-", MINUS),
        ]

    return [
        record.domain,
        f"{_described(plain, calibrated)} → {after}",
        *numbers,
        str(measured.get("pictures", MISSING)),
        f"{record.to_config().confidence:.2f}",
    ]


def _described(config: Mapping[str, Any], calibrated: bool) -> str:
    """Steps, solver, the power of the grid where it decides the timesteps, and guidance that is not the model's."""
    text = f"{config['num_steps']} steps {SOLVERS.get(config['solver'], config['solver'])}"
    if not calibrated or config["solver"] != DPM_SOLVER:
        text += f", power {config['progress_power']:g}"
    guidance = Configuration(**config).guidance
    return text if guidance is None else f"{text}, guidance {guidance.name}"
