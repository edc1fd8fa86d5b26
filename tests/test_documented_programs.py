"""Long commands of README and guide run with small settings, and so do those of `adaptive-diffusion ...`."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from program import Forked
from test_documented_commands import PAGES, documented
from tiny import ROOT, configuration, tiny_folder

from adaptive_diffusion.cli.arguments import for_hydra
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules
from adaptive_diffusion.models.checkpoint import BUILTIN_MODEL
from adaptive_diffusion.runs import export, references, report
from adaptive_diffusion.runs.references import BUILTIN_ENCODER
from adaptive_diffusion.runs.train import train
from adaptive_diffusion.schedulers import save_schedules

pytestmark = pytest.mark.slow

OF_A_MODEL = ("model@task.model=checkpoint", "task.model.path={folder}/tiny.safetensors", "tracking=none")
SMALL = {  # by the beginning of what a command trains
    "task.data": (
        *("task.images=64", "task.batch_size=16", "task.warmup_images=0", "task.decay_images=32", "task.log_every=64"),
        *("task.validation_images=2", "task.validate_every=64", "task.save_every=64"),
        *("task.preview_every=64", "task.preview_samples=2", "task.preview_steps=2"),
        *("task.architecture.image_size=8", "task.architecture.patch_size=1", "task.architecture.embedding_dim=16"),
        *("task.architecture.widths=[8,16]", "task.architecture.blocks=[1,1]", "task.architecture.head_dim=8"),
        *("task.architecture.attention_levels=[]", "tracking=none"),
    ),
    "task=encoder": (
        *("task.images=160", "task.batch_size=16", "task.save_every=160", "task.validate_every=160"),
        *("task.widths=[8]", "task.dimension=4", "task.image_size=8", "tracking=none"),
    ),
    "task=schedule": (*OF_A_MODEL, "task.domains=[portraits]"),
    "agent=cem": (*OF_A_MODEL, "task.episodes=2", "task.pictures=4", "task.verification_batches=2"),
}
ELSEWHERE = ("model=diffusers", "agent=ppo")  # tests/models/test_pipeline_runs.py, tests/test_ppo_agent.py
TRAININGS = [
    (arguments, small)
    for program, arguments in documented()
    if program == "train" and "-m" not in arguments and not any(e in a for a in arguments for e in ELSEWHERE)
    for begin, small in SMALL.items()
    if arguments[0].startswith(begin)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, and folders of images."""
    folder = tiny_folder(tmp_path_factory.mktemp("documented"))
    for name in ("faces/young", "faces/old", "hills/green", "hills/blue"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(
                folder / name / f"{i}.png"
            )
    return folder


@pytest.mark.parametrize(("arguments", "small"), TRAININGS, ids=[" ".join(a)[:70] for a, _ in TRAININGS])
def test_a_documented_training_runs(
    arguments: tuple[str, ...], small: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    given = [re.sub(r"=/images/", f"={folder}/", each) for each in for_hydra(arguments)]
    given = [each.replace("=...", f"={folder}/cats.npz") for each in given]
    given = [re.sub(r"=outputs/", f"={tmp_path}/outputs/", each) for each in given]
    train(configuration("train", tmp_path, *given, *(each.format(folder=folder) for each in small)))
    assert any(file.is_file() for file in (tmp_path / "outputs").rglob("*"))


def commands(name: str) -> list[list[str]]:
    """The arguments of every line `adaptive-diffusion NAME ...` of a page."""
    blocks = [b for page in PAGES for b in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("adaptive-diffusion ")]
    found = [w[2:] for w in words if w[:2] == ["adaptive-diffusion", name]]
    assert found, f"no page has adaptive-diffusion {name}"
    return found


def filled(arguments: list[str], **names: Any) -> list[str]:
    """Arguments with values in the place of capital names."""
    return [re.sub("|".join(names), lambda match: str(names[match[0]]), each) for each in arguments]


def test_documented_exports_write_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "outputs" / "schedule").mkdir(parents=True)
    save_schedules(folder / "outputs" / "schedule" / "schedules.json", load_schedules(SHIPPED)[:1])
    for arguments in commands("export"):
        export.main(filled(arguments, MODEL=BUILTIN_MODEL))
        assert (folder / "exported" / "sigmas.txt").is_file()


def test_documented_references_are_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for arguments in commands("references"):
        given = filled(arguments, FILE=BUILTIN_ENCODER, FOLDER="own")
        references.main([each.replace("=...", "=cats.npz") for each in given])
        assert (folder / "own" / "landscapes.npz").is_file()


def test_a_documented_sweep_runs_and_has_documented_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = next(
        a for program, a in documented() if program == "sample" and "scheduler=ddim,dpm_solver,unipc,adaptive" in a
    )
    program = Forked(tmp_path, "num_samples=2", "metrics=none")
    code, out, err = program.run(*swept)
    assert code == 0, err
    (made,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    for name in ("results.md", "results.csv", "sheet.png"):
        assert (made / name).is_file(), out

    monkeypatch.chdir(tmp_path)
    there = {"DATE/TIME": f"{made.parent.name}/{made.name}", "RUN_ID": program.runs()[-1].info.run_id}
    for arguments in commands("report"):
        output = Path("all.html" if "all.html" in arguments else "outputs/report.html")
        output.unlink(missing_ok=True)
        report.main(
            filled([each for each in arguments if each != "outputs/sample"], **there)
        )  # no single run was drawn
        assert output.is_file()


@pytest.mark.parametrize("page", ["autoguidance", "guidance", "detection"])
def test_the_first_python_block_of_a_page_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "outputs" / "model").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "tiny.safetensors", folder / "outputs" / "model" / "weak.safetensors")
    text = (ROOT / "docs" / "guide" / f"{page}.md").read_text(encoding="utf-8")
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], made := dict[str, Any]())
    assert "guidance" in made if page == "autoguidance" else len(made["images"]) == 4
