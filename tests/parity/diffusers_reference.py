"""Tiny random models of diffusers and transformers, and how far ours are from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx import nn

from adaptive_diffusion.models.diffusers import load_diffusers
from adaptive_diffusion.models.diffusers.layers import Downsample2D


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Without gradients and in one thread: models this small only lose by a second one, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def perturbed(build: Callable[[], Any]) -> Any:
    """The model that `build` makes, seed 0, with its one-dimensional parameters moved off 0 and 1.

    Left at 0 and 1, as they are initialised, swapped biases and norms would go unnoticed.
    """
    with inference():
        torch.manual_seed(0)
        model = build().eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)

    return model


def quiet(model: Any) -> Any:
    """The same model with small numbers between its blocks, where a wrong epsilon of a norm shows."""
    ends = (".conv2", ".proj_in", ".to_out.0", ".net.2", ".conv_in")
    with inference():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and f".{name}".endswith(ends):
                module.weight *= 1e-3
                module.bias *= 1e-3
            elif isinstance(module, torch.nn.Conv2d):
                module.bias *= 1e-3

    return model


def saved_and_loaded(model: Any, folder: Path, **options: Any) -> Any:
    """Our network, through the files that the reference writes."""
    model.save_pretrained(folder)
    return load_diffusers(folder, **options)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
    """(B, H, W, C) numpy -> (B, C, H, W) torch."""
    return torch.tensor(x.transpose(0, 3, 1, 2))


def nhwc(x: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) torch -> (B, H, W, C) numpy."""
    return x.detach().numpy().transpose(0, 2, 3, 1)


def relative_error(ours: mx.array, theirs: np.ndarray) -> float:
    """Largest difference over the largest value."""
    got = np.array(ours.astype(mx.float32))
    assert got.shape == theirs.shape
    return float(np.abs(got - theirs).max() / np.abs(theirs).max())


def modules(model: nn.Module, kind: type) -> list[Any]:
    """All modules of one class; there is at least one."""
    found = [module for module in model.modules() if isinstance(module, kind)]
    assert found
    return found


def set_eps(model: nn.Module, eps: float, where: Callable[[nn.GroupNorm], bool] = lambda norm: True) -> None:
    """Another epsilon for the GroupNorms that are picked."""
    picked = [norm for norm in modules(model, nn.GroupNorm) if where(norm)]
    assert picked
    for norm in picked:
        norm.eps = eps


def swap_rows(layer: Any) -> None:
    """Exchange the two halves of the outputs of a layer."""
    half = layer.weight.shape[0] // 2
    layer.weight = mx.concatenate([layer.weight[half:], layer.weight[:half]])
    layer.bias = mx.concatenate([layer.bias[half:], layer.bias[:half]])


def flip_padding(model: nn.Module) -> None:
    """Pad the strided convolutions the other way."""
    for layer in modules(model, Downsample2D):
        layer.conv.padding = (1, 1) if layer.conv.padding == (0, 0) else (0, 0)


def transpose_kernels(model: nn.Module) -> None:
    """Exchange height and width of all kernels."""
    for layer in modules(model, nn.Conv2d):
        layer.weight = layer.weight.transpose(0, 2, 1, 3)
