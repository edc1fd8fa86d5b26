"""Whole jobs: what they leave behind, what a user reads when something goes wrong, and the exit codes."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from program import Forked
from tiny import CONF, ROOT, configuration, mlflow_database, tiny_checkpoint, tiny_pictures

from adaptive_diffusion import __version__
from adaptive_diffusion.cli.arguments import for_hydra
from adaptive_diffusion.cli.catalog import Catalog
from adaptive_diffusion.cli.entry import sentence_and_code
from adaptive_diffusion.cli.mistakes import config_mistake
from adaptive_diffusion.cli.schemas import Domain
from adaptive_diffusion.cli.unknown_names import no_option
from adaptive_diffusion.encoder.reference import reference_path
from adaptive_diffusion.errors import MachineError, UserError
from adaptive_diffusion.io import figures, files
from adaptive_diffusion.io.figures import denoising_strip, grid
from adaptive_diffusion.io.locks import alone
from adaptive_diffusion.models.checkpoint import load_model
from adaptive_diffusion.models.training_config import TrainingConfig
from adaptive_diffusion.runs import sample_files
from adaptive_diffusion.runs.build import build
from adaptive_diffusion.runs.job import explain, job
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.setting_types import typed
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.runs.train import train
from adaptive_diffusion.runs.train_model import ModelTask
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.tracking.mlflow import MlflowTracker


@pytest.fixture
def configure(tmp_path):
    """Compose a job of four 8x8 images and three steps, without MLflow unless asked for."""
    model = tiny_checkpoint(tmp_path)

    def compose(*overrides, folder=tmp_path):
        small = ["model=checkpoint", f"model.path={model}", "num_samples=4", "num_steps=3", "tracking=none"]
        return configuration("sample", folder, *small, *overrides)

    return compose


def pictures(folder):
    return np.stack([np.asarray(Image.open(p)) for p in sorted((folder / "run" / "pictures").glob("*.png"))]).astype(
        int
    )


def statistics_hash(domain):
    return hashlib.sha256(reference_path(domain).read_bytes()).hexdigest()


def tracked(folder):
    tracker = MlflowTracker(
        str(folder / "mlruns" / "mlflow.db"), str(folder / "mlruns" / "artifacts"), "test", 1.0, 5001
    )
    return tracker, tracker.client.search_runs([tracker.experiment_id], order_by=["attributes.start_time"])


def test_a_job_leaves_pictures_plots_tables_and_its_configuration(configure, tmp_path):
    seconds = sample(configure())
    run = tmp_path / "run"
    assert pictures(tmp_path).shape == (4, 8, 8, 3)
    assert {p.name for p in run.iterdir()} - {"git.diff"} == {
        *("pictures", "pictures.png", "denoising.png", "schedule.png"),
        *("steps.csv", "metrics.json", "quality.json", "provenance.json", "config.yaml"),
    }
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["time/seconds_per_image"] == seconds > 0
    assert (metrics["details/steps"], metrics["details/evaluations"]) == (3, 12)
    rows = list(csv.DictReader((run / "steps.csv").open()))
    assert [float(r["timestep"]) for r in rows] == pytest.approx([999, 999 * (2 / 3) ** 2, 999 * (1 / 3) ** 2])
    resolved = OmegaConf.load(run / "config.yaml")
    assert resolved.image_size == 8  # filled in from the model
    assert (resolved.guidance_scale, resolved.image_size) == (1.5, 8)


@pytest.mark.parametrize(("limit", "most"), [("MOST_SHOWN", 3), ("MOST_BYTES", 2 * 8 * 8 * 3)])
def test_the_grid_of_very_many_pictures_shows_the_first(configure, tmp_path, monkeypatch, caplog, limit, most):
    caplog.set_level(logging.INFO)
    sample(configure("num_samples=4"))
    assert "pictures.png shows" not in caplog.text
    whole = Image.open(tmp_path / "run" / "pictures.png").size

    monkeypatch.setattr(sample_files, limit, most)
    sample(configure("num_samples=5"))
    assert Image.open(tmp_path / "run" / "pictures.png").size == whole  # two rows of two
    assert "pictures.png shows the first 3 of 5 images; pictures/ holds all" in caplog.text
    assert len(pictures(tmp_path)) == 5


def test_the_plot_of_the_schedule_says_what_was_taken_and_how_many_pictures_were_left(configure, monkeypatch):
    plotted, plot = [], figures.save_schedule_plot
    monkeypatch.setattr(figures, "save_schedule_plot", lambda *given: plotted.append(given[1:]) or plot(*given))
    result = QualityGuidedSampler.run

    def one_stopped_early(self, *arguments, **more):
        found = result(self, *arguments, **more)
        return replace(found, evaluations=np.minimum(found.evaluations, [7, 12]))

    sample(configure("batch_size=2"))
    monkeypatch.setattr(QualityGuidedSampler, "run", one_stopped_early)
    sample(configure("sampler=quality_guided", "sampler.quality_threshold=1", "num_steps=12", "batch_size=2"))
    (_, _, plain, all_running), (timesteps, log_snr, title, running) = plotted
    assert plain.endswith("landscapes 3 steps seed 0")
    assert all_running.tolist() == [4, 4, 4]
    assert title.endswith("landscapes 7 to 12 steps seed 0")
    assert len(timesteps) == len(log_snr) == 12
    assert running.tolist() == [4] * 7 + [2] * 5


def test_a_job_measures_its_pictures_with_the_sample_size_beside_every_number(configure, tmp_path):
    sample(configure())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    without_labels = {"fd_vicreg", "precision", "recall"}
    names = {"fd_encoder", "kid_encoder", "clip_encoder", "domain_agreement", *without_labels}
    assert {key.removeprefix("quality/") for key in metrics if key.startswith("quality/")} == names
    assert {"details/kid_encoder_std", "details/clip_encoder_std"} <= set(metrics)
    assert {metrics[f"details/{name}_n"] for name in names} == {4}


def test_the_distance_to_the_converged_solution_is_measured_when_asked(configure, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("adaptive_diffusion.io.progress.FIRST", 0.0)
    caplog.set_level("INFO")
    found = {}
    for steps in (3, 100):
        sample(configure("metrics.converged=true", f"num_steps={steps}", "guidance_scale=1"))
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        found[steps] = metrics["quality/perceptual_encoder"]
    assert found[100] < 0.5 * found[3]
    assert caplog.text.count("converged solutions of 4 images: 1 solver step, ") == 1  # then they are kept
    by_default = OmegaConf.load(ROOT / "conf" / "hydra" / "sweeper" / "optuna.yaml").objectives
    assert set(by_default) <= set(metrics)
    sample(configure("metrics.converged=true", "scheduler=ddpm"))
    assert "quality/perceptual_encoder" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "this scheduler adds noise" in caplog.text


def test_a_prompt_decides_what_is_drawn_and_how_sure_that_is_gets_logged(configure, tmp_path):
    sample(configure("prompt=a butterfly"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["details/label_confidence"] == pytest.approx(1, abs=1e-3)
    resolved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (resolved.domain.name, resolved.label) == ("general", None)  # which the prompt chooses again
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["labels"] == "butterfly"


def test_a_run_that_stops_before_it_is_measured_leaves_no_numbers_of_an_earlier_one(configure, tmp_path, monkeypatch):
    sample(configure())
    monkeypatch.setattr("adaptive_diffusion.runs.sample.measure_quality", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sample(configure("seed=1"))
    assert not {"metrics.json", "quality.json"} & {path.name for path in (tmp_path / "run").iterdir()}


def test_a_domain_needs_no_description(configure, tmp_path):
    cfg = configure()
    cfg.domain = Domain(name="portraits", pictures="/elsewhere")
    sample(cfg)
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 4


def test_pictures_do_not_depend_on_the_batch_size(configure, tmp_path):
    for size in (4, 3):
        sample(configure(f"batch_size={size}", folder=tmp_path / str(size)))
    difference = pictures(tmp_path / "4") - pictures(tmp_path / "3")
    assert np.abs(difference).max() <= 1  # grey levels: matrix products of other shapes round differently
    assert pictures(tmp_path / "4").std() > 10


def test_seed_domain_and_label_change_the_pictures_and_the_size_is_reached_by_resizing(configure, tmp_path):
    jobs = {"a": [], "b": ["seed=1"], "c": ["domain=general"], "d": ["label=sunrise"], "e": ["image_size=20"]}
    for name, overrides in jobs.items():
        sample(configure(*overrides, folder=tmp_path / name))
    for name in "bcd":
        assert np.abs(pictures(tmp_path / "a") - pictures(tmp_path / name)).max() > 1
    assert pictures(tmp_path / "e").shape == (4, 20, 20, 3)


def test_a_tracked_job_is_recorded_and_can_be_skipped_when_repeated(configure, tmp_path, caplog):
    mlflow_database(tmp_path / "mlruns")
    seconds = sample(configure("tracking=mlflow", "tags=[baseline,paper]"))
    with caplog.at_level("INFO"):
        again = sample(configure("tracking=mlflow", "skip_finished=true", "name=other"))
    (where,) = re.findall(r"skipped: .* has finished: (.*)", caplog.text)
    assert (Path(where) / "metrics.json").is_file()
    tracker, runs = tracked(tmp_path)
    assert [r.info.status for r in runs] == ["FINISHED"]
    assert again == pytest.approx(seconds)
    data = runs[0].data
    assert data.params["scheduler.progress_power"] == "2.0"
    assert data.params["num_steps"] == "3"
    assert data.tags["tags"] == "baseline,paper"
    assert (data.metrics["sampling/nfe"], data.metrics["sampling/passes"]) == (3, 6)
    assert {name.partition("/")[0] for name in data.metrics} == {"quality", "sampling", "time"}
    assert data.tags["not_meaningful"] == "fd_encoder, kid_encoder, fd_vicreg, precision, recall"  # of four images
    assert "fewer than 4 x 66" in data.tags["mlflow.note.content"]
    inputs = tracker.client.get_run(runs[0].info.run_id).inputs
    (real,), (model,) = inputs.dataset_inputs, inputs.model_inputs
    assert (real.dataset.name, real.dataset.digest) == ("landscapes", statistics_hash("landscapes")[:36])
    assert tracker.client.get_logged_model(model.model_id).name == "SimpleUNet"
    artifacts = {a.path for a in tracker.client.list_artifacts(runs[0].info.run_id)}
    assert {"pictures.png", "pictures", "schedule.png", "denoising.png", "steps.csv", "config.yaml"} <= artifacts
    sample(configure("tracking=mlflow", "skip_finished=true", "seed=1"))
    assert len(tracked(tmp_path)[1]) == 2


def test_a_full_disk_fails_the_run_in_one_sentence_and_leaves_nothing_half_written(configure, tmp_path, monkeypatch):
    mlflow_database(tmp_path / "mlruns")
    replace = os.replace

    def full(source, target):
        if str(target).endswith("0002.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left") as error:
        sample(configure("tracking=mlflow"))
    sentence, code = explain(error.value)
    assert code == 1
    assert sentence.startswith(f"the disk is full: cannot write {tmp_path}/run/pictures/0002.png; free some space")
    assert tracked(tmp_path)[1][0].info.status == "FAILED"
    assert {p.name for p in tmp_path.rglob("*.png")} == {"0000.png", "0001.png"}
    assert not list(tmp_path.rglob("*partial*"))


def test_a_run_that_is_interrupted_while_it_measures_says_where_its_images_are(
    configure, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("adaptive_diffusion.runs.sample.measure_quality", Mock(side_effect=KeyboardInterrupt))
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        sample(configure())
    assert f"the images are kept in {tmp_path}/run/pictures" in caplog.text
    assert len(pictures(tmp_path)) == 4


TINY_TRAINING = [
    *("task.images=96", "task.batch_size=16", "task.validate_every=48", "task.save_every=16", "task.log_every=16"),
    *("task.warmup_images=0", "task.decay_images=32", "task.validation_images=4"),
    *("task.architecture={image_size: 8, widths: [8, 16], blocks: [1, 1], attention_levels: [], embedding_dim: 16}",),
    *("task.preview_every=48", "task.preview_samples=2", "task.preview_steps=2", "tracking=mlflow"),
]


def test_training_is_recorded_resumed_in_the_same_run_and_its_model_draws(tmp_path, monkeypatch):
    mlflow_database(tmp_path / "mlruns")
    cfg = configuration("train", tmp_path, *TINY_TRAINING, f"+task.data.cats={tiny_pictures(tmp_path)}")
    from adaptive_diffusion.models.training import Trainer

    advance = Trainer._advance

    def interrupted(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Trainer, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    assert tracked(tmp_path)[1][0].info.status == "KILLED"
    monkeypatch.setattr(Trainer, "_advance", advance)
    assert np.isfinite(train(cfg))
    tracker, runs = tracked(tmp_path)
    assert [r.info.status for r in runs] == ["FINISHED"]
    curve = tracker.client.get_metric_history(runs[0].info.run_id, "train/loss")
    assert [m.step for m in curve] == [16, 32, 48, 64, 80, 96]
    assert [p.name for p in sorted((tmp_path / "run" / "previews").iterdir())] == ["000000048.png", "000000096.png"]
    output = tmp_path / "outputs" / "model" / "model.safetensors"
    model = load_model(output)
    assert model.metadata["images_seen"] == 96
    assert model.metadata["labels"] == {"cats": ["tabby", "black"]}
    elsewhere = configuration(
        "train", tmp_path, *TINY_TRAINING, f"+task.data.cats={tmp_path}/cats.npz", "tracking=none"
    )
    elsewhere.output = str(tmp_path / "copy.safetensors")  # the training is finished; only the model is written
    assert np.isfinite(train(elsewhere))
    assert load_model(elsewhere.output).metadata["content_hash"] == model.metadata["content_hash"]
    choice = ["model=checkpoint", f"model.path={output}", "domain.name=cats", "label=tabby", "num_steps=2"]
    sample(configuration("sample", tmp_path / "drawn", *choice, "tracking=none"))
    assert pictures(tmp_path / "drawn").shape == (16, 8, 8, 3)


def test_what_is_shown_of_a_training_does_not_keep_it_from_going_on():
    files = {"data": {"cats": "cats.npz"}, "state": "state.safetensors"}
    assert ModelTask(**files, log_every=7, preview_steps=3).recipe() == TrainingConfig(**files).recipe()


@pytest.mark.parametrize("file", ["model.safetensors", "state.safetensors"])
def test_a_second_training_in_one_folder_is_refused(file, tmp_path):
    cfg = configuration(
        "train", tmp_path, *TINY_TRAINING, f"+task.data.cats={tiny_pictures(tmp_path)}", "tracking=none"
    )
    held = tmp_path / "outputs" / "model" / file
    with alone(held), pytest.raises(ValueError, match=rf"{file} is in use by process \d+ since"):
        train(cfg)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task.images=16"], "data names no domain; give at least one, e.g. task.data.portraits="),
        (["task.data.portraits=/nowhere"], "no images at /nowhere"),
        (["task.data.portraits={empty}"], "no readable images in"),
        (["task.data.portraits={empty}", "task.batch_size=0"], "batch_size must be a whole number, at least 1"),
        (["task.data.portraits={empty}", "task.log_every=0"], "log_every must be a whole number, at least 1"),
        (["output=model.bin"], "output must be a .safetensors file"),
    ],
)
def test_training_refuses_what_it_cannot_use(overrides, sentence, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [o.format(empty=tmp_path / "empty") for o in overrides]
    with pytest.raises(ValueError, match=sentence):
        train(configuration("train", tmp_path, *given))
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (UserError("give more"), "give more", 2),
        (MachineError("locked"), "locked", 1),
        (OSError(errno.EROFS, "Read-only", "/a/b"), "cannot write /a/b (read-only file system); write elsewhere", 1),
        (
            OSError(errno.EACCES, "denied", "/a/b"),
            "no access to /a/b (permission denied); give what you may read, or write elsewhere, with paths.outputs",
            1,
        ),
        (OSError(errno.EPERM, "denied"), "no access (operation not permitted); give what you may read, or write", 1),
        (
            OSError(errno.ENOENT, "gone", "a"),
            "cannot read or write a (no such file or directory); give a file that exists, or a folder",
            1,
        ),
        (OSError(errno.ENOSPC, "full"), "the disk is full: cannot write; free some space", 1),
        (RuntimeError("[malloc] Unable to allocate 9 bytes"), "not enough memory (", 1),
        (KeyError("x"), "unexpected KeyError: 'x' (HYDRA_FULL_ERROR=1 shows where)", 1),
    ],
)
def test_an_error_becomes_one_sentence_and_an_exit_code(error, sentence, code):
    explained, exit_code = explain(error)
    assert explained.startswith(sentence)
    assert "\n" not in explained
    assert exit_code == code


def test_the_cause_of_an_error_is_what_is_told():
    error = RuntimeError("wrapper")
    error.__cause__ = UserError("the reason")
    assert explain(error) == ("the reason", 2)


def test_a_failed_job_logs_its_traceback(caplog):
    @job
    def fails(cfg):
        raise ValueError("deep inside")

    with pytest.raises(ValueError, match="deep"):
        fails(OmegaConf.create())
    assert caplog.records[0].exc_info[0] is ValueError


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("schedular=ddim", "there is no setting 'schedular'; did you mean 'scheduler'?"),
        ("scheduler=adaptve", "scheduler has no option 'adaptve'; did you mean 'adaptive'?; options: adaptive, ddim"),
        (
            "domain=forest",
            "domain has no option 'forest'; options: abstract, general, landscapes, portraits; for what a model of "
            "your own draws: domain=general domain.name=forest",
        ),
        ("num_step=3", "there is no setting 'num_step'; did you mean 'num_steps'?"),
        ("progress_power=3", "there is no setting 'progress_power'; did you mean 'scheduler.progress_power'?"),
        ("~num_step", "there is no setting 'num_step'; did you mean 'num_steps'?"),
        ("adaptive", "settings are given as key=value"),
        ("experiment=train_builtin", "which sample.py does not have; did you mean train.py?"),
        ("model.path=x", "'model.path' is a setting of model=checkpoint or diffusers or ddpm_bedroom (and "),
        ("scheduler.calibratoin.path=x", "did you mean 'scheduler.calibration.path'?"),
        (
            "label=a, b",
            "label=a, b may be a text (label='\"a, b\"'), a list (label=[a, b]) or a sweep (with -m); say which",
        ),
        ("scheduler=DDIM", "did you mean 'ddim'?"),
        ("domain=Portrait", "did you mean 'portraits'?"),
        ("scheduler=euler", "Euler's method is scheduler=ddim"),
        ("scheduler=euler-ancestral", "ancestral sampling is scheduler=ddpm"),
        ("output=x", "there is no setting 'output'; did you mean 'paths.outputs'?"),
        ("min_steps=5", "sampler=quality_guided sampler.min_steps=5"),
        ("rho=7", "grid=karras grid.rho=7"),
        ("scheduler.order=3", "did you mean 'scheduler.solver_order', of scheduler=dpm_solver or unipc?"),
        ("scheduler.beta_start=0.1", "the model says how it was trained; leave it out"),
        ("scheduler.prediction_type=sample", "model=checkpoint model.prediction_type=sample"),
        ("scheduler.clip_sample=false", "to overrule it: +scheduler.clip_sample=false"),
        ("hydra/launcher=submitit", "there are joblib, submitit_local, submitit_slurm, ray"),
        ("hydra/sweeper=ax", "without it, hydra/sweeper=basic runs every combination"),
        ("hydra/launcher=slurm", "hydra/launcher=basic runs one job after another"),
        ("grid=karras,own", "names several options, which make a sweep: give -m as well"),
        ("+seed=3", "seed is there already; leave the + out"),
        ("sampler=[1]", "sampler has no option '[1]'; options: quality_guided"),
        ("domain=../x", "domain has no option '../x'; options: abstract"),
    ],
)
def test_a_typo_gets_a_hint(override, sentence, tmp_path):
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration("sample", tmp_path, override)
    told = config_mistake(error.value, CONF, "sample", [override])
    assert sentence in told
    assert "\n" not in told


def test_a_launcher_whose_package_is_missing_says_how_to_get_it():
    told = no_option(Catalog.of(CONF, []), "hydra/launcher", "submitit_slurm")
    assert "pip install" in told
    assert "submitit]" in told


@pytest.mark.parametrize("override", ["domain.name=a", "+domain.name=a"])
def test_a_setting_of_a_group_without_a_choice_says_which_options_have_it(override, tmp_path):
    given = ["agent=random", override]
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration("train", tmp_path, *given)
    told = ("'domain.name' is a setting of domain=abstract or general or landscapes or portraits", 2)
    assert sentence_and_code(error.value, "train", given) == told


def test_a_sweep_over_options_with_and_without_a_setting_names_both(tmp_path):
    given = ["scheduler=ddim,adaptive", "scheduler.eta=0,1"]
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration("sample", tmp_path, "scheduler=adaptive", "scheduler.eta=0")
    told = config_mistake(error.value, CONF, "sample", given)
    assert told.startswith(
        "'scheduler.eta' is a setting of scheduler=ddim, and this sweep has scheduler=adaptive as well"
    )


@pytest.mark.parametrize(
    ("program", "arguments", "belongs"),
    [
        ("sample", ["agent=cem"], "agent belongs to train.py, which trains and tunes, not to sample.py"),
        ("sample", ["+agent=ppo", "tracking=none"], "agent belongs to train.py"),
        ("sample", ["-m", "reward=speed,quality"], "reward belongs to train.py"),
        ("sample", ["domain=general", "task=encoder", "seed=1"], "task belongs to train.py"),
        ("sample", ["scheduler=ddim", "reward=quality", "agent=random"], "reward and agent belong to train.py"),
        ("train", ["grid=karras", "grid.rho=5"], "grid and grid.rho belong to sample.py, which draws"),
        ("train", ["scheduler.eta=0.3"], "scheduler.eta belongs to sample.py"),
        ("train", ["agent=ppo", "sampler=standard"], "sampler belongs to sample.py"),
        (
            "train",
            ["scheduler=DPMsolver"],
            "scheduler belongs to sample.py, which draws, not to train.py; scheduler has no option 'DPMsolver'; "
            "did you mean 'dpm_solver'?",
        ),
    ],
)
def test_a_group_of_the_other_program_is_sent_there(program, arguments, belongs, tmp_path):
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration(program, tmp_path, *for_hydra(arguments, Catalog((CONF,)))[arguments[0] == "-m" :])
    told = config_mistake(error.value, CONF, program, arguments)
    assert told.startswith(belongs)
    assert "\n" not in told


def test_options_of_ones_own_folders_are_offered(tmp_path):
    for folder, option in (("one", "mine"), ("two", "yours")):
        (tmp_path / folder / "scheduler").mkdir(parents=True)
        shutil.copy(CONF / "scheduler" / "ddim.yaml", tmp_path / folder / "scheduler" / f"{option}.yaml")
    given = ["--config-dir", str(tmp_path / "one"), f"hydra.searchpath=[file://{tmp_path}/two]", "scheduler=yous"]
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration("sample", tmp_path, *given[2:])
    told = config_mistake(error.value, CONF, "sample", given)
    assert "did you mean 'yours'?" in told
    assert "mine" in told


def test_an_explanation_that_fails_leaves_hydras_own_words(tmp_path):
    error = ConfigCompositionException("Could not override 'a'.\nTo append to your config use +a=1")
    assert config_mistake(error, tmp_path / "nowhere", "sample", ["a=1"]).startswith("Could not override 'a'")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model=diffusers", "there is no model to choose there; did you mean model@task.model=diffusers?"),
        ("task.model.path=x", "'task.model.path' is a setting of model@task.model=checkpoint or "),
    ],
)
def test_the_model_of_a_task_is_found(override, sentence, tmp_path):
    with pytest.raises(Exception) as error:  # noqa: PT011
        configuration("train", tmp_path, "task=schedule", override)
    assert sentence in config_mistake(error.value, CONF, "train", ["task=schedule", override])
    with pytest.raises(ValueError, match=r"task.model=diffusers is no model; a choice is model@task.model=diffusers"):
        build(configuration("train", tmp_path, "task=schedule", "task.model=diffusers"), "task")


@pytest.mark.parametrize(
    ("root", "override", "told"),
    [
        ("sample", "num_steps=ten", "num_steps must be a whole number or null, got ten"),
        ("sample", "num_steps=1.5", "num_steps must be a whole number or null, got 1.5"),
        ("sample", "++num_steps=[1]", "num_steps must be a whole number or null, got [1]"),
        ("sample", "num_samples=null", "num_samples must be a whole number, got null"),
        ("sample", "num_samples=", "num_samples must be a whole number, got nothing"),
        ("sample", "guidance_scale=true", "guidance_scale must be a number or null, got true"),
        ("sample", "skip_finished=maybe", "skip_finished must be true or false, got maybe"),
        ("sample", "domain.name=[a]", "domain.name must be a text, got [a]"),
        ("sample", "tags=abc", "tags must be a list of texts in [ ], got abc"),
        ("sample", "tags={a: 1}", "tags must be a list of texts in [ ], got {a: 1}"),
        (
            "train",
            "task.architecture.widths=null",
            "task.architecture.widths must be a list of whole numbers in [ ], got null",
        ),
        ("train", "model@task.model=null", "model has no option 'null'; options: "),
        ("train", "task.architecture.widths=[a]", "task.architecture.widths must be a list of whole numbers in [ ], "),
        ("train", "task.architecture=5", "task.architecture must be a group of settings in { }, got 5"),
        ("train", "task.architecture={image_size: a}", "task.architecture.image_size must be a whole number, got 'a'"),
        ("train", "+task.data.cats=[1]", "task.data.cats must be a text or null, got [1]"),
        ("sample", "domain={a: 1}", "there is no setting 'domain.a'"),
        ("sample", "scheduler=null", "scheduler has no option 'null'; options: adaptive, ddim"),
        ("sample", "domain=5", "domain has no option '5'; options: abstract, general"),
        ("sample", "domain=", "domain has no option ''; options: abstract, general"),
        (
            "sample",
            "tags=[a,\N{LATIN SMALL LETTER E WITH ACUTE}]",
            "tags=[a,\N{LATIN SMALL LETTER E WITH ACUTE}] cannot be read: put text with",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_told_what_the_setting_takes(root, override, told, tmp_path):
    with pytest.raises(Exception) as error:  # noqa: PT011
        typed(configuration(root, tmp_path, override))
    sentence = config_mistake(error.value, CONF, root, [override])
    assert sentence.startswith(told)
    assert "\n" not in sentence


def test_a_file_whose_value_has_the_wrong_type_is_named(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "debug" / "wrong.yaml").write_text("# @package _global_\nnum_steps: many\n")
    with pytest.raises(ConfigCompositionException) as error, initialize_config_dir(str(conf), version_base="1.3"):
        compose("sample", overrides=["debug=wrong"])
    told = config_mistake(error.value, conf, "sample", ["debug=wrong"])
    assert told.startswith("conf/debug/wrong.yaml: num_steps must be a whole number or null, got 'many'")


def test_a_reference_to_nothing_names_both_ends(tmp_path):
    cfg = configuration("sample", tmp_path, "num_steps=${steps}")
    with pytest.raises(OmegaConfBaseException) as error:
        _ = cfg.num_steps
    told = config_mistake(error.value, CONF, "sample", [])
    assert told == "num_steps refers to 'steps', and there is no such setting; --help lists them"


def test_a_job_that_sets_a_wrong_value_is_told_the_same(configure):
    with pytest.raises(OmegaConfBaseException) as error:
        configure().num_steps = "ten"
    assert explain(error.value) == ("num_steps must be a whole number or null, got 'ten'; --help lists the settings", 2)


def test_a_new_domain_for_training_is_added_with_a_plus(tmp_path):
    with pytest.raises(ConfigCompositionException) as error:
        configuration("train", tmp_path, "task.data.cats=x")
    told = config_mistake(error.value, CONF, "train", ["task.data.cats=x"])
    assert told == "there is no domain 'cats' yet; to add one of your own: +task.data.cats=<folder>"


def test_a_grid_and_a_strip_have_the_layout_they_promise():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 4, 4, 3), np.uint8)
    sheet = grid(images, columns=2, cell=8)
    assert sheet.shape == (2 * 10 + 2, 2 * 10 + 2, 3)
    assert (sheet[2:10, 2:10] == 0).all()
    assert (sheet[2:10, 12:20] == 1).all()
    assert (sheet[12:20, 2:10] == 2).all()
    assert (sheet[12:20, 12:20] == 255).all()
    strip = np.zeros((30, 2, 4, 4, 3), np.uint8)
    strip[0], strip[-1] = 10, 20
    pixels = denoising_strip(strip)
    assert pixels[3, 3, 0] == 10  # the first step is shown, and the last
    assert pixels[3, -4, 0] == 20


@pytest.fixture
def program(tmp_path):
    return Forked(tmp_path, "num_steps=3", "num_samples=4")


def test_a_setting_may_refer_to_the_number_of_a_job(program):
    code, _, err = program.run("-m", "scheduler=ddim,unipc", "seed=${hydra:job.num}", "metrics=none", "tracking=none")
    assert code == 0, err
    assert "Warning" not in err
    files = (program.folder / "outputs").glob("sweeps/*/*/*/config.yaml")
    assert {file.parent.name: OmegaConf.load(file).seed for file in files} == {"0": 0, "1": 1}


def test_a_sweep_makes_one_parent_with_a_child_per_job(program):
    code, out, err = program.run("-m", "scheduler=ddim,adaptive", "skip_finished=false")
    assert code == 0, err
    assert "The same command repeats what is finished" in out
    parent, *children = program.runs()
    assert [run.info.status for run in (parent, *children)] == ["FINISHED"] * 3
    names = ["ddim landscapes 3 steps seed 0", "adaptive landscapes 3 steps seed 0"]
    assert [run.info.run_name for run in children] == names
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert all(len(run.data.tags["mlflow.source.git.commit"]) == 40 for run in children if (ROOT / ".git").exists())
    assert f"ui {program.folder}/mlruns/mlflow.db\n" in out
    assert f"/#/experiments/{parent.info.experiment_id}/runs?" in out
    assert f"parentRunId%20%3D%20%27{parent.info.run_id}%27" in out
    assert list(program.elsewhere.iterdir()) == []  # everything hangs on the project's root, not on where one stands


def test_a_sweep_with_a_failing_job_goes_on_closes_its_run_and_exits_with_the_code(program):
    code, out, err = program.run("-m", "+scheduler.clip_sample_range=-1,1")
    assert code == 2
    assert "job 0 failed: scheduler: clip_sample_range must be a number, greater than 0, got -1.0" in err
    assert "Traceback" not in err
    assert [run.info.status for run in program.runs()] == ["FAILED", "FAILED", "FINISHED"]
    assert "1 of 2 jobs was refused" in out
    (folder,) = program.folder.glob("outputs/sweeps/*/*/[01]")
    assert folder.name == "1"  # a job that is refused leaves none


def test_a_job_that_fails_leaves_its_traceback_in_its_log(caplog):
    with pytest.raises(ZeroDivisionError):
        job(lambda cfg: 1 / 0)(OmegaConf.create())
    assert "job(lambda cfg: 1 / 0)" in caplog.text  # a line of the traceback


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("model.path=/nowhere.safetensors", "there is no model file at /nowhere.safetensors"),
        ("seed=half", "seed must be a whole number, got half"),
        ("scheduler=null", "scheduler has no option 'null'"),
        ("scheduler.calibration=5", "scheduler: calibration must be a calibrated schedule"),
        ("--num_samples", "there is no option --num_samples; settings are given as num_samples="),
        ("paths.outputs=", "paths.outputs= is empty"),
        ("paths={mlruns: ' '}", "paths.mlruns is empty"),
        ("model.path=~/no such (file), really", f"there is no model file at {Path.home()}/no such (file), really"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_leaves_nothing(argument, told, program):
    code, out, err = program.run(argument)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(told)
    assert not list(program.folder.glob("outputs/*"))


def test_a_refused_run_removes_its_own_folder_alone(program):
    kept = program.folder / "outputs" / "mine" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    for folder in ("mine", "sample/of/today"):
        assert program.run("seed=0", "label=xyz", f"hydra.run.dir={program.folder}/outputs/{folder}")[0] == 2
    assert kept.read_text() == "mine"
    assert (kept.parent / ".hydra").is_dir()
    assert [path.name for path in kept.parents[1].iterdir()] == ["mine"]


def test_settings_of_the_options_that_a_sweep_chooses_among_are_taken(program):
    choices = ("scheduler=dpm_solver,unipc", "scheduler.solver_order=1", "num_samples=1", "tracking=none")
    code, out, err = program.run("-m", *choices, "metrics=none")
    assert code == 0, err
    assert out.count("pictures.png") == 2
    assert "not repeated" not in out  # nothing is recorded
    assert "The same command repeats what is finished" in out
    assert out.count("passes) per image") == 2
    assert "evaluations/image  passes/image  seconds/image" in out


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("scheduler=ddim,adaptve", "scheduler has no option 'adaptve'; did you mean 'adaptive'?"),
        ("num_stepss=2,3", "there is no setting 'num_stepss'; did you mean 'num_steps'?"),
        ("hydra.sweep.subdir=same", "the jobs of this sweep would all write to hydra.sweep.subdir=same"),
    ],
)
def test_a_mistake_in_a_sweep_is_refused_before_its_cost_is_estimated(argument, told, program):
    code, out, err = program.run("-m", "seed=0,1", argument)
    assert (code, out) == (2, "")
    assert err.startswith(told)
    assert not list(program.folder.rglob("sweeps"))


def test_the_configuration_is_printed_with_its_references_resolved(program):
    code, out, err = program.run("--cfg", "job", "--resolve")
    assert (code, err) == (0, "")
    assert f"outputs: {program.folder}/outputs" in out


def test_the_help_of_hydra_is_shown_whatever_the_settings(program):
    code, out, err = program.run("--hydra-help")
    assert (code, err) == (0, "")
    assert out.startswith("Hydra")


def test_the_version_is_ours(program):
    assert program.run("--version")[1].startswith(f"adaptive-diffusion-optimizer {__version__}")


def test_an_interrupted_run_is_marked_killed(program):
    process = program.start("num_steps=1000", "num_samples=400", "batch_size=1")
    deadline = time.monotonic() + 120
    while not (found := program.runs()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert found, err
    assert (process.returncode, err) == (130, "interrupted\n")
    assert [run.info.status for run in program.runs()] == ["KILLED"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("scheduler._target_=types.SimpleNamespace", "which is no scheduler: it is not derived from SchedulerBase"),
        ("metrics._target_=types.SimpleNamespace", "which is no metrics"),
        ("grid._target_=fractions.Fraction", "which is no grid"),
        ("sampler._target_=adaptive_diffusion.rl.reward.SpeedReward", "sampler.*scheduler"),
        ("model._target_=types.SimpleNamespace", "which is no model: it has no metadata"),
    ],
)
def test_a_part_that_cannot_do_what_its_group_is_for_is_refused(configure, setting, message):
    with pytest.raises(ValueError, match=message):
        prepare(configure(setting))
