"""The agent's interface, its files, and its policy in MLX."""

import json
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from rl.closed_form import gaussian

from adaptive_diffusion.rl.baselines import CEMAgent
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.policy import load_policy
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.rl.timestep_environment import TimestepEnv


@pytest.fixture(scope="module")
def bandit() -> DiffusionHyperparameterEnv:
    return DiffusionHyperparameterEnv(gaussian(), pictures=4)


@pytest.fixture(scope="module")
def steps() -> TimestepEnv:
    return TimestepEnv(gaussian(domain="a", domains=("a", "b")), num_steps=4, pictures=4, batches=2)


@pytest.fixture(scope="module")
def trained(steps) -> HyperparameterTuningAgent:
    agent = HyperparameterTuningAgent(steps, seed=1)
    agent.train(60)
    return agent


def weights(agent: HyperparameterTuningAgent) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in agent.model.policy.state_dict().items()}


def test_none_stands_for_what_suits_the_length_of_an_episode(bandit, steps):
    one, many = (HyperparameterTuningAgent(env).get_config() for env in (bandit, steps))
    names = ("learning_rate", "n_steps", "batch_size", "initial_std", "parts")
    assert [one[name] for name in names] == [0.01, 10, 10, 0.5, 2]
    assert [many[name] for name in names] == [0.005, 30, 30, 0.3, 2]


def test_numbers_that_are_given_are_taken(bandit):
    agent = HyperparameterTuningAgent(
        env=bandit, learning_rate=3e-4, n_steps=2048, batch_size=64, normalize_env=True, num_envs=4
    )
    assert (agent.model.n_steps, agent.model.batch_size, agent.model.learning_rate) == (256, 64, 3e-4)
    assert agent.get_config()["n_steps"] == 2048


def test_the_configuration_says_what_is_used(bandit):
    agent = HyperparameterTuningAgent(bandit, n_steps=10, batch_size=64, num_envs=4)
    config = agent.get_config()
    assert (config["n_steps"], config["batch_size"]) == (16, 16)  # 4 environments of 2 parts
    assert (agent.model.n_steps, agent.model.batch_size) == (2, 16)
    assert HyperparameterTuningAgent(bandit, n_steps=2).model.n_steps == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"learning_rate": 0}, "learning_rate must be a number, greater than 0"),
        ({"learning_rate": 30}, "learning_rate must be .* at most 1"),
        ({"seed": 2**40}, "seed must be"),
        ({"n_steps": 1}, "n_steps must be a whole number, at least 2"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 2, got 0"),
        ({"initial_std": -1}, "initial_std must be"),
        ({"num_envs": 0}, "num_envs must be"),
        ({"parts": 0}, "parts must be a whole number, at least 1, got 0"),
        ({"parts": 4}, "parts must divide a batch of 4 images into 2 or more each, got 4"),
        ({"seed": -1}, "seed must be"),
        ({"eval_every": 0}, "eval_every must be"),
    ],
)
def test_bad_values_are_refused(bandit, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        HyperparameterTuningAgent(bandit, **arguments)


def test_another_environment_is_refused():
    with pytest.raises(ValueError, match=r"env must be a DiffusionHyperparameterEnv or a TimestepEnv .* got object"):
        HyperparameterTuningAgent(object())


def test_an_untrained_policy_is_the_prior(bandit, steps):
    for env in (bandit, steps):
        agent = HyperparameterTuningAgent(env)
        action, state = agent.predict(env.reset(seed=0)[0], deterministic=True)
        assert action.shape == env.action_space.shape
        assert np.abs(action).max() < 0.1
        assert state is None


def test_samples_are_drawn_by_the_agents_seed_and_move_no_training(steps):
    import torch

    observations = np.stack([steps.observation_space.sample() for _ in range(3)])
    sampled = []
    for seed in (4, 4, 5):
        agent = HyperparameterTuningAgent(steps, seed=seed)
        torch.rand(seed + len(sampled))  # what else runs
        before = torch.get_rng_state()
        sampled.append(np.stack([agent.predict(observations, False)[0] for _ in range(2)]))
        assert torch.equal(torch.get_rng_state(), before)
        assert agent.predict(observations[0], False)[0].shape == steps.action_space.shape

    assert np.array_equal(sampled[0], sampled[1])
    assert not np.array_equal(sampled[0], sampled[2])
    assert np.abs(sampled[0] - agent.predict(observations)[0]).max() > 0.01


def test_predictions_of_a_batch_are_those_of_its_rows(trained, steps):
    observations = np.stack([steps.observation_space.sample() for _ in range(3)])
    together = trained.predict(observations)[0]
    np.testing.assert_allclose(together, [trained.predict(row)[0] for row in observations], atol=1e-6)
    assert not np.array_equal(trained.predict(observations[0], False)[0], trained.predict(observations[0], False)[0])
    with pytest.raises(ValueError, match="an observation must have the shape"):
        trained.predict(np.zeros(3))


def test_a_file_brings_back_the_policy_and_its_record(trained, steps, tmp_path):
    trained.save(tmp_path / "models" / "agent.zip")
    other = HyperparameterTuningAgent(steps, seed=9)
    other.load(tmp_path / "models" / "agent.zip")
    for name, value in weights(trained).items():
        assert np.array_equal(weights(other)[name], value), name
    observation = steps.reset(seed=0)[0]
    assert np.array_equal(other.predict(observation)[0], trained.predict(observation)[0])
    assert other.record.summary() == trained.record.summary()
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["agent.zip"]


def test_the_best_choice_is_kept_by_the_environments_own_batches(bandit, tmp_path):
    agent, latest, chosen = HyperparameterTuningAgent(bandit, seed=1, learning_rate=0.03, parts=1), [], []

    def score(policy):
        scores = []
        for batch in range(bandit.noises.batches):
            observation, _ = bandit.reset(options={"batch": batch})
            scores.append(bandit.step(np.array(policy(observation)))[1])
        return float(np.mean(scores))

    def callback(metrics, episode):
        latest.append(score(agent._latest().policy))
        chosen.append(score(lambda seen: agent.predict(seen)[0]))

    agent.train(100, callback=callback)
    assert len(latest) == 11
    assert chosen[-1] - latest[-1] > 0.02  # so that it matters
    assert chosen[0] == latest[0]
    for (before, now), new in zip(pairwise(chosen), latest[1:], strict=True):
        assert now in (before, new)
        assert now >= before

    agent.save(tmp_path / "agent.zip")
    again = HyperparameterTuningAgent(bandit, parts=1)
    again.load(tmp_path / "agent.zip")
    assert score(load_policy(tmp_path / "agent.zip")) == chosen[-1]
    assert score(lambda seen: again.predict(seen)[0]) == chosen[-1]
    assert score(again._latest().policy) == latest[-1]
    again.train(10)
    assert score(lambda seen: again.predict(seen)[0]) >= chosen[-1]


def test_a_choice_is_replaced_if_the_latest_is_better_by_half_its_error(steps):
    agent = HyperparameterTuningAgent(steps, seed=1)
    agent._settle_choice()
    scores = agent._kept.scores
    rough = np.where(np.arange(len(scores)) % 2, 0.5, -0.4)  # 0.05 on average, with a standard error of 0.17
    for worse_by, replaced in ((rough, False), (rough + 0.1, True), (-0.05, False), (0.05, True)):
        agent._kept = kept = replace(agent._kept, scores=scores - worse_by)
        agent._settle_choice()
        assert (agent._kept is not kept) == replaced


@pytest.mark.parametrize("kind", ["bandit", "steps"])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_training_that_was_interrupted_goes_on_to_the_bit(kind, num_envs, request, tmp_path):
    env = request.getfixturevalue(kind)
    half = 20 * env.episode_length
    through = HyperparameterTuningAgent(env, seed=3, num_envs=num_envs)
    through.train(half)
    through.save(tmp_path / "half.zip")
    through.train(half)

    again = HyperparameterTuningAgent(env, seed=4, num_envs=num_envs)
    again.load(tmp_path / "half.zip")
    stats = again.train(half)
    for name, value in weights(through).items():
        assert np.array_equal(weights(again)[name], value), name
    assert again.record.returns == through.record.returns
    assert (stats["episodes"], stats["total_timesteps"]) == (40, 2 * half)
    assert [e["score"] for e in stats["evaluations"]] == [e.score for e in through.record.evaluations]
    assert stats["model_evaluations"] == through.record.asked


def test_a_checkpoint_is_what_training_can_go_on_from_after_a_crash(steps, tmp_path):
    def crash(metrics, episode):
        if episode == 20:
            raise KeyboardInterrupt

    through = HyperparameterTuningAgent(steps, seed=5)
    through.train(90)
    broken = HyperparameterTuningAgent(steps, seed=5)
    with pytest.raises(KeyboardInterrupt):
        broken.train(90, callback=crash, checkpoint=tmp_path / "c.zip")
    again = HyperparameterTuningAgent(steps, seed=5)
    again.load(tmp_path / "c.zip")
    assert len(again.record.returns) == 20
    again.train(30)
    for name, value in weights(through).items():
        assert np.array_equal(weights(again)[name], value), name


def test_the_policy_is_the_same_in_mlx(trained, steps, tmp_path):
    trained.save(tmp_path / "agent.zip")
    observations = np.random.default_rng(0).normal(0, 2, (200, *steps.observation_space.shape)).astype(np.float32)
    expected = trained.predict(observations)[0]
    for policy in (trained.export(), load_policy(tmp_path / "agent.zip", steps)):
        np.testing.assert_allclose(np.array(policy(observations)), expected, atol=1e-5)
        np.testing.assert_allclose(np.array(policy(observations[0])), expected[0], atol=1e-5)
    assert np.ptp(expected) > 0.01
    with pytest.raises(ValueError, match="the policy observes 9 numbers"):
        policy(np.zeros(4))


def test_without_normalisation_it_is_the_same_too(bandit, tmp_path):
    agent = HyperparameterTuningAgent(bandit, normalize_env=False)
    agent.train(10)
    observations = np.random.default_rng(0).uniform(0, 1, (20, *bandit.observation_space.shape))
    np.testing.assert_allclose(np.array(agent.export()(observations)), agent.predict(observations)[0], atol=1e-5)


def test_mlx_needs_no_pytorch_for_it(trained, tmp_path):
    trained.save(tmp_path / "agent.zip")
    code = (
        "import sys; from adaptive_diffusion.rl.policy import load_policy;"
        f"print(load_policy({str(tmp_path / 'agent.zip')!r})([0.0] * 9).tolist()); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), trained.predict(np.zeros(9))[0], atol=1e-5)


def test_a_policy_for_another_environment_is_refused_and_the_agent_stays_as_it_was(trained, bandit, tmp_path):
    trained.save(tmp_path / "agent.zip")
    agent = HyperparameterTuningAgent(bandit)
    before = weights(agent)
    sentence = "made for environment=TimestepEnv, and this environment has environment=DiffusionHyperparameterEnv"
    with pytest.raises(ValueError, match=sentence):
        agent.load(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=sentence):
        load_policy(tmp_path / "agent.zip", bandit)
    assert all(np.array_equal(value, weights(agent)[name]) for name, value in before.items())


def test_a_policy_of_another_make_is_refused(trained, steps, tmp_path):
    trained.save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"does not fit this agent \(it was trained with normalize_env=True"):
        HyperparameterTuningAgent(steps, normalize_env=False).load(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="parts x num_envs were 2 in its training, this one has 2 x 2"):
        HyperparameterTuningAgent(steps, num_envs=2).load(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="holds an agent of the kind 'ppo', and this one is 'cem'"):
        CEMAgent(steps).load(tmp_path / "agent.zip")
    CEMAgent(steps).save(tmp_path / "cem.zip")
    with pytest.raises(ValueError, match="'cem', which has no policy network"):
        load_policy(tmp_path / "cem.zip")


def test_files_that_are_none_of_ours_are_refused(trained, tmp_path):
    trained.save(tmp_path / "agent.zip")
    whole = (tmp_path / "agent.zip").read_bytes()

    def refused(name: str, sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            trained.load(tmp_path / name)

    refused("nothing.zip", "there is no agent at")
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    refused("half.zip", "damaged or another kind of file")
    (tmp_path / "pickle.zip").write_bytes(pickle.dumps({"policy": 1}))
    refused("pickle.zip", "damaged or another kind of file")
    trained.model.save(tmp_path / "sb3.zip")
    refused("sb3.zip", "no agent of this project")
    for name, content in (("agent.json", None), ("tensors.safetensors", b"x")):
        with zipfile.ZipFile(tmp_path / "agent.zip") as source, zipfile.ZipFile(tmp_path / "new.zip", "w") as target:
            for entry in source.namelist():
                data = source.read(entry)
                if entry == name:
                    data = content or data.replace(b'"timesteps": 60', b'"timesteps": 61')
                target.writestr(entry, data)
        refused("new.zip", "was changed after it was written")
    with pytest.raises(ValueError, match=r"must end in \.zip, got 'agent\.pt'"):
        trained.save(tmp_path / "agent.pt")
