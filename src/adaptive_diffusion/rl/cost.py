"""What a training of an agent will take, before anything is drawn."""

from __future__ import annotations

from ..sampling.converged import FIRST_STEPS
from .sampling_env import HELD_OUT_BATCHES, SamplingEnv


def cost(env: SamplingEnv, episodes: int, domains: int = 1, verification_batches: int = 0) -> str:
    """In one sentence.

    Args:
        env: Where it takes place.
        episodes: Of each domain.
        domains: How many are trained in.
        verification_batches: Further batches that are compared with converged solutions.
    """
    noises, described = env.noises, env.describe()
    tried = episodes * noises.pictures * described.get("max_steps", described["num_steps"])
    compared = (noises.batches + HELD_OUT_BATCHES + verification_batches) * noises.pictures
    where = f" in each of {domains} domains" if domains > 1 else ""
    solved, passes = compared * FIRST_STEPS, env.drawing.most_passes
    return (
        f"{episodes} episodes of {noises.pictures} images try things in up to {tried:,} model evaluations "
        f"({tried * passes:,} passes){where}; the converged solutions of {compared} images take {solved:,} "
        f"({solved * passes:,}) or more, unless they are kept from before"
    )
