"""What a plot shows: every quantity in words, with its symbol, formula, place in the paper, and present value."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.columns import Column


def entry(column: Column, value: float) -> Content:
    """One quantity."""
    unit = f" {column.unit}" if column.unit else ""
    shown = f"{value:.6g}{unit}" if math.isfinite(value) else "no value yet"
    return Content.assemble(
        (column.symbol, "bold $accent"), (f"  {column.words}\n", "bold"),
        f"    {column.formula}\n",
        (f"    {column.source} · column {column.name} · now {shown}\n", "$text-muted"),
    )


class Formula(ModalScreen[None]):
    """The quantities of one plot."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,i,enter", "dismiss(None)", "close")]

    def __init__(self, title: str, columns: Sequence[Column], row: Mapping[str, float]):
        super().__init__()
        self._title, self._columns, self._row = title, columns, row

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as page:
            page.border_title = self._title
            page.border_subtitle = "esc closes"
            yield Static(Content("\n").join(entry(c, self._row.get(c.name, math.nan)) for c in self._columns))
