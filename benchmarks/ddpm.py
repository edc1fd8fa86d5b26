"""`python -m benchmarks ddpm`: the U-Net of google/ddpm-cifar10-32 against diffusers in PyTorch."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import mlx.core as mx
import numpy as np

from adaptive_diffusion.models.diffusers import load_diffusers
from benchmarks.common import seconds

ARCHITECTURE: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}


def main(argv: list[str]) -> None:
    """Time forward passes of both with random weights, in turns in one process; print seconds and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ddpm", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=4, help="images per forward pass")
    parser.add_argument("--repeats", type=int, default=7, help="timed passes of each")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of weights and input")
    options = parser.parse_args(argv)

    import diffusers
    import torch

    torch.manual_seed(0)
    build: Any = diffusers.UNet2DModel
    theirs = build(**ARCHITECTURE).eval()

    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours: Any = load_diffusers(folder, dtype=getattr(mx, options.precision))

    cuda = torch.cuda.is_available() and mx.default_device() == mx.gpu
    device, dtype = "cuda" if cuda else "cpu", getattr(torch, options.precision)
    theirs.to(device, dtype)
    B, size = options.batch_size, ARCHITECTURE["sample_size"]
    x = np.random.default_rng(0).standard_normal((B, size, size, 3), dtype=np.float32)
    mlx_inputs = mx.array(x).astype(getattr(mx, options.precision)), mx.full((B,), 500.0)
    mx.eval(mlx_inputs)
    torch_inputs = torch.tensor(x.transpose(0, 3, 1, 2)).to(device, dtype), torch.full((B,), 500, device=device)

    def in_mlx() -> np.ndarray:
        return np.array(ours(*mlx_inputs).astype(mx.float32))

    def in_torch() -> np.ndarray:
        with torch.inference_mode():
            return theirs(*torch_inputs).sample.float().cpu().numpy().transpose(0, 2, 3, 1)

    a, b = in_mlx(), in_torch()
    print(f"largest difference between the two: {np.abs(a - b).max():.1e} (values up to {np.abs(b).max():.1f})")
    times = np.array([(seconds(in_mlx), seconds(in_torch)) for _ in range(options.repeats)])
    ratios = times[:, 0] / times[:, 1]

    for name, column, where in (
        ("MLX", times[:, 0], str(mx.default_device())),
        ("PyTorch", times[:, 1], torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"),
    ):
        print(f"{name:<8} {np.median(column):6.3f} s a forward pass, at best {column.min():6.3f}  ({where})")

    print(
        f"MLX takes {np.median(ratios):.2f} of PyTorch's time (median of {options.repeats} turns, at best "
        f"{ratios.min():.2f}; {times[:, 0].min() / times[:, 1].min():.2f} by the fastest pass of each; batch {B})"
    )
