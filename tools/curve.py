"""The measured curve that the page of `adaptive-diffusion app` shows, made from the benchmark's summary."""

from __future__ import annotations

import hashlib
import json

from adaptive_diffusion.io.files import write_text
from adaptive_diffusion.web.curve import SHIPPED
from tools.benchmark import SUMMARY
from tools.benchmark_tables import Measured, name_with_grid, read_summary
from tools.tables import PROJECT


def stale_curve() -> str | None:
    """Why the shipped curve is stale; None if it is not."""
    if not SHIPPED.is_file():
        return "missing"
    known = json.loads(SHIPPED.read_text(encoding="utf-8"))["summary"]
    return None if known == _stamp() else f"made from another {SUMMARY}"


def write_curve() -> None:
    """Make it anew."""
    rows = [row for row in read_summary(PROJECT / SUMMARY) if row.perceptual is not None]
    head = json.dumps({"summary": _stamp(), "images": rows[0].pictures * rows[0].blocks})[:-1]
    lines = ",\n  ".join(json.dumps(_point(row)) for row in rows)
    write_text(SHIPPED, f'{head}, "measured": [\n  {lines}\n]}}\n')


def _point(row: Measured) -> dict[str, object]:
    """A row of the summary as a point of the curve."""
    distance = {"distance": round(row.perceptual or 0, 5), "sd": round(row.perceptual_sd or 0, 5)}
    method = {"scheduler": row.method[0], "method": name_with_grid(*row.method[:2])}
    return {"domain": row.domain, **method, "steps": row.num_steps, "passes": round(row.passes), **distance}


def _stamp() -> str:
    return hashlib.sha256((PROJECT / SUMMARY).read_bytes()).hexdigest()[:12]
