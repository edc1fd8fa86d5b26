"""Runs side by side draw what they would draw alone, with one evaluation of the model for all."""

import mlx.core as mx
import numpy as np
from tiny import tiny_model

from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.rl.lockstep import drawing_run, run_together
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler

SETTINGS = {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}


def noise(seed: int, count: int) -> mx.array:
    return normal(image_keys(seed, range(count)), (8, 8, 3))


def test_runs_of_other_lengths_sizes_and_conditions_draw_as_alone():
    calls = []

    class Counted:
        def __init__(self, model):
            self.model = model

        def denoise_all(self, waiting):
            calls.append((sum(len(some.x_t) for some in waiting), waiting[0].node.t))
            return self.model.denoise_all(waiting)

        def passes_at(self, node, guidance):
            return self.model.passes_at(node, guidance)

    runs, expected, ids = [], [], []
    for seed, (count, steps, domain) in enumerate(((2, 3, 1), (1, 5, 2), (3, 1, 4))):
        condition = mx.array([[domain, 0]] * count, dtype=mx.int32)
        schedulers = [AdaptiveScheduler(num_inference_steps=steps, **SETTINGS) for _ in range(2)]
        guided = schedulers[0].guided(tiny_model(), None, 1.5)
        alone = StandardSampler(schedulers[0]).run(guided, noise(seed, count), condition=condition)
        expected.append(np.clip(np.array(alone.images), -1, 1))
        runs.append(drawing_run(schedulers[1], noise(seed, count), np.arange(len(ids), len(ids) + count)))
        ids += [[domain, 0]] * count

    model = GuidedModel.from_model(tiny_model(), guidance_scale=1.5, condition=mx.array(ids, dtype=mx.int32))
    drawn = run_together(Counted(model), runs)
    for got, images in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(got.states, images, atol=1e-5)
    assert [d.evaluations for d in drawn] == [3, 5, 1]
    assert [d.passes for d in drawn] == [6, 10, 2]
    assert [count for count, _ in calls] == [6, 3, 3, 1, 1]
    assert calls[0][1] == 999
    assert all(d.seconds > 0 for d in drawn)


def test_a_run_that_asks_for_nothing_returns_at_once():
    def run():
        yield from ()
        return "done"

    assert run_together(lambda x, t, c: x, [run(), run()]) == ["done", "done"]
