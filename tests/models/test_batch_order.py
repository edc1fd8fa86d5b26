"""Batches of a training: every image once an epoch, in an order that the seed and the step decide."""

import numpy as np

from adaptive_diffusion.models.batch_order import BatchOrder


def test_an_epoch_shows_every_picture_once_and_groups_equally_often() -> None:
    order = BatchOrder([6, 3], batch_size=4, seed=0)
    groups, rows, _ = (np.concatenate(parts) for parts in zip(*(order(step) for step in range(6)), strict=True))
    assert (groups == 0).sum() == (groups == 1).sum() == 12
    for epoch in range(2):
        assert sorted(rows[groups == 0][6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert sorted(rows[groups == 1][:3]) == list(range(3))


def test_the_order_is_a_function_of_seed_and_step_alone() -> None:
    straight, jumping = BatchOrder([50, 7], 8, seed=3), BatchOrder([50, 7], 8, seed=3)
    batches = [straight(step) for step in range(30)]
    for step in (29, 3, 17):
        for a, b in zip(batches[step], jumping(step), strict=True):
            assert np.array_equal(a, b)
    other = BatchOrder([50, 7], 8, seed=4)
    assert not all(np.array_equal(other(step)[1], batches[step][1]) for step in range(5))
