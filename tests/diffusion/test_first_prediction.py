"""A known first prediction: it is the closed form, what it saves is counted, and elsewhere the network is evaluated."""

from __future__ import annotations

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from gaussian import predict
from scipy.fft import dctn, idctn

from adaptive_diffusion.calibration.first import with_stored
from adaptive_diffusion.calibration.reference import record
from adaptive_diffusion.diffusion.conditions import Mixture
from adaptive_diffusion.diffusion.first_prediction import (
    SHARED,
    FirstPrediction,
    KnownFirst,
    first_node,
    first_prediction,
    first_prediction_from,
)
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.limits import unlimited
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.grids.base import FixedGrid
from adaptive_diffusion.grids.calibrated_schedule import (
    CalibratedSchedule,
    CalibratedSteps,
    Score,
    StoredFirst,
    schedule_from,
)
from adaptive_diffusion.grids.first_file import FirstPredictions
from adaptive_diffusion.grids.spacings import PowerGrid
from adaptive_diffusion.sampling.batches import draw_batches
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.sampling.rollout import InBatches, Rollout, finished
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers import first_evaluation
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler
from adaptive_diffusion.solvers.dpm_solver import DPMSolver

SHAPE, MEAN, N = (8, 8, 3), 0.3, 4
EXACT = DDIMScheduler(clip_sample=False)
# Standard deviation per frequency, of the channels' mean and of what they have beside it; none above the lowest 4x4.
STD = np.zeros(SHAPE)
STD[:4, :4] = 2 / (1 + np.hypot(*np.mgrid[:4, :4]))[..., None] * np.array([1, 0.5, 0.5])
CENTRE = dctn(np.full(SHAPE, MEAN), axes=(0, 1, 2), norm="ortho")


def gaussian(x, t, condition=None):
    """The exact eps of images whose frequencies are independent; conditions raise the mean."""
    mean = CENTRE if condition is None else CENTRE * (1 + np.array(condition, float)[:, :, None, None])
    spectrum = dctn(np.array(x, np.float64), axes=(1, 2, 3), norm="ortho")
    eps = predict(EXACT, float(t[0]), spectrum, std=STD + 1e-9, mean=mean)
    return mx.array(idctn(eps, axes=(1, 2, 3), norm="ortho"), mx.float32)


def model(condition=None, **more):
    return GuidedModel(gaussian, limit=unlimited, condition=condition, state_shape=SHAPE, **more)


def noises(count, seed=0):
    return normal(image_keys(seed, range(count)), SHAPE)


FIRST = first_prediction(model(), SHAPE)
TIMESTEPS = {n: tuple(PowerGrid(2)(EXACT.schedule, n).tolist()) for n in (N - 1, N)}


def schedule(stored=0.1, fewer=0.2, first=FIRST, **more):
    """Steps without corrections of their own: DDIM's, where weights are asked for."""
    rows, known = ((0.0,) * 5,) * N, Score(stored, 0.01)
    steps = {
        N - 1: CalibratedSteps(TIMESTEPS[N - 1], None, "x", {"x": Score(fewer, 0.01)}),
        N: CalibratedSteps(TIMESTEPS[N], rows, "x", {"x": Score(0.1, 0.01)}, StoredFirst(rows, known)),
    }
    about = {"model": "m", "guidance_scale": 1.0, "domain": "d", "metric": "rmse", "noises": 2, "held_out": 2}
    return CalibratedSchedule(num_train_timesteps=1000, steps=steps, first=first, **{**about, **more})


def adaptive(first_evaluation="stored", calibration=None, **more):
    calibration = calibration or schedule()
    return AdaptiveScheduler(
        num_inference_steps=N, calibration=calibration, first_evaluation=first_evaluation, clip_sample=False, **more
    )


def test_a_prediction_that_is_linear_in_the_lowest_frequencies_is_found():
    node = first_node(EXACT.schedule)
    shares = STD[:4, :4] ** 2 / (STD[:4, :4] ** 2 + node.level**2)
    np.testing.assert_allclose(FIRST.gains, (shares / node.alpha)[..., :2], rtol=0.05)  # shrunk a little
    unseen = noises(20, 5)
    exact = np.array(model().denoise(unseen, node, np.arange(20)).x0)
    missing, whole = np.abs(np.array(FIRST(unseen)) - exact).max(), np.abs(exact - MEAN).max()
    assert missing < 0.1 * whole


def test_it_survives_the_file_in_half_precision():
    again = first_prediction_from(json.loads(json.dumps(FIRST.content())))
    assert again == FIRST
    nearly = replace(FIRST, mean=FIRST.mean * (1 + 1e-9))
    assert (nearly, hash(nearly)) == (FIRST, hash(FIRST))
    assert schedule_from(json.loads(json.dumps(schedule().content()))).with_stored_first(N) is not None
    assert {"first", "drawn_guidance"} & schedule(first=None).content().keys() == set()


def test_n_steps_take_n_minus_1_evaluations_and_lead_to_the_same_images():
    drawn = {}
    for choice in ("network", "stored"):
        asked, scheduler = model(), adaptive(choice)
        result = StandardSampler(scheduler).run(asked, noises(6))
        drawn[choice] = np.array(result.images)
        saved = choice == "stored"
        assert asked.cost.evaluations == asked.cost.passes == result.total_evaluations == 6 * (N - saved)
        assert (result.known, len(result.timesteps)) == (saved, N)
        assert scheduler.origin.startswith("first evaluation stored, ") == saved
    np.testing.assert_allclose(drawn["stored"], drawn["network"], atol=0.01)


def test_early_stopping_counts_it_too():
    asked = model()
    result = QualityGuidedSampler(adaptive(), early_stopping=False).run(asked, noises(3))
    assert asked.cost.evaluations == result.total_evaluations == 3 * (N - 1)


def test_the_loop_asks_the_network_for_those_that_are_further_on():
    asked, x_T = model(), noises(4)
    grid = FixedGrid.of(EXACT.schedule, np.array(TIMESTEPS[N]))
    later = Rollout.begin(FixedGrid.of(EXACT.schedule, np.array([500.0])), DPMSolver(), x_T[:1], rows=np.array([3]))
    images = finished(KnownFirst(asked, FIRST), [Rollout.begin(grid, DPMSolver(), x_T[:3]), later])
    assert (asked.cost.evaluations, images.shape) == (3 * (N - 1) + 1, (4, *SHAPE))


@pytest.mark.parametrize(
    "calibration",
    [
        schedule(stored=0.19),  # within the standard error of as many evaluations
        schedule(fewer=0.05),
        schedule(guidance_scale=3.0, drawn_guidance=1.0),  # weights do not hold
        schedule(first=None),
        schedule(first=FirstPrediction(FIRST.mean, FIRST.gains, (7,))),
        schedule(model="another"),
        schedule(guidance_scale=1.5),
    ],
    ids=["no better", "worse", "far guidance", "unknown", "another condition", "another model", "near guidance"],
)
def test_where_it_is_not_better_or_not_known_the_network_is_evaluated(calibration):
    asked = model(identity="m")
    StandardSampler(adaptive(calibration=calibration)).run(asked, noises(2))
    assert asked.cost.evaluations == 2 * N


def test_other_steps_than_the_calibrated_ones_evaluate_the_network():
    for choose in ({"num_inference_steps": N + 3}, {"timesteps": [999, 500]}, {"timesteps": [500, 100]}):
        scheduler, asked = adaptive(), model()
        scheduler.set_timesteps(**choose)
        StandardSampler(scheduler).run(asked, noises(2))
        assert asked.cost.evaluations == 2 * len(scheduler)


def test_a_label_is_measured_once_for_all_images_if_that_is_asked_for():
    label = mx.array([[1]] * 3)
    scheduler, asked = adaptive("shared"), model()
    together = [StandardSampler(scheduler).run(asked, noises(3), condition=label).images for _ in range(2)][1]
    assert asked.cost.evaluations == SHARED + 2 * 3 * (N - 1)

    alone = StandardSampler(adaptive("shared")).run(model(), noises(1), condition=label[:1]).images
    np.testing.assert_allclose(np.array(alone), np.array(together[:1]), atol=1e-5)  # whatever the batch
    plain = StandardSampler(adaptive("network")).run(model(), noises(3), condition=label).images
    np.testing.assert_allclose(np.array(together), np.array(plain), atol=0.02)

    mixed = model(mx.array([[0], [1]]))
    StandardSampler(adaptive("shared")).run(mixed, noises(2))
    assert mixed.cost.evaluations == 2 * N
    with pytest.raises(ValueError, match="one condition for all images, and these differ"):
        first_prediction(mixed, SHAPE)


def test_what_was_measured_of_a_network_is_not_taken_for_another_one():
    def other(x, t, condition=None):
        return gaussian(x, t, 3 - condition)

    scheduler, label = adaptive("shared"), mx.array([[1]])
    StandardSampler(scheduler).run(model(label), noises(2))
    asked = replace(model(label), network=other)
    again = StandardSampler(scheduler).run(asked, noises(2)).images
    assert asked.cost.evaluations == SHARED + 2 * (N - 1)
    alone = StandardSampler(adaptive("shared")).run(replace(model(label), network=other), noises(2)).images
    assert mx.array_equal(again, alone)


def test_steps_by_hand_evaluate_the_network_at_every_timestep_also_after_a_run_that_did_not():
    def by_hand(scheduler):
        x = noises(2)
        for t in scheduler.timesteps:
            x = scheduler.step(gaussian(x, [t]), t, x)
        return x

    scheduler = adaptive("stored", schedule())
    expected = by_hand(scheduler)
    StandardSampler(scheduler).run(model(), noises(2))
    assert scheduler.origin.startswith("first evaluation stored")
    assert mx.array_equal(by_hand(scheduler), expected)
    assert not scheduler.origin.startswith("first evaluation stored")


@pytest.mark.parametrize("choice", ["stored", "shared"])
def test_labels_by_share_are_drawn_alike_in_batches_of_one_and_of_many(choice):
    calibrated = schedule(first=FirstPrediction(FIRST.mean, FIRST.gains, (1,)))
    by_share, images = Mixture(((0,), (1,)), (1, 1)), []
    for size in (1, 4):
        scheduler, asked = adaptive(choice, calibrated), model()
        drawn = draw_batches(
            StandardSampler(scheduler),
            asked,
            lambda of=scheduler: of.set_timesteps(N),
            SHAPE,
            seed=0,
            count=4,
            batch_size=size,
            conditions=by_share,
        )
        images.append(np.concatenate([np.array(batch.images) for batch in drawn]))
        assert asked.cost.evaluations == 4 * N
    np.testing.assert_allclose(images[0], images[1], atol=1e-5)


@pytest.fixture
def shipped(monkeypatch):
    """A function that ships first predictions of the labels 0, the null condition, and 1."""
    known = {(k,): first_prediction(model(mx.array([[k]])), SHAPE) for k in (0, 1)}

    def ship(name="m", steps=(N,)):
        monkeypatch.setattr(first_evaluation, "shipped_firsts", lambda: FirstPredictions(name, known))
        monkeypatch.setattr(first_evaluation, "HELPS", steps)

    return ship


def test_for_other_numbers_of_steps_it_says_for_which_ones_there_are_some(shipped, caplog):
    shipped(steps=(N + 1, N + 2))
    StandardSampler(adaptive("stored")).run(model(mx.array([[1]]), identity="m"), noises(2))
    said = f"has no effect: for {N} steps (those that ship are for {N + 1} to {N + 2} steps) no first evaluation"
    assert caplog.text.count(said) == 1

    caplog.clear()
    scheduler = adaptive("stored")
    scheduler.set_timesteps(timesteps=[500, 100])  # another number of steps would not help
    StandardSampler(scheduler).run(model(mx.array([[1]]), identity="m"), noises(2))
    assert caplog.text.count("has no effect: for these labels, steps and guidance no first evaluation") == 1


@pytest.mark.parametrize("labels", [[[0], [1], [0]], [[1]]], ids=["by share", "the same"])
@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_what_ships_is_taken_for_each_label_at_any_guidance_at_which_the_weights_hold(labels, weight, shipped):
    shipped()
    images = {}
    for choice in ("network", "stored"):
        asked, scheduler = model(mx.array(labels), identity="m", guidance_scale=weight), adaptive(choice)
        scheduler.suit("m", "d", weight)
        result = StandardSampler(scheduler).run(asked, noises(3))
        images[choice] = np.array(result.images)
        assert asked.cost.evaluations == result.total_evaluations == 3 * (N - (choice == "stored"))
    np.testing.assert_allclose(images["stored"], images["network"], atol=0.03)
    assert len(labels) == 1 or images["stored"][1].mean() > images["stored"][0].mean() + MEAN / 2  # each its own


@pytest.mark.parametrize(
    ("labels", "other"),
    [([[0], [1]], {"name": "another"}), ([[0], [1]], {"steps": (N + 1,)}), ([[0], [2]], {})],
    ids=["another model", "other steps", "a label that does not ship"],
)
def test_what_ships_for_something_else_is_not_taken(labels, other, shipped):
    shipped(**other)
    asked = model(mx.array(labels), identity="m")
    StandardSampler(adaptive()).run(asked, noises(2))
    assert asked.cost.evaluations == 2 * N


def test_weights_are_fitted_and_judged_with_it():
    batched = InBatches(model())
    reference, unseen = record(batched, noises(4)), record(batched, noises(3, 1))
    steps = CalibratedSteps(TIMESTEPS[N], None, "x", {"x": Score(1.0, 0.1)})
    found = with_stored(batched, FIRST, reference, unseen, steps)
    assert found.stored is not None
    assert np.shape(found.stored.corrections) == (N, 5)
    assert found.stored.score.mean < 0.02  # a line leads along these trajectories


def test_what_cannot_be_used_is_refused():
    with pytest.raises(ValueError, match="first_evaluation must be one of network, stored, shared, got 'free'"):
        adaptive("free")
    with pytest.raises(ValueError, match=r"a mean of shape \(H, W, C\) and gains of shape \(K, K, 2\)"):
        FirstPrediction(FIRST.mean, FIRST.gains[:2])
    with pytest.raises(ValueError, match="must be finite"):
        FirstPrediction(FIRST.mean * np.nan, FIRST.gains)
    with pytest.raises(ValueError, match=r"for states of shape \(8, 8, 3\), got \(4, 4, 3\)"):
        FIRST(mx.zeros((1, 4, 4, 3)))
