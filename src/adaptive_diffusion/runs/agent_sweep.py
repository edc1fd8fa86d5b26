"""Sweeps over agents and rewards: what every job leaves behind, and the table of which did best."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..io.files import write_csv, write_text
from ..io.markdown import table
from ..tracking.jobs import DONE, Job, failures
from .output import rows_text, say

OUTCOMES = "outcomes.json"
COLUMNS = {"agent": "agent", "score": "held-out score", "default": "default", "episodes": "episodes"}
COLUMNS |= {"configuration": "configuration", "file": "file"}


class AgentReport:
    """Makes a table of what agents found, by domain and reward; scores of different rewards cannot be compared.

    A sweep of other trainings keeps the table of its jobs.
    """

    def begin(self, config: DictConfig) -> None:
        """Every job says its own cost."""

    def end(self, config: DictConfig, jobs: Sequence[Job]) -> Sequence[Path]:
        """Write and print the table, and how to draw with the best; the files, or () where no agent has finished."""
        folder = Path(config.hydra.sweep.dir)
        groups = ranked_outcomes([Path(job.folder) for job in jobs if job.status in DONE and job.folder])
        if not groups:
            return ()

        csv_file, md_file = folder / "results.csv", folder / "results.md"
        outcomes = [outcome for some in groups.values() for outcome in some]
        keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome))
        write_csv(csv_file, [keys, *([outcome.get(key, "") for key in keys] for outcome in outcomes)])
        parts = [part for name, some in groups.items() for part in (f"## {name}", "", *_markdown(some), "")]
        write_text(md_file, "\n".join(["# Sweep over agents", "", *parts, failures(jobs)]).rstrip() + "\n")

        for name, outcomes in groups.items():
            best = outcomes[0]
            say(f"\n{name}\n" + "\n".join(_markdown(outcomes, file=False)))
            say(rows_text({"best": f"{_described(best)}\n{best['file']}", "draw": best["draw"]}))
        say(rows_text({"saved": f"{csv_file}\n{md_file}"}))
        return csv_file, md_file


def ranked_outcomes(folders: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """The outcomes in the folders of jobs, for every reward and whatever was trained for, the highest score first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in (file for folder in folders if (file := folder / OUTCOMES).is_file()):
        for outcome in json.loads(file.read_text(encoding="utf-8")):
            found.setdefault(f"{outcome['case']}, reward {outcome['reward']}", []).append(outcome)
    return {name: sorted(some, key=lambda outcome: -outcome["score"]) for name, some in found.items()}


def _described(outcome: Mapping[str, Any]) -> str:
    return f"{outcome['case']}, reward {outcome['reward']}: {outcome['agent']}, score {outcome['score']:+.3f}"


def _cells(outcome: Mapping[str, Any]) -> dict[str, str]:
    error = f" +- {1.96 * outcome['error']:.3f}" if "error" in outcome else ""
    default = f"{outcome['default']:+.3f}" if "default" in outcome else ""
    texts = {key: str(outcome.get(key, "")) for key in COLUMNS}
    return {**texts, "score": f"{outcome['score']:+.3f}{error}", "default": default}


def _markdown(outcomes: Sequence[Mapping[str, Any]], file: bool = True) -> list[str]:
    keys = [key for key in COLUMNS if file or key != "file"]
    rows = [["best" if i == 0 else "", *(_cells(o)[key] for key in keys)] for i, o in enumerate(outcomes)]
    return table(["", *(COLUMNS[key] for key in keys)], rows, "ll" + "r" * 3 + "l" * (len(keys) - 4))
