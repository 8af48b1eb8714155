"""The assumptions of the theory as gauges: formula, value, history, and green, amber or red by a stated rule."""

import math
import textwrap
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from rich.cells import cell_len, set_cell_size
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.report.gauges import GAUGES, RULES, Gauge, Verdict, reading, verdict
from eos_tui.draw.axes import number
from eos_tui.keys import closing
from eos_tui.model.history import History
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula
from eos_tui.screens.live import LivePage

SIGNS: dict[Verdict, tuple[str, str, str]] = {  # verdict -> sign, sign in ASCII, role
    "green": ("●", "o", "good"), "amber": ("▲", "!", "warn"), "red": ("✗", "x", "bad"), "none": ("·", "-", "muted"),
}
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
FORMULA, VALUE, WORD = 29, 11, 8
"""Cells of these columns; the history gets the rest."""


class Latest(NamedTuple):
    """The newest measurement of a gauge."""

    value: float
    epsilon: float
    """At the same step."""
    step: float


def latest(gauge: Gauge, history: History) -> Latest | None:
    """The newest measurement; None where there is none."""
    if not history.has(gauge.column):
        return None
    known = np.flatnonzero(np.isfinite(history.column(gauge.column)))
    if not len(known):
        return None
    row = {name: history.value(name, int(known[-1])) for name in (gauge.column, "learning_rate", "constrained.epsilon", "step")}
    return Latest(reading(gauge, row), row["constrained.epsilon"], row["step"])


def sparkline(history: History, column: str, cells: int, ascii: bool = False) -> str:
    """A column from its first value to its last, in this many cells between its extremes; blank where it has no value."""
    bars = ASCII_BARS if ascii else BARS
    known = np.flatnonzero(np.isfinite(history.column(column))) if history.has(column) else np.empty(0)
    if not len(known) or cells < 1:
        return ""
    steps = history.column("step")[known[[0, -1]]]
    extremes = history.envelope(column, steps[0], max(steps[1], steps[0] + 1), cells)
    middle = (extremes.lo + extremes.hi) / 2
    filled = np.flatnonzero(~np.isnan(middle))
    held = middle[filled[np.searchsorted(filled, np.arange(cells), "right") - 1]]  # measured now and then: held in between
    span = float(held.max() - held.min())
    height = np.full(cells, len(bars) // 2) if span == 0 else np.round((held - held.min()) / span * (len(bars) - 1)).astype(int)
    return "".join(bars[k] for k in height)


class Assumptions(LivePage):
    """The eight gauges of Appendix E and Assumption 2."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("dashboard.assumptions")]

    def __init__(self, source: Source, ascii: bool = False):
        super().__init__(source, ascii)
        # Kept by name: a frame may still be on its way when the page is taken down and finds nothing any more.
        self._gauges = Static("", markup=False)
        self._shown: Content | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as page:
            page.border_title = "assumptions at θ†, as gauges: 1 to 8 are the plots of Appendix E"
            page.border_subtitle = f"⊥: without its u part · v = θ−θ† · g = ∇L · {self.hint}"
            yield self._gauges

    def action_formula(self) -> None:
        shown = {gauge.column for gauge in GAUGES}
        self.app.push_screen(Formula("assumptions", [c for c in self.source.columns if c.name in shown], self.source.row()))

    def paint(self) -> None:
        if not self._gauges.is_attached or not self._gauges.size:
            return
        shown = self.content(self._gauges.size.width, roomy=self.size.height >= 32)
        if self._shown is None or shown != self._shown or shown.spans != self._shown.spans:
            self._shown = shown
            self._gauges.update(shown)

    def content(self, width: int, roomy: bool) -> Content:
        """Every gauge on two lines; with the reason of its rule on a third where there is room."""
        history, limit = self.source.history, self.source.run.spec.tracking.second_eigenvalue_limit
        lines = [Content.assemble((_fitting(self._standing(), width), self.color("muted"))).truncate(width, ellipsis=True)]
        formula = max(min(FORMULA, width - 3 - VALUE - WORD), 0)
        for gauge in GAUGES:
            now = latest(gauge, history)
            word = verdict(gauge, now.value, now.epsilon, limit) if now else "none"
            sign, plain, role = SIGNS[word]
            value = number(now.value, 3) if now else "–"
            cells = min(max(width - 3 - formula - VALUE - WORD - 2, 0), 40)
            lines.append(Content.assemble(
                (f"{gauge.label:<3}", "bold"), _padded(gauge.formula, formula), (value.rjust(VALUE - 2) + "  ", "bold"),
                (f"{plain if self.ascii else sign} {word}".ljust(WORD) + "  ", f"bold {self.color(role)}"),
                (sparkline(history, gauge.column, cells, self.ascii), self.color("constrained")),
            ).truncate(width))
            rule = RULES[gauge.rule]
            line = f"   {gauge.claim}: {rule.words} · {gauge.source}"
            words = _fitting((line, line.replace("Assumption ", "Ass. ").replace("Definition ", "Def. ")), width)
            lines.append(Content.assemble((words, self.color("muted"))).truncate(width, ellipsis=True))
            if roomy:
                reason = textwrap.fill(rule.reason, max(width, 20), initial_indent="   ", subsequent_indent="   ")
                lines.append(Content.assemble((reason, f"italic {self.color('muted')}")))
        return Content("\n").join(lines)

    def _standing(self) -> tuple[str, ...]:
        """Whether the gauges are live, and how often the dear ones are read; in fewer words after in more."""
        history, every = self.source.history, self.source.run.spec.tracking.gauges_every
        alpha = GAUGES[0]
        now = latest(alpha, history)
        if now is None:
            return ("no values yet: θ† begins at the edge" if history.has(alpha.column) else "this run has no θ†",)
        often = f"4 to 8 every {every} steps" if every else "4 to 8 never (gauges_every = 0)"
        bounds = ", ρ3 and ρ4 lower bounds" if every else ""
        if math.isnan(history.column(alpha.column)[-1]):
            ended = f"θ† is no longer followed: the last values, of step {now.step:,.0f}"
            return f"{ended}; {often}{bounds}", ended
        at = f"step {now.step:,.0f}: "
        return f"{at}1 to 3 and A2 every step, {often}{bounds}", f"{at}{often}, the others each{bounds}", f"{at}{often}, the others each"


def _fitting(choices: Sequence[str], width: int) -> str:
    """The first of them that so many cells hold, else the last."""
    return next((text for text in choices if cell_len(text) <= width), choices[-1])


def _padded(text: str, cells: int) -> str:
    """The text in so many cells, cut and marked where it is longer."""
    return set_cell_size(text if cell_len(text) <= cells else f"{text[: max(cells - 2, 0)]}… ", cells)
