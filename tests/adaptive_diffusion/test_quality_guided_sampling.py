"""Early stopping, image by image, on Gaussian images whose end is known; their spread is their condition."""

import json

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.io.pixels import to_float, to_uint8
from adaptive_diffusion.sampling.quality import extrapolate
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDPMScheduler

SHAPE = (8, 8, 3)
STDS = mx.array([0.02, 0.3, 0.05, 0.6, 0.1])
KEYS = image_keys(0, range(5))
X_T = normal(KEYS, SHAPE)


class Gaussian:
    """Clean predictions of N(0, std^2) pixels (see `gaussian`); remembers what it was asked."""

    def __init__(self, scheduler: AdaptiveScheduler):
        self.scheduler, self.batches, self.times = scheduler, list[int](), list[np.ndarray]()

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        assert condition is not None
        assert len(x) == len(t) == len(condition)
        self.batches.append(len(x))
        self.times.append(np.array(t))
        alpha, sigma = (
            mx.array(scale(np.array(t)), dtype=mx.float32).reshape(-1, 1, 1, 1)
            for scale in (self.scheduler.schedule.alpha, self.scheduler.schedule.sigma)
        )
        level, std = sigma / alpha, condition.reshape(-1, 1, 1, 1)
        return std**2 / (std**2 + level**2) * x / alpha

    def end(self, x_T: mx.array, std: mx.array) -> np.ndarray:
        """Where the ODE leads."""
        alpha, sigma = self.scheduler.schedule.alpha(999), self.scheduler.schedule.sigma(999)
        std = np.array(std).reshape(-1, 1, 1, 1)
        return np.array(x_T) / alpha * std / np.sqrt(std**2 + (sigma / alpha) ** 2)


def scheduler(steps: int = 20) -> AdaptiveScheduler:
    return AdaptiveScheduler(num_inference_steps=steps, prediction_type="sample", clip_sample=False)


def sampler(steps: int = 20, **settings: object) -> QualityGuidedSampler:
    return QualityGuidedSampler(scheduler(steps), **settings)


class Scripted(QualityGuidedSampler):
    """Estimates that are given: one row per step, one column per image."""

    script: np.ndarray

    def estimate(self, before, after):
        seen, _ = super().estimate(before, after)
        return seen, self.script[len(before.trail), after.rows]


def scripted(script, **settings: object) -> QualityGuidedSampler:
    """Images stop when the script says, and end there."""
    guided = Scripted(scheduler(len(script)), finish=0, **settings)
    guided.script = np.array(script)
    return guided


def draw(guided: StandardSampler, some: slice = slice(None), **more: object):
    model = Gaussian(guided.scheduler)
    return guided.run(model, X_T[some], condition=STDS[some], keys=KEYS[some], **more), model


@pytest.mark.parametrize("settings", [{"quality_threshold": 1.0}, {"quality_threshold": 0.0, "early_stopping": False}])
def test_without_stopping_it_is_the_standard_sampler(settings):
    guided, _ = draw(sampler(12, **settings))
    plain, _ = draw(StandardSampler(scheduler(12)))
    assert guided.evaluations.tolist() == [12] * 5
    assert guided.timesteps == plain.timesteps
    np.testing.assert_array_equal(np.array(guided.images), np.array(plain.images))


@pytest.mark.parametrize(("patience", "min_steps", "taken"), [(1, 1, 1), (5, 1, 5), (5, 10, 10), (2, 30, 20)])
def test_a_picture_that_is_always_good_enough_stops_after_patience_and_min_steps(patience, min_steps, taken):
    result, _ = draw(sampler(20, quality_threshold=0.0, patience=patience, min_steps=min_steps, finish=0))
    assert result.evaluations.tolist() == [taken] * 5
    assert len(result.timesteps) == len(result.step_seconds) == taken


@pytest.mark.parametrize(
    ("finish", "patience", "min_steps", "taken"),
    [(3, 1, 1, 4), (3, 5, 1, 8), (3, 5, 10, 10), (3, 16, 1, 19), (3, 17, 1, 20), (3, 2, 30, 20), (30, 1, 1, 20)],
)
def test_finishing_counts_as_evaluations_and_never_takes_more_than_the_schedule(finish, patience, min_steps, taken):
    result, model = draw(sampler(20, quality_threshold=0.0, patience=patience, min_steps=min_steps, finish=finish))
    assert result.evaluations.tolist() == [taken] * 5
    assert model.batches == [5] * taken


def test_quality_must_hold_for_patience_steps_in_a_row():
    held = [[0.9, 0.0], [0.9, 0.9], [0.0, 0.9], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.9, 0.9]]
    guided = scripted(held, quality_threshold=0.9, patience=3, min_steps=1)
    result, model = draw(guided, slice(2))
    assert result.evaluations.tolist() == [6, 4]
    assert model.batches == [2, 2, 2, 2, 1, 1]
    assert guided.get_quality_history() == pytest.approx([0.45, 0.9, 0.45, 0.9, 0.9, 0.9])


@pytest.mark.parametrize(("max_steps", "finish"), [(7, 0), (7, 3), (3, 4), (1, 3)])
def test_no_picture_gets_more_than_max_steps(max_steps, finish):
    result, _ = draw(sampler(20, quality_threshold=1.0, min_steps=1, max_steps=max_steps, finish=finish))
    assert result.evaluations.tolist() == [max_steps] * 5


@pytest.mark.parametrize("finish", [0, 3])
def test_pictures_stop_one_by_one_and_leave_the_batch(finish):
    seen = []
    guided = sampler(30, quality_threshold=0.7, patience=2, min_steps=4, finish=finish)
    result, model = draw(guided, progress=lambda trace: seen.append((trace.active, np.array(trace.x0), trace.quality)))
    assert len(set(result.evaluations.tolist())) >= 3
    assert (result.evaluations < 30).sum() >= 4
    assert model.batches == [int(active.sum()) for active, *_ in seen]
    assert sum(model.batches) == result.total_evaluations
    for i, taken in enumerate(result.evaluations):
        assert [bool(active[i]) for active, *_ in seen] == [step < taken for step in range(len(seen))]
        assert all(np.array_equal(x0[i], np.array(result.images[i])) for _, x0, _ in seen[taken - 1 :])
        assert taken == 30 or all(quality[i] >= 0.7 for *_, quality in seen[taken - finish - 2 : taken - finish])


@pytest.mark.parametrize("finish", [0, 1, 3])
def test_a_picture_does_not_depend_on_its_batch(finish):
    settings = {"quality_threshold": 0.8, "patience": 2, "min_steps": 4, "finish": finish}
    together, model = draw(sampler(30, **settings))
    assert any(len(set(times)) > 1 for times in model.times) == (finish > 0)
    for i in range(5):
        alone, _ = draw(sampler(30, **settings), slice(i, i + 1))
        assert alone.evaluations[0] == together.evaluations[i]
        np.testing.assert_allclose(np.array(alone.images[0]), np.array(together.images[i]), atol=1e-6)


def test_finishing_is_far_nearer_to_the_end_than_what_the_latest_predictions_point_to():
    errors = []
    for finish in (0, 1, 2, 4):
        result, model = draw(sampler(40, quality_threshold=0.0, patience=24, finish=finish))
        assert result.evaluations.tolist() == [24 + finish] * 5
        errors.append(np.abs(np.array(result.images) - model.end(X_T, STDS)).mean((1, 2, 3)))
    assert (errors[1] < errors[0]).all()
    assert (errors[2] < errors[1]).all()
    assert (errors[3] < 0.6 * errors[0]).all()
    assert errors[3].mean() < 0.15 * errors[0].mean()


def test_a_picture_that_is_not_finished_is_what_its_latest_predictions_point_to():
    guided = sampler(20, quality_threshold=0.0, patience=1, min_steps=16, finish=0)
    result, model = draw(guided)
    traces = list(StandardSampler(scheduler(20)).iterate(Gaussian(guided.scheduler), X_T, condition=STDS))[14:16]
    before, at = (np.exp(-guided.scheduler.schedule.log_snr(trace.timestep)) for trace in traces)
    expected = extrapolate(traces[1].x0, traces[1].x0 - traces[0].x0, float(at), float(before))
    np.testing.assert_allclose(np.array(result.images), np.array(expected), atol=1e-6)
    end = model.end(X_T, STDS)
    error, predicted = (np.abs(np.array(x) - end).mean((1, 2, 3)) for x in (result.images, traces[1].x0))
    assert (error < predicted).all()


def test_noise_of_stochastic_solvers_follows_the_picture():
    def run(some: slice):
        ddpm = DDPMScheduler(prediction_type="sample", clip_sample=False)
        ddpm.set_timesteps(30)
        guided = QualityGuidedSampler(ddpm, quality_threshold=0.75, patience=1, min_steps=3, finish=2)
        return guided.run(Gaussian(ddpm), X_T[some], condition=STDS[some], keys=KEYS[some])

    together, alone = run(slice(None)), run(slice(3, 4))
    assert len(set(together.evaluations.tolist())) >= 2
    np.testing.assert_allclose(np.array(together.images[3]), np.array(alone.images[0]), atol=1e-5)


def test_the_report_is_the_mean_over_all_runs_until_the_history_is_reset():
    guided = sampler(12)
    assert guided.report() == {}
    finals = []
    for some in (slice(2), slice(2, 5)):
        guided.scheduler.set_timesteps(12)
        *_, last = guided.iterate(Gaussian(guided.scheduler), X_T[some], condition=STDS[some])
        finals += last.quality.tolist()
    assert guided.report() == {"sampling/estimated_quality": pytest.approx(np.mean(finals))}
    assert len(guided.get_quality_history()) == last.index + 1
    guided.reset_history()
    assert guided.get_quality_history() == []
    assert guided.report() == {}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"quality_threshold": 1.5}, "quality_threshold must be"),
        ({"patience": 0}, "patience must be"),
        ({"min_steps": 0}, "min_steps must be"),
        ({"min_steps": 20, "max_steps": 10}, "min_steps must be at most max_steps, got 20 and 10"),
        ({"finish": -1}, "finish must be"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler(**settings)


@pytest.mark.parametrize(
    ("steps", "settings", "warned"),
    [
        (10, {}, True),
        (11, {}, False),
        (10, {"early_stopping": False}, False),
        (10, {"min_steps": 1, "max_steps": 9}, False),
        (8, {"min_steps": 1}, True),  # quality is first known after the second step: it takes 2 + 2 + 4
        (8, {"min_steps": 1, "quality_threshold": 0.0}, False),
        (9, {"min_steps": 1}, False),
        (5, {"min_steps": 1, "finish": 0}, False),
    ],
)
def test_a_schedule_in_which_no_picture_can_stop_early_is_warned_of(steps, settings, warned, caplog):
    sampler(steps, **{"patience": 3, **settings}).check()
    assert ("no image can stop early" in caplog.text) == warned


def test_by_a_calibration_of_another_model_it_warns_and_reports_no_quality(caplog):
    draw(own := sampler(12))
    assert "sampling/estimated_quality" in own.report()
    draw(same := sampler(12, model=own.estimator.calibration.model))
    assert same.report() == own.report()
    assert caplog.text == ""
    draw(other := sampler(12, model="another"))
    assert other.report() == {}
    assert f"a calibration of the model {own.estimator.calibration.model:.12}, and this one is another" in caplog.text


def test_its_settings_and_its_calibration_are_told_as_json():
    made = sampler(12, model="another")
    config = json.loads(json.dumps(made.config))
    assert config == made.config
    assert (config["patience"], config["min_steps"], config["finish"], config["model"]) == (5, 10, 4, "another")
    assert config["calibration"]["weights"] == made.estimator.calibration.weights


def test_timesteps_that_were_set_are_those_that_are_drawn_with():
    scheduler = AdaptiveScheduler()
    for given in ({"timesteps": [900.0, 500.0, 20.0]}, {"num_inference_steps": 3, "complexity": 1.0}):
        scheduler.set_timesteps(**given)
        before = list(scheduler.timesteps)
        QualityGuidedSampler(scheduler, early_stopping=False).sample(DiffusionPipeline().model, 1, (32, 32))
        assert list(scheduler.timesteps) == before


def test_the_interface_as_it_was_specified(capsys):
    pipeline = DiffusionPipeline()

    scheduler = AdaptiveScheduler(num_inference_steps=50)
    sampler = QualityGuidedSampler(scheduler=scheduler, quality_threshold=0.6, early_stopping=True, patience=5)

    images = sampler.sample(model=pipeline.model, batch_size=1, image_size=(256, 256))

    quality_history = sampler.get_quality_history()
    print(f"Final quality: {quality_history[-1]:.4f}")
    print(f"Steps taken: {len(quality_history)}")

    assert images.shape == (1, 256, 256, 3)
    assert scheduler.config["prediction_type"] == pipeline.model.metadata["prediction_type"]
    assert 10 <= len(quality_history) < 50
    assert quality_history[-1] >= 0.6
    assert 0 < sampler.estimate_quality(images) < 1
    assert sampler.estimate_quality(images[0]) == pytest.approx(sampler.estimate_quality(images))
    as_file = to_uint8(np.array(images))
    assert sampler.estimate_quality(as_file) == pytest.approx(sampler.estimate_quality(to_float(as_file)))
