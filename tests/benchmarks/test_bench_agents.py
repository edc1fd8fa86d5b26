"""The benchmark of agents trains each once, compares them at equal cost, and begins with what another domain found."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from rl.closed_form import gaussian
from tiny import LABELS, tiny_model

from adaptive_diffusion.io.markdown import MISSING
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.optimization.environment import DomainEnv
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.rl.convergence import Evaluation, Record
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from benchmarks import agents, agents_grid
from benchmarks.agents import AgentBench, TransferredTimestepEnv
from benchmarks.agents_grid import fresh_table
from benchmarks.agents_report import Result, load_result, report, save_result

pytestmark = pytest.mark.usefixtures("coarse_solutions")

SPREAD = np.linspace(-0.01, 0.01, 16)  # of images; its mean is 0, its standard error 0.00154


@pytest.fixture(scope="module")
def converged(tmp_path_factory):
    """A folder of the tiny model's converged solutions, which take longest."""
    return tmp_path_factory.mktemp("converged")


@pytest.fixture
def output(tmp_path, converged):
    """A folder without results."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "converged").symlink_to(converged)
    return tmp_path / "output"


@pytest.fixture
def bench(output) -> AgentBench:
    return AgentBench(output, episodes=2, pipeline=OptimizationPipeline(DomainAdapter(model=tiny_model())))


def result(scores: list[float], each: int = 100, **more: object) -> Result:
    """A run whose evaluations, ten episodes apart, have these mean scores and asked for `each` evaluations between."""
    evaluations = [
        Evaluation(10 * i, each * i, np.full(16, s) if i == 0 else s + SPREAD, s / 2) for i, s in enumerate(scores)
    ]
    given = {
        "model": "m guidance 1",
        "environment": "timesteps",
        "domain": "abstract",
        "agent": "cem",
        "seed": 0,
        "episodes": 10 * (len(scores) - 1),
        "source": None,
        "chosen": {"num_steps": 8},
        "device": "cpu",
        "record": Record(evaluations=evaluations),
    }
    return Result(**{**given, **more})


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of all tables, headers left out."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [
        line
        for i, line in enumerate(lines)
        if not line[0].startswith("---") and (i + 1 == len(lines) or not lines[i + 1][0].startswith("---"))
    ]


def test_a_result_survives_its_file(tmp_path):
    save_result(tmp_path / "r.json", result([0, 1, 1, 1]))
    again = load_result(tmp_path / "r.json")
    assert again.record.summary() == result([0, 1, 1, 1]).record.summary()
    assert (again.agent, again.chosen) == ("cem", {"num_steps": 8})


def test_what_is_no_whole_result_is_left_out(tmp_path):
    (tmp_path / "r.json").write_text('{"agent": "cem"')
    assert load_result(tmp_path / "r.json") is None
    assert load_result(tmp_path / "missing.json") is None


def test_the_median_counts_runs_that_did_not_converge_as_longer_than_they_had():
    converging = [result([0, 1, 1, 1, 1], seed=0), result([0, 0.5, 1, 1, 1], seed=1)]  # at 10 and 20
    never = [result([0, 0, 0, 0, 0], seed=s) for s in (2, 3)]
    assert rows(report(converging))[0][2:4] == ["15", "2 of 2"]
    assert rows(report([*converging, never[0]]))[0][2:4] == ["20", "2 of 3"]
    assert rows(report([*converging, *never]))[0][2:4] == ["> 40", "2 of 4"]


def test_agents_are_compared_at_the_evaluations_that_all_of_them_asked_for():
    cheap, dear = result([0, 1, 2, 3, 4]), result([0, 1, 2, 3, 4], each=200, agent="ppo")
    by_agent = {row[1]: row for row in rows(report([cheap, dear]))}
    assert by_agent["cem"][4:7] == ["200: 2.000 (0.002)", "400: 4.000 (0.002)", "4.000 (0.002)"]
    assert by_agent["ppo"][4:7] == ["200: 1.000 (0.002)", "400: 2.000 (0.002)", "4.000 (0.002)"]
    assert by_agent["ppo"][7:] == ["2.000", "800"]


def test_a_training_too_short_to_be_compared_leaves_a_dash():
    searched = result([0, 1], agent="random")
    evaluations = [Evaluation(e.episode, e.evaluations + 60, e.scores, e.quality) for e in searched.evaluations]
    ppo = result([0, 1], agent="ppo", record=Record(evaluations=evaluations))
    by_agent = {row[1]: row for row in rows(report([searched, ppo]))}
    assert by_agent["ppo"][4:7] == [f"50: {MISSING}", "100: 0.000 (0.000)", "1.000 (0.002)"]
    assert by_agent["random"][4:6] == ["50: 0.000 (0.000)", "100: 1.000 (0.002)"]


def test_no_two_columns_have_the_same_name():
    scratch = result([0, 0.5, 0.9, 1, 1])
    text = report([scratch, result([0.5, 0.985, 0.99, 0.99, 1.5], source="general")])
    headers = [line.split(" | ") for line in text.splitlines() if line.startswith("| domain")]
    assert len(headers) == 2
    assert all(len(set(names)) == len(names) for names in headers)


def test_seeds_are_averaged_and_their_spread_is_told():
    (row,) = rows(report([result([0, 1], seed=0), result([0, 2], seed=1)]))
    assert row[6:8] == ["1.500 ± 0.707 (0.002)", "0.750 ± 0.354"]


def test_other_models_environments_and_numbers_of_episodes_have_tables_of_their_own():
    some = [result([0, 1]), result([0, 1, 1]), result([0, 1], model="n"), result([0, 1], environment="hyperparameters")]
    assert report(some).count("###") == 4


def test_the_episodes_that_a_transfer_saves_are_counted_to_the_best_score_from_scratch():
    scratch = result([0, 0.5, 0.9, 1, 1])
    moved = result([0.5, 0.985, 0.99, 0.99, 1.5], source="general")
    assert (scratch.first_with(1.0), moved.first_with(1.0), scratch.first_with(2.0)) == (30, 10, math.inf)
    row = rows(report([scratch, moved]))[1]
    assert row[:7] == ["abstract", "general", "cem", "30", "10", "20", "1 of 1"]
    assert row[7:] == ["0.000 (0.000) → 0.500 (0.000)", "1.000 (0.002) → 1.500 (0.002)"]
    worse = result([0.5, 0.6, 0.6, 0.6, 0.6], source="general")
    assert rows(report([scratch, worse]))[1][3:7] == ["30", "> 40", "none", "0 of 1"]


@pytest.mark.parametrize("environment", agents.ENVIRONMENTS)
def test_every_agent_is_trained_once(bench, environment, capsys):
    first = [bench.run(environment, "abstract", agent, seed=0) for agent in agents.AGENTS]
    assert len(capsys.readouterr().out.splitlines()) == len(agents.AGENTS)
    assert all(r.final.episode >= 2 and r.final.evaluations == r.record.asked > 0 for r in first)
    again = [
        AgentBench(bench.output, 2, pipeline=bench.pipeline).run(environment, "abstract", a, seed=0)
        for a in agents.AGENTS
    ]
    assert capsys.readouterr().out == ""
    assert [r.record.summary() for r in again] == [r.record.summary() for r in first]
    assert [r.agent for r in bench.results()] == list(agents.AGENTS)


def test_on_the_grid_no_action_is_the_default_and_others_are_the_nearest(bench):
    env, held_out = bench._environments("real", "abstract")
    assert env.knobs.configuration(np.zeros(7)) == env.default == env.grid[0]
    near = env.knobs.configuration(np.array([-0.5, 0.3, -1.0, -0.6, 0, 0, 0]))  # weight 1.2, 6 steps
    assert (near.num_steps, near.guidance_weight, near.guidance_low, near.guidance_high) == (6, 1.3, -4.0, -1.0)
    assert (env.noises.batches, held_out.noises.batches, env.noises.seed + 1) == (2, 12, held_out.noises.seed)


def test_what_agents_choose_on_the_grid_is_drawn_from_fresh_noises(bench, monkeypatch):
    monkeypatch.setattr(agents_grid, "INTERVALS", ((-4.0, -1.0),))
    monkeypatch.setattr(agents_grid, "STEPS", (5,))
    bench.pictures = 4
    for agent in ("fixed", "random"):
        bench.run("real", "abstract", agent, seed=0)
    drawn = sum(1 for _ in (bench.output / "grid").iterdir())
    chosen = bench.fresh("abstract", 8)
    (fixed,), (best,) = chosen["fixed"], chosen["the grid's best"]
    assert np.all(fixed.reward == 0)
    assert np.abs(best.quality).mean() > 0
    assert sum(1 for _ in (bench.output / "grid").iterdir()) > drawn

    table = rows(fresh_table("abstract", chosen))
    assert [row[1] for row in table] == ["random", "fixed", "the grid's best"]
    assert table[1][2:7] == ["+0.00 ± 0.00", "+0.00 ± 0.00", "+0.00 ± 0.00", "0 of 1", "20"]


def test_choices_are_compared_anew_in_the_domains_that_are_given(output, monkeypatch, capsys):
    for domain in ("abstract", "general"):
        save_result(output / "runs" / f"{domain}.json", result([0.0, 0.1], environment="real", domain=domain))
    monkeypatch.setattr(AgentBench, "fresh", lambda bench, domain, images: {})
    monkeypatch.setattr(agents, "fresh_table", lambda domain, chosen: f"anew: {domain}")
    agents.main(["--report-only", "--output", str(output), "--domains", "general", "portraits"])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("anew")] == ["anew: general"]


def test_another_seed_or_number_of_episodes_is_another_run(bench, capsys):
    bench.run("hyperparameters", "abstract", "random", seed=0)
    bench.run("hyperparameters", "abstract", "random", seed=1)
    AgentBench(bench.output, 4, pipeline=bench.pipeline).run("hyperparameters", "abstract", "random", seed=0)
    assert len(capsys.readouterr().out.splitlines()) == len(bench.results()) == 3


def test_sharing_an_environment_changes_no_number(bench):
    bench.run("hyperparameters", "abstract", "cem", seed=0)
    shared = bench.run("hyperparameters", "abstract", "random", seed=1)
    for path in (bench.output / "runs").iterdir():
        path.unlink()
    alone = AgentBench(bench.output, 2, pipeline=bench.pipeline).run("hyperparameters", "abstract", "random", seed=1)
    assert alone.record.computed > shared.record.computed
    for a, b in zip(shared.evaluations, alone.evaluations, strict=True):
        assert a.evaluations == b.evaluations
        np.testing.assert_allclose(a.scores, b.scores)


@pytest.mark.parametrize("environment", ["hyperparameters", "timesteps"])
def test_a_transfer_begins_with_what_the_nearest_domain_chose(bench, environment):
    moved = bench.transfer(environment, "abstract", "random", seed=0)
    assert moved.source == "general"  # the nearest by the images that ship
    (source,) = [r for r in bench.results() if r.domain == "general"]
    env = bench._environment(environment, "abstract", source.chosen)
    assert env.noises.seed == bench._environment(environment, "abstract").noises.seed
    prior = np.zeros(env.action_space.shape)
    if isinstance(env, DomainEnv):
        assert env.knobs.configuration(prior) == DomainConfig(**source.chosen)
        assert env.baseline == DomainConfig()
    else:
        env.reset(options={"batch": 0})
        over = False
        while not over:
            _, _, over, _, info = env.step(prior)
        np.testing.assert_allclose(info["hyperparameters"]["timesteps"], source.chosen["timesteps"], atol=1e-3)


def test_a_transferred_grid_is_measured_against_the_same_baseline():
    plain = TimestepEnv(gaussian(), num_steps=3, pictures=2, batches=1)
    moved = TransferredTimestepEnv(gaussian(), num_steps=3, pictures=2, batches=1, timesteps=[999.0, 600.0, 100.0])
    last = {}
    for env in (plain, moved):
        env.reset(options={"batch": 0})
        env.step(np.zeros(1))
        last[env] = env.step(np.zeros(1))
    assert last[plain][1] == pytest.approx(0, abs=1e-5)
    assert abs(last[moved][1]) > 1e-3
    assert moved.describe()["prior"] == plain.describe()["prior"]


def test_the_command_prints_tables_and_then_repeats_nothing(output, capsys, monkeypatch):
    monkeypatch.setattr("adaptive_diffusion.optimization.domain_adapter.load_builtin_model", tiny_model)
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it fails
    options = ["--environments", "uncalibrated", "--domains", "abstract", "--agents", "cem", "fixed", "--transfer"]
    options += ["--seeds", "3", "4", "--episodes", "2", "--output", str(output)]
    agents.main(options)
    first = capsys.readouterr().out
    lines = [line.split(":")[0] for line in first.splitlines() if line.startswith("uncalibrated")]
    assert lines == [
        "uncalibrated abstract cem seed 3",
        "uncalibrated abstract cem seed 4",
        "uncalibrated abstract fixed seed 0",
        "uncalibrated general cem seed 3",
        "uncalibrated abstract cem seed 3 begun with general",
        "uncalibrated general cem seed 4",
        "uncalibrated abstract cem seed 4 begun with general",
    ]
    agents.main(options)
    repeated = capsys.readouterr().out
    agents.main(["--report-only", "--output", str(output)])
    assert capsys.readouterr().out == repeated
    assert [row[:2] for row in rows(repeated)] == [
        ["abstract", "cem"],
        ["abstract", "fixed"],
        ["general", "cem"],
        ["abstract", "general"],
    ]


def test_a_report_of_nothing_and_an_unknown_domain_say_what_to_do(tmp_path, bench):
    with pytest.raises(ValueError, match="no results"):
        agents.main(["--report-only", "--output", str(tmp_path)])
    with pytest.raises(ValueError, match=f"'cats'.*{next(iter(LABELS))}"):
        bench.run("timesteps", "cats", "cem", seed=0)
