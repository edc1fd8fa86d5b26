"""Images, environments and calibrations are those of version 0.1.0; see `record.py`."""

from __future__ import annotations

from fnmatch import fnmatch

import mlx.core as mx
import numpy as np
import pytest
from cases import CASES
from record import RECORDED, machine

# Cases without matrix products are equal bit for bit on the machine and the versions they were recorded with, but for
# MERGED, whose loops were written anew; elsewhere they are equal within ROUNDING.
ROUNDING = 2e-6
MERGED = (
    *("sampler quality guided/", "sampler quality guided, most", "sampler quality guided, stochastic"),
    "timesteps/",
)

# Cases with matrix products depend on the BLAS. Largest differences that were seen between OpenBLAS with Haswell
# kernels (recorded), OpenBLAS with AVX-512 kernels (OPENBLAS_CORETYPE unset), and MKL with NumPy's OpenBLAS on Prescott
# kernels and without SIMD: shipped model 1e-6, policies 2.4e-5 timesteps, diffusers' U-Nets 1e-5, other float64 1e-13.
# Learning the four steps magnifies the rounding of states, 1e-7, to 0.5 timesteps and 0.006 in the
# weights, which changes the scores by 3e-5.
BLAS = {
    "diffusers *": 1e-4,
    "sample.py *": 1e-5,
    "policy*/timesteps": 1e-3,
    "policy*": 1e-5,
    "calibration/4 timesteps": 1.0,
    "calibration/4 corrections": 1e-2,
    "calibration/4 scores": 1e-4,
    "calibration*/* timesteps": 1e-3,
    "calibration*": 1e-5,
    "sampler */quality": ROUNDING,
    "grids/*": 1e-9,
    "*/timesteps": 1e-9,
}
ON_A_GPU = 100  # times the tolerance: its kernels for exp and tanh differ, and so do its matrix products (an estimate)


def tolerance(key: str) -> float:
    """By how much an array may differ from the recorded one; 0: not at all."""
    with np.load(RECORDED) as recorded:
        same = str(recorded["machine"]) == machine()
    blas = next((limit for pattern, limit in BLAS.items() if fnmatch(key, pattern)), None)
    if blas is None:
        return 0.0 if same and not key.startswith(MERGED) else ROUNDING
    return blas


@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_version_0_1_0(name: str) -> None:
    with np.load(RECORDED) as recorded:
        expected = {key: recorded[key] for key in recorded.files if key.rpartition("/")[0] == name}
    arrays = {f"{name}/{key}": value for key, value in CASES[name]().items()}
    assert arrays.keys() == expected.keys()
    slack = ON_A_GPU if mx.default_device() == mx.gpu else 1
    for key, array in arrays.items():
        np.testing.assert_allclose(array, expected[key], rtol=0, atol=slack * tolerance(key), err_msg=key)


def test_every_recorded_array_belongs_to_a_case() -> None:
    with np.load(RECORDED) as recorded:
        names = {key.rpartition("/")[0] for key in recorded.files if key != "machine"}
    assert names == set(CASES)


def test_cases_show_what_they_are_for() -> None:
    """Images stop at different steps, steps fall back, weights were fitted, and a learned schedule was chosen."""
    with np.load(RECORDED) as recorded:
        for name in ("quality guided", "quality guided, no finish", "quality guided, stochastic"):
            assert len(set(recorded[f"sampler {name}/evaluations"].tolist())) > 1, name
        for name in ("adaptive calibrated", "dpm order 3"):
            other = {"adaptive calibrated": "adaptive calibrated, falls back"}.get(name, f"{name}, 16 steps")
            assert np.any(recorded[f"scheduler {name}/images"] != recorded[f"scheduler {other}/images"])
        assert recorded["calibration/3 corrections"].any()
        assert recorded["calibration/4 corrections"].any()
        assert set(recorded["policy that stops/evaluations"].tolist()) == {4}
