"""Networks as MLX computes them fastest: one compiled graph on a GPU, the parts of a batch side by side on a CPU."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ..backend.prepare import one_thread, product_threads

SMALLEST_PART = 2**14  # numbers of the states in a part; of fewer, starting it costs as much as it saves

_own = threading.local()  # streams belong to the thread that made them


def compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """A pure function of arrays, faster: compiled on a GPU, and a large batch in parts on a CPU.

    On a CPU, MLX computes all but matrix products in one thread for each stream, so each part gets a stream of its own.
    There are as many parts as a matrix product has threads: one on a Mac, and where the environment says so.
    What the function holds besides its arguments, and the weights of an MLX module, may be taken as it is at the first
    call.

    Args:
        function: Its first argument are states, (B, ...); its other arrays have B rows too, or are the same for all.
    """
    if mx.default_device() == mx.gpu:
        weights = function.state if isinstance(function, nn.Module) else None  # others are taken as they are
        return mx.compile(function, inputs=weights)  # kernels are short beside the time it takes to ask for them

    def in_parts(x: mx.array, *others: Any) -> mx.array:
        n, size = _parts(x), len(x)
        if n == 1:
            return function(x, *others)

        bounds = [size * i // n for i in range(n + 1)]
        results = []
        for stream, first, end in zip(_streams(n), bounds, bounds[1:], strict=False):
            rows = functools.partial(_rows, of=size, part=slice(first, end))
            with mx.stream(stream):
                results.append(function(x[first:end], *tree_map(rows, others)))

        result = mx.concatenate(results)
        with one_thread(), contextlib.suppress(ValueError):  # raised while somebody compiles or vectorises this
            mx.eval(result)
        return result

    return in_parts


def _parts(x: mx.array) -> int:
    """How many parts of a batch are to be computed side by side."""
    return max(1, min(product_threads(), len(x), x.size // SMALLEST_PART))


def _rows(array: Any, of: int, part: slice) -> Any:
    """The rows of an argument that belong to a part of the batch; what has no rows of the batch is the same for all."""
    return array[part] if isinstance(array, mx.array) and array.shape[:1] == (of,) else array


def _streams(n: int) -> list[mx.Stream]:
    """This thread's default stream, and others."""
    made: list[mx.Stream] = _own.__dict__.setdefault("streams", [])
    while len(made) < n - 1:
        made.append(mx.new_stream(mx.cpu))
    return [mx.default_stream(mx.cpu), *made[: n - 1]]
