"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from adaptive_diffusion.io.counted import count, speed


@pytest.mark.parametrize(
    ("n", "noun", "words"),
    [
        *((1, "image", "1 image"), (0, "image", "0 images"), (1000, "image", "1,000 images")),
        *((1.0, "pass", "1 pass"), (8.5, "pass", "8.5 passes"), (2, "held-out batch", "2 held-out batches")),
    ],
)
def test_one_is_singular(n, noun, words):
    assert count(n, noun) == words


@pytest.mark.parametrize(
    ("rate", "words"), [(1234.5, "1,230 steps/s"), (12.34, "12.3 steps/s"), (1, "1 step/s"), (0.25, "4 s per step")]
)
def test_a_rate_below_one_a_second_is_seconds_for_each(rate, words):
    assert speed(rate, "step") == words
