"""A second encoder for distances between sets of images, trained without labels: VICReg and the detail of patches.

The other encoder learns to tell labels apart, and so it measures labels more than looks. This one learns by VICReg
(Bardes et al., 2022) to recognise an image in two crops; nothing in its training makes it overlook blur or noise. Its
network is a plain stack of convolutions (VGG; Simonyan & Zisserman, 2015) that is read at all depths.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..diffusion.checks import check_widths
from ..io.files import ASSETS
from ..io.network_file import read_network, write_network
from ..metrics.features import in_batches
from ..metrics.pictures import at_side
from ..models.convolution import Conv3x3
from ..models.patches import fold, patch_means

FORMAT = "adaptive-diffusion/vicreg/1"
BUILTIN_VICREG = ASSETS / "vicreg.safetensors"
SCALES = 3  # full, half and quarter resolution
DETAILS = 4 * SCALES
_PATCH = 4  # side of a patch, pixels
_FLOOR = 0.01  # about one of 255 grey levels; a patch with less detail counts as flat
_COLOURS = ((0.299, 0.5, -0.169), (0.587, -0.419, -0.331), (0.114, -0.081, 0.5))  # RGB -> luma, two chromas (BT.601)


@dataclass(frozen=True)
class VICRegConfig:
    """The architecture of a `VICRegNetwork`.

    Attributes:
        image_size: Side of the square images, pixels.
        widths: Channels at 1/2, 1/4, ... of the resolution.
        dimension: Width of the features, of which `DETAILS` are the detail of patches.
    """

    image_size: int = 32
    widths: tuple[int, ...] = (32, 64, 128)
    dimension: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_widths(self.widths))
        side = 2 ** max(len(self.widths), SCALES - 1)
        if self.image_size % (4 * side):  # three quarters of it, a crop of the training, must be halved as often
            raise ValueError(f"image_size must be a multiple of {4 * side}, got {self.image_size}")

        most = DETAILS + self.pooled
        if not DETAILS < self.dimension <= most:
            raise ValueError(f"dimension must lie in [{DETAILS + 1}, {most}], got {self.dimension}")

    @property
    def pooled(self) -> int:
        """Width of what the network gives before it is whitened."""
        return 2 * sum(self.widths)


class VICRegNetwork(nn.Module):
    """Two 3x3 convolutions at each of the resolutions 1/2, 1/4, ..., and the whitening of what they give."""

    def __init__(self, config: VICRegConfig):
        super().__init__()
        self._config = config
        incoming = (12, *config.widths[:-1])
        self.first = [Conv3x3(a, b) for a, b in zip(incoming, config.widths, strict=True)]
        self.second = [Conv3x3(width, width) for width in config.widths]
        for layer in (*self.first, *self.second):  # He et al., 2015: nothing is normalised between the layers
            layer.weight = nn.init.he_normal()(layer.weight, "fan_in", 1.0)

        self.whiten = nn.Linear(config.pooled + DETAILS, config.dimension)  # fitted after the training

    def pooled(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) in [-1, 1] -> (B, pooled): mean and spread of the map at each resolution."""
        found = []
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            x = patch_means(x) if i else fold(x, 2)  # half the resolution
            x = nn.relu(second(nn.relu(first(x))))

            mean = x.mean(axis=(1, 2))
            spread = mx.sqrt(mx.square(x - mean[:, None, None]).mean(axis=(1, 2)) + 1e-6)
            found += [mean, spread]

        return mx.concatenate(found, axis=-1)

    def raw(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) in [-1, 1] -> (B, pooled + DETAILS), the features before they are whitened."""
        return mx.concatenate([self.pooled(x), detail(x)], axis=-1)


def detail(x: mx.array) -> mx.array:
    """The detail of an image at three scales, by the Laplacian of its patches.

    Noise shows in the flattest patches, blur in all. So the logs of the mean absolute Laplacian of 4x4 patches are
    taken together by their mean and their spread for luma, and by their means for the two chromas.

    Args:
        x: (B, H, W, 3) in [-1, 1], H and W multiples of 16.

    Returns:
        (B, DETAILS).
    """
    x, found = x @ mx.array(_COLOURS), []
    for _ in range(SCALES):
        p = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
        laplacian = mx.abs(4 * x - p[:, :-2, 1:-1] - p[:, 2:, 1:-1] - p[:, 1:-1, :-2] - p[:, 1:-1, 2:])

        logs = mx.log(patch_means(laplacian, _PATCH) + _FLOOR).flatten(1, 2)
        found += [logs.mean(axis=1), mx.sqrt(logs[..., :1].var(axis=1) + 1e-6)]
        x = patch_means(x)

    return mx.concatenate(found, axis=-1)


class VICRegEncoder:
    """A trained `VICRegNetwork`.

    Args:
        network: The network.
        metadata: Metadata of its file, with `content_hash`.
    """

    def __init__(self, network: VICRegNetwork, metadata: dict[str, Any]):
        self.network, self.metadata, self.config = network, metadata, network._config

    @property
    def name(self) -> str:
        """Kind and width of the features, as statistics files name them, e.g. "vicreg/64"."""
        return f"vicreg/{self.config.dimension}"

    @property
    def content_hash(self) -> str:
        """Hash of the weights and the architecture."""
        return str(self.metadata.get("content_hash", ""))

    def features(self, images: Any, batch_size: int = 32) -> np.ndarray:
        """Features for distances between sets of images.

        Args:
            images: (N, H, W, 3) uint8, or float in [-1, 1]. Images of another size are cropped in the middle and
                resized to the encoder's size.
            batch_size: Images per evaluation.

        Returns:
            (N, dimension) float32; within a domain of the training images, the learned ones have about unit variance.

        Raises:
            ValueError: for unfit images, see `pictures.check_pictures`.
        """
        x = at_side(images, self.config.image_size)
        return in_batches(lambda p: self.network.whiten(self.network.raw(mx.array(p))), x, batch_size=batch_size)


def save_vicreg(path: str | Path, network: VICRegNetwork, metadata: dict[str, Any]) -> str:
    """Write an encoder file atomically, with float16 weights, and return its content hash."""
    return write_network(path, network, asdict(network._config), metadata, format=FORMAT, dtype=mx.float16)


def load_vicreg(path: str | Path) -> VICRegEncoder:
    """Read an encoder file, as `train.py task=vicreg` writes it.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind.
    """
    network, metadata = read_network(
        path, lambda config: VICRegNetwork(VICRegConfig(**config)), format=FORMAT, what="VICRegNetwork", task="vicreg"
    )
    return VICRegEncoder(network, metadata)


@cache
def load_builtin_vicreg() -> VICRegEncoder:
    """Load the shipped encoder, once per process.

    Raises:
        UnusableFile: if the shipped file is missing or damaged.
    """
    return load_vicreg(BUILTIN_VICREG)
