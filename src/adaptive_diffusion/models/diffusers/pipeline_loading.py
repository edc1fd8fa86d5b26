"""Load a pipeline of diffusers from a folder or a hub id."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import mlx.core as mx

from ...diffusion.checks import LARGEST_IMAGE, check_count
from ...errors import UnusableFile
from ...types import PictureModel
from .autoencoder_kl import AutoencoderKL
from .loading import load_diffusers
from .pipeline_folder import PIXEL_PIPELINES, PipelineFolder
from .pipelines import ClassPipeline, LatentPipeline, PixelPipeline
from .precision import Precision, precision_of, quantise
from .source import pipeline_folder
from .text_encoders import TextEncoder
from .trained_noise import read_trained_noise
from .unet_2d import UNet2DModel
from .unet_2d_condition import UNet2DConditionModel

log = logging.getLogger(__name__)

# Number of text encoders -> default guidance of diffusers: Stable Diffusion, SDXL.
GUIDANCE = {1: 7.5, 2: 5.0}


def load_pipeline(
    path: str,
    revision: str | None = None,
    precision: str | None = None,
    height: int | None = None,
    width: int | None = None,
    negative_prompt: str | None = None,
    draws: str | None = None,
) -> PictureModel:
    """Load a DDPM or Stable Diffusion pipeline (1.x, 2.x, XL) in the layout of diffusers.

    Args:
        path: Folder of the pipeline, or hub id "owner/name".
        revision: Branch, tag or commit on the hub; None: the cached version, or the newest if none is cached.
        precision: `float32`, `float16`, `bfloat16`, `8bit`, `4bit` (linear layers in 8 or 4 bit, the rest in float16)
            or `low_memory` (8 bit, text encoders 4 bit). None: float16 for Stable Diffusion on a GPU, else float32. A
            CPU is slow in every precision but float32.
        height: Height of the images, pixels; None: as in the training of the model.
        width: Width of the images, likewise.
        negative_prompt: For Stable Diffusion, a description of unwanted images; guidance leads away from it.
        draws: For models without text, the domain of the images; None if unknown.

    Raises:
        ValueError: for an argument out of range, or one that this kind of pipeline does not take.
        UnusableFile: if the pipeline cannot be found, fetched or used, with the reason.
        MissingPackage: if it has to be fetched, without `huggingface_hub`.
        MachineError: if the disk is full.
    """
    try:
        return _loaded(path, revision, precision, (height, width), negative_prompt, draws)
    except PermissionError as error:
        raise UnusableFile(
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
    """Load a pipeline, see `load_pipeline`; `wished` is (height, width)."""
    for argument, text in (("negative_prompt", negative_prompt), ("draws", draws)):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{argument} must be a text, the same for all images, got {text!r:.80}")

    name = precision or ("float16" if mx.default_device() == mx.gpu else "float32")
    try:
        half = precision_of(name).half
    except ValueError as error:
        raise ValueError(f"model.{error}") from None

    _warn_of_the_cpu(name)
    folder = PipelineFolder.open(pipeline_folder(path, revision, half), half)
    latent = folder.kind not in PIXEL_PIPELINES

    # By default, pixel models are float32 on every device.
    if precision is None and not latent:
        name, folder = "float32", replace(folder, variant=None)
    chosen = precision_of(name)

    noise = read_trained_noise(folder.path)
    if (ratio := noise.pop("thresholding_ratio")) is not None:
        log.warning(
            "the model's own scheduler thresholds (scheduler_config.json), which is for the run to say here: "
            "+scheduler.thresholding=true +scheduler.dynamic_thresholding_ratio=%s",
            ratio,
        )

    metadata = {**noise, "content_hash": folder.content_hash(), "kind": folder.kind}

    unet = _network(folder, "unet", UNet2DConditionModel if latent else UNet2DModel, chosen.dtype)
    quantise(unet, chosen.unet_bits)

    if latent:
        if draws is not None:
            raise ValueError(f"draws={draws} was given, but a {folder.kind} draws what the prompt says; leave it out")
        return _latent_pipeline(folder, name, unet, metadata, wished, negative_prompt)

    if negative_prompt is not None:
        raise ValueError(f"negative_prompt was given, but a {folder.kind} reads no text; leave it out")
    size = _size(folder, unet.config, 1, *wished)
    identity = _identity(metadata, name, size)
    pipeline = PixelPipeline if unet.config.num_class_embeds is None else ClassPipeline
    return _built(folder, pipeline, unet, size, metadata=metadata, identity=identity, domain=draws)


def _latent_pipeline(
    folder: PipelineFolder,
    precision: str,
    unet: Any,
    metadata: dict[str, Any],
    wished: tuple[int | None, int | None],
    negative_prompt: str | None,
) -> PictureModel:
    """Stable Diffusion: the U-Net with decoder and text encoders."""
    vae = _network(folder, "vae", AutoencoderKL, mx.float32)
    size = _size(folder, unet.config, vae.config.downsampling, *wished)
    metadata = {**metadata, "guidance_scale": GUIDANCE[len(folder.readers)]}

    return _built(
        folder,
        LatentPipeline,
        unet,
        vae,
        _encoders(folder, precision_of(precision), unet.config),
        size,
        metadata=metadata,
        identity=_identity(metadata, precision, size),
        negative_prompt=negative_prompt,
        zero_null=bool(folder.options.get("force_zeros_for_empty_prompt", len(folder.readers) > 1)),
    )


def _identity(metadata: dict[str, Any], precision: str, size: tuple[int, int]) -> str:
    """Hash and settings that decide the predictions of a pipeline."""
    return f"{metadata['content_hash']} {precision} {size[0]}x{size[1]}"


def _warn_of_the_cpu(precision: str) -> None:
    """Warn that a precision for GPUs is slow on a CPU (docs/notes/tried.md)."""
    if precision == "float32" or mx.default_device() != mx.cpu:
        return

    quantised = precision_of(precision).unet_bits is not None
    log.warning(
        "precision=%s is for GPUs: on a CPU, linear layers take up to %s times as long as in float32; leave it "
        "out, or expect to wait",
        precision,
        "1,500" if quantised else "20",
    )


def _network(folder: PipelineFolder, name: str, kind: type, dtype: mx.Dtype) -> Any:
    """Load a network of a pipeline; another class than `kind` is refused."""
    network = load_diffusers(folder.model(name), dtype=dtype, variant=folder.variant)
    if type(network) is not kind:
        raise UnusableFile(
            f"{folder.path}: the {name} of a {folder.kind} must be a {kind.__name__}, got {type(network).__name__}"
        )

    return network


def _built(folder: PipelineFolder, kind: Any, *arguments: Any, **options: Any) -> Any:
    """Build a pipeline; its ValueError about the networks becomes an error about the folder."""
    try:
        return kind(*arguments, **options)
    except ValueError as error:
        raise UnusableFile(f"{folder.path}: {error}") from error


def _encoders(folder: PipelineFolder, precision: Precision, config: Any) -> list[TextEncoder]:
    """The text encoders of a pipeline; their channels must be the context channels of the U-Net."""
    encoders = [
        TextEncoder.open(tokenizer, encoder, precision, folder.variant) for encoder, tokenizer in folder.readers
    ]

    given = sum(encoder.width for encoder in encoders)
    wanted = {config.context_dims[level] for level in config.attention_levels}
    if wanted - {given}:
        raise UnusableFile(
            f"{folder.path}: its texts have {given} channels and its U-Net attends to {max(wanted - {given})}; the "
            "text encoder is that of another model"
        )

    return encoders


def _size(folder: PipelineFolder, config: Any, factor: int, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of the images: the wanted size, or the size of the training.

    Args:
        folder: The pipeline, for the errors.
        config: Architecture of the U-Net.
        factor: Pixels per latent, in each direction.
        height: Wanted height, or None.
        width: Wanted width, or None.

    Raises:
        ValueError: for a size that the networks cannot halve often enough, or that is too large or unknown.
    """
    sides = config.sides
    multiple = factor * 2 ** (config.levels - 1)

    size = []
    for name, given, side in (("height", height, sides[0]), ("width", width, sides[1])):
        if given is None and side is None:
            raise ValueError(f"{folder.path} does not say how large its images are; give height and width")

        value = check_count(name, side * factor if given is None else given, 1, LARGEST_IMAGE)
        if value % multiple:
            raise ValueError(
                f"{name} must be a multiple of {multiple}, since this model halves its images that often, got {value}"
            )
        size.append(value)

    return size[0], size[1]
