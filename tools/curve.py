"""`python -m tools.curve`: what the dial of `adaptive-diffusion app` shows, made from the distances to real images."""

from __future__ import annotations

import hashlib
import json

from adaptive_diffusion.io.files import write_text
from adaptive_diffusion.web.curve import SHIPPED
from tools.benchmark_tables import name_with_grid
from tools.real_tables import CONSTANT, STORED, Row, guidance_of, read_rows, sampler_of
from tools.tables import PROJECT
from tools.tuned import FOUND

FOLDER = PROJECT / "docs" / "real_images"
SUMMARY, REAL = FOLDER / "summary.csv", FOLDER / "real.csv"


def stale_curve() -> str | None:
    """Why the shipped curve is stale; None if it is not."""
    if not SHIPPED.is_file():
        return "missing"
    known = json.loads(SHIPPED.read_text(encoding="utf-8"))["summary"]
    if known == _stamp():
        return None
    return f"made from other files in {FOLDER.relative_to(PROJECT)}; python -m tools.curve makes it anew"


def write_curve() -> None:
    """Make it anew."""
    rows = read_rows(SUMMARY)
    images = int(rows[0]["blocks"]) * int(rows[0]["pictures_per_block"])
    apart = [row for row in read_rows(REAL) if int(row["images"]) == images]
    real = {row["domain"]: round(float(row["fd_encoder_mean"]), 2) for row in apart}
    (model,) = {row["model"].partition(" ")[0] for row in rows}
    head = json.dumps({"summary": _stamp(), "model": model, "images": images, "real": real})[:-1]
    lines = ",\n  ".join(json.dumps(_point(row)) for row in rows)
    write_text(SHIPPED, f'{head}, "measured": [\n  {lines}\n]}}\n')


def _point(row: Row) -> dict[str, object]:
    """A row of the summary as a point of the curve."""
    tuned = guidance_of(row) != CONSTANT
    found = FOUND[row["domain"]].guidance
    if tuned and (found is None or not row["model"].endswith(f"guidance {found.name}")):
        raise ValueError(f"{row['domain']} was measured at {row['model']}, and {found} was tuned")

    method = name_with_grid(row["scheduler"], row["grid"]) + (", tuned guidance" if tuned else "")
    return {
        "domain": row["domain"],
        "method": method,
        "scheduler": row["scheduler"],
        "grid": row["grid"],
        "guidance": "tuned" if tuned else "constant",
        "stored": sampler_of(row) == STORED,
        "steps": int(row["num_steps"]),
        "passes": round(float(row["passes_mean"])),
        "distance": round(float(row["fd_encoder_all"]), 2),
        "error": round(float(row["fd_encoder_sd"]) / int(row["blocks"]) ** 0.5, 2),
    }


def _stamp() -> str:
    return hashlib.sha256(SUMMARY.read_bytes() + REAL.read_bytes()).hexdigest()[:12]


if __name__ == "__main__":
    write_curve()
