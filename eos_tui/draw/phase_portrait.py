"""A phase portrait as a pure function: a scene and a size in cells make rows of styled text.

Under the orbits lie the level sets of Lemma 3 for the present α, the nullclines y = 0 and |x| = δ, and the fixed point. An
orbit turns clockwise: y rises while |x| is small, |x| grows while y > 0, and |x| > δ drives y down again.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from rich.style import Style
from textual.strip import Strip

from engine import theory
from eos_tui.draw import axes, portrait_words
from eos_tui.draw.axes import Limits
from eos_tui.draw.decorations import GUTTER, Box, LegendEntry, legend, legend_rows, most_rows
from eos_tui.draw.orbits import REAL, TRAIL, Orbit, Scene
from eos_tui.draw.raster import Canvas, strokes
from eos_tui.draw.theme import role_style

LEVELS = (0.1, 0.5, 1.5, 3.5, 7.0)
STALE = 0.10
"""Relative change of α or of the orbit's g from which the level sets are drawn anew: they are a backdrop, and each move of
theirs would repaint the whole plot."""
COMPANION = 3.0
"""Factor over the real orbit to which predictions may widen the axes."""


class Scale(NamedTuple):
    """What stays from frame to frame while it serves: the level sets and the axes."""

    alpha: float = math.nan
    g: float = math.nan
    """The α of the level sets, and the g of the orbit's own."""
    x: Limits | None = None
    y: Limits | None = None


class Painted(NamedTuple):
    """A portrait drawn, with the scale for the next frame to keep."""

    strips: list[Strip]
    scale: Scale
    frame: "Frame | None" = None
    """Where it lies; None where there is no room for it."""


def paint(scene: Scene, scale: Scale, width: int, height: int, *, ascii: bool, theme: str) -> Painted:
    """The portrait as `height` rows of exactly `width` cells, without a border."""
    canvas, alpha = Canvas(max(width, 0), max(height, 0), ascii), scene.constants.alpha
    orbits, own, g = scene.orbits, scene.own, scene.orbits[0].level(alpha)
    caption = portrait_words.caption(scene, g, width)[: 2 if height >= 14 else 1] if height >= 7 else []
    entries = _legend([*orbits, *own], ascii)
    top = min(legend_rows(entries, width - GUTTER), most_rows(height))
    rows, columns = height - top - int(height >= 5) - len(caption), width - GUTTER
    if columns < 4 or rows < 2:
        return Painted(canvas.strips(), scale)
    scale = settled(scale, orbits, alpha, g)
    assert scale.x is not None
    assert scale.y is not None
    canvas = _ground(width, height, ascii, top, columns, rows, scale.x, scale.y, theme, scale.alpha, scale.g).copy()
    frame = Frame(canvas, top, GUTTER, columns, rows, scale.x, scale.y, theme)
    frame.trails([*reversed(orbits), *own])
    frame.mark((1.0, 0.0), "o" if ascii else "◆", role_style(theme, "threshold"))
    if scene.start is not None:
        frame.mark((scene.start.x, scene.start.y), "+", role_style(theme, "good", bold=True))
    for orbit in (*reversed(orbits), *own):
        if orbit.now:
            hollow = orbit.pen is not REAL
            sign = ("@" if not hollow else "O") if ascii else ("●" if not hollow else "○")
            frame.mark(orbit.now, sign, role_style(theme, orbit.role, bold=True))
    if top:
        legend(canvas, Box(top, GUTTER, columns, rows, False, height >= 5), entries, theme)
    for k, line in enumerate(caption):
        canvas.text(height - len(caption) + k, 0, line, role_style(theme, "muted"))
    return Painted(canvas.strips(), scale, frame)


def settled(scale: Scale, orbits: Sequence[Orbit], alpha: float, g: float) -> Scale:
    """The level sets and axes for these orbits: those of the frame before while they serve."""
    alpha_shown = scale.alpha if abs(alpha - scale.alpha) <= STALE * scale.alpha else alpha
    if abs(g - scale.g) <= STALE * scale.g:
        g = scale.g
    bounds = _bounds(max(0.5, g if g < 50 else 0.5), alpha_shown)
    right, height = bounds.x_max, bounds.y_max
    for orbit in sorted(orbits, key=lambda orbit: orbit.pen is not REAL):
        most = portrait_words.reach(alpha)
        if orbit.pen is not REAL:
            most = min(most[0], COMPANION * right), min(most[1], COMPANION * height)
        x, y = orbit.x[np.isfinite(orbit.x)], np.abs(orbit.y[np.isfinite(orbit.y)])
        right = max(right, min(float(x.max(initial=0)), most[0]))
        height = max(height, min(float(y.max(initial=0)), most[1]))
    return Scale(alpha_shown, g, axes.settle(scale.x, 0.0, right), axes.settle(scale.y, -height, height))


def _legend(orbits: Sequence[Orbit], ascii: bool) -> list[LegendEntry]:
    """Each kind of orbit once."""
    return list({
        orbit.label: LegendEntry(orbit.pen.mark * 2 if ascii else orbit.pen.sample, orbit.label, orbit.role) for orbit in orbits
    }.values())


class Frame(NamedTuple):
    """Where the portrait lies on its canvas, and what its axes span."""

    canvas: Canvas
    top: int
    left: int
    columns: int
    rows: int
    x: Limits
    y: Limits
    theme: str

    def axes(self, across: str = "|x|/δ") -> None:
        """Ticks and labels; what the horizontal axis is stands at its left."""
        canvas, muted = self.canvas, role_style(self.theme, "muted")
        canvas.rule(self.left - 1, self.top, self.rows, "|" if canvas.ascii else "│", muted)
        marks = axes.ticks(self.y, min(max(self.rows // 3, 3), 7))
        for value, label in zip(marks.values, marks.labels, strict=True):
            row = self._cell((0.0, value))[0]
            canvas.text(row, 0, label.rjust(axes.LABEL)[: axes.LABEL], muted)
            canvas.text(row, self.left - 1, "+" if canvas.ascii else "┤", muted)
        if marks.exponent and self.top:
            canvas.text(0, 0, axes.superscript(marks.exponent, canvas.ascii).rjust(axes.LABEL), muted)
        foot = self.top + self.rows
        if foot >= canvas.height:
            return
        canvas.text(foot, 0, across.rjust(axes.LABEL), muted)
        marks, free = axes.ticks(self.x, max(2, self.columns // 9)), self.left
        for value, label in zip(marks.values, marks.labels, strict=True):
            at = min(max(self._cell((value, self.y.lo))[1] - (len(label) - 1) // 2, self.left), canvas.width - len(label))
            if at >= free:
                canvas.text(foot, at, label, muted)
                free = at + len(label) + 1

    def nullclines(self) -> None:
        """y = 0 and |x| = δ, across which the orbits turn."""
        plain, style = self.canvas.ascii, role_style(self.theme, "muted", 1)
        row, column = self._cell((1.0, 0.0))
        self.canvas.text(row, self.left, ("-" if plain else "┈") * self.columns, style)
        self.canvas.rule(column, self.top, self.rows, ":" if plain else "┊", style)

    def levels(self, levels: tuple[float, ...], alpha: float, style: Style) -> None:
        """Level sets, under everything else."""
        dots = _level_dots(levels, alpha, self.x, self.y, self.columns, self.rows)
        self.canvas.dots(dots, self.top, self.left, style, ".", under=True)

    def trails(self, orbits: list[Orbit], trail: int = TRAIL) -> None:
        """The last `trail` rows of orbits, the oldest third of each faintest."""
        dots, styles = [], []
        for orbit in orbits:
            x, y = in_dots(orbit.x[-trail - 1 :], orbit.y[-trail - 1 :], self.x, self.y, self.columns, self.rows)
            youth = np.clip((np.arange(len(x)) - len(x) + trail) // max(trail // 3, 1), 0, 2)
            dots.append(np.zeros((3, 4 * self.rows, 2 * self.columns), bool))
            drawn = strokes(x, y, 2 * self.columns, 4 * self.rows, youth)
            if orbit.pen is REAL:  # what is measured is twice as thick
                drawn[:, 1:] |= drawn[:, :-1]
            dots[-1][: len(drawn)] = drawn
            styles += [role_style(self.theme, orbit.role, age) for age in (2, 1, 0)]
        self.canvas.layers(np.concatenate(dots), self.top, self.left, styles, [orbit.pen.mark for orbit in orbits for _ in range(3)])

    def mark(self, point: tuple[float, float], sign: str, style: Style) -> None:
        """A sign at a point, where it is in view."""
        if self.x.lo <= point[0] <= self.x.hi and self.y.lo <= point[1] <= self.y.hi:
            row, column = self._cell(point)
            self.canvas.text(row, column, sign, style)

    def point(self, row: int, column: int) -> tuple[float, float] | None:
        """The |x|/δ and y in the middle of a cell of the canvas; None outside."""
        right, up = column - self.left, self.top + self.rows - 1 - row
        if not (0 <= right < self.columns and 0 <= up < self.rows):
            return None
        return self.x.lo + (right + 0.5) / self.columns * self.x.span, self.y.lo + (up + 0.5) / self.rows * self.y.span

    def _cell(self, point: tuple[float, float]) -> tuple[int, int]:
        column = math.floor((point[0] - self.x.lo) / self.x.span * self.columns)
        row = math.floor((point[1] - self.y.lo) / self.y.span * self.rows)
        return (
            self.top + self.rows - 1 - min(max(row, 0), self.rows - 1),
            self.left + min(max(column, 0), self.columns - 1),
        )


@lru_cache(maxsize=8)
def _ground(
    width: int, height: int, ascii: bool, top: int, columns: int, rows: int, x: Limits, y: Limits, theme: str, alpha: float, g: float
) -> Canvas:
    """What lies under the orbits while the axes stay: it is painted once, and copied for every frame."""
    frame = Frame(Canvas(width, height, ascii), top, GUTTER, columns, rows, x, y, theme)
    frame.axes()
    frame.nullclines()
    frame.levels(LEVELS, alpha, role_style(theme, "muted", 2))
    if g > 0:
        frame.levels((g,), alpha, role_style(theme, "muted", 1))
    return frame.canvas


@lru_cache(maxsize=8)
def _level_dots(levels: tuple[float, ...], alpha: float, x: Limits, y: Limits, columns: int, rows: int) -> np.ndarray:
    """The dots of level sets, which stay where they are from frame to frame; in |x|/δ and y they do not depend on β."""
    points = np.concatenate([np.append(theory.level_set(g, alpha, 1.0), [[np.nan, np.nan]], axis=0) for g in levels])
    return strokes(*in_dots(points[:, 0], points[:, 1], x, y, columns, rows), 2 * columns, 4 * rows)


def in_dots(
    x: np.ndarray, y: np.ndarray, x_limits: Limits, y_limits: Limits, columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points in the dots of a frame, from its lower left corner."""
    return (x - x_limits.lo) / x_limits.span * 2 * columns, (y - y_limits.lo) / y_limits.span * 4 * rows


@lru_cache(maxsize=64)
def _bounds(g: float, alpha: float) -> theory.Bounds:
    """How far the orbit on a level set goes, in |x|/δ and y."""
    return theory.bounds(g, alpha, 2 * alpha)  # δ = 1
