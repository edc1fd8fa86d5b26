"""Rewards are the formulas they say, and refuse what makes no sense."""

import numpy as np
import pytest

from adaptive_diffusion.rl.reward import HybridReward, Measurement, QualityReward, SpeedReward

MEASURED = Measurement(
    errors=np.array([0.1, 0.4]),
    evaluations=5,
    seconds=3.0,
    baseline_errors=np.array([0.2, 0.2]),
    baseline_evaluations=20,
    baseline_seconds=2.0,
)


def test_quality_is_the_log_ratio_of_the_errors_of_each_picture():
    np.testing.assert_allclose(QualityReward()(MEASURED), np.log([2, 0.5]))


def test_speed_is_the_share_of_the_cost_that_was_saved():
    np.testing.assert_allclose(SpeedReward()(MEASURED), [0.75, 0.75])
    np.testing.assert_allclose(SpeedReward("seconds")(MEASURED), [-0.5, -0.5])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_hybrid_weighs_them(weight):
    expected = weight * np.log([2, 0.5]) + (1 - weight) * 0.75
    np.testing.assert_allclose(HybridReward(weight)(MEASURED), expected)


def test_the_documented_number_of_steps_is_the_best_one():
    def reward(n, weight):
        return HybridReward(weight)(Measurement(np.array([n**-2.0]), n, 1, np.array([12**-2.0]), 12, 1))[0]

    for weight, best in ((1 / 3, 12), (1 / 2, 24), (1 / 5, 6)):
        assert max(range(1, 60), key=lambda n, w=weight: reward(n, w)) == best


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "half"])
def test_a_weight_outside_0_to_1_is_refused(weight):
    with pytest.raises(ValueError, match="weight must be a number, at least 0 and at most 1"):
        HybridReward(weight)


def test_unknown_metrics_and_units_are_refused():
    with pytest.raises(ValueError, match="metric must be one of rmse, perceptual, got 'fid'"):
        QualityReward("fid")
    with pytest.raises(ValueError, match="unit must be one of evaluations, seconds, got 'joules'"):
        SpeedReward("joules")
    with pytest.raises(ValueError, match="unit"):
        HybridReward(unit="joules")
