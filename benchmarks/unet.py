"""`python -m benchmarks unet`: the U-Net against the same network in PyTorch, forward pass and gradient."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from adaptive_diffusion.diffusion.compiled import compiled
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.models.unet import SimpleUNet
from benchmarks.common import seconds

ACTIONS = ("forward pass", "loss and gradient")


def main(argv: list[str]) -> None:
    """Time both in turns, each in processes of its own; print images per second and the ratio of the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks unet", description=__doc__)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[16, 32], help="images per batch")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each in a process")
    parser.add_argument("--turns", type=int, default=2, help="processes of each, alternating")
    parser.add_argument("--measure", choices=("mlx", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure is not None:
        measure = in_mlx if options.measure == "mlx" else in_torch
        print(json.dumps([measure(B, options.repeats) for B in options.batch_size]))
        return

    given = [*map(str, options.batch_size)], str(options.repeats)
    command = [sys.executable, "-m", "benchmarks", "unet", "--batch-size", *given[0], "--repeats", given[1]]
    found: dict[str, list[Any]] = {"mlx": [], "torch": []}
    for _ in range(options.turns):
        for name, times in found.items():
            done = subprocess.run([*command, "--measure", name], check=True, capture_output=True, text=True)
            times.append(json.loads(done.stdout.splitlines()[-1]))

    # (turns, batch sizes, actions, repeats) -> medians over turns and repeats
    ours, theirs = (np.median(np.array(times), axis=(0, 3)) for times in found.values())
    for i, B in enumerate(options.batch_size):
        for j, action in enumerate(ACTIONS):
            a, b = ours[i, j], theirs[i, j]
            print(
                f"batch {B:3d}, {action:17s}  MLX {a * 1e3:6.1f} ms, {B / a:5.0f} images/s  "
                f"PyTorch {b * 1e3:6.1f} ms, {B / b:5.0f} images/s  ratio {a / b:.2f}"
            )


def in_mlx(B: int, repeats: int) -> list[list[float]]:
    """Seconds of each action in MLX, `repeats` of each."""
    model = load_builtin_model()
    x, t, classes = (mx.array(given) for given in _inputs(B, model.config.image_size))
    predict = compiled(model)
    trained = SimpleUNet(model.config)  # in training mode
    trained.update(model.parameters())
    gradient = nn.value_and_grad(trained, lambda: trained(x, t, classes).square().mean())
    return _times(lambda: mx.eval(predict(x, t, classes)), lambda: mx.eval(gradient()), repeats=repeats)


def in_torch(B: int, repeats: int) -> list[list[float]]:
    """Seconds of each action in PyTorch, `repeats` of each."""
    import torch

    from benchmarks.torch_mirror import TorchMirror

    model = load_builtin_model()
    mirror = TorchMirror(model)
    x, t, classes = (torch.tensor(given) for given in _inputs(B, model.config.image_size))
    x = x.permute(0, 3, 1, 2).contiguous()

    def forward() -> None:
        with torch.inference_mode():
            mirror(x, t, classes)

    for weight in mirror.weights.values():
        weight.requires_grad_()

    def gradient() -> None:
        torch.autograd.grad(mirror(x, t, classes).square().mean(), list(mirror.weights.values()))

    return _times(forward, gradient, repeats=repeats)


def _inputs(B: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, size, size, 3), dtype=np.float32)
    return x, rng.uniform(0, 999, B).astype(np.float32), np.ones((B, 2), np.int32)


def _times(*actions: Any, repeats: int) -> list[list[float]]:
    """Seconds of each call of each action, after two that do not count."""
    return [[seconds(action) for _ in range(repeats + 2)][2:] for action in actions]
