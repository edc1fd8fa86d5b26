"""The sampling loop: what it yields, what it counts, and that images are independent of their batch."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.limits import unlimited
from adaptive_diffusion.diffusion.rng import image_keys, normal, step_keys
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.io.pixels import resize
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.standard import STRIP_PICTURES, StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler
from adaptive_diffusion.schedulers.core import SchedulerCore


def shrink(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
    """A stand-in model: eps proportional to x."""
    return 0.9 * x


def test_one_trace_and_one_evaluation_per_step() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(5)
    seen: list[int] = []
    x_T = normal(image_keys(0, range(10)), (4, 4, 3))
    result = StandardSampler(scheduler).run(shrink, x_T, progress=lambda trace: seen.append(trace.index))
    assert seen == [0, 1, 2, 3, 4]
    assert result.timesteps == tuple(scheduler.timesteps)
    assert result.evaluations.tolist() == [5] * 10
    assert result.total_evaluations == 50
    assert len(result.step_seconds) == 5
    assert result.seconds > 0
    assert result.strip.shape == (5, STRIP_PICTURES, 4, 4, 3)
    assert np.array_equal(result.strip[-1], np.array(result.images[:STRIP_PICTURES]))


@pytest.mark.parametrize("sampler_of", [StandardSampler, partial(QualityGuidedSampler, early_stopping=False)])
def test_a_model_is_drawn_with_as_it_was_trained(sampler_of: Callable[[SchedulerCore], StandardSampler]) -> None:
    model = tiny_model()  # it draws 8x8 images, and predicts v
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(4)
    images = sampler_of(scheduler).sample(model, 2, (16, 16), seed=5)
    assert scheduler.prediction_type == "v_prediction"

    guided = GuidedModel.from_model(model, guidance_scale=1)
    x0 = StandardSampler(scheduler).run(guided, guided.noise(5, 2)).images
    np.testing.assert_array_equal(np.array(images), np.clip(resize(np.array(x0), (16, 16)), -1, 1))

    again = DDIMScheduler(beta_schedule="squaredcos_cap_v2")  # the guided model says as much
    again.set_timesteps(4)
    np.testing.assert_array_equal(np.array(sampler_of(again).sample(guided, 2, (16, 16), seed=5)), np.array(images))
    assert sampler_of(again).sample(guided).shape == (1, 32, 32, 3)


def test_a_guided_model_of_a_mixture_is_drawn_with_the_labels_of_the_images_of_the_seed() -> None:
    network = tiny_model()
    model = GuidedModel.from_model(network, conditions_of(network, "landscapes", None, ""), domain="landscapes")
    sampler = StandardSampler(DDIMScheduler())
    sampler.scheduler.set_timesteps(4)
    images = sampler.sample(model, 3, (8, 8), seed=5)
    x0 = sampler.run(model.of_images(5, 3), model.noise(5, 3)).images
    assert mx.array_equal(images, mx.clip(x0, -1, 1))
    given = model.of_images(5, 3).condition  # conditions of one's own take its place
    assert mx.array_equal(sampler.sample(model, 3, (8, 8), seed=5, condition=given), images)


def test_a_guided_model_is_suited_by_what_it_says_and_another_function_by_nothing() -> None:
    suited: list[tuple[str, str | None, float]] = []

    class Suited(DDIMScheduler):
        def suit(self, model, domain, guidance_scale) -> None:  # type: ignore[no-untyped-def]
            suited.append((model, domain, guidance_scale))

    scheduler = Suited()
    scheduler.set_timesteps(2)
    sampler = StandardSampler(scheduler)
    guided = GuidedModel(shrink, guidance_scale=1.5, condition=mx.array([[1]]), identity="m", domain="d")
    sampler.sample(guided, 1, (4, 4))
    sampler.sample(replace(guided, domain=""), 1, (4, 4))
    sampler.sample(replace(guided, identity=""), 1, (4, 4))
    sampler.sample(shrink, 1, (4, 4))
    assert suited == [("m", "d", 1.5), ("m", None, 1.5), ("", "d", 1.5), ("", None, None)]


def test_a_model_that_does_not_tell_is_not_drawn_with_the_calibration_of_the_one_before() -> None:
    shipped = load_builtin_model()
    scheduler = AdaptiveScheduler(num_inference_steps=5)
    sampler = StandardSampler(scheduler)
    for model in (shrink, GuidedModel(shrink, state_shape=(32, 32, 3))):
        sampler.sample(shipped, 1)
        assert "calibrated for general" in sampler.origin
        sampler.sample(model, 1)
        assert sampler.origin == "timesteps spaced by the power 2"


def test_a_calibration_that_was_given_draws_a_function_as_it_is() -> None:
    steps = CalibratedSteps((999.0, 400.0), None, "quadratic", {"quadratic": Score(1.0, 0.1)})
    given = CalibratedSchedule("m", 7.5, "d", 1000, "rmse", 2, 2, {2: steps})
    sampler = StandardSampler(AdaptiveScheduler(num_inference_steps=2, calibration=given))
    before = sampler.origin
    sampler.sample(GuidedModel(shrink, state_shape=(4, 4, 3), identity="m"), 1)
    assert "at guidance 1 its timesteps only" in sampler.origin
    sampler.sample(shrink, 1, (4, 4))
    assert sampler.origin == before


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), AdaptiveScheduler(calibration=None)], ids=["ddim", "adaptive"])
def test_a_run_of_a_model_of_another_noise_process_is_refused(scheduler: SchedulerCore) -> None:
    model = GuidedModel(shrink, NoiseSchedule(beta_schedule="squaredcos_cap_v2"), state_shape=(4, 4, 3))
    scheduler.set_timesteps(3)
    with pytest.raises(Unusable, match=r"another noise process than the scheduler has: .*, or call scheduler.fit"):
        StandardSampler(scheduler).run(model, model.noise(0, 1))
    scheduler.fit(model)
    StandardSampler(scheduler).run(model, model.noise(0, 1))


def test_latents_are_not_clipped_by_calibrated_steps_of_a_scheduler_that_clips() -> None:
    rows = ((1.0, 0.0, 0.0, 0.0, 0.0),) * 2
    steps = CalibratedSteps((999.0, 400.0), rows, "fitted", {"fitted": Score(1.0, 0.1)})
    given = CalibratedSchedule("m", 1.0, "d", 1000, "rmse", 2, 2, {2: steps})
    model = GuidedModel(lambda x, t, c=None: 5 * x, NoiseSchedule(), "sample", unlimited, state_shape=(4, 4, 3))
    drawn = [
        StandardSampler(AdaptiveScheduler(num_inference_steps=2, calibration=given, clip_sample=clip)).run(
            model, model.noise(0, 2)
        )
        for clip in (True, False)
    ]
    assert float(mx.abs(drawn[1].images).max()) > 1
    assert mx.array_equal(*(result.images for result in drawn))


def test_the_states_of_a_function_are_what_a_run_draws() -> None:
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(4)
    sampler = StandardSampler(scheduler)
    states = sampler.run(shrink, normal(image_keys(0, range(2)), (4, 4, 1))).images
    assert float(mx.abs(states).max()) > 1
    assert mx.array_equal(sampler.sample(shrink, 2, (4, 4), channels=1), states)


def test_stochastic_pictures_do_not_depend_on_their_batch() -> None:
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(4)
    sampler = StandardSampler(scheduler)
    together = sampler.sample(shrink, 3, (4, 4), seed=5)
    keys = image_keys(5, [2])
    scheduler.set_timesteps(4)
    alone = sampler.run(shrink, normal(keys, (4, 4, 3)), keys=keys).images
    np.testing.assert_allclose(np.array(together[2:]), np.array(alone), atol=1e-6)


def test_what_cannot_be_drawn_is_refused_in_a_sentence() -> None:
    scheduler = DDIMScheduler()
    sampler = StandardSampler(scheduler)
    with pytest.raises(ValueError, match="the scheduler has no timesteps yet: call set_timesteps first"):
        sampler.sample(shrink)

    scheduler.set_timesteps(2)
    for batch_size in (0, 1.5):
        with pytest.raises(ValueError, match=f"batch_size must be a whole number, at least 1, got {batch_size}"):
            sampler.sample(shrink, batch_size)
    with pytest.raises(ValueError, match="seed must be a whole number, between 0 and 4294967295, got -1"):
        sampler.sample(shrink, seed=-1)
    with pytest.raises(ValueError, match="conditions of 2 images, and 3 are to be drawn"):
        sampler.sample(shrink, 3, condition=mx.array([[1], [2]]))


@pytest.mark.parametrize("sampler_of", [StandardSampler, partial(QualityGuidedSampler, early_stopping=False)])
def test_what_is_no_noise_and_conditions_of_other_images_are_refused(
    sampler_of: Callable[[SchedulerCore], StandardSampler],
) -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(2)
    sampler, x_T = sampler_of(scheduler), normal(image_keys(0, range(2)), (4, 4, 3))
    for unfit, said in ((None, r"NoneType \(\)"), (x_T[0], r"array \(4, 4, 3\)")):
        with pytest.raises(ValueError, match=rf"an array of states \(B, H, W, C\), got {said}"):
            sampler.run(shrink, unfit)  # type: ignore[arg-type]
    drawn = [sampler.run(shrink, noise).images for noise in (x_T, np.array(x_T))]  # type: ignore[arg-type]
    assert mx.array_equal(*drawn)
    for count in (3, 5):
        with pytest.raises(ValueError, match=f"conditions of {count} images, and 2 are to be drawn"):
            sampler.run(shrink, x_T, condition=mx.zeros((count, 1)))
    with pytest.raises(FloatingPointError, match="hold NaN or infinity"):
        sampler.sample(lambda x, t, c=None: x * math.nan, 1, (4, 4))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_states_of_half_precision_are_drawn(dtype: mx.Dtype) -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(2)
    result = StandardSampler(scheduler).run(shrink, normal(image_keys(0, range(2)), (4, 4, 3)).astype(dtype))
    assert result.images.dtype == dtype
    assert np.array_equal(result.strip[-1], np.array(result.images.astype(mx.float32)))


def test_keys_of_pictures_and_steps_are_all_different() -> None:
    keys = image_keys(0, range(100))
    every = np.concatenate(
        [np.array(k) for k in (keys, image_keys(1, range(100)), *(step_keys(keys, s) for s in range(50)))]
    )
    assert len(np.unique(every, axis=0)) == len(every)


def test_noise_is_standard_normal() -> None:
    noise = np.array(normal(image_keys(3, range(50)), (16, 16, 3)))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15
