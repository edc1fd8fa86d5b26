"""`python -m benchmarks first_share`: stored first predictions of labels by share, at equal evaluations."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from adaptive_diffusion.diffusion.conditions import conditions_of
from adaptive_diffusion.diffusion.facts import ModelFacts
from adaptive_diffusion.diffusion.first_prediction import KnownFirst, conditions_in, first_node
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.first_file import shipped_firsts
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.optimization.memory import SHIPPED
from adaptive_diffusion.optimization.tuned import tuned_guidance
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches
from benchmarks.common import DOMAINS
from benchmarks.first import Cell, compared

HEADER = ("domain", "evaluations", "RMSE: evaluated", "stored", "perceptual: evaluated", "stored")


def main(argv: list[str]) -> None:
    """Compare the shipped steps to one step more, whose first prediction is the one that ships for each label."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks first_share", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--evaluations", nargs="+", type=int, default=[4, 5, 6, 7, 8, 9, 10])
    parser.add_argument("--noises", type=int, default=64, help="per cell")
    parser.add_argument("--seed", type=int, default=86_000, help="of the noises")
    parser.add_argument("--tuned", action="store_true", help="at the tuned guidance of each domain, with its steps")
    options = parser.parse_args(argv)

    print("\n".join(table(list(HEADER), [], "lrrrrr")), flush=True)
    for domain in options.domains:
        for row in _rows(domain, options.evaluations, options.noises, options.seed, options.tuned):
            print(row_of(row), flush=True)


def _rows(domain: str, evaluations: Sequence[int], noises: int, seed: int, tuned: bool) -> Iterator[list[str]]:
    """Compare the shipped steps, with labels by share, to one step more whose first prediction ships.

    Args:
        domain: The domain.
        evaluations: Numbers of evaluations; those without steps of as many, or of one more, are left out.
        noises: How many, >= 2.
        seed: Of the noises, and of their labels.
        tuned: Whether guidance is that which ships as tuned, instead of the constant guidance of the model.

    Yields:
        The cells of a row, see `HEADER`.
    """
    network, encoder = load_builtin_model(), load_builtin_encoder()
    weight = ModelFacts.of(network).guidance(None)
    guidance = tuned_guidance(str(SHIPPED), "", network.identity, domain, weight) if tuned else weight
    guided = GuidedModel.from_model(network, conditions_of(network, domain, None, domain), guidance)
    guided = guided.of_images(seed, noises)
    calibration = find_schedule(None, network.identity, domain, guided.guidance_scale)
    assert calibration is not None

    batched, weight = InBatches(guided), guided.weight_at(first_node(guided.process))
    firsts = [shipped_firsts().guided(ids, weight) for ids in conditions_in(guided) or ()]
    cell = Cell(calibration, batched, KnownFirst(batched, firsts), guided.noise(seed, noises))
    for n in evaluations:
        evaluated, stored = cell.drawn(n, cell.evaluated), cell.drawn(n + 1, cell.stored)
        if evaluated is None or stored is None:
            continue
        both = evaluated, stored
        rmse = [paired_rmse(images, cell.solution) for images in both]
        perceptual = [encoder.perceptual_distances(images, cell.solution) for images in both]
        numbers = [text for one, other in (rmse, perceptual) for text in (f"{one.mean():.4f}", compared(other, one))]
        yield [domain, str(n), *numbers]
