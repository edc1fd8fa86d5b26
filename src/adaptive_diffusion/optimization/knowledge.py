"""What is known of domains: one JSON file, written atomically under a lock, so that several processes may learn."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.checks import check_number
from ..errors import UserError
from ..io.checksums import check, with_checksum
from ..io.files import ASSETS, atomic_path, parse_json
from ..io.locks import in_turn
from ..program import command
from ..rl.knobs import Configuration
from .configuration import DomainConfig, confidence_of

SHIPPED = ASSETS / "tuned.json"
FORMAT = "adaptive-diffusion/tuned/1"
WEIGHT = 1 / 3  # of quality, where nobody chose a reward; that of `HybridReward`
UNTOLD = 0.25  # standard error of a result whose own is not told
CALIBRATED = "calibrated"  # key of the provenance: whether the model had calibrated steps
NOISE_SEED = "noise_seed"  # another one: of the noises of the latest verification
REMEMBERED = 200  # latest results per domain of configurations other than the current one


@dataclass(frozen=True)
class Result:
    """What a configuration achieved.

    Attributes:
        hyperparameters: `num_steps`, `adaptive_threshold`, `progress_power`, `solver`.
        quality: Mean log(baseline error / error): 0 is the baseline's error, 0.69 half of it.
        speed: Baseline's cost / cost, > 0.
        error: Standard error of the quality; None: not told.
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
        if not (math.isfinite(self.quality) and math.isfinite(self.speed)):
            raise ValueError(f"quality and speed must be finite, got {self.quality} and {self.speed}")


@dataclass
class Known:
    """What is known of a model in a domain.

    Attributes:
        model: Identity of the model.
        guidance_scale: Weight of classifier-free guidance.
        domain: Name of the domain.
        weight: Of quality in a score, in [0, 1].
        config: Hyperparameters to sample with.
        source: Where they come from, in words.
        provenance: Everything that was measured when they were verified, JSON types; if they were not, {} or just the
            seed of the noises that what was before them was verified on.
        results: What configurations achieved; of each, oldest first.
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

        The score of a result is weight quality + (1 - weight) (1 - 1 / speed), as `HybridReward` has it. Its standard
        error is weight times that of its quality, or 0.25 where that was not told; the mean's is made of these and of
        the spread between the results: SE^2 = (sum e_i^2) / n^2 + variance / n.
        """
        results = [r for r in self.results if r.hyperparameters == hyperparameters]
        if not results:
            return 0.0, math.inf
        n = len(results)
        scores = [self.weight * r.quality + (1 - self.weight) * (1 - 1 / r.speed) for r in results]
        errors = [UNTOLD if r.error is None else self.weight * r.error for r in results]
        spread = float(np.var(scores, ddof=1)) / n if n > 1 else 0.0
        return float(np.mean(scores)), math.sqrt(sum(e * e for e in errors) / n**2 + spread)

    def learn(self, result: Result) -> None:
        """Note a result; its configuration takes over if it is surely better.

        That is, if its mean score less two standard errors exceeds the mean score of the current configuration, whose
        own results are never forgotten.
        """
        own = [r for r in self.results if r.hyperparameters == self.config]
        others = [r for r in self.results if r.hyperparameters != self.config]
        (own if result.hyperparameters == self.config else others).append(result)
        self.results = own + others[-REMEMBERED:]
        mean, error = self.score(result.hyperparameters)
        if result.hyperparameters != self.config and mean - 2 * error > self.score(self.config)[0]:
            count = sum(r.hyperparameters == result.hyperparameters for r in self.results)
            self.config = result.hyperparameters
            self.provenance = {k: v for k, v in self.provenance.items() if k == NOISE_SEED}  # it stays used
            self.source = f"learned from {count} result{'s' if count > 1 else ''}"

    def to_config(self) -> DomainConfig:
        """The configuration to sample with."""
        return DomainConfig(**self.config, confidence=confidence_of(self.score(self.config)[1]), source=self.source)


@dataclass
class Knowledge:
    """The content of a file.

    Attributes:
        known: One per model, guidance and domain.
        domains: Users' own domains: name -> `description`, `features` (mean of the encoder's), `encoder` (its hash)
            and `pictures` (how many).
    """

    known: list[Known] = field(default_factory=list)
    domains: dict[str, dict[str, Any]] = field(default_factory=dict)

    def find(self, model: str, guidance_scale: float, domain: str) -> Known | None:
        """What is known of a model in a domain, or None."""
        for known in self.known:
            if (known.model, known.domain) == (model, domain) and math.isclose(known.guidance_scale, guidance_scale):
                return known
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON types; `Knowledge.from_dict` reads it."""
        return {"format": FORMAT, "known": [asdict(known) for known in self.known], "domains": self.domains}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Knowledge:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: if it is something else.
        """
        known = [
            Known(**{**one, "results": [Result(**result) for result in one["results"]]}) for one in content["known"]
        ]
        for one in known:
            one.to_config()  # is refused here, or never
        for name, own in content["domains"].items():
            features = np.array(own["features"], np.float64)
            if features.ndim != 1 or not np.isfinite(features).all() or not isinstance(own["encoder"], str):
                raise ValueError(f"the features of the domain {name} are no list of numbers by a known encoder")
        return cls(known, dict(content["domains"]))


def read_knowledge(path: str | Path) -> Knowledge:
    """Read a file.

    Raises:
        UserError: if it is missing, damaged, changed or of another kind.
    """
    content = read_content(path, FORMAT, "tuned configurations")
    try:
        knowledge = Knowledge.from_dict(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); tune again: {command('train')} agent=ppo") from error
    check(path, content)
    return knowledge


def read_content(path: str | Path, form: str, what: str) -> dict[str, Any]:
    """The content of a JSON file that says its format.

    Args:
        path: The file.
        form: Value of its key `format`.
        what: What it is to hold, in the plural, for the error message.

    Raises:
        UserError: if it is missing, no JSON or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no {what} at {path}; make them: {command('train')} agent=ppo")
    try:
        content: Any = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); tune again: {command('train')} agent=ppo") from error
    if not isinstance(content, dict) or content.get("format") != form:
        raise UserError(f"{path} holds no {what} of this project (format {form!r})")
    return content


def write_knowledge(path: str | Path, knowledge: Knowledge) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(with_checksum(knowledge.to_dict()), indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def changing(path: str | Path) -> Iterator[Knowledge]:
    """What a file holds, to be changed: written when the block ends without an error, and nobody else writes meanwhile.

    A file that does not exist yet begins empty.
    """
    path = Path(path)
    with in_turn(path):
        knowledge = read_knowledge(path) if path.exists() else Knowledge()
        yield knowledge
        write_knowledge(path, knowledge)
