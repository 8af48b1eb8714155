"""Which plots stand where: rows and columns for a size, pages where they do not all fit, and the order that the user asks for."""

from collections.abc import Sequence
from typing import NamedTuple

from eos_tui.config import Layout

LAYOUTS: dict[Layout, str] = {"all": "all that fit", "two": "two large", "one": "one large"}
"""What the key for the layout goes through, and what it is called."""

WIDE, PAIRED, ROW_HEIGHT, ROOMY, SQUARE = 110, 90, 9, 14, 36
"""Columns from which three plots stand side by side, and two; rows that a plot wants at least, and a third row of plots of each;
columns for a small square one."""
SMALLEST = (40, 12)


class Arrangement(NamedTuple):
    """How a screen is shared out."""

    header: int
    journal: int
    """Rows of each."""
    columns: int
    per_page: int


def arranged(width: int, height: int, panels: int, layout: Layout = "all", long: bool = True) -> Arrangement | None:
    """Three columns of plots where they fit, or two, else pages of what fits below one another; None where nothing does. A `long` sentence
    in the header has two rows where the screen is narrow.
    """
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return None
    header = 2 if height < 16 else 4 if width < PAIRED and height >= 24 else 3  # a sentence is longer than eighty columns
    journal = 1 if height < 36 else 4
    room = height - header - journal - 1  # as many plots whether or not the sentence is long
    header -= header == 4 and not long
    rows = max(1, room // ROW_HEIGHT)
    columns = 3 if width >= WIDE else 2 if width >= PAIRED else 1
    if layout == "one":
        return Arrangement(header, journal, 1, 1)
    if layout == "two":
        columns = 2 if columns > 1 else 1
        return Arrangement(header, journal, columns, min(2, rows * columns, panels))
    if columns > 1:
        rows = min(rows, max(2, room // ROOMY))
    return Arrangement(header, journal, columns, min(rows, -(-panels // columns)) * columns)


def pages(count: int, per_page: int) -> list[tuple[int, ...]]:
    """The places, in the order of plots, that stand on each page. Of pages of two the first has the first and the third, the second the
    second and the fourth: what is measured in time beside how it swings.
    """
    places = [0, 2, 1, 3, *range(4, count)] if per_page == 2 and count >= 4 else [*range(count)]
    return [tuple(places[k : k + per_page]) for k in range(0, count, per_page)]


def grid(visible: int, columns: int) -> tuple[int, int, int]:
    """Columns and rows for so many plots, no more columns than these, and how many columns the last plot takes so that none is left."""
    rows = -(-visible // columns)
    columns = -(-visible // rows)
    return columns, rows, rows * columns - visible + 1


def ordered(known: Sequence[str], first: Sequence[str], asked: Sequence[str] = ()) -> list[str]:
    """The names of plots in the order asked for, then in the order `first`, then as they come."""
    return list(dict.fromkeys(name for name in (*asked, *first, *known) if name in known))
