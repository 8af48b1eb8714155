"""The last two finite values of each column, kept while rows come: what a header shows, and whether a column has ended."""

import numpy as np

PIECE = 512
"""Rows searched together for last values: few enough to stay in the processor's cache."""
EXPONENT = 0x7FF0000000000000
"""The bits of a float64 that are all ones in NaN and ±inf alone."""


class LastValues:
    """Rows and values by column; row −1 and NaN where a column has none."""

    def __init__(self, width: int):
        self.row = np.full(width, -1)
        self.row_before = np.full(width, -1)
        """The row of the finite value before the last one."""
        self.value = np.full(width, np.nan)

    def take_in(self, rows: np.ndarray, count: int, valued: np.ndarray | None = None) -> None:
        """Rows (rows, columns) come after `count` others. They are searched from the end, and on from the last few rows only in columns
        that have any finite value; `valued` says which have, where that is known.
        """
        newest, before = np.full(rows.shape[1], -1), np.full(rows.shape[1], -1)
        held = np.arange(rows.shape[1])
        for stop in range(len(rows), 0, -PIECE):
            start = max(stop - PIECE, 0)
            known = np.isfinite(rows[start:stop, held] if len(held) < rows.shape[1] else rows[start:stop])
            first = np.flatnonzero(newest[held] < 0)
            last = last_true(known[:, first])
            newest[held[first]] = np.where(last >= 0, start + last, -1)
            known[last[last >= 0], first[last >= 0]] = False
            last = last_true(known)
            before[held] = np.where(last >= 0, start + last, -1)
            held = held[last < 0]
            if not len(held):
                break
            if stop == len(rows) and start:
                held = held[(with_values(rows) if valued is None else valued)[held]]
        columns = np.flatnonzero(newest >= 0)
        earlier = before[columns]
        self.row_before[columns] = np.where(earlier >= 0, count + earlier, self.row[columns])
        self.row[columns], self.value[columns] = count + newest[columns], rows[newest[columns], columns]

    def row_within(self, column: int, stop: int) -> int | None:
        """The row of the last finite value before row `stop`; None where neither of the last two is."""
        for row in (self.row[column], self.row_before[column]):
            if row < stop:
                return int(row)
        return None


def with_values(rows: np.ndarray) -> np.ndarray:
    """Which columns of the rows have a finite value: one whose exponent is not all ones, as one pass over the bits shows."""
    return np.bitwise_and.reduce(np.ascontiguousarray(rows).view(np.int64), axis=0) & EXPONENT != EXPONENT


def last_true(known: np.ndarray) -> np.ndarray:
    """The last row that is true in each column; −1 where none is."""
    if not len(known):
        return np.full(known.shape[1], -1)
    return np.where(known.any(axis=0), len(known) - 1 - known[::-1].argmax(axis=0), -1)
