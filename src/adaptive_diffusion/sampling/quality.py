"""How good an image already is, told from the run that draws it: no model evaluation, no reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.arrays import rms
from ..diffusion.checks import check_number
from ..errors import UnusableFile
from ..io.checksums import KEY, check, with_checksum
from ..io.files import ASSETS, read_json, stamp, write_json
from ..solvers.stride import kept_within

SHIPPED = ASSETS / "quality.json"
FORMAT = "adaptive-diffusion/quality/2"
HALF = 0.12  # visible error at which quality is one half: 15 of 255 grey levels
CONTRAST = 0.4  # of ordinary images: the standard deviation over their pixels, each channel about its mean
_TINY = 1e-5

# What the regression sees of an image at a step. Of the step: z = log(sigma / alpha) where the model was evaluated,
# and h, how far z came since the evaluation before. Of the image: c = log RMS(D - D_prev), D the clean prediction.
OF_THE_STEP = ("level", "level^2", "level^3", "step", "step level", "log step")  # z, z^2, z^3, h, h z, log h
OF_THE_PICTURE = ("change", "change level")  # c, c z
FEATURES = (*OF_THE_STEP, *OF_THE_PICTURE)
STILL = ("contrast", "gradient")  # of an image without a history: logs of its standard deviation and of its gradients


@dataclass(frozen=True)
class QualityCalibration:
    """A regression of log RMSE to the converged solution, and what it was measured on.

    Attributes:
        model: Identity of the model.
        weights: `constant`, and one for each of `FEATURES`.
        still: `constant`, and one for each of `STILL`: for an image whose history is not known.
        curve: Number of steps -> mean RMSE of the quadratic grid's images to the converged solution.
        measured: Provenance, JSON types: the command, domains, seeds, images, numbers of steps.

    Raises:
        ValueError: if a weight is missing or too much.
    """

    model: str
    weights: Mapping[str, float]
    still: Mapping[str, float]
    curve: Mapping[int, float]
    measured: Mapping[str, Any]

    def __post_init__(self) -> None:
        for weights, names in ((self.weights, FEATURES), (self.still, STILL)):
            if set(weights) != {"constant", *names}:
                raise ValueError(f"a calibration of quality has weights for {', '.join(('constant', *names))}")


@dataclass(frozen=True)
class Observation:
    """What a step shows of a batch.

    Attributes:
        picture: (B, H, W, C) a better guess of the clean image than the prediction, see `QualityEstimator`.
        still: (B, 2) `STILL` of the clean prediction.
        features: (B, F) in the order of `FEATURES`; None at the first step, which has nothing to compare with.
    """

    picture: mx.array
    still: mx.array
    features: mx.array | None


class QualityEstimator:
    """Estimates how far the clean prediction of each image of a run still is from where the model's ODE leads.

    A linear regression gives the logarithm of its RMSE to the converged solution from three numbers: the noise level,
    the size of the step to it, and how much the step changed the clean prediction. How well it ranks images, and what
    else was tried: see docs/notes/tried.md.

    The same error shows more in a flat image: the perceptual distance to the converged solution goes with
    RMSE / contrast^(1/3). So quality is 1 / (1 + e / 0.12), with the visible error
    e = RMSE (0.4 / contrast)^(1/3), which is the RMSE where the contrast is ordinary.

    It also extrapolates. Along the ODE of Gaussian data with variance v, the clean prediction D moves as
    1 / sqrt(v + s^2), s = sigma / alpha: an even function of the noise level. So the line through the two latest
    predictions in s^2, read at s = 0, is a better image than the latest prediction:

        P = D + (D - D_prev) s^2 / (s_prev^2 - s^2)

    After the last step what is left is the solver's own error, which the regression does not see: it is pessimistic
    where few steps were calibrated.

    The regression was measured on the model that ships with the project. For another model it says which of two
    images is further on, but its scale is that of the shipped one until it is calibrated.

    Args:
        calibration: The regression, or a file that `python -m benchmarks quality --write` made; None: the
            shipped one.

    Raises:
        UnusableFile: if the file is missing or damaged.
    """

    def __init__(self, calibration: QualityCalibration | str | Path | None = None):
        if not isinstance(calibration, QualityCalibration):
            calibration = load_calibration(SHIPPED if calibration is None else Path(calibration))
        self.calibration = calibration

    def observe(
        self, level: float, x0: mx.array, previous: tuple[float, mx.array] | None = None, last: bool = False
    ) -> Observation:
        """What a step shows beside the one before.

        Args:
            level: sigma / alpha where the model was evaluated, > 0, smaller than at the step before.
            x0: (B, H, W, C) clean predictions there; after the last step the images it led to.
            previous: The same of the step before; None: there was none.
            last: Whether it was the last step, so that nothing is to be extrapolated.
        """
        still = still_features(x0)
        if previous is None:
            return Observation(x0, still, None)

        level_prev, x0_prev = previous
        change = x0 - x0_prev
        picture = x0 if last else extrapolate(x0, change, level, level_prev)
        z, h, c = np.log(level), np.log(level_prev / level), mx.log(rms(change).reshape(-1) + _TINY)
        known = [mx.full(c.shape, float(value)) for value in (z, z**2, z**3, h, h * z, np.log(h))]
        return Observation(picture, still, mx.stack([*known, c, c * float(z)], axis=-1))

    def quality(self, observation: Observation) -> np.ndarray:
        """(B,) float64 quality of each image of an observation, in [0, 1]; 0 at the first step."""
        if observation.features is None:
            return np.zeros(len(observation.picture))
        mx.eval(observation.features, observation.still)
        error = predict_error(self.calibration.weights, FEATURES, np.array(observation.features))
        return quality_of(error * visibility(np.array(observation.still)))

    def still_quality(self, pictures: mx.array) -> np.ndarray:
        """(B,) float64 quality of images without a history, in [0, 1]: from contrast and gradients alone.

        A poor guide, since what makes one image soft makes another one right.

        Args:
            pictures: (B, H, W, C) clean images, about [-1, 1], at least 2x2 pixels.
        """
        still = np.array(still_features(pictures))
        return quality_of(predict_error(self.calibration.still, STILL, still) * visibility(still))


def extrapolate(x0: mx.array, change: mx.array, level: float, level_prev: float) -> mx.array:
    """The line through two clean predictions in s^2, read at s = 0, and kept in [-1, 1] where `x0` is.

    Args:
        x0: (B, H, W, C) the latest prediction.
        change: (B, H, W, C) its difference from the one before.
        level: s = sigma / alpha of the latest.
        level_prev: s of the one before, larger.
    """
    return kept_within(x0 + change * (level**2 / (level_prev**2 - level**2)), x0)


def visibility(still: np.ndarray) -> np.ndarray:
    """(B, 2) `STILL` -> (B,) what an RMSE is to be multiplied by to be the visible error."""
    return np.asarray(np.exp((np.log(CONTRAST) - still[:, 0].astype(np.float64)) / 3))


def quality_of(error: np.ndarray) -> np.ndarray:
    """Visible error, >= 0, as quality in [0, 1]."""
    return np.asarray(1 / (1 + np.asarray(error, np.float64) / HALF))


def error_of(quality: float) -> float:
    """The visible error that a quality in (0, 1] stands for."""
    return HALF * (1 / check_number("quality", quality, 0, 1, above=True) - 1)


def predict_error(weights: Mapping[str, float], names: Sequence[str], features: np.ndarray) -> np.ndarray:
    """(..., F) features -> (...) RMSE."""
    slopes = np.array([weights[name] for name in names])
    return np.asarray(np.exp(np.clip(features.astype(np.float64) @ slopes + weights["constant"], -30, 5)))


def load_calibration(path: Path) -> QualityCalibration:
    """Read what `save_calibration` wrote; once, as long as the file is the same.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind.
    """
    return _loaded(path, stamp(path))


@cache
def _loaded(path: Path, _: tuple[int, ...]) -> QualityCalibration:
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise UnusableFile(f"{path} is no calibration of quality (format {FORMAT!r})")
    check(path, content)

    rest = {name: value for name, value in content.items() if name not in ("format", "curve", KEY)}
    try:
        curve = {int(n): float(error) for n, error in content["curve"].items()}
        return QualityCalibration(curve=curve, **rest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{path} is damaged ({error}); make it again") from error


def save_calibration(path: str | Path, calibration: QualityCalibration) -> None:
    """Write a calibration atomically, as JSON."""
    write_json(path, with_checksum(content_of(calibration)))


def content_of(calibration: QualityCalibration) -> dict[str, Any]:
    """A calibration in JSON types."""
    content = {"format": FORMAT, **asdict(calibration)}
    return {**content, "curve": {str(n): error for n, error in calibration.curve.items()}}


def still_features(x: mx.array) -> mx.array:
    """(B, 2) `STILL` of images (B, H, W, C); about a grey level is added to keep the logarithms finite."""
    contrast = mx.mean(mx.std(x, axis=(1, 2)), axis=-1)
    dy, dx = x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]
    gradient = mx.sqrt(mx.mean(dy * dy, axis=(1, 2, 3)) + mx.mean(dx * dx, axis=(1, 2, 3)))
    return mx.stack([mx.log(contrast + 0.01), mx.log(gradient + 0.005)], axis=-1)
