"""Guidance by a weaker model: its formula, its cost in passes, what names it, and which models do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import LABELS, tiny_model

from adaptive_diffusion.baseline.picture_models import PlainModel
from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.diffusion import Autoguidance, GuidedModel, Interval, Node, Waiting, node_at
from adaptive_diffusion.diffusion.evaluation import interpreted
from adaptive_diffusion.diffusion.guidance import identity_of
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.grids.calibrated_schedule import schedule_from
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DDIMScheduler

ROWS = np.array([0, 1])
STATES = mx.random.normal((2, 8, 8, 3), key=mx.random.key(3))


def weaker_model(**metadata: object) -> SimpleUNet:
    """The tiny model, with a head that predicts less."""
    model = tiny_model(**metadata)
    model.head.weight = 0.5 * model.head.weight
    return model


def unconditional_model(scale: float = 1.0) -> SimpleUNet:
    """An untrained network without classes."""
    mx.random.seed(1)
    model = SimpleUNet(UNetConfig(image_size=8, widths=(8, 16), blocks=(1, 1), attention_levels=(), embedding_dim=16))
    model.head.weight = scale * mx.random.normal(model.head.weight.shape)
    model._metadata = {"prediction_type": "v_prediction"}
    return model


def guided_by(guidance: Any, label: str = "forest") -> GuidedModel:
    network = tiny_model()
    return GuidedModel.from_model(network, network.condition("landscapes", label, ""), guidance, domain="landscapes")


def node_of(model: GuidedModel, log_snr: float) -> Node:
    return node_at(model.process, float(model.process.timestep(log_snr)))


@pytest.mark.parametrize("log_snr", [-1.5, 0.0, 1.5])
def test_the_prediction_leads_away_from_the_weaker_one_with_the_same_condition(log_snr: float) -> None:
    model = guided_by(Autoguidance(weaker_model(), 3.0, low=-1, high=1))
    node, condition = node_of(model, log_snr), mx.concatenate([model.condition] * 2)
    t = mx.full((2,), node.t)

    strong, weak = (network(STATES, t, condition) for network in (tiny_model(), weaker_model()))
    expected = weak + 3.0 * (strong - weak) if log_snr == 0 else strong
    found = model.denoise(STATES, node, ROWS)
    np.testing.assert_allclose(found.eps, interpreted(expected, STATES, node, "v_prediction").eps, atol=1e-5)
    np.testing.assert_allclose(model(STATES, t, condition), expected, atol=1e-5)

    passes = 2 if log_snr == 0 else 1
    assert (model.cost.evaluations, model.cost.passes) == (4, 4 * passes)
    assert (model.passes_at(node), model.most_passes) == (passes, 2)


def test_images_at_several_nodes_draw_what_they_draw_alone() -> None:
    model = guided_by(Autoguidance(weaker_model(), 2.0, low=-1, high=1))
    noisy, middle = node_of(model, -2.0), node_of(model, 0.0)
    null = Interval(2.0)  # in the place of the model's own: leads away from the null condition
    waiting = [Waiting(STATES, noisy, ROWS), Waiting(STATES, middle, ROWS), Waiting(STATES, middle, ROWS, null)]

    alone = [found.x0 for some in waiting for found in model.denoise_all([some])]
    classifier_free = guided_by(2.0).denoise(STATES, middle, ROWS).x0
    np.testing.assert_array_equal(alone[2], classifier_free)
    assert float(mx.abs(alone[1] - alone[2]).max()) > 1e-3

    for some in (waiting[:2], waiting):
        before = model.cost.passes
        for found, expected in zip(model.denoise_all(some), alone, strict=False):
            np.testing.assert_allclose(found.x0, expected, atol=1e-5)
        assert model.cost.passes - before == 2 * len(some) + 2 * (len(some) - 1)


def test_a_model_without_a_condition_is_guided_too() -> None:
    guidance = Autoguidance(unconditional_model(0.5), 2.0)
    model = GuidedModel.from_model(unconditional_model(), (), guidance)
    node = node_of(model, 0.0)
    t = mx.full((2,), node.t)

    strong, weak = (network(STATES, t, None) for network in (unconditional_model(), unconditional_model(0.5)))
    expected = interpreted(2 * strong - weak, STATES, node, "v_prediction")
    np.testing.assert_allclose(model.denoise(STATES, node, ROWS).eps, expected.eps, atol=1e-4)
    assert (model.cost.passes, model.most_passes, model.passes_at(node)) == (4, 2, 2)


def test_a_weight_of_one_costs_nothing() -> None:
    images = []
    for guidance in (1.0, Autoguidance(weaker_model(), 1.0)):
        model = guided_by(guidance)
        scheduler = DDIMScheduler(timestep_spacing="trailing", **model.settings)
        scheduler.set_timesteps(3)
        images.append(np.array(StandardSampler(scheduler).run(model, STATES).images))
        assert model.cost.passes == 6
    np.testing.assert_array_equal(*images)


def test_names_hold_the_weaker_models_hash_and_all_that_decides() -> None:
    weak = weaker_model(content_hash="ab" * 32)
    guidance = Autoguidance(weak, 2)
    assert guidance.name == "2.0 by the weaker model abababababab"
    assert identity_of("m", guidance) == f"m guidance {guidance.name}"

    others = [2.0, Interval(2.0), Autoguidance(weaker_model(), 2), *(replace(guidance, low=low) for low in (-1, -1.5))]
    assert len({identity_of("m", some) for some in (guidance, *others)}) == 1 + len(others)
    assert guidance == Autoguidance(weaker_model(content_hash="ab" * 32), 2.0) != others[2]


def test_a_calibration_knows_the_weaker_model() -> None:
    guidance = Autoguidance(weaker_model(content_hash="ab" * 32), 2)
    (schedule,) = QuickCalibration(steps=(2,)).calibrate(drawing_of(tiny_model(), "landscapes", guidance))
    assert schedule.guidance_scale == guidance.name
    assert schedule_from(json.loads(json.dumps(schedule.content(), allow_nan=False))) == schedule
    assert schedule.drawn_at(guidance).weights_hold
    for other in (2.0, Autoguidance(weaker_model(content_hash="cd" * 32), 2)):
        assert not schedule.drawn_at(other).weights_hold


def test_the_pipeline_takes_it_and_counts_both_networks() -> None:
    pipeline = DiffusionPipeline(unconditional_model(), scheduler="adaptive", image_size=None)
    images = [
        np.array(pipeline.generate(1, 3, seed=0, guidance_scale=guidance))
        for guidance in (1.0, Autoguidance(unconditional_model(0.5), 2.0))
    ]
    assert np.abs(images[0] - images[1]).max() > 0.01


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"prediction_type": "epsilon"}, "another prediction type .* draws: epsilon, and not v_prediction"),
        ({"noise_schedule": {}}, "another noise schedule"),
        ({"labels": {**LABELS, "landscapes": ["sunrise", "forest"]}}, "other domains or labels"),
        ({"domains": ["portraits", "landscapes"]}, "other domains or labels"),
    ],
)
def test_a_model_whose_predictions_mean_something_else_is_refused(metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(Unusable, match=words) as error:
        guided_by(Autoguidance(weaker_model(**metadata)))
    assert "\n" not in str(error.value)


def test_other_shapes_conditions_and_weights_are_refused() -> None:
    with pytest.raises(Unusable, match="other domains or labels"):
        GuidedModel.from_model(unconditional_model(), (), Autoguidance(weaker_model(noise_schedule={})))

    small = SimpleUNet(UNetConfig(image_size=4, widths=(8,), blocks=(1,), attention_levels=(), num_classes=(4, 5)))
    small._metadata = tiny_model().metadata
    with pytest.raises(Unusable, match=r"another state shape .*: \(4, 4, 3\), and not \(8, 8, 3\)"):
        guided_by(Autoguidance(small))
    with pytest.raises(Unusable, match="another state shape"):  # where the network alone says it
        replace(guided_by(1.0), state_shape=None, guidance_scale=Autoguidance(small))
    with pytest.raises(Unusable, match="must say how it was trained"):
        Autoguidance(lambda x, t, condition: x)
    with pytest.raises(Unusable, match="must say how it was trained"):
        Autoguidance(guided_by(1.0))

    with pytest.raises(ValueError, match="guidance_scale with a weaker model must be a number, at least 1"):
        Autoguidance(weaker_model(), 0.5)
    with pytest.raises(ValueError, match="low < high"):
        Autoguidance(weaker_model(), 2, low=1, high=0)


def test_a_weaker_model_that_is_no_mlx_module_is_called_as_it_is_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of NumPy or PyTorch cannot be compiled."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.gpu)

    def halved(x: mx.array, t: mx.array, condition: mx.array | None = None) -> mx.array:
        return mx.array(np.array(x) / 2)

    weak = PlainModel(halved, (4, 4, 3), identity="w", prediction_type="epsilon")
    guided = GuidedModel(lambda x, t, c=None: x, guidance_scale=Autoguidance(weak, 2.0), state_shape=(4, 4, 3))
    x = guided.noise(0, 2)
    np.testing.assert_allclose(guided.denoise(x, node_at(guided.process, 500.0), np.arange(2)).eps, 1.5 * x, rtol=1e-6)
