"""While many modules are imported, the garbage collector rests."""

from __future__ import annotations

import gc

import pytest

from adaptive_diffusion.imports import without_garbage_collection


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_the_collector_rests_within_and_goes_on_afterwards():
    with without_garbage_collection():
        assert not gc.isenabled()
        with without_garbage_collection():
            pass
        assert not gc.isenabled()  # an inner block ends nothing
        kept = [object()]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert all(found is not kept for found in gc.get_objects())


def test_an_error_or_a_collector_that_was_off_changes_nothing():
    with pytest.raises(ImportError), without_garbage_collection():
        raise ImportError
    assert gc.isenabled()

    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
