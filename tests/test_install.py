"""The wheel, installed into an environment of its own: draws, trains and explains itself from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tiny import ROOT, mlflow_database, tiny_pictures

pytest.importorskip("hatchling", reason="builds the wheel")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The console script; what the package depends on is that of the environment of the tests."""
    folder = tmp_path_factory.mktemp("install")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel, cwd=folder)

    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(ours))  # whose own .pth files are not read: no checkout
    return folder / "venv" / "bin" / "adaptive-diffusion"


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that knows nothing of the checkout."""
    hidden = ("PYTHONPATH", "ADAPTIVE_DIFFUSION_ROOT", "ADAPTIVE_DIFFUSION_CALLED")
    known = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, cwd=cwd, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_it_is_the_installed_package_that_runs_with_its_own_configuration(program, tmp_path):
    code = "import adaptive_diffusion.program as p; print(p.installed(), p.conf(), sep='\\n')"
    installed, conf = run(program.parent / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert installed == "True"
    assert Path(conf).is_relative_to(program.parent.parent)
    theirs = {str(file.relative_to(conf)) for file in Path(conf).rglob("*.yaml")}
    assert theirs == {str(file.relative_to(ROOT / "conf")) for file in (ROOT / "conf").rglob("*.yaml")}
    assert run(program, "--version", cwd=tmp_path).stdout.startswith("adaptive-diffusion-optimizer ")


def test_it_draws_into_the_current_directory(program, tmp_path):
    mlflow_database(tmp_path / "mlruns")  # made beforehand, which is quicker
    out = run(program, "sample", "num_samples=2", "num_steps=2", cwd=tmp_path).stdout
    (image,) = (tmp_path / "outputs" / "sample").rglob("pictures.png")
    assert str(image) in out
    assert list((tmp_path / "mlruns").rglob("pictures.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "mlruns"}


def test_it_trains_and_says_how_to_draw_with_the_result(program, tmp_path):
    pictures = tiny_pictures(tmp_path)
    small = ("widths=[8]", "blocks=[1]", "attention_levels=[]", "image_size=8", "embedding_dim=8")
    settings = [f"task.architecture.{setting}" for setting in small]
    lengths = ("task.images=64", "task.batch_size=32", "task.log_every=32")
    previews = ("task.preview_every=64", "task.preview_steps=2")
    given = [f"task.data.portraits={pictures}", *settings, *lengths, *previews, "tracking=none"]
    out = run(program, "train", *given, cwd=tmp_path).stdout
    assert "adaptive-diffusion sample model=checkpoint" in out
    assert list((tmp_path / "outputs").rglob("*.safetensors"))


def test_a_mistake_names_the_program_as_it_was_called(program, tmp_path):
    told = run(program, "train", "scheduler=unipc", cwd=tmp_path, code=2).stderr
    assert "scheduler belongs to adaptive-diffusion sample" in told
    told = run(program, "bench", cwd=tmp_path, code=2).stderr
    assert "clone of the repository" in told
