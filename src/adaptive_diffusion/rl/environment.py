"""DiffusionHyperparameterEnv: choose how to sample, and be told how good and how fast that was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.checks import check_count
from ..diffusion.guidance import Guidance
from ..diffusion.guided_model import GuidedModel
from ..schedulers.configuration import DPM_SOLVER, Configuration
from ..schedulers.core import SchedulerCore
from ..types import PictureModel
from .drawing import drawing_of
from .guidance_knobs import with_guidance_knobs
from .gym import Box
from .knobs import Knobs
from .lockstep import Episode, drawing_run
from .measurement import Measurement, Sampled
from .reward import GivenReward, HybridReward, compares_with_real_images, reward_of
from .sampling_env import SamplingEnv, Start, Step


class DiffusionHyperparameterEnv(SamplingEnv):
    """One step, one episode: a configuration is chosen, a small batch is really drawn with it, and scored.

    Action: 4 numbers in [-1, 1] for the number of steps, `adaptive_threshold`, `progress_power` and the solver; all 0
    is the prior, `AdaptiveScheduler` as it is, which is also the baseline of the reward. See `Knobs`. With a reward of
    distances to real images, 3 numbers for the weight and the two ends of guidance come before them: see
    `GuidanceKnobs`. (Converged solutions hold at one guidance only.)

    Observation: the domain as one-hot (none for a model without classes), the weight of quality in the reward, and
    the prior's steps as a share of `max_steps`; all in [0, 1].

    Drawing is deterministic, so what a configuration gave on a batch is remembered and not drawn a second time
    (seconds included); nor is one that differs in a threshold that no step reached.

    Args:
        model: A model that says how it was trained, a `GuidedModel` of any other network, or None: the model that ships
            with the project.
        domain: One of the model's domains; None: landscapes.
        reward: See `reward.py`; None: `HybridReward()`.
        guidance_scale: Weight of classifier-free guidance, or `Guidance`; None: what the model recommends.
        min_steps: Fewest steps, >= 1.
        num_steps: The prior's and baseline's steps, between the two others.
        max_steps: Most steps.
        pictures: Images per batch, >= 2; None: 8, or 66 where they are compared with real images.
        batches: Number of fixed batches that episodes are drawn from, >= 1.
        noise_seed: Of these noises; held-out ones have the next seed.
        cache: Folder that keeps converged solutions; None: they are solved for once per environment, on first use.
        render_mode: `rgb_array` or None, see `render`: the noises after a `reset`, the images after a `step`.

    Raises:
        ValueError: for a value out of range, or a model or domain that does not fit.
    """

    episode_length = 1

    def __init__(
        self,
        model: PictureModel | GuidedModel | None = None,
        domain: str | None = None,
        reward: GivenReward | None = None,
        *,
        guidance_scale: float | Guidance | None = None,
        min_steps: int = 4,
        num_steps: int = 10,
        max_steps: int = 20,
        pictures: int | None = None,
        batches: int = 2,
        noise_seed: int = 1000,
        cache: str | Path | None = None,
        render_mode: str | None = None,
    ):
        knobs = Knobs(min_steps, Configuration(num_steps), max_steps)
        drawing, reward = drawing_of(model, domain, guidance_scale), reward_of(reward or HybridReward())
        check_count("max_steps", max_steps, 1, drawing.process.num_train_timesteps)
        super().__init__(
            drawing,
            reward,
            pictures=pictures,
            batches=batches,
            noise_seed=noise_seed,
            cache=cache,
            render_mode=render_mode,
        )
        self._observation = np.append(drawing.one_hot, [reward.weight, num_steps / max_steps]).astype(np.float32)
        self.observation_space = Box(0.0, 1.0, self._observation.shape, np.float32)
        self._use(knobs)
        self.forget()

    def _use(self, knobs: Knobs) -> None:
        """Take these knobs, and those of guidance where the reward can tell guidance apart."""
        self.knobs = with_guidance_knobs(knobs, self.drawing) if compares_with_real_images(self.reward) else knobs
        self.action_space = Box(-1.0, 1.0, (self.knobs.width,), np.float32)

    def describe(self) -> dict[str, Any]:
        """See `SamplingEnv`."""
        return {
            "environment": type(self).__name__,
            "domains": list(self.drawing.domains),
            "min_steps": self.knobs.min_steps,
            "num_steps": self.knobs.prior.num_steps,
            "max_steps": self.knobs.max_steps,
        }

    def forget(self) -> None:
        """See `SamplingEnv`."""
        self._sampled: dict[tuple[Configuration, int], Sampled] = {}
        self._plain: dict[tuple[Configuration, int], tuple[float, Sampled]] = {}  # threshold, and what came of it

    def begin(self) -> Episode[Start]:
        """See `SamplingEnv`."""
        yield from ()  # nothing needs to be drawn yet
        self._states = self.noises.x_T(self.batch)
        return self._observation.copy(), {"batch": self.batch}

    def advance(self, action: np.ndarray) -> Episode[Step]:
        """See `SamplingEnv`."""
        configuration = self.knobs.configuration(self.within(action))
        measured = yield from self.measure(configuration)
        reward, info = self._score(measured, configuration.to_dict())
        return self._observation.copy(), reward, True, False, info

    @property
    def baseline(self) -> Configuration:
        """What a configuration is compared with: the prior."""
        return self.knobs.prior

    def measure(self, configuration: Configuration) -> Episode[Measurement]:
        """Draw the current batch with a configuration and with the baseline, as far as they are not remembered."""
        baseline = yield from self._draw(self.baseline)
        sampled = yield from self._draw(configuration)
        self.spent.asked += sampled.evaluations * self.noises.pictures
        self._states = sampled.states
        return self.noises.measurement.of(sampled, baseline)

    def scheduler_of(self, configuration: Configuration) -> SchedulerCore:
        """What a configuration is drawn with."""
        return configuration.scheduler(self.drawing.settings)

    def _draw(self, configuration: Configuration) -> Episode[Sampled]:
        batch, adaptive = self.batch, configuration.solver == DPM_SOLVER
        found = self._sampled.get((configuration, batch))
        if found is not None:
            return found

        # where no step reached its threshold, a larger one changes nothing
        alike = (replace(configuration, adaptive_threshold=1.0), batch)
        plain = self._plain.get(alike) if adaptive else None
        if plain is not None and configuration.adaptive_threshold >= plain[0]:
            return plain[1]

        scheduler = self.scheduler_of(configuration)
        x_T, rows = self.noises.x_T(batch), self.noises.rows(batch)
        drawn = yield from drawing_run(scheduler, x_T, rows, guidance=configuration.guidance)
        self.spent.computed += drawn.evaluations * self.noises.pictures
        sampled = self.noises.sampled(batch, drawn, keep_states=self.render_mode is not None)
        self._sampled[configuration, batch] = sampled

        checked = [np.array(error) for error in drawn.errors]
        if adaptive and not any((error > configuration.adaptive_threshold).any() for error in checked):
            self._plain[alike] = (configuration.adaptive_threshold, sampled)
        return sampled
