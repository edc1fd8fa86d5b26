"""What the images of a run are conditioned on: all on the same, or each on a label, drawn by its share in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from ..errors import Unusable
from ..types import PictureModel
from .facts import ModelFacts

NO_LABEL = "none"  # asks for the null label: a domain, and nothing more
RESERVED = {NO_LABEL: "images without a label", "null": "images of all labels"}  # what label=... asks for by them
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_LABELS = 1_818_321_516  # tells the hash of a seed from those of its images' noises


class Conditions(Protocol):
    """What each image of a seed is conditioned on."""

    def rows(self, seed: int, images: Sequence[int]) -> mx.array | None:
        """(n, K) int32 class ids of some images of a seed, whatever others are drawn with them; None without any.

        Args:
            seed: Run seed, >= 0.
            images: (n,) image numbers within the run, >= 0.
        """
        ...

    @property
    def content(self) -> list[Any]:
        """What decides the class ids, JSON types."""
        ...

    def __str__(self) -> str:
        """The labels in a few words; "" where they are the same for all images."""
        ...


@dataclass(frozen=True)
class Same:
    """The same for all images.

    Args:
        ids: (K,) class ids, see `PictureModel.condition`; () for no condition.
    """

    ids: tuple[int, ...] = ()

    def rows(self, seed: int, images: Sequence[int]) -> mx.array | None:
        """See `Conditions`."""
        return mx.array([self.ids] * len(images), dtype=mx.int32) if self.ids else None

    @property
    def content(self) -> list[Any]:
        """See `Conditions`."""
        return list(self.ids)

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class Mixture:
    """One of several for each image, by its share.

    The labels of a seed follow the shares closely, also those of its first few images: they are an additive recurrence
    with the golden ratio (Weyl, 1916), which begins elsewhere for each seed, through the cumulated shares.

    Args:
        ids: (L, K) class ids, one row for each label.
        shares: (L,) how often each is drawn, relative to their sum, e.g. numbers of images; >= 0, not all 0.

    Raises:
        ValueError: for shares out of range, or not as many as rows of ids.
    """

    ids: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        shares = np.array(self.shares, np.float64)
        if len(shares) != len(self.ids) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
            raise ValueError(f"shares must be {len(self.ids)} numbers >= 0, and not all 0; got {list(self.shares)}")

    def rows(self, seed: int, images: Sequence[int]) -> mx.array:
        """See `Conditions`."""
        (begin,) = np.random.SeedSequence(seed, spawn_key=(_LABELS,)).generate_state(1, np.uint64)
        position = (begin + np.array(images, np.uint64) * _STEP) >> np.uint64(11)  # modulo 2^64; 53 bits of it
        cumulated = np.cumsum(self.shares)
        chosen = np.searchsorted(cumulated / cumulated[-1], position / 2.0**53, side="right")
        return mx.array(np.array(self.ids, np.int32)[chosen])

    @property
    def content(self) -> list[Any]:
        """See `Conditions`."""
        return [[list(row), share] for row, share in zip(self.ids, self.shares, strict=True)]

    def __str__(self) -> str:
        drawn = [share for share in self.shares if share]
        return f"{len(drawn)}, {'by their share in the training data' if len(set(drawn)) > 1 else 'in equal shares'}"


def check_label_names(labels: Mapping[str, Sequence[str]]) -> None:
    """Refuse a label of the data that could not be asked for by its name.

    Args:
        labels: Domain -> its labels.

    Raises:
        Unusable: naming the domain.
    """
    for domain, names in labels.items():
        for name in set(RESERVED) & set(names):
            asked = f"label={name} asks for {RESERVED[name]}"
            raise Unusable(f"{domain} has a label named {name!r}, and {asked}; rename it in the data")


def conditions_of(model: PictureModel, domain: str, label: str | None, caption: str) -> Conditions:
    """What images of a domain are conditioned on. Everything that draws asks here.

    Args:
        model: The model.
        domain: The domain.
        label: A label of the domain; `none`: no label; None: for each image one of the labels that the model was
            trained with, by its share there, or in equal shares where the model does not say them.
        caption: The same in words, for models that read.

    Raises:
        ValueError: if the model cannot draw that.
    """
    if label not in (None, NO_LABEL):
        if not model.conditional:
            raise Unusable(f"label={label} was given, but the model was trained without classes")
        return Same(model.condition(domain, label, caption))

    without = Same(model.condition(domain, None, caption))
    names = (model.domains or {}).get(domain, ())
    if label == NO_LABEL or not model.conditional or not names:
        return without

    counts = ModelFacts.of(model).label_counts.get(domain, [1] * len(names))
    shares = {model.condition(domain, name, caption): n for name, n in zip(names, counts, strict=True) if n}
    if len(shares) < 2:
        return Same(*shares) if shares else without
    return Mixture(tuple(shares), tuple(shares.values()))
