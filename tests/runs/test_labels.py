"""A domain without a label is drawn as a mixture of labels: the same in every run, benchmark, calibration and agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from tiny import configuration, tiny_encoder, tiny_model

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.benchmark.cell import Bench
from adaptive_diffusion.benchmark.store import fingerprint
from adaptive_diffusion.calibration.calibrate import ScheduleCalibration
from adaptive_diffusion.calibration.quick import QuickCalibration
from adaptive_diffusion.calibration.store import ScheduleFile
from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.conditions import Mixture, Same
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.models.checkpoint import save_model
from adaptive_diffusion.rl.environment import DiffusionHyperparameterEnv
from adaptive_diffusion.runs.benchmark import cell_of
from adaptive_diffusion.runs.sample import draw, sample
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.tracking.tracker import NoTracker

COUNTS = {"landscapes": [30, 10], "general": [5, 0]}
MODEL = tiny_model(label_counts=COUNTS)
LANDSCAPES = Mixture(((2, 2), (2, 3)), (30, 10))


@pytest.fixture
def configure(tmp_path: Path) -> Any:
    """Compose a job of eight 8x8 images in three steps; the model says the shares of its labels."""
    model = tmp_path / "shares.safetensors"
    save_model(model, MODEL)

    def compose(*overrides: str) -> Any:
        small = ["num_samples=8", "num_steps=3", "tracking=none", "metrics=none", "domain=landscapes"]
        return configuration("sample", tmp_path, "model=checkpoint", f"model.path={model}", *small, *overrides)

    return compose


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """What the batches that are drawn from now on are conditioned on."""
    conditions: list[list[list[int]]] = []
    run = StandardSampler.run

    def noted(self, model, x_T, *, condition=None, **more):
        conditions.append(condition.tolist())
        return run(self, model, x_T, condition=condition, **more)

    monkeypatch.setattr(StandardSampler, "run", noted)
    return conditions


def rows(seed: int, count: int) -> list[list[int]]:
    return LANDSCAPES.rows(seed, range(count)).tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("scheduler", ["ddim", "adaptive"])
def test_an_image_has_the_same_label_in_all_batches_and_with_all_schedulers(configure, seen, scheduler, batch_size):
    draw(prepare(configure(f"scheduler={scheduler}", f"batch_size={batch_size}", "seed=5")))
    assert [row for batch in seen for row in batch] == rows(5, 8)
    assert len({tuple(row) for row in rows(5, 8)}) == 2


@pytest.mark.parametrize(
    ("overrides", "ids"),
    [
        (["label=none"], [2, 0]),
        (["label=sunrise"], [2, 3]),
        (["domain=abstract"], [3, 0]),
        (["domain=general"], [4, 4]),  # the other label has no image
        (["prompt=a forest"], [2, 2]),
    ],
)
def test_what_leaves_no_label_open_is_drawn_with_one(configure, seen, overrides, ids):
    draw(prepare(configure(*overrides)))
    assert seen == [[ids] * 8]


def test_a_prompt_that_names_only_the_domain_leaves_the_label_open(configure):
    setup = prepare(configure("prompt=a landscape"))
    assert setup.choice is not None
    assert (setup.cfg.domain.name, setup.cfg.label) == ("landscapes", None)
    assert setup.conditions == LANDSCAPES


def test_an_image_to_begin_with_leaves_the_labels_and_variations_are_of_one(configure, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "black.png")
    assert prepare(configure(f"init_image={tmp_path}/black.png")).conditions == LANDSCAPES
    for seed in range(5):
        varied = prepare(configure("variation=0.2", f"seed={seed}")).conditions
        assert varied == Same(tuple(rows(seed, 1)[0]))
    assert prepare(configure("variation=0.2", "label=none")).conditions == Same((2, 0))


def test_the_summary_says_how_labels_were_drawn(configure, caplog):
    told_of = {(): "2, by their share in the training data", ("label=none",): "8 x landscapes (no label)"}
    for overrides, told in told_of.items():
        caplog.clear()
        with caplog.at_level("INFO"):
            sample(configure(*overrides))
        assert told in caplog.text
        assert ("by their share" in caplog.text) is (not overrides)


def test_a_caption_of_labels_by_share_is_that_of_the_domain(configure):
    assert prepare(configure()).caption == prepare(configure("label=none")).caption == "a photograph of a landscape"


def test_a_finished_run_with_other_labels_is_not_taken_for_this_one(configure, monkeypatch):
    asked: list[str] = []
    claimed = NoTracker.claimed
    monkeypatch.setattr(NoTracker, "claimed", lambda self, identity: asked.append(identity) or claimed(self, identity))
    for conditions in (LANDSCAPES, LANDSCAPES, Same((2, 0)), Mixture(LANDSCAPES.ids, (1, 1))):
        monkeypatch.setattr("adaptive_diffusion.runs.setup.conditions_of", lambda *a, found=conditions: found)
        sample(configure("skip_finished=true"))
    assert asked[0] == asked[1]
    assert len(set(asked)) == 3


def test_a_cell_of_other_labels_is_another_cell(configure):
    encoder = tiny_encoder()
    real = FeatureStatistics.from_features(np.random.default_rng(0).normal(size=(9, 4)), "tiny", "tiny")
    bench = Bench(MODEL, 1.5, encoder, lambda domain: real)
    cells = [cell_of(prepare(configure(*overrides))) for overrides in ([], [], ["label=none"], ["label=forest"])]
    hashes = [fingerprint(cell, bench) for cell in cells]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_pipeline_draws_the_labels_of_the_command_line(configure):
    pipeline = DiffusionPipeline(MODEL, "ddim", image_size=None)
    asked = {"num_inference_steps": 3, "seed": 5}
    expected = pipeline.generate(6, condition=mx.array(rows(5, 6)), **asked)
    assert mx.array_equal(pipeline.generate(6, domain="landscapes", **asked), expected)
    assert mx.array_equal(pipeline.generate(6, prompt="a landscape", **asked), expected)
    assert mx.array_equal(
        pipeline.generate(6, domain="landscapes", label="none", **asked),
        pipeline.generate(6, condition=mx.array([[2, 0]] * 6), **asked),
    )
    mixed = ["a forest", *["a landscape"] * 5]
    own = mx.array([[2, 2], *rows(5, 6)[1:]])
    assert mx.array_equal(pipeline.generate(6, prompt=mixed, **asked), pipeline.generate(6, condition=own, **asked))
    with pytest.raises(ValueError, match="no domain was given"):
        pipeline.generate(1, label="none", **asked)


def test_environments_draw_the_labels_of_their_noises_and_compare_with_the_same():
    env = DiffusionHyperparameterEnv(MODEL, "landscapes", pictures=4, batches=3, noise_seed=9)
    assert env.drawing.condition.tolist() == rows(9, 12)
    assert env.held_out(2).drawing.condition.tolist() == rows(10, 8)
    env.split(2).reset(options={"batch": 5})
    env.reset(options={"batch": 2})
    run = next(env._draw(env.knobs.prior))
    assert run.rows.tolist() == [8, 9, 10, 11]
    np.testing.assert_array_equal(np.array(run.x_t), np.array(GuidedModel.from_model(MODEL).noise(9, 12))[8:])


@pytest.mark.parametrize(
    ("recipe", "seeds"),
    [
        (QuickCalibration(steps=(3,), noises=5, nodes=8), {20_000: 7}),
        (
            ScheduleCalibration((3,), (3,), noises=6, held_out=5, learned_noises=2, iterations=1),
            {20_000: 6, 20_001: 5},
        ),
    ],
)
def test_a_calibration_draws_the_labels_of_its_noises(recipe, seeds, tmp_path, monkeypatch):
    model = GuidedModel.from_model(MODEL, LANDSCAPES, domain="landscapes", identity="tiny")
    kinds = {
        tuple(np.array(noise).ravel()[:8]): row
        for seed, n in seeds.items()
        for noise, row in zip(model.noise(seed, n), rows(seed, n), strict=True)
    }
    checked = []
    denoise_all = GuidedModel.denoise_all

    def noted(self, waiting):
        for some in waiting:
            for noisy, image in zip(np.array(some.x_t), some.rows, strict=True):
                if (known := kinds.get(tuple(noisy.ravel()[:8]))) is not None:
                    checked.append(self.condition[int(image)].tolist() == known)
        return denoise_all(self, waiting)

    monkeypatch.setattr(GuidedModel, "denoise_all", noted)
    file, costs = ScheduleFile(tmp_path / "s.json"), []
    ((schedule, n),) = file.calibrate(model, recipe, costs.append)
    assert n == 3
    assert schedule.first is None  # which all images would share
    assert len(checked) >= sum(seeds.values())
    assert all(checked)
    assert sum(costs) <= recipe.evaluations()

    # one without labels is another calibration, and takes the place of this one
    null = GuidedModel.from_model(MODEL, (2, 0), domain="landscapes", identity="tiny")
    assert file.finished(model, recipe) is not None
    assert file.finished(null, recipe) is None
    assert file.replaced(null, recipe) == [3]
