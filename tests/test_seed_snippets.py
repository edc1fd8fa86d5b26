"""The snippets by which the interface was specified, as written."""


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
