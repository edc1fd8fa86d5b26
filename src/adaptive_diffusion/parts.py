"""From a configuration to the parts of a run. Whatever is wrong with a value is found here, before anything runs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import mlx.core as mx
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from .baseline.checks import check_count, check_number
from .baseline.noise_schedule import NoiseSchedule
from .errors import MachineError, UserError
from .hints import did_you_mean
from .metrics.domain import Choice
from .metrics.quality import PictureMetrics
from .models.guidance import GuidedDenoiser
from .models.unet import SimpleUNet
from .prompts import follow_prompt
from .sampling.batches import conditions
from .sampling.standard import StandardSampler
from .schedulers.grids import Grid, set_timesteps
from .tracking import Tracker
from .types import Scheduler

LARGEST_PICTURE = 4096


@dataclass(frozen=True)
class Parts:
    """Everything a sampling run needs.

    Attributes:
        cfg: The configuration with every value filled in that the model decides.
        model: The network.
        denoiser: The network with its guidance.
        scheduler: Solver with a spacing of its own, fitted to the model.
        grid: Where to evaluate the model instead, or None.
        sampler: The loop.
        condition: Class ids that every picture is drawn with; () for an unconditional model.
        choice: Domain and label chosen by a prompt, or None.
        metrics: What the pictures are measured by.
        tracker: Where the run is recorded.
    """

    cfg: DictConfig
    model: SimpleUNet
    denoiser: GuidedDenoiser
    scheduler: Scheduler
    grid: Grid | None
    sampler: StandardSampler
    condition: tuple[int, ...]
    choice: Choice | None
    metrics: PictureMetrics
    tracker: Tracker

    def conditions(self, batch_size: int) -> mx.array | None:
        """(batch_size, K) class ids for a batch, or None."""
        return conditions(self.condition, batch_size)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        return NoiseSchedule(**self.model.metadata.get("noise_schedule", {}))

    def set_timesteps(self) -> None:
        """Begin a run: `num_steps` timesteps on the grid."""
        set_timesteps(self.scheduler, self.grid, self.schedule, self.cfg.num_steps)


def prepare(cfg: DictConfig) -> Parts:
    """Build and check the parts of a sampling run.

    Raises:
        UserError: for a missing, unknown or contradictory value.
    """
    check_keys(cfg)
    _check(check_count, cfg, "num_samples", 1)
    _check(check_count, cfg, "batch_size", 1)
    _check(check_count, cfg, "seed", 0)
    if cfg.image_size is not None:
        _check(check_count, cfg, "image_size", 1, LARGEST_PICTURE)
    tracker = build(cfg, "tracking")
    model: SimpleUNet = build(cfg, "model")
    cfg, choice = follow_prompt(cfg, model)
    condition = class_ids(model, cfg.domain.name, cfg.label)
    cfg = fitted(cfg, model)
    _check(check_number, cfg, "guidance_scale", 0)
    _check(check_count, cfg, "num_steps", 1, cfg.scheduler.get("num_train_timesteps"))
    scheduler: Scheduler = build(cfg, "scheduler")
    grid: Grid | None = build(cfg, "grid")
    sampler = build(cfg, "sampler", scheduler=scheduler)
    denoiser = GuidedDenoiser(model, cfg.guidance_scale)
    metrics: PictureMetrics = build(cfg, "metrics")
    parts = Parts(cfg, model, denoiser, scheduler, grid, sampler, condition, choice, metrics, tracker)
    try:
        parts.set_timesteps()
    except ValueError as error:
        raise UserError(f"scheduler: {error}") from error
    return parts


def check_keys(cfg: DictConfig) -> None:
    """Refuse a configuration that lacks a value, or that has a key its schema does not know.

    Hydra looks for missing values only when they are used, and lets `+key=value` add anything.

    Raises:
        UserError: naming the key.
    """
    if missing := sorted(map(str, OmegaConf.missing_keys(cfg))):
        raise UserError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=<value>")
    nodes = {"": cfg, **{f"{key}.": cfg[key] for key in map(str, cfg) if OmegaConf.is_dict(cfg[key])}}
    for prefix, node in nodes.items():
        if not is_dataclass(schema := OmegaConf.get_type(node)):
            continue
        known = [field.name for field in fields(schema)]
        for key in (str(k) for k in node):
            if key not in known:
                close = did_you_mean(key, known)
                hint = f"; did you mean {prefix + close!r}?" if close else ""
                raise UserError(f"there is no setting {prefix + key!r}{hint}; --help lists them")


def build(cfg: DictConfig, group: str, **runtime: Any) -> Any:
    """Build the part that a group describes.

    Args:
        cfg: The configuration.
        group: Its key.
        **runtime: Arguments that only the run knows.

    Raises:
        UserError: if the constructor refuses a value.
    """
    try:
        # in two steps: Hydra would take a runtime argument that is a dataclass for a configuration, and copy it
        return instantiate(cfg[group], _convert_="all", _partial_=True)(**runtime)
    except (UserError, MachineError, OSError):
        raise
    except (InstantiationException, TypeError, ValueError) as error:
        raise UserError(f"{group}: {str(error).splitlines()[0]}") from error


def fitted(cfg: DictConfig, model: SimpleUNet) -> DictConfig:
    """A copy of the configuration with everything filled in that the model decides.

    The scheduler gets the noise schedule and the prediction type that the model was trained with.

    Raises:
        UserError: if the configuration contradicts the model.
    """
    cfg = cfg.copy()
    defaults = {k: p.default for k, p in inspect.signature(NoiseSchedule).parameters.items()}
    trained = {"prediction_type": None, **defaults, **model.metadata.get("noise_schedule", {})}
    trained["prediction_type"] = model.metadata.get("prediction_type")
    for key in trained.keys() & cfg.scheduler.keys():
        given = cfg.scheduler[key]
        if given is None:
            cfg.scheduler[key] = trained[key]
        elif trained[key] is not None and given != trained[key]:
            raise UserError(
                f"scheduler.{key}={given} contradicts the model, which was trained with {trained[key]}; "
                f"leave scheduler.{key} out"
            )
    if cfg.scheduler.get("prediction_type", "") is None:
        raise UserError(
            "the model file does not say what the model predicts; give scheduler.prediction_type=epsilon, "
            "v_prediction or sample"
        )
    if cfg.guidance_scale is None:
        cfg.guidance_scale = float(model.metadata.get("guidance_scale", 1.0))
    if cfg.image_size is None:
        cfg.image_size = model.config.image_size
    return cfg


def class_ids(model: SimpleUNet, domain: str, label: str | None) -> tuple[int, ...]:
    """Class ids of a domain and a label, as the model numbers them (from 1; 0 is "any"); () if it has no classes.

    Raises:
        UserError: if the model knows no such domain, or the domain no such label.
    """
    domains: list[str] = list(model.metadata.get("domains", ()))
    labels: dict[str, list[str]] = model.metadata.get("labels", {})
    if not model.config.num_classes:
        if label is not None:
            raise UserError(f"label={label} was given, but the model was trained without classes")
        return ()
    if domain not in domains:
        raise UserError(f"the model has no domain {domain!r}; it was trained on {', '.join(domains) or 'none'}")
    ids = [domains.index(domain) + 1]
    if label is None:
        ids.append(0)
    elif label in labels.get(domain, ()):
        before = sum(len(labels[d]) for d in domains[: domains.index(domain)])
        ids.append(before + labels[domain].index(label) + 1)
    else:
        raise UserError(_no_such_label(label, domain, labels))
    return tuple(ids[: len(model.config.num_classes)])


def _no_such_label(label: str, domain: str, labels: dict[str, list[str]]) -> str:
    elsewhere = [name for name, known in labels.items() if label in known]
    if elsewhere:
        return f"{label!r} is a label of domain={elsewhere[0]}, not of domain={domain}"
    known = sorted(labels.get(domain, ()))
    if not known:
        return f"domain={domain} has no labels; leave label out"
    if close := did_you_mean(label, known):
        return f"domain={domain} has no label {label!r}; did you mean {close!r}?"
    if close := did_you_mean(label, [name for names in labels.values() for name in names]):
        home = next(name for name, names in labels.items() if close in names)
        return f"domain={domain} has no label {label!r}; did you mean domain={home} label={close}?"
    shown = ", ".join(known[:40]) + (", ..." if len(known) > 40 else "")
    return f"domain={domain} has no label {label!r}; it has {shown}"


def _check(check: Any, cfg: DictConfig, key: str, *bounds: float | None) -> None:
    try:
        check(key, cfg[key], *bounds)
    except ValueError as error:
        raise UserError(str(error)) from None
