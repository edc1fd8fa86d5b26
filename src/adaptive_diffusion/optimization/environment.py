"""DomainEnv: an agent starts from the record of a domain, and is compared with the scheduler that ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.guided_model import GuidedModel
from ..errors import Unusable
from ..rl.environment import DiffusionHyperparameterEnv
from ..rl.knobs import Knobs, StepKnobs
from ..rl.reward import GivenReward, compares_with_real_images
from ..rl.sampling_env import SamplingEnv
from ..schedulers.configuration import DPM_SOLVER, Configuration
from ..schedulers.core import SchedulerCore
from .configuration import DomainConfig


@dataclass(frozen=True)
class DomainKnobs(Knobs):
    """Actions in [-1, 1]^4 around any configuration.

    Args:
        min_steps: Fewest steps, >= 1.
        prior: The configuration of action 0, its solver included.
        max_steps: Most steps.

    Raises:
        ValueError: unless min_steps <= the prior's steps <= max_steps.
    """

    def configuration(self, action: np.ndarray) -> DomainConfig:
        """The configuration of an action. With calibrated steps, it takes a calibrated number of steps."""
        prior = self.prior
        assert isinstance(prior, DomainConfig)
        chosen = super().configuration(action)
        assert isinstance(chosen, DomainConfig)

        # the nearest calibrated number of steps; the grid is calibrated too, so that its power plays no part
        if chosen.solver == DPM_SOLVER and prior.calibration is not None:
            known = {n for n in prior.calibration.steps if self.min_steps <= n <= self.max_steps} | {prior.num_steps}
            steps = min(sorted(known), key=lambda n: abs(n - chosen.num_steps))
            chosen = replace(chosen, num_steps=steps, progress_power=prior.progress_power)
        return replace(chosen, confidence=0.0, source="tried by an agent")


class DomainEnv(DiffusionHyperparameterEnv):
    """The environment around a configuration of the domain, with the default as its baseline.

    Args:
        drawing: The model in the domain.
        start: The configuration of action 0.
        default: The baseline of quality and speed.
        reward: See `reward.py`.
        min_steps: Fewest steps.
        max_steps: Most steps.
        pictures: Images per batch, >= 2; None: see `DiffusionHyperparameterEnv`.
        batches: Number of fixed batches, >= 1.
        noise_seed: Seed of the noises; the held-out noises have the next seed.
        cache: Folder of converged solutions, or None.
        calibrated: Gives a configuration the steps that are calibrated for its guidance; None: it keeps those of the
            start, whatever its guidance.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        drawing: GuidedModel,
        start: DomainConfig,
        default: Configuration,
        reward: GivenReward | None = None,
        *,
        min_steps: int = 4,
        max_steps: int = 20,
        pictures: int | None = None,
        batches: int = 2,
        noise_seed: int = 1000,
        cache: str | Path | None = None,
        calibrated: Callable[[DomainConfig], DomainConfig] | None = None,
    ):
        super().__init__(
            drawing,
            reward=reward,
            min_steps=min_steps,
            num_steps=start.num_steps,
            max_steps=max_steps,
            pictures=pictures,
            batches=batches,
            noise_seed=noise_seed,
            cache=cache,
        )

        self.calibrated = calibrated
        self.default, knobs = default, DomainKnobs(min_steps, start, max_steps)
        # around calibrated steps there is nothing to find in the solver and its grid
        only_steps = start.calibration is not None and compares_with_real_images(self.reward)
        self._use(StepKnobs(knobs) if only_steps else knobs)

    def describe(self) -> dict[str, Any]:
        """See `SamplingEnv`; actions mean the same only around the same configuration."""
        return {**super().describe(), "around": f"{self.knobs.prior}", "default": f"{self.default}"}

    def scheduler_of(self, configuration: Configuration) -> SchedulerCore:
        """See `DiffusionHyperparameterEnv`: with the steps that it is verified and drawn with afterwards."""
        if self.calibrated is not None and isinstance(configuration, DomainConfig):
            configuration = self.calibrated(configuration)
        return super().scheduler_of(configuration)

    @property
    def baseline(self) -> Configuration:
        """The default: what configurations are compared with, wherever the actions are centred."""
        return self.default


def check_environment(env: SamplingEnv, drawing: GuidedModel) -> None:
    """Check that an agent's own environment tunes hyperparameters of the same model in the same domain.

    Raises:
        Unusable: if it does not.
    """
    if not isinstance(env, DiffusionHyperparameterEnv):
        raise Unusable(f"the agent must choose hyperparameters, and its environment is a {type(env).__name__}")

    own = env.drawing
    if (own.domain, own.guided_identity) != (drawing.domain, drawing.guided_identity):
        raise Unusable(
            f"the agent's environment draws {own.domain!r} with the model {own.guided_identity:.12}, and "
            f"{drawing.domain!r} with {drawing.guided_identity:.12} is to be tuned"
        )
