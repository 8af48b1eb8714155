"""The axis of a plot: which row stands at which step, and at which other quantity that grows with the rows.

Steps are whole numbers in long even stretches, so a few knots hold them all; between two knots they lie on a line. The time
ηt does too, as long as η stays.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

SAME = 1e-6
"""Relative change of the distance between two rows that makes a knot: rounding is none."""


class Ruler:
    """An increasing column, by its knots: its first row, each row where its slope changes, and its last."""

    def __init__(self, column: int):
        self.column = column
        self.next_row = 0
        self._rows, self._values = np.empty(0), np.empty(0)
        """The knots, the last row among them."""
        self._newest = np.empty(0)
        """The last two values."""

    def wants(self, count: int) -> bool:
        """Whether there are rows that are not here yet."""
        return self.next_row < count

    @property
    def kind(self) -> tuple:
        """What those have in common that may be fed together."""
        return "Ruler", 1, self.next_row

    @staticmethod
    def feed(alike: Sequence["Ruler"], values: np.ndarray, row: int) -> None:
        """Let rulers take in the values (rulers, rows) of rows `row` and on, their `next_row` among them."""
        for ruler, mine in zip(alike, values, strict=True):
            ruler._take_in(mine, row)

    def _take_in(self, values: np.ndarray, row: int) -> None:
        fresh = values[self.next_row - row :]
        if not len(fresh):
            return
        known, start = np.concatenate([self._newest, fresh]), self.next_row - len(self._newest)
        slopes = np.diff(known)
        bends = 1 + np.flatnonzero(np.abs(np.diff(slopes)) > SAME * np.abs(slopes[:-1]))
        self.next_row += len(fresh)
        first = [] if len(self._rows) else [0]
        added = np.concatenate([first, bends, [len(known) - 1] if self.next_row > 1 else []]).astype(int)
        kept = max(len(self._rows) - 1, min(len(self._rows), 1))  # the last row was a knot as the last one only
        self._rows = np.concatenate([self._rows[:kept], start + added])
        self._values = np.concatenate([self._values[:kept], known[added]])
        self._newest = known[-2:]

    def at(self, rows: np.ndarray | float) -> np.ndarray:
        """The values at these rows."""
        return np.asarray(np.interp(rows, self._rows, self._values))

    def row_of(self, value: float) -> float:
        """The row at this value, on the line between two rows."""
        return float(np.interp(value, self._values, self._rows))

    def search(self, values: np.ndarray | float, side: Literal["left", "right"] = "left") -> np.ndarray:
        """As `np.searchsorted` on the whole column."""
        values = np.asarray(values, float)
        if not self.next_row:
            return np.zeros(values.shape, int)
        if len(self._rows) == 2 and self._values[1] - self._values[0] == self._rows[1]:  # one row a step: nearly every run
            ahead = values - self._values[0]
            rows = np.ceil(ahead) if side == "left" else np.floor(ahead) + 1
            return np.clip(rows, 0, self.next_row).astype(int)
        before = np.less if side == "left" else np.less_equal
        rows = np.interp(values, self._values, self._rows).astype(int)
        for _ in range(2):  # the line is right but for rounding
            rows = rows + ((rows < self.next_row) & before(self.at(rows), values))
        return rows - ((rows > 0) & ~before(self.at(rows - 1), values))


def on_line(value: float, known: Ruler, wanted: Ruler) -> float:
    """`wanted` where `known` has this value; beyond either end, on the line through the two rows there."""
    count = known.next_row
    first, last = known.at(np.array([0, count - 1]))
    if first <= value <= last:
        row = known.row_of(value)
        return float(wanted.at(row))
    ends = np.array([0, 1]) if value < first else np.array([count - 2, count - 1])
    x, y = known.at(np.maximum(ends, 0)), wanted.at(np.maximum(ends, 0))
    slope = (y[1] - y[0]) / (x[1] - x[0]) if x[1] > x[0] else 0.0
    nearest = 0 if value < first else 1
    return float(y[nearest] + slope * (value - x[nearest]))
