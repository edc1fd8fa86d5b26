"""While many modules are imported, Python does not search for garbage."""

from __future__ import annotations

import gc

import pytest

from adaptive_diffusion.imports import importing


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_the_search_rests_within_and_goes_on_afterwards():
    with importing():
        assert not gc.isenabled()
        with importing():
            pass
        assert not gc.isenabled()  # an inner block ends nothing
        kept = [object()]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert all(found is not kept for found in gc.get_objects())


def test_an_error_or_a_search_that_was_off_changes_nothing():
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()

    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
