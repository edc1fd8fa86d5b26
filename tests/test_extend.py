"""docs/extend.md, followed to the letter: its files, in a folder of one's own, work like what ships."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import LABELS, ROOT, configuration, tiny_model

from adaptive_diffusion.cli.catalog import Catalog
from adaptive_diffusion.models.checkpoint import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and a tiny model that draws shapes."""
    folder, page = tmp_path_factory.mktemp("extend"), (ROOT / "docs" / "extend.md").read_text()
    files = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL)
    groups = {Path(name).parent.name for name, _ in files if name.endswith(".yaml")}
    assert groups == {"scheduler", "grid", "sampler", "metrics", "domain", "task"}
    for name, text in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    domains = ["shapes", *list(LABELS)[1:]]
    labels = dict(zip(domains, LABELS.values(), strict=True))
    save_model(folder / "shapes.safetensors", tiny_model(domains=domains, labels=labels))
    return folder


def run(folder: Path, program: str, *settings: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program that knows the folder."""
    command = [sys.executable, str(ROOT / program), "--config-dir", "my_parts/conf", *settings, "tracking=none"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["my_parts", os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*command, f"paths.outputs={folder}/outputs"], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_the_parts_of_the_page_draw_together_and_a_mistyped_setting_gets_a_sentence(folder: Path) -> None:
    parts = ["scheduler=euler_ancestral", "grid=cosine", "sampler=partway", "metrics=contrast", "domain=shapes"]
    model = ["model=checkpoint", "model.path=shapes.safetensors", "num_samples=2", "num_steps=6"]
    code, out, err = run(folder, "sample.py", "-m", *parts, *model, "scheduler.eta=0.8,abc,2", "sampler.share=0.5")
    assert "euler_ancestral cosine, 3 steps" in out
    (metrics,) = folder.glob("outputs/sweeps/*/*/0/metrics.json")
    assert "quality/contrast" in json.loads(metrics.read_text(encoding="utf-8"))
    assert re.search(r"scheduler\.eta must be a number, got 'abc'", err)
    assert "eta must be between 0 and 1, got 2" in err
    assert "Traceback" not in err
    assert code == 2


def test_the_task_of_the_page_runs(folder: Path) -> None:
    model = ["model@task.model=checkpoint", "task.model.path=shapes.safetensors"]
    code, out, err = run(folder, "train.py", "task=timing", *model, "task.images=3")
    assert (code, err) == (0, "")
    assert "s for 3 images" in out


def test_an_installed_package_brings_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs" / "conf" / "grid").mkdir(parents=True)
    (tmp_path / "theirs" / "conf" / "grid" / "coarse.yaml").write_text(
        "_target_: adaptive_diffusion.grids.spacings.PowerGrid\npower: 1.5\n"
    )
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[adaptive_diffusion.conf]\ntheirs = theirs.conf\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert configuration("sample", tmp_path, "grid=coarse").grid.power == 1.5
    assert "coarse" in Catalog.of(ROOT / "conf", []).options("grid")
