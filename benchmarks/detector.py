"""`python -m benchmarks detector`: how often the shipped detector names the right domain."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from adaptive_diffusion.encoder.domain import DomainDetector
from adaptive_diffusion.encoder.prompt_head import read_prompts
from adaptive_diffusion.io.pictures import load_pictures
from adaptive_diffusion.models.checkpoint import load_builtin_model
from benchmarks.model import draw


def main(argv: list[str]) -> None:
    """Print a confusion matrix for each kind of input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks detector", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of <domain>_32.npz: the images kept back from training")
    parser.add_argument("--prompts", type=Path, help="csv file with the columns domain and prompt")
    parser.add_argument("--drawn", type=int, default=64, help="images per domain that the shipped model draws; 0: none")
    parser.add_argument("--steps", type=int, default=15, help="solver steps of these")
    options = parser.parse_args(argv)

    detector, model = DomainDetector(), load_builtin_model()
    domains = detector.encoder.config.domains

    if options.data:
        found: Counter[tuple[str, str]] = Counter()
        for domain in domains:
            pictures = load_pictures(options.data / f"{domain}_32.npz", detector.encoder.config.image_size)
            _, held_back = pictures.split_as_trained(detector.encoder.metadata["training"])
            found.update((domain, d.domain) for d in detector.from_images(held_back.images))

        show("images kept back from training", found, domains)

    if options.prompts:
        pairs = read_prompts(options.prompts)
        show("prompts", Counter((domain, detector.from_prompt(p).domain) for domain, p in pairs), domains)

    if options.drawn:
        found = Counter()
        for domain in domains:
            images = draw(model, domain, options.drawn, options.steps, model.metadata["guidance_scale"])
            found.update((domain, d.domain) for d in detector.from_images(images))

        show(f"drawn by the shipped model in {options.steps} steps", found, domains)


def show(title: str, found: Counter[tuple[str, str]], domains: tuple[str, ...]) -> None:
    """Print a confusion matrix: a row per true domain, a column per detected domain."""
    print(f"\n{title:<36}" + "".join(f"{d:>12}" for d in domains) + f"{'right':>10}")
    for asked in domains:
        total = sum(found[asked, d] for d in domains)
        cells = "".join(f"{found[asked, d]:>12}" for d in domains)
        print(f"{asked:<36}{cells}{found[asked, asked] / max(total, 1):>10.1%}")

    total = sum(found.values())
    print(f"{'all':<36}{'':>48}{sum(found[d, d] for d in domains) / max(total, 1):>10.1%}  (n = {total})", flush=True)
