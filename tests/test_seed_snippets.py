"""The snippets by which the interface was specified, as written.

Those that tune draw with a tiny model in the place of the shipped one, which `ADAPTIVE_DIFFUSION_MODEL` names, and
train for a twenty-fifth of the 10,000 and 5,000 steps: the others repeat what was drawn before, and take minutes of
updates.
"""

import pytest
from tiny import tiny_checkpoint


@pytest.fixture
def small_model(tmp_path, monkeypatch, coarse_solutions):
    """The model that is used where none is named draws 8x8 images; files lie in an empty folder."""
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_MODEL", str(tiny_checkpoint(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_baseline_diffusion_pipeline(capsys):
    from adaptive_diffusion import DiffusionPipeline

    pipeline = DiffusionPipeline(
        scheduler="ddim",  # or "ddpm", "dpm-solver"
        image_size=(256, 256),
        in_channels=3,
    )

    images = pipeline.generate(batch_size=4, num_inference_steps=50, seed=42)

    info = pipeline.get_scheduler_info()
    print(f"Scheduler: {info['scheduler_type']}")
    print(f"Device: {info['device']}")

    assert images.shape == (4, 256, 256, 3)
    assert "Scheduler: DDIMScheduler" in capsys.readouterr().out


def test_adaptive_scheduling(capsys):
    from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
    from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler

    scheduler = AdaptiveScheduler(num_inference_steps=50, adaptive_threshold=0.5, progress_power=2.0)

    pipeline = DiffusionPipeline(scheduler=scheduler)

    images, intermediates = pipeline.generate(batch_size=1, return_intermediates=True)

    schedule_info = scheduler.get_schedule_info()
    print(f"Average quality: {schedule_info['avg_quality']}")
    print(f"Average complexity: {schedule_info['avg_complexity']}")

    assert images.shape == (1, 256, 256, 3)
    assert len(intermediates) == 50
    assert 0 < schedule_info["avg_quality"] <= 1
    assert 0 < schedule_info["avg_complexity"] < 1


def test_quality_guided_sampling(capsys):
    from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
    from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
    from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler

    pipeline = DiffusionPipeline()  # of the snippet before

    scheduler = AdaptiveScheduler(num_inference_steps=50)
    sampler = QualityGuidedSampler(scheduler=scheduler, quality_threshold=0.6, early_stopping=True, patience=5)

    images = sampler.sample(model=pipeline.model, batch_size=1, image_size=(256, 256))

    quality_history = sampler.get_quality_history()
    print(f"Final quality: {quality_history[-1]:.4f}")
    print(f"Steps taken: {len(quality_history)}")

    assert images.shape == (1, 256, 256, 3)
    assert 10 <= len(quality_history) <= 50
    assert all(0 <= quality <= 1 for quality in quality_history)
    assert f"Steps taken: {len(quality_history)}" in capsys.readouterr().out


def test_rl_based_hyperparameter_optimization(small_model, capsys):
    from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
    from adaptive_diffusion.rl.ppo_agent import HyperparameterTuningAgent

    env = DiffusionHyperparameterEnv()
    agent = HyperparameterTuningAgent(env=env, verbose=1)

    training_stats = agent.train(total_timesteps=400)
    print(f"Training completed: {training_stats['convergence_achieved']}")

    results = agent.optimize_hyperparameters(num_episodes=10)
    print(f"Best quality: {results['best_quality']:.4f}")
    print(f"Best hyperparameters: {results['best_hyperparameters']}")

    agent.save("models/ppo_agent.zip")

    assert training_stats["total_timesteps"] == training_stats["episodes"] == 400
    assert training_stats["final_score"] > training_stats["untrained_score"]
    said = capsys.readouterr()
    assert f"Best hyperparameters: {results['best_hyperparameters']}" in said.out
    assert said.err.startswith("converged solutions of 16 images\n")  # so that minutes do not pass in silence
    again = HyperparameterTuningAgent(env=env)
    again.load("models/ppo_agent.zip")
    observation, _ = env.reset(seed=0)
    assert (again.predict(observation)[0] == agent.predict(observation)[0]).all()


def test_unified_optimization_pipeline(small_model, capsys):
    from adaptive_diffusion.optimization.domain_adapter import DomainType
    from adaptive_diffusion.optimization.pipeline import OptimizationPipeline

    pipeline = OptimizationPipeline(use_domain_adaptation=True, use_rl_optimization=True)

    results = pipeline.optimize(
        domain_type=DomainType.PORTRAITS,  # or LANDSCAPES, ABSTRACT, etc.
        num_training_steps=200,
        num_optimization_episodes=10,
    )

    print(f"Domain: {results['domain_type']}")
    print(f"Final config: {results['final_config']}")

    scheduler = pipeline.create_optimized_scheduler(domain_type=DomainType.PORTRAITS)

    sampler = pipeline.create_optimized_sampler(scheduler=scheduler, domain_type=DomainType.PORTRAITS)

    said, err = capsys.readouterr()
    assert err == ""
    assert "Domain: portraits" in said
    assert f"Final config: {results['final_config']}" in said
    assert results["training"]["episodes"] == 200
    assert len(scheduler) == results["final_config"].num_steps
    images = sampler.sample(pipeline.adapter.model, batch_size=2, image_size=(8, 8))
    assert images.shape == (2, 8, 8, 3)
    assert len(sampler.get_quality_history()) == len(scheduler)


def test_domain_adaptation(small_model, capsys):
    from adaptive_diffusion.optimization.domain_adapter import DomainAdapter, DomainType

    adapter = DomainAdapter()

    config = adapter.get_config(domain_type=DomainType.LANDSCAPES, prompt="A beautiful mountain landscape at sunset")

    print(f"Recommended steps: {config.num_steps}")
    print(f"Adaptive threshold: {config.adaptive_threshold}")
    print(f"Progress power: {config.progress_power}")

    adapter.learn_from_results(
        domain_type=DomainType.LANDSCAPES,
        quality=0.85,
        speed=1.8,
        hyperparameters={"num_steps": 35, "adaptive_threshold": 0.6, "progress_power": 2.2},
    )

    said = capsys.readouterr().out
    assert said == "Recommended steps: 10\nAdaptive threshold: 0.5\nProgress power: 2.0\n"
    learned = adapter.get_config(DomainType.LANDSCAPES)
    assert (learned.num_steps, learned.adaptive_threshold, learned.progress_power) == (35, 0.6, 2.2)
