"""`python -m benchmarks first_near`: how near a stored first prediction is to those of unseen noises."""

from __future__ import annotations

import argparse

import numpy as np

from adaptive_diffusion.diffusion.conditions import NO_LABEL, conditions_of
from adaptive_diffusion.diffusion.first_prediction import first_node, first_prediction
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.io.markdown import row_of, table
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.sampling.converged import paired_rmse
from adaptive_diffusion.sampling.rollout import InBatches
from benchmarks.common import DOMAINS

MEASURED = (4, 8, 16, 32, 64)  # noises that a first prediction is measured from
UNSEEN = 64  # noises that it is compared on


def main(argv: list[str]) -> None:
    """Print a row of RMSE for each domain, one for each number of noises."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks first_near", description=__doc__)
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--label", default=NO_LABEL, help="a label of the domains, or none")
    parser.add_argument("--seed", type=int, default=86_000, help="of the noises")
    options = parser.parse_args(argv)

    model = load_builtin_model()
    header = ["domain", *(f"{m} noises" for m in MEASURED)]
    print("\n".join(table(header, [], "l" + "r" * len(MEASURED))), flush=True)
    for domain in options.domains:
        guided = GuidedModel.from_model(model, conditions_of(model, domain, options.label, domain))
        print(row_of([f"{domain}, {options.label}", *_nearness(guided, options.seed)]), flush=True)


def _nearness(model: GuidedModel, seed: int) -> list[str]:
    """How far first predictions of unseen noises are from what is stored of some, and in brackets from their mean."""
    assert model.state_shape is not None
    noise, node = model.noise(seed, UNSEEN), first_node(model.process)
    exact = InBatches(model).denoise(noise, node, np.arange(UNSEEN)).x0
    found = []
    for measured in MEASURED:
        first = first_prediction(model, model.state_shape, measured)
        errors = [paired_rmse(np.array(known), np.array(exact)).mean() for known in (first(noise), first.mean[None])]
        found.append(f"{errors[0]:.4f} ({errors[1]:.4f})")
    return found
