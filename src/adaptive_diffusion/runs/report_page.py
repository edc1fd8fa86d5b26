"""The page of `adaptive-diffusion report`: HTML with its style and its images inside."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from .._version import __version__
from ..io.counted import count
from ..tracking.jobs import FAILED, Job, telling
from .sample_files import DIFF, PROVENANCE
from .sample_sweep import HEADER, cells_of, notes_of
from .sweep_pictures import draw_plot, draw_sheet
from .sweep_rows import Group, Row, groups_of

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
{body}
</main></body>
</html>
"""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; margin: 2rem 0 .5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
tr.best { background: #e8f3e8; font-weight: 600 }
img { max-width: 100%; height: auto }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem }
summary { cursor: pointer; padding: .3rem 0 }
footer { margin-top: 3rem; color: #595959; font-size: .9rem }
"""
DRAWN = {"schedule.png": "Timesteps and log-SNR of each step", "denoising.png": "Clean predictions at each step"}


def page(title: str, jobs: Sequence[Job]) -> str:
    """An HTML page about jobs.

    Args:
        title: What the jobs are.
        jobs: At least one of them has drawn images and measured them.
    """
    groups = groups_of(jobs)
    failed = [job for job in jobs if job.status in FAILED]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{count(len(jobs), 'run')}, {datetime.now():%Y-%m-%d %H:%M}.</p>",
        *(_table(group) for group in groups),
        *(f"<p>{html.escape(note)}.</p>" for note in notes_of(groups)),
        _drawn("Quality against cost", "Distance against network passes per image", groups, draw_plot),
        _drawn("Images", "One row for each run; each column starts from the same noise", groups, draw_sheet),
        "<h2>Runs</h2>",
        *(_details(row) for group in groups for row in group.rows),
        *(["<h2>Failed</h2>"] if failed else []),
        *(f"<p>{html.escape(_failure(job))}</p>" for job in failed),
        f"<footer>adaptive-diffusion-optimizer {__version__}</footer>",
    ]
    return PAGE.format(title=html.escape(title), style=STYLE, body="\n".join(parts))


def _table(group: Group) -> str:
    cells = [cells_of(row) for row in group.rows]
    kept = [i for i in range(len(HEADER)) if i < 2 or any(row[i] for row in cells)]
    head = "".join(f'<th scope="col">{html.escape(HEADER[i]) or "rank"}</th>' for i in kept)
    rows = "".join(
        f"<tr{' class=best' if row.best else ''}>{''.join(f'<td>{html.escape(cell[i])}</td>' for i in kept)}</tr>"
        for row, cell in zip(group.rows, cells, strict=True)
    )
    name = f"<h2>{html.escape(group.name or 'Results')}</h2>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{name}<div class="wide" tabindex="0" role="region" aria-label="results">{table}</div>'


def _drawn(heading: str, what: str, groups: Sequence[Group], draw: Callable[[Path, Sequence[Group]], bool]) -> str:
    """A picture of all groups, with its heading; "" where there is nothing to show."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.png"
        return f"<h2>{heading}</h2>{_image(path, what)}" if draw(path, groups) else ""


def _details(row: Row) -> str:
    """All that is known of a run, folded; its numbers alone where its files are gone."""
    job, folder = row.job, row.folder
    numbers = "\n".join(f"{name}: {value:.6g}" for name, value in sorted(job.metrics.items()))
    parts = [
        f"<summary>{html.escape(f'#{job.number} {row.label}')}</summary>",
        f"<p>{html.escape(' '.join(telling(job.settings)))}</p>",
        *(_image(folder / name, what) for name, what in DRAWN.items() if folder),
        f"<h3>Numbers</h3><pre tabindex=0>{html.escape(numbers)}</pre>",
        *(_text(folder / name) for name in (PROVENANCE, "config.yaml", DIFF) if folder),
    ]
    return f"<details>{''.join(parts)}</details>"


def _failure(job: Job) -> str:
    return f"#{job.number} {' '.join(telling(job.settings))}: {job.reason}"


def _text(path: Path) -> str:
    """A file of a run; "" where it is missing."""
    if not path.is_file():
        return ""
    return (
        f"<h3>{path.name}</h3><pre tabindex=0>{html.escape(path.read_text(encoding='utf-8', errors='replace'))}</pre>"
    )


def _image(path: Path, what: str) -> str:
    """A picture inside the page; "" where it is missing."""
    if not path.is_file():
        return ""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img src="data:image/png;base64,{content}" alt="{html.escape(what)}"></p>'
