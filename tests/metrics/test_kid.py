"""The kernel distance against its definition, and its lack of bias."""

import numpy as np
import pytest

from adaptive_diffusion.metrics.kid import kernel_distance


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Sum over pairs, written out (Gretton et al., 2012, equation 3)."""
    k = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731
    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def test_one_subset_of_everything_is_the_unbiased_estimate() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)), rng.standard_normal((12, 5)) + 0.5
    found = kernel_distance(x, y, subsets=3, subset_size=12)
    assert found.mean == pytest.approx(by_definition(x, y), rel=1e-12)
    assert found.std == pytest.approx(0, abs=1e-12)
    assert (found.subsets, found.subset_size) == (3, 12)


def test_a_subset_is_drawn_without_replacement_from_sets_of_any_size() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2500, 6)), rng.standard_normal((40, 6))  # more rows than one block
    found = kernel_distance(x, y, subsets=1, subset_size=30, seed=7)
    draw = np.random.default_rng(7)
    i, j = draw.permutation(2500)[:30], draw.permutation(40)[:30]
    assert found.mean == pytest.approx(by_definition(x[i], y[j]), rel=1e-9)


def test_two_samples_of_one_law_are_at_no_distance_on_average() -> None:
    rng = np.random.default_rng(2)
    found = [kernel_distance(*rng.standard_normal((2, 100, 4)), subsets=20).mean for _ in range(40)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0 < max(found)


def test_the_default_subset_leaves_a_spread_and_never_exceeds_1000() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 4))
    found = kernel_distance(x, x + 1, subsets=10)
    assert found.subset_size == 30
    assert found.std > 0
    assert kernel_distance(*rng.standard_normal((2, 2100, 2)), subsets=1).subset_size == 1000


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((1, 4)), {}, "n >= 2"),
        (np.zeros((9, 3)), {}, "same width, got 3 and 4"),
        (np.full((9, 4), np.nan), {}, "NaN or infinity in 9 of 9 rows"),
        (np.zeros((9, 4)), {"subset_size": 10}, r"\[2, 9\]"),
        (np.zeros((9, 4)), {"subset_size": 1}, "subset_size 1"),
        (np.zeros((9, 4)), {"subsets": 0}, "subsets 0"),
    ],
)
def test_unfit_input_is_refused(x: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_distance(x, np.zeros((20, 4)), **options)
