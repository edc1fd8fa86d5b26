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
class EncodedText:
    """An encoded text, the context of a U-Net.

    Attributes:
        states: (M, D), a vector for each token.
        pooled: (P,), a vector for the whole text in SDXL; else None.
    """

    states: mx.array
    pooled: mx.array | None = None

    def zeros(self) -> EncodedText:
        """Zeros of the same shapes."""
        return EncodedText(mx.zeros_like(self.states), None if self.pooled is None else mx.zeros_like(self.pooled))


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

    def __call__(self, texts: list[str]) -> list[Any]:
        """Load the encoder and encode texts; returns a `CLIPTextOutput` of each.

        Each text is encoded alone: in a batch, its rounding errors would depend on the other texts.
        """
        encoder: Any = load_diffusers(self.folder, dtype=self.precision.dtype, variant=self.variant)
        quantise(encoder, self.precision.text_bits)
        outputs = [encoder(mx.array(tokens[None])) for tokens in self.tokenizer(texts)]
        mx.eval([output.last_hidden_state for output in outputs])
        return outputs


def encode(encoders: Sequence[TextEncoder], texts: list[str]) -> list[EncodedText]:
    """Encode texts with the encoders of a pipeline.

    With one encoder, the states are its normalised last states. With two (SDXL), they are the states before the last
    layers of both, concatenated along the channels; the second encoder also gives the pooled text.
    """
    by_text = list(zip(*(encoder(texts) for encoder in encoders), strict=True))
    if len(encoders) == 1:
        encoded = [EncodedText(output.last_hidden_state[0]) for (output,) in by_text]
    else:
        encoded = [
            EncodedText(
                mx.concatenate([output.hidden_states[-2][0] for output in outputs], axis=-1),
                outputs[-1].text_embeds[0],
            )
            for outputs in by_text
        ]
    mx.eval([(text.states, [] if text.pooled is None else text.pooled) for text in encoded])
    return encoded
