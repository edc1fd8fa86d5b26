"""What a model says of itself, what holds where it says nothing, and the guidance in an identity."""

from types import SimpleNamespace

import pytest

from adaptive_diffusion.diffusion.facts import ModelFacts
from adaptive_diffusion.diffusion.guidance import guidance_in, identity_of
from adaptive_diffusion.diffusion.limits import Clipped, unlimited


def test_a_model_that_says_nothing_has_the_defaults():
    facts = ModelFacts.of(SimpleNamespace(metadata={}))
    assert facts == ModelFacts()
    assert (facts.prediction_type, facts.guidance(None), facts.content_hash) == (None, 1.0, "")
    assert facts.limit == Clipped()
    assert facts.process.config["beta_schedule"] == "linear"


def test_what_a_model_says_stands_and_what_is_no_such_fact_is_left_alone():
    said = {"noise_schedule": {"num_train_timesteps": 50}, "bounded": False, "guidance_scale": 2.0, "labels": {}}
    facts = ModelFacts.of(SimpleNamespace(metadata=said))
    assert facts.process.num_train_timesteps == 50
    assert facts.limit is unlimited
    assert (facts.guidance(None), facts.guidance(0.0)) == (2.0, 0.0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 7.5])
def test_an_identity_tells_its_guidance(scale):
    assert guidance_in(identity_of("abc fp16", scale)) == scale
    assert guidance_in("abc fp16") is None
    assert guidance_in("a model with guidance of its own") is None
