"""Since when a thread compiles, by what jax tells of it."""

import threading
import time
import weakref

import jax
import jax.numpy as jnp
import pytest

from engine.xla import compilations
from engine.xla.compilations import COMPILED, LOWERED, Compilations


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(compilations.time, "monotonic", lambda: now[0])
    return now


def test_programs_that_follow_one_another_are_one_wait(clock):
    here = Compilations()
    here.begin()
    assert here.since is None
    clock[0] += 0.5
    here.note(LOWERED, 0.5)
    assert (here.since, here.seconds) == (100.0, 0.5)
    clock[0] += 30  # a long one is still under way
    assert here.since == 100.0
    here.note(COMPILED, 30.0)
    clock[0] += 1.5  # the next is traced
    here.note(LOWERED, 0.1)
    clock[0] += 2
    here.note(COMPILED, 2.0)
    assert (here.since, here.seconds) == (100.0, 34.0)
    clock[0] += 60  # a step is taken
    assert (here.since, here.seconds) == (None, 34.0)
    here.note(LOWERED, 1.0)
    assert (here.since, here.seconds) == (193.0, 35.0)
    here.begin()
    assert (here.since, here.seconds) == (None, 0.0)


def test_jax_tells_of_what_this_thread_compiles_and_of_nothing_else():
    here = Compilations()
    here.begin()

    def once(number: float) -> None:
        jax.jit(lambda x: jnp.sin(x) * number)(jnp.ones(3)).block_until_ready()

    beside = threading.Thread(target=once, args=(time.monotonic(),))
    beside.start()
    beside.join()
    assert here.since is None
    once(time.monotonic())
    assert here.seconds > 0
    assert here.since is not None
    known = weakref.ref(here)
    del here
    assert known() is None  # whoever is told is not kept
