"""What `DiffusionPipeline` needs of a model: any denoiser as a `PictureModel`, and prompts for those that read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import mlx.core as mx

from ..errors import UserError
from ..types import Denoiser, PictureModel


class PlainModel:
    """Any denoiser as a `PictureModel`: it works on pictures of a size that is given, and nothing else is known of it.

    Args:
        denoiser: The network.
        state_shape: (H, W, C) of the pictures.
    """

    metadata: Mapping[str, Any] = {}
    identity = ""
    conditional = False
    domains: Mapping[str, Sequence[str]] | None = None

    def __init__(self, denoiser: Denoiser, state_shape: tuple[int, int, int]):
        self._denoiser = denoiser
        self.state_shape = state_shape
        self.picture_size = state_shape[:2]

    def __call__(self, x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        """See `Denoiser`."""
        return self._denoiser(x, t, condition)

    def condition(self, domain: str, label: str | None, caption: str) -> tuple[int, ...]:
        """(): what it can be told is not known."""
        return ()

    def encode(self, pictures: mx.array) -> mx.array:
        """States are pictures."""
        return pictures

    def decode(self, x0: mx.array) -> mx.array:
        """States are pictures."""
        return x0


def tells(model: Denoiser) -> TypeGuard[PictureModel]:
    """Whether a model is a `PictureModel` of its own accord."""
    return hasattr(model, "state_shape")


def read_prompts(model: PictureModel, prompt: str | Sequence[str], batch_size: int) -> mx.array:
    """The condition of a batch that is drawn from texts.

    Args:
        model: A model that reads.
        prompt: One text for all pictures, or one for each.
        batch_size: B, pictures.

    Returns:
        (B, K) class ids.

    Raises:
        UserError: if the model does not read, a text is empty, or there are not as many as pictures.
    """
    if not model.conditional or model.domains is not None:
        raise UserError("a prompt was given, but the model reads no text; leave it out, or give a condition")
    texts = [prompt] * batch_size if isinstance(prompt, str) else list(prompt)
    if len(texts) != batch_size:
        raise UserError(f"give one prompt, or as many as pictures: got {len(texts)} for {batch_size}")
    return mx.array([model.condition("general", None, text) for text in texts])
