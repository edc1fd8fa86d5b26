"""The pipeline by distances to real images: what an agent may turn, what is verified, and what is recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.diffusion.guidance import Interval
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.grids.schedule_file import save_schedules
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.optimization.environment import DomainEnv
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from adaptive_diffusion.optimization.verification import verify
from adaptive_diffusion.rl.baselines import FixedAgent, RandomAgent
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.rl.lockstep import drawing_run, run_together
from adaptive_diffusion.rl.measurement import REAL_UNIT
from adaptive_diffusion.rl.real_noises import RealNoises
from adaptive_diffusion.rl.reward import QualityReward

REAL = QualityReward("real")
FOUND = DomainConfig(3, guidance_weight=1.7, guidance_low=-2.0, guidance_high=1.0)


def calibrated(*numbers: int, guidance: float | Interval = 1.5) -> CalibratedSchedule:
    steps = {
        n: CalibratedSteps(tuple(999 * (1 - np.arange(n) / n)), None, "made up", {"made up": Score(0.1, 0.01)})
        for n in numbers
    }
    return CalibratedSchedule("tiny", guidance, "portraits", 1000, "rmse", 2, 2, steps)


@pytest.fixture
def adapter(tmp_path: Path) -> DomainAdapter:
    return DomainAdapter(tmp_path / "known.json", model=tiny_model(content_hash="tiny"))


def test_around_calibrated_steps_only_their_number_and_guidance_are_turned():
    drawing, default = drawing_of(tiny_model(), "portraits"), DomainConfig(5, calibration=calibrated(4, 5, 7))
    env = DomainEnv(drawing, default, default, REAL, max_steps=8, pictures=2)
    assert env.action_space.shape == (4,)
    assert env.knobs.configuration(np.zeros(4)) == default
    turned = env.knobs.configuration(np.array([0.4, 0.5, -0.5, 0.9]))
    assert (turned.num_steps, turned.solver, turned.progress_power) == (7, "dpm_solver", 2.0)
    assert turned.calibration is default.calibration
    assert isinstance(turned.guidance, Interval)

    plain = DomainConfig(5)
    assert DomainEnv(drawing, plain, plain, REAL, pictures=2).action_space.shape == (7,)
    assert DomainEnv(drawing, default, default, pictures=2).action_space.shape == (4,)  # as without real images
    assert DomainEnv(drawing, default, default, pictures=2).knobs.configuration(np.ones(4)).guidance is None


def test_an_agent_that_was_centred_on_another_configuration_is_refused_and_both_are_named(tmp_path):
    drawing, default = drawing_of(tiny_model(), "portraits"), DomainConfig(5)
    before, after = (
        FixedAgent(DomainEnv(drawing, start, default, pictures=2)) for start in (default, DomainConfig(5, 0.4))
    )
    before.save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"made for around=.*threshold=0\.5.* has around=.*threshold=0\.4.*beginning"):
        after.load(tmp_path / "agent.zip")


def test_a_verification_draws_each_configuration_with_its_guidance_from_the_same_noises():
    drawing = drawing_of(tiny_model(), "portraits")
    noises, default = RealNoises(drawing, pictures=4, batches=2, seed=9), DomainConfig(3)
    verdict = verify([FOUND], default, drawing, REAL, noises)
    assert verdict.all[0].to_dict()["quality"] == 0
    assert [v.batches[0].passes < 6 for v in verdict.all] == [False, True]

    errors = {}
    for config in (default, FOUND):
        guided = drawing_of(tiny_model(), "portraits", config.guidance)
        runs = [drawing_run(config.scheduler(drawing.settings), noises.x_T(batch)) for batch in range(2)]
        drawn = run_together(guided, runs)
        errors[config] = np.concatenate([noises.errors(i, one.states) for i, one in enumerate(drawn)])
    expected = (errors[default] - errors[FOUND]) / REAL_UNIT
    np.testing.assert_allclose(verdict.all[1].scores, expected, rtol=1e-2, atol=1e-2)


def test_what_the_pipeline_finds_is_recorded_with_its_guidance(adapter):
    small = {"pictures": 4, "batches": 1, "verification_batches": 1, "min_steps": 2, "num_steps": 3, "max_steps": 4}
    pipeline = OptimizationPipeline(adapter, RandomAgent, reward=REAL, **small)
    results = pipeline.optimize("portraits", None, None, 6, 1)
    assert results["agent_config"].guidance is not None
    chosen = results["agent_config"] if results["improved"] else DomainConfig(3)
    assert results["final_config"] == chosen == adapter.get_config("portraits")
    assert adapter.known("portraits").provenance["reward"] == "QualityReward(metric='real')"


def test_what_an_agent_finds_is_verified_with_the_steps_of_its_own_guidance(adapter, tmp_path):
    schedules = [calibrated(2, 3, 4), calibrated(2, 3, 4, guidance=Interval(1.2, -2.0, 1.0))]
    save_schedules(tmp_path / "s.json", schedules)

    class Found(FixedAgent):
        def predict(self, observation, deterministic=True):
            return np.array([-0.5, 0.9, -0.9, 0.0]), None  # guided a little, at few noise levels

    small = {"pictures": 4, "batches": 1, "verification_batches": 1, "min_steps": 2, "num_steps": 3, "max_steps": 4}
    pipeline = OptimizationPipeline(adapter, Found, reward=REAL, calibration=tmp_path / "s.json", **small)
    verified = pipeline.optimize("portraits", None, None, 1, 1)["agent_config"]
    assert isinstance(verified.guidance, Interval)
    drawn = pipeline.create_optimized_scheduler(verified, "portraits").calibration
    assert verified.calibration == drawn == schedules[1].drawn_at(verified.guidance)
    tried = pipeline.rl_agent.env.knobs.configuration(pipeline.rl_agent.predict(None)[0])
    assert pipeline.rl_agent.env.scheduler_of(tried).calibration == drawn, "as it was tried"


def test_another_reward_starts_from_the_models_own_guidance(adapter):
    adapter.adopt("portraits", FOUND, quality=1.0, speed=1.0, quality_error=0.1, weight=1.0, provenance={})
    steps = {"min_steps": 2, "num_steps": 3, "max_steps": 4}
    starts = [
        OptimizationPipeline(adapter, RandomAgent, reward=reward, **steps).agent("portraits").env.knobs.prior
        for reward in (REAL, QualityReward())
    ]
    assert starts == [FOUND, replace(FOUND, guidance_weight=None, guidance_low=None, guidance_high=None)]


def test_results_of_users_may_say_guidance(adapter):
    given = {"num_steps": 3, "guidance_weight": 1.7, "guidance_low": -2.0, "guidance_high": 1.0}
    assert adapter.learn_from_results("portraits", 3.0, 1.0, given, quality_error=0.1) == FOUND
    with pytest.raises(ValueError, match="there is no hyperparameter 'guidance'"):
        adapter.learn_from_results("portraits", 3.0, 1.0, {"num_steps": 3, "guidance": 2})
