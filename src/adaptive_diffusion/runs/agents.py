"""What `task=agent` and `task=policy` share: settings, the recorded run, and how training can end."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..diffusion.checks import check_count, check_guidance
from ..errors import Unusable, UserError
from ..io.counted import count
from ..io.files import parse_json, write_json
from ..program import title
from ..tracking.jobs import RESULT, Skipped
from ..tracking.provenance import choices, parameters
from ..tracking.tracker import Finished, Run
from ..types import PictureModel
from .agent_sweep import OUTCOMES
from .build import build
from .identity import identity_of_training
from .inputs import model_input
from .job import in_sweep
from .output import log_rows
from .recorded import recorded
from .settings_text import setting

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AgentTraining:
    """What is drawn, and how long it is trained for.

    Args:
        model: The network.
        guidance_scale: Weight of classifier-free guidance, >= 0; None: the model's default.
        episodes: Episodes to train for, those of `start_from` included, >= 1.
        pictures: Images per batch, >= 2; None, of task=agent: 8, or 66 where they are compared with real images.
        batches: Batches that are trained on, >= 1.
        noise_seed: Of the noises, >= 0.
        start_from: File of an agent to go on from, or None.

    Raises:
        ValueError: for a value out of range.
    """

    model: PictureModel
    guidance_scale: float | None = None
    episodes: int
    pictures: int | None
    batches: int
    noise_seed: int = 1000
    start_from: str | None = None

    def __post_init__(self) -> None:
        check_count("episodes", self.episodes, 1)
        if self.guidance_scale is not None:
            check_guidance(self.guidance_scale)


def trained_by(cfg: DictConfig) -> tuple[str, str]:
    """What a run is named by: the agent and the reward, of which several may have one name and another weight."""
    agent = choices().get("agent", "agent")
    reward = choices().get("reward", cfg.reward._target_.rpartition(".")[2])
    return agent, f"{reward} {cfg.reward.weight:.2g}" if "weight" in cfg.reward else reward


@contextlib.contextmanager
def recorded_agent(cfg: DictConfig, model: PictureModel, *name: str) -> Iterator[Run]:
    """The run of a training, see `recorded`; the weight of quality is recorded of every reward."""
    params = {"reward.weight": str(build(cfg, "reward").weight), **parameters(cfg)}
    inputs = model_input(cfg.task.model, model)
    with recorded(cfg, build(cfg, "tracking"), " ".join(name), params=params, inputs=inputs) as run:
        yield run


def finish(cfg: DictConfig, found: Sequence[Mapping[str, Any]], model: str) -> None:
    """Leave what was found for the end of a sweep, and print where the result is and how to draw with it.

    Args:
        cfg: The configuration of a training.
        found: For each `case` that was trained for, e.g. a domain: the final mean reward as its `score`, the command
            to `draw` with the result, and what else a sweep's table shows: `error` of the score, the score of the
            `default`, `episodes`, `configuration`.
        model: Identity of the model.
    """
    agent, reward = trained_by(cfg)
    outcomes = [{"agent": agent, "reward": reward, **case, "file": cfg.output} for case in found]
    write_json(Path(cfg.paths.run) / OUTCOMES, outcomes)
    if in_sweep():
        write_json(_kept(cfg), {"identity": identity_of_training(cfg, model), "outcomes": outcomes})
    log_rows({"saved": cfg.output, "draw": outcomes[0]["draw"]})


def finished_before(cfg: DictConfig, model: str) -> Skipped | None:
    """What this job of a sweep returned before, if it finished and its file of results is still there; else None.

    Args:
        cfg: The configuration of a training.
        model: Identity of the model.
    """
    if not in_sweep() or not _kept(cfg).is_file() or not Path(cfg.output).is_file():
        return None
    try:
        kept = parse_json(_kept(cfg).read_bytes())
        identity, outcomes = kept["identity"], kept["outcomes"]
        mean = sum(outcome["score"] for outcome in outcomes) / len(outcomes)
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        log.warning("%s is damaged (%s); the training begins anew", _kept(cfg), error)
        return None
    if identity != identity_of_training(cfg, model):
        return None

    log.info("skipped: a training with this configuration has finished: %s", cfg.output)
    write_json(Path(cfg.paths.run) / OUTCOMES, outcomes)
    return Skipped(-mean, Finished({RESULT: -mean}, Path(cfg.paths.run)))


def _kept(cfg: DictConfig) -> Path:
    """Where a sweep's job leaves its outcomes for the next sweep: beside its result."""
    return Path(cfg.output).with_suffix(".outcomes.json")


def describe_training(summary: Mapping[str, Any]) -> str:
    """How long an agent was trained, and whether it converged."""
    episode = summary["convergence_episode"]
    converged = "not converged" if episode is None else f"converged after {episode}"
    return f"{count(summary['episodes'], 'episode')}, {converged}"


def path_settings(cfg: DictConfig, default: str) -> list[str]:
    """The setting of sample.py that names the result; [] if sample.py reads this file anyway.

    Args:
        cfg: The configuration of a training.
        default: The file that sample.py reads, below paths.outputs.
    """
    return [] if Path(cfg.output) == Path(cfg.paths.outputs) / default else [setting("scheduler.path", cfg.output)]


@contextlib.contextmanager
def training_in(domain: str, file: Path) -> Iterator[None]:
    """A block that trains an agent; after an interruption it logs how to go on.

    Args:
        domain: Name of the domain.
        file: Where the agent is saved on the way.

    Raises:
        UserError: for a reward that is not a finite number, as of a model or a solver that diverges.
    """
    try:
        yield
    except KeyboardInterrupt:
        if file.exists():
            more = shlex.join([setting("domain", domain), setting("task.start_from", file)])
            log.info("the agent is saved; go on with the same settings of %s and %s", title("train"), more)
        else:
            log.info("no agent was saved yet; the same settings of %s begin anew", title("train"))
        raise
    except Unusable:
        raise
    except ValueError as error:
        raise UserError(f"{domain}: {error}") from error
