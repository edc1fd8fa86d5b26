"""Guidance that depends on the noise level: its weights, its cost in passes, what names it, and who takes it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from gaussian import STD
from tiny import tiny_model

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.calibration.calibrate import ScheduleCalibration
from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.diffusion import Constant, GuidedModel, Interval, Node, Waiting, node_at, unlimited
from adaptive_diffusion.diffusion.guidance import Guidance, guidance_in, identity_of, name_of
from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score, schedule_from
from adaptive_diffusion.grids.schedule_file import save_schedules
from adaptive_diffusion.rl.drawing import drawing_of
from adaptive_diffusion.sampling.converged import converged_pictures
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DDIMScheduler

LINEAR, COSINE = NoiseSchedule(), NoiseSchedule(beta_schedule="squaredcos_cap_v2")
MIDDLE = Interval(3.0, -1.0, 1.0)
STEPS = {2: CalibratedSteps((999.0, 300.0), ((0.1, 0.2, 0.3),) * 2, "fitted", {"fitted": Score(0.1, 0.01)})}
NAMED = "falling from 4"  # the default of `Falling`


@dataclass(frozen=True)
class Falling:
    """Guidance of a third party: the weight falls as the noise does."""

    most: float = 4.0

    @property
    def name(self) -> str:
        return f"falling from {self.most:g}"

    def weight_at(self, node: Node) -> float:
        return 1 + (self.most - 1) * node.sigma**2


def gaussian(process: NoiseSchedule) -> Any:
    """Predicts eps of data N(mean, STD^2), whose mean the condition says: the null condition is mean 0."""

    def network(x: mx.array, t: mx.array, condition: mx.array | None) -> mx.array:
        alpha, sigma = (mx.array(f(np.array(t)).reshape(-1, 1, 1, 1)) for f in (process.alpha, process.sigma))
        mean = 0.0 if condition is None else condition.astype(mx.float32).reshape(-1, 1, 1, 1)
        x0 = mean + STD**2 / (STD**2 + (sigma / alpha) ** 2) * (x / alpha - mean)
        return (x - alpha * x0) / sigma

    return network


def model_of(guidance: Any, process: NoiseSchedule = LINEAR, means: Any = ((1,), (2,), (3,))) -> GuidedModel:
    return GuidedModel(gaussian(process), process, "epsilon", unlimited, guidance, mx.array(means))


def exact(x_t: mx.array, node: Node, mean: float, weight: float) -> np.ndarray:
    """The guided clean prediction: the data's mean enters linearly, so guidance is `weight` times the mean."""
    shrink = STD**2 / (STD**2 + node.level**2)
    return np.array(x_t) * shrink / node.alpha + (1 - shrink) * weight * mean


def states(count: int) -> mx.array:
    return mx.array(np.random.default_rng(count).normal(size=(count, 4, 4, 3)).astype(np.float32))


@pytest.mark.parametrize("process", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize(("log_snr", "weight"), [(-1.01, 1), (-0.99, 3), (0.99, 3), (1.01, 1)])
def test_an_interval_means_the_same_noise_levels_with_every_noise_schedule(
    process: NoiseSchedule, log_snr: float, weight: float
) -> None:
    model, node = model_of(MIDDLE, process), node_at(process, float(process.timestep(log_snr)))
    assert model.weight_at(node) == weight
    x0 = model.denoise(states(2), node, np.array([2, 0])).x0
    for image, mean in enumerate((3, 1)):
        expected = exact(states(2), node, mean, weight)[image]
        np.testing.assert_allclose(np.array(x0)[image], expected, atol=2e-4)
    assert (model.cost.evaluations, model.cost.passes) == (2, 2 if weight == 1 else 4)


def test_images_at_several_nodes_have_their_own_weights_and_only_guided_ones_are_doubled() -> None:
    sizes, model = [], model_of(MIDDLE)
    predict = model._predict
    object.__setattr__(model, "_predict", lambda x, *rest: (sizes.append(len(x)), predict(x, *rest))[1])
    nodes = [node_at(LINEAR, float(LINEAR.timestep(at))) for at in (-3.0, 0.5, 2.0)]
    waiting = [Waiting(states(1 + i), node, np.arange(1 + i) % 3) for i, node in enumerate(nodes)]

    together = model.denoise_all(waiting)
    assert sizes == [1 + 2 + 3 + 2]
    assert (model.cost.evaluations, model.cost.passes) == (6, 8)
    for some, found, weight in zip(waiting, together, (1, 3, 1), strict=True):
        for image, row in enumerate(some.rows):
            expected = exact(some.x_t, some.node, row + 1, weight)[image]
            np.testing.assert_allclose(np.array(found.x0)[image], expected, atol=1e-3)

    # as a plain denoiser, which is told timesteps
    x, t = mx.concatenate([some.x_t for some in waiting]), [s.node.t for s in waiting for _ in s.rows]
    condition = mx.array([[int(row) + 1] for some in waiting for row in some.rows])
    eps = np.concatenate([np.array(found.eps) for found in together])
    np.testing.assert_allclose(np.array(model(x, mx.array(t), condition)), eps, atol=1e-4)


def test_weight_0_is_the_null_condition_alone_in_one_pass() -> None:
    sizes, model = [], model_of(Interval(0.0, -1.0, 1.0))
    predict = model._predict
    object.__setattr__(model, "_predict", lambda x, *rest: (sizes.append(len(x)), predict(x, *rest))[1])
    outside, inside = (node_at(LINEAR, float(LINEAR.timestep(at))) for at in (-3.0, 0.5))
    assert [model.passes_at(node) for node in (outside, inside)] == [1, 1]

    rows = np.arange(3)
    together = model.denoise_all([Waiting(states(3), outside, rows), Waiting(states(3), inside, rows)])
    assert sizes == [6]
    assert (model.cost.evaluations, model.cost.passes) == (6, 6)
    for found, node, weight in zip(together, (outside, inside), (1, 0), strict=True):
        for image in rows:
            expected = exact(states(3), node, image + 1, weight)[image]
            np.testing.assert_allclose(np.array(found.x0)[image], expected, atol=1e-3)


def test_constant_guidance_is_its_number_to_the_bit() -> None:
    network, x_T = tiny_model(), mx.random.normal((3, 8, 8, 3), key=mx.random.key(1))
    ids = network.condition("landscapes", "forest", "")
    found = []
    for guidance in (2.5, Constant(2.5), Interval(2.5, -math.inf, math.inf)):
        model = GuidedModel.from_model(network, ids, guidance)
        scheduler = DDIMScheduler(timestep_spacing="trailing", **model.settings)
        scheduler.set_timesteps(4)
        found.append(np.array(StandardSampler(scheduler).run(model, x_T).images))
        assert model.cost.passes == 24
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert model_of(Constant(2.5)).guidance_scale == 2.5


def test_names_tell_guidance_apart_and_constant_ones_are_as_ever() -> None:
    assert identity_of("m", 1.5) == identity_of("m", Constant(1.5)) == "m guidance 1.5"
    some = [
        1.5,
        Interval(1.5, -1, 1),
        Interval(1.5, -1, 1.0000001),
        Interval(1.5000001, -1, 1),
        Interval(1.5, -1.5, 1),
        Falling(),
        Falling(3),
    ]
    assert len({identity_of("m", guidance) for guidance in some}) == len(some)
    assert Interval(2, -1, 1).name == Interval(2.0, -1.0, 1.0).name

    model = GuidedModel(gaussian(LINEAR), guidance_scale=MIDDLE, identity="m")
    assert model.guided_identity == identity_of("m", MIDDLE)
    assert GuidedModel(gaussian(LINEAR), guidance_scale=3, identity="m guidance 1.5").guided_identity.endswith(" 3")
    assert GuidedModel(gaussian(LINEAR), guidance_scale=3).guided_identity == ""


def test_converged_solutions_of_other_guidance_are_not_taken(tmp_path: Any) -> None:
    network, x_T = tiny_model(), mx.random.normal((2, 8, 8, 3), key=mx.random.key(1))
    ids = network.condition("landscapes", "forest", "")
    images = []
    for guidance in (1.5, Interval(1.5, -1, 1), Interval(1.5, -1, 1.5), 1.5):
        model = GuidedModel.from_model(network, ids, guidance, identity="tiny")
        images.append(converged_pictures(model, x_T, tolerance=1.0, most_steps=16, cache=tmp_path).images)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    np.testing.assert_array_equal(images[0], images[3])
    assert np.abs(images[0] - images[1]).max() > 1e-4


def test_guidance_of_ones_own_works_and_a_wrong_weight_is_refused() -> None:
    node, model = node_at(LINEAR, 400), model_of(Falling())
    np.testing.assert_allclose(
        np.array(model.denoise(states(1), node, np.array([1])).x0),
        exact(states(1), node, 2, Falling().weight_at(node)),
        atol=1e-4,
    )
    with pytest.raises(ValueError, match="guidance_scale must be a number, at least 0"):
        model_of(Falling(-9)).denoise(states(1), node_at(LINEAR, 999), np.array([0]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Interval(1.5, 1.0, 1.0), "low < high, got 1 and 1"),
        (lambda: Interval(1.5, math.nan, 1.0), "low < high, got nan"),
        (lambda: Interval(-1, 0, 1), "guidance_scale must be a number, at least 0"),
        (lambda: Constant(2000), "at most 1000"),
        (lambda: model_of("strong"), "guidance_scale must be a number"),
        (lambda: model_of(Interval), "guidance_scale must be a number"),
    ],
)
def test_guidance_that_makes_no_sense_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "recipe",
    [
        ScheduleCalibration(steps=(3,), noises=2, held_out=2, learned_noises=2, learned_steps=(3,), iterations=1),
        QuickCalibration(steps=(3,)),
    ],
)
@pytest.mark.parametrize(
    ("guidance", "kept"),
    [(1.5, 1.5), (Constant(2), 2.0), (MIDDLE, MIDDLE), (Interval(2, low=-1), Interval(2, low=-1)), (Falling(), NAMED)],
)
def test_a_calibration_knows_its_guidance(recipe: Any, guidance: Any, kept: Any) -> None:
    model = drawing_of(tiny_model(), "landscapes", guidance)
    (schedule,) = recipe.calibrate(model)
    assert schedule.guidance_scale == kept
    text = json.dumps(schedule.content(), allow_nan=False)
    assert schedule_from(json.loads(text)) == schedule
    assert schedule.drawn_at(guidance).weights_hold


@pytest.mark.parametrize(
    ("calibrated", "drawn", "hold"),
    [
        (MIDDLE, Interval(6, -1, 1), True),
        (MIDDLE, Interval(6.1, -1, 1), False),
        (MIDDLE, Interval(3, -1, 1.5), False),  # 3 where it was 1
        (Interval(2, -1, 1), Interval(2, -2, 1.5), True),  # 2 where it was 1
        (Interval(2, -1, 1), Interval(4, -2, 1.5), False),
        (Interval(2, -1, 1), 2.0, True),
        (Interval(2, -1, 1), 1.0, True),
        (Interval(2, -1, 1), 2.1, False),
        (7.5, Interval(7.5), True),  # the same under two names
        (7.5, Interval(7.5, low=-1), False),
        (NAMED, Falling(), True),
        (NAMED, Falling(5), False),
        (NAMED, 4.0, False),
        (4.0, Falling(), False),
    ],
)
def test_weights_hold_where_guidance_is_within_a_factor_of_two_at_every_noise_level(
    calibrated: Any, drawn: Any, hold: bool
) -> None:
    schedule = CalibratedSchedule("m", calibrated, "abstract", 1000, "rmse", 2, 2, STEPS).drawn_at(drawn)
    assert schedule.weights_hold == hold
    assert ("its timesteps only" in str(schedule)) != hold


def test_the_same_guidance_is_found_before_one_that_is_near(tmp_path: Path) -> None:
    known = [1.5, MIDDLE, Interval(1.5, -1, 1), NAMED, 6.0]
    schedules = [CalibratedSchedule("m", guidance, "abstract", 1000, "rmse", 2, 2, STEPS) for guidance in known]
    save_schedules(tmp_path / "s.json", schedules)

    def found(guidance: float | Guidance) -> Any:
        schedule = find_schedule(tmp_path / "s.json", "m", "abstract", guidance)
        assert schedule is not None
        return schedule.guidance_scale

    for guidance in (1.5, MIDDLE, Interval(1.5, -1, 1), 6.0):
        assert found(guidance) == guidance
    assert found(Falling()) == NAMED
    assert found(3.4) == 6.0, "1.5 is nearer, but its weights do not hold"
    assert found(Interval(1.6, -1, 1)) == Interval(1.5, -1, 1)
    assert found(Interval(1.5, -1, 2)) in (1.5, Interval(1.5, -1, 1))


def test_a_file_of_constant_guidance_is_read_and_written_as_before() -> None:
    content = CalibratedSchedule("m", 1.5, "abstract", 1000, "rmse", 2, 2, STEPS).content()
    assert content["guidance_scale"] == 1.5
    with pytest.raises((TypeError, ValueError)):
        schedule_from({**content, "guidance_scale": {"weight": -1}})


def test_the_pipeline_draws_with_an_interval_and_says_what_is_used_of_the_calibration() -> None:
    pipeline = DiffusionPipeline(scheduler="adaptive", image_size=None)
    images = [
        np.array(pipeline.generate(1, 5, seed=0, label="sunrise", guidance_scale=guidance))
        for guidance in (1.5, Interval(1.5, -2.5, 0.35))
    ]
    assert np.abs(images[0] - images[1]).max() > 0.01
    assert isinstance(pipeline.scheduler, AdaptiveScheduler)
    assert "timesteps only" not in pipeline.get_scheduler_info()["origin"]

    pipeline.generate(1, 5, seed=0, domain="landscapes", guidance_scale=Falling())
    assert "at guidance falling from 4 its timesteps only" in pipeline.get_scheduler_info()["origin"]


def test_constant_guidance_is_named_by_all_its_digits() -> None:
    assert [name_of(weight) for weight in (2, 1.5, 7.25, 0.0, 1e-5, 1000)] == ["2", "1.5", "7.25", "0", "1e-05", "1000"]
    assert name_of(1.2345671) != name_of(1.2345678) == Constant(1.2345678).name
    assert guidance_in(identity_of("model", 1.2345678)) == 1.2345678
