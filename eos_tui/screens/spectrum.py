"""The top of gradient descent's spectrum: every eigenvalue that is followed, with 2/η, and 1.5/η from where all of them are; and that of
θ†, with who is at the edge and who swings.
"""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content

from engine.record.columns import Column
from engine.record.threshold import RATE, THRESHOLD, threshold
from engine.spec import FOLLOWED_FROM
from eos_tui import keys
from eos_tui.draw.plot_spec import Curve, PlotSpec, Window
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula, apart
from eos_tui.screens.live import LivePage
from eos_tui.widgets.line import Line
from eos_tui.widgets.plot import LinePlot

LEVEL = Column(
    "followed_from", f"{FOLLOWED_FROM:g}/η", "level from which every eigenvalue is followed", "", f"{FOLLOWED_FROM:g}/η", "eos"
)


BOTH = 30
"""Rows of the page from which both spectra stand one above the other."""
WIDE = 130
"""Columns from which the line under θ†'s spectrum has the residuals too; its formulas tell them at any width."""
DIRECTIONS, ACTIVE = "constrained.directions", "constrained.active"
RESIDUALS = ("constrained.excess", "constrained.gradient_share")


def recorded(history: History) -> list[str]:
    """The columns of λ1, λ2, … that a run has."""
    return ["gd.sharpness", *(f"gd.lambda{k}" for k in range(2, 17))] if history.has("gd.lambda2") else []


def of_center(history: History) -> list[str]:
    """The columns of θ†'s λ1, λ2, … where a run follows several directions at the edge."""
    names = ["constrained.sharpness", *(f"constrained.lambda{k}" for k in range(2, 17))]
    return [name for name in names if history.has(name)] if history.has(DIRECTIONS) else []


class Spectrum(LivePage):
    """The eigenvalues against the step."""

    place = "spectrum"
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("spectrum"), keys.closing("dashboard.spectrum")]

    DEFAULT_CSS = """
    Spectrum { background: $background; }
    Spectrum Vertical { height: 1fr; }
    Spectrum LinePlot { height: 1fr; }
    Spectrum Line { padding-left: 1; }
    """

    def __init__(self, source: Source, window: Callable[[], Window], ascii: bool = False):
        super().__init__(source, ascii)
        self._window = window
        history = source.history
        self._names = [name for name in recorded(history) if history.has(name)]
        self._center_names = of_center(history)
        kept = [c for c in history.columns if c.name in ("step", THRESHOLD, RATE, *self._names, *self._center_names)]
        # λ2, … are what this page is about, so they go by names that no plot treats as companions.
        self._renamed = {name: f"spectrum.{k}" for k, name in enumerate(self._names, 1)}
        self._center_renamed = {name: f"center.{k}" for k, name in enumerate(self._center_names, 1)}
        renamed = self._renamed | self._center_renamed
        self._columns = [column.name for column in kept]
        self.history = History([*(c._replace(name=renamed.get(c.name, c.name)) for c in kept), LEVEL])
        self._above: dict[int, int] = {}
        """The first recorded step at which each eigenvalue is above 2/η, at the learning rate in force."""
        self._since = 0
        """The step at which η last changed; 0 where it never did."""
        self._rate = math.nan
        """The learning rate in force."""
        self.plot, self.center = LinePlot(self._spec(1), ascii=ascii), LinePlot(self._center_spec(1, 0, 0), ascii=ascii)
        self.centered = False
        """Whether θ† is in front: where one spectrum is shown it is that."""
        self._line, self._center_line = Line(), Line()

    def _spec(self, count: int) -> PlotSpec:
        """The first `count` eigenvalues. They never cross, so two inks in turn tell neighbours apart."""
        curves = [
            Curve(self._renamed[name], f"λ{k}", "gd" if k % 2 else "transported") for k, name in enumerate(self._names[:count], 1)
        ]
        level = Curve(LEVEL.name, LEVEL.symbol, "muted", dashed=True)
        return PlotSpec("spectrum", "spectrum of gradient descent", (*curves, level), threshold=True, from_edge=True)

    def _center_spec(self, count: int, directions: int, active: int) -> PlotSpec:
        """θ†'s first `count` eigenvalues, by what each is. Those that swing are the first: S ≤ 2/η holds θ† back in them alone."""
        curves = [
            Curve(self._center_renamed[name], f"λ{k} {'swings' if k <= active else 'at the edge' if k <= directions else 'below'}",
                  "constrained" if k <= active else "warn" if k <= directions else "muted")
            for k, name in enumerate(self._center_names[:count], 1)
        ]
        return PlotSpec("center", "spectrum of θ†", tuple(curves), threshold=True, from_edge=True)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self.plot
            yield self.center
        yield self._line
        yield self._center_line

    def on_mount(self) -> None:
        self._arrange()
        super().on_mount()

    def on_resize(self) -> None:
        self._arrange()
        super().on_resize()

    def _arrange(self) -> None:
        """Both spectra where there is room, else the one in front; θ†'s not where the run has none of it."""
        both, known = self.size.height >= BOTH, bool(self._center_names)
        self.plot.display = both or not (self.centered and known)
        self.center.display = known and (both or self.centered)
        self._line.display, self._center_line.display = self.plot.display, self.center.display
        self.set_focus(self.center if self.centered and known else self.plot)

    def action_turn(self) -> None:
        if not self._center_names:
            self.notify("This run does not follow the eigenvalues of θ†: a run with on_second_eigenvalue = \"follow\" does.", timeout=3)
            return
        self.centered = not self.centered
        self._arrange()
        self.call_after_refresh(self.paint)

    def action_formula(self) -> None:
        row = self.source.row()
        title, names = ("spectrum of gradient descent", self._names)
        if self.center.display and (self.centered or not self.plot.display):
            title, names = "spectrum of θ†", [*self._center_names, DIRECTIONS, ACTIVE, *RESIDUALS]
        shown = [column for column in self.source.columns if column.name in names and not np.isnan(row.get(column.name, np.nan))]
        others = [apart(LEVEL, "the dashed line")] if names is self._names else []
        self.app.push_screen(Formula(title, shown, row, others=others))

    def paint(self) -> None:
        if not self._line.is_attached:
            return
        source, seen = self.source.history, len(self.history)
        if len(source) > seen:
            rows = {name: source.values_or_nan(name, seen) for name in (*self._columns, RATE)}
            with np.errstate(divide="ignore"):
                level = FOLLOWED_FROM / rows[RATE]
            self.history.extend(np.column_stack([*(rows[name] for name in self._columns), level]))
            self._note_unstable(rows)
        followed = sum(not np.isnan(self.history.last(name)) for name in self._renamed.values())
        if self.plot.display:
            self.plot.spec = self._spec(max(followed, 1))
            self.plot.show(self.history, self._window())
            self._line.show(Content(self.summary(followed)))
        if self.center.display:
            row = self.source.row()
            directions, active = (0 if math.isnan(value := row.get(name, math.nan)) else int(min(max(value, 0), 16))
                                  for name in (DIRECTIONS, ACTIVE))
            known = sum(not np.isnan(self.history.last(name)) for name in self._center_renamed.values())
            self.center.spec = self._center_spec(max(known, 1), directions, active)
            self.center.show(self.history, self._window())
            self._center_line.show(Content(self.standing(directions, active, row)))

    def standing(self, directions: int, active: int, row: Mapping[str, float]) -> str:
        """How many directions are at the edge, how many of them swing, and how exactly θ† is held there."""
        if not directions:
            return f"Directions at the edge are told from the edge on. {self._hints}"
        at_edge = "one direction" if directions == 1 else f"{directions} directions"
        swing = {0: "none swings", 1: "one swings"}.get(active, f"{active} swing, so x turns")
        residuals = tuple(row.get(name, math.nan) for name in RESIDUALS)
        exactly = " · λ1 is {:.0g} beyond 2/η, {:.0g} of ∇L lies along them".format(*residuals)
        exactly = exactly if self.size.width >= WIDE and not any(map(math.isnan, residuals)) else ""
        return f"{at_edge} at the edge, {swing}{exactly} · {self._hints}"

    @property
    def _hints(self) -> str:
        """The keys to know here."""
        if not self._center_names or self.size.height >= BOTH:
            return self.hint
        return f"{keys.shown('spectrum.other_spectrum')} {'λ(θ)' if self.centered else 'λ(θ†)'} · {self.hint}"

    def _note_unstable(self, rows: dict[str, np.ndarray]) -> None:
        """Where eigenvalues are first above 2/η in new rows, of those at the newest learning rate."""
        rates, levels = rows[RATE], threshold(rows)
        changes = np.flatnonzero(np.diff(rates, prepend=rates[0] if math.isnan(self._rate) else self._rate))
        if len(changes):
            self._above, self._since = {}, int(rows["step"][changes[-1]])
        self._rate, first = float(rates[-1]), changes[-1] if len(changes) else 0
        for k, name in enumerate(self._names, 1):
            if len(above := np.flatnonzero(rows[name][first:] > levels[first:])):
                self._above.setdefault(k, int(rows["step"][first + above[0]]))

    def summary(self, followed: int) -> str:
        """How many there are, and since when each has been unstable."""
        if not self._names:
            return f"This run has no Hessian. {self._hints}"
        if not followed:
            return f"The eigenvalues are followed from the edge on. {self._hints}"
        seen = {k: step for k, step in sorted(self._above.items()) if step <= self.source.history.last_step}  # of a replay
        listed = " · ".join(f"λ{k} from step {step:,}" for k, step in seen.items()) or "none yet"
        changed = f" since η became {self._rate:g} at step {self._since:,}" if self._since else ""
        return f"{followed} followed; first above 2/η{changed}: {listed} · {self._hints}"
