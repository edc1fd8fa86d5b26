"""`adaptive-diffusion`: its commands, what it says of mistakes, and how the programs are called in what is printed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tiny import ROOT, mlflow_database

from adaptive_diffusion import program
from adaptive_diffusion.cli.main import COMMANDS, main


@pytest.fixture(autouse=True)
def called(monkeypatch):
    monkeypatch.setenv(program.VARIABLE, program.CONSOLE)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return (end.value.code or 0, *capsys.readouterr())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments, capsys):
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tarin"], "did you mean 'train'?"),
        (["sampel", "num_steps=3"], "did you mean 'sample'?"),
        (["zzz"], "there are sample, train"),
        (["num_steps=5"], "adaptive-diffusion sample num_steps=5"),
        (["prompt=a hill"], "adaptive-diffusion sample 'prompt=a hill'"),
        (["references", "--output", "x", "landscapes"], "DOMAIN=PATH"),
        (["export", "--domain", "hills"], "there are abstract, general, landscapes, portraits"),
        (["cells", "--cells", "nowhere"], "run adaptive-diffusion sample"),
        (["bench", "lop"], "did you mean loop"),
        (["references", "--output", "x", "../hills=y"], "must not contain / or"),
        (["references", "--output", "x", "hills=y", "hills_kernel=z"], "must not end in"),
        (["references", "--output", "x", "hills=y", "hills=z"], "given twice"),
        (["upload", "nowhere"], "there is no folder nowhere"),
        (["ui", "nowhere.db"], "there is no database nowhere.db"),
        (["ui", "--port", "0"], "must lie in 1..65535"),
    ],
)
def test_a_mistake_ends_with_a_sentence_and_exit_code_2(arguments, told, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["ui", "doctor", "report", "cells", "references", "export"])
def test_commands_call_themselves_as_they_were_called(name, capsys):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert f"usage: adaptive-diffusion {name}" in out


def test_bench_without_a_clone_says_where_to_start_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "bench")
    assert code == 2
    assert "clone of the repository" in err


@pytest.mark.parametrize(
    ("how", "name", "command", "title"),
    [
        ("python", "train", "python train.py", "train.py"),
        ("python", "report", "adaptive-diffusion report", "adaptive-diffusion report"),
        ("adaptive-diffusion", "sample", "adaptive-diffusion sample", "adaptive-diffusion sample"),
        ("python -m adaptive_diffusion", "doctor", *2 * ["python -m adaptive_diffusion doctor"]),
    ],
)
def test_programs_are_named_as_they_were_started(how, name, command, title, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    program.called(how)
    assert program.command(name) == command
    assert program.title(name) == title


@pytest.mark.parametrize("started", [None, ("train", ("task=schedule", "seed=3"))])
def test_a_process_is_named_by_all_of_its_command_line(started, monkeypatch):
    monkeypatch.setattr(program, "_started", started)
    monkeypatch.setattr("sys.argv", ["/bin/adaptive-diffusion", "upload", "my folder"])
    program.called("adaptive-diffusion")
    known = {None: "/bin/adaptive-diffusion upload 'my folder'"}
    assert program.running() == known.get(started, "adaptive-diffusion train task=schedule seed=3")


def test_where_no_shell_finds_the_program_it_is_named_by_its_python(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.executable", "/my env/bin/python")
    program.called("python")
    assert program.command("upload") == "'/my env/bin/python' -m adaptive_diffusion upload"


def test_the_pages_of_mlflow_are_served_from_the_database_that_is_named(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr("os.execve", lambda *given: started.append(given))
    database = mlflow_database(tmp_path / "my runs")
    run(capsys, "ui", str(database), "--port", "1")
    ((_, arguments, environment),) = started
    assert arguments[1:4] == ["-m", "mlflow", "ui"]
    assert arguments[-2:] == ["--port", "1"]
    assert f"sqlite:///{database}" in arguments
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_port_that_is_in_use_is_told_of(tmp_path, capsys):
    database = mlflow_database(tmp_path / "mlruns")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, _, err = run(capsys, "ui", str(database), "--port", str(server.getsockname()[1]))
    assert code == 2
    assert "give another --port" in err


def test_in_a_notebook_they_are_named_as_they_can_be_started(monkeypatch, tmp_path):
    monkeypatch.delenv(program.VARIABLE)
    assert program.command("train") == "python train.py"
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(program, "PACKAGE", tmp_path)
    assert program.command("train") == "adaptive-diffusion train"
    assert program.conf() == tmp_path / "conf"


def module(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m adaptive_diffusion` in a process of its own."""
    command = [sys.executable, "-m", "adaptive_diffusion", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == code, done.stderr
    return done


def assert_references_are_explained(shown: str) -> None:
    """Every kind of ${kind:...} that a help shows among the settings is explained above them."""
    explained, settings = shown.split("Settings, as key=value\n")[1].split("\n\n", maxsplit=1)
    kinds = re.compile(r"\$\{([\w.]+):")
    assert set(kinds.findall(settings)) == set(kinds.findall(explained)) != set()


def test_a_module_and_its_help_call_it_a_module():
    out = module("train", "--help").stdout
    assert "python -m adaptive_diffusion train task=schedule" in out
    assert_references_are_explained(out)
    assert "train.py" not in out
    told = module("train", "scheduler=ddim", code=2).stderr
    assert "belongs to python -m adaptive_diffusion sample, which draws" in told


def test_a_script_and_its_help_call_it_a_script():
    command = [sys.executable, str(ROOT / "sample.py"), "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\n  python sample.py scheduler=adaptive" in out
    assert "as train.py agent=" in out
    assert_references_are_explained(out)


def test_the_shell_completes_the_settings_of_a_command():
    asked = ("-sc", "query=bash")
    assert module(*asked, COMP_LINE="adaptive-diffusion ").stdout.split() == list(COMMANDS)
    found = module(*asked, COMP_LINE="adaptive-diffusion sample scheduler=dd").stdout.split()
    assert found == ["scheduler=ddim", "scheduler=ddpm"]


def test_without_a_backend_only_the_doctor_works(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mlx'] = None\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    for command in ("sample", "references", "bench"):
        told = module(command, code=1, PYTHONPATH=path).stderr
        assert "MLX has no backend" in told
        assert told.count("\n") == 1
    assert "MLX has no backend" in module("doctor", PYTHONPATH=path).stdout


def test_new_assets_go_to_the_shipped_ones_in_a_checkout_and_to_the_outputs_elsewhere(tmp_path):
    outputs = str(tmp_path / "outputs")
    assert program.assets(str(ROOT), outputs) == str(ROOT / "src" / "adaptive_diffusion" / "assets")
    assert program.assets(str(tmp_path), outputs) == f"{outputs}/assets"


@pytest.mark.parametrize(("installed", "extra"), [("mlx-cuda-13", "cuda"), ("mlx-cpu", "cpu"), ("mlx-metal", "cpu")])
def test_hints_to_install_name_the_backend_that_is_there(installed, extra, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [SimpleNamespace(name=installed)])
    assert f"[{extra},rl]" in program.pip_install("rl")


def test_what_is_missing_is_installed_from_the_checkout_or_by_name(monkeypatch):
    monkeypatch.setattr(program, "_backend", lambda: "cpu")
    assert program.pip_install("rl") == 'pip install -e ".[cpu,rl]"'
    assert program.pip_install("cpu") == 'pip install -e ".[cpu]"'
    monkeypatch.setattr(program, "installed", lambda: True)
    assert program.pip_install("rl") == 'pip install "adaptive-diffusion-optimizer[cpu,rl]"'
    assert program.pip_install() == 'pip install "adaptive-diffusion-optimizer"'


def test_a_training_in_a_domain_without_a_file_names_it(monkeypatch):
    monkeypatch.setattr(program, "command", lambda name: name)
    assert program.training("agent", "portraits", episodes=3) == "train agent=cem domain=portraits task.episodes=3"
    assert program.training("agent", "shapes") == "train agent=cem domain=general domain.name=shapes"
