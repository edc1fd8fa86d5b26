"""The tables of README and docs say what their files say, and the build notices when they do not."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from tiny import ROOT, configuration

from adaptive_diffusion.benchmark.cell import BlockResult, CellResult
from adaptive_diffusion.benchmark.measure import steps_digest
from adaptive_diffusion.benchmark.report import write_report
from adaptive_diffusion.benchmark.store import save_cell
from adaptive_diffusion.diffusion.guidance import Interval
from adaptive_diffusion.encoder.vicreg import BUILTIN_VICREG, load_builtin_vicreg
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules, save_schedules
from adaptive_diffusion.io.markdown import MINUS, MISSING, table
from adaptive_diffusion.optimization.records import DomainRecord, Result
from adaptive_diffusion.runs.cells import main as report_kept
from tools import __main__ as build
from tools import real_tables, tables
from tools.asset_tables import calibrated_steps, tuned_configurations
from tools.benchmark import SUMMARY, commands, stale_benchmark
from tools.benchmark_tables import comparison, distance, fewest_steps, read_summary, results, times_nearer

MODEL = "0" * 64 + " guidance 1.5"


def a_cell(method, steps, perceptual, fd_converged, fd_encoder, domain="portraits", **more):
    """A cell of two blocks of two images; perceptual distances 0.9 and 1.1 times the given one, None: stochastic."""
    blocks = tuple(
        BlockResult(
            seed,
            fd_encoder,
            fd_converged,
            None if perceptual is None else (perceptual,) * 2,
            None if perceptual is None else (factor * perceptual,) * 2,
            steps,
            0.1,
            passes=2 * steps,
        )
        for seed, factor in ((0, 0.9), (1, 1.1))
    )
    scheduler, grid = method.split()
    cell = CellResult(domain, scheduler, grid, (), steps, 2, 4, blocks, fd_encoder, fd_converged, 64, 1e-9, 1e-9)
    return replace(cell, model=MODEL, **more)


CELLS = [
    a_cell("unipc karras", 5, 0.2, 40.0, 130.0),
    a_cell("adaptive own", 5, 0.04, 1.0, 80.0),
    a_cell("adaptive own", 8, 0.01, 0.004, 66.0),
    a_cell("dpm_solver quadratic", 5, 0.4, 50.0, 150.0),
    a_cell("ddim uniform", 5, 0.8, 200.0, 160.0),
    a_cell("ddim uniform", 50, 0.02, 6.0, 79.0),
    a_cell("ddpm uniform", 5, None, None, 75.0),
    a_cell("mine own", 8, 0.02, 2.0, 60.0),
    a_cell("adaptive own", 5, 0.03, 2.0, 99.0, "towns"),
]


@pytest.fixture
def rows(tmp_path):
    write_report(tmp_path, CELLS, "ddim uniform", [])
    return read_summary(tmp_path / "summary.csv")


def cells_of(lines):
    """The cells of the tables, their minus signs and dashes as they are typed."""
    lines = [line.replace(MINUS, "-").replace(MISSING, "-") for line in lines]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


# --- the benchmark's tables -------------------------------------------------------------------------------------------


def test_a_table_per_domain_has_adaptive_first_and_leaves_out_what_was_not_measured(rows):
    lines = results(rows)
    assert lines[0] == "n = 4 images a cell (2 x 2); model 000000000000 guidance 1.5."
    head, _, *body = cells_of(lines[2 : lines.index("", 2)])
    assert head == ["portraits", "5", "8", "50"]
    assert [row[0] for row in body] == [
        *("**adaptive**", "DDPM uniform", "DDIM uniform", "DPM-Solver++ quadratic", "UniPC Karras", "mine")
    ]
    # 0.9 and 1.1 times 0.04: their standard deviation is 0.04 * 0.2 / sqrt(2)
    assert body[0][1:] == ["0.0400 ± 0.0057 / 1.0 / 0.0400", "0.0100 ± 0.0014 / < 0.01 / 0.0100", ""]
    assert body[1][1:] == ["- / - / -", "", ""]
    assert cells_of(lines)[-3] == ["towns", "5"]  # a domain that has no place of its own comes last
    assert results([]) == ["Nothing is measured yet."]


def test_adaptive_is_compared_with_the_best_other_by_each_metric_and_with_the_quadratic_grid(rows):
    _, _, five, eight, five_all, eight_all = cells_of(comparison(rows))
    assert five == [
        *("portraits", "5", "1.0 / 40 UniPC Karras, -98 % / -98 %"),
        *("0.0400 / 0.2000 UniPC Karras, -80 % / -90 %", "0.0400 / 0.2000 UniPC Karras, -80 % / -90 %"),
    ]
    assert eight == [
        *("portraits", "8", "< 0.01 / 2.0 mine, -99.8 %"),
        *["0.0100 / 0.0200 mine, -50 %"] * 2,
    ]
    assert five_all == ["1 domain", "5", "-98 % / -98 %", *["-80 % / -90 %"] * 2]
    assert eight_all == ["1 domain", "8", "-99.8 %", *["-50 %"] * 2]


def test_ranges_are_over_the_domains(tmp_path):
    more = [a_cell("ddim uniform", 5, 0.06, 4.0, 90.0, "towns"), *CELLS]
    write_report(tmp_path, more, None, [])
    ranges = [row for row in cells_of(comparison(read_summary(tmp_path / "summary.csv"))) if row[0] == "2 domains"]
    assert ranges == [["2 domains", "5", "-98 to -50 % / -98 %", *["-80 to -50 % / -90 %"] * 2]]


def test_the_fewest_steps_that_reach_many_of_ddim(rows):
    _, _, portraits, towns = cells_of(fewest_steps(rows))
    assert portraits == ["portraits", "5 (1.0; 6.0)", *["8 (0.0100; 0.0200)"] * 2]
    assert towns == ["towns", "-", "-", "-"]  # no DDIM was measured there
    few = [row for row in rows if (row.method[0], row.num_steps) != ("adaptive", 8)]
    assert cells_of(fewest_steps(few))[2][2] == "none up to 5 (0.0400; 0.0200)"


def test_few_adaptive_steps_are_compared_with_many_of_ddim(rows):
    _, _, five, eight = cells_of(times_nearer(rows))
    assert five == ["5", "6.0 to 6.0", *["0.50 to 0.50"] * 2]
    assert eight[2:] == ["2.0 to 2.0"] * 2


def test_the_readme_says_how_many_times_nearer_ten_steps_are():
    (ten,) = [
        row for row in cells_of(times_nearer(read_summary(ROOT / "docs/benchmark/summary.csv"))) if row[0] == "10"
    ]
    low, high = (round(float(each)) for each in ten[2].split(" to "))
    assert f"10 adaptive steps come {low} to {high} times nearer than 50 of DDIM" in (ROOT / "README.md").read_text()


def test_distances_keep_two_digits():
    given = (153.4, 9.96, 9.94, 1.0, 0.184, 0.05, 0.0099)
    assert list(map(distance, given)) == ["153", "10", "9.9", "1.0", "0.18", "0.050", "< 0.01"]


@pytest.mark.parametrize(
    ("perceptual", "shown"),
    [
        (0.3, "0.3000 ± 0.0424"),
        (0.0003, "0.00030 ± 0.00004"),  # two digits of the mean, one of the spread
        (1e-9, "0.000000 ± 0.000000"),
    ],
)
def test_small_perceptual_distances_have_more_decimals(tmp_path, perceptual, shown):
    write_report(tmp_path, [a_cell("ddim uniform", 50, perceptual, 1.0, 2.0)], None, [])
    assert cells_of(results(read_summary(tmp_path / "summary.csv")))[2][1].startswith(f"{shown} / 1.0 / ")


def test_a_summary_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"summary\.csv; adaptive-diffusion cells"):
        read_summary(tmp_path / "summary.csv")
    (tmp_path / "summary.csv").write_text("domain,scheduler\nportraits,ddim\n")
    with pytest.raises(ValueError, match="no summary"):
        read_summary(tmp_path / "summary.csv")


def test_the_commands_measure_the_cells_of_the_summary_and_no_others(rows):
    *lines, report = commands(rows)
    assert report.startswith("adaptive-diffusion cells ")
    named = []
    for line in lines:
        assert "num_samples=2 benchmark.seed_blocks=2" in line
        axes = [
            re.search(rf" {axis}=(\S+)", line)[1].split(",") for axis in ("domain", "scheduler", "grid", "num_steps")
        ]
        named += [(d, s, g, int(n)) for d in axes[0] for s in axes[1] for g in axes[2] for n in axes[3]]
    assert sorted(named) == sorted((c.domain, c.scheduler, c.grid, c.num_steps) for c in CELLS)
    everywhere = [replace(rows[0], domain=d) for d in ("portraits", "landscapes", "abstract", "general")]
    assert "domain=" not in commands(everywhere)[0]  # these are what the experiment has
    assert len(commands(everywhere)) == 2


# --- what ships -------------------------------------------------------------------------------------------------------


def a_schedule(domain="portraits", model="m", last=1.0, rule="learned"):
    scores = {"quadratic": Score(0.2, 0.0), "blended": Score(0.1, 0.0), "learned": Score(0.05, 0.0)}
    steps = {8: CalibratedSteps(tuple(np.linspace(999, last, 8).tolist()), None, rule, scores)}
    return CalibratedSchedule(model, 1.5, domain, 1000, "rmse", 4, 4, steps)


def test_calibrated_steps_stand_beside_the_best_classical_grid():
    lines = cells_of(calibrated_steps([a_schedule(), a_schedule("towns", rule="blended")]))
    assert lines[0][1:] == ["8"]
    assert lines[2:] == [["portraits", "0.1000 → 0.0500"], ["towns", "0.1000 → 0.1000"]]
    interval = replace(a_schedule("towns"), guidance_scale=Interval(1.3, -2.0))
    assert cells_of(calibrated_steps([interval]))[2][0] == "towns, guidance 1.3 where log-SNR is -2.0 to inf"
    assert calibrated_steps([]) == []


def a_tuned(config, **more):
    plain = DomainRecord("m", 1.5, "towns").config
    result = {"quality": -0.2, "quality_error": 0.03, "evaluations": 9.0, "passes": 11.0}
    default = {**result, "hyperparameters": plain, "quality": 0.0, "evaluations": 10.0, "passes": 20.0}
    provenance = {"calibrated": True, "pictures": 128, "default": default, "chosen": result}
    results = [Result(config, -0.2, 10 / 9, 0.03)]
    return DomainRecord(
        "m", 1.5, "towns", 0.5, config, "tuned", **{"provenance": provenance, "results": results, **more}
    )


def test_tuned_configurations_stand_beside_the_default():
    config = {"num_steps": 9, "adaptive_threshold": 0.5, "progress_power": 2.5, "solver": "unipc"}
    known = a_tuned(config)
    head, _, row = cells_of(tuned_configurations([known]))
    assert dict(zip(head, row, strict=True)) == {
        "domain": "towns",
        "default → chosen": "10 steps adaptive → 9 steps UniPC, power 2.5",
        "evaluations": "10 → 9",
        "passes": "20 → 11",
        "quality": "-0.20 ± 0.03",
        "n": "128",
        "confidence": f"{known.to_config().confidence:.2f}",
    }
    untuned = DomainRecord("m", 1.5, "d").config
    assert "10 steps adaptive → the default stays" in tuned_configurations([a_tuned(untuned)])[2]
    unverified = cells_of(tuned_configurations([a_tuned(config, provenance={})]))[2]
    assert unverified[2:6] == ["-"] * 4
    guided = a_tuned({**untuned, "guidance_weight": 1.3, "guidance_low": -2.0})
    assert f"10 steps adaptive, guidance {Interval(1.3, -2.0).name}" in tuned_configurations([guided])[2]
    assert tuned_configurations([]) == []


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 cells, got 1"):
        table(["a", "b"], [["1"]])


# --- blocks of the README ---------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A project with a benchmark, and a README with a table of it that was never made."""
    write_report(tmp_path / "docs" / "benchmark", CELLS, None, [])
    text = "before\n\n<!-- table: benchmark -->\n<!-- end of table -->\n\nafter\n"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_block_is_made_once_and_again_when_its_source_changes(project):
    readme = project / "README.md"
    assert tables.stale_tables(project) == "benchmark"
    tables.write_tables(project)
    assert tables.stale_tables(project) is None
    first = readme.read_text(encoding="utf-8")
    assert re.match(
        r"before\n\n<!-- table: benchmark; made from docs/benchmark/summary.csv sha256 [0-9a-f]{12} -->\n\nn = 4", first
    )
    assert first.endswith("|\n\n<!-- end of table -->\n\nafter\n")
    tables.write_tables(project)
    assert readme.read_text(encoding="utf-8") == first
    write_report(project / "docs" / "benchmark", CELLS[:3], None, [])
    assert tables.stale_tables(project) == "benchmark"
    tables.write_tables(project)
    assert tables.stale_tables(project) is None
    assert "DDPM" not in readme.read_text(encoding="utf-8")


def test_a_number_changed_by_hand_is_noticed(project):
    tables.write_tables(project)
    readme = project / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("/ 1.0", "/ 1.1"), encoding="utf-8")
    assert tables.stale_tables(project) == "benchmark"


def test_a_table_without_a_source_yet_is_empty_and_up_to_date(project):
    (project / "README.md").write_text("<!-- table: tuned configurations -->\n<!-- end of table -->\n")
    tables.write_tables(project)
    assert tables.stale_tables(project) is None
    assert "|" not in (project / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<!-- table: benchmark -->\n", "has a table without end"),
        (
            "<!-- table: of none -->\n<!-- end of table -->\n",
            "nothing makes the table 'of none'; there are",
        ),
    ],
)
def test_a_block_that_cannot_be_made_is_refused(project, text, sentence):
    (project / "README.md").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        tables.stale_tables(project)


def test_the_command_checks_and_writes(project, monkeypatch, capsys):
    monkeypatch.setattr(tables.stale_tables, "__defaults__", (project,))
    monkeypatch.setattr(tables.write_tables, "__defaults__", (project,))
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 0
    assert tables.main(["--check"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(None, 1)[1] for line in said] == ["stale: benchmark", "stale: benchmark", "up to date"]


def test_every_table_has_its_place_and_says_what_its_file_says():
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in tables.PAGES]
    named = [block["name"] for page in pages for block in tables.BLOCK.finditer(page)]
    assert set(named) == set(tables.TABLES)
    assert tables.stale_tables(ROOT) is None


def test_a_difference_from_real_images_is_bold_where_its_interval_leaves_out_0(tmp_path):
    method = {"domain": "portraits", "scheduler": "adaptive", "grid": "own", "variant": "", "num_steps": 6}
    guided = {"model": "m guidance 1.5 where log-SNR is -4.0 to -1.0", "evaluations_mean": 5, "passes_mean": 7}
    other = {**method, "scheduler": "ddim", "grid": "uniform", "num_steps": 50}
    constant = {"model": "m guidance 1.5", "evaluations_mean": 50, "passes_mean": 100}
    write_rows(
        tmp_path / "summary.csv",
        [
            {**method, **guided, "fd_encoder_all": 5.0, "fd_vicreg_all": 1.1},
            {**other, **constant, "fd_encoder_all": 20.0, "fd_vicreg_all": 1.0},
        ],
    )
    blocks = [(7.0, 22.0, 2.0, 1.0), (6.0, 22.0, 1.0, 2.0), (8.0, 22.0, 1.5, 1.5)]  # of seeds 0, 1 and 2
    write_rows(
        tmp_path / "results.csv",
        [{**method, "seed": seed, "fd_encoder": a, "fd_vicreg": b} for seed, (a, _, b, _) in enumerate(blocks)]
        + [{**other, "seed": seed, "fd_encoder": a, "fd_vicreg": b} for seed, (_, a, _, b) in enumerate(blocks)][::-1],
    )
    # Student's 97.5 % quantile with two degrees of freedom is 4.303; of differences -15, -16, -14 that is 2.5
    assert real_tables.differences(tmp_path / "summary.csv")[2:] == [
        f"| DDIM, 50 steps | 100 | portraits | **{MINUS}75 % ({MINUS}15.0 ± 2.5)** | +10 % (+0.0 ± 2.5) |"
    ]


def test_lines_count_the_distances_in_which_tuned_is_nearer_and_certainly_nearer(tmp_path):
    interval = "m guidance 1.5 where log-SNR is -4.0 to -1.0"
    kinds = [  # scheduler, steps, guidance, evaluations, passes, distances of all images, those of blocks
        ("adaptive", 6, interval, 5, 7, (5.0, 1.0), [(7.0, 2.0), (6.0, 1.0), (8.0, 1.5)]),
        ("ddim", 50, "m guidance 1.5", 50, 100, (20.0, 1.1), [(22.0, 2.0), (22.0, 1.5), (22.0, 1.2)]),
        ("unipc", 20, "m guidance 1.5", 20, 40, (4.0, 0.9), [(1.0, 0.1), (0.0, 0.1), (2.0, 0.1)]),
        ("unipc", 6, interval, 6, 8, (6.0, 0.9), [(7.1, 2.0), (6.1, 1.0), (8.1, 1.5)]),
    ]
    summary, results = [], []
    for scheduler, steps, model, evaluations, passes, distances, blocks in kinds:
        cell = {"domain": "portraits", "scheduler": scheduler, "grid": "own", "variant": "", "num_steps": steps}
        cost = {"model": model, "evaluations_mean": evaluations, "passes_mean": passes}
        summary.append({**cell, **cost, "fd_encoder_all": distances[0], "fd_vicreg_all": distances[1]})
        results += [{**cell, "seed": seed, "fd_encoder": a, "fd_vicreg": b} for seed, (a, b) in enumerate(blocks)]
    write_rows(tmp_path / "summary.csv", summary)
    write_rows(tmp_path / "results.csv", results)
    assert real_tables.against_others(tmp_path / "summary.csv") == [
        "Distances of tuned (7 passes) that are smaller, in 1 domain by 2 encoders:",
        "",
        "- than of DDIM, 50 steps (100 passes): 2 of 2, 1 of them certainly",
        "- than of UniPC, 20 steps (40 passes): 0 of 2, 0 of them certainly; 2 certainly larger",
        "- than of UniPC, the guidance of tuned (8 passes): 1 of 2, 1 of them certainly",
    ]


def write_rows(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# --- the chain --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path):
    """Schedules of the shipped model, and cells that were measured with all that ships."""
    model, encoder = build.load_model(build.BUILTIN_MODEL), build.load_encoder(build.BUILTIN_ENCODER)
    schedule = replace(a_schedule(model=model.identity), guidance_scale=model.metadata["guidance_scale"])
    save_schedules(tmp_path / "schedules.json", [schedule])
    same = {
        "model": f"{model.identity} guidance {schedule.guidance_scale:g}",
        "encoder": f"{encoder.name} {encoder.content_hash}",
    }
    adaptive = replace(CELLS[2], calibration=steps_digest(schedule, 8), **same)
    return tmp_path, adaptive, replace(CELLS[7], **same)


def reason(folder, *cells):
    write_report(folder, cells, None, [])
    return stale_benchmark(folder / "summary.csv", folder / "schedules.json")


def test_a_benchmark_of_what_ships_is_up_to_date_and_any_other_says_why_not(shipped):
    folder, adaptive, other = shipped
    assert reason(folder, adaptive, other) is None
    assert re.match("it was measured with the model 000000000000 guidance 1.5, not ", reason(folder, CELLS[0], other))
    assert re.match("it was measured with the encoder unknown, not ", reason(folder, replace(other, encoder="")))
    elsewhere = a_schedule(last=2.0)
    stale = replace(adaptive, calibration=steps_digest(elsewhere, 8))
    assert reason(folder, stale, other) == "adaptive has other calibrated steps now: portraits 8"
    assert reason(folder, replace(adaptive, calibration=""), other).endswith("portraits 8")
    (folder / "schedules.json").unlink()
    with pytest.raises(ValueError, match="there are no calibrated schedules at"):
        reason(folder, adaptive)


def test_the_chain_ends_with_the_benchmark_and_the_tables_made_from_it(tmp_path):
    *_, benchmark, curve, readme = build.chain(tmp_path)
    assert [asset.name for asset in (benchmark, curve)] == ["benchmark", "curve of the page"]
    assert (readme.name, readme.reason(), curve.reason()) == ("tables", None, None)
    with pytest.raises(ValueError, match="takes hours") as told:
        benchmark.rebuild()
    assert "--plots quality --output docs/benchmark" in str(told.value)


def test_what_ships_was_made_by_the_commands_that_the_chain_runs(tmp_path, monkeypatch):
    ran, made = [], tmp_path / "schedules.new.json"
    monkeypatch.setattr(build, "_run", lambda *command, **environment: ran.append(command))
    monkeypatch.setattr(build, "SHIPPED", tmp_path / "schedules.json")
    made.write_text("new")
    assets = {asset.name: asset for asset in build.chain(tmp_path)}
    for name in ("encoder", "vicreg", "schedules", "quality", "schedules of found"):
        assets[name].rebuild()
    assert (tmp_path / "schedules.json").read_text() == "new"
    encoder, vicreg, schedules, quality, *found = ran

    training, vicreg, *calibrations = (
        configuration("train", tmp_path, *command[1:]) for command in (encoder, vicreg, schedules, *found)
    )
    assert Path(vicreg.output) == BUILTIN_VICREG
    assert vicreg.task.images == load_builtin_vicreg().metadata["training"]["images"]
    assert Path(training.output) == build.BUILTIN_ENCODER
    assert Path(training.task.state).parent == tmp_path / "outputs" / "encoder"
    assert [Path(calibration.output) for calibration in calibrations] == [made, *[tmp_path / "schedules.json"] * 4]
    known = load_schedules(SHIPPED)
    assert [schedule.domain for schedule in known] == [*build.DOMAINS, *build.DOMAINS]
    for calibration, some in zip(calibrations, (known[:4], *([each] for each in known[4:])), strict=True):
        task = calibration.task
        for schedule in some:
            if isinstance(schedule.guidance_scale, Interval):
                assert [schedule.domain] == task.domains
                assert instantiate(task.guidance)() == schedule.guidance_scale
            assert (schedule.noises, schedule.held_out) == (task.noises, task.held_out)
            assert set(schedule.steps) == set(task.steps)
            learned = {n for n, steps in schedule.steps.items() if "learned" in steps.scores}
            assert learned == set(task.get("learned_steps", ()))
    assert set(calibrations[-1].task.steps) == set(build.FEW_STEPS)
    measured = json.loads(build.QUALITY.read_text(encoding="utf-8"))["measured"]["command"]
    measured = measured.replace("adaptive_diffusion.bench", "benchmarks")  # where it lay in version 0.1.0
    measured = measured.replace("--pictures", "--images")  # what it was called there
    assert f"python {' '.join(quality)}".replace(str(build.QUALITY), "FILE") == measured


def test_tuned_configurations_and_policies_are_of_the_shipped_model_or_stale(tmp_path):
    assert build.stale_tuned() is None
    build.read_policy("portraits")
    other = json.loads(build.TUNED.read_text(encoding="utf-8"))
    other["known"] = [known for known in other["known"] if known["domain"] != "abstract"]
    other.pop("checksum", None)
    (tmp_path / "tuned.json").write_text(json.dumps(other), encoding="utf-8")
    assert build.stale_tuned(tmp_path / "tuned.json") == "nothing is tuned and verified for abstract"
    shutil.copy(build.POLICIES / "general_8.zip", tmp_path / "portraits_8.zip")
    with pytest.raises(ValueError, match="domain=general, not portraits"):
        build.read_policy("portraits", tmp_path)
    missing = build.Asset("policy", partial(build.read_policy, "abstract", tmp_path), lambda: None)
    assert "abstract_8.zip" in missing.reason()


def test_schedules_of_the_guidance_that_was_found_are_there_or_stale(tmp_path):
    assert build.stale_found_schedules() is None
    constant = [known for known in load_schedules(SHIPPED) if not isinstance(known.guidance_scale, Interval)]
    save_schedules(tmp_path / "schedules.json", constant)
    assert build.stale_found_schedules(tmp_path / "schedules.json").endswith("portraits, landscapes, abstract, general")
    assert build.stale_schedules(tmp_path / "schedules.json") is None


def test_without_data_nothing_is_rebuilt():
    with pytest.raises(ValueError, match=r"--data; .*tools\.tables"):
        build.main([])


# --- what docs/benchmark keeps ----------------------------------------------------------------------------------------


def test_the_report_writes_what_docs_keep_and_its_plots_are_small(tmp_path):
    rng = np.random.default_rng(0)
    for scheduler in ("ddim", "dpm_solver", "unipc", "ipndm"):
        for grid in ("uniform", "quadratic", "karras", "log_snr"):
            for n in (5, 8, 10, 15, 20, 50):
                fd, perceptual = rng.uniform(1, 500, 2) / n
                save_cell(
                    tmp_path / "cells" / f"{scheduler}{grid}{n}.json",
                    a_cell(f"{scheduler} {grid}", n, perceptual, fd, fd),
                )
    output = tmp_path / "docs"
    report_kept(["--cells", str(tmp_path / "cells"), "--output", str(output), "--plots", "quality"])
    assert {p.name for p in output.iterdir()} == {"results.csv", "summary.csv", "summary.md", "quality_portraits.png"}
    assert (output / "quality_portraits.png").stat().st_size < 250_000
    assert {p.name for p in (ROOT / "docs" / "benchmark").iterdir()} == {
        *("results.csv", "summary.csv", "summary.md"),
        *(f"quality_{row}.png" for row in {r.domain for r in read_summary(ROOT / SUMMARY)}),
    }


def test_of_cells_that_differ_in_sizes_by_name_only_the_newest_is_reported(tmp_path, capsys):
    old, new = a_cell("ddim uniform", 5, 0.2, 1.0, 10.0), a_cell("ddim uniform", 5, 0.4, 1.0, 10.0)
    save_cell(tmp_path / "b.json", old)
    save_cell(tmp_path / "a.json", replace(new, variant=("batch_size=64", "num_samples=2")))
    os.utime(tmp_path / "b.json", (1, 1))
    report_kept(["--cells", str(tmp_path), "--output", str(tmp_path / "report"), "--plots"])
    assert capsys.readouterr().out.startswith("1 cell of 2 images")
    (row,) = csv.DictReader((tmp_path / "report" / "summary.csv").open())
    assert (row["variant"], float(row["perceptual_mean"])) == ("", pytest.approx(0.4))
