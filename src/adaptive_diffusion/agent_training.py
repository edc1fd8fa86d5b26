"""What the two stories of agents share, `task=agent` and `task=policy`: settings, checks, and how training can end."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from .baseline.checks import check_count, check_guidance
from .converged import FIRST_STEPS
from .errors import UserError
from .rl.sampling_env import HELD_OUT_BATCHES, SamplingEnv
from .run import training_configuration
from .types import PictureModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AgentTraining:
    """What is drawn, and how long it is trained for.

    Args:
        model: The network.
        guidance_scale: Weight of classifier-free guidance, >= 0; None: the model's default.
        episodes: Episodes to train for, those of `start_from` included, >= 1.
        pictures: Pictures per batch, >= 2.
        batches: Batches that are trained on, >= 1.
        noise_seed: Of the noises, >= 0.
        start_from: File of an agent to go on from, or None.

    Raises:
        ValueError: for a value out of range.
    """

    model: PictureModel
    guidance_scale: float | None = None
    episodes: int
    pictures: int
    batches: int
    noise_seed: int = 1000
    start_from: str | None = None

    def __post_init__(self) -> None:
        check_count("episodes", self.episodes, 1)
        if self.guidance_scale is not None:
            check_guidance(self.guidance_scale)


def agent_configuration(cfg: DictConfig, file: str) -> DictConfig:
    """See `training_configuration`; without a progress bar where there is no terminal."""
    cfg = training_configuration(cfg, file)
    if not sys.stderr.isatty():
        cfg.agent.verbose = 0
    return cfg


def tell_cost(env: SamplingEnv, episodes: int, domains: int = 1, verification_batches: int = 0) -> None:
    """Log what a training will take, before anything is drawn.

    Args:
        env: Where it takes place.
        episodes: Of each domain.
        domains: How many are trained in.
        verification_batches: Further batches that are compared with converged solutions.
    """
    noises, described = env.noises, env.describe()
    tried = episodes * noises.pictures * described.get("max_steps", described["num_steps"])
    compared = (noises.batches + HELD_OUT_BATCHES + verification_batches) * noises.pictures
    log.info(
        "%-11s%d episodes of %d pictures try things in up to %s model evaluations%s; the converged solutions of %d "
        "pictures take %s or more, unless they are kept from before",
        "cost",
        episodes,
        noises.pictures,
        f"{tried:,}",
        f" in each of {domains} domains" if domains > 1 else "",
        compared,
        f"{compared * FIRST_STEPS:,}",
    )


@contextlib.contextmanager
def training_in(domain: str, file: Path) -> Iterator[None]:
    """A block that trains an agent: an interruption says how to go on, and what diverges is told of in one sentence.

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
            log.info("the agent is saved; go on with the same command, domain=%s and task.start_from=%s", domain, file)
        raise
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{domain}: {error}") from error
