"""Tiny random pipelines of diffusers, written by its own save_pretrained: a second each, 16x16 images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary built as CLIP's: bytes, bytes that end a word, merges, start, end."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    merges = [("a", "n"), ("i", "n"), ("t", "h"), ("th", "e</w>"), ("l", "a"), ("la", "k"), ("lak", "e</w>")]
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(pair) for pair in merges)]
    return {t: i for i, t in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges


def tokenizer(pad: str = "<|endoftext|>") -> Any:
    """CLIP's tokenizer with that vocabulary; SD 2 and the second one of SDXL fill up with "!"."""
    tokens, merges = vocabulary()
    return transformers.CLIPTokenizer(tokens, merges, model_max_length=77, pad_token=pad)


def text_encoder(width: int = 32, act: str = "quick_gelu", projected: bool = False) -> Any:
    """A CLIP text encoder of two layers."""
    tokens, _ = vocabulary()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=48,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_act=act,
        bos_token_id=tokens["<|startoftext|>"],
        eos_token_id=tokens["<|endoftext|>"],
    )
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return moved(lambda: kind(config))


def unet(**options: Any) -> Any:
    """A U-Net of two levels on 8x8 latents that attends to 32 channels of text."""
    settings: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
    }
    return moved(lambda: diffusers.UNet2DConditionModel(**settings | options))


def vae(**options: Any) -> Any:
    """A decoder from 8x8 latents to 16x16 images."""
    settings: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    return moved(lambda: diffusers.AutoencoderKL(**settings | options))


def moved(build: Callable[[], Any]) -> Any:
    """A model, seed 0, with its one-dimensional parameters moved off 0 and 1, and predictions of about size 1."""
    with torch.no_grad():
        torch.manual_seed(0)
        model = build().eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            elif parameter.ndim == 2:
                parameter *= 3  # so that the text matters
    return model


def stable_diffusion(version: int = 1, **vae_options: Any) -> Any:
    """Stable Diffusion 1, or 2 with v-prediction, linear projections and another tokenizer."""
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if version == 1:
        scheduler = diffusers.PNDMScheduler(**SD_NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
        network, words, encoder = unet(), tokenizer(), text_encoder()
    else:
        scheduler = diffusers.DDIMScheduler(
            **SD_NOISE, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )
        network = unet(use_linear_projection=True, attention_head_dim=(2, 4))
        words, encoder = tokenizer("!"), text_encoder(act="gelu")
    return diffusers.StableDiffusionPipeline(
        unet=network, vae=vae(**vae_options), text_encoder=encoder, tokenizer=words, scheduler=scheduler, **parts
    )


def stable_diffusion_xl(**options: Any) -> Any:
    """SDXL: two text encoders, the pooled text and the image's size."""
    network = unet(
        use_linear_projection=True,
        attention_head_dim=(2, 4),
        cross_attention_dim=32 + 24,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return diffusers.StableDiffusionXLPipeline(
        unet=network,
        vae=vae(scaling_factor=0.13025),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        text_encoder_2=text_encoder(24, "gelu", projected=True),
        tokenizer_2=tokenizer("!"),
        scheduler=diffusers.EulerDiscreteScheduler(**SD_NOISE, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
        **options,
    )


def ddpm(**options: Any) -> Any:
    """An unconditional pixel-space pipeline, as google/ddpm-cifar10-32; num_class_embeds=K is told one of K classes."""
    network = moved(
        lambda: diffusers.UNet2DModel(
            sample_size=16,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            layers_per_block=1,
            attention_head_dim=None,
            norm_eps=1e-6,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            **options,
        )
    )
    return diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(variance_type="fixed_large"))


PIPELINES: dict[str, Callable[[], Any]] = {
    "ddpm": ddpm,
    "sd1": stable_diffusion,
    "sd2": lambda: stable_diffusion(2),
    "sdxl": stable_diffusion_xl,
}


def saved(kind: str, folder: Path) -> Path:
    """The folder of a pipeline."""
    pipeline = PIPELINES[kind]()
    pipeline.save_pretrained(folder)
    return folder
