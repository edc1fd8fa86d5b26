"""The long strides that finish a picture, on Gaussian pixels whose end is known (see `gaussian`)."""

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.rng import image_keys, normal
from adaptive_diffusion.sampling.finishing import Finish, Seen, finishing_levels, stride
from adaptive_diffusion.sampling.quality import QualityEstimator
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler

PICTURES = normal(image_keys(0, range(3)), (8, 8, 3)) * 0.3


def test_levels_fall_from_that_of_the_picture_to_the_lowest_of_the_model_and_stay_above_it():
    np.testing.assert_allclose(finishing_levels(1.0, 3, 0.0), [0.75**1.7, 0.5**1.7, 0.25**1.7])
    np.testing.assert_allclose(finishing_levels(0.5, 2, 0.1), 0.1 + 0.4 * np.array([2 / 3, 1 / 3]) ** 1.7)
    assert np.all(np.diff([0.011, *finishing_levels(0.011, 5, 0.01), 0.01]) < 0)
    assert len(finishing_levels(1.0, 0, 0.0)) == 0


@pytest.mark.parametrize("then", [0.3, 0.0])
def test_a_stride_is_exact_where_the_clean_prediction_is_a_line_in_the_noise_level(then):
    """With D = a + b s the ODE dxh / ds = (xh - D) / s is solved by xh = a - b s log(s) + c s."""
    a, b, c = (np.array(part)[None] for part in PICTURES)

    def xh(s: float) -> mx.array:
        return mx.array(a - b * (s * np.log(s) if s > 0 else 0) + c * s)

    now, before = (Seen(s, mx.array(a + b * s)) for s in (0.8, 1.1))
    np.testing.assert_allclose(np.array(stride(xh(0.8), then, now, before)), np.array(xh(then)), atol=1e-6)
    np.testing.assert_allclose(np.array(stride(xh(0.8), 0.0, now)), np.array(now.x0), atol=1e-6)


def finished(evaluations: int, std: float = 0.3) -> tuple[list[float], list[float]]:
    """Finish pictures from level 0.8 on their exact way; also the errors of what is shown, and the timesteps."""
    scheduler = AdaptiveScheduler(prediction_type="sample", clip_sample=False)

    def x0(s: float) -> mx.array:
        return PICTURES * (std / np.sqrt(std**2 + s**2))

    x_t = PICTURES * (np.sqrt(std**2 + 0.8**2) / std / np.sqrt(1 + 0.8**2))
    some = Finish(scheduler, QualityEstimator(), evaluations, np.arange(3), x_t, Seen(0.8, x0(0.8)), Seen(1.0, x0(1.0)))
    errors, times = [], []
    while not some.done:
        alpha, sigma = scheduler.schedule.alpha(some.timestep), scheduler.schedule.sigma(some.timestep)
        times.append(some.timestep)
        shown, quality = some.observe(some.x_t * float(std**2 / (std**2 + (sigma / alpha) ** 2) / alpha))
        errors.append(float(mx.abs(shown - PICTURES).mean()))
        assert quality.shape == (3,)
    return errors, times


def test_finishing_takes_as_many_evaluations_as_asked_at_falling_timesteps_and_ends_near_the_truth():
    for evaluations in (1, 2, 4):
        errors, times = finished(evaluations)
        assert len(errors) == evaluations
        assert np.all(np.diff(times) < 0)
        assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.04 * errors[0]
    assert errors[-1] < 0.02 * float(mx.abs(PICTURES).mean())
