"""The rows in memory: exact extremes, exact values, and a cost that does not grow with the run."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.record.columns import Column
from eos_tui.model.history import History
from eos_tui.model.last_values import with_values
from eos_tui.model.pyramid import BLOCK
from eos_tui.model.recent import Recent
from eos_tui.model.ruler import Ruler
from eos_tui.model.table import RAREST

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
    """The extremes between places on the axis; where parts are wide, they meet at multiples of 64 rows, or of 16 times that."""
    rows = np.searchsorted(steps, np.linspace(start, stop, bins + 1))
    rows[-1] = np.searchsorted(steps, stop, "right")
    inner = rows[1:-1]
    whole = inner[(inner > 0) & (inner < len(steps))]
    if rows[-1] - rows[0] >= 8 * BLOCK * max(bins - 2, 1) and len(whole) > 1:
        least = np.diff(whole).min() // 8
        size = max((size for size in (1, BLOCK, 16 * BLOCK, 256 * BLOCK) if size <= least), default=1)
        rows[1:-1] = np.minimum(-(-inner // size) * size, rows[-1])
    extremes = np.full((2, bins), np.nan)
    for k in range(bins):
        inside = values[rows[k] : rows[k + 1]]
        known = inside[np.isfinite(inside)]
        if len(known):
            extremes[:, k] = known.min(), known.max()
    return extremes


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


def stays_exact(pieces, bins, stop):
    """The envelope after each piece of a run is that of all the rows by then."""
    rows = noise(sum(pieces))
    history, done = History(COLUMNS), 0
    for piece in pieces:
        history.extend(rows[done : done + piece])
        done += piece
        for name, column in (("dense", 1), ("sparse", 2)):
            drawn = np.stack(history.envelope(name, 5, stop, bins))
            np.testing.assert_array_equal(drawn, brute_force(rows[:done, 0], rows[:done, column], 5, stop, bins))


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.integers(1, 900), min_size=1, max_size=8), bins=st.integers(1, 120), stop=st.integers(10, 9000))
def test_an_envelope_that_grows_with_the_run_stays_exact(pieces, bins, stop):
    stays_exact(pieces, bins, stop)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2000, 60_000), bins=st.integers(1, 60), window=st.tuples(st.floats(-0.2, 1.0), st.floats(0.1, 1.3)))
def test_wide_parts_meet_within_an_eighth_of_where_they_would(count, bins, window):
    steps = np.cumsum(np.random.default_rng(count).integers(1, 4, count)).astype(float)
    history = history_of(np.stack([steps, steps, steps], axis=1))
    start = steps[-1] * window[0]
    stop = start + steps[-1] * window[1]
    rows, exact = history.edges(start, stop, bins), np.searchsorted(steps, np.linspace(start, stop, bins + 1))
    assert (np.diff(rows) >= 0).all()
    assert rows[0] == exact[0]
    assert rows[-1] == np.searchsorted(steps, stop, "right")
    moved, width = (rows - exact)[1:-1], np.diff(exact)[:-1]
    if moved.any():
        among = (exact[1:-1] > 0) & (exact[1:-1] < count)
        assert (moved >= 0).all()
        assert (8 * moved[among][1:] <= width[among][1:]).all()  # each of them but the first, whose part may begin before the rows


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.integers(1, 9000), min_size=1, max_size=8), bins=st.integers(1, 12), stop=st.integers(10, 90_000))
def test_wide_parts_stay_exact_as_the_run_grows(pieces, bins, stop):
    stays_exact(pieces, bins, stop)


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


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 4000), chunks=st.integers(1, 9), known=st.lists(st.integers(0, 3999), max_size=4))
def test_last_values_and_endings_do_not_depend_on_how_the_rows_came(count, chunks, known):
    rows = noise(count)
    rows[:, 2] = np.nan
    held = sorted({row for row in known if row < count})
    rows[held, 2] = held
    history = History(COLUMNS)
    for part in np.array_split(rows, chunks):
        history.extend(part)
    np.testing.assert_equal(history.latest()["sparse"], held[-1] if held else np.nan)
    missed = count - held[-1] if held else 0
    ended = missed > (held[-1] - held[-2] if len(held) > 1 else RAREST)
    ending = history.ending("sparse")
    assert (ending.step if ending else None) == (rows[held[-1] + 1, 0] if ended else None)


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


@settings(max_examples=40, deadline=None)
@given(
    begun=st.integers(0, 300), parts=st.lists(st.integers(1, 90), max_size=8), bins=st.integers(1, 90),
    window=st.tuples(st.floats(-0.2, 0.9), st.floats(0.05, 1.5)), strand=st.sampled_from((None, 0, 1)), seen=st.booleans(),
)
def test_a_picture_goes_on_with_the_run_as_if_it_were_made_anew(begun, parts, bins, window, strand, seen):
    rows = noise(begun + sum(parts))
    rows[::17, 1], rows[::23, 1] = np.nan, np.inf
    start, span = window[0] * (rows[-1, 0] if len(rows) else 1.0), window[1] * (rows[-1, 0] if len(rows) else 1.0)
    asked = start, start + span, bins
    growing, count = history_of(rows[:begun]), begun
    for part in parts:
        if seen:
            growing.envelope("dense", *asked, strand=strand)
        growing.extend(rows[count : count + part])
        count += part
        fresh = history_of(rows[:count])
        np.testing.assert_array_equal(growing.envelope("dense", *asked, strand=strand), fresh.envelope("dense", *asked, strand=strand))
        edges = fresh.edges(*asked)
        for k, last in enumerate(growing.lasts("sparse", *asked)):
            np.testing.assert_equal(last, rows[edges[k + 1] - 1, 2] if edges[k + 1] > edges[k] else -np.inf)


@given(st.lists(st.lists(st.sampled_from((np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -1e308, 5e-324)), min_size=3, max_size=3), min_size=1))
def test_a_column_has_values_where_one_is_finite(rows):
    np.testing.assert_array_equal(with_values(np.array(rows)), np.isfinite(rows).any(axis=0))


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


def test_an_envelope_of_a_million_rows_looks_at_the_ragged_ends_of_its_parts_alone(rows_looked_at):
    t = np.arange(1_000_000.0)
    history = history_of(np.stack([t, np.sin(t), t], axis=1))
    history.envelope("dense", 0, 1_000_000, 200)
    rows_looked_at.clear()
    history.envelope("dense", 0.1, 1_000_000, 200)
    assert 0 < sum(rows_looked_at) <= 2 * BLOCK * 200


# -- rows on disk, strands, means, a replay's limit, other axes


def recorded(path, rows, chunks):
    """The rows in a file, and a history that keeps only the newest of them."""
    path.write_bytes(b"")
    history = History(COLUMNS, path)
    for part in np.array_split(rows, chunks):
        with open(path, "ab") as handle:
            handle.write(part.astype("<f8").tobytes())
        history.extend(part)
    return history


@pytest.mark.parametrize(("count", "chunks"), [(1, 1), (900, 3), (5000, 1), (5000, 17), (40_000, 5)])
def test_rows_left_on_disk_make_the_same_picture(tmp_path, count, chunks):
    rows = noise(count)
    held, left = history_of(rows, chunks), recorded(tmp_path / "rows", rows, chunks)
    end = rows[-1, 0]
    for window in ((0, end, 150), (end / 3, end / 2, 40), (end * 0.9, end * 1.1, 7)):
        for name in ("dense", "sparse"):
            for strand in (None, 0, 1):
                one, other = held.envelope(name, *window, strand=strand), left.envelope(name, *window, strand=strand)
                np.testing.assert_array_equal(np.stack(one), np.stack(other))
    for name in ("dense", "sparse"):
        np.testing.assert_array_equal(held.column(name), left.column(name))
        assert held.last(name) == left.last(name) or np.isnan(held.last(name))
        assert held.ending(name) == left.ending(name)
    assert [held.at("dense", step) for step in (0, end / 7, end)] == [left.at("dense", step) for step in (0, end / 7, end)]


def test_memory_stays_while_a_million_rows_stream_by(tmp_path):
    step = 20_000
    (tmp_path / "rows").write_bytes(b"")
    tracemalloc.start(8)
    try:
        history = History(COLUMNS, tmp_path / "rows")
        history.prepare(["dense", "sparse"])
        for start in range(0, 400_000, step):
            rows = noise(step)
            rows[:, 0] = np.arange(start, start + step)
            with open(tmp_path / "rows", "ab") as handle:
                handle.write(rows.tobytes())
            history.extend(rows)
        ours = tracemalloc.Filter(True, "*/eos_tui/model/*", all_frames=True)
        kept = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)
    finally:
        tracemalloc.stop()
    assert kept < 0.1 * 400_000 * 3 * 8
    assert history.envelope("dense", 0, 400_000, 100).lo.max() < -2


def test_a_record_that_vanishes_leaves_gaps_and_raises_nothing(tmp_path):
    history = recorded(tmp_path / "rows", noise(20_000), 4)
    (tmp_path / "rows").write_bytes(b"")
    assert np.isnan(history.value("dense", 5))
    assert len(history.envelope("dense", 0, 40_000, 100).lo) == 100


def test_strands_are_the_even_and_the_odd_rows():
    t = np.arange(3000.0)
    history = history_of(np.stack([t, (-1) ** t * (1 + t), t], axis=1), chunks=4)
    even, odd = (history.envelope("dense", 0, 3000, 50, strand=strand) for strand in (0, 1))
    assert (even.lo > 0).all()
    assert (odd.hi < 0).all()
    assert even.hi[-1] == 2999
    assert odd.lo[-1] == -3000


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 5000), width=st.integers(1, 900))
def test_means_are_those_of_the_finite_values(count, width):
    rows = noise(count)
    history = history_of(rows, 3)
    first = np.arange(0, count, max(count // 20, 1))
    last = np.minimum(first + width, count)
    for name, values in (("dense", rows[:, 1]), ("sparse", rows[:, 2])):
        for mean, a, b in zip(history.means(name, first, last), first, last, strict=True):
            known = values[a:b][np.isfinite(values[a:b])]
            assert np.isnan(mean) if not len(known) else mean == pytest.approx(known.mean(), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 3000), limits=st.lists(st.integers(0, 3000), min_size=1, max_size=6), chunks=st.integers(1, 4))
def test_with_a_limit_only_the_rows_before_it_are_seen(count, limits, chunks):
    rows = noise(count)
    rows[count // 2 :, 2] = np.nan
    whole = history_of(rows, chunks)
    for limit in limits:
        whole.limit = limit
        short = history_of(rows[:limit])
        assert len(whole) == len(short)
        for name in ("dense", "sparse"):
            assert whole.last(name) == short.last(name) or np.isnan(short.last(name))
            assert whole.ending(name) == short.ending(name)
            np.testing.assert_array_equal(
                np.stack(whole.envelope(name, 0, 4000, 60)), np.stack(short.envelope(name, 0, 4000, 60))
            )


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=400), chunks=st.integers(1, 6),
    asked=st.lists(st.one_of(st.integers(-5, 1700), st.floats(-5, 1700)), max_size=20),
)
def test_a_ruler_finds_rows_as_a_search_through_all_of_them(steps, chunks, asked):
    values = np.cumsum(np.array(steps, float)) - 1
    ruler, row = Ruler(0), 0
    for part in np.array_split(values, chunks):
        ruler.feed([ruler], part[None], row)
        row += len(part)
    np.testing.assert_array_equal(ruler.at(np.arange(len(values))), values)
    for side in ("left", "right"):
        np.testing.assert_array_equal(ruler.search(np.array(asked, float), side), np.searchsorted(values, asked, side))


def test_the_axis_of_time_runs_at_the_learning_rate_and_beyond_the_last_row():
    t = np.arange(600.0)
    time_of = np.cumsum(np.where(t < 300, 0.02, 0.05)) - 0.02
    history = history_of(np.stack([t, time_of, t], axis=1), 5)
    for step in (0, 10.5, 300, 599, 700):
        expected = np.interp(step, t, time_of) if step < 600 else time_of[-1] + 0.05 * (step - 599)
        assert history.position(step, "dense") == pytest.approx(expected, abs=1e-9)
        assert history.step_at(expected, "dense") == pytest.approx(step, abs=1e-6)


def test_what_was_made_is_kept_by_its_key_and_forgotten_with_too_many():
    made, recent = [], Recent(2)

    def of(key):
        return recent.of(key, lambda: made.append(key) or f"value of {key}")

    assert [of(1), of(2), of(1), of(2)] == ["value of 1", "value of 2", "value of 1", "value of 2"]
    assert made == [1, 2]
    of(3)
    of(1)
    assert made == [1, 2, 3, 1]
