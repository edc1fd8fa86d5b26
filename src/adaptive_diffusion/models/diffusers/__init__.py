"""The networks of diffusers checkpoints in MLX, the loader of their folders, and whole pipelines."""

from .autoencoder_kl import AutoencoderKL as AutoencoderKL
from .loading import build_model as build_model
from .loading import load_diffusers as load_diffusers
from .pipeline_loading import load_pipeline as load_pipeline
from .pipelines import LatentPipeline as LatentPipeline
from .unet_2d import UNet2DConfig as UNet2DConfig
from .unet_2d import UNet2DModel as UNet2DModel
