"""The base of `UNet2DModel` and `UNet2DConditionModel`: options, time embedding, the way down and up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_count, check_number
from .blocks import DownBlock, MidBlock, UpBlock
from .config import ModelConfig, check_layers, per_level
from .layers import ResnetBlock2D, TimestepEmbedding, group_norm, timestep_embedding


@dataclass(frozen=True)
class UNetConfig(ModelConfig):
    """Options of both U-Nets; the subclasses set the defaults.

    Attributes:
        sample_size: Side of the images (or latents) the model was trained on, or (height, width); None if unknown.
        in_channels: Channels of the input.
        out_channels: Channels of the prediction.
        center_input_sample: Map an input in [0, 1] to [-1, 1] first.
        time_embedding_dim: Width of the time embedding; None: four times the finest width.
        freq_shift: See `layers.timestep_embedding`.
        flip_sin_to_cos: See `layers.timestep_embedding`.
        down_block_types: Kind of each level on the way down, finest first.
        mid_block_type: Kind of the middle; None for no middle.
        up_block_types: Kind of each level on the way up, coarsest first.
        block_out_channels: Channels of each level, finest first.
        layers_per_block: Residual blocks of each level on the way down.
        mid_block_scale_factor: Divisor of the sums of branches in the middle block.
        downsample_padding: See `layers.Downsample2D`.
        norm_num_groups: Groups of all normalisations.
        norm_eps: Epsilon of all normalisations except those of `Transformer2DModel`.
        resnet_time_scale_shift: "default" adds the time embedding, "scale_shift" scales and shifts by it.
        num_class_embeds: Number of classes of a class-conditional model.
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ()
    mid_block_type: str | None = None
    up_block_types: tuple[str, ...] = ()
    block_out_channels: tuple[int, ...] = ()
    layers_per_block: int | tuple[int, ...] = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    num_class_embeds: int | None = None

    ONLY: ClassVar[dict[str, tuple[Any, ...]]] = {
        "time_embedding_type": ("positional",),
        "act_fn": ("silu", "swish"),
        "class_embed_type": (None,),
    }
    IGNORED: ClassVar[frozenset[str]] = frozenset({"dropout", "num_train_timesteps"})

    def __post_init__(self) -> None:
        _ = self.sides  # refuses an invalid `sample_size`
        self._count("in_channels", "out_channels")
        self._widths("block_out_channels", "norm_num_groups")
        self._names("resnet_time_scale_shift", ("default", "scale_shift"))
        check_count("downsample_padding", self.downsample_padding, 0, 1)
        check_number("norm_eps", self.norm_eps, 0, above=True)
        check_number("mid_block_scale_factor", self.mid_block_scale_factor, 0, above=True)

        for name in ("down_block_types", "up_block_types"):
            if not isinstance(getattr(self, name), tuple):
                raise ValueError(f"{name} must be a list, got {getattr(self, name)!r}")
            per_level(name, getattr(self, name), self.levels)

        for count in self.layers:
            check_count("layers_per_block", count, 1)

        check_layers(sum(self.layers))
        for name in ("time_embedding_dim", "num_class_embeds"):
            if getattr(self, name) is not None:
                self._count(name)

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """(height, width) of the training images (or latents); (None, None) if unknown."""
        size = self.sample_size
        if size is None:
            return None, None

        height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
        return check_count("sample_size", height, 1), check_count("sample_size", width, 1)

    @property
    def levels(self) -> int:
        """Number of resolutions; each halves the side."""
        return len(self.block_out_channels)

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of each level on the way down."""
        return per_level("layers_per_block", self.layers_per_block, self.levels)

    @property
    def temb_channels(self) -> int:
        """Width of the time embedding."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]


class UNet(nn.Module):
    """Convolution, way down, middle, way up, convolution; subclasses build the stages between the convolutions."""

    conv_in: nn.Module
    down_blocks: Sequence[DownBlock]
    mid_block: MidBlock | None
    up_blocks: Sequence[UpBlock]

    def __init__(self, config: UNetConfig, *, in_kernel: int = 3, out_kernel: int = 3):
        super().__init__()
        self._config: Any = config
        width, temb_channels = config.block_out_channels[0], config.temb_channels
        self.conv_in = nn.Conv2d(config.in_channels, width, in_kernel, padding=(in_kernel - 1) // 2)
        self.time_embedding = TimestepEmbedding(width, temb_channels)

        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, temb_channels)

        self.conv_norm_out = group_norm(config.norm_num_groups, width, config.norm_eps)
        self.conv_out = nn.Conv2d(width, config.out_channels, out_kernel, padding=(out_kernel - 1) // 2)

    @property
    def dtype(self) -> mx.Dtype:
        """Float type of the weights, also of a model with quantised linear layers."""
        return self.conv_in.weight.dtype

    def _resnet(self) -> partial[ResnetBlock2D]:
        """The residual block of this configuration, as a function of its channels."""
        config = self._config
        return partial(
            ResnetBlock2D,
            temb_channels=config.temb_channels,
            groups=config.norm_num_groups,
            eps=config.norm_eps,
            scale_shift=config.resnet_time_scale_shift == "scale_shift",
        )

    def _features(self, numbers: mx.array, dim: int) -> mx.array:
        """(B,) numbers -> (B, dim) sinusoidal features in the type of the weights."""
        features = timestep_embedding(
            numbers, dim, flip_sin_to_cos=self._config.flip_sin_to_cos, freq_shift=self._config.freq_shift
        )
        return features.astype(self.dtype)

    def _embed(self, x: mx.array, t: mx.array, class_labels: mx.array | None = None) -> mx.array:
        """(B, temb_channels) embedding of time and class, before SiLU; checks the shape of the input."""
        multiple = 2 ** (self._config.levels - 1)
        if x.ndim != 4 or x.shape[-1] != self._config.in_channels or x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(
                f"the input must have shape (B, H, W, {self._config.in_channels}) with H and W multiples of "
                f"{multiple}, got {tuple(x.shape)}"
            )

        t = mx.broadcast_to(mx.array(t), (x.shape[0],))
        embedding = self.time_embedding(self._features(t, self._config.block_out_channels[0]))

        if (class_labels is None) != (self._config.num_class_embeds is None):
            raise ValueError(
                "this model is not class-conditional: class_labels must be None"
                if class_labels is not None
                else f"this model is class-conditional: give class_labels, (B,) integers in "
                f"[0, {self._config.num_class_embeds - 1}]"
            )

        return embedding if class_labels is None else embedding + self.class_embedding(class_labels)

    def _run(self, x: mx.array, embedding: mx.array, context: mx.array | None = None) -> mx.array:
        """Run the network with given embeddings; the prediction has the type of `x`."""
        temb = nn.silu(embedding)  # once for all residual blocks
        h = x.astype(self.dtype)
        h = self.conv_in(2 * h - 1 if self._config.center_input_sample else h)

        # The way down leaves its skip connections; the way up takes them from the end.
        skips = [h]
        for down in self.down_blocks:
            h, new = down(h, temb, context)
            skips += new

        if self.mid_block is not None:
            h = self.mid_block(h, temb, context)

        for up in self.up_blocks:
            h = up(h, skips, temb, context)

        return self.conv_out(nn.silu(self.conv_norm_out(h))).astype(x.dtype)
