"""Agents report what they cost, repeat themselves, choose what they were trained for, and play side by side."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces
from rl.closed_form import gaussian

from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.io import archive
from adaptive_diffusion.rl import lockstep
from adaptive_diffusion.rl.agent_file import read_agent, write_agent
from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.rl.reward import HybridReward, QualityReward, SpeedReward
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from adaptive_diffusion.rl.vector import LockstepVecEnv

AGENTS = [HyperparameterTuningAgent, CEMAgent, RandomAgent, FixedAgent]


@pytest.fixture(scope="module")
def bandit() -> DiffusionHyperparameterEnv:
    return DiffusionHyperparameterEnv(gaussian())


@pytest.fixture(scope="module")
def steps() -> TimestepEnv:
    return TimestepEnv(gaussian(), num_steps=5, pictures=8, batches=2)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_budget_of_model_evaluations_ends_training(agent, bandit):
    stats = agent(bandit, seed=0).train(10**6, max_evaluations=2000)
    with pytest.raises(ValueError, match="max_evaluations must be a whole number, at least 1, got 0"):
        agent(bandit).train(1, max_evaluations=0)
    assert 2000 <= stats["model_evaluations"] < 2000 + 2 * 8 * 20  # random search finishes both batches
    assert stats["model_evaluations_computed"] <= stats["model_evaluations"] + 2 * 80


def test_agents_on_one_environment_share_its_memory_but_count_apart(bandit):
    first, second = (FixedAgent(bandit).train(10) for _ in range(2))
    assert first["model_evaluations"] == second["model_evaluations"] == 10 * 8 * 10
    assert second["model_evaluations_computed"] == 0


def test_parts_of_batches_are_the_same_pictures_in_smaller_batches(steps):
    whole, part = steps.noises, steps.split(4).noises
    assert (part.pictures, part.batches) == (2, 8)
    noise = np.array(whole.x_T(1))
    np.testing.assert_array_equal(np.concatenate([np.array(part.x_T(batch)) for batch in range(4, 8)]), noise)
    errors = [part.errors(4 + i, noise[2 * i : 2 * i + 2]) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(errors), whole.errors(1, noise))
    assert steps.held_out().split(4).noises.seed == whole.seed + 1


def test_a_part_can_be_split_again(steps):
    quarters = steps.split(2).split(2)
    assert (quarters.noises.pictures, quarters.noises.batches) == (2, 8)
    assert steps.split(2).noises.pictures == 4


@pytest.mark.parametrize("agent", [HyperparameterTuningAgent, CEMAgent])
def test_an_episode_costs_the_same_in_whatever_parts_it_is_played(agent, steps):
    runs = [agent(steps, parts=parts).train(20 * 4) for parts in (1, 2, 4)]
    assert [(run["episodes"], run["total_timesteps"]) for run in runs] == [(20, 80)] * 3
    if agent is CEMAgent:
        assert [run["model_evaluations"] for run in runs] == [20 * 5 * 8] * 3
    else:  # and before each of three evaluations it plays both batches; another episode has begun
        assert [run["model_evaluations"] for run in runs] == [(20 + 3 * 2) * 5 * 8 + 8] * 3


@pytest.mark.parametrize("agent", AGENTS)
def test_training_repeats_itself(agent, steps):
    runs = [agent(steps, seed=7).train(40) for _ in range(2)]
    for run in runs:
        run.pop("seconds"), run.pop("model_evaluations_computed")
    assert runs[0] == runs[1]
    if agent is not FixedAgent:
        other = agent(steps, seed=8).train(40)
        assert other["final_score"] != runs[0]["final_score"]


@pytest.mark.parametrize("agent", [CEMAgent, RandomAgent, FixedAgent])
def test_a_search_that_was_saved_goes_on_to_the_bit(agent, steps, tmp_path):
    through = agent(steps, seed=2)
    through.train(15 * 4)
    through.save(tmp_path / "a.zip")
    through.predict(np.zeros(steps.observation_space.shape), deterministic=False)  # asking changes nothing
    through.train(15 * 4)
    again = agent(steps, seed=3)
    again.load(tmp_path / "a.zip")
    again.train(15 * 4)
    assert np.array_equal(again.best, through.best)
    assert again.record.returns == through.record.returns
    assert bool(through.tried) == (agent is not FixedAgent)  # which tries the same again


KNOWN = gaussian(domain="a", domains=("a", "b"))
OTHERWISE = {
    "domain": lambda: TimestepEnv(gaussian(domain="b", domains=("a", "b")), num_steps=5, pictures=8, batches=2),
    "model": lambda: TimestepEnv(replace(KNOWN, identity="m2"), num_steps=5, pictures=8, batches=2),
    "reward": lambda: TimestepEnv(KNOWN, reward=SpeedReward(), num_steps=5, pictures=8, batches=2),
    "noises": lambda: TimestepEnv(KNOWN, num_steps=5, pictures=8, batches=3),
    "prior": lambda: TimestepEnv(KNOWN, grid=PowerGrid(1), num_steps=5, pictures=8, batches=2),
    "num_steps": lambda: TimestepEnv(KNOWN, num_steps=6, pictures=8, batches=2),
}


@pytest.mark.parametrize("difference", OTHERWISE)
@pytest.mark.parametrize("agent", [HyperparameterTuningAgent, CEMAgent])
def test_training_does_not_go_on_where_its_scores_mean_something_else(agent, difference, tmp_path):
    agent(TimestepEnv(KNOWN, num_steps=5, pictures=8, batches=2)).save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=f"was made for {difference}=.*, and this environment has {difference}="):
        agent(OTHERWISE[difference]()).load(tmp_path / "agent.zip")


@pytest.mark.parametrize("agent", [HyperparameterTuningAgent, CEMAgent])
def test_training_does_not_go_on_with_other_parts(agent, steps, tmp_path):
    agent(steps, parts=4).save(tmp_path / "agent.zip")
    for parts in (1, 2):
        with pytest.raises(ValueError, match=f"trained with parts=4, and this agent has {parts}"):
            agent(steps, parts=parts).load(tmp_path / "agent.zip")


def test_an_agents_archive_cannot_fill_the_memory_nor_fail_in_the_words_of_zip(tmp_path, monkeypatch):
    write_agent(tmp_path / "agent.zip", {}, {"blank": np.zeros(1_000_000, np.float32)})
    content = bytearray((tmp_path / "agent.zip").read_bytes())
    read_agent(tmp_path / "agent.zip")
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(ValueError, match=r"agent\.zip would unpack to \d+ bytes"):
        read_agent(tmp_path / "agent.zip")

    monkeypatch.undo()
    for place, value, trouble in ((6, 1, "encrypted"), (8, 99, "damaged"), (60, 255, "damaged")):  # of each entry
        other = bytearray(content)
        for sign, further in ((b"PK\3\4", 0), (b"PK\1\2", 2 * (place < 60))):
            at = content.index(sign) + place + further
            other[at] = value
        (tmp_path / "other.zip").write_bytes(other)
        with pytest.raises(ValueError, match=trouble):
            read_agent(tmp_path / "other.zip")


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("lacking", ["record", "paths", "rng"])
def test_an_agent_stays_as_it_was_if_its_file_is_not_whole(agent, lacking, steps, tmp_path):
    trained, fresh = agent(steps, seed=3), agent(steps, seed=4)
    trained.train(12 * 4)
    trained.save(tmp_path / "agent.zip")
    header, tensors = read_agent(tmp_path / "agent.zip")
    if lacking == "rng":
        del header["state"]["numpy_rng" if agent.kind == "ppo" else "rng"]
    else:
        del header[lacking]
    write_agent(tmp_path / "torn.zip", {k: v for k, v in header.items() if k not in ("format", "hash")}, tensors)
    before = fresh._state()
    with pytest.raises(ValueError, match=r"does not fit this agent \(it lacks '.*'\); train it again"):
        fresh.load(tmp_path / "torn.zip")
    after = fresh._state()
    assert json.dumps(after[0]) == json.dumps(before[0])
    assert after[1].keys() == before[1].keys()
    assert all(np.array_equal(value, before[1][name]) for name, value in after[1].items())
    assert (fresh.record.timesteps, fresh.record.returns) == (0, [])


def test_the_chosen_hyperparameters_are_measured_on_other_noises(bandit):
    agent = HyperparameterTuningAgent(bandit, seed=0)
    agent.train(60)
    results = agent.optimize_hyperparameters(num_episodes=5)
    assert len(results["episodes"]) == 5
    assert {str(e["hyperparameters"]) for e in results["episodes"]} == {str(results["best_hyperparameters"])}
    assert results["evaluations"] == results["best_hyperparameters"]["num_steps"]

    held_out, qualities = bandit.held_out(), []
    for batch in range(4):
        observation, _ = held_out.reset(options={"batch": batch})
        qualities.append(held_out.step(agent.predict(observation)[0])[4]["quality"])
    assert results["best_quality"] == pytest.approx(np.mean(qualities), abs=1e-5)
    assert results["best_quality_error"] > 0


class Unequal(DiffusionHyperparameterEnv):
    """The reward is the number of steps, and 50 more on batch 0."""

    played: list[int]

    def step(self, action):
        observation, _, over, cut, info = super().step(action)
        self.played.append(self.batch)
        steps = info["hyperparameters"]["num_steps"]
        info["scores"] = np.full(self.noises.pictures, steps + 50.0 * (self.batch == 0))
        return observation, float(info["scores"].mean()), over, cut, info


@pytest.fixture
def unequal() -> Unequal:
    env = Unequal(gaussian(), pictures=2)
    env.played = []
    return env


def test_a_choice_that_met_the_easier_batch_does_not_win(unequal):
    agent = RandomAgent(unequal, seed=1)
    results = agent.optimize_hyperparameters(num_episodes=12, deterministic=False)
    tried = {(e["hyperparameters"]["num_steps"], e["batch"]) for e in results["episodes"]}
    most = max(steps for steps, _ in tried)
    assert (most, 0) not in tried  # what won by its episode's own reward would be another one
    assert results["best_hyperparameters"]["num_steps"] == most


def test_random_search_tries_every_sequence_on_all_batches(unequal):
    agent = RandomAgent(unequal, seed=1, eval_every=100)
    agent.train(20)
    assert unequal.played[4:24] == [0, 1] * 10  # after the untrained agent on four held-out batches
    first, second = np.array(agent.record.returns).reshape(-1, 2).T
    np.testing.assert_allclose(first - second, 50)
    assert unequal.knobs.configuration(agent.best[0]).num_steps == max(second)


def test_a_generation_is_compared_on_one_batch(unequal):
    CEMAgent(unequal, population=4, elites=2, eval_every=100).train(16)
    assert unequal.played[4:20] == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_timesteps_are_chosen_too(steps):
    agent = CEMAgent(steps, seed=0)
    agent.train(50 * 4)
    results = agent.optimize_hyperparameters(2)
    timesteps = results["best_hyperparameters"]["timesteps"]
    assert len(timesteps) == results["best_hyperparameters"]["num_steps"] == 5
    assert np.all(np.diff(timesteps) < 0)
    assert results["best_quality"] > 0.3


def test_the_callback_is_told_and_can_end_training(steps):
    told = []

    def callback(metrics, episode):
        told.append((episode, metrics))
        return episode < 20

    agent = HyperparameterTuningAgent(steps, seed=0)
    stats = agent.train(400, callback=callback)
    assert [episode for episode, _ in told][:3] == [0, 10, 20]
    assert stats["episodes"] <= 21
    _, metrics = told[2]
    assert metrics["train/return"] == pytest.approx(np.mean(agent.record.returns[10:20]))
    assert metrics["held_out/score"] == stats["evaluations"][2]["score"]
    assert metrics["train/model_evaluations"] >= 20 * 5 * 8


def test_evaluations_become_rarer_after_the_first_twenty(bandit):
    stats = FixedAgent(bandit, eval_every=2).train(100)
    assert [e["episode"] for e in stats["evaluations"]] == [*range(0, 41, 2), 60, 80, 100]


def test_an_evaluation_environment_of_another_kind_is_refused(bandit, steps):
    with pytest.raises(ValueError, match="eval_env was made for environment=TimestepEnv, and this"):
        CEMAgent(bandit).train(10, eval_env=steps)
    wider = DiffusionHyperparameterEnv(gaussian())
    wider.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
    with pytest.raises(ValueError, match="made for observation=3, and this environment has observation=2"):
        CEMAgent(bandit).train(10, eval_env=wider)
    with pytest.raises(ValueError, match="total_timesteps must be a whole number, at least 1"):
        CEMAgent(bandit).train(0)


def test_a_given_evaluation_environment_is_used(bandit):
    held_out = DiffusionHyperparameterEnv(gaussian(), reward=QualityReward(), noise_seed=5, batches=3)
    agent = CEMAgent(bandit)
    stats = agent.train(10, eval_env=held_out)
    assert len(agent.record.evaluations[0].scores) == 3 * 8
    assert held_out.spent.asked > 0
    assert stats["final_score"] == stats["final_quality"]


@pytest.mark.parametrize("loaded", [False, True])
def test_held_out_scores_of_other_images_are_not_compared(bandit, loaded, tmp_path):
    def evaluating(**changes):
        return DiffusionHyperparameterEnv(gaussian(), **{"noise_seed": 5, "batches": 3} | changes)

    agent = CEMAgent(bandit, eval_every=1)
    agent.train(10, eval_env=evaluating())
    if loaded:
        agent.save(tmp_path / "a.zip")
        agent = CEMAgent(bandit, eval_every=1)
        agent.load(tmp_path / "a.zip")
    other = None if loaded else evaluating(noise_seed=6)
    for eval_env in (other, evaluating(batches=1)):
        with pytest.raises(
            ValueError, match=r"evaluated on 24 held-out images so far.*give eval_env as in its earlier"
        ):
            agent.train(10, eval_env=eval_env)
    assert agent.train(10, eval_env=evaluating())["episodes"] == 20


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("kind", ["bandit", "steps"])
def test_observations_of_several_environments_get_an_action_each(agent, kind, request):
    env = request.getfixturevalue(kind)
    made = agent(env)
    one, _ = env.reset(seed=0)
    action, _ = made.predict(one)
    np.testing.assert_allclose(made.predict(np.stack([one] * 3))[0], [action] * 3, atol=1e-6)
    for wrong in (one[:-1], one[None, None]):
        with pytest.raises(ValueError, match="an observation must have the shape"):
            made.predict(wrong)


def test_an_agent_of_an_environment_of_numpy_numbers_is_that_of_plain_ones(tmp_path):
    def made(of_count, of_share):
        env = DiffusionHyperparameterEnv(
            gaussian(),
            min_steps=of_count(2),
            num_steps=of_count(3),
            max_steps=of_count(5),
            pictures=of_count(2),
            reward=HybridReward(of_share(0.5)),
        )
        return CEMAgent(env, seed=of_count(1))

    agent = made(np.int64, np.float32)
    agent.train(2)
    agent.save(tmp_path / "a.zip")
    other = made(int, float)
    other.load(tmp_path / "a.zip")
    assert other.record.returns == agent.record.returns


def test_the_vectorised_form_takes_options_once_and_renders():
    vector = LockstepVecEnv(TimestepEnv(gaussian(), num_steps=3, pictures=2, batches=50, render_mode="rgb_array"), 2)
    vector.seed(0)
    vector.set_options([{"batch": 7}, {"batch": 31}])
    vector.reset()
    assert vector.get_attr("batch") == [7, 31]
    assert vector.render().ndim == 3
    vector.reset()
    assert vector.get_attr("batch") != [7, 31]


@pytest.mark.parametrize("kind", ["bandit", "steps"])
def test_the_vectorised_form_plays_the_episodes_of_each_seed(kind, request):
    env = request.getfixturevalue(kind)
    rng = np.random.default_rng(0)
    count = 3 * env.episode_length
    actions = rng.normal(0, 0.5, (count, 3, *env.action_space.shape)).astype(np.float32)
    vector = LockstepVecEnv(env, 3)
    vector.seed(10)
    observations, rewards = [vector.reset()], []
    for action in actions:
        observation, reward, ended, infos = vector.step(action)
        observations.append(observation)
        rewards.append(reward)
        assert all(("terminal_observation" in info) == over for info, over in zip(infos, ended, strict=True))
    for i in range(3):
        alone = env.sibling()
        observation, _ = alone.reset(seed=10 + i)
        for step in range(count):
            np.testing.assert_allclose(observations[step][i], observation, atol=1e-4)
            observation, reward, over, _, _ = alone.step(actions[step, i])
            np.testing.assert_allclose(rewards[step][i], reward, atol=1e-3)
            if over:
                observation, _ = alone.reset()


def test_the_vectorised_form_evaluates_the_model_once_for_all(steps):
    vector = LockstepVecEnv(steps, 4)
    vector.seed(0)
    vector.reset()
    denoiser = steps.drawing.network
    denoiser.calls = denoiser.pictures = 0
    vector.step(np.zeros((4, 1), np.float32))
    assert (denoiser.calls, denoiser.pictures) == (1, 4 * 8)


@pytest.mark.parametrize("kind", [DiffusionHyperparameterEnv, TimestepEnv])
def test_where_seconds_count_everything_is_timed_in_batches_of_one_size_after_a_warm_up(kind, monkeypatch):
    sizes, clock = [], SimpleNamespace(now=0.0)
    monkeypatch.setattr(lockstep, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    drawing = gaussian()

    def network(x, t, condition=None):
        sizes.append(len(x))
        clock.now += 100.0 if len(sizes) == 1 else 1.0
        return drawing.network(x, t, condition)

    env = kind(replace(drawing, network=network), reward=SpeedReward("seconds"), pictures=4, batches=1)
    env.noises.errors(0, np.zeros((4, 4, 4, 3)))  # solves for the converged images
    sizes.clear()
    vector = LockstepVecEnv(env, 3)
    vector.reset()
    for _ in range(env.episode_length):
        _, rewards, _, infos = vector.step(np.zeros((3, *env.action_space.shape), np.float32))
    assert set(sizes) == {4}
    assert sum(sizes) == env.spent.computed
    assert [info["seconds"] for info in infos] == [info["evaluations"] / 4 for info in infos]  # none took 100
    assert rewards.tolist() == [0, 0, 0]
