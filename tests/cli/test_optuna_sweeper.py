"""`hydra/sweeper=optuna` asks a study which settings to try, and tells it what the jobs measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny import ROOT

from adaptive_diffusion.cli import optuna_sweeper
from adaptive_diffusion.cli.optuna_sweeper import StudySweeper
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.tracking.jobs import Job

pytest.importorskip("optuna")
ARGUMENTS = ["scheduler=ddim", "scheduler=ddim,adaptive", "seed=3", "x=interval(0,1)"]


class Launcher:
    """Runs jobs whose loss is the distance of x to 0.3, and more with ddim."""

    def __init__(self, folder, fails=()):
        self.folder, self.fails, self.jobs = folder, fails, []

    def launch(self, jobs, initial_job_idx):
        for number, job in enumerate(jobs, initial_job_idx):
            given = dict(setting.split("=") for setting in job)
            loss = abs(float(given["x"]) - 0.3) + (given["scheduler"] == "ddim")
            failed = number in self.fails
            metrics = {} if failed else {"loss": loss, "cost": 1 - loss}
            status = "FAILED" if failed else "FINISHED"
            Job(number=number, settings=tuple(job), status=status, metrics=metrics).save(self.folder)
            self.jobs.append(given)
        return [SimpleNamespace(return_value=0.0) for _ in jobs]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Run a sweep in a folder of its own; what was launched."""
    said: list[str] = []
    monkeypatch.setattr(optuna_sweeper, "say", said.append)

    def run(name, fails=(), arguments=ARGUMENTS, **settings):
        folder = tmp_path / name
        given = {"objectives": {"loss": "minimize"}, "study": "s", "storage": str(tmp_path / "s.log"), "trials": 12}
        sweeper = StudySweeper(**{**given, "at_once": 1, "sampler": "tpe", "seed": 0, **settings})
        sweeper._config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
        sweeper._loader, sweeper._launcher = None, Launcher(folder, fails)
        sweeper.sweep(list(arguments))
        return sweeper._launcher.jobs, said[-1]

    return run


def test_it_finds_the_better_half_of_the_space(sweep):
    jobs, said = sweep("one", trials=30)
    assert len(jobs) == 30
    assert all(job["seed"] == "3" and 0 <= float(job["x"]) <= 1 for job in jobs)
    later = jobs[20:]
    assert sum(job["scheduler"] == "adaptive" for job in later) > 5
    assert "30 of 30 trials have finished" in said
    assert "best       scheduler=adaptive" in said


def test_a_study_goes_on_where_it_was_and_failed_jobs_do_not_count(sweep):
    first, _ = sweep("one", trials=4, at_once=2)
    more, said = sweep("two", trials=6, fails=(0,))
    assert (len(first), len(more)) == (4, 3)
    assert "6 of 6" in said


def test_two_objectives_make_a_front(sweep):
    _, said = sweep("one", objectives={"loss": "minimize", "cost": "minimize"}, trials=5)
    assert said.count("best       ") > 1


def test_an_objective_that_nothing_measured_is_named(sweep):
    with pytest.raises(UserError, match=r"'speed', which was not measured; there are cost, loss"):
        sweep("one", objectives={"speed": "minimize"})


def test_a_sweep_whose_first_jobs_all_fail_ends(sweep):
    jobs, _ = sweep("one", fails=range(99))
    assert len(jobs) == 1


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"sampler": "grid"}, {"objectives": {"loss": "less"}}])
def test_wrong_settings_are_refused(sweep, wrong):
    with pytest.raises(ValueError, match=r"hydra\.sweeper"):
        sweep("one", **wrong)


def test_the_configuration_says_every_argument():
    config = OmegaConf.load(ROOT / "conf" / "hydra" / "sweeper" / "optuna.yaml")
    assert set(config) - {"_target_"} == set(StudySweeper.__init__.__annotations__) - {"return"}


def test_hydra_finds_it():
    from hydra.core.plugins import Plugins

    assert "hydra_plugins.adaptive_diffusion_optuna.OptunaSweeper" in Plugins.instance().class_name_to_class
    assert OverridesParser.create().parse_override("x=interval(0,1)").is_interval_sweep()
