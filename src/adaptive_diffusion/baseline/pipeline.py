"""DiffusionPipeline: a model and a scheduler, and images out of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import LARGEST_IMAGE, check_count, check_seed
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import Guidance, without_effect
from ..diffusion.guided_model import GuidedModel
from ..diffusion.rng import image_keys, normal
from ..io.counted import count
from ..io.pixels import resize, to_float
from ..io.progress import Progress
from ..models.checkpoint import load_model, save_model
from ..sampling.batches import decoded
from ..sampling.standard import StandardSampler, origin_of
from ..schedulers.core import SchedulerCore
from ..types import Denoiser, PictureModel, is_picture_model
from .parts import model_of, scheduler_of
from .picture_models import PlainModel, asked_for, conditioned_by

log = logging.getLogger(__name__)

_lock = threading.RLock()


@contextmanager
def _alone() -> Iterator[None]:
    """One thread of the process at a time: drawing sets the scheduler, which several pipelines may share."""
    with _lock:
        yield


class DiffusionPipeline:
    """Draws images with a model and a scheduler.

    A `PictureModel` (a `SimpleUNet`, or what `models.diffusers.load_pipeline` gives) tells its size and how it was
    trained; any other denoiser is taken to work on images of `image_size`, and to be what the scheduler says.

    Without a model it uses the trained one that ships with the project, which draws at 32x32; another `image_size`
    is reached by antialiased resizing. With channels other than 3 it builds an untrained `SimpleUNet` and warns.

    Args:
        model: A `PictureModel`, or any denoiser. None: see above.
        scheduler: `ddpm`, `ddim`, `dpm_solver`, `unipc`, `ipndm`, `adaptive`, or a scheduler object. A name is built
            with clipping to [-1, 1], the first three with trailing timesteps. A prediction type or noise schedule that
            is not the model's is set to the model's, and latents are not clipped. An `AdaptiveScheduler` without a
            calibration of its own takes the shipped one of the model, where there is one. A model or a scheduler that
            is assigned later counts from the next call on, and a scheduler may draw in several pipelines. In several
            threads, the pipelines of a process draw one after another.
        image_size: (height, width) of the returned images, pixels, at most 4096; None: what the model draws.
        in_channels: Channels of the images, of a model that does not tell.

    Raises:
        ValueError: for an unknown scheduler name, a class instead of an object, a scheduler instead of the
            model, sizes that are not positive, or none of a model that does not tell.
    """

    def __init__(
        self,
        model: Denoiser | None = None,
        scheduler: str | SchedulerCore = "ddim",
        image_size: tuple[int, int] | None = (256, 256),
        in_channels: int = 3,
    ):
        self.in_channels = check_count("in_channels", in_channels, 1)
        self.model: Any = model_of(model, self.in_channels)
        if image_size is None and is_picture_model(self.model):
            image_size = self.model.picture_size
        if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
            raise ValueError(f"image_size must be (height, width) in pixels, got {image_size!r}")

        height = check_count("height", image_size[0], 1, LARGEST_IMAGE)
        width = check_count("width", image_size[1], 1, LARGEST_IMAGE)
        self.image_size = (height, width)
        self.scheduler = scheduler_of(scheduler)
        self._suit_scheduler()
        if self.native_size != self.image_size:
            log.info("images are drawn at %dx%d and resized to %dx%d", *self.native_size, *self.image_size)

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) of the images that the model draws; `image_size` for one that does not tell."""
        return self._drawing.picture_size

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the model is called with: an image, or its latents."""
        return self._drawing.state_shape

    @_alone()
    def generate(
        self,
        batch_size: int = 1,
        num_inference_steps: int | None = None,
        seed: int | None = None,
        return_intermediates: bool = False,
        *,
        prompt: str | Sequence[str] | None = None,
        domain: str | None = None,
        label: str | None = None,
        condition: mx.array | None = None,
        guidance_scale: float | Guidance | None = None,
    ) -> mx.array | tuple[mx.array, list[mx.array]]:
        """Draw images.

        Args:
            batch_size: Images to draw, >= 1.
            num_inference_steps: Steps; None: the timesteps that the scheduler is set to; where it is not set,
                min(50, T) steps.
            seed: In [0, 2^32 - 1]; image i of a seed is always the same. None draws a new seed, which is logged.
            return_intermediates: Also return the clean predictions of every step.
            prompt: What to draw: one text for all images, or B. A model that reads no text draws the domain and the
                label that the text names.
            domain: A domain of the model, e.g. "landscapes". Where nothing names a label, each image has one, drawn by
                its share in the training data; image i of a seed has always the same.
            label: A label of the domain, e.g. "sunrise", without a prompt; "none" for no label.
            condition: (B, ...) conditions for the model instead, e.g. class ids.
            guidance_scale: Weight of classifier-free guidance; 1 is none. Or `Guidance`, e.g.
                `Interval(1.5, -2.5, 0.35)`. None: what the model recommends, else 1.

        Returns:
            (B, H, W, C) float32 in [-1, 1]; with `return_intermediates` also a list with the clean predictions of
            every step, in the same form.

        Raises:
            ValueError: for a batch size, a number of steps or a guidance out of range; for a prompt, domain or label
                beside a condition, for another number of images, or for a model that cannot be told what to draw.
            FloatingPointError: if the model predicts NaN or infinity.
            MachineError: if latents cannot be decoded.
        """
        batch_size = check_count("batch_size", batch_size, 1)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
            log.info("seed %d", seed)

        seed = check_seed("seed", seed)
        self._fit_scheduler()
        model, domain = self._guided(batch_size, seed, prompt, domain, label, condition, guidance_scale)
        chosen = self._chosen if num_inference_steps is None else {"num_inference_steps": num_inference_steps}
        self.scheduler.set_timesteps(**chosen)
        self.scheduler.suit(self._drawing.identity, domain, model.guidance_in_effect)

        keys = image_keys(seed, range(batch_size))
        x_T = normal(keys, self.state_shape)
        predictions: list[mx.array] = []
        with Progress(f"drawing {count(batch_size, 'image')}", len(self.scheduler)) as shown:
            for trace in StandardSampler(self.scheduler).iterate(model, x_T, keys=keys):
                mx.eval(trace.x0)
                if not return_intermediates:
                    predictions.clear()
                predictions.append(trace.x0)
                shown.update()

        pictures = [self._finished(x0) for x0 in predictions]
        return (pictures[-1], pictures) if return_intermediates else pictures[-1]

    @_alone()
    def denoise_image(
        self,
        noisy_image: mx.array,
        timestep: float,
        num_inference_steps: int | None = None,
        *,
        prompt: str | Sequence[str] | None = None,
        domain: str | None = None,
        label: str | None = None,
        condition: mx.array | None = None,
        guidance_scale: float | Guidance | None = None,
    ) -> mx.array:
        """Denoise images that carry the noise of a known timestep.

        Args:
            noisy_image: (B, *state_shape), or `state_shape` for one image: what `add_noise` returns.
            timestep: The timestep of the noise, in [0, T - 1].
            num_inference_steps: Steps from `timestep` down to the clean image; None: 1, the direct prediction.
            prompt: See `generate`, as for the rest.
            domain: See there; the labels are those of seed 0.
            label: See there.
            condition: See there.
            guidance_scale: See there.

        Returns:
            Clean images in [-1, 1] at the model's native size, as many as were given.

        Raises:
            ValueError: for a timestep, steps or images that cannot be used; for the rest see `generate`.
            FloatingPointError: if the model predicts NaN or infinity.
            MachineError: if latents cannot be decoded.
        """
        self._fit_scheduler()
        last, given = self.scheduler.num_train_timesteps - 1, np.asarray(timestep)
        if given.size != 1 or given.dtype.kind not in "iuf" or not 0 <= given.item() <= last:
            raise ValueError(f"timestep must be one number in [0, {last}], got {timestep!r:.80}")

        t, asked = float(given.item()), 1 if num_inference_steps is None else num_inference_steps
        steps = check_count(f"num_inference_steps from timestep {t:g}", asked, 1, int(t) + 1)

        noisy_image = mx.array(noisy_image)
        if noisy_image.shape[-3:] != self.state_shape or noisy_image.ndim not in (3, 4):
            raise ValueError(
                f"noisy_image must be one or a batch of states {self.state_shape}, got {noisy_image.shape}"
            )
        if not mx.issubdtype(noisy_image.dtype, mx.floating):
            raise ValueError(f"noisy_image must be floats, as add_noise returns them, got {noisy_image.dtype}")

        batch = noisy_image if noisy_image.ndim == 4 else noisy_image[None]
        keys = image_keys(0, range(len(batch)))
        model, _ = self._guided(len(batch), 0, prompt, domain, label, condition, guidance_scale)

        before = self._chosen  # `generate` without a number of steps goes on with them
        self.scheduler.set_timesteps(timesteps=t * (1 - np.arange(steps) / steps))
        try:
            x0 = StandardSampler(self.scheduler).run(model, batch, keys=keys).images
        finally:
            self.scheduler.set_timesteps(**before)
        images = mx.clip(decoded(self._drawing, x0), -1, 1)
        return images if noisy_image.ndim == 4 else images[0]

    @_alone()
    def add_noise(self, images: mx.array, timesteps: Any, noise: mx.array | None = None) -> mx.array:
        """Noisy states x_t: images, or latents for a model of latents.

        Args:
            images: (B, H, W, C) images in [-1, 1] at the model's native size, or (H, W, C) for one; uint8 ones are
                scaled.
            timesteps: A scalar, (1,) for all images, or (B,), in [0, T - 1].
            noise: Standard normal, shaped as the states; None: drawn.

        Raises:
            ValueError: for images of other whole numbers than uint8, or timesteps that cannot be used.
        """
        images = mx.array(images)
        if images.dtype == mx.uint8:
            images = mx.array(to_float(np.array(images)))
        if not mx.issubdtype(images.dtype, mx.floating):
            raise ValueError(f"images must be floats in [-1, 1], or uint8, got {images.dtype}")
        states = self._drawing.encode(images) if images.ndim == 4 else self._drawing.encode(images[None])[0]
        noise = mx.random.normal(states.shape) if noise is None else noise
        self._fit_scheduler()
        return self.scheduler.add_noise(states, noise, timesteps)

    def pictures(self, states: mx.array) -> mx.array:
        """(B, *state_shape) clean states -> (B, height, width, C) images of `image_size`, about [-1, 1]."""
        images = decoded(self._drawing, states)
        if self.native_size == self.image_size:
            return images
        return mx.array(resize(np.array(images), self.image_size))

    def _finished(self, states: mx.array) -> mx.array:
        """The same, clipped to [-1, 1]."""
        return mx.clip(self.pictures(states), -1, 1)

    def save_model(self, path: str | Path) -> None:
        """Write the model to a safetensors file.

        Raises:
            ValueError: if the model is not a `SimpleUNet`, or the name of the file does not end in `.safetensors`.
        """
        save_model(path, self.model)

    @_alone()
    def load_model(self, path: str | Path) -> None:
        """Replace the model by one from a safetensors file; a file that does not fit is refused."""
        self.model = load_model(path)
        self._suit_scheduler()

    @_alone()
    def get_scheduler_info(self) -> dict[str, Any]:
        """Scheduler type, settings and timesteps, where these come from, device, and the size of the images."""
        return {
            "scheduler_type": type(self.scheduler).__name__,
            "num_train_timesteps": self.scheduler.config.get("num_train_timesteps"),
            "num_inference_steps": len(self.scheduler),
            "timesteps": [float(t) for t in self.scheduler.timesteps],
            "origin": origin_of(self.scheduler),
            "config": dict(self.scheduler.config),
            "device": str(mx.default_device()),
            "native_size": self.native_size,
            "image_size": self.image_size,
            "resized": self.native_size != self.image_size,
        }

    @property
    def _drawing(self) -> PictureModel:
        """The model, as one that draws images."""
        return (
            self.model if is_picture_model(self.model) else PlainModel(self.model, (*self.image_size, self.in_channels))
        )

    @property
    def _chosen(self) -> dict[str, Any]:
        """What the scheduler's timesteps are chosen by; where none are set, 50 steps, or T if that is less."""
        # a policy keeps no choice, and may have ended the run before: `timesteps` are then fewer than were set
        steps = self.scheduler.num_inference_steps or min(50, self.scheduler.num_train_timesteps)
        return self.scheduler.chosen or {"num_inference_steps": steps}

    @property
    def _facts(self) -> ModelFacts:
        return ModelFacts.of(self._drawing)

    def _guided(
        self,
        batch_size: int,
        seed: int,
        prompt: str | Sequence[str] | None,
        domain: str | None,
        label: str | None,
        condition: mx.array | None,
        guidance_scale: float | Guidance | None,
    ) -> tuple[GuidedModel, str | None]:
        """The model with its guidance and the conditions of a batch, and its domain, if known; see `generate`."""
        by_share = False
        if condition is None:
            condition, domain, by_share = asked_for(self._drawing, batch_size, seed, prompt, domain, label)
        else:
            asked = {"prompt": prompt, "domain": domain, "label": label}
            condition, domain = conditioned_by(self._drawing, batch_size, condition, asked)

        model = self.scheduler.guided(self.model, condition, self._facts.guidance(guidance_scale))
        if guidance_scale is not None and model.guidance_in_effect != model.guidance_scale:
            tells = "; a prompt, domain, label or condition tells it" if self._drawing.conditional else ""
            log.warning("%s%s", without_effect(model.guidance_scale), tells)
        return model.with_condition(model.condition, by_share=by_share), domain

    def _fit_scheduler(self) -> None:
        """Set the scheduler to how the model was trained."""
        self.scheduler.fit(self._drawing)

    @_alone()
    def _suit_scheduler(self) -> None:
        """The same, and its calibration to no domain in particular."""
        self._fit_scheduler()
        self.scheduler.suit(self._drawing.identity, None, self._facts.guidance_scale)
