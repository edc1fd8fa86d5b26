"""`python -m benchmarks model --data FOLDER`: the numbers of the shipped model's card.

Draws images of every domain, compares them with the training images (are samples copies?) and tries guidance scales.
FOLDER holds `<domain>_<size>.npz` files, split as in training.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.domain import DomainDetector
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.reference import load_reference
from adaptive_diffusion.io.figures import grid, save_image, save_picture_grid
from adaptive_diffusion.io.pictures import PictureSet, load_pictures
from adaptive_diffusion.io.pixels import to_float, to_uint8
from adaptive_diffusion.metrics.features import picture_statistics
from adaptive_diffusion.metrics.frechet import frechet_distance
from adaptive_diffusion.models.checkpoint import load_builtin_model, load_model
from adaptive_diffusion.models.unet import SimpleUNet
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from benchmarks.common import images_by, scheduler_settings

GUIDANCE_WEIGHTS = (1.0, 1.5, 2.0, 3.0)
SHEET = 16  # images per domain on the contact sheet


@dataclass(frozen=True)
class NearestNeighbours:
    """Distances to the nearest training image or mirrored training image, RMSE over pixels in [-1, 1].

    Attributes:
        samples: Median over drawn images.
        closest_sample: Minimum over drawn images.
        held_back: Median over real images outside the training.
        closest_held_back: Minimum over real images outside the training.
    """

    samples: float
    closest_sample: float
    held_back: float
    closest_held_back: float


def main(argv: list[str]) -> None:
    """Print the report as JSON; write images and closest pairs of each domain, and a contact sheet, as PNG."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks model", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of <domain>_<size>.npz")
    parser.add_argument("--model", type=Path, help="model file; default: the shipped one")
    parser.add_argument("--samples", type=int, default=512, help="images per domain and guidance weight")
    parser.add_argument("--steps", type=int, default=15, help="solver steps")
    parser.add_argument("--guidance", type=float, nargs="+", default=GUIDANCE_WEIGHTS, help="weights to try")
    parser.add_argument("--output", type=Path, default=Path("outputs/model_report"), help="folder for the images")
    options = parser.parse_args(argv)

    encoder, detector = load_builtin_encoder(), DomainDetector()
    model = load_model(options.model) if options.model else load_builtin_model()
    report: dict[str, dict[str, object]] = {}
    sheet: list[np.ndarray] = []

    for domain in model.metadata["domains"]:
        pictures = load_pictures(options.data / f"{domain}_{model.config.image_size}.npz", model.config.image_size)
        train, held_back = pictures.split_as_trained(model.metadata["training"])

        # the images of the best guidance are kept for the comparison with the training images
        distances: dict[float, float] = {}
        agreement: dict[float, float] = {}
        drawn = np.zeros(0)
        for weight in options.guidance:
            samples = draw(model, domain, options.samples, options.steps, weight)
            statistics = picture_statistics(encoder, samples)
            distances[weight] = frechet_distance(statistics, load_reference(domain, encoder))
            agreement[weight] = float(np.mean([d.domain == domain for d in detector.from_images(samples)]))
            if not drawn.size or distances[weight] <= min(distances.values()):
                drawn = samples

        best = min(distances, key=lambda weight: distances[weight])
        neighbours, pairs = nearest_neighbours(drawn, train, held_back)
        save_picture_grid(options.output / f"{domain}.png", drawn[:64], columns=8)
        save_picture_grid(options.output / f"{domain}_closest_pairs.png", pairs, columns=8)
        sheet.append(draw(model, domain, SHEET, options.steps, model.metadata["guidance_scale"]))

        report[domain] = {
            "fd_encoder_by_guidance": {str(weight): round(fd, 2) for weight, fd in distances.items()},
            "domain_agreement_by_guidance": {str(weight): round(share, 3) for weight, share in agreement.items()},
            "best_guidance": best,
            "nearest_neighbours": {k: round(v, 4) for k, v in vars(neighbours).items()},
        }
        print(json.dumps({domain: report[domain]}), flush=True)

    save_image(options.output / "samples.png", grid(to_uint8(np.concatenate(sheet)), columns=SHEET, cell=64))
    (options.output / "report.json").write_text(json.dumps(report, indent=2))
    print(f"images and report.json are in {options.output}")


def draw(model: SimpleUNet, domain: str, count: int, steps: int, guidance: float, batch: int = 32) -> np.ndarray:
    """(count, H, W, C) images of a domain in [-1, 1], with labels by share, from fixed noises."""
    scheduler = AdaptiveScheduler(**scheduler_settings(model))
    scheduler.set_timesteps(steps)
    guided = GuidedModel.from_model(model, conditions_of(model, domain, None, domain), guidance).of_images(0, count)
    return images_by(scheduler, guided, guided.noise(0, count), batch)


def nearest_neighbours(
    samples: np.ndarray, train: PictureSet, held_back: PictureSet
) -> tuple[NearestNeighbours, np.ndarray]:
    """Distances of samples and of held-back images to the training set, and the 16 closest (sample, real) pairs."""
    real = to_float(train.images)
    to_train, nearest = _nearest(samples, real)
    baseline, _ = _nearest(to_float(held_back.images), real)
    closest = np.argsort(to_train)[:16]
    pairs = np.stack([samples[closest], real[nearest[closest] % len(real)]], axis=1).reshape(-1, *samples.shape[1:])
    numbers = (np.median(to_train), to_train.min(), np.median(baseline), baseline.min())
    return NearestNeighbours(*(float(v) for v in numbers)), pairs


def _nearest(queries: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMSE to, and row of, the nearest of the real images and their mirror images."""
    both = np.concatenate([real, real[:, :, ::-1]]).reshape(2 * len(real), -1)
    flat = queries.reshape(len(queries), -1)

    # |a - b|^2 = |a|^2 + |b|^2 - 2ab, for all pairs at once
    squared = (flat**2).sum(1)[:, None] + (both**2).sum(1)[None] - 2 * flat @ both.T
    return np.sqrt(np.maximum(squared.min(axis=1), 0) / flat.shape[1]), squared.argmin(axis=1)
