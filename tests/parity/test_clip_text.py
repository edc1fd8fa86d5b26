"""The CLIP text encoders against transformers, and what the tolerance would catch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import transformers
from diffusers_reference import inference, modules, perturbed, relative_error, saved_and_loaded
from mlx import nn

from adaptive_diffusion.models.diffusers import clip_text, load_diffusers

TOLERANCE = 5e-6
SMALL = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 48,
    "projection_dim": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "bos_token_id": 48,
    "eos_token_id": 49,
    "pad_token_id": 49,
}
IDS = np.array([[48, 5, 7, 49, 49, 49, 49, 49], [48, 1, 2, 3, 4, 5, 49, 0]])  # padded with the end and with 0
CASES = {
    "openai": ("CLIPTextModel", SMALL),
    "openclip": ("CLIPTextModel", {**SMALL, "hidden_act": "gelu", "layer_norm_eps": 1e-4}),
    "projected": ("CLIPTextModelWithProjection", SMALL),
    "early": ("CLIPTextModel", {**SMALL, "eos_token_id": 2}),
}


def reference(name: str) -> Any:
    kind, options = CASES[name]
    return perturbed(lambda: getattr(transformers, kind)(transformers.CLIPTextConfig(**options)))


def answer(model: Any) -> Any:
    with inference():
        return model(torch.tensor(IDS), output_hidden_states=True)


@pytest.mark.parametrize("name", CASES)
def test_every_output_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    ours, expected = saved_and_loaded(theirs, tmp_path)(mx.array(IDS)), answer(theirs)
    assert len(ours.hidden_states) == len(expected.hidden_states) == 4

    for ours_state, theirs_state in zip(ours.hidden_states, expected.hidden_states, strict=True):
        assert relative_error(ours_state, theirs_state.numpy()) <= TOLERANCE

    assert relative_error(ours.last_hidden_state, expected.last_hidden_state.numpy()) <= TOLERANCE
    if name == "projected":
        assert relative_error(ours.text_embeds, expected.text_embeds.numpy()) <= TOLERANCE
    else:
        assert ours.text_embeds is None
        assert relative_error(ours.pooler_output, expected.pooler_output.numpy()) <= TOLERANCE


def other_activation(model: Any) -> None:
    for module in modules(model, clip_text.CLIPMLP):
        module.activation = nn.gelu if module.activation is nn.gelu_fast_approx else nn.gelu_fast_approx


def tanh_activation(model: Any) -> None:
    for module in modules(model, clip_text.CLIPMLP):
        module.activation = nn.gelu_approx


def wrong_eps(model: Any) -> None:
    for module in modules(model, nn.LayerNorm):
        module.eps = 1e-5


def two_heads(model: Any) -> None:
    for module in modules(model, clip_text.CLIPAttention):
        module.heads = 2


def queries_as_keys(model: Any) -> None:
    for module in modules(model, clip_text.CLIPAttention):
        module.q_proj, module.k_proj = module.k_proj, module.q_proj


def shifted_positions(model: Any) -> None:
    table = model.embeddings.position_embedding
    table.weight = mx.roll(table.weight, 1, axis=0)


@pytest.mark.parametrize(
    ("name", "mutate", "least"),
    [
        ("openai", other_activation, 1e-4),
        ("openclip", other_activation, 1e-4),
        ("openclip", tanh_activation, 1e-5),
        ("openclip", wrong_eps, 1e-4),
        ("openai", two_heads, 1e-3),
        ("openai", queries_as_keys, 1e-3),
        ("openai", shifted_positions, 1e-3),
    ],
)
def test_the_tolerance_catches_a_wrong_encoder(
    name: str, mutate: Callable[[Any], None], least: float, tmp_path: Path
) -> None:
    theirs = reference(name)
    ours = saved_and_loaded(theirs, tmp_path)
    mutate(ours)
    assert relative_error(ours(mx.array(IDS)).last_hidden_state, answer(theirs).last_hidden_state.numpy()) > least


def test_no_position_sees_a_later_one(tmp_path: Path) -> None:
    ours = saved_and_loaded(reference("openai"), tmp_path)
    other = IDS.copy()
    other[:, 5:] = 11
    a, b = (np.array(ours(mx.array(ids)).last_hidden_state) for ids in (IDS, other))
    np.testing.assert_allclose(a[:, :5], b[:, :5], atol=1e-6)
    assert np.abs(a[:, 5:] - b[:, 5:]).max() > 1e-2


def test_the_text_ends_at_its_first_end_token_or_at_the_highest_id(tmp_path: Path) -> None:
    ids = mx.array([[48, 3, 40, 5, 40, 49]])
    model = saved_and_loaded(perturbed(lambda: _encoder(eos_token_id=40)), tmp_path / "new")
    early = saved_and_loaded(perturbed(lambda: _encoder(eos_token_id=2)), tmp_path / "early")
    for encoder, place in ((model, 2), (early, 5)):
        output = encoder(ids)
        assert mx.array_equal(output.pooler_output, output.last_hidden_state[:, place])


def _encoder(**options: Any) -> Any:
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**{**SMALL, **options}))


def test_an_overlong_text_is_refused(tmp_path: Path) -> None:
    ours = saved_and_loaded(reference("openai"), tmp_path)
    with pytest.raises(ValueError, match=r"got \(1, 13\)"):
        ours(mx.zeros((1, 13), mx.int32))


@pytest.mark.parametrize("name", ["openai", "projected"])
def test_names_with_and_without_prefix_and_stored_positions_load(name: str, tmp_path: Path) -> None:
    """transformers 5 writes CLIPTextModel without `text_model.`; earlier versions wrote it, and the positions."""
    theirs = reference(name)
    ours = saved_and_loaded(theirs, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = dict(mx.load(str(file)))
    assert any(key.startswith("text_model.") for key in tensors) == (name == "projected")
    tensors = {key if key.startswith("text_") else f"text_model.{key}": value for key, value in tensors.items()}
    tensors["text_model.embeddings.position_ids"] = mx.arange(12)[None]
    mx.eval(tensors)
    mx.save_safetensors(str(file), tensors)
    again = load_diffusers(tmp_path)
    assert mx.array_equal(again(mx.array(IDS)).last_hidden_state, ours(mx.array(IDS)).last_hidden_state)
