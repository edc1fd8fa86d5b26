"""DiffusionPipeline: the documented interface, on a tiny network and on an exactly solvable one."""

import logging
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.baseline.picture_models import PlainModel
from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.diffusion.facts import ModelFacts
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.io.pixels import to_float
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler

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
    """Images of 8x8 pixels with known statistics."""
    return DiffusionPipeline(gaussian_denoiser, DDIMScheduler(clip_sample=False), image_size=(8, 8))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm_solver", "dpm-solver"])
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
    assert spread == sorted(spread), "the first prediction is the mean of the data, the last an image"


def test_without_a_number_of_steps_the_schedulers_own_count_is_used(pipeline: DiffusionPipeline) -> None:
    pipeline.scheduler.set_timesteps(7)
    pipeline.generate(seed=0)
    assert pipeline.get_scheduler_info()["num_inference_steps"] == 7


@pytest.mark.parametrize("asked", [{"timesteps": [999.0, 500.0, 100.0]}, {"num_inference_steps": 6, "complexity": 0.0}])
def test_without_a_number_of_steps_the_timesteps_that_were_chosen_are_drawn(asked: dict) -> None:
    pipeline = DiffusionPipeline(gaussian_denoiser, AdaptiveScheduler(num_inference_steps=10), image_size=(8, 8))
    pipeline.scheduler.set_timesteps(**asked)
    chosen = pipeline.scheduler.timesteps.tolist()
    pipeline.denoise_image(mx.zeros((8, 8, 3)), 100)
    pipeline.generate(seed=0)
    assert pipeline.scheduler.timesteps.tolist() == chosen
    pipeline.generate(1, 6, seed=0)
    assert pipeline.scheduler.timesteps.tolist() != chosen


def told(prediction_type: str) -> PlainModel:
    """A model of data N(0, STD^2) with its own noise process, which it tells."""
    process = {"beta_schedule": "squaredcos_cap_v2" if prediction_type == "v_prediction" else "linear"}
    schedule = NoiseSchedule(**process)

    def predict(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        alpha, sigma = (float(scale(float(t[0]))) for scale in (schedule.alpha, schedule.sigma))
        x0 = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * x
        eps = (x - alpha * x0) / sigma
        return alpha * eps - sigma * x0 if prediction_type == "v_prediction" else eps

    return PlainModel(predict, (8, 8, 3), prediction_type=prediction_type, noise_schedule=process)


def test_a_scheduler_of_several_pipelines_is_set_to_the_model_that_draws() -> None:
    shared = UniPCScheduler()
    one, two = (DiffusionPipeline(told(what), shared, image_size=None) for what in ("epsilon", "v_prediction"))
    noise = mx.random.normal((2, 8, 8, 3), key=mx.random.key(0))
    for pipeline, what in ((one, "epsilon"), (two, "v_prediction"), (one, "epsilon")):
        alone = DiffusionPipeline(told(what), "unipc", image_size=None)
        assert mx.array_equal(pipeline.generate(2, 10, seed=0), alone.generate(2, 10, seed=0))
        shared.fit(told("v_prediction" if what == "epsilon" else "epsilon"))
        assert mx.array_equal(pipeline.denoise_image(noise, 500.0), alone.denoise_image(noise, 500.0))
        shared.fit(told("v_prediction" if what == "epsilon" else "epsilon"))
        assert mx.array_equal(*(some.add_noise(noise, 500.0, noise) for some in (pipeline, alone)))


@pytest.mark.parametrize("assigned", ["scheduler", "model"])
def test_a_scheduler_or_a_model_that_is_assigned_draws_as_it_was_trained(assigned: str) -> None:
    pipeline = DiffusionPipeline(told("v_prediction"), "unipc", image_size=None)
    expected = pipeline.generate(2, 10, seed=0)
    if assigned == "model":
        pipeline = DiffusionPipeline(told("epsilon"), "unipc", image_size=None)
    setattr(pipeline, assigned, UniPCScheduler() if assigned == "scheduler" else told("v_prediction"))
    assert mx.array_equal(pipeline.generate(2, 10, seed=0), expected)


def test_threads_draw_with_the_steps_that_each_asks_for() -> None:
    def slow(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        time.sleep(0.002)  # another thread goes on
        return 0.5 * x

    pipeline = DiffusionPipeline(slow, "unipc", image_size=(8, 8))
    expected = {n: np.array(pipeline.generate(1, n, seed=0)) for n in (3, 8)}
    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(lambda n: (n, np.array(pipeline.generate(1, n, seed=0))), [3, 8] * 12))
    assert all(np.array_equal(images, expected[n]) for n, images in drawn)


@pytest.mark.parametrize("what", ["built", "asked"])
def test_a_scheduler_that_draws_is_set_by_no_other_thread(what: str) -> None:
    waiting: list[Future[object]] = []

    def model(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        if not waiting:
            act = (
                partial(DiffusionPipeline, told("v_prediction"), shared)
                if what == "built"
                else drawing.get_scheduler_info
            )
            waiting.append(thread.submit(act))
            wait(waiting, timeout=0.5)
            assert not waiting[0].done()
        return 0.5 * x

    shared = UniPCScheduler()
    drawing = DiffusionPipeline(model, shared, image_size=(8, 8))
    with ThreadPoolExecutor(1) as thread:
        drawing.generate(1, 3, seed=0)
        assert waiting[0].result(timeout=60)


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


@pytest.mark.parametrize(("given", "drawn"), [(None, 20), (5, 5)], ids=["all of 20", "as set"])
def test_denoising_leaves_the_number_of_steps_as_it_was(given: int | None, drawn: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=20)
    if given is not None:
        scheduler.set_timesteps(given)
    pipeline = DiffusionPipeline(gaussian_denoiser, scheduler, image_size=(8, 8))
    pipeline.denoise_image(mx.zeros((8, 8, 3)), 10)
    pipeline.generate(1, seed=0)
    assert len(scheduler) == drawn


@pytest.mark.parametrize(
    ("timestep", "steps", "sentence"),
    [
        (-1, 1, r"timestep must be one number in \[0, 999\], got -1"),
        (1000, 1, r"timestep must be one number in \[0, 999\], got 1000"),
        ([10, 20], 1, r"timestep must be one number in \[0, 999\], got \[10, 20\]"),
        ("10", 1, r"timestep must be one number in \[0, 999\], got '10'"),
        (10, 0, "num_inference_steps from timestep 10 must be a whole number, between 1 and 11, got 0"),
        (10, 12, "between 1 and 11, got 12"),
        (10, 2.5, "between 1 and 11, got 2.5"),
    ],
)
def test_denoising_from_an_impossible_timestep_is_refused(
    pipeline: DiffusionPipeline, timestep: object, steps: float, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        pipeline.denoise_image(mx.zeros((8, 8, 3)), timestep, steps)


def test_only_states_of_the_model_are_denoised(pipeline: DiffusionPipeline) -> None:
    noisy = STD * mx.random.normal((2, 8, 8, 3), key=mx.random.key(0))
    assert mx.array_equal(pipeline.denoise_image(np.array(noisy), 100), pipeline.denoise_image(noisy, 100))
    for unfit in (noisy[:, :4], noisy[0, 0], noisy[None]):
        with pytest.raises(ValueError, match=r"one or a batch of states \(8, 8, 3\), got \("):
            pipeline.denoise_image(unfit, 100)
    with pytest.raises(ValueError, match=r"must be floats.*got .*uint8"):
        pipeline.denoise_image(mx.zeros((8, 8, 3), mx.uint8), 100)


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    config = UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=(), embedding_dim=8)
    pipeline = DiffusionPipeline(SimpleUNet(config), image_size=(8, 8))
    pipeline.save_model(tmp_path / "model.safetensors")
    other = DiffusionPipeline(SimpleUNet(config), image_size=(8, 8))
    other.load_model(tmp_path / "model.safetensors")
    assert mx.array_equal(other.model.stem.weight, pipeline.model.stem.weight)
    with pytest.raises(ValueError, match="there is no model file"):
        other.load_model(tmp_path / "missing.safetensors")


def test_a_model_that_is_no_unet_cannot_be_saved(pipeline: DiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a SimpleUNet"):
        pipeline.save_model(tmp_path / "m.safetensors")


def test_scheduler_info_names_type_and_device() -> None:
    info = DiffusionPipeline(gaussian_denoiser, DPMSolverScheduler()).get_scheduler_info()
    assert info["scheduler_type"] == "DPMSolverScheduler"
    assert "Device" in info["device"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": "adaptiv"}, "one of ddpm, ddim, dpm_solver, .* got 'adaptiv'; did you mean 'adaptive'?"),
        ({"scheduler": "xyz"}, "or a scheduler object, got 'xyz'$"),
        ({"image_size": (0, 8)}, "height must be a whole number, between 1 and 4096"),
        ({"image_size": (8, 8192)}, "width must be a whole number, between 1 and 4096"),
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


def test_a_noise_schedule_that_the_model_names_in_part_is_the_models_as_a_whole() -> None:
    theirs = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    model = PlainModel(gaussian_denoiser, (8, 8, 3), noise_schedule={"num_train_timesteps": 500})
    fitted = DiffusionPipeline(model, DDIMScheduler(**theirs), image_size=None).scheduler.config
    assert ModelFacts.of(model).process.config.items() <= fitted.items()

    silent = PlainModel(gaussian_denoiser, (8, 8, 3))
    assert (
        theirs.items() <= DiffusionPipeline(silent, DDIMScheduler(**theirs), image_size=None).scheduler.config.items()
    )


def test_a_scheduler_that_is_fitted_to_the_model_says_where_its_settings_were_read() -> None:
    scheduler = DDIMScheduler()
    scheduler.source = "tuned.json"
    assert DiffusionPipeline(scheduler=scheduler).get_scheduler_info()["origin"] == "tuned.json"
    assert scheduler.config["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((DDIMScheduler(),), r"first argument is the model; write DiffusionPipeline\(scheduler=DDIMScheduler"),
        (("ipndm",), r"first argument is the model; write DiffusionPipeline\(scheduler='ipndm'"),
        ((SimpleUNet,), "model must be a network"),
        ((7,), "model must be a network"),
        ((GuidedModel(gaussian_denoiser, state_shape=(8, 8, 3)),), r"DiffusionPipeline\(guided.network\)"),
        ((gaussian_denoiser, DPMSolverScheduler), r"the class DPMSolverScheduler; write DPMSolverScheduler\(\)"),
        ((gaussian_denoiser, {"name": "ddim"}), "a name or a scheduler"),
    ],
)
def test_what_cannot_be_a_model_or_a_scheduler_is_refused_at_once(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DiffusionPipeline(*arguments)


def test_a_label_of_a_model_that_names_no_classes_is_refused_as_that() -> None:
    few = UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=(), embedding_dim=8, num_classes=(2,))
    with pytest.raises(ValueError, match=r"label=sea was given, but the model names none of its classes"):
        DiffusionPipeline(SimpleUNet(few), image_size=None).generate(1, 1, seed=0, label="sea")


@pytest.mark.parametrize(
    ("name", "kind"), [("unipc", UniPCScheduler), ("ipndm", IPNDMScheduler), ("adaptive", AdaptiveScheduler)]
)
def test_the_projects_own_solvers_have_names_too(name: str, kind: type) -> None:
    pipeline = DiffusionPipeline(gaussian_denoiser, name, image_size=(8, 8))
    assert type(pipeline.scheduler) is kind
    assert abs(float(pipeline.generate(16, 20, seed=0).std()) - STD) < 0.05
    assert DiffusionPipeline(gaussian_denoiser, "dpm_solver", image_size=(8, 8)).scheduler.config["clip_sample"]


def test_a_bare_adaptive_scheduler_takes_the_calibration_of_the_shipped_model() -> None:
    scheduler = AdaptiveScheduler(num_inference_steps=8)
    assert scheduler.get_schedule_info()["calibration"] is None
    pipeline = DiffusionPipeline(scheduler=scheduler, image_size=None)
    assert "calibrated for general" in pipeline.get_scheduler_info()["origin"]  # until it is said what to draw
    images = pipeline.generate(2, seed=5, domain="portraits", label="none")
    info = scheduler.get_schedule_info()
    assert info["calibration"] == "calibrated for portraits at guidance 1.5"
    known = find_schedule(None, pipeline.model.identity, "portraits", 1.5)
    np.testing.assert_array_equal(scheduler.timesteps, known.steps[8].timesteps)
    by_hand = DiffusionPipeline(scheduler=AdaptiveScheduler(num_inference_steps=8, calibration=known), image_size=None)
    assert mx.array_equal(images, by_hand.generate(2, seed=5, condition=mx.array([[1, 0]] * 2)))
    pipeline.generate(1, seed=5, domain="abstract", guidance_scale=6.0)
    assert "abstract at guidance 1.5; at guidance 6 its timesteps only" in pipeline.get_scheduler_info()["origin"]
    assert pipeline.get_scheduler_info()["num_train_timesteps"] == 1000


@pytest.mark.parametrize("settings", [{"calibration": None}, {"progress_power": 1.75}])
def test_a_power_grid_that_is_asked_for_stays(settings: dict) -> None:
    scheduler = AdaptiveScheduler(num_inference_steps=5, **settings)
    DiffusionPipeline(scheduler=scheduler, image_size=None).generate(1, seed=0, domain="general")
    assert scheduler.get_schedule_info()["power"] == scheduler.progress_power
    assert scheduler.calibration is None


def test_a_model_without_a_shipped_calibration_is_drawn_on_the_power_grid() -> None:
    pipeline = DiffusionPipeline(tiny_model(), AdaptiveScheduler(num_inference_steps=5), image_size=None)
    pipeline.generate(1, seed=0, label="sunrise")
    assert pipeline.get_scheduler_info()["origin"] == "timesteps spaced by the power 2"


def test_prompt_domain_and_label_ask_for_what_the_command_line_asks_for() -> None:
    model = tiny_model()
    pipeline = DiffusionPipeline(model, "ddim", image_size=None)

    def drawn(**asked: object) -> mx.array:
        return pipeline.generate(2, 3, seed=1, **asked)

    ids = model.condition("landscapes", "sunrise", "")
    expected = drawn(condition=mx.array([ids] * 2))
    for asked in ({"prompt": "a sunrise"}, {"label": "sunrise"}, {"domain": "landscapes", "label": "sunrise"}):
        assert mx.array_equal(drawn(**asked), expected)
    each = drawn(prompt=["a sunrise", "an apple"])
    assert float(mx.abs(each[0] - expected[0]).max()) < 1e-5 < float(mx.abs(each[1] - expected[1]).max())
    noisy = pipeline.add_noise(expected, 300)
    assert mx.array_equal(
        pipeline.denoise_image(noisy, 300, label="sunrise"),
        pipeline.denoise_image(noisy, 300, condition=mx.array([ids] * 2)),
    )


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"prompt": " "}, "is empty"),
        ({"prompt": "an apple", "label": "apple"}, "both given"),
        ({"domain": "general", "condition": mx.array([[1, 1]])}, "both given"),
        ({"prompt": ["an apple", "a forest"]}, "as many as images: got 2 for 1"),
        ({"prompt": 5}, "prompt must be a text, or a list with a text for each image, got 5"),
        ({"prompt": [None]}, r"prompt must be a text, or a list with a text for each image, got \[None\]"),
        ({"condition": [[1, 1]] * 2}, r"a row for each of 1 images, or one for all, got the shape \(2, 2\)"),
        ({"condition": [[5, 1]]}, r"column 0 of the condition must be class ids from 0 to 4, got \[5\]"),
        ({"condition": [[1, -1]]}, r"column 1 of the condition must be class ids from 0 to 5, got \[-1\]"),
        (
            {"condition": [1]},
            r"whole numbers of the shape \(B, 2\), class ids of each image, got int32 of the shape \(1,\)",
        ),
        ({"condition": [[1.0, 1.0]]}, r"whole numbers of the shape \(B, 2\).*got float32"),
        ({"domain": "seascapes"}, "no domain 'seascapes'"),
        ({"domain": ""}, "no domain ''"),
        ({"domain": {}}, r"domain must be a text, the name of a domain, got \{\}"),
        ({"domain": "general", "label": 3}, "label must be a text, the name of a label, got 3"),
        ({"domain": "general", "label": "forest"}, "label of domain=landscapes"),
        ({"label": "sunrize"}, "no domain of the model has the label 'sunrize'; did you mean 'sunrise'?"),
        ({"label": "xxxxx"}, "it draws the domains portraits, landscapes"),
    ],
)
def test_what_the_model_cannot_be_asked_for_is_refused(asked: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DiffusionPipeline(tiny_model(), image_size=None).generate(1, 2, seed=0, **asked)


@pytest.mark.parametrize("scheduler", ["ddim", "adaptive"])
def test_a_model_of_few_timesteps_is_drawn_in_all_of_them_by_default(scheduler: str) -> None:
    model = PlainModel(gaussian_denoiser, (8, 8, 3), noise_schedule={"num_train_timesteps": 20})
    pipeline = DiffusionPipeline(model, scheduler, image_size=None)
    assert pipeline.generate(1, seed=0).shape == (1, 8, 8, 3)
    assert len(pipeline.scheduler) == 20


def test_a_domain_is_refused_where_the_model_cannot_be_told(pipeline: DiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="has no classes"):
        pipeline.generate(1, 2, domain="general")


def test_intermediates_have_the_size_of_the_images() -> None:
    pipeline = DiffusionPipeline(tiny_model(), image_size=(20, 12))
    images, intermediates = pipeline.generate(2, 4, seed=0, return_intermediates=True)
    assert [x.shape for x in intermediates] == [(2, 20, 12, 3)] * 4
    assert mx.array_equal(intermediates[-1], images)


def test_one_timestep_makes_a_whole_batch_noisy(pipeline: DiffusionPipeline) -> None:
    clean = mx.random.normal((3, 8, 8, 3), key=mx.random.key(2))
    noise = mx.random.normal(clean.shape, key=mx.random.key(3))
    expected = pipeline.add_noise(clean, 40, noise)
    for one in (mx.array([40]), np.array([40.0]), [40]):
        assert mx.array_equal(pipeline.scheduler.add_noise(clean, noise, one), expected)
        assert mx.array_equal(pipeline.add_noise(clean, one, noise), expected)
    with pytest.raises(ValueError, match="one per image"):
        pipeline.add_noise(clean, [40, 41], noise)


def test_images_of_whole_numbers_are_scaled_or_refused(pipeline: DiffusionPipeline) -> None:
    grey = np.full((2, 8, 8, 3), 64, np.uint8)
    noise = mx.zeros(grey.shape)
    for images in (grey, mx.array(grey), to_float(grey), to_float(grey).tolist()):
        np.testing.assert_allclose(np.array(pipeline.add_noise(images, 0, noise)), 64 / 127.5 - 1, atol=1e-3)
    with pytest.raises(ValueError, match=r"floats in \[-1, 1\], got .*uint8"):
        pipeline.scheduler.add_noise(mx.array(grey), noise, 0)
    with pytest.raises(ValueError, match=r"floats in \[-1, 1\], or uint8, got .*int32"):
        pipeline.add_noise(mx.array(grey, mx.int32), 0, noise)


def test_guidance_without_a_condition_has_no_effect_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = DiffusionPipeline(PlainModel(gaussian_denoiser, (8, 8, 3)), image_size=None)
    pipeline.generate(1, 2, seed=0, guidance_scale=1)
    pipeline.generate(1, 2, seed=0, condition=mx.zeros((1, 1)), guidance_scale=3)
    assert "has no effect" not in caplog.text
    pipeline.generate(1, 2, seed=0, guidance_scale=3)
    assert caplog.messages[-1] == "guidance 3 has no effect: the model is told nothing that guidance could weigh"
    DiffusionPipeline(image_size=None).generate(1, 2, seed=0, guidance_scale=3)
    assert caplog.messages[-1].endswith("could weigh; a prompt, domain, label or condition tells it")


@pytest.mark.parametrize("first_wrong", [1000, 300])
@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_predictions_of_nan_or_infinity_make_no_images(what: float, first_wrong: float) -> None:
    def network(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        return mx.where((t < first_wrong)[:, None, None, None], what, 0.1 * x)

    pipeline = DiffusionPipeline(PlainModel(network, (8, 8, 3)), DDIMScheduler(clip_sample=False), image_size=None)
    with pytest.raises(FloatingPointError, match="hold NaN or infinity"):
        pipeline.generate(1, 4, seed=0)
    with pytest.raises(FloatingPointError, match="hold NaN or infinity"):
        pipeline.denoise_image(mx.zeros((8, 8, 3)), 200)
