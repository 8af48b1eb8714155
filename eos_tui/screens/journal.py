"""Every event of a run, the newest first."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.control import AnyEvent
from eos_tui.theme import role_color
from eos_tui.widgets.journal import retold

SHOWN = 1000
"""Events listed at most; all are in events.jsonl."""


class Events(ModalScreen[None]):
    """The journal of a run."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,v,enter", "dismiss(None)", "close")]

    def __init__(self, events: Sequence[AnyEvent]):
        super().__init__()
        self._events = list(events)
        self._page, self._told = VerticalScroll(classes="page"), Static("No events yet.", markup=False)

    def compose(self) -> ComposeResult:
        count = len(self._events)
        with self._page:
            self._page.border_title = f"events · {count:,}" + (f", the last {SHOWN:,}" if count > SHOWN else "")
            self._page.border_subtitle = "newest first · esc closes"
            yield self._told

    def on_mount(self) -> None:
        self.call_after_refresh(self._tell)

    def on_resize(self) -> None:
        self.call_after_refresh(self._tell)

    def _tell(self) -> None:
        """List the events in the width there is."""
        def color(role: str) -> str:
            return role_color(self.app.theme, role)

        width = self._page.scrollable_content_region.width
        lines = [retold(event, color, width - 1) for event in reversed(self._events[-SHOWN:])]
        if lines:
            self._told.update(Content("\n").join(lines))
