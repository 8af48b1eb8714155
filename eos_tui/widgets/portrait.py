"""The phase portrait of self-stabilization: |x|/δ against y, as the predator–prey cycle it is.

Under the orbits lie the level sets of Lemma 3 for the present α, the nullclines y = 0 and |x| = δ, and the fixed point. An
orbit turns clockwise: y rises while |x| is small, |x| grows while y > 0, and |x| > δ drives y down again.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from rich.style import Style
from textual.events import Click
from textual.message import Message
from textual.strip import Strip

from engine import theory
from engine.record.columns import Column
from eos_tui.draw import axes, line_plot
from eos_tui.draw.axes import Limits
from eos_tui.draw.decorations import GUTTER, Box, Entry, legend, legend_rows, nothing_before_the_edge
from eos_tui.draw.plot_spec import DASHED, OTHERS, Pen, Window
from eos_tui.draw.raster import Canvas, strokes
from eos_tui.draw.theme import role_style
from eos_tui.model.history import History
from eos_tui.model.placed_orbit import Start
from eos_tui.widgets.plot import Drawing

TRAIL = 150
"""Rows of an orbit that are drawn: the newest third bright, the two before it fading."""
LEVELS = (0.1, 0.5, 1.5, 3.5, 7.0)
STALE = 0.10
"""Relative change of α or of the orbit's g from which the level sets are drawn anew: they are a backdrop, and each move of
theirs would repaint the whole plot."""
FARTHEST = 12.0
"""|x|/δ and |y|/√α that the axes go to at most: the cycle of an orbit that comes there began with |x| = δ·10⁻³¹."""
COMPANION = 3.0
"""Factor over the real orbit to which predictions may widen the axes."""
REAL = Pen("━━", 1, 0, "*")
READ_OFF = (
    Column("g", "g", "conserved along the flow (4), by which its orbits are told apart", "", "g = h(βX²/2α) + Y²/α", "Lemma 3"),
    Column("period", "period", "steps of a turn on the level set of g", "", "∮ dq/(2Y) / η, q = log X²", "Lemma 3"),
    Column("x_max", "|x| ≤", "how far the orbit goes along u", "", "δ√(−W₋₁(−e^(−1−g)))", "Lemma 3"),
    Column("y_max", "|y| ≤", "how far its sharpness goes", "", "√(αg)", "Lemma 3"),
)
"""What is told below the portrait, of the orbit's last rows."""
NUDGE = 0.02
"""How far an arrow key moves a start, as a fraction of the axis; finely, a tenth of it."""


class Orbit(NamedTuple):
    """A path through the portrait, the newest point last; NaN where it has none."""

    label: str
    role: str
    pen: Pen
    x: np.ndarray
    """|x|/δ."""
    y: np.ndarray

    @property
    def now(self) -> tuple[float, float] | None:
        """Its newest point, unless it has left."""
        if not len(self.x) or not (np.isfinite(self.x[-1]) and np.isfinite(self.y[-1])):
            return None
        return float(self.x[-1]), float(self.y[-1])


class Placed(Message):
    """A start was placed by the mouse."""


class PhasePortrait(Drawing):
    """The real orbit and the predicted ones over the level sets of Lemma 3."""

    def __init__(
        self, forms: Sequence[str] = ("generalized",), alpha: float | None = None, beta: float | None = None, *,
        id: str | None = None, classes: str | None = None, ascii: bool = False,
    ):
        super().__init__(id=id, classes=classes, ascii=ascii)
        self.forms = tuple(forms)
        """Predictions drawn; may be replaced, and the next `show` draws them."""
        self.alpha, self.beta = alpha, beta
        """α and β where the run does not record them (the phase presets)."""
        self._history = History(())
        self._window = Window(0, 1)
        self._x_limits: Limits | None = None
        self._y_limits: Limits | None = None
        self._backdrop = (math.nan, math.nan)
        """The α and g that the level sets are drawn for."""
        self.start: Start | None = None
        """The start whose orbits are drawn beside the recorded ones."""
        self._frame: _Frame | None = None
        self._now: tuple[float, float] | None = None
        """Where the real orbit was drawn to be."""

    def show(self, history: History, window: Window) -> None:
        """Show the orbits up to the cursor, or else to the end of the window."""
        if history is not self._history:
            self._x_limits = self._y_limits = None
        self._history, self._window = history, window
        self.update()

    # -- a start of one's own

    @property
    def present(self) -> tuple[float, float] | None:
        """Where the real orbit is now, as |x|/δ and y; None where there is none."""
        setting = self._setting()
        orbits = self._orbits() if setting is not None and math.isfinite(setting.delta) else []
        return orbits[0].now if orbits else None

    def place(self, point: tuple[float, float] | None) -> bool:
        """Put a start at |X|/δ and Y, or take it away; False where the system has no constants to go on from there."""
        setting = self._setting()
        if point is None:
            self.start = None
        elif setting is not None and math.isfinite(setting.delta) and setting.learning_rate > 0:
            bare = Start(0.0, 0.0, setting.alpha, setting.beta, setting.learning_rate)
            self.start = bare.moved(*point)
        else:
            return False
        return True

    def nudge(self, right: int, up: int, fine: bool = False) -> None:
        """Move the start, if there is one."""
        if self.start is None or self._x_limits is None or self._y_limits is None:
            return
        by = NUDGE / 10 if fine else NUDGE
        self.start = self.start.moved(
            self.start.x + right * by * self._x_limits.span, self.start.y + up * by * self._y_limits.span)

    def tick(self) -> None:
        """A frame later: the orbits of the start go on."""
        if self.start is not None:
            self.start = self.start.older()

    def on_click(self, event: Click) -> None:
        event.stop()
        at = event.get_content_offset(self)
        point = self._frame.point(at.y, at.x) if at is not None and self._frame is not None else None
        if point is not None and self.place(point):
            self.post_message(Placed())

    # -- drawing

    def titles(self, width: int) -> tuple[str, str]:
        title = "phase portrait" + (": y against |x|/δ" if width >= 44 else "")
        if self._now is not None and not self._history.has("ode1.x"):
            x, y = self._now
            return title, f"|x|/δ {axes.number(x, 3)} · y {axes.number(y, 3)}"
        return title, ""

    def content_strips(self, width: int, height: int, theme: str) -> list[Strip]:
        setting = self._setting()
        self._frame = self._now = None
        if setting is None:
            return line_plot.message(self._why_empty(), width, height, theme)
        if not math.isfinite(setting.delta):
            return line_plot.message(
                f"δ = √(2α/β) is undefined here: α = {axes.number(setting.alpha)}, β = {axes.number(setting.beta)}. "
                "Without progressive sharpening (α > 0, Assumption 1) there is no fixed point to turn around.",
                width, height, theme,
            )
        canvas = Canvas(max(width, 0), max(height, 0), self.ascii)
        orbits = self._orbits()
        self._now = orbits[0].now
        g = _level(orbits[0], setting.alpha)
        caption = self._caption(setting, orbits[0], g, width)[: 2 if height >= 14 else 1] if height >= 7 else []
        own = self._own_orbits()
        entries = self._legend([*orbits, *own])
        top = min(legend_rows(entries, width - GUTTER), 3 if height >= 14 else 1) if height >= 4 else 0
        rows = height - top - int(height >= 5) - len(caption)
        columns = width - GUTTER
        if columns < 4 or rows < 2:
            return canvas.strips()
        limits = self._settle(orbits, setting.alpha, g)
        canvas = _ground(width, height, self.ascii, top, columns, rows, *limits, theme, *self._backdrop).copy()
        frame = self._frame = _Frame(canvas, top, GUTTER, columns, rows, *limits, theme)
        frame.trails([*reversed(orbits), *own])
        frame.mark((1.0, 0.0), "o" if self.ascii else "◆", role_style(theme, "threshold"))
        if self.start is not None:
            frame.mark((self.start.x, self.start.y), "+", role_style(theme, "good", bold=True))
        for orbit in (*reversed(orbits), *own):
            if orbit.now:
                hollow = orbit.pen is not REAL
                sign = ("@" if not hollow else "O") if self.ascii else ("●" if not hollow else "○")
                frame.mark(orbit.now, sign, role_style(theme, orbit.role, bold=True))
        if top:
            legend(canvas, Box(top, GUTTER, columns, rows, False, height >= 5), entries, theme)
        for k, line in enumerate(caption):
            canvas.text(height - len(caption) + k, 0, line, role_style(theme, "muted"))
        return canvas.strips()

    def _last_row(self) -> int:
        """The row that counts as now: at the cursor, or the last in view."""
        history, window = self._history, self._window
        if not len(history):
            return -1
        return history.row_near(window.stop if window.cursor is None else window.cursor)

    def _setting(self) -> "_Setting | None":
        """α, β, δ, ε as they stand at the row shown; None before there are any."""
        history, row = self._history, self._last_row()
        if row < 0:
            return None
        alpha, beta = self.alpha, self.beta
        if history.has("constrained.alpha"):
            found = _latest(history, "constrained.alpha", row), _latest(history, "constrained.beta", row)
            if not math.isnan(found[0]):
                alpha, beta = found
        if alpha is None or beta is None:
            return None
        rate = history.value("learning_rate", row) if history.has("learning_rate") else math.nan
        return _Setting(alpha, beta, theory.delta(alpha, beta), theory.epsilon(rate, alpha), rate)

    def _orbits(self) -> list[Orbit]:
        """The real orbit first, then the predicted ones; or those of a phase run, map before flow."""
        history, last = self._history, self._last_row()
        rows = max(last + 1 - TRAIL, 0), last + 1
        found = []
        if history.has("ode1.x"):
            delta = self._setting().delta  # type: ignore[union-attr]
            starts = [k for k in range(1, 9) if history.has(f"ode{k}.x")]
            for family, label, role, pen in (("map", "map (3)", "gd", REAL), ("ode", "flow (4)", "flow", DASHED[0])):
                for k in starts:
                    x, y = history.values(f"{family}{k}.x", *rows), history.values(f"{family}{k}.y", *rows)
                    found.append(Orbit(label, role, pen, np.abs(x) / delta, y))
            return found
        delta_rows = history.values("constrained.delta", *rows)
        families = [("gd", "real", REAL)] + [
            (form, form, DASHED[k]) for k, form in enumerate(self.forms) if history.has(f"{form}.x")
        ]
        for family, label, pen in families:
            x, y = history.values(f"{family}.x", *rows), history.values(f"{family}.y", *rows)
            with np.errstate(all="ignore"):
                found.append(Orbit(label, family, pen, np.abs(x) / delta_rows, y))
        return found

    def _own_orbits(self) -> list[Orbit]:
        """The flow and the map from the start that was placed, as far as they are drawn."""
        if self.start is None:
            return []
        flow, mapped = (orbit[max(self.start.age + 1 - TRAIL, 0) : self.start.age + 1] for orbit in self.start.orbits())
        return [Orbit("flow (4) from +", "good", OTHERS[0], *flow.T), Orbit("map (3) from +", "warn", OTHERS[1], *mapped.T)]

    def _settle(self, orbits: list[Orbit], alpha: float, g: float) -> tuple[Limits, Limits]:
        """Choose the level sets and the axes, keeping those of the last frame while they serve."""
        known_alpha, known_g = self._backdrop
        if not abs(alpha - known_alpha) <= STALE * known_alpha:
            known_alpha = alpha
        if not abs(g - known_g) <= STALE * known_g:
            known_g = g
        self._backdrop = known_alpha, known_g
        bounds = _bounds(max(0.5, known_g if known_g < 50 else 0.5), known_alpha)
        right, height = bounds.x_max, bounds.y_max
        for orbit in sorted(orbits, key=lambda orbit: orbit.pen is not REAL):
            most = (FARTHEST, FARTHEST * math.sqrt(alpha))
            if orbit.pen is not REAL:
                most = min(most[0], COMPANION * right), min(most[1], COMPANION * height)
            x, y = orbit.x[np.isfinite(orbit.x)], np.abs(orbit.y[np.isfinite(orbit.y)])
            right = max(right, min(float(x.max(initial=0)), most[0]))
            height = max(height, min(float(y.max(initial=0)), most[1]))
        self._x_limits = axes.settle(self._x_limits, 0.0, right)
        self._y_limits = axes.settle(self._y_limits, -height, height)
        return self._x_limits, self._y_limits

    def _caption(self, setting: "_Setting", orbit: Orbit, g: float, width: int) -> list[str]:
        """The period and height of the present cycle, and the constants: on one line where they fit."""
        constants = "  ".join(
            f"{name} {axes.number(value, 3)}"
            for name, value in (("α", setting.alpha), ("β", setting.beta), ("δ", setting.delta), ("ε", setting.epsilon))
        )
        if self.start is not None:
            where, turn = self.start.words()
            return [f"{where}  {turn}", constants] if len(where) + 2 + len(turn) <= width else [where, turn]
        if orbit.now and not self._in_reach(orbit.now, setting.alpha):
            return ["the orbit has left the plot", constants]
        if not (g > 0 and setting.epsilon > 0):
            return [constants]
        period = _unit_period(float(f"{g:.3g}")) / setting.epsilon
        extremes = theory.bounds(g, setting.alpha, setting.beta)
        cycle = f"period {period:.0f}  |x| ≤ {extremes.x_max / setting.delta:.2f}δ  |y| ≤ {axes.number(extremes.y_max, 3)}"
        return [f"{constants}  {cycle}"] if len(constants) + 2 + len(cycle) <= width else [cycle, constants]

    def _why_empty(self) -> str:
        history = self._history
        if history.has("ode1.x") and len(history):
            return "α and β of this run are not known"
        if history.columns and not history.has("constrained.alpha"):
            return "this run follows no θ†: there is no displacement x from it, and no δ"
        if history.columns and not math.isnan(history.last("constrained.alpha")) and self._window.cursor is None:
            return "θ† is no longer followed"
        return nothing_before_the_edge(history)

    def _in_reach(self, point: tuple[float, float], alpha: float) -> bool:
        return point[0] <= FARTHEST and abs(point[1]) <= FARTHEST * math.sqrt(alpha)

    def _legend(self, orbits: list[Orbit]) -> list[Entry]:
        """Each kind of orbit once."""
        samples = {orbit.label: Entry(orbit.pen.mark * 2 if self.ascii else orbit.pen.sample, orbit.label, orbit.role) for orbit in orbits}
        return list(samples.values())


class _Setting(NamedTuple):
    """The constants of the simplified system."""

    alpha: float
    beta: float
    delta: float
    epsilon: float
    learning_rate: float


class _Frame(NamedTuple):
    """Where the portrait lies on its canvas, and what its axes span."""

    canvas: Canvas
    top: int
    left: int
    columns: int
    rows: int
    x: Limits
    y: Limits
    theme: str

    def axes(self) -> None:
        """Ticks and labels."""
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
        canvas.text(foot, 0, "|x|/δ".rjust(axes.LABEL), muted)
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

    def trails(self, orbits: list[Orbit]) -> None:
        """Orbits, the oldest third of each faintest."""
        dots, styles = [], []
        for orbit in orbits:
            x, y = _in_dots(orbit.x[-TRAIL - 1 :], orbit.y[-TRAIL - 1 :], self.x, self.y, self.columns, self.rows)
            youth = np.clip((np.arange(len(x)) - len(x) + TRAIL) // (TRAIL // 3), 0, 2)
            dots.append(np.zeros((3, 4 * self.rows, 2 * self.columns), bool))
            found = strokes(x, y, 2 * self.columns, 4 * self.rows, youth)
            dots[-1][: len(found)] = found
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
    frame = _Frame(Canvas(width, height, ascii), top, GUTTER, columns, rows, x, y, theme)
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
    return strokes(*_in_dots(points[:, 0], points[:, 1], x, y, columns, rows), 2 * columns, 4 * rows)


def _in_dots(
    x: np.ndarray, y: np.ndarray, x_limits: Limits, y_limits: Limits, columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points in the dots of a frame, from its lower left corner."""
    return (x - x_limits.lo) / x_limits.span * 2 * columns, (y - y_limits.lo) / y_limits.span * 4 * rows


@lru_cache(maxsize=64)
def _bounds(g: float, alpha: float) -> theory.Bounds:
    """How far the orbit on a level set goes, in |x|/δ and y."""
    return theory.bounds(g, alpha, 2 * alpha)  # δ = 1


@lru_cache(maxsize=64)
def _unit_period(g: float) -> float:
    """The period on the level set g times ε: y goes with √α, so that nothing but g is left."""
    return theory.period(g, 1.0, 1.0, 1.0)


def _latest(history: History, name: str, row: int) -> float:
    """The value at the row, or the last finite one within the trail before it."""
    values = history.values(name, row + 1 - TRAIL, row + 1)
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else math.nan


def _level(orbit: Orbit, alpha: float) -> float:
    """Lemma 3's g of the orbit: the median over its last rows, for each step of the map shifts it a little."""
    with np.errstate(all="ignore"):
        g = theory.conserved(orbit.x[-15:], orbit.y[-15:], alpha, 2 * alpha)  # δ = 1 in these coordinates
    g = g[np.isfinite(g)]
    return float(np.median(g)) if len(g) else math.nan
