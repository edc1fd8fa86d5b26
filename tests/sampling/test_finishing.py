"""The long strides that finish an image, on Gaussian pixels whose end is known."""

from dataclasses import replace

import mlx.core as mx
import numpy as np

from adaptive_diffusion.diffusion import Denoised, Node, Waiting, nodes_at
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids import FixedGrid
from adaptive_diffusion.sampling.finishing import finishing, finishing_levels
from adaptive_diffusion.sampling.rollout import Rollout, run
from adaptive_diffusion.solvers import DDIM

STD = 0.3
PICTURES = normal(image_keys(0, range(3)), (8, 8, 3)) * 0.3


def test_levels_fall_from_that_of_the_picture_to_the_lowest_of_the_model_and_stay_above_it():
    np.testing.assert_allclose(finishing_levels(1.0, 3, 0.0), [0.75**1.7, 0.5**1.7, 0.25**1.7])
    np.testing.assert_allclose(finishing_levels(0.5, 2, 0.1), 0.1 + 0.4 * np.array([2 / 3, 1 / 3]) ** 1.7)
    assert np.all(np.diff([0.011, *finishing_levels(0.011, 5, 0.01), 0.01]) < 0)
    assert len(finishing_levels(1.0, 0, 0.0)) == 0


class Gaussian:
    """Pixels of standard deviation 0.3; counts what it is asked at which timesteps."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def denoise_all(self, waiting: list[Waiting]) -> list[Denoised]:
        self.times += [some.node.t for some in waiting]
        return [self.denoised(some.x_t, some.node) for some in waiting]

    @staticmethod
    def denoised(x_t: mx.array, node: Node) -> Denoised:
        x0 = x_t * (STD**2 / (STD**2 + node.level**2) / node.alpha)
        return Denoised(x0, (x_t - node.alpha * x0) / node.sigma)


def finished(evaluations: int) -> tuple[list[float], list[float]]:
    """Finish images from level 0.8 on their exact way; the errors of what is shown, and the timesteps."""
    schedule, model = NoiseSchedule(), Gaussian()
    earlier, now = nodes_at(schedule, schedule.timestep(-np.log([1.0, 0.8])))

    def state(node: Node) -> mx.array:
        return PICTURES * (node.alpha * np.sqrt(STD**2 + node.level**2) / STD)

    stopped = replace(
        Rollout.begin(FixedGrid((earlier, now)), DDIM(), state(now)),
        node=now,
        trail=(earlier,),
        x0=model.denoised(state(earlier), earlier).x0,
    )
    begun = finishing(stopped, model.denoised(state(now), now), schedule, evaluations)
    errors = [float(mx.abs(moved.x0 - PICTURES).mean()) for (moved,) in run(model, [begun])]
    return errors, model.times


def test_finishing_takes_as_many_evaluations_as_asked_at_falling_timesteps_and_ends_near_the_truth():
    for evaluations in (1, 2, 4):
        errors, times = finished(evaluations)
        assert len(errors) == evaluations
        assert np.all(np.diff(times) < 0)
        assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.04 * errors[0]
    assert errors[-1] < 0.02 * float(mx.abs(PICTURES).mean())
