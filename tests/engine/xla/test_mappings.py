"""Compiled code makes room before its mappings of memory are more than Linux allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine.xla import mappings

from small import compilations, toy_spec

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.skipif(not (mappings.MAPPED.exists() and mappings.ALLOWED.exists()), reason="this system tells of no bound"),
]


@pytest.fixture
def allowed(tmp_path, monkeypatch):
    """Sets how many mappings the system seems to allow."""

    def allow(count) -> None:
        (tmp_path / "allowed").write_text(f"{count}\n")

    monkeypatch.setattr(mappings, "ALLOWED", tmp_path / "allowed")
    return allow


def taken() -> int:
    return mappings.MAPPED.read_bytes().count(b"\n")


def test_compiled_functions_are_let_go_of_where_they_take_more_than_a_quarter_of_what_is_allowed(allowed):
    allowed(10**9)
    mappings.make_room()
    functions = [jax.jit(lambda x, k=k: jnp.sin(x + k)) for k in range(40)]
    for function in functions:
        function(1.0)
    before = taken()
    assert not mappings.make_room()
    with compilations() as compiled:
        functions[0](1.0)
    assert not compiled
    allowed(4 * before - 4)
    assert mappings.make_room()
    assert taken() <= before - len(functions)
    with compilations() as compiled:
        assert functions[0](1.0) == np.sin(1.0)
    assert compiled


@pytest.mark.parametrize("bound", ["", "none"])
def test_nothing_is_let_go_of_where_the_system_tells_of_no_bound(allowed, bound):
    allowed(bound)
    assert not mappings.make_room()
    mappings.ALLOWED.unlink()
    assert not mappings.make_room()


def test_a_run_goes_on_to_the_same_rows_when_another_that_begins_lets_go_of_its_code(allowed):
    allowed(10**9)
    whole = engine.run(toy_spec(landscape_every=20), steps=60)
    rows = engine.stream(toy_spec(landscape_every=20), steps=60)
    first = [next(rows) for _ in range(15)]
    allowed(1)
    other = engine.run(toy_spec(x0=0.2), steps=30)
    allowed(10**9)
    after = [*first, *rows]
    assert other.outcome.kind == "completed"
    for name in ("gd.loss", "gd.x", "constrained.sharpness", "flow.sharpness"):
        np.testing.assert_array_equal([row[name] for row in after], whole[name])
