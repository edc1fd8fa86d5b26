"""Networks as one compiled graph where that pays: on a GPU, whose kernels are short beside the time it takes to ask."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx


def compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """A pure function of arrays, compiled on a GPU; on the CPU it saves little and wants a compiler, so as it is.

    What the function holds besides its arguments, such as a network's weights, is taken as it is at the first call.
    """
    return mx.compile(function) if mx.default_device() == mx.gpu else function
