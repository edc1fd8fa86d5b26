"""What users of Gymnasium and Stable-Baselines3 do by habit works, or ends in one sentence before anything costs."""

from __future__ import annotations

from itertools import pairwise

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RescaleAction, TimeLimit
from rl.closed_form import gaussian
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize, unwrap_vec_normalize
from tiny import tiny_checkpoint

from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.rl import registration
from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.rl.timestep_environment import TimestepEnv

IDS = list(registration.IDS)


@pytest.fixture
def bandit() -> DiffusionHyperparameterEnv:
    return DiffusionHyperparameterEnv(gaussian(), pictures=4)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The model that is used where none is named draws 8x8 images."""
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_MODEL", str(tiny_checkpoint(tmp_path)))


class Counting(BaseCallback):
    """Counts steps, and stops training after some."""

    def __init__(self, most: int = 10**6):
        super().__init__()
        self.most, self.calls = most, 0

    def _on_step(self) -> bool:
        self.calls += 1
        return self.calls < self.most


# environments


@pytest.mark.parametrize("agent", [HyperparameterTuningAgent, CEMAgent, RandomAgent, FixedAgent])
def test_an_agent_without_an_environment_tunes_the_model_at_hand(agent, tiny):
    env = agent().env
    assert isinstance(env, DiffusionHyperparameterEnv)
    assert env.drawing.state_shape == (8, 8, 3)


def test_wrappers_that_only_watch_are_looked_through(bandit):
    for wrapped in (Monitor(bandit), DummyVecEnv([lambda: Monitor(bandit)]), VecMonitor(DummyVecEnv([lambda: bandit]))):
        assert HyperparameterTuningAgent(wrapped).env is bandit
    agent, other = CEMAgent(bandit), bandit.held_out(2)
    agent.train(2, None, Monitor(other))
    assert agent.eval_env is other


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda env: RescaleAction(env, -2, 2), "RescaleAction"),
        (lambda env: TimeLimit(env, 1), "TimeLimit"),
        (lambda env: VecNormalize(DummyVecEnv([lambda: env])), "VecNormalize"),
        (lambda env: "CartPole-v1", "str"),
    ],
)
def test_other_wrappers_are_refused_before_anything_is_drawn(bandit, wrap, kind):
    agent = HyperparameterTuningAgent(bandit)
    with pytest.raises(ValueError, match=f"^env must be .* got {kind}$"):
        HyperparameterTuningAgent(wrap(bandit))
    with pytest.raises(ValueError, match=f"^eval_env must be .* got {kind}$"):
        agent.train(10, eval_env=wrap(bandit))
    assert bandit.drawing.network.calls == 0


def test_of_several_environments_that_differ_none_is_taken(bandit):
    other = DiffusionHyperparameterEnv(gaussian(), pictures=6)
    assert CEMAgent(DummyVecEnv([lambda: bandit, bandit.sibling])).env is bandit
    with pytest.raises(ValueError, match="eval_env holds environments that differ"):
        CEMAgent(bandit).train(1, None, DummyVecEnv([lambda: bandit, lambda: other]))


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
@pytest.mark.parametrize("name", IDS)
def test_gymnasium_makes_and_checks_them_by_name(name, tiny):
    env = gymnasium.make(name, domain="general", num_steps=6, pictures=2, batches=1)
    assert env.unwrapped.drawing.domain == "general"
    check_env(env.unwrapped, skip_close_check=True)
    sb3_check_env(env.unwrapped, warn=False)
    assert CEMAgent(env).env is env.unwrapped


@pytest.mark.filterwarnings("ignore:(?s).*(Worker|Traceback|main process)")
@pytest.mark.parametrize("name", IDS)
def test_a_fork_is_refused_in_one_sentence_and_another_context_plays(name, tiny):
    def vector(**options):
        return gymnasium.make_vec(name, num_envs=2, vectorization_mode="async", num_steps=4, pictures=2, **options)

    forked = vector(vector_kwargs={"context": "fork"})
    with pytest.raises(ValueError, match=r"does not survive a fork.*forkserver"):
        forked.reset(seed=0)
    forked.close()

    envs = vector(vector_kwargs={"context": "forkserver"})
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    assert np.isfinite(envs.step(envs.action_space.sample())[1]).all()
    envs.close()


# rendering


def test_what_is_rendered_are_the_noises_and_then_what_was_drawn():
    env = DiffusionHyperparameterEnv(gaussian(), render_mode="rgb_array", pictures=4)
    with pytest.raises(ValueError, match="call reset first"):
        env.render()
    env.reset(seed=0)
    noises = env.render()
    assert (noises.dtype, noises.ndim, noises.shape[-1]) == (np.uint8, 3, 3)
    env.step(np.zeros(4))
    drawn = env.render()
    assert (drawn != noises).any()
    env.step(np.array([-1, 0, 0, 1]))
    other = env.render()
    env.step(np.zeros(4))  # remembered, not drawn again
    assert (env.render() == drawn).all()
    assert (other != drawn).any()


def test_every_evaluation_of_an_episode_can_be_seen():
    env = TimestepEnv(gaussian(), num_steps=4, pictures=2, render_mode="rgb_array")
    env.reset(seed=1)
    frames = [env.render()]
    for _ in range(3):
        env.step(np.zeros(1))
        frames.append(env.render())
    assert all((a != b).any() for a, b in pairwise(frames))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_frame_has_three_channels_whatever_the_pictures_have(channels):
    drawing = GuidedModel(lambda x, t, c: 0 * x, prediction_type="sample", state_shape=(4, 4, channels))
    env = TimestepEnv(drawing, num_steps=3, pictures=2, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape[-1] == 3


def test_without_a_render_mode_there_is_a_hint_and_no_image(bandit):
    bandit.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert bandit.render() is None
    with pytest.raises(ValueError, match="render_mode must be one of rgb_array, got 'human'"):
        TimestepEnv(gaussian(), render_mode="human")


# actions


@pytest.mark.parametrize("number", [1.5, 100.0, np.inf])
def test_numbers_beyond_the_action_space_count_as_its_bounds(number):
    env = DiffusionHyperparameterEnv(gaussian(), pictures=2)
    env.reset(seed=0)
    chosen = [env.step(np.array([a, 0, -a, 0]))[-1]["hyperparameters"] for a in (1.0, number)]
    assert chosen[0] == chosen[1]

    walk = TimestepEnv(gaussian(), num_steps=3, pictures=2)
    reached = []
    for action in (2.0, number + 1):
        walk.reset(options={"batch": 0})
        walk.step(np.array([action]))
        reached.append(walk.timesteps())
    assert reached[0] == reached[1]


# callbacks


def test_callbacks_of_stable_baselines3_see_every_step_and_may_end_training(bandit):
    agent, seen = HyperparameterTuningAgent(bandit), Counting()
    told = []
    stats = agent.train(13, [seen, lambda metrics, episode: told.append(episode)])
    assert stats["episodes"] == seen.calls == 13
    assert told[-1] == 13
    assert seen.model is agent.model

    for stopping in (Counting(4), StopTrainingOnMaxEpisodes(4)):
        again = HyperparameterTuningAgent(bandit)
        assert again.train(17, stopping)["episodes"] == 4


def test_one_of_several_functions_may_end_training(bandit):
    told = []
    ends = [lambda metrics, episode: episode < 10, lambda metrics, episode: told.append(episode)]
    assert CEMAgent(bandit).train(50, ends)["episodes"] == 10
    assert told == [0, 10]


@pytest.mark.parametrize("normalize_env", [True, False])
def test_callbacks_that_evaluate_see_what_the_policy_sees(bandit, normalize_env):
    evaluates = EvalCallback(Monitor(bandit), eval_freq=8, n_eval_episodes=1, verbose=0)
    agent = HyperparameterTuningAgent(bandit, n_steps=8, batch_size=4, normalize_env=normalize_env)
    agent.train(16, CallbackList([evaluates]))
    assert evaluates.best_mean_reward > -np.inf
    seen = unwrap_vec_normalize(evaluates.eval_env)
    assert not seen.training
    if normalize_env:
        assert np.array_equal(seen.obs_rms.mean, agent._normalize.obs_rms.mean)


@pytest.mark.parametrize("callback", [3, "log", lambda locals_: True, Counting, [Counting(), 3]])
def test_what_is_no_callback_is_refused_before_anything_is_drawn(bandit, callback):
    with pytest.raises(ValueError, match="callback must be"):
        HyperparameterTuningAgent(bandit).train(10, callback)
    assert bandit.drawing.network.calls == 0


def test_a_search_has_no_steps_that_stable_baselines3_could_watch(bandit):
    with pytest.raises(ValueError, match=r"belong to HyperparameterTuningAgent.*Counting"):
        RandomAgent(bandit).train(10, Counting())
    assert bandit.drawing.network.calls == 0


def test_a_checkpoint_of_another_kind_of_file_is_refused_before_anything_is_drawn(bandit):
    with pytest.raises(ValueError, match=r"end in \.zip"):
        CEMAgent(bandit).train(10, checkpoint="agent.pt")
    assert bandit.drawing.network.calls == 0


# how many episodes


@pytest.mark.parametrize("pictures", [2, 4, 6, 8])
@pytest.mark.parametrize("episodes", [1, 4, 13])
def test_ppo_plays_as_many_episodes_as_it_was_asked_for(pictures, episodes):
    agent = HyperparameterTuningAgent(DiffusionHyperparameterEnv(gaussian(), pictures=pictures))
    before = {name: value.clone() for name, value in agent.model.policy.state_dict().items()}
    assert agent.train(episodes)["episodes"] == episodes
    assert any((value != before[name]).any() for name, value in agent.model.policy.state_dict().items())  # it learned


def test_whole_episodes_are_played_to_their_end():
    env = TimestepEnv(gaussian(), num_steps=4, pictures=4)
    stats = HyperparameterTuningAgent(env).train(7)
    assert (stats["episodes"], stats["total_timesteps"]) == (3, 9)


# what is said on the way


@pytest.mark.parametrize("agent", [HyperparameterTuningAgent, FixedAgent])
def test_a_verbose_agent_says_what_it_solves_for_before_it_trains(agent, bandit, capsys):
    agent(bandit, verbose=1).train(3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["converged", "converged", f"{agent.kind}:"]
    assert "8 images" in lines[0]  # two batches of four
    agent(bandit).train(3)
    assert capsys.readouterr().err == ""
