"""What a plot is asked to show: its curves, its window of steps, and how curves differ without colour."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len

from eos_tui.model.history import History


class Curve(NamedTuple):
    """One column in a plot."""

    column: str
    label: str
    role: str
    dashed: bool = False
    error: str = ""
    """The column of its standard error: each value has a bar of two of them either way."""
    joins: str = ""
    """The column whose line these readings lengthen: one stroke, and no words of their own in the legend beside it."""


class PlotSpec(NamedTuple):
    """What a plot shows."""

    id: str
    title: str
    curves: tuple[Curve, ...]
    words: str = ""
    """What it is in plain words, said after the title where there is room."""
    threshold: bool = False
    """Draw the stability threshold, 2/η for gradient descent."""
    log: bool = False
    zero: bool = False
    """Draw a line at 0."""
    smooth: int = 0
    """Rows of the running mean drawn over the faded curve. 0 draws the curve alone."""
    strands: bool = False
    """Draw even and odd rows as two lines, the odd ones fainter."""
    from_edge: bool = False
    """Nothing is recorded before the edge: a view of the whole run begins there."""
    veil: str = ""
    """A column that is 0 where nothing is claimed of the curves: there the ground is dotted."""
    ratio: bool = False
    """Draw a line at 1: what is shown is over its edge."""
    near: bool = False
    """Show no more than twice the threshold: in the first steps of a preconditioned optimizer the sharpness is tens of times that."""
    about: bool = False
    """Let nothing but what is measured widen the axis beyond the surroundings of the threshold."""
    marks: tuple[tuple[float, str], ...] = ()
    """Places on the horizontal axis where a line stands, each with its name."""


class Axis(NamedTuple):
    """What the horizontal axis counts."""

    along: str = "step"
    """The column, which grows with the steps."""
    origin: float = 0.0
    """Its value at the zero of the axis."""
    label: str = "step"


STEPS = Axis()


class Window(NamedTuple):
    """The steps in view, and the step under the cursor."""

    start: float
    stop: float
    cursor: float | None = None
    axis: Axis = STEPS


class Span(NamedTuple):
    """A window in the units of its axis."""

    start: float
    stop: float
    cursor: float | None
    axis: Axis

    @classmethod
    def of(cls, history: History, window: Window) -> "Span":
        """Where the window's steps stand on its axis."""
        start, stop = (history.position(step, window.axis.along) for step in window[:2])
        cursor = None if window.cursor is None else history.position(window.cursor, window.axis.along)
        return cls(start, stop, cursor, window.axis)

    def shifted(self, by: float) -> "Span":
        """The same stretch of another run, whose axis is this much ahead."""
        return self._replace(start=self.start + by, stop=self.stop + by)


class Overlay(NamedTuple):
    """Another run drawn into a plot, its edge laid on this one's."""

    history: History
    label: str
    role: str
    pen: "Pen"
    edge: float = 0.0
    """The step of that run that is drawn at `at`, its edge."""
    at: float = 0.0
    """The step of the run below."""


class Pen(NamedTuple):
    """The stroke of a curve, by which it differs from the others without colour."""

    sample: str
    """Its line in the legend."""
    on: int
    """Cells drawn, and cells left out after them."""
    off: int
    mark: str
    """Its dots in ASCII."""


SOLID = (Pen("━━", 1, 0, "*"), Pen("─╴", 3, 1, "o"), Pen("╶╴", 1, 1, "."), Pen("─·", 4, 2, "%"))
DASHED = (Pen("╌╌", 2, 2, "+"), Pen("┄┄", 1, 2, "x"), Pen("┈┈", 1, 3, ":"), Pen("╴ ", 2, 4, "~"))
OTHERS = (
    Pen("╍╍", 3, 1, "1"), Pen("╌╶", 2, 1, "2"), Pen("·╌", 1, 2, "3"), Pen("━·", 5, 1, "4"), Pen("┅┅", 3, 2, "5"), Pen("┉┉", 1, 4, "6"),
    Pen("╾╌", 2, 3, "7"), Pen("╼╶", 4, 4, "8"),
)  # fmt: skip
"""Pens of other runs, and of the orbits of a start that is placed."""
THRESHOLD = Pen("╴╴", 1, 1, "-")


@lru_cache(maxsize=256)
def pens(curves: tuple[Curve, ...]) -> list[Pen]:
    """A pen for each curve, in order: the solid ones and the dashed ones each get different strokes, and one that lengthens another's
    line that one's.
    """
    solid, dashed = 0, 0
    chosen = dict[str, Pen]()
    for curve in curves:
        if curve.joins in chosen:
            chosen[curve.column] = chosen[curve.joins]
            continue
        chosen[curve.column] = DASHED[dashed % len(DASHED)] if curve.dashed else SOLID[solid % len(SOLID)]
        solid, dashed = solid + (not curve.dashed), dashed + curve.dashed
    return list(chosen.values())


def edge_name(spec: PlotSpec, history: History) -> str:
    """What the line of the threshold is called: by its symbol, 2/η where the record has none of its own."""
    return "edge" if spec.ratio else history.symbols.get("threshold", "2/η")


def symbols(history: History, curves: Sequence[Curve]) -> dict[str, str]:
    """The symbol of each curve's column; its label where another curve has the same, or where a terminal would not show it
    in as many cells as it has characters.
    """
    known = history.symbols
    recorded = tuple(curve for curve in curves if curve.column in known)
    return _distinct(recorded, tuple(known[curve.column] for curve in recorded))


@lru_cache(maxsize=256)
def _distinct(recorded: tuple[Curve, ...], own: tuple[str, ...]) -> dict[str, str]:
    """The name of each curve's column, given their symbols."""
    return {
        curve.column: symbol if own.count(symbol) == 1 and _plain(symbol) else curve.label
        for curve, symbol in zip(recorded, own, strict=True)
    }


@lru_cache(maxsize=512)
def _plain(text: str) -> bool:
    """Whether each character fills one cell."""
    return all(cell_len(character) == 1 for character in text)
