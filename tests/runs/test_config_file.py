"""A run by the `config.yaml` of another one draws the same images, whatever chose what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from program import Forked

from adaptive_diffusion.models.checkpoint import save_model
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig


def drawn(program: Forked, name: str, *settings: str) -> Path:
    """The folder of a run."""
    folder = program.folder / name
    code, _, err = program.run(*settings, f"hydra.run.dir={folder}")
    assert code == 0, err
    return folder


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "pictures").glob("*.png"))])


@pytest.mark.parametrize(
    ("settings", "guidance"),
    [
        ((), "Interval"),
        (("scheduler=tuned",), "Interval"),
        (("scheduler=dpm_solver", "grid=calibrated"), "Interval"),
        (("label=sunrise",), "default_guidance"),
        (("prompt=a king ${x}",), "Interval"),
        (("prompt=a king on a mountain", "domain=general"), "Interval"),
    ],
)
def test_a_run_by_the_file_of_another_draws_the_same_images(
    settings: tuple[str, ...], guidance: str, tmp_path: Path
) -> None:
    program = Forked(tmp_path)
    program.settings = program.settings[:2]  # the shipped model, with its tuned guidance
    first = drawn(program, "first", *settings, "num_samples=2", "metrics=none", "tracking=none")
    program.settings = ["--config-dir", str(first), "--config-name", "config"]
    assert np.array_equal(pictures(drawn(program, "again")), pictures(first))
    assert not np.array_equal(pictures(drawn(program, "other", "seed=1")), pictures(first))

    written, again = (OmegaConf.load(folder / "config.yaml") for folder in (first, program.folder / "again"))
    assert written == again
    assert written.guidance._target_.endswith(guidance)
    assert (first / "provenance.json").read_text() != (program.folder / "again" / "provenance.json").read_text()


def test_a_domain_that_only_the_user_knows_is_measured_again(tmp_path: Path) -> None:
    program = Forked(tmp_path, "num_samples=2", "num_steps=2", "tracking=none")
    model = SimpleUNet(UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=()))
    model._metadata = {"prediction_type": "epsilon"}
    save_model(tmp_path / "tiny.safetensors", model)
    first = drawn(program, "first", "domain=portraits")
    program.settings = ["--config-dir", str(first), "--config-name", "config"]
    again = drawn(program, "again")
    assert "fd_encoder" in (again / "metrics.json").read_text()
    assert OmegaConf.load(again / "config.yaml").domain.name == "portraits"


def test_a_run_by_the_file_of_a_job_is_not_taken_for_that_job(tmp_path: Path) -> None:
    program = Forked(tmp_path, "num_samples=2", "num_steps=2", "metrics=none")
    sweep = program.folder / "sweep"
    code, _, err = program.run("-m", "seed=3,4", f"hydra.sweep.dir={sweep}")
    assert code == 0, err
    program.settings = ["--config-dir", str(sweep / "1"), "--config-name", "config"]
    assert np.array_equal(pictures(drawn(program, "again")), pictures(sweep / "1"))
