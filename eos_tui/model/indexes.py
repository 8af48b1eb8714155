"""The indexes of a run's columns: pyramids of extremes and of sums, and rulers. Each is made when it is first needed and grows with
the rows from then on.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

from eos_tui.model.pyramid import Extremes, Gather, Pyramid, Sums
from eos_tui.model.rows import Rows
from eos_tui.model.ruler import Ruler

CHUNK = 16384
"""Rows read at a time when indexes catch up."""


class Indexes:
    """The indexes there are, by column."""

    def __init__(self, rows: Rows):
        self._rows = rows
        self.steps = Ruler(0)
        """The ruler of the steps, which every run needs."""
        self._rulers = {0: self.steps}
        self._extremes: dict[tuple[int, int | None], Extremes] = {}
        self._sums: dict[int, Sums] = {}

    def extremes(self, column: int, strand: int | None = None) -> Extremes:
        """The extremes of a column; of a `strand`, of its even rows (0) or odd rows (1) alone."""
        made = self._of_extremes(column, strand)
        self._catch_up([made])
        return made

    def sums(self, column: int) -> Sums:
        """The sums of a column."""
        if column not in self._sums:
            self._sums[column] = Sums(column)
        self._catch_up([self._sums[column]])
        return self._sums[column]

    def ruler(self, column: int) -> Ruler:
        """The ruler of a column that grows with the rows."""
        if column not in self._rulers:
            self._rulers[column] = Ruler(column)
        self._catch_up([self._rulers[column]])
        return self._rulers[column]

    def prepare(self, columns: Iterable[int]) -> None:
        """Make the extremes of these columns from one reading: one after the other would read a long record as many times."""
        self._catch_up([self._of_extremes(column) for column in columns])

    def grow(self) -> None:
        """Take in the rows that have come."""
        self._catch_up(self)

    def __iter__(self) -> Iterator[Pyramid | Ruler]:
        yield from self._rulers.values()
        yield from self._extremes.values()
        yield from self._sums.values()

    def gather(self, column: int) -> Gather:
        """How an index reads the values of its column where no block of it has them."""
        return lambda rows: self._rows.gather(column, rows)

    def _of_extremes(self, column: int, strand: int | None = None) -> Extremes:
        if (column, strand) not in self._extremes:
            self._extremes[column, strand] = Extremes(column) if strand is None else Extremes(column, 2, strand)
        return self._extremes[column, strand]

    def _catch_up(self, indexes: Iterable[Pyramid | Ruler]) -> None:
        """Let these indexes take in the rows that are new to them, all from one reading."""
        total = self._rows.count
        behind = [each for each in indexes if each.wants(total)]
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
