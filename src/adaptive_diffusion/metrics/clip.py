"""CLIP (Radford et al., 2021) in MLX: the image tower of models in Hugging Face's layout, beside the text tower.

Attributes have the names of the tensors in the files, so loading needs no table of names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..models.diffusers.clip_text import CLIPEncoder, CLIPTextConfig, CLIPTextModel, CLIPTowerConfig


@dataclass(frozen=True)
class VisionConfig(CLIPTowerConfig):
    """The architecture of the image tower, with the names and defaults of Hugging Face's config.json.

    Attributes:
        image_size: Side of the square image, pixels.
        patch_size: Side of a patch, pixels.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("image_size", "patch_size")


@dataclass(frozen=True)
class CLIPConfig:
    """The architecture of a CLIP model.

    Attributes:
        text: Text tower; its `projection_dim` is the width of the common space.
        vision: Image tower.
    """

    text: CLIPTextConfig
    vision: VisionConfig

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CLIPConfig:
        """Build from the content of a config.json; missing keys get Hugging Face's defaults.

        Raises:
            ValueError: for another kind of model, or values out of range.
        """
        if values.get("model_type") != "clip":
            raise ValueError(f"model_type must be clip, got {values.get('model_type')!r}")

        # "text_config_dict" is an older spelling; if a file has both, it wins.
        text, vision = (
            {**(values.get(tower) or {}), **(values.get(f"{tower}_dict") or {})}
            for tower in ("text_config", "vision_config")
        )
        text["projection_dim"] = values.get("projection_dim", 512)
        return cls(CLIPTextConfig.from_dict(text), VisionConfig.from_dict(vision))


class _VisionEmbeddings(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        patches = (config.image_size // config.patch_size) ** 2
        self.class_embedding = mx.zeros(config.hidden_size)
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size, bias=False)
        self.position_embedding = nn.Embedding(patches + 1, config.hidden_size)

    def __call__(self, pixels: mx.array) -> mx.array:
        patches = self.patch_embedding(pixels).flatten(1, 2)  # (B, P, C)
        B, _, C = patches.shape

        # The class token stands before the patches.
        first = mx.broadcast_to(self.class_embedding, (B, 1, C))
        return mx.concatenate([first, patches], axis=1) + self.position_embedding.weight


class _VisionModel(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.embeddings, self.encoder = _VisionEmbeddings(config), CLIPEncoder(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)  # spelled so in every file
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, pixels: mx.array) -> mx.array:
        """(B, S, S, 3) prepared images -> (B, C) output at the class token."""
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))[-1]
        return self.post_layernorm(x[:, 0])


class CLIPModel(nn.Module):
    """Both towers and their projections into the common space."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self._config = config
        self.text_model, self.vision_model = CLIPTextModel(config.text), _VisionModel(config.vision)
        self.text_projection = nn.Linear(config.text.hidden_size, config.text.projection_dim, bias=False)
        self.visual_projection = nn.Linear(config.vision.hidden_size, config.text.projection_dim, bias=False)

    @property
    def config(self) -> CLIPConfig:
        """The architecture."""
        return self._config

    def encode_pixels(self, pixels: mx.array) -> mx.array:
        """(B, S, S, 3) prepared images (see `clip_pictures`) -> (B, D), not normalised."""
        return self.visual_projection(self.vision_model(pixels))

    def encode_ids(self, ids: mx.array) -> mx.array:
        """(B, L) token ids with start and end -> (B, D), not normalised."""
        return self.text_projection(self.text_model(ids).pooler_output)
