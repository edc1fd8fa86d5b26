"""What optimising has led to so far, as a file: the results, and with them what is known of the domains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.checksums import check, with_checksum
from ..io.files import atomic_path
from .configuration import DomainConfig
from .knowledge import Knowledge, read_content

FORMAT = "adaptive-diffusion/optimization/1"


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """JSON types of what `OptimizationPipeline.optimize` returns."""
    return {
        name: {**value.to_dict(), "confidence": value.confidence, "source": value.source}
        if isinstance(value, DomainConfig)
        else value
        for name, value in results.items()
    }


def write_history(path: str | Path, history: list[dict[str, Any]], knowledge: Knowledge) -> None:
    """Write a file atomically, as JSON.

    Raises:
        UserError: if `path` does not end in `.json`.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise UserError(f"a pipeline's file must end in .json, got {path.name!r}")
    content = {"format": FORMAT, "history": history, "knowledge": knowledge.to_dict()}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(with_checksum(content), indent=1) + "\n", encoding="utf-8")


def read_history(path: str | Path) -> tuple[list[dict[str, Any]], Knowledge]:
    """Read what `write_history` wrote.

    Raises:
        UserError: if it is missing, damaged or of another kind.
    """
    content = read_content(path, FORMAT, "optimisation results")
    try:
        history, knowledge = list(content["history"]), Knowledge.from_dict(content["knowledge"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); optimise again") from error
    check(path, content)
    return history, knowledge
