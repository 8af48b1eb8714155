"""The rows in memory: exact extremes, exact values, and a cost that does not grow with the run."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.columns import Column
from eos_tui.series import History

COLUMNS = tuple(Column(name, name, name, "", "", "") for name in ("step", "dense", "sparse"))


def history_of(rows, chunks=1):
    history = History(COLUMNS)
    for part in np.array_split(np.asarray(rows, float).reshape(-1, 3), chunks):
        history.extend(part)
        history.last("dense")  # builds the pyramid piece by piece
    return history


def noise(count, seed=0):
    rng = np.random.default_rng(seed)
    sparse = np.where(rng.random(count) < 0.9, np.nan, rng.normal(size=count))
    return np.stack([np.cumsum(rng.integers(1, 4, count)), rng.normal(size=count), sparse], axis=1)


def brute_force(steps, values, start, stop, bins):
    edges = np.linspace(start, stop, bins + 1)
    found = np.full((2, bins), np.nan)
    for k in range(bins):
        inside = (steps >= edges[k]) & ((steps < edges[k + 1]) if k < bins - 1 else (steps <= stop))
        known = values[inside & np.isfinite(values)]
        if len(known):
            found[:, k] = known.min(), known.max()
    return found


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 6000), chunks=st.integers(1, 9), bins=st.integers(1, 240),
    window=st.tuples(st.floats(-0.2, 1.2), st.floats(0.001, 1.3)),
)
def test_the_envelope_shows_every_minimum_and_maximum(count, chunks, bins, window):
    rows = noise(count)
    rows[count // 3, 1] = np.inf
    history = history_of(rows, chunks)
    start = rows[-1, 0] * window[0]
    stop = start + rows[-1, 0] * window[1]
    for name, values in (("dense", rows[:, 1]), ("sparse", rows[:, 2])):
        envelope = history.envelope(name, start, stop, bins)
        np.testing.assert_array_equal(np.stack(envelope), brute_force(rows[:, 0], values, start, stop, bins))


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.integers(1, 900), min_size=1, max_size=8), bins=st.integers(1, 120), stop=st.integers(10, 9000))
def test_an_envelope_that_grows_with_the_run_stays_exact(pieces, bins, stop):
    rows = noise(sum(pieces))
    history, done = History(COLUMNS), 0
    for piece in pieces:
        history.extend(rows[done : done + piece])
        done += piece
        for name, column in (("dense", 1), ("sparse", 2)):
            found = np.stack(history.envelope(name, 5, stop, bins))
            np.testing.assert_array_equal(found, brute_force(rows[:done, 0], rows[:done, column], 5, stop, bins))


def test_a_period_two_oscillation_keeps_its_whole_band():
    t = np.arange(100_000.0)
    history = history_of(np.stack([t, (-1) ** t, t], axis=1))
    lo, hi = history.envelope("dense", 0, 99_999, 200)
    assert (lo == -1).all()
    assert (hi == 1).all()


def test_values_read_under_the_cursor_are_the_stored_ones():
    rows = noise(500)
    history = history_of(rows, chunks=4)
    for k in (0, 17, 499):
        assert history.at("dense", rows[k, 0]) == (rows[k, 0], rows[k, 1])
    assert history.at("dense", -100)[0] == rows[0, 0]
    assert history.at("dense", 1e9) == (rows[-1, 0], rows[-1, 1])


def test_the_nearest_row_is_found_between_steps():
    history = history_of([(0, 1, 1), (10, 2, 1)])
    assert [history.at("dense", step)[1] for step in (4, 6)] == [1, 2]


def test_last_is_the_last_finite_value():
    rows = noise(300)
    rows[200:, 1] = np.nan
    rows[250, 1] = np.inf
    assert history_of(rows, chunks=7).last("dense") == rows[199, 1]


def test_without_rows_everything_is_nan_and_nothing_raises():
    history = History(COLUMNS)
    assert len(history) == 0
    assert np.isnan(history.last("dense"))
    assert np.isnan(history.at("dense", 3)).all()
    assert np.isnan(history.envelope("dense", 0, 1, 5).lo).all()


def test_a_column_the_run_does_not_record_is_a_key_error():
    history = history_of(noise(3))
    assert not history.has("flow.loss")
    with pytest.raises(KeyError, match=r"flow\.loss"):
        history.column("flow.loss")


def test_columns_cannot_be_written_through_their_view():
    history = history_of(noise(10))
    with pytest.raises(ValueError, match="read-only"):
        history.column("dense")[0] = 1


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="3 columns"):
        History(COLUMNS).extend(np.zeros((2, 4)))


def test_a_column_that_stops_has_an_ending_and_a_sparse_one_has_not():
    rows = np.full((100, 3), np.nan)
    rows[:, 0] = np.arange(100)
    rows[:60, 1] = 1.0
    rows[::7, 2] = 1.0
    history = history_of(rows)
    ending = history.ending("dense")
    assert ending is not None
    assert (ending.step, ending.infinite) == (60, False)
    assert history.ending("sparse") is None
    rows[60, 1] = -np.inf
    overflowed = history_of(rows).ending("dense")
    assert overflowed is not None
    assert overflowed.infinite


def test_an_envelope_of_a_million_rows_costs_hardly_more_than_one_of_ten_thousand():
    def seconds(count):
        t = np.arange(float(count))
        history = history_of(np.stack([t, np.sin(t), t], axis=1))
        history.envelope("dense", 0, count, 200)
        taken = []
        for k in range(40):
            start = time.perf_counter()
            history.envelope("dense", 0.1 * k, count, 200)
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert seconds(1_000_000) < 6 * seconds(10_000)  # one level more of the pyramid; 100 times if it read every row
