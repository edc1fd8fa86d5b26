"""Runs that begin at an image, or near the noise of another one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from tiny import configuration, tiny_checkpoint

from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.models.checkpoint import save_model
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.sampling.previews import as_pictures
from adaptive_diffusion.sampling.quality import SHIPPED, load_calibration
from adaptive_diffusion.sampling.starts import FromPicture, NearNoise, last_timesteps
from adaptive_diffusion.schedulers.classes import DDIMScheduler

CURVE_OF = load_calibration(SHIPPED).model
REDUCED = ["sampler=step_reduction", f"sampler.model={CURVE_OF}"]
NOISE = normal(image_keys(0, range(40)), (8, 8, 3))


@pytest.fixture
def configure(tmp_path: Path) -> Any:
    """Compose a job of three 8x8 images with the tiny class-conditional model."""
    model = tiny_checkpoint(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((80, 60)).save(tmp_path / "picture.png")

    def compose(*overrides: str, folder: Path = tmp_path) -> Any:
        small = ["num_samples=3", "num_steps=10", "tracking=none", "metrics=none", "scheduler=ddim"]
        return configuration("sample", folder, "model=checkpoint", f"model.path={model}", *small, *overrides)

    return compose


def pictures(folder: Path) -> np.ndarray:
    files = sorted((folder / "run" / "pictures").glob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


def evaluations(folder: Path) -> int:
    return int(json.loads((folder / "run" / "metrics.json").read_text())["details/evaluations"])


@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0])
def test_noise_near_other_noise_is_standard_normal_and_as_far_as_told(amount: float) -> None:
    others = np.array(NOISE).reshape(40, -1)
    others *= np.sqrt(others.shape[1]) / np.linalg.norm(others, axis=1, keepdims=True)  # of one length
    noise = mx.array(others.reshape(NOISE.shape))
    varied = np.array(NearNoise(noise[0], amount)(noise)).reshape(40, -1)
    np.testing.assert_allclose(varied[0], others[0], atol=1e-5)  # the image itself stays
    np.testing.assert_allclose((varied**2).mean(axis=1), 1, atol=1e-4)  # 0.58 for a linear mixture of 0.3
    whole, part = (np.arccos(np.clip(z @ others[0] / others.shape[1], -1, 1)) for z in (others[1:], varied[1:]))
    np.testing.assert_allclose(part, amount * whole, atol=2e-3)


def test_a_variation_of_0_repeats_the_first_picture_and_one_of_1_draws_what_is_drawn_without(
    configure: Any, tmp_path: Path
) -> None:
    found = {}
    for name, overrides in {"plain": [], "0": ["variation=0"], "0.2": ["variation=0.2"], "1": ["variation=1"]}.items():
        sample(configure(*overrides, folder=tmp_path / name))
        found[name] = pictures(tmp_path / name)

    first = found["plain"][:1]
    assert np.abs(found["0"] - first).max() <= 1  # grey levels
    assert np.abs(found["1"] - found["plain"]).max() <= 1
    assert np.abs(found["0.2"][0] - first).max() <= 1
    near, far = (np.abs(found[name][1:] - first).mean() for name in ("0.2", "1"))
    assert 1 < near < 0.6 * far


def test_a_picture_is_the_less_left_of_the_larger_the_strength(configure: Any, tmp_path: Path) -> None:
    picture = f"init_image={tmp_path / 'picture.png'}"
    original = np.asarray(Image.open(tmp_path / "picture.png").crop((10, 0, 70, 60)).resize((8, 8))).astype(int)

    distances = []
    for strength, steps in ((0.1, 1), (0.45, 4), (1.0, 10)):
        folder = tmp_path / str(strength)
        sample(configure(picture, f"strength={strength}", folder=folder))
        assert evaluations(folder) == 3 * steps
        distances.append(np.abs(pictures(folder) - original).mean())

    assert distances[0] < distances[1] < distances[2]
    assert distances[0] < 0.5 * distances[2]


def test_the_noise_on_a_picture_is_that_of_the_first_timestep() -> None:
    scheduler = DDIMScheduler(timestep_spacing="leading")
    scheduler.set_timesteps(10)
    last_timesteps(scheduler, 0.35)
    assert scheduler.timesteps.tolist() == [200, 100, 0]
    clean = mx.full((8, 8, 3), 0.5)
    state = np.array(FromPicture(clean, scheduler)(NOISE))
    alpha, sigma = (float(f(200)) for f in (scheduler.schedule.alpha, scheduler.schedule.sigma))
    np.testing.assert_allclose(state, alpha * 0.5 + sigma * np.array(NOISE), atol=1e-5)


@pytest.mark.parametrize(("steps", "strength", "kept"), [(10, 0.1, 1), (100, 0.29, 29), (7, 0.5, 3), (3, 1.0, 3)])
def test_strength_is_a_share_of_the_steps_rounded_down(steps: int, strength: float, kept: int) -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    last_timesteps(scheduler, strength)
    assert len(scheduler) == kept


@pytest.mark.parametrize(
    ("steps", "said", "strength", "enough"),
    [(1, "1 step;", 0.7, 1), (3, "3 steps;", 0.3, 0.334), (8, "8 steps;", 0.1, 0.125)],
)
def test_a_strength_of_less_than_a_step_says_what_is_enough(
    steps: int, said: str, strength: float, enough: float
) -> None:
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    with pytest.raises(ValueError, match=f"{said}.*strength={enough}"):
        last_timesteps(scheduler, strength)

    last_timesteps(scheduler, enough)
    assert len(scheduler) == 1


@pytest.mark.parametrize("strength", [0, -1, 1.01, float("nan"), float("inf")])
def test_a_strength_that_is_no_share_is_refused(strength: float) -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="strength must be"):
        last_timesteps(scheduler, strength)


def test_previews_of_latents_are_the_linear_map_that_explains_the_pictures() -> None:
    rng = np.random.default_rng(0)
    x0 = rng.standard_normal((2, 4, 4, 4)).astype(np.float32)
    mixing, offset = rng.standard_normal((4, 3)), np.array([0.1, -0.2, 0.3])
    colours = x0 @ mixing + offset
    decoded = mx.array(colours.repeat(2, axis=1).repeat(2, axis=2))
    states = rng.standard_normal((5, 2, 4, 4, 4)).astype(np.float32)
    found = as_pictures(states, mx.array(x0), decoded)
    np.testing.assert_allclose(found, states @ mixing + offset, atol=1e-4)
    assert as_pictures(states, mx.array(x0), mx.array(x0)) is states  # they are images


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels_are_begun_at_drawn_and_not_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: int
) -> None:
    known = {"prediction_type": "epsilon", "domains": ["general"], "labels": {"general": []}}
    config = UNetConfig(
        8, channels, widths=(8, 8), blocks=(1, 1), attention_levels=(), embedding_dim=16, num_classes=(1, 1)
    )
    save_model(tmp_path / "m.safetensors", SimpleUNet(config), known)
    Image.new("LA", (9, 12), (90, 255)).save(tmp_path / "start.png")
    job = ["model=checkpoint", f"model.path={tmp_path / 'm.safetensors'}", "domain=general", "scheduler=ddim"]

    small = ["num_samples=2", "num_steps=4", "tracking=none"]
    with caplog.at_level(logging.INFO):
        sample(configuration("sample", tmp_path, *job, *small, f"init_image={tmp_path / 'start.png'}", "strength=0.5"))

    assert f"the images have {channels} channel(s), and the metrics need RGB" in caplog.text
    assert "the last 2 of 4 steps" in caplog.text

    with Image.open(tmp_path / "run" / "pictures" / "0001.png") as image:
        assert (image.mode, image.size) == ({1: "L", 4: "RGBA"}[channels], (8, 8))

    with pytest.raises(ValueError, match="benchmark compares RGB images"):
        sample(configuration("sample", tmp_path, *job, *small, "benchmark=default"))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["init_image=nowhere.png"], "init_image=nowhere.png does not exist"),
        (["init_image={folder}/tiny.safetensors"], "cannot be read as an image"),
        (["init_image={folder}"], "init_image=.* is a folder"),
        (["init_image={folder}/picture.png", "strength=0.09"], "strength=0.09 .*10 steps"),
        (["init_image={folder}/picture.png", "strength=0"], "strength must be"),
        (["init_image={folder}/picture.png", "strength=1.5"], "strength must be"),
        (["variation=2"], "variation must be"),
        (["variation=0.5", "benchmark=default"], "a benchmark begins with plain noise"),
        (["init_image={folder}/picture.png", "scheduler=adaptive", *REDUCED], r"begins at an image \(init_image\)"),
        (["grid=karras", "scheduler=adaptive", *REDUCED], r"other timesteps were chosen \(grid\)"),
        (["scheduler=adaptive", "sampler=step_reduction"], CURVE_OF[:12]),
    ],
)
def test_bad_input_gets_a_sentence(overrides: list[str], sentence: str, configure: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        prepare(configure(*(override.format(folder=tmp_path) for override in overrides)))
