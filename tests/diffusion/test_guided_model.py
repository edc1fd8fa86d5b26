"""GuidedModel: guidance, prediction types, conditions by row, limits, and what an evaluation costs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.diffusion import Clipped, GuidedModel, Thresholded, Waiting, node_at, unlimited
from adaptive_diffusion.diffusion.fingerprint import Fingerprint
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.classes import DDIMScheduler

SHAPE = (4, 4, 3)
SCHEDULE = NoiseSchedule()
NODE = node_at(SCHEDULE, 300)


def states(count: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32))


def shifted(x: mx.array, t: mx.array, condition: mx.array | None) -> mx.array:
    """Predicts x + t / 1000 + the condition."""
    shift = 0.0 if condition is None else condition.astype(mx.float32).reshape(-1, 1, 1, 1)
    return x + t.reshape(-1, 1, 1, 1) / 1000 + shift


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_says_the_same(prediction_type: str) -> None:
    x0, eps = states(3), states(3, 1)
    x_t = NODE.alpha * x0 + NODE.sigma * eps
    prediction = {"epsilon": eps, "sample": x0, "v_prediction": NODE.alpha * eps - NODE.sigma * x0}[prediction_type]
    model = GuidedModel(lambda x, t, c: prediction, SCHEDULE, prediction_type, unlimited)
    denoised = model.denoise(x_t, NODE, np.arange(3))
    np.testing.assert_allclose(np.array(denoised.x0), np.array(x0), atol=1e-5)
    np.testing.assert_allclose(np.array(denoised.eps), np.array(eps), atol=1e-5)


def test_clipping_changes_the_clean_prediction_and_not_eps() -> None:
    x_t = states(2)
    results = {}
    for name, limit in (("free", unlimited), ("clipped", Clipped(0.3)), ("thresholded", Thresholded(0.9, 2.0))):
        model = GuidedModel(shifted, SCHEDULE, "sample", limit)
        results[name] = model.denoise(x_t, NODE, np.arange(2))
    free = np.array(results["free"].x0)
    assert np.abs(free).max() > 1
    np.testing.assert_array_equal(np.array(results["clipped"].x0), np.clip(free, -0.3, 0.3))
    assert np.abs(np.array(results["thresholded"].x0)).max() <= 1
    for name in ("clipped", "thresholded"):
        np.testing.assert_array_equal(np.array(results[name].eps), np.array(results["free"].eps))


@pytest.mark.parametrize(("scale", "passes"), [(1.0, 1), (0.0, 1), (2.5, 2)])
def test_guidance_leads_from_the_null_to_the_conditional_prediction(scale: float, passes: int) -> None:
    condition = mx.array([[1], [2], [3]])
    model = GuidedModel(shifted, SCHEDULE, "sample", unlimited, scale, condition)
    rows = np.array([2, 0])
    x0 = model.denoise(states(2), NODE, rows).x0
    expected = np.array(states(2)) + 0.3 + scale * np.array([3, 1]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(np.array(x0), expected, atol=1e-6)
    assert (model.cost.evaluations, model.cost.passes) == (2, 2 * passes)


def test_without_a_condition_an_evaluation_is_one_pass_whatever_the_guidance() -> None:
    model = GuidedModel(shifted, SCHEDULE, "sample", unlimited, 3.0)
    model.denoise(states(4), NODE, np.arange(4))
    assert (model.cost.evaluations, model.cost.passes) == (4, 4)
    other = model.with_condition(mx.array([[1]]))
    other.denoise(states(4), NODE, np.arange(4))
    assert (model.cost.evaluations, model.cost.passes) == (8, 12)


def test_images_at_several_nodes_are_evaluated_together_and_said_apart() -> None:
    calls = []

    def network(x: mx.array, t: mx.array, condition: mx.array | None) -> mx.array:
        calls.append((len(x), t.tolist(), None if condition is None else condition.reshape(-1).tolist()))
        return shifted(x, t, condition)

    model = GuidedModel(network, SCHEDULE, "epsilon", Clipped(), 1.0, mx.array([[4], [5], [6], [7]]))
    later = node_at(SCHEDULE, 20.5)
    together = model.denoise_all(
        [Waiting(states(2), NODE, np.array([3, 1])), Waiting(states(1, 5), later, np.array([0]))]
    )
    assert calls == [(3, [300, 300, 20.5], [7, 5, 4])]
    alone = [model.denoise(states(2), NODE, np.array([3, 1])), model.denoise(states(1, 5), later, np.array([0]))]
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(np.array(a.x0), np.array(b.x0))
        assert np.array_equal(np.array(a.eps), np.array(b.eps))


def test_one_condition_serves_all_images() -> None:
    model = GuidedModel(shifted, SCHEDULE, "sample", unlimited, condition=mx.array([[2]]))
    x0 = model.denoise(states(3), NODE, np.array([8, 9, 10])).x0
    np.testing.assert_allclose(np.array(x0), np.array(states(3)) + 2.3, atol=1e-6)


def test_a_model_of_the_project_says_how_it_was_trained() -> None:
    network = tiny_model()
    ids = network.condition("landscapes", "forest", "")
    model = GuidedModel.from_model(network, ids, domain="landscapes")
    assert model.prediction_type == "v_prediction"
    assert model.guidance_scale == 1.5
    assert model.limit == Clipped()
    assert model.state_shape == (8, 8, 3)
    assert model.process.log_snr(500) == NoiseSchedule(beta_schedule="squaredcos_cap_v2").log_snr(500)
    assert model.domains == ("portraits", "landscapes", "abstract", "general")
    assert model.identity == network.identity
    assert model.noise(3, 2).shape == (2, 8, 8, 3)

    x_t = mx.random.normal((2, 8, 8, 3), key=mx.random.key(1))
    t, condition = mx.full((2,), 300.0), mx.array([list(ids)] * 2, dtype=mx.int32)
    prediction = GuidedModel(network, guidance_scale=1.5)(x_t, t, condition)
    node = node_at(model.process, 300)
    expected = np.clip(np.array(node.alpha * x_t - node.sigma * prediction), -1, 1)
    np.testing.assert_allclose(np.array(model.denoise(x_t, node, np.arange(2)).x0), expected, atol=1e-6)


def test_less_guidance_than_none_is_none_for_a_model_that_reads() -> None:
    network = tiny_model()
    assert GuidedModel.from_model(network, guidance_scale=0.5).guidance_scale == 0.5
    reads = SimpleNamespace(
        metadata=network.metadata, identity="reads", state_shape=(8, 8, 3), conditional=True, domains=None
    )
    assert GuidedModel.from_model(reads, guidance_scale=0.0).guidance_scale == 1
    assert GuidedModel.from_model(reads, guidance_scale=7.5).guidance_scale == 7.5


def test_latents_are_not_clipped_and_are_decoded() -> None:
    network = tiny_model(bounded=False)
    model = GuidedModel.from_model(network)
    assert model.limit is unlimited
    assert model.condition is None
    assert model.decode is not None
    assert model.images(np.full((1, 8, 8, 3), 3.0)).max() == 1


def test_it_draws_as_the_scheduler_would_with_its_facts_and_counts_the_passes() -> None:
    """Samplers take it in the place of a denoiser; it then says itself what it predicts."""
    network = tiny_model()
    ids = [list(network.condition("landscapes", "forest", ""))] * 2
    facts = {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}
    model = GuidedModel.from_model(network, ids[0], 1.5)
    x_T, condition = mx.random.normal((2, 8, 8, 3), key=mx.random.key(1)), mx.array(ids, dtype=mx.int32)

    images = []
    for denoiser, settings in (
        (GuidedModel(network, guidance_scale=1.5).__call__, facts),
        (model, {**facts, "prediction_type": "sample"}),
    ):
        scheduler = DDIMScheduler(timestep_spacing="trailing", **settings)
        scheduler.set_timesteps(3)
        images.append(np.array(StandardSampler(scheduler).run(denoiser, x_T, condition=condition).images))
    np.testing.assert_array_equal(images[0], images[1])
    assert (model.cost.evaluations, model.cost.passes) == (6, 12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"prediction_type": "noise"}, "prediction_type"),
        ({"domain": "faces", "domains": ("portraits",)}, "no domain 'faces'"),
    ],
)
def test_values_that_make_no_sense_are_refused(arguments, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GuidedModel(shifted, **arguments)
    with pytest.raises(ValueError, match="does not say what it predicts"):
        GuidedModel.from_model(tiny_model(prediction_type=None))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda x, t, condition: np.array(x), "gives a numpy.ndarray; it must give an MLX array"),
        (lambda x, t, condition: x[..., :1], r"predicts \(., 4, 4, 1\) for states of \(., 4, 4, 3\)"),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_network_that_predicts_something_else_is_refused(network, words: str, scale: float) -> None:
    model = GuidedModel(network, guidance_scale=scale, condition=mx.ones((1, 1)))
    with pytest.raises(Unusable, match=words):
        model.denoise(mx.zeros((2, 4, 4, 3)), node_at(model.process, 500.0), np.arange(2))
    with pytest.raises(Unusable, match="network"):
        Fingerprint.of(model, (4, 4, 3))
