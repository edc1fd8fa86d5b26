"""What the guard pins: each case draws with public entry points and returns small arrays by name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import subjects as s
from toy import SHAPE, Toy

Arrays = dict[str, np.ndarray]

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
V = {"prediction_type": "v_prediction", **COSINE}
MODEL_FACTS = (
    *("prediction_type", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    "rescale_betas_zero_snr",
)

ROWS_5 = [  # corrections a, b, c_1, c_2, c_3 of five steps, about the size of the shipped ones
    [0.02, 0.01, 0.0, 0.0, 0.0],
    [-0.03, 0.05, 0.4, 0.0, 0.0],
    [0.01, -0.04, 0.6, -0.1, 0.0],
    [0.0, 0.03, 0.5, -0.2, 0.05],
    [0.02, 0.0, 0.2, 0.1, -0.05],
]
STEPS_5 = [999.0, 803.5, 520.25, 241.0, 60.75]
STEPS_8 = [999.0, 870.0, 700.0, 520.0, 350.0, 200.0, 90.0, 0.0]
CALIBRATION = s.calibrated_by({5: (STEPS_5, ROWS_5), 8: (STEPS_8, None)})

# name -> class, arguments, how its timesteps are set
SCHEDULERS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "ddim": (s.DDIMScheduler, {}, {"num_inference_steps": 6}),
    "ddim eta 0.7": (s.DDIMScheduler, {"eta": 0.7, **V}, {"num_inference_steps": 6}),
    "ddim eta 1 clipped eps": (
        s.DDIMScheduler,
        {"eta": 1.0, "use_clipped_model_output": True, "timestep_spacing": "trailing"},
        {"num_inference_steps": 5},
    ),
    "ddim narrow clip": (s.DDIMScheduler, {"clip_sample_range": 0.3, **LATENT}, {"num_inference_steps": 5}),
    "ddim not clipped": (
        s.DDIMScheduler,
        {"clip_sample": False, "prediction_type": "sample", "timestep_spacing": "linspace"},
        {"num_inference_steps": 5},
    ),
    "ddim to timestep 0": (
        s.DDIMScheduler,
        {"set_alpha_to_one": False, "steps_offset": 1, **LATENT},
        {"num_inference_steps": 5},
    ),
    "ddim thresholding": (
        s.DDIMScheduler,
        {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5, **V},
        {"num_inference_steps": 5},
    ),
    "ddim zero snr": (
        s.DDIMScheduler,
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **V},
        {"num_inference_steps": 5},
    ),
    "ddim own timesteps": (s.DDIMScheduler, {**V}, {"timesteps": [950.5, 700.0, 333.3, 12.0]}),
    "ddim trained betas": (
        s.DDIMScheduler,
        {"num_train_timesteps": 40, "trained_betas": np.linspace(0.004, 0.4, 40).tolist()},
        {"num_inference_steps": 40},
    ),
    "ddpm": (s.DDPMScheduler, {}, {"num_inference_steps": 6}),
    "ddpm large variance": (
        s.DDPMScheduler,
        {"variance_type": "fixed_large", "timestep_spacing": "trailing", **V},
        {"num_inference_steps": 5},
    ),
    "ddpm thresholding": (s.DDPMScheduler, {"thresholding": True, **COSINE}, {"num_inference_steps": 4}),
    "dpm": (s.DPMSolverScheduler, {}, {"num_inference_steps": 7}),
    "dpm order 1": (s.DPMSolverScheduler, {"solver_order": 1, **V}, {"num_inference_steps": 5}),
    "dpm heun": (s.DPMSolverScheduler, {"solver_type": "heun", **V}, {"num_inference_steps": 6}),
    "dpm adams": (s.DPMSolverScheduler, {"solver_type": "adams", **LATENT}, {"num_inference_steps": 6}),
    "dpm order 3": (s.DPMSolverScheduler, {"solver_order": 3, **V}, {"num_inference_steps": 7}),
    "dpm order 3 adams, full order": (
        s.DPMSolverScheduler,
        {"solver_order": 3, "solver_type": "adams", "lower_order_final": False, **V},
        {"num_inference_steps": 7},
    ),
    "dpm order 3, 16 steps": (s.DPMSolverScheduler, {"solver_order": 3, **V}, {"num_inference_steps": 16}),
    "dpm euler at final": (
        s.DPMSolverScheduler,
        {"euler_at_final": True, "final_sigmas_type": "sigma_min", "lower_order_final": False, **V},
        {"num_inference_steps": 6},
    ),
    "dpm sigma_min": (
        s.DPMSolverScheduler,
        {"final_sigmas_type": "sigma_min", "solver_order": 3, **V},
        {"num_inference_steps": 6},
    ),
    "dpm sigma_min, full order": (
        s.DPMSolverScheduler,
        {"final_sigmas_type": "sigma_min", "solver_order": 3, "lower_order_final": False, **V},
        {"num_inference_steps": 6},
    ),
    "dpm karras": (s.DPMSolverScheduler, {"use_karras_sigmas": True, "clip_sample": True}, {"num_inference_steps": 6}),
    "dpm lu": (s.DPMSolverScheduler, {"use_lu_lambdas": True, **V}, {"num_inference_steps": 6}),
    "dpm lambda_min": (s.DPMSolverScheduler, {"lambda_min_clipped": -5.1, **V}, {"num_inference_steps": 6}),
    "dpm thresholding": (s.DPMSolverScheduler, {"thresholding": True, **V}, {"num_inference_steps": 5}),
    "dpm sde": (s.DPMSolverScheduler, {"algorithm_type": "sde-dpmsolver++", **V}, {"num_inference_steps": 6}),
    "dpm sde order 3": (
        s.DPMSolverScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun", **LATENT},
        {"num_inference_steps": 6},
    ),
    "dpm sde sigma_min": (
        s.DPMSolverScheduler,
        {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min", **V},
        {"num_inference_steps": 5},
    ),
    "dpm power grid": (s.DPMSolverScheduler, {"clip_sample": True, **V}, {"timesteps": s.PowerGrid(2.5)}),
    "unipc": (s.UniPCScheduler, {}, {"num_inference_steps": 7}),
    "unipc order 1": (s.UniPCScheduler, {"solver_order": 1, **V}, {"num_inference_steps": 5}),
    "unipc order 3": (s.UniPCScheduler, {"solver_order": 3, **V}, {"num_inference_steps": 7}),
    "unipc bh1": (s.UniPCScheduler, {"solver_type": "bh1", "clip_sample": True, **V}, {"num_inference_steps": 6}),
    "unipc full order": (
        s.UniPCScheduler,
        {"solver_order": 3, "lower_order_final": False, **LATENT},
        {"num_inference_steps": 6},
    ),
    "unipc sigma_min": (
        s.UniPCScheduler,
        {"final_sigmas_type": "sigma_min", "solver_order": 3, **V},
        {"num_inference_steps": 6},
    ),
    "unipc power grid": (s.UniPCScheduler, {"clip_sample": True, **V}, {"timesteps": s.PowerGrid(2)}),
    "ipndm": (s.IPNDMScheduler, {}, {"num_inference_steps": 7}),
    "ipndm clipped": (s.IPNDMScheduler, {"clip_sample": True, **V}, {"timesteps": s.BlendedGrid()}),
    "adaptive": (s.AdaptiveScheduler, {}, {"num_inference_steps": 7}),
    "adaptive complexity": (
        s.AdaptiveScheduler,
        {"progress_power": 3.0, **V},
        {"num_inference_steps": 7, "complexity": 0.2},
    ),
    "adaptive falls back": (s.AdaptiveScheduler, {"adaptive_threshold": 0.06, **V}, {"num_inference_steps": 6}),
    "adaptive threshold 0": (s.AdaptiveScheduler, {"adaptive_threshold": 0.0, **V}, {"num_inference_steps": 5}),
    "adaptive 16 steps": (s.AdaptiveScheduler, {**V}, {"num_inference_steps": 16}),
    "adaptive calibrated": (s.AdaptiveScheduler, {"calibration": CALIBRATION, **V}, {"num_inference_steps": 5}),
    "adaptive calibrated, falls back": (
        s.AdaptiveScheduler,
        {"calibration": CALIBRATION, "adaptive_threshold": 0.05, **V},
        {"num_inference_steps": 5},
    ),
    "adaptive calibrated without weights": (
        s.AdaptiveScheduler,
        {"calibration": CALIBRATION, **V},
        {"num_inference_steps": 8},
    ),
    "adaptive resampled": (s.AdaptiveScheduler, {"calibration": CALIBRATION, **V}, {"num_inference_steps": 6}),
}


def noise(count: int = 3, seed: int = 11) -> tuple[mx.array, mx.array]:
    """Keys, and (count, 4, 4, 3) noise."""
    keys = s.image_keys(seed, range(count))
    return keys, s.normal(keys, SHAPE)


def toy_of(settings: dict[str, Any]) -> Toy:
    """The model that a scheduler with these arguments is for."""
    return Toy(**{name: value for name, value in settings.items() if name in MODEL_FACTS})


def begin(scheduler: Any, how: dict[str, Any]) -> Any:
    """Set the timesteps; a grid is laid for six steps."""
    how = {name: value(scheduler.schedule, 6) if callable(value) else value for name, value in how.items()}
    scheduler.set_timesteps(**how)
    return scheduler


def scheduler_case(name: str) -> Arrays:
    """A run of the standard sampler: the grid, the images, and the clean predictions of one image on the way."""
    kind, settings, how = SCHEDULERS[name]
    scheduler = begin(kind(**settings), how)
    timesteps = scheduler.timesteps.copy()
    keys, x_T = noise()
    result = s.StandardSampler(scheduler).run(toy_of(settings), x_T, keys=keys)
    return {"timesteps": timesteps, "images": np.array(result.images), "strip": result.strip[:, 0]}


def steps_case(name: str) -> Arrays:
    """`step` called by hand: a batch that shrinks, one noise for all, and a step that is taken a second time."""
    kind, settings, how = SCHEDULERS[name]
    scheduler, toy = begin(kind(**settings), how), toy_of(settings)
    (_, x_t), seen = noise(), []
    again: mx.array | None = None
    for i, t in enumerate(scheduler.timesteps[:4]):
        if i == 2:
            x_t = x_t[mx.array([0, 2])]
            scheduler.select(np.array([True, False, True]))
            again = x_t
        injected = 0.5 * mx.ones_like(x_t) if scheduler.stochastic else None
        output = scheduler.step(toy(x_t, mx.full((len(x_t),), float(t))), t, x_t, noise=injected, return_dict=True)
        x_t = output.prev_sample
        seen.append(output.pred_original_sample[0])
    assert again is not None
    t = scheduler.timesteps[2]  # out of turn: the solver's memory is cleared
    injected = 0.5 * mx.ones_like(again) if scheduler.stochastic else None
    restarted = scheduler.step(toy(again, mx.full((len(again),), float(t))), t, again, noise=injected)
    return {"x_t": np.array(x_t), "x0": np.stack([np.array(x0) for x0 in seen]), "restarted": np.array(restarted)}


def half_case() -> Arrays:
    """A run in float16."""
    scheduler = begin(s.DPMSolverScheduler(**V), {"num_inference_steps": 5})
    _, x_T = noise()
    result = s.StandardSampler(scheduler).run(Toy(**V), x_T.astype(mx.float16))
    return {"images": np.array(result.images).astype(np.float32)}


def grids_case() -> Arrays:
    """The timesteps of every grid and spacing."""
    arrays: Arrays = {}
    schedule = s.NoiseSchedule(**COSINE)
    grids = {
        "power": s.PowerGrid(1.7),
        "log_snr": s.LogSNRGrid(),
        "karras": s.KarrasGrid(5.0),
        "blended": s.BlendedGrid(0.3),
        "calibrated": s.CalibratedGrid(CALIBRATION),
    }
    for name, grid in grids.items():
        arrays[name] = np.concatenate([grid(schedule, n) for n in (1, 5, 6, 11)])
    for spacing in ("leading", "linspace", "trailing"):
        for kind in (s.DDIMScheduler, s.UniPCScheduler):
            scheduler, laid = kind(timestep_spacing=spacing, steps_offset=1, **COSINE), []
            for n in (2, 7, 300):
                scheduler.set_timesteps(n)
                laid.append(scheduler.timesteps.copy())
            arrays[f"{spacing} {kind.__name__}"] = np.concatenate(laid)
    arrays["levels"] = np.stack([f(np.linspace(0, 999, 9)) for f in (schedule.alpha, schedule.sigma, schedule.log_snr)])
    return arrays


# name -> scheduler, its steps, the sampler's arguments
SAMPLERS: dict[str, tuple[type, dict[str, Any], int, dict[str, Any]]] = {
    "quality guided": (s.AdaptiveScheduler, {}, 20, {"quality_threshold": 0.44, "patience": 3, "min_steps": 5}),
    "quality guided, no finish": (
        s.AdaptiveScheduler,
        {},
        20,
        {"quality_threshold": 0.7, "min_steps": 3, "patience": 2, "finish": 0},
    ),
    "quality guided, most steps": (
        s.UniPCScheduler,
        {"clip_sample": True},
        16,
        {"quality_threshold": 1.0, "min_steps": 3, "max_steps": 9, "finish": 2},
    ),
    "quality guided, stochastic": (
        s.DDPMScheduler,
        {"timestep_spacing": "trailing"},
        20,
        {"quality_threshold": 0.305, "min_steps": 4, "patience": 1, "finish": 3},
    ),
    "quality guided, to the end": (s.DDIMScheduler, {}, 6, {"early_stopping": False}),
    "step reduction": (s.AdaptiveScheduler, {}, 30, {"quality_target": 0.8}),
}


def sampler_case(name: str) -> Arrays:
    """A run of a sampler that estimates quality: six images, their evaluations, and the history of the quality."""
    kind, settings, n, arguments = SAMPLERS[name]
    scheduler = kind(**settings, **V)
    scheduler.set_timesteps(n)
    kind = s.StepReductionSampler if name == "step reduction" else s.QualityGuidedSampler
    sampler = kind(scheduler, calibration=str(s.PINNED / "quality.json"), **arguments)
    keys, x_T = noise(6, seed=3)
    result = sampler.run(Toy(**V), x_T, condition=mx.array([[0], [1], [2], [0], [3], [1]]), keys=keys)
    quality = np.array([*sampler.get_quality_history(), sampler.report()["sampling/estimated_quality"]])
    return {"images": np.array(result.images), "evaluations": result.evaluations, "quality": quality}


def policy_case(stopping: bool) -> Arrays:
    """A policy of random weights on the toy, which sees whole batches."""
    settings = {"clip_sample": True, **V}
    env = s.TimestepEnv(s.drawing(Toy(**V), SHAPE, settings), num_steps=6, stopping=stopping, pictures=2, batches=1)
    with tempfile.TemporaryDirectory() as folder:
        path = s.random_policy(Path(folder) / "policy.zip", env, stop_at=0.6)
        scheduler = s.LearnedScheduler(str(path), **V)
        _, x_T = noise()
        result = s.StandardSampler(scheduler).run(Toy(**V), x_T)
    return {
        "images": np.array(result.images),
        "timesteps": np.array(result.timesteps),
        "evaluations": result.evaluations,
    }


def shipped_policy_case() -> Arrays:
    """The policy of the landscapes that version 0.1.0 shipped, on the shipped model."""
    return sample_case("scheduler=learned", "num_steps=8", *POLICY)


def calibration_case() -> Arrays:
    """Calibration of the toy: grids, weights, and held-out scores."""
    settings = {"clip_sample": True, **V}
    task = s.ScheduleCalibration((3, 4), (4,), noises=4, held_out=3, learned_noises=2, iterations=1, batch_size=4)
    found = s.calibration_of(Toy(**V), SHAPE, settings, mx.array([[1]]), task)
    return dict(_calibrated(found))


def tiny_calibration_case() -> Arrays:
    """Calibration of the tests' tiny U-Net, with guidance."""
    guided, settings, shape = s.tiny_guided(1.5)
    task = s.ScheduleCalibration((3,), (), noises=3, held_out=2, batch_size=3)
    found = s.calibration_of(guided, shape, {"clip_sample": True, **settings}, mx.array([[2, 3]]), task)
    return {key: value for key, value in _calibrated(found) if key.endswith("scores")}


def _calibrated(schedule: Any) -> Iterator[tuple[str, np.ndarray]]:
    for n, steps in schedule.steps.items():
        yield f"{n} timesteps", np.array(steps.timesteps)
        if steps.corrections is not None:
            yield f"{n} corrections", np.array(steps.corrections)
        yield f"{n} scores", np.array([[score.mean, score.standard_error] for score in steps.scores.values()])


def converged_case() -> Arrays:
    """The converged solution of the toy."""
    _, x_T = noise(18)
    found = s.converged(Toy(**V), V, x_T, None)
    return {"images": found.images[[0, 9, 17]], "finer": found.finer[[0, 15]], "steps": np.array(found.steps)}


def hyperparameters_case() -> Arrays:
    """Episodes of the environment that chooses hyperparameters, with each solver."""
    drawing = s.drawing(Toy(**V), SHAPE, {"clip_sample": True, **V})
    return _episodes(s.DiffusionHyperparameterEnv(drawing, reward=s.HybridReward(0.4), pictures=2, batches=2))


def domain_case() -> Arrays:
    """The same of the environment that begins at what is known of a domain: here calibrated steps."""
    drawing = s.drawing(Toy(**V), SHAPE, {"clip_sample": True, **V})
    return _episodes(s.domain_environment(drawing, CALIBRATION, pictures=2, batches=2))


def _episodes(env: Any) -> Arrays:
    rewards, scores = [], []
    observation, _ = env.reset(seed=5)
    for action in ([0.4, -0.8, 0.3, 0.0], [-0.5, 0.2, -0.4, -1.0], [0.1, 0.0, 0.5, 1.0]):
        _, reward, _, _, info = env.step(np.array(action, np.float32))
        rewards.append(reward)
        scores.append(info["scores"])
        env.reset()
    spent = np.array([env.spent.asked, env.spent.computed])
    return {"observation": observation, "rewards": np.array(rewards), "scores": np.stack(scores), "spent": spent}


def timesteps_case() -> Arrays:
    """An episode of the environment that chooses timesteps, and one that is stopped."""
    drawing = s.drawing(Toy(**V), SHAPE, {"clip_sample": True, **V})
    env = s.TimestepEnv(drawing, reward=s.QualityReward(), num_steps=5, stopping=True, pictures=2, batches=2)
    observations, rewards, chosen = [], [], []
    for seed, actions in ((1, [0.5, -0.7, 0.2, 1.1]), (2, [-0.3, 0.9, None])):
        observations.append(env.reset(seed=seed)[0])
        for action in actions:
            given = np.array([action, -1.0] if action is not None else [0.0, 1.0], np.float32)
            observation, reward, over, _, info = env.step(given)
            observations.append(observation)
            rewards.append(reward)
        assert over
        chosen += info["hyperparameters"]["timesteps"]
    return {"observations": np.stack(observations), "rewards": np.array(rewards), "timesteps": np.array(chosen)}


def pipeline_case() -> Arrays:
    """`DiffusionPipeline` over the toy: generating, denoising a noisy image, adding noise."""
    pipeline = s.DiffusionPipeline(Toy(), "dpm-solver", image_size=SHAPE[:2])
    images, way = pipeline.generate(2, 5, seed=4, return_intermediates=True)
    _, x_T = noise(2)
    noisy = pipeline.add_noise(images, 400, x_T)
    return {
        "images": np.array(images),
        "way": np.stack([np.array(x0)[0] for x0 in way]),
        "noisy": np.array(noisy),
        "denoised": np.array(pipeline.denoise_image(noisy, 400, 3)),
    }


def sample_case(*overrides: str) -> Arrays:
    """What `sample.py` draws: two images of the shipped model, as means of 4x4 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        images, evaluations = s.drawn(Path(folder), "num_samples=2", "seed=7", "label=none", *overrides)
    return {"images": _means(images), "evaluations": evaluations}


def diffusers_case(kind: str, *overrides: str) -> Arrays:
    """What `sample.py` draws with a tiny diffusers pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        path = s.pipeline_folder(kind, Path(folder) / "pipeline")
        chosen = ("model=diffusers", f"model.path={path}", "num_samples=2", "num_steps=4", *overrides)
        images, evaluations = s.drawn(Path(folder), *chosen)
    return {"images": _means(images), "evaluations": evaluations}


def _means(images: np.ndarray) -> np.ndarray:
    n, height, width, channels = images.shape
    return images.reshape(n, height // 4, 4, width // 4, 4, channels).mean(axis=(2, 4)).astype(np.float32)


# what version 0.1.0 shipped, as far as the cases need it: what ships may change
STEPS = (f"scheduler.calibration.path={s.PINNED / 'schedules.json'}",)
QUALITY = (f"sampler.calibration={s.PINNED / 'quality.json'}",)
POLICY = (f"scheduler.path={s.PINNED / 'landscapes_8.zip'}",)

SAMPLE = {
    "plain": STEPS,
    "portraits, 5 calibrated steps": ("domain=portraits", "num_steps=5", *STEPS),
    "not calibrated": ("domain=abstract", "scheduler.calibration=null", "num_steps=5"),
    "resampled, guidance 3": ("num_steps=11", "guidance_scale=3", *STEPS),
    "ddim karras": ("scheduler=ddim", "grid=karras", "num_steps=6"),
    "ddpm": ("scheduler=ddpm", "num_steps=6", "domain=general"),
    "dpm_solver blended": ("scheduler=dpm_solver", "grid=blended", "num_steps=6"),
    "unipc calibrated grid": (
        *("scheduler=unipc", "grid=calibrated", "num_steps=6"),
        f"grid.path={s.PINNED / 'schedules.json'}",
    ),
    "ipndm quadratic": ("scheduler=ipndm", "grid=quadratic", "num_steps=6"),
    "quality_guided": (
        *("sampler=quality_guided", "num_steps=15", "sampler.quality_threshold=0.45"),
        *("sampler.patience=3", "sampler.min_steps=6", "sampler.finish=4", *STEPS, *QUALITY),
    ),
    "step_reduction": ("sampler=step_reduction", "num_steps=20", "sampler.quality_target=0.6", *STEPS, *QUALITY),
    "variation": ("variation=0.3", "num_steps=5", *STEPS),
}

CASES: dict[str, Callable[[], Arrays]] = {
    **{f"scheduler {name}": (lambda name=name: scheduler_case(name)) for name in SCHEDULERS},
    **{
        f"steps {name}": (lambda name=name: steps_case(name))
        for name in (
            *("ddim eta 0.7", "ddpm", "dpm order 3", "dpm sde", "unipc order 3", "ipndm", "adaptive"),
            *("adaptive calibrated", "dpm sigma_min"),
        )
    },
    "float16": half_case,
    "grids": grids_case,
    **{f"sampler {name}": (lambda name=name: sampler_case(name)) for name in SAMPLERS},
    "policy": lambda: policy_case(False),
    "policy that stops": lambda: policy_case(True),
    "calibration": calibration_case,
    "calibration of a tiny network": tiny_calibration_case,
    "converged": converged_case,
    "hyperparameters": hyperparameters_case,
    "domain": domain_case,
    "timesteps": timesteps_case,
    "pipeline": pipeline_case,
    "sample.py learned": shipped_policy_case,
    **{f"sample.py {name}": (lambda given=given: sample_case(*given)) for name, given in SAMPLE.items()},
    "diffusers ddpm": lambda: diffusers_case("ddpm", "domain.name=general"),
    "diffusers sd1": lambda: diffusers_case("sd1", "prompt=the lake", "guidance_scale=2"),
}
