"""The kernel distance from moments is the one from all pairs of features."""

from pathlib import Path

import numpy as np
import pytest

from adaptive_diffusion.metrics.kernel_reference import KernelReference
from adaptive_diffusion.metrics.kid import kernel_distance

RNG = np.random.default_rng(0)
X, Y = RNG.normal(0.3, 1.2, (40, 7)), RNG.normal(0.0, 1.0, (300, 7)) ** 3
REFERENCE = KernelReference.from_features(Y, "encoder/7", "abc")


def all_pairs(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD^2 by its definition (Gretton et al., 2012, Lemma 6), pair by pair."""
    d = x.shape[1]

    def mean(a, b, same):
        kernel = (a @ b.T / d + 1) ** 3
        n = len(a)
        return (kernel.sum() - np.trace(kernel)) / (n * (n - 1)) if same else kernel.mean()

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_over_all_pictures_it_is_the_unbiased_distance() -> None:
    found = REFERENCE.distance(X, subsets=1, subset_size=len(X))
    assert found.mean == pytest.approx(all_pairs(X, Y), rel=1e-9)


def test_each_subset_is_compared_with_the_whole_reference() -> None:
    found = REFERENCE.distance(X, subsets=300, subset_size=20)
    assert found.std > 0
    assert abs(found.mean - all_pairs(X, Y)) < 4 * found.std / np.sqrt(300)


def test_it_agrees_with_the_distance_between_features_in_expectation() -> None:
    between = kernel_distance(X, Y, subsets=400, subset_size=20)
    assert abs(REFERENCE.distance(X, subsets=400, subset_size=20).mean - between.mean) < 4 * between.std / 20


def test_two_samples_of_one_law_are_at_distance_zero_on_average() -> None:
    rng = np.random.default_rng(1)
    values = [
        KernelReference.from_features(rng.normal(size=(100, 4)), "e", "h")
        .distance(rng.normal(size=(50, 4)), subsets=1, subset_size=50)
        .mean
        for _ in range(100)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / 10


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    REFERENCE.save(tmp_path / "reference.npz")
    loaded = KernelReference.load(tmp_path / "reference.npz")
    assert loaded.distance(X) == REFERENCE.distance(X)
    assert (loaded.n, loaded.encoder, loaded.encoder_hash) == (300, "encoder/7", "abc")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"no archive at all"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as the moments"):
        KernelReference.load(tmp_path / "x.npz")


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 7, got 6"):
        REFERENCE.distance(X[:, :6])
