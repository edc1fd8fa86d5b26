"""Precision and recall on sets whose answer is known."""

import numpy as np
import pytest
import torch

from adaptive_diffusion.metrics.precision_recall import precision_recall


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    x = np.random.default_rng(0).standard_normal((100, 8))
    same, apart = precision_recall(x, x), precision_recall(x, x + 100)
    assert (same.precision, same.recall) == (1, 1)
    assert (apart.precision, apart.recall) == (0, 0)


def test_a_model_that_draws_one_mode_of_two_is_precise_but_forgets_half() -> None:
    rng = np.random.default_rng(1)
    modes = np.concatenate([rng.standard_normal((200, 4)), rng.standard_normal((200, 4)) + 50])
    found = precision_recall(modes, rng.standard_normal((400, 4)))
    assert found.precision > 0.9
    assert 0.45 < found.recall <= 0.5


def test_it_agrees_with_distances_written_out_in_torch() -> None:
    rng = np.random.default_rng(2)
    real, made = rng.standard_normal((1300, 6)) + 1000, 1.3 * rng.standard_normal((300, 6)) + 1000  # two blocks
    a, b = torch.tensor(real), torch.tensor(made)

    def covered(points: torch.Tensor, centres: torch.Tensor) -> float:
        mode = "donot_use_mm_for_euclid_dist"
        radii = torch.cdist(centres, centres, compute_mode=mode).kthvalue(4).values  # the first is the point itself
        inside = torch.cdist(points, centres, compute_mode=mode) <= radii
        return inside.any(dim=1).double().mean().item()

    found = precision_recall(real, made)
    assert found.precision == pytest.approx(covered(b, a), abs=1e-12)
    assert found.recall == pytest.approx(covered(a, b), abs=1e-12)
    assert 0.2 < found.precision < 0.99


def test_the_ball_reaches_the_kth_neighbour_inclusive() -> None:
    real = np.array([[0.0], [1.0], [3.0], [6.0]])  # distances to the third neighbour: 6, 5, 3, 6
    assert precision_recall(real, np.array([[12.0], [12.0], [12.0], [12.5]]), k=3).precision == 0.75


@pytest.mark.parametrize(
    ("x", "k", "message"),
    [
        (np.zeros((1, 4)), 3, "real features must be"),
        (np.zeros((9, 3)), 3, "same width"),
        (np.zeros((3, 4)), 3, r"k must lie in \[1, 2\]"),
        (np.zeros((9, 4)), 0, "got 0"),
        (np.full((9, 4), np.inf), 3, "NaN or infinity in 9 of 9 rows"),
    ],
)
def test_unfit_input_is_refused(x: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        precision_recall(x, np.zeros((20, 4)), k)
