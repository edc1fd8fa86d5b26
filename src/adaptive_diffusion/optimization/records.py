"""What is known of sampling in a domain: results of configurations, and the configuration that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..diffusion.checks import check_number
from ..io.counted import count
from ..schedulers.configuration import Configuration
from .configuration import DomainConfig, confidence_of

FORMAT = "adaptive-diffusion/tuned/1"
WEIGHT = 1 / 3  # of quality, where nobody chose a reward; the weight of `HybridReward`
UNKNOWN_ERROR = 0.25  # standard error of the score of a result that gives none
DEFAULT_STAYS = "the default, which tuning did not beat"  # source of a configuration
CALIBRATED = "calibrated"  # key of the provenance: whether the model had calibrated steps
NOISE_SEED = "noise_seed"  # key of the provenance: seed of the noises of the latest verification
REMEMBERED = 200  # latest results per domain of configurations other than the current one


@dataclass(frozen=True)
class Result:
    """What a configuration achieved.

    Attributes:
        hyperparameters: `num_steps`, `adaptive_threshold`, `progress_power`, `solver`, and of the guidance what is not
            the model's.
        quality: Mean quality by the reward, e.g. log(baseline error / error): 0 is the baseline's.
        speed: Baseline's cost / cost, > 0.
        error: Standard error of the quality; None: unknown.

    Raises:
        ValueError: for a value out of range.
    """

    hyperparameters: dict[str, Any]
    quality: float
    speed: float
    error: float | None = None

    def __post_init__(self) -> None:
        check_number("quality", self.quality)
        check_number("speed", self.speed, 0, above=True)
        if self.error is not None:
            check_number("quality_error", self.error, 0)


@dataclass
class DomainRecord:
    """What is known of one model, with one guidance, in one domain.

    Attributes:
        model: Identity of the model.
        guidance_scale: Weight of classifier-free guidance.
        domain: Name of the domain.
        weight: Of quality in a score, in [0, 1].
        config: Hyperparameters to sample with.
        source: Where they come from, in words.
        provenance: What was measured when they were verified, JSON types. For hyperparameters that were not verified:
            {}, or the seed of the noises that earlier ones were verified on.
        results: What configurations achieved; of each configuration, oldest first.
    """

    model: str
    guidance_scale: float
    domain: str
    weight: float = WEIGHT
    config: dict[str, Any] = field(default_factory=lambda: Configuration().to_dict())
    source: str = "the default"
    provenance: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def score(self, hyperparameters: dict[str, Any]) -> tuple[float, float]:
        """Mean score of a configuration's results, and its standard error; (0, inf) without results.

        The score of a result is weight quality + (1 - weight) (1 - 1 / speed), as in `HybridReward`. Its standard error
        e_i is weight times the quality's, or 0.25 where that is unknown. The mean's standard error adds the spread
        between the n results: SE^2 = (sum e_i^2) / n^2 + variance / n.
        """
        results = [r for r in self.results if r.hyperparameters == hyperparameters]
        if not results:
            return 0.0, math.inf

        n = len(results)
        scores = [self.weight * r.quality + (1 - self.weight) * (1 - 1 / r.speed) for r in results]
        errors = [UNKNOWN_ERROR if r.error is None else self.weight * r.error for r in results]
        spread = float(np.var(scores, ddof=1)) / n if n > 1 else 0.0

        return float(np.mean(scores)), math.sqrt(sum(e * e for e in errors) / n**2 + spread)

    def learn(self, result: Result) -> None:
        """Add a result. Its configuration becomes the current one if it is surely better.

        Surely better: its mean score less two standard errors exceeds the current configuration's mean score. Results
        of the current configuration are never forgotten.
        """
        own = [r for r in self.results if r.hyperparameters == self.config]
        rest = [r for r in self.results if r.hyperparameters != self.config]
        (own if result.hyperparameters == self.config else rest).append(result)
        self.results = own + rest[-REMEMBERED:]

        mean, error = self.score(result.hyperparameters)
        if result.hyperparameters != self.config and mean - 2 * error > self.score(self.config)[0]:
            results = sum(r.hyperparameters == result.hyperparameters for r in self.results)
            self.config = result.hyperparameters
            # the noises stay used: a later verification has to avoid them
            self.provenance = {k: v for k, v in self.provenance.items() if k == NOISE_SEED}
            self.source = f"learned from {count(results, 'result')}"

    def to_config(self) -> DomainConfig:
        """The configuration to sample with."""
        certain, calibrated = confidence_of(self.score(self.config)[1]), self.provenance.get(CALIBRATED)
        return DomainConfig(**self.config, confidence=certain, source=self.source, calibrated=calibrated)


@dataclass
class DomainRecords:
    """The content of a file of tuned configurations.

    Attributes:
        known: A record for each model, guidance and domain.
        domains: Users' own domains: name -> `description`, `features` (mean of the encoder's), `encoder` (its hash)
            and `pictures` (how many).
    """

    known: list[DomainRecord] = field(default_factory=list)
    domains: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find(self, model: str, guidance_scale: float, domain: str) -> DomainRecord | None:
        """The record of a model in a domain, or None."""
        for record in self.known:
            if (record.model, record.domain) == (model, domain) and math.isclose(record.guidance_scale, guidance_scale):
                return record
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON types; `DomainRecords.from_dict` reads them."""
        return {"format": FORMAT, "known": [asdict(record) for record in self.known], "domains": self.domains}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DomainRecords:
        """Read what `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: for any other content.
        """
        known = [
            DomainRecord(**{**record, "results": [Result(**result) for result in record["results"]]})
            for record in content["known"]
        ]
        for record in known:
            record.to_config()  # refuses hyperparameters out of range

        for name, own in content["domains"].items():
            features = np.array(own["features"], np.float64)
            if features.ndim != 1 or not np.isfinite(features).all() or not isinstance(own["encoder"], str):
                raise ValueError(f"the features of the domain {name} are no list of numbers by a known encoder")

        return cls(known, dict(content["domains"]))
