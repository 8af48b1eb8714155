"""A run's rows as plots need them, at a cost that does not grow with their number.

Each column that is drawn gets a pyramid, so that an envelope of one column a pixel is exact (every minimum and maximum is in
it) whether the run has a thousand rows or a million.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.record.columns import Column
from eos_tui.model.envelopes import Envelope, Envelopes
from eos_tui.model.pyramid import BLOCK, block_within
from eos_tui.model.recent import Recent
from eos_tui.model.ruler import Ruler, on_line
from eos_tui.model.table import Table

SHARE = 8
"""A block to whose multiples the parts of a window are rounded is no more than one in so many of any of them."""
ALIKE = 8
"""Windows drawn last that are kept: the plots of a screen, and the curves of a plot, ask for the same."""

T = TypeVar("T")


class History(Table):
    """A run's rows, with their place on an axis, and their extremes, last values and means in each part of a window."""

    def __init__(self, columns: Sequence[Column], file: Path | None = None):
        super().__init__(columns, file)
        self.over = False
        """Whether the run has ended: no row comes any more."""
        self._edges: Recent[tuple[np.ndarray, int]] = Recent(ALIKE)
        self._derived: Recent[Any] = Recent(ALIKE)
        self._envelopes = Envelopes(self._rows, self._indexes)

    def prepare(self, names: Iterable[str]) -> None:
        """Make the indexes of these columns together, before they are drawn."""
        self._indexes.prepare(self._index[name] for name in names if self.has(name))

    # -- the axis

    def position(self, step: float, along: str = "step") -> float:
        """Where a step stands on the axis `along` a column that grows with the steps; on a line beyond the ends."""
        ruler = self._ruler(along)
        if ruler is self._indexes.steps or not self._rows.count:
            return step
        return on_line(step, self._indexes.steps, ruler)

    def step_at(self, position: float, along: str = "step") -> float:
        """The step at a position on the axis."""
        ruler = self._ruler(along)
        if ruler is self._indexes.steps or not self._rows.count:
            return position
        return on_line(position, ruler, self._indexes.steps)

    def positions(self, rows: np.ndarray, along: str = "step") -> np.ndarray:
        """Where rows stand on the axis."""
        return self._ruler(along).at(rows)

    def at(self, name: str, step: float) -> tuple[float, float]:
        """The exact step and stored value of the row nearest to `step`; NaN, NaN while there are no rows."""
        row = self.row_near(step)
        return (float(self._indexes.steps.at(row)), self.value(name, row)) if row >= 0 else (float("nan"), float("nan"))

    def row_near(self, step: float) -> int:
        """The row nearest to `step`; −1 while there are no rows."""
        if not len(self):
            return -1
        after = min(int(self._indexes.steps.search(step)), len(self) - 1)
        before, beyond = self._indexes.steps.at(np.array([max(after - 1, 0), after]))
        return after - 1 if after > 0 and step - before <= beyond - step else after

    def rows_between(self, start: float, stop: float, along: str = "step") -> slice:
        """The rows that lie in [start, stop] on the axis."""
        first, last = self.edges(start, stop, 1, along).tolist()
        return slice(first, last)

    def edges(self, start: float, stop: float, bins: int, along: str = "step") -> np.ndarray:
        """The first row of each part of [start, stop], and the row after the last: searched once for all curves of a plot. Where
        parts hold many rows they meet at the next multiple of a pyramid's block, which is nearer than an eighth of a part.
        """
        return self._rounded_edges(start, stop, bins, along)[0]

    def _rounded_edges(self, start: float, stop: float, bins: int, along: str) -> tuple[np.ndarray, int]:
        """`edges`, and the multiple of rows at which the parts meet."""
        return self._edges.of((len(self), start, stop, bins, along), lambda: self._searched(start, stop, bins, along))

    def _searched(self, start: float, stop: float, bins: int, along: str) -> tuple[np.ndarray, int]:
        ruler = self._ruler(along)
        rows = ruler.search(_parts(start, stop, bins))
        rows[-1] = ruler.search(stop, "right")
        rows = np.minimum(rows, len(self))
        inner, size = rows[1:-1], 1
        if rows[-1] - rows[0] >= SHARE * BLOCK * max(bins - 2, 1):
            size = block_within(_least_gap(inner[(inner > 0) & (inner < len(self))]) // SHARE)
        if size > 1:  # upwards: a part that is not yet whole ends with the rows there are, and stays as it is when more come
            rows[1:-1] = np.minimum(-(-inner // size) * size, rows[-1])
        return rows, size

    def _ruler(self, along: str) -> Ruler:
        return self._indexes.ruler(self._index.get(along, 0))

    # -- in each part of a window

    def envelope(
        self, name: str, start: float, stop: float, bins: int, along: str = "step", strand: int | None = None
    ) -> Envelope:
        """The extremes of a column in each of `bins` equal parts of [start, stop]; a shared edge counts to the right.

        A `strand` takes the even rows (0) or the odd ones (1) alone.
        """
        rows, size = self._rounded_edges(start, stop, bins, along)
        return self._envelopes.of(self._index[name], strand, rows, (start, stop, bins, along, size))

    def lasts(self, name: str, start: float, stop: float, bins: int, along: str = "step") -> np.ndarray:
        """The stored value in the last row of each of `bins` equal parts of [start, stop]; −inf where a part has no row."""
        edges = self.edges(start, stop, bins, along)
        held = np.flatnonzero(edges[1:] > edges[:-1])
        values = np.full(bins, -np.inf)
        if len(held):
            values[held] = self.gathered(name, edges[1:][held] - 1)
        return values

    def means(self, name: str, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The mean of a column over the rows first[k] to last[k] − 1; NaN where they hold no value."""
        column = self._index[name]
        total, count = self._indexes.sums(column).ranges(self._indexes.gather(column), first, last)
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / np.where(count > 0, count, np.nan)

    def once(self, key: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """What `make` derives from the rows as they are, under a key that names all else it depends on: made once for these rows."""
        return self._derived.of((len(self), *key), make)


@lru_cache(maxsize=16)
def _parts(start: float, stop: float, bins: int) -> np.ndarray:
    """The ends of equal parts of [start, stop], which stay while rows come."""
    ends = np.linspace(start, stop, bins + 1)
    ends.flags.writeable = False
    return ends


def _least_gap(rows: np.ndarray) -> int:
    """The fewest rows between two neighbours; 0 where there are none."""
    return int(np.diff(rows).min()) if len(rows) > 1 else 0
