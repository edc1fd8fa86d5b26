"""AutoencoderKL of diffusers: images to latents of Stable Diffusion and back (Rombach et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_number
from ..convolution import Conv3x3
from .attention import AttentionBlock
from .blocks import MidBlock, UpBlock, down_path
from .config import ModelConfig, check_layers, per_level
from .layers import Downsample2D, ResnetBlock2D, Upsample2D, group_norm

EPS = 1e-6  # epsilon of every normalisation; the reference has no option for it


@dataclass(frozen=True)
class AutoencoderKLConfig(ModelConfig):
    """The architecture of an `AutoencoderKL` and the scale of its latents.

    Attributes:
        in_channels: Channels of the input images.
        out_channels: Channels of the decoded images.
        down_block_types: One `DownEncoderBlock2D` per level.
        up_block_types: One `UpDecoderBlock2D` per level.
        block_out_channels: Channels of each level, finest first.
        layers_per_block: Residual blocks per level of the encoder; the decoder has one more.
        latent_channels: Channels of the latents.
        norm_num_groups: Groups of all normalisations.
        scaling_factor: Factor between the latents of the autoencoder and the latents of the diffusion.
        shift_factor: Subtracted from latents before scaling; None: 0.
        latents_mean: Mean of each latent channel, if a pipeline standardises latents.
        latents_std: Standard deviation of each latent channel.
        use_quant_conv: Whether a 1x1 convolution follows the encoder.
        use_post_quant_conv: Whether a 1x1 convolution precedes the decoder.
        mid_block_add_attention: Whether the middle blocks have attention.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    ONLY: ClassVar[dict[str, tuple[Any, ...]]] = {"act_fn": ("silu", "swish")}
    IGNORED: ClassVar[frozenset[str]] = frozenset({"sample_size", "force_upcast"})  # it is drawn in float32 in any case

    def __post_init__(self) -> None:
        self._count("in_channels", "out_channels", "latent_channels", "layers_per_block")
        self._widths("block_out_channels", "norm_num_groups")
        check_layers(self.layers_per_block * len(self.block_out_channels))
        self._names("down_block_types", ("DownEncoderBlock2D",))
        self._names("up_block_types", ("UpDecoderBlock2D",))

        for name in ("down_block_types", "up_block_types"):
            per_level(name, getattr(self, name), len(self.block_out_channels))

        check_number("scaling_factor", self.scaling_factor, 0, above=True)

    @property
    def downsampling(self) -> int:
        """Pixels per latent, in each direction."""
        return 2 ** (len(self.block_out_channels) - 1)


class _Coder(nn.Module):
    """Base of encoder and decoder: first and last convolution, middle block, and the residual block."""

    def __init__(self, config: AutoencoderKLConfig, in_channels: int, in_width: int, out_width: int, out_channels: int):
        super().__init__()
        width, groups = config.block_out_channels[-1], config.norm_num_groups
        self.conv_in = Conv3x3(in_channels, in_width)
        self.mid_block = MidBlock(
            [self._resnet(config)(width, width) for _ in range(2)],
            [AttentionBlock(width, heads=1, groups=groups, eps=EPS)] if config.mid_block_add_attention else [],
        )
        self.conv_norm_out = group_norm(groups, out_width, EPS)
        self.conv_out = Conv3x3(out_width, out_channels)

    @staticmethod
    def _resnet(config: AutoencoderKLConfig) -> partial[ResnetBlock2D]:
        return partial(ResnetBlock2D, temb_channels=None, groups=config.norm_num_groups, eps=EPS)

    def _finish(self, h: mx.array) -> mx.array:
        return self.conv_out(nn.silu(self.conv_norm_out(h)))


class Encoder(_Coder):
    """(B, H, W, in_channels) images -> (B, H / f, W / f, 2 latent_channels) mean and log-variance."""

    def __init__(self, config: AutoencoderKLConfig):
        widths = config.block_out_channels
        super().__init__(config, config.in_channels, widths[0], widths[-1], 2 * config.latent_channels)
        self.down_blocks = down_path(
            widths,
            [config.layers_per_block] * len(widths),
            resnet=self._resnet(config),
            attention=lambda level, i: None,
            downsampler=lambda level: Downsample2D(widths[level], padding=0),
        )

    def __call__(self, x: mx.array) -> mx.array:
        h = self.conv_in(x)
        for block in self.down_blocks:
            h, _ = block(h)
        return self._finish(self.mid_block(h))


class Decoder(_Coder):
    """(B, h, w, latent_channels) latents -> (B, f h, f w, out_channels) images."""

    def __init__(self, config: AutoencoderKLConfig):
        widths = config.block_out_channels
        super().__init__(config, config.latent_channels, widths[-1], widths[0], config.out_channels)
        resnet, previous = self._resnet(config), widths[-1]

        self.up_blocks = []
        for level in reversed(range(len(widths))):
            width = widths[level]
            resnets: list[nn.Module] = [
                resnet(previous if i == 0 else width, width) for i in range(config.layers_per_block + 1)
            ]
            self.up_blocks.append(UpBlock(resnets, [], Upsample2D(width) if level > 0 else None))
            previous = width

    def __call__(self, z: mx.array) -> mx.array:
        h = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            h = block(h)
        return self._finish(h)


class AutoencoderKL(nn.Module):
    """Encodes images to their most likely latents and decodes latents to images.

    Neither direction applies `scaling_factor`; the caller does.
    """

    def __init__(self, config: AutoencoderKLConfig | None = None):
        super().__init__()
        self._config = config = config or AutoencoderKLConfig()
        latents = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

        if config.use_quant_conv:
            self.quant_conv = nn.Conv2d(2 * latents, 2 * latents, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(latents, latents, 1)

    @property
    def config(self) -> AutoencoderKLConfig:
        """The architecture of the network."""
        return self._config

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights."""
        return self.decoder.conv_in.weight.dtype

    def encode(self, x: mx.array) -> mx.array:
        """The most likely latents of images, the mean of their distribution.

        Args:
            x: (B, H, W, in_channels) in [-1, 1]; H and W multiples of `config.downsampling`.

        Returns:
            (B, H / f, W / f, latent_channels), not scaled, in the type of `x`; f is `config.downsampling`.

        Raises:
            ValueError: for another shape.
        """
        multiple = self.config.downsampling
        if x.ndim != 4 or x.shape[-1] != self.config.in_channels or x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"images must have shape (B, H, W, {self.config.in_channels}) with H and W multiples of {multiple}, "
                f"got {tuple(x.shape)}"
            )

        moments = self.encoder(x.astype(self.dtype))
        if "quant_conv" in self:
            moments = self.quant_conv(moments)

        mean, _ = mx.split(moments.astype(x.dtype), 2, axis=-1)  # and the log-variance
        return mean

    def decode(self, z: mx.array) -> mx.array:
        """Decode latents to images.

        Args:
            z: (B, h, w, latent_channels), not scaled.

        Returns:
            (B, f h, f w, out_channels) images, about in [-1, 1] and not clipped, in the type of `z`; f is
            `config.downsampling`.

        Raises:
            ValueError: for another shape.
        """
        if z.ndim != 4 or z.shape[-1] != self.config.latent_channels:
            raise ValueError(f"latents must have shape (B, h, w, {self.config.latent_channels}), got {tuple(z.shape)}")
        h = z.astype(self.dtype)
        return self.decoder(self.post_quant_conv(h) if "post_quant_conv" in self else h).astype(z.dtype)
