"""The errors about paths other than folders of pipelines: what the path is, and what to do."""

from __future__ import annotations

from pathlib import Path

from ...io.files import why_unreadable
from ...io.tensor_file import tensor_types

INDEX = "model_index.json"

# Prefixes of tensor names in the single-file checkpoints of webui, ComfyUI and the original code.
_SINGLE_FILE = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.")
_CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_CONVERT = (
    "a folder is needed: convert a whole checkpoint with diffusers, StableDiffusionPipeline (or "
    "StableDiffusionXLPipeline).from_single_file(file).save_pretrained(folder)"
)
_MERGE = (
    "a LoRA, which changes a model and is none; merge it into its model with diffusers: load_lora_weights, fuse_lora, "
    "unload_lora_weights, then save_pretrained(folder)"
)


def error_about_file(path: Path) -> str:
    """The error about a file instead of a folder."""
    if trouble := why_unreadable(path):
        return f"{path} {trouble}"
    if path.name == INDEX:
        return f"{path} is the index of a pipeline; give its folder: {path.parent}"
    if path.suffix == ".gguf":
        return f"{path} is a GGUF file, whose quantised weights are not supported; get the pipeline's folder"
    if path.suffix not in _CHECKPOINTS:
        return f"{path} is a file; give the folder of a pipeline, or a hub id"
    if (path.parent / "config.json").is_file() and (path.parent.parent / INDEX).is_file():
        return f"{path} is one file of a pipeline; give the folder of the whole pipeline: {path.parent.parent}"

    return f"{path} is {_checkpoint(path)}"


def error_about_folder(path: Path) -> str:
    """The error about a folder without the index of a pipeline."""
    if (path / "config.json").is_file():
        if (path.parent / INDEX).is_file():
            return f"{path} is one model of a pipeline; give the folder above, with the whole pipeline: {path.parent}"
        return f"{path} is a single model and no pipeline: it has no {INDEX}; give the folder of a whole pipeline"
    if inside := sorted([*path.glob(f"*/{INDEX}"), *path.glob(f"snapshots/*/{INDEX}")]):
        return f"{path} is no pipeline, but holds one; give its folder: {inside[0].parent}"

    files = sorted(file for file in path.iterdir() if file.suffix in _CHECKPOINTS)
    if (path / "adapter_config.json").is_file() or any(file.stem == "pytorch_lora_weights" for file in files):
        return f"{path} holds {_MERGE}"
    if files:
        return f"{path} holds no pipeline: {files[0].name} is {_checkpoint(files[0])}"

    return (
        f"{path} is no diffusers pipeline: it has no {INDEX}; give a folder that save_pretrained of a pipeline wrote, "
        "or a hub id"
    )


def _checkpoint(path: Path) -> str:
    """Kind of a weight file, and what to do with it."""
    names = tensor_types(path)
    if any("lora_" in name or ".lora" in name for name in names):
        return _MERGE
    if names.keys() >= {"stem.weight", "head.weight"}:
        return "a model file of this project; draw with it by model=checkpoint model.path=<file>"

    whole = any(name.startswith(_SINGLE_FILE) for name in names) or path.suffix == ".ckpt"
    kind = "a single-file checkpoint, as webui and ComfyUI use" if whole else "a single file of weights"
    return f"{kind}; {_CONVERT}"
