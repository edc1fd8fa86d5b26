"""DiffusionPipeline: a model and a scheduler, and pictures out of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..data import resize
from ..models.checkpoint import load_builtin_model, load_model, save_model
from ..models.guidance import GuidedDenoiser
from ..models.unet import SimpleUNet, UNetConfig
from ..rng import image_keys, normal
from ..types import Denoiser, Scheduler
from .checks import check_count
from .scheduler_config import ConfigMixin
from .schedulers import DDIMScheduler, DDPMScheduler, DPMSolverScheduler

log = logging.getLogger(__name__)

SCHEDULERS: dict[str, Any] = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpm-solver": DPMSolverScheduler}


class DiffusionPipeline:
    """Draws pictures with a denoiser and a scheduler.

    Without a model it uses the trained one that ships with the project, which draws at 32x32; a larger `image_size`
    is reached by antialiased resizing. With channels other than 3 it builds an untrained `SimpleUNet` and warns.

    Args:
        model: A denoiser; a `SimpleUNet` file tells its prediction type and noise schedule. None: see above.
        scheduler: `ddpm`, `ddim`, `dpm-solver`, or a scheduler object. A name is built with trailing timesteps and
            clipping to [-1, 1]. A prediction type or noise schedule that is not the model's is set to the model's.
        image_size: (height, width) of the returned pictures, pixels.
        in_channels: Channels of the pictures.

    Raises:
        ValueError: for an unknown scheduler name, or sizes that are not positive.
    """

    def __init__(
        self,
        model: Denoiser | None = None,
        scheduler: str | Scheduler = "ddim",
        image_size: tuple[int, int] = (256, 256),
        in_channels: int = 3,
    ):
        if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
            raise ValueError(f"image_size must be (height, width) in pixels, got {image_size!r}")
        self.image_size = (check_count("height", image_size[0], 1), check_count("width", image_size[1], 1))
        self.in_channels = check_count("in_channels", in_channels, 1)
        self.model: Any = model if model is not None else self._default_model(in_channels)
        self.scheduler: Scheduler = _build_scheduler(scheduler) if isinstance(scheduler, str) else scheduler
        self._fit_scheduler()
        if self.native_size != self.image_size:
            log.info("pictures are drawn at %dx%d and resized to %dx%d", *self.native_size, *self.image_size)

    @staticmethod
    def _default_model(in_channels: int) -> SimpleUNet:
        if in_channels == 3:
            return load_builtin_model()
        log.warning(
            "no trained model for %d channels ships with the project: this SimpleUNet is untrained and draws noise; "
            "train one with train.py task=model",
            in_channels,
        )
        return SimpleUNet(UNetConfig(in_channels=in_channels))

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) the model works at; `image_size` for a model that does not tell."""
        if isinstance(self.model, SimpleUNet):
            return self.model.config.image_size, self.model.config.image_size
        return self.image_size

    def generate(
        self,
        batch_size: int = 1,
        num_inference_steps: int | None = None,
        seed: int | None = None,
        return_intermediates: bool = False,
        *,
        condition: mx.array | None = None,
        guidance_scale: float = 1.0,
    ) -> mx.array | tuple[mx.array, list[mx.array]]:
        """Draw pictures.

        Args:
            batch_size: Pictures to draw, >= 1.
            num_inference_steps: Steps; None: as the scheduler is set, or 50.
            seed: Picture i of a seed is always the same; None draws a new seed, which is logged.
            return_intermediates: Also return the clean predictions of every step.
            condition: (B, ...) conditions for the model, e.g. class ids.
            guidance_scale: Weight of classifier-free guidance; 1 is none.

        Returns:
            (B, H, W, C) float32 in [-1, 1]; with `return_intermediates` also a list of such arrays, one per step, at
            the model's native size.

        Raises:
            ValueError: for a batch size or a number of steps out of range.
        """
        from ..sampling.standard import StandardSampler  # the sampling package sits above this one

        batch_size = check_count("batch_size", batch_size, 1)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
            log.info("seed %d", seed)
        seed = check_count("seed", seed, 0)
        if num_inference_steps is None:
            num_inference_steps = len(self.scheduler) or 50
        self.scheduler.set_timesteps(num_inference_steps)
        keys = image_keys(seed, range(batch_size))
        x_T = normal(keys, (*self.native_size, self.in_channels))
        denoiser = GuidedDenoiser(self.model, guidance_scale)
        intermediates = []
        for trace in StandardSampler(self.scheduler).iterate(denoiser, x_T, condition=condition, keys=keys):
            mx.eval(trace.x0)
            intermediates.append(trace.x0)
        images = mx.clip(self._resize(intermediates[-1]), -1, 1)
        return (images, intermediates) if return_intermediates else images

    def denoise_image(self, noisy_image: mx.array, timestep: float, num_inference_steps: int | None = None) -> mx.array:
        """Denoise pictures that carry the noise of a known timestep.

        Args:
            noisy_image: (B, H, W, C), or (H, W, C) for one picture, at the model's native size.
            timestep: The timestep of the noise, in [0, T - 1].
            num_inference_steps: Steps from `timestep` down to the clean picture; None: 1, the direct prediction.

        Returns:
            Clean predictions in [-1, 1], shaped as the input.
        """
        from ..sampling.standard import StandardSampler

        T = self.scheduler.config["num_train_timesteps"]
        if not 0 <= timestep <= T - 1:
            raise ValueError(f"timestep must lie in [0, {T - 1}], got {timestep}")
        steps = 1 if num_inference_steps is None else num_inference_steps
        if not 1 <= steps <= timestep + 1:
            raise ValueError(
                f"num_inference_steps from timestep {timestep} must lie in [1, {timestep + 1}], got {steps}"
            )
        batch = noisy_image if noisy_image.ndim == 4 else noisy_image[None]
        self.scheduler.set_timesteps(timesteps=timestep * (1 - np.arange(steps) / steps))
        keys = image_keys(0, range(len(batch)))
        x0 = StandardSampler(self.scheduler).run(self.model, batch, keys=keys).images
        return mx.clip(x0 if noisy_image.ndim == 4 else x0[0], -1, 1)

    def add_noise(self, images: mx.array, timesteps: Any, noise: mx.array | None = None) -> mx.array:
        """Noisy pictures x_t; `timesteps` is a scalar or (B,), `noise` standard normal (drawn when None)."""
        noise = mx.random.normal(images.shape) if noise is None else noise
        return self.scheduler.add_noise(images, noise, timesteps)

    def save_model(self, path: str | Path) -> None:
        """Write the model to a safetensors file.

        Raises:
            TypeError: if the model is not a `SimpleUNet`.
        """
        if not isinstance(self.model, SimpleUNet):
            raise TypeError(f"only a SimpleUNet can be saved, this pipeline has a {type(self.model).__name__}")
        save_model(path, self.model)

    def load_model(self, path: str | Path) -> None:
        """Replace the model by one from a safetensors file; a file that does not fit is refused."""
        self.model = load_model(path)
        self._fit_scheduler()

    def get_scheduler_info(self) -> dict[str, Any]:
        """Scheduler type and settings, device, and the size at which pictures are drawn."""
        return {
            "scheduler_type": type(self.scheduler).__name__,
            "num_inference_steps": len(self.scheduler),
            "timesteps": [float(t) for t in self.scheduler.timesteps],
            "config": dict(self.scheduler.config),
            "device": str(mx.default_device()),
            "native_size": self.native_size,
            "image_size": self.image_size,
            "resized": self.native_size != self.image_size,
        }

    def _fit_scheduler(self) -> None:
        """Set the scheduler to the prediction type and the noise schedule that the model was trained with."""
        if not isinstance(self.model, SimpleUNet) or not isinstance(self.scheduler, ConfigMixin):
            return
        known = self.model.metadata
        trained = {k: known[k] for k in ("prediction_type",) if k in known} | known.get("noise_schedule", {})
        wrong = {k: v for k, v in trained.items() if k in self.scheduler.config and self.scheduler.config[k] != v}
        if wrong:
            log.info("the scheduler was set to what the model was trained with: %s", wrong)
            self.scheduler.reconfigure(**wrong)

    def _resize(self, images: mx.array) -> mx.array:
        if self.native_size == self.image_size:
            return images
        return mx.array(resize(np.array(images), self.image_size))


def _build_scheduler(name: str) -> Scheduler:
    """A scheduler by name: it begins where the noise is, which few steps need, and clips."""
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)} or a scheduler object, got {name!r}")
    scheduler: Scheduler = SCHEDULERS[name](timestep_spacing="trailing", clip_sample=True)
    return scheduler
