"""The quantities of a plot in words, each with its symbol, formula, place in the paper, and present value."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.record.columns import Column
from engine.record.reader import State
from engine.record.threshold import RATE, THRESHOLD
from eos_tui.draw.plot_spec import Curve
from eos_tui.draw.theme import FAMILIES, role_color
from eos_tui.keys import closing
from eos_tui.model.source import DataFacts
from eos_tui.screens.live import Page


class Paragraph(NamedTuple):
    """A name, and below it, indented however the text wraps, its explanation."""

    head: Content
    rest: Content


DIGITS = 6
"""Of a value. The stored number is in the header under the cursor, and in what is copied."""


def entry(column: Column, value: float, when: str = "", color: str = "$accent") -> Paragraph:
    """One quantity, its symbol in a colour: its present value, or that of another moment."""
    unit = f" {column.unit}" if column.unit else ""
    shown = f"{when or 'now'} {value:.{DIGITS}g}{unit}" if math.isfinite(value) else f"no value {when or 'yet'}"
    return Paragraph(
        Content.assemble((column.symbol, f"bold {color}"), (f"  {column.words}", "bold")),
        Content.assemble(
            f"{column.formula}\n", (f"{column.source} · column {column.name} · {shown}", "$text-muted")),
    )


def apart(column: Column, where: str) -> Paragraph:
    """One quantity that is recorded in no column, and where it is."""
    return Paragraph(
        entry(column, math.nan).head, Content.assemble(f"{column.formula}\n", (f"{column.source} · {where}", "$text-muted")))


def origin(data: DataFacts) -> Paragraph:
    """Where the data of a run come from."""
    said = [f"{text}\n" for text in (data.rule, data.origin) if text]
    return Paragraph(
        Content.assemble(("data", "bold $accent"), (f"  {data.name}", "bold")),
        Content.assemble(*said, (f"SHA-256 of the prepared examples {data.sha256 or 'not recorded'}", "$text-muted")),
    )


def numbers(state: State) -> Paragraph:
    """On what a run is computed, and in which number formats."""
    return Paragraph(
        Content.assemble(("numbers", "bold $accent"), (f"  {state.device}", "bold")), Content.assemble((state.precision, "$text-muted")))


class Formula(Page):
    """The quantities of one plot, each in the colour of its curve, and where the run's data and numbers come from."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("dashboard.formula")]
    DEFAULT_CSS = "Formula .rest { padding-left: 4; margin-bottom: 1; }"

    def __init__(self, title: str, columns: Sequence[Column], row: Mapping[str, float], when: str = "",
                 data: DataFacts | None = None, others: Sequence[Paragraph] = (), curves: Sequence[Curve] = (), state: State | None = None):
        super().__init__()
        self._title, self._columns, self._row, self._when, self._data, self._others = title, columns, row, when, data, others
        self._roles, self._state = {curve.column: curve.role for curve in curves}, state

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as page:
            page.border_title = self._title
            page.border_subtitle = self.hint
            entries = [*self._others]
            entries += [entry(c, self._row.get(c.name, math.nan), self._when, self._color(c.name)) for c in self._columns]
            entries += [origin(self._data)] if self._data else []
            entries += [numbers(self._state)] if self._state and self._state.precision else []
            for head, rest in entries:
                yield Static(head)
                yield Static(rest, classes="rest")

    def _color(self, column: str) -> str:
        """The colour of a quantity's curve; where none is drawn, that of its trajectory."""
        family = column.partition(".")[0]
        role = self._roles.get(column, "threshold" if column in (THRESHOLD, RATE) else family if family in FAMILIES else "")
        return role_color(self.app.theme, role) if role else "$accent"
