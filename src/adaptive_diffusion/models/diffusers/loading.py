"""Models from folders of diffusers or transformers.

The networks have the attribute names of the originals, so loading has three steps: rename tensors of old versions,
compare names and shapes, and transpose convolutions to NHWC. A missing tensor, or a tensor of another shape, is
refused. A tensor that the network does not have is ignored with a warning, as in diffusers and transformers.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ...errors import UnusableFile, plainly
from ...io.files import read_json
from .attention import AttentionBlock
from .autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from .clip_text import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from .config import ModelConfig
from .unet_2d import UNet2DConfig, UNet2DModel
from .unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from .weight_files import find_weights, read_weights

log = logging.getLogger(__name__)

DiffusersModel = UNet2DModel | UNet2DConditionModel | AutoencoderKL | CLIPTextModel | CLIPTextModelWithProjection

CLASSES: dict[str, tuple[type[DiffusersModel], type[ModelConfig]]] = {
    "UNet2DModel": (UNet2DModel, UNet2DConfig),
    "UNet2DConditionModel": (UNet2DConditionModel, UNet2DConditionConfig),
    "AutoencoderKL": (AutoencoderKL, AutoencoderKLConfig),
    "CLIPTextModel": (CLIPTextModel, CLIPTextConfig),
    "CLIPTextModelWithProjection": (CLIPTextModelWithProjection, CLIPTextConfig),
}
LEGACY_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
LEGACY_CONV = "Conv2d_0"  # second name of `conv` in files of old versions


def load_diffusers(
    folder: str | Path, *, dtype: mx.Dtype | None = mx.float32, variant: str | None = None
) -> DiffusersModel:
    """Read one model of a diffusers pipeline from its folder, e.g. `stable-diffusion-v1-5/unet`.

    Args:
        folder: Folder of `config.json` and the weight files.
        dtype: Type of the weights in memory; None: the type in the file.
        variant: Precision variant of the files, e.g. "fp16"; None: the plain files, or fp16 without plain
            files.

    Returns:
        The network of the class in `config.json`, with evaluated weights.

    Raises:
        UnusableFile: if the folder is no such model, its class or an option is not supported, or its tensors do not fit
            or are not finite.
        ValueError: if `dtype` is no float type.
    """
    if dtype is not None and not mx.issubdtype(dtype, mx.floating):
        raise ValueError(f"dtype must be a float type such as float32, float16 or bfloat16, got {dtype}")

    folder = Path(folder)
    model = build_model(folder)
    path = find_weights(folder, variant)
    weights = _rename(model, read_weights(path))
    _check(model, weights, path)

    # One tensor at a time, so that the file and the result are never in memory together.
    loaded = []
    for name in list(weights):
        tensor = weights.pop(name)
        _check_finite(name, tensor, path)
        if tensor.ndim == 4:
            # PyTorch (out, in, h, w) -> (out, h, w, in); MLX would copy a transposed view on every call.
            tensor = mx.contiguous(tensor.transpose(0, 2, 3, 1))

        loaded.append((name, tensor if dtype is None else tensor.astype(dtype)))
        mx.eval(loaded[-1][1])

    model.load_weights(loaded, strict=True)
    model.eval()
    return model


def build_model(folder: str | Path) -> DiffusersModel:
    """Build the network of a `config.json`, with lazy random weights.

    Raises:
        UnusableFile: if the folder has no `config.json`, or its class or an option is not supported.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UnusableFile(_no_config(Path(folder)))

    config = read_json(path)
    name = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if name not in CLASSES:
        accepted = ", ".join(CLASSES)
        raise UnusableFile(
            f"{path} describes a {name}, which is not supported; supported are {accepted}"
            if name
            else f"{path} does not say which class it describes; expected _class_name or architectures: {accepted}"
        )

    model_class, config_class = CLASSES[name]
    try:
        return cast(Any, model_class)(config_class.from_dict(config))
    except (ValueError, TypeError, OverflowError) as error:
        raise UnusableFile(f"{path} asks for a {name} that cannot be built: {plainly(error)}") from error


def _no_config(folder: Path) -> str:
    """The error about a folder without `config.json`."""
    if not folder.exists():
        return f"there is no folder {folder}; give a folder with the config.json and safetensors files of a model"
    if not folder.is_dir():
        return f"{folder} is a file; give the folder of a model, with config.json and safetensors files in it"

    models = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if (folder / "model_index.json").is_file() and models:
        return f"{folder} is a whole pipeline; give one of its models: {', '.join(models)}"

    return f"{folder} is no diffusers model: it has no config.json; give a folder that save_pretrained wrote"


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape in PyTorch's order of axes."""
    named = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    shapes = ((name, tuple(value.shape)) for name, value in named)
    return {name: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for name, s in shapes}


def _rename(model: nn.Module, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The tensors under the names of today's versions."""
    renames = {
        f"{path}.{old}.{kind}": f"{path}.{new}.{kind}"
        for path, module in model.named_modules()
        if isinstance(module, AttentionBlock)
        for old, new in LEGACY_ATTENTION.items()
        for kind in ("weight", "bias")
    }

    renamed = {}
    for name, tensor in weights.items():
        name = renames.get(name, name)
        if f".{LEGACY_CONV}." in name:
            name = name.replace(f".{LEGACY_CONV}.", ".conv.")
            if name in weights:  # the file has the same tensor under both names
                continue

        if isinstance(model, CLIPTextModel):
            name = name.removeprefix("text_model.")
        if isinstance(model, CLIPTextModel | CLIPTextModelWithProjection) and name.endswith("embeddings.position_ids"):
            continue  # the constants 0, 1, 2, ... of old versions

        renamed[name] = tensor

    return renamed


def _check(model: nn.Module, weights: dict[str, mx.array], path: Path) -> None:
    """Check names, types and shapes of the tensors, and remove tensors that the model does not have."""
    expected, kind = _shapes(model), type(model).__name__
    if missing := sorted(expected.keys() - weights.keys()):
        raise UnusableFile(
            f"{path} lacks the tensor {_and_more(missing)} of {kind}; it is incomplete or of another model"
        )

    if extra := sorted(weights.keys() - expected.keys()):
        log.warning("%s holds the tensor %s, which its %s does not have: ignored", path, _and_more(extra), kind)
        for name in extra:
            del weights[name]

    for name, shape in expected.items():
        if not mx.issubdtype(weights[name].dtype, mx.floating):
            raise UnusableFile(
                f"{path}: tensor {name!r} holds {str(weights[name].dtype).removeprefix('mlx.core.')} numbers; "
                "quantised files are not supported, get the float16 or float32 version"
            )
        if tuple(weights[name].shape) != shape:
            raise UnusableFile(
                f"{path}: tensor {name!r} has shape {tuple(weights[name].shape)}, but {kind} with this config.json "
                f"needs {shape}; they belong to different models"
            )


def _check_finite(name: str, tensor: mx.array, path: Path) -> None:
    """Refuse NaN and infinity."""
    # The sum is much faster; only if it is not finite, which may be an overflow, is every number checked.
    if not mx.isfinite(tensor.sum()).item() and not mx.isfinite(tensor).all().item():
        raise UnusableFile(f"{path}: tensor {name!r} holds NaN or infinity; the file is damaged, get it again")


def _and_more(names: list[str]) -> str:
    return repr(names[0]) + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
