"""The garbage collector stands still for as long as any load asks for that, and is left as it was found."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gen_worker.residency.loaders.building import COLLECTOR


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.enable()
    yield
    if not was_on:
        gc.disable()


def test_the_last_that_ends_starts_it_again() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(COLLECTOR.stopped())
    second.enter_context(COLLECTOR.stopped())
    first.close()
    assert not gc.isenabled()
    second.close()
    assert gc.isenabled()


def test_an_error_starts_it_again() -> None:
    with pytest.raises(RuntimeError, match="no"), COLLECTOR.stopped():
        raise RuntimeError("no")
    assert gc.isenabled()


def test_whoever_had_stopped_it_keeps_that() -> None:
    gc.disable()
    with COLLECTOR.stopped():
        pass
    assert not gc.isenabled()
