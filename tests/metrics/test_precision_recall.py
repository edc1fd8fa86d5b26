"""Precision falls with features far from real ones, recall with lost variety, and neither with the other."""

from pathlib import Path

import numpy as np
import pytest

from adaptive_diffusion.errors import UnusableFile
from adaptive_diffusion.metrics.precision_recall import SMALLEST, ClusterReference


def islands(count: int, seed: int, kinds: int = 8) -> np.ndarray:
    """Features of images of some kinds, in 6 dimensions."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(99).normal(0, 4, (8, 6))
    return places[rng.integers(0, kinds, count)] + rng.normal(0, 1, (count, 6))


@pytest.fixture(scope="module")
def reference() -> ClusterReference:
    return ClusterReference.from_features(islands(2000, 0), "toy/6", "hash", clusters=12)


@pytest.mark.parametrize("n", [50, 264, 2000])
def test_real_images_reach_nine_tenths_and_one_at_any_number(reference: ClusterReference, n: int) -> None:
    _, spread = reference.real_coverage(n)
    found = np.array([(reference.precision(x), reference.recall(x)) for x in (islands(n, s) for s in range(1, 9))])
    assert found[:, 0].mean() == pytest.approx(0.9, abs=0.05)
    assert found[:, 1].mean() == pytest.approx(1.0, abs=max(0.03, 3 * spread))


def test_noise_lowers_precision_and_lost_kinds_lower_recall(reference: ClusterReference) -> None:
    real, noisy, few = islands(500, 1), islands(500, 1) * 1.0, islands(500, 1, kinds=2)
    noisy += np.random.default_rng(0).normal(0, 2, noisy.shape)
    assert reference.precision(noisy) < 0.5 * reference.precision(real)
    assert reference.precision(few) > 0.9 * reference.precision(real)
    assert reference.recall(few) < 0.5 * reference.recall(real)
    assert reference.recall(np.resize(real[:62], real.shape)) < 0.9 * reference.recall(real), "each 8 times"


def test_no_cluster_is_of_a_few_images() -> None:
    x = np.concatenate([islands(400, 0), np.full((3, 6), 100.0)])  # three outliers
    reference = ClusterReference.from_features(x, "toy/6", "hash")
    assert (reference.shares * len(x)).min() >= SMALLEST
    assert ClusterReference.from_features(x[:5], "toy/6", "hash").shares.tolist() == [1.0]


def test_a_file_holds_all_of_it_and_refuses_another(reference: ClusterReference, tmp_path: Path) -> None:
    reference.save(tmp_path / "c.npz")
    again, x = ClusterReference.load(tmp_path / "c.npz"), islands(100, 3)
    assert (again.precision(x), again.recall(x)) == (reference.precision(x), reference.recall(x))
    assert (again.n, again.encoder, again.encoder_hash) == (2000, "toy/6", "hash")

    np.savez(tmp_path / "other.npz", centres=np.zeros((2, 3)))
    with pytest.raises(UnusableFile, match="cannot be read as the clusters"):
        ClusterReference.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="features of width 6, got 4"):
        reference.precision(x[:, :4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": np.array([0.5, 0.2])}, "add up to 1"),
        ({"radii": np.array([1.0])}, "radii"),
        ({"radii": np.array([1.0, -1.0])}, "radii must be >= 0"),
        ({"centres": np.array([[np.nan], [0.0]])}, "finite"),
    ],
)
def test_clusters_that_cannot_be_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    whole = {"centres": np.zeros((2, 1)), "shares": np.array([0.5, 0.5]), "radii": np.ones(2)}
    with pytest.raises(ValueError, match=message):
        ClusterReference(n=20, encoder="toy/1", encoder_hash="hash", **{**whole, **change})
