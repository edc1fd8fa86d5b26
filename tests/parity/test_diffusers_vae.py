"""The autoencoder against diffusers, both directions, and what the tolerance would catch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from diffusers import AutoencoderKL
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
    saved_and_loaded,
    set_eps,
    swap_rows,
    transpose_kernels,
)
from mlx import nn

from adaptive_diffusion.models.diffusers import load_diffusers

TOLERANCE = 2e-5

SD: dict[str, Any] = {  # the options of the Stable Diffusion autoencoders, smaller
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 24),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "layers_per_block": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "sd": SD,
    "one_level": {"block_out_channels": (16,), "norm_num_groups": 8, "layers_per_block": 1},
    "no_quant_conv": {**SD, "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False},
}


class Case:
    """One autoencoder on disk, images and latents, and the reference's answers."""

    def __init__(self, model: Any, folder: Path):
        self.folder = folder
        model.save_pretrained(folder)
        self.x, self.z = normal(2, 16, 24, 3), normal(2, 4, 6, model.config.latent_channels, seed=1)
        with inference():
            self.mean = nhwc(model.encode(nchw(self.x)).latent_dist.mean)
            self.decoded = nhwc(model.decode(nchw(self.z)).sample)

    def errors(self, mutate: Callable[[Any], Any] = lambda model: None) -> tuple[float, float]:
        """Of the mean and the image."""
        model = load_diffusers(self.folder)
        mutate(model)
        return (
            relative_error(model.encode(mx.array(self.x)), self.mean),
            relative_error(model.decode(mx.array(self.z)), self.decoded),
        )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """Cases by name, made once."""

    @functools.cache
    def make(name: str, change: Callable[[Any], Any] = lambda model: model) -> Case:
        return Case(change(perturbed(lambda: AutoencoderKL(**CASES[name]))), tmp_path_factory.mktemp(name))

    return make


@pytest.mark.parametrize("name", CASES)
def test_encoding_and_decoding_are_those_of_diffusers(name: str, case: Callable[..., Case]) -> None:
    assert max(case(name).errors()) <= TOLERANCE


def test_small_activations_keep_the_tolerance(case: Callable[..., Case]) -> None:
    assert max(case("sd", quiet).errors()) <= TOLERANCE


def wrong_eps(model: Any) -> None:
    set_eps(model, 1e-5)


def wrong_attention_eps(model: Any) -> None:
    for coder in (model.encoder, model.decoder):
        coder.mid_block.attentions[0].group_norm.eps = 1e-5


def wrong_last_eps(model: Any) -> None:
    for coder in (model.encoder, model.decoder):
        coder.conv_norm_out.eps = 1e-5


def grouped_like_mlx(model: Any) -> None:
    for module in modules(model, nn.GroupNorm):
        module.pytorch_compatible = False


def two_heads(model: Any) -> None:
    for coder in (model.encoder, model.decoder):
        coder.mid_block.attentions[0].heads = 2


@pytest.mark.parametrize(
    ("change", "mutate", "least"),
    [
        (quiet, wrong_eps, 1e-2),
        (quiet, wrong_attention_eps, 1e-4),
        (quiet, wrong_last_eps, 1e-2),
        (None, wrong_eps, 2.5e-5),
        (None, grouped_like_mlx, 1e-2),
        (None, two_heads, 1e-4),
        (None, transpose_kernels, 1e-1),
    ],
)
def test_the_tolerance_catches_a_wrong_autoencoder(
    change: Any, mutate: Any, least: float, case: Callable[..., Case]
) -> None:
    assert min(case("sd", *([change] if change else [])).errors(mutate)) > least


def test_the_tolerance_catches_symmetric_padding(case: Callable[..., Case]) -> None:
    assert case("sd").errors(flip_padding)[0] > 1e-2


def test_the_tolerance_catches_mean_taken_for_variance(case: Callable[..., Case]) -> None:
    assert case("sd").errors(lambda model: swap_rows(model.quant_conv))[0] > 1e-1


def test_the_scale_of_the_latents_is_read(tmp_path: Path) -> None:
    options = {**CASES["one_level"], "scaling_factor": 0.13025, "shift_factor": 0.1, "force_upcast": False}
    config = saved_and_loaded(AutoencoderKL(**options), tmp_path).config
    assert (config.scaling_factor, config.shift_factor) == (0.13025, 0.1)


def test_wrong_shapes_are_refused(case: Callable[..., Case]) -> None:
    model = load_diffusers(case("sd").folder)
    with pytest.raises(ValueError, match="multiples of 4"):
        model.encode(mx.zeros((1, 18, 16, 3)))

    with pytest.raises(ValueError, match=r"\(B, h, w, 4\)"):
        model.decode(mx.zeros((1, 4, 8, 8)))
