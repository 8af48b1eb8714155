"""The list of keys, made from the table of keys."""

from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from eos_tui.keys import MOUSE, PLACES, Place, closing, groups, offered
from eos_tui.screens.live import Page


def key_list(place: Place) -> Group:
    """The keys that work in a place, by group."""
    parts: list[RenderableType] = []
    for title, keys in groups(offered(place)):
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=11, style="bold")
        table.add_column(width=17)
        table.add_column()
        for key in keys:
            table.add_row(Text(key.shown), Text(key.label), Text(key.help))
        parts += [Text(title, "underline"), table, Text()]
    if place == "dashboard":
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=13, style="bold")
        table.add_column()
        for shown, told in MOUSE:
            table.add_row(Text(shown), Text(told))
        parts += [Text("Mouse", "underline"), table, Text()]
    return Group(*parts[:-1])


class Help(Page):
    """Every key of the place it was opened from."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("anywhere.help")]

    def __init__(self, of: Place):
        super().__init__()
        self._of: Place = of

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as page:
            page.border_title = f"keys {PLACES[self._of]}"
            page.border_subtitle = self.hint
            yield Static(key_list(self._of))
