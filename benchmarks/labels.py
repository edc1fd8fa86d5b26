"""`python -m benchmarks labels`: how often the encoder knows an image by the label that it was drawn with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adaptive_diffusion import DiffusionPipeline
from adaptive_diffusion.diffusion.guidance import Guidance
from adaptive_diffusion.encoder.captions import plain_caption
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.io.pictures import load_pictures
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.optimization.memory import SHIPPED
from adaptive_diffusion.optimization.tuned import tuned_guidance
from benchmarks.common import DOMAINS

HEADER = ["domain", "guidance", "labels", "of their label", "against the first", "among the nearest 3", "100 x cosine"]
STEPS = 10


def main(argv: list[str]) -> None:
    """Print, for each domain and guidance, how well images agree with their labels: means over the labels.

    An image is of its label if the encoder finds no other label of the domain nearer. All rows of a domain begin with
    the same noises; their difference from the first has a standard error over the labels.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks labels", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--images", type=int, default=24, help="of each label, >= 1")
    parser.add_argument("--seed", type=int, default=901000)
    parser.add_argument("--real", type=Path, help="folder of <domain>_32.npz: real images with labels")
    options = parser.parse_args(argv)

    print("\n".join(table(HEADER, [], "ll" + "r" * (len(HEADER) - 2))))
    for domain in options.domains:
        first = None
        for kind, images in _sets(domain, options.images, options.seed, options.real):
            found = _agreement(domain, images)
            known, (nearest, third, cosine) = ~np.isnan(found[0]), np.nanmean(found, axis=1)
            apart = ""
            if first is None:
                first = found
            elif known.all() and kind != "real images":
                difference = found[0] - first[0]
                error = difference.std(ddof=1) / len(difference) ** 0.5
                apart = f"{difference.mean():+.3f} ± {error:.3f}"
            cells = [domain, kind, str(known.sum()), f"{nearest:.3f}", apart, f"{third:.3f}", f"{100 * cosine:.1f}"]
            print(row_of(cells), flush=True)


def _sets(domain: str, count: int, seed: int, real: Path | None) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Images of each label of a domain: at constant guidance, at the tuned one, without, and real ones."""
    model, pipeline = load_builtin_model(), DiffusionPipeline(scheduler="adaptive", image_size=None)
    names, weight = (model.domains or {})[domain], float(model.metadata["guidance_scale"])
    tuned = tuned_guidance(str(SHIPPED), "", model.identity, domain, weight)

    kinds: dict[str, float | Guidance] = {f"{weight:g} at every step": weight, tuned.name: tuned, "none": 1.0}
    for kind, guidance in kinds.items():
        images = {}
        for label in names:
            drawn = pipeline.generate(count, STEPS, seed, domain=domain, label=label, guidance_scale=guidance)
            images[label] = np.array(drawn)
        yield kind, images

    if real is not None:
        known = load_pictures(real / f"{domain}_32.npz", model.picture_size[0])
        yield "real images", {name: known.images[known.labels == i] for i, name in enumerate(known.label_names)}


def _agreement(domain: str, images: dict[str, np.ndarray]) -> np.ndarray:
    """(3, L): of each label, the share of images nearest to it, that nearest to it and at most two others, the cosine.

    NaN for a label without images.
    """
    encoder = load_builtin_encoder()
    texts = encoder.text_embeddings([plain_caption(domain, name) for name in images])
    found = np.full((3, len(images)), np.nan)
    for i, of_label in enumerate(images.values()):
        if len(of_label):
            cosines = encoder.image_embeddings(of_label) @ texts.T
            rank = (cosines > cosines[:, i, None]).sum(axis=1)
            found[:, i] = (rank == 0).mean(), (rank < 3).mean(), cosines[:, i].mean()
    return found
