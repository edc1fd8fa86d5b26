"""DiffusionPipeline: the documented interface, on a tiny network and on an exactly solvable one."""

import logging
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.baseline.noise_schedule import NoiseSchedule
from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.baseline.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler

STD = 0.35


def gaussian_denoiser(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
    """The exact eps-prediction for data N(condition or 0, STD^2) at every pixel."""
    schedule, time = NoiseSchedule(), float(t[0])
    alpha, sigma = float(schedule.alpha(time)), float(schedule.sigma(time))
    mean = 0.0 if condition is None else condition.astype(mx.float32).reshape(-1, 1, 1, 1)
    x0 = mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * mean)
    return (x - alpha * x0) / sigma


@pytest.fixture
def pipeline() -> DiffusionPipeline:
    """Pictures of 8x8 pixels with known statistics."""
    return DiffusionPipeline(gaussian_denoiser, DDIMScheduler(clip_sample=False), image_size=(8, 8))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm-solver"])
def test_every_named_scheduler_draws_pictures_with_the_spread_of_the_data(name: str) -> None:
    pipeline = DiffusionPipeline(gaussian_denoiser, name, image_size=(16, 16))
    images = pipeline.generate(batch_size=16, num_inference_steps=100, seed=0)
    assert images.shape == (16, 16, 16, 3)
    assert abs(float(images.std()) - STD) < 0.03


def test_a_picture_of_a_seed_is_the_same_in_any_batch(pipeline: DiffusionPipeline) -> None:
    pipeline.scheduler = DDPMScheduler()
    four = pipeline.generate(batch_size=4, num_inference_steps=5, seed=7)
    one = pipeline.generate(batch_size=1, num_inference_steps=5, seed=7)
    assert float(mx.abs(four[:1] - one).max()) < 1e-6
    assert float(mx.abs(four[1] - four[0]).max()) > 0.1


def test_intermediates_are_clean_predictions_of_every_step(pipeline: DiffusionPipeline) -> None:
    images, intermediates = pipeline.generate(batch_size=2, num_inference_steps=6, seed=0, return_intermediates=True)
    assert len(intermediates) == 6
    assert float(mx.abs(mx.clip(intermediates[-1], -1, 1) - images).max()) == 0
    spread = [float(x.std()) for x in intermediates]
    assert spread == sorted(spread), "the first prediction is the mean of the data, the last a picture"


def test_without_a_number_of_steps_the_schedulers_own_count_is_used(pipeline: DiffusionPipeline) -> None:
    pipeline.scheduler.set_timesteps(7)
    pipeline.generate(seed=0)
    assert pipeline.get_scheduler_info()["num_inference_steps"] == 7


def test_a_condition_and_its_guidance_reach_the_model() -> None:
    pipeline = DiffusionPipeline(gaussian_denoiser, DDIMScheduler(clip_sample=False), image_size=(8, 8))
    condition = mx.array([[0.2], [-0.2]])
    plain = pipeline.generate(2, 20, seed=0, condition=condition)
    assert float(plain[0].mean()) > 0.1 > -0.1 > float(plain[1].mean())
    guided = pipeline.generate(2, 20, seed=0, condition=condition, guidance_scale=2.0)
    assert float(guided[0].mean()) > float(plain[0].mean()) + 0.1


def test_a_larger_size_is_drawn_natively_and_resized(caplog: pytest.LogCaptureFixture) -> None:
    model = SimpleUNet(UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=(), embedding_dim=8))
    with caplog.at_level(logging.INFO):
        pipeline = DiffusionPipeline(model, image_size=(24, 16))
    assert "drawn at 8x8 and resized to 24x16" in caplog.text
    assert pipeline.generate(1, 2, seed=0).shape == (1, 24, 16, 3)
    info = pipeline.get_scheduler_info()
    assert info["native_size"] == (8, 8)
    assert info["resized"]
    assert DiffusionPipeline(model, image_size=None).generate(1, 2, seed=0).shape == (1, 8, 8, 3)


def test_other_channels_get_an_untrained_model_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = DiffusionPipeline(in_channels=1, image_size=(32, 32))
    assert "untrained" in caplog.text
    assert pipeline.generate(1, 1, seed=0).shape == (1, 32, 32, 1)


def test_denoising_removes_noise_that_was_added(pipeline: DiffusionPipeline) -> None:
    clean = STD * mx.random.normal((4, 8, 8, 3), key=mx.random.key(0))
    noisy = pipeline.add_noise(clean, 200, mx.random.normal(clean.shape, key=mx.random.key(1)))
    error = float((noisy - clean).square().mean())
    for steps in (None, 5):
        assert float((pipeline.denoise_image(noisy, 200, steps) - clean).square().mean()) < 0.6 * error
    assert pipeline.denoise_image(noisy[0], 200).shape == (8, 8, 3)


@pytest.mark.parametrize(("timestep", "steps"), [(-1, 1), (1000, 1), (10, 0), (10, 12)])
def test_denoising_from_an_impossible_timestep_is_refused(
    pipeline: DiffusionPipeline, timestep: int, steps: int
) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        pipeline.denoise_image(mx.zeros((8, 8, 3)), timestep, steps)


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    config = UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=(), embedding_dim=8)
    pipeline = DiffusionPipeline(SimpleUNet(config), image_size=(8, 8))
    pipeline.save_model(tmp_path / "model.safetensors")
    other = DiffusionPipeline(SimpleUNet(config), image_size=(8, 8))
    other.load_model(tmp_path / "model.safetensors")
    assert mx.array_equal(other.model.stem.weight, pipeline.model.stem.weight)
    with pytest.raises(UserError, match="there is no model file"):
        other.load_model(tmp_path / "missing.safetensors")


def test_a_model_that_is_no_unet_cannot_be_saved(pipeline: DiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="only a SimpleUNet can be saved"):
        pipeline.save_model(tmp_path / "m.safetensors")


def test_scheduler_info_names_type_and_device() -> None:
    info = DiffusionPipeline(gaussian_denoiser, DPMSolverScheduler()).get_scheduler_info()
    assert info["scheduler_type"] == "DPMSolverScheduler"
    assert "Device" in info["device"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": "ddmi"}, "scheduler must be one of ddpm, ddim, dpm-solver"),
        ({"image_size": (0, 8)}, "height must be a whole number, at least 1"),
        ({"image_size": 5.5}, r"must be \(height, width\) in pixels"),
        ({"image_size": None}, r"must be \(height, width\) in pixels"),
        ({"in_channels": 0}, "in_channels must be a whole number"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionPipeline(gaussian_denoiser, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "2"}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"num_inference_steps": -3}, "steps"),
        ({"num_inference_steps": 0}, "steps"),
        ({"prompt": "a lake"}, "reads no text"),
        ({"guidance_scale": -1}, "guidance_scale"),
    ],
)
def test_bad_requests_are_refused(pipeline: DiffusionPipeline, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.generate(**{"seed": 0, **arguments})


def test_the_shipped_model_draws_what_it_is_asked_for() -> None:
    """The domains differ: skies are blue where portraits are grey."""
    pipeline = DiffusionPipeline(scheduler="dpm-solver", image_size=(32, 32))

    def blueness(domain: int) -> float:
        condition = mx.array([[domain, 0]] * 8)
        images = np.array(pipeline.generate(8, 8, seed=0, condition=condition, guidance_scale=2.0))
        return float((images[:, :12, :, 2] - images[:, :12, :, 0]).mean())

    assert blueness(2) > blueness(1) + 0.1


def test_a_scheduler_object_is_set_to_what_the_model_was_trained_with(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = AdaptiveScheduler(num_inference_steps=8, progress_power=1.5)
    with caplog.at_level(logging.INFO):
        pipeline = DiffusionPipeline(scheduler=scheduler, image_size=(32, 32))
    assert pipeline.scheduler is scheduler
    assert scheduler.config["prediction_type"] == pipeline.model.metadata["prediction_type"] == "v_prediction"
    assert scheduler.config["progress_power"] == 1.5
    assert "'prediction_type': 'v_prediction'" in caplog.text
    images = pipeline.generate(batch_size=2, seed=0)
    by_hand = DiffusionPipeline(
        scheduler=AdaptiveScheduler(num_inference_steps=8, progress_power=1.5, prediction_type="v_prediction"),
        image_size=(32, 32),
    )
    assert mx.array_equal(images, by_hand.generate(batch_size=2, seed=0))
