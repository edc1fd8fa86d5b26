"""Both U-Nets against diffusers, and what the tolerance would catch.

The tolerance is a few times float32 rounding, far below what the usual mistakes of a port cost; the second half of the
file makes those mistakes on purpose.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import mlx.core as mx
import numpy as np
import pytest
import torch
from diffusers_reference import (
    flip_padding,
    inference,
    modules,
    nchw,
    nhwc,
    normal,
    perturbed,
    quiet,
    relative_error,
    set_eps,
    swap_rows,
    transpose_kernels,
)
from mlx import nn

from adaptive_diffusion.models.diffusers import attention, blocks, load_diffusers

TOLERANCE = 5e-6
TIMESTEPS = np.array([3.0, 977.0], np.float32)

DDPM: dict[str, Any] = {  # the options of google/ddpm-cifar10-32, smaller
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
}
DEFAULTS: dict[str, Any] = {  # what UNet2DModel() would be, smaller
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}
ADM: dict[str, Any] = {  # converted guided-diffusion models
    **DEFAULTS,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "resnet_time_scale_shift": "scale_shift",
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "num_class_embeds": 7,
}
UNET_2D: dict[str, dict[str, Any]] = {
    "ddpm": DDPM,
    "defaults": DEFAULTS,
    "scale_shift": {**DDPM, "resnet_time_scale_shift": "scale_shift"},
    "scale_shift_attention_norm": {**DEFAULTS, "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "no_middle_attention": {**DDPM, "add_attention": False},
    "no_middle": {**DEFAULTS, "mid_block_type": None},
    "middle_scale": {**DEFAULTS, "mid_block_scale_factor": 2.0},
    "adm": ADM,
    "classes": {**DEFAULTS, "num_class_embeds": 7},
    "center_input": {**DEFAULTS, "center_input_sample": True, "time_embedding_dim": 24},
    "three_levels": {
        **DEFAULTS,
        "block_out_channels": (16, 24, 32),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"),
        "layers_per_block": 1,
        "downsample_type": "resnet",
    },
}

SD15: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
SD21 = {**SD15, "attention_head_dim": (2, 4), "use_linear_projection": True, "upcast_attention": True}
SDXL: dict[str, Any] = {
    **SD21,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}
UNET_CONDITION: dict[str, dict[str, Any]] = {
    "sd15": SD15,
    "sd21": SD21,
    "sdxl": SDXL,
    "no_middle": {**SD15, "mid_block_type": None, "layers_per_block": (1, 2), "conv_in_kernel": 5},
    "plain_middle": {**SD15, "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 2.0},
    "uneven_depth": {
        **SD21,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "layers_per_block": 1,
        "transformer_layers_per_block": ([1], [2]),
        "reverse_transformer_layers_per_block": ([2, 1], [1, 2]),
        "resnet_time_scale_shift": "scale_shift",
    },
}


class Case:
    """One model of the reference on disk, an input, and the reference's answer."""

    def __init__(self, model: Any, folder: Path):
        self.folder = folder
        model.save_pretrained(folder)
        self.x = normal(2, 8, 12, model.config.in_channels)
        self.conditions: dict[str, np.ndarray] = {}
        added = {}

        if model.config.num_class_embeds:
            self.conditions["class_labels"] = np.array([6, 2])

        if isinstance(model, diffusers.UNet2DConditionModel):
            self.conditions["encoder_hidden_states"] = normal(2, 5, 24, seed=1)
            if model.config.addition_embed_type:
                added = {
                    "text_embeds": normal(2, 16, seed=2),
                    "time_ids": np.array([[512, 640, 0, 16, 512, 512], [64, 48, 3, 0, 128, 1024]], np.float32),
                }

        theirs = {name: torch.tensor(value) for name, value in self.conditions.items()}
        if added:
            theirs["added_cond_kwargs"] = {name: torch.tensor(value) for name, value in added.items()}

        with inference():
            self.answer = nhwc(model(nchw(self.x), torch.tensor(TIMESTEPS), **theirs).sample)

        self.conditions |= added

    def error(self, mutate: Callable[[Any], Any] = lambda model: None) -> float:
        """How far our network, after a mutation, is from the reference."""
        model = load_diffusers(self.folder)
        mutate(model)
        conditions = {name: mx.array(value) for name, value in self.conditions.items()}
        return relative_error(model(mx.array(self.x), mx.array(TIMESTEPS), **conditions), self.answer)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """Cases by class and name, made once."""

    @functools.cache
    def make(kind: str, name: str, change: Callable[[Any], Any] = lambda model: model) -> Case:
        options = (UNET_2D if kind == "UNet2DModel" else UNET_CONDITION)[name]
        model = change(perturbed(lambda: getattr(diffusers, kind)(**options)))
        return Case(model, tmp_path_factory.mktemp(name))

    return make


@pytest.mark.parametrize("name", UNET_2D)
def test_unet_2d_computes_what_diffusers_computes(name: str, case: Callable[..., Case]) -> None:
    assert case("UNet2DModel", name).error() <= TOLERANCE


@pytest.mark.parametrize("name", UNET_CONDITION)
def test_unet_2d_condition_computes_what_diffusers_computes(name: str, case: Callable[..., Case]) -> None:
    assert case("UNet2DConditionModel", name).error() <= TOLERANCE


@pytest.mark.parametrize(("kind", "name"), [("UNet2DModel", "ddpm"), ("UNet2DConditionModel", "sd15")])
def test_small_activations_keep_the_tolerance(kind: str, name: str, case: Callable[..., Case]) -> None:
    assert case(kind, name, quiet).error() <= TOLERANCE


# What a port gets wrong, and the least that it must cost: ten times the tolerance, or more where it is plain.


def configured(**options: Any) -> Callable[[Any], None]:
    """A network that reads other options than it was built from."""

    def mutate(model: Any) -> None:
        model._config = dataclasses.replace(model.config, **options)

    return mutate


def wrong_eps(model: Any) -> None:
    set_eps(model, 1e-5)


def wrong_transformer_eps(model: Any) -> None:
    for module in modules(model, attention.Transformer2DModel):
        module.norm.eps = 1e-5


def wrong_layer_norm_eps(model: Any) -> None:
    for module in modules(model, nn.LayerNorm):
        module.eps = 1e-6


def grouped_like_mlx(model: Any) -> None:
    for module in modules(model, nn.GroupNorm):
        module.pytorch_compatible = False


def heads_as_channels(model: Any) -> None:
    """Take the number of heads for the channels of one."""
    for module in modules(model, attention.AttentionBlock) if hasattr(model, "_attention") else []:
        module.heads = 4 if module.heads == 1 else module.to_q.weight.shape[0] // module.heads
    for module in modules(model, attention.CrossAttention) if hasattr(model, "_transformer") else []:
        module.heads = module.to_q.weight.shape[0] // module.heads * 2


def queries_as_keys(model: Any) -> None:
    for module in modules(model, attention.AttentionBlock):
        module.to_q, module.to_k = module.to_k, module.to_q


def gate_as_value(model: Any) -> None:
    for module in modules(model, attention.GEGLU):
        swap_rows(module.proj)


def shift_as_scale(model: Any) -> None:
    for module in modules(model, nn.Module):
        if "time_emb_proj" in module:
            swap_rows(module.time_emb_proj)


def normalised_middle(model: Any) -> None:
    model.mid_block.attentions[0].group_norm = nn.GroupNorm(8, 32, pytorch_compatible=True)


def unscaled_middle(model: Any) -> None:
    for module in [*model.mid_block.resnets, *model.mid_block.attentions]:
        module.scale_factor = 1


def sizes_before_text(model: Any) -> None:
    """Embed the six numbers first and the pooled text after them."""
    layer = model.add_embedding.linear_1
    layer.weight = mx.concatenate([layer.weight[:, -48:], layer.weight[:, :-48]], axis=1)


def skips_in_order(model: Any) -> None:
    """Feed the two skip connections of the coarsest level in the order in which they arose."""

    class InOrder(blocks.UpBlock):
        def __call__(self, x: Any, skips: Any, *rest: Any) -> Any:
            skips[-1], skips[-2] = skips[-2], skips[-1]
            return super().__call__(x, skips, *rest)

    first = model.up_blocks[0]
    model.up_blocks[0] = InOrder(first.resnets, first.attentions, first.upsamplers[0])


def no_time(model: Any) -> None:
    for module in (model.time_embedding.linear_1, model.time_embedding.linear_2):
        module.weight = mx.zeros_like(module.weight)


MUTATIONS_2D = [
    ("ddpm", quiet, wrong_eps, 1e-1),
    ("ddpm", None, wrong_eps, 2e-5),
    ("ddpm", None, grouped_like_mlx, 1e-1),
    ("ddpm", None, heads_as_channels, 1e-3),
    ("defaults", None, heads_as_channels, 1e-3),
    ("ddpm", None, queries_as_keys, 1e-3),
    ("ddpm", None, configured(freq_shift=0), 1e-3),
    ("ddpm", None, configured(flip_sin_to_cos=True), 1e-3),
    ("ddpm", None, flip_padding, 1e-2),
    ("defaults", None, flip_padding, 1e-2),
    ("ddpm", None, transpose_kernels, 1e-1),
    ("ddpm", None, skips_in_order, 1e-2),
    ("ddpm", None, no_time, 1e-2),
    ("scale_shift", None, shift_as_scale, 1e-2),
    ("scale_shift", None, normalised_middle, 1e-3),
    ("middle_scale", None, unscaled_middle, 1e-2),
    ("center_input", None, configured(center_input_sample=False), 1e-2),
]
MUTATIONS_CONDITION = [
    ("sd15", quiet, wrong_transformer_eps, 1e-3),
    ("sd15", quiet, wrong_layer_norm_eps, 1e-3),
    ("sd15", None, heads_as_channels, 1e-3),
    ("sd21", None, heads_as_channels, 1e-3),
    ("sd15", None, gate_as_value, 1e-3),
    ("sd15", None, configured(flip_sin_to_cos=False), 1e-3),
    ("sdxl", None, sizes_before_text, 1e-3),
]


def identify(value: Any) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("name", "change", "mutate", "least"), MUTATIONS_2D, ids=identify)
def test_the_tolerance_catches_a_wrong_unet_2d(
    name: str, change: Any, mutate: Any, least: float, case: Callable[..., Case]
) -> None:
    wrong = case("UNet2DModel", name, *([change] if change else [])).error(mutate)
    assert wrong > least


@pytest.mark.parametrize(("name", "change", "mutate", "least"), MUTATIONS_CONDITION, ids=identify)
def test_the_tolerance_catches_a_wrong_unet_2d_condition(
    name: str, change: Any, mutate: Any, least: float, case: Callable[..., Case]
) -> None:
    wrong = case("UNet2DConditionModel", name, *([change] if change else [])).error(mutate)
    assert wrong > least


@pytest.mark.parametrize("approximation", [nn.gelu_approx, nn.gelu_fast_approx], ids=["tanh", "sigmoid"])
def test_the_tolerance_catches_an_approximate_gelu(
    approximation: Any, case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention.nn, "gelu", approximation)
    assert case("UNet2DConditionModel", "sd15").error() > 2 * TOLERANCE


# What callers rely on.


def test_a_prediction_does_not_depend_on_the_batch(case: Callable[..., Case]) -> None:
    sd, model = case("UNet2DConditionModel", "sd15"), load_diffusers(case("UNet2DConditionModel", "sd15").folder)
    context = mx.array(sd.conditions["encoder_hidden_states"])
    alone = model(mx.array(sd.x[1:]), 977, context[1:])
    assert relative_error(alone, sd.answer[1:]) <= TOLERANCE


def test_the_prediction_has_the_type_of_the_input(case: Callable[..., Case]) -> None:
    ddpm = case("UNet2DModel", "ddpm")
    half = load_diffusers(ddpm.folder, dtype=mx.float16)
    assert half.dtype == mx.float16
    prediction = half(mx.array(ddpm.x), mx.array(TIMESTEPS))
    assert prediction.dtype == mx.float32
    assert relative_error(prediction, ddpm.answer) < 1e-2


def test_upcast_attention_survives_float16(case: Callable[..., Case]) -> None:
    """Scores beyond 65504, the largest float16, which Stable Diffusion 2.1 produces."""
    sd = case("UNet2DConditionModel", "sd21")
    model = load_diffusers(sd.folder, dtype=mx.float16)
    for module in modules(model, attention.CrossAttention):
        module.to_q.weight, module.to_k.weight = 300 * module.to_q.weight, 300 * module.to_k.weight

    context = mx.array(sd.conditions["encoder_hidden_states"])
    assert mx.isfinite(model(mx.array(sd.x), mx.array(TIMESTEPS), context)).all()


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "sentence"),
    [
        ("UNet2DModel", "ddpm", {"x": normal(1, 9, 8, 3)}, "multiples of 2"),
        ("UNet2DModel", "ddpm", {"x": normal(1, 8, 8, 4)}, r"\(B, H, W, 3\)"),
        ("UNet2DModel", "ddpm", {"x": normal(1, 8, 8, 3), "class_labels": np.array([1])}, "not class-conditional"),
        ("UNet2DModel", "classes", {"x": normal(1, 8, 8, 3)}, r"integers in \[0, 6\]"),
        ("UNet2DConditionModel", "sd15", {"x": normal(1, 8, 8, 4)}, "encoder_hidden_states must have shape"),
        (
            "UNet2DConditionModel",
            "sd15",
            {"x": normal(1, 8, 8, 4), "encoder_hidden_states": normal(1, 5, 32)},
            r"\(1, M, 24\), got \(1, 5, 32\)",
        ),
        (
            "UNet2DConditionModel",
            "sdxl",
            {"x": normal(1, 8, 8, 4), "encoder_hidden_states": normal(1, 5, 24)},
            "needs text_embeds",
        ),
        (
            "UNet2DConditionModel",
            "sdxl",
            {
                "x": normal(1, 8, 8, 4),
                "encoder_hidden_states": normal(1, 5, 24),
                "text_embeds": normal(1, 15),
                "time_ids": normal(1, 6),
            },
            "add up to 64, got 63",
        ),
    ],
)
def test_a_wrong_input_is_refused_in_one_sentence(
    kind: str, name: str, arguments: dict[str, np.ndarray], sentence: str, case: Callable[..., Case]
) -> None:
    model = load_diffusers(case(kind, name).folder)
    with pytest.raises(ValueError, match=sentence):
        model(t=5, **{key: mx.array(value) for key, value in arguments.items()})
