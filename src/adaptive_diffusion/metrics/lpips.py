"""LPIPS, the perceptual distance of two images (Zhang et al., 2018), version 0.1, in MLX."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_choice
from .features import in_batches
from .layers import max_pool
from .pictures import as_float
from .published import LPIPS_HEADS, LPIPS_TRUNKS, find_published
from .weights import Weights, conv_weight, pick, read_weights

Trunk = Literal["alex", "vgg"]

NORM_EPS = 1e-10  # added to the norm, not under its root
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # [-1, 1] -> the trunks' input
_PIXELS = 1 << 18  # of a default batch, which bounds the memory of the first layers


@dataclass(frozen=True)
class _Conv:
    """A convolution with ReLU; `index` is its index in torchvision's `features`."""

    index: int
    out: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class _Architecture:
    """A trunk of five stages; a max pool `pool` (size, stride) precedes the stages in `pooled`."""

    stages: tuple[tuple[_Conv, ...], ...]
    pool: tuple[int, int]
    pooled: tuple[int, ...]
    smallest: int  # smallest side of an image, pixels; the last stage then has one pixel


_ARCHITECTURES: dict[str, _Architecture] = {
    "alex": _Architecture(
        (
            (_Conv(0, 64, 11, 4, 2),),
            (_Conv(3, 192, 5, 1, 2),),
            (_Conv(6, 384),),
            (_Conv(8, 256),),
            (_Conv(10, 256),),
        ),
        pool=(3, 2),
        pooled=(1, 2),
        smallest=31,
    ),
    "vgg": _Architecture(
        (
            (_Conv(0, 64), _Conv(2, 64)),
            (_Conv(5, 128), _Conv(7, 128)),
            (_Conv(10, 256), _Conv(12, 256), _Conv(14, 256)),
            (_Conv(17, 512), _Conv(19, 512), _Conv(21, 512)),
            (_Conv(24, 512), _Conv(26, 512), _Conv(28, 512)),
        ),
        pool=(2, 2),
        pooled=(1, 2, 3, 4),
        smallest=16,
    ),
}


class LPIPS:
    """The network of LPIPS.

    The distance is the weighted squared difference of features of length 1, averaged over pixels and added over five
    stages.
    """

    def __init__(self, trunk: Trunk, trunk_weights: Weights, head_weights: Weights):
        """Build from a torchvision state file and the linear heads.

        Args:
            trunk: "alex" (the authors' choice for evaluation) or "vgg".
            trunk_weights: Tensors "features.0.weight", ... of AlexNet or VGG-16.
            head_weights: Tensors "lin0.model.1.weight", ... of LPIPS 0.1.

        Raises:
            ValueError: for another trunk.
            UnusableFile: if a tensor is missing or has another shape.
        """
        check_choice("trunk", trunk, [*_ARCHITECTURES])

        self.trunk = trunk
        self._architecture = _ARCHITECTURES[trunk]

        shapes: dict[str, tuple[int, ...]] = {}
        heads: dict[str, tuple[int, ...]] = {}
        width = 3
        for depth, stage in enumerate(self._architecture.stages):
            for conv in stage:
                shapes[f"features.{conv.index}.weight"] = (conv.out, width, conv.kernel, conv.kernel)
                shapes[f"features.{conv.index}.bias"] = (conv.out,)
                width = conv.out
            heads[f"lin{depth}.model.1.weight"] = (1, width, 1, 1)

        tensors = pick(trunk_weights, shapes, f"the trunk {trunk!r} of LPIPS")
        self._kernels = {
            conv.index: (
                conv_weight(tensors[f"features.{conv.index}.weight"]),
                tensors[f"features.{conv.index}.bias"],
            )
            for stage in self._architecture.stages
            for conv in stage
        }

        head_tensors = pick(head_weights, heads, f"the heads of LPIPS for {trunk!r}")
        self._heads = [head_tensors[name].reshape(-1) for name in heads]  # (C,) each
        self._hashes = trunk_weights.sha256, head_weights.sha256
        mx.eval(self._kernels, self._heads)

    @property
    def name(self) -> str:
        """Name in reports, "lpips/alex" or "lpips/vgg"."""
        return f"lpips/{self.trunk}"

    @property
    def content_hash(self) -> str:
        """sha256 over the hashes of both weight files."""
        return hashlib.sha256("".join(self._hashes).encode()).hexdigest()

    @property
    def metric_name(self) -> str:
        """Name of the distance: "lpips" for the published files only, else "perceptual_distance"."""
        standard = self._hashes == (LPIPS_TRUNKS[self.trunk].sha256, LPIPS_HEADS[self.trunk].sha256)
        return "lpips" if standard else "perceptual_distance"

    def distances(self, a: Any, b: Any, batch_size: int | None = None) -> np.ndarray:
        """Perceptual distance of each pair of images (a[i], b[i]).

        Args:
            a: (N, H, W, 3), uint8 or float in [-1, 1].
            b: As `a`. The distance depends on the size of the images, so only distances at one size can be compared.
            batch_size: Pairs per evaluation; default: about 2**18 pixels, at most 64 pairs.

        Returns:
            (N,) float32, >= 0.

        Raises:
            ValueError: for unfit images (see `pictures.check_pictures`), if the shapes differ, or for images below the
                smallest size of the trunk.
        """
        x, y = as_float(a), as_float(b)
        if x.shape != y.shape:
            raise ValueError(f"both must be the same number of images of the same size, got {x.shape} and {y.shape}")

        side = min(x.shape[1:3])
        if side < self._architecture.smallest:
            raise ValueError(
                f"LPIPS with trunk {self.trunk!r} needs images of at least {self._architecture.smallest} pixels a "
                f"side, got {side}"
            )

        size = batch_size or max(1, min(64, _PIXELS // (x.shape[1] * x.shape[2])))
        return in_batches(lambda p, q: self._distance(mx.array(p), mx.array(q)), x, y, batch_size=size)

    def _distance(self, a: mx.array, b: mx.array) -> mx.array:
        """(B, H, W, 3) twice -> (B,) distances."""
        # One pass of the trunk for both images.
        n = len(a)
        x = (mx.concatenate([a, b]) - mx.array(_SHIFT)) / mx.array(_SCALE)

        total = mx.zeros(n)
        for depth, (stage, head) in enumerate(zip(self._architecture.stages, self._heads, strict=True)):
            if depth in self._architecture.pooled:
                x = max_pool(x, *self._architecture.pool)

            for conv in stage:
                weight, bias = self._kernels[conv.index]
                x = mx.maximum(mx.conv2d(x, weight, conv.stride, conv.padding) + bias, 0)

            # (2B, h, w, C) features of length 1 -> (B,) weighted squared difference.
            unit = x / (mx.sqrt((x * x).sum(axis=-1, keepdims=True)) + NORM_EPS)
            difference = mx.square(unit[:n] - unit[n:])
            total = total + (difference @ head).mean(axis=(1, 2))

        return total


def load_lpips(
    trunk: Trunk = "alex", trunk_path: str | Path | None = None, heads_path: str | Path | None = None
) -> LPIPS:
    """LPIPS with given weight files, or with the published files.

    Args:
        trunk: "alex" or "vgg".
        trunk_path: torchvision's state file of AlexNet or VGG-16, or its folder; None: the folders of
            `published.weight_folders`.
        heads_path: File of the linear heads of LPIPS 0.1, or its folder; None: likewise.

    Raises:
        ValueError: for another trunk.
        UnusableFile: if a file is missing, with the folder where it belongs and where to get it, or does not fit.
    """
    check_choice("trunk", trunk, [*_ARCHITECTURES])
    return LPIPS(
        trunk,
        read_weights(find_published(LPIPS_TRUNKS[trunk], trunk_path)),
        read_weights(find_published(LPIPS_HEADS[trunk], heads_path)),
    )
