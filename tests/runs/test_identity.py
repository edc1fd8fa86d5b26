"""Runs are the same only by the same contents of the files and folders that they read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf
from tiny import configuration, tiny_checkpoint

from adaptive_diffusion.grids.calibrated import kept_file
from adaptive_diffusion.io.digest import digest_of
from adaptive_diffusion.runs.benchmark import cell_of
from adaptive_diffusion.runs.identity import identity_of_run, identity_of_training
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.runs.train import training_configuration
from adaptive_diffusion.tracking.provenance import placeless


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_a_folder_is_hashed_by_the_names_and_contents_below_it(tmp_path, change):
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.png").write_bytes(b"12")
    before = digest_of(folder)
    assert digest_of(folder) == before
    if change == "content":
        (folder / "deep" / "a.png").write_bytes(b"21")  # of the same size
    elif change == "name":
        (folder / "deep" / "a.png").rename(folder / "deep" / "b.png")
    else:
        (folder / "c.png").write_bytes(b"")
    assert digest_of(folder) != before


def test_a_folder_is_hashed_with_what_is_linked_into_it_also_in_a_circle(tmp_path):
    (folder := tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(name.encode())

    digests = []
    for name in ("a", "b", "a"):
        (folder / "faces").unlink(missing_ok=True)
        (folder / "faces").symlink_to(tmp_path / name)
        digests.append(digest_of(folder))

    assert digests[0] == digests[2] != digests[1]
    before = digest_of(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    assert digest_of(tmp_path / "a") == before


def test_a_folder_is_hashed_by_every_name_that_links_give_it(tmp_path):
    (folder := tmp_path / "images").mkdir()
    (folder / "pool").mkdir()
    (folder / "pool" / "x.png").write_bytes(b"x")
    digests = [digest_of(folder)]
    for name in ("a", "b"):
        (folder / name).symlink_to(folder / "pool")
        digests.append(digest_of(folder))

    (folder / "b").rename(folder / "c")
    digests.append(digest_of(folder))
    assert len(set(digests)) == 4


def test_another_content_of_a_folder_of_references_is_another_run(tmp_path):
    (references := tmp_path / "references").mkdir()
    (references / "general.npz").write_bytes(b"12")
    setup = prepare(configuration("sample", tmp_path, "model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}"))
    setup.cfg.metrics.references = str(references)

    before = identity_of_run(setup)
    assert identity_of_run(setup) == before
    (references / "general.npz").write_bytes(b"21")
    assert identity_of_run(setup) != before


def test_a_text_that_is_too_long_for_the_name_of_a_file_is_none(tmp_path):
    given = ["model@task.model=stable_diffusion_15", f"task.model.negative_prompt={'word ' * 60}"]
    assert len(identity_of_training(configuration("train", tmp_path, "agent=cem", *given), "tiny")) == 64


POLICY = ("task=policy", "agent=ppo", "domain=general", "grid@task.grid=calibrated")


@pytest.mark.parametrize("task", [("agent=cem",), POLICY])
def test_a_tuning_with_other_kept_calibrations_of_its_model_is_another_training(task, tmp_path):
    cfg = configuration("train", tmp_path, *task)
    (folder := tmp_path / "outputs" / "calibrations").mkdir(parents=True)
    before = identity_of_training(cfg, "tiny")
    kept_file(folder, "other").write_bytes(b"12")
    assert identity_of_training(cfg, "tiny") == before
    kept_file(folder, "tiny").write_bytes(b"12")
    assert identity_of_training(cfg, "tiny") != before


def test_a_tuning_for_a_domain_of_other_images_is_another_training(tmp_path):
    (tmp_path / "own").mkdir()
    cfg = configuration("train", tmp_path, "agent=cem", "domain=general", f"domain.pictures={tmp_path}/own")
    before = identity_of_training(cfg, "tiny")
    (tmp_path / "own" / "0.png").write_bytes(b"an image")
    assert identity_of_training(cfg, "tiny") != before


def test_runs_and_cells_are_the_same_wherever_the_folder_of_all_runs_lies(tmp_path):
    given = "model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}", "scheduler=adaptive"
    setups = [prepare(configuration("sample", tmp_path / name, *given)) for name in ("here", "there")]
    assert identity_of_run(setups[0]) == identity_of_run(setups[1])
    assert cell_of(setups[0]).settings == cell_of(setups[1]).settings


@pytest.mark.parametrize("group", ["scheduler", "grid", "guidance"])
def test_other_code_of_a_class_outside_this_package_is_another_run_and_another_cell(group, tmp_path, monkeypatch):
    setup = prepare(configuration("sample", tmp_path, "model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}"))
    assert "code" not in cell_of(setup).settings  # the kept cells of shipped classes stay valid
    monkeypatch.setitem(sys.modules, "outside", module := ModuleType("outside"))
    module.__file__ = str(tmp_path / "outside.py")
    setup.cfg[group]._target_ = "outside.Own"

    Path(module.__file__).write_text("class Own: a = 1")
    run, cell = identity_of_run(setup), cell_of(setup).settings
    assert (identity_of_run(setup), cell_of(setup).settings) == (run, cell)
    Path(module.__file__).write_text("class Own: a = 2")
    assert identity_of_run(setup) != run
    assert cell_of(setup).settings != cell


@pytest.mark.parametrize("task", [("agent=cem",), POLICY])
def test_a_training_is_the_same_wherever_the_folder_of_all_runs_lies(task, tmp_path):
    trainings = [training_configuration(configuration("train", tmp_path / name, *task), "a.json") for name in "ab"]
    assert trainings[0].output != trainings[1].output
    assert identity_of_training(trainings[0], "tiny") == identity_of_training(trainings[1], "tiny")


def test_the_folder_of_all_runs_is_named_at_the_beginning_of_a_path_only():
    cfg = OmegaConf.create({"paths": {"outputs": "/data"}})
    assert placeless(["/data/a", "read('/data/b')", "/mnt/data/a"], cfg) == [
        *("${paths.outputs}/a", "read('${paths.outputs}/b')"),
        "/mnt/data/a",
    ]
