"""What a sweep of sample.py makes of its jobs: the best first in each group, whatever the jobs leave behind."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image
from tiny import CONF

from adaptive_diffusion.benchmark.axes import new_figure
from adaptive_diffusion.benchmark.curves import Curve, Point, draw_curves, leading
from adaptive_diffusion.metrics.intervals import jackknife_interval, mean_interval, student
from adaptive_diffusion.runs.job_names import setting_words
from adaptive_diffusion.runs.naming import run_name
from adaptive_diffusion.runs.sample_sweep import SampleReport, notes_of
from adaptive_diffusion.runs.sweep_pictures import draw_plot
from adaptive_diffusion.runs.sweep_rows import groups_of
from adaptive_diffusion.tracking.jobs import COLUMNS, Job, plan_jobs


@pytest.fixture
def job(tmp_path):
    """Make a job that has finished, with its files."""

    def make(number, *settings, passes, perceptual=None, fd=None, status="FINISHED"):
        folder = tmp_path / f"run {number}"
        for name in ("pictures", "converged"):
            (folder / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), 9 * number, np.uint8)).save(folder / name / "0000.png")
        measured = [] if fd is None else [{"name": "fd_encoder", "value": fd, "n": 4, "caveat": "4 images are few"}]
        if perceptual is not None:
            ends = [perceptual / 2 if perceptual > 0.1 else -1.0, perceptual * 2]
            measured.append({"name": "perceptual_encoder", "value": perceptual, "n": 4, "interval": ends})
        (folder / "quality.json").write_text(json.dumps([{"interval": None, **m} for m in measured]))
        steps = next((s.partition("=")[2] for s in settings if s.startswith("num_steps=")), "3")
        (folder / "config.yaml").write_text(f"num_steps: {steps}\n")
        metrics = {COLUMNS["passes/image"]: passes, "quality/x": 1.0}
        return Job(number=number, settings=settings, status=status, metrics=metrics, folder=str(folder))

    return make


@pytest.fixture
def jobs(job):
    return [
        job(0, "domain=abstract", "scheduler=ddim", "num_steps=5", passes=10, perceptual=0.5, fd=100),
        job(1, "domain=abstract", "scheduler=ddim", "num_steps=20", passes=40, perceptual=0.2, fd=50),
        job(2, "domain=abstract", "scheduler=adaptive", "num_steps=5", passes=10, perceptual=0.1, status="SKIPPED"),
        job(3, "domain=portraits", "scheduler=ddim", "num_steps=5", passes=10, perceptual=0.4),
        job(4, "domain=portraits", "scheduler=ddpm", "num_steps=5", passes=10),
        Job(number=5, settings=("domain=portraits", "scheduler=ddim", "num_steps=0"), status="REFUSED", reason="no 0"),
    ]


def test_each_domain_has_its_best_first_and_jobs_without_a_distance_last(jobs):
    abstract, portraits = groups_of(jobs)
    assert [row.label for row in abstract.rows] == ["adaptive 5 steps", "ddim 20 steps", "ddim 5 steps"]
    assert [(row.best, row.front) for row in abstract.rows] == [(True, True), (False, False), (False, False)]
    assert (portraits.name, [row.job.number for row in portraits.rows]) == ("portraits", [3, 4])
    assert str(abstract.rows[0].to_converged) == "0.1 [0, 0.2]"  # no distance is below 0
    assert str(abstract.rows[1].to_converged) == "0.2 [0.1, 0.4]"


def test_a_cheap_job_that_none_beats_in_both_is_on_the_front(job):
    steps = {5: 0.3, 10: 0.2, 20: 0.1}
    made = [job(n, f"num_steps={n}", passes=2 * n, perceptual=value) for n, value in steps.items()]
    (group,) = groups_of(made, "unipc")
    assert [row.front for row in group.rows] == [True] * 3
    assert [row.method for row in group.rows] == ["unipc"] * 3


def test_what_is_drawn_in_one_way_only_is_not_ranked(job):
    (group,) = groups_of([job(n, f"seed={n}", passes=4, perceptual=1.0 - n / 9) for n in range(3)])
    assert [(row.label, row.best) for row in group.rows] == [(f"seed {n}", False) for n in range(3)]


def test_the_report_holds_every_job_in_four_files(jobs, tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    jobs = [replace(job, settings=(*job.settings, "tracking.uri=http://me:secret@here")) for job in jobs]
    made = SampleReport().end(report_of(tmp_path / "sweep"), jobs)
    assert [path.name for path in made] == ["results.md", "results.csv", "sheet.png", "quality_passes.png"]
    out = capsys.readouterr().out
    assert all(str(path) in out for path in made)

    assert not any("secret" in path.read_text() for path in made[:2])
    rows = list(csv.DictReader(made[1].open()))
    assert [(row["job"], row["status"], row["to_converged_low"], row["reason"]) for row in rows][1:3] == [
        ("1", "FINISHED", "0.1", ""),
        ("2", "SKIPPED", "0.0", ""),
    ]
    assert (rows[5]["num_steps"], rows[5]["reason"]) == ("0", "no 0")
    text = made[0].read_text()
    assert "| best | #2 adaptive 5 steps | 0.1 [0, 0.2] |" in text
    assert "to real images |" not in text  # a column in which nothing stands
    assert "`#5 domain=portraits scheduler=ddim num_steps=0`: no 0" in text
    assert "distances to real images: 4 images are few" in text
    assert "compare them by the distance to real images" in text  # job 4 has no converged solution
    _, height = Image.open(made[2]).size
    assert height > 7 * 64  # five jobs, and the goal of each domain


def test_a_job_whose_files_are_gone_keeps_its_numbers(job, tmp_path):
    jobs = [job(n, f"num_steps={n + 2}", passes=4) for n in range(2)]
    gone = [
        replace(j, folder="", metrics={**j.metrics, "quality/perceptual_encoder": 0.5 - j.number / 9}) for j in jobs
    ]
    (group,) = groups_of(gone, "ddim")
    assert [(row.job.number, row.best) for row in group.rows] == [(1, True), (0, False)]
    assert SampleReport().end(report_of(tmp_path), gone)


def test_each_panel_names_the_distance_that_its_group_measured(job, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "adaptive_diffusion.runs.sweep_pictures.save_curves", lambda path, panels, x, y, title: drawn.update(y)
    )
    jobs = [job(n, "domain=abstract", f"num_steps={n + 2}", passes=n + 2, perceptual=0.5) for n in range(2)]
    jobs += [job(n, "domain=towns", f"num_steps={n}", passes=n) for n in (2, 3)]
    for made in jobs[2:]:
        fd = {"name": "fd_encoder", "value": 9.0, "n": 300, "caveat": None, "interval": None}
        (Path(made.folder) / "quality.json").write_text(json.dumps([fd]))
    assert draw_plot(tmp_path / "plot.png", groups_of(jobs))
    assert drawn == {"abstract": "perceptual_encoder to the converged solution", "towns": "fd_encoder to real images"}


@pytest.mark.parametrize("file", sorted((CONF / "scheduler").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_run_that_names_no_scheduler_has_that_of_its_configuration(job, file):
    made = job(0, passes=2)
    target = OmegaConf.to_container(OmegaConf.load(file))["_target_"]
    (Path(made.folder) / "config.yaml").write_text(f"num_steps: 2\nscheduler: {{_target_: {target}}}\n")
    ((row,),) = (group.rows for group in groups_of([made]))
    assert (row.scheduler, row.label, row.method) == (file.stem,) * 3


def test_distances_of_few_images_are_shown_where_there_are_no_others_and_rank_nothing(job, tmp_path, capsys):
    jobs = [job(n, f"num_steps={n + 2}", passes=4, fd=90 - n) for n in range(2)]
    SampleReport().end(report_of(tmp_path), jobs)
    out = capsys.readouterr().out
    assert "#1 3 steps  ~89" in out
    assert "~: of too few images" in out
    assert "best" not in out
    SampleReport().end(report_of(tmp_path), [*jobs, job(2, "num_steps=4", passes=4, perceptual=0.5, fd=80)])
    assert "~" not in capsys.readouterr().out


def test_jobs_that_drew_with_other_guidance_are_not_ranked_together(job):
    schedulers = ("ddim", "adaptive", "learned")
    jobs = [job(n, f"scheduler={name}", passes=10, perceptual=0.1) for n, name in enumerate(schedulers)]
    for made in jobs:
        guidance = "1.5" if made.number == 2 else "1.3 where log-SNR is -2.0 to 0.35"
        (Path(made.folder) / "provenance.json").write_text(json.dumps({"guidance": guidance}))
    tuned, constant = groups_of(jobs)
    assert (tuned.name, len(tuned.rows)) == ("guidance 1.3 where log-SNR is -2.0 to 0.35", 2)
    assert (constant.name, [row.label for row in constant.rows]) == ("guidance 1.5", ["learned"])


def test_jobs_whose_steps_were_calibrated_with_another_guidance_are_named(job):
    jobs = [job(n, f"guidance_scale={n}", passes=10, perceptual=0.1 * n) for n in (1, 2)]
    (Path(jobs[1].folder) / "provenance.json").write_text('{"steps.guidance": "1"}')
    assert "steps that were calibrated with another guidance than the job's: #2 (1)" in notes_of(groups_of(jobs))


def test_a_prompt_in_the_table_is_neither_a_border_nor_html(job, tmp_path):
    jobs = [job(n, f"prompt='{text}'", passes=4, perceptual=0.5) for n, text in enumerate(["a | b", "<i>\nc"])]
    SampleReport().end(report_of(tmp_path), jobs)
    text = (tmp_path / "results.md").read_text()
    assert "prompt='a \\| b'" in text
    assert "prompt='&lt;i> c'" in text


def test_without_numbers_there_is_no_report(tmp_path):
    failed = [Job(number=0, settings=("seed=1",), status="FAILED", reason="why")]
    assert SampleReport().end(report_of(tmp_path), failed) == ()


def report_of(folder):
    settings = {"sweep": {"dir": str(folder)}, "runtime": {"choices": {"scheduler": "adaptive"}}}
    return OmegaConf.create({"hydra": settings})


def test_settings_are_named_setting_words():
    settings = ["scheduler=ddim", "num_steps=5", "scheduler.eta=0.5", "+x.flag=true", "seed=3", "grid=log_snr"]
    assert setting_words(settings) == ["ddim", "5 steps", "eta=0.5", "flag=true", "seed 3", "log_snr"]
    assert setting_words(["num_steps=1", "num_samples=1", "num_samples=1000"]) == ["1 step", "1 image", "1,000 images"]


def test_the_name_of_a_run_of_a_sweep_begins_with_what_varies(tmp_path, monkeypatch):
    plan_jobs(tmp_path, [["seed=4", "num_steps=5", "num_samples=2"], ["seed=4", "num_steps=9", "num_samples=2"]])
    hydra = {"mode": "MULTIRUN", "sweep": {"dir": str(tmp_path)}, "job": {"num": 1}, "runtime": {"choices": {}}}
    monkeypatch.setattr("adaptive_diffusion.runs.naming.in_sweep", lambda: True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    cfg = {"name": None, "domain": {"name": "abstract"}, "num_steps": 9, "seed": 4}
    targets = {"scheduler": {"_target_": "a.Ddim"}, "grid": {"_target_": "a.own_spacing"}}
    assert run_name(OmegaConf.create({**cfg, **targets})) == "9 steps Ddim abstract seed 4"


def curve(scheduler, name, value):
    return Curve(scheduler, name, (Point(5, 10, value, value, value), Point(9, 18, value / 2, value, value)))


def test_a_plot_has_at_most_four_lines_the_best_grid_of_each_scheduler():
    curves = [curve("ddim", f"ddim {n}", 1 + n) for n in range(3)]
    curves += [curve(name, name, 0.5) for name in ("ddpm", "unipc", "dpm_solver")] + [curve("adaptive", "adaptive", 9)]
    assert [c.name for c in leading(curves)] == ["adaptive", "unipc", "dpm_solver", "ddim 0"]
    assert [c.name for c in leading([*curves[:3], curve("ddim", "x", 0.1), curve("ddim", "y", 7)])] == [
        *("x", "ddim 0", "ddim 1", "ddim 2")
    ]


@pytest.mark.parametrize(
    ("costs", "named"),
    [
        ((4, 5, 7, 8), "4 5 7 8"),
        ((6, 7, 10, 13, 16, 20, 40, 100), "6 7 10 13 16 20 40 100"),
        ((5, 10.25, 10.75, 20), "5 10.25 20"),
        ((5, 5.5, 150, 160), "5 150"),
        ((6, 6), ""),
    ],
)
def test_measured_costs_are_named_below_a_plot_where_there_is_room(costs, named):
    axes = new_figure((5, 4)).subplots()
    draw_curves(axes, [Curve("ddim", "ddim", tuple(Point(5, cost, cost, cost, cost) for cost in costs))], "x", "y")
    shown = axes.get_xticklabels() if named else []
    assert " ".join(tick.get_text() for tick in shown) == named


def test_student_is_that_of_the_tables():
    # https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm
    table = {3: 3.182, 5: 2.571, 9: 2.262, 15: 2.131, 30: 2.042}
    for degrees, value in table.items():
        assert student(degrees) == pytest.approx(value, rel=0.01)
    assert mean_interval(np.array([1.0, 2.0, 3.0])) is None


def test_the_intervals_hold_the_true_value_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = sum(low <= 0 <= high for low, high in (mean_interval(x) for x in rng.normal(size=(1000, 6))))
    assert 930 < held < 970

    def mean(x):
        return float(x.mean())

    def covers(x):
        low, high = jackknife_interval(mean, x, mean(x))
        return low <= 0 <= high

    assert 880 < sum(covers(x) for x in rng.normal(size=(1000, 60, 1))) < 970
