"""The Frechet distance against closed forms and SciPy's matrix root, and the statistics it is computed from."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import scipy.linalg

from adaptive_diffusion.metrics.frechet import frechet_caveat, frechet_distance, nuclear_norm
from adaptive_diffusion.metrics.statistics import (
    FeatureStatistics,
    mean_and_centred,
    triangular,
)
from benchmarks import frechet as bench


def statistics(x: np.ndarray, encoder: str = "tiny", encoder_hash: str = "abc") -> FeatureStatistics:
    return FeatureStatistics.from_features(x, encoder, encoder_hash)


def test_it_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 12)) @ rng.standard_normal((12, 12))
    b = rng.standard_normal((300, 12)) @ rng.standard_normal((12, 12)) + 0.5
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(ca @ cb).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_shift_costs_its_square_and_a_scale_the_square_of_the_difference_of_deviations() -> None:
    x = np.random.default_rng(1).standard_normal((500, 5))
    assert frechet_distance(x, x + 2.0) == pytest.approx(5 * 4.0, rel=1e-9)
    assert frechet_distance(x, 3 * x) == pytest.approx(
        4 * np.var(x, axis=0, ddof=1).sum() + 4 * (x.mean(0) ** 2).sum(), rel=1e-9
    )


@pytest.mark.parametrize("n", [20, 600])
def test_a_set_is_at_no_distance_from_itself_even_when_rank_deficient(n: int) -> None:
    x = np.random.default_rng(2).standard_normal((n, 128))
    assert abs(frechet_distance(x, x)) < 1e-9


POWERS = {f"k^-{p}": np.arange(1.0, 101) ** -p for p in (0, 1, 4)}
GAPS = {"gap of 1e-6": np.repeat([1, 1e-6], 50), "gap of 1e-11": np.repeat([1, 1e-11], 50)}
SPECTRA = {**POWERS, **GAPS, "rank 50": np.repeat([1.0, 0.0], 50), "of zeros": np.zeros(100)}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("shape", [(100, 100), (100, 130), (130, 100)])
def test_the_nuclear_norm_keeps_the_digits_of_small_singular_values(name: str, shape: tuple[int, int]) -> None:
    rng, values = np.random.default_rng(7), SPECTRA[name]
    left, right = (np.linalg.qr(rng.standard_normal((size, 100)))[0] for size in shape)
    assert nuclear_norm((left * values) @ right.T) == pytest.approx(values.sum(), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("n", [2, 7, 8, 9, 30])
def test_a_factor_has_no_more_rows_than_the_rank_and_gives_the_covariance_back(n: int) -> None:
    x = np.random.default_rng(8).standard_normal((n, 8)) + 3
    factor = triangular(mean_and_centred(x)[1])
    assert factor.shape == (min(n - 1, 8), 8)
    np.testing.assert_allclose(factor.T @ factor, np.cov(x, rowvar=False), atol=1e-14)


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (np.zeros((1, 4)), "n >= 2"),
        (np.zeros(4), "n >= 2"),
        (np.full((3, 4), np.nan), "finite"),
        (np.zeros((3, 5)), "same width, got 5 and 4"),
    ],
)
def test_what_is_no_set_of_features_is_refused(a: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, np.zeros((3, 4)))


@pytest.mark.parametrize("n", [20, 600])
def test_stored_statistics_give_what_the_features_give(n: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((n, 40)), 1.5 * rng.standard_normal((300, 40))
    statistics(x).save(tmp_path / "x.npz")
    stored = FeatureStatistics.load(tmp_path / "x.npz")
    assert (stored.n, stored.encoder, stored.encoder_hash) == (n, "tiny", "abc")
    np.testing.assert_array_equal(stored.covariance, statistics(x).covariance)
    expected = frechet_distance(x, y)
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(stored, statistics(y)) == pytest.approx(expected, rel=1e-12)
    trace = 2 * np.trace(stored.covariance)
    assert abs(frechet_distance(stored, stored)) < 1e-12 * trace


def test_a_file_of_statistics_holds_no_pickle_and_leaves_no_trace_when_it_fails(tmp_path: Path) -> None:
    statistics(np.eye(4)).save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= {"f", "i", "U"}

    with pytest.raises(ValueError, match=r"must end in \.npz"):
        statistics(np.eye(4)).save(tmp_path / "x.txt")

    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (statistics(np.eye(4)), statistics(np.eye(4), "other"), r"tiny \(abc\) and other \(abc\)"),
        (statistics(np.eye(4)), statistics(np.eye(4), encoder_hash="def"), "different encoders"),
        (statistics(np.eye(4)), statistics(np.eye(5)), "same width, got 4 and 5"),
        (statistics(np.eye(4)), np.eye(4), "statistics on both"),
    ],
)
def test_what_cannot_be_compared_is_refused(x: FeatureStatistics, y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "at least 2 images"),
        ({"mean": np.zeros(3)}, r"got \(3,\) and \(2, 2\)"),
        ({"mean": np.array([0, np.inf])}, "finite"),
        ({"covariance": np.array([[1, 2], [0, 1]])}, "symmetric"),
        ({"covariance": -np.eye(2)}, "diagonal >= 0"),
        ({"encoder_hash": ""}, "content hash"),
    ],
)
def test_what_cannot_be_statistics_is_refused(change: dict[str, object], message: str) -> None:
    parts = {"n": 9, "mean": np.zeros(2), "covariance": np.eye(2), "encoder": "tiny", "encoder_hash": "abc"}
    with pytest.raises(ValueError, match=message):
        FeatureStatistics(**{**parts, **change})


def test_files_that_hold_no_statistics_are_refused_in_a_sentence(tmp_path: Path) -> None:
    statistics(np.eye(4)).save(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    np.savez(tmp_path / "fid.npz", mu=np.zeros(2), sigma=np.eye(2))
    np.savez(tmp_path / "other.npz", images=np.zeros(2))
    np.savez(tmp_path / "pickled.npz", mean=np.array([{}], dtype=object))

    for name, message in {
        "absent": "does not exist; give the statistics of features",
        "cut": "truncated",
        "fid": "neither the sample size nor the encoder",
        "other": "another kind of file",
        "pickled": "cannot be read",
    }.items():
        with pytest.raises(ValueError, match=message):
            FeatureStatistics.load(tmp_path / f"{name}.npz")


def test_features_may_come_from_mlx_in_any_floating_type_and_pictures_are_no_features() -> None:
    x = np.random.default_rng(4).standard_normal((50, 8)).astype(np.float32)
    assert frechet_distance(mx.array(x), x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(mx.array(x, mx.bfloat16), x) < 1e-3
    with pytest.raises(ValueError, match="got uint8"):
        frechet_distance(np.zeros((4, 4), np.uint8), x)


def test_too_few_pictures_are_flagged() -> None:
    assert frechet_caveat(256, 64) is None
    assert "255 images are fewer than 4 x 64" in str(frechet_caveat(255, 64))


def test_the_benchmark_compares_both_ways_on_the_same_features(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--dimensions", "40", "--images", "60", "--rounds", "1"])
    table = capsys.readouterr().out
    ours, theirs = (next(line for line in table.splitlines() if line.startswith(name)) for name in ("nuclear", "scipy"))
    assert ours.split()[3] == theirs.split()[3]
    assert abs(float(ours.split()[4])) < 1e-12
    assert "ratio" in table
