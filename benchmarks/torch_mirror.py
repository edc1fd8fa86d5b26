"""SimpleUNet in PyTorch, layer for layer: a reference for its speed and its output."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mlx.utils import tree_flatten
from torch import Tensor

from adaptive_diffusion.models.unet import SimpleUNet


class TorchMirror:
    """The forward pass of a `SimpleUNet`, on its weights, in PyTorch's NCHW layout.

    Args:
        model: The network to mirror.
    """

    def __init__(self, model: SimpleUNet):
        self.config = model.config
        self.weights: dict[str, Tensor] = {}
        flat: Any = tree_flatten(model.parameters())

        for name, value in flat:
            array = np.array(value)
            if array.ndim == 4:  # (O, kH, kW, I) -> (O, I, kH, kW)
                array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))

            self.weights[name] = torch.from_numpy(array)

    def __call__(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """(B, C, H, W) images, (B,) timesteps, (B, K) class ids -> (B, C, H, W) prediction."""
        c, levels = self.config, len(self.config.widths)
        embedding = self._embed(t, classes)
        h = self._conv("stem", self._fold(x, c.patch_size))

        skips = []
        for i in range(levels):
            if i:
                skips.append(h)
                h = self._pixelwise(f"downsample.{i - 1}", self._fold(h, 2))

            h = self._stage(f"down.{i}", h, embedding, i)

        for i in reversed(range(levels - 1)):
            h = torch.cat([self._unfold(self._pixelwise(f"upsample.{i}", h), 2), skips.pop()], dim=1)
            h = self._stage(f"up.{i}", self._pixelwise(f"merge.{i}", h), embedding, i)
        return self._unfold(self._conv("head", F.relu(self._norm("norm", h))), c.patch_size)

    def _embed(self, t: Tensor, classes: Tensor) -> Tensor:
        half = self.config.widths[0]
        frequencies = torch.exp(-np.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
        angles = t[:, None] * frequencies
        h = torch.cat([angles.cos(), angles.sin()], dim=1)
        h = self._linear("time_embedding.1", F.relu(self._linear("time_embedding.0", h)))

        for k in range(classes.shape[1]):
            h = h + self.weights[f"class_embedding.{k}.weight"][classes[:, k]]
        return F.relu(h)

    def _stage(self, name: str, h: Tensor, embedding: Tensor, level: int) -> Tensor:
        for j in range(self.config.blocks[level]):
            block = f"{name}.blocks.{j}"
            scale, shift = self._linear(f"{block}.modulation", embedding)[:, :, None, None].chunk(2, dim=1)
            r = F.relu(self._norm(f"{block}.norm", h) * (1 + scale) + shift)
            h = h + self._conv(f"{block}.conv2", F.relu(self._conv(f"{block}.conv1", r)))

            if level in self.config.attention_levels:
                h = self._attention(f"{name}.attention.{j}", h)
        return h

    def _attention(self, name: str, h: Tensor) -> Tensor:
        B, C, H, W = h.shape
        qkv = self._pixelwise(f"{name}.qkv", self._norm(f"{name}.norm", h), bias=False)
        q, k, v = qkv.reshape(B, 3, -1, self.config.head_dim, H * W).transpose(3, 4).unbind(1)
        a = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(B, C, H, W)
        return h + self._pixelwise(f"{name}.out", a)

    def _conv(self, name: str, h: Tensor) -> Tensor:
        return F.conv2d(h, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], padding=1)

    def _pixelwise(self, name: str, h: Tensor, bias: bool = True) -> Tensor:
        """A linear layer over the channels of each pixel, as a 1x1 convolution."""
        weight = self.weights[f"{name}.weight"][:, :, None, None]
        return F.conv2d(h, weight, self.weights[f"{name}.bias"] if bias else None)

    def _linear(self, name: str, h: Tensor) -> Tensor:
        return F.linear(h, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, h: Tensor) -> Tensor:
        scale = (h.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
        return h * scale * self.weights[f"{name}.weight"][:, None, None]

    @staticmethod
    def _fold(h: Tensor, p: int) -> Tensor:
        B, C, H, W = h.shape
        return h.reshape(B, C, H // p, p, W // p, p).permute(0, 3, 5, 1, 2, 4).reshape(B, p * p * C, H // p, W // p)

    @staticmethod
    def _unfold(h: Tensor, p: int) -> Tensor:
        B, C, H, W = h.shape
        return h.reshape(B, p, p, C // p**2, H, W).permute(0, 3, 4, 1, 5, 2).reshape(B, C // p**2, H * p, W * p)
