"""Dots on a grid of cells: 2×4 braille dots a cell, and a canvas that collects layers of them with their colours.

Everything is an array operation over the dots of the plot; nothing depends on how many points a curve has. A cell belongs
to the layer painted last into it, dots and colour: a thin curve thus stays readable across a filled one.
"""

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from itertools import pairwise

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from eos_tui.draw.octants import BRAILLE, SIGNS
from eos_tui.draw.row import Row

_DOWN = np.array([[1], [2], [4], [64]], np.uint16)
"""The bit of each dot in the left half of a cell, from the top."""
_PATTERNS = np.array([(left & 0x47) | (right & 7) << 3 | (right & 64) << 1 for right in range(72) for left in range(256)], np.uint32)
"""The pattern of a cell by those bits of its left half, and 256 times those of its right half."""
_BLANK = ord(" ")


@lru_cache(maxsize=1024)
def _codes(text: str) -> np.ndarray:
    """The characters of a text that fill one cell."""
    if text.isascii() and text.isprintable():
        return np.frombuffer(text.encode("utf-32-le"), "<u4")
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
    """Envelopes (…, columns) stretched so that neighbouring columns touch, with columns filled in where points are merely sparse.

    An empty stretch is bridged when it is no wider than those beside it (one more column is forgiven, for points that
    fall unevenly into columns); a wider one is a gap.
    """
    empty = np.isnan(lo)
    begins = empty[..., 1:] & ~empty[..., :-1]  # after a value there is none
    if begins.any() and (begins & ~np.logical_and.accumulate(empty[..., :0:-1], axis=-1)[..., ::-1]).any():  # and then one again
        lo, hi = lo.copy(), hi.copy()
        for low, high in zip(lo.reshape(-1, lo.shape[-1]), hi.reshape(-1, hi.shape[-1]), strict=True):
            _bridge(low, high)
    grown = np.zeros((2, *lo.shape))
    rise, fall = grown
    with np.errstate(invalid="ignore"):  # inf − inf
        np.fmax(lo[..., 1:] - hi[..., :-1], 0, out=rise[..., :-1])  # 0 beside a gap
        np.fmax(lo[..., :-1] - hi[..., 1:], 0, out=fall[..., :-1])
    up, down = rise.copy(), fall.copy()
    np.maximum(up[..., 1:], fall[..., :-1], out=up[..., 1:])
    np.maximum(down[..., 1:], rise[..., :-1], out=down[..., 1:])
    return lo - down / 2, hi + up / 2  # each goes half way


def _bridge(lo: np.ndarray, hi: np.ndarray) -> None:
    """Fill the columns in where points are merely sparse."""
    known = np.flatnonzero(~np.isnan(lo))
    width = np.diff(known)
    bridged = (width > 1) & (width <= beside(width) + 1)
    middle = (lo + hi) / 2
    for k in np.flatnonzero(bridged):
        i, j = known[k], known[k + 1]
        lo[i + 1 : j] = hi[i + 1 : j] = np.interp(np.arange(i + 1, j), (i, j), (middle[i], middle[j]))


def beside(width: np.ndarray) -> np.ndarray:
    """The larger of the two neighbours of each entry."""
    framed = np.concatenate([[0], width, [0]])
    return np.maximum(framed[:-2], framed[2:])


def spans(lo: np.ndarray, hi: np.ndarray, height: int) -> np.ndarray:
    """Dots (…, height, columns) between lo and hi (…, columns), given in dots from the bottom; NaN columns stay empty."""
    row = _rows_down(height)
    with np.errstate(invalid="ignore"):
        return (row >= np.floor(lo)[..., None, :]) & (row <= np.floor(hi)[..., None, :])


@lru_cache(maxsize=64)
def _rows_down(height: int) -> np.ndarray:
    """The rows of dots from the top, each by its number from the bottom."""
    return np.arange(height - 1.0, -1.0, -1.0)[:, None]


def outline(dots: np.ndarray) -> np.ndarray:
    """The dots (…, rows, columns) that have an empty neighbour above, below, left or right: a band becomes its edge, a thin line
    stays whole.
    """
    inner = np.zeros_like(dots)
    inner[..., 1:-1, 1:-1] = dots[..., :-2, 1:-1] & dots[..., 2:, 1:-1] & dots[..., 1:-1, :-2] & dots[..., 1:-1, 2:]
    return dots & ~inner


def strokes(x: np.ndarray, y: np.ndarray, width: int, height: int, kinds: np.ndarray | None = None) -> np.ndarray:
    """Dots (height, width) along the polyline through points in dots, y from the bottom; NaN breaks it, far ends are cut.

    For curves that turn back on themselves. Each segment is sampled once a dot. Where points are of `kinds` 0, 1, …, those of each
    are apart (kinds, height, width); a segment is of the kind of its later point.
    """
    dots = np.zeros((1 if kinds is None else int(kinds.max(initial=0)) + 1, height, width), bool)
    limit = 4 * max(width, height)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = (np.where(known, np.clip(v, -limit, limit), np.nan) for v in (x, y))
    length = np.maximum(np.abs(np.diff(x)), np.abs(np.diff(y)))
    whole = np.flatnonzero(np.isfinite(length))
    counts = np.ceil(length[whole]).astype(int) + 1
    owner = np.repeat(whole, counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of a sample on its segment
    share = place / np.repeat(np.maximum(counts - 1, 1), counts)
    start, stop = owner, owner + 1
    sx = np.concatenate([x[start] + share * (x[stop] - x[start]), x[known]])
    sy = np.concatenate([y[start] + share * (y[stop] - y[start]), y[known]])
    column, row = np.floor(sx).astype(int), height - 1 - np.floor(sy).astype(int)
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    kind = 0 if kinds is None else np.concatenate([kinds[stop], kinds[known]])[seen]
    dots[kind, row[seen], column[seen]] = True
    return dots[0] if kinds is None else dots


def patterns(dots: np.ndarray) -> np.ndarray:
    """The braille patterns (…, rows, columns) of dots (…, 4 × rows, 2 × columns); 0 where a cell has none."""
    height, width = dots.shape[-2:]
    halves = np.ascontiguousarray(dots).view("<u2").reshape(*dots.shape[:-2], height // 4, 4, width // 2)
    return _PATTERNS[np.add.reduce(halves * _DOWN, axis=-2, dtype=np.uint16)]


def inner(dots: np.ndarray) -> np.ndarray:
    """The dots (…, 4 × rows, 2 × columns) of cells that have all of theirs, as have the four cells about each."""
    height, width = dots.shape[-2:]
    whole = np.zeros((*dots.shape[:-2], height // 4 + 2, width // 2 + 2), bool)
    whole[..., 1:-1, 1:-1] = dots.reshape(*dots.shape[:-2], height // 4, 4, width // 2, 2).all(axis=(-3, -1))
    within = whole[..., 1:-1, 1:-1] & whole[..., :-2, 1:-1] & whole[..., 2:, 1:-1] & whole[..., 1:-1, :-2] & whole[..., 1:-1, 2:]
    return within.repeat(4, axis=-2).repeat(2, axis=-1)


_styles: list[Style | None] = [None]
_inks: dict[Style, int] = {}
"""Each style that was painted with, by a number: there are a few dozen."""
_seen_in_blanks: list[int] = []
"""Those that show where nothing is written: the blanks behind a word do not go on with them."""


def _ink(style: Style) -> int:
    if style not in _inks:
        _inks[style] = len(_styles)
        if style.reverse or style.underline or style.strike or style.bgcolor:
            _seen_in_blanks.append(_inks[style])
        _styles.append(style)
    return _inks[style]


_shown: dict[int, str] = {}
"""What is shown in the place of braille: nothing, or octants."""


def draw_solid(on: bool) -> None:
    """Show the dots of every plot from now on as solid eighths of their cells, or as braille."""
    _shown.clear()
    _shown.update(SIGNS if on else {})
    _strip.cache_clear()


@lru_cache(maxsize=1024)
def _strip(glyphs: bytes, inks: bytes, grounds: bytes) -> Strip:
    """A row of cells. Most rows of a plot are those of the frame before."""
    text, ink, ground = glyphs.decode("utf-32-le"), np.frombuffer(inks, np.int16), np.frombuffer(grounds, np.int16)
    if _shown:
        text = text.translate(_shown)
    # A blank shows no ink, so it keeps that before it: fewer changes of style, fewer bytes to the terminal.
    place = np.arange(len(ink))
    place[blank := ink <= 0] = 0
    ink = ink[np.maximum.accumulate(place)]
    for each in _seen_in_blanks:
        ink[blank & (ink == each)] = 0
    begins = [0, *(np.flatnonzero((ink[1:] != ink[:-1]) | (ground[1:] != ground[:-1])) + 1).tolist()]
    looks = zip(ink[begins].tolist(), ground[begins].tolist(), strict=True)
    return Row([
        Segment(text[a:b], _look(*look)) for (a, b), look in zip(pairwise([*begins, len(text)]), looks, strict=True)
    ], len(text))


@lru_cache(maxsize=1024)
def _look(ink: int, ground: int) -> Style | None:
    """The style of a cell from those of its sign and of its ground."""
    style, under = _styles[ink], _styles[ground]
    return style if under is None else under if style is None else under + style


class Canvas:
    """Cells of a plot: a character and a style each."""

    def __init__(self, width: int, height: int, ascii: bool = False):
        self.width, self.height, self.ascii = width, height, ascii
        self.glyphs = np.full((height, width), _BLANK, "<u4")
        self.inks = np.zeros((height, width), np.int16)
        self.grounds = np.zeros((height, width), np.int16)
        """What lies behind the characters, a colour of the background; 0 for none."""

    def copy(self) -> "Canvas":
        """A canvas to go on painting on, while this one stays."""
        other = copy(self)
        other.glyphs, other.inks, other.grounds = self.glyphs.copy(), self.inks.copy(), self.grounds.copy()
        return other

    def dots(
        self, dots: np.ndarray, row: int, column: int, style: Style, mark: str = "*", under: bool = False, merge: bool = False
    ) -> None:
        """Paint a layer of dots (4 × rows, 2 × columns) with its top left cell at (row, column); `mark` stands for them in
        ASCII. `under` leaves cells alone that are taken; `merge` keeps the dots that are there already.
        """
        cells = patterns(dots)
        taken = cells > 0
        rows, columns = cells.shape
        glyphs, inks = (grid[row : row + rows, column : column + columns] for grid in (self.glyphs, self.inks))
        if under:
            taken &= glyphs == _BLANK
        if merge:
            cells |= np.where(glyphs & ~np.uint32(0xFF) == BRAILLE, glyphs & 0xFF, 0)
        if self.ascii:
            np.copyto(glyphs, ord(mark), where=taken)
        else:
            np.add(cells, BRAILLE, out=glyphs, where=taken)
        np.copyto(inks, _ink(style), where=taken)

    def layers(self, dots: np.ndarray, row: int, column: int, styles: Sequence[Style], marks: Sequence[str]) -> None:
        """Paint layers of dots (layers, 4 × rows, 2 × columns), one upon the other, the last uppermost."""
        cells = patterns(dots)
        taken = cells > 0
        signs = [ord(mark) for mark in marks] if self.ascii else cells + BRAILLE
        _, rows, columns = cells.shape
        glyphs, inks = (grid[row : row + rows, column : column + columns] for grid in (self.glyphs, self.inks))
        for sign, style, there in zip(signs, styles, taken, strict=True):
            np.copyto(glyphs, sign, where=there)
            np.copyto(inks, _ink(style), where=there)

    def ground(self, row: int, column: int, height: int, width: int, style: Style) -> None:
        """Lay a ground behind the characters of a rectangle of cells."""
        self.grounds[row : row + height, column : column + width] = _ink(style)

    def text(self, row: int, column: int, text: str, style: Style, under: bool = False) -> None:
        """Write text, cut at the edges; `under` writes only into blank cells. Characters that are not one cell wide are left
        out: they would move the rest of the row.
        """
        if not 0 <= row < self.height:
            return
        codes = _codes(text)
        if column < 0 or column + len(codes) > self.width:
            codes, column = codes[max(0, -column) : max(0, self.width - column)], max(0, column)
        self._put(codes, (row, slice(column, column + len(codes))), style, under)

    def rule(self, column: int, top: int, height: int, character: str, style: Style, under: bool = False) -> None:
        """A vertical line of one character."""
        self._put(ord(character), (slice(top, top + height), column), style, under)

    def line(self, row: int, column: int, width: int, character: str, marks: Sequence[int], mark: str, style: Style) -> None:
        """A horizontal line of one character, with a mark at some of its columns of the canvas."""
        codes = np.full(width, ord(character), np.uint32)
        codes[[at - column for at in marks]] = ord(mark)
        self._put(codes, (row, slice(column, column + width)), style, False)

    def _put(self, codes: np.ndarray | int, where: tuple[int | slice, int | slice], style: Style, under: bool) -> None:
        if under:
            free = self.glyphs[where] == _BLANK
            self.glyphs[where] = np.where(free, codes, self.glyphs[where])
            self.inks[where] = np.where(free, _ink(style), self.inks[where])
        else:
            self.glyphs[where] = codes
            self.inks[where] = _ink(style)

    def strips(self) -> list[Strip]:
        """One strip a row, each exactly as wide as the canvas."""
        if not self.glyphs.size:
            return [Strip([], 0) for _ in range(self.height)]
        rows = zip(self.glyphs, self.inks, self.grounds, strict=True)
        return [_strip(glyphs.tobytes(), inks.tobytes(), grounds.tobytes()) for glyphs, inks, grounds in rows]
