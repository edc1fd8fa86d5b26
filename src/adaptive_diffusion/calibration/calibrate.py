"""Calibrate a model in one domain: measure it once, and find steps for every number of them that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_count, check_distinct
from ..diffusion.first_prediction import NOISES as FIRST_NOISES
from ..diffusion.first_prediction import FirstPrediction, condition_of, first_prediction
from ..diffusion.guided_model import GuidedModel
from ..diffusion.kept_guidance import kept_guidance
from ..diffusion.schedule import NoiseSchedule
from ..grids.base import Spacing
from ..grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, log_snr_of
from ..grids.spacings import BlendedGrid, LogSNRGrid, PowerGrid
from ..sampling.rollout import InBatches
from .choosing import choose
from .first import with_stored
from .fitting import HISTORY, Solution, errors, fit_corrections
from .learning import learn
from .recipe import check_recipe
from .reference import NODES, record
from .trajectory import Trajectory, dynamic_programme, equidistributed, measure_trajectory

CLASSICAL: dict[str, Spacing] = {"quadratic": PowerGrid(2), "log_snr": LogSNRGrid(), "blended": BlendedGrid()}
FITTED: dict[str, Callable[[Trajectory, NoiseSchedule, int], np.ndarray]] = {
    "fitted blended": lambda profile, schedule, n: BlendedGrid()(schedule, n),
    "fitted equidistributed": equidistributed,
    "fitted dynamic programme": dynamic_programme,
}
LEARNED = (5, 6, 8, 10, 12)  # numbers of steps, where nobody says which are learned
PROFILE_NODES = 60  # on which the rules for grids are measured


def best_classical(steps: CalibratedSteps) -> float:
    """The lowest held-out score of a classical grid."""
    return min(score.mean for name, score in steps.scores.items() if name in CLASSICAL)


@dataclass(frozen=True)
class ScheduleCalibration:
    """How a model is calibrated.

    Args:
        steps: Numbers of steps to calibrate, each in [2, 60].
        learned_steps: Numbers of steps for which positions and weights are learned as well, as far as they are among
            `steps`; None: 5, 6, 8, 10 and 12.
        noises: Images that grids are measured and weights fitted on, >= 2.
        held_out: Other images, by which the candidates are judged, >= 2.
        learned_noises: Images of `noises` that a schedule is learned on, >= 2.
        iterations: Gauss-Newton steps of learning at most, >= 0; they end where the held-out error no longer falls.
        batch_size: Images per evaluation, >= 1.
        seed: Of the noises, >= 0; the held-out ones have the next.

    Raises:
        ValueError: for a value out of range.
    """

    steps: Sequence[int] = (4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 35, 50)
    learned_steps: Sequence[int] | None = None
    noises: int = 32
    held_out: int = 48
    learned_noises: int = 24
    iterations: int = 2
    batch_size: int = 16
    seed: int = 20_000

    def __post_init__(self) -> None:
        check_recipe(self.steps, PROFILE_NODES, self.held_out, self.batch_size, self.seed)
        for n in self.learned_steps or ():
            check_count("learned_steps", n, 2, PROFILE_NODES)
        check_distinct("learned_steps", self.learned_steps or ())
        check_count("noises", self.noises, 2)
        if self.learned:
            check_count("learned_noises", self.learned_noises, 2, self.noises)
        check_count("iterations", self.iterations, 0)

    @property
    def learned(self) -> Sequence[int]:
        """The numbers of steps for which positions and weights are learned."""
        wanted = LEARNED if self.learned_steps is None else self.learned_steps
        return [n for n in wanted if n in self.steps]

    def evaluations(self, model: GuidedModel | None = None) -> int:
        """See `CalibrationRecipe`: a first prediction is stored where all images share the same class ids."""
        pictures = self.noises + self.held_out
        measuring = PROFILE_NODES * self.noises + NODES * pictures
        judging = sum(self.steps) * (len(CLASSICAL) * self.held_out + len(FITTED) * pictures)
        storing = FIRST_NOISES + sum(n - 1 for n in self.steps) * (self.noises + 2 * self.held_out)
        if model is not None and condition_of(model) is None:
            storing = 0
        columns = (n - 1 + n * (HISTORY - 1) for n in self.learned)
        learning = sum(
            n
            * (
                (len(FITTED) + 1) * self.learned_noises
                + (2 + self.iterations) * self.held_out
                + self.iterations * self.learned_noises * (c / 2 + 1)
            )
            for n, c in zip(self.learned, columns, strict=True)
        )
        return int(measuring + judging + storing + learning)

    def only(self, steps: Sequence[int]) -> Self:
        """See `CalibrationRecipe`."""
        return replace(self, steps=steps, learned_steps=[n for n in self.learned if n in steps])

    def decides(self, n: int) -> dict[str, Any]:
        """See `CalibrationRecipe`."""
        names = ("noises", "held_out", "learned_noises", "iterations", "seed")
        return {**{name: getattr(self, name) for name in names}, "learned": n in self.learned}

    def calibrate(
        self, model: GuidedModel, progress: Callable[[int], None] | None = None
    ) -> Iterator[CalibratedSchedule]:
        """Calibrate a model in a domain.

        Rivals for each number of steps, each judged by its mean RMSE to the reference images on the held-out noises:
        DPM-Solver++(2M) on the classical grids; fitted weights (see `fitting`) on the blended grid, on the
        equidistributed one and on that of dynamic programming (see `trajectory`); and, learned from the best of these,
        positions and weights together (see `learning`), as long as the held-out noises profit.

        Args:
            model: What to calibrate: a model in one domain, with its guidance. Of several conditions, image i is drawn
                with condition i modulo their number; of a mixture, with its own. The first prediction is stored where
                all images share the same class ids, or have none.
            progress: Called with the number of images after every model evaluation of a batch.

        Yields:
            The schedule so far, after every number of steps.

        Raises:
            Unusable: for a model of fewer training timesteps than the reference trajectories have nodes.
        """
        schedule = model.process
        drawn, others = conditioned(model, self.seed, self.noises), conditioned(model, self.seed + 1, self.held_out)
        batched, judging = (InBatches(images, self.batch_size, progress) for images in (drawn, others))
        noise = model.noise(self.seed, self.noises)
        reference, unseen = record(batched, noise), record(judging, model.noise(self.seed + 1, self.held_out))
        profile = measure_trajectory(drawn, noise, nodes=PROFILE_NODES, batch_size=self.batch_size, progress=progress)

        # images whose conditions differ have no first prediction in common, so there is none to store
        one = condition_of(model) is not None
        first = first_prediction(model, noise.shape[1:], batch_size=self.batch_size) if one else None
        if first is not None and progress is not None:
            progress(FIRST_NOISES)

        found: dict[int, CalibratedSteps] = {}
        for n in sorted(self.steps):
            candidates = {name: Solution(grid(schedule, n)) for name, grid in CLASSICAL.items()}
            for name, lay in FITTED.items():
                timesteps = lay(profile, schedule, n)
                candidates[name] = Solution(timesteps, fit_corrections(batched, reference, timesteps))

            if n in self.learned and self.iterations:
                start = min(
                    (candidates[name] for name in FITTED),
                    key=lambda candidate: float(errors(batched, reference[: self.learned_noises], candidate).mean()),
                )
                candidates["learned"] = learn(
                    batched,
                    reference[: self.learned_noises],
                    lambda tried: float(errors(judging, unseen, tried).mean()),
                    start,
                    self.iterations,
                )

            chosen = choose(candidates, lambda candidate: errors(judging, unseen, candidate), classical=list(CLASSICAL))
            found[n] = chosen if first is None else with_stored(batched, first, reference, unseen, chosen)
            yield schedule_of(model, NODES, self.noises, self.held_out, found, first)


def conditioned(model: GuidedModel, seed: int, count: int) -> GuidedModel:
    """The model with the conditions of the images of a seed: those of a mixture, or the given ones in turn.

    They are (count, ...), or (1, ...) class ids that all share, which are those of any number of images.
    """
    model = model.of_images(seed, count)
    given = model.condition
    if given is None:
        return model
    if condition_of(model) is not None:
        return model.with_condition(given[:1])
    return model.with_condition(given[mx.arange(count) % len(given)])


def schedule_of(
    model: GuidedModel,
    nodes: int,
    noises: int,
    held_out: int,
    steps: Mapping[int, CalibratedSteps],
    first: FirstPrediction | None = None,
) -> CalibratedSchedule:
    """What was found for a model by its distance to references of so many nodes, as it is kept."""
    return CalibratedSchedule(
        model=model.identity,
        guidance_scale=kept_guidance(model.guidance_scale),
        domain=model.domain,
        num_train_timesteps=model.process.num_train_timesteps,
        metric=f"rmse to {nodes} steps of iPNDM on the blended grid",
        noises=noises,
        held_out=held_out,
        steps=dict(steps),
        first=first,
        log_snr=log_snr_of(model.process),
    )
