"""`adaptive-diffusion report`: one HTML file about runs, found by their folder or by MLflow."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny import configuration, mlflow_database, tiny_checkpoint

from adaptive_diffusion.errors import UnusableFile, UserError
from adaptive_diffusion.runs.report import found
from adaptive_diffusion.runs.report import main as report
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.sweep_rows import groups_of
from adaptive_diffusion.tracking.jobs import Job
from adaptive_diffusion.tracking.mlflow import MlflowTracker


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, recorded in MLflow."""
    folder = tmp_path_factory.mktemp("drawn")
    mlflow_database(folder / "mlruns")
    model = ["model=checkpoint", f"model.path={tiny_checkpoint(folder)}", "num_samples=2", "metrics=none"]
    for steps in (2, 3):
        cfg = configuration("sample", folder, *model, f"num_steps={steps}", "scheduler=ddim")
        cfg.paths.run = f"{folder}/outputs/sample/{steps}"
        sample(cfg)
    return folder


class Tags(HTMLParser):
    """The tags that a page opens, and those that it never closes."""

    def __init__(self, text: str):
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.open += [tag] if tag not in ("meta", "img") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("which", ["outputs", "test"])
def test_runs_are_found_by_folder_or_by_experiment(drawn, which, tmp_path):
    run = str(drawn / which) if which == "outputs" else which
    report([run, "--mlruns", str(drawn / "mlruns"), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")

    tags = Tags(text)
    assert tags.open == []
    assert tags.seen.count("details") == 2
    assert "num_steps: 2" in text
    assert "num_steps: 3" in text
    assert "&quot;fingerprint&quot;" in text


def test_a_folder_in_the_place_of_the_page_is_refused(drawn, tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; give a file, e.g. .*report.html"):
        report([str(drawn / "outputs"), "--output", str(tmp_path)])


def test_the_page_needs_nothing_beside_it(drawn, tmp_path):
    report([str(drawn / "outputs"), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)', text))
    assert "<link" not in text


def test_what_a_run_says_of_itself_is_no_html(drawn, tmp_path):
    folder = tmp_path / "sweep"
    Job(number=0, settings=("prompt=<b>",), status="FINISHED", metrics={"sampling/nfe": 2}).save(folder)
    Job(
        number=1,
        settings=("a=1", "tracking.uri=http://me:secret@here"),
        status="FAILED",
        reason="<script> ftp://me:secret@x",
    ).save(folder)
    report([str(folder), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "prompt=&lt;b&gt;" in text
    assert "secret" not in text


def test_a_run_whose_files_are_gone_shows_no_file_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("mine: true")
    Job(number=0, settings=(), status="SKIPPED", metrics={"sampling/nfe": 2}).save(tmp_path / "sweep")
    report(["sweep"])
    text = Path("outputs/report.html").read_text(encoding="utf-8")
    assert "sampling/nfe: 2" in text
    assert "mine" not in text


def test_damaged_numbers_are_refused_in_one_sentence(tmp_path, caplog):
    (tmp_path / "metrics.json").write_text('{"sampling/nfe": ')
    with pytest.raises(UnusableFile, match=r"metrics\.json cannot be read as JSON"):
        report([str(tmp_path)])
    assert caplog.text == "", "it would be told twice"


def test_one_damaged_run_is_left_out_and_named(tmp_path, caplog):
    for name, content in (("whole", "{}"), ("broken", "{x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(content)
    assert [Path(job.folder).name for job in found(str(tmp_path), tmp_path / "none.db")] == ["whole"]
    assert "broken" in caplog.text


def test_what_else_is_damaged_of_a_run_leaves_the_rest_of_the_page(drawn, tmp_path, caplog):
    shutil.copytree(drawn / "outputs" / "sample" / "2", tmp_path / "run")
    (tmp_path / "run" / ".hydra").mkdir(exist_ok=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("a: [")
    (tmp_path / "run" / "pictures" / "0000.png").write_bytes(b"no image")
    report([str(tmp_path / "run"), "--output", str(tmp_path / "page.html")])
    assert "num_steps: 2" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0000.png cannot be read" in caplog.text
    assert "overrides.yaml is damaged" in caplog.text


def test_a_damaged_job_of_a_sweep_is_left_out_and_named(tmp_path, caplog):
    Job(number=0, settings=(), status="SKIPPED", metrics={"sampling/nfe": 2}).save(tmp_path)
    for name in ("1", "plan"):
        (tmp_path / "jobs" / f"{name}.json").write_text("{")
    assert [job.number for job in found(str(tmp_path), tmp_path / "none.db")] == [0]
    assert "1.json is damaged" in caplog.text
    assert "plan.json is damaged" in caplog.text


def test_the_latest_sweep_is_one_that_drew_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, metrics in (("1", {"sampling/nfe": 2}), ("2", {"result": 0.5})):
        Job(number=0, settings=("seed=1",), status="FINISHED", metrics=metrics).save(Path("outputs/sweeps/day") / name)
    with pytest.raises(UserError, match="no run there has drawn images"):
        report(["outputs/sweeps/day/2"])
    summary = Path("outputs/sweeps/day/2/benchmark/summary.md")
    summary.parent.mkdir()
    summary.touch()
    with pytest.raises(UserError, match=f"the report of a benchmark is its own, {summary}"):
        report(["outputs/sweeps/day/2"])
    report([])
    assert "sampling/nfe: 2" in Path("outputs/report.html").read_text()


def test_a_run_without_files_does_not_keep_the_others_from_being_found(drawn, tmp_path):
    shutil.copytree(drawn / "mlruns", tmp_path / "mlruns")
    database = tmp_path / "mlruns" / "mlflow.db"
    tracker = MlflowTracker(str(database), str(tmp_path / "mlruns" / "artifacts"), "test")
    tracker.create("still draws", {})
    assert len(found("test", database)) == 2


def test_every_run_of_an_experiment_is_found_page_by_page(drawn, monkeypatch):
    from mlflow import MlflowClient

    whole = MlflowClient.search_runs
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *given, **more: whole(*given, **more, max_results=1))
    jobs = found("test", drawn / "mlruns" / "mlflow.db")
    assert len(jobs) == 2
    assert {row.label for group in groups_of(jobs) for row in group.rows} == {"ddim"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["."], "metrics.json"),
        (["nothing"], "mlflow.db"),
        ([], "no sweep"),
        ([""], "name is empty"),
        ([" "], "is empty"),
    ],
)
def test_what_is_no_run_is_refused_in_one_sentence(given, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        report(given)


@pytest.mark.parametrize("name", ["nothing", "no'thing"])
def test_a_name_that_the_database_does_not_know_is_refused_as_that(name, drawn):
    with pytest.raises(UserError, match=f"no folder {name}, and .*mlflow.db knows no run or experiment of this name"):
        found(name, drawn / "mlruns" / "mlflow.db")
