"""The stages of the U-Nets and the autoencoder, and the arithmetic of their channels.

All supported blocks of diffusers are one of three stages, with or without attention. The networks choose the layers of
a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn

Resnet = Callable[[int, int], nn.Module]  # channels in, channels out -> residual block
Attention = Callable[[int, int], nn.Module | None]  # level, position in the stage -> attention
Resampler = Callable[[int], nn.Module]  # level -> change of resolution at the end of the level


class DownBlock(nn.Module):
    """Residual blocks of one level, each followed by attention (if any), then a downsampler."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module], downsampler: nn.Module | None):
        super().__init__()
        self.resnets, self.attentions = resnets, attentions
        self.downsamplers = [] if downsampler is None else [downsampler]

    def __call__(
        self, x: mx.array, temb: mx.array | None = None, context: mx.array | None = None
    ) -> tuple[mx.array, list[mx.array]]:
        """The output, and the skip connections for the way up."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, temb)
            if self.attentions:
                x = self.attentions[i](x, context)
            skips.append(x)

        for downsampler in self.downsamplers:
            x = downsampler(x, temb)
            skips.append(x)

        return x, skips


class MidBlock(nn.Module):
    """A residual block, then attention (if any) and residual blocks in turn."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module]):
        super().__init__()
        self.resnets, self.attentions = resnets, attentions

    def __call__(self, x: mx.array, temb: mx.array | None = None, context: mx.array | None = None) -> mx.array:
        x = self.resnets[0](x, temb)
        for i, resnet in enumerate(self.resnets[1:]):
            if self.attentions:
                x = self.attentions[i](x, context)
            x = resnet(x, temb)

        return x


class UpBlock(nn.Module):
    """Residual blocks of one level, each with the latest skip connection as further input, then an upsampler."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module], upsampler: nn.Module | None):
        super().__init__()
        self.resnets, self.attentions = resnets, attentions
        self.upsamplers = [] if upsampler is None else [upsampler]

    def __call__(
        self,
        x: mx.array,
        skips: list[mx.array] | None = None,
        temb: mx.array | None = None,
        context: mx.array | None = None,
    ) -> mx.array:
        """Run the stage; it removes its skip connections from the end of `skips` (None in a decoder)."""
        for i, resnet in enumerate(self.resnets):
            if skips is not None:
                x = mx.concatenate([x, skips.pop()], axis=-1)
            x = resnet(x, temb)
            if self.attentions:
                x = self.attentions[i](x, context)

        for upsampler in self.upsamplers:
            x = upsampler(x, temb)
        return x


def _present(attention: Attention, level: int, count: int) -> list[nn.Module]:
    return [module for i in range(count) if (module := attention(level, i)) is not None]


def down_path(
    widths: Sequence[int], counts: Sequence[int], *, resnet: Resnet, attention: Attention, downsampler: Resampler
) -> list[DownBlock]:
    """The stages from fine to coarse; all but the last halve the resolution.

    Args:
        widths: Channels per level, finest first.
        counts: Residual blocks per level.
        resnet: Builds a residual block.
        attention: Builds the attention after a residual block, or None.
        downsampler: Builds the end of a level.
    """
    blocks, previous = [], widths[0]
    for level, (width, count) in enumerate(zip(widths, counts, strict=True)):
        resnets = [resnet(previous if i == 0 else width, width) for i in range(count)]
        end = downsampler(level) if level < len(widths) - 1 else None
        blocks.append(DownBlock(resnets, _present(attention, level, count), end))
        previous = width

    return blocks


def up_path(
    widths: Sequence[int], counts: Sequence[int], *, resnet: Resnet, attention: Attention, upsampler: Resampler
) -> list[UpBlock]:
    """The stages of a U-Net from coarse to fine; all but the last double the resolution.

    A level has one residual block more than on the way down. This block takes the skip connection from the end of the
    finer level, which has the channels of the finer level. Arguments as for `down_path`, finest level first.
    """
    blocks, previous = [], widths[-1]
    for level in reversed(range(len(widths))):
        # The first block takes the channels of the coarser level, the last the skip connection of the finer level.
        width, finer, count = widths[level], widths[max(level - 1, 0)], counts[level] + 1
        resnets = [
            resnet((previous if i == 0 else width) + (finer if i == count - 1 else width), width) for i in range(count)
        ]
        blocks.append(UpBlock(resnets, _present(attention, level, count), upsampler(level) if level > 0 else None))
        previous = width

    return blocks
