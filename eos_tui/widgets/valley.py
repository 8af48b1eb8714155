"""The loss in the plane of u and ∇S⊥ at θ†, as level lines, with the path of gradient descent on it: the valley that
self-stabilization takes place in, narrower above, where the sharpness is larger.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from textual.strip import Strip

from engine.record.safe_read import read_arrays
from eos_tui.draw import axes
from eos_tui.draw.axes import Limits
from eos_tui.draw.decorations import GUTTER, Box, LegendEntry, foot, legend, legend_rows, most_rows, upright
from eos_tui.draw.orbits import REAL
from eos_tui.draw.plot_spec import DASHED, Axis, Span
from eos_tui.draw.raster import Canvas, strokes
from eos_tui.draw.theme import role_style
from eos_tui.model.history import History
from eos_tui.widgets.picture import Picture

LINES = 8
"""Level lines on either side of the valley, at least: those of a valley of sharpness 2/η throughout would stand upright, evenly spaced, one
of them at |x| = δ. What is narrower above leans inwards there.
"""
ROOM = 1.3
"""What is seen of the plane, over what the orbit takes of it."""
LEAST = 1.3, 0.1
"""The least that is seen: of |x| in units of δ, and of |y| over all that was sampled."""
TRAIL = 40
"""Steps of a path that are drawn, half on either side of the valley: the newest third bright, the two before it fading."""
ORBIT = 120
"""Steps whose orbit the plane is framed by: more than a turn where ε is not very small."""
MOST_NODES = 64
"""Points of a sample along either axis that are read."""
PATHS = (("generalized", "generalized", DASHED[0]), ("gd", "real", REAL))
"""Trajectories drawn, the last uppermost: columns, and name and pen in the legend."""


class PlaneSample(NamedTuple):
    """A sample of the loss in the plane."""

    x: np.ndarray  # (m,) x/δ
    y: np.ndarray  # (n,) y = ∇S⊥·v
    rise: np.ndarray  # (m, n) over the loss at θ†, in units of δ²/η

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The polynomial through the sample at x (k,) and y (l,): (k, l)."""
        return _lagrange(self.x, x) @ self.rise @ _lagrange(self.y, y).T


@np.errstate(all="ignore")  # files of unknown origin may hold anything
def sampled(path: Path, learning_rate: float) -> PlaneSample | None:
    """The plane in a file of samples; None where the file holds none, or cannot be read."""
    arrays = read_arrays(path) or {}
    try:
        delta = float(arrays["delta"])
        x, y, rise = (np.asarray(arrays[name], float) for name in ("plane_x", "plane_y", "plane"))
    except (KeyError, ValueError, TypeError):
        return None
    if not 0 < delta < math.inf or not 0 < learning_rate < math.inf or x.ndim != 1 or y.ndim != 1 or rise.shape != (len(x), len(y)):
        return None
    x = x / delta
    if not all(1 < len(nodes) <= MOST_NODES and np.isfinite(nodes).all() and (np.diff(nodes) > 0).all() for nodes in (x, y)):
        return None
    return PlaneSample(x, y, rise * learning_rate / delta**2)


def _lagrange(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """What each node counts for at each place, (places, nodes), on the polynomial through all nodes: in barycentric form."""
    scaled = (nodes - nodes[0]) / (nodes[-1] - nodes[0]) * 4  # so that the weights neither overflow nor vanish
    apart = scaled[:, None] - scaled
    np.fill_diagonal(apart, 1)
    away = at[:, None] - nodes
    hit = away == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 / (apart.prod(axis=1) * away)
        share /= share.sum(axis=1, keepdims=True)
    return np.where(hit.any(axis=1, keepdims=True), hit, share)


class Valley(Picture[PlaneSample]):
    """Level lines of one sample with the paths up to it, or the words for why there is none."""

    def __init__(self, *, ascii: bool = False):
        super().__init__(ascii=ascii)
        self._paths: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        """x/δ and y of each trajectory."""
        self._frame = 0.0, 0.0
        """The largest |x|/δ and |y| of the orbit over the last turns."""

    @np.errstate(all="ignore")  # rows of unknown origin may hold anything
    def show_paths(self, plane: PlaneSample | None, history: History, step: int) -> None:
        """Show this plane, and the rows of the history up to a step; or the words, where there is no plane."""
        self._paths, self._frame = {}, (0.0, 0.0)
        if plane is not None:
            row = history.row_near(step)
            delta = history.value("constrained.delta", row)
            if history.has("gd.x") and history.has("gd.y"):
                x, y = (np.abs(history.values(f"gd.{axis}", max(row + 1 - ORBIT, 0), row + 1)) for axis in "xy")
                self._frame = float(np.nanmax(x / delta, initial=0.0)), float(np.nanmax(y, initial=0.0))
            for family, *_ in PATHS:
                if history.has(f"{family}.x") and history.has(f"{family}.y"):
                    x, y = (history.values(f"{family}.{axis}", max(row + 1 - TRAIL, 0), row + 1) for axis in "xy")
                    self._paths[family] = x / delta, y
        self.show(plane)

    def drawn(self, plane: PlaneSample, width: int, height: int, theme: str) -> list[Strip]:
        canvas, muted = Canvas(max(width, 0), max(height, 0), self.ascii), role_style(theme, "muted")
        entries = [LegendEntry("--" if self.ascii else "──", "level lines", "muted")] + [
            LegendEntry(pen.mark * 2 if self.ascii else pen.sample, name, family)
            for family, name, pen in reversed(PATHS) if family in self._paths
        ]
        legend_height = min(legend_rows(entries, width - GUTTER), most_rows(height))
        box = Box.within(canvas.width, canvas.height, legend_height, 0)
        if box.width < 4 or box.height < 2:
            return canvas.strips()
        x, y = (Limits(-reach, reach) for reach in framed(plane, self._frame))
        span = Span(x.lo, x.hi, None, Axis("step", 0.0, "x/δ"))
        upright(canvas, box, y, axes.ticks(y, min(max(box.height // 3, 3), 7)), muted)
        foot(canvas, box, span, muted)
        columns, rows = 2 * box.width, 4 * box.height
        places = (np.arange(columns + 1) / columns * x.span + x.lo, y.hi - np.arange(rows + 1) / rows * y.span)
        canvas.text(box.row(0, y), box.left, ("-" if self.ascii else "┈") * box.width, role_style(theme, "muted", 1))
        canvas.dots(level_lines(plane.at(*places).T, levels(x.hi)), box.top, box.left, role_style(theme, "muted", 1), ".")
        dots, styles, marks = [], [], []
        for family, _, pen in PATHS:
            if family in self._paths:
                along, up = self._paths[family]
                dots.append(_strands((along - x.lo) / x.span * columns, (up - y.lo) / y.span * rows, columns, rows))
                styles += [role_style(theme, family, age) for age in (2, 1, 0)]
                marks += [pen.mark] * 3
        if dots:
            canvas.layers(np.concatenate(dots), box.top, box.left, styles, marks)
        canvas.text(box.row(0, y), box.column(0, span), "o" if self.ascii else "◆", role_style(theme, "constrained", bold=True))
        if "gd" in self._paths:
            now = [float(each[-1]) for each in self._paths["gd"]]
            if x.lo <= now[0] <= x.hi and y.lo <= now[1] <= y.hi:
                canvas.text(box.row(now[1], y), box.column(now[0], span), "@" if self.ascii else "●", role_style(theme, "gd", bold=True))
        if box.top:
            legend(canvas, box, entries, theme)
        return canvas.strips()


def framed(plane: PlaneSample, orbit: tuple[float, float]) -> tuple[float, float]:
    """The largest |x|/δ and |y| that are seen of a plane: what the orbit takes and some room, no more than there is of the sample."""
    whole = float(np.abs(plane.x).max()), float(np.abs(plane.y).max())
    least = LEAST[0], LEAST[1] * whole[1]
    if not min(orbit) > 0:
        return whole
    right, height = (round(min(max(ROOM * taken, low), high), 12) for taken, low, high in zip(orbit, least, whole, strict=True))
    return right, height


def levels(reach: float) -> np.ndarray:
    """The levels in units of δ²/η, of the lines that would stand upright at whole parts of δ; as many below that of the floor at θ†."""
    apart = 1 / max(math.ceil(LINES / reach), 1)
    squares = (apart * np.arange(math.ceil(2 * reach / apart) + 1)) ** 2
    return np.concatenate([-squares[:0:-1], squares])


def level_lines(rise: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The dots (rows, columns) in which a level line passes, of the loss at the corners of dots (rows + 1, columns + 1)."""
    band = np.searchsorted(levels, rise, "right")
    here = band[:-1, :-1]
    return (here != band[1:, :-1]) | (here != band[:-1, 1:])


def _strands(x: np.ndarray, y: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Every other step of a path joined, the two strands on the two sides of the valley: by age (3, rows, columns)."""
    youth = np.clip(np.arange(len(x)) * 3 // max(len(x), 1), 0, 2)
    order = np.concatenate([np.arange(0, len(x), 2), np.arange(1, len(x), 2)])
    first = (len(x) + 1) // 2  # of the second strand
    x, y, youth = (np.insert(each[order].astype(float), first, math.nan) for each in (x, y, youth))
    dots = np.zeros((3, rows, columns), bool)
    drawn = strokes(x, y, columns, rows, np.nan_to_num(youth).astype(int))
    dots[: len(drawn)] = drawn
    return dots
