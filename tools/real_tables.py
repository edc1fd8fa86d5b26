"""The tables of distances to real images, made from the files in `docs/real_images`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from adaptive_diffusion.io.markdown import MISSING, table
from tools.benchmark_tables import DOMAINS, GRIDS, SCHEDULERS, rank

CONSTANT, TUNED = "constant", "tuned"
STORED = "stored"  # the adaptive scheduler whose first prediction is stored
DISTANCES = ("fd_encoder", "fd_vicreg")
Row = dict[str, str]

FRONT = {  # heading of a column -> sampler, guidance, steps; see `by_method`
    "DDIM, 50 steps": ("ddim", CONSTANT, "50"),
    "UniPC, 10 steps": ("unipc", CONSTANT, "10"),
    "adaptive, 10 steps": ("adaptive", CONSTANT, "10"),
    "UniPC, 5 steps": ("unipc", CONSTANT, "5"),
    "adaptive, 5 steps": ("adaptive", CONSTANT, "5"),
    "tuned, first evaluation stored": (STORED, TUNED, TUNED),
}


def read_rows(path: Path) -> list[Row]:
    """The rows of a summary; [] if there is none."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def all_rows(path: Path) -> list[str]:
    """Every row, by domain and passes."""
    rows = sorted(read_rows(path), key=_place)
    if not rows:
        return []
    header = ["domain", "sampler", "guidance", "steps", "passes", "`fd_encoder`", "`fd_vicreg`", "precision", "recall"]
    lines = table([*header, "of the domain"], [[row["domain"], *_numbers(row)] for row in rows], "lll" + "r" * 7)
    return [*lines, "", f"{_images(rows)} images a row; in brackets mean ± standard deviation of {_blocks(rows)}."]


def front(path: Path) -> list[str]:
    """A few samplers side by side: `fd_encoder` / `fd_vicreg` of all images."""
    rows = read_rows(path)
    if not rows:
        return []
    found = by_method(rows)
    columns = {name: key for name, key in FRONT.items() if any((domain, *key) in found for domain in DOMAINS)}
    header = [f"{name}: {_passes(found, key)} passes" for name, key in columns.items()]
    real = {row["domain"]: row for row in read_rows(path.parent / "real.csv") if row["images"] == _images(rows)}
    lines = [
        [domain, *(_pair(found.get((domain, *key))) for key in columns.values()), _pair(real.get(domain), "mean")]
        for domain in DOMAINS
    ]
    body = table(["`fd_encoder` / `fd_vicreg`", *header, "real images"], lines)
    return [*body, "", f"{_images(rows)} images in each cell."]


def beside_real(path: Path) -> list[str]:
    """How far real images are from other real images of their domain."""
    body = [
        [row["domain"], row["images"], *(f"{_short(row, m, 'mean')} ± {_short(row, m, 'sd')}" for m in DISTANCES)]
        for row in read_rows(path)
    ]
    return table(["domain", "images", *(f"`{metric}`" for metric in DISTANCES)], body, "lrrr") if body else []


def by_method(rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """(domain, sampler, guidance, steps) -> row; of several grids the one with the smallest `fd_encoder`.

    With tuned guidance and a stored first prediction, the number of steps is the tuned one, which domains differ in.
    """
    worst_first = sorted(rows, key=lambda row: -float(row["fd_encoder_all"]))
    return {(row["domain"], *method_of(row)): row for row in worst_first}


def method_of(row: Row) -> tuple[str, str, str]:
    """Sampler, guidance and steps, see `by_method`."""
    method = sampler_of(row), guidance_of(row)
    return *method, TUNED if method == (STORED, TUNED) else row["num_steps"]


def sampler_of(row: Row) -> str:
    """The scheduler, or `STORED` where fewer evaluations were taken than steps."""
    return STORED if float(row["evaluations_mean"]) < float(row["num_steps"]) else row["scheduler"]


def guidance_of(row: Row) -> str:
    """Whether a row was drawn with guidance that was tuned, which is in an interval."""
    return TUNED if "log-SNR" in row["model"] else CONSTANT


def _numbers(row: Row) -> list[str]:
    spread = [f"{_short(row, m, 'all')} ({_short(row, m, 'mean')} ± {_short(row, m, 'sd')})" for m in DISTANCES]
    shares = [f"{float(row[f'{m}_all']):.3f}" for m in ("precision", "recall")]
    grid = "" if row["grid"] == "own" else f", {GRIDS.get(row['grid'], row['grid'])}"
    first = ", first evaluation stored" if sampler_of(row) == STORED else ""
    name = f"{SCHEDULERS.get(row['scheduler'], row['scheduler'])}{grid}{first}"
    agreement = f"{float(row['domain_agreement_mean']):.3f} ± {float(row['domain_agreement_sd']):.3f}"
    return [name, guidance_of(row), row["num_steps"], f"{float(row['passes_mean']):g}", *spread, *shares, agreement]


def _short(row: Row, metric: str, of: str) -> str:
    return f"{float(row[f'{metric}_{of}']):.1f}"


def _place(row: Row) -> tuple[tuple[int, str], float, tuple[int, str], int]:
    domain, scheduler = rank(row["domain"], DOMAINS), rank(row["scheduler"], SCHEDULERS)
    return domain, -float(row["passes_mean"]), scheduler, int(row["num_steps"])


def _pair(row: Row | None, of: str = "all") -> str:
    return MISSING if row is None else " / ".join(_short(row, metric, of) for metric in DISTANCES)


def _passes(found: dict[tuple[str, ...], Row], key: tuple[str, str, str]) -> str:
    """Network passes an image, in all domains."""
    passes = sorted({float(row["passes_mean"]) for (_, *method), row in found.items() if tuple(method) == key})
    return f"{passes[0]:g}" if len(passes) == 1 else f"{passes[0]:g} to {passes[-1]:g}"


def _images(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({str(int(row["blocks"]) * int(row["pictures_per_block"])) for row in rows}))


def _blocks(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({f"{row['blocks']} blocks of {row['pictures_per_block']}" for row in rows}))
