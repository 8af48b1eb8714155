"""Theorem 1 over time: what it leaves over of loss, sharpness and displacement against the orders it states."""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.spec import PREDICTIONS, Phase, SharpnessTracking
from eos_tui.draw.axes import number
from eos_tui.draw.decorations import ASCII_VEIL, VEIL
from eos_tui.draw.plot_spec import Curve, PlotSpec, Window
from eos_tui.draw.theme import FAMILIES
from eos_tui.keys import closing
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula
from eos_tui.screens.live import LivePage
from eos_tui.widgets.plot import LinePlot

HYPOTHESIS = "theorem.hypothesis"
CLAIM = (
    "For some 1/ε steps after it was set to the truth, and while |x⋆| is not far below δ, the prediction says what gradient descent does: "
    "the loss is L(θ†) + x⋆²/η, the sharpness 2/η + y⋆ + (∇S·u)x⋆, and θ itself θ† + v⋆. What that leaves over is smaller than the "
    "predicted parts by a factor of the order of ε, and is drawn here against those orders."
)
"""What Theorem 1 claims, in two sentences."""
LEAST_ROWS, ROOMY = 22, 36
"""Rows of the page from which there is room for the claim, and for what is left over in numbers."""


def _plot(quantity: str, title: str, order: str) -> PlotSpec:
    return PlotSpec(f"theorem-{quantity}", title, (
        Curve(f"theorem.{quantity}", "left over", "gd"), Curve(f"theorem.{quantity}_order", order, "muted", dashed=True),
    ), log=True, from_edge=True, veil=HYPOTHESIS)


PLOTS = (
    _plot("loss", "loss", "εδ²/η"), _plot("sharpness", "sharpness", "ε²/η"), _plot("deviation", "displacement", "εδ"),
)
FORMS = {form: form.replace("_", " ") for form in PREDICTIONS}


def unclaimed(history: History, start: float, stop: float) -> tuple[int, int]:
    """The steps in [start, stop] where the hypothesis fails, and those where it is known."""
    if not history.has(HYPOTHESIS):
        return 0, 0
    rows = history.rows_between(start, stop)
    hypothesis = history.values(HYPOTHESIS, rows.start, rows.stop)
    return int((hypothesis == 0).sum()), int(np.isfinite(hypothesis).sum())


def held(horizon: float, since: float) -> str:
    """How long a prediction held since its anchor: the step at which it left its tolerance, or that it still holds."""
    if math.isfinite(horizon):
        return f"{horizon:,.0f}"
    return f"> {since:,.0f}" if math.isfinite(since) else "–"


class Theorem(LivePage):
    """Three residuals with their orders, and the standing of each prediction."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("dashboard.theorem")]

    DEFAULT_CSS = """
    Theorem { background: $background; layout: vertical; }
    Theorem #claim { height: auto; padding: 0 1; }
    Theorem Grid { grid-size: 2 2; grid-gutter: 0; height: 1fr; }
    Theorem VerticalScroll {
        border: round $border-blurred; border-title-color: $foreground; border-subtitle-color: $text-muted; padding: 0 1;
        &:focus { border: round $primary; }
    }
    """

    def __init__(self, source: Source, window: Callable[[], Window], ascii: bool = False):
        super().__init__(source, ascii)
        self._window = window
        self._plots = [LinePlot(spec, ascii=ascii) for spec in PLOTS]
        # Kept by name: a frame may still be on its way when the page is taken down and finds nothing any more.
        self._claim, self._standing = Static(CLAIM, id="claim", markup=False), Static("", markup=False)
        self._shown: Content | None = None

    def show_what_fits(self) -> None:
        """What the theorem claims stands above what is measured, where there is room for both."""
        self._claim.display = self.size.height >= LEAST_ROWS

    def compose(self) -> ComposeResult:
        yield self._claim
        with Grid():
            yield from self._plots
            with VerticalScroll(classes="pane") as rest:
                rest.border_title = "Theorem 1"
                rest.border_subtitle = self.hint
                yield self._standing

    def action_formula(self) -> None:
        wanted = [c for c in self.source.columns if c.name.startswith(("theorem.", "unrolled."))]
        wanted += [c for c in self.source.columns if c.name.endswith((".correlation", ".horizon"))]
        self.app.push_screen(Formula("Theorem 1", wanted, self.source.row()))

    def paint(self) -> None:
        if not self._standing.is_attached:
            return
        history, window = self.source.history, self._window()
        history.prepare([curve.column for plot in self._plots for curve in plot.spec.curves] + [HYPOTHESIS])
        for plot in self._plots:
            plot.show(history, window)
        shown = self.standing(window)
        if self._shown is None or shown != self._shown or shown.spans != self._shown.spans:
            self._shown = shown
            self._standing.update(shown)

    def standing(self, window: Window) -> Content:
        """Where the theorem claims nothing, each prediction since its anchor, and (5) beside Definition 7."""
        if said := self._absent():
            return Content.assemble((said, self.color("muted")))
        row, muted = self.source.row(), self.color("muted")
        lines = [*self._claims(window), *self._left_over(row), Content.assemble((f"{'prediction':<12}{'corr':>8}{'horizon':>13}", muted))]
        for form, name in FORMS.items():
            if f"{form}.horizon" in row:
                corr, horizon, since = (row[f"{form}.{what}"] for what in ("correlation", "horizon", "since_anchor"))
                of = f"{held(horizon, since)} of {since:,.0f}" if math.isfinite(horizon) else held(horizon, since)
                lines.append(Content.assemble((f"{name:<12}", self.color(form) if form in FAMILIES else ""),
                                              f"{number(corr, 3):>8}{of:>13}"))
        if "unrolled.x" in row:
            lines.append(Content.assemble((f"{'':<12}{'x⋆':>10}{'y⋆':>11}", muted)))
            for label, family in (("(5) from β", "unrolled"), ("Definition 7", "transported")):
                x, y = (number(row.get(f"{family}.{axis}", math.nan)) for axis in "xy")
                lines.append(Content(f"{label:<12}{x:>10}{y:>11}"))
        return Content("\n").join(lines)

    def _left_over(self, row: Mapping[str, float]) -> list[Content]:
        """What is left over now in units of its order, where there is room for it."""
        if self._standing.parent is None or self.size.height < ROOMY:
            return []
        lines = [Content.assemble((f"{'left over now':<16}{'over its order':>17}", self.color("muted")))]
        for spec in PLOTS:
            left, order = (row.get(curve.column, math.nan) for curve in spec.curves)
            lines.append(Content(f"{spec.title:<16}{number(left / order if order else math.nan, 3):>17}"))
        return lines

    def _claims(self, window: Window) -> list[Content]:
        """Where the hypothesis fails in view, and whether it holds now."""
        least, sign = self.source.run.spec.tracking.hypothesis, "".join(ASCII_VEIL if self.ascii else VEIL)
        history, now = self.source.history, self.source.row().get(HYPOTHESIS, math.nan)
        void, known = unclaimed(history, window.start, window.stop)
        if not known:
            return [Content.assemble(("no values in view: they begin at the edge", self.color("muted")))]
        word, role = ("holds", "good") if now == 1 else ("fails", "warn") if now == 0 else ("is not known", "muted")
        return [
            Content.assemble(f"|x⋆| ≥ {least:g}δ ", (f"{word} now", f"bold {self.color(role)}")),
            Content.assemble((sign, self.color("muted")), f" claims nothing at {void / known:.0%} of steps") if void
            else Content("and at every step in view"),
        ]

    def _absent(self) -> str:
        """Why the run has no such numbers; empty where it has."""
        if self.source.history.has(HYPOTHESIS):
            return ""
        spec = self.source.run.spec
        if isinstance(spec.problem, Phase):
            return "Theorem 1 compares gradient descent with its prediction; a phase portrait has neither."
        if isinstance(spec.tracking, SharpnessTracking):
            return 'This run follows no θ† ([tracking] mode = "sharpness"), so there is nothing to compare.'
        return 'Theorem 1 is about the transported prediction, which this run does not follow: [tracking] predictions lacks it.'
