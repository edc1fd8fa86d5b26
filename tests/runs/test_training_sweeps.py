"""Sweeps of trainings: every job has files of its own, and the best agent is named at the end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from program import Forked
from tiny import CONF, ROOT, tiny_pictures

from adaptive_diffusion.cli.schemas import register
from adaptive_diffusion.io.files import write_json
from adaptive_diffusion.models.checkpoint import load_model
from adaptive_diffusion.runs.agent_sweep import OUTCOMES, ranked_outcomes
from adaptive_diffusion.runs.agents import finished_before
from adaptive_diffusion.runs.train import training_configuration


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Gives the configuration of a job of a sweep of train.py."""
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_ROOT", str(ROOT))
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    register()

    def begin(file: str, *overrides: str, merged: bool = False):
        paths = [f"paths.outputs={tmp_path}/outputs", f"paths.run={tmp_path}/run", "tracking=none"]
        overrides = ("hydra.mode=MULTIRUN", "hydra.job.num=3", *paths, *overrides)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            return training_configuration(compose("train", overrides=list(overrides)), file, merged=merged)

    return begin


@pytest.mark.parametrize(
    ("file", "task", "change"),
    [
        ("model/model.safetensors", "task=model", "task.ema_decay=0.5"),
        ("model/model.safetensors", "task=model", "task.images=500"),
        ("encoder/encoder.safetensors", "task=encoder", "task.weight_decay=0.3"),
        ("vicreg/vicreg.safetensors", "task=vicreg", "task.seed=3"),
        ("schedule/schedules.json", "task=schedule", "task.seed=4"),
        ("agent/tuned.json", "agent=cem", "reward=speed"),
        ("agent/tuned.json", "agent=cem", "agent.elites=2"),
    ],
)
def test_jobs_that_differ_have_other_files_and_the_same_job_finds_its_own(job, tmp_path, file, task, change):
    one, other, again = job(file, task), job(file, task, change), job(file, task)
    assert one.output == again.output != other.output
    for cfg in (one, other):
        assert Path(cfg.output).parent.parent == tmp_path / "outputs" / file.partition("/")[0]
        if "state" in cfg.task:
            assert Path(cfg.task.state) == Path(cfg.output).with_name("state.safetensors")


def test_a_state_and_an_output_that_are_given_are_kept(job, tmp_path):
    given = ("output='x/${hydra:job.num}.safetensors'", "task.state=mine.safetensors")
    cfg = job("model/model.safetensors", *given)
    assert (cfg.output, cfg.task.state) == ("x/3.safetensors", "mine.safetensors")


def test_the_state_of_a_training_and_its_output_are_two_files(job):
    given = ("output='x/${hydra:job.num}.safetensors'", "task.state=x/../x/3.safetensors")
    with pytest.raises(ValueError, match=r"output and task\.state are one file, x/3\.safetensors"):
        job("model/model.safetensors", *given)


def test_outcomes_that_are_damaged_are_no_finished_training(job, tmp_path, caplog):
    cfg = job("agent/tuned.json", "agent=cem")
    Path(cfg.output).parent.mkdir(parents=True)
    for path in (Path(cfg.output), Path(cfg.output).with_suffix(".outcomes.json")):
        path.write_text("{")
    assert finished_before(cfg, "model") is None
    assert "tuned.outcomes.json is damaged" in caplog.text


def test_an_output_for_all_jobs_is_refused_unless_they_add_to_it(job):
    for output in ("all.safetensors", "'${paths.outputs}/all.safetensors'", "'${paths.mlruns}/all.safetensors'"):
        with pytest.raises(ValueError, match=r"would all write to output=.*all\.safetensors; leave output out"):
            job("model/model.safetensors", f"output={output}")
    assert job("model/model.safetensors", "output='${paths.run}/own.safetensors'")
    assert job("schedule/schedules.json", "task=schedule", "output=all.json", merged=True).output == "all.json"


def test_the_best_is_told_for_every_reward_and_domain(tmp_path):
    for number, (agent, reward, score) in enumerate(
        [("ppo", "speed", 0.4), ("cem", "speed", 0.6), ("ppo", "hybrid 0.33", 0.1), ("cem", "hybrid 0.33", -0.2)]
    ):
        found = {"agent": agent, "reward": reward, "file": f"{number}.json"}
        outcomes = [found | {"case": case, "score": s} for case, s in (("general", score), ("abstract", -score))]
        write_json(tmp_path / str(number) / OUTCOMES, outcomes)
    folders = [tmp_path / str(number) for number in range(4)]
    ranked = {name: [o["file"] for o in outcomes] for name, outcomes in ranked_outcomes(folders).items()}
    assert ranked == {
        "general, reward speed": ["1.json", "0.json"],
        "abstract, reward speed": ["0.json", "1.json"],
        "general, reward hybrid 0.33": ["2.json", "3.json"],
        "abstract, reward hybrid 0.33": ["3.json", "2.json"],
    }


def test_a_sweep_over_decays_trains_every_job_and_says_how_to_draw_with_each(tmp_path):
    program = Forked(tmp_path, script=ROOT / "train.py")
    program.settings = program.settings[:2]  # the folders
    small = "task.images=32 task.batch_size=8 task.warmup_images=0 task.decay_images=8 task.validation_images=2"
    shape = "{image_size: 8, widths: [8, 16], blocks: [1, 1], attention_levels: [], embedding_dim: 16}"
    code, out, err = program.run(
        *("-m", *small.split(), f"task.architecture={shape}", f"+task.data.cats={tiny_pictures(tmp_path)}"),
        *("task.preview_samples=1", "task.preview_steps=1", "tracking=none", "task.ema_decay=0.1,0.9"),
    )
    assert code == 0, err
    files = sorted((tmp_path / "outputs" / "model").glob("*/model.safetensors"))
    models = {load_model(file).metadata["training"]["ema_decay"]: load_model(file).identity for file in files}
    assert set(models) == {0.1, 0.9}
    assert models[0.1] != models[0.9]
    commands = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("draw ")]
    assert [command[:2] for command in commands] == [["python", "sample.py"]] * 2
    drawing = Forked(tmp_path / "drawn", script=ROOT / "sample.py") if (tmp_path / "drawn").mkdir() is None else None
    assert drawing is not None
    drawing.settings = []
    code, out, err = drawing.run(*commands[1][2:], "num_samples=1", "num_steps=1", "metrics=none", "tracking=none")
    assert (code, "1 x cats" in out) == (0, True), err


def test_a_sweep_over_agents_takes_their_settings_and_names_the_best(tmp_path):
    program = Forked(tmp_path, script=ROOT / "train.py")
    program.settings = [
        s.replace("model=", "model@task.model=", 1) if s.startswith("model=") else s for s in program.settings
    ]
    program.settings = [s.replace("model.path=", "task.model.path=") for s in program.settings]
    code, out, err = program.run(
        *("-m", "agent=fixed,random", "reward=quality,hybrid", "domain=general", "tracking=none", "task.episodes=2"),
        *("task.pictures=2", "task.batches=1", "task.verification_batches=1", "task.max_steps=10"),
    )
    assert code == 0, err
    best = [line.split() for line in out.splitlines() if line.startswith("best ")]
    (table,) = (tmp_path / "outputs" / "sweeps").glob("*/*/results.md")
    assert table.read_text().count("| 2 |") == 4  # episodes
    assert [(words[1], words[3]) for words in best] == [("general,", "quality:"), ("general,", "hybrid")]
    outcomes = [json.loads(f.read_text())[0] for f in (tmp_path / "outputs").rglob("outcomes.json")]
    assert len({outcome["file"] for outcome in outcomes}) == 4
    assert all(Path(outcome["file"]).is_file() and outcome["file"] in outcome["draw"] for outcome in outcomes)
