"""The rows of one run, and what a plot needs of them at a cost that does not grow with their number.

Each column that is drawn gets a pyramid, so that an envelope of one column a pixel is exact (every minimum and maximum is in
it) whether the run has a thousand rows or a million. NaN and ±inf count as no value.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from engine.record.columns import Column
from eos_tui.model.pyramid import BLOCK, Extremes, Pyramid, Sums, block_within
from eos_tui.model.rows import InMemory, OnDisk, Rows
from eos_tui.model.ruler import Ruler

CHUNK = 16384
"""Rows looked at in one go when columns are caught up with."""
PIECE = 512
"""Rows looked at together for last values: few enough to stay in the processor's cache."""
FEW = 64
"""New rows of which a picture is brought up to date one by one; more are looked at as ranges."""
SHARE = 8
"""A block to whose multiples the parts of a window are rounded is no more than one in so many of any of them."""
RAREST = 50
"""Steps between readings of what is read most rarely, unless a run sets more."""
EXPONENT = 0x7FF0000000000000
"""The bits of a float64 that are all ones in NaN and ±inf alone."""
RECENT = 256
"""Rows before the end of a replay in which the last value of a column is looked for."""


T = TypeVar("T")


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


class _Picture(NamedTuple):
    """An envelope, the window it is of, and the row it goes to."""

    key: tuple
    reached: int
    envelope: Envelope


class History:
    """A run's rows, growing. With `file`, the run's own record, only the newest are kept in memory."""

    def __init__(self, columns: Sequence[Column], file: Path | None = None):
        self.columns = tuple(columns)
        self.limit: int | None = None
        """Rows shown, where not all are: a replay moves it."""
        self.over = False
        """Whether there will be no more rows."""
        self._index = {column.name: k for k, column in enumerate(self.columns)}
        self._rows: Rows = InMemory(len(self.columns)) if file is None else OnDisk(file, len(self.columns))
        self._steps = Ruler(0)
        self._kept: dict[tuple, Pyramid | Ruler] = {("ruler", 0): self._steps}
        self._last_row = np.full(len(self.columns), -1)
        self._row_before = np.full(len(self.columns), -1)
        """The row of the last finite value of each column, and of the one before."""
        self._last_value = np.full(len(self.columns), np.nan)
        self._edges: dict[tuple, tuple[np.ndarray, int]] = {}
        """The rows of the windows drawn last, and to which multiple they were rounded: the curves of a plot ask for the same."""
        self._pictures: dict[tuple, _Picture] = {}
        """The envelopes drawn last, by column."""
        self._made: dict[tuple, Any] = {}
        """What was made of the rows as they are: plots of the same width ask for the same."""
        self._newest: tuple[int, np.ndarray] = 0, np.empty((0, len(self.columns)))
        """The rows that came last, and the number of the first of them."""
        self.symbols = {column.name: column.symbol for column in self.columns}

    # -- rows

    def extend(self, rows: np.ndarray, valued: np.ndarray | None = None) -> None:
        """Append rows (rows, columns), steps increasing; `valued` says which columns have finite values in them, where that was
        looked at already.
        """
        rows = np.atleast_2d(np.asarray(rows, float))
        if rows.size == 0:
            return
        if rows.shape[1] != len(self.columns):
            raise ValueError(f"rows of {rows.shape[1]} values; this run records {len(self.columns)} columns")
        self._note_last(rows, valued)
        self._newest = self._rows.count, rows if len(rows) <= FEW else np.empty((0, rows.shape[1]))
        self._rows.append(rows)
        self._catch_up(self._kept.values())
        self._rows.trim()

    def prepare(self, names: Iterable[str]) -> None:
        """Look at these columns together: one after the other would read a long record as many times."""
        self._catch_up([self._extremes(name) for name in names if self.has(name)])

    def __len__(self) -> int:
        return self._rows.count if self.limit is None else min(self.limit, self._rows.count)

    def has(self, name: str) -> bool:
        """Whether the run records this column."""
        return name in self._index

    def values(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The values of a column in rows start to stop. Raises KeyError when the run does not record it."""
        stop = len(self) if stop is None else min(stop, len(self))
        found = self._rows.read([self._index[name]], max(start, 0), max(stop, start, 0))[0]
        found.flags.writeable = False
        return found

    def values_or_nan(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The same with NaN where the run does not record the column: a page asks for what an engine of today writes, and shows the
        runs of any other.
        """
        known = self.values(name if self.has(name) else self.columns[0].name, start, stop)
        return known if self.has(name) else np.full(len(known), np.nan)

    def column(self, name: str) -> np.ndarray:
        """Every value of a column."""
        return self.values(name)

    def gathered(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The stored values in these rows."""
        return self._rows.gather(self._index[name], rows)

    def value(self, name: str, row: int) -> float:
        """The stored value in a row; NaN where the run has no such row or column."""
        if name not in self._index or not 0 <= row < self._rows.count:
            return math.nan
        return float(self._rows.gather(self._index[name], np.array([row]))[0])

    @property
    def last_step(self) -> float:
        """The newest step; 0 while there are no rows."""
        return float(self._steps.at(len(self) - 1)) if len(self) else 0.0

    def last(self, name: str) -> float:
        """The last finite value of a column; NaN when there is none, or no such column."""
        if name not in self._index:
            return math.nan
        column = self._index[name]
        row = self._last(column)
        return float(self._last_value[column]) if row == self._last_row[column] else self.value(name, row)

    def lately(self, name: str, row: int) -> int:
        """The last row up to this one with a finite value of the column, where that is no longer ago than the rarest readings are
        apart; −1 where there is none.
        """
        first = max(row + 1 - RAREST, 0)
        known = np.flatnonzero(np.isfinite(self.values(name, first, row + 1)))
        return first + int(known[-1]) if len(known) else -1

    def latest(self) -> dict[str, float]:
        """The last finite value of every column; NaN when there is none. In a replay, of the last rows alone."""
        found = self._last_value
        if self.limit is not None:
            part = self._rows.read([*range(len(self.columns))], max(len(self) - RECENT, 0), len(self)).T
            rows = _last_true(np.isfinite(part))
            found = np.where(rows >= 0, part[rows, np.arange(len(rows))], np.nan) if len(part) else np.full(len(rows), np.nan)
        return dict(zip(self._index, found.tolist(), strict=True))

    def newest(self) -> dict[str, float]:
        """The values of the last row, as stored; NaN while there is none."""
        if not len(self):
            return dict.fromkeys(self._index, float("nan"))
        row = self._rows.read([*range(len(self.columns))], len(self) - 1, len(self))[:, 0]
        return dict(zip(self._index, row.tolist(), strict=True))

    def ending(self, name: str) -> Ending | None:
        """Where the column stopped having values, or None while it still has them (or never had any).

        A column measured every k steps has ended once it has missed more than its usual distance; one of a single value, whose
        distance nobody knows, once it has missed more than that of the rarest readings.
        """
        if name not in self._index:
            return None
        column = self._index[name]
        last = self._last(column)
        if last < 0:
            return None
        before = self._last(column, last)
        if len(self) - last <= max(last - before if before >= 0 else RAREST, 1):
            return None
        return Ending(float(self._steps.at(last + 1)), bool(np.isinf(self.value(name, last + 1))))

    # -- the axis

    def position(self, step: float, along: str = "step") -> float:
        """Where a step stands on the axis `along` a column that grows with the steps; on a line beyond the ends."""
        ruler = self._ruler(along)
        if ruler is self._steps or not self._rows.count:
            return step
        return _on_line(step, self._steps, ruler, self._rows.count)

    def step_at(self, position: float, along: str = "step") -> float:
        """The step at a position on the axis."""
        ruler = self._ruler(along)
        if ruler is self._steps or not self._rows.count:
            return position
        return _on_line(position, ruler, self._steps, self._rows.count)

    def positions(self, rows: np.ndarray, along: str = "step") -> np.ndarray:
        """Where rows stand on the axis."""
        return self._ruler(along).at(rows)

    def at(self, name: str, step: float) -> tuple[float, float]:
        """The exact step and stored value of the row nearest to `step`; NaN, NaN while there are no rows."""
        row = self.row_near(step)
        return (float(self._steps.at(row)), self.value(name, row)) if row >= 0 else (float("nan"), float("nan"))

    def row_near(self, step: float) -> int:
        """The row nearest to `step`; −1 while there are no rows."""
        if not len(self):
            return -1
        after = min(int(self._steps.search(step)), len(self) - 1)
        before, beyond = self._steps.at(np.array([max(after - 1, 0), after]))
        return after - 1 if after > 0 and step - before <= beyond - step else after

    def rows_between(self, start: float, stop: float, along: str = "step") -> slice:
        """The rows that lie in [start, stop] on the axis."""
        first, last = self.edges(start, stop, 1, along).tolist()
        return slice(first, last)

    def edges(self, start: float, stop: float, bins: int, along: str = "step") -> np.ndarray:
        """The first row of each part of [start, stop], and the row after the last; found once for all curves of a plot. Where
        parts hold many rows they meet at the next multiple of a pyramid's block, which is nearer than an eighth of a part.
        """
        return self._rounded_edges(start, stop, bins, along)[0]

    def _rounded_edges(self, start: float, stop: float, bins: int, along: str) -> tuple[np.ndarray, int]:
        """`edges`, and the multiple of rows at which the parts meet."""
        key = (len(self), start, stop, bins, along)
        if key not in self._edges:
            ruler = self._ruler(along)
            rows = ruler.search(np.linspace(start, stop, bins + 1))
            rows[-1] = ruler.search(stop, "right")
            rows = np.minimum(rows, len(self))
            inner, size = rows[1:-1], 1
            if rows[-1] - rows[0] >= SHARE * BLOCK * max(bins - 2, 1):
                size = block_within(_least_gap(inner[(inner > 0) & (inner < len(self))]) // SHARE)
            if size > 1:  # upwards: a part that is not yet whole ends with the rows there are, and stays as it is when more come
                rows[1:-1] = np.minimum(-(-inner // size) * size, rows[-1])
            if len(self._edges) >= 8:
                self._edges.clear()
            self._edges[key] = rows, size
        return self._edges[key]

    # -- pictures

    def envelope(
        self, name: str, start: float, stop: float, bins: int, along: str = "step", strand: int | None = None
    ) -> Envelope:
        """The extremes of a column in each of `bins` equal parts of [start, stop]; a shared edge counts to the right.

        A `strand` takes the even rows (0) or the odd ones (1) alone.
        """
        rows, size = self._rounded_edges(start, stop, bins, along)
        key = start, stop, bins, along, size
        kept, reached = self._pictures.get((name, strand)), int(rows[-1])
        if kept is None or kept.key != key or not 0 <= reached - kept.reached <= FEW or not kept.reached:
            track = self._extremes(name, strand)
            self._catch_up([track])
            lo, hi = track.ranges(self._gather(name), rows[:-1], rows[1:], key)
            none = hi == -np.inf
            kept = _Picture(key, reached, Envelope(np.where(none, np.nan, -lo), np.where(none, np.nan, hi)))
        elif reached > kept.reached:
            kept = self._continued(kept, self._index[name], rows, strand)
        self._pictures[name, strand] = kept
        return kept.envelope

    def _continued(self, picture: "_Picture", column: int, edges: np.ndarray, strand: int | None) -> "_Picture":
        """A picture with the rows that came since it was made: most frames bring one."""
        reached = int(edges[-1])
        new = np.arange(picture.reached, reached)
        first, rows = self._newest
        values = rows[picture.reached - first : reached - first, column] if first <= picture.reached and reached <= first + len(
            rows) else self._rows.gather(column, new)
        lo, hi = (side.copy() for side in picture.envelope)
        for row, value, at in zip(new.tolist(), values.tolist(), (edges.searchsorted(new, "right") - 1).tolist(), strict=True):
            if math.isfinite(value) and 0 <= at < len(lo) and (strand is None or row % 2 == strand):
                lo[at], hi[at] = (value, value) if hi[at] != hi[at] else (min(lo[at], value), max(hi[at], value))
        return _Picture(picture.key, reached, Envelope(lo, hi))

    def lasts(self, name: str, start: float, stop: float, bins: int, along: str = "step") -> np.ndarray:
        """The stored value in the last row of each of `bins` equal parts of [start, stop]; −inf where a part has no row."""
        edges = self.edges(start, stop, bins, along)
        held = np.flatnonzero(edges[1:] > edges[:-1])
        found = np.full(bins, -np.inf)
        if len(held):
            found[held] = self.gathered(name, edges[1:][held] - 1)
        return found

    def once(self, key: tuple, make: Callable[[], T]) -> T:
        """What `make` makes of the rows as they are, made once until there are others."""
        whole = (len(self), *key)
        if whole not in self._made:
            if len(self._made) >= 8:
                self._made.clear()
            self._made[whole] = make()
        return self._made[whole]

    def means(self, name: str, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The mean of a column over the rows first[k] to last[k] − 1; NaN where they hold no value."""
        key = ("sums", self._index[name])
        track = self._kept.setdefault(key, Sums(self._index[name]))
        assert isinstance(track, Sums)
        self._catch_up([track])
        total, count = track.ranges(self._gather(name), first, last)
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / np.where(count > 0, count, np.nan)

    # -- what is kept of columns

    def _extremes(self, name: str, strand: int | None = None) -> Extremes:
        column = self._index[name]
        made = Extremes(column) if strand is None else Extremes(column, 2, strand)
        return self._kept.setdefault(("extremes", column, strand), made)  # type: ignore[return-value]

    def _ruler(self, along: str) -> Ruler:
        column = self._index.get(along, 0)
        ruler = self._kept.setdefault(("ruler", column), Ruler(column))
        assert isinstance(ruler, Ruler)
        self._catch_up([ruler])
        return ruler

    def _gather(self, name: str):
        column, rows = self._index[name], self._rows
        return lambda where: rows.gather(column, where)

    def _catch_up(self, kept: Iterable[Pyramid | Ruler]) -> None:
        """Let these take in the rows they have not seen, all from one reading."""
        total = self._rows.count
        behind = [each for each in kept if each.wants(total)]
        while behind:
            start = min(each.next_row for each in behind)
            stop = min(start + CHUNK, total)
            behind.sort(key=attrgetter("kind"))
            block, first = self._rows.read([each.column for each in behind], start, stop), 0
            for _, group in groupby(behind, attrgetter("kind")):
                alike: list[Any] = list(group)
                alike[0].feed(alike, block[first : first + len(alike)], start)
                first += len(alike)
            behind = [each for each in behind if stop < total]

    def _note_last(self, rows: np.ndarray, valued: np.ndarray | None) -> None:
        """Where the columns have their last two values, of the rows about to be appended: looked for from the end, and on
        from the last few rows only in columns that have any.
        """
        newest, before = np.full(rows.shape[1], -1), np.full(rows.shape[1], -1)
        held = np.arange(rows.shape[1])
        for stop in range(len(rows), 0, -PIECE):
            start = max(stop - PIECE, 0)
            known = np.isfinite(rows[start:stop, held] if len(held) < rows.shape[1] else rows[start:stop])
            first = np.flatnonzero(newest[held] < 0)
            last = _last_true(known[:, first])
            newest[held[first]] = np.where(last >= 0, start + last, -1)
            known[last[last >= 0], first[last >= 0]] = False
            last = _last_true(known)
            before[held] = np.where(last >= 0, start + last, -1)
            held = held[last < 0]
            if not len(held):
                break
            if stop == len(rows) and start:
                held = held[(with_values(rows) if valued is None else valued)[held]]
        found = np.flatnonzero(newest >= 0)
        earlier, count = before[found], self._rows.count
        self._row_before[found] = np.where(earlier >= 0, count + earlier, self._last_row[found])
        self._last_row[found], self._last_value[found] = count + newest[found], rows[newest[found], found]

    def _last(self, column: int, stop: int | None = None) -> int:
        """The last row with a finite value, before row `stop` or the end of what is shown."""
        stop = len(self) if stop is None else stop
        for row in (self._last_row[column], self._row_before[column]):
            if row < stop:
                return int(row)
        name = self.columns[column].name
        track = self._extremes(name)
        self._catch_up([track])
        return track.last_before(self._gather(name), stop)


def with_values(rows: np.ndarray) -> np.ndarray:
    """Which columns of the rows have a finite value: one whose exponent is not all ones, as one pass over the bits tells."""
    return np.bitwise_and.reduce(np.ascontiguousarray(rows).view(np.int64), axis=0) & EXPONENT != EXPONENT


def _last_true(known: np.ndarray) -> np.ndarray:
    """The last row that is true in each column; −1 where none is."""
    if not len(known):
        return np.full(known.shape[1], -1)
    return np.where(known.any(axis=0), len(known) - 1 - known[::-1].argmax(axis=0), -1)


def _least_gap(rows: np.ndarray) -> int:
    """The fewest rows between two neighbours; 0 where there are none."""
    return int(np.diff(rows).min()) if len(rows) > 1 else 0


def _on_line(value: float, known: Ruler, wanted: Ruler, count: int) -> float:
    """`wanted` where `known` has this value; beyond either end, on the line through the two rows there."""
    first, last = known.at(np.array([0, count - 1]))
    if first <= value <= last:
        row = known.row_of(value)
        return float(wanted.at(row))
    ends = np.array([0, 1]) if value < first else np.array([count - 2, count - 1])
    x, y = known.at(np.maximum(ends, 0)), wanted.at(np.maximum(ends, 0))
    slope = (y[1] - y[0]) / (x[1] - x[0]) if x[1] > x[0] else 0.0
    nearest = 0 if value < first else 1
    return float(y[nearest] + slope * (value - x[nearest]))
