"""The running means over the last two bursts at the edge: of the loss, of ‖∇L‖² and of xxᵀ, beside what is predicted of them. On the host.

Near its fixed point the oscillation swings with the period 2π/(√2 ε) (Section 4), so what a mean over less says depends on where it begins:
at each step the mean is over the last W = ⌈2·2π/(√2 ε)⌉ steps, ε being that of the step. It claims nothing, and is NaN, until W steps
have been seen; where ε is NaN; and where W is above `LARGEST`. A quantity that is NaN at a step makes NaN of the means over that step, no
others.

The sums are made of sums over 1, 2, 4, … steps, each of two of the half length, as the binary digits of W ask for. Nothing is ever
subtracted: rounding does not grow with the steps taken, nor do large values leave any behind; and a mean depends on the W rows under it
alone, to the bit, however many rows come at once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

LARGEST = 20_000
"""Steps of the longest window: at ε under 4.4e-4 there are no means."""
KEPT_WINDOWS, LEAST_KEPT = 4, 1024
"""Rows are kept for windows so many times the present one, and so many at least: a window that grows faster waits for the rows it lacks."""

MEANS = {
    "average.loss": "gd.loss", "average.predicted_loss": "mean.loss",
    "average.gradient_squared": "gd.gradient_norm", "average.predicted_gradient_squared": "mean.gradient_squared",
    "covariance.measured_trace": "gd.x_norm",
}
"""Columns that are means, and of what."""
SQUARED = ("gd.gradient_norm", "gd.x_norm")
"""Of which the square is averaged."""

Table = Mapping[str, np.ndarray]


class Averages(NamedTuple):
    """The rows that windows to come may reach back to, (rows, quantities): those of `MEANS`, then x1, x2, …; the oldest first."""

    rows: np.ndarray


def begin() -> Averages:
    """No row yet: at the edge, and wherever θ† begins anew or η is changed."""
    return Averages(np.zeros((0, 0)))


def window(epsilon: Any) -> Any:
    """Steps of two bursts, ⌈2·2π/(√2 ε)⌉; NaN where ε is not above 0. Scalars or arrays."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.greater(epsilon, 0), np.ceil(2 * 2 * np.pi / (np.sqrt(2) * np.asarray(epsilon, float))), np.nan)[()]


def observe(state: Averages, table: Table) -> tuple[Averages, dict[str, np.ndarray]]:
    """The columns of the means at each step of a table, and the state after it.

    The table has what `MEANS` names, `gd.x1` … with NaN above the number of directions, which counts as 0, and `constrained.epsilon`.
    Two of its entries are not recorded: `mean.loss` = L(θ†) + ½⟨Λ,X†⟩ and `mean.gradient_squared` = ‖∇L(θ†)‖² + ⟨Λ²,X†⟩.
    """
    there = _directions(table)
    new = np.stack([
        *(np.square(table[name]) if name in SQUARED else table[name] for name in MEANS.values()),
        *(table[f"gd.x{i}"] for i in range(1, there + 1)),
    ], axis=1)  # fmt: skip
    directions = max(there, state.rows.shape[1] - len(MEANS))
    kept, new = _padded(state.rows, directions), _padded(new, directions)
    count, steps = len(new), window(table["constrained.epsilon"])
    columns = {name: np.full(count, np.nan) for name in (*MEANS, *_eigenvalues(directions))} | {"average.steps": steps}
    rows = np.concatenate([kept, new])
    ends = np.arange(len(rows) - count, len(rows))
    known, oldest = steps <= LARGEST, _oldest_kept(ends, steps)  # NaN is not known
    known &= ends + 1 - oldest >= np.where(known, steps, 0)
    if known.any():
        widths = steps[known].astype(int)
        for name, values in _means(rows, ends[known], widths, directions).items():
            columns[name][known] = values
    return Averages(rows[oldest[-1] :] if count else rows), columns


def _padded(rows: np.ndarray, directions: int) -> np.ndarray:
    """The rows with room for the x of so many directions, NaN where there were fewer."""
    width = len(MEANS) + directions
    return np.concatenate([rows, np.full((len(rows), width - rows.shape[1]), np.nan)], axis=1) if rows.shape[1] < width else rows


def _directions(table: Table) -> int:
    count = 0
    while f"gd.x{count + 1}" in table:
        count += 1
    return count


def _eigenvalues(directions: int) -> list[str]:
    return [f"covariance.measured_lambda{i}" for i in range(1, directions + 1)]


def _oldest_kept(ends: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The oldest row that is kept once each of the rows `ends` has come: the same whether they come one by one or at once."""
    reach = np.where(steps <= LARGEST, np.minimum(np.maximum(KEPT_WINDOWS * steps, LEAST_KEPT), LARGEST), LARGEST)
    return np.maximum.accumulate(np.maximum(ends + 1 - reach.astype(int), 0))


def _means(rows: np.ndarray, ends: np.ndarray, widths: np.ndarray, directions: int) -> dict[str, np.ndarray]:
    """The means over the `widths` rows up to each of `ends`."""
    first = (ends - widths).min() + 1
    used, ends = rows[first:], ends - first
    scalars, x = used[:, : len(MEANS)], used[:, len(MEANS) :]
    swings = np.isfinite(x)
    largest = max(int(np.flatnonzero(swings.any(axis=0)).max(initial=-1)) + 1, min(directions, 1))
    x = np.concatenate([x[:, :1], np.where(np.isnan(x), 0, x)[:, 1:largest]], axis=1)  # there is an x1 wherever there is a θ†
    upper = np.triu_indices(largest)
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges
        sums = windowed(np.concatenate([scalars, x[:, upper[0]] * x[:, upper[1]]], axis=1), ends, widths)
        means = sums / widths[:, None]
    columns = dict(zip(MEANS, means[:, : len(MEANS)].T, strict=True))
    if not largest:
        return columns
    last = np.where(swings, np.arange(1, directions + 1), 0).max(axis=1)  # the last direction at each step,
    ranks = windowed(last[:, None], ends, widths, np.maximum)[:, 0]  # and in each window
    values = _spectra(means[:, len(MEANS) :], upper, np.maximum(ranks, 1), largest)
    return columns | dict(zip(_eigenvalues(largest), values.T, strict=True))


def windowed(values: np.ndarray, ends: np.ndarray, widths: np.ndarray, combine: np.ufunc = np.add) -> np.ndarray:
    """The sum, or what else two make one, of the `widths` rows of `values` (rows, quantities) up to each of `ends`: (ends, quantities)."""
    total, level = np.zeros((len(ends), values.shape[1]), values.dtype), values
    if len(ends) == 1:  # the same sums of halves, of these rows alone
        return _one(total, values[: ends[0] + 1], int(widths[0]), combine)
    until, length = ends.copy(), 1  # level[r] is the sum of the rows r to r + length − 1
    while True:
        asked = np.flatnonzero(widths & length)
        total[asked] = combine(total[asked], level[until[asked] - (length - 1)])
        until[asked] -= length
        if not (widths >= 2 * length).any():
            return total
        level, length = combine(level[:-length], level[length:]), 2 * length


def _one(total: np.ndarray, values: np.ndarray, width: int, combine: np.ufunc) -> np.ndarray:
    until = len(values)
    for length in (1 << bit for bit in range(width.bit_length()) if width >> bit & 1):
        part, until = values[until - length : until], until - length
        while len(part) > 1:
            part = combine(part[0::2], part[1::2])
        total = combine(total, part)
    return total


def _spectra(entries: np.ndarray, upper: tuple[np.ndarray, ...], ranks: np.ndarray, largest: int) -> np.ndarray:
    """The eigenvalues (windows, largest) of symmetric matrices by their upper triangles, of each its leading `ranks` rows: the largest
    first, NaN above."""
    whole = np.empty((len(entries), largest, largest))
    whole[:, upper[0], upper[1]] = whole[:, upper[1], upper[0]] = entries
    finite, values = np.isfinite(entries).all(axis=1), np.full((len(entries), largest), np.nan)
    for rank in np.unique(ranks):
        chosen = np.flatnonzero((ranks == rank) & finite)
        values[chosen, :rank] = np.maximum(np.linalg.eigvalsh(whole[chosen, :rank, :rank])[:, ::-1], 0)  # none is below 0 but by rounding
    return values
