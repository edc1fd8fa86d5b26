"""From a domain to a verified configuration: what is found, what is kept, what is refused, and train.py agent=..."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import DictConfig
from tiny import LABELS, configuration, mlflow_database, tiny_checkpoint, tiny_model

from adaptive_diffusion.cli.schemas import Domain
from adaptive_diffusion.errors import MachineError
from adaptive_diffusion.grids.calibrated import find_schedule, kept_file
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.grids.schedule_file import save_schedules
from adaptive_diffusion.models.checkpoint import load_builtin_model, load_model, save_model
from adaptive_diffusion.optimization import memory, verification
from adaptive_diffusion.optimization import pipeline as module
from adaptive_diffusion.optimization.configuration import DomainConfig, confidence_of
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter, DomainType
from adaptive_diffusion.optimization.environment import DomainEnv, DomainKnobs
from adaptive_diffusion.optimization.memory import HISTORY_FORMAT, SHIPPED, read_records
from adaptive_diffusion.optimization.pipeline import FRESH, OptimizationPipeline
from adaptive_diffusion.optimization.tuned import tuned_scheduler
from adaptive_diffusion.optimization.verification import verify
from adaptive_diffusion.rl.baselines import CEMAgent, FixedAgent, RandomAgent
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.rl.lockstep import drawing_run, run_together
from adaptive_diffusion.rl.measurement import Measurement, Sampled
from adaptive_diffusion.rl.noises import FixedNoises
from adaptive_diffusion.rl.reward import HybridReward, QualityReward, Reward, SpeedReward
from adaptive_diffusion.rl.timestep_environment import TimestepEnv
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.train import train
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.tracking.mlflow import MlflowTracker

pytestmark = pytest.mark.usefixtures("coarse_solutions")

SMALL = {"pictures": 2, "batches": 1, "verification_batches": 4}


def calibration(*numbers: int, power: float = 1.5, model: str = "tiny") -> CalibratedSchedule:
    """Steps on a power grid that pass for calibrated ones."""
    steps = {
        n: CalibratedSteps(tuple(999 * (1 - np.arange(n) / n) ** power), None, "made up", {"made up": Score(0.1, 0.01)})
        for n in numbers
    }
    return CalibratedSchedule(model, 1.5, "portraits", 1000, "rmse", 2, 2, steps)


@pytest.fixture
def adapter(tmp_path) -> DomainAdapter:
    return DomainAdapter(tmp_path / "known.json", model=tiny_model(content_hash="tiny"))


def tuned(adapter: DomainAdapter, agent: object = CEMAgent, steps: int = 40, **more: object) -> dict:
    return OptimizationPipeline(adapter, agent, **{**SMALL, **more}).optimize("portraits", None, None, steps, 2)


# what an agent may choose


@pytest.mark.parametrize("solver", ["unipc", "dpm_solver", "ipndm"])
def test_no_action_is_what_is_known_and_every_solver_can_be_chosen(solver):
    knobs = DomainKnobs(4, DomainConfig(7, 0.3, 2.5, solver), 20)
    assert knobs.configuration(np.zeros(4)) == knobs.prior
    chosen = {knobs.configuration(np.array([0, 0, 0, a])).solver for a in np.linspace(-1, 1, 41)}
    assert chosen == {"unipc", "dpm_solver", "ipndm"}


def test_of_calibrated_steps_only_calibrated_numbers_are_tried_and_no_power():
    knobs = DomainKnobs(4, DomainConfig(10, calibration=calibration(5, 12, 15, 30)), 20)
    tried = [knobs.configuration(np.array([a, 0, b, 0])) for a in np.linspace(-1, 1, 21) for b in (-1, 1)]
    assert {c.num_steps for c in tried} == {5, 10, 12, 15}
    assert {c.progress_power for c in tried} == {2.0}
    other = knobs.configuration(np.array([1, 0, 1, 1]))
    assert (other.num_steps, other.progress_power, other.solver) == (20, 4.0, "ipndm")


def test_an_agent_begins_at_what_is_known_and_is_compared_with_the_default(adapter):
    start, default = DomainConfig(6, calibration=calibration(6, 10)), DomainConfig(10, calibration=calibration(6, 10))
    env = DomainEnv(drawing_of(adapter.model, "portraits"), start, default, pictures=2, batches=1)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.zeros(4, np.float32))
    assert info["hyperparameters"] == start.to_dict()
    assert info["speed"] == pytest.approx(0.4)
    errors = {}
    for config in (start, default):
        scheduler = config.scheduler(env.drawing.settings)
        assert scheduler.get_schedule_info()["rule"] == "made up"
        drawn = run_together(env.drawing, [drawing_run(scheduler, env.noises.x_T(0))])
        errors[config] = env.noises.errors(0, drawn[0].states)
    assert info["qualities"] == pytest.approx(np.log(errors[default] / errors[start]), rel=1e-4)


# verification


def judged(monkeypatch, errors: dict[DomainConfig, np.ndarray], reward: Reward | None = None, **more: DomainConfig):
    """The verdict on all but the first, which is the default, where every configuration's errors are known."""

    def draw(config, drawing, noises, batch):
        return Sampled(errors[config], config.num_steps, 0.1 * config.num_steps, config.num_steps)

    monkeypatch.setattr(verification, "_draw", draw)
    default, *candidates = errors
    noises = SimpleNamespace(batches=1, measurement=Measurement)
    return verify(candidates, default, None, reward or QualityReward(), noises, **more)


def timed(monkeypatch, seconds: dict[DomainConfig, list[float]], reward: Reward | None = None):
    """The same of equal errors, where the seconds of every batch are known; and what was drawn, one after another."""
    drawn = []

    def draw(config, drawing, noises, batch):
        drawn.append((config.num_steps, batch))
        return Sampled(np.ones(8), config.num_steps, seconds[config][batch], config.num_steps)

    monkeypatch.setattr(verification, "_draw", draw)
    default, *candidates = seconds
    noises = SimpleNamespace(batches=len(seconds[default]), measurement=Measurement)
    return verify(candidates, default, None, reward or SpeedReward("seconds"), noises), drawn


SPREAD = np.exp(np.linspace(-0.1, 0.1, 16))  # of the quality; its mean is 0
SE = np.log(SPREAD).std(ddof=1) / 4


@pytest.mark.parametrize(("gain", "improved"), [(2.1 * SE, True), (1.9 * SE, False), (-0.5, False)])
def test_the_default_stays_unless_beaten_by_two_standard_errors(monkeypatch, gain, improved):
    default, other = DomainConfig(10), DomainConfig(8)
    verdict = judged(monkeypatch, {default: np.ones(16), other: np.exp(-gain) * SPREAD})
    assert (verdict.improved, verdict.chosen.config) == (improved, other if improved else default)
    assert [v.config for v in verdict.all] == [default, other]
    assert ("default stays" in verdict.reason) == (not improved)


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (
            2.1 * SE,
            f"and better than the tuned setting in use by {2.1 * SE:.3f} +- {SE:.3f} in score on 16 fresh noises",
        ),
        (
            1.9 * SE,
            f"in use by only {1.9 * SE:.3f} +- {SE:.3f} in score on 16 fresh noises; the tuned setting in use stays",
        ),
        (-0.2, f"worse than the tuned setting in use by 0.200 +- {SE:.3f} in score"),
    ],
)
def test_what_is_in_use_stays_unless_beaten_by_two_standard_errors_from_the_same_noises(monkeypatch, gain, said):
    default, in_use, found = DomainConfig(10), DomainConfig(6), DomainConfig(5)
    errors = {default: np.ones(16), in_use: np.full(16, 0.5), found: 0.5 * np.exp(-gain) * SPREAD}
    verdict = judged(monkeypatch, errors, in_use=in_use)  # all of them are surely better than the default
    assert verdict.improved == (gain > 2 * SE)
    assert (verdict.chosen.config, verdict.found.config) == (found if verdict.improved else in_use, found)
    assert not verdict.default_stays
    assert verdict.gains["in_use"] == pytest.approx((gain, SE))
    assert verdict.gains["default"] == pytest.approx((np.log(2) + gain, SE))
    assert said in verdict.reason
    assert [v.config for v in verdict.all] == [default, in_use, found]


def test_what_is_in_use_stays_also_where_it_and_all_that_was_found_lose_to_the_default(monkeypatch):
    default, in_use, found = DomainConfig(10), DomainConfig(6), DomainConfig(5)
    errors = {default: np.ones(16), in_use: np.full(16, 3.0), found: 2 * SPREAD}
    assert judged(monkeypatch, errors, in_use=in_use).chosen.config == in_use
    verdict = judged(monkeypatch, {default: errors[default], in_use: errors[in_use]}, in_use=in_use)
    assert (verdict.chosen.config, verdict.found, verdict.gains) == (in_use, None, {})


def test_the_best_of_several_is_chosen_by_the_reward(monkeypatch):
    errors = {DomainConfig(10): np.ones(8), DomainConfig(5): np.full(8, 1.5), DomainConfig(20): np.full(8, 0.5)}
    assert judged(monkeypatch, errors).chosen.config.num_steps == 20
    assert judged(monkeypatch, errors, HybridReward(0.1)).chosen.config.num_steps == 5
    assert judged(monkeypatch, errors, HybridReward(0.1)).chosen.speed == 2


@pytest.mark.parametrize("calibrated", [0.7, 0.9])
def test_another_solver_must_be_as_good_as_the_adaptive_scheduler_at_the_same_evaluations(monkeypatch, calibrated):
    default, other, rival = DomainConfig(10), DomainConfig(12, solver="unipc"), DomainConfig(12)
    errors = {default: np.ones(8), other: np.full(8, 0.8)}

    def draw(config, drawing, noises, batch):
        found = {**errors, rival: np.full(8, calibrated)}
        return Sampled(found[config], config.num_steps, 1.0, config.num_steps)

    monkeypatch.setattr(verification, "_draw", draw)
    speedy = HybridReward(0.5)  # 12 evaluations cost 0.1, which both make up for
    verdict = verify([other], default, None, speedy, SimpleNamespace(batches=1, measurement=Measurement))
    assert verdict.chosen.config == (rival if calibrated == 0.7 else other)
    if calibrated == 0.7:
        assert verdict.chosen.config.source == "the default with 12 steps, tried beside unipc"


@pytest.mark.parametrize("jitter", [0.1, 0.5])
def test_a_gain_in_seconds_is_as_sure_as_batches_agree_on_it(monkeypatch, jitter):
    default, other = DomainConfig(10), DomainConfig(9)
    saved = 0.2 + jitter * np.array([-1, 1, -1, 1])
    verdict, _ = timed(monkeypatch, {default: [2.0] * 4, other: list(2 * (1 - saved))})
    error = jitter / np.sqrt(3)  # standard deviation of two and two at +-jitter: jitter sqrt(4 / 3), over 4 batches
    assert verdict.improved == (jitter == 0.1)
    assert f"0.200 +- {error:.3f} in score on 4 batches of fresh noises" in verdict.reason
    measured = verdict.all[1].to_dict()
    assert (measured["score"], measured["score_error"]) == pytest.approx((0.2, error))
    assert (measured["seconds"], measured["seconds_error"]) == pytest.approx((1.6, 2 * error))
    assert verdict.all[1].speed == pytest.approx(1.25)


def test_seconds_are_taken_in_turn_after_everything_was_drawn_once(monkeypatch):
    seconds = {DomainConfig(10): [1.0] * 2, DomainConfig(9): [1.0] * 2}
    turns = [(10, 0), (9, 0), (10, 1), (9, 1)]
    assert timed(monkeypatch, seconds)[1] == [(10, 0), (9, 0), *turns]
    assert timed(monkeypatch, seconds, SpeedReward())[1] == turns


def test_of_a_single_batch_nobody_knows_how_sure_its_seconds_are(monkeypatch):
    verdict, _ = timed(monkeypatch, {DomainConfig(10): [1.0], DomainConfig(9): [0.1]})
    assert not verdict.improved
    assert verdict.chosen.to_dict()["seconds_error"] is None


def test_a_reward_that_is_no_number_names_the_configuration(monkeypatch):
    errors = {DomainConfig(10): np.ones(4), DomainConfig(7): np.full(4, np.nan)}
    with pytest.raises(ValueError, match=r"num_steps=7, .* not a finite number"):
        judged(monkeypatch, errors)


# the pipeline


def test_what_is_returned_was_measured_on_fresh_noises_and_is_remembered(adapter):
    # from these noises the agent's own choice wins, by thirteen standard errors; from those of seed 1000, a rival of it
    results = tuned(adapter, reward=QualityReward(), noise_seed=1001)
    final, default = results["final_config"], results["verification"][0]
    assert results["improved"]
    assert (results["domain_type"], results["domain_confidence"]) == ("portraits", 1.0)
    assert default["hyperparameters"] == results["start_config"].to_dict() == DomainConfig(10).to_dict()
    assert results["agent_config"].to_dict() == results["optimization"]["best_hyperparameters"]

    drawing, errors = drawing_of(adapter.model, "portraits"), {}
    noises = FixedNoises(drawing, pictures=2, batches=4, seed=1001 + FRESH)
    for config in (DomainConfig(10), final):
        runs = [drawing_run(config.scheduler(drawing.settings), noises.x_T(b)) for b in range(4)]
        drawn = run_together(drawing, runs)
        errors[config] = np.concatenate([noises.errors(b, batch.states) for b, batch in enumerate(drawn)])
    (measured,) = [v for v in results["verification"] if v["hyperparameters"] == final.to_dict()]
    assert measured["quality"] == pytest.approx(np.log(errors[DomainConfig(10)] / errors[final]).mean(), rel=1e-3)
    assert measured["quality"] > 0

    assert adapter.get_config("portraits") == final
    assert final.source == "tuned by cem for portraits"
    known = adapter.known("portraits")
    assert known.weight == 1
    assert known.provenance["chosen"] == measured
    assert known.provenance["pictures"] == 8
    assert known.score(final.to_dict())[0] == pytest.approx(measured["score"], abs=1e-6)


def test_what_is_known_is_where_tuning_begins_the_next_time(adapter):
    adapter.adopt("portraits", DomainConfig(30, 0.4), quality=1, speed=1, quality_error=0.1, weight=0.5, provenance={})
    results = tuned(adapter, FixedAgent, 2)
    assert results["start_config"].to_dict() == {**DomainConfig(20, 0.4).to_dict()}  # within the range of steps
    assert results["agent_config"] == results["start_config"]


def test_what_is_in_use_is_recorded_as_before_unless_something_better_is_found(adapter, monkeypatch):
    errors = {10: 1.0, 7: 0.5, 6: 0.6, 5: 0.4}

    class Found(FixedAgent):
        steps = 6

        def optimize_hyperparameters(self, *_):
            return {"best_hyperparameters": DomainConfig(self.steps).to_dict()}

    def draw(config, drawing, noises, batch):
        return Sampled(np.full(2, errors[config.num_steps]), config.num_steps, 1.0, config.num_steps)

    monkeypatch.setattr(verification, "_draw", draw)
    adapter.adopt("portraits", DomainConfig(7), quality=1, speed=1.4, quality_error=0.1, weight=0.5, provenance={})
    before = adapter.known("portraits")
    results = tuned(adapter, Found, 1, reward=QualityReward())
    assert not results["improved"]
    assert results["final_config"] == results["in_use_config"] == DomainConfig(7)
    assert results["found_config"] == results["agent_config"] == DomainConfig(6)
    assert results["gains"]["in_use"] == pytest.approx({"mean": np.log(0.5 / 0.6), "error": 0})
    assert adapter.known("portraits") == replace(before, provenance={"noise_seed": results["noise_seed"]})

    Found.steps = 5
    results = tuned(adapter, Found, 1, reward=QualityReward())
    assert results["improved"]
    assert adapter.get_config("portraits") == results["final_config"] == results["found_config"] == DomainConfig(5)
    assert results["in_use_config"] == DomainConfig(7)


def test_what_ships_is_in_use_where_tuning_kept_the_default(adapter, tmp_path, monkeypatch):
    shipped = DomainAdapter(tmp_path / "shipped.json", model=adapter.model)
    shipped.adopt("portraits", DomainConfig(6), quality=1, speed=1, quality_error=0.1, weight=0.5, provenance={})
    tuned(adapter, FixedAgent, 1)  # nothing shipped then
    monkeypatch.setattr(memory, "SHIPPED", tmp_path / "shipped.json")
    assert adapter.known("portraits").source == "the default, which tuning did not beat"
    assert adapter.in_use("portraits") == DomainConfig(6)
    assert adapter.in_use("abstract") is None
    assert tuned(adapter, FixedAgent, 1, use_domain_adaptation=False)["in_use_config"] is None


def test_no_search_keeps_the_default_and_says_so(adapter):
    results = tuned(adapter, FixedAgent, 2)
    assert not results["improved"]
    assert results["final_config"] == DomainConfig(10)
    assert results["reason"] == "nothing found is better than the default on 8 fresh noises; the default stays"
    assert adapter.get_config("portraits").source == "the default, which tuning did not beat"
    assert adapter.get_config("portraits").confidence == confidence_of(0.25)  # it had no rival


def test_a_default_that_stays_is_as_sure_as_its_best_rival_was_measured(adapter, monkeypatch):
    errors = {10: np.ones(2), 9: 1.5 * np.exp(np.array([-0.4, 0.4])), 5: np.full(2, 3.0)}

    def draw(config, drawing, noises, batch):
        return Sampled(errors[config.num_steps], config.num_steps, 1.0, config.num_steps)

    monkeypatch.setattr(verification, "_draw", draw)
    adapter.adopt("portraits", DomainConfig(9), quality=1, speed=1, quality_error=0.1, weight=0.5, provenance={})
    final = tuned(adapter, use_rl_optimization=False, reward=HybridReward(0.5))["final_config"]
    assert final.num_steps == 10
    assert final.confidence == pytest.approx(confidence_of(0.5 * 0.4 / np.sqrt(7)))  # 8 images in 4 batches


def test_a_rival_that_draws_the_same_pictures_says_nothing_of_the_default(adapter):
    alike = DomainConfig(10, 0.9)  # no step reaches either threshold
    adapter.adopt("portraits", alike, quality=0, speed=1, quality_error=0.1, weight=0.5, provenance={})
    results = tuned(adapter, use_rl_optimization=False)
    default, rival = results["verification"]
    assert rival["hyperparameters"] == alike.to_dict()
    assert rival["error"] == default["error"]
    assert results["final_config"] == DomainConfig(10)
    assert results["final_config"].confidence == confidence_of(0.25)


def test_what_is_remembered_of_seconds_is_what_was_measured_of_them(adapter, monkeypatch):
    def draw(config, drawing, noises, batch):
        return Sampled(np.ones(2), 10, (0.5 + 0.01 * batch) * (2 if config == DomainConfig(10) else 1), 10)

    monkeypatch.setattr(verification, "_draw", draw)
    adapter.adopt("portraits", DomainConfig(9), quality=1, speed=1, quality_error=0.1, weight=0.5, provenance={})
    final = tuned(adapter, use_rl_optimization=False, reward=HybridReward(0.25, unit="seconds"))["final_config"]
    assert final == DomainConfig(9)
    assert adapter.known("portraits").results[-1].speed == pytest.approx(2)
    assert adapter.known("portraits").score(final.to_dict())[0] == pytest.approx(0.75 * 0.5)
    with pytest.raises(ValueError, match=r"verification_batches .*at least 2, got 1"):
        OptimizationPipeline(adapter, reward=SpeedReward("seconds"), verification_batches=1)


def test_noises_of_a_verification_are_those_that_no_agent_and_no_verification_has_seen(adapter, monkeypatch):
    seeds = []

    def noted(candidates, default, drawing, reward, noises, **more):
        seeds.append(noises.seed)
        return verify(candidates, default, drawing, reward, noises, **more)

    monkeypatch.setattr(module, "verify", noted)
    for more in ({}, {}, {"noise_seed": 600}, {"use_rl_optimization": False}):
        tuned(adapter, FixedAgent, 1, **more)
        assert adapter.known("portraits").provenance["noise_seed"] == seeds[-1]
    assert seeds == [1000 + FRESH, 1001 + FRESH, 1002 + FRESH, 1003 + FRESH]
    for seed in (2000, 1998):  # an agent's own, and its held-out ones
        env = DiffusionHyperparameterEnv(adapter.model, "portraits", pictures=2, batches=1, noise_seed=seed)
        tuned(adapter, FixedAgent(env), 1)
    assert seeds[4:] == [2002, 2003]


def test_without_adaptation_noises_are_fresh_too_also_after_loading(adapter, tmp_path):
    def pipeline():
        return OptimizationPipeline(adapter, FixedAgent, use_domain_adaptation=False, **SMALL)

    first, seeds = pipeline(), []
    for domain in ("portraits", "portraits", "abstract"):
        seeds.append(first.optimize(domain, num_training_steps=1, num_optimization_episodes=1)["noise_seed"])
    first.save(tmp_path / "p.json")
    second = pipeline()
    second.load(tmp_path / "p.json")
    seeds.append(second.optimize("portraits", num_training_steps=1, num_optimization_episodes=1)["noise_seed"])
    assert seeds == [1500, 1501, 1500, 1502]


def test_without_adaptation_the_adapter_is_left_alone_and_without_agents_nothing_is_trained(adapter):
    results = tuned(adapter, use_domain_adaptation=False)
    assert not adapter.path.exists()
    assert results["final_config"].confidence > 0
    results = tuned(adapter, use_rl_optimization=False)
    assert "training" not in results
    assert [v["hyperparameters"]["num_steps"] for v in results["verification"]] == [10]


def test_the_domain_is_detected_where_none_is_given(adapter):
    pipeline = OptimizationPipeline(adapter, FixedAgent, **SMALL)
    results = pipeline.optimize(prompt="a portrait of an old man", num_training_steps=1, num_optimization_episodes=1)
    assert results["domain_type"] == "portraits"
    assert 0.5 < results["domain_confidence"] <= 1
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    results = pipeline.optimize(sample=noise, num_training_steps=1, num_optimization_episodes=1)
    assert results["domain_type"] == adapter.detect(sample=noise).domain


def test_an_agent_can_be_given_and_goes_on_in_its_own_environment(adapter):
    env = DiffusionHyperparameterEnv(adapter.model, "portraits", pictures=2, batches=1)
    agent = RandomAgent(env)
    pipeline = OptimizationPipeline(adapter, agent, **SMALL)
    assert pipeline.optimize("portraits", num_training_steps=10)["training"]["episodes"] == 10
    assert pipeline.optimize("portraits", num_training_steps=15)["training"]["episodes"] == 15
    assert pipeline.rl_agent is agent
    with pytest.raises(ValueError, match=r"draws 'portraits' .* and 'abstract'"):
        pipeline.optimize("abstract")
    steps = FixedAgent(TimestepEnv(adapter.model, "portraits", pictures=2, batches=1))
    with pytest.raises(ValueError, match="its environment is a TimestepEnv"):
        OptimizationPipeline(adapter, steps, **SMALL).optimize("portraits")


def test_schedulers_and_samplers_are_made_for_the_domain(adapter, monkeypatch):
    pipeline = OptimizationPipeline(adapter)
    monkeypatch.setattr(module, "find_schedule", lambda path, model, *_, num_steps: calibration(7, model=model))
    adapter.adopt("abstract", DomainConfig(7), quality=1, speed=1, quality_error=0.1, weight=0.5, provenance={})
    scheduler = pipeline.create_optimized_scheduler(domain_type=DomainType.ABSTRACT)
    assert isinstance(scheduler, AdaptiveScheduler)
    assert (len(scheduler), scheduler.get_schedule_info()["rule"]) == (7, "made up")
    assert scheduler.config["prediction_type"] == "v_prediction"
    assert scheduler.config["beta_schedule"] == "squaredcos_cap_v2"
    other = pipeline.create_optimized_scheduler({"num_steps": 5, "solver": "unipc"}, "portraits")
    assert (type(other).__name__, len(other)) == ("PowerUniPC", 5)
    assert len(pipeline.create_optimized_scheduler(prompt="an abstract painting of squares")) in (7, 10)
    sampler = pipeline.create_optimized_sampler(domain_type="abstract")
    assert len(sampler.scheduler) == 7
    assert pipeline.create_optimized_sampler(other).scheduler is other
    with pytest.raises(ValueError, match=r"no 'steps'; .*num_steps, .*quality_threshold"):
        pipeline.create_optimized_scheduler({"steps": 5}, "portraits")
    with pytest.raises(ValueError, match="there is no domain 'faces'"):
        pipeline.create_optimized_scheduler(domain_type="faces")


def test_calibrated_steps_are_those_of_the_configurations_guidance(adapter, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "find_schedule", lambda *args, num_steps: asked.append(args[3]))
    pipeline, guided = OptimizationPipeline(adapter), DomainConfig(6, guidance_weight=3.0, guidance_low=-0.5)
    pipeline.create_optimized_scheduler(guided, "portraits")
    pipeline.default_config("portraits")
    assert asked == [guided.guidance, adapter.guidance_scale]


def test_a_sampler_tells_quality_and_stops_early_only_where_the_configuration_says_when(adapter):
    pipeline = OptimizationPipeline(adapter)
    every = pipeline.create_optimized_sampler(config={"num_steps": 12}, domain_type="general")
    plain = StandardSampler(pipeline.create_optimized_scheduler({"num_steps": 12}, "general"))
    images = [np.array(sampler.sample(adapter.model, 2, (8, 8), seed=3)) for sampler in (every, plain)]
    np.testing.assert_allclose(np.clip(images[0], -1, 1), np.clip(images[1], -1, 1), atol=1e-5)
    assert len(every.get_quality_history()) == 12

    stopping = {"num_steps": 12, "quality_threshold": 0.0, "patience": 1, "min_steps": 3, "finish": 1}
    early = pipeline.create_optimized_sampler(config=stopping, domain_type="general")
    early.sample(adapter.model, 2, (8, 8), seed=3)
    assert len(early.scheduler) == 12
    assert len(early.get_quality_history()) == 3


def test_a_verbose_pipeline_says_what_it_costs_and_a_quiet_one_nothing(adapter, capsys):
    def said(agent=CEMAgent, **options) -> list[str]:
        OptimizationPipeline(adapter, agent, **SMALL, **options).optimize("portraits", None, None, 3, 1)
        return capsys.readouterr().err.splitlines()

    assert said() == []
    lines = said(verbose=1)
    assert lines[0].startswith("portraits: 3 episodes of 2 images")
    assert [line.split()[0] for line in lines[1:]] == ["converged", "converged", "cem:", "converged"]
    lines = said(lambda env: CEMAgent(env, verbose=1))
    assert [line.split()[0] for line in lines][-2:] == ["cem:", "converged"]  # solved before the verification


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_training_steps": -1}, "num_training_steps must be"),
        ({"num_optimization_episodes": 0}, "num_optimization_episodes must be"),
    ],
)
def test_what_cannot_be_optimized_is_refused_before_anything_is_drawn(adapter, monkeypatch, arguments, sentence):
    monkeypatch.setattr(module, "drawing_in", None)
    with pytest.raises(ValueError, match=sentence):
        OptimizationPipeline(adapter).optimize("portraits", **arguments)


def test_a_pipeline_survives_a_file(adapter, tmp_path):
    pipeline = OptimizationPipeline(adapter, CEMAgent, **SMALL)
    final = pipeline.optimize("portraits", num_training_steps=40, num_optimization_episodes=2)["final_config"]
    pipeline.save(tmp_path / "p.json")
    again = OptimizationPipeline(DomainAdapter(model=adapter.model))
    again.load(tmp_path / "p.json")
    assert again.get_history() == pipeline.get_history() == json.loads(json.dumps(pipeline.get_history()))
    assert again.adapter.get_config("portraits") == final
    assert again.adapter.get_config("portraits").confidence == final.confidence
    other = OptimizationPipeline(DomainAdapter(model=tiny_model(content_hash="other")))
    with pytest.raises(ValueError, match=r"p\.json is about .*tiny with guidance_scale=1\.5"):
        other.load(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there are no optimisation results at"),
        ("{", "cannot be read as JSON"),
        ("{}", "holds no optimisation results of this project"),
        (json.dumps({"format": HISTORY_FORMAT, "history": []}), "is damaged"),
        (
            json.dumps({"format": HISTORY_FORMAT, "history": [], "knowledge": {"known": [1], "domains": {}}}),
            "is damaged",
        ),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(adapter, tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "p.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        OptimizationPipeline(adapter).load(tmp_path / "p.json")
    with pytest.raises(ValueError, match=r"must end in \.json"):
        OptimizationPipeline(adapter).save(tmp_path / "p.zip")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"min_steps": 12, "max_steps": 11}, "min_steps must be at most max_steps, got 12 > 11"),
        ({"rl_agent": "ppo"}, "rl_agent must be an agent, or a class or function that makes one, got 'ppo'"),
        ({"num_steps": 30}, "num_steps .*between 4 and 20, got 30"),
        ({"pictures": 1}, "pictures must be"),
        ({"verification_batches": 0}, "verification_batches must be"),
        ({"model": 1}, "a DomainAdapter already says model and guidance"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused(adapter, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        OptimizationPipeline(adapter, **arguments)


def test_what_makes_no_agent_is_refused(adapter):
    with pytest.raises(ValueError, match="rl_agent must make an agent from an environment; it made None"):
        tuned(adapter, lambda env: None)


def test_a_domain_that_the_model_does_not_draw_is_refused(adapter):
    model = tiny_model(content_hash="cats", domains=["cats"], labels={"cats": []})
    with pytest.raises(ValueError, match=r"does not draw 'portraits'; .*cats"):
        tuned(DomainAdapter(model=model))


# train.py and sample.py


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


def tuning(checkpoint, folder, *overrides: str, agent: str = "agent=cem") -> DictConfig:
    small = ["task.episodes=20", "task.pictures=2", "task.batches=1", "task.verification_batches=2"]
    chosen = ["model@task.model=checkpoint", f"task.model.path={checkpoint}", *small]
    return configuration("train", folder, agent, *chosen, "tracking=none", *overrides)


def tune(*arguments, **more: str) -> float:
    return train(tuning(*arguments, **more))


def runs(folder) -> list:
    """What MLflow was told of in `folder`."""
    tracker = MlflowTracker(str(folder / "mlruns" / "mlflow.db"), str(folder), "test", 1.0, 5001)
    return list(tracker.client.search_runs([tracker.experiment_id]))


def draw(checkpoint, folder, *overrides: str) -> int:
    """The number of steps of a run."""
    chosen = ("model=checkpoint", f"model.path={checkpoint}", "num_samples=2", "metrics=none", "tracking=none")
    sample(configuration("sample", folder, "scheduler=tuned", *chosen, *overrides))
    with open(folder / "run" / "steps.csv", newline="") as file:
        return len(list(csv.DictReader(file)))


def test_what_is_tuned_is_drawn_with(checkpoint, tmp_path, caplog, monkeypatch):
    score = tune(checkpoint, tmp_path, "domain=portraits", "reward=speed")
    (known,) = read_records(tmp_path / "outputs/agent/tuned.json").known
    assert (known.domain, known.weight) == ("portraits", 0)
    assert score == pytest.approx(-known.score(known.config)[0])
    steps = known.config["num_steps"]
    assert steps < 10
    caplog.set_level("INFO")
    assert draw(checkpoint, tmp_path, "domain=portraits") == steps
    assert f"steps      {tmp_path}/outputs/agent/tuned.json" in caplog.text
    monkeypatch.chdir(tmp_path)
    assert draw(checkpoint, tmp_path, "domain=portraits", "num_steps=13") == 13
    assert "steps      outputs/agent/tuned.json" in caplog.text
    assert (tmp_path / "run" / "portraits.zip").is_file()
    (past,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert past["final_config"]["num_steps"] == steps
    path = f"scheduler.path={tmp_path}/outputs/agent/tuned.json"
    only = "only for portraits around 1.5; tune it"
    with pytest.raises(ValueError, match=rf"domain=abstract .*tuned\.json, {only}"):
        draw(checkpoint, tmp_path, "domain=abstract", path)
    with pytest.raises(ValueError, match=f"around guidance_scale=3, {only[:30]}.*task.guidance_scale=3"):
        draw(checkpoint, tmp_path, "domain=portraits", "guidance_scale=3")
    with pytest.raises(ValueError, match=r"no tuned configurations at nowhere\.json"):
        draw(checkpoint, tmp_path, "domain=portraits", "scheduler.path=nowhere.json")
    other = tmp_path / "other.safetensors"
    model = tiny_model()
    model.head.weight = 2 * model.head.weight
    save_model(other, model)
    with pytest.raises(ValueError, match=r"domain=portraits .* nor for any other"):
        draw(other, tmp_path, "domain=portraits", path)


def test_without_a_domain_all_are_tuned_into_the_file_that_is_named(checkpoint, tmp_path):
    tune(checkpoint, tmp_path, f"output={tmp_path}/mine.json", "task.episodes=2", agent="agent=fixed")
    known = read_records(tmp_path / "mine.json").known
    assert [k.domain for k in known] == list(LABELS)
    assert draw(checkpoint, tmp_path, "domain=general", f"scheduler.path={tmp_path}/mine.json") == 10


def test_what_was_tuned_with_calibrated_steps_is_not_drawn_without(checkpoint, tmp_path):
    save_schedules(tmp_path / "s.json", [calibration(5, 10, model=load_model(checkpoint).identity)])
    tune(checkpoint, tmp_path, "domain=portraits", f"task.calibration={tmp_path}/s.json", "reward=speed")
    path = f"scheduler.calibration.path={tmp_path}/s.json"
    steps = read_records(tmp_path / "outputs/agent/tuned.json").known[0].config["num_steps"]
    assert draw(checkpoint, tmp_path, "domain=portraits", path) == steps
    with pytest.raises(ValueError, match=r"calibrated steps, .*give their file as calibration\.path"):
        draw(checkpoint, tmp_path, "domain=portraits")


def test_the_default_has_the_steps_that_were_calibrated_on_first_use_as_the_adaptive_scheduler(checkpoint, tmp_path):
    model = load_model(checkpoint).identity
    kept = kept_file(tmp_path / "outputs/calibrations", model)
    save_schedules(kept, [calibration(10, model=model)])
    tune(checkpoint, tmp_path, "domain=portraits", "task.episodes=1", agent="agent=fixed")
    assert read_records(tmp_path / "outputs/agent/tuned.json").known[0].provenance["calibrated"]
    assert draw(checkpoint, tmp_path, "domain=portraits") == 10
    kept.unlink()
    with pytest.raises(ValueError, match="calibrated steps, and there are none"):
        draw(checkpoint, tmp_path, "domain=portraits")


def test_what_was_tuned_before_its_steps_were_calibrated_is_drawn_as_it_was_tuned(adapter, caplog, monkeypatch):
    monkeypatch.setattr(module, "find_schedule", lambda *_, num_steps: calibration(num_steps))
    arguments = (str(adapter.path), "nowhere.json", "tiny", "portraits", adapter.guidance_scale)
    for solver in ("unipc", "dpm_solver"):  # the first has no calibrated steps to do without
        config, provenance = DomainConfig(7, solver=solver), {"calibrated": False}
        adapter.adopt("portraits", config, quality=1, speed=1, quality_error=0.1, weight=1, provenance=provenance)
        for made in (
            tuned_scheduler(*arguments, calibration=calibration(7)),
            OptimizationPipeline(adapter).create_optimized_scheduler(domain_type="portraits"),
        ):
            assert list(made.timesteps) == list(config.scheduler({}).timesteps)
        told = caplog.text.count("tuned before steps were calibrated for it")
        assert told == (2 if solver == "dpm_solver" else 0)


def test_an_interrupted_training_leaves_the_agent_and_goes_on(checkpoint, tmp_path, monkeypatch):
    finished = CEMAgent._note_path

    def interrupt(self, *arguments):
        finished(self, *arguments)
        if len(self.record.returns) == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(CEMAgent, "_note_path", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(checkpoint, tmp_path, "domain=portraits")
    assert not (tmp_path / "outputs/agent/tuned.json").exists()
    saved = tmp_path / "run" / "portraits.zip"
    saved.rename(tmp_path / "agent.zip")
    monkeypatch.setattr(CEMAgent, "_note_path", finished)
    tune(checkpoint, tmp_path, "domain=portraits", f"task.start_from={tmp_path}/agent.zip")
    (past,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [e["episode"] for e in past["training"]["evaluations"]] == [0, 10, 20]
    with pytest.raises(ValueError, match=r"'cem', .*'fixed'"):
        tune(checkpoint, tmp_path, "domain=abstract", f"task.start_from={tmp_path}/agent.zip", agent="agent=fixed")


def test_mlflow_hears_of_every_evaluation_and_of_the_result(checkpoint, tmp_path):
    mlflow_database(tmp_path / "mlruns")
    tune(checkpoint, tmp_path, "domain=portraits", "tracking=mlflow", "tracking.experiment=test")
    (run,) = runs(tmp_path)
    tracker = MlflowTracker(str(tmp_path / "mlruns" / "mlflow.db"), str(tmp_path), "test", 1.0, 5001)
    history = tracker.client.get_metric_history(run.info.run_id, "portraits/held_out/score")
    assert [m.step for m in history] == [0, 10, 20]
    assert run.data.metrics["portraits/default/evaluations"] == 10
    assert run.data.metrics["portraits/final/score"] == run.data.metrics["final/score"] >= 0
    assert run.data.params["reward.weight"] == "0.3333333333333333"
    assert run.info.run_name == "tune agent HybridReward 0.33 portraits"  # Hydra's job would know their options
    assert run.data.params["task.episodes"] == "20"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["reward.weight=2"], "weight must be .*got 2"),
        (["task.min_steps=12", "task.max_steps=11"], "task: min_steps must be at most max_steps, got 12 > 11"),
        (["task.episodes=0"], "task: episodes must be"),
        (["task.max_steps=1001"], "max_steps .*1000, got 1001"),
        (["reward=speed", "reward.unit=seconds", "task.verification_batches=1"], "task: verification_batches must be"),
        (["task.guidance_scale=-1"], "task: guidance_scale must be"),
        (["domain.name=faces"], "the model does not draw 'faces'; it draws portraits"),
        (["output=tuned.zip"], r"output must be a \.json file, got 'tuned\.zip'"),
        (["task.start_from=nowhere.zip"], "there is no agent at nowhere.zip"),
        (["agent.population=1"], "agent: population must be"),
        (["task.calibration=nowhere.json"], "there are no calibrated schedules at nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(checkpoint, tmp_path, overrides, sentence):
    mlflow_database(tmp_path / "mlruns")
    with pytest.raises(ValueError, match=sentence):
        tune(checkpoint, tmp_path, "domain=portraits", "tracking=mlflow", *overrides)
    assert not (tmp_path / "outputs/agent/tuned.json").exists()
    assert not runs(tmp_path)


def test_a_domain_of_ones_own_is_placed_once_the_model_was_found_to_draw_it(checkpoint, tmp_path):
    walls = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "walls.npz", images=walls)
    own = Domain(name="walls", pictures=f"{tmp_path}/walls.npz")

    def tune_it(model):
        cfg = tuning(model, tmp_path, "task.episodes=2", agent="agent=fixed")
        cfg.domain = own
        train(cfg)

    with pytest.raises(ValueError, match="does not draw 'walls'"):
        tune_it(checkpoint)
    assert not (tmp_path / "outputs/agent/tuned.json").exists()
    save_model(tmp_path / "walls.safetensors", tiny_model(domains=["walls", *LABELS][:4]))
    tune_it(tmp_path / "walls.safetensors")
    kept = read_records(tmp_path / "outputs/agent/tuned.json")
    assert kept.domains["walls"]["pictures"] == 3
    assert [known.domain for known in kept.known] == ["walls"]


def test_it_is_said_what_tuning_costs(checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    tune(checkpoint, tmp_path, "domain=portraits", "task.episodes=3", agent="agent=fixed")
    assert "3 episodes of 2 images: up to " in caplog.text
    assert "; 2 passes each, about " in caplog.text  # the tiny model is guided


@pytest.mark.parametrize("ships", [4, 8])
def test_what_ships_is_replaced_only_by_something_better_and_the_other_can_be_drawn(
    checkpoint, tmp_path, caplog, monkeypatch, ships
):
    adapter = DomainAdapter(tmp_path / "shipped.json", model=load_model(checkpoint))
    shipped = DomainConfig(ships, source="a test")
    adapter.adopt("portraits", shipped, quality=0, speed=1, quality_error=0.1, weight=0.5, provenance={})
    monkeypatch.setattr(memory, "SHIPPED", tmp_path / "shipped.json")

    mlflow_database(tmp_path / "mlruns")
    caplog.set_level("INFO")
    recorded = ("tracking=mlflow", "tracking.experiment=test")
    # evaluations are all that counts: five are better than eight, and worse than four
    tune(checkpoint, tmp_path, "domain=portraits", "reward=speed", "task.min_steps=5", "task.max_steps=10", *recorded)
    (run,) = runs(tmp_path)
    gains = {name: run.data.metrics[f"portraits/gain/{name}"] for name in ("default", "in_use")}
    steps = run.data.metrics["portraits/found/evaluations"]
    assert 5 <= steps < 8
    assert gains == pytest.approx({"default": 1 - steps / 10, "in_use": (ships - steps) / 10})
    assert run.data.metrics["portraits/in_use/evaluations"] == ships
    assert run.data.metrics["portraits/gain/in_use_error"] == 0

    (command,) = [line for line in caplog.text.splitlines() if line.startswith("drawn by ")]
    path = next(part for part in command.split() if part.startswith("scheduler.path="))
    assert ("the tuned setting in use stays" in caplog.text) == ("not kept " in caplog.text) == (ships == 4)
    assert ("replaces " in caplog.text) == (ships == 8)
    kept, other = draw(checkpoint, tmp_path, "domain=portraits"), draw(checkpoint, tmp_path, "domain=portraits", path)
    assert (kept, other) == ((4, steps) if ships == 4 else (steps, 8))


def test_an_output_that_cannot_be_written_is_refused_before_the_training(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"output=.*/file/tuned\.json cannot be written"):
        tune(checkpoint, tmp_path, "domain=portraits", f"output={tmp_path}/file/tuned.json")
    assert not (tmp_path / "run").exists()


def test_an_agent_of_one_domain_is_not_for_all(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"task\.start_from .*one domain"):
        tune(checkpoint, tmp_path, "task.start_from=a.zip")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["task=schedule", "domain=portraits"], "domain belongs to train.py agent="),
        (["agent=ppo", "task=schedule"], "agent belongs to train.py agent="),
        (["reward=speed"], "reward belongs to train.py agent="),
        (["task=agent"], "needs agent and reward, e.g. agent=ppo"),
    ],
)
def test_choices_of_another_task_are_refused(tmp_path, overrides, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(configuration("train", tmp_path, *overrides))


def test_a_model_that_diverges_is_told_of_in_one_sentence(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(FixedNoises, "errors", lambda self, batch, images: np.full(self.pictures, np.nan))
    with pytest.raises(ValueError, match=r"portraits: .*num_steps=10, .*finite"):
        tune(checkpoint, tmp_path, "domain=portraits")


def test_the_environment_variable_names_the_model_that_is_used_where_none_is(checkpoint, monkeypatch):
    shipped = load_builtin_model()
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_MODEL", str(checkpoint))
    assert load_builtin_model().config.image_size == 8
    assert load_builtin_model() is load_builtin_model()
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_MODEL", "nowhere.safetensors")
    with pytest.raises(ValueError, match=r"nowhere\.safetensors"):
        load_builtin_model()
    monkeypatch.delenv("ADAPTIVE_DIFFUSION_MODEL")
    assert load_builtin_model() is shipped


@pytest.mark.skipif(not SHIPPED.exists(), reason="nothing tuned ships yet")
def test_what_ships_is_of_the_shipped_model_in_all_its_domains_and_no_worse_than_the_default():
    model = load_builtin_model()
    known = read_records(SHIPPED).known
    assert {k.domain for k in known} == set(model.domains)
    for one in known:
        assert (one.model, one.guidance_scale) == (model.identity, model.metadata["guidance_scale"])
        assert one.provenance["chosen"]["score"] >= one.provenance["default"]["score"]
        assert replace(one.to_config(), confidence=0).num_steps == one.config["num_steps"]
        calibrated = find_schedule(None, one.model, one.domain, one.guidance_scale)
        made = tuned_scheduler(None, "nowhere.json", one.model, one.domain, one.guidance_scale, None, calibrated)
        assert made.source == "shipped tuned.json"
