"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from adaptive_diffusion.io.counted import count


@pytest.mark.parametrize(
    ("n", "noun", "words"),
    [
        *((1, "image", "1 image"), (0, "image", "0 images"), (1000, "image", "1,000 images")),
        *((1.0, "pass", "1 pass"), (8.5, "pass", "8.5 passes"), (2, "held-out batch", "2 held-out batches")),
    ],
)
def test_one_is_singular(n, noun, words):
    assert count(n, noun) == words
