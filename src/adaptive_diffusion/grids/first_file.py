"""The shipped first predictions: what the shipped model predicts at T - 1 with each label, at any guidance."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..diffusion.first_prediction import FirstPrediction
from ..errors import UnusableFile, plainly
from ..io.files import ASSETS, atomic_path
from ..io.tensor_file import read_tensors, write_tensors

SHIPPED = ASSETS / "first.safetensors"
FORMAT = "adaptive-diffusion/first-predictions/1"

Ids = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FirstPredictions:
    """The first predictions of a model, without guidance.

    Guidance is linear in the predictions of the network, and so are the mean and the gains that are fitted to them:
    those with a label and those with the null condition, from the same noises, give them at any weight. The limit of
    the model applies afterwards; see `KnownFirst`.

    Attributes:
        model: Content hash of the model.
        known: Class ids -> prediction, also for ids that are all 0, the null condition.
    """

    model: str
    known: Mapping[Ids, FirstPrediction]

    def guided(self, ids: Ids, weight: float) -> FirstPrediction:
        """The prediction at a weight of guidance.

        Raises:
            KeyError: for class ids that are not known.
        """
        label, null = self.known[ids], self.known[(0,) * len(ids)]
        mean, gains = (a + weight * (b - a) for a, b in ((null.mean, label.mean), (null.gains, label.gains)))
        return FirstPrediction(mean, gains, ids)


def save_firsts(path: str | Path, firsts: FirstPredictions) -> None:
    """Write first predictions of one shape atomically; the means in half precision."""
    known = list(firsts.known.values())
    tensors = {
        "conditions": mx.array([first.condition for first in known], mx.int32),
        "means": mx.array(np.array([first.mean for first in known], np.float16)),
        "gains": mx.array(np.array([first.gains for first in known], np.float32)),
    }
    with atomic_path(Path(path)) as temporary:
        write_tensors(temporary, tensors, {"format": FORMAT, "model": firsts.model})


def load_firsts(path: str | Path) -> FirstPredictions:
    """Read what `save_firsts` wrote.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind.
    """
    tensors, header = read_tensors(path)
    try:
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']}, not {FORMAT}")
        conditions = [tuple(ids) for ids in np.array(tensors["conditions"]).tolist()]
        means, gains = (np.array(tensors[name]).astype(np.float64) for name in ("means", "gains"))
        rows = zip(conditions, means, gains, strict=True)
        known = {ids: FirstPrediction(mean, some, ids) for ids, mean, some in rows}
        return FirstPredictions(header["model"], known)
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableFile(f"{path} is damaged ({plainly(error)}); get the project again") from error


@functools.cache
def shipped_firsts() -> FirstPredictions:
    """The first predictions of the shipped model."""
    return load_firsts(SHIPPED)
