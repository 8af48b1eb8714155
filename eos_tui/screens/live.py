"""A page above the dashboard that goes on as the run does: the clock paints it after the dashboard has taken what is new."""

from textual.screen import ModalScreen

from eos_tui.source import Source
from eos_tui.theme import role_color


class LivePage(ModalScreen[None]):
    """What a run shows on a page of its own."""

    def __init__(self, source: Source, ascii: bool = False):
        super().__init__()
        self.source, self.ascii = source, ascii

    def on_mount(self) -> None:
        self.call_after_refresh(self.paint)

    def on_resize(self) -> None:
        self.call_after_refresh(self.paint)

    def paint(self) -> None:
        """Show what is known now."""
        raise NotImplementedError

    def color(self, role: str) -> str:
        """The colour of a role in the present theme."""
        return role_color(self.app.theme, role)
