"""The tables of the benchmark, made from `docs/benchmark/summary.csv`."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptive_diffusion.errors import UserError
from adaptive_diffusion.io.counted import count
from adaptive_diffusion.io.markdown import MINUS, MISSING, table
from adaptive_diffusion.optimization.domains import DomainType

# in the order of the tables; names that are missing here follow by alphabet
DOMAINS = tuple(map(str, DomainType))
SCHEDULERS = {
    "adaptive": "adaptive",
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "dpm_solver": "DPM-Solver++",
    "unipc": "UniPC",
    "ipndm": "iPNDM",
}
GRIDS = {
    "uniform": "uniform",
    "quadratic": "quadratic",
    "karras": "Karras",
    "log_snr": "log-SNR",
    "blended": "blended",
    "own": "own",
}
ADAPTIVE = ("adaptive", "own", "")
QUADRATIC = ("dpm_solver", "quadratic", "")
MANY = (("ddim", "uniform", ""), 50)  # the goal of few adaptive steps


@dataclass(frozen=True)
class Measured:
    """A row of the summary.

    Attributes:
        domain: Name of the domain.
        method: Scheduler, grid and variant, as in the summary.
        num_steps: Steps.
        blocks: Blocks of seeds.
        pictures: Images per block.
        passes: Through the network, per image.
        model, encoder, calibration: See `CellResult`; "" if the summary lacks them.
        perceptual: Mean distance to the converged solution, None for a stochastic scheduler.
        perceptual_sd: Its standard deviation over the blocks, or None.
        fd_converged: Frechet distance of all images to the converged ones, or None.
        rmse: Mean RMSE to the converged solution, or None.
    """

    domain: str
    method: tuple[str, str, str]
    num_steps: int
    blocks: int
    pictures: int
    passes: float
    model: str
    encoder: str
    calibration: str
    perceptual: float | None
    perceptual_sd: float | None
    fd_converged: float | None
    rmse: float | None


HEADS = {
    "fd_converged": "`fd_converged`",
    "perceptual": "perceptual",
    "rmse": "RMSE",
}


def read_summary(path: Path) -> list[Measured]:
    """The rows of a summary of `benchmark.write_report`.

    Raises:
        UserError: if the file is missing or of another kind.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_measured(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; adaptive-diffusion cells --output makes it") from None
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no summary of the benchmark ({error!r}); make it again") from error


def results(rows: Sequence[Measured]) -> list[str]:
    """A table per domain: methods down, steps across, in a cell perceptual / fd_converged / RMSE."""
    lines = [_conditions(rows)]
    for domain, some in _by_domain(rows).items():
        found = {(row.method, row.num_steps): row for row in some}
        steps = sorted({row.num_steps for row in some})
        methods = sorted({row.method for row in some}, key=_place)
        body = [[method_name(method), *(_cell(found.get((method, n))) for n in steps)] for method in methods]
        lines += ["", *table([domain, *map(str, steps)], body)]
    return lines


def comparison(rows: Sequence[Measured]) -> list[str]:
    """A table of adaptive beside the best other method with the same steps, with the ranges over domains."""
    body = []

    changes: dict[tuple[int, str], tuple[list[float], list[float]]] = {}
    for domain, some in _by_domain(rows).items():
        for own in _adaptive(some):
            others = [row for row in some if row.num_steps == own.num_steps and row.method[0] != ADAPTIVE[0]]

            cells = []
            for metric in HEADS:
                best, quadratic = changes.setdefault((own.num_steps, metric), ([], []))
                cells.append(_compared(own, others, metric, best, quadratic))

            if set(cells) != {MISSING}:
                body.append([domain, str(own.num_steps), *cells])

    # below the domains, for each number of steps, the range of the differences
    for n in sorted({n for n, _ in changes}):
        ranges = [" / ".join(filter(None, map(_range, changes[n, metric]))) for metric in HEADS]
        domains = max(len(changes[n, metric][0]) for metric in HEADS)
        if domains:
            body.append([count(domains, "domain"), str(n), *ranges])

    head = "adaptive / best of the others, difference / to DPM-Solver++ quadratic"
    return table([head, "steps", *HEADS.values()], body, "lr" + "l" * len(HEADS))


def fewest_steps(rows: Sequence[Measured]) -> list[str]:
    """A table of the fewest measured adaptive steps that are as near as DDIM with fifty, by domain and metric."""
    method, many = MANY

    body = []
    for domain, some in _by_domain(rows).items():
        goal = next((row for row in some if (row.method, row.num_steps) == MANY), None)
        body.append([domain, *(_fewest(_adaptive(some), goal, metric) for metric in HEADS)])
    head = f"fewest adaptive steps that reach {method_name(method)} {many}"
    return table([head, *HEADS.values()], body, "l" * (1 + len(HEADS)))


def times_nearer(rows: Sequence[Measured]) -> list[str]:
    """A table of how many times as far DDIM with fifty steps is as fewer adaptive ones, as ranges over the domains."""
    method, many = MANY
    times: dict[int, dict[str, list[float]]] = {}
    for some in _by_domain(rows).values():
        goal = next((row for row in some if (row.method, row.num_steps) == MANY), None)
        for own in _adaptive(some):
            for metric in HEADS:
                if goal and own.num_steps < many and getattr(own, metric) and getattr(goal, metric):
                    ratio = getattr(goal, metric) / getattr(own, metric)
                    times.setdefault(own.num_steps, {}).setdefault(metric, []).append(ratio)

    body = [[str(n), *(_times(found.get(metric, [])) for metric in HEADS)] for n, found in sorted(times.items())]
    return table(
        [f"adaptive steps, against {method_name(method)} {many}", *HEADS.values()], body, "r" * (1 + len(HEADS))
    )


def method_name(method: tuple[str, str, str]) -> str:
    """The name of a method in the tables."""
    if method == ADAPTIVE:
        return "**adaptive**"

    scheduler, grid, variant = method
    return " ".join(filter(None, (name_with_grid(scheduler, grid, " "), variant)))  # commas part what stands beside it


def name_with_grid(scheduler: str, grid: str, separator: str = ", ") -> str:
    """The name of a scheduler, and that of its grid if it is not the scheduler's own."""
    name = SCHEDULERS.get(scheduler, scheduler)
    return name if grid == "own" else f"{name}{separator}{GRIDS.get(grid, grid)}"


def distance(value: float) -> str:
    """Two digits, or all digits before the point: 153, 5.9, 0.18; `< 0.01` for smaller values."""
    if value < 0.01:
        return "< 0.01"
    return f"{value:.0f}" if value >= 9.95 else f"{value:#.2g}"


def _measured(row: dict[str, str]) -> Measured:
    def number(column: str) -> float | None:
        return float(row[column]) if row[column] else None

    return Measured(
        domain=row["domain"],
        method=(row["scheduler"], row["grid"], row["variant"]),
        num_steps=int(row["num_steps"]),
        blocks=int(row["blocks"]),
        pictures=int(row["pictures_per_block"]),
        passes=float(row["passes_mean"]),
        model=row.get("model") or "",
        encoder=row.get("encoder") or "",
        calibration=row.get("calibration") or "",
        perceptual=number("perceptual_mean"),
        perceptual_sd=number("perceptual_sd"),
        fd_converged=number("fd_converged_all"),
        rmse=number("rmse_mean"),
    )


def _conditions(rows: Sequence[Measured]) -> str:
    """How many images, and of which model."""
    if not rows:
        return "Nothing is measured yet."

    sizes = sorted({(row.blocks, row.pictures) for row in rows})
    n = ", ".join(f"{blocks * pictures:,} images a cell ({blocks} x {pictures})" for blocks, pictures in sizes)
    models = sorted({row.model for row in rows if row.model})
    return f"n = {n}" + "".join(f"; model {model}" for model in models) + "."


def _by_domain(rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    domains = sorted({row.domain for row in rows}, key=lambda name: rank(name, DOMAINS))
    return {domain: [row for row in rows if row.domain == domain] for domain in domains}


def _adaptive(rows: Sequence[Measured]) -> list[Measured]:
    """The rows of the adaptive scheduler, by steps."""
    return sorted((row for row in rows if row.method == ADAPTIVE), key=lambda row: row.num_steps)


def rank(name: str, known: Iterable[str]) -> tuple[int, str]:
    """Sort key of names: known names in their order, then unknown names by alphabet."""
    order = list(known)
    return (order.index(name) if name in order else len(order), name)


def _place(method: tuple[str, str, str]) -> tuple[bool, tuple[int, str], tuple[int, str], str]:
    scheduler, grid, variant = method
    return method != ADAPTIVE, rank(scheduler, SCHEDULERS), rank(grid, GRIDS), variant


def _cell(row: Measured | None) -> str:
    if row is None:
        return ""
    frechet = MISSING if row.fd_converged is None else distance(row.fd_converged)
    return " / ".join((_small(row.perceptual, row.perceptual_sd), frechet, _small(row.rmse)))


def _small(mean: float | None, sd: float | None = None) -> str:
    """Four decimals; up to six, until the mean shows two digits and the spread one."""
    if mean is None:
        return MISSING

    decimals = min(6, max(4, _decimals(mean, 2), _decimals(sd or 0.0, 1)))
    return f"{mean:.{decimals}f}" + ("" if sd is None else f" ± {sd:.{decimals}f}")


def _decimals(value: float, digits: int) -> int:
    """The number of decimals that shows `digits` digits of a value."""
    return digits - 1 - math.floor(math.log10(value)) if value > 0 else 0


def _value(row: Measured, metric: str) -> str:
    value: float = getattr(row, metric)
    return distance(value) if metric == "fd_converged" else _small(value)


def _compared(own: Measured, others: Sequence[Measured], metric: str, best: list[float], quadratic: list[float]) -> str:
    """A cell of `comparison`; its differences are appended to the two lists."""
    known = [row for row in others if getattr(row, metric) is not None]
    if getattr(own, metric) is None or not known:
        return MISSING

    rival = min(known, key=lambda row: getattr(row, metric))
    best.append(_change(own, rival, metric))
    text = f"{_value(own, metric)} / {_value(rival, metric)} {method_name(rival.method)}, {percent(best[-1])}"

    plain = next((row for row in known if row.method == QUADRATIC), None)
    if plain is None:
        return text

    quadratic.append(_change(own, plain, metric))
    return f"{text} / {percent(quadratic[-1])}"


def _change(own: Measured, other: Measured, metric: str) -> float:
    """The relative difference of a metric, (own - other) / other."""
    a, b = getattr(own, metric), getattr(other, metric)
    return float(a / b - 1) if b else (math.inf if a else 0.0)


def percent(change: float) -> str:
    """A change with its sign; one more digit near -100 %, which would mean that nothing is left."""
    return f"{100 * change:+.{1 if change < -0.99 else 0}f} %".replace("-", MINUS)


def _range(changes: Sequence[float]) -> str:
    if not changes:
        return ""
    low, high = percent(min(changes)), percent(max(changes))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _times(ratios: Sequence[float]) -> str:
    """A range of ratios with two digits."""
    return f"{distance(min(ratios))} to {distance(max(ratios))}" if ratios else MISSING


def _fewest(own: Sequence[Measured], goal: Measured | None, metric: str) -> str:
    target = None if goal is None else getattr(goal, metric)
    known = [row for row in own if getattr(row, metric) is not None]
    if goal is None or target is None or not known:
        return MISSING

    reached = next((row for row in known if getattr(row, metric) <= target), None)
    if reached is None:
        return f"none up to {known[-1].num_steps} ({_value(known[-1], metric)}; {_value(goal, metric)})"
    return f"{reached.num_steps} ({_value(reached, metric)}; {_value(goal, metric)})"
