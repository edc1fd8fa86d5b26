"""CLIP (Radford et al., 2021) in MLX: the image and text towers of models in Hugging Face's layout.

Attributes have the names of the tensors in the files, so loading needs no table of names.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn


@dataclass(frozen=True)
class TowerConfig:
    """The architecture of one tower, with the names and defaults of Hugging Face's config.json.

    Attributes:
        hidden_size: Width C.
        intermediate_size: Width inside the MLPs.
        num_hidden_layers: Number of layers.
        num_attention_heads: Number of heads; divides `hidden_size`.
        hidden_act: "quick_gelu" (OpenAI) or "gelu" (most OpenCLIP models), as in training.
        layer_norm_eps: Added to the variance in layer normalisation.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.hidden_act not in ("quick_gelu", "gelu"):
            raise ValueError(f"hidden_act must be quick_gelu or gelu, got {self.hidden_act!r}")

        for field in fields(self):
            if field.type == "int" and not isinstance(getattr(self, field.name), int):
                raise ValueError(f"{field.name} must be an integer, got {getattr(self, field.name)!r}")

        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide hidden_size {self.hidden_size}")


@dataclass(frozen=True)
class TextConfig(TowerConfig):
    """The architecture of the text tower.

    Attributes:
        vocab_size: Number of tokens.
        max_position_embeddings: Largest number of tokens in a prompt.
        eos_token_id: The end token; its output represents the prompt. In old files, 2 stands for "the largest id".
    """

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclass(frozen=True)
class VisionConfig(TowerConfig):
    """The architecture of the image tower.

    Attributes:
        image_size: Side of the square image, pixels.
        patch_size: Side of a patch, pixels.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    image_size: int = 224
    patch_size: int = 32


@dataclass(frozen=True)
class CLIPConfig:
    """The architecture of a CLIP model.

    Attributes:
        text: Text tower.
        vision: Image tower.
        projection_dim: Width of the common space.
    """

    text: TextConfig
    vision: VisionConfig
    projection_dim: int = 512

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CLIPConfig:
        """Build from the content of a config.json; missing keys get Hugging Face's defaults.

        Raises:
            ValueError: for another kind of model, or values out of range.
        """
        if values.get("model_type") != "clip":
            raise ValueError(f"model_type must be clip, got {values.get('model_type')!r}")

        def settings(kind: type[TowerConfig], tower: str) -> dict[str, Any]:
            # "text_config_dict" is an older spelling; if a file has both, it wins.
            given = {**(values.get(tower) or {}), **(values.get(f"{tower}_dict") or {})}
            return {f.name: given[f.name] for f in fields(kind) if f.name in given}

        text, vision = settings(TextConfig, "text_config"), settings(VisionConfig, "vision_config")
        return cls(TextConfig(**text), VisionConfig(**vision), int(values.get("projection_dim", 512)))


def quick_gelu(x: mx.array) -> mx.array:
    """x sigmoid(1.702 x), OpenAI's approximation of GELU."""
    return x * mx.sigmoid(1.702 * x)


class _Attention(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        width = config.hidden_size
        self._heads = config.num_attention_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def __call__(self, x: mx.array, mask: str | None) -> mx.array:
        B, L, C = x.shape
        q, k, v = (
            projection(x).reshape(B, L, self._heads, -1).transpose(0, 2, 1, 3)  # (B, heads, L, C / heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        h = mx.fast.scaled_dot_product_attention(q, k, v, scale=(C // self._heads) ** -0.5, mask=mask)
        return self.out_proj(h.transpose(0, 2, 1, 3).reshape(B, L, C))


class _MLP(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self._act = quick_gelu if config.hidden_act == "quick_gelu" else nn.gelu
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(self._act(self.fc1(x)))


class _EncoderLayer(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.self_attn, self.mlp = _Attention(config), _MLP(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, x: mx.array, mask: str | None) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class _Encoder(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.layers = [_EncoderLayer(config) for _ in range(config.num_hidden_layers)]

    def __call__(self, x: mx.array, mask: str | None = None) -> mx.array:
        for layer in self.layers:
            x = layer(x, mask)
        return x


class _TextEmbeddings(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class _TextModel(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self._end = config.eos_token_id
        self.embeddings, self.encoder = _TextEmbeddings(config), _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, ids: mx.array) -> mx.array:
        """(B, L) ids -> (B, C) output at each prompt's end token."""
        x = self.encoder(self.embeddings(ids), "causal")  # (B, L, C)
        end = mx.argmax(ids if self._end == 2 else ids == self._end, axis=-1)
        return self.final_layer_norm(x[mx.arange(len(ids)), end])


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
        self.embeddings, self.encoder = _VisionEmbeddings(config), _Encoder(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)  # spelled so in every file
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, pixels: mx.array) -> mx.array:
        """(B, S, S, 3) prepared images -> (B, C) output at the class token."""
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return self.post_layernorm(x[:, 0])


class CLIPModel(nn.Module):
    """Both towers and their projections into the common space."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self._config = config
        self.text_model, self.vision_model = _TextModel(config.text), _VisionModel(config.vision)
        self.text_projection = nn.Linear(config.text.hidden_size, config.projection_dim, bias=False)
        self.visual_projection = nn.Linear(config.vision.hidden_size, config.projection_dim, bias=False)

    @property
    def config(self) -> CLIPConfig:
        """The architecture."""
        return self._config

    def encode_pixels(self, pixels: mx.array) -> mx.array:
        """(B, S, S, 3) prepared images (see `clip_pictures`) -> (B, D), not normalised."""
        return self.visual_projection(self.vision_model(pixels))

    def encode_ids(self, ids: mx.array) -> mx.array:
        """(B, L) token ids with start and end -> (B, D), not normalised."""
        return self.text_projection(self.text_model(ids))
