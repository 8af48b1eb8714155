"""The running means over two bursts: against sums taken directly, the same however many rows come at once, and after a million steps."""

import math

import numpy as np
import pytest

from engine.phases import averages
from engine.phases.averages import Averages, begin, observe, window
from engine.record.columns import directions
from engine.xla.leaves import pack, unpack

SCALARS = [name for name in averages.MEANS if name.startswith("average")]
NUMBERS = 4
"""Directions that are recorded."""


def made(steps: int, epsilon=0.3, ranks=2, seed: int = 0) -> dict[str, np.ndarray]:
    """A table of x in so many directions, at each step `ranks` of them, and of losses of either sign of curvature."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((steps, NUMBERS)) * np.array([1.0, 0.3, 0.1, 0.03])
    x[np.arange(NUMBERS) >= np.broadcast_to(ranks, (steps,))[:, None]] = np.nan
    table = {f"gd.x{i + 1}": x[:, i] for i in range(NUMBERS)}
    for name in ("gd.loss", "gd.gradient_norm", "mean.loss", "mean.gradient_squared"):
        table[name] = random.uniform(0.1, 3, steps)
    return table | {
        "step": np.arange(steps), "constrained.epsilon": np.broadcast_to(epsilon, (steps,)).astype(float),
        "gd.x_norm": np.sqrt(np.nansum(x**2, axis=1)),
    }


def part(table: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: column[start:stop] for name, column in table.items()}


def in_parts(table: dict[str, np.ndarray], sizes: list[int]) -> tuple[Averages, dict[str, np.ndarray]]:
    """A table observed in parts of these sizes, over and over."""
    state, columns, start, k = begin(), [], 0, 0
    while start < len(table["step"]):
        state, means = observe(state, part(table, start, start + sizes[k % len(sizes)]))
        columns.append(means)
        start, k = start + sizes[k % len(sizes)], k + 1
    return state, {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}


def direct(table: dict[str, np.ndarray], at: int) -> dict[str, float]:
    """The means at one step, each a sum of its own."""
    last = part(table, at + 1 - int(window(table["constrained.epsilon"][at])), at + 1)
    rows = np.nan_to_num(np.stack([last[f"gd.x{i + 1}"] for i in range(NUMBERS)], axis=1))
    values = np.linalg.eigvalsh(np.mean([np.outer(row, row) for row in rows], axis=0))[::-1]
    return {
        "average.loss": math.fsum(last["gd.loss"]) / len(rows), "average.predicted_loss": math.fsum(last["mean.loss"]) / len(rows),
        "average.gradient_squared": math.fsum(last["gd.gradient_norm"] ** 2) / len(rows),
        "average.predicted_gradient_squared": math.fsum(last["mean.gradient_squared"]) / len(rows),
        "covariance.measured_trace": math.fsum(last["gd.x_norm"] ** 2) / len(rows),
    } | {f"covariance.measured_lambda{i + 1}": values[i] for i in range(NUMBERS)}


def test_two_bursts_are_two_periods_of_the_theory():
    assert window(0.1) == math.ceil(2 * 2 * math.pi / (math.sqrt(2) * 0.1)) == 89
    assert np.isnan(window(np.array([0.0, -1.0, np.nan]))).all()


def test_the_means_are_those_of_direct_sums():
    steps = 700
    table = made(steps, epsilon=0.3 / (1 + np.arange(steps) / 200), ranks=3)
    _, means = observe(begin(), table)
    for at in (200, 333, steps - 1):
        for name, value in direct(table, at).items():
            if not name.endswith("lambda4"):
                assert means[name][at] == pytest.approx(value, rel=1e-13, abs=1e-16), name
        assert np.isnan(means["covariance.measured_lambda4"][at])
        assert sum(means[f"covariance.measured_lambda{i}"][at] for i in (1, 2, 3)) == pytest.approx(means["covariance.measured_trace"][at])


def test_every_column_of_a_mean_that_is_recorded_is_found():
    declared = {column.name for column in directions(NUMBERS) if column.name.startswith(("average.", "covariance.measured_"))}
    assert set(observe(begin(), made(5))[1]) == declared


def test_a_window_that_is_not_full_claims_nothing():
    table = made(100)
    width = int(window(0.3))
    _, means = observe(begin(), table)
    for name in (*SCALARS, "covariance.measured_trace", "covariance.measured_lambda1", "covariance.measured_lambda2"):
        assert np.isnan(means[name][: width - 1]).all()
        assert np.isfinite(means[name][width - 1 :]).all()
    assert (means["average.steps"] == width).all()


@pytest.mark.parametrize("sizes", [[1], [7, 1, 64], [512]])
def test_the_means_are_the_same_to_the_bit_however_many_rows_come_at_once(sizes):
    steps = 3000
    random = np.random.default_rng(3)
    ranks = 1 + (np.arange(steps) // 400) % NUMBERS  # directions come and go
    epsilon = 0.02 * np.exp(np.cumsum(random.standard_normal(steps)) / 40)  # windows of 200 to 2,000
    epsilon[1200:1210] = np.nan
    table = made(steps, epsilon, ranks)
    whole, expected = observe(begin(), table)
    state, means = in_parts(table, sizes)
    assert np.isfinite(expected["average.loss"]).sum() > 1000
    for name, column in expected.items():
        assert np.array_equal(means[name], column, equal_nan=True), name
    assert np.array_equal(whole.rows, state.rows, equal_nan=True)


def test_a_state_that_went_through_a_checkpoint_goes_on_to_the_bit():
    table = made(600, epsilon=0.05)
    before, _ = observe(begin(), part(table, 0, 300))
    restored = unpack(Averages, pack(before))
    _, expected = observe(before, part(table, 300, 600))
    _, means = observe(restored, part(table, 300, 600))
    for name, column in expected.items():
        assert np.array_equal(means[name], column, equal_nan=True), name
    empty = unpack(Averages, pack(begin()))
    assert np.array_equal(observe(empty, table)[1]["average.loss"], observe(begin(), table)[1]["average.loss"], equal_nan=True)


def test_a_state_is_not_changed_by_what_is_observed():
    state, _ = observe(begin(), made(50))
    kept = state.rows.copy()
    observe(state, made(50, seed=1))
    assert np.array_equal(state.rows, kept, equal_nan=True)


@pytest.mark.slow
def test_nothing_drifts_in_a_million_steps():
    """A loss that falls by ten decades: what was large before leaves nothing behind."""
    steps, size = 1_000_000, 512
    table = made(steps, epsilon=0.1, ranks=1)
    for name in ("gd.loss", "mean.loss"):
        table[name] = table[name] * np.exp(-np.arange(steps) * np.log(1e10) / steps)
    state = begin()
    for start in range(0, steps, size):
        state, means = observe(state, part(table, start, start + size))
        assert len(state.rows) == min(start + size, steps, averages.LEAST_KEPT)
    expected = direct(table, steps - 1)
    for name in (*SCALARS, "covariance.measured_trace", "covariance.measured_lambda1"):
        assert means[name][-1] == pytest.approx(expected[name], rel=2e-15), name


def test_a_value_that_is_missing_takes_away_the_means_over_it_alone():
    table, width = made(300), int(window(0.3))
    table["mean.loss"][100] = np.nan
    table["gd.loss"][150] = np.inf
    _, means = observe(begin(), table)
    assert np.flatnonzero(np.isnan(means["average.predicted_loss"][width - 1 :])).tolist() == list(range(100 - width + 1, 101))
    assert np.isinf(means["average.loss"][150 : 150 + width]).all()
    assert np.isfinite(means["average.loss"][150 + width :]).all()
    assert np.isfinite(means["average.gradient_squared"][width - 1 :]).all()


def test_without_theta_dagger_there_is_no_spectrum():
    table = made(200)
    for name in ("gd.x1", "gd.x2", "gd.x_norm"):
        table[name][120:] = np.nan
    _, means = observe(begin(), table)
    assert np.isfinite(means["covariance.measured_lambda2"][119])
    assert np.isnan(means["covariance.measured_lambda1"][120:]).all()
    assert np.isnan(means["covariance.measured_trace"][120:]).all()


def test_one_direction_is_the_mean_of_its_square():
    table = made(100, ranks=1)
    _, means = observe(begin(), table)
    assert means["covariance.measured_lambda1"][-1] == pytest.approx(means["covariance.measured_trace"][-1], rel=1e-14)
    assert np.isnan(means["covariance.measured_lambda2"]).all()


def test_no_mean_is_taken_over_more_than_the_longest_window():
    width = averages.LARGEST
    epsilon = 2 * 2 * np.pi / (np.sqrt(2) * width) * (1 + 1e-9)
    table = made(width + 50, np.where(np.arange(width + 50) < width + 25, epsilon, epsilon / 2))
    state, means = in_parts(table, [width - 10, 60])
    assert np.flatnonzero(np.isfinite(means["average.loss"])).tolist() == list(range(width - 1, width + 25))
    assert means["average.steps"][-1] > width
    assert len(state.rows) == width


def test_a_window_that_grows_beyond_what_is_kept_waits_for_its_rows():
    kept = averages.LEAST_KEPT
    table = made(kept * 4, epsilon=np.where(np.arange(kept * 4) < kept * 2, 0.3, 8.9 / (kept * 1.5)))
    _, means = observe(begin(), table)
    longer = int(window(8.9 / (kept * 1.5)))
    known = np.isfinite(means["average.loss"])
    assert known[kept : kept * 2].all()
    assert np.flatnonzero(known[kept * 2 :])[0] == longer - kept - 1  # those kept so far, and its own row, count
    assert known[kept * 2 :][longer - kept - 1 :].all()


def test_a_turning_x_of_two_directions_has_the_covariance_of_its_circle():
    steps, radius = 400, 0.7
    angle = 2 * np.pi * np.arange(steps) / int(window(0.3) / 2)
    table = made(steps) | {"gd.x1": radius * np.cos(angle), "gd.x2": radius * np.sin(angle)}
    _, means = observe(begin(), table)
    for i in (1, 2):
        assert means[f"covariance.measured_lambda{i}"][-1] == pytest.approx(radius**2 / 2, rel=1e-2)
