"""The path of x in two directions at the edge, as a pure function: rows of styled text from a run's history and a size in cells.

Each step turns the sign of x, so what is drawn is (−1)ᵗx, which is smooth. X† is the covariance of x that holds θ† at the edge. It has as
many ranks as directions swing and xxᵀ has one, so x never comes to rest: it turns, and only its mean of xxᵀ is X†. Where X† is the same in
all directions it turns evenly on the circle |x|² = 2σ², once in 2π√2/ε steps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from textual.strip import Strip

from engine.record.columns import CROSSED, MOST_DIRECTIONS
from eos_tui.draw import axes
from eos_tui.draw.axes import Limits, number
from eos_tui.draw.decorations import GUTTER, Box, LegendEntry, legend, legend_rows, most_rows, nothing_before_the_edge
from eos_tui.draw.orbits import REAL, Orbit
from eos_tui.draw.phase_portrait import Frame, in_dots
from eos_tui.draw.plot_spec import DASHED, THRESHOLD, Window
from eos_tui.draw.raster import Canvas, strokes
from eos_tui.draw.theme import role_style
from eos_tui.model.history import History

DIRECTIONS = "constrained.directions"
FEWEST, MOST = 20, 4000
"""Steps of a turn that are drawn at least and at most."""
APART = 4.0
"""Ratio of the two widths from which each axis has a scale of its own: else a circle is drawn as one."""
EVEN = math.sqrt(2)
"""How far beyond one standard deviation x turns, where it turns evenly."""
ELLIPSE_POINTS = 240


class Turn(NamedTuple):
    """The path of x over a turn, up to a step."""

    first: int
    second: int
    """The two directions, counted from 1."""
    directions: int
    """How many are at the edge."""
    x: np.ndarray
    y: np.ndarray
    """(−1)ᵗx along each, (steps,), the newest last; NaN where a direction was not at the edge."""
    covariance: np.ndarray | None
    """X† of the two, (2, 2); None where it is not recorded: it is for the first few directions."""
    period: float
    """Steps of an even turn, 2π√2/ε; NaN where ε is undefined."""
    size: float
    """Mean of |x|² over the path, of all directions, over tr X†."""

    @property
    def turned(self) -> float:
        """How many times the path went round, anticlockwise counted as positive."""
        known = np.isfinite(self.x) & np.isfinite(self.y)
        if known.sum() < 2:
            return math.nan
        angle = np.unwrap(np.arctan2(self.y[known] / _deviation(self.covariance, 1), self.x[known] / _deviation(self.covariance, 0)))
        return float(angle[-1] - angle[0]) / (2 * math.pi)


def _deviation(covariance: np.ndarray | None, k: int) -> float:
    deviation = 1.0 if covariance is None else math.sqrt(max(covariance[k, k], 0))
    return deviation if deviation > 0 else 1.0


def recorded(history: History) -> bool:
    """Whether a run has x in several directions."""
    return history.has(DIRECTIONS) and history.has("gd.x1")


def columns(pair: Sequence[int]) -> set[str]:
    """The recorded quantities that the path in two directions shows."""
    entries = {_entry(i, j) for i in pair for j in pair}
    return {"gd.x_norm", DIRECTIONS, "constrained.active", "covariance.trace", *(f"gd.x{k}" for k in pair), *entries}


def directions(history: History, window: Window) -> int:
    """How many directions are at the edge at the cursor, or else at the end of the window; 0 where there is no θ†."""
    row = _row(history, window)
    value = history.value(DIRECTIONS, row) if row >= 0 and recorded(history) else math.nan
    return int(value) if 0 <= value <= MOST_DIRECTIONS else 0


def turn(history: History, window: Window, first: int, second: int) -> Turn:
    """The path in two directions up to the cursor, or else to the end of the window."""
    row = _row(history, window)
    epsilon = history.value("constrained.epsilon", row)
    period = 2 * math.pi * math.sqrt(2) / epsilon if epsilon > 0 else math.nan
    length = int(min(max(period, FEWEST), MOST)) if math.isfinite(period) else FEWEST
    rows = max(row - length, 0), row + 1
    sign = 1 - 2 * np.mod(history.values("step", *rows), 2)
    x, y = (sign * history.values_or_nan(f"gd.x{k}", *rows) for k in (first, second))
    a, b, between = (history.value(_entry(i, j), row) for i, j in ((first, first), (second, second), (first, second)))
    covariance = np.array([[a, between], [between, b]])
    square = np.square(history.values_or_nan("gd.x_norm", *rows))
    known = square[np.isfinite(square)]
    trace = history.value("covariance.trace", row)
    size = float(known.mean()) / trace if len(known) and trace > 0 else math.nan
    return Turn(first, second, directions(history, window), x, y, covariance if np.isfinite(covariance).all() else None, period, size)


def _entry(i: int, j: int) -> str:
    return f"covariance.x{min(i, j)}x{max(i, j)}"


def _row(history: History, window: Window) -> int:
    return history.row_near(window.stop if window.cursor is None else window.cursor)


def why_none(history: History, window: Window) -> str:
    """Why nothing turns; empty where something does."""
    if not recorded(history):
        return 'This run follows one direction at most; one with on_second_eigenvalue = "follow" has x in several, as `eos run several`.'
    count = directions(history, window)
    if count >= 2:
        return ""
    if count == 1:
        return ("One direction is at the edge, and with one nothing turns: x grows and shrinks along a line, and the phase portrait shows "
                "it. `eos run several` has several directions.")
    if math.isnan(history.last(DIRECTIONS)):
        return f"x in several directions: {nothing_before_the_edge(history)}."
    return "There is no θ† at this step, so there is no x."


WORDS, BRIEFLY = ("path of x", "X†: one standard deviation", "√2 of it: an even turn"), ("x", "X†: 1σ", "√2σ: even turn")
"""What the legend calls the path and the two ellipses, and in fewer letters."""


def _entries(words: tuple[str, str, str], shown: Turn, ascii: bool) -> list[LegendEntry]:
    path, inner, outer = words
    ellipses = [
        _sample(THRESHOLD.sample, THRESHOLD.mark, ascii, inner, "muted"),
        _sample(DASHED[0].sample, DASHED[0].mark, ascii, outer, "constrained"),
    ]
    return [_sample(REAL.sample, REAL.mark, ascii, path, "gd"), *(ellipses if shown.covariance is not None else [])]


def paint(shown: Turn, width: int, height: int, *, ascii: bool, theme: str, held: tuple[Limits, Limits] | None = None
          ) -> tuple[list[Strip], tuple[Limits, Limits] | None]:
    """The path over its ellipses as `height` rows of exactly `width` cells, and the limits it was drawn to, for the next frame to keep."""
    canvas = Canvas(max(width, 0), max(height, 0), ascii)
    entries = _entries(WORDS, shown, ascii)
    if legend_rows(entries, width - GUTTER) > most_rows(height):
        entries = _entries(BRIEFLY, shown, ascii)
    top = min(legend_rows(entries, width - GUTTER), most_rows(height))
    rows, columns = height - top - int(height >= 5), width - GUTTER
    if columns < 4 or rows < 2:
        return canvas.strips(), held
    limits = _limits(shown, columns, rows, held)
    frame = Frame(canvas, top, GUTTER, columns, rows, *limits, theme)
    frame.axes(f"x{shown.first}")
    canvas.text(max(top - 1, 0), 0, f"x{shown.second}".rjust(axes.LABEL), role_style(theme, "muted"))
    _cross(frame)
    for scale, role, age, pen in ((1.0, "muted", 0, THRESHOLD), (EVEN, "constrained", 0, DASHED[0])):
        if shown.covariance is not None:
            x, y = ellipse(shown.covariance, scale)
            drawn = strokes(*in_dots(x, y, *limits, columns, rows), 2 * columns, 4 * rows)
            canvas.dots(drawn & _dashes(pen.on, pen.off, columns, rows, drawn), top, GUTTER, role_style(theme, role, age), pen.mark)
    path = Orbit("path of x", "gd", REAL, shown.x, shown.y)
    frame.trails([path], len(shown.x) - 1)
    if path.now is not None:
        frame.mark(path.now, "@" if ascii else "●", role_style(theme, "gd", bold=True))
    if top:
        legend(canvas, Box(top, GUTTER, columns, rows, False, height >= 5), entries, theme)
    return canvas.strips(), limits


def ellipse(covariance: np.ndarray, scale: float) -> np.ndarray:
    """The points c with cᵀX†⁻¹c = scale², (2, points); those that the root of X† makes of a circle, so a line where it has rank one."""
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS)
    return scale * (vectors * np.sqrt(np.maximum(values, 0))) @ np.stack([np.cos(angle), np.sin(angle)])


def words(shown: Turn, width: int) -> tuple[str, str]:
    """What is seen, and what the ellipses are, in so many cells where they can be said in them."""
    pair, steps = f"x{shown.first}, x{shown.second} of {shown.directions}", f"{len(shown.x) - 1:,} steps"
    round_about = f"{abs(shown.turned):.2f} times round in {steps}" if math.isfinite(shown.turned) else steps
    size = f" · mean |x|²/tr X† {number(shown.size, 3)}" if math.isfinite(shown.size) else ""
    seen = f"{pair} · {round_about}{size}", f"{pair} directions at the edge, the sign (−1)ᵗ taken out · {round_about}{size}"
    period = f"{shown.period:,.0f} steps" if math.isfinite(shown.period) else "– steps"
    ellipses: tuple[str, ...] = (
        "inner ellipse: σ of X† · outer: √2σ",
        f"inner ellipse: one standard deviation of X† · outer: √2 of it, {period}",
        "inner ellipse cᵀX†⁻¹c = 1: one standard deviation of x · "
        f"outer: √2 of it, where x would turn evenly, once in {period}",
    )
    if shown.covariance is None:
        ellipses = (f"X† is recorded of the first {CROSSED} directions",)
    return _longest(seen, width), _longest(ellipses, width)


def _longest(choices: Sequence[str], width: int) -> str:
    """The last of these that fits, or the first."""
    return next((text for text in reversed(choices) if len(text) <= width), choices[0])


def _sample(sample: str, mark: str, ascii: bool, name: str, role: str) -> LegendEntry:
    return LegendEntry(mark * 2 if ascii else sample, name, role)


def _limits(shown: Turn, columns: int, rows: int, held: tuple[Limits, Limits] | None) -> tuple[Limits, Limits]:
    """Axes about 0 that hold the path and the ellipses: of one scale, unless one is far wider than the other."""
    across, upward = (
        max(float(np.nanmax(np.abs(values), initial=0)), EVEN * (_deviation(shown.covariance, k) if shown.covariance is not None else 0))
        for k, values in enumerate((shown.x, shown.y))
    )
    across, upward = max(across, 1e-300), max(upward, 1e-300)
    if max(across, upward) <= APART * min(across, upward):
        unit = max(across / (2 * columns), upward / (4 * rows))  # per dot: cells are two dots wide and four high
        across, upward = unit * 2 * columns, unit * 4 * rows
    old = held or (None, None)
    return axes.settle(old[0], -across, across), axes.settle(old[1], -upward, upward)


def _dashes(on: int, off: int, columns: int, rows: int, drawn: np.ndarray) -> np.ndarray:
    """Where dashes of a closed curve are: by the angle about the middle, so that they run along it."""
    height, width = drawn.shape
    angle = np.arctan2(np.arange(height)[:, None] - height / 2 + 0.5, np.arange(width) - width / 2 + 0.5)
    period = on + off
    count = max(2 * min(columns, 2 * rows) // period, 4) * period
    return (angle + np.pi) / (2 * np.pi) * count % period < on


def _cross(frame: Frame) -> None:
    """The lines x = 0."""
    plain, style = frame.canvas.ascii, role_style(frame.theme, "muted", 1)
    for k in range(frame.columns):
        frame.mark((frame.x.lo + (k + 0.5) / frame.columns * frame.x.span, 0.0), "-" if plain else "┈", style)
    for k in range(frame.rows):
        frame.mark((0.0, frame.y.lo + (k + 0.5) / frame.rows * frame.y.span), ":" if plain else "┊", style)
