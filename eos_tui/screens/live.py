"""Pages above the dashboard. Of a live one the clock paints what is new, after the dashboard has taken it."""

from typing import ClassVar

from textual.binding import BindingType
from textual.screen import ModalScreen

from eos_tui.draw.theme import role_color
from eos_tui.keys import Place, modal_bindings, shown
from eos_tui.model.source import Source


class Page(ModalScreen[None]):
    """A page of words."""

    place: ClassVar[Place] = "page"
    """Where it is, as the table of keys says it."""
    BINDINGS: ClassVar[list[BindingType]] = [*modal_bindings("page", "formula")]

    @property
    def hint(self) -> str:
        """The keys to know here."""
        return f"{shown('page.close')} closes"


class LivePage(Page):
    """What a run shows on a page of its own."""

    BINDINGS: ClassVar[list[BindingType]] = [*modal_bindings("page")]

    @property
    def hint(self) -> str:
        return f"{shown('page.formula')} formula · {super().hint}"

    def __init__(self, source: Source, ascii: bool = False):
        super().__init__()
        self.source, self.ascii = source, ascii

    def on_mount(self) -> None:
        self.show_what_fits()
        self.call_after_refresh(self.paint)

    def on_resize(self) -> None:
        self.show_what_fits()
        self.call_after_refresh(self.paint)

    def show_what_fits(self) -> None:
        """Show what there is room for."""

    def action_formula(self) -> None:
        """Tell the formulas of what the page shows."""
        raise NotImplementedError

    def paint(self) -> None:
        """Show what is known now."""
        raise NotImplementedError

    def color(self, role: str) -> str:
        """The colour of a role in the present theme."""
        return role_color(self.app.theme, role)
