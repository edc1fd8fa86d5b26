"""MLX computes with a fast BLAS, no other library is touched by that, and importing the package is cheap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import adaptive_diffusion
from adaptive_diffusion.backend import blas, elf
from adaptive_diffusion.backend import prepare as backend

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="a BLAS is loaded on Linux only")


def python(code: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter."""
    env = {k: v for k, v in os.environ.items() if k != backend.BLAS_VARIABLE} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, check=check, capture_output=True, text=True)


@pytest.fixture
def wheels(monkeypatch, tmp_path):
    """A virtual environment in which the wheels of SciPy, NumPy and MKL are installed."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    openblas = packages / "scipy.libs" / "libscipy_openblas-0123abcd.so"
    of_numpy = packages / "numpy.libs" / "libscipy_openblas64_-0123abcd.so"  # its integers have 64 bits, MLX's have 32
    mkl = tmp_path / "lib" / "libmkl_rt.so.3"

    for library in (openblas, of_numpy, mkl):
        library.parent.mkdir(parents=True, exist_ok=True)
        library.touch()

    monkeypatch.setattr(sys, "path", [str(packages)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return {"mkl": str(mkl), "openblas": str(openblas)}


def names(found: list[blas.Candidate]) -> list[str]:
    """The candidates' names without repetition, in order."""
    return list(dict.fromkeys(c.name for c in found))


def test_scipys_openblas_comes_first_then_the_systems_then_mkl(wheels):
    first, *others = blas.candidates()
    assert first == blas.Candidate("openblas", wheels["openblas"], "scipy_")
    assert names(others) == ["openblas", "mkl"]
    assert "libopenblas.so.0" in [c.path for c in others]


def test_numpys_openblas_is_never_taken(wheels):
    assert not [c for c in blas.candidates() if "numpy.libs" in c.path]


def test_a_choice_leaves_out_the_others(wheels):
    assert names(blas.candidates("mkl")) == ["mkl"]
    assert names(blas.candidates("openblas")) == ["openblas"]
    assert blas.candidates("none") == []
    assert blas.candidates("/opt/blis/libblis.so") == [blas.Candidate("custom", "/opt/blis/libblis.so")]


def test_the_flags_are_read_from_cpuinfo(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n")
    assert blas.cpu_flags(str(cpuinfo)) == {"fpu", "avx2", "fma"}
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert blas.cpu_flags(str(cpuinfo)) == frozenset()
    assert blas.cpu_flags(str(tmp_path / "absent")) == frozenset()


@linux_only
def test_the_environment_is_left_as_it_was():
    code = """
import os
before = dict(os.environ)
import adaptive_diffusion
assert dict(os.environ) == before
"""
    python(code)


@linux_only
def test_the_report_says_which_library_and_how_many_threads():
    environment = {"OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "MKL_DYNAMIC": "FALSE"}
    code = """
from adaptive_diffusion.backend.prepare import info
blas = info().blas
print(blas.name, blas.threads, blas.path, sep="\\n")
"""
    name, threads, path = python(code, **environment).stdout.split("\n")[:3]
    if name == "bundled":
        pytest.skip("this machine has neither OpenBLAS nor MKL")
    assert int(threads) == 2
    assert Path(path).is_file()


@linux_only
@pytest.mark.parametrize("choice", ["mkl", "openblas"])
@pytest.mark.parametrize("first", ["adaptive_diffusion", "torch", "numpy"])
def test_products_and_factorisations_agree_with_numpy_beside_torch(choice, first):
    """One process holds four BLAS libraries: MLX's, the one it is led to, NumPy's and PyTorch's."""
    code = f"""
import json, {first}, adaptive_diffusion
import numpy as np, torch, mlx.core as mx
from adaptive_diffusion.backend import prepare as backend
a = np.random.default_rng(0).standard_normal((200, 150)).astype(np.float32)
exact = a.T.astype(np.float64) @ a.astype(np.float64)
error = lambda x: float(np.abs(np.array(x, np.float64) - exact).max() / np.abs(exact).max())
t, m = torch.from_numpy(a), mx.array(a)
values = np.linalg.eigvalsh(exact)
z = torch.complex(t[0], t[1])
print(json.dumps(dict(
    blas=backend.info().blas.name,
    mlx=error(mx.matmul(m.T, m, stream=mx.cpu)), torch=error(t.T @ t), numpy=error(a.T @ a),
    eigh=float(np.abs(np.array(mx.linalg.eigvalsh(mx.array(exact.astype("f4")), stream=mx.cpu)) / values - 1).max()),
    torch_eigh=float(np.abs(torch.linalg.eigvalsh(torch.from_numpy(exact)).numpy() / values - 1).max()),
    vdot=abs(complex(torch.vdot(z, z)) - float((z.abs() ** 2).sum())),
)))
"""
    named = "from adaptive_diffusion.backend.prepare import info; print(info().blas.name)"
    if python(named, ADAPTIVE_DIFFUSION_BLAS=choice).stdout.strip() != choice:
        pytest.skip(f"{choice} is not installed")
    found = json.loads(python(code, ADAPTIVE_DIFFUSION_BLAS=choice).stdout)
    assert found.pop("blas") == choice
    assert found.pop("eigh") < 1e-3  # of the smallest eigenvalue, in float32
    assert found.pop("vdot") < 1e-3
    assert found.pop("torch_eigh") < 1e-10
    assert max(found.values()) < 1e-5


@linux_only
@pytest.mark.parametrize("first", ["mlx.core", "mlx.nn", "adaptive_diffusion"])
def test_the_order_of_imports_does_not_matter(first):
    code = f"""
import {first}, mlx.core as mx
x = mx.ones((64, 64))
mx.eval(x @ x)
import adaptive_diffusion
from adaptive_diffusion.backend import elf
print(elf.owner(elf.find("/libmlx.so").calls()["cblas_sgemm"]))
"""
    done = python(code)
    assert done.stderr == ""
    assert ".libs/libblas" not in done.stdout


@linux_only
def test_only_mlx_is_led_to_the_blas():
    """A library loaded for everyone would replace PyTorch's, whose complex dot products would then be zero."""
    code = "import ctypes, adaptive_diffusion; print(hasattr(ctypes.CDLL(None), 'cblas_sgemm'))"
    assert python(code).stdout.strip() == "False"


@linux_only
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to make a library with")
def test_a_preloaded_blas_is_left_in_place(tmp_path):
    source, library = tmp_path / "blas.c", tmp_path / "libsomebodys.so"
    source.write_text("void cblas_sgemm(void) {}")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)

    done = python("from adaptive_diffusion.backend.prepare import info; print(info())", LD_PRELOAD=str(library))

    assert "name='linked'" in done.stdout
    assert str(library) in done.stdout
    assert done.stderr == ""


@linux_only
def test_no_warning_without_cause():
    for choice in ("auto", "none"):
        code = "from adaptive_diffusion.backend.prepare import info; print(info().blas.name)"
        done = python(code, ADAPTIVE_DIFFUSION_BLAS=choice)
        if choice == "auto" and "bundled" in done.stdout:
            pytest.skip("this machine has neither OpenBLAS nor MKL")
        assert done.stderr == ""


@linux_only
@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("mlk", "ADAPTIVE_DIFFUSION_BLAS=mlk is none of auto, mkl, openblas, none or a path"),
        ("/nowhere/libblas.so", "/nowhere/libblas.so could not be loaded"),
    ],
)
def test_a_choice_that_cannot_be_met_is_said_and_does_not_stop_the_work(choice, sentence):
    done = python("import adaptive_diffusion, mlx.core as mx; print(mx.ones(3).sum())", ADAPTIVE_DIFFUSION_BLAS=choice)
    assert sentence in done.stderr
    assert "3" in done.stdout


@linux_only
def test_a_library_without_the_functions_is_passed_over():
    other = next(Path("/").glob("usr/lib/*/libc.so.6"), None) or pytest.skip("no library to try")
    done = python(
        "from adaptive_diffusion.backend.prepare import info; print(info())",
        ADAPTIVE_DIFFUSION_BLAS=str(other),
    )
    assert "has no function cblas_sgemm" in done.stderr
    assert "'bundled'" in done.stdout


@linux_only
def test_calls_stay_as_they_are_where_the_system_forbids_the_change(monkeypatch):
    monkeypatch.setattr(elf, "_make_writable", lambda page: False)
    mlx = elf.find("/libmlx.so")
    before = mlx.calls()
    sealed = {page for name, page in mlx._slots() if name == "cblas_sgemm"}
    start = min(sealed) - 8
    monkeypatch.setattr(elf.LoadedLibrary, "_segment", _relro_over(elf.LoadedLibrary._segment, start))
    assert not mlx.redirect({"cblas_sgemm": 1})
    assert mlx.calls() == before


def _relro_over(segment, start):
    """`segment`, but with the write-protected range at `start`."""
    return lambda library, kind: (start, 64) if kind == elf._PT_GNU_RELRO else segment(library, kind)


def test_without_a_backend_one_sentence_names_the_extra(tmp_path):
    """What `pip install mlx` alone gives on Linux: an extension whose library is missing."""
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "__init__.py").touch()
    (tmp_path / "mlx" / "core.py").write_text("raise ImportError('libmlx.so: cannot open shared object file')")
    done = python("import adaptive_diffusion", check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: MLX has no backend here (libmlx.so")
    assert "pip install -e" in last


@pytest.mark.skipif(not sys.platform.startswith("linux") or not os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_operation():
    code = """
import resource, adaptive_diffusion, mlx.core as mx
x = mx.zeros((2048, 2048))
mx.eval(x)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(40):
    mx.eval(mx.add(x[: 2000 - 20 * i], 1.0, stream=mx.cpu))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept = int(python(code).stdout)
    returned = int(python(code, MALLOC_MMAP_THRESHOLD_="131072").stdout)  # who tunes malloc is left alone
    if returned < 10_000:
        pytest.skip("huge pages hide the difference here")
    assert kept < 0.3 * returned


HEAVY = ("torch", "mlflow", "hydra", "omegaconf", "matplotlib", "PIL", "gymnasium", "stable_baselines3", "scipy", "cv2")


def test_importing_loads_nothing_heavy():
    code = f"import sys, adaptive_diffusion; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).stdout.strip() == "[]"


def test_the_public_names_load_nothing_heavy():
    code = f"import sys; from adaptive_diffusion import *; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("used", "other"),
    [("models.diffusers", "metrics"), ("models.training", "metrics"), ("metrics.quality", "models")],
)
def test_models_and_metrics_load_without_each_other(used, other):
    code = f"import sys, adaptive_diffusion.{used}; print([m for m in sys.modules if '_diffusion.{other}' in m])"
    assert python(code).stdout.strip() == "[]"


def test_importing_costs_little_more_than_mlx_and_numpy():
    timed = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    ours, theirs = [], []
    for _ in range(3):
        ours.append(float(python(timed.format("adaptive_diffusion")).stdout))
        theirs.append(float(python(timed.format("mlx.core, numpy")).stdout))
    assert min(ours) < max(0.5, 2 * min(theirs))


@pytest.mark.parametrize("name", adaptive_diffusion.__all__)
def test_every_public_name_exists(name):
    assert getattr(adaptive_diffusion, name) is not None
    assert name in dir(adaptive_diffusion)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'DPMSolver'"):
        _ = adaptive_diffusion.DPMSolver


def test_products_do_not_depend_on_where_the_operands_lie_in_memory():
    """MLX's arrays are aligned to 8 bytes only; resuming a run bit for bit rests on this."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((257, 129), np.float32), rng.standard_normal((129, 65), np.float32)
    first = None
    for shift in range(8):
        ballast = mx.zeros((1000 + 2 * shift,))
        mx.eval(ballast)
        product = np.array(mx.matmul(mx.array(a), mx.array(b), stream=mx.cpu))
        first = product if first is None else first
        np.testing.assert_array_equal(product, first)
