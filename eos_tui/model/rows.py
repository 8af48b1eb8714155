"""Where the rows of a run are kept while it is shown: all in memory, or the newest in memory and the others on disk.

A run directory holds every row already. A view that kept them a second time would grow by half a gigabyte over a million
steps; one that reads old rows where a picture needs them stays as small as it began.
"""

import os
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.base.files import open_plain

TAIL = 2048
"""Newest rows kept in memory at least; twice as many at most."""


class Rows(Protocol):
    """Rows by number, columns by index."""

    count: int

    def append(self, rows: np.ndarray) -> None:
        """Take more rows, (rows, columns)."""

    def trim(self) -> None:
        """Everything appended has been looked at: what can be read again may go."""

    def read(self, columns: list[int], start: int, stop: int) -> np.ndarray:
        """The values of these columns in rows start to stop, (columns, rows)."""

    def gather(self, column: int, rows: np.ndarray) -> np.ndarray:
        """The values of a column at rows given in any shape."""


class InMemory:
    """Every row, column by column."""

    def __init__(self, width: int):
        self.count = 0
        self._store = np.empty((width, 0))

    def append(self, rows: np.ndarray) -> None:
        total = self.count + len(rows)
        if total > self._store.shape[1]:
            larger = np.empty((len(self._store), max(1024, total, 2 * self._store.shape[1])))
            larger[:, : self.count] = self._store[:, : self.count]
            self._store = larger
        self._store[:, self.count : total] = rows.T
        self.count = total

    def trim(self) -> None:
        pass

    def read(self, columns: list[int], start: int, stop: int) -> np.ndarray:
        stop = min(stop, self.count)
        if len(columns) == 1:  # a view: what is drawn most often is not copied
            return self._store[columns[0] : columns[0] + 1, start:stop]
        return self._store[columns, start:stop]

    def gather(self, column: int, rows: np.ndarray) -> np.ndarray:
        return self._store[column].take(rows)


class OnDisk:
    """The newest rows in memory, the others in a file of float64 rows that only grows."""

    PAGE = 64
    """Rows read together where single ones are asked for."""
    STRETCH = 512
    """Rows copied together into columns."""

    def __init__(self, path: Path, width: int):
        self.count = 0
        self._width = width
        self._kept = np.empty((2 * TAIL, width))
        """Where the newest rows are kept."""
        self._tail, self._fresh = self._kept[:0], np.empty((0, width))
        """The newest rows kept, and those that came since the last `trim`."""
        self._opened = open_plain(path)
        self._file = self._opened.fileno()
        self._close = weakref.finalize(self, self._opened.close)
        self._pages: tuple[bytes, np.ndarray] | None = None
        """The pages fetched last, by their numbers: the curves of a plot ask for the same ones one after the other."""

    def append(self, rows: np.ndarray) -> None:
        if len(self._fresh):
            self.trim()
        self._fresh = rows
        self.count += len(rows)
        self._pages = None

    def trim(self) -> None:
        fresh = self._fresh[-TAIL:]
        held = len(self._tail) if len(fresh) == len(self._fresh) else 0  # only rows that follow on them
        if held + len(fresh) > len(self._kept):
            held = TAIL - len(fresh)
            self._kept[:held] = self._tail[len(self._tail) - held :].copy()
        self._kept[held : held + len(fresh)] = fresh
        self._tail, self._fresh = self._kept[: held + len(fresh)], self._fresh[:0]

    def read(self, columns: list[int], start: int, stop: int) -> np.ndarray:
        kept = self.count - len(self._tail)
        if len(columns) == 1 and kept <= start and not len(self._fresh):  # the newest of a column: what a frame asks for most
            return self._tail[start - kept : max(stop - kept, 0), columns[0]].copy()[None]
        rows = self._between(start, stop)
        block = np.empty((len(columns), len(rows)))
        for first in range(0, len(rows), self.STRETCH):  # turned over piece by piece, in the processor's cache
            block[:, first : first + self.STRETCH] = rows[first : first + self.STRETCH].T[columns]
        return block

    def gather(self, column: int, rows: np.ndarray) -> np.ndarray:
        kept = self.count - len(self._tail)
        if not len(self._fresh) and (rows.size == 0 or rows.min() >= kept):
            return self._tail[:, column][rows - kept]
        numbers, place = np.unique(rows // self.PAGE, return_inverse=True)
        return self._page_rows(numbers)[place.reshape(rows.shape) * self.PAGE + rows % self.PAGE, column]

    def _page_rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of these pages, one page after the other."""
        key = numbers.tobytes()
        if self._pages is None or self._pages[0] != key:
            pages = np.full((len(numbers), self.PAGE, self._width), np.nan)
            for page, number in zip(pages, numbers.tolist(), strict=True):
                rows = self._between(number * self.PAGE, (number + 1) * self.PAGE)
                page[: len(rows)] = rows
            self._pages = key, pages.reshape(-1, self._width)
        return self._pages[1]

    def _between(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop, from wherever they are."""
        fresh = self.count - len(self._fresh)
        kept = fresh - len(self._tail)
        parts = [self._fetch(start, min(stop, kept))] if start < min(stop, kept) else []
        for rows, first in ((self._tail, kept), (self._fresh, fresh)):
            if start < first + len(rows) and stop > first:
                parts.append(rows[max(start - first, 0) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate([self._fresh[:0], *parts])

    def _fetch(self, start: int, stop: int) -> np.ndarray:
        """Rows from the file; NaN where it has been cut short or cannot be read any more."""
        rows = np.full((stop - start, self._width), np.nan)
        wanted = memoryview(rows.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        try:
            os.preadv(self._file, [wanted], 8 * self._width * start)
        except OSError:  # a shared folder may take a removed file away from its readers
            rows[:] = np.nan
        return rows
