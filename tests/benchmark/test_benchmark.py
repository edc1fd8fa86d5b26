"""The benchmark: the same noises for every cell, measured once, tables that say what was measured."""

from __future__ import annotations

import csv
import itertools
import json
import re
import signal
import time
from dataclasses import asdict, replace

import mlx.core as mx
import numpy as np
import pytest
from benchmark_program import tiny_reference
from omegaconf import OmegaConf
from program import Forked, Program
from tiny import ROOT, tiny_encoder, tiny_model

from adaptive_diffusion.benchmark import measure, report, store
from adaptive_diffusion.benchmark.cell import Bench, BlockResult, Cell, CellResult
from adaptive_diffusion.benchmark.intervals import paired_bootstrap
from adaptive_diffusion.benchmark.plots import pareto_front
from adaptive_diffusion.benchmark.report import markdown, overview, summarise, write_report
from adaptive_diffusion.benchmark.store import load_cell, save_cell
from adaptive_diffusion.diffusion.conditions import Same
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.metrics.features import picture_statistics
from adaptive_diffusion.metrics.frechet import frechet_distance
from adaptive_diffusion.runs.benchmark import BenchmarkReport, refuse_without_effect
from adaptive_diffusion.runs.cells import main as report_kept
from adaptive_diffusion.sampling.converged import converged_pictures
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DDPMScheduler, DPMSolverScheduler
from adaptive_diffusion.tracking.jobs import Job

FITTED = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def a_cell(scheduler=DPMSolverScheduler, steps=3, **more):
    sampler = StandardSampler(scheduler(clip_sample=True, **FITTED))
    given = {"scheduler": scheduler.__name__[:3].lower(), "grid_name": "uniform", "grid": PowerGrid(1), **more}
    return Cell("landscapes", Same((2, 0)), num_steps=steps, sampler=sampler, **given)


@pytest.fixture
def bench(tmp_path):
    return Bench(
        model=tiny_model(),
        guidance_scale=1.5,
        encoder=tiny_encoder(),
        reference=tiny_reference,
        pictures=6,
        seed_blocks=2,
        seed=5,
        batch_size=4,
        tolerance=0.01,
        cache=tmp_path / "converged",
    )


# --- a cell -----------------------------------------------------------------------------------------------------------


def test_a_cell_reports_what_a_direct_computation_gives(bench):
    result = measure.measure_cell(a_cell(), bench)
    encoder, pooled = tiny_encoder(), []
    for seed, block in zip((5, 6), result.blocks, strict=True):
        x_T, condition = normal(image_keys(seed, range(6)), (8, 8, 3)), mx.array([[2, 0]] * 6)
        solver = a_cell().sampler
        solver.scheduler.set_timesteps(timesteps=[999, 666, 333])
        model = solver.scheduler.guided(bench.model, None, 1.5)
        images = np.array(solver.run(model, x_T, condition=condition).images)
        pooled.append(images)
        target = converged_pictures(solver.scheduler.guided(model, condition), x_T, tolerance=0.01)
        features, real = picture_statistics(encoder, images), tiny_reference("landscapes")
        rmse = [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(images, target.images, strict=True)]
        assert block.seed == seed
        assert block.fd_encoder == pytest.approx(frechet_distance(features, real), rel=1e-3)
        to_converged = frechet_distance(features, picture_statistics(encoder, target.images))
        assert block.fd_converged == pytest.approx(to_converged, rel=1e-3, abs=1e-9)
        assert block.rmse == pytest.approx(rmse, rel=1e-3)
        perceptual = encoder.perceptual_distances(images, target.images)
        assert block.perceptual == pytest.approx(perceptual.tolist(), rel=1e-2)
        assert (block.evaluations, block.passes) == (3, 6)
        assert block.seconds > 0
    together = picture_statistics(encoder, np.concatenate(pooled))
    assert result.fd_encoder == pytest.approx(frechet_distance(together, real), rel=1e-3)
    assert result.dimensions == 6  # 4 learned, 2 of sharpness
    assert result.converged_rmse <= 0.01


def test_all_cells_start_from_the_same_noises(bench, monkeypatch):
    seen = []

    class Noting(StandardSampler):
        def run(self, model, x_T, **options):
            seen.append(np.array(x_T))
            return super().run(model, x_T, **options)

    monkeypatch.setattr(measure, "converged_pictures", lambda *a, **o: pytest.fail("not for DDPM"))
    first, other = a_cell(DDPMScheduler, steps=2), a_cell(DDPMScheduler, steps=4, grid=PowerGrid(2))
    for one in (first, other):
        measure.measure_cell(Cell(**{**vars(one), "sampler": Noting(one.sampler.scheduler)}), bench)
    half = len(seen) // 2
    assert half == 4  # two blocks of 4 + 2 images
    np.testing.assert_array_equal(np.concatenate(seen[:half]), np.concatenate(seen[half:]))
    expected = np.concatenate([np.array(normal(image_keys(s, range(6)), (8, 8, 3))) for s in (5, 6)])
    np.testing.assert_array_equal(np.concatenate(seen[:half]), expected)


@pytest.mark.parametrize(
    ("scheduler", "stochastic"),
    [
        (DDPMScheduler(), True),
        (DDIMScheduler(), False),
        (DDIMScheduler(eta=0.5), True),
        (DPMSolverScheduler(), False),
        (DPMSolverScheduler(algorithm_type="sde-dpmsolver++"), True),
    ],
)
def test_a_stochastic_scheduler_says_so(scheduler, stochastic):
    assert scheduler.stochastic == stochastic


def test_a_stochastic_scheduler_has_no_paired_numbers(bench):
    result = measure.measure_cell(a_cell(DDPMScheduler), bench)
    assert {(b.fd_converged, b.rmse, b.perceptual) for b in result.blocks} == {(None, None, None)}
    assert result.fd_converged is None
    assert all(np.isfinite(b.fd_encoder) for b in result.blocks)
    assert not bench.cache.exists()  # and no converged solution was made for it


# --- the store --------------------------------------------------------------------------------------------------------


def test_a_result_is_read_as_it_was_written_and_a_damaged_one_is_told_of(bench, tmp_path, caplog):
    result = measure.measure_cell(a_cell(steps=2), replace(bench, pictures=2, tolerance=1.0))
    path = tmp_path / "cell.json"
    assert load_cell(path) is None
    save_cell(path, result)
    assert load_cell(path) == result
    path.write_text(path.read_text()[:100])
    assert load_cell(path) is None
    assert f"{path} is no whole result of a cell" in caplog.text


def test_whatever_changes_the_numbers_changes_the_fingerprint(bench):
    others = [
        (a_cell(steps=4), bench),
        (a_cell(grid=PowerGrid(2)), bench),
        (a_cell(DDIMScheduler), bench),
        (a_cell(settings={"solver_order": 3}), bench),
        *((a_cell(), Bench(**{**vars(bench), **change})) for change in ({"pictures": 7}, {"seed": 1})),
        *((a_cell(), Bench(**{**vars(bench), **change})) for change in ({"guidance_scale": 1.0}, {"tolerance": 1.0})),
        (a_cell(), Bench(**{**vars(bench), "model": tiny_model(content_hash="other")})),
        (a_cell(), Bench(**{**vars(bench), "reference": lambda domain: tiny_reference("other")})),
    ]
    names = [store.fingerprint(a_cell(), bench), *(store.fingerprint(*other) for other in others)]
    assert len(set(names)) == len(names)
    assert store.fingerprint(a_cell(), Bench(**{**vars(bench), "cache": None})) == names[0]


# --- intervals --------------------------------------------------------------------------------------------------------


def test_the_interval_covers_a_known_difference_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered, narrow = 0, []
    for trial in range(200):
        shared = rng.normal(size=80)  # what pairing takes out
        a, b = shared + rng.normal(0.3, 0.2, 80), shared + rng.normal(0, 0.2, 80)
        found = paired_bootstrap(a, b, resamples=400, seed=trial)
        covered += found.low <= 0.3 <= found.high
        narrow.append(found.high - found.low)
    assert 180 <= covered <= 199  # 190 expected, with a standard deviation of 3
    theory = 2 * 1.96 * 0.2 * np.sqrt(2 / 80)
    assert np.mean(narrow) == pytest.approx(theory, rel=0.1)


def test_an_interval_of_identical_pairs_is_zero_and_pairs_must_match():
    same = paired_bootstrap([1, 2, 3], [1, 2, 3])
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="the same length"):
        paired_bootstrap([1, 2], [1, 2, 3])


# --- the report -------------------------------------------------------------------------------------------------------


def result(method, steps, rmse, domain="landscapes", change=1e-4, seconds=1.0):
    """A cell of two blocks of two images with these RMSEs, (2, 2), or None."""
    blocks = tuple(
        BlockResult(
            s, 10.0 + s, *(None, None, None) if rmse is None else (1.0, tuple(rmse[s]), (0.5, 0.7)), steps, seconds
        )
        for s in range(2)
    )
    return CellResult(domain, method, "uniform", (), steps, 2, 4, blocks, 9.0, None, 64, change, 1e-5)


RESULTS = [
    result("dpm", 5, [[0.1, 0.3], [0.2, 0.2]]),
    result("ddim", 5, [[0.2, 0.4], [0.3, 0.5]], seconds=0.9),
    result("ddpm", 5, None, seconds=2.0),
    result("dpm", 10, [[0.01, 0.03], [0.05, 0.03]], change=0.02, seconds=2.0),
]


def test_the_summary_has_means_spreads_and_differences_from_the_baseline_with_as_many_steps():
    rows = {row.cell.name: row for row in summarise(RESULTS, "ddim uniform")}
    dpm = rows["dpm uniform 5"]
    assert dpm.mean["rmse"] == pytest.approx(0.2)
    assert dpm.spread["rmse"] == pytest.approx(0.0)
    assert (dpm.mean["fd_encoder"], dpm.spread["fd_encoder"]) == (10.5, pytest.approx(np.sqrt(0.5)))
    assert dpm.baseline == "ddim uniform 5"
    assert dpm.difference["rmse"].mean == pytest.approx(-0.15)
    assert dpm.difference["rmse"].low >= -0.3
    assert rows["ddim uniform 5"].difference == {}
    assert rows["dpm uniform 10"].difference == {}  # there is no such baseline
    assert rows["ddpm uniform 5"].mean["rmse"] is None
    assert rows["ddpm uniform 5"].difference == {}
    assert not rows["dpm uniform 10"].converged_enough
    named = {row.cell.name: row for row in summarise(RESULTS, "ddim uniform 5")}
    assert named["dpm uniform 10"].difference["rmse"].mean == pytest.approx(-0.32)


def test_the_files_say_what_the_results_are(tmp_path):
    rows = write_report(tmp_path, [*RESULTS, result("dpm", 5, [[0.1, 0.3], [0.2, 0.2]], "abstract")], "ddim uniform")
    assert {p.name for p in tmp_path.iterdir()} == {
        *("results.csv", "summary.csv", "summary.md"),
        *(f"{kind}_{domain}.png" for kind in ("quality", "pareto") for domain in ("landscapes", "abstract")),
    }
    blocks = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(blocks) == 5 * 2
    (ddpm, _) = [b for b in blocks if b["scheduler"] == "ddpm"]
    assert (ddpm["rmse"], ddpm["fd_encoder"], ddpm["seconds"]) == ("", "10.0", "2.0")
    summary = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert len(summary) == len(rows) == 5
    (dpm,) = [s for s in summary if (s["domain"], s["scheduler"], s["num_steps"]) == ("landscapes", "dpm", "5")]
    assert float(dpm["rmse_mean"]) == pytest.approx(0.2)
    assert float(dpm["rmse_difference_mean"]) == pytest.approx(-0.15)
    assert (dpm["baseline"], dpm["blocks"], dpm["pictures_per_block"]) == ("ddim uniform 5", "2", "2")
    text = (tmp_path / "summary.md").read_text()
    assert text.count("## ") == 2
    assert "n = 2 blocks of 2 images" in text
    assert re.search(r"\| dpm uniform \| 5 \|.* 0\.2 \+- .*\| ddim uniform 5 \| -0\.1500 \[", text)
    assert "0.03 +- 0.014*" in text  # not converged enough, and said so
    assert "lower `benchmark.tolerance`" in text
    assert "4 images are fewer than 4 x 4 dimensions" in text


def test_a_report_of_stochastic_schedulers_alone_has_plots_too(tmp_path):
    write_report(tmp_path, [result("ddpm", n, None) for n in (5, 10)])
    assert {p.name for p in tmp_path.glob("*.png")} == {f"{k}_landscapes.png" for k in ("quality", "pareto")}


def test_cells_that_differ_in_a_swept_setting_are_told_apart_and_compared_within_it():
    swept = [
        replace(result(method, 5, rmse), variant=("model=checkpoint", f"guidance_scale={scale}"))
        for scale, worse in ((1, 0.0), (2, 1.0))
        for method, rmse in (("ddim", [[0.2 + worse] * 2] * 2), ("dpm", [[0.1 + worse] * 2] * 2))
    ]
    rows = {row.cell.name: row for row in summarise(swept, "ddim uniform")}
    assert set(rows) == {f"{m} uniform guidance_scale={s} 5" for m in ("ddim", "dpm") for s in (1, 2)}
    for scale in (1, 2):
        row = rows[f"dpm uniform guidance_scale={scale} 5"]
        assert row.baseline == f"ddim uniform guidance_scale={scale} 5"
        assert row.difference["rmse"].mean == pytest.approx(-0.1)


def test_a_table_says_the_size_of_every_cell_and_the_caveat_of_the_smallest():
    swept = [
        replace(RESULTS[0], pictures=size, dimensions=10, variant=(f"num_samples={size}", *more))
        for size, more in ((30, ()), (2, ("prompt='a|b'",)))
    ]
    text = markdown(summarise(swept, "dpm uniform"))
    assert "n = 2 blocks of 2 images or 2 blocks of 30 images;" in text
    assert "of all 4 or 60 images together" in text
    assert "4 images are fewer than 4 x 10 dimensions" in text
    assert text.count("| dpm uniform num_samples=2 prompt='a\\|b' |") == 2


def test_cells_from_other_noises_are_not_compared():
    dpm = result("dpm", 5, [[0.1, 0.3], [0.2, 0.2]])
    elsewhere = replace(dpm, blocks=tuple(replace(block, seed=100 + block.seed) for block in dpm.blocks))
    ddim = result("ddim", 5, [[0.2, 0.4], [0.3, 0.5]])
    (_, row) = summarise([ddim, elsewhere], "ddim uniform")
    assert (row.baseline, row.difference) == ("", {})


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one cell"):
        write_report(tmp_path, [])


def test_a_report_holds_cells_of_one_noise(tmp_path, capsys):
    cells, output = tmp_path / "cells", tmp_path / "report"
    others = tuple(replace(block, seed=100 + block.seed) for block in RESULTS[0].blocks)
    for i, measured in enumerate([*RESULTS, replace(RESULTS[0], blocks=others)]):
        save_cell(cells / f"{i}.json", measured)
    report_kept(["--cells", str(cells), "--output", str(output), "--plots"])
    said = capsys.readouterr().out
    assert said == f"1 cell of other seeds than 0 to 1: left out\n4 cells of 2 images per block: {output}/summary.md\n"


def test_a_benchmark_reports_its_own_jobs_alone(tmp_path):
    for name in ("earlier", "failed", "own"):
        save_cell(tmp_path / name / "cell.json", RESULTS[0] if name == "own" else RESULTS[1])
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}, "benchmark": {"baseline": None}})
    status = {"failed": "FAILED", "own": "FINISHED"}
    jobs = [Job(number=i, settings=(), status=s, folder=str(tmp_path / n)) for i, (n, s) in enumerate(status.items())]
    BenchmarkReport().end(config, jobs)
    rows = (tmp_path / "benchmark" / "summary.csv").read_text().splitlines()
    assert len(rows) == 2


def test_one_report_of_all_kept_cells_of_a_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "PLOTS", dict.fromkeys(report.PLOTS, lambda *given: None))  # five times the same
    cells, output = tmp_path / "cells", tmp_path / "report"
    for i, measured in enumerate([*RESULTS, replace(RESULTS[0], pictures=3)]):
        save_cell(cells / f"{i}.json", measured)
    report_kept(["--cells", str(cells), "--output", str(output)])
    assert capsys.readouterr().out == f"4 cells of 2 images per block: {output}/summary.md\n"
    assert len((output / "summary.csv").read_text().splitlines()) == 1 + 4
    report_kept(["--cells", str(cells), "--output", str(output), "--images", "3"])
    assert "1 cell of 3 images" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no cell has 5 images .*2, 3"):
        report_kept(["--cells", str(cells), "--output", str(output), "--images", "5"])
    report_kept(["--cells", str(cells), "--output", str(output), "--baseline", "nope"])
    assert "nothing was compared with the baseline 'nope'" in capsys.readouterr().out
    save_cell(cells / "other.json", replace(RESULTS[0], model="another guidance 1"))
    report_kept(["--cells", str(cells), "--output", str(output)])
    assert "4 cells of 2 images" in capsys.readouterr().out  # those of the commonest model alone
    report_kept(["--cells", str(cells), "--output", str(output), "--model", "another"])
    assert "1 cell of 2 images" in capsys.readouterr().out
    for weight in (1.5, 2):  # of one network, each guidance is another model; a report of some beginning holds all
        guided = replace(RESULTS[0], model=f"another guidance {weight}", variant=(f"guidance_scale={weight}",))
        save_cell(cells / f"guided {weight}.json", guided)
    report_kept(["--cells", str(cells), "--output", str(output), "--model", "another"])
    assert "3 cells of 2 images" in capsys.readouterr().out
    save_cell(cells / "newest.json", replace(RESULTS[0], model="another guidance 1", encoder="new"))
    report_kept(["--cells", str(cells), "--output", str(output), "--model", "another"])
    assert capsys.readouterr().out.startswith(
        "3 cells measured by another encoder than the newest cell: left out\n1 cell"
    )
    with pytest.raises(ValueError, match="cells of 2 networks begin with ''"):
        report_kept(["--cells", str(cells), "--output", str(output), "--model", ""])
    with pytest.raises(ValueError, match=r"no cell .*'none'"):
        report_kept(["--cells", str(cells), "--output", str(output), "--model", "none"])
    with pytest.raises(ValueError, match="keeps no cells; run"):
        report_kept(["--cells", str(tmp_path / "none")])


def test_columns_of_the_markdown_tables_match_their_headers():
    rows = summarise(RESULTS, "ddim uniform")
    lines = [line for line in markdown(rows).splitlines() if line.startswith("|")]
    small = [line for line in lines if line.count("|") == 4]
    assert {line.count("|") for line in lines} == {4, 20}
    assert small == overview(rows)
    assert len(lines) - len(small) == 2 + 4


def test_older_cells_have_no_passes(tmp_path):
    content = json.loads(json.dumps(asdict(RESULTS[0])))
    for block in content["blocks"]:
        del block["passes"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert load_cell(tmp_path / "old.json") == RESULTS[0]
    newer = replace(RESULTS[1], blocks=tuple(replace(block, passes=10.0) for block in RESULTS[1].blocks))
    write_report(tmp_path, [RESULTS[0], newer])
    rows = {row["scheduler"]: row for row in csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())}
    assert (rows["dpm"]["passes_mean"], float(rows["ddim"]["passes_mean"])) == ("", 10)


def test_the_overview_has_a_row_for_each_method_and_a_column_for_each_number_of_steps():
    _, _, *rows = overview(summarise(RESULTS))
    cells = {row.split(" | ")[0].strip("| "): [c.strip(" |") for c in row.split(" | ")[1:]] for row in rows}
    assert list(cells) == ["ddim uniform", "ddpm uniform", "dpm uniform"]
    assert cells["ddim uniform"][1] == ""  # not measured
    assert cells["ddpm uniform"][0].startswith("/ ")  # nothing to pair with
    assert float(cells["dpm uniform"][0].split(" / ")[0]) == pytest.approx(0.6)  # the mean of 0.5 and 0.7


def test_nothing_beats_the_pareto_front():
    rng = np.random.default_rng(0)
    cost, distance = rng.uniform(size=(2, 40))
    front = pareto_front(cost, distance)
    for i in range(40):
        beaten = ((cost <= cost[i]) & (distance <= distance[i]) & (np.arange(40) != i)).any()
        assert beaten == (i not in front)
    assert all(cost[a] < cost[b] for a, b in itertools.pairwise(front))


# --- python sample.py -m experiment=benchmark -------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    """The benchmark as a user starts it, with a tiny model and encoder."""
    small = ("num_samples=4", "benchmark.seed_blocks=2", "domain=portraits", "benchmark.tolerance=0.05")
    return Forked(tmp_path, "-m", *small, script=ROOT / "tests" / "benchmark_program.py")


def succeed(sweep, *arguments):
    code, out, err = sweep.run(*arguments)
    assert code == 0, err
    return out


def summaries(sweep):
    files = sorted(sweep.folder.glob("outputs/sweeps/*/*/benchmark/summary.csv"))
    return [list(csv.DictReader(file.open())) for file in files]


@pytest.mark.parametrize(
    "override", ["image_size=64", "metrics=encoder", "metrics.converged=true", "skip_finished=true"]
)
def test_a_setting_without_effect_is_refused(override):
    with pytest.raises(ValueError, match=f"^{re.escape(override)} has no effect"):
        refuse_without_effect(["experiment=benchmark", "metrics=none", "label=null", "prompt=x", override])


def test_a_setting_without_effect_is_refused_before_a_sweep_and_by_a_single_cell(sweep):
    sentence = "image_size=64 has no effect on a benchmark: images are measured at the size that the model draws"
    assert sweep.run("experiment=benchmark", "image_size=64") == (2, "", f"{sentence}; leave it out\n")
    assert sweep.runs() == []
    sweep.settings.remove("-m")
    assert sweep.run("benchmark=default", "image_size=64") == (2, "", f"{sentence}; leave it out\n")


NARROW = ("experiment=benchmark", "scheduler=ddim,ddpm", "grid=uniform,karras", "num_steps=2,3")


def test_a_sweep_says_its_cost_measures_the_cells_and_logs_tables_and_plots_to_its_run(sweep):
    out = succeed(sweep, *NARROW)
    assert out.startswith("8 cells of 2 x 4 images: at most 160 model evaluations (320 passes), and ")
    (summary,) = summaries(sweep)
    assert {(s["scheduler"], s["grid"], s["num_steps"]) for s in summary} == set(
        itertools.product(("ddim", "ddpm"), ("uniform", "karras"), ("2", "3"))
    )
    assert {s["domain"] for s in summary} == {"portraits"}
    assert all((s["rmse_mean"] == "") == (s["scheduler"] == "ddpm") for s in summary)
    assert all(float(s["fd_vicreg_all"]) > 0 and 0 <= float(s["precision_all"]) <= 1 for s in summary)
    compared = [s for s in summary if s["scheduler"] == "ddim" and s["grid"] == "karras"]
    assert [s["baseline"] for s in compared] == ["ddim uniform 2", "ddim uniform 3"]
    parent, *children = sweep.runs()
    assert len(children) == 8
    assert {r.info.status for r in (parent, *children)} == {"FINISHED"}
    (child,) = [r for r in children if r.info.run_name == "portraits ddim karras 3 steps"]
    assert child.data.metrics["quality/rmse"] == pytest.approx(float(compared[1]["rmse_mean"]), rel=1e-6)
    artifacts = {a.path for a in sweep.client.list_artifacts(parent.info.run_id, "benchmark")}
    files = (
        "results.csv",
        "summary.csv",
        "summary.md",
        *(f"{k}_portraits.png" for k in ("quality", "pareto")),
    )
    assert artifacts == {f"benchmark/{name}" for name in files}
    assert "| ddim uniform | 2 |" in out


def test_a_sweep_over_a_benchmark_of_ones_own_ends_with_its_tables_as_well(sweep):
    out = succeed(sweep, "benchmark=default", "benchmark.baseline=x", "scheduler=ddim", "num_steps=2,3")
    assert out.startswith("2 cells of")
    assert "nothing was compared with the baseline 'x'" in out
    assert [row["num_steps"] for row in summaries(sweep)[0]] == ["2", "3"]


def test_values_that_the_cells_refuse_leave_a_benchmark_without_an_estimate(sweep):
    given = ("benchmark=default", "benchmark.tolerance=null", "scheduler=ddim", "num_steps=2,abc")
    sentence = "num_steps must be a whole number or null, got abc; --help lists the settings"
    assert sweep.run(*given) == (2, "", f"{sentence}\n")


def test_a_seed_whose_blocks_go_beyond_the_last_is_refused(sweep):
    code, _, err = sweep.run("benchmark=default", "scheduler=ddim", "num_steps=2", "seed=4294967295")
    assert code == 2
    assert "the seed of the last block must be a whole number, between 0 and 4294967295, got 4294967296" in err


@pytest.mark.slow
def test_a_sweep_that_is_stopped_keeps_and_reports_what_is_finished(sweep, tmp_path):
    process = sweep.start("experiment=benchmark", "scheduler=ddim", "grid=uniform", "num_steps=2,3,1000")
    cells, deadline = tmp_path / "outputs" / "benchmark" / "cells", time.monotonic() + 120
    while len(list(cells.glob("*.json"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")
    (summary,) = summaries(sweep)
    assert "2" in {s["num_steps"] for s in summary} <= {"2", "3"}
    parent, *_ = sweep.runs()
    assert parent.info.status in ("KILLED", "FAILED")
    assert [a.path for a in sweep.client.list_artifacts(parent.info.run_id)] == ["benchmark"]


@pytest.mark.slow
def test_a_single_cell_that_is_stopped_says_how_to_begin_anew(sweep, tmp_path):
    sweep.settings.remove("-m")
    process = sweep.start("benchmark=default", "scheduler=ddim", "grid=uniform", "num_steps=1000")
    begun, deadline = tmp_path / "outputs" / "benchmark" / "converged", time.monotonic() + 120  # after the first block
    while not begun.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert re.search(r"go on +python sample\.py .*num_steps=1000 .*\(the cell begins anew\)", out)


@pytest.mark.slow
def test_two_equal_sweeps_at_once_measure_a_cell_once(sweep):
    cell = ("experiment=benchmark", "scheduler=ddim", "grid=uniform", "num_steps=100")
    both = [sweep.start(*cell) for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert sum("measured before" in out for out, _ in ended) == 1
    cells = [run for run in sweep.runs() if run.data.tags.get("kind") == "benchmark cell"]
    assert [run.info.status for run in cells] == ["FINISHED"]


@pytest.mark.slow
def test_a_sweep_whose_reader_goes_away_ends_quietly_with_everything_recorded(sweep):
    process = Program.start(sweep, "experiment=benchmark", "scheduler=ddim", "grid=uniform", "num_steps=2")
    assert process.stdout.readline().startswith("1 cell of 2 x 4 images")
    process.stdout.close()  # as `| head -1` does
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0
    parent, child = sweep.runs()
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert [a.path for a in sweep.client.list_artifacts(parent.info.run_id)] == ["benchmark"]


@pytest.mark.slow
def test_started_again_it_repeats_nothing_and_reports_everything(sweep):
    succeed(sweep, "experiment=benchmark_fast", "scheduler=dpm_solver", "grid=karras,own", "num_steps=2")
    for cell in sweep.folder.glob("outputs/benchmark/cells/**/*.json"):
        (cell.parent / f".{cell.name}.lock").mkdir()  # no lock can be written any more
    out = succeed(sweep, "experiment=benchmark_fast", "scheduler=dpm_solver", "grid=karras,own", "num_steps=2,3")
    first, second = summaries(sweep)
    assert second[:2] == first
    assert len(second) == 4
    assert out.count("measured before") == 2
    parents = [r for r in sweep.runs() if r.data.tags["kind"] == "sweep"]
    assert len(sweep.runs()) - len(parents) == 4
    succeed(sweep, "experiment=benchmark_fast", "scheduler=dpm_solver", "grid=karras,own", "num_steps=2,3")
    (latest,) = [
        r
        for r in sweep.runs()
        if r.data.tags["kind"] == "sweep" and r.info.run_id not in {p.info.run_id for p in parents}
    ]
    assert [a.path for a in sweep.client.list_artifacts(latest.info.run_id)] == ["benchmark"]
    assert summaries(sweep)[2] == second

    for lock in sweep.folder.glob("outputs/benchmark/cells/.*.lock"):
        lock.rmdir()
    before, (damaged, *_) = len(sweep.runs()), sweep.folder.glob("outputs/benchmark/cells/*.json")
    damaged.write_text("{")
    out = succeed(sweep, "experiment=benchmark_fast", "scheduler=dpm_solver", "grid=karras,own", "num_steps=2,3")
    assert out.count("measured before") == 3
    assert len(sweep.runs()) == before + 2  # that of the sweep, and that of the cell which is measured again
