"""`python -m benchmarks encoders`: what Frechet distances, precision and recall see of changes to real images.

Held-back real images are split into halves at random. The distance between the halves is the unit; one half is then
changed and compared again. Precision and recall are those of the changed half, by clusters of the training images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.vicreg import BUILTIN_VICREG, load_vicreg
from adaptive_diffusion.io.pictures import PictureSet, load_pictures
from adaptive_diffusion.io.pixels import resize, to_float
from adaptive_diffusion.metrics.frechet import frechet_distance
from adaptive_diffusion.metrics.precision_recall import ClusterReference
from benchmarks.common import DOMAINS

COMPONENTS = 64  # of the PCA of pixels
Change = Callable[[PictureSet, np.random.Generator], np.ndarray]
Encode = Callable[[np.ndarray], np.ndarray]


def main(argv: list[str]) -> None:
    """Measure every change of every domain on some random halves, and print means and spreads."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks encoders", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with <domain>_32.npz for the four domains")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=DOMAINS)
    parser.add_argument("--halves", type=int, default=5, help="random halves, of which the mean is printed")
    parser.add_argument("--vicreg", type=Path, default=BUILTIN_VICREG, help="file of the VICReg encoder")
    options = parser.parse_args(argv)

    for domain in options.domains:
        vicreg = load_vicreg(options.vicreg)
        pictures = load_pictures(options.data / f"{domain}_32.npz", vicreg.config.image_size)
        train, held = pictures.split_as_trained(vicreg.metadata["training"])
        clusters = ClusterReference.from_features(vicreg.features(train.images), vicreg.name, vicreg.content_hash)
        encoders: dict[str, Encode] = {
            "fd_encoder": load_builtin_encoder().features,
            "fd_vicreg": vicreg.features,
            "pixel PCA": pixel_components(train.images),
        }

        print(f"\n{domain}: {len(held) // 2} images a half, {options.halves} random halves; distances in units of")
        print(f"the unchanged one; mean +- spread. Precision and recall: {len(clusters.shares)} clusters")
        print(f"{'change':<18}" + "".join(f"{name:>17}" for name in (*encoders, "precision", "recall")))
        found = [measure(held, encoders, clusters, np.random.default_rng(seed)) for seed in range(options.halves)]
        for change in found[0]:
            values = np.array([one[change] for one in found])
            columns = zip(values.mean(axis=0), values.std(axis=0), strict=True)
            print(f"{change:<18}" + "".join(f"{f'{m:.3g} +- {s:.2g}':>17}" for m, s in columns), flush=True)


def measure(
    held: PictureSet, encoders: dict[str, Encode], clusters: ClusterReference, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Each change -> its distances by all encoders in units of the unchanged one, its precision and its recall.

    The first row, "unit", holds the distances themselves of the unchanged half.
    """
    rows, size = rng.permutation(len(held)), len(held) // 2
    one, other = (held.images[r] for r in (rows[:size], rows[size : 2 * size]))
    labels = held.labels[rows[size : 2 * size]]
    targets = {name: encode(to_float(one)) for name, encode in encoders.items()}

    found: dict[str, list[float]] = {}
    for change, function in changes().items():
        changed = function(PictureSet(other, labels, held.label_names), rng)
        features = {name: encode(changed) for name, encode in encoders.items()}
        distances = {name: frechet_distance(features[name], targets[name]) for name in encoders}
        quality = [clusters.precision(features["fd_vicreg"]), clusters.recall(features["fd_vicreg"])]
        found.setdefault("unit", list(distances.values()) + quality)
        found[change] = [value / unit for value, unit in zip(distances.values(), found["unit"], strict=False)] + quality
    return found


def changes() -> dict[str, Change]:
    """Each change by its name and strength: images -> (N, H, W, 3) changed images in [-1, 1]."""
    kinds: list[tuple[str, tuple[float, ...], Callable[..., np.ndarray]]] = [
        ("blur {}", (0.05, 0.1, 0.2), lambda s, _, a: blurred(to_float(s.images), a)),
        ("noise {}", (0.02, 0.05, 0.15), lambda s, rng, sigma: noisy(to_float(s.images), sigma, rng)),
        ("detail {0}x{0}", (24, 16, 8), lambda s, _, side: coarse(to_float(s.images), side)),
        ("each {} times", (2, 4, 8), lambda s, _, times: to_float(repeated(s.images, times))),
        ("one label {:.0%}", (0.25, 0.5, 1.0), lambda s, rng, share: one_label(s, share, rng)),
    ]
    found: dict[str, Change] = {"unchanged": lambda s, _: to_float(s.images)}
    for name, strengths, function in kinds:
        found |= {name.format(strength): _with(function, strength) for strength in strengths}
    return found


def _with(function: Callable[..., np.ndarray], strength: float) -> Change:
    return lambda pictures, rng: function(pictures, rng, strength)


def blurred(x: np.ndarray, a: float) -> np.ndarray:
    """Images, blurred with the kernel [a, 1 - 2a, a] along both axes."""
    for axis in (1, 2):
        edge = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        p, n = np.pad(x, edge, mode="edge"), x.shape[axis]
        x = (1 - 2 * a) * x + a * (p.take(range(n), axis) + p.take(range(2, n + 2), axis))
    return np.asarray(x)


def noisy(x: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Images with white noise of standard deviation sigma."""
    return np.clip(x + sigma * rng.standard_normal(x.shape), -1, 1).astype(np.float32)


def coarse(x: np.ndarray, side: int) -> np.ndarray:
    """Images, resized to a smaller side and back."""
    return np.clip(resize(resize(x, (side, side)), x.shape[1:3]), -1, 1)


def repeated(images: np.ndarray, times: int) -> np.ndarray:
    """As many images, of which only the first 1/times are left, each that many times."""
    return np.asarray(np.resize(images[: len(images) // times], images.shape))


def one_label(pictures: PictureSet, share: float, rng: np.random.Generator) -> np.ndarray:
    """As many images, of which a share is drawn from those of the most frequent label."""
    chosen = np.flatnonzero(pictures.labels == np.bincount(pictures.labels).argmax())
    replaced = round(share * len(pictures))
    images = pictures.images.copy()
    images[:replaced] = pictures.images[np.resize(rng.permutation(chosen), replaced)]
    return to_float(images)


def pixel_components(images: np.ndarray) -> Encode:
    """The principal components of pixels, fitted on images."""
    x = to_float(images).reshape(len(images), -1)
    mean = x.mean(axis=0)
    x = x - mean
    basis = np.random.default_rng(0).standard_normal((x.shape[1], COMPONENTS)).astype(np.float32)
    for _ in range(20):  # of orthogonal iteration
        basis = np.linalg.qr(x.T @ (x @ basis))[0]
    return lambda pictures: np.asarray((pictures.reshape(len(pictures), -1) - mean) @ basis)
