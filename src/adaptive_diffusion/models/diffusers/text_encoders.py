"""Encoding of prompts for a U-Net: one CLIP text encoder in Stable Diffusion 1 and 2, two in SDXL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...errors import UnusableFile
from .clip_text import CLIPTextConfig
from .loading import build_model, load_diffusers
from .precision import Precision, quantise
from .prompt_tokenizer import PromptTokenizer


@dataclass(frozen=True)
class EncodedTexts:
    """Encoded texts, the context of a U-Net.

    Attributes:
        states: (N, M, D), a vector for each token.
        pooled: (N, P), a vector for the whole text in SDXL; else None.
    """

    states: mx.array
    pooled: mx.array | None = None

    def zeros(self) -> EncodedTexts:
        """Zeros of the same shapes."""
        return EncodedTexts(mx.zeros_like(self.states), None if self.pooled is None else mx.zeros_like(self.pooled))


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer, and a CLIP text encoder that is in memory only while it encodes.

    Attributes:
        tokenizer: The tokenizer.
        width: Channels of the encoded tokens.
        folder: Folder of the encoder.
        precision: Precision of the weights in memory.
        variant: Variant of the weight files, or None.
    """

    tokenizer: PromptTokenizer
    width: int
    folder: Path
    precision: Precision
    variant: str | None

    @classmethod
    def open(cls, tokenizer: Path, folder: Path, precision: Precision, variant: str | None) -> TextEncoder:
        """Read the tokenizer and the configuration of the encoder.

        Raises:
            UnusableFile: if one of them cannot be used, or they do not fit each other.
        """
        config = build_model(folder).config
        if not isinstance(config, CLIPTextConfig):
            raise UnusableFile(f"{folder} must hold a CLIP text encoder, and its config.json describes another model")

        words = PromptTokenizer(tokenizer, config.max_position_embeddings)
        if words.vocab_size > config.vocab_size:
            raise UnusableFile(
                f"the tokenizer in {tokenizer} has {words.vocab_size} tokens and its text encoder {config.vocab_size}; "
                "they belong to different models"
            )

        return cls(words, config.hidden_size, folder, precision, variant)

    def __call__(self, texts: list[str]) -> Any:
        """Load the encoder and encode texts; returns a `CLIPTextOutput`."""
        encoder: Any = load_diffusers(self.folder, dtype=self.precision.dtype, variant=self.variant)
        quantise(encoder, self.precision.text_bits)
        output = encoder(mx.array(self.tokenizer(texts)))
        mx.eval(output.last_hidden_state)
        return output


def encode(encoders: Sequence[TextEncoder], texts: list[str]) -> EncodedTexts:
    """Encode texts with the encoders of a pipeline.

    With one encoder, the states are its normalised last states. With two (SDXL), they are the states before the last
    layers of both, concatenated along the channels; the second encoder also gives the pooled text.
    """
    if len(encoders) == 1:
        return EncodedTexts(encoders[0](texts).last_hidden_state)

    outputs = [encoder(texts) for encoder in encoders]
    states = mx.concatenate([output.hidden_states[-2] for output in outputs], axis=-1)
    return EncodedTexts(states, outputs[-1].text_embeds)
