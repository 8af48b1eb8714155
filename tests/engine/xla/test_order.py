"""Whoever comes first, jax or eos, sums are right, or every function that computes refuses in one sentence."""

import os
import subprocess
import sys

import pytest

from engine.base import xla_flags
from engine.base.errors import UserError
from engine.xla import device

pytestmark = pytest.mark.skipif(xla_flags.jaxlib_release() >= xla_flags.KNOWS_THE_FLAG, reason="sums of this jaxlib are not switched")

SUMS = """
total = jax.jit(lambda column: jnp.sum(jnp.broadcast_to(column, (2, 1024, 1024))))
print(sum(float(total(jnp.ones((1024, 1), "float32"))) != 2.0**21 for _ in range(50)), "wrong")
"""
COMPUTED = "jnp.ones(3).sum().block_until_ready()\n"
BOTH = "import jax, os\nimport jax.numpy as jnp\nimport engine\n"


def printed(script: str, **environment: str) -> str:
    """What a script prints that finds no XLA_FLAGS."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True).stdout


def test_the_version_of_jaxlib_is_read_from_its_file():
    import jaxlib

    assert jaxlib.__version__.startswith("{}.{}.".format(*xla_flags.jaxlib_release()))


@pytest.mark.parametrize("order", [
    BOTH + COMPUTED,
    pytest.param("import engine\nimport jax\nimport jax.numpy as jnp\n" + COMPUTED, marks=pytest.mark.slow),  # as all the others begin
    pytest.param(  # in place of what the import has set
        BOTH + "os.environ['XLA_FLAGS'] = '--xla_cpu_enable_fast_math=false'\n", marks=pytest.mark.slow,
    ),
], ids=["jax-eos", "eos-jax", "flags-set-between"])  # fmt: skip
def test_imports_in_any_order_give_right_sums(order):
    door = "engine.configure()\nengine.from_loss(lambda w: w @ w, jnp.ones(3))\n"
    assert printed(order + door + SUMS) == "0 wrong\n"


DOORS = """
def said(call):
    try:
        return call()
    except engine.UserError as error:
        return error

loss, ones = lambda w: w @ w, jnp.ones(3)
for call in (
    engine.configure, lambda: engine.from_loss(loss, ones), lambda: engine.from_flax(None, ones, ones),
    lambda: engine.Problem(lambda theta, data: theta @ theta, ()), lambda: engine.complaints(None, ones),
    lambda: engine.top_eigenpairs(None, ones, ones), lambda: engine.center_at(None, ones), lambda: engine.stable_point(None, ones, 0.1),
    lambda: engine.constrained_step(None, ones, 0.1), lambda: engine.predicted_step(None, None, None, ones, 0.1),
    lambda: engine.displacement(ones, None), lambda: engine.run("phase"), lambda: next(engine.stream("phase")),
):
    print(said(call))
print(engine.load("first") if (engine.record.store.home() / "first").exists() else "nothing made")
print(engine.run("phase", steps=7, name="first", apart=True)["step"].astype(int).tolist())
print(sum(1 for _ in engine.stream("phase", steps=7, apart=True)))
"""


def test_where_jax_began_first_every_door_refuses_and_a_process_of_its_own_works(own_home):
    """Of 50 sums 37 were wrong, and no word of it."""
    lines = printed("import jax.numpy as jnp\n" + COMPUTED + "import engine, engine.record.store\n" + DOORS).splitlines()
    refused, (nothing, steps, rows) = lines[:-3], lines[-3:]
    assert len(refused) == 13
    for sentence in refused:
        assert "would add up wrong on this CPU: write `import engine` before jax's first computation" in sentence
    assert all(sentence.endswith("; or give this run a process of its own with apart=True") for sentence in refused[-2:])
    assert (nothing, steps, rows) == ("nothing made", "[0, 1, 2, 3, 4, 5, 6]", "7")


@pytest.mark.parametrize(("given", "said"), [
    (f"{xla_flags.SAFE_FUSIONS}LIBRARY_FUSION_TYPE_REDUCE", "XLA_FLAGS: has .*REDUCE, with which jaxlib .* adds up wrong on a CPU; leave"),
    ("/home/me/flags", f"XLA_FLAGS: a file of flags, .* on a CPU without {xla_flags.SAFE_FUSIONS}; write it there"),
    ("", "jax has begun in this process before eos"),
])  # fmt: skip
def test_a_setting_of_the_user_is_left_alone_and_named_where_it_is_wrong(given, said, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(device, "sums_are_right", lambda: False)
    xla_flags.correct_sums()
    monkeypatch.setattr(xla_flags, "early_settings", set())
    if given:
        assert os.environ["XLA_FLAGS"] == given
    with pytest.raises(UserError, match=said):
        device.require_correct_sums()


def test_compiled_code_tells_whether_sums_are_right(x64):
    """Also in the middle of a trace, where a first question may come."""
    import jax
    import jax.numpy as jnp

    device.sums_are_right.cache_clear()
    assert jax.jit(lambda x: x * device.sums_are_right())(jnp.ones(())) == 1


def test_memory_that_cannot_be_put_first_is_reported(capfd, x64, monkeypatch):
    monkeypatch.setattr(xla_flags, "has_begun", lambda: True)
    device.configure(sparing=True)
    assert "memory is not put first" in capfd.readouterr().err
