"""Labels by share: what images of a domain are conditioned on, whatever draws them."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.diffusion import GuidedModel
from adaptive_diffusion.diffusion.conditions import Mixture, Same, conditions_of
from adaptive_diffusion.diffusion.first_prediction import condition_of
from adaptive_diffusion.diffusion.node import node_at
from adaptive_diffusion.models.checkpoint import load_builtin_model

COUNTS = (230, 2046, 1332, 1343, 1425, 284, 181)
MIXTURE = Mixture(tuple((2, 4 + label) for label in range(7)), COUNTS)


def labels(seed: int, images: range, mixture: Mixture = MIXTURE) -> np.ndarray:
    return np.array(mixture.rows(seed, images))[:, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_labels_of_a_thousand_images_follow_the_shares(seed: int) -> None:
    """The star discrepancy of this sequence is below 3 ln(n) / n; an interval takes twice that."""
    drawn = np.bincount(labels(seed, range(1000)) - 4, minlength=7) / 1000
    np.testing.assert_allclose(drawn, np.array(COUNTS) / sum(COUNTS), atol=0.01)


def test_a_few_images_show_most_of_what_is_frequent() -> None:
    """Four of seven labels have nine tenths of the images; independent draws would miss one of them in every third."""
    for seed in range(50):
        assert {5, 6, 7, 8} <= set(labels(seed, range(8)).tolist())


def test_an_image_has_its_label_whatever_is_drawn_with_it() -> None:
    whole = labels(3, range(100))
    for size in (1, 7, 64):
        parts = [labels(3, range(first, min(first + size, 100))) for first in range(0, 100, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (labels(3, range(999_990, 1_000_000)) >= 4).all()


def test_seeds_begin_elsewhere() -> None:
    first = np.array([labels(seed, range(1))[0] for seed in range(1000)])
    np.testing.assert_allclose(np.bincount(first - 4) / 1000, np.array(COUNTS) / sum(COUNTS), atol=0.05)
    assert (labels(2**80, range(5)) >= 4).all()


@pytest.mark.parametrize("shares", [(0, 1, 0, 2), (1, 0, 0, 0), (0, 0, 0, 1e-9)])
def test_a_label_of_no_image_is_never_drawn(shares: tuple[float, ...]) -> None:
    mixture = Mixture(((1, 1), (1, 2), (1, 3), (1, 4)), shares)
    drawn = labels(0, range(1000), mixture)
    assert set(drawn.tolist()) == {label + 1 for label in range(4) if shares[label]}


@pytest.mark.parametrize("shares", [(1.0,), (0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_shares_out_of_range_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares must be 2 numbers >= 0"):
        Mixture(((1, 1), (1, 2)), shares)


def test_the_shipped_model_draws_the_labels_that_it_was_trained_with() -> None:
    model = load_builtin_model()
    found = {domain: conditions_of(model, domain, None, "") for domain in model.domains or {}}
    assert {domain: str(conditions) for domain, conditions in found.items()} == {
        "portraits": "3, by their share in the training data",
        "landscapes": "7, by their share in the training data",
        "abstract": "47, by their share in the training data",  # one of 48 has no image
        "general": "143, by their share in the training data",
    }
    assert found["landscapes"].content == [
        [list(model.condition("landscapes", label, "")), count]
        for label, count in zip((model.domains or {})["landscapes"], COUNTS, strict=True)
    ]


def test_a_model_that_does_not_say_the_shares_draws_its_labels_equally_often() -> None:
    conditions = conditions_of(tiny_model(), "landscapes", None, "")
    assert conditions == Mixture(((2, 2), (2, 3)), (1, 1))
    assert str(conditions) == "2, in equal shares"


@pytest.mark.parametrize(
    ("model", "domain", "label", "ids"),
    [
        (tiny_model(), "landscapes", "none", (2, 0)),
        (tiny_model(), "landscapes", "forest", (2, 2)),
        (tiny_model(), "portraits", None, (1, 1)),  # the only label
        (tiny_model(), "abstract", None, (3, 0)),  # without labels
        (tiny_model(label_counts={"landscapes": [0, 4]}), "landscapes", None, (2, 3)),
        (tiny_model(label_counts={"landscapes": [0, 0]}), "landscapes", None, (2, 0)),  # trained without labels
        (SimpleNamespace(conditional=False, domains=None, metadata={}, condition=lambda *a: ()), "x", None, ()),
        (SimpleNamespace(conditional=False, domains={"a": ["b"]}, metadata={}, condition=lambda *a: ()), "a", None, ()),
        (SimpleNamespace(conditional=True, domains=None, metadata={}, condition=lambda *a: (5,)), "x", None, (5,)),
    ],
)
def test_what_leaves_no_choice_is_the_same_for_all_images(model, domain: str, label, ids: tuple[int, ...]) -> None:
    conditions = conditions_of(model, domain, label, "a text")
    assert conditions == Same(ids)
    assert str(conditions) == ""
    rows = conditions.rows(0, range(3))
    assert (rows is None) if not ids else (rows.tolist() == [list(ids)] * 3)


def test_what_the_model_lacks_is_refused() -> None:
    for label in (None, "none", "forest"):
        with pytest.raises(ValueError, match="no domain 'cats'"):
            conditions_of(tiny_model(), "cats", label, "")
    with pytest.raises(ValueError, match="no label 'mud'"):
        conditions_of(tiny_model(), "landscapes", "mud", "")


def test_a_model_takes_the_conditions_of_the_images_of_a_seed() -> None:
    network = tiny_model()
    model = GuidedModel.from_model(network, conditions_of(network, "landscapes", None, ""), domain="landscapes")
    assert model.most_passes == model.passes_at(node_at(model.process, 500.0)) == 2
    assert condition_of(model) is None
    of_seed = model.of_images(4, 6)
    assert of_seed.condition is not None
    np.testing.assert_array_equal(np.array(of_seed.condition), np.array(model.mixture.rows(4, range(6))))
    assert of_seed.of_images(5, 2) is of_seed  # they are said
    assert of_seed.cost is model.cost

    x_T = model.noise(4, 6)
    t = mx.full((6,), 500.0)
    assert of_seed(x_T, t, of_seed.condition).shape == x_T.shape


def test_a_model_whose_images_nobody_named_is_not_evaluated_in_silence() -> None:
    model = GuidedModel.from_model(tiny_model(), MIXTURE)
    with pytest.raises(ValueError, match="nobody said which images these are"):
        model.denoise(model.noise(0, 2), node_at(model.process, 500), np.arange(2))
    with pytest.raises(ValueError, match="both given"):
        GuidedModel.from_model(tiny_model(), MIXTURE, condition=mx.array([[1, 1]]))
