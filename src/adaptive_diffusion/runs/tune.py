"""`train.py agent=...`: tune how to sample, verify the result, and write the file that `scheduler=tuned` reads."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig

from ..diffusion.checks import check_name
from ..errors import Unusable, UserError
from ..io.counted import count
from ..io.files import write_text
from ..io.locks import alone
from ..optimization.configuration import DomainConfig
from ..optimization.domain_adapter import DomainAdapter
from ..optimization.memory import read_records, write_records
from ..optimization.pipeline import OptimizationPipeline
from ..optimization.records import CALIBRATED, DomainRecord, DomainRecords, Result
from ..rl.agent import TuningAgent
from ..rl.cost import cost
from ..rl.reward import Reward, compares_with_real_images
from ..tracking.tracker import Run
from .agents import (
    AgentTraining,
    describe_training,
    finish,
    finished_before,
    path_settings,
    recorded_agent,
    trained_by,
    training_in,
)
from .build import build
from .checks import as_user_error
from .output import log_rows
from .settings_text import domain_settings, draw_command, setting

log = logging.getLogger(__name__)

OTHERS = ("in_use", "found")  # configurations that were verified beside the default


@dataclass(frozen=True, kw_only=True)
class AgentTask(AgentTraining):
    """What `task=agent` builds: what to tune, and how long. An episode is one step of the environment.

    Args:
        calibration: File of calibrated steps; None: the shipped one, where it fits.
        kept: Folder of calibrations that were made on first use, beside the shipped one; None: none are used.
        min_steps: Fewest steps of a configuration, >= 1.
        num_steps: Steps of the default, between the two others.
        max_steps: Most steps.
        verification_batches: Fresh batches, >= 1; >= 2 where the reward counts seconds.
        model, ...: See `AgentTraining`.

    Raises:
        ValueError: for a value out of range.
    """

    calibration: str | None = None
    kept: str | None = None
    episodes: int = 100
    min_steps: int = 4
    num_steps: int = 10
    max_steps: int = 20
    pictures: int | None = None
    batches: int = 2
    verification_batches: int = 4
    result: ClassVar[str] = "agent/tuned.json"
    takes: ClassVar[tuple[str, ...]] = ("agent", "reward", "domain")
    needs: ClassVar[str] = "agent=ppo reward=hybrid"

    def run(self, cfg: DictConfig) -> float:
        """Tune one domain, or one after another all that the model knows; what is finished is in the file at once.

        Args:
            cfg: `conf/train.yaml`, composed and checked, with an agent and a reward.

        Returns:
            -1 times the mean reward of the final configurations: what a sweeper may minimise.

        Raises:
            UserError: for a value that cannot be used; nothing was written then, except perhaps the place of a domain
                of one's own. Or for a reward that is not a finite number, naming the configuration.
            MachineError: if the disk or the database refuses.
        """
        if (done := finished_before(cfg, self.model.identity)) is not None:
            return done
        pipeline, domains, agent = _pipeline(cfg, self)
        log_rows({"cost": cost(agent, self.episodes, len(domains), self.verification_batches)})
        folder, found = Path(cfg.paths.run), []

        aside = folder / "set_aside.json"
        aside.unlink(missing_ok=True)  # of an earlier run in this folder
        settings = ["scheduler=tuned"]
        if cfg.task.calibration is not None:
            settings.append(setting("scheduler.calibration.path", cfg.task.calibration))

        with recorded_agent(cfg, self.model, "tune", *trained_by(cfg), *domains) as run:
            for domain in domains:
                results = _tuned(pipeline, cfg, domain, folder / f"{domain}.zip", run)
                draw = draw_command(*settings, *path_settings(cfg, self.result), *domain_settings(domain))
                found.append({"case": domain, **_report(results, run, pipeline.reward), "draw": draw})
                if (other := _set_aside(results, pipeline, aside)) is not None:
                    draw = draw_command(*settings, setting("scheduler.path", aside), *domain_settings(domain))
                    log_rows({"replaces" if results["improved"] else "not kept": other, "drawn by": draw})
                write_text(folder / "history.json", json.dumps(pipeline.get_history(), indent=1) + "\n")

            mean = sum(case["score"] for case in found) / len(found)
            run.metrics({"final/score": mean})

        finish(cfg, found, self.model.identity)
        return -mean

    def cost(self, cfg: DictConfig) -> str:
        """What `run` will take, in words; an evaluation is timed for it.

        Raises:
            UserError: for a value that cannot be used.
        """
        _, domains, agent = _pipeline(cfg, self)
        return cost(agent, self.episodes, len(domains), self.verification_batches)


def _pipeline(cfg: DictConfig, task: AgentTask) -> tuple[OptimizationPipeline, list[str], TuningAgent]:
    """The pipeline, the domains that it is to tune, and the agent of the first; what can be refused is refused here."""
    reward = build(cfg, "reward")
    names = [cfg.domain.name] if cfg.domain is not None else list(task.model.domains or ())
    if not names:
        raise UserError("this model has no domains of its own; say what it draws, e.g. domain=landscapes")
    with as_user_error():
        for name in names:
            check_name("the model's domain", name, of_file=True)
    if task.start_from is not None and len(names) > 1:
        raise UserError("task.start_from is the agent of one domain; say which, e.g. domain=portraits")
    adapter = DomainAdapter(cfg.output, model=task.model, guidance_scale=task.guidance_scale)

    try:
        pipeline = OptimizationPipeline(
            adapter,
            lambda env: build(cfg, "agent", env=env),
            reward=reward,
            calibration=task.calibration,
            kept=task.kept,
            min_steps=task.min_steps,
            num_steps=task.num_steps,
            max_steps=task.max_steps,
            pictures=task.pictures,
            batches=task.batches,
            verification_batches=task.verification_batches,
            noise_seed=task.noise_seed,
            cache=Path(cfg.paths.outputs) / "converged",
        )

        # Both refuse what cannot be drawn.
        for name in names:
            pipeline.default_config(name)
            pipeline.drawing(name)
        if cfg.domain is not None and cfg.domain.get("pictures") is not None:
            adapter.register_pictures(cfg.domain.name, cfg.domain.pictures)  # its agent starts from the nearest domain
        agent = pipeline.agent(names[0])
    except Unusable:
        raise
    except ValueError as error:
        raise UserError(f"task: {error}") from None

    if task.start_from is not None:
        agent.load(task.start_from)
        if len(agent.record.returns) >= task.episodes:
            log.info("task.episodes=%d are done already; what the agent found is only verified", task.episodes)

    return pipeline, names, agent


def _tuned(pipeline: OptimizationPipeline, cfg: DictConfig, domain: str, file: Path, run: Run) -> dict[str, Any]:
    """Tune a domain; its agent is saved after every evaluation."""

    def record(metrics: dict[str, float], episode: int) -> None:
        # standard errors are in the result and in history.json
        means = {f"{domain}/{name}": value for name, value in metrics.items() if not name.endswith("_error")}
        run.metrics(means, episode)

    start = cfg.task.start_from
    with alone(file), training_in(domain, file):
        return pipeline.optimize(
            domain,
            num_training_steps=cfg.task.episodes,
            callback=record,
            checkpoint=file,
            prepare=None if start is None else lambda agent: agent.load(start),
        )


def _report(results: dict[str, Any], run: Run, reward: Reward) -> dict[str, Any]:
    """Log the result of a domain; its final mean reward as `score`, and what a sweep's table shows besides."""
    domain, final = results["domain_type"], results["final_config"]
    measured = {"default": results["verification"][0], "final": _measured(results, final)}
    measured |= {name: _measured(results, config) for name in OTHERS if (config := results[f"{name}_config"])}
    default, final_measured = measured["default"], measured["final"]

    error = "moment distance to real images" if compares_with_real_images(reward) else "error"
    names = ("score", "quality", "evaluations", "passes")
    run.metrics({f"{domain}/{which}/{name}": one[name] for which, one in measured.items() for name in names})
    gains = {f"{domain}/gain/{over}": gain for over, gain in results["gains"].items()}
    run.metrics({name: gain["mean"] for name, gain in gains.items()})
    run.metrics({f"{name}_error": gain["error"] for name, gain in gains.items()})

    log_rows(
        {
            domain: f"{final}, confidence {final.confidence:.0%} that the score is right to 0.1",
            "training": describe_training(results["training"]),
            **{which.replace("_", " "): _row(one, error) for which, one in measured.items() if which != "final"},
            "verdict": results["reason"],
        }
    )
    return {
        "score": float(final_measured["score"]),
        "error": float(final_measured["score_error"]),
        "default": float(default["score"]),
        "episodes": int(results["training"]["episodes"]),
        "configuration": str(final),
    }


def _measured(results: dict[str, Any], config: DomainConfig) -> dict[str, Any]:
    """What was measured of a configuration."""
    found: dict[str, Any] = next(v for v in results["verification"] if v["hyperparameters"] == config.to_dict())
    return found


def _set_aside(results: dict[str, Any], pipeline: OptimizationPipeline, file: Path) -> DomainConfig | None:
    """What was found but not kept, or what it replaced: recorded in a file that `scheduler=tuned` can be given."""
    config: DomainConfig | None = results["in_use_config" if results["improved"] else "found_config"]
    if config is None:
        return None

    adapter, measured = pipeline.adapter, _measured(results, config)
    result = Result(config.to_dict(), measured["quality"], measured["speed"], measured["quality_error"])
    record = DomainRecord(
        adapter.model.identity,
        adapter.guidance_scale,
        results["domain_type"],
        pipeline.reward.weight,
        config.to_dict(),
        config.source,
        {CALIBRATED: config.calibration is not None, "reward": f"{pipeline.reward}", "chosen": measured},
        [result],
    )
    records = read_records(file) if file.exists() else DomainRecords()
    records.known.append(record)
    write_records(file, records)
    return config


def _row(measured: dict[str, Any], error: str) -> str:
    return (
        f"{count(measured['evaluations'], 'evaluation')}, {count(measured['passes'], 'pass')}, "
        f"{error} {measured['error']:.4f} +- {1.96 * measured['error_error']:.4f}, "
        f"{measured['seconds']:.3g} s per image"
    )
