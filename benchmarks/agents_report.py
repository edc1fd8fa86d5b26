"""Results of agents as files, and the Markdown tables of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_diffusion.io.files import parse_json, write_json
from adaptive_diffusion.io.markdown import MISSING, table
from adaptive_diffusion.metrics.intervals import standard_error
from adaptive_diffusion.rl.convergence import NEAR_BEST, Evaluation, Record, converged_at

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One agent, trained once.

    Attributes:
        model: Identity of the model with its guidance.
        environment: Name of the environment.
        domain: Name of the domain.
        agent: Name of the agent.
        seed: Seed of the agent.
        episodes: Episodes of training.
        source: Domain whose result the agent started from; None: it started from the environment's own prior.
        chosen: Hyperparameters that the trained agent chooses.
        device: MLX's device.
        record: The record of the training.
    """

    model: str
    environment: str
    domain: str
    agent: str
    seed: int
    episodes: int
    source: str | None
    chosen: dict[str, Any]
    device: str
    record: Record

    @property
    def evaluations(self) -> list[Evaluation]:
        """Evaluations on held-out noises; the first is of the untrained agent."""
        return self.record.evaluations

    @property
    def final(self) -> Evaluation:
        """The last evaluation."""
        return self.evaluations[-1]

    def at(self, count: int) -> Evaluation | None:
        """The latest evaluation after at most `count` network evaluations in episodes, or None."""
        return next((e for e in reversed(self.evaluations) if e.evaluations <= count), None)

    def first_with(self, score: float) -> float:
        """First episode with a held-out score within 0.02 of `score`, or infinity."""
        return next((e.episode for e in self.evaluations if e.score >= score - NEAR_BEST), math.inf)


def save_result(path: Path, result: Result) -> None:
    """Write a result atomically, as JSON."""
    write_json(path, {**asdict(result), "record": result.record.to_dict()})


def load_result(path: Path) -> Result | None:
    """Read what `save_result` wrote; None if the file is missing or damaged."""
    try:
        content = parse_json(path.read_bytes())
        return Result(**{**content, "record": Record.from_dict(content["record"])})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s is no whole result of an agent; it is left out", path)
        return None


def report(results: Sequence[Result]) -> str:
    """Markdown: a table for each environment, number of episodes and model, and a table of transfers.

    Args:
        results: At least one, of any environments, models and lengths.
    """
    sections = [
        "Scores are means over seeds ± their standard deviation (and the standard error over the held-out images, of "
        "the mean over seeds). Equal evaluations are the most that all runs of a domain asked for; before the colon "
        "stands how many. A run that did not converge counts as one that would take longer than it had."
    ]
    for (model, episodes, environment), some in _groups(results, lambda r: (r.model, r.episodes, r.environment)):
        devices = ", ".join(sorted({r.device for r in some}))
        sections.append(f"### {environment}, {episodes} episodes, model {model[:12]}, on {devices}")
        scratch = [r for r in some if r.source is None]
        moved = [(r, own) for r in some if r.source is not None and (own := _counterpart(r, scratch))]
        sections += [_agents(scratch)] if scratch else []
        sections += [_transfers(moved)] if moved else []

    return "\n\n".join(sections)


def _agents(results: Sequence[Result]) -> str:
    """A table of convergence and scores, also at equal cost: the most evaluations that all runs of a domain reach."""
    rows = []
    for (domain,), of_domain in _groups(results, lambda r: (r.domain,)):
        count = min(r.final.evaluations for r in of_domain)  # what all runs can be compared at
        for (agent,), runs in _groups(of_domain, lambda r: (r.agent,)):
            # a run that did not converge would take longer than it had: infinity leaves the median right
            converged = [converged_at(r.evaluations) for r in runs]
            found = [episode for episode in converged if episode is not None]
            median = float(np.median([math.inf if episode is None else episode for episode in converged]))

            rows.append(
                [
                    domain,
                    agent,
                    f"{median:g}" if math.isfinite(median) else f"> {runs[0].episodes}",
                    f"{len(found)} of {len(runs)}",
                    f"{count // 2}: {_scores([r.at(count // 2) for r in runs])}",
                    f"{count}: {_scores([r.at(count) for r in runs])}",
                    _scores([r.final for r in runs]),
                    spread([r.final.quality for r in runs]),
                    f"{np.mean([r.final.evaluations for r in runs]):.0f}",
                ]
            )

    names = ["domain", "agent", "episodes (median)", "converged", "score at half the evaluations"]
    header = [*names, "score at equal evaluations", "final score", "final quality", "evaluations"]
    return "\n".join(table(header, rows, "llrrrrrrr"))


def _transfers(pairs: Sequence[tuple[Result, Result]]) -> str:
    """A table of the episodes until the held-out score is within 0.02 of the agent's best score from scratch."""
    rows = []
    for (domain, source, agent), some in _groups(pairs, lambda p: (p[0].domain, p[0].source, p[0].agent)):
        best = [max(e.score for e in own.evaluations) for _, own in some]
        scratch = np.array([own.first_with(b) for (_, own), b in zip(some, best, strict=True)])
        moved = np.array([r.first_with(b) for (r, _), b in zip(some, best, strict=True)])
        saved = float(np.median(scratch - moved))

        rows.append(
            [
                domain,
                f"{source}",
                agent,
                f"{np.median(scratch):g}",
                f"{median:g}" if math.isfinite(median := float(np.median(moved))) else f"> {some[0][0].episodes}",
                f"{saved:g}" if math.isfinite(saved) else "none",
                f"{np.isfinite(moved).sum()} of {len(some)}",
                f"{_scores([own.evaluations[0] for _, own in some])} → {_scores([r.evaluations[0] for r, _ in some])}",
                f"{_scores([own.final for _, own in some])} → {_scores([r.final for r, _ in some])}",
            ]
        )

    names = ["domain", "begun with", "agent", "episodes from scratch", "begun with it", "saved (median)", "reached"]
    header = [*names, "untrained: scratch → begun with it", "final: scratch → begun with it"]
    return "\n".join(table(header, rows, "lllrrrrrr"))


def _counterpart(moved: Result, scratch: Iterable[Result]) -> Result | None:
    """The run from scratch to compare a transferred run with."""
    own = (moved.domain, moved.agent, moved.seed)
    return next((r for r in scratch if (r.domain, r.agent, r.seed) == own), None)


def _scores(evaluations: Sequence[Evaluation | None]) -> str:
    """Mean score of several seeds on the same held-out images; a dash if a seed has none yet."""
    found = [e for e in evaluations if e is not None]
    if len(found) < len(evaluations):
        return MISSING

    error = standard_error(np.mean([e.scores for e in found], axis=0))
    return f"{spread([e.score for e in found])} ({error:.3f})"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds; the mean alone for a single seed."""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _groups(items: Iterable[Any], key: Callable[[Any], tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], list[Any]]]:
    """Items grouped by key, in the order of their first items."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())
