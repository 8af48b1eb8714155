"""Dots on a grid of cells: 2×4 braille dots a cell, and a canvas that collects layers of them with their colours.

Everything is an array operation over the dots of the plot; nothing depends on how many points a curve has. A cell belongs
to the layer painted last into it, dots and colour: a thin curve thus stays readable across a filled one.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

BRAILLE = 0x2800
_BITS = {
    (0, 0): np.uint8(0x01), (1, 0): np.uint8(0x02), (2, 0): np.uint8(0x04), (3, 0): np.uint8(0x40),
    (0, 1): np.uint8(0x08), (1, 1): np.uint8(0x10), (2, 1): np.uint8(0x20), (3, 1): np.uint8(0x80),
}
"""The bit of each dot of a cell, by row and column."""
_BLANK = ord(" ")


@lru_cache(maxsize=1024)
def _codes(text: str) -> np.ndarray:
    """The characters of a text that fill one cell."""
    return np.frombuffer("".join(each for each in text if cell_len(each) == 1).encode("utf-32-le"), "<u4")


def polyline(x: np.ndarray, y: np.ndarray, joined: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """What a line through points covers in each of `bins` columns of unit width: its smallest and largest y, NaN where none.

    `joined[k]` says whether there is a line from point k to point k+1. Exact for straight segments: the extremes in a
    column are at its edges or at points inside.
    """
    lo, hi = np.full(bins, np.nan), np.full(bins, np.nan)
    inside = np.flatnonzero((x >= 0) & (x <= bins))
    column = np.minimum(x[inside].astype(int), bins - 1)
    np.fmin.at(lo, column, y[inside])
    np.fmax.at(hi, column, y[inside])
    if len(x) > 1:
        edges = np.arange(bins + 1)
        k = np.searchsorted(x, edges, "right") - 1  # the segment that crosses each edge
        within = (k >= 0) & (k < len(x) - 1)
        k = np.clip(k, 0, len(x) - 2)
        share = (edges - x[k]) / (x[k + 1] - x[k])
        at_edge = np.where(within & joined[k], y[k] + share * (y[k + 1] - y[k]), np.nan)
        lo = np.fmin(lo, np.fmin(at_edge[:-1], at_edge[1:]))
        hi = np.fmax(hi, np.fmax(at_edge[:-1], at_edge[1:]))
    return lo, hi


def connect(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An envelope stretched so that neighbouring columns touch, with columns filled in where points are merely sparse.

    An empty stretch is bridged when it is no wider than those beside it (one more column is forgiven, for points that
    fall unevenly into columns); a wider one is a gap.
    """
    known = np.flatnonzero(~np.isnan(lo))
    if len(known) < 2:
        return lo, hi
    lo, hi = lo.copy(), hi.copy()
    width = np.diff(known)
    if width.max() > 1:
        bridged = (width > 1) & (width <= beside(width) + 1)
        middle = (lo + hi) / 2
        for k in np.flatnonzero(bridged):
            i, j = known[k], known[k + 1]
            lo[i + 1 : j] = hi[i + 1 : j] = np.interp(np.arange(i + 1, j), (i, j), (middle[i], middle[j]))
    with np.errstate(invalid="ignore"):  # inf − inf
        rise, fall = lo[1:] - hi[:-1], lo[:-1] - hi[1:]
    rise, fall = np.where(rise > 0, rise / 2, 0), np.where(fall > 0, fall / 2, 0)  # each goes half way; 0 beside a gap
    none = np.zeros(1)
    hi += np.maximum(np.append(rise, none), np.append(none, fall))
    lo -= np.maximum(np.append(fall, none), np.append(none, rise))
    return lo, hi


def beside(width: np.ndarray) -> np.ndarray:
    """The larger of the two neighbours of each entry."""
    framed = np.concatenate([[0], width, [0]])
    return np.maximum(framed[:-2], framed[2:])


def spans(lo: np.ndarray, hi: np.ndarray, height: int) -> np.ndarray:
    """Dots (height, columns) between lo and hi, given in dots from the bottom; NaN columns stay empty."""
    with np.errstate(invalid="ignore"):
        row = np.arange(height)[::-1, None]
        return (row >= np.floor(lo)) & (row <= np.floor(hi))


def outline(dots: np.ndarray) -> np.ndarray:
    """The dots that have an empty neighbour above, below, left or right: a band becomes its edge, a thin line stays whole."""
    framed = np.pad(dots, 1)
    return dots & ~(framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:])


def strokes(x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    """Dots (height, width) along the polyline through points in dots, y from the bottom; NaN breaks it, far ends are cut.

    For curves that turn back on themselves. Each segment is sampled once a dot.
    """
    dots = np.zeros((height, width), bool)
    if len(x) == 0:
        return dots
    limit = 4 * max(width, height)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = (np.where(known, np.clip(v, -limit, limit), np.nan) for v in (x, y))
    length = np.maximum(np.abs(np.diff(x)), np.abs(np.diff(y)))
    whole = np.flatnonzero(np.isfinite(length))
    counts = np.ceil(length[whole]).astype(int) + 1
    owner = np.repeat(whole, counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of a sample on its segment
    share = place / np.repeat(np.maximum(counts - 1, 1), counts)
    sx = np.concatenate([x[owner] + share * (x[owner + 1] - x[owner]), x[known]]) if len(owner) else x[known]
    sy = np.concatenate([y[owner] + share * (y[owner + 1] - y[owner]), y[known]]) if len(owner) else y[known]
    column, row = np.floor(sx).astype(int), height - 1 - np.floor(sy).astype(int)
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    dots[row[seen], column[seen]] = True
    return dots


@lru_cache(maxsize=512)
def _strip(text: str, starts: tuple[int, ...], styles: tuple[Style | None, ...]) -> Strip:
    """A row of text whose styles begin at these cells. Most rows of a plot are those of the frame before."""
    pieces = [Segment(text[a:b], style) for (a, b), style in zip(pairwise([*starts, len(text)]), styles, strict=True)]
    return Strip(pieces, len(text))


class Canvas:
    """Cells of a plot: a character and a style each."""

    def __init__(self, width: int, height: int, ascii: bool = False):
        self.width, self.height, self.ascii = width, height, ascii
        self.glyphs = np.full((height, width), _BLANK, np.uint32)
        self.inks = np.zeros((height, width), np.int16)
        self._styles: list[Style | None] = [None]
        self._known: dict[Style, int] = {}

    def dots(
        self, dots: np.ndarray, row: int, column: int, style: Style, mark: str = "*", under: bool = False, merge: bool = False
    ) -> None:
        """Paint a layer of dots (4 × rows, 2 × columns) with its top left cell at (row, column); `mark` stands for them in
        ASCII. `under` leaves cells alone that are taken; `merge` keeps the dots that are there already.
        """
        rows, columns = dots.shape[0] // 4, dots.shape[1] // 2
        cells = np.zeros((rows, columns), np.uint8)
        for (down, right), bit in _BITS.items():
            cells |= dots[down::4, right::2].view(np.uint8) * bit
        glyphs = self.glyphs[row : row + rows, column : column + columns]
        taken = (cells > 0) & (glyphs == _BLANK) if under else cells > 0
        if merge:
            cells |= np.where(glyphs & ~np.uint32(0xFF) == BRAILLE, glyphs & 0xFF, 0).astype(np.uint8)
        glyphs[taken] = ord(mark) if self.ascii else cells[taken].astype(np.uint32) + BRAILLE
        self.inks[row : row + rows, column : column + columns][taken] = self._ink(style)

    def text(self, row: int, column: int, text: str, style: Style, under: bool = False) -> None:
        """Write text, cut at the edges; `under` writes only into blank cells. Characters that are not one cell wide are left
        out: they would move the rest of the row.
        """
        if not 0 <= row < self.height:
            return
        codes = _codes(text)[max(0, -column) : max(0, self.width - column)]
        column = max(0, column)
        self._put(codes, (row, slice(column, column + len(codes))), style, under)

    def rule(self, column: int, top: int, height: int, character: str, style: Style, under: bool = False) -> None:
        """A vertical line of one character."""
        self._put(np.full(height, ord(character)), (slice(top, top + height), column), style, under)

    def _put(self, codes: np.ndarray, where: tuple[int | slice, int | slice], style: Style, under: bool) -> None:
        if under:
            free = self.glyphs[where] == _BLANK
            self.glyphs[where] = np.where(free, codes, self.glyphs[where])
            self.inks[where] = np.where(free, self._ink(style), self.inks[where])
        else:
            self.glyphs[where] = codes
            self.inks[where] = self._ink(style)

    def strips(self) -> list[Strip]:
        """One strip a row, each exactly as wide as the canvas."""
        if not self.glyphs.size:
            return [Strip([], 0) for _ in range(self.height)]
        text = self.glyphs.astype("<u4").tobytes().decode("utf-32-le")
        # A blank shows no ink, so it takes that of the cell before it: fewer changes of style, fewer bytes to the terminal.
        inked = np.where(self.inks > 0, np.arange(self.width), 0)
        inks = np.take_along_axis(self.inks, np.maximum.accumulate(inked, axis=1), axis=1)
        rows, cuts = np.nonzero(np.diff(inks, axis=1, prepend=-1))
        styles = [self._styles[ink] for ink in inks[rows, cuts].tolist()]
        first, starts = np.searchsorted(rows, np.arange(self.height + 1)).tolist(), cuts.tolist()
        return [
            _strip(text[y * self.width : (y + 1) * self.width], tuple(starts[a:b]), tuple(styles[a:b]))
            for y, (a, b) in enumerate(pairwise(first))
        ]

    def _ink(self, style: Style) -> int:
        if style not in self._known:
            self._known[style] = len(self._styles)
            self._styles.append(style)
        return self._known[style]
