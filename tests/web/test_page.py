"""What the fields of the page hold when it is opened, without a browser."""

from __future__ import annotations

from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from adaptive_diffusion.web.bounds import Offer, Offers  # noqa: E402
from adaptive_diffusion.web.page import page  # noqa: E402
from adaptive_diffusion.web.sessions import Sessions  # noqa: E402
from adaptive_diffusion.web.worker import Worker  # noqa: E402


def fields(tmp_path: Any, domain: str) -> dict[str, Any]:
    """The fields of a page by their labels; the first model draws one domain."""
    offers = Offers((Offer("mine", (), {domain: ()}),), ("adaptive", "ddim"), ("default",), ())
    worker = Worker()
    try:
        blocks = page(offers, worker, Sessions(tmp_path)).blocks.values()
    finally:
        worker.close()
    return {str(each.label): each for each in blocks if getattr(each, "label", None)}


@pytest.mark.parametrize(
    ("drawn", "shown"), [("landscapes", "landscapes"), ("portraits", "portraits"), ("cats", "abstract")]
)
def test_what_was_measured_is_shown_of_the_domain_that_is_drawn(drawn: str, shown: str, tmp_path: Any) -> None:
    assert fields(tmp_path, drawn)["Domain that was measured"].value == shown


def test_gradio_refuses_no_seed_itself_since_its_sentence_would_not_name_the_field(tmp_path: Any) -> None:
    seed = fields(tmp_path, "landscapes")["Seed"]
    assert [seed.preprocess(given) for given in (-1, 1e20, None)] == [-1, 10**20, None]


def test_the_field_of_a_slider_may_be_empty_while_another_number_is_typed(tmp_path: Any) -> None:
    sliders = [each for each in fields(tmp_path, "landscapes").values() if isinstance(each, gr.Slider)]
    assert {each.preprocess(None) for each in sliders} == {None}


def test_gradio_refuses_no_domain_nor_label_itself_as_their_lists_change_while_events_wait(tmp_path: Any) -> None:
    made = fields(tmp_path, "landscapes")
    assert [made[label].preprocess("of before") for label in ("Domain", "Label")] == ["of before", "of before"]
