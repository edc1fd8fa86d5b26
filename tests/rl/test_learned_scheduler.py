"""A policy draws what it drew in the environment; without PyTorch; and only what it was trained for."""

import math
import re
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics
from rl.closed_form import gaussian
from rl.policy_files import random_policy
from tiny import ROOT, tiny_model

from adaptive_diffusion import errors
from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.diffusion.guidance import identity_of
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.grids.spacings import KarrasGrid
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.rl import learned_scheduler, policy
from adaptive_diffusion.rl.agent_file import read_agent
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.learned_scheduler import SHIPPED, LearnedScheduler
from adaptive_diffusion.rl.policy import load_policy
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.standard import StandardSampler

STEPS = 6


def environment(drawing=None, **more) -> TimestepEnv:
    drawing = drawing or gaussian(domain="a", domains=("b", "a"), identity="gauss")
    return TimestepEnv(drawing, **{"num_steps": STEPS, "pictures": 3, "batches": 2, **more})


def scheduler_of(path, env: TimestepEnv, **more) -> LearnedScheduler:
    return LearnedScheduler(str(path), domain=env.drawing.domain, **env.drawing.settings, **more)


def played(path, env: TimestepEnv, batch: int):
    """The clean prediction that an episode ends with, and what its last step told."""
    policy, over = load_policy(path, env), False
    seen, _ = env.reset(options={"batch": batch})
    while not over:
        seen, _, over, _, info = env.step(np.array(policy(seen)))
    return np.array(env._states), info


def drawn(scheduler: LearnedScheduler, env: TimestepEnv, batch: int):
    return StandardSampler(scheduler).run(env.drawing, env.noises.x_T(batch))


@pytest.mark.parametrize("model", ["closed form", "network"])
def test_it_draws_the_pictures_that_the_environment_draws_with_the_policy(model, tmp_path):
    drawing = drawing_of(tiny_model(), "abstract") if model == "network" else None
    env = environment(drawing, grid=KarrasGrid())
    path = random_policy(tmp_path / "p.zip", env)
    scheduler = scheduler_of(path, env)
    for batch in (0, 1):
        images, info = played(path, env, batch)
        scheduler.set_timesteps(STEPS)
        np.testing.assert_allclose(scheduler.timesteps, KarrasGrid()(env.schedule, STEPS))
        result = drawn(scheduler, env, batch)
        np.testing.assert_allclose(np.array(result.images), images, atol=1e-5)
        np.testing.assert_allclose(result.timesteps, info["hyperparameters"]["timesteps"], rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(scheduler.timesteps, result.timesteps)
        assert np.abs(result.timesteps[1:] - KarrasGrid()(env.schedule, STEPS)[1:]).max() > 20
        assert result.evaluations.tolist() == [STEPS] * 3


def test_what_the_batch_shows_decides_the_timesteps(tmp_path):
    env = environment(drawing_of(tiny_model(), "abstract"))
    path = random_policy(tmp_path / "p.zip", env)
    one, other = (drawn(scheduler_of(path, env), env, batch).timesteps for batch in (0, 1))
    assert one != other


def test_a_policy_that_stops_ends_the_run_as_it_ends_the_episode(tmp_path):
    env = environment(stopping=True)
    path = random_policy(tmp_path / "p.zip", env, stop_at=0.6)
    images, info = played(path, env, 0)
    scheduler = scheduler_of(path, env)
    assert info["evaluations"] == 4
    for _ in range(2):  # the second time after the same policy stopped, without set_timesteps
        result = drawn(scheduler, env, 0)
        assert result.evaluations.tolist() == [info["evaluations"]] * 3
        assert len(scheduler) == info["evaluations"]
        np.testing.assert_allclose(np.array(result.images), images, atol=1e-5)
    scheduler.set_timesteps()
    assert len(scheduler) == STEPS


def test_a_pipeline_draws_again_after_a_policy_stopped(tmp_path):
    env = environment(stopping=True)
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env, stop_at=0.6), env)
    pipeline = DiffusionPipeline(env.drawing.network, scheduler, image_size=env.drawing.state_shape[:2])
    images = pipeline.generate(3, seed=0)
    assert len(scheduler) < STEPS
    assert mx.array_equal(pipeline.generate(3, seed=0), images)


def test_a_pipeline_sets_it_to_what_the_model_was_trained_with(tmp_path):
    env = environment(drawing_of(tiny_model(), "abstract"))
    scheduler = LearnedScheduler(str(random_policy(tmp_path / "p.zip", env)), domain="abstract")  # of epsilon
    pipeline = DiffusionPipeline(env.drawing.network, scheduler, image_size=None)
    assert scheduler.config["prediction_type"] == env.drawing.prediction_type == "v_prediction"
    assert np.isfinite(np.array(pipeline.generate(1, seed=0, domain="abstract"))).all()
    assert len(scheduler) == STEPS
    with pytest.raises(Unusable, match="was trained for domain=abstract, not portraits"):
        pipeline.generate(1, seed=0, domain="portraits")


def test_what_was_taken_from_the_timesteps_stays_as_it_was(tmp_path):
    env = environment(stopping=True)
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env, stop_at=0.6), env)
    prior = np.array(scheduler.timesteps)
    rest, whole, live = scheduler.timesteps[1:], np.asarray(scheduler.timesteps), scheduler.timesteps
    result = drawn(scheduler, env, 1)
    np.testing.assert_array_equal(rest, prior[1:])
    np.testing.assert_array_equal(whole, prior)
    assert tuple(live) == result.timesteps == tuple(scheduler.timesteps)
    assert live.shape == (len(result.timesteps),) == (len(scheduler),)
    assert live.tolist() == list(result.timesteps)
    np.testing.assert_array_equal(1 - live, 1 - np.array(result.timesteps))
    assert live[-1] == live.min() == result.timesteps[-1]


def test_the_quality_guided_sampler_draws_the_same_and_pictures_may_leave(tmp_path):
    env = environment()
    path = random_policy(tmp_path / "p.zip", env)
    scheduler = scheduler_of(path, env)
    expected = np.array(drawn(scheduler, env, 0).images)
    whole = QualityGuidedSampler(scheduler, early_stopping=False).run(env.drawing, env.noises.x_T(0))
    np.testing.assert_allclose(np.array(whole.images), expected, atol=1e-5)
    early = QualityGuidedSampler(scheduler, quality_threshold=0.9, patience=1, min_steps=2)
    assert early.run(env.drawing, env.noises.x_T(0)).evaluations.max() <= STEPS


def test_a_policy_that_may_stop_leaves_no_picture_unfinished(tmp_path):
    env = environment(stopping=True)
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env, stop_at=0.6), env)
    with pytest.raises(
        ValueError, match=r"may end the run before .* finished; take sampler=standard, sampler\.finish=0"
    ):
        QualityGuidedSampler(scheduler, quality_threshold=0.48, patience=1, min_steps=1, finish=2)
    for settings in ({"finish": 0}, {"early_stopping": False}):
        early = QualityGuidedSampler(scheduler, quality_threshold=0.48, patience=1, min_steps=1, **settings)
        assert early.run(env.drawing, env.noises.x_T(0)).evaluations.max() == 4


@pytest.mark.parametrize("stopping", [False, True])
def test_steps_that_are_taken_by_hand_draw_what_a_sampler_draws(stopping, tmp_path):
    env = environment(stopping=stopping)
    stops = {"stop_at": 0.6} if stopping else {}
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env, **stops), env)
    expected = drawn(scheduler, env, 0)

    for _ in range(2):  # after the sampler, and after the same steps by hand
        x_t = env.noises.x_T(0)
        for t in scheduler.timesteps:
            x_t = scheduler.step(env.drawing.network(x_t, np.full(len(x_t), t)), t, x_t)
        assert tuple(scheduler.timesteps) == pytest.approx(expected.timesteps)
        np.testing.assert_allclose(np.array(x_t), np.array(expected.images), atol=1e-5)


def test_pictures_that_stay_go_on_alone(tmp_path):
    env = environment()
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env), env)
    x_t, count = env.noises.x_T(0), 3
    for index, t in enumerate(scheduler.timesteps):
        prediction = env.drawing.network(x_t, np.full(len(x_t), t))
        x_t = scheduler.step(prediction, t, x_t)
        if index == 2:
            scheduler.select(np.array([True, False, True]))
            x_t, count = x_t[np.array([0, 2]).tolist()], 2
    assert x_t.shape[0] == count == 2
    assert np.isfinite(np.array(x_t)).all()


def test_predictions_of_nan_are_told_of_at_once(tmp_path):
    env = environment()
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env), env)
    x = env.noises.x_T(0)
    with pytest.raises(FloatingPointError, match="at timestep 999 hold NaN or infinity"):
        scheduler.step(x * math.nan, scheduler.timesteps[0], x)


def test_steps_are_taken_in_their_order(tmp_path):
    env = environment()
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env), env)
    x = env.noises.x_T(0)
    scheduler.step(x, scheduler.timesteps[0], x)
    scheduler.step(x, scheduler.timesteps[1], x)
    with pytest.raises(ValueError, match=r"timestep [\d.]+ is not due"):
        scheduler.step(x, scheduler.timesteps[1], x)


def test_its_configuration_builds_it_again(tmp_path):
    env = environment()
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env), env, num_inference_steps=STEPS)
    again = LearnedScheduler.from_config(scheduler.config)
    assert again.config == scheduler.config
    assert drawn(again, env, 0).timesteps == drawn(scheduler, env, 0).timesteps
    assert StandardSampler(scheduler).origin == f"{tmp_path}/p.zip"
    random_policy(tmp_path / "p.zip", env, trained="longer")
    assert LearnedScheduler.from_config(scheduler.config).config != scheduler.config  # the file is another one now


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"domain": "b"},
            "for domain=a, not b; train one: python train.py task=policy agent=ppo domain=general domain.name=b",
        ),
        ({"num_inference_steps": 9}, "was trained for 6 steps, not 9; .* domain.name=a task.num_steps=9"),
        ({"model": "other"}, "was trained for the model gauss guidance 1, and this one is other guidance 1"),
        ({"model": "gauss", "guidance_scale": 2.0}, "model gauss guidance 1, and this one is gauss guidance 2"),
        ({"path": "nowhere.zip"}, "there is no agent at nowhere.zip"),
        ({"trained_betas": [0.1, 2]}, "betas"),
    ],
)
def test_a_policy_for_something_else_is_refused(changes, sentence, tmp_path):
    path = random_policy(tmp_path / "p.zip", environment())
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # with its command
        LearnedScheduler(**{"path": str(path), "domain": "a", **changes})
    assert re.search(sentence, errors.sentence(refused.value))


@pytest.mark.parametrize(
    ("draws", "warned"),
    [
        (("gauss", "a", 1.0), ""),
        (("gauss", "a", 2), "is for the model gauss guidance 1, and gauss guidance 2 draws with it"),
        (("other", "a", 1), "is for the model gauss guidance 1, and other guidance 1 draws with it"),
        (("gauss", None, 2), ""),  # not settled yet
        (("", None, None), ""),
    ],
)
def test_it_warns_of_another_model_or_guidance_than_its_own(draws, warned, tmp_path, caplog):
    env = environment()
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env), env, model="gauss")
    scheduler.suit(*draws)
    assert caplog.text.endswith(f"{warned}\n") if warned else not caplog.text


def test_a_policy_is_loaded_for_an_environment_in_wrappers(tmp_path):
    env = environment()
    path = random_policy(tmp_path / "p.zip", env)
    load_policy(path, RecordEpisodeStatistics(env))
    with pytest.raises(ValueError, match="was made for environment=TimestepEnv"):
        load_policy(path, RecordEpisodeStatistics(DiffusionHyperparameterEnv(gaussian())))


def test_what_is_no_policy_of_timesteps_is_refused(tmp_path):
    path = random_policy(tmp_path / "p.zip", DiffusionHyperparameterEnv(gaussian()))
    with pytest.raises(ValueError, match="was trained in DiffusionHyperparameterEnv, not in TimestepEnv"):
        LearnedScheduler(str(path), domain="a")
    path = random_policy(tmp_path / "cem.zip", environment(), kind="cem")
    with pytest.raises(ValueError, match="'cem', which has no policy network"):
        LearnedScheduler(str(path), domain="a")


def test_timesteps_of_ones_own_and_other_numbers_of_steps_are_refused(tmp_path):
    env = environment()
    scheduler = scheduler_of(random_policy(tmp_path / "p.zip", env), env)
    with pytest.raises(ValueError, match="leave grid and init_image out"):
        scheduler.set_timesteps(timesteps=[999, 0])
    with pytest.raises(ValueError, match="was trained for 6 steps, got 7"):
        scheduler.set_timesteps(7)


def test_without_a_path_one_that_fits_is_found_the_users_own_before_the_shipped(tmp_path, monkeypatch):
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    monkeypatch.setattr(learned_scheduler, "SHIPPED", shipped)

    def found(**more) -> str:
        given = {"trained": str(own), "model": "gauss", "domain": "a", **more}
        return str(LearnedScheduler(**given).file.relative_to(tmp_path))

    with pytest.raises(Unusable, match="no policy was trained for domain=a of the model gauss guidance 1") as none:
        found()
    command = "python train.py task=policy agent=ppo domain=general domain.name=a task.guidance_scale=1"
    assert errors.sentence(none.value).endswith(command)
    random_policy(shipped / "a_6.zip", environment())
    random_policy(own / "a_8.zip", environment(num_steps=8, drawing=gaussian(domain="a", identity="another")))
    assert found() == "shipped/a_6.zip"
    with pytest.raises(Unusable, match="gauss guidance 1 with 5 steps") as none:
        found(num_inference_steps=5)
    assert " task.num_steps=5" in errors.sentence(none.value)
    random_policy(own / "a_5.zip", environment(num_steps=5))
    assert found() == "own/a_5.zip"
    assert found(num_inference_steps=6) == "shipped/a_6.zip"
    random_policy(own / "a_7.zip", environment(num_steps=7))
    with pytest.raises(ValueError, match=r"own has policies for 5, 7 steps; say which, e\.g\. num_steps=7"):
        found()
    assert found(num_inference_steps=5) == "own/a_5.zip"


def test_it_needs_neither_pytorch_nor_stable_baselines3(tmp_path):
    env = environment()
    path = random_policy(tmp_path / "p.zip", env)
    code = (
        "import sys; from adaptive_diffusion.rl.learned_scheduler import LearnedScheduler;"
        f"s = LearnedScheduler({str(path)!r}, domain='a', prediction_type='sample');"
        "import mlx.core as mx; x = mx.ones((2, 4, 4, 3));"
        "[s.step(x, t, x) for t in s.timesteps];"
        "sys.exit(any(name in sys.modules for name in ('torch', 'stable_baselines3')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not list(SHIPPED.glob("*.zip")), reason="no policy ships yet")
@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.zip")), ids=lambda p: p.stem)
def test_a_policy_that_ships_is_one_of_the_shipped_model(file):
    model = load_builtin_model()
    domain, steps = re.fullmatch(r"(\w+)_(\d+)", file.stem).groups()
    guidance = model.metadata["guidance_scale"]
    assert read_agent(file)[0]["model"] == identity_of(model, guidance)
    scheduler = LearnedScheduler(
        model=model.identity, domain=domain, guidance_scale=guidance, **model.metadata["noise_schedule"]
    )
    assert (scheduler.file, len(scheduler)) == (file, int(steps))
    assert scheduler.source == f"shipped {file.name}"


def test_the_page_about_policies_draws_with_a_policy_that_ships():
    page = (ROOT / "docs" / "guide" / "policy.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "LearnedScheduler" in b]
    exec(block, drawn := {})
    assert drawn["images"].shape == (4, 32, 32, 3)
    assert (len(drawn["scheduler"].timesteps), drawn["scheduler"].timesteps[0]) == (8, 999)
    assert not np.allclose(drawn["scheduler"].timesteps, drawn["scheduler"].route.prior), "the policy has chosen"


def test_its_file_is_read_once(tmp_path, monkeypatch):
    path, read = random_policy(tmp_path / "p.zip", environment()), []
    monkeypatch.setattr(learned_scheduler, "read_agent", lambda file: read.append(file) or read_agent(file))
    monkeypatch.setattr(policy, "read_agent", None)
    LearnedScheduler(str(path), domain="a")
    assert read == [str(path)]
