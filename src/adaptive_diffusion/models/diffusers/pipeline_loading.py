"""`load_pipeline`: from a folder or a hub id to a model that images are drawn with."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import mlx.core as mx

from ...errors import UserError
from ...types import PictureModel
from .autoencoder_kl import AutoencoderKL
from .loading import load_diffusers
from .pipeline_folder import PIXEL_PIPELINES, PipelineFolder
from .pipelines import LatentPipeline, PixelPipeline
from .precision import Precision, precision_of, quantise
from .source import pipeline_folder
from .text_encoders import TextEncoder
from .trained_noise import read_trained_noise
from .unet_2d import UNet2DModel
from .unet_2d_condition import UNet2DConditionModel

log = logging.getLogger(__name__)

GUIDANCE = {1: 7.5, 2: 5.0}  # text encoders -> what diffusers takes when nothing is said: Stable Diffusion, and SDXL
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
        height: Of the images, pixels; None: as the model was trained.
        width: The same.
        negative_prompt: What guidance leads away from, for Stable Diffusion.
        draws: The domain of the images, for models that take no text; None: nobody knows.

    Raises:
        UserError: if it cannot be found, fetched or used; the sentence says why.
        MachineError: if the disk is full.
    """
    try:
        return _loaded(path, revision, precision, (height, width), negative_prompt, draws)
    except PermissionError as error:
        raise UserError(
            f"{error.filename or path} may not be read: permission denied; ask its owner, or change its permissions"
        ) from error


def _loaded(
    path: str,
    revision: str | None,
    precision: str | None,
    wished: tuple[int | None, int | None],
    negative_prompt: str | None,
    draws: str | None,
) -> PictureModel:
    """See `load_pipeline`; `wished` is (height, width)."""
    name = precision or ("float16" if mx.default_device() == mx.gpu else "float32")
    try:
        half = precision_of(name).half
    except ValueError as error:
        raise UserError(f"model.{error}") from None

    _warn_of_the_cpu(name)
    folder = PipelineFolder.open(pipeline_folder(path, revision, half), half)

    latent = folder.kind not in PIXEL_PIPELINES
    if precision is None and not latent:
        name, folder = "float32", replace(folder, variant=None)

    chosen = precision_of(name)

    noise = read_trained_noise(folder.path)
    if (ratio := noise.pop("thresholding_ratio")) is not None:
        log.warning(
            "the model's own scheduler thresholds (scheduler_config.json), which is for the run to say here: "
            "scheduler.thresholding=true scheduler.dynamic_thresholding_ratio=%s",
            ratio,
        )

    content_hash = folder.content_hash()
    metadata = {**noise, "content_hash": content_hash, "kind": folder.kind}
    unet = _network(folder, "unet", UNet2DConditionModel if latent else UNet2DModel, chosen.dtype)
    quantise(unet, chosen.unet_bits)

    if not latent:
        if negative_prompt is not None:
            raise UserError(f"model.negative_prompt was given, but a {folder.kind} reads no text; leave it out")
        size = _size(folder, unet.config, 1, *wished)
        identity = f"{content_hash} {name} {size[0]}x{size[1]}"
        return _built(folder, PixelPipeline, unet, size, metadata=metadata, identity=identity, domain=draws)
    if draws is not None:
        raise UserError(f"model.draws={draws} was given, but a {folder.kind} draws what the prompt says; leave it out")

    vae = _network(folder, "vae", AutoencoderKL, mx.float32)
    size = _size(folder, unet.config, vae.config.downsampling, *wished)
    metadata["guidance_scale"] = GUIDANCE[len(folder.readers)]

    return _built(
        folder,
        LatentPipeline,
        unet,
        vae,
        _encoders(folder, chosen, unet.config),
        size,
        metadata=metadata,
        identity=f"{content_hash} {name} {size[0]}x{size[1]}",
        negative_prompt=negative_prompt,
        zero_null=bool(folder.options.get("force_zeros_for_empty_prompt", len(folder.readers) > 1)),
    )


def _warn_of_the_cpu(precision: str) -> None:
    """Say what a precision for GPUs costs elsewhere; measured on a linear layer of 1280 channels."""
    if precision == "float32" or mx.default_device() != mx.cpu:
        return

    quantised = precision_of(precision).unet_bits is not None
    log.warning(
        "model.precision=%s is for GPUs: on a CPU, linear layers take up to %s times as long as in float32; leave it "
        "out, or expect to wait",
        precision,
        "1,500" if quantised else "20",
    )


def _network(folder: PipelineFolder, name: str, kind: type, dtype: mx.Dtype) -> Any:
    """A network of a pipeline; refused if it is none of that class."""
    found = load_diffusers(folder.model(name), dtype=dtype, variant=folder.variant)
    if type(found) is not kind:
        raise UserError(
            f"{folder.path}: the {name} of a {folder.kind} must be a {kind.__name__}, got {type(found).__name__}"
        )

    return found


def _built(folder: PipelineFolder, kind: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return kind(*arguments, **options)
    except ValueError as error:
        raise UserError(f"{folder.path}: {error}") from error


def _encoders(folder: PipelineFolder, precision: Precision, config: Any) -> list[TextEncoder]:
    """The text encoders of a pipeline; refused if their channels are not those that its U-Net attends to."""
    found = [TextEncoder.open(words, encoder, precision, folder.variant) for encoder, words in folder.readers]

    given, wanted = sum(encoder.width for encoder in found), {config.context_dims[i] for i in config.attention_levels}
    if wanted - {given}:
        raise UserError(
            f"{folder.path}: its texts have {given} channels and its U-Net attends to {max(wanted - {given})}; the "
            "text encoder is that of another model"
        )

    return found


def _size(folder: PipelineFolder, config: Any, factor: int, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of the images: as given, or as trained.

    Args:
        folder: For the sentences.
        config: Of the U-Net.
        factor: Pixels per latent, in each direction.
        height: Wished for, or None.
        width: Wished for, or None.

    Raises:
        UserError: for a size that the networks cannot halve often enough, one that is too large, or an unknown one.
    """
    sides = config.sides
    multiple = factor * 2 ** (config.levels - 1)

    found = []
    for name, given, side in (("height", height, sides[0]), ("width", width, sides[1])):
        if given is None and side is None:
            raise UserError(f"{folder.path} does not say how large its pictures are; give model.height and model.width")

        value = side * factor if given is None else given
        if value < multiple or value % multiple:
            raise UserError(
                f"model.{name} must be a multiple of {multiple}, since this model halves its pictures that often, got "
                f"{value}"
            )
        if value > LARGEST:
            raise UserError(f"model.{name} must be at most {LARGEST} pixels, got {value}")

        found.append(value)

    return found[0], found[1]
