"""From a configuration to the parts of a run. Whatever is wrong with a value is found here, before anything runs."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..diffusion.checks import check_count, check_guidance, check_name, check_number
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import effective_guidance
from ..diffusion.guided_model import GuidedModel
from ..diffusion.rng import image_keys, normal
from ..diffusion.schedule import NoiseSchedule
from ..encoder.captions import plain_caption
from ..encoder.domain import Choice
from ..errors import MachineError, Unusable, UserError, known_error, sentence
from ..grids.calibrated import SHIPPED, CalibratedGrid, load_schedules
from ..grids.grids import Grid, set_timesteps
from ..io.image_file import read_picture
from ..metrics.quality import PictureMetrics
from ..program import command
from ..sampling.batches import conditions
from ..sampling.standard import StandardSampler, whole
from ..sampling.starts import FromPicture, NearNoise, Start, last_timesteps
from ..schedulers.adaptive import AdaptiveScheduler
from ..schedulers.core import SchedulerCore
from ..tracking.commands import advice_for_this_model
from ..tracking.tracker import Tracker
from ..types import PictureModel, Scheduler
from .prompts import follow_prompt
from .setting_types import arguments_of, target_of, typed

log = logging.getLogger(__name__)

LARGEST_PICTURE = 4096
MOST_PICTURES = 1_000_000  # they are all kept in memory
CONTRACTS = {  # group -> what its parts are asked for first; types.py and docs/extend.md say all of it
    "model": ("metadata", "state_shape", "condition"),
    "grid": ("__call__",),
    "scheduler": ("set_timesteps", "step"),
    "sampler": ("iterate", "check", "report"),
    "metrics": ("measure", "converged"),
    "tracking": ("open", "finished", "how_to_look"),
    "reward": ("weight",),
    "agent": ("train", "kind"),
}
TARGET = re.compile(r"Error locating target '([^']*)'")  # in Hydra's words
STEPS = 10  # where neither the user nor a tuned scheduler says how many


@dataclass(frozen=True)
class Parts:
    """Everything a sampling run needs.

    Attributes:
        cfg: The configuration with every value filled in that the model decides.
        model: The network.
        denoiser: The network with its noise process and its guidance; it counts what it is asked.
        scheduler: Solver with a spacing of its own, fitted to the model.
        grid: Where to evaluate the model instead, or None.
        sampler: The loop.
        caption: What the pictures are to show, in words: the prompt, or what domain and label say.
        condition: Class ids that every picture is drawn with; () for an unconditional model.
        choice: Domain and label chosen by a prompt, or None.
        starts: What the noise becomes before the first step; () if it stays what it is.
        metrics: What the pictures are measured by.
        tracker: Where the run is recorded.
    """

    cfg: DictConfig
    model: PictureModel
    denoiser: GuidedModel
    scheduler: Scheduler
    grid: Grid | None
    sampler: StandardSampler
    caption: str
    condition: tuple[int, ...]
    choice: Choice | None
    starts: tuple[Start, ...]
    metrics: PictureMetrics
    tracker: Tracker

    def conditions(self, batch_size: int) -> mx.array | None:
        """(batch_size, K) class ids for a batch, or None."""
        return conditions(self.condition, batch_size)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the model was trained with."""
        return noise_process(self.model)

    def start(self, noise: mx.array) -> mx.array:
        """(B, H, W, C) standard normal noise -> the states that a batch begins with."""
        for start in self.starts:
            noise = start(noise)
        return noise

    def set_timesteps(self) -> None:
        """Begin a run: `num_steps` timesteps on the grid, or the last of them after a picture."""
        set_timesteps(self.scheduler, self.grid, self.schedule, self.cfg.num_steps)
        if self.cfg.init_image is not None:
            last_timesteps(self.scheduler, self.cfg.strength)


def prepare(cfg: DictConfig) -> Parts:
    """Build and check the parts of a sampling run.

    Raises:
        UserError: for a missing, unknown or contradictory value.
    """
    cfg = checked(cfg)
    _check(check_count, cfg, "num_samples", 1, MOST_PICTURES)
    _check(check_count, cfg, "batch_size", 1, MOST_PICTURES)
    _check(check_count, cfg, "seed", 0)
    if cfg.image_size is not None:
        _check(check_count, cfg, "image_size", 1, LARGEST_PICTURE)
    _check(partial(check_number, above=True), cfg, "strength", 0, 1)
    tracker = build(cfg, "tracking")
    model: PictureModel = build(cfg, "model")
    cfg, choice = follow_prompt(cfg, model)
    caption = cfg.prompt or plain_caption(cfg.domain.name, cfg.label)
    condition = model.condition(cfg.domain.name, cfg.label, caption)
    cfg = fitted(cfg, model)
    check_calibration("scheduler.calibration", cfg.scheduler.get("calibration"), cfg, model)
    check_calibration("grid", cfg.grid, cfg, model)
    facts = facts_for(cfg, model)
    if cfg.num_steps is not None:
        _check(check_count, cfg, "num_steps", 1, noise_process(model).num_train_timesteps)
    scheduler: Scheduler = build(cfg, "scheduler", **facts)
    if cfg.num_steps is None:
        cfg.num_steps = len(scheduler)  # as it was tuned
    grid: Grid | None = build(cfg, "grid")
    check_grid(scheduler, grid)
    starts = _starts(cfg, model, scheduler)
    sampler: StandardSampler = build(cfg, "sampler", scheduler=scheduler)
    guided = whole(scheduler).guided(model, None, cfg.guidance_scale)
    metrics: PictureMetrics = build(cfg, "metrics")
    parts = Parts(cfg, model, guided, scheduler, grid, sampler, caption, condition, choice, starts, metrics, tracker)
    try:
        parts.set_timesteps()
    except Unusable:
        raise
    except ValueError as error:
        raise UserError(f"scheduler: {error}") from error
    sampler.check()
    return parts


def check_calibration(name: str, node: Any, cfg: DictConfig, model: PictureModel) -> None:
    """Refuse calibrated steps that are asked for by model or domain and are not there; others would take their place.

    Args:
        name: Where the settings stand, e.g. `scheduler.calibration`.
        node: The settings, see `find_schedule`; anything else is left alone.
        cfg: The configuration, fitted to the model.
        model: The model that draws.

    Raises:
        UserError: naming the setting.
    """
    if not OmegaConf.is_dict(node) or not {"path", "model", "domain", "guidance_scale"} <= set(node):
        return
    try:
        check_number(f"{name}.guidance_scale", node.guidance_scale, 0)
    except ValueError as error:
        raise UserError(str(error)) from None
    named = {"model": model.identity, "domain": cfg.domain.name}
    named = {key: node[key] for key, own in named.items() if node[key] != own}
    if not named:
        return
    known = [s for s in load_schedules(SHIPPED if node.path is None else node.path) if s.model == node.model]
    for key, value in named.items():
        if value not in (found := [getattr(schedule, key) for schedule in known]):
            others = f"of this model there are {', '.join(sorted(set(found)))}" if found else "nor others of this model"
            raise UserError(
                f"there are no calibrated steps with {name}.{key}={value}, {others}; leave {name}.{key} out, or "
                f"calibrate with {command('train')} task=schedule"
            )


def check_grid(scheduler: Scheduler, grid: Grid | None) -> None:
    """Say what a grid takes the place of.

    Raises:
        UserError: for the calibrated grid beside a scheduler that takes calibrated steps of its own accord.
    """
    if grid is None or not isinstance(scheduler, SchedulerCore):
        return
    if isinstance(scheduler, AdaptiveScheduler) and isinstance(grid, CalibratedGrid):
        raise UserError(
            "grid=calibrated would leave out the weights that this scheduler draws calibrated steps with; leave grid "
            "out (scheduler.calibration.path takes a file of your own), or take scheduler=dpm_solver for the timesteps "
            "alone"
        )
    if getattr(scheduler, "calibration", None) is not None:
        log.warning("the grid takes the place of the calibrated steps, timesteps and weights; leave grid out for them")
    elif scheduler.source:
        log.warning("the grid takes the place of the timesteps of %s; leave grid out for them", scheduler.source)


def _starts(cfg: DictConfig, model: PictureModel, scheduler: Scheduler) -> tuple[Start, ...]:
    """Where the pictures begin, if not at their own noise."""
    starts: list[Start] = []
    if cfg.benchmark is not None and (cfg.variation is not None or cfg.init_image is not None):
        raise UserError("a benchmark begins with plain noise; leave variation and init_image out")
    if cfg.variation is not None:
        _check(check_number, cfg, "variation", 0, 1)
        starts.append(NearNoise(normal(image_keys(cfg.seed, [0]), model.state_shape)[0], cfg.variation))
    if cfg.init_image is not None:
        picture = mx.array(read_picture(cfg.init_image, model.picture_size, picture_channels(model)))
        starts.append(FromPicture(model.encode(picture[None])[0], scheduler))
    return tuple(starts)


def picture_channels(model: PictureModel) -> int:
    """Channels of the pictures that a model draws: those of its states, unless these are latents."""
    return model.state_shape[-1] if model.state_shape[:2] == tuple(model.picture_size) else 3


def noise_process(model: PictureModel) -> NoiseSchedule:
    """The noise schedule that a model was trained with."""
    return ModelFacts.of(model).process


def checked(cfg: DictConfig) -> DictConfig:
    """A copy with the types of its constructors; refuses one that lacks a value, has an unknown key, or names no names.

    Hydra looks for missing values only when they are used, and lets `+key=value` add anything. Runs are named by
    `name`, and files by domains.

    Raises:
        UserError: naming the key.
    """
    if missing := sorted(map(str, OmegaConf.missing_keys(cfg))):
        raise UserError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=<value>")
    cfg = typed(cfg)
    with refused():
        if cfg.name:
            check_name("name", cfg.name)
        for tag in cfg.tags:
            check_name("each of tags", tag)
        if OmegaConf.is_dict(cfg.domain) and "name" in cfg.domain:
            check_name("domain.name", cfg.domain.name, of_file=True)
        for domain in OmegaConf.select(cfg, "task.data", default={}):
            check_name("a domain of task.data", domain, of_file=True)
    return cfg


def build(cfg: DictConfig, group: str, **runtime: Any) -> Any:
    """Build the part that a group describes.

    Args:
        cfg: The configuration.
        group: Its key.
        **runtime: Arguments that only the run knows.

    Raises:
        UserError: if the constructor refuses a value.
    """
    for name in ("model", "grid"):
        if group == "task" and isinstance(chosen := cfg.task.get(name), str):
            raise UserError(f"task.{name}={chosen} is no {name}; a choice is {name}@task.{name}={chosen}")
    for key in runtime:
        if cfg[group].get(key) is not None:
            raise UserError(f"{group}.{key} is given by the run; leave it out")
    try:
        # in two steps: Hydra would take a runtime argument that is a dataclass for a configuration, and copy it
        return _fit_for(group, instantiate(cfg[group], _convert_="all", _partial_=True)(**runtime))
    except Exception as error:
        failed = error

    cause = failed
    while isinstance(cause, InstantiationException | ImportError) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__  # Hydra wraps what constructors and modules raise
    if known_error(cause) is cause and not isinstance(cause, MachineError):
        raise advice_for_this_model(cause) from cause.__cause__
    if _is_mistake(cause, failed):
        raise UserError(f"{group}: {_in_one_line(failed)}") from failed
    raise cause


def _fit_for(group: str, part: Any) -> Any:
    """The part, if it can do what its group is there for; None stands for none."""
    if part is not None and (lacking := [name for name in CONTRACTS.get(group, ()) if not hasattr(part, name)]):
        raise UserError(
            f"{group}._target_ makes a {type(part).__name__}, which is no {group}: it has no {', '.join(lacking)}; "
            "docs/extend.md says what each part must have"
        )
    return part


def _in_one_line(error: BaseException) -> str:
    """What a constructor, or Hydra on the way to it, says."""
    if found := TARGET.match(str(error)):
        return f"_target_ is {found[1]!r}, and Python finds nothing of that name"
    if found := re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument ('.*?')", str(error)):
        return f"{found[1]} takes no {found[2]}"
    return " ".join(line for line in str(error).splitlines() if not line.startswith("full_key"))


def _is_mistake(error: BaseException, told: BaseException) -> bool:
    """Whether an error speaks of a value, or of a call or a name that the configuration gets wrong; else it is a bug.

    Args:
        error: What a constructor raised, or Hydra on the way to it.
        told: What Hydra made of it.
    """
    if isinstance(error, ModuleNotFoundError):
        found = TARGET.match(str(told))
        return found is not None and f"{found[1]}.".startswith(f"{error.name}.")
    if isinstance(error, TypeError | AttributeError):
        raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
        return raised_in == __name__ or raised_in.startswith("hydra.")
    return isinstance(error, ValueError | InstantiationException | OmegaConfBaseException)


def fitted(cfg: DictConfig, model: PictureModel) -> DictConfig:
    """A copy of the configuration with everything filled in that the model decides.

    Raises:
        UserError: if the configuration contradicts the model.
    """
    cfg = cfg.copy()
    for of_a_model in (cfg.scheduler, cfg.scheduler.get("calibration"), cfg.grid, cfg.get("sampler")):
        if OmegaConf.is_dict(of_a_model) and of_a_model.get("model", "") is None:
            of_a_model.model = model.identity
    if cfg.num_steps is None and "trained" not in cfg.scheduler:  # what was tuned has a number of its own
        cfg.num_steps = STEPS
    if cfg.guidance_scale is None:
        cfg.guidance_scale = float(ModelFacts.of(model).guidance_scale)
    with refused():
        check_guidance(cfg.guidance_scale)
    if (guidance := effective_guidance(model, cfg.guidance_scale)) != cfg.guidance_scale:
        log.info("guidance_scale=%g is none, 1, for a model that reads the prompt", cfg.guidance_scale)
        cfg.guidance_scale = guidance
    if cfg.guidance_scale == 0 and model.conditional:
        log.warning("guidance_scale=0 draws without domain and label, whatever they are; 1 is no guidance")

    height, width = model.picture_size
    if cfg.image_size is None and height == width:
        cfg.image_size = height
    elif cfg.image_size is not None and height != width:
        raise UserError(
            f"image_size={cfg.image_size} makes square pictures, and this model draws {width}x{height}; leave it out"
        )
    return cfg


def facts_for(cfg: DictConfig, model: PictureModel) -> dict[str, Any]:
    """The arguments of the scheduler that the model knows best: its noise schedule, what it predicts, whether to clip.

    Clean predictions of a model that works on latents are not clipped. What a setting says of limits stands.

    Raises:
        UserError: for a setting that contradicts the model, or a model that does not say what it predicts.
    """
    given, known = cfg.scheduler, ModelFacts.of(model)
    arguments, others = arguments_of(target_of(given))
    trained = {**known.process.config, "prediction_type": known.prediction_type}
    for key in trained.keys() & given.keys():
        if given[key] is not None and given[key] != trained[key]:
            raise UserError(
                f"scheduler.{key}={given[key]} contradicts the model, which was trained with {trained[key]}; leave "
                f"scheduler.{key} out"
            )
    if (others or "prediction_type" in arguments) and trained["prediction_type"] is None:
        raise UserError(
            "the model file does not say what the model predicts; give model.prediction_type=epsilon, v_prediction or "
            "sample"
        )
    facts = {**trained, "clip_sample": known.bounded}
    return {k: v for k, v in facts.items() if (others or k in arguments) and given.get(k) is None}


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """A block that checks what the user gave: a ValueError of it is the user's mistake."""
    try:
        yield
    except ValueError as error:
        raise UserError(sentence(error)) from None


def _check(check: Any, cfg: DictConfig, key: str, *bounds: float | None) -> None:
    with refused():
        check(key, cfg[key], *bounds)
