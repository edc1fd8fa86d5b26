"""Types and bits of the weights of a pipeline in memory."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_choice

GROUP = 32  # weights with a common scale; layers whose rows it does not divide are not quantised


@dataclass(frozen=True)
class Precision:
    """Types of the weights of U-Net and text encoders. The decoder is always float32: it overflows in float16.

    Attributes:
        dtype: Type of all weights that are not quantised.
        unet_bits: Bits of the linear layers of the U-Net; None: not quantised.
        text_bits: Bits of the linear layers of the text encoders; None: not quantised.
    """

    dtype: mx.Dtype
    unet_bits: int | None = None
    text_bits: int | None = None

    @property
    def half(self) -> bool:
        """Whether files in half precision are as good as files in full precision."""
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
        ValueError: for an unknown name.
    """
    check_choice("precision", name, tuple(PRECISIONS))
    return PRECISIONS[name]


def quantise(model: nn.Module, bits: int | None) -> None:
    """Quantise the linear layers of a model in place.

    Args:
        model: The network.
        bits: Bits per weight; None changes nothing.
    """
    if bits is not None:
        nn.quantize(model, GROUP, bits, class_predicate=lambda _, layer: _fits(layer))
        mx.eval(model.parameters())


def _fits(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.weight.shape[1] % GROUP == 0
