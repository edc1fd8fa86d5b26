"""A grid of guidance whose images are drawn once, and an environment that looks rewards up in it.

Agents are compared on a table, as is common for searches of hyperparameters (Eggensperger et al., 2015; Klein & Hutter,
2019): what an agent tries counts as the nearest configuration of the grid. An episode then costs nothing, its reward is
that of images which were really drawn, and what the agents chose in the end is drawn anew from noises that nobody saw.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_diffusion.diffusion.guidance import Constant
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.reference import load_vicreg_reference
from adaptive_diffusion.encoder.vicreg import load_builtin_vicreg
from adaptive_diffusion.errors import UnusableFile
from adaptive_diffusion.io.array_file import read_arrays
from adaptive_diffusion.io.files import atomic_path
from adaptive_diffusion.io.markdown import table
from adaptive_diffusion.metrics.intervals import standard_error
from adaptive_diffusion.metrics.moment_distance import MomentDistance
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.environment import DomainEnv
from adaptive_diffusion.rl.knobs import DerivedKnobs
from adaptive_diffusion.rl.lockstep import Episode, drawing_run, run_together
from adaptive_diffusion.rl.measurement import REAL_UNIT, RealMeasurement, Sampled
from adaptive_diffusion.rl.noises import Noises
from adaptive_diffusion.rl.real_noises import RealNoises
from adaptive_diffusion.schedulers.configuration import Configuration

WEIGHTS = (1.3, 1.5, 2.0)
INTERVALS = ((None, None), (-4.0, -1.0), (-2.0, 0.35), (-0.5, 0.5))  # of log-SNR
STEPS = (5, 6, 8)
FRESH_SEED = 31_337  # of noises that no agent saw


def grid_around(default: DomainConfig) -> tuple[DomainConfig, ...]:
    """The default, and no guidance and all weights in all intervals in all numbers of steps."""
    guidances = [(1.0, None, None), *((weight, *interval) for weight in WEIGHTS for interval in INTERVALS)]
    return (
        default,
        *(
            replace(default, num_steps=steps, guidance_weight=weight, guidance_low=low, guidance_high=high)
            for weight, low, high in guidances
            for steps in STEPS
        ),
    )


@dataclass(frozen=True)
class Drawn:
    """What is kept of N images that a configuration drew.

    Attributes:
        encoder: (N, d) features.
        vicreg: (N, d') features of the VICReg encoder.
        evaluations: Of the model, per image.
        passes: Through the network, per image.
    """

    encoder: np.ndarray
    vicreg: np.ndarray
    evaluations: int
    passes: int


@dataclass(frozen=True)
class Store:
    """Features of images, a file for each configuration and set of noises, so that what was drawn is not drawn again.

    Args:
        folder: Where the files are.
    """

    folder: Path
    _kept: dict[Path, Drawn] = field(default_factory=dict, init=False, repr=False)

    def drawn(self, config: DomainConfig, noises: Noises) -> Drawn:
        """What a configuration draws from all batches of some noises."""
        made_of = [noises.drawing.guided_identity, noises.seed, noises.pictures * noises.batches, config.to_dict()]
        encoders = [load_builtin_encoder().content_hash, load_builtin_vicreg().content_hash]
        digest = hashlib.sha256(json.dumps([made_of, encoders], sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{noises.drawing.domain}-{digest[:16]}.npz"
        if path not in self._kept:
            try:
                kept = read_arrays(path, "features of a grid")
                self._kept[path] = Drawn(kept["encoder"], kept["vicreg"], int(kept["evaluations"]), int(kept["passes"]))
            except (UnusableFile, KeyError):
                self._kept[path] = found = _draw(config, noises)
                with atomic_path(path) as temporary:
                    np.savez(temporary, **vars(found))
                print(f"drawn: {noises.drawing.domain}, noises {noises.seed}, {config}", file=sys.stderr, flush=True)

        return self._kept[path]


@dataclass(frozen=True)
class OnGrid(DerivedKnobs):
    """Actions that stand for the configuration of a grid which is nearest to what they stand for otherwise.

    Args:
        others: What they stand for otherwise.
        grid: The configurations.
        ends: Log-SNR of the first and the last noise level.
        own: The model's weight of guidance.
    """

    grid: tuple[DomainConfig, ...]
    ends: tuple[float, float]
    own: float

    @property
    def width(self) -> int:
        """See `Knobs`."""
        return self.others.width

    def configuration(self, action: np.ndarray) -> DomainConfig:
        """See `Knobs`; near is what differs by little of the range of each knob."""
        wanted = self._place(self.others.configuration(action))
        return min(self.grid, key=lambda config: float(np.abs(self._place(config) - wanted).sum()))

    def _place(self, config: Configuration) -> np.ndarray:
        (first, last), weight = self.ends, config.guidance_weight
        low = first if config.guidance_low is None else config.guidance_low
        high = last if config.guidance_high is None else config.guidance_high
        steps = config.num_steps / (self.max_steps - self.min_steps)
        return np.array([self.own if weight is None else weight, low / -first, high / last, steps])


class GridEnv(DomainEnv):
    """A `DomainEnv` on a grid of guidance; nothing is drawn that is in the store.

    Args:
        store: Where features are kept.
        ...: As for `DomainEnv`.
    """

    def __init__(self, store: Store, *args: Any, **more: Any):
        super().__init__(*args, **more)
        assert isinstance(self.default, DomainConfig)
        first, last = self.drawing.process.log_snr([self.drawing.process.num_train_timesteps - 1, 0]).tolist()
        own = float(self.drawing.guidance_scale)  # type: ignore[arg-type]  # constant, see `with_guidance_knobs`
        self._store, self.grid = store, grid_around(self.default)
        self.knobs = OnGrid(self.knobs, self.grid, (first, last), own)

    def describe(self) -> dict[str, Any]:
        """See `SamplingEnv`."""
        return {**super().describe(), "grid": [f"{config}" for config in self.grid]}

    def best(self) -> DomainConfig:
        """The configuration with the highest mean reward on all batches; what is missing of the grid is drawn."""
        return max(self.grid, key=lambda config: float(rewards(self._store, self.noises, config, self).mean()))

    def _draw(self, configuration: Configuration) -> Episode[Sampled]:
        yield from ()
        return sampled(self._store, self.noises, configuration, self.noises.rows(self.batch))


def sampled(store: Store, noises: Noises, config: Configuration, rows: Any = slice(None)) -> Sampled:
    """What a configuration draws from some of the noises."""
    assert isinstance(config, DomainConfig)
    assert isinstance(noises, RealNoises)
    drawn = store.drawn(config, noises)
    return Sampled(noises.contributions(drawn.encoder[rows]), drawn.evaluations, 0.0, drawn.passes)


def rewards(store: Store, noises: Noises, config: DomainConfig, env: GridEnv) -> np.ndarray:
    """(N,) the reward of each image from some noises, against the default's."""
    return env.reward(RealMeasurement.of(*(sampled(store, noises, each) for each in (config, env.default))))


@dataclass(frozen=True)
class Choice:
    """What an agent chose with a seed, on images from noises that nobody saw.

    Attributes:
        config: The configuration.
        passes: Through the network, per image.
        reward: (N,) of each image, against the default's.
        quality: (N,) what each image wins over the default's.
        vicreg: (N,) the same by the encoder that nothing was tuned on.
    """

    config: DomainConfig
    passes: int
    reward: np.ndarray
    quality: np.ndarray
    vicreg: np.ndarray

    @classmethod
    def of(cls, store: Store, noises: RealNoises, config: DomainConfig, env: GridEnv) -> Choice:
        """Draw what a configuration draws from some noises, and compare it with the default."""
        assert isinstance(env.default, DomainConfig)
        ours, theirs = store.drawn(config, noises), store.drawn(env.default, noises)
        encoder = noises.contributions(theirs.encoder) - noises.contributions(ours.encoder)
        distance = _to_real_images(noises.drawing.domain)
        vicreg = distance.contributions(theirs.vicreg) - distance.contributions(ours.vicreg)
        reward = rewards(store, noises, config, env)
        return cls(config, ours.passes, reward, encoder / REAL_UNIT, vicreg / REAL_UNIT)


@cache
def _to_real_images(domain: str) -> MomentDistance:
    """The distance to a domain's real images by the encoder that nothing was tuned on."""
    return MomentDistance(load_vicreg_reference(domain, load_builtin_vicreg())[0])


def fresh_table(domain: str, chosen: Mapping[str, Sequence[Choice]]) -> str:
    """Markdown: what agents chose in a domain, by their names, one choice for each seed.

    Means over the seeds, and standard errors over the images.
    """
    rows = []
    for agent, choices in chosen.items():
        cells = []
        for name in ("reward", "quality", "vicreg"):
            values = np.mean([getattr(choice, name) for choice in choices], axis=0)
            cells.append(f"{values.mean():+.2f} ± {standard_error(values):.2f}")
        better = sum(choice.reward.mean() > 2 * standard_error(choice.reward) for choice in choices)
        passes = sorted({choice.passes for choice in choices})
        spent = " to ".join(str(end) for end in dict.fromkeys((passes[0], passes[-1])))
        named = Counter(_in_words(choice.config) for choice in choices)
        most, times = named.most_common(1)[0]
        count = len(choices)
        rows.append(
            [
                domain,
                agent,
                *cells,
                f"{better} of {count}",
                spent,
                f"{most} ({times} of {count})",
            ]
        )

    header = ["domain", "agent", "reward", "quality, encoder", "quality, VICReg", "better by 2 errors", "passes"]
    return "\n".join(table([*header, "chosen most often"], rows, "llrrrrrl"))


def _in_words(config: DomainConfig) -> str:
    """Steps and guidance of a configuration."""
    guidance = config.guidance
    if guidance is None:
        return f"{config.num_steps} steps"
    return f"{config.num_steps} steps, {guidance.name}{' at every step' if isinstance(guidance, Constant) else ''}"


def _draw(config: DomainConfig, noises: Noises) -> Drawn:
    """Draw all batches, and encode them."""
    encoder, vicreg, model = load_builtin_encoder(), load_builtin_vicreg(), noises.drawing
    features: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in range(noises.batches):
        run = drawing_run(
            config.scheduler(model.settings), noises.x_T(batch), noises.rows(batch), guidance=config.guidance
        )
        drawn = run_together(model, [run])[0]
        images = model.images(drawn.states)
        features.append((encoder.features(images), vicreg.features(images)))

    first, second = (np.concatenate(kind) for kind in zip(*features, strict=True))
    return Drawn(first, second, drawn.evaluations, drawn.passes)
