"""One run followed: what its directory says, and nothing else."""

import math

import pytest

from eos_tui.source import Source

from synthetic import EDGE, make_run, rows_of


def test_a_torn_last_row_is_not_shown_and_comes_when_it_is_whole(runs):
    run = make_run(runs, steps=200)
    body = rows_of(run, 200, 201).tobytes()
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(body[:100])
    source = Source(run)
    source.take(source.read())
    assert len(source.history) == 200
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(body[100:])
    source.take(source.read())
    assert len(source.history) == 201


def test_values_of_the_approach_are_not_shown_as_those_of_the_edge(runs):
    source = Source(make_run(runs, steps=EDGE - 10))
    source.take(source.read())
    row = source.row()
    assert math.isnan(row["gd.x"])
    assert row["gd.sharpness"] == pytest.approx(20 + 0.8 * (EDGE - 11))
