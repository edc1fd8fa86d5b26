"""3x3 convolutions for batches on a CPU, by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, 2016).

MLX copies the nine neighbours of each pixel and multiplies them. Here, each 6x6 tile of the input (tiles overlap by 2)
becomes 36 sums of its pixels, the weights become 36 matrices, and their 36 products become 4x4 pixels of the output.
That takes a quarter of the multiplications and of the copies, and half to four fifths of the time. Results differ by
rounding, some 1e-5 of the largest.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

FEWEST_CHANNELS = 32  # of fewer, the tiles cost more than they save
FEWEST_TILES = 8  # of fewer, reading the matrices takes longer than multiplying with them saves
MOST_WEIGHTS = 9 * 2**17  # of more, the matrices no longer fit a processor's cache


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps height and width; its parameters are those of `nn.Conv2d`.

    In evaluation mode and float32 on a CPU, it is computed by Winograd's method. The 36 matrices are kept until the
    weights change; they take four times the memory of the weights.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)
        self._kept = _Kept()

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in_channels) -> (B, H, W, out_channels)."""
        matrices = None if self.training or not _pays(x, self.weight) else self._kept.matrices(self.weight)
        if matrices is None:
            return super().__call__(x)

        convolve: Any = _convolve  # MLX gives it no type
        result: mx.array = convolve(x, self.weight, matrices) + self.bias
        return result


class _Kept:
    """The matrices of the last weights."""

    _last: tuple[int, mx.array, mx.array] | None = None  # where the weights lie, they themselves, their matrices

    def matrices(self, weight: mx.array) -> mx.array | None:
        """The (36, C, K) matrices; None where weights are arguments of a function that is compiled or vectorised."""
        try:
            place = np.asarray(weight).ctypes.data  # other weights lie elsewhere while these are kept
        except ValueError:
            return None

        last = self._last
        if last is None or last[0] != place:
            matrices = _matrices(mx.stop_gradient(weight))
            mx.eval(matrices)  # for all threads
            self._last = last = place, mx.array(weight), matrices
        return last[2]


def _pays(x: mx.array, weight: mx.array) -> bool:
    """Whether the tiles save time."""
    B, H, W, C = x.shape
    enough = C >= FEWEST_CHANNELS and B * -(-H // 4) * -(-W // 4) >= FEWEST_TILES
    return (
        enough
        and weight.size <= MOST_WEIGHTS
        and x.dtype == weight.dtype == mx.float32
        and mx.default_device() == mx.cpu
    )


def _matrices(weight: mx.array) -> mx.array:
    """(K, 3, 3, C) weights -> (36, C, K)."""
    K, _, _, C = weight.shape
    _, of_weights, _ = _transforms()
    return (of_weights @ weight.transpose(1, 2, 3, 0).reshape(9, C * K)).reshape(36, C, K)


@mx.custom_function
def _convolve(x: mx.array, weight: mx.array, matrices: mx.array) -> mx.array:
    """(B, H, W, C) images, (K, 3, 3, C) weights and their (36, C, K) matrices -> (B, H, W, K)."""
    B, H, W, C = x.shape
    rows, columns = -(-H // 4), -(-W // 4)
    of_tiles, _, of_products = _transforms()
    taken, placed = _places(B, H, W)

    pixels = mx.pad(x, [(0, 0), (1, 4 * rows - H + 1), (1, 4 * columns - W + 1), (0, 0)]).reshape(-1, C)
    tiles = (of_tiles @ pixels[taken].reshape(36, -1)).reshape(36, B * rows * columns, C)
    products = (tiles @ matrices).reshape(36, -1)
    return (of_products @ products).reshape(-1, matrices.shape[-1])[placed].reshape(B, H, W, -1)


@_convolve.vjp
def _gradients(
    primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """The gradients of the plain convolution."""
    x, weight, matrices = primals
    _, found = mx.vjp(lambda x, weight: mx.conv2d(x, weight, padding=1), [x, weight], [cotangent])
    return found[0], found[1], mx.zeros_like(matrices)


@lru_cache(maxsize=64)
def _places(B: int, H: int, W: int) -> tuple[mx.array, mx.array]:
    """Which padded pixels each tile takes, and where the pixels of the result are in the 4x4 blocks.

    Returns:
        (36 * T,) and (B * H * W,) indices, for T tiles.
    """
    rows, columns = -(-H // 4), -(-W // 4)
    b, h, w = np.ix_(np.arange(B), np.arange(rows), np.arange(columns))
    i, j = np.divmod(np.arange(36).reshape(36, 1, 1, 1), 6)
    taken = (b * (4 * rows + 2) + 4 * h + i) * (4 * columns + 2) + 4 * w + j

    b, h, w = np.ix_(np.arange(B), np.arange(H), np.arange(W))
    tile = (b * rows + h // 4) * columns + w // 4
    placed = (h % 4 * 4 + w % 4) * (B * rows * columns) + tile

    found = mx.array(taken.astype(np.uint32).ravel()), mx.array(placed.astype(np.uint32).ravel())
    mx.eval(found)  # they are kept for all threads
    return found


@cache
def _transforms() -> tuple[mx.array, mx.array, mx.array]:
    """The transforms of tiles (36, 36), weights (36, 9) and products (16, 36), each for both directions at once.

    They evaluate polynomials at 0, 1, -1, 2, -2 and infinity.
    """
    tiles = (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    )
    weights = (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    )
    products = (
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 0),
        (0, 1, 1, 4, 4, 0),
        (0, 1, -1, 8, -8, 1),
    )

    of_tiles, of_weights, of_products = (
        mx.array(np.kron(m, m).astype(np.float32)) for m in map(np.array, (tiles, weights, products))
    )
    mx.eval(of_tiles, of_weights, of_products)
    return of_tiles, of_weights, of_products
