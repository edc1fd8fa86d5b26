"""`load_pipeline`: from a folder or a hub id to a model that pictures are drawn with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx

from ...errors import UserError
from ...types import PictureModel
from .loading import load_diffusers
from .pipeline_folder import PIXEL_PIPELINES, PipelineFolder
from .pipelines import LatentPipeline, PixelPipeline
from .precision import Precision, precision_of, quantise
from .source import pipeline_folder
from .text_encoders import TextEncoder
from .trained_noise import read_trained_noise

GUIDANCE = {"StableDiffusionXLPipeline": 5.0}  # what diffusers takes when nothing is said
OTHER_GUIDANCE = 7.5
LARGEST = 4096


def load_pipeline(
    path: str,
    revision: str | None = None,
    precision: str | None = None,
    height: int | None = None,
    width: int | None = None,
    negative_prompt: str | None = None,
    draws: str | None = None,
) -> PictureModel:
    """A DDPM or Stable Diffusion pipeline (1.x, 2.x, XL) in the layout of diffusers.

    Args:
        path: Its folder, or a hub id "owner/name".
        revision: Branch, tag or commit on the hub; None: what is in the cache, else the newest.
        precision: `float32`, `float16`, `bfloat16`, `8bit`, `4bit` (of the linear layers, the rest float16) or
            `low_memory` (8 bit, the text encoders 4). None: float16 for Stable Diffusion on a GPU, else float32. All
            but float32 are for GPUs; quantised layers are many times slower than float32 on a CPU.
        height: Of the pictures, pixels; None: as the model was trained.
        width: The same.
        negative_prompt: What guidance leads away from, for Stable Diffusion.
        draws: The domain of the pictures, for models that take no text; None: nobody knows.

    Raises:
        UserError: if it cannot be found, fetched or used; the sentence says why.
        MachineError: if the disk is full.
    """
    name = precision or ("float16" if mx.default_device() == mx.gpu else "float32")
    try:
        half = precision_of(name).half
    except ValueError as error:
        raise UserError(f"model.{error}") from None
    folder = PipelineFolder.open(pipeline_folder(path, revision, half), half)
    latent = folder.kind not in PIXEL_PIPELINES
    if precision is None and not latent:
        name, folder = "float32", replace(folder, variant=None)
    chosen = precision_of(name)
    noise = read_trained_noise(folder.path)
    content_hash = folder.content_hash()
    metadata = {**noise, "content_hash": content_hash, "kind": folder.kind}
    unet: Any = load_diffusers(folder.model("unet"), dtype=chosen.dtype, variant=folder.variant)
    expected = "UNet2DConditionModel" if latent else "UNet2DModel"
    if type(unet).__name__ != expected:
        raise UserError(f"{folder.path}: the unet of a {folder.kind} must be a {expected}, got {type(unet).__name__}")
    quantise(unet, chosen.unet_bits)
    if not latent:
        if negative_prompt is not None:
            raise UserError(f"model.negative_prompt was given, but a {folder.kind} reads no text; leave it out")
        size = _size(folder, unet.config, 1, height, width)
        identity = f"{content_hash} {name} {size[0]}x{size[1]}"
        return _built(folder, PixelPipeline, unet, size, metadata=metadata, identity=identity, domain=draws)
    if draws is not None:
        raise UserError(f"model.draws={draws} was given, but a {folder.kind} draws what the prompt says; leave it out")
    vae: Any = load_diffusers(folder.model("vae"), dtype=mx.float32, variant=folder.variant)
    size = _size(folder, unet.config, vae.config.downsampling, height, width)
    metadata["guidance_scale"] = GUIDANCE.get(folder.kind, OTHER_GUIDANCE)
    return _built(
        folder,
        LatentPipeline,
        unet,
        vae,
        _encoders(folder, chosen),
        size,
        metadata=metadata,
        identity=f"{content_hash} {name} {size[0]}x{size[1]}",
        negative_prompt=negative_prompt,
        zero_null=bool(folder.options.get("force_zeros_for_empty_prompt", len(folder.readers) > 1)),
    )


def _built(folder: PipelineFolder, kind: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return kind(*arguments, **options)
    except ValueError as error:
        raise UserError(f"{folder.path}: {error}") from error


def _encoders(folder: PipelineFolder, precision: Precision) -> list[TextEncoder]:
    return [TextEncoder.open(words, encoder, precision, folder.variant) for encoder, words in folder.readers]


def _size(folder: PipelineFolder, config: Any, factor: int, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of the pictures: as given, or as trained.

    Args:
        folder: For the sentences.
        config: Of the U-Net.
        factor: Pixels per latent, in each direction.
        height: Wished for, or None.
        width: Wished for, or None.

    Raises:
        UserError: for a size that the networks cannot halve often enough, or an unknown one.
    """
    trained = config.sample_size
    sides = (trained, trained) if not isinstance(trained, tuple) else trained
    multiple = factor * 2 ** (config.levels - 1)
    found = []
    for name, given, side in (("height", height, sides[0]), ("width", width, sides[1])):
        if given is None and side is None:
            raise UserError(f"{folder.path} does not say how large its pictures are; give model.height and model.width")
        value = side * factor if given is None else given
        if value < multiple or value > LARGEST or value % multiple:
            raise UserError(
                f"model.{name} must be a multiple of {multiple}, at most {LARGEST}, since this model halves its "
                f"pictures that often, got {value}"
            )
        found.append(value)
    return found[0], found[1]
