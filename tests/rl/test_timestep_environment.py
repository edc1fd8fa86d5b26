"""One step of this environment is one evaluation; no action is the prior grid, and the solver is DPM-Solver++(2M)."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from rl.closed_form import gaussian
from tiny import tiny_model

from adaptive_diffusion.grids.spacings import KarrasGrid, LogSNRGrid, PowerGrid
from adaptive_diffusion.rl.reward import HybridReward
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler

pytestmark = pytest.mark.filterwarnings("ignore:.*(alternative render modes|symmetric and normalized)")


def play(env: TimestepEnv, actions, batch: int = 0) -> tuple:
    env.reset(options={"batch": batch})
    observations = []
    for action in actions:
        observation, reward, over, _, info = env.step(np.atleast_1d(action))
        observations.append(observation)
        if over:
            break
    return observations, reward, info


@pytest.mark.parametrize("stopping", [False, True])
def test_gymnasium_finds_no_fault(stopping):
    check_env(TimestepEnv(gaussian(domain="a", domains=("a", "b")), stopping=stopping))


@pytest.mark.parametrize("grid", [None, PowerGrid(1), LogSNRGrid(), KarrasGrid()])
@pytest.mark.parametrize("steps", [2, 5, 16])
def test_no_action_is_the_prior_grid_and_its_own_baseline(grid, steps):
    env = TimestepEnv(gaussian(), grid=grid, num_steps=steps)
    _, reward, info = play(env, [0.0] * (steps - 1))
    prior = (grid or PowerGrid(2))(env.schedule, steps)
    np.testing.assert_allclose(info["hyperparameters"]["timesteps"], prior, atol=0.01)
    assert reward == pytest.approx(0, abs=1e-3)
    assert info["evaluations"] == steps


@pytest.mark.parametrize(
    ("timesteps", "trouble"),
    [
        ([800, 500, 200, 50], "the grid must begin at timestep 999, as episodes do, got 800"),
        ([999, 200, 500, 50], "strictly decreasing"),
        ([999, 500, 200], "must give 4 timesteps"),
    ],
)
def test_a_prior_that_no_episode_could_follow_is_refused(timesteps, trouble):
    with pytest.raises(ValueError, match=trouble):
        TimestepEnv(gaussian(), grid=lambda process, n: timesteps, num_steps=4)


def test_a_prior_may_be_a_list():
    env = TimestepEnv(gaussian(), grid=lambda process, n: [999, 500, 200, 50], num_steps=4)
    assert env.describe()["prior"] == [999, 500, 200, 50]


def test_other_timesteps_give_the_pictures_of_dpm_solver_on_them():
    env = TimestepEnv(tiny_model(), "landscapes", num_steps=6, pictures=3, batches=2)
    _, reward, info = play(env, [0.7, -0.4, 1.9, -5, 0.2], batch=1)
    labels = env.drawing.condition[env.batch * 3 :][:3]  # each image has its own
    assert len(np.unique(np.array(labels), axis=0)) == 2
    solver = DPMSolverScheduler(**env.drawing.settings)
    errors = []
    for timesteps in (PowerGrid(2)(env.schedule, 6), info["hyperparameters"]["timesteps"]):
        solver.set_timesteps(timesteps=timesteps)
        images = StandardSampler(solver).run(env.drawing, env.noises.x_T(env.batch), condition=labels).images
        errors.append(env.noises.errors(env.batch, np.array(images)))
    np.testing.assert_allclose(info["qualities"], np.log(errors[0] / errors[1]), atol=1e-3)
    np.testing.assert_allclose(reward, info["qualities"].mean())


def test_a_sibling_begins_an_episode_of_its_own():
    env = TimestepEnv(gaussian(), num_steps=5)
    env.reset(seed=0)
    env.step(np.array([0.3]))
    seen = env.timesteps()
    sibling = env.sibling()
    with pytest.raises(ValueError, match="call reset first"):
        sibling.step(np.array([0.3]))
    sibling.reset(seed=0)
    sibling.step(np.array([-0.3]))
    assert env.timesteps() == seen != sibling.timesteps()


def test_an_action_is_added_to_the_logit_of_the_priors_fraction_of_the_way():
    env = TimestepEnv(gaussian(), num_steps=5)
    env.reset(seed=0)
    env.step(np.array([1.3]))
    first, last = env.schedule.log_snr([999, 0])
    prior = env.schedule.log_snr(PowerGrid(2)(env.schedule, 5))[1]
    got = env.schedule.log_snr(env.timesteps()[1])

    def logit(value):
        fraction = (value - first) / (last - first)
        return np.log(fraction / (1 - fraction))

    assert logit(got) - logit(prior) == pytest.approx(1.3, abs=1e-6)


def test_a_step_is_one_evaluation_of_the_batch_and_the_first_is_remembered():
    env = TimestepEnv(gaussian(), num_steps=6, pictures=4, batches=1)
    play(env, [0.1] * 5)
    denoiser = env.drawing.network
    denoiser.calls = 0
    play(env, [0.2] * 5)
    assert denoiser.calls == 5
    assert env.spent.asked == 2 * 6 * 4
    assert env.spent.computed == (6 + 6 + 5) * 4  # the first episode, the baseline, the second without its beginning


def test_the_observation_says_what_the_batch_shows():
    env = TimestepEnv(gaussian(domain="b", domains=("a", "b")), num_steps=4, pictures=5)
    start, _ = env.reset(options={"batch": 0})
    first_x0 = env._states
    seen = env.step(np.array([0.0]))[0]
    log_snr = env.schedule.log_snr(PowerGrid(2)(env.schedule, 4))
    low, high = env.schedule.log_snr([999, 0])
    change = np.sqrt(np.mean(np.square(np.array(env._states) - np.array(first_x0))))
    assert start[0] == 0.25
    expected = [
        *(0.5, (log_snr[1] - low) / (high - low), np.log10(change + 1e-4) / 4 + 1, 0.0),
        *((log_snr[1] - log_snr[0]) / 10, np.array(env._states).std(), 0.1, 0, 1),
    ]
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    second = env.step(np.array([0.0]))[0]
    assert second[3] > 0  # the solver's two orders differ from the second step on


def test_stopping_ends_with_the_clean_prediction_there_is_and_saves_evaluations():
    env = TimestepEnv(gaussian(), reward=HybridReward(0.5), num_steps=8, stopping=True)
    env.reset(options={"batch": 0})
    for _ in range(3):
        env.step(np.zeros(2))
    x0 = np.array(env._states)
    _, reward, _, _, info = env.step(np.array([0, 0.9]))
    assert (info["evaluations"], info["speed"]) == (4, 0.5)
    errors = paired_rmse(np.clip(x0, -1, 1), env.noises._converged.images[:16])
    assert np.log(errors).mean() == pytest.approx(np.log(env._baselines[0].errors).mean() - info["quality"], abs=1e-3)
    assert reward == pytest.approx(0.5 * info["quality"] + 0.25)
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.array([0.0, 0.0]))


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="num_steps must be a whole number, between 2 and 1000, got 1"):
        TimestepEnv(gaussian(), num_steps=1)
    with pytest.raises(ValueError, match="the grid must give 8 timesteps"):
        TimestepEnv(gaussian(), num_steps=8, grid=lambda process, n: np.linspace(999, 0, n + 1))
    env = TimestepEnv(gaussian())
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.array([0.0]))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="1 numbers in an array of shape"):
        env.step(np.array([0.0, 0.0]))
