"""Extremes and sums of any range of rows, at a cost that does not grow with the range.

A pyramid keeps one entry for each block of 64 rows, one for 16 of those, and so on. A range is then its ragged ends, looked
up, and its whole blocks, gone through where they are few and else left to the next level. NaN and ±inf count as no value.
"""

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

BLOCK, FACTOR = 64, 16
"""Rows in an entry of the lowest level, and entries in one of a higher level."""
AT_ONCE = 1 << 15
"""Entries of a level that are gone through one by one rather than looked up by way of the level above."""
Gather = Callable[[np.ndarray], np.ndarray]
"""Reads the values at these rows."""


def block_within(rows: int) -> int:
    """Rows in the largest block that has no more than so many; 1 where none is so small."""
    if rows < BLOCK:
        return 1
    size = BLOCK
    while size * FACTOR <= rows:
        size *= FACTOR
    return size


class _Level:
    """The entries of one level, (2, entries), in a store that grows."""

    def __init__(self) -> None:
        self._store, self.count = np.empty((2, 0)), 0

    @property
    def entries(self) -> np.ndarray:
        return self._store[:, : self.count]

    def taken(self, which: np.ndarray) -> np.ndarray:
        """The entries of these numbers, (2, …). All are there: to have that checked would take as long again."""
        entries = np.empty((2, *which.shape))
        for side, into in zip(self._store, entries, strict=True):
            side.take(which, out=into, mode="clip")
        return entries

    def joined(self, fold: np.ufunc, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The entries first[k] to last[k] − 1 joined, (2, ranges); none is empty."""
        ends = np.stack([first, last], axis=1).ravel()
        return np.stack([fold.reduceat(side[: self.count + 1], ends)[::2] for side in self._store])

    def add(self, entries: np.ndarray) -> None:
        total = self.count + entries.shape[1]
        if total >= self._store.shape[1]:  # one more than there are, for `joined`
            larger = np.empty((2, max(64, total + total // 8 + 1)))
            larger[:, : self.count] = self.entries
            self._store = larger
        self._store[:, self.count : total] = entries
        self.count = total


class Pyramid:
    """What is kept of one column, or of every other row of it (`stride` 2): a pair of numbers for each block."""

    fold: np.ufunc
    """Joins entries."""
    nothing: float
    """The entry of no value."""

    def __init__(self, column: int, stride: int = 1, offset: int = 0):
        self.column, self.stride, self.offset = column, stride, offset
        self._levels: list[_Level] = []
        self._kept: tuple[object, int, np.ndarray] | None = None

    def prepared(self, values: np.ndarray) -> np.ndarray:
        """The pair of each value, stacked in front."""
        raise NotImplementedError

    def folded(self, values: np.ndarray, axis: int, kept: np.ndarray | None = None) -> np.ndarray:
        """The pairs of values joined along an axis, of those that are `kept` where some are not to count."""
        pairs = self.prepared(values)
        return self.fold.reduce(pairs if kept is None else pairs * kept, axis=axis + 1)

    @property
    def next_row(self) -> int:
        """The first row that is in no block yet."""
        return (self._levels[0].count * BLOCK if self._levels else 0) * self.stride + self.offset

    def wants(self, count: int) -> bool:
        """Whether so many rows fill a block that is not here yet."""
        return count - self.next_row > (BLOCK - 1) * self.stride

    @property
    def kind(self) -> tuple:
        """What those have in common that may be fed together."""
        return type(self).__name__, self.stride, self.next_row

    @staticmethod
    def feed(alike: Sequence["Pyramid"], values: np.ndarray, row: int) -> None:
        """Let pyramids of one kind take in the values (pyramids, rows) of rows `row` and on, which must reach back to their
        `next_row`: folded together, at little more than the cost of one.
        """
        one = alike[0]
        mine = values[:, one.next_row - row :: one.stride]
        blocks = mine.shape[1] // BLOCK
        if blocks:
            entries = one.folded(mine[:, : blocks * BLOCK].reshape(-1, BLOCK), 1).reshape(2, len(alike), blocks)
            for k, pyramid in enumerate(alike):
                pyramid._take_in(entries[:, k])

    def _take_in(self, entries: np.ndarray) -> None:
        """Add the pairs (2, blocks) of the next whole blocks. The levels above wait until a range is asked for."""
        if not self._levels:
            self._levels.append(_Level())
        self._levels[0].add(entries)

    def _complete(self) -> None:
        """Let every level have all its entries."""
        for depth in count():
            if depth >= len(self._levels):
                return
            level, above = self._levels[depth], self._levels[depth + 1].count if depth + 1 < len(self._levels) else 0
            whole = level.count // FACTOR
            if whole == above:
                return
            if not above:
                self._levels.append(_Level())
            entries = level.entries[:, above * FACTOR : whole * FACTOR].reshape(2, -1, FACTOR)
            self._levels[depth + 1].add(self.fold.reduce(entries, axis=2))

    def ranges(self, gather: Gather, first: np.ndarray, last: np.ndarray, key: object = None) -> np.ndarray:
        """The pairs (2, ranges) of rows first[k] to last[k] − 1. With the `key` of the call before, only those are looked at
        anew that end beyond the rows there were then; its ranges must begin where they began and be sorted.
        """
        self._complete()
        first, last = (-(-(rows - self.offset) // self.stride) for rows in (first, last))
        reached = int(last.max(initial=0))
        whole = 0
        if key is not None and self._kept is not None and self._kept[0] == key and self._kept[1] <= reached:
            whole = int(np.searchsorted(last, self._kept[1], "right"))
        pairs = self._folded(gather, first[whole:], last[whole:])
        if whole and self._kept is not None:
            pairs = np.append(self._kept[2][:, :whole], pairs, axis=1)
        if key is not None:
            self._kept = key, reached, pairs
        return pairs

    def last_before(self, gather: Gather, stop: int) -> int:
        """The last row before `stop` that has a value; −1 where none has."""
        self._complete()
        stop, depth, size = -(-(stop - self.offset) // self.stride), -1, BLOCK
        while stop > 0:
            start = (stop - 1) // size * size if depth + 1 < len(self._levels) else 0
            there = np.flatnonzero(self._holds(gather, depth, start, stop))
            if len(there):
                return self._descend(gather, depth, start + int(there[-1]))
            stop, depth, size = start // size, depth + 1, FACTOR
        return -1

    def _descend(self, gather: Gather, depth: int, entry: int) -> int:
        """The last row with a value below an entry that has one."""
        while depth >= 0:
            size = FACTOR if depth else BLOCK
            depth -= 1
            entry = entry * size + int(np.flatnonzero(self._holds(gather, depth, entry * size, (entry + 1) * size))[-1])
        return entry * self.stride + self.offset

    def _holds(self, gather: Gather, depth: int, start: int, stop: int) -> np.ndarray:
        """Which entries of a level, or which rows at −1, have a value."""
        if depth < 0:
            return np.isfinite(gather(np.arange(start, stop) * self.stride + self.offset))
        return self._levels[depth].entries[1, start:stop] != self.nothing

    def _folded(self, gather: Gather, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        pairs = np.full((2, len(first)), self.nothing)
        which, a, b = np.arange(len(first)), first, last
        depth, size = -1, BLOCK
        while True:
            left = a < b
            if not left.all():
                which, a, b = which[left], a[left], b[left]
            if not len(which):
                return pairs
            if depth >= 0 and (b - a).sum() <= AT_ONCE:
                pairs[:, which] = self.fold(pairs[:, which], self._levels[depth].joined(self.fold, a, b))
                return pairs
            up, down = a + (size - 1) & -size, b & -size  # sizes are powers of two
            head = np.minimum(up, b)  # the ragged ends are [a, head) and [tail, b)
            tail = np.maximum(down, head)
            ragged = np.flatnonzero((head > a) | (tail < b))
            if len(ragged) == pairs.shape[1]:
                pairs = self.fold(pairs, self._ends(gather, depth, a, head, tail, b))
            elif len(ragged):
                into = which[ragged]
                pairs[:, into] = self.fold(pairs[:, into], self._ends(gather, depth, a[ragged], head[ragged], tail[ragged], b[ragged]))
            a, b = up // size, down // size
            depth, size = depth + 1, FACTOR

    def _ends(self, gather: Gather, depth: int, a: np.ndarray, head: np.ndarray, tail: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The pairs of the ragged ends [a, head) and [tail, b) of ranges of entries of a level, or of rows at −1."""
        reach = np.arange(max(int((head - a).max()), int((b - tail).max())))[:, None]
        rows = np.empty((2 * len(reach), len(a)), int)
        np.minimum(a + reach, np.maximum(head - 1, a), out=rows[: len(reach)])
        np.maximum(b - 1 - reach, np.minimum(tail, b - 1), out=rows[len(reach) :])
        # A maximum may see an entry twice, a sum may not.
        once = None if self.fold is np.maximum else np.concatenate([a + reach < head, b - 1 - reach >= tail])
        if depth < 0:
            return self.folded(gather(rows if self.stride == 1 else rows * self.stride + self.offset), 0, once)
        pairs = self._levels[depth].taken(rows)
        return self.fold.reduce(pairs if once is None else pairs * once, axis=1)


class Extremes(Pyramid):
    """The largest −v and the largest v, so that one operation serves both; −inf where there is no value."""

    fold, nothing = np.maximum, -np.inf

    def prepared(self, values: np.ndarray) -> np.ndarray:
        pairs = np.stack([-values, values])
        known = np.isfinite(values)
        if not known.all():
            pairs[:, ~known] = -np.inf
        return pairs

    def folded(self, values: np.ndarray, axis: int, kept: np.ndarray | None = None) -> np.ndarray:
        pairs = np.empty((2, values.shape[1 - axis]))
        np.negative(np.fmin.reduce(values, axis=axis), out=pairs[0])
        np.fmax.reduce(values, axis=axis, out=pairs[1])
        np.fmax(pairs, -np.inf, out=pairs)  # where there is no value
        broken = np.flatnonzero((pairs == np.inf).any(axis=0))  # one with ±inf in it has that for an extreme
        if len(broken):
            pairs[:, broken] = super().folded(values.take(broken, axis=1 - axis), axis)
        return pairs


class Sums(Pyramid):
    """The sum of the values and their number."""

    fold, nothing = np.add, 0.0

    def prepared(self, values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        return np.stack([np.where(known, values, 0.0), known.astype(float)])
