"""Which recorded quantities a plot draws: its own, and any other."""

from collections.abc import Collection, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from engine.record.columns import Column
from eos_tui.widgets.checklist import Checklist
from eos_tui.widgets.filter import Filter

AXES = ("step", "time")
"""Columns that are axes, not curves."""


def _line(column: Column) -> Content:
    return Content.assemble((f"{column.symbol:<12}", "bold"), column.words)


class ChooseCurves(ModalScreen[list[str] | None]):
    """Asks for columns; answers with the names of those chosen, in the order of the record."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "draw", priority=True),
        Binding("slash", "filter", "filter"),
        Binding("escape,q", "dismiss(None)", "cancel"),
    ]

    def __init__(self, title: str, columns: Sequence[Column], own: Collection[str], drawn: Collection[str]):
        super().__init__()
        self._title, self._columns = title, [column for column in columns if column.name not in AXES]
        self._own, self._drawn = own, drawn
        self.checklist, self.filter = Checklist(), Filter("curves")

    def compose(self) -> ComposeResult:
        with Vertical(classes="page") as page:
            page.border_title = f"curves of “{self._title}”"
            page.border_subtitle = "space chooses · / filters · enter draws · esc cancels"
            yield self.filter
            yield self.checklist

    def on_mount(self) -> None:
        own = [column for column in self._columns if column.name in self._own]
        others = [column for column in self._columns if column.name not in self._own]
        self.checklist.offer(((column.name, _line(column)) for column in (*own, *others)), self._drawn)
        self.checklist.focus()

    def action_filter(self) -> None:
        self.filter.begin(self.checklist)

    def on_filter_narrowed(self) -> None:
        self.checklist.narrow(self.filter.words)

    def action_accept(self) -> None:
        if self.filter.has_focus:
            self.filter.action_leave(True)
            return
        chosen = set(self.checklist.chosen)
        if not chosen:
            self.notify("A plot draws one curve at least.", severity="warning", timeout=2)
            return
        self.dismiss([column.name for column in self._columns if column.name in chosen])
