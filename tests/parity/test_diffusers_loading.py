"""Model folders as diffusers and transformers write them, as they were written years ago, and damaged ones."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import mlx.core as mx
import numpy as np
import pytest
import torch
import transformers
from diffusers_reference import inference, nchw, nhwc, normal, perturbed, relative_error
from mlx.utils import tree_flatten

from adaptive_diffusion.errors import UnusableFile
from adaptive_diffusion.models.diffusers import AutoencoderKL, UNet2DConfig, UNet2DModel, build_model, load_diffusers

LEGACY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
OPTIONS: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
X = normal(1, 8, 8, 3)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return perturbed(lambda: diffusers.UNet2DModel(**OPTIONS))


@pytest.fixture(scope="module")
def answer(theirs: Any) -> np.ndarray:
    with inference():
        return nhwc(theirs(nchw(X), 500).sample)


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path / "unet")
    return tmp_path / "unet"


def error(folder: Path, answer: np.ndarray, **options: Any) -> float:
    model: Any = load_diffusers(folder, **options)
    return relative_error(model(mx.array(X), 500), answer)


def edit_tensors(file: Path, change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> None:
    tensors = dict(mx.load(str(file)))
    mx.eval(tensors)
    changed = change(tensors)
    mx.eval(changed)
    mx.save_safetensors(str(file), changed)


def edit_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def weights(folder: Path) -> Path:
    return folder / "diffusion_pytorch_model.safetensors"


# Folders that load.


def test_the_class_comes_from_the_configuration(folder: Path) -> None:
    assert type(load_diffusers(folder)) is UNet2DModel
    assert load_diffusers(str(folder)).config == UNet2DConfig(**OPTIONS)


def test_attention_names_of_old_versions_load(folder: Path, answer: np.ndarray) -> None:
    def rename(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        pattern = re.compile("|".join(re.escape(name) for name in LEGACY))
        return {pattern.sub(lambda match: LEGACY[match[0]], name): value for name, value in tensors.items()}

    edit_tensors(weights(folder), rename)
    assert any("proj_attn" in name for name in mx.load(str(weights(folder))))
    assert error(folder, answer) <= 5e-6


def test_attention_names_of_old_autoencoders_load(tmp_path: Path) -> None:
    model = perturbed(lambda: diffusers.AutoencoderKL(block_out_channels=(16,), norm_num_groups=4))
    model.save_pretrained(tmp_path)

    def rename(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        for new, old in LEGACY.items():
            tensors = {name.replace(new, old): value for name, value in tensors.items()}
        return tensors

    edit_tensors(weights(tmp_path), rename)
    ours, z = load_diffusers(tmp_path), normal(1, 4, 4, 4)
    assert isinstance(ours, AutoencoderKL)

    with inference():
        assert relative_error(ours.decode(mx.array(z)), nhwc(model.decode(nchw(z)).sample)) <= 2e-5


@pytest.mark.parametrize("keep", [True, False])
def test_the_second_name_of_old_convolutions_is_understood(keep: bool, folder: Path, answer: np.ndarray) -> None:
    def rename(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        old = {name.replace(".conv.", ".Conv2d_0."): value for name, value in tensors.items()}
        return {**tensors, **old} if keep else old

    edit_tensors(weights(folder), rename)
    assert error(folder, answer) <= 5e-6


def test_shards_load(theirs: Any, tmp_path: Path, answer: np.ndarray) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert error(tmp_path, answer) <= 5e-6


def test_shards_of_transformers_load(tmp_path: Path) -> None:
    config = transformers.CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = perturbed(lambda: transformers.CLIPTextModel(config))
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ours: Any = load_diffusers(tmp_path)
    assert ours.embeddings.token_embedding.weight.shape == (50, 16)


@pytest.mark.parametrize("size", ["10GB", "20KB"])
def test_half_precision_files_load(size: str, theirs: Any, tmp_path: Path, answer: np.ndarray) -> None:
    half = perturbed(lambda: diffusers.UNet2DModel(**OPTIONS)).half()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    assert not weights(tmp_path).exists()
    rounded = error(tmp_path, answer, variant="fp16")
    assert 1e-6 < rounded < 5e-3  # float16 weights, computed in float32
    assert error(tmp_path, answer) == rounded  # found without being asked for, as there is nothing else
    assert load_diffusers(tmp_path).dtype == mx.float32
    assert load_diffusers(tmp_path, dtype=None).dtype == mx.float16
    assert error(tmp_path, answer, dtype=None) < 2e-2


def test_plain_files_are_preferred_to_half_precision(folder: Path, answer: np.ndarray) -> None:
    (folder / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not a model")
    assert error(folder, answer) <= 5e-6


@pytest.mark.parametrize("size", ["10GB", "40KB"])
def test_pytorch_files_load(size: str, theirs: Any, tmp_path: Path, answer: np.ndarray) -> None:
    theirs.save_pretrained(tmp_path, safe_serialization=False, max_shard_size=size)
    assert not list(tmp_path.glob("*.safetensors"))
    assert error(tmp_path, answer) <= 5e-6


def test_safetensors_are_preferred_to_pytorch_files(folder: Path, answer: np.ndarray) -> None:
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"not a model")
    assert error(folder, answer) <= 5e-6


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_weights_take_the_type_asked_for(dtype: mx.Dtype, folder: Path, answer: np.ndarray) -> None:
    assert load_diffusers(folder, dtype=dtype).dtype == dtype
    assert error(folder, answer, dtype=dtype) < 5e-2
    with pytest.raises(ValueError, match="must be a float type"):
        load_diffusers(folder, dtype=mx.int8)


@pytest.mark.parametrize("kind", ["UNet2DModel", "UNet2DConditionModel"])
def test_a_short_configuration_means_the_defaults_of_diffusers(kind: str, tmp_path: Path) -> None:
    """Every option of ours has the default of the class of the same name, or its only accepted value is that."""
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": kind, "attention_head_dim": 8}))
    ours, reference = build_model(tmp_path).config, getattr(diffusers, kind)
    defaults = {name: p.default for name, p in inspect.signature(reference.__init__).parameters.items()}
    defaults.pop("self")

    values = dataclasses.asdict(ours)
    for name, value in defaults.items():
        if name in values:
            assert values[name] == value, name
        else:
            assert name in ours.IGNORED or value in ours.ONLY[name], name

    assert values.keys() <= defaults.keys()


def test_the_defaults_of_the_others_are_those_of_the_references(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))

    reference = dict(diffusers.AutoencoderKL().config)
    for name, value in dataclasses.asdict(build_model(tmp_path).config).items():
        assert value == (tuple(reference[name]) if isinstance(reference[name], list) else reference[name]), name

    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["CLIPTextModel"]}))

    reference = transformers.CLIPTextConfig().to_dict()
    for name, value in dataclasses.asdict(build_model(tmp_path).config).items():
        assert value == reference[name], name


def test_a_missing_head_dimension_is_eight_and_worth_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["attention_head_dim"]
    (folder / "config.json").write_text(json.dumps(values))

    model: Any = load_diffusers(folder)
    assert "attention_head_dim" in caplog.text
    assert model.mid_block.attentions[0].heads == 2
    edit_config(folder, attention_head_dim=None)
    one_head: Any = load_diffusers(folder)
    assert one_head.mid_block.attentions[0].heads == 1


def test_an_unknown_option_is_ignored_with_a_warning(
    folder: Path, answer: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    edit_config(folder, colour="blue")
    assert error(folder, answer) <= 5e-6
    assert "unknown option colour" in caplog.text


def test_loaded_weights_are_in_memory(folder: Path, answer: np.ndarray) -> None:
    model: Any = load_diffusers(folder)
    shutil.rmtree(folder)
    assert relative_error(model(mx.array(X), 500), answer) <= 5e-6


SD15 = {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}
SDXL = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CIFAR10 = {
    "_class_name": "UNet2DModel",
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": None,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
CLIP_L = {
    "architectures": ["CLIPTextModel"],
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(CIFAR10, 35_746_307), (SD15, 859_520_964), (SDXL, 2_567_463_684), (VAE, 83_653_863), (CLIP_L, 123_060_480)],
    ids=["ddpm-cifar10", "sd15", "sdxl", "sd-vae", "clip-l"],
)
def test_the_published_models_have_their_number_of_parameters(
    config: dict[str, Any], parameters: int, tmp_path: Path
) -> None:
    """Counted without computing a weight."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert sum(value.size for _, value in tree_flatten(build_model(tmp_path).parameters())) == parameters


# Folders that do not.


def refused(folder: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(UnusableFile) as caught:
        load_diffusers(folder, **options)

    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def without(name: str) -> Callable[[dict[str, mx.array]], dict[str, mx.array]]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (without("conv_out.bias"), ["lacks the tensor 'conv_out.bias' of UNet2DModel"]),
        (without("mid_block.attentions"), ["lacks the tensor", "mid_block.attentions.0", "(and 9 more)"]),
        (
            lambda tensors: {**tensors, "conv_in.weight": mx.zeros((8, 3, 5, 5))},
            ["'conv_in.weight' has shape (8, 3, 5, 5)", "needs (8, 3, 3, 3)"],
        ),
        (
            lambda tensors: {**tensors, "conv_in.bias": mx.zeros(8, mx.int8)},
            ["'conv_in.bias'", "int8", "quantised files are not supported"],
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: Any, parts: list[str], folder: Path) -> None:
    edit_tensors(weights(folder), change)
    refused(folder, str(folder), *parts)


def test_a_tensor_that_is_left_over_is_ignored_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = dict(tree_flatten(load_diffusers(folder).parameters()))
    edit_tensors(weights(folder), lambda tensors: {**tensors, "controlnet.bias": mx.zeros(3)})
    after = dict(tree_flatten(load_diffusers(folder).parameters()))
    assert "'controlnet.bias'" in caplog.text
    assert before.keys() == after.keys()
    assert all(mx.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "options",
    [{"layers_per_block": 10**9}, {"block_out_channels": [8] * 100_000}, {"block_out_channels": [10**40, 8]}],
)
def test_a_description_without_measure_is_refused_before_it_is_built(options: dict[str, Any], folder: Path) -> None:
    edit_config(folder, **options)
    refused(folder, "cannot be built")


@pytest.mark.parametrize(
    "config",
    [
        {**SD15, "transformer_layers_per_block": 10**8},
        {**SDXL, "transformer_layers_per_block": [1, [2, 2], 10**8]},
        {**SDXL, "reverse_transformer_layers_per_block": [[10**8] * 3, 2, 1]},
        {**VAE, "layers_per_block": 10**9},
        {**CLIP_L, "num_hidden_layers": 10**9},
        {**CLIP_L, "vocab_size": 10**15},
    ],
)
def test_networks_of_any_depth_are_not_built(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, "cannot be built")


def test_a_truncated_file_is_refused(folder: Path) -> None:
    content = weights(folder).read_bytes()
    weights(folder).write_bytes(content[: len(content) // 2])
    refused(folder, "truncated")


def test_a_missing_shard_is_refused(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    refused(tmp_path, shard.name, "incomplete")


def test_an_index_that_does_not_fit_its_shards_is_refused(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    file = places["conv_in.weight"]
    index.write_text(json.dumps({"weight_map": {**places, "conv_in.colour": file}}))
    refused(tmp_path, "conv_in.colour")
    index.write_text(json.dumps({"weight_map": {**places, "conv_in.weight": f"../{tmp_path.name}/{file}"}}))
    refused(tmp_path, "outside its own folder")
    index.write_text(json.dumps({"metadata": {}}))
    refused(tmp_path, "lists no tensors")
    index.write_text("{")
    refused(tmp_path, index.name, "cannot be read as JSON")


def test_a_pickle_that_names_anything_but_tensors_is_not_opened(folder: Path) -> None:
    weights(folder).unlink()
    torch.save({"conv_in.weight": torch.zeros(3), "other": Path("x")}, folder / "diffusion_pytorch_model.bin")
    refused(folder, "diffusion_pytorch_model.bin", "pathlib", "safetensors")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    refused(folder, "diffusion_pytorch_model.fp16.safetensors", variant="fp16")
    weights(folder).unlink()
    refused(folder, "holds no weights", "incomplete")


def test_what_is_no_model_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no folder")
    refused(weights(folder), "is a file")
    refused(tmp_path, "no config.json")
    (tmp_path / "model_index.json").write_text("{}")
    refused(tmp_path, "whole pipeline", "unet")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ["cannot be read as JSON"]),
        ("[]", ["must hold a JSON object"]),
        ("{}", ["does not say which class"]),
        ('{"_class_name": "FluxTransformer2DModel"}', ["FluxTransformer2DModel", "not supported", "UNet2DModel"]),
        ('{"architectures": ["T5EncoderModel"]}', ["T5EncoderModel", "not supported", "CLIPTextModel"]),
    ],
)
def test_a_configuration_of_something_else_is_refused(content: str, parts: list[str], folder: Path) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, *parts)


@pytest.mark.parametrize(
    ("kind", "options", "parts"),
    [
        ("UNet2DModel", {"time_embedding_type": "fourier"}, ["time_embedding_type", "fourier", "positional"]),
        ("UNet2DModel", {"class_embed_type": "timestep"}, ["class_embed_type", "timestep"]),
        ("UNet2DModel", {"act_fn": "mish"}, ["act_fn", "mish", "silu"]),
        ("UNet2DModel", {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, ["down_block_types", "SkipDown"]),
        ("UNet2DModel", {"resnet_time_scale_shift": "spatial"}, ["resnet_time_scale_shift", "spatial"]),
        ("UNet2DModel", {"downsample_type": "fir"}, ["downsample_type", "fir"]),
        ("UNet2DModel", {"mid_block_type": "UNetMidBlock2DCrossAttn"}, ["mid_block_type", "null"]),
        ("UNet2DModel", {"block_out_channels": [8, 15]}, ["block_out_channels", "15", "norm_num_groups"]),
        ("UNet2DModel", {"block_out_channels": [8, 16, 32]}, ["down_block_types", "3 levels"]),
        ("UNet2DModel", {"block_out_channels": 8}, ["block_out_channels", "list"]),
        ("UNet2DModel", {"attention_head_dim": 3}, ["attention_head_dim = 3", "16"]),
        ("UNet2DModel", {"norm_num_groups": None}, ["norm_num_groups", "None"]),
        ("UNet2DModel", {"norm_eps": 0}, ["norm_eps"]),
        ("UNet2DModel", {"layers_per_block": [1, 2]}, ["layers_per_block"]),
        ("UNet2DConditionModel", {"only_cross_attention": [True, False]}, ["only_cross_attention"]),
        ("UNet2DConditionModel", {"time_cond_proj_dim": 256}, ["time_cond_proj_dim", "256"]),
        ("UNet2DConditionModel", {"num_class_embeds": 3}, ["num_class_embeds", "only None"]),
        ("UNet2DConditionModel", {"encoder_hid_dim_type": "image_proj"}, ["encoder_hid_dim_type", "image_proj"]),
        ("UNet2DConditionModel", {"addition_embed_type": "text"}, ["addition_embed_type", "text_time"]),
        ("UNet2DConditionModel", {"addition_embed_type": "text_time"}, ["addition_time_embed_dim"]),
        ("UNet2DConditionModel", {"attention_head_dim": 3}, ["attention_head_dim: 3 heads"]),
        ("UNet2DConditionModel", {"attention_type": "gated"}, ["attention_type", "gated"]),
        ("UNet2DConditionModel", {"transformer_layers_per_block": [1, 2, 3]}, ["transformer_layers_per_block", "2"]),
        ("AutoencoderKL", {"down_block_types": ["AttnDownEncoderBlock2D"]}, ["AttnDownEncoderBlock2D"]),
        ("AutoencoderKL", {"scaling_factor": 0}, ["scaling_factor"]),
        ("CLIPTextModel", {"hidden_act": "relu"}, ["hidden_act", "relu", "quick_gelu"]),
        ("CLIPTextModel", {"num_attention_heads": 7}, ["num_attention_heads = 7"]),
        ("CLIPTextModel", {"eos_token_id": [2, 3]}, ["eos_token_id"]),
    ],
)
def test_an_option_that_is_not_supported_is_named(
    kind: str, options: dict[str, Any], parts: list[str], tmp_path: Path
) -> None:
    base: dict[str, Any] = {}
    if kind.startswith("UNet2D"):
        base = {"block_out_channels": [8, 16], "norm_num_groups": 4, "attention_head_dim": 4}
        attend = "Attn" if kind == "UNet2DModel" else "CrossAttn"
        base["down_block_types"] = ["DownBlock2D", f"{attend}DownBlock2D"]
        base["up_block_types"] = [f"{attend}UpBlock2D", "UpBlock2D"]

    (tmp_path / "config.json").write_text(json.dumps({"_class_name": kind, **base}))
    build_model(tmp_path)
    edit_config(tmp_path, **options)
    refused(tmp_path, kind, *parts)
