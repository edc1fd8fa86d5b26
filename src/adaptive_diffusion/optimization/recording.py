"""What is recorded of a verification, and what a later one reads there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..rl.agent import TuningAgent
from ..rl.reward import Reward, compares_with_real_images
from .configuration import DomainConfig, confidence_of
from .domain_adapter import DomainAdapter
from .records import CALIBRATED, DEFAULT_STAYS, NOISE_SEED, UNKNOWN_ERROR
from .verification import Verdict


def known_config(adapter: DomainAdapter, domain: str, reward: Reward) -> DomainConfig:
    """The recorded configuration of a domain, without its guidance where a reward cannot tell guidance apart."""
    known = adapter.get_config(domain)
    if compares_with_real_images(reward):
        return known
    return replace(known, guidance_weight=None, guidance_low=None, guidance_high=None)


def unseen_seed(
    adapter: DomainAdapter, domain: str, agent: TuningAgent | None, first: int, history: Iterable[Mapping[str, Any]]
) -> int:
    """A seed of noises, `first` or later than any that the agent or an earlier verification of the domain has seen.

    Args:
        adapter: Its records say the noises of the last verification that was recorded.
        domain: Name of the domain.
        agent: The agent that searched, or None.
        first: The first seed.
        history: What `OptimizationPipeline.optimize` returned before.
    """
    known = adapter.known(domain)
    seen = [env.noises.seed for env in (agent.env, agent.eval_env) if env] if agent else []
    if known is not None and NOISE_SEED in known.provenance:
        seen.append(known.provenance[NOISE_SEED])
    seen += [before[NOISE_SEED] for before in history if before["domain_type"] == domain and NOISE_SEED in before]
    return max([first, *(seed + 1 for seed in seen)])


def final_config(verdict: Verdict, reward: Reward) -> DomainConfig:
    """The chosen configuration, as sure as it was measured."""
    error = verdict.quality_error
    confidence = confidence_of(UNKNOWN_ERROR if error is None else reward.weight * error)
    return replace(_chosen(verdict), confidence=confidence)


def record(
    adapter: DomainAdapter, domain: str, verdict: Verdict, reward: Reward, agent: TuningAgent | None, noise_seed: int
) -> DomainConfig:
    """Record a verdict with an adapter, and return the configuration as it is known from now on.

    A tuned configuration that stays in use is left as it was recorded.

    Args:
        adapter: The records.
        domain: Name of the domain.
        verdict: What was measured.
        reward: Scored it.
        agent: The agent that searched, or None.
        noise_seed: Seed of the verification's noises.
    """
    if not (verdict.improved or verdict.default_stays):
        adapter.keep(domain, noise_seed)
        return final_config(verdict, reward)

    chosen, measured = verdict.chosen, verdict.chosen.to_dict()
    recorded = adapter.adopt(
        domain,
        _chosen(verdict),
        quality=measured["quality"],
        speed=chosen.speed,
        quality_error=verdict.quality_error,
        weight=reward.weight,
        provenance={
            CALIBRATED: chosen.config.calibration is not None,
            "reward": f"{reward}",
            "agent": agent.kind if agent else None,
            NOISE_SEED: noise_seed,
            "pictures": len(chosen.quality),
            "reason": verdict.reason,
            "default": verdict.all[0].to_dict(),
            "chosen": measured,
        },
    )
    return replace(recorded, calibration=chosen.config.calibration)


def json_types(results: Mapping[str, Any]) -> dict[str, Any]:
    """What `OptimizationPipeline.optimize` returns, as JSON types."""
    return {
        name: {**value.to_dict(), "confidence": value.confidence, "source": value.source}
        if isinstance(value, DomainConfig)
        else value
        for name, value in results.items()
    }


def _chosen(verdict: Verdict) -> DomainConfig:
    """The chosen configuration, with what it owes to the verification."""
    config = verdict.chosen.config
    return replace(config, source=DEFAULT_STAYS) if verdict.default_stays else config
