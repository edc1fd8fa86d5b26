"""The VICReg encoder learns from crops, resumable bit for bit, and sees noise, blur and lost variety."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import configuration

from adaptive_diffusion.encoder.vicreg import DETAILS, detail, load_vicreg
from adaptive_diffusion.encoder.vicreg_training import (
    DETAIL,
    LOSS_WEIGHTS,
    VICRegTrainer,
    VICRegTraining,
    fit_whitening,
    vicreg_losses,
)
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.io.pixels import to_float
from adaptive_diffusion.io.tensor_file import read_tensors
from adaptive_diffusion.metrics.frechet import frechet_distance
from adaptive_diffusion.runs.train import train


def scenes(count: int, seed: int) -> np.ndarray:
    """16x16 images of a coloured square on another colour, slightly textured."""
    rng = np.random.default_rng(seed)
    images = np.tile(rng.integers(40, 200, (count, 1, 1, 3)), (1, 16, 16, 1))
    for image, (i, j), colour in zip(
        images, rng.integers(1, 8, (count, 2)), rng.integers(40, 200, (count, 3)), strict=True
    ):
        image[i : i + 7, j : j + 7] = colour
    return (images + rng.integers(-6, 7, images.shape)).astype(np.uint8)


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Six steps of a tiny network on unlabelled images, whose state is written after every second one."""
    np.savez(tmp_path / "scenes.npz", images=scenes(200, 0))
    small = {"widths": (6, 8), "dimension": 20, "image_size": 16, "batch_size": 16}
    times = {"images": 96, "validate_every": 48, "save_every": 32}
    return {
        "data": {"general": str(tmp_path / "scenes.npz")},
        "state": str(tmp_path / "s.safetensors"),
        **small,
        **times,
    }


def test_a_killed_run_continues_bit_for_bit(recipe: dict[str, Any], tmp_path: Path) -> None:
    whole = {**recipe, "state": str(tmp_path / "whole.safetensors")}
    expected = list(VICRegTrainer(VICRegTraining(**whole)).run())
    assert [event.images for event in expected if event.scores] == [48, 96]
    killed = VICRegTrainer(VICRegTraining(**recipe)).run()
    assert [next(killed) for _ in range(5)] == expected[:5]
    assert list(VICRegTrainer(VICRegTraining(**recipe)).run()) == expected[4:]
    ours, uninterrupted = (read_tensors(r["state"])[0] for r in (recipe, whole))
    assert all(mx.array_equal(ours[name], uninterrupted[name]) for name in uninterrupted)


def test_training_lowers_the_loss_on_held_back_images(recipe: dict[str, Any]) -> None:
    trainer = VICRegTrainer(VICRegTraining(**{**recipe, "images": 1600}))
    before = trainer.scores()
    *_, last = trainer.run()
    assert last.scores is not None
    weighted = [sum(LOSS_WEIGHTS[name] * losses[name] for name in losses) for losses in (before, last.scores)]
    assert weighted[1] < 0.9 * weighted[0]


def test_the_distance_sees_noise_blur_and_lost_variety(recipe: dict[str, Any]) -> None:
    trainer = VICRegTrainer(VICRegTraining(**recipe))
    list(trainer.run())
    encoder = trainer.finish()
    one, other = to_float(scenes(150, 1)), to_float(scenes(150, 2))
    target = encoder.features(one)

    def distance(images: np.ndarray) -> float:
        return frechet_distance(encoder.features(images), target)

    unit, rng = distance(other), np.random.default_rng(0)
    blurred = (np.roll(other, 1, 1) + 2 * other + np.roll(other, -1, 1)) / 4
    assert distance(np.clip(other + rng.normal(0, 0.1, other.shape), -1, 1)) > 2 * unit
    assert distance(blurred) > 2 * unit
    assert distance(np.resize(other[:19], other.shape)) > 2 * unit


def test_train_py_writes_a_file_that_loads_in_half_precision(recipe: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "vicreg.safetensors"
    data = f"task.data.general={recipe['data']['general']}"
    small = ["task.images=64", "task.batch_size=32", "task.widths=[6,8]", "task.dimension=20", "task.image_size=16"]
    loss = train(configuration("train", tmp_path, "task=vicreg", data, f"output={file}", "tracking=none", *small))
    encoder = load_vicreg(file)
    assert encoder.name == "vicreg/20"
    assert loss == pytest.approx(sum(LOSS_WEIGHTS[k] * v for k, v in encoder.metadata["losses"].items()))
    assert str(tmp_path) not in str(encoder.metadata), "the file does not tell where the images are"

    x = encoder.features(scenes(180, 0))  # the training images, among others
    assert x.shape == (180, 20)
    spread = x.std(axis=0)
    assert np.allclose(spread[:-DETAILS], 1, atol=0.25)
    # At this size a quarter of the resolution has one patch, whose spread over the image says nothing.
    assert np.allclose(spread[-DETAILS:-1], DETAIL, atol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {}}, "data names no domain"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"image_size": 24}, "multiple of 16"),
        ({"dimension": DETAILS}, "dimension must lie in"),
        ({"widths": ()}, "widths must name"),
        ({"save_every": 0}, "save_every must be"),
    ],
)
def test_a_bad_recipe_is_refused(recipe: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VICRegTraining(**{**recipe, **change})


def test_equal_views_of_uncorrelated_values_of_unit_variance_cost_nothing() -> None:
    q, _ = np.linalg.qr(np.column_stack([np.ones(64), np.random.default_rng(0).normal(size=(64, 8))]))
    z = mx.array((q[:, 1:] * np.sqrt(63)).astype(np.float32))
    assert {name: float(v) for name, v in vicreg_losses(z, z).items()} == pytest.approx(
        {"invariance": 0, "variance": 0, "covariance": 0}, abs=1e-4
    )
    assert float(vicreg_losses(z, 0 * z)["invariance"]) > 0.9
    assert float(vicreg_losses(0 * z, 0 * z)["variance"]) == pytest.approx(0.99, abs=0.01)
    assert float(vicreg_losses(z[:, :1] + 0 * z, z)["covariance"]) > 5


def test_detail_is_that_of_every_scale() -> None:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 16, 16, 3)).astype(np.float32)
    fine = np.array(detail(mx.array(x)))
    coarse = np.array(detail(mx.array(np.repeat(np.repeat(x[:, ::2, ::2], 2, 1), 2, 2))))
    assert fine.shape == (4, DETAILS)
    assert (coarse[:, 0] < fine[:, 0]).all(), "less at full resolution"
    assert (coarse[:, 4] > fine[:, 4]).all(), "more at half resolution"


def test_whitening_is_within_domains_and_refuses_too_few_images() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(30, 30))
    raw = [rng.normal(size=(400, 30)) @ mix + 50 * i for i in range(2)]
    raw = [
        np.concatenate([x, np.full((400, 1), 3.0)], axis=1)[:, [30, *range(30)]] for x in raw
    ]  # one value is constant
    weight, bias = fit_whitening(raw, DETAILS + 5)
    assert np.isfinite(weight).all()
    assert (weight[:, 0] == 0).all()

    white = [x @ weight.T + bias for x in raw]
    within = np.cov(np.concatenate([x - x.mean(axis=0) for x in white]), rowvar=False)
    assert np.allclose(within[:5, :5], np.eye(5), atol=0.02)
    assert np.allclose(np.diag(within)[5:], DETAIL**2, rtol=0.02)
    with pytest.raises(Unusable, match="too few to whiten"):
        fit_whitening([raw[0][:10]], DETAILS + 5)
