"""Sends the terminal only the cells that changed since it was last drawn.

Textual repaints whole rows of a widget, and of a partial update it crops the right side alone; a plot that moves by two
columns costs a few kilobytes a frame that way, a few hundred bytes this way. The override wraps Textual's own update, and
only in the versions it was tested with; in others the changed rows are sent.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import textual
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, Compositor, CompositorUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

TESTED = "8.2."
APPLIES = any(Path(textual.__file__).parents[1].glob(f"textual-{TESTED}*.dist-info")) or textual.__version__.startswith(TESTED)
"""Whether this is such a version. A folder beside the package names it; so does Textual, after an import of 12 ms."""
GAP = 4
"""Unchanged cells between two changed runs that are sent again: moving the cursor costs more."""
PIECES = 1024
"""Pieces of text whose cells are kept: those of two or three frames, in about 3 MB."""
HOLE = ""
"""The second cell of a wide character."""


class Look(NamedTuple):
    """A style as the terminal takes it: parameters of its escape sequences. Links are left out; eos has none."""

    attributes: str
    foreground: str
    background: str


Cell = tuple[str, Look]
PLAIN = Look("", "", "")
NOWHERE: Cell = ("unknown", PLAIN)


class NotSingle(Exception):
    """A character does not fill one cell by itself."""


class SingleCells(dict[str, Cell]):
    """The cell of each character of a look that fills one by itself. It is one object: rows that are compared are mostly the same."""

    def __init__(self, look: Look, blank: Look):
        super().__init__()
        self._look, self._blank = look, blank

    def __missing__(self, character: str) -> Cell:
        if cell_len(character) != 1 or unicodedata.category(character) == "Cc":
            raise NotSingle
        cell = self[character] = character, self._blank if character == " " else self._look
        return cell


class Screenful:
    """What the terminal shows, cell by cell, as far as we know."""

    def __init__(self) -> None:
        self.rows: list[list[Cell]] = []
        self._looks: dict[tuple[Style | None, bool], Look] = {}
        self._known: dict[tuple[str, Style | None], tuple[str, list[Cell]]] = {}
        """The cells of pieces of text drawn before: most come again in the next frame."""
        self._single: dict[tuple[Look, Look], SingleCells] = {}
        """The cells of single characters, by the looks of signs and of blanks."""
        self._pen = PLAIN

    def forget(self) -> None:
        """Send everything next time: something else may have written to the terminal."""
        self.rows = []

    def resize(self, width: int, height: int) -> None:
        """The terminal has this size. A change of it leaves its contents unknown."""
        if len(self.rows) != height or (height and len(self.rows[0]) != width):
            self.rows = [[NOWHERE] * width for _ in range(height)]

    def put(self, x: int, y: int, strip: Strip, console: Console) -> Iterator[str]:
        """What to send so that the strip stands at x, y."""
        if not 0 <= y < len(self.rows):
            return
        row, cells = self.rows[y], self.cells(strip, console)
        del cells[max(len(row) - x, 0) :]
        old = row[x : x + len(cells)]
        if old == cells:
            return
        for start, stop in _changed(old, cells):
            yield f"\x1b[{y + 1};{x + start + 1}H"
            for character, look in cells[start:stop]:
                pen = self._pen
                if look != pen and (character != " " or look.background != pen.background or look.attributes != pen.attributes):
                    yield self._turn(look)  # a blank is left in the colour before it
                yield character
        row[x : x + len(cells)] = cells

    def lift(self) -> str:
        """Leave the terminal without a style, as Textual does."""
        return "" if self._pen == PLAIN else self._turn(PLAIN)

    def _turn(self, look: Look) -> str:
        """Change the style: only what differs, but attributes cannot be taken away one by one."""
        old, self._pen = self._pen, look
        if look == PLAIN:
            return "\x1b[0m"
        codes = []
        if old.attributes != look.attributes:
            if old.attributes:
                codes.append("0")
                old = PLAIN
            codes.append(look.attributes)
        if old.foreground != look.foreground:
            codes.append(look.foreground or "39")
        if old.background != look.background:
            codes.append(look.background or "49")
        return f"\x1b[{';'.join(code for code in codes if code)}m"

    def cells(self, strip: Strip, console: Console) -> list[Cell]:
        """The cells that a row of the screen comes to."""
        cells: list[Cell] = []
        for text, style, control in strip:
            if control:
                continue
            if (known := self._known.get((text, style))) is None:
                if len(self._known) > PIECES:
                    self._known.clear()
                known = self._known[text, style] = self._cells_of(text, style, console)
            joined, own = known
            if joined and cells:
                cells[-1] = (cells[-1][0] + joined, cells[-1][1])
            cells += own
        return cells

    def _cells_of(self, text: str, style: Style | None, console: Console) -> tuple[str, list[Cell]]:
        """The cells of a piece of text, and before them the characters that belong to the cell to the left."""
        look, blank = self._look(style, False, console), self._look(style, True, console)
        if (single := self._single.get((look, blank))) is None:
            single = self._single[look, blank] = SingleCells(look, blank)
        try:
            return "", [single[character] for character in text]
        except NotSingle:
            pass
        joined, cells = "", list[Cell]()
        for character in text:
            width = cell_len(character)
            if unicodedata.category(character) == "Cc":  # the last of the guards: nothing drawn may steer the terminal
                continue
            if width:
                cells += [(character, blank if character == " " else look), *[(HOLE, look)] * (width - 1)]
            elif cells:
                cells[-1] = (cells[-1][0] + character, cells[-1][1])
            else:
                joined += character
        return joined, cells

    def _look(self, style: Style | None, blank: bool, console: Console) -> Look:
        """How a style looks; a blank has no use for a foreground."""
        key = style, blank
        if key not in self._looks:
            if len(self._looks) > 4096:
                self._looks.clear()
                self._single.clear()
            self._looks[key] = _look_of(style, blank, console._color_system or ColorSystem.TRUECOLOR)
        return self._looks[key]


def _look_of(style: Style | None, blank: bool, colors: ColorSystem) -> Look:
    if style is None:
        return PLAIN
    background = _codes(Style(bgcolor=style.bgcolor), colors)
    if blank and not (style.underline or style.reverse or style.strike or style.overline):
        return Look("", "", background)
    return Look(_codes(style.without_color, colors), _codes(Style(color=style.color), colors), background)


def _codes(style: Style, colors: ColorSystem) -> str:
    """The parameters of a style's escape sequence, by Textual's own rendering."""
    return Strip.render_style(style, "", colors).removeprefix("\x1b[").partition("m")[0]


class Composition(Compositor):
    """Textual's, but of a partial update only the widgets that are seen in it are asked for their rows: there, all are that share
    a container with one of them.
    """

    _changed: frozenset[Region] | None = None
    """The regions of a partial update while it is made."""

    def render_partial_update(self) -> ChopsUpdate | None:
        self._changed = frozenset(self._dirty_regions)
        try:
            return super().render_partial_update()
        finally:
            self._changed = None

    def _get_renders(self, crop: Region | None = None) -> Iterator[tuple[Region, Region, list[Strip]]]:
        wanted = list(self._changed if self._changed is not None else [crop or self.size.region])
        for widget, (region, clip) in self.visible_widgets.items():  # the uppermost first
            shown = region.intersection(clip)
            if any(map(shown.overlaps, wanted)):
                yield region, clip, widget.render_lines(shown.translate(-region.offset))
                wanted = [each for each in wanted if not shown.contains_region(each)]


class Difference(CompositorUpdate):
    """One of Textual's updates, less what the terminal shows already."""

    def __init__(self, update: LayoutUpdate | ChopsUpdate, shown: Screenful, size: tuple[int, int]):
        self.update, self.shown, self.size = update, shown, size

    def render_segments(self, console: Console) -> str:
        self.shown.resize(*self.size)
        parts = _laid_out(self.update) if isinstance(self.update, LayoutUpdate) else _chopped(self.update)
        sent = [text for x, y, strip in parts for text in self.shown.put(x, y, strip, console)]
        return "".join(sent) + self.shown.lift()


def _laid_out(update: LayoutUpdate) -> Iterator[tuple[int, int, Strip]]:
    for y, line in enumerate(update.strips, update.region.y):
        x = update.region.x
        for strip in line:
            yield x, y, strip
            x += strip.cell_length


def _chopped(update: ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x <= x2 and end > x1:
                yield x, y, strip if end <= x2 else strip.crop(0, x2 - x)


def _changed(old: list[Cell], new: list[Cell]) -> Iterator[tuple[int, int]]:
    """The runs of cells that differ, with near ones joined; a wide character is never split."""
    differ = [k for k, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    if not differ:
        return
    start = stop = differ[0]
    for k in differ:
        if k > stop + GAP:
            yield _whole(new, start, stop)
            start = k
        stop = k + 1
    yield _whole(new, start, stop)


def _whole(cells: list[Cell], start: int, stop: int) -> tuple[int, int]:
    while start > 0 and cells[start][0] == HOLE:
        start -= 1
    while stop < len(cells) and cells[stop][0] == HOLE:
        stop += 1
    return start, stop
