"""The Frechet distance against closed forms and SciPy's matrix root."""

import numpy as np
import pytest
import scipy.linalg

from adaptive_diffusion.metrics.frechet import frechet_distance


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
