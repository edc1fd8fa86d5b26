"""SimpleUNet: shapes, conditioning that matters, and the refusal of impossible architectures."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig, timestep_embedding

TINY = {"image_size": 16, "widths": (8, 16), "blocks": (1, 1), "attention_levels": (1,), "head_dim": 8}


@pytest.fixture
def model() -> SimpleUNet:
    """A tiny network whose zero-initialised layers were given values, so that every path matters."""
    mx.random.seed(0)
    net = SimpleUNet(UNetConfig(**TINY, embedding_dim=16, num_classes=(2, 3)))
    net.update(tree_map(lambda p: p + 0.1 * mx.random.normal(p.shape), net.parameters()))
    return net


def difference(a: mx.array, b: mx.array) -> float:
    return float(mx.abs(a - b).max())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_output_has_the_shape_of_the_input(channels: int) -> None:
    net = SimpleUNet(UNetConfig(**TINY, in_channels=channels))
    x = mx.zeros((2, 16, 16, channels))
    assert net(x, mx.array([0.0, 999.0])).shape == x.shape


def test_an_untrained_network_predicts_zero() -> None:
    net = SimpleUNet(UNetConfig(**TINY))
    assert difference(net(mx.random.normal((1, 16, 16, 3)), mx.array(5.0)), mx.zeros((1, 16, 16, 3))) == 0


def test_time_and_every_class_vocabulary_change_the_prediction(model: SimpleUNet) -> None:
    x, t = mx.random.normal((1, 16, 16, 3), key=mx.random.key(1)), mx.array([10.0])
    base = model(x, t, mx.array([[1, 1]]))
    assert difference(base, model(x, mx.array([500.0]), mx.array([[1, 1]]))) > 1e-3
    assert difference(base, model(x, t, mx.array([[2, 1]]))) > 1e-3
    assert difference(base, model(x, t, mx.array([[1, 2]]))) > 1e-3


def test_no_classes_means_the_null_class(model: SimpleUNet) -> None:
    x, t = mx.random.normal((2, 16, 16, 3)), mx.array([10.0, 20.0])
    assert difference(model(x, t), model(x, t, mx.zeros((2, 2), dtype=mx.int32))) < 1e-6


def test_a_picture_does_not_depend_on_its_batch(model: SimpleUNet) -> None:
    x, t = mx.random.normal((3, 16, 16, 3)), mx.array([10.0, 200.0, 900.0])
    whole = model(x, t)
    alone = mx.concatenate([model(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    assert difference(whole, alone) < 1e-5


def test_timestep_embedding_is_cosines_and_sines_of_a_geometric_frequency_ladder() -> None:
    t = np.array([0.0, 3.5, 999.0])
    frequencies = 10_000.0 ** (-np.arange(4) / 4)
    expected = np.concatenate([np.cos(t[:, None] * frequencies), np.sin(t[:, None] * frequencies)], axis=1)
    np.testing.assert_allclose(np.array(timestep_embedding(mx.array(t), 8)), expected, atol=2e-4)


def test_guidance_extrapolates_from_the_null_prediction(model: SimpleUNet) -> None:
    x, t, c = mx.random.normal((2, 16, 16, 3)), mx.array([10.0, 20.0]), mx.array([[1, 2], [2, 0]])
    null, conditional = model(x, t), model(x, t, c)
    assert difference(GuidedModel(model, guidance_scale=2.5)(x, t, c), null + 2.5 * (conditional - null)) < 1e-5
    assert difference(GuidedModel(model, guidance_scale=1.0)(x, t, c), conditional) < 1e-6
    assert difference(GuidedModel(model, guidance_scale=0.0)(x, t, c), null) < 1e-5


@pytest.mark.parametrize("scale", [-1.0, 1e4, float("nan"), float("inf")])
def test_an_impossible_guidance_scale_is_refused(model: SimpleUNet, scale: float) -> None:
    with pytest.raises(ValueError, match="guidance_scale must be a "):
        GuidedModel(model, guidance_scale=scale)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 18}, "multiple of 4"),
        ({"blocks": (1,)}, "one count for each of 2 levels"),
        ({"attention_levels": (2,)}, "must lie in 0..1"),
        ({"head_dim": 5}, "must divide the widths"),
        ({"head_dim": 0}, "head_dim must be"),
        ({"patch_size": 0}, "patch_size must be"),
        ({"in_channels": -1}, "in_channels must be"),
        ({"widths": ()}, "widths must name at least one"),
        ({"widths": (8.5, 16)}, "each of widths must be a whole number, at least 1, got 8.5"),
        ({"widths": ("a", 16)}, "each of widths must be a whole number"),
        ({"widths": 8}, "widths must be a list of whole numbers, got 8"),
        ({"attention_levels": (-1,)}, "each of attention_levels must be"),
        ({"num_classes": (2, 2.5)}, "each of num_classes must be"),
    ],
)
def test_an_impossible_architecture_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetConfig(**{**TINY, **change})
