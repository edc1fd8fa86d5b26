"""The shipped first predictions: they survive their file, hold at any guidance, and there is one for each label."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.diffusion import GuidedModel, Waiting
from adaptive_diffusion.diffusion.first_prediction import FirstPrediction, KnownFirst, first_node, first_prediction
from adaptive_diffusion.diffusion.guidance import Interval
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.errors import UnusableFile
from adaptive_diffusion.grids.first_file import FirstPredictions, load_firsts, save_firsts, shipped_firsts
from adaptive_diffusion.io.tensor_file import write_tensors
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from tools.first import NOISES, stale_firsts

FIRST = FirstPredictions(
    "m",
    {
        ids: FirstPrediction(np.full((8, 8, 3), mean), np.full((4, 4, 2), mean / 8), ids)
        for ids, mean in (((0, 0), 0.0), ((1, 0), 0.5), ((1, 2), -0.25))
    },
)


def test_they_survive_their_file(tmp_path):
    path = tmp_path / "first.safetensors"
    save_firsts(path, FIRST)
    found = load_firsts(path)
    assert (found.model, found.known) == (FIRST.model, FIRST.known)


def test_what_is_no_such_file_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    write_tensors(other, {"means": mx.zeros(1)}, {"format": "x"})
    with pytest.raises(UnusableFile, match=r"damaged \(its format is x"):
        load_firsts(other)

    write_tensors(other, {"means": mx.zeros(1)}, {"format": "adaptive-diffusion/first-predictions/1", "model": "m"})
    with pytest.raises(UnusableFile, match="damaged"):
        load_firsts(other)
    with pytest.raises(UnusableFile):
        load_firsts(tmp_path / "none.safetensors")


def test_every_label_of_the_shipped_model_has_one():
    assert stale_firsts() is None


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 4.0, Interval(3.0, high=0.0), Interval(3.0, low=0.0)])
def test_the_shipped_ones_are_as_near_as_those_measured_at_any_guidance(guidance):
    model = load_builtin_model()
    ids, noise = model.condition("landscapes", "forest", ""), normal(image_keys(5, range(8)), model.state_shape)
    guided = GuidedModel.from_model(model, ids, guidance)
    node = first_node(guided.process)
    asked, rows = Waiting(noise, node, np.arange(8)), np.arange(8)
    evaluated = np.array(guided.denoise(noise, node, rows).x0)

    def distance(first):
        (known,) = KnownFirst(guided, first).denoise_all([asked])
        return np.sqrt(np.mean((np.array(known.x0) - evaluated) ** 2))

    shipped = shipped_firsts().guided(ids, guided.weight_at(node))
    measured = first_prediction(guided, model.state_shape, NOISES)
    assert shipped.condition == measured.condition == ids
    assert distance(shipped) <= 1.05 * distance(measured)


@pytest.mark.parametrize(("choice", "taken"), [("stored", True), ("network", False)])
def test_a_pipeline_of_the_shipped_model_takes_them_by_label(choice, taken):
    scheduler = AdaptiveScheduler(first_evaluation=choice)
    DiffusionPipeline(load_builtin_model(), scheduler).generate(2, 5, domain="landscapes")
    assert scheduler.origin.startswith("first evaluation stored, ") == taken
