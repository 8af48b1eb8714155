"""The top of gradient descent's spectrum: every eigenvalue that is followed, with 2/η, and 1.5/η from where all of them are."""

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content

from engine.record.columns import Column
from engine.record.threshold import RATE, THRESHOLD, threshold
from engine.spec import FOLLOWED_FROM
from eos_tui.draw.plot_spec import Curve, PlotSpec, Window
from eos_tui.keys import closing
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula, apart
from eos_tui.screens.live import LivePage
from eos_tui.widgets.line import Line
from eos_tui.widgets.plot import LinePlot

LEVEL = Column(
    "followed_from", f"{FOLLOWED_FROM:g}/η", "level from which every eigenvalue is followed", "", f"{FOLLOWED_FROM:g}/η", "eos"
)


def recorded(history: History) -> list[str]:
    """The columns of λ1, λ2, … that a run has."""
    return ["gd.sharpness", *(f"gd.lambda{k}" for k in range(2, 17))] if history.has("gd.lambda2") else []


class Spectrum(LivePage):
    """The eigenvalues against the step."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("dashboard.spectrum")]

    DEFAULT_CSS = """
    Spectrum { background: $background; }
    Spectrum LinePlot { height: 1fr; }
    Spectrum Line { padding-left: 1; }
    """

    def __init__(self, source: Source, window: Callable[[], Window], ascii: bool = False):
        super().__init__(source, ascii)
        self._window = window
        history = source.history
        self._names = [name for name in recorded(history) if history.has(name)]
        kept = [column for column in history.columns if column.name in ("step", THRESHOLD, RATE, *self._names)]
        # λ2, … are what this page is about, so they go by names that no plot treats as companions.
        self._renamed = {name: f"spectrum.{k}" for k, name in enumerate(self._names, 1)}
        self._columns = [column.name for column in kept]
        self.history = History([*(c._replace(name=self._renamed.get(c.name, c.name)) for c in kept), LEVEL])
        self._above: dict[int, int] = {}
        """The first recorded step at which each eigenvalue is above 2/η, at the learning rate in force."""
        self._since = 0
        """The step at which η last changed; 0 where it never did."""
        self._rate = math.nan
        """The learning rate in force."""
        self.plot = LinePlot(self._spec(1), ascii=ascii)
        self._line = Line()

    def _spec(self, count: int) -> PlotSpec:
        """The first `count` eigenvalues. They never cross, so two inks in turn tell neighbours apart."""
        curves = [
            Curve(self._renamed[name], f"λ{k}", "gd" if k % 2 else "transported") for k, name in enumerate(self._names[:count], 1)
        ]
        level = Curve(LEVEL.name, LEVEL.symbol, "muted", dashed=True)
        return PlotSpec("spectrum", "spectrum of gradient descent", (*curves, level), threshold=True, from_edge=True)

    def compose(self) -> ComposeResult:
        yield self.plot
        yield self._line

    def action_formula(self) -> None:
        row = self.source.row()
        shown = [column for column in self.source.columns if column.name in self._names and not np.isnan(row.get(column.name, np.nan))]
        self.app.push_screen(Formula("spectrum of gradient descent", shown, row, others=[apart(LEVEL, "the dashed line")]))

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
        self.plot.spec = self._spec(max(followed, 1))
        self.plot.show(self.history, self._window())
        self._line.show(Content(self.summary(followed)))

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
            return f"This run has no Hessian. {self.hint}"
        if not followed:
            return f"The eigenvalues are followed from the edge on. {self.hint}"
        seen = {k: step for k, step in sorted(self._above.items()) if step <= self.source.history.last_step}  # of a replay
        listed = " · ".join(f"λ{k} from step {step:,}" for k, step in seen.items()) or "none yet"
        changed = f" since η became {self._rate:g} at step {self._since:,}" if self._since else ""
        return f"{followed} followed; first above 2/η{changed}: {listed} · {self.hint}"
