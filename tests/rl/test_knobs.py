"""Actions and configurations: 0 is the prior, the ends are the ends, and what lies between is rounded."""

import numpy as np
import pytest

from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.rl.knobs import Knobs
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.configuration import Configuration
from adaptive_diffusion.schedulers.unipc_ipndm import IPNDMScheduler, UniPCScheduler


@pytest.mark.parametrize("prior", [Configuration(7), Configuration(7, 0.52, 2.1), Configuration(7, 0.123456789, 8.0)])
def test_no_action_is_the_prior(prior):
    assert Knobs(5, prior, 30).configuration(np.zeros(4)) == prior


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ([-1, -1, -1, 0], Configuration(4, 0.0, 1.0, "dpm_solver")),
        ([1, 1, 1, 0], Configuration(20, 1.0, 4.0, "dpm_solver")),
        ([0.5, 0.5, 0.5, 0.3], Configuration(15, 0.75, 3.0, "dpm_solver")),
        ([-0.5, -0.5, -0.5, -0.3], Configuration(7, 0.25, 1.5, "dpm_solver")),
        ([0.04, 0.04, 0.04, 0], Configuration(10, 0.5, 2.0, "dpm_solver")),
        ([0, 0, 0, -1], Configuration(10, 0.5, 2.0, "unipc")),
        ([0, 0, 0, 1], Configuration(10, 0.5, 2.0, "ipndm")),
        ([0, -1, 0, 0.4], Configuration(10, 0.5, 2.0, "ipndm")),
    ],
)
def test_an_action_is_a_residual(action, expected):
    assert Knobs().configuration(np.array(action)) == expected


@pytest.mark.parametrize("prior", ["unipc", "dpm_solver", "ipndm"])
def test_the_priors_solver_lies_in_the_middle_and_the_others_at_the_ends(prior):
    knobs = Knobs(prior=Configuration(solver=prior))
    ring = ["unipc", "dpm_solver", "ipndm"]
    thirds = {-1: (-1, -0.4), 0: (-0.3, 0, 0.3), 1: (0.4, 1)}
    for place, actions in thirds.items():
        solver = ring[(ring.index(prior) + place) % 3]
        assert {knobs.configuration(np.array([0, 0, 0, action])).solver for action in actions} == {solver}


@pytest.mark.parametrize(
    ("solver", "kind"), [("dpm_solver", AdaptiveScheduler), ("unipc", UniPCScheduler), ("ipndm", IPNDMScheduler)]
)
def test_a_configuration_builds_its_scheduler_for_the_model(solver, kind):
    settings = {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear", "clip_sample": True}
    scheduler = Configuration(6, 0.25, 1.5, solver).scheduler(settings)
    assert isinstance(scheduler, kind)
    assert {name: scheduler.config[name] for name in settings} == settings
    np.testing.assert_allclose(scheduler.timesteps, PowerGrid(1.5)(scheduler.schedule, 6))
    scheduler.set_timesteps(9)
    np.testing.assert_allclose(scheduler.timesteps, PowerGrid(1.5)(scheduler.schedule, 9))
    if solver == "dpm_solver":
        assert scheduler.config["adaptive_threshold"] == 0.25


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver must be one of dpm_solver, unipc, ipndm, got 'euler'"):
        Configuration(solver="euler")


def test_numbers_of_numpy_become_those_of_python():
    one = np.float32(1)
    config = Configuration(np.int64(6), one, one, guidance_weight=one, guidance_low=-one, guidance_high=one)
    assert {type(value) for value in config.to_dict().values()} == {int, float, str}
    with pytest.raises(ValueError, match="adaptive_threshold must be a number, at least 0 and at most 1, got 2"):
        Configuration(adaptive_threshold=2)
