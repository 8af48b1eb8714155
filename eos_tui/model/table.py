"""The rows of one run by the names of their columns, growing. NaN and ±inf count as no value."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.record.columns import Column
from eos_tui.model.indexes import Indexes
from eos_tui.model.last_values import LastValues, last_true
from eos_tui.model.rows import InMemory, OnDisk, Rows

RAREST = 50
"""Steps between readings of what is read most rarely, unless a run sets more."""
RECENT = 256
"""Rows before the end of a replay in which the last value of a column is looked for."""


class Ending(NamedTuple):
    """Where a column stopped having values."""

    step: float
    """The first step without one."""
    infinite: bool
    """Whether it overflowed, rather than held NaN."""


class Table:
    """A run's rows. With `file`, the run's own record, only the newest are kept in memory."""

    def __init__(self, columns: Sequence[Column], file: Path | None = None):
        self.columns = tuple(columns)
        self.symbols = {column.name: column.symbol for column in self.columns}
        self.limit: int | None = None
        """Rows shown, where not all are: a replay moves it."""
        self._index = {column.name: k for k, column in enumerate(self.columns)}
        self._rows: Rows = InMemory(len(self.columns)) if file is None else OnDisk(file, len(self.columns))
        self._indexes = Indexes(self._rows)
        self._last_values = LastValues(len(self.columns))
        self._endings: tuple[int, dict[str, Ending | None]] = 0, {}
        """Where columns stopped having values, with so many rows: a plot's badges and its values both ask."""

    def extend(self, rows: np.ndarray, valued: np.ndarray | None = None) -> None:
        """Append rows (rows, columns), steps increasing; `valued` says which columns have finite values in them, where that is known."""
        rows = np.atleast_2d(np.asarray(rows, float))
        if rows.size == 0:
            return
        if rows.shape[1] != len(self.columns):
            raise ValueError(f"rows of {rows.shape[1]} values; this run records {len(self.columns)} columns")
        self._last_values.take_in(rows, self._rows.count, valued)
        self._rows.append(rows)
        self._indexes.grow()
        self._rows.trim()

    def __len__(self) -> int:
        return self._rows.count if self.limit is None else min(self.limit, self._rows.count)

    def has(self, name: str) -> bool:
        """Whether the run records this column."""
        return name in self._index

    def values(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The values of a column in rows start to stop. Raises KeyError when the run does not record it."""
        stop = len(self) if stop is None else min(stop, len(self))
        values = self._rows.read([self._index[name]], max(start, 0), max(stop, start, 0))[0]
        values.flags.writeable = False
        return values

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
        return float(self._indexes.steps.at(len(self) - 1)) if len(self) else 0.0

    def last(self, name: str) -> float:
        """The last finite value of a column; NaN when there is none, or no such column."""
        if name not in self._index:
            return math.nan
        column = self._index[name]
        row = self._last(column)
        return float(self._last_values.value[column]) if row == self._last_values.row[column] else self.value(name, row)

    def lately(self, name: str, row: int) -> int:
        """The last row up to this one with a finite value of the column, where that is no longer ago than the rarest readings are
        apart; −1 where there is none.
        """
        first = max(row + 1 - RAREST, 0)
        known = np.flatnonzero(np.isfinite(self.values(name, first, row + 1)))
        return first + int(known[-1]) if len(known) else -1

    def latest(self) -> dict[str, float]:
        """The last finite value of every column; NaN when there is none. In a replay, of the last rows alone."""
        values = self._last_values.value
        if self.limit is not None:
            part = self._rows.read([*range(len(self.columns))], max(len(self) - RECENT, 0), len(self)).T
            rows = last_true(np.isfinite(part))
            values = np.where(rows >= 0, part[rows, np.arange(len(rows))], np.nan) if len(part) else np.full(len(rows), np.nan)
        return dict(zip(self._index, values.tolist(), strict=True))

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
        if self._endings[0] != len(self):
            self._endings = len(self), {}
        endings = self._endings[1]
        if name not in endings:
            endings[name] = self._ending(name) if name in self._index else None
        return endings[name]

    def _ending(self, name: str) -> Ending | None:
        column = self._index[name]
        last = self._last(column)
        if last < 0:
            return None
        before = self._last(column, last)
        if len(self) - last <= max(last - before if before >= 0 else RAREST, 1):
            return None
        return Ending(float(self._indexes.steps.at(last + 1)), bool(np.isinf(self.value(name, last + 1))))

    def _last(self, column: int, stop: int | None = None) -> int:
        """The last row with a finite value, before row `stop` or the end of what is shown; −1 where there is none."""
        stop = len(self) if stop is None else stop
        row = self._last_values.row_within(column, stop)
        return self._indexes.extremes(column).last_before(self._indexes.gather(column), stop) if row is None else row
