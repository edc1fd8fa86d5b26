"""UNet2DConditionModel of diffusers: the latent-space U-Net of Stable Diffusion 1.x, 2.x and XL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from ...diffusion.checks import check_count
from .attention import Transformer2DModel
from .blocks import MidBlock, down_path, up_path
from .config import check_layers, per_level
from .layers import Downsample2D, TimestepEmbedding, Upsample2D
from .unet import UNet, UNetConfig

DOWN_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D")
UP_BLOCKS = ("CrossAttnUpBlock2D", "UpBlock2D")


@dataclass(frozen=True)
class UNet2DConditionConfig(UNetConfig):
    """The architecture of a `UNet2DConditionModel`; see also `UNetConfig`.

    Attributes:
        cross_attention_dim: Channels of the text embedding, one number or one per level.
        transformer_layers_per_block: Transformer blocks per attention: one number, one per level, or a list per level.
        reverse_transformer_layers_per_block: The same on the way up, coarsest first; None mirrors the way down.
        attention_head_dim: Number of attention heads, one number or one per level; the name is a slip of diffusers.
        use_linear_projection: See `Transformer2DModel`.
        upcast_attention: See `CrossAttention`.
        addition_embed_type: "text_time" in SDXL: the pooled text and six numbers about the image's size are embedded
            with the time.
        addition_time_embed_dim: Features of each of the six numbers.
        projection_class_embeddings_input_dim: Channels of pooled text and features together.
        conv_in_kernel: Side of the kernel of the first convolution.
        conv_out_kernel: Side of the kernel of the last convolution.
    """

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    cross_attention_dim: int | tuple[int, ...] = 1280
    transformer_layers_per_block: int | tuple[int | tuple[int, ...], ...] = 1
    reverse_transformer_layers_per_block: tuple[int | tuple[int, ...], ...] | None = None
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    conv_in_kernel: int = 3
    conv_out_kernel: int = 3

    ONLY: ClassVar[dict[str, tuple[Any, ...]]] = {
        **UNetConfig.ONLY,
        "only_cross_attention": (False,),
        "mid_block_only_cross_attention": (None, False),
        "num_class_embeds": (None,),  # no pipeline gives it classes
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "num_attention_heads": (None,),
        "dual_cross_attention": (False,),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1.0,),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "time_cond_proj_dim": (None,),
        "attention_type": ("default",),
        "class_embeddings_concat": (False,),
        "cross_attention_norm": (None,),
    }
    IGNORED: ClassVar[frozenset[str]] = UNetConfig.IGNORED | {"addition_embed_type_num_heads"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._names("down_block_types", DOWN_BLOCKS)
        self._names("up_block_types", UP_BLOCKS)
        self._names("mid_block_type", ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None))
        self._names("addition_embed_type", ("text_time", None))

        for name in ("conv_in_kernel", "conv_out_kernel"):
            if check_count(name, getattr(self, name), 1) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")

        if self.addition_embed_type:
            self._count("addition_time_embed_dim", "projection_class_embeddings_input_dim")

        for level, width in enumerate(self.block_out_channels):
            check_count("cross_attention_dim", self.context_dims[level], 1)
            heads = check_count("attention_head_dim", self.heads[level], 1)
            if width % heads and level in self.attention_levels:
                raise ValueError(f"attention_head_dim: {heads} heads do not divide the {width} channels of their level")

        check_layers(sum(self.layers) * max(_numbers(self.transformer_layers_per_block), default=1))
        check_layers(sum(self.layers) * max(_numbers(self.reverse_transformer_layers_per_block), default=1))

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level."""
        return per_level("attention_head_dim", self.attention_head_dim, self.levels)

    @property
    def context_dims(self) -> tuple[int, ...]:
        """Channels of the text embedding that each level expects."""
        return per_level("cross_attention_dim", self.cross_attention_dim, self.levels)

    @property
    def attention_levels(self) -> set[int]:
        """Levels (0 = finest) with attention on the way down, up or in the middle."""
        levels = {i for i, kind in enumerate(self.down_block_types) if "CrossAttn" in kind}
        levels |= {self.levels - 1 - i for i, kind in enumerate(self.up_block_types) if "CrossAttn" in kind}
        return levels | ({self.levels - 1} if "CrossAttn" in (self.mid_block_type or "") else set())

    def depth(self, level: int, position: int, *, up: bool = False) -> int:
        """Transformer blocks of one attention of one level (0 = finest).

        Raises:
            ValueError: if the configuration has no number for this attention.
        """
        name, layers = "transformer_layers_per_block", self.transformer_layers_per_block
        if up and self.reverse_transformer_layers_per_block is not None:
            name = f"reverse_{name}"
            layers = per_level(name, self.reverse_transformer_layers_per_block, self.levels)[::-1]

        depth: Any = per_level(name, layers, self.levels)[level]
        if isinstance(depth, tuple):
            if position >= len(depth):
                raise ValueError(f"{name}: level {level} lists {len(depth)} attentions but has more")
            depth = depth[position]

        return check_count(name, depth, 0)


def _numbers(value: Any) -> list[float]:
    """All numbers of a nested tuple, or the number itself."""
    if isinstance(value, tuple):
        return [number for entry in value for number in _numbers(entry)]
    return [value] if isinstance(value, int | float) else []


class UNet2DConditionModel(UNet):
    """Predicts noise or v, as trained, from noisy latents, their timestep and an encoded text."""

    def __init__(self, config: UNet2DConditionConfig | None = None):
        config = config or UNet2DConditionConfig()
        super().__init__(config, in_kernel=config.conv_in_kernel, out_kernel=config.conv_out_kernel)
        widths, resnet = config.block_out_channels, self._resnet()

        if config.addition_embed_type:
            self.add_embedding = TimestepEmbedding(
                config.projection_class_embeddings_input_dim or 0, config.temb_channels
            )

        def attend_down(level: int, i: int) -> nn.Module | None:
            attends = config.down_block_types[level] == "CrossAttnDownBlock2D"
            return self._transformer(level, config.depth(level, i)) if attends else None

        def attend_up(level: int, i: int) -> nn.Module | None:
            attends = config.up_block_types[::-1][level] == "CrossAttnUpBlock2D"
            return self._transformer(level, config.depth(level, i, up=True)) if attends else None

        self.down_blocks = down_path(
            widths,
            config.layers,
            resnet=resnet,
            attention=attend_down,
            downsampler=lambda level: Downsample2D(widths[level], config.downsample_padding),
        )
        self.mid_block = self._middle()
        self.up_blocks = up_path(
            widths,
            config.layers,
            resnet=resnet,
            attention=attend_up,
            upsampler=lambda level: Upsample2D(widths[level]),
        )

    @property
    def config(self) -> UNet2DConditionConfig:
        """The architecture of the network."""
        return self._config

    def _transformer(self, level: int, depth: int) -> Transformer2DModel:
        config = self.config
        return Transformer2DModel(
            config.block_out_channels[level],
            config.context_dims[level],
            heads=config.heads[level],
            layers=depth,
            groups=config.norm_num_groups,
            linear_projection=config.use_linear_projection,
            upcast=config.upcast_attention,
        )

    def _middle(self) -> MidBlock | None:
        config, last = self.config, self.config.levels - 1
        if config.mid_block_type is None:
            return None

        attends = config.mid_block_type == "UNetMidBlock2DCrossAttn"
        width, scale = config.block_out_channels[-1], config.mid_block_scale_factor

        # Without attention, the reference has a single residual block here.
        resnets: list[nn.Module] = [
            self._resnet()(width, width, scale_factor=scale) for _ in range(2 if attends else 1)
        ]
        return MidBlock(resnets, [self._transformer(last, config.depth(last, 0))] if attends else [])

    def __call__(
        self,
        x: mx.array,
        t: mx.array,
        encoder_hidden_states: mx.array | None = None,
        *,
        text_embeds: mx.array | None = None,
        time_ids: mx.array | None = None,
    ) -> mx.array:
        """Predict for a batch.

        Args:
            x: (B, H, W, in_channels) noisy latents; H and W multiples of 2 ** (levels - 1).
            t: (B,) timesteps in [0, T - 1], or a scalar for the whole batch.
            encoder_hidden_states: (B, M, cross_attention_dim) encoded text.
            text_embeds: (B, P) pooled text, for SDXL.
            time_ids: (B, 6) for SDXL: original height and width, top and left of the crop, target height and width,
                pixels.

        Returns:
            (B, H, W, out_channels), in the type of `x`.

        Raises:
            ValueError: for another shape, or a missing input.
        """
        dim, context = self.config.context_dims[-1], encoder_hidden_states
        if context is None or context.ndim != 3 or context.shape[0] != x.shape[0] or context.shape[2] != dim:
            got = None if context is None else tuple(context.shape)
            raise ValueError(f"encoder_hidden_states must have shape ({x.shape[0]}, M, {dim}), got {got}")

        embedding = self._embed(x, t)
        if self.config.addition_embed_type:
            embedding = embedding + self._embed_text_time(text_embeds, time_ids)

        return self._run(x, embedding, context.astype(self.dtype))

    def _embed_text_time(self, text_embeds: mx.array | None, time_ids: mx.array | None) -> mx.array:
        """(B, temb_channels) embedding of the pooled text and the six numbers about the size."""
        if text_embeds is None or time_ids is None:
            raise ValueError("this model (SDXL) needs text_embeds, the pooled text, and time_ids, the image's size")

        B, K = time_ids.shape
        dim = self.config.addition_time_embed_dim or 0
        # (B, P) pooled text and (B, K dim) sinusoidal features of the numbers.
        features = mx.concatenate(
            [text_embeds.astype(self.dtype), self._features(time_ids.reshape(-1), dim).reshape(B, K * dim)], axis=-1
        )
        if features.shape[-1] != self.config.projection_class_embeddings_input_dim:
            raise ValueError(
                f"text_embeds ({text_embeds.shape[-1]}) and {K} time_ids of {dim} features each must add up to "
                f"{self.config.projection_class_embeddings_input_dim}, got {features.shape[-1]}"
            )

        return self.add_embedding(features)
