"""Sweeps over agents and rewards: what every job leaves behind, and which did best."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ..io.files import atomic_path
from .job import say

OUTCOMES = "outcomes.json"


class BestAgents(Callback):
    """Prints at the end of a sweep which job did best by each reward, if jobs trained agents."""

    _folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember where the jobs will leave their outcomes."""
        self._folder = Path(config.hydra.sweep.dir)
        atexit.register(self._print_best)  # Hydra does not call on_multirun_end when a job failed

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """All jobs succeeded."""
        self._print_best()

    def _print_best(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None and (best := best_outcomes(folder)):
            say("\n" + "\n".join(map(_described, best)))


def write_outcomes(
    folder: Path, method: tuple[str, str], file: str, scores: Mapping[str, float], draw: Mapping[str, str]
) -> None:
    """Leave in a job's folder what `best_outcomes` compares.

    Args:
        folder: Of the job.
        method: Names of agent and reward.
        file: The result.
        scores: What was trained for, e.g. a domain -> final mean reward.
        draw: The same -> command that draws with the result.
    """
    agent, reward = method
    outcomes = [
        {"agent": agent, "reward": reward, "case": case, "score": score, "file": file, "draw": draw[case]}
        for case, score in scores.items()
    ]
    with atomic_path(folder / OUTCOMES) as temporary:
        temporary.write_text(json.dumps(outcomes, indent=1) + "\n", encoding="utf-8")


def best_outcomes(sweep: Path) -> list[dict[str, Any]]:
    """Of the jobs of a sweep, for every reward and whatever was trained for, the outcome with the highest score.

    Scores of different rewards have nothing to do with each other.
    """
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted(sweep.rglob(OUTCOMES)):
        for outcome in json.loads(file.read_text(encoding="utf-8")):
            key = outcome["reward"], outcome["case"]
            if key not in best or outcome["score"] > best[key]["score"]:
                best[key] = outcome
    return list(best.values())


def _described(outcome: dict[str, Any]) -> str:
    what = f"{outcome['case']}, reward {outcome['reward']}: {outcome['agent']}, score {outcome['score']:+.3f}"
    return f"{'best':<11}{what}\n{'':<11}{outcome['file']}\n{'draw':<11}{outcome['draw']}"
