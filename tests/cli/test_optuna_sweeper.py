"""`hydra/sweeper=optuna` asks a study which settings to try, and tells it what the jobs measured."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny import ROOT

from adaptive_diffusion.cli import optuna_sweeper
from adaptive_diffusion.cli.optuna_sweeper import StudySweeper
from adaptive_diffusion.errors import MissingPackage, UserError
from adaptive_diffusion.program import pip_install
from adaptive_diffusion.tracking.jobs import Job

pytest.importorskip("optuna")
ARGUMENTS = ["scheduler=ddim", "scheduler=ddim,adaptive", "seed=3", "x=interval(0,1)"]


class JobError(Exception):
    """What a job failed of."""


class Returned:
    """The result of a job, as Hydra's: to read it raises what the job failed of."""

    def __init__(self, failed):
        self.failed = failed

    @property
    def return_value(self):
        if self.failed:
            raise JobError
        return 0.0


class Launcher:
    """Runs jobs whose loss is the distance of x to 0.3, and more with ddim."""

    def __init__(self, folder, fails=(), nan=(), silent=()):
        self.folder, self.fails, self.nan, self.silent, self.jobs = folder, fails, nan, silent, []

    def launch(self, jobs, initial_job_idx):
        for number, job in enumerate(jobs, initial_job_idx):
            given = dict(setting.split("=") for setting in job)
            loss = abs(float(given["x"]) - 0.3) + (given["scheduler"] == "ddim")
            loss = float("nan") if number in self.nan else loss
            failed = number in self.fails
            metrics = {} if failed else {"loss": loss, "cost": 1 - abs(float(given["x"]) - 0.3)}
            if number in self.silent:
                metrics.pop("loss")
            status = "FAILED" if failed else "FINISHED"
            Job(number=number, settings=tuple(job), status=status, metrics=metrics).save(self.folder)
            self.jobs.append(given)
        return [Returned(number in self.fails) for number in range(initial_job_idx, initial_job_idx + len(jobs))]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Run a sweep in a folder of its own; what was launched."""
    said: list[str] = []
    monkeypatch.setattr(optuna_sweeper, "say", said.append)

    def run(name, fails=(), nan=(), silent=(), arguments=ARGUMENTS, in_vain=False, **settings):
        folder = tmp_path / name
        given = {"objectives": {"loss": "minimize"}, "study": "s", "storage": str(tmp_path / "s.log"), "trials": 12}
        sweeper = StudySweeper(**{**given, "at_once": 1, "sampler": "tpe", "seed": 0, **settings})
        sweeper._config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
        sweeper._loader, sweeper._launcher = None, Launcher(folder, fails, nan, silent)
        with pytest.raises(JobError) if in_vain else nullcontext():
            sweeper.sweep(list(arguments))
        return sweeper._launcher.jobs, said

    return run


def test_it_finds_the_better_half_of_the_space(sweep):
    jobs, said = sweep("one", trials=30)
    assert len(jobs) == 30
    assert all(job["seed"] == "3" and 0 <= float(job["x"]) <= 1 for job in jobs)
    later = jobs[20:]
    assert sum(job["scheduler"] == "adaptive" for job in later) > 5
    assert "30 of 30 trials have finished" in said[-1]
    assert "best       scheduler=adaptive" in said[-1]


def test_a_study_goes_on_where_it_was_and_failed_jobs_do_not_count(sweep):
    first, _ = sweep("one", trials=4, at_once=2)
    more, said = sweep("two", trials=6, fails=(0,))
    assert (len(first), len(more)) == (4, 3)
    assert "6 of 6" in said[-1]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_study_that_goes_on_tries_what_it_would_have_tried_without_a_stop(sweep, sampler):
    whole, _ = sweep("whole", study="whole", trials=6, sampler=sampler)
    parts = [job for n in (2, 3, 6) for job in sweep(f"to {n}", trials=n, sampler=sampler)[0]]
    assert parts == whole
    assert len({job["x"] for job in whole}) == 6
    other, _ = sweep("other", study="other", trials=6, sampler=sampler, seed=1)
    assert not {job["x"] for job in whole} & {job["x"] for job in other}


def test_two_objectives_make_a_front(sweep):
    _, said = sweep("one", objectives={"loss": "minimize", "cost": "minimize"}, trials=5)
    best = said[-1].partition("best       ")[2].splitlines()
    assert len(best) > 1
    assert all("scheduler=" in line for line in best)


def test_an_objective_that_nothing_measured_is_named(sweep):
    with pytest.raises(UserError, match=r"no number as speed; there are cost, loss$"):
        sweep("one", objectives={"speed": "minimize"})


def test_a_job_that_did_not_measure_the_objective_is_no_trial(sweep):
    jobs, said = sweep("one", trials=3, silent=(0, 2))
    assert len(jobs) == 5
    assert said[:2] == [f"job {number} is no trial: it measured no number as loss" for number in (0, 2)]
    assert "3 of 3" in said[-1]


def test_a_sweep_ends_where_every_job_of_three_batches_in_a_row_failed(sweep):
    jobs, said = sweep("one", fails=range(99), at_once=2, in_vain=True)
    assert len(jobs) == 6
    assert "no job was a trial 3 times in a row" in said[-2]
    jobs, _ = sweep("two", trials=2)
    assert len(jobs) == 2
    # A study with trials does not make it go on for ever.
    jobs, _ = sweep("three", trials=4, fails=range(1, 99), in_vain=True)
    assert len(jobs) == 4
    jobs, said = sweep("four", trials=5, fails=(0, 1, 3, 4))
    assert len(jobs) == 6
    assert "5 of 5" in said[-1]


def test_a_sweep_ends_where_the_objective_is_nan(sweep):
    with pytest.raises(UserError, match=r"the jobs measured no number as loss; there are cost$"):
        sweep("one", nan=range(20))
    jobs, said = sweep("two", trials=3, nan=(0, 1, 3), fails=(4,))
    assert len(jobs) == 7
    assert "3 of 3" in said[-1]


@pytest.mark.parametrize(
    "other",
    [
        {"objectives": {"cost": "minimize"}},
        {"objectives": {"loss": "maximize"}},
        {"arguments": ["x=interval(0,2)", "scheduler=ddim,adaptive"]},
        {"arguments": ["x=interval(0,1)", "scheduler=ddim"]},
    ],
)
def test_a_study_with_other_objectives_or_another_space_is_not_gone_on_with(sweep, other):
    sweep("one", trials=1)
    with pytest.raises(UserError, match=r"hydra\.sweeper\.study=NAME"):
        sweep("two", trials=2, **other)
    jobs, _ = sweep("three", trials=1, study="another", arguments=["scheduler=ddim", "x=0,1"])
    assert len(jobs) == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"sampler": "cmaes"}, "scheduler=interval"),
        ({"sampler": "cmaes", "objectives": {"loss": "minimize", "cost": "minimize"}}, "takes one objective, got 2"),
        ({"objectives": {}}, "objectives must name a metric"),
        ({"objectives": None}, "objectives must name a metric"),
        ({"params": {"num_steps": "5,8"}}, r"no hydra\.sweeper\.params"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_in_one_sentence(sweep, wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        sweep("one", **wrong)


def test_cmaes_takes_numbers(sweep):
    pytest.importorskip("cmaes")
    jobs, _ = sweep("one", sampler="cmaes", arguments=["scheduler=ddim", "x=interval(0,1)", "y=interval(0,1)"])
    assert len(jobs) == 12


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"sampler": "grid"}, {"objectives": {"loss": "less"}}])
def test_wrong_settings_are_refused(sweep, wrong):
    with pytest.raises(ValueError, match=r"hydra\.sweeper"):
        sweep("one", **wrong)


def test_without_optuna_a_sentence_says_how_to_install_it(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackage) as error:
        sweep("one")

    assert str(error.value).endswith(f"needs optuna, which is not installed: {pip_install('tune')}")


def test_the_configuration_says_every_argument():
    config = OmegaConf.load(ROOT / "conf" / "hydra" / "sweeper" / "optuna.yaml")
    assert set(config) - {"_target_"} == set(StudySweeper.__init__.__annotations__) - {"return", "params"}


def test_an_interval_of_whole_numbers_is_searched_in_whole_numbers(sweep):
    jobs, _ = sweep("one", arguments=["scheduler=ddim", "x=interval(0,1)", "num_steps=int(interval(4,12))"])
    steps = {job["num_steps"] for job in jobs}
    assert len(steps) > 1
    assert steps <= {str(n) for n in range(4, 13)}


def test_hydra_finds_it():
    from hydra.core.plugins import Plugins

    assert "hydra_plugins.adaptive_diffusion_optuna.OptunaSweeper" in Plugins.instance().class_name_to_class
    assert OverridesParser.create().parse_override("x=interval(0,1)").is_interval_sweep()
