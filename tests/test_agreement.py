"""The comparison of two runs that the table of devices in `.github/NUMBERS.md` is made with."""

import sys

import pytest

import engine

from places import TESTS

sys.path.insert(0, str(TESTS / "bench"))

from agreement import QUANTITIES, compare


def short(name, *overrides):
    return engine.run("toy", overrides=["budget.steps=40", "tracking.flow=false", *overrides], name=name)


def test_a_run_agrees_with_itself_and_not_with_one_of_another_start(x64):
    one, other = short("one"), short("other", "problem.x0=0.303")
    alike = compare(one, one, 1e-15)
    assert alike["loss_before_edge"] == 0
    assert all(alike[label] == {"largest_first_20": 0, "steps_within": None} for label in QUANTITIES)
    differences = compare(one, other, 1e-3)
    assert differences["edge"][0] == differences["edge"][1]
    assert differences["|x|"]["steps_within"] == 0
    assert differences["|x|"]["largest_first_20"] == pytest.approx(0.003 / 2**0.5, rel=0.2)  # |x| is small against δ = √2
    assert differences["S(θ†)"]["steps_within"] is None


def test_runs_without_an_edge_are_not_compared(x64):
    run = short("run")
    never = {**run, "constrained.loss": run["constrained.loss"] * float("nan")}
    with pytest.raises(SystemExit, match="share no step"):
        compare(never, run, 1e-2)
