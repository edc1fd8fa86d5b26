"""The networks of diffusers checkpoints in MLX, the loader of their folders, and whole pipelines."""

from .autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from .clip_text import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTextOutput
from .loading import DiffusersModel, build_model, load_diffusers
from .pipeline_loading import load_pipeline
from .pipelines import ClassPipeline, LatentPipeline, PixelPipeline
from .unet_2d import UNet2DConfig, UNet2DModel
from .unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel

__all__ = [
    "AutoencoderKL",
    "AutoencoderKLConfig",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPTextOutput",
    "ClassPipeline",
    "DiffusersModel",
    "LatentPipeline",
    "PixelPipeline",
    "UNet2DConditionConfig",
    "UNet2DConditionModel",
    "UNet2DConfig",
    "UNet2DModel",
    "build_model",
    "load_diffusers",
    "load_pipeline",
]
