"""The extremes of a column in each pixel column of a window. While the window stays, the next envelope takes in the new rows alone."""

import math
from typing import NamedTuple

import numpy as np

from eos_tui.model.indexes import Indexes
from eos_tui.model.rows import Rows

FEW = 64
"""New rows that are added to an envelope one by one; with more it is made anew from the column's index."""


class Envelope(NamedTuple):
    """The smallest and largest value in each pixel column; NaN where it holds none."""

    lo: np.ndarray
    hi: np.ndarray


class _Drawn(NamedTuple):
    """An envelope, the window it belongs to, and the row up to which it was made."""

    window: tuple
    stop: int
    envelope: Envelope


class Envelopes:
    """The envelope drawn last of each column."""

    def __init__(self, rows: Rows, indexes: Indexes):
        self._rows, self._indexes = rows, indexes
        self._last: dict[tuple[int, int | None], _Drawn] = {}

    def of(self, column: int, strand: int | None, edges: np.ndarray, window: tuple) -> Envelope:
        """The extremes in rows edges[k] to edges[k + 1] − 1; in a `strand`, of even rows (0) or odd ones (1) alone. With the `window` of
        the call before, the edges are those of that call but for rows that have come since.
        """
        last, stop = self._last.get((column, strand)), int(edges[-1])
        if last is None or last.window != window or not 0 <= stop - last.stop <= FEW or not last.stop:
            lo, hi = self._indexes.extremes(column, strand).ranges(self._indexes.gather(column), edges[:-1], edges[1:], window)
            none = hi == -np.inf
            last = _Drawn(window, stop, Envelope(np.where(none, np.nan, -lo), np.where(none, np.nan, hi)))
        elif stop > last.stop:
            last = self._continued(last, column, strand, edges)
        self._last[column, strand] = last
        return last.envelope

    def _continued(self, drawn: _Drawn, column: int, strand: int | None, edges: np.ndarray) -> _Drawn:
        """The envelope with the rows that have come since it was made: most frames bring one."""
        stop = int(edges[-1])
        new = np.arange(drawn.stop, stop)
        values = self._rows.read([column], drawn.stop, stop)[0]
        lo, hi = (side.copy() for side in drawn.envelope)
        for row, value, at in zip(new.tolist(), values.tolist(), (edges.searchsorted(new, "right") - 1).tolist(), strict=True):
            if math.isfinite(value) and 0 <= at < len(lo) and (strand is None or row % 2 == strand):
                lo[at], hi[at] = (value, value) if hi[at] != hi[at] else (min(lo[at], value), max(hi[at], value))
        return _Drawn(drawn.window, stop, Envelope(lo, hi))
