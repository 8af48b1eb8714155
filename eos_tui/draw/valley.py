"""The valley that a step goes through, cut across: ½(2/η + y)x² with the ball that jumps from wall to wall, narrower where the sharpness
is larger; and beside it the sharpness, with the force that pushes it.
"""

import math
from typing import NamedTuple

import numpy as np

from eos_tui.draw import blocks
from eos_tui.draw.raster import Canvas, strokes
from eos_tui.draw.theme import role_style

GAUGE = 16
"""Cells of the gauge of the sharpness."""
REACH = 1.15
"""Half the width that is seen, over the largest |x| there is."""
WALL = 0.8
"""Height of the picture, over that of the valley of the edge at its sides."""
STRONGEST = 6.0
"""x²/δ² − 1 that is drawn as the longest arrow."""
FELT = 0.02
"""The same under which no arrow is drawn."""


class Section(NamedTuple):
    """The valley at one moment."""

    ratio: float
    """Its curvature over the edge: (2/η + y)·η/2; NaN where it is not known."""
    x: float = math.nan
    """Where the ball is, in units of δ; NaN where there is none."""
    swing: float = math.nan
    """|x|/δ, also while the ball is on its way from wall to wall."""
    before: tuple[float, ...] = ()
    """Where it was at the steps before, the newest last."""
    reach: float = 3.0
    """The largest |x|/δ to show."""
    spread: float = 0.3
    """The largest |ratio − 1| to show."""
    edge: str = "2/η"
    """The name of the edge."""

    @property
    def force(self) -> float:
        """The push on the sharpness, over the sharpening: 1 − x²/δ², negative where the swing pushes it down. NaN without a ball."""
        return 1 - self.swing**2


def paint(canvas: Canvas, section: Section, top: int, left: int, rows: int, columns: int, theme: str) -> None:
    """Draw into these cells of a canvas."""
    gauge = GAUGE if columns >= 2.5 * GAUGE else 0
    across = columns - gauge
    if rows < 3 or across < 6:
        return
    steps = rows >= 8
    _bowl(canvas, section, top, left, rows - steps, across, theme)
    if steps and math.isfinite(section.x):
        _marks(canvas, section, top + rows - 1, left, across, theme)
    if gauge:
        _gauge(canvas, section, top, left + across, rows, gauge, theme)


def _bowl(canvas: Canvas, section: Section, top: int, left: int, rows: int, columns: int, theme: str) -> None:
    half = REACH * max(section.reach, 1.5)
    height = WALL * half**2
    at = (np.arange(columns) + 0.5) / columns * 2 * half - half
    base = 0.6  # cells of ground beneath the lowest point
    ratio = section.ratio if math.isfinite(section.ratio) else 0.0

    def cells(x: np.ndarray, ratio: float) -> np.ndarray:
        """Cells above the foot of the picture of the valley's surface."""
        return base + ratio * x**2 / height * (rows - base)

    blocks.ground(canvas, cells(at, ratio), top, left, rows, role_style(theme, "muted", 2), role_style(theme, "muted", 0))
    fine = (np.arange(4 * columns) + 0.5) / (4 * columns) * 2 * half - half
    dots = strokes((fine + half) / (2 * half) * 2 * columns, cells(fine, 1.0) * 4, 2 * columns, 4 * rows)
    dots &= np.arange(2 * columns) // 2 % 2 == 0
    canvas.dots(dots, top, left, role_style(theme, "threshold"), "-")
    if not math.isfinite(section.x):
        return

    def place(x: float) -> tuple[int, int]:
        """The cell of a ball that lies on the surface."""
        row = top + rows - 1 - min(math.ceil(float(cells(np.array(x), ratio)) - 0.4), rows - 1)
        return row, left + min(max(math.floor((x + half) / (2 * half) * columns), 0), columns - 1)

    for age, x in enumerate(reversed(section.before[-8:])):
        row, column = place(x)
        sign = ("o" if canvas.ascii else "○") if not age else ("." if canvas.ascii else "∙")
        canvas.text(row, column, sign, role_style(theme, "gd", min(1 + age // 3, 2)))
    _ball(canvas, *place(section.x), rows >= 16 and columns >= 40, theme)


def _ball(canvas: Canvas, row: int, column: int, large: bool, theme: str) -> None:
    style = role_style(theme, "gd", bold=True)
    if not large:
        canvas.text(row, column, "@" if canvas.ascii else "●", style)
        return
    for up, text in ((1, "/_\\" if canvas.ascii else "▟█▙"), (0, "\\_/" if canvas.ascii else "▜█▛")):
        canvas.text(row - up, column - 1, text, style)


def _marks(canvas: Canvas, section: Section, row: int, left: int, columns: int, theme: str) -> None:
    """The foot: the middle, and δ on either side."""
    half, muted = REACH * max(section.reach, 1.5), role_style(theme, "muted")
    for x, name in ((-1.0, "-d" if canvas.ascii else "−δ"), (0.0, "0"), (1.0, "d" if canvas.ascii else "δ")):
        canvas.text(row, left + math.floor((x + half) / (2 * half) * columns) - (len(name) - 1), name, muted)


def _gauge(canvas: Canvas, section: Section, top: int, left: int, rows: int, columns: int, theme: str) -> None:
    """The sharpness as a mark beside a line, narrow above and wide below, and the arrow that pushes it."""
    plain, muted = canvas.ascii, role_style(theme, "muted")
    line = left + 2
    canvas.text(top, left + 1, "narrower", muted)
    canvas.text(top + rows - 1, left + 1, "wider", muted)
    first, last = top + 1, top + rows - 2
    if last - first < 2:
        return
    canvas.rule(line, first, last - first + 1, "|" if plain else "│", role_style(theme, "muted", 1))

    def place(ratio: float) -> int:
        share = (ratio - 1 + section.spread) / (2 * section.spread)
        return min(max(round(last - share * (last - first)), first), last)

    canvas.text(place(1.0), line, "+-" if plain else "┼╴", role_style(theme, "threshold"))
    canvas.text(place(1.0), line + 3, section.edge, role_style(theme, "threshold"))
    if not math.isfinite(section.ratio):
        return
    at = place(section.ratio)
    canvas.text(at, line - 2, "=>" if plain else "━▶", role_style(theme, "gd", bold=True))
    force = section.force
    if not math.isfinite(force) or abs(force) < FELT:
        return
    long = max(round(min(abs(force) / STRONGEST, 1.0) * (last - first) / 2), 1)
    down = force < 0
    style = role_style(theme, "bad" if down else "good", bold=True)
    reached = [row for row in (range(at + 1, at + 1 + long) if down else range(at - 1, at - 1 - long, -1)) if first <= row <= last]
    for row in reached:
        canvas.text(row, line, ("|" if plain else "┃"), style)
    if reached:
        canvas.text(reached[-1], line, ("v" if down else "^") if plain else ("▼" if down else "▲"), style)
        beside = reached[len(reached) // 2]
        if beside != place(1.0):
            canvas.text(beside, line + 2, "pushed down" if down else "drifts up", style)
