"""A hook of MkDocs: pages of the site that are made from the project, and links from pages to its other files.

Made are the configuration (from the comments in `conf/`), the command line (from the programs' help) and the Python
API (from the packages' public names). CHANGELOG.md and the like, which lie outside of `docs/`, become pages too.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from adaptive_diffusion.cli.main import COMMANDS
from adaptive_diffusion.io.markdown import table

PROJECT = Path(__file__).resolve().parents[1]
ASSETS = "src/adaptive_diffusion/assets"
OUTSIDE = {  # files of the project -> pages of the site
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    f"{ASSETS}/MODEL_CARD.md": "project/model_card.md",
    f"{ASSETS}/ENCODER_CARD.md": "project/encoder_card.md",
    f"{ASSETS}/VICREG_CARD.md": "project/vicreg_card.md",
}
SHOWN = ("CITATION.cff", "src/adaptive_diffusion/diffusion/guidance.py")  # linked files that are copied as they are
MADE = {  # folders of the project -> pages that are made from them
    "conf": "reference/configuration.md",
    "src/adaptive_diffusion/cli": "reference/command-line.md",
    "src/adaptive_diffusion": "reference/python/adaptive_diffusion.md",
}
GROUPS = (  # of the configuration, in the order in which a reader meets them
    *("scheduler", "grid", "guidance", "sampler", "domain", "model", "metrics", "benchmark", "debug"),
    *("task", "agent", "reward"),
    *("experiment", "tracking", "paths", "hydra/sweeper"),
)
PACKAGES = ("", "diffusion", "schedulers", "sampling", "baseline", "metrics", "rl", "optimization")
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")  # of Markdown, to a file


def on_files(files: Files, config: Any, **kwargs: Any) -> Files:
    """Add what is made."""
    made = {page: (PROJECT / name).read_text(encoding="utf-8") for name, page in OUTSIDE.items()}
    made |= {name: (PROJECT / name).read_text(encoding="utf-8") for name in SHOWN}
    made |= {"reference/configuration.md": configuration(), "reference/command-line.md": command_line()}
    made |= {f"reference/python/{package or 'adaptive_diffusion'}.md": python(package) for package in PACKAGES}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Lead links to other files of the project to their pages, and those of these files to pages of the site."""
    uri = page.file.src_uri
    source = next((name for name, made in OUTSIDE.items() if made == uri), f"docs/{uri}")
    return LINK.sub(partial(_link, source, uri), markdown)


def on_post_page(output: str, **kwargs: Any) -> str:
    """Give the dialog of the search a name, which screen readers need, and let a keyboard scroll wide tables."""
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
    return output.replace("<table>", '<table tabindex="0">')


def _link(source: str, uri: str, match: re.Match[str]) -> str:
    """A link in a file of the project, as its page at `uri` says it."""
    before, target, anchor, after = match.groups()
    name = os.path.normpath(Path(source).parent / target)
    page = (OUTSIDE | MADE).get(name) or (name if name in SHOWN else os.path.relpath(name, "docs"))
    return f"{before}{os.path.relpath(page, Path(uri).parent)}{anchor or ''}{after}"


def configuration() -> str:
    """Every group of the configuration and its options, as their files say."""
    lines = [
        "# Configuration\n",
        "Every choice is a file in `conf/`. Its comments say what a setting means, in which unit and range. "
        "`python sample.py --cfg job` prints the configuration that a command composes. A setting without a meaning, "
        "as in `debug` and `experiment`, gives another value to one that stands elsewhere on this page.\n",
    ]
    for program in ("sample", "train"):
        lines += [f"## {program}.py\n", *_file(PROJECT / "conf" / f"{program}.yaml")]
    for group in GROUPS:
        lines.append(f"## {group}\n")
        for file in sorted((PROJECT / "conf" / group).glob("*.yaml")):
            lines += [f"### {group}={file.stem}\n", *_file(file)]
    return "\n".join(lines)


def _file(path: Path) -> list[str]:
    """A file of the configuration: its first comment as text, and a table of its settings."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    said = [line.removeprefix("#").strip() for line in lines[:first] if "@package" not in line]
    rows = [(f"`{name}`", f"`{value}`" if value else "", _cell(what)) for name, value, what in settings(lines[first:])]
    return [
        *(f"{line}<br>" for line in said),
        "",
        *(table(("setting", "value", "meaning"), rows, "lll") if rows else []),
        "",
    ]


def _cell(text: str) -> str:
    """A comment as the cell of a table."""
    return text.replace("<", "&lt;").replace("|", "&#124;")


def settings(lines: list[str]) -> list[list[str]]:
    """(name, value, comment) of each setting of a file of the configuration; names are dotted."""
    rows: list[list[str]] = []
    above: list[tuple[int, str]] = []  # indentation and name of the mappings that a line stands in
    for line in lines:
        if match := re.match(r"( *)([\w@/.+]+):(?: +([^#\s].*?))?(?: +# (.*))?$", line):
            indent, name, value, what = len(match[1]), match[2], match[3] or "", match[4] or ""
            above = [(i, n) for i, n in above if i < indent]
            if value or what:
                rows.append([".".join([*(n for _, n in above), name]), value, what])
            above.append((indent, name))
        elif rows and (match := re.match(r" +# (.*)$", line)):
            rows[-1][2] += f" {match[1]}"
    return rows


def command_line() -> str:
    """What each command says when it is asked for help."""
    lines = [
        "# Command line\n",
        "`python sample.py` and `python train.py` are `adaptive-diffusion sample` and `train`. Exit codes and "
        "variables of the environment: [here](environment.md).\n",
    ]
    for name, (what, _) in COMMANDS.items():
        run = [sys.executable, "-m", "adaptive_diffusion", name, "--help"]
        said = subprocess.run(run, capture_output=True, text=True, cwd=PROJECT, check=True).stdout
        said = said.replace("python -m adaptive_diffusion", "adaptive-diffusion")
        lines += [f"## {name}\n", f"{what[0].upper()}{what[1:]}.\n", "```text", said.strip(), "```\n"]
    return "\n".join(lines)


def python(package: str) -> str:
    """The public names of a package, whose docstrings mkdocstrings reads; a name of two packages is described once."""
    module = importlib.import_module(f"adaptive_diffusion.{package}".rstrip("."))
    elsewhere = PACKAGES[1:] if not package else ()
    links, described = [], []
    for name in sorted(set(module.__all__) - {"__version__"}, key=str.lower):
        value = getattr(module, name)
        named = inspect.isclass(value) or inspect.isfunction(value)  # others are constants and types
        path = f"{value.__module__}.{value.__qualname__}" if named else f"{module.__name__}.{name}"
        homes = (p for p in elsewhere if name in importlib.import_module(f"adaptive_diffusion.{p}").__all__)
        if home := next(homes, None):
            links.append(f"[`{name}`]({home}.md#{path})")
        else:
            described.append(f"::: {path}\n")

    also = [f"Also here, and described with their packages: {', '.join(links)}.\n"] if links else []
    return "\n".join([f"# {module.__name__}\n", f"{(module.__doc__ or '').strip()}\n", *also, *described])
