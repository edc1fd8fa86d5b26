"""What a training of an agent will take, before anything is drawn."""

from __future__ import annotations

from ..io.counted import count
from ..sampling.timing import duration, seconds_per_evaluation
from .agent import FREQUENT, RARER, TuningAgent
from .sampling_env import HELD_OUT_BATCHES

VERIFIED = 3  # the default, where the search began and what it found; a rival for each other solver comes on top


def cost(agent: TuningAgent, episodes: int, domains: int = 1, verification_batches: int = 0) -> str:
    """In words, by an evaluation that is timed here.

    Args:
        agent: What is trained.
        episodes: Of each domain.
        domains: How many are trained in.
        verification_batches: Fresh batches of the verification; 0: there is none.
    """
    episodes = agent.rounded_up(episodes)
    noises, described = agent.env.noises, agent.env.describe()
    batch = noises.pictures * described.get("max_steps", described["num_steps"])
    tried = episodes * batch
    looks = _looks(episodes, agent.eval_every) * (HELD_OUT_BATCHES + agent.batches_per_choice) * batch
    verified = VERIFIED * verification_batches * batch

    sets = [noises, *(noises.others(n) for n in (HELD_OUT_BATCHES, verification_batches) if n)]
    fewest, most = (sum(found) for found in zip(*(some.solving() for some in sets), strict=True))

    seconds = domains * seconds_per_evaluation(noises.drawing, noises.pictures)
    times = dict.fromkeys(duration(seconds * (tried + looks + verified + solved)) for solved in (fewest, most))
    where = f" in each of {domains} domains" if domains > 1 else ""
    passes = noises.drawing.most_passes
    images = sum(some.batches for some in sets) * noises.pictures
    solutions = (
        f"{fewest:,} to {most:,} for the converged solutions of {images} images, unless they are kept from before"
        if most
        else "none for converged solutions, since images are compared with real ones"
    )
    return (
        f"{count(episodes, 'episode')} of {noises.pictures} images{where}: up to {tried:,} network evaluations for "
        f"what is tried, up to {looks:,} for held-out scores, "
        f"{f'about {verified:,} for the verification, ' if verified else ''}and {solutions}; "
        f"{count(passes, 'pass')} each, about {' to '.join(times)} as things are"
    )


def _looks(episodes: int, every: int) -> int:
    """Evaluations on held-out noises, those before and after training included."""
    frequent = min(episodes // every, FREQUENT)
    wait = every * (RARER if frequent == FREQUENT else 1)
    return 1 + frequent - (-(episodes - frequent * every) // wait)
