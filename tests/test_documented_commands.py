"""The commands of README and guide: all compose, and those that draw with what ships do so, with two images each.

Long ones run in test_documented_programs.py.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from PIL import Image
from tiny import ROOT, configuration

from adaptive_diffusion.cli.arguments import for_hydra
from adaptive_diffusion.program import SCRIPTS
from adaptive_diffusion.runs.sample import sample

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guide").glob("*.md"))]
OPTIONS = ("--config-dir", "--help", "--cfg", "hydra.searchpath", "hydra/launcher")  # of folders that a reader has
ELSEWHERE = (
    "model=stable_diffusion",
    "model=diffusers",
    "model=checkpoint",
    "own.make",
    "outputs/",
    "FILE",
    "experiment=",
    "tracking.uri=",
)
SMALL = ["num_samples=2", "batch_size=2", "tracking=none"]


def documented() -> list[tuple[str, tuple[str, ...]]]:
    """(program, arguments) of every command in a block of a page, once each."""
    blocks = [
        b for page in PAGES for b in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    lines = [line.strip(" &") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"^(\w+=\S+ )+", "", line) for line in lines]  # variables of the environment
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]
    return sorted({(Path(w[1]).stem, tuple(w[2:])) for w in words if Path(w[1]).stem in SCRIPTS})


def first_job(arguments: tuple[str, ...]) -> list[str]:
    """The settings of the first job of a command."""
    settings = [word for word in for_hydra(arguments) if word not in ("-m", "--multirun")]
    overrides = OverridesParser.create().parse_overrides(settings)
    values = [_first(override) if override.is_sweep_override() else None for override in overrides]
    keys = [setting.partition("=")[0] for setting in settings]
    return [setting if v is None else f"{key}={v}" for key, setting, v in zip(keys, settings, values, strict=True)]


def _first(override: Override) -> str:
    """The first value of a sweep, or the lower end of an interval."""
    interval = override.value()
    return f"{interval.start}" if isinstance(interval, IntervalSweep) else next(override.sweep_string_iterator())


def has(arguments: tuple[str, ...], words: tuple[str, ...]) -> bool:
    return any(word in argument for argument in arguments for word in words)


COMMANDS = [(program, arguments) for program, arguments in documented() if not has(arguments, OPTIONS)]
DRAWING = [arguments for program, arguments in COMMANDS if program == "sample" and not has(arguments, ELSEWHERE)]

OTHERS = [(program, arguments) for program, arguments in COMMANDS if arguments not in DRAWING]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The metrics of the first run of README and guide."""
    folder = tmp_path_factory.mktemp("first")
    sample(configuration("sample", folder, "scheduler=adaptive", "domain=landscapes"))
    metrics: dict[str, float] = json.loads((folder / "run" / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize(("program", "arguments"), OTHERS, ids=lambda value: " ".join(value) if value else "")
def test_a_documented_command_composes(program: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    cfg = configuration(program, tmp_path, *first_job(arguments))
    assert cfg.paths.outputs == f"{tmp_path}/outputs"


@pytest.mark.parametrize("arguments", DRAWING, ids=" ".join)
def test_a_documented_command_draws(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "orange").save("sketch.png")
    unmeasured = [] if has(arguments, ("metrics.",)) else ["metrics=none"]
    sample(configuration("sample", tmp_path, *first_job(arguments), *SMALL, *unmeasured))
    assert (tmp_path / "run" / "pictures.png").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/guide/first-run.md"])
def test_the_first_run_measures_what_the_page_prints(page: str, first_run: dict[str, float]) -> None:
    block = re.search(r"^quality .*?(?=^look )", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    measured = {name.removeprefix("quality/") for name in first_run if name.startswith("quality/")}
    numbers, _, few = (block[0] if block else "").partition("too few images for ")
    printed = [found for found in re.findall(r"(\w+) (-?[\d.]+)", numbers) if found[0] in measured]
    assert {name for name, _ in printed} | {*few.partition(";")[0].split(", ")} == measured
    assert {name: float(value) for name, value in printed} == {
        name: pytest.approx(first_run[f"quality/{name}"], rel=0.02) for name, _ in printed
    }


def test_the_pages_have_commands_of_both_programs() -> None:
    assert {program for program, _ in COMMANDS} == set(SCRIPTS)
    assert len(DRAWING) > 20
