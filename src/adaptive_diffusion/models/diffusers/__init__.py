"""The networks of diffusers checkpoints in MLX, the loader of their folders, and whole pipelines."""

from .autoencoder_kl import AutoencoderKL as AutoencoderKL
from .autoencoder_kl import AutoencoderKLConfig as AutoencoderKLConfig
from .clip_text import CLIPTextConfig as CLIPTextConfig
from .clip_text import CLIPTextModel as CLIPTextModel
from .clip_text import CLIPTextModelWithProjection as CLIPTextModelWithProjection
from .clip_text import CLIPTextOutput as CLIPTextOutput
from .loading import DiffusersModel as DiffusersModel
from .loading import build_model as build_model
from .loading import load_diffusers as load_diffusers
from .pipeline_loading import load_pipeline as load_pipeline
from .pipelines import ClassPipeline as ClassPipeline
from .pipelines import LatentPipeline as LatentPipeline
from .pipelines import PixelPipeline as PixelPipeline
from .unet_2d import UNet2DConfig as UNet2DConfig
from .unet_2d import UNet2DModel as UNet2DModel
from .unet_2d_condition import UNet2DConditionConfig as UNet2DConditionConfig
from .unet_2d_condition import UNet2DConditionModel as UNet2DConditionModel
