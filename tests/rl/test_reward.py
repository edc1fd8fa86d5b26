"""Rewards are the formulas they say, and refuse what makes no sense."""

import numpy as np
import pytest
from rl.closed_form import gaussian

from adaptive_diffusion.rl.baselines import CEMAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.reward import HybridReward, Measurement, QualityReward, SpeedReward, reward_of
from adaptive_diffusion.rl.timestep_environment import TimestepEnv

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
    with pytest.raises(ValueError, match="metric must be one of rmse, perceptual, real, real_text, got 'fid'"):
        QualityReward("fid")
    with pytest.raises(ValueError, match="unit must be one of evaluations, passes, seconds, got 'joules'"):
        SpeedReward("joules")
    with pytest.raises(ValueError, match="unit"):
        HybridReward(unit="joules")


# rewards of a user's own


def worst(measured):
    return measured.quality.min()


class Saving(QualityReward):
    """A subclass with another formula, and one number for all."""

    def __call__(self, measured):
        return measured.speed() - 0.1


class Computed:
    """A class with a method of another name, and settings of its own."""

    metric, weight = "perceptual", 0.25

    def __init__(self, scale):
        self.scale = scale

    def compute(self, measured):
        return self.scale * measured.quality


@pytest.mark.parametrize(
    ("reward", "expected", "settings", "name"),
    [
        (worst, [np.log(0.5)] * 2, (1.0, "rmse", "evaluations"), "worst"),
        (Saving(), [0.65, 0.65], (1.0, "rmse", "evaluations"), "Saving(metric='rmse')"),
        (Computed(3), 3 * np.log([2, 0.5]), (0.25, "perceptual", "evaluations"), "Computed(scale=3)"),
    ],
)
def test_functions_and_classes_of_ones_own_are_rewards(reward, expected, settings, name):
    ours = reward_of(reward)
    np.testing.assert_allclose(ours(MEASURED), expected)
    assert (ours.weight, ours.metric, ours.unit) == settings
    assert f"{ours}" == name


def test_environments_and_agents_take_them():
    env = DiffusionHyperparameterEnv(gaussian(), reward=worst, pictures=4)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([1, 0, 0, 1]))
    assert reward == pytest.approx(info["qualities"].min())
    assert info["scores"].shape == (4,)
    walk = TimestepEnv(gaussian(), reward=Saving(), num_steps=3, pictures=2)
    assert CEMAgent(walk).train(4)["final_score"] == pytest.approx(-0.1)  # a walk that cannot stop saves nothing


@pytest.mark.parametrize("given", [3, "speed", object(), Saving, Computed])
def test_what_is_no_reward_is_refused(given):
    with pytest.raises(ValueError, match="reward must be"):
        DiffusionHyperparameterEnv(gaussian(), reward=given)


def test_settings_and_results_of_ones_own_are_checked():
    broken = Computed(1)
    broken.metric = "ssim"
    with pytest.raises(ValueError, match="metric must be one of rmse, perceptual, real, real_text, got 'ssim'"):
        reward_of(broken)
    for result in (np.ones(3), None, "high"):
        with pytest.raises(ValueError, match="one number, or one for each of 2 images"):
            reward_of(lambda measured, result=result: result)(MEASURED)
