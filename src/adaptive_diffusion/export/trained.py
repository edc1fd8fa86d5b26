"""What an exported schedule has to know of the model: its noise process, what it predicts, and whether to clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..diffusion.facts import ModelFacts
from ..diffusion.schedule import NoiseSchedule
from ..errors import UnusableFile
from ..models.checkpoint import load_builtin_model, load_model
from ..models.diffusers.trained_noise import read_trained_noise


@dataclass(frozen=True, eq=False)
class Trained:
    """How a model was trained.

    Attributes:
        process: Its noise process.
        prediction_type: `epsilon`, `v_prediction` or `sample`.
        bounded: Whether its states are images in [-1, 1], not latents.
        identity: Content hash; None where only the configuration was read.
    """

    process: NoiseSchedule
    prediction_type: str
    bounded: bool
    identity: str | None = None

    @classmethod
    def of(cls, path: Path | None) -> Trained:
        """Read what a model says of itself.

        Args:
            path: A checkpoint, or the folder of a pipeline in the layout of diffusers, of which only the small files
                are read; None: the shipped model.

        Raises:
            UnusableFile: if there is no such model, or it does not say what it predicts.
        """
        if path is not None and path.is_dir():
            noise = read_trained_noise(path)
            bounded = not (path / "vae").is_dir()
            return cls(NoiseSchedule(**noise["noise_schedule"]), noise["prediction_type"], bounded)

        if path is not None and not path.exists():
            raise UnusableFile(f"there is no model at {path}; give a checkpoint or the folder of a pipeline")
        model = load_builtin_model() if path is None else load_model(path)
        facts = ModelFacts.of(model)
        if facts.prediction_type is None:
            raise UnusableFile(f"{path} does not say what the model predicts, so its steps cannot be used elsewhere")
        return cls(facts.process, facts.prediction_type, facts.bounded, model.identity)
