"""The tables of distances to real images, made from the files in `docs/real_images`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t

from adaptive_diffusion.io.counted import count
from adaptive_diffusion.io.markdown import MINUS, MISSING, table
from tools.benchmark_tables import DOMAINS, SCHEDULERS, name_with_grid, percent, rank
from tools.tuned import FOUND

CONSTANT, INTERVAL = "constant", "interval"
STORED = "stored"  # the adaptive scheduler whose first prediction is stored
OWN = "own"  # the number of steps that was found together with an interval, see `tools.tuned.FOUND`
DISTANCES = ("fd_encoder", "fd_vicreg")
Row = dict[str, str]

BEST = (STORED, INTERVAL, OWN)
SHORT = {  # heading of a column -> sampler, guidance, steps; see `by_method`
    "DDIM, 50 steps": ("ddim", CONSTANT, "50"),
    "UniPC, 20 steps": ("unipc", CONSTANT, "20"),
    "UniPC, 10 steps": ("unipc", CONSTANT, "10"),
    "UniPC, the guidance of tuned": ("unipc", INTERVAL, OWN),
    "tuned, first evaluation stored": BEST,
}
FRONT = {
    **SHORT,
    "DPM-Solver++, the guidance of tuned": ("dpm_solver", INTERVAL, OWN),
    "UniPC, 5 steps": ("unipc", CONSTANT, "5"),
    "adaptive, 10 steps": ("adaptive", CONSTANT, "10"),
    "adaptive, 5 steps": ("adaptive", CONSTANT, "5"),
}


def read_rows(path: Path) -> list[Row]:
    """The rows of a summary; [] if there is none."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def all_rows(path: Path) -> list[str]:
    """A table of each domain, by passes."""
    rows = sorted(read_rows(path), key=_place)
    lines = [f"{_images(rows)} images a row; in brackets mean ± standard deviation of {_blocks(rows)}."] if rows else []
    columns = ["guidance", "steps", "passes", "`fd_encoder`", "`fd_vicreg`", "precision", "recall", "of the domain"]
    for domain in dict.fromkeys(row["domain"] for row in rows):
        body = [_numbers(row) for row in rows if row["domain"] == domain]
        lines += ["", *table([domain, *columns], body, "ll" + "r" * 7)]
    return lines


def differences(path: Path) -> list[str]:
    """The sampler of 7 passes against the others of `front`, see `_difference`."""
    found = by_method(read_rows(path))
    blocks = _blocks_of(path.parent / "results.csv")
    body = []
    for name, key in FRONT.items():
        for domain in DOMAINS:
            own, other = found.get((domain, *BEST)), found.get((domain, *key))
            if own is None or other is None or own is other:
                continue
            cells = [_difference(own, other, metric, blocks) for metric in DISTANCES]
            body.append([name, f"{float(other['passes_mean']):g}", domain, *cells])
    header = ["against", "passes", "domain", *(f"`{metric}`" for metric in DISTANCES)]
    return table(header, body, "lrlrr") if body else []


def against_others(path: Path) -> list[str]:
    """In how many of the distances the sampler of the last column of `short` is nearer than others, a line each."""
    found, blocks = by_method(read_rows(path)), _blocks_of(path.parent / "results.csv")
    lines = []
    for name in ("DDIM, 50 steps", "UniPC, 20 steps", "UniPC, the guidance of tuned"):
        pairs = [(found.get((domain, *BEST)), found.get((domain, *SHORT[name]))) for domain in DOMAINS]
        both = [(own, other) for own, other in pairs if own and other]
        if not both:
            return []
        nearer = sum(float(own[f"{m}_all"]) < float(other[f"{m}_all"]) for own, other in both for m in DISTANCES)
        means = [_apart(*pair, metric, blocks) for pair in both for metric in DISTANCES]
        certain = sum(-mean > half for mean, half in means)
        farther = sum(mean > half for mean, half in means)
        also = f"; {farther} certainly larger" if farther else ""
        lines.append(
            f"- than of {name} ({_passes(found, SHORT[name])} passes): {nearer} of {len(means)}, "
            f"{certain} of them certainly{also}"
        )
    where = f"in {count(sum((domain, *BEST) in found for domain in DOMAINS), 'domain')} by {len(DISTANCES)} encoders"
    return [f"Distances of tuned ({_passes(found, BEST)} passes) that are smaller, {where}:", "", *lines]


def headline(path: Path) -> list[str]:
    """What stands below the sheet of landscapes, see `benchmarks.front`."""
    found = by_method(read_rows(path))
    methods = BEST, SHORT["UniPC, the guidance of tuned"], SHORT["DDIM, 50 steps"]
    rows = [found[key] for method in methods if (key := ("landscapes", *method)) in found]
    if len(rows) < len(methods):
        return []
    own, unipc, ddim = (f"{_short(row, 'fd_encoder', 'all')} with {float(row['passes_mean']):g}" for row in rows)
    return [
        f"*Landscapes, each column from the same noise. **fd {own} passes, where DDIM has {ddim}**, and UniPC at "
        f"the same guidance {unipc} (`python -m benchmarks front`). fd is the Frechet distance of {_images(rows)} "
        "images to real ones by the project's own encoder: smaller is better, and it is no FID.*"
    ]


def short(path: Path) -> list[str]:
    """The columns of `SHORT`, see `front`."""
    return front(path, SHORT)


def front(path: Path, methods: dict[str, tuple[str, str, str]] = FRONT) -> list[str]:
    """A few samplers side by side: `fd_encoder` / `fd_vicreg` of all images."""
    rows = read_rows(path)
    if not rows:
        return []
    found = by_method(rows)
    columns = {name: key for name, key in methods.items() if any((domain, *key) in found for domain in DOMAINS)}
    header = [f"{name}: {_passes(found, key)} passes" for name, key in columns.items()]
    real = real_images(path)
    lines = [
        [domain, *(_pair(found.get((domain, *key))) for key in columns.values()), _pair(real.get(domain), "mean")]
        for domain in DOMAINS
    ]
    body = table(["`fd_encoder` / `fd_vicreg`", *header, "real images"], lines)
    return [*body, "", f"{_images(rows)} images in each cell."]


def real_images(path: Path) -> dict[str, Row]:
    """Domain -> the distance of as many real images as a summary's rows have to the others of the domain."""
    images = _images(read_rows(path))
    return {row["domain"]: row for row in read_rows(path.parent / "real.csv") if row["images"] == images}


def beside_real(path: Path) -> list[str]:
    """How far real images are from other real images of their domain."""
    body = [
        [row["domain"], row["images"], *(f"{_short(row, m, 'mean')} ± {_short(row, m, 'sd')}" for m in DISTANCES)]
        for row in read_rows(path)
    ]
    return table(["domain", "images", *(f"`{metric}`" for metric in DISTANCES)], body, "lrrr") if body else []


def by_method(rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """(domain, sampler, guidance, steps) -> row; of several grids the one with the smallest `fd_encoder`.

    Guided in an interval, the number of steps that was found for a domain is `OWN`.
    """
    worst_first = sorted(rows, key=lambda row: -float(row["fd_encoder_all"]))
    return {(row["domain"], *method_of(row)): row for row in worst_first}


def method_of(row: Row) -> tuple[str, str, str]:
    """Sampler, guidance and steps, see `by_method`."""
    method = sampler_of(row), guidance_of(row)
    own = method[1] == INTERVAL and int(row["num_steps"]) == FOUND[row["domain"]].num_steps
    return *method, OWN if own else row["num_steps"]


def sampler_of(row: Row) -> str:
    """The scheduler, or `STORED` where fewer evaluations were taken than steps."""
    return STORED if float(row["evaluations_mean"]) < float(row["num_steps"]) else row["scheduler"]


def guidance_of(row: Row) -> str:
    """Whether a row was guided in an interval or at every step."""
    return INTERVAL if "log-SNR" in row["model"] else CONSTANT


def _numbers(row: Row) -> list[str]:
    spread = [f"{_short(row, m, 'all')} ({_short(row, m, 'mean')} ± {_short(row, m, 'sd')})" for m in DISTANCES]
    shares = [f"{float(row[f'{m}_all']):.3f}" for m in ("precision", "recall")]
    first = ", first evaluation stored" if sampler_of(row) == STORED else ""
    name = name_with_grid(row["scheduler"], row["grid"]) + first
    agreement = f"{float(row['domain_agreement_mean']):.3f} ± {float(row['domain_agreement_sd']):.3f}"
    return [name, guidance_of(row), row["num_steps"], f"{float(row['passes_mean']):g}", *spread, *shares, agreement]


def _blocks_of(path: Path) -> dict[tuple[str, ...], list[Row]]:
    """What names a cell -> its blocks, by seed."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in read_rows(path):
        found.setdefault(_cell_of(row), []).append(row)
    return found


def _cell_of(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in ("domain", "scheduler", "grid", "variant", "num_steps"))


def _difference(own: Row, other: Row, metric: str, blocks: dict[tuple[str, ...], list[Row]]) -> str:
    """The relative difference of all images, and the blocks' mean difference ± the half of its 95 % interval.

    The interval is Student's, of the differences of blocks from the same noises; bold where it leaves out 0.
    """
    change = percent(float(own[f"{metric}_all"]) / float(other[f"{metric}_all"]) - 1)
    mean, half = _apart(own, other, metric, blocks)
    text = f"{change} ({mean:+.1f} ± {half:.1f})".replace("(-", f"({MINUS}")
    return f"**{text}**" if abs(mean) > half else text


def _apart(own: Row, other: Row, metric: str, blocks: dict[tuple[str, ...], list[Row]]) -> tuple[float, float]:
    """Mean difference of the blocks, and the half of its 95 % interval; see `_difference`."""
    theirs = {row["seed"]: float(row[metric]) for row in blocks[_cell_of(other)]}
    apart = np.array([float(row[metric]) - theirs[row["seed"]] for row in blocks[_cell_of(own)]])
    return apart.mean(), t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5


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
