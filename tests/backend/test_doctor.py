"""The doctor tells what it finds, also when something is missing; the benchmarks run from one command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from adaptive_diffusion.backend import doctor
from adaptive_diffusion.program import pip_install
from benchmarks import __main__ as bench
from benchmarks import blas as blas_bench


def module(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m name`."""
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def test_the_report_names_device_blas_speed_and_versions():
    done = module("adaptive_diffusion", "doctor")
    assert done.returncode == 0, done.stderr
    for line in ("device", "BLAS", "matmul", "versions"):
        assert f"\n{line} " in done.stdout
    assert "GFLOP/s (1024 x 1024, float32" in done.stdout
    for package in ("mlx 0", "numpy ", "hydra-core 1.3", "mlflow 3", "stable-baselines3 2", "torch 2.13"):
        assert package in done.stdout


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_in_parts_are_told_where_there_are_parts(monkeypatch, threads):
    monkeypatch.setattr(doctor, "matmul_gflops", lambda: 1.0)
    monkeypatch.setattr(doctor.backend, "product_threads", lambda: threads)
    facts, _ = doctor.report()
    in_parts = threads > 1 and facts["device"].startswith("cpu")
    assert facts.get("batches", "").startswith("large ones go through a network in 2 parts") == in_parts


def test_without_a_backend_the_doctor_says_what_to_install(tmp_path):
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "__init__.py").touch()
    (tmp_path / "mlx" / "core.py").write_text("raise ImportError('libmlx.so: cannot open shared object file')")
    done = module("adaptive_diffusion", "doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "MLX has no backend here" in done.stdout
    assert "pip install -e" in done.stdout


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "matmul_gflops", lambda: 1.0)
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "mlflow" else "1.0")
    _, advice = doctor.report()
    assert "Not installed: mlflow; get what is missing with: pip install -e ." in advice


def test_an_extra_is_named_with_what_it_is_for_and_never_counts_as_missing(monkeypatch):
    monkeypatch.setattr(doctor, "matmul_gflops", lambda: 1.0)
    monkeypatch.setattr(doctor, "version", lambda name: None if name in ("torch", "gymnasium") else "1.0")
    facts, advice = doctor.report()
    assert facts["extra rl"].startswith(f"without gymnasium, torch; {pip_install('rl')} (for agent=ppo")
    assert facts["extra standard"].startswith("installed")
    assert not [sentence for sentence in advice if "Not installed" in sentence]


def test_an_environment_that_halves_the_speed_is_pointed_out(monkeypatch):
    monkeypatch.setattr(doctor.blas, "has_avx512", lambda: True)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert any("OPENBLAS_CORETYPE=Haswell" in sentence for sentence in doctor._core_advice("Haswell"))
    assert not list(doctor._core_advice("SkylakeX"))


def test_benchmarks_are_listed_with_what_they_measure(capsys):
    bench.main([])
    listed = capsys.readouterr().out
    assert "blas " in listed
    assert all(bench.benchmarks().values()), "a benchmark's docstring begins with its command, a colon and a sentence"


@pytest.mark.skipif(sys.platform != "linux", reason="MLX's own CPU library is slow on Linux only")
def test_the_loaded_blas_is_many_times_faster_than_mlx_as_shipped():
    """15 times and more on an idle machine; half of that is asserted, since tests share theirs."""
    ours = [blas_bench.measure("auto", size=768, rounds=20) for _ in range(2)]
    if ours[0].blas in ("bundled", "preloaded"):
        pytest.skip("this machine has neither OpenBLAS nor MKL")
    plain = blas_bench.measure("none", size=768, rounds=3)
    assert plain.blas == "bundled"
    assert max(m.gflops for m in ours) > 8 * plain.gflops
