"""InceptionV3 of FID (Szegedy et al., 2016; Heusel et al., 2017), in MLX.

The network of 2015-12-05 differs from later versions of InceptionV3 in five ways: TensorFlow 1's resize, the scaling
(x - 128) / 128, average pooling without padding in the mean, a max pool in the last block, and 1008 classes. Layers
have the names of pt_inception-2015-12-05.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .features import in_batches
from .layers import average_pool_3x3, max_pool, resize_bilinear_tf1
from .pictures import as_uint8
from .published import INCEPTION, find_published
from .weights import Weights, conv_weight, pick, read_weights

INPUT_SIZE = 299
BN_EPS = 1e-3
CLASSES = 1008


@dataclass(frozen=True)
class _Conv:
    """Convolution, batch normalisation and ReLU; `same` pads so that stride 1 keeps the size."""

    name: str
    out: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True


_AVERAGE, _MAX, _SHRINK = "average", "max", "shrink"  # 3x3 pools: stride 1, stride 1, stride 2
_Step = str | _Conv | tuple[_Conv, ...]  # a tuple: convolutions of the same input, concatenated
_Block = tuple[tuple[_Step, ...], ...]  # branches of the same input, concatenated


def _double_3x3(width: int, out: int, stride: int = 1) -> tuple[_Step, ...]:
    last = _Conv("branch3x3dbl_3", out, (3, 3), stride, same=stride == 1)
    return (_Conv("branch3x3dbl_1", width), _Conv("branch3x3dbl_2", 96, (3, 3)), last)


def _block_a(pool: int) -> _Block:
    return (
        (_Conv("branch1x1", 64),),
        (_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, (5, 5))),
        _double_3x3(64, 96),
        (_AVERAGE, _Conv("branch_pool", pool)),
    )


def _block_c(width: int) -> _Block:
    across, down = (1, 7), (7, 1)
    return (
        (_Conv("branch1x1", 192),),
        (_Conv("branch7x7_1", width), _Conv("branch7x7_2", width, across), _Conv("branch7x7_3", 192, down)),
        (
            _Conv("branch7x7dbl_1", width),
            _Conv("branch7x7dbl_2", width, down),
            _Conv("branch7x7dbl_3", width, across),
            _Conv("branch7x7dbl_4", width, down),
            _Conv("branch7x7dbl_5", 192, across),
        ),
        (_AVERAGE, _Conv("branch_pool", 192)),
    )


def _block_e(pool: str) -> _Block:
    return (
        (_Conv("branch1x1", 320),),
        (
            _Conv("branch3x3_1", 384),
            (_Conv("branch3x3_2a", 384, (1, 3)), _Conv("branch3x3_2b", 384, (3, 1))),
        ),
        (
            _Conv("branch3x3dbl_1", 448),
            _Conv("branch3x3dbl_2", 384, (3, 3)),
            (_Conv("branch3x3dbl_3a", 384, (1, 3)), _Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, _Conv("branch_pool", 192)),
    )


_STEM: tuple[_Step, ...] = (
    _Conv("Conv2d_1a_3x3", 32, (3, 3), 2, same=False),
    _Conv("Conv2d_2a_3x3", 32, (3, 3), same=False),
    _Conv("Conv2d_2b_3x3", 64, (3, 3)),
    _SHRINK,
    _Conv("Conv2d_3b_1x1", 80),
    _Conv("Conv2d_4a_3x3", 192, (3, 3), same=False),
    _SHRINK,
)
_BLOCKS: dict[str, _Block] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": ((_Conv("branch3x3", 384, (3, 3), 2, same=False),), _double_3x3(64, 96, 2), (_SHRINK,)),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": (
        (_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, (3, 3), 2, same=False)),
        (
            _Conv("branch7x7x3_1", 192),
            _Conv("branch7x7x3_2", 192, (1, 7)),
            _Conv("branch7x7x3_3", 192, (7, 1)),
            _Conv("branch7x7x3_4", 192, (3, 3), 2, same=False),
        ),
        (_SHRINK,),
    ),
    "Mixed_7b": _block_e(_AVERAGE),
    "Mixed_7c": _block_e(_MAX),
}


def _convolutions() -> dict[str, tuple[int, ...]]:
    """Name -> (out, in, height, width) of every convolution's kernel."""
    shapes: dict[str, tuple[int, ...]] = {}

    def walk(steps: tuple[_Step, ...], prefix: str, width: int) -> int:
        for step in steps:
            if isinstance(step, _Conv):
                shapes[prefix + step.name] = (step.out, width, *step.kernel)
                width = step.out
            elif isinstance(step, tuple):
                width = sum(walk((conv,), prefix, width) for conv in step)

        return width

    width = walk(_STEM, "", 3)
    for name, branches in _BLOCKS.items():
        width = sum(walk(branch, f"{name}.", width) for branch in branches)

    return shapes


def _fold(name: str, tensors: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """Kernel and bias of a convolution with its batch normalisation, which is an affine map after training."""
    gamma, beta, mean, variance = (
        np.array(tensors[f"{name}.bn.{part}"], np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )

    scale = gamma / np.sqrt(variance + BN_EPS)
    kernel = np.array(tensors[f"{name}.conv.weight"]) * scale[:, None, None, None]

    return conv_weight(mx.array(kernel.astype(np.float32))), mx.array((beta - mean * scale).astype(np.float32))


class InceptionV3:
    """The network, up to the 2048 channel means that are the features of FID."""

    name = "inception_v3/2048"  # in statistics files

    def __init__(self, weights: Weights):
        """Build from weights with the names of pt_inception-2015-12-05.

        Raises:
            UnusableFile: if a tensor is missing or has another shape.
        """
        self._sha256 = weights.sha256

        kernels = _convolutions()
        shapes = {f"{name}.conv.weight": shape for name, shape in kernels.items()}
        for name, shape in kernels.items():
            shapes |= {f"{name}.bn.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}

        # The features do without the classes, whose number tells these weights from those of later versions.
        tensors = pick(weights, {**shapes, "fc.weight": (CLASSES, 2048)}, "InceptionV3 of 2015-12-05")
        self._kernels = {name: _fold(name, tensors) for name in kernels}
        mx.eval(self._kernels)

    @property
    def content_hash(self) -> str:
        """sha256 of the weight file."""
        return self._sha256

    @property
    def metric_name(self) -> str:
        """Name of a Frechet distance of these features: "fid" for the published weights only."""
        return "fid" if self._sha256 == INCEPTION.sha256 else "fd_inception"

    def features(self, images: Any, batch_size: int = 16) -> np.ndarray:
        """Features of (N, H, W, 3) images, uint8 or float in [-1, 1] (rounded to uint8, on which FID is defined).

        Returns:
            (N, 2048) float32.

        Raises:
            ValueError: see `pictures.check_pictures`.
        """
        return in_batches(lambda x: self._forward(mx.array(x)), as_uint8(images), batch_size=batch_size)

    def _forward(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) uint8 -> (B, 2048) features."""
        x = (resize_bilinear_tf1(x.astype(mx.float32), INPUT_SIZE) - 128) / 128  # (B, 299, 299, 3)
        x = self._chain(x, _STEM, "")
        for name, branches in _BLOCKS.items():
            x = mx.concatenate([self._chain(x, branch, f"{name}.") for branch in branches], axis=-1)

        return x.mean(axis=(1, 2))

    def _chain(self, x: mx.array, steps: tuple[_Step, ...], prefix: str) -> mx.array:
        for step in steps:
            if isinstance(step, _Conv):
                x = self._convolve(x, step, prefix)
            elif isinstance(step, tuple):
                x = mx.concatenate([self._convolve(x, conv, prefix) for conv in step], axis=-1)
            elif step == _AVERAGE:
                x = average_pool_3x3(x)
            else:
                x = max_pool(x, 3, 1, 1) if step == _MAX else max_pool(x, 3, 2)

        return x

    def _convolve(self, x: mx.array, conv: _Conv, prefix: str) -> mx.array:
        weight, bias = self._kernels[prefix + conv.name]
        padding = (conv.kernel[0] // 2, conv.kernel[1] // 2) if conv.same else (0, 0)
        return mx.maximum(mx.conv2d(x, weight, conv.stride, padding) + bias, 0)


def load_inception(path: str | Path | None = None) -> InceptionV3:
    """InceptionV3 with the weights at `path`, or with the published weights.

    Args:
        path: A weight file, or the folder of the published file; None: the folders of `published.weight_folders`.

    Raises:
        UnusableFile: if there are no weights, with the folder where they belong and where to get them.
    """
    return InceptionV3(read_weights(find_published(INCEPTION, path)))
