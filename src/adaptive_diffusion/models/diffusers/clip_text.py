"""The text encoders of Stable Diffusion: CLIPTextModel and CLIPTextModelWithProjection of transformers.

The text tower of CLIP (Radford et al., 2021). Attributes have the names of transformers 5, without the prefix
`text_model.` of CLIPTextModel; the loader accepts files with the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_count, check_number
from .attention import multi_head_attention
from .config import ModelConfig, check_layers

ACTIVATIONS = {"quick_gelu": nn.gelu_fast_approx, "gelu": nn.gelu}
HIGHEST_ID = 2  # as `eos_token_id`, early configurations mean "the highest id of the sequence" by it


@dataclass(frozen=True)
class CLIPTowerConfig(ModelConfig):
    """The architecture of a tower of CLIP, of texts or of images.

    Attributes:
        hidden_size: Channels.
        intermediate_size: Channels inside the feed-forward layers.
        num_hidden_layers: Transformer layers.
        num_attention_heads: Attention heads of each layer.
        hidden_act: "quick_gelu" (OpenAI) or "gelu" (OpenCLIP).
        layer_norm_eps: Epsilon of the normalisations.
    """

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    WARN_UNKNOWN: ClassVar[bool] = False  # the files list all options of text generation

    def __post_init__(self) -> None:
        self._count("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        check_layers(self.num_hidden_layers)
        self._names("hidden_act", tuple(ACTIVATIONS))
        check_number("layer_norm_eps", self.layer_norm_eps, 0, above=True)

        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} must divide hidden_size = {self.hidden_size}"
            )


@dataclass(frozen=True)
class CLIPTextConfig(CLIPTowerConfig):
    """The architecture of a CLIP text encoder.

    Attributes:
        vocab_size: Number of tokens.
        max_position_embeddings: Longest sequence, tokens.
        eos_token_id: The sequence is pooled at the first such token; 2 stands for the highest id in the sequence.
        projection_dim: Channels of the projected embedding, in a model with projection.
    """

    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407
    projection_dim: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count("vocab_size", "max_position_embeddings", "projection_dim")
        check_count("eos_token_id", self.eos_token_id, 0)


@dataclass(frozen=True)
class CLIPTextOutput:
    """An encoded text.

    Attributes:
        last_hidden_state: (B, M, hidden_size), after the final normalisation.
        hidden_states: The embeddings and the output of every layer, (B, M, hidden_size) each, before the final
            normalisation. SDXL uses the second to last.
        pooler_output: (B, hidden_size), `last_hidden_state` at the end of the text.
        text_embeds: (B, projection_dim), the projected `pooler_output`; None in a model without projection.
    """

    last_hidden_state: mx.array
    hidden_states: tuple[mx.array, ...]
    pooler_output: mx.array
    text_embeds: mx.array | None = None


class CLIPAttention(nn.Module):
    """Multi-head self-attention with biases; `mask` as of `multi_head_attention`."""

    def __init__(self, config: CLIPTowerConfig):
        super().__init__()
        width = config.hidden_size
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = config.num_attention_heads

    def __call__(self, x: mx.array, mask: str | None) -> mx.array:
        h = multi_head_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, mask)
        return self.out_proj(h)


class CLIPMLP(nn.Module):
    """Two linear layers with the activation of the configuration between them."""

    def __init__(self, config: CLIPTowerConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(self.activation(self.fc1(x)))


class CLIPEncoderLayer(nn.Module):
    """Attention and feed-forward layer, each after a LayerNorm and with a residual."""

    def __init__(self, config: CLIPTowerConfig):
        super().__init__()
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, x: mx.array, mask: str | None) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class CLIPTextEmbeddings(nn.Module):
    """Token and position embeddings, added."""

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def __call__(self, input_ids: mx.array) -> mx.array:
        return self.token_embedding(input_ids) + self.position_embedding(mx.arange(input_ids.shape[1]))


class CLIPEncoder(nn.Module):
    """The layers, one after another; gives the input and the output of every layer."""

    def __init__(self, config: CLIPTowerConfig):
        super().__init__()
        self.layers = [CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers)]

    def __call__(self, x: mx.array, mask: str | None = None) -> tuple[mx.array, ...]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return tuple(states)


class CLIPTextModel(nn.Module):
    """Encodes tokens: the text encoder of Stable Diffusion 1.x and 2.x, and the first text encoder of SDXL."""

    def __init__(self, config: CLIPTextConfig | None = None):
        super().__init__()
        self._config = config = config or CLIPTextConfig()
        self.embeddings = CLIPTextEmbeddings(config)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @property
    def config(self) -> CLIPTextConfig:
        """The architecture of the network."""
        return self._config

    def __call__(self, input_ids: mx.array) -> CLIPTextOutput:
        """Encode a batch.

        Args:
            input_ids: (B, M) token ids with begin and end of text and padding; M is at most
                `config.max_position_embeddings`.

        Raises:
            ValueError: for another shape.
        """
        longest = self.config.max_position_embeddings
        if input_ids.ndim != 2 or not 0 < input_ids.shape[1] <= longest:
            raise ValueError(f"input_ids must have shape (B, M) with M in 1..{longest}, got {tuple(input_ids.shape)}")

        states = self.encoder(self.embeddings(input_ids), "causal")
        last, eos = self.final_layer_norm(states[-1]), self.config.eos_token_id

        # `argmax` gives the first of several end tokens.
        end = mx.argmax(input_ids if eos == HIGHEST_ID else input_ids == eos, axis=-1)

        return CLIPTextOutput(last, states, last[mx.arange(len(last)), end])


class CLIPTextModelWithProjection(nn.Module):
    """`CLIPTextModel` with a linear map of the pooled text: the second text encoder of SDXL."""

    def __init__(self, config: CLIPTextConfig | None = None):
        super().__init__()
        config = config or CLIPTextConfig()
        self.text_model = CLIPTextModel(config)
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    @property
    def config(self) -> CLIPTextConfig:
        """The architecture of the network."""
        return self.text_model.config

    def __call__(self, input_ids: mx.array) -> CLIPTextOutput:
        """Encode a batch, see `CLIPTextModel`; `text_embeds` is the projected pooled text."""
        output = self.text_model(input_ids)
        return CLIPTextOutput(
            output.last_hidden_state,
            output.hidden_states,
            output.pooler_output,
            self.text_projection(output.pooler_output),
        )
