"""`python -m benchmarks unet`: the U-Net's forward pass against the same network in PyTorch."""

from __future__ import annotations

import argparse

import mlx.core as mx
import numpy as np

from adaptive_diffusion.models.checkpoint import load_builtin_model
from benchmarks.common import seconds


def main(argv: list[str]) -> None:
    """Time both in turns in one process; print images per second and the ratio of the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks unet", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16, help="images per forward pass")
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each")
    options = parser.parse_args(argv)

    import torch

    from benchmarks.torch_mirror import TorchMirror

    model = load_builtin_model()
    mirror = TorchMirror(model)
    rng, B, size = np.random.default_rng(0), options.batch_size, model.config.image_size
    x = rng.standard_normal((B, size, size, model.config.in_channels), dtype=np.float32)
    t, classes = rng.uniform(0, 999, B).astype(np.float32), np.ones((B, 2), np.int32)
    mlx_inputs = mx.array(x), mx.array(t), mx.array(classes)
    torch_inputs = torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(t), torch.tensor(classes)

    def in_mlx() -> np.ndarray:
        return np.array(model(*mlx_inputs))

    def in_torch() -> np.ndarray:
        with torch.inference_mode():
            return mirror(*torch_inputs).numpy().transpose(0, 2, 3, 1)

    a, b = in_mlx(), in_torch()
    print(f"largest difference between the two: {np.abs(a - b).max():.1e} (values up to {np.abs(b).max():.1f})")
    times = [(seconds(in_mlx), seconds(in_torch)) for _ in range(options.repeats)]
    ours, theirs = np.median(np.array(times), axis=0)
    print(f"MLX     {B / ours:7.0f} pictures/s  ({mx.default_device()})")
    print(f"PyTorch {B / theirs:7.0f} pictures/s  (cpu, {torch.get_num_threads()} threads)")
    print(f"MLX takes {ours / theirs:.2f} of PyTorch's time (medians of {options.repeats}, batch {B})")
