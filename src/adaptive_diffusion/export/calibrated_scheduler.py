"""A scheduler of diffusers that takes calibrated timesteps, each step with weights of its own.

This file stands alone: copy it beside a program of yours. It needs NumPy, PyTorch and diffusers, and reads the
`scheduler_config.json` that was written beside it:

    scheduler = CalibratedScheduler.from_pretrained("FOLDER")
    pipeline = DiffusionPipeline.from_pretrained("MODEL", scheduler=scheduler)
    image = pipeline("a mountain lake at dawn", num_inference_steps=8).images[0]

Timesteps and weights were calibrated for one model at one guidance, which `scheduler.config.calibrated_for` names. It
was made by Adaptive Diffusion Optimizer (MIT licence).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class CalibratedScheduler(SchedulerMixin, ConfigMixin):
    """Draws with calibrated timesteps and multistep weights.

    In xh = x / alpha, step i leads to w_0 xh + w_1 D_0 + w_2 D_1 + ..., with row i of the weights and D_j the clean
    prediction j steps ago. An image whose step differs too much from first order takes that step instead. Where there
    are no weights, a step is one of DPM-Solver++(2M) (Lu et al., 2022b): on timesteps that are resampled from the
    nearest calibrated number of steps, and in a run that begins in the middle, as image-to-image does.

    Args:
        num_train_timesteps: T, timesteps the model was trained with.
        beta_start: First beta.
        beta_end: Last beta.
        beta_schedule: `linear`, `scaled_linear` or `squaredcos_cap_v2`.
        trained_betas: (T,) betas that replace the named schedule.
        rescale_betas_zero_snr: Whether the model was trained with (practically) no signal at T - 1.
        prediction_type: What the model predicts: `epsilon`, `v_prediction` or `sample`.
        clip_sample: Clip clean predictions to +-`clip_sample_range`; for models in pixel space.
        clip_sample_range: > 0.
        adaptive_threshold: Relative difference above which a step is taken at first order, in [0, 1].
        calibrated_steps: Number of steps n -> `timesteps`, (n,) decreasing, and `weights`, (n, K + 1) or None.
        calibrated_for: Model, domain and guidance, for the reader.

    Attributes:
        timesteps: (n,) float32, real-valued.

    Raises:
        ValueError: without calibrated steps, or for a value that is unknown.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        prediction_type: str = "epsilon",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        adaptive_threshold: float = 0.5,
        calibrated_steps: Mapping[str, Any] | None = None,
        calibrated_for: Mapping[str, Any] | None = None,
    ) -> None:
        if not calibrated_steps:
            raise ValueError(
                "there are no calibrated_steps; read them with CalibratedScheduler.from_pretrained, from the folder "
                "that adaptive-diffusion export wrote"
            )
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {prediction_type!r}")

        betas = _betas(beta_schedule, num_train_timesteps, beta_start, beta_end)
        alphas_cumprod = np.cumprod(1 - (betas if trained_betas is None else np.asarray(trained_betas, np.float64)))
        if rescale_betas_zero_snr:
            alphas_cumprod = _zero_terminal_snr(alphas_cumprod)
        self._log_snrs = 0.5 * (np.log(alphas_cumprod) - np.log1p(-alphas_cumprod))

        self._known = {int(n): found for n, found in calibrated_steps.items()}
        self.num_inference_steps: int | None = None
        self.timesteps = torch.empty(0)
        self._x0s: list[torch.Tensor] = []  # latest clean predictions, newest first
        self._next = 0  # index of the timestep that is due
        self._begin(np.empty(0), None)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Begin a run.

        Args:
            num_inference_steps: n in [1, T]; one that was not calibrated has timesteps resampled from the nearest.
            device: Where the timesteps are needed.

        Raises:
            ValueError: for a number out of range.
        """
        n, T = int(num_inference_steps), self.config.num_train_timesteps
        if not 1 <= n <= T:
            raise ValueError(f"num_inference_steps must be a whole number, between 1 and {T}, got {n}")

        nearest = min(self._known, key=lambda known: (max(known, n) / min(known, n), -known))
        found = self._known[nearest]
        timesteps = np.array(found["timesteps"], np.float64)
        exact = nearest == n
        self._begin(timesteps if exact else _resampled(timesteps, n), found["weights"] if exact else None)

        self.num_inference_steps = n
        self.timesteps = torch.tensor(self._t, dtype=torch.float32, device=device)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """What the model is fed: the sample as it is."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """Advance from one timestep to the next, in float32.

        Args:
            model_output: (B, C, H, W) prediction of the model at `sample`, with its guidance.
            timestep: An element of `timesteps`. Another one than is due begins anew there.
            sample: (B, C, H, W) x_t.
            generator: Not needed: the step is deterministic.
            return_dict: Whether to return a `SchedulerOutput`, or else a tuple.

        Returns:
            (B, C, H, W) the next sample, of the dtype of `sample`.

        Raises:
            ValueError: for a timestep that is none of this run.
        """
        index = self._index(float(timestep))
        if index != self._next:
            self._x0s, self._weighted = [], index == 0

        x = sample.float()
        x0 = self._limited(self._clean(model_output.float(), x, self._alphas[index], self._sigmas[index]))
        previous, self._x0s = self._x0s[:1], [x0, *self._x0s]

        weights = self._weights_of(index)
        then = self._combined(weights, x, index)
        if previous and len(weights) > 2:
            then = self._checked(then, previous[0], x, index)

        self._x0s = self._x0s[: 1 if self._rows is None or not self._weighted else len(self._rows[0]) - 2]
        self._next = index + 1
        then = then.to(sample.dtype)
        return SchedulerOutput(prev_sample=then) if return_dict else (then,)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = alpha x0 + sigma noise, at one timestep for all images or (B,) of them, real-valued, in [0, T - 1]."""
        alpha, sigma = self._scales(timesteps.detach().cpu().double().numpy().reshape(-1))
        shape = (-1, *[1] * (original_samples.ndim - 1))
        alpha_t = torch.from_numpy(alpha).reshape(shape).float().to(original_samples)
        sigma_t = torch.from_numpy(sigma).reshape(shape).float().to(original_samples)
        return alpha_t * original_samples + sigma_t * noise

    def __len__(self) -> int:
        """T, as of all schedulers of diffusers."""
        return int(self.config.num_train_timesteps)

    def _begin(self, timesteps: np.ndarray, rows: list[list[float]] | None) -> None:
        """Take timesteps and weights, and forget the run before."""
        alpha, sigma = self._scales(timesteps)
        self._t, self._rows = timesteps, rows
        self._alphas, self._sigmas = [*alpha.tolist(), 1.0], [*sigma.tolist(), 0.0]  # the last step leads to the image
        self._levels = [sigma / alpha for alpha, sigma in zip(self._alphas, self._sigmas, strict=True)]
        self._x0s, self._next, self._weighted = [], 0, True  # weighted: the run began at the first timestep

    def _scales(self, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma; the log-SNR is linear between whole timesteps."""
        log_snr = np.interp(timesteps, np.arange(len(self._log_snrs)), self._log_snrs)
        return np.exp(-0.5 * np.logaddexp(0.0, -2 * log_snr)), np.exp(-0.5 * np.logaddexp(0.0, 2 * log_snr))

    def _index(self, timestep: float) -> int:
        """Which of the timesteps this is."""
        if not len(self._t):
            raise ValueError("the scheduler has no timesteps yet: call set_timesteps first")
        distances = np.abs(self._t - timestep)
        index = int(distances.argmin())
        if not distances[index] <= 1e-3:  # timesteps pass through float32
            raise ValueError(
                f"timestep {timestep:g} is not one of the {len(self._t)} timesteps from {self._t[0]:g} to "
                f"{self._t[-1]:g}: pass an element of scheduler.timesteps"
            )
        return index

    def _clean(self, output: torch.Tensor, x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
        """The clean images that a prediction implies."""
        if self.config.prediction_type == "epsilon":
            return (x - sigma * output) / alpha
        return alpha * x - sigma * output if self.config.prediction_type == "v_prediction" else output

    def _limited(self, x0: torch.Tensor) -> torch.Tensor:
        """Clean images in the range of the data."""
        bound = self.config.clip_sample_range
        return x0.clamp(-bound, bound) if self.config.clip_sample else x0

    def _weights_of(self, index: int) -> list[float]:
        """Weights of x / alpha and of the latest clean predictions: calibrated ones, or those of DPM-Solver++(2M)."""
        there = len(self._x0s)
        if self._rows is not None and self._weighted:
            return list(self._rows[index][: there + 1])

        now, then = self._levels[index], self._levels[index + 1]
        ratio = then / now
        if there == 1 or then == 0:
            return [ratio, 1 - ratio]
        slope = (1 - ratio) * math.log(now / then) / (2 * math.log(self._levels[index - 1] / now))
        return [ratio, 1 - ratio + slope, -slope]

    def _combined(self, weights: list[float], x: torch.Tensor, index: int) -> torch.Tensor:
        """The images that a step with some weights leads to."""
        alpha, then = self._alphas[index], self._alphas[index + 1]
        mean = (then / alpha * weights[0]) * x
        for weight, x0 in zip(weights[1:], self._x0s, strict=False):
            mean = mean + (then * weight) * x0
        return self._limited(mean) if self._sigmas[index + 1] == 0 else mean

    def _checked(self, then: torch.Tensor, before: torch.Tensor, x: torch.Tensor, index: int) -> torch.Tensor:
        """The step, but for images where it differs too much from the one of first order that it contains."""
        ratio = self._levels[index + 1] / self._levels[index]
        first = self._combined([ratio, 1 - ratio], x, index)
        scale = self._alphas[index + 1] * (_rms(self._x0s[0]) + _rms(before)) + self._sigmas[index + 1] + 1e-12
        return torch.where(_rms(then - first) / scale > self.config.adaptive_threshold, first, then)


def _betas(beta_schedule: str, T: int, beta_start: float, beta_end: float) -> np.ndarray:
    """(T,) betas of the named schedule."""
    if beta_schedule == "linear":
        return np.linspace(beta_start, beta_end, T)
    if beta_schedule == "scaled_linear":
        return np.linspace(beta_start**0.5, beta_end**0.5, T) ** 2
    if beta_schedule == "squaredcos_cap_v2":
        alpha_bar = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    raise ValueError(f"beta_schedule must be linear, scaled_linear or squaredcos_cap_v2, got {beta_schedule!r}")


def _zero_terminal_snr(alphas_cumprod: np.ndarray) -> np.ndarray:
    """Shifted and scaled to end at no signal (Lin et al., 2024, algorithm 1), but for 2^-24, which keeps it falling."""
    root = np.sqrt(alphas_cumprod)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return np.maximum(root**2, 2.0**-24 * np.arange(len(root), 0, -1))


def _resampled(timesteps: np.ndarray, n: int) -> np.ndarray:
    """(n,) timesteps spaced like others: their sqrt(t), as a function of the share of steps taken, read at n shares."""
    if timesteps[-1] == 0:
        knots, shares = timesteps, np.linspace(0, 1, n)
    else:
        knots, shares = np.append(timesteps, 0.0), np.arange(n) / n
    root = np.interp(shares, np.linspace(0, 1, len(knots)), np.sqrt(knots))
    return np.append(timesteps[0], root[1:] ** 2)


def _rms(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, ..., 1) root mean square of each image."""
    return x.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True).sqrt()
