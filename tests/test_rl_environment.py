"""The environment really draws images, scores them against a baseline from the same noises, and can be repeated."""

import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from rl.closed_form import SHAPE, STD, gaussian
from tiny import tiny_model

from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.lockstep import run_together
from adaptive_diffusion.rl.reward import HybridReward, QualityReward, SpeedReward
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.unipc_ipndm import UniPCScheduler

pytestmark = pytest.mark.filterwarnings("ignore:.*alternative render modes")
PRIOR = np.zeros(4, np.float32)


def solution(x_T: np.ndarray, schedule) -> np.ndarray:
    """Where the ODE of the Gaussian images leads, in closed form, to timestep 0, and the clean prediction there."""
    levels = [(float(schedule.alpha(t)), float(schedule.sigma(t))) for t in (999, 0)]
    (alpha, sigma), (alpha_0, sigma_0) = levels
    x = x_T / alpha * np.sqrt((STD**2 + (sigma_0 / alpha_0) ** 2) / (STD**2 + (sigma / alpha) ** 2))
    return np.clip(STD**2 / (STD**2 + (sigma_0 / alpha_0) ** 2) * x, -1, 1)


def test_gymnasium_finds_no_fault():
    check_env(DiffusionHyperparameterEnv(gaussian(domain="a", domains=("a", "b"))))


def test_without_arguments_it_is_the_shipped_model_drawing_landscapes_and_costs_nothing_yet():
    env = DiffusionHyperparameterEnv()
    assert env.drawing.domain == "landscapes"
    assert {domain for domain, _ in env.drawing.condition.tolist()} == {2}
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation, [0, 1, 0, 0, 1 / 3, 0.5], rtol=1e-6)
    assert env.spent.computed == 0


def test_the_prior_is_the_baseline():
    env = DiffusionHyperparameterEnv(gaussian())
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(PRIOR)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert (info["quality"], info["speed"], info["evaluations"]) == (0.0, 0.0, 10)
    expected = {"num_steps": 10, "adaptive_threshold": 0.5, "progress_power": 2.0, "solver": "dpm_solver"}
    assert info["hyperparameters"] == expected


def test_the_reward_is_that_of_pictures_drawn_by_hand_against_the_closed_form():
    env = DiffusionHyperparameterEnv(gaussian(), reward=HybridReward(0.25))
    env.reset(options={"batch": 1})
    _, reward, _, _, info = env.step(np.array([1, 0, 0.5, -1], np.float32))

    settings, x_T = env.drawing.settings, env.noises.x_T(1)
    errors = []
    for scheduler, n, power in ((AdaptiveScheduler(**settings), 10, 2), (UniPCScheduler(**settings), 20, 3)):
        scheduler.set_timesteps(timesteps=PowerGrid(power)(scheduler.schedule, n))
        images = np.array(StandardSampler(scheduler).run(env.drawing, x_T).images)
        errors.append(paired_rmse(np.clip(images, -1, 1), solution(np.array(x_T), scheduler.schedule)))
    quality = np.log(errors[0] / errors[1])

    assert info["hyperparameters"]["solver"] == "unipc"
    np.testing.assert_allclose(info["qualities"], quality, atol=0.1)  # the converged solution has 64 steps, not all
    assert quality.mean() > 1
    np.testing.assert_allclose(info["quality"], info["qualities"].mean())
    np.testing.assert_allclose(reward, 0.25 * info["quality"] + 0.75 * (1 - 20 / 10))
    np.testing.assert_allclose(info["scores"].mean(), reward)


def test_episodes_of_a_seed_repeat_themselves_and_seeds_differ():
    def batches(env, seed):
        return [env.reset(seed=seed if i == 0 else None)[1]["batch"] for i in range(12)]

    env = DiffusionHyperparameterEnv(gaussian(), batches=4)
    first = batches(env, 3)
    assert set(first) == {0, 1, 2, 3}
    assert batches(env, 3) == first
    assert batches(DiffusionHyperparameterEnv(gaussian(), batches=4), 3) == first
    assert batches(env, 4) != first


def test_a_state_brings_back_the_current_episode_and_all_after_it():
    env = DiffusionHyperparameterEnv(gaussian(), batches=8)
    env.reset(seed=5)
    current = env.reset()[1]["batch"]
    state, other = env.state, DiffusionHyperparameterEnv(gaussian(), batches=8)
    coming = [env.reset()[1]["batch"] for _ in range(6)]
    other.restore(state)
    assert [other.reset()[1]["batch"] for _ in range(7)] == [current, *coming]


def test_what_was_drawn_once_is_remembered_and_counted_only_as_asked_for():
    env = DiffusionHyperparameterEnv(gaussian(), pictures=8)
    for _ in range(3):
        env.reset(options={"batch": 0})
        last = env.step(np.array([1, 0, 0, 1], np.float32))[4]
    assert (env.spent.asked, env.spent.computed) == (3 * 8 * 20, 8 * (20 + 10))
    env.reset(options={"batch": 1})
    other = env.step(np.array([1, 0, 0, 1], np.float32))[4]
    assert env.spent.computed == 2 * 8 * (20 + 10)
    assert not np.allclose(other["qualities"], last["qualities"])


def test_a_threshold_that_no_step_reached_is_not_drawn_again_but_one_that_matters_is():
    env = DiffusionHyperparameterEnv(gaussian())
    env.reset(options={"batch": 0})
    env.step(PRIOR)
    before = env.spent.computed
    env.reset(options={"batch": 0})
    higher = env.step(np.array([0, 1, 0, 0], np.float32))[4]
    assert higher["hyperparameters"]["adaptive_threshold"] == 1.0
    assert (higher["quality"], env.spent.computed) == (0.0, before)
    env.reset(options={"batch": 0})
    ddim = env.step(np.array([0, -1, 0, 0], np.float32))[4]
    assert ddim["hyperparameters"]["adaptive_threshold"] == 0.0
    assert ddim["quality"] < -0.5
    assert env.spent.computed > before


def test_held_out_noises_are_others_and_counted_apart():
    env = DiffusionHyperparameterEnv(gaussian(), pictures=4)
    held_out = env.held_out(3)
    assert held_out.noises.batches == 3
    assert not np.array_equal(np.array(held_out.noises.x_T(0)), np.array(env.noises.x_T(0)))
    held_out.reset(options={"batch": 2})
    held_out.step(PRIOR)
    assert held_out.spent.computed == 40
    assert env.spent.computed == 0


def test_environments_that_step_together_share_evaluations_and_see_what_each_would_see_alone():
    actions = [np.array([a, 0, b, c], np.float32) for a, b, c in ((-1, 0, -1), (0, 1, 0), (1, -1, 1))]
    alone, together = DiffusionHyperparameterEnv(gaussian()), DiffusionHyperparameterEnv(gaussian())
    expected = []
    for action in actions:
        alone.reset(options={"batch": 0})
        expected.append(alone.step(action)[1])

    siblings = [together.sibling() for _ in actions]
    run_together(together.drawing, [s.resetting(options={"batch": 0}) for s in siblings])
    together.noises.errors(0, np.zeros((8, *SHAPE)))  # solves for the converged images
    denoiser = together.drawing.network
    denoiser.calls = 0
    steps = run_together(together.drawing, [s.advance(a) for s, a in zip(siblings, actions, strict=True)])
    np.testing.assert_allclose([step[1] for step in steps], expected, atol=1e-4)
    assert denoiser.calls == 10 + 20  # the baseline of each, then as many as the longest takes


def test_a_model_of_ones_own_in_a_domain_of_its():
    env = DiffusionHyperparameterEnv(tiny_model(), "general", guidance_scale=2.0, pictures=2, batches=1)
    assert {domain for domain, _ in env.drawing.condition.tolist()} == {4}
    assert env.drawing.guidance_scale == 2.0
    assert env.drawing.process.alphas_cumprod[500] == pytest.approx(0.4923, abs=1e-3)  # the cosine schedule's
    env.reset(seed=0)
    assert np.isfinite(env.step(np.array([-1, 0, 0, 0], np.float32))[1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"min_steps": 12, "max_steps": 8}, "min_steps must be at most max_steps, got 12 > 8"),
        ({"num_steps": 30}, "num_steps must be a whole number, between 4 and 20, got 30"),
        ({"min_steps": 0}, "min_steps must be a whole number, at least 1, got 0"),
        ({"max_steps": 2000}, "max_steps must be a whole number, between 1 and 1000"),
        ({"pictures": 1}, "pictures must be a whole number, at least 2"),
        ({"batches": 0}, "batches must be"),
        ({"noise_seed": -1}, "noise_seed must be"),
        ({"domain": "trees"}, "a GuidedModel already says domain"),
    ],
)
def test_a_bad_value_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        DiffusionHyperparameterEnv(gaussian(), **arguments)


def test_an_unfit_model_is_refused():
    with pytest.raises(ValueError, match="no domain 'trees'; it was trained on portraits"):
        DiffusionHyperparameterEnv(tiny_model(), "trees")
    with pytest.raises(ValueError, match="no domain 'c'; it was trained on a, b"):
        gaussian(domain="c", domains=("a", "b"))
    with pytest.raises(ValueError, match="or a GuidedModel that describes any other network, got function"):
        drawing_of(lambda x, t, c: x)
    with pytest.raises(ValueError, match="does not say what it predicts"):
        drawing_of(tiny_model(prediction_type=None))


class Latents:
    """The tiny model as one of latents: images are twice as large, and twice as bright."""

    def __init__(self):
        self._model = tiny_model(bounded=False)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, *arguments):
        return self._model(*arguments)

    def decode(self, x0):
        return 2 * mx.repeat(mx.repeat(x0, 2, axis=1), 2, axis=2)


@pytest.mark.parametrize("environment", [DiffusionHyperparameterEnv, TimestepEnv])
def test_latents_are_compared_as_pictures_and_never_clipped(environment):
    env = environment(Latents(), "portraits", num_steps=5, pictures=2, batches=1)
    assert env.drawing.settings["clip_sample"] is False
    solution = env.noises._converged.images
    assert np.abs(solution).max() > 0.5
    pictures = np.clip(2 * solution.repeat(2, 1).repeat(2, 2), -1, 1)
    states = solution + 0.1
    expected = paired_rmse(np.clip(2 * states.repeat(2, 1).repeat(2, 2), -1, 1), pictures)
    np.testing.assert_allclose(env.noises.errors(0, states), expected, rtol=1e-5)
    env.reset(seed=0)
    for _ in range(env.episode_length):
        info = env.step(env.action_space.low)[-1]
    assert np.isfinite(info["quality"])
    assert info["quality"] != 0


def test_an_action_that_is_none_is_refused():
    env = DiffusionHyperparameterEnv(gaussian())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="4 numbers"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="4 numbers"):
        env.step(np.full(4, np.nan))


def test_a_reward_that_is_not_a_number_stops_with_the_configuration():
    drawing = GuidedModel(lambda x, t, c: x * mx.nan, prediction_type="sample", state_shape=SHAPE)
    env = DiffusionHyperparameterEnv(drawing)
    env.reset(options={"batch": 1})
    with pytest.raises(ValueError, match=r"reward of num_steps=20, .* on batch 1 is not a finite number"):
        env.step(np.array([1, 0, 0, -1]))


def test_policies_are_told_domain_and_weight():
    seen = {}
    for reward in (QualityReward(), SpeedReward(), HybridReward(0.25)):
        env = DiffusionHyperparameterEnv(gaussian(domain="b", domains=("a", "b")), reward=reward, max_steps=40)
        seen[type(reward)] = env.reset(seed=0)[0].tolist()
    assert seen == {QualityReward: [0, 1, 1, 0.25], SpeedReward: [0, 1, 0, 0.25], HybridReward: [0, 1, 0.25, 0.25]}


def test_importing_the_library_does_not_import_pytorch():
    modules = "rl, rl.environment, rl.timestep_environment, rl.ppo_agent, rl.baselines, rl.policy"
    names = ", ".join(f"adaptive_diffusion.{name}" for name in modules.split(", "))
    code = f"import sys, {names}; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
