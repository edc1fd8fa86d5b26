"""train.py task=policy: what it leaves behind, how it goes on, what it refuses, and drawing with the result."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
from PIL import Image
from tiny import configuration, mlflow_database, tiny_checkpoint

from adaptive_diffusion.diffusion.facts import ModelFacts
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.grids.policy import Residuals
from adaptive_diffusion.io.locks import alone
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.rl.agent_file import read_agent
from adaptive_diffusion.rl.measurement import REAL_UNIT
from adaptive_diffusion.rl.noises import FixedNoises
from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.train import task_of, train
from adaptive_diffusion.tracking.mlflow import MlflowTracker

pytestmark = pytest.mark.usefixtures("coarse_solutions")

SMALL = ("task.num_steps=4", "task.episodes=20", "task.pictures=2", "task.batches=1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


def learn(checkpoint, folder, *overrides: str, agent: str = "agent=ppo") -> float:
    chosen = ["model@task.model=checkpoint", f"task.model.path={checkpoint}", "domain=portraits", *SMALL]
    return train(configuration("train", folder, "task=policy", agent, *chosen, "tracking=none", *overrides))


def draw(checkpoint, folder, *overrides: str) -> list[float]:
    """The timesteps of a run."""
    chosen = ("model=checkpoint", f"model.path={checkpoint}", "num_samples=2", "metrics=none", "tracking=none")
    sample(configuration("sample", folder, "scheduler=learned", "domain=portraits", *chosen, *overrides))
    with open(folder / "run" / "steps.csv", newline="") as file:
        return [float(row["timestep"]) for row in csv.DictReader(file)]


def runs(folder) -> list:
    """What MLflow was told of in `folder`."""
    tracker = MlflowTracker(str(folder / "mlruns" / "mlflow.db"), str(folder), "test", 1.0, 5001)
    return list(tracker.client.search_runs([tracker.experiment_id]))


def episodes(path) -> list[int]:
    return [e["episode"] for e in read_agent(path)[0]["record"]["evaluations"]]


def test_the_prior_may_be_the_grid_that_was_calibrated_for_the_model(tmp_path):
    given = ("task=policy", "agent=ppo", "domain=landscapes", "grid@task.grid=calibrated", "task.num_steps=5")
    model = load_builtin_model()
    for guidance in (1.0, ModelFacts.of(model).guidance(None)):
        asked = [] if guidance != 1 else ["task.guidance_scale=1"]
        _, task = task_of(configuration("train", tmp_path, *given, *asked))
        found = task.grid.calibrated
        assert (found.model, found.domain) == (model.identity, "landscapes")
        assert guidance == (found.guidance_scale if found.drawn_guidance is None else found.drawn_guidance)
        assert 5 in found.steps

    with pytest.raises(UserError, match="no calibrated grid ships for this model"):
        task_of(
            configuration(
                "train", tmp_path, *given, "model@task.model=checkpoint", f"task.model.path={tiny_checkpoint(tmp_path)}"
            )
        )


def test_a_policy_is_trained_and_drawn_with(checkpoint, tmp_path, caplog):
    mlflow_database(tmp_path / "mlruns")
    caplog.set_level("INFO")
    score = learn(checkpoint, tmp_path, "tracking=mlflow", "tracking.experiment=test")
    file = tmp_path / "outputs" / "policy" / "portraits_4.zip"
    header, _ = read_agent(file)
    assert (header["domain"], header["environment"]["num_steps"]) == ("portraits", 4)
    assert episodes(file) == [0, 10, 20]
    last = header["record"]["evaluations"][-1]
    assert score == pytest.approx(-np.mean(last["scores"]))
    assert score == pytest.approx(-last["quality"])  # reward=hybrid weighs a speed that is always the same
    assert f"policy's) {-score:+.3f} +- " in caplog.text
    assert "python sample.py scheduler=learned domain=portraits num_steps=4" in caplog.text

    (run,) = runs(tmp_path)
    tracker = MlflowTracker(str(tmp_path / "mlruns" / "mlflow.db"), str(tmp_path), "test", 1.0, 5001)
    history = tracker.client.get_metric_history(run.info.run_id, "held_out/score")
    assert [m.step for m in history] == [0, 10, 20]
    assert run.data.metrics["final/quality"] == pytest.approx(-score)
    assert run.data.params["task.episodes"] == "20"

    timesteps = draw(checkpoint, tmp_path)
    assert len(timesteps) == 4
    assert draw(checkpoint, tmp_path, f"scheduler.path={file}", "num_steps=4") == timesteps
    with pytest.raises(ValueError, match=r"no policy was trained for domain=abstract .* agent=ppo domain=abstract"):
        draw(checkpoint, tmp_path, "domain=abstract")
    with pytest.raises(ValueError, match="with 5 steps; train one"):
        draw(checkpoint, tmp_path, "num_steps=5")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    for given in ("grid=uniform", f"init_image={tmp_path}/picture.png"):
        with pytest.raises(ValueError, match="leave grid and init_image out"):
            draw(checkpoint, tmp_path, given)
    with pytest.raises(ValueError, match="take scheduler=adaptive"):
        draw(checkpoint, tmp_path, "sampler=step_reduction")


def test_an_interrupted_training_leaves_the_agent_and_goes_on(checkpoint, tmp_path, monkeypatch, caplog):
    finished = HyperparameterTuningAgent._note_path

    def interrupt(self, *arguments):
        finished(self, *arguments)
        if len(self.record.returns) == 15:
            raise KeyboardInterrupt

    caplog.set_level("INFO")
    monkeypatch.setattr(HyperparameterTuningAgent, "_note_path", interrupt)
    with pytest.raises(KeyboardInterrupt):
        learn(checkpoint, tmp_path)
    assert "go on with the same settings of train.py and domain=portraits task.start_from=" in caplog.text
    assert not (tmp_path / "outputs" / "policy").exists()
    (tmp_path / "run" / "portraits_4.zip").rename(tmp_path / "half.zip")
    assert episodes(tmp_path / "half.zip") == [0, 10]
    monkeypatch.setattr(HyperparameterTuningAgent, "_note_path", finished)
    start = f"task.start_from={tmp_path}/half.zip"
    learn(checkpoint, tmp_path, start, f"output={tmp_path}/mine.zip")
    assert episodes(tmp_path / "mine.zip") == [0, 10, 20]
    assert f"scheduler=learned scheduler.path={tmp_path}/mine.zip domain=portraits" in caplog.text
    for override, told in (("domain=abstract", "domain=portraits, not abstract"), ("task.num_steps=5", "4 steps")):
        with pytest.raises(ValueError, match=f"half.zip was trained for {told}"):
            learn(checkpoint, tmp_path, start, override)
    mlflow_database(tmp_path / "mlruns")
    with pytest.raises(ValueError, match=r"task\.episodes=10 are done already"):
        learn(checkpoint, tmp_path, start, "task.episodes=10", "tracking=mlflow")
    assert not runs(tmp_path)


def test_a_policy_that_may_stop_is_trained_for_speed_too(checkpoint, tmp_path):
    score = learn(checkpoint, tmp_path, "task.stopping=true", "reward=speed", "task.episodes=10")
    assert 0 <= -score < 1
    assert len(draw(checkpoint, tmp_path)) <= 4


def test_by_real_images_no_ratio_of_errors_is_reported(checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    score = learn(checkpoint, tmp_path, "reward=real", "task.pictures=4", "task.episodes=10")
    assert f"4 steps, quality {-score:+.3f} +- " in caplog.text
    assert f"{REAL_UNIT * score:+.4f} against the prior grid's, by metric=real" in caplog.text
    assert "log(" not in caplog.text


def test_a_policy_that_stops_early_takes_no_more_episodes_for_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(Residuals, "stops", lambda self, action: True)  # every episode at its first step
    learn(checkpoint, tmp_path, "task.stopping=true", "reward=speed", "task.num_steps=8", "agent.n_steps=5")
    record = read_agent(tmp_path / "outputs" / "policy" / "portraits_8.zip")[0]["record"]
    assert 20 <= len(record["returns"]) <= 21  # the one that begins while the last evaluation is made is finished
    assert episodes(tmp_path / "outputs" / "policy" / "portraits_8.zip")[:3] == [0, 10, 20]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task.num_steps=1"], "task: num_steps must be a whole number, between 2 and 1000, got 1"),
        (["task.episodes=0"], "task: episodes must be"),
        (["task.guidance_scale=-1"], "task: guidance_scale must be"),
        (["task.batches=0"], "task: batches must be"),
        (["reward=speed"], "a policy that cannot stop is as fast as any other; take reward=quality"),
        (["domain.name=faces"], "the model does not draw 'faces'; it draws portraits"),
        (["agent=cem"], "task=policy needs agent=ppo: agent=cem learns no policy"),
        (["domain.name=../portraits"], "must not contain /"),
        (["output=policy.json"], r"output must be a \.zip file, got 'policy\.json'"),
        (["task.start_from=nowhere.zip"], "there is no agent at nowhere.zip"),
    ],
)
def test_what_cannot_work_is_refused(checkpoint, tmp_path, overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        learn(checkpoint, tmp_path, *overrides)
    assert not (tmp_path / "outputs" / "policy").exists()


def test_a_second_training_into_one_file_is_refused(checkpoint, tmp_path):
    with (
        alone(tmp_path / "p.zip"),
        pytest.raises(ValueError, match=rf"p\.zip is in use by process {os.getpid()} since"),
    ):
        learn(checkpoint, tmp_path, f"output={tmp_path}/p.zip")
    with alone(tmp_path / "run" / "p.zip"), pytest.raises(ValueError, match="in use by"):
        learn(checkpoint, tmp_path, f"output={tmp_path}/p.zip")
    assert not (tmp_path / "p.zip").exists()
    learn(checkpoint, tmp_path, f"output={tmp_path}/run/../run/p.zip")  # where the agent is saved on the way, too
    assert (tmp_path / "run" / "p.zip").is_file()


@pytest.mark.parametrize("given", ["agent=ppo", "domain=portraits"])
def test_agent_and_domain_must_be_given(given, tmp_path):
    with pytest.raises(ValueError, match=r"needs (agent|domain), e\.g\. agent=ppo domain=landscapes"):
        train(configuration("train", tmp_path, "task=policy", given))


def test_a_model_that_diverges_is_told_of_in_one_sentence(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(FixedNoises, "errors", lambda self, batch, images: np.full(self.pictures, np.nan))
    with pytest.raises(ValueError, match=r"portraits: the reward of num_steps=4, .* is not a finite number"):
        learn(checkpoint, tmp_path)
