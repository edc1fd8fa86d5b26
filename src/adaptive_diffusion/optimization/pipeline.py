"""OptimizationPipeline: find a configuration for a domain, verify it on fresh noises, and record it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count, check_seed
from ..diffusion.facts import ModelFacts
from ..diffusion.guided_model import GuidedModel
from ..grids.calibrated import find_schedule
from ..io.progress import say
from ..rl.agent import TuningAgent
from ..rl.callbacks import OnMetrics
from ..rl.cost import cost
from ..rl.drawing import drawing_in
from ..rl.knobs import Knobs
from ..rl.noises import Noises
from ..rl.real_noises import noises_for
from ..rl.reward import GivenReward, HybridReward, is_timed, reward_of
from ..rl.sampling_env import SamplingEnv
from ..sampling.quality_guided import QualityGuidedSampler
from ..schedulers.configuration import Configuration
from ..schedulers.core import SchedulerCore
from ..types import PictureModel
from .configuration import DomainConfig, split_config
from .domain_adapter import DomainAdapter
from .domains import DomainType
from .environment import DomainEnv, check_environment
from .memory import read_history, write_history
from .recording import final_config, json_types, known_config, record, unseen_seed
from .records import NOISE_SEED
from .tuned import with_calibrated
from .verification import verify

FRESH = 500  # seeds from the noises of an environment to those that its result is verified on, at least

AgentMaker = Callable[[SamplingEnv], TuningAgent]


class OptimizationPipeline:
    """Detects a domain, starts from its record, lets an agent search, and verifies what the agent found.

    The default is the scheduler that ships: `AdaptiveScheduler` with its calibration, or on its power grid for a model
    without calibration. What the agent finds is measured again, on noises that neither the agent nor an earlier
    verification saw, beside the default and the tuned configuration that is in use. It is returned, and recorded, only
    if it is better than both by more than two standard errors.

    Args:
        domain_adapter: The records of the domains; None: the records that ship.
        rl_agent: Makes an agent from an environment, e.g. a class of `rl.baselines`; or an agent, which is trained in
            its own environment; None: `HyperparameterTuningAgent`, which is PPO.
        use_domain_adaptation: Start from the record of the domain, and record what was found. False: start from the
            default, and leave the adapter alone.
        use_rl_optimization: False: no agent; the recorded configuration is verified against the default.
        model: The model that draws; None: the adapter's, by default the model that ships with the project.
        guidance_scale: Weight of classifier-free guidance; None: the adapter's, by default what the model recommends.
        reward: What counts, see `rl.reward`; None: `HybridReward()`.
        calibration: File of calibrated steps that `train.py task=schedule` wrote; None: the shipped one, where it fits.
        kept: Folder of calibrations that were made on first use, beside the shipped one; None: none are used.
        min_steps: Fewest steps, >= 1.
        num_steps: Steps of the default, between the two others.
        max_steps: Most steps.
        pictures: Images per batch, >= 2; None: 8, or 66 where they are compared with real images.
        batches: Batches from which an agent learns, >= 1.
        verification_batches: Fresh batches of the verification, >= 1; >= 2 where the reward counts seconds.
        noise_seed: Seed of the agent's noises; the verification's is `FRESH` larger, or beyond all earlier ones.
        cache: Folder of converged solutions, or None.
        verbose: 0 is silent; 1 prints the cost of `optimize` in advance, and its progress.

    Attributes:
        rl_agent: As it was given, or the agent that was trained last.

    Raises:
        ValueError: for a value out of range, or a model beside an adapter of another one.
    """

    def __init__(
        self,
        domain_adapter: DomainAdapter | None = None,
        rl_agent: TuningAgent | AgentMaker | None = None,
        use_domain_adaptation: bool = True,
        use_rl_optimization: bool = True,
        *,
        model: PictureModel | None = None,
        guidance_scale: float | None = None,
        reward: GivenReward | None = None,
        calibration: str | Path | None = None,
        kept: str | Path | None = None,
        min_steps: int = 4,
        num_steps: int = 10,
        max_steps: int = 20,
        pictures: int | None = None,
        batches: int = 2,
        verification_batches: int = 4,
        noise_seed: int = 1000,
        cache: str | Path | None = None,
        verbose: int = 0,
    ):
        if domain_adapter is not None and (model is not None or guidance_scale is not None):
            raise ValueError("a DomainAdapter already says model and guidance; give them to it, not beside it")

        if not (rl_agent is None or isinstance(rl_agent, TuningAgent) or callable(rl_agent)):
            raise ValueError(f"rl_agent must be an agent, or a class or function that makes one, got {rl_agent!r:.80}")

        self.adapter = domain_adapter or DomainAdapter(model=model, guidance_scale=guidance_scale)
        self.rl_agent = self._given = rl_agent
        self.use_domain_adaptation, self.use_rl_optimization = use_domain_adaptation, use_rl_optimization
        self.reward = reward_of(reward or HybridReward())
        self.verbose = check_count("verbose", verbose, 0)
        knobs = Knobs(min_steps, Configuration(num_steps), max_steps)
        self.min_steps, self.num_steps, self.max_steps = knobs.min_steps, knobs.prior.num_steps, knobs.max_steps
        self.pictures = None if pictures is None else check_count("pictures", pictures, 2)
        self.batches = check_count("batches", batches, 1)
        fewest = 2 if is_timed(self.reward) else 1
        self.verification_batches = check_count("verification_batches", verification_batches, fewest)
        self.noise_seed = check_seed("noise_seed", noise_seed)
        self.calibration, self.kept, self.cache = calibration, kept, cache
        self._history: list[dict[str, Any]] = []

    def optimize(
        self,
        domain_type: DomainType | str | None = None,
        prompt: str | None = None,
        sample: mx.array | np.ndarray | None = None,
        num_training_steps: int = 100,
        num_optimization_episodes: int = 10,
        *,
        callback: OnMetrics | None = None,
        checkpoint: str | Path | None = None,
        prepare: Callable[[TuningAgent], Any] | None = None,
    ) -> dict[str, Any]:
        """Find a configuration for a domain.

        Args:
            domain_type: The domain; None: that of the sample, else of the prompt.
            prompt: What to draw, in words.
            sample: (H, W, 3) or (B, H, W, 3) images of the domain, uint8 or float in [-1, 1].
            num_training_steps: Steps of training in all, >= 0; earlier training of the agent counts. An episode is a
                step.
            num_optimization_episodes: Episodes in which the agent then chooses, >= 1.
            callback: Called with every evaluation, see `TuningAgent.train`.
            checkpoint: File of the agent, saved after every evaluation.
            prepare: Called with the agent before it is trained, e.g. to load one.

        Returns:
            `domain_type` and `domain_confidence`; `final_config`, a `DomainConfig`, with `improved`, whether it is what
            was found, and the `reason`; `start_config` and, from the agent, `agent_config`, `training` and
            `optimization`; `in_use_config`, the tuned configuration that has to be beaten, and `found_config`, the best
            of the others, each None where there is none; `gains`, mean and standard error of what the reward of the
            latter gains over the `default` and over what is `in_use`; `verification`, the measurements of each
            configuration, the default first, from the noises of `noise_seed`.

        Raises:
            ValueError: for a domain that is unknown or that the model does not draw, or a reward that is not a finite
                number, naming the configuration.
        """
        check_count("num_training_steps", num_training_steps, 0)
        check_count("num_optimization_episodes", num_optimization_episodes, 1)

        found = self.adapter.detect(domain_type, prompt, sample)
        drawing, default = self.drawing(found.domain), self.default_config(found.domain)
        start = self._start(found.domain, default)
        candidates, of_agent = [start], {}

        agent = self._agent(drawing, start, default) if self.use_rl_optimization else None
        if agent is not None:
            agent.verbose = max(agent.verbose, self.verbose)
            if prepare is not None:
                prepare(agent)
            self._train(agent, found.domain, num_training_steps, callback, checkpoint)
            of_agent = self._searched(agent, found.domain, default, num_optimization_episodes)
            candidates.append(of_agent["agent_config"])

        noises = self._fresh(drawing, found.domain, agent)
        quiet = not (self.verbose if agent is None else agent.verbose)
        if not quiet:
            noises.solve()  # now, with its progress, and not within the verification

        in_use = None if agent is None else self._in_use(found.domain, default)
        verdict = verify(candidates, default, drawing, self.reward, noises, in_use=in_use, quiet=quiet)
        final = final_config(verdict, self.reward)
        if self.use_domain_adaptation:
            final = record(self.adapter, found.domain, verdict, self.reward, agent, noises.seed)

        results = {
            "domain_type": found.domain,
            "domain_confidence": found.confidence,
            "start_config": start,
            **of_agent,
            "final_config": final,
            "found_config": verdict.found.config if verdict.found else None,
            "in_use_config": in_use,
            "improved": verdict.improved,
            "gains": {name: gain._asdict() for name, gain in verdict.gains.items()},
            "reason": verdict.reason,
            "verification": [v.to_dict() for v in verdict.all],
            NOISE_SEED: noises.seed,
        }

        self._history.append(json_types(results))
        return results

    def default_config(self, domain: DomainType | str) -> DomainConfig:
        """The scheduler that ships, as a configuration: the baseline of every verification."""
        return self._calibrated(domain, DomainConfig(self.num_steps))

    def drawing(self, domain: DomainType | str) -> GuidedModel:
        """The model with its guidance, in a domain.

        Raises:
            ValueError: if it does not draw the domain, or does not say what it predicts.
        """
        drawing = drawing_in(self.adapter.model, str(domain), self.adapter.guidance_scale)
        # a model without classes does not know which domain it is for
        return drawing if drawing.domain == str(domain) else replace(drawing, domain=str(domain))

    def agent(self, domain: DomainType | str) -> TuningAgent:
        """The agent that `optimize` would train in a domain, before its training: the agent given, or a new one.

        Raises:
            ValueError: for a domain that is unknown or that the model does not draw, an agent given that does not tune
                it, or a value out of range.
        """
        default = self.default_config(domain)
        return self._agent(self.drawing(domain), self._start(str(domain), default), default)

    def create_optimized_scheduler(
        self,
        config: DomainConfig | Mapping[str, Any] | None = None,
        domain_type: DomainType | str | None = None,
        prompt: str | None = None,
    ) -> SchedulerCore:
        """A scheduler for the model, its timesteps set, with the steps that are calibrated for its guidance.

        What was tuned before there were any is drawn without them, and a warning says so.

        Args:
            config: A configuration, or hyperparameters by name; None: the adapter's configuration of the domain. It may
                also hold settings of `QualityGuidedSampler`, which only `create_optimized_sampler` uses.
            domain_type: The domain; None: that of the prompt.
            prompt: What to draw, in words.

        Raises:
            ValueError: for a domain or a hyperparameter that is unknown, out of range, or not drawn by the model.
        """
        domain = self.adapter.detect(domain_type, prompt).domain
        given, _ = split_config(config)
        config = given or self.adapter.get_config(domain)
        fitted = with_calibrated(config, self._calibrated(domain, config).calibration, domain)
        return fitted.scheduler(self.drawing(domain).settings)

    def create_optimized_sampler(
        self,
        scheduler: SchedulerCore | None = None,
        config: DomainConfig | Mapping[str, Any] | None = None,
        domain_type: DomainType | str | None = None,
    ) -> QualityGuidedSampler:
        """The sampling loop in which configurations are tuned: every image takes every step; quality is estimated.

        Args:
            scheduler: A scheduler; None: one made by `create_optimized_scheduler` from the rest.
            config: See `create_optimized_scheduler`. With settings of `QualityGuidedSampler` in it, such as
                `quality_threshold`, images stop early.
            domain_type: See `create_optimized_scheduler`.

        Raises:
            ValueError: as `create_optimized_scheduler` and `QualityGuidedSampler`.
        """
        _, stopping = split_config(config)
        scheduler = scheduler or self.create_optimized_scheduler(config, domain_type)
        model = ModelFacts.of(self.adapter.model).content_hash
        return QualityGuidedSampler(scheduler, model=model, **{"early_stopping": bool(stopping), **stopping})

    def get_history(self) -> list[dict[str, Any]]:
        """What `optimize` returned so far, as JSON types, oldest first."""
        return list(self._history)

    def save(self, path: str | Path) -> None:
        """Write the history and the adapter's records, as JSON; agents save themselves.

        Raises:
            ValueError: if `path` does not end in `.json`.
        """
        write_history(path, self._history, self.adapter.export())

    def load(self, path: str | Path) -> None:
        """Take over what `save` wrote: the history, and the records of the model in each domain.

        Raises:
            ValueError: if the file is missing, damaged, of another kind, or of another model or guidance.
        """
        history, records = read_history(path)
        self.adapter.take_over(records, str(path))
        self._history = history

    def _start(self, domain: str, default: DomainConfig) -> DomainConfig:
        """The configuration that the search starts from: the recorded one, within the range of steps."""
        if not self.use_domain_adaptation:
            return default

        known = known_config(self.adapter, domain, self.reward)
        steps = min(max(known.num_steps, self.min_steps), self.max_steps)
        return self._calibrated(domain, replace(known, num_steps=steps))

    def _in_use(self, domain: str, default: DomainConfig) -> DomainConfig | None:
        """What something better would replace: what was tuned before, unless that is the default."""
        known = self.adapter.in_use(domain) if self.use_domain_adaptation else None
        return None if known in (None, default) else self._calibrated(domain, known)

    def _calibrated(self, domain: DomainType | str, config: DomainConfig) -> DomainConfig:
        """A configuration with the steps that are calibrated for its guidance, or for one that is near."""
        model, guidance = self.adapter.model.identity, config.guidance or self.adapter.guidance_scale
        found = find_schedule(self.calibration, model, str(domain), guidance, self.kept, num_steps=config.num_steps)
        return replace(config, calibration=found, calibrated=None)

    def _train(
        self, agent: TuningAgent, domain: str, steps: int, callback: OnMetrics | None, checkpoint: str | Path | None
    ) -> None:
        """Train an agent for what is left of `steps`."""
        left = max(steps - agent.record.timesteps, 0)
        if self.verbose:
            say(f"{domain}: {cost(agent, left, verification_batches=self.verification_batches)}")
        if left:
            agent.train(left, callback, checkpoint=checkpoint)

    def _searched(self, agent: TuningAgent, domain: str, default: DomainConfig, episodes: int) -> dict[str, Any]:
        """What a trained agent chooses for a domain, as `optimize` returns it."""
        chosen = agent.optimize_hyperparameters(episodes)
        best = replace(default, **chosen["best_hyperparameters"], source=f"tuned by {agent.kind} for {domain}")
        # the steps of its own guidance, which it will be drawn with
        best = self._calibrated(domain, best)
        return {"agent_config": best, "training": agent.record.summary(), "optimization": chosen}

    def _agent(self, drawing: GuidedModel, start: DomainConfig, default: DomainConfig) -> TuningAgent:
        """The agent, in an environment of the domain."""
        if isinstance(self._given, TuningAgent):
            check_environment(self._given.env, drawing)
            return self._given

        env = DomainEnv(
            drawing,
            start,
            default,
            self.reward,
            min_steps=self.min_steps,
            max_steps=self.max_steps,
            pictures=self.pictures,
            batches=self.batches,
            noise_seed=self.noise_seed,
            cache=self.cache,
            calibrated=partial(self._calibrated, drawing.domain),
        )
        if self._given is None:
            from ..rl.ppo_agent import HyperparameterTuningAgent

            made: TuningAgent = HyperparameterTuningAgent(env)
        else:
            made = self._given(env)
            if not isinstance(made, TuningAgent):
                raise ValueError(f"rl_agent must make an agent from an environment; it made {made!r:.80}")

        self.rl_agent = made
        return made

    def _fresh(self, drawing: GuidedModel, domain: str, agent: TuningAgent | None) -> Noises:
        """Noises that neither the agent nor an earlier verification of the domain has seen."""
        return noises_for(
            self.reward.metric,
            drawing,
            pictures=self.pictures,
            batches=self.verification_batches,
            seed=unseen_seed(self.adapter, domain, agent, self.noise_seed + FRESH, self._history),
            cache=self.cache,
        )
