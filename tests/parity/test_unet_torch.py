"""SimpleUNet against its PyTorch mirror: two implementations, one function."""

import mlx.core as mx
import numpy as np
import torch
from mlx.utils import tree_map

from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from benchmarks.torch_mirror import TorchMirror


def test_both_compute_the_same_prediction() -> None:
    mx.random.seed(0)
    config = UNetConfig(
        image_size=16, widths=(16, 32), blocks=(1, 2), attention_levels=(1,), head_dim=16, num_classes=(2, 3)
    )
    model = SimpleUNet(config)
    model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), model.parameters()))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 16, 16, 3), dtype=np.float32)
    t, classes = np.array([3.0, 700.0], np.float32), np.array([[1, 2], [2, 0]])
    ours = np.array(model(mx.array(x), mx.array(t), mx.array(classes)))
    mirror = TorchMirror(model)
    theirs = mirror(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(t), torch.tensor(classes))
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5 * np.abs(ours).max())
