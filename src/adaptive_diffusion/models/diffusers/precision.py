"""How many bits the weights of a pipeline take in memory."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_choice

GROUP = 32  # weights that share a scale; layers whose rows it does not divide are left alone


@dataclass(frozen=True)
class Precision:
    """Types of the weights; the decoder of latents is float32 whatever it says, since it overflows in float16.

    Attributes:
        dtype: Of everything that is not quantised.
        unet_bits: Bits of the U-Net's linear layers, or None.
        text_bits: Bits of those of the text encoders, or None.
    """

    dtype: mx.Dtype
    unet_bits: int | None = None
    text_bits: int | None = None

    @property
    def half(self) -> bool:
        """Whether files in half precision lose nothing."""
        return self.dtype != mx.float32


PRECISIONS = {
    "float32": Precision(mx.float32),
    "float16": Precision(mx.float16),
    "bfloat16": Precision(mx.bfloat16),
    "8bit": Precision(mx.float16, unet_bits=8, text_bits=8),
    "4bit": Precision(mx.float16, unet_bits=4, text_bits=4),
    "low_memory": Precision(mx.float16, unet_bits=8, text_bits=4),
}


def precision_of(name: str) -> Precision:
    """The precision of a name.

    Raises:
        ValueError: for an unknown one.
    """
    check_choice("precision", name, tuple(PRECISIONS))
    return PRECISIONS[name]


def quantise(model: nn.Module, bits: int | None) -> None:
    """Replace the linear layers of a model by quantised ones, in place.

    Args:
        model: The network.
        bits: Bits per weight; None changes nothing.
    """
    if bits is not None:
        nn.quantize(model, GROUP, bits, class_predicate=lambda _, layer: _fits(layer))
        mx.eval(model.parameters())


def _fits(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.weight.shape[1] % GROUP == 0
