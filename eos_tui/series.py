"""The rows of one run in memory, and what a plot needs of them at a cost that does not grow with their number.

Each column that is drawn gets a min–max pyramid: blocks of 16 rows, of 16 blocks, and so on. The extremes of any range of
rows are then those of at most 32 entries a level, so that an envelope of one column a pixel is exact (every minimum and
maximum is in it) whether the run has a thousand rows or a million. NaN and ±inf count as no value.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.columns import Column

FACTOR = 16


class Envelope(NamedTuple):
    """The smallest and largest value in each pixel column; NaN where it holds none."""

    lo: np.ndarray
    hi: np.ndarray


class Ending(NamedTuple):
    """Where a column stopped having values."""

    step: float
    """The first step without one."""
    infinite: bool
    """Whether it overflowed, rather than held NaN."""


class History:
    """A run's rows, columnar and growing."""

    def __init__(self, columns: Sequence[Column]):
        self.columns = tuple(columns)
        self._index = {column.name: k for k, column in enumerate(self.columns)}
        self._store = np.empty((len(self.columns), 0))
        self._rows = 0
        self._tracks: dict[str, _Track] = {}
        self._edges: tuple[tuple[int, float, float, int], np.ndarray] | None = None

    def extend(self, rows: np.ndarray) -> None:
        """Append rows (rows, columns), steps increasing."""
        rows = np.atleast_2d(np.asarray(rows, float))
        if rows.size == 0:
            return
        if rows.shape[1] != len(self.columns):
            raise ValueError(f"rows of {rows.shape[1]} values; this run records {len(self.columns)} columns")
        total = self._rows + len(rows)
        if total > self._store.shape[1]:
            larger = np.empty((len(self.columns), max(1024, total, 2 * self._store.shape[1])))
            larger[:, : self._rows] = self._store[:, : self._rows]
            self._store = larger
        self._store[:, self._rows : total] = rows.T
        self._rows = total

    def __len__(self) -> int:
        return self._rows

    def has(self, name: str) -> bool:
        """Whether the run records this column."""
        return name in self._index

    def column(self, name: str) -> np.ndarray:
        """Every value of a column, read-only. Raises KeyError when the run does not record it."""
        view = self._store[self._index[name], : self._rows]
        view.flags.writeable = False
        return view

    @property
    def steps(self) -> np.ndarray:
        """The steps recorded, increasing."""
        return self.column(self.columns[0].name)

    def last(self, name: str) -> float:
        """The last finite value of a column; NaN when there is none."""
        track = self._track(name)
        return float(self.column(name)[track.last_row]) if track.last_row >= 0 else float("nan")

    def at(self, name: str, step: float) -> tuple[float, float]:
        """The exact step and stored value of the row nearest to `step`; NaN, NaN while there are no rows."""
        if not self._rows:
            return float("nan"), float("nan")
        row = self.row_near(step)
        return float(self.steps[row]), float(self.column(name)[row])

    def row_near(self, step: float) -> int:
        """The row nearest to `step`; −1 while there are no rows."""
        steps = self.steps
        after = min(int(np.searchsorted(steps, step)), self._rows - 1)
        return after - 1 if after > 0 and step - steps[after - 1] <= steps[after] - step else after

    def rows_between(self, start: float, stop: float) -> slice:
        """The rows whose steps lie in [start, stop]."""
        steps = self.steps
        return slice(int(np.searchsorted(steps, start)), int(np.searchsorted(steps, stop, "right")))

    def envelope(self, name: str, start: float, stop: float, bins: int) -> Envelope:
        """The extremes of a column in each of `bins` equal parts of [start, stop]; a shared edge counts to the right."""
        rows = self._row_edges(start, stop, bins)
        return self._track(name).envelope(self.column(name), rows[:-1], rows[1:], (start, stop, bins))

    def ending(self, name: str) -> Ending | None:
        """Where the column stopped having values, or None while it still has them (or never had any).

        A column measured every k steps has ended once it has missed more than its usual distance.
        """
        track = self._track(name)
        if track.last_row < 0 or self._rows - track.last_row <= max(track.spacing, 1):
            return None
        first = track.last_row + 1
        return Ending(float(self.steps[first]), bool(np.isinf(self.column(name)[first])))

    def _row_edges(self, start: float, stop: float, bins: int) -> np.ndarray:
        """The first row of each part of [start, stop], and the row after the last; found once for all curves of a plot."""
        key = (self._rows, start, stop, bins)
        if self._edges is None or self._edges[0] != key:
            rows = np.searchsorted(self.steps, np.linspace(start, stop, bins + 1))
            rows[-1] = np.searchsorted(self.steps, stop, "right")
            self._edges = key, rows
        return self._edges[1]

    def _track(self, name: str) -> "_Track":
        values = self.column(name)
        track = self._tracks.setdefault(name, _Track())
        track.update(values)
        return track


class _Track:
    """What is kept of one column beside its values: the pyramid, and where its last values lie."""

    def __init__(self) -> None:
        self.count = 0
        self.last_row = -1
        self.spacing = 0
        """Rows between the last two finite values."""
        self._levels: list[_Level] = []
        self._kept: tuple[tuple[float, float, int], int, Envelope] | None = None

    def update(self, values: np.ndarray) -> None:
        """Take in the values added since the last call."""
        if len(values) == self.count:
            return
        fresh = np.flatnonzero(np.isfinite(values[self.count :]))
        if len(fresh):
            fresh += self.count
            before = fresh[-2] if len(fresh) > 1 else self.last_row
            self.spacing = int(fresh[-1] - before) if before >= 0 else 1
            self.last_row = int(fresh[-1])
        self.count = len(values)
        whole, depth = len(values) // FACTOR, 0
        while whole:
            if depth == len(self._levels):
                self._levels.append(_Level())
            level = self._levels[depth]
            part = slice(level.count * FACTOR, whole * FACTOR)
            level.add(_signed(values[part]) if depth == 0 else self._levels[depth - 1].entries[:, part])
            whole, depth = level.count // FACTOR, depth + 1

    def envelope(self, values: np.ndarray, first: np.ndarray, last: np.ndarray, window: tuple[float, float, int]) -> Envelope:
        """The extremes of values[first:last]. While the window stays, only ranges that new rows reached are looked at."""
        whole = 0
        if self._kept is not None and self._kept[0] == window:
            whole = int(np.searchsorted(last, self._kept[1], "right"))
        found = self.extremes(values, first[whole:], last[whole:])
        if whole and self._kept is not None:
            before = self._kept[2]
            found = Envelope(np.append(before.lo[:whole], found.lo), np.append(before.hi[:whole], found.hi))
        self._kept = window, len(values), found
        return found

    def extremes(self, values: np.ndarray, first: np.ndarray, last: np.ndarray) -> Envelope:
        """The exact extremes of values[first:last] for arrays of ranges.

        At each level the ragged ends of a range, at most 16 entries a side, are looked up, and its whole blocks are left to
        the next. A lookup is clipped to its range rather than masked: seeing an entry twice changes no extreme.
        """
        found = np.full((2, len(first)), -np.inf)
        which, a, b = np.arange(len(first)), first, last
        reach = np.arange(FACTOR)[:, None]
        level = -1
        while True:
            left = a < b
            if not left.all():
                which, a, b = which[left], a[left], b[left]
            if not len(which):
                break
            rows = np.minimum(a + reach, b - 1)
            if (b - a).max() > FACTOR:
                rows = np.concatenate([rows, np.maximum(b - 1 - reach, a)])
            most = _extremes(values.take(rows)) if level < 0 else self._levels[level].entries.take(rows, axis=1).max(axis=1)
            if len(which) == len(first):
                np.maximum(found, most, out=found)
            else:
                found[:, which] = np.maximum(found[:, which], most)
            a, b = -(-a // FACTOR), b // FACTOR
            level += 1
        found[:, found[1] == -np.inf] = np.nan
        return Envelope(-found[0], found[1])


class _Level:
    """One level of a pyramid: the largest −v and the largest v of each block, so that one operation serves both."""

    def __init__(self) -> None:
        self.entries, self.count = np.empty((2, 0)), 0

    def add(self, below: np.ndarray) -> None:
        """Add the blocks made of these entries of the level below, (2, 16 × blocks)."""
        total = self.count + below.shape[1] // FACTOR
        if total > self.entries.shape[1]:
            larger = np.empty((2, max(64, 2 * total)))
            larger[:, : self.count] = self.entries[:, : self.count]
            self.entries = larger
        self.entries[:, self.count : total] = below.reshape(2, -1, FACTOR).max(axis=2)
        self.count = total


def _signed(values: np.ndarray) -> np.ndarray:
    """(−v, v) stacked in front, −inf where v is not finite: maxima then pass over it, faster than they would over NaN."""
    signed = np.stack([-values, values])
    signed[:, ~np.isfinite(values)] = -np.inf
    return signed


def _extremes(values: np.ndarray) -> np.ndarray:
    """(−min, max) down the columns, over what is finite."""
    found = np.stack([-values.min(axis=0), values.max(axis=0)])
    return found if np.isfinite(found).all() else _signed(values).max(axis=1)
