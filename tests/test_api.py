"""The engine from a script."""

import subprocess
import sys

import numpy as np
import pytest

import engine
from engine.errors import UserError

from small import toy_spec

pytestmark = pytest.mark.usefixtures("x64")


def test_a_script_runs_a_preset_and_reads_named_columns(own_home):
    record = engine.run("toy", overrides=["budget.steps=50", "tracking.flow=false"], name="mine")
    assert record.outcome.kind == "completed"
    np.testing.assert_array_equal(record["step"], np.arange(50))
    assert record["gd.x"].shape == (50,)
    assert (own_home / "mine" / "metrics.f64").is_file()
    again = engine.load("mine")
    np.testing.assert_array_equal(again["gd.loss"], record["gd.loss"])
    assert again.spec == record.spec
    with pytest.raises(KeyError, match=r"gd\.sharp: not recorded"):
        record["gd.sharp"]


def test_a_stream_gives_rows_as_they_come_and_stops_when_closed():
    rows = engine.stream(toy_spec(), name="streamed")
    steps = [next(rows)["step"] for _ in range(5)]
    rows.close()
    assert steps == [0, 1, 2, 3, 4]
    assert engine.load("streamed").outcome.kind == "stopped"


def test_bad_input_is_a_user_error():
    with pytest.raises(UserError, match='did you mean "toy"'):
        engine.run("toi")
    with pytest.raises(UserError, match="neither a run's name nor a run directory"):
        engine.load("no/such/run")


def test_importing_the_engine_is_cheap():
    code = "import sys, engine, engine.store, engine.control, engine.theory; print('jax' in sys.modules, 'flax' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]
