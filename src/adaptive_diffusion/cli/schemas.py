"""Typed schemas of the configuration groups; `conf/` holds the values and says what they mean.

A schema only gives each key its type, so that `num_steps=ten` and a misspelt key are refused before anything runs. The
schemas live in a group of their own, `schema/`, to keep the lists of options clean. A new option works without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Paths:
    """Folders."""

    root: str = MISSING
    outputs: str = MISSING
    mlruns: str = MISSING
    data: str = MISSING
    run: str = MISSING


@dataclass
class Sample:
    """The root of sample.py."""

    model: Any = MISSING
    domain: Any = MISSING
    scheduler: Any = MISSING
    grid: Any = MISSING
    sampler: Any = MISSING
    metrics: Any = MISSING
    benchmark: Any = None
    tracking: Any = MISSING
    paths: Paths = MISSING
    num_samples: int = MISSING
    num_steps: int | None = MISSING
    batch_size: int = MISSING
    seed: int = MISSING
    prompt: str | None = MISSING
    label: str | None = MISSING
    guidance_scale: float | None = MISSING
    image_size: int | None = MISSING
    init_image: str | None = MISSING
    strength: float = MISSING
    variation: float | None = MISSING
    name: str | None = MISSING
    tags: list[str] = MISSING
    skip_finished: bool = MISSING


@dataclass
class Train:
    """The root of train.py."""

    task: Any = MISSING
    agent: Any = None
    reward: Any = None
    domain: Any = None
    tracking: Any = MISSING
    paths: Paths = MISSING
    output: str | None = MISSING
    log_every: int = MISSING
    preview_every: int = MISSING
    preview_samples: int = MISSING
    preview_steps: int = MISSING
    name: str | None = MISSING
    tags: list[str] = MISSING


@dataclass
class Part:
    """Anything that is built from its configuration."""

    _target_: str = MISSING


@dataclass
class Checkpoint(Part):
    """`model=checkpoint`"""

    path: str = MISSING


@dataclass
class Diffusers(Part):
    """`model=diffusers` and the named models of the hub"""

    path: str = MISSING
    revision: str | None = MISSING
    precision: str | None = MISSING
    height: int | None = MISSING
    width: int | None = MISSING
    negative_prompt: str | None = MISSING
    draws: str | None = MISSING


@dataclass
class Domain:
    """The `domain` group."""

    name: str = MISSING
    description: str = MISSING


@dataclass
class Mlflow(Part):
    """`tracking=mlflow`"""

    database: str = MISSING
    artifacts: str = MISSING
    experiment: str = MISSING
    lock_timeout: float = MISSING
    ui_port: int = MISSING


@dataclass
class EncoderMetrics(Part):
    """`metrics=encoder`"""

    converged: bool = MISSING
    encoder: str | None = MISSING
    references: str | None = MISSING


@dataclass
class StandardMetrics(Part):
    """`metrics=standard`"""

    reference: str = MISSING
    inception: str | None = MISSING
    clip: str | None = MISSING
    lpips: str = MISSING
    converged: bool = MISSING


@dataclass
class StandardSampler(Part):
    """`sampler=standard`"""

    scheduler: Any = MISSING


@dataclass
class QualityGuidedSampler(Part):
    """`sampler=quality_guided`"""

    scheduler: Any = MISSING
    quality_threshold: float = MISSING
    early_stopping: bool = MISSING
    patience: int = MISSING
    min_steps: int = MISSING
    max_steps: int = MISSING
    finish: int = MISSING
    calibration: str | None = MISSING
    model: str | None = MISSING


@dataclass
class StepReductionSampler(Part):
    """`sampler=step_reduction`"""

    scheduler: Any = MISSING
    quality_target: float = MISSING
    calibration: str | None = MISSING
    model: str | None = MISSING


@dataclass
class Scheduler(Part):
    """What all schedulers share; None, where it may be: as the model was trained."""

    num_train_timesteps: int | None = MISSING
    beta_start: float | None = MISSING
    beta_end: float | None = MISSING
    beta_schedule: str | None = MISSING
    trained_betas: list[float] | None = MISSING
    rescale_betas_zero_snr: bool | None = MISSING
    prediction_type: str | None = MISSING
    clip_sample: bool | None = MISSING
    clip_sample_range: float = MISSING


@dataclass
class Adaptive(Scheduler):
    """`scheduler=adaptive`"""

    num_inference_steps: int | None = MISSING
    adaptive_threshold: float = MISSING
    progress_power: float = MISSING
    min_step_ratio: float = MISSING
    max_step_ratio: float = MISSING
    calibration: Any = MISSING


@dataclass
class Tuned(Scheduler):
    """`scheduler=tuned`"""

    path: str | None = MISSING
    trained: str = MISSING
    model: str | None = MISSING
    domain: str = MISSING
    guidance_scale: float | None = MISSING
    num_inference_steps: int | None = MISSING
    calibration: Any = MISSING


@dataclass
class Learned(Scheduler):
    """`scheduler=learned`"""

    path: str | None = MISSING
    trained: str | None = MISSING
    model: str | None = MISSING
    domain: str = MISSING
    guidance_scale: float | None = MISSING
    num_inference_steps: int | None = MISSING


@dataclass
class SpacedScheduler(Scheduler):
    """What the schedulers of diffusers share besides."""

    thresholding: bool = MISSING
    dynamic_thresholding_ratio: float = MISSING
    sample_max_value: float = MISSING
    timestep_spacing: str | None = MISSING
    steps_offset: int | None = MISSING


@dataclass
class DDPM(SpacedScheduler):
    """`scheduler=ddpm`"""

    variance_type: str = MISSING


@dataclass
class DDIM(SpacedScheduler):
    """`scheduler=ddim`"""

    eta: float = MISSING
    set_alpha_to_one: bool = MISSING
    use_clipped_model_output: bool = MISSING


@dataclass
class DPMSolver(SpacedScheduler):
    """`scheduler=dpm_solver`"""

    solver_order: int = MISSING
    algorithm_type: str = MISSING
    solver_type: str = MISSING
    lower_order_final: bool = MISSING
    euler_at_final: bool = MISSING
    use_karras_sigmas: bool = MISSING
    use_lu_lambdas: bool = MISSING
    final_sigmas_type: str = MISSING
    lambda_min_clipped: float = MISSING


@dataclass
class UniPC(SpacedScheduler):
    """`scheduler=unipc`"""

    solver_order: int = MISSING
    solver_type: str = MISSING
    lower_order_final: bool = MISSING
    final_sigmas_type: str = MISSING


@dataclass
class Benchmark:
    """`benchmark=default`"""

    seed_blocks: int = MISSING
    tolerance: float = MISSING
    baseline: str | None = MISSING


@dataclass
class PowerGrid(Part):
    """`grid=uniform` and `grid=quadratic`"""

    power: float = MISSING


@dataclass
class KarrasGrid(Part):
    """`grid=karras`"""

    rho: float = MISSING


@dataclass
class BlendedGrid(Part):
    """`grid=blended`"""

    log_snr_weight: float = MISSING


@dataclass
class FoundGrid(Part):
    """`grid=calibrated`"""

    path: str | None = MISSING
    model: str | None = MISSING
    domain: str = MISSING
    guidance_scale: float | None = MISSING


@dataclass
class NoiseSchedule:
    """Constructor arguments of `NoiseSchedule`."""

    num_train_timesteps: int = MISSING
    beta_start: float = MISSING
    beta_end: float = MISSING
    beta_schedule: str = MISSING
    trained_betas: list[float] | None = MISSING
    rescale_betas_zero_snr: bool = MISSING


@dataclass
class Architecture:
    """Arguments of `UNetConfig`, without `num_classes`, which the data decide."""

    image_size: int = MISSING
    in_channels: int = MISSING
    patch_size: int = MISSING
    widths: list[int] = MISSING
    blocks: list[int] = MISSING
    attention_levels: list[int] = MISSING
    head_dim: int = MISSING
    embedding_dim: int = MISSING


@dataclass
class TaskModel(Part):
    """`task=model`"""

    data: dict[str, str | None] = MISSING
    state: str = MISSING
    start_from: str | None = MISSING
    images: int = MISSING
    batch_size: int = MISSING
    learning_rate: float = MISSING
    warmup_images: int = MISSING
    decay_images: int = MISSING
    max_grad_norm: float = MISSING
    ema_decay: float = MISSING
    prediction_type: str = MISSING
    log_snr_mean: float = MISSING
    log_snr_std: float = MISSING
    uniform_fraction: float = MISSING
    min_snr_gamma: float | None = MISSING
    drop_label: float = MISSING
    drop_all: float = MISSING
    guidance_scale: float = MISSING
    validation_fraction: float = MISSING
    split: str = MISSING
    validation_images: int = MISSING
    validate_every: int = MISSING
    save_every: int = MISSING
    seed: int = MISSING
    noise_schedule: NoiseSchedule = MISSING
    architecture: Architecture = MISSING


@dataclass
class TaskEncoder(Part):
    """`task=encoder`"""

    data: dict[str, str | None] = MISSING
    state: str = MISSING
    images: int = MISSING
    batch_size: int = MISSING
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    ema_decay: float = MISSING
    widths: list[int] = MISSING
    dimension: int = MISSING
    image_size: int = MISSING
    validation_fraction: float = MISSING
    split: str = MISSING
    validate_every: int = MISSING
    save_every: int = MISSING
    seed: int = MISSING


@dataclass
class QualityReward(Part):
    """`reward=quality`"""

    metric: str = MISSING


@dataclass
class SpeedReward(Part):
    """`reward=speed`"""

    unit: str = MISSING
    metric: str = MISSING


@dataclass
class HybridReward(Part):
    """`reward=hybrid`"""

    weight: float = MISSING
    metric: str = MISSING
    unit: str = MISSING


@dataclass
class Agent(Part):
    """What all agents share; `agent=random` and `agent=fixed`"""

    env: Any = None
    seed: int = MISSING
    eval_every: int = MISSING
    verbose: int = MISSING


@dataclass
class PPOAgent(Agent):
    """`agent=ppo`"""

    learning_rate: float | None = MISSING
    n_steps: int | None = MISSING
    batch_size: int | None = MISSING
    normalize_env: bool = MISSING
    initial_std: float | None = MISSING
    parts: int | None = MISSING
    num_envs: int = MISSING


@dataclass
class CEMAgent(Agent):
    """`agent=cem`"""

    population: int = MISSING
    elites: int = MISSING
    smoothing: float = MISSING
    least_std: float = MISSING
    parts: int | None = MISSING


@dataclass
class TaskSchedule(Part):
    """`task=schedule`"""

    model: Any = MISSING
    domains: list[str] | None = MISSING
    guidance_scale: float | None = MISSING
    steps: list[int] = MISSING
    learned_steps: list[int] | None = MISSING
    noises: int = MISSING
    held_out: int = MISSING
    learned_noises: int = MISSING
    iterations: int = MISSING
    batch_size: int = MISSING
    seed: int = MISSING


@dataclass
class TaskAgent(Part):
    """`task=agent`"""

    model: Any = MISSING
    guidance_scale: float | None = MISSING
    calibration: str | None = MISSING
    episodes: int = MISSING
    min_steps: int = MISSING
    num_steps: int = MISSING
    max_steps: int = MISSING
    pictures: int = MISSING
    batches: int = MISSING
    verification_batches: int = MISSING
    noise_seed: int = MISSING
    start_from: str | None = MISSING


@dataclass
class TaskPolicy(Part):
    """`task=policy`"""

    model: Any = MISSING
    guidance_scale: float | None = MISSING
    num_steps: int = MISSING
    stopping: bool = MISSING
    grid: Any = MISSING
    episodes: int = MISSING
    pictures: int = MISSING
    batches: int = MISSING
    noise_seed: int = MISSING
    start_from: str | None = MISSING


SCHEMAS: dict[str, type] = {
    "sample": Sample,
    "train": Train,
    "paths/default": Paths,
    "model/builtin": Part,
    "model/checkpoint": Checkpoint,
    "model/diffusers": Diffusers,
    "model/ddpm_cifar10": Diffusers,
    "model/ddpm_celebahq": Diffusers,
    "model/ddpm_church": Diffusers,
    "model/ddpm_bedroom": Diffusers,
    "model/stable_diffusion_15": Diffusers,
    "model/stable_diffusion_21": Diffusers,
    "model/sdxl": Diffusers,
    "domain/domain": Domain,
    "metrics/encoder": EncoderMetrics,
    "metrics/standard": StandardMetrics,
    "metrics/none": Part,
    "tracking/mlflow": Mlflow,
    "tracking/none": Part,
    "scheduler/adaptive": Adaptive,
    "scheduler/tuned": Tuned,
    "scheduler/learned": Learned,
    "scheduler/ddpm": DDPM,
    "scheduler/ddim": DDIM,
    "scheduler/dpm_solver": DPMSolver,
    "scheduler/unipc": UniPC,
    "scheduler/ipndm": SpacedScheduler,
    "benchmark/default": Benchmark,
    "grid/own": Part,
    "grid/uniform": PowerGrid,
    "grid/quadratic": PowerGrid,
    "grid/log_snr": Part,
    "grid/karras": KarrasGrid,
    "grid/blended": BlendedGrid,
    "grid/calibrated": FoundGrid,
    "sampler/standard": StandardSampler,
    "sampler/quality_guided": QualityGuidedSampler,
    "sampler/step_reduction": StepReductionSampler,
    "task/model": TaskModel,
    "task/encoder": TaskEncoder,
    "task/schedule": TaskSchedule,
    "task/agent": TaskAgent,
    "task/policy": TaskPolicy,
    "reward/quality": QualityReward,
    "reward/speed": SpeedReward,
    "reward/hybrid": HybridReward,
    "agent/ppo": PPOAgent,
    "agent/cem": CEMAgent,
    "agent/random": Agent,
    "agent/fixed": Agent,
}


def register() -> None:
    """Make the schemas known to Hydra; a YAML file takes its own with `/schema/<group>/<name>@_here_`."""
    for path, schema in SCHEMAS.items():
        group, _, name = f"schema/{path}".rpartition("/")
        ConfigStore.instance().store(name, schema, group=group, provider="adaptive_diffusion")
