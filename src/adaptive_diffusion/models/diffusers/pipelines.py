"""Pipelines of diffusers as denoisers, for all schedulers and samplers of this project.

A `PixelPipeline` draws images from noise, a `ClassPipeline` those of a class; a `LatentPipeline` draws the latents of
images from a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from ...diffusion.checks import check_class_ids
from ...diffusion.compiled import compiled
from ...errors import MachineError, Unusable
from ...types import UNKNOWN
from .autoencoder_kl import AutoencoderKL
from .text_encoders import EncodedText, TextEncoder, encode
from .unet_2d import UNet2DModel
from .unet_2d_condition import UNet2DConditionModel

LUMA = (0.299, 0.587, 0.114)  # brightness of red, green and blue (ITU-R BT.601), as in Pillow
LARGEST_ID = 2**31 - 1  # of a text
DECODED_AT_ONCE = 1024 * 1024  # pixels per call of the decoder; for more, Metal has returned zeros


class PixelPipeline:
    """A `UNet2DModel`, which draws images from noise alone.

    Args:
        unet: The network.
        size: (height, width) of the images, pixels.
        metadata: See `PictureModel`.
        identity: Hash and settings that decide the predictions.
        domain: Domain of the images, or None if unknown.

    Raises:
        ValueError: if the output of the network has other channels than its input.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        size: tuple[int, int],
        *,
        metadata: Mapping[str, Any],
        identity: str = "",
        domain: str | None = None,
    ):
        self.metadata = metadata
        self.identity = identity
        self.conditional = False
        self.domains: Mapping[str, Sequence[str]] | None = None if domain is None else {domain: ()}

        channels, config = unet.config.in_channels, unet.config
        self.state_shape = (*size, channels)
        self.picture_size = size

        predicted = 2 * channels if metadata.get("learned_variance") else channels
        if config.out_channels != predicted:
            raise ValueError(
                f"a U-Net of {channels} -> {config.out_channels} channels is not supported in a pipeline of pixels; "
                f"expected {channels} -> {predicted}"
            )

        self._predict = compiled(unet)

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """(B, H, W, C) noisy images and (B,) timesteps -> (B, H, W, C) prediction; see `Denoiser`."""
        return self._predict(x, t)[..., : x.shape[-1]]  # further channels are a learned variance

    def check_condition(self, condition: mx.array) -> None:
        """Refuse conditions: the network takes none. See `ChecksConditions`."""
        check_class_ids(condition, ())

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """(): the model has no condition. See `PictureModel.condition`."""
        if self.domains is not None and domain not in self.domains:
            known = next(iter(self.domains))
            if known == UNKNOWN:
                raise Unusable(f"domain={domain} was given; for this model give model.draws={domain} instead")
            raise Unusable(f"the model draws {known}, not {domain}; leave domain out, or give model.draws={domain}")
        return ()

    def encode(self, pictures: mx.array) -> mx.array:
        """(B, H, W, 3) images -> (B, H, W, C) states: the images, or grey images for a model of one channel.

        Raises:
            Unusable: for a model of other than one or three channels.
        """
        channels = self.state_shape[-1]
        if pictures.shape[-1] == channels:
            return pictures
        if channels != 1:
            raise Unusable(f"the model draws {channels} channels, so no image can be its beginning; leave it out")

        return (pictures * mx.array(LUMA)).sum(axis=-1, keepdims=True)

    def decode(self, x0: mx.array) -> mx.array:
        """Return the states: the network works on pixels."""
        return x0


class ClassPipeline(PixelPipeline):
    """A `UNet2DModel` that is told a class: `label=0`, `label=1` and so on; without a label, all in equal shares.

    It has no null class, so that it cannot be guided. Class ids are those of the network plus 1: 0 stays for the null
    class of `PictureModel`, and is refused.

    Args:
        unet: The network, with `num_class_embeds` classes.
        size: As in `PixelPipeline`.
        domain: Domain of the images; None: it is unknown.
        **known: As in `PixelPipeline`.
    """

    def __init__(self, unet: UNet2DModel, size: tuple[int, int], *, domain: str | None = None, **known: Any):
        super().__init__(unet, size, **known)
        self.conditional = True
        self._labels = tuple(str(k) for k in range(unet.config.num_class_embeds or 0))
        self.domains = {domain or UNKNOWN: self._labels}

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """(B, H, W, C) noisy images, (B,) timesteps and (B, 1) class ids -> (B, H, W, C) prediction.

        Raises:
            Unusable: without a class.
        """
        if condition is None or not mx.all(condition).item():
            raise Unusable(
                f"the model draws one of {len(self._labels)} classes and knows no image without one; choose label=0 to "
                f"label={len(self._labels) - 1}, and guidance_scale=1, since guidance compares with no class"
            )
        return self._predict(x, t, condition[:, 0] - 1)[..., : x.shape[-1]]

    def check_condition(self, condition: mx.array) -> None:
        """Refuse class ids that the network does not have. See `ChecksConditions`."""
        check_class_ids(condition, (len(self._labels),))

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """(class id,) of a label, () without one. See `PictureModel.condition`."""
        super().condition(domain, None, caption)
        if label is None:
            return ()
        if label not in self._labels:
            raise Unusable(f"label={label} was given; the model has the labels 0 to {len(self._labels) - 1}")
        return (int(label) + 1,)


class LatentPipeline:
    """Stable Diffusion: a `UNet2DConditionModel` on the latents of an `AutoencoderKL`, with texts as condition.

    Class id 0 is the negative prompt. The other ids are hashes of the texts of `condition`, so equal ids mean equal
    texts in all runs. A hash does not give a text, so ids that `condition` did not return are refused.

    Args:
        unet: The network.
        vae: Encoder and decoder of latents, in float32.
        encoders: One text encoder, or the two of SDXL.
        size: (height, width) of the images, pixels.
        metadata: See `PictureModel`.
        identity: Hash and settings that decide the predictions, without the negative prompt.
        negative_prompt: A description of unwanted images; None: the null text.
        zero_null: Whether the null text is encoded as zeros, as in the training of SDXL, and not as the empty text.

    Raises:
        ValueError: if input or output of the network have other channels than the latents of the decoder.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        encoders: Sequence[TextEncoder],
        size: tuple[int, int],
        *,
        metadata: Mapping[str, Any],
        identity: str = "",
        negative_prompt: str | None = None,
        zero_null: bool = False,
    ):
        self.metadata = {**metadata, "bounded": False}
        self.conditional = True
        self.domains: Mapping[str, Sequence[str]] | None = None
        self.picture_size = size

        factor, channels = vae.config.downsampling, vae.config.latent_channels
        self.state_shape = (size[0] // factor, size[1] // factor, channels)

        if (unet.config.in_channels, unet.config.out_channels) != (channels, channels):
            raise ValueError(
                f"a U-Net of {unet.config.in_channels} -> {unet.config.out_channels} channels is not supported with "
                f"latents of {channels}: it is made for something else, such as inpainting"
            )

        self._vae, self._encoders = vae, encoders
        self._null = (negative_prompt or "", zero_null and negative_prompt is None)
        self.identity = f"{identity} {json.dumps(self._null)}"

        self._texts = {0: self._null[0]}  # class id -> text
        self._encoded: dict[int, EncodedText] = {}

        self._predict = compiled(lambda x, t, states, more: unet(x, t, states, **more))
        self._sized = unet.config.addition_embed_type is not None
        self._half = unet.dtype == mx.float16

    def check_condition(self, condition: mx.array) -> None:
        """Refuse ids that `condition` did not return. See `ChecksConditions`."""
        check_class_ids(condition, (LARGEST_ID,))
        self._ids(condition)

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """The class id of a text; a new text is encoded. See `PictureModel.condition`."""
        if not caption.strip():
            raise Unusable("the prompt is empty; say what to draw, e.g. prompt='a mountain lake at dawn'")

        class_id = _class_id(caption)
        self._texts[class_id] = caption
        self._encode()
        return (class_id,)

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """Predict for a batch.

        Args:
            x: (B, h, w, C) noisy latents.
            t: (B,) timesteps in [0, T - 1].
            condition: (B, 1) ids of texts; None: the negative prompt for the whole batch.

        Returns:
            (B, h, w, C) prediction.

        Raises:
            Unusable: for an id that `condition` did not return.
        """
        encoded = self._encode()
        texts = [encoded[class_id] for class_id in ([0] * len(x) if condition is None else self._ids(condition))]
        more: dict[str, mx.array] = {}

        pooled = [text.pooled for text in texts if text.pooled is not None]
        if self._sized and pooled:
            height, width = self.picture_size
            # SDXL is conditioned on the original size, the corner of the crop and the target size, pixels.
            sizes = mx.array([height, width, 0, 0, height, width], mx.float32)
            more = {"text_embeds": mx.stack(pooled), "time_ids": mx.broadcast_to(sizes, (len(x), 6))}

        return self._predict(x, t, mx.stack([text.states for text in texts]), more)

    def encode(self, pictures: mx.array) -> mx.array:
        """(B, H, W, 3) images in [-1, 1] -> (B, h, w, C) most likely latents."""
        config, latents = self._vae.config, self._vae.encode(pictures.astype(mx.float32))
        if config.latents_mean is not None and config.latents_std is not None:
            return (latents - mx.array(config.latents_mean)) * config.scaling_factor / mx.array(config.latents_std)
        return (latents - (config.shift_factor or 0.0)) * config.scaling_factor

    def decode(self, x0: mx.array) -> mx.array:
        """(B, h, w, C) latents -> (B, H, W, 3) float32 images, about in [-1, 1], decoded in sub-batches.

        Raises:
            FloatingPointError: if the latents hold NaN or infinity.
            MachineError: if an image holds NaN or infinity, or has only one colour.
        """
        if not mx.isfinite(x0).all().item():
            advice = "precision=float32 or bfloat16" if self._half else "a smaller guidance_scale, or more steps"
            raise FloatingPointError(f"the latents hold NaN or infinity: the U-Net overflowed; use {advice}")

        height, width = self.picture_size
        at_once = max(1, DECODED_AT_ONCE // (height * width))
        pictures = []
        for start in range(0, len(x0), at_once):
            decoded = self._vae.decode(self._unscaled(x0[start : start + at_once].astype(mx.float32)))
            # An image of one colour is the sign of a GPU without memory: Metal returns zeros without an error.
            varied = decoded.max(axis=(1, 2, 3)) > decoded.min(axis=(1, 2, 3))
            if not (varied.all() & mx.isfinite(decoded).all()).item():
                raise MachineError(
                    "the decoder returned an image of one colour or of NaN, as happens when a GPU runs out of memory; "
                    "use a smaller batch_size or precision=low_memory"
                )

            pictures.append(decoded)

        return mx.concatenate(pictures)

    def _ids(self, condition: mx.array) -> list[int]:
        """The ids of the texts of a batch."""
        class_ids: Any = condition[:, 0].tolist()
        if unknown := [class_id for class_id in class_ids if class_id not in self._texts]:
            raise Unusable(
                f"this model was given no text with the id {unknown[0]}: ids are what its condition() returns; give "
                "the text to it first"
            )

        return list(class_ids)

    def _unscaled(self, latents: mx.array) -> mx.array:
        """Latents of the diffusion -> latents of the decoder, the inverse of the scaling in `encode`."""
        config = self._vae.config
        if config.latents_mean is not None and config.latents_std is not None:
            return latents * mx.array(config.latents_std) / config.scaling_factor + mx.array(config.latents_mean)
        return latents / config.scaling_factor + (config.shift_factor or 0.0)

    def _encode(self) -> dict[int, EncodedText]:
        """The encoded negative prompt and texts by their ids; each is encoded once, by threads perhaps twice."""
        new = {class_id: text for class_id, text in self._texts.copy().items() if class_id not in self._encoded}
        if new:
            for class_id, encoded in zip(new, encode(self._encoders, list(new.values())), strict=True):
                self._encoded[class_id] = encoded.zeros() if class_id == 0 and self._null[1] else encoded

        return self._encoded


def _class_id(text: str) -> int:
    """A positive 31-bit hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % LARGEST_ID + 1
