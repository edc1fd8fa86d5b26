"""A solver of one's own: a class with `step`, and a scheduler that names it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.grids import Spacing
from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DDPMScheduler, SchedulerBase
from adaptive_diffusion.solvers import Memory, Position, Step

SHAPE = (4, 4, 3)
KEYS = image_keys(4, range(3))


@dataclass(frozen=True)
class EulerAncestral:
    """Euler's method to a lower noise level, and noise from there up to the next one (Karras et al., 2022)."""

    stochastic = True

    def step(self, at: Position, memory: Memory) -> Step:
        now, then = at.now.level, at.then.level
        up = math.sqrt(max(then**2 * (now**2 - then**2) / now**2, 0.0))
        down = math.sqrt(then**2 - up**2)
        xh = at.x0 + down / now * (at.x_t / at.now.alpha - at.x0)
        return Step(at.then.alpha * xh, at.then.alpha * up, ())


@dataclass(eq=False, repr=False)
class EulerAncestralScheduler(SchedulerBase):
    @property
    def solver(self) -> EulerAncestral:
        return EulerAncestral()

    @property
    def spacing(self) -> Spacing:
        return PowerGrid(2)


def denoiser(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
    return 0.6 * mx.tanh(x)


def test_it_draws_with_every_sampler() -> None:
    for sampler in (StandardSampler, QualityGuidedSampler):
        scheduler = EulerAncestralScheduler(prediction_type="sample")
        scheduler.set_timesteps(20)
        assert scheduler.timesteps[0] == 999
        assert scheduler.stochastic
        images = np.array(sampler(scheduler).run(denoiser, normal(KEYS, SHAPE), keys=KEYS).images)
        assert images.shape == (3, *SHAPE)
        assert 0.01 < np.abs(images).mean() < 1


def test_a_spacing_of_another_number_of_timesteps_is_refused() -> None:
    class Long(EulerAncestralScheduler):
        @property
        def spacing(self) -> Spacing:
            return lambda process, n: np.linspace(999, 0, n + 1)

    with pytest.raises(Unusable, match="the grid must give 8 timesteps, as many as there are steps, got"):
        Long().set_timesteps(8)


def test_it_is_the_posterior_of_ddpm_written_in_another_way() -> None:
    """The ancestral step has the posterior's mean and variance (Song et al., 2021, eq. 16 with eta 1)."""
    own, ddpm = EulerAncestralScheduler(prediction_type="sample"), DDPMScheduler(prediction_type="sample")
    x_t, noise = normal(KEYS, SHAPE), normal(image_keys(5, range(3)), SHAPE)
    for scheduler in (own, ddpm):
        scheduler.set_timesteps(timesteps=[700, 300, 20])
    steps = [scheduler.step(denoiser(x_t, None), 700, x_t, noise=noise) for scheduler in (own, ddpm)]
    np.testing.assert_allclose(np.array(steps[0]), np.array(steps[1]), atol=1e-5)


def test_the_page_on_the_core_runs(capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "core.md").read_text()
    (example,) = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    exec(compile(example, "core.md", "exec"), {})
    assert "(4, 32, 32, 3) Cost(evaluations=40, passes=80)" in capsys.readouterr().out
