"""What a model says of itself, what holds where it says nothing, and the guidance in an identity."""

from types import SimpleNamespace

import pytest

from adaptive_diffusion.baseline.picture_models import PlainModel
from adaptive_diffusion.diffusion.facts import ModelFacts
from adaptive_diffusion.diffusion.guidance import guidance_in, identity_of
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.limits import Clipped, unlimited
from adaptive_diffusion.errors import Unusable


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


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"prediction_type": "v"}, "prediction_type must be one of epsilon, v_prediction, sample, got 'v'"),
        ({"noise_schedule": {"beta_schedul": "linear"}}, "noise_schedule must have some of .*, got beta_schedul"),
        ({"noise_schedule": "linear"}, "noise_schedule must have some of .*, got 'linear'"),
        ({"noise_schedule": {"beta_start": 2}}, "betas must satisfy"),
        ({"guidance_scale": "strong"}, "guidance_scale must be a number"),
        ({"bounded": "no"}, "bounded must be true or false, got 'no'"),
        ({"noise_schedule": {"rescale_betas_zero_snr": "no"}}, "rescale_betas_zero_snr must be true or false"),
    ],
)
def test_what_a_model_says_is_refused_where_it_cannot_be(said, sentence):
    with pytest.raises(Unusable, match=f"the metadata of the model: {sentence}"):
        ModelFacts.of(SimpleNamespace(metadata=said))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"predicton_type": "v_prediction"},
            "a fact of a PlainModel must be one of .*, got 'predicton_type'",
        ),
        ({"noise_schedule": {"beta_schedul": "linear"}}, "got beta_schedul"),
        ({"identity": None}, "identity must be a text, got None; leave it out"),
        ({"identity": 3}, "identity must be a text, got 3"),
        ({"state_shape": (8, 8)}, r"state_shape must be \(height, width, channels\)"),
        ({"state_shape": (8.5, 8, 3)}, "height of state_shape must be a whole number"),
    ],
)
def test_a_misspelt_fact_of_a_plain_model_is_refused(said, sentence):
    with pytest.raises(ValueError, match=sentence):
        PlainModel(lambda x, t, condition: x, **{"state_shape": (8, 8, 3), **said})


@pytest.mark.parametrize("given", [[8, 8, 3], (8.0, 8, 3)])
def test_the_shape_of_a_state_is_a_tuple_of_whole_numbers_however_it_was_given(given):
    plain = PlainModel(lambda x, t, condition: x, given)
    for found in (plain.state_shape, GuidedModel(plain, state_shape=given).state_shape):
        assert found == (8, 8, 3)
        assert all(type(length) is int for length in found)
    assert plain.picture_size == (8, 8)
