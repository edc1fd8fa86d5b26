"""Quality told from the run itself: the extrapolated image, the regression and its file."""

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.quality import (
    FEATURES,
    HALF,
    SHIPPED,
    STILL,
    QualityCalibration,
    QualityEstimator,
    error_of,
    extrapolate,
    load_calibration,
    quality_of,
    save_calibration,
    still_features,
)
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from benchmarks.quality import FIT_SEED, Case, calibrated, plain_curve
from benchmarks.quality_fit import fit_still, fit_weights

PICTURES = normal(image_keys(0, range(3)), (8, 8, 3)) * 0.3


def calibration(**weights: float) -> QualityCalibration:
    none = dict.fromkeys(("constant", *FEATURES), 0.0)
    still = dict.fromkeys(("constant", *STILL), 0.0)
    return QualityCalibration("model", {**none, **weights}, still, {5: 0.1}, {})


def test_a_prediction_linear_in_the_squared_noise_level_is_extrapolated_to_its_end():
    end, slope = np.array(PICTURES), 0.02 * np.array(PICTURES[::-1])
    level, before = 0.5, 0.9
    x0, x0_before = (mx.array(end + slope * s**2) for s in (level, before))
    np.testing.assert_allclose(np.array(extrapolate(x0, x0 - x0_before, level, before)), end, atol=1e-6)


def test_the_extrapolated_picture_of_gaussian_data_is_far_nearer_to_the_end():
    """D = end std / sqrt(std^2 + s^2) along the ODE (see `gaussian`), with std 0.5."""
    end, levels = np.array(PICTURES), (0.15, 0.1)
    before, x0 = (end * 0.5 / np.sqrt(0.25 + s**2) for s in levels)
    seen = QualityEstimator(calibration()).observe(levels[1], mx.array(x0), (levels[0], mx.array(before)))
    assert np.abs(np.array(seen.picture) - end).max() < 0.15 * np.abs(x0 - end).max()
    assert np.array_equal(np.array(QualityEstimator(calibration()).observe(0.2, PICTURES).picture), np.array(PICTURES))


def test_extrapolation_does_not_leave_the_range_of_pictures():
    full = mx.ones((1, 4, 4, 3)) * 0.9
    assert float(extrapolate(full, mx.ones_like(full), 0.5, 0.6).max()) == 1.0


def test_after_the_last_step_the_picture_is_what_the_scheduler_made():
    seen = QualityEstimator(calibration()).observe(0.2, PICTURES * 0.9, (0.5, PICTURES), last=True)
    assert np.array_equal(np.array(seen.picture), np.array(PICTURES * 0.9))


def test_the_features_are_what_their_names_say():
    moved = PICTURES + mx.array([0.1, 0.2, 0.3]).reshape(3, 1, 1, 1)
    features = np.array(QualityEstimator(calibration()).observe(0.4, moved, (0.8, PICTURES)).features)
    z, h, c = np.log(0.4), np.log(2), np.log([0.1, 0.2, 0.3])
    for i in range(3):
        expected = [z, z**2, z**3, h, h * z, np.log(h), c[i], c[i] * z]
        np.testing.assert_allclose(features[i], expected, atol=1e-3)


def test_quality_is_one_half_at_the_stated_error_and_inverts():
    assert quality_of(np.array([0.0, HALF])).tolist() == [1.0, 0.5]
    for quality in (0.1, 0.6, 0.9, 1.0):
        assert quality_of(np.array(error_of(quality))) == pytest.approx(quality)
    with pytest.raises(ValueError, match="quality must be"):
        error_of(0.0)


def checkerboard(contrast: float) -> np.ndarray:
    """(1, 8, 8, 3) images whose standard deviation is given, but for the hundredth that keeps it from 0."""
    signs = np.indices((8, 8)).sum(axis=0) % 2 * 2 - 1
    return np.repeat(signs[None, ..., None] * (contrast - 0.01), 3, axis=-1).astype(np.float32)


@pytest.mark.parametrize(("contrast", "error"), [(0.4, 0.06), (0.05, 0.12)])
def test_the_weights_decide_the_estimate_and_an_error_shows_more_in_a_flat_picture(contrast, error):
    """RMSE 2 x change, times (0.4 / contrast)^(1/3)."""
    estimator = QualityEstimator(calibration(constant=np.log(2.0), change=1.0))
    picture = mx.array(checkerboard(contrast))
    seen = estimator.observe(0.4, picture + 0.03, (0.8, picture))
    np.testing.assert_allclose(estimator.quality(seen), 1 / (1 + error / HALF), rtol=1e-3)


def test_the_first_step_knows_nothing():
    estimator = QualityEstimator()
    assert estimator.quality(estimator.observe(0.5, PICTURES)).tolist() == [0, 0, 0]
    assert (estimator.quality(estimator.observe(0.4, PICTURES, (0.5, PICTURES))) > 0).all()


def test_some_pictures_are_estimated_as_among_all():
    moved = PICTURES + mx.array([0.3, 0.02, 0.1]).reshape(3, 1, 1, 1)
    estimator, some = QualityEstimator(), mx.array([2, 0])
    chosen = estimator.quality(estimator.observe(0.4, moved[some], (0.8, PICTURES[some])))
    everyone = estimator.quality(estimator.observe(0.4, moved, (0.8, PICTURES)))
    np.testing.assert_allclose(chosen, everyone[[2, 0]], rtol=1e-5)


@pytest.mark.parametrize("level", [3.0, 0.5, 0.05])
def test_by_the_shipped_regression_a_picture_that_changes_less_is_better(level):
    estimator = QualityEstimator()
    changes = mx.array([0.2, 0.05, 0.01]).reshape(3, 1, 1, 1)
    quality = estimator.quality(estimator.observe(level, PICTURES + changes, (1.3 * level, PICTURES)))
    assert 0 < quality[0] < quality[1] < quality[2] < 1


def test_by_the_shipped_regression_quality_rises_along_a_run():
    schedule, estimator, qualities, previous = NoiseSchedule(), QualityEstimator(), [], None
    for t in 999 * (1 - np.arange(20) / 20) ** 2:
        s = float(np.exp(-schedule.log_snr(t)))
        x0 = PICTURES / np.sqrt(1 + (s / 0.3) ** 2)
        qualities.append(estimator.quality(estimator.observe(s, x0, previous)).mean())
        previous = s, x0
    assert qualities[10] < 0.75
    assert qualities[19] > 0.95
    assert (np.diff(qualities[12:]) > 0).all()


def test_regression_finds_the_weights_that_made_the_errors():
    rng = np.random.default_rng(0)
    true = rng.normal(size=1 + len(FEATURES)) * 0.3
    steps = []
    for _ in range(40):
        z, h = rng.uniform(-3, 3), rng.uniform(0.1, 1.0)
        c = rng.uniform(-5, -1, 16)
        known = np.repeat([[z, z**2, z**3, h, h * z, np.log(h)]], 16, axis=0)
        features = np.concatenate([known, c[:, None], c[:, None] * z], axis=1)
        steps.append((features, np.exp(true[0] + features @ true[1:])))
    found = fit_weights(steps)
    np.testing.assert_allclose([found[name] for name in ("constant", *FEATURES)], true, atol=1e-6)


def test_differences_between_steps_do_not_decide_what_a_change_means():
    """At every step the image that changed more is better; over the steps error and change fall together."""
    rng, steps = np.random.default_rng(1), []
    for z in np.linspace(-3, 3, 30):
        c = z + 0.1 * rng.normal(size=16)
        h = rng.uniform(0.1, 1.0)
        known = np.repeat([[z, z**2, z**3, h, h * z, np.log(h)]], 16, axis=0)
        features = np.concatenate([known, c[:, None], c[:, None] * z], axis=1)
        steps.append((features, np.exp(z - (c - z))))
    assert fit_weights(steps)["change"] == pytest.approx(-1)


def test_pictures_without_a_history_are_judged_by_contrast_and_gradient():
    ramp = np.zeros((1, 4, 4, 3), np.float32) + np.linspace(-0.3, 0.3, 4, dtype=np.float32)[None, None, :, None]
    expected = [np.log(np.linspace(-0.3, 0.3, 4).std() + 0.01), np.log(0.2 + 0.005)]
    np.testing.assert_allclose(np.array(still_features(mx.array(ramp)))[0], expected, rtol=1e-5)
    features = np.random.default_rng(0).normal(size=(50, 2))
    found = fit_still(features, np.exp(0.5 - features @ [1.0, 2.0]))
    assert found == pytest.approx({"constant": 0.5, "contrast": -1.0, "gradient": -2.0})
    blurred = QualityEstimator().still_quality(PICTURES * 0.2)
    assert (blurred < QualityEstimator().still_quality(PICTURES)).all()


def test_a_calibration_survives_its_file_and_a_wrong_file_is_refused(tmp_path):
    path = tmp_path / "quality.json"
    for change in (1.25, 1.5):  # the file is read again
        save_calibration(path, calibration(change=change))
        assert load_calibration(path) == calibration(change=change)
    (tmp_path / "other.json").write_text('{"format": "something"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "short.json").write_text(path.read_text().replace('"change": 1.5,', ""))
    for name, sentence in (
        ("other", "no calibration"),
        ("broken", "cannot be read as JSON"),
        ("short", "damaged"),
        ("none", "does not exist"),
    ):
        with pytest.raises(ValueError, match=sentence):
            QualityEstimator(tmp_path / f"{name}.json")


def test_all_of_a_calibration_is_measured_on_the_model_and_says_how(tmp_path):
    model = load_builtin_model()
    scheduler = AdaptiveScheduler(
        calibration=find_schedule(None, model.identity, "abstract", 1.5),
        prediction_type=model.metadata["prediction_type"],
        **model.metadata["noise_schedule"],
    )
    x_T = normal(image_keys(FIT_SEED, range(2)), model.state_shape)
    conditions, zeros = conditions_of(model, "abstract", None, ""), np.zeros(x_T.shape, np.float32)
    case = Case("abstract", FIT_SEED, GuidedModel.from_model(model, (), 1.5), scheduler, x_T, conditions, zeros)
    found = calibrated([case], [4, 5], 2)
    assert found.model == model.identity
    assert found.curve == plain_curve(model) == load_calibration(SHIPPED).curve
    schedules = [find_schedule(None, model.identity, domain, 1.5) for domain in model.domains]
    expected = np.mean([schedule.steps[8].scores["quadratic"].mean for schedule in schedules])
    assert found.curve[8] == pytest.approx(expected, rel=1e-3)
    command = "benchmarks quality --domains abstract --steps 4 5 --images 2 --write"
    assert command in found.measured["command"]
    assert found.measured["weights"]["seed"] == FIT_SEED
    assert all(np.isfinite(list(weights.values())).all() for weights in (found.weights, found.still))
    save_calibration(tmp_path / "q.json", found)
    assert load_calibration(tmp_path / "q.json") == found
