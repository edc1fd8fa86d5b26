"""NoiseSchedule: alpha, sigma and log-SNR at any timestep, and the conversions between eps, v and x0.

x_t = alpha(t) x0 + sigma(t) eps with alpha^2 + sigma^2 = 1 (variance preserving; Ho et al., 2020; Kingma et al., 2021).
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np

from .checks import check_choice, check_count, check_flag, check_number

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SCHEDULE_ARGUMENTS = (  # of `NoiseSchedule`, by which schedulers and models say what they were trained with
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    "rescale_betas_zero_snr",
)
MOST_TIMESTEPS = 1_000_000  # a table of them is kept
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def _betas(beta_schedule: str, T: int, beta_start: float, beta_end: float) -> np.ndarray:
    """(T,) float64 betas of the named schedule."""
    if beta_schedule == "linear":  # Ho et al., 2020
        return np.linspace(beta_start, beta_end, T)
    if beta_schedule == "scaled_linear":  # latent diffusion: linear in sqrt(beta)
        return np.linspace(beta_start**0.5, beta_end**0.5, T) ** 2
    # squaredcos_cap_v2: Nichol & Dhariwal, 2021, eq. 17
    u = np.arange(T + 1) / T
    alpha_bar = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def _zero_terminal_snr(alphas_cumprod: np.ndarray) -> np.ndarray:
    """Shift and scale sqrt(alpha_bar) so that it ends at zero and begins as before (Lin et al., 2024, algorithm 1).

    The end is 2^-24 instead of zero, the smallest positive float16: its log-SNR stays finite, and its alpha, 0.0002,
    is no signal. (diffusers has the same floor in DPM-Solver++, and zero in DDIM and DDPM.) Timesteps before it have at
    least twice, three times ... as much, so that the signal falls to the end.
    """
    root = np.sqrt(alphas_cumprod)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return np.maximum(root**2, 2.0**-24 * np.arange(len(root), 0, -1))


def x0_from(prediction: mx.array, x_t: mx.array, alpha: Any, sigma: Any, prediction_type: str) -> mx.array:
    """The clean image that a prediction of the given type implies at x_t; alpha and sigma scalars or (B, 1, ...)."""
    if prediction_type == "epsilon":
        return (x_t - sigma * prediction) / alpha
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * prediction
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    return prediction


def eps_from(prediction: mx.array, x_t: mx.array, alpha: Any, sigma: Any, prediction_type: str) -> mx.array:
    """The noise that a prediction of the given type implies at x_t; alpha and sigma scalars or (B, 1, ...)."""
    if prediction_type == "sample":
        return (x_t - alpha * prediction) / sigma
    if prediction_type == "v_prediction":
        return alpha * prediction + sigma * x_t
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    return prediction


class NoiseSchedule:
    """The forward process at real-valued timesteps.

    log-SNR lambda = log(alpha / sigma) is known at the T integer timesteps and linear in between, so that alpha and
    sigma are exact at the integers and t <-> lambda is a bijection. Arithmetic is float64 on the host.

    Args:
        num_train_timesteps: T, number of training timesteps, >= 2.
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in (0, 1), >= `beta_start`.
        beta_schedule: `linear`, `scaled_linear` or `squaredcos_cap_v2` (which ignores the two betas).
        trained_betas: (T,) betas in (0, 1) that replace the named schedule.
        rescale_betas_zero_snr: Rescale to (practically) no signal at T - 1; for models trained that way.

    Attributes:
        config: The arguments by name.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Any = None,
        rescale_betas_zero_snr: bool = False,
    ):
        T = self.num_train_timesteps = check_count("num_train_timesteps", num_train_timesteps, 2, MOST_TIMESTEPS)
        check_choice("beta_schedule", beta_schedule, BETA_SCHEDULES)
        if not 0 < check_number("beta_start", beta_start) <= check_number("beta_end", beta_end) < 1:
            raise ValueError(f"betas must satisfy 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}")

        if trained_betas is None:
            betas = _betas(beta_schedule, T, beta_start, beta_end)
        else:
            betas = np.asarray(trained_betas, np.float64)

        if betas.shape != (T,) or not np.all((betas > 0) & (betas < 1)):
            raise ValueError(f"trained_betas must be {T} numbers between 0 and 1, got {trained_betas!r:.80}")

        self.alphas_cumprod = np.cumprod(1 - betas)
        first, last = self.alphas_cumprod[[0, -1]]
        if not np.all(np.diff(self.alphas_cumprod, prepend=1) < 0) or last < np.finfo(np.float32).tiny:
            raise ValueError(
                "the betas must add noise at every timestep, and leave something of an image at the last one; here "
                f"alpha^2 goes from {first:.6g} to {last:.2g}: give others, or another number of timesteps"
            )

        if check_flag("rescale_betas_zero_snr", rescale_betas_zero_snr):
            self.alphas_cumprod = _zero_terminal_snr(self.alphas_cumprod)
        self._lambdas = 0.5 * (np.log(self.alphas_cumprod) - np.log1p(-self.alphas_cumprod))
        self.config = {  # JSON types
            "num_train_timesteps": T,
            "beta_start": float(beta_start),
            "beta_end": float(beta_end),
            "beta_schedule": beta_schedule,
            "trained_betas": trained_betas if trained_betas is None else np.asarray(trained_betas).tolist(),
            "rescale_betas_zero_snr": rescale_betas_zero_snr,
        }

    def log_snr(self, t: Any) -> np.ndarray:
        """lambda(t) = log(alpha / sigma); `t` in [0, T - 1], any shape."""
        return np.interp(t, np.arange(self.num_train_timesteps), self._lambdas)

    def timestep(self, log_snr: Any) -> np.ndarray:
        """The inverse of `log_snr`: the real-valued t in [0, T - 1], clipped at both ends."""
        return np.interp(-np.asarray(log_snr), -self._lambdas, np.arange(self.num_train_timesteps))

    def alpha(self, t: Any) -> np.ndarray:
        """Signal scale, sqrt(sigmoid(2 lambda))."""
        return np.exp(-0.5 * np.logaddexp(0.0, -2 * self.log_snr(t)))

    def sigma(self, t: Any) -> np.ndarray:
        """Noise scale, sqrt(1 - alpha^2)."""
        return np.exp(-0.5 * np.logaddexp(0.0, 2 * self.log_snr(t)))

    def add_noise(self, x0: mx.array, noise: mx.array, t: Any) -> mx.array:
        """x_t = alpha(t) x0 + sigma(t) noise, `t` a scalar, (1,) for all images, or one timestep per image, (B,).

        Raises:
            ValueError: for images of whole numbers, e.g. uint8, which are no states in [-1, 1].
        """
        if "int" in str(x0.dtype):
            raise ValueError(f"images must be floats in [-1, 1], got {x0.dtype}; divide by 127.5 and subtract 1")
        x0, noise = mx.array(x0), mx.array(noise)
        alpha, sigma = self._scales(t, x0)
        return alpha * x0 + sigma * noise

    def velocity(self, x0: mx.array, noise: mx.array, t: Any) -> mx.array:
        """v = alpha noise - sigma x0 (Salimans & Ho, 2022)."""
        alpha, sigma = self._scales(t, x0)
        return alpha * noise - sigma * x0

    def _scales(self, t: Any, like: mx.array) -> tuple[Any, Any]:
        """alpha and sigma as scalars, or as (B, 1, ..., 1) arrays when there is one timestep per image."""
        t = np.asarray(t, np.float64)
        if t.shape == (1,):
            t = t[0]
        if not np.all((t >= 0) & (t <= self.num_train_timesteps - 1)):
            raise ValueError(f"timesteps must lie in [0, {self.num_train_timesteps - 1}], got {t!s:.80}")

        alpha, sigma = self.alpha(t), self.sigma(t)
        if t.ndim == 0:
            return float(alpha), float(sigma)
        if t.shape != like.shape[:1]:
            raise ValueError(f"timesteps must be a scalar or one per image ({like.shape[0]}), got shape {t.shape}")

        shape = t.shape + (1,) * (like.ndim - 1)
        return mx.array(alpha.reshape(shape), dtype=like.dtype), mx.array(sigma.reshape(shape), dtype=like.dtype)
