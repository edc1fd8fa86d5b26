"""UNet2DModel of diffusers: the pixel-space U-Net of google/ddpm-* and of converted ADM models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_choice, check_count
from .attention import AttentionBlock
from .blocks import MidBlock, down_path, up_path
from .layers import Downsample2D, Upsample2D
from .unet import UNet, UNetConfig

log = logging.getLogger(__name__)

DOWN_BLOCKS = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D")
UP_BLOCKS = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")


@dataclass(frozen=True)
class UNet2DConfig(UNetConfig):
    """The architecture of a `UNet2DModel`; see also `UNetConfig`.

    Attributes:
        downsample_type: Kind of the downsampling after levels with attention, "conv" or "resnet".
        upsample_type: Kind of the upsampling after levels with attention, "conv" or "resnet".
        attention_head_dim: Channels per attention head; None for one head.
        attn_norm_num_groups: Groups of the normalisation of the attention in the middle; None: `norm_num_groups`, or
            no normalisation with "scale_shift".
        add_attention: Whether the middle has attention.
    """

    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    attention_head_dim: int | None = 8
    attn_norm_num_groups: int | None = None
    add_attention: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("layers_per_block", self.layers_per_block, 1)
        self._names("down_block_types", DOWN_BLOCKS)
        self._names("up_block_types", UP_BLOCKS)
        self._names("mid_block_type", ("UNetMidBlock2D", None))
        check_choice("downsample_type", self.downsample_type, ("conv", "resnet"))
        check_choice("upsample_type", self.upsample_type, ("conv", "resnet"))

        if self.attn_norm_num_groups is not None:
            self._widths("block_out_channels", "attn_norm_num_groups")

        for level in self.attention_levels:
            width = self.block_out_channels[level]
            if self.attention_head_dim is not None and width % check_count(
                "attention_head_dim", self.attention_head_dim, 1
            ):
                raise ValueError(f"attention_head_dim = {self.attention_head_dim} must divide the {width} channels")

    @property
    def attention_levels(self) -> set[int]:
        """Levels (0 = finest) with attention on the way down, up or in the middle."""
        levels = {i for i, kind in enumerate(self.down_block_types) if "Attn" in kind}
        levels |= {self.levels - 1 - i for i, kind in enumerate(self.up_block_types) if "Attn" in kind}
        return levels | ({self.levels - 1} if self.mid_block_type and self.add_attention else set())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from the content of a `config.json`; warns if the number of attention heads was probably lost."""
        config = super().from_dict(values)
        if "attention_head_dim" not in values and config.attention_levels:
            log.warning(
                "config.json does not give attention_head_dim, which means 8 channels per attention head; copies of "
                "the google/ddpm-* models often lost their null, which means one head"
            )

        return config


class UNet2DModel(UNet):
    """Predicts noise, v or x0, as trained, from a noisy image and its timestep."""

    def __init__(self, config: UNet2DConfig | None = None):
        config = config or UNet2DConfig()
        super().__init__(config)
        widths, resnet = config.block_out_channels, self._resnet()

        def attention(kind: str, level: int) -> nn.Module | None:
            return self._attention(widths[level], config.norm_num_groups) if "Attn" in kind else None

        def downsampler(level: int) -> nn.Module:
            kind, width = config.down_block_types[level], widths[level]
            if kind == "ResnetDownsampleBlock2D" or (kind == "AttnDownBlock2D" and config.downsample_type == "resnet"):
                return resnet(width, width, resample="down")
            return Downsample2D(width, config.downsample_padding)

        def upsampler(level: int) -> nn.Module:
            kind, width = up_kinds[level], widths[level]
            if kind == "ResnetUpsampleBlock2D" or (kind == "AttnUpBlock2D" and config.upsample_type == "resnet"):
                return resnet(width, width, resample="up")
            return Upsample2D(width)

        up_kinds = config.up_block_types[::-1]
        self.down_blocks = down_path(
            widths,
            config.layers,
            resnet=resnet,
            attention=lambda level, _: attention(config.down_block_types[level], level),
            downsampler=downsampler,
        )
        self.mid_block = self._middle() if config.mid_block_type else None
        self.up_blocks = up_path(
            widths,
            config.layers,
            resnet=resnet,
            attention=lambda level, _: attention(up_kinds[level], level),
            upsampler=upsampler,
        )

    @property
    def config(self) -> UNet2DConfig:
        """The architecture of the network."""
        return self._config

    def _attention(self, width: int, groups: int | None, scale_factor: float = 1.0) -> AttentionBlock:
        heads = width // (self.config.attention_head_dim or width)
        return AttentionBlock(width, heads=heads, groups=groups, eps=self.config.norm_eps, scale_factor=scale_factor)

    def _middle(self) -> MidBlock:
        config, width = self.config, self.config.block_out_channels[-1]
        scale = config.mid_block_scale_factor

        groups = config.attn_norm_num_groups
        if groups is None and config.resnet_time_scale_shift == "default":
            groups = config.norm_num_groups

        resnets: list[nn.Module] = [self._resnet()(width, width, scale_factor=scale) for _ in range(2)]
        return MidBlock(resnets, [self._attention(width, groups, scale)] if config.add_attention else [])

    def __call__(self, x: mx.array, t: mx.array, class_labels: mx.array | None = None) -> mx.array:
        """Predict for a batch.

        Args:
            x: (B, H, W, in_channels) noisy images; H and W multiples of 2 ** (levels - 1).
            t: (B,) timesteps in [0, T - 1], or a scalar for the whole batch.
            class_labels: (B,) integers, for a class-conditional model.

        Returns:
            (B, H, W, out_channels), in the type of `x`.

        Raises:
            ValueError: for another shape, or for a missing or an unexpected class.
        """
        return self._run(x, self._embed(x, t, class_labels))
