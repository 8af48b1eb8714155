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
from eos_tui.widgets.journal import told

SHOWN = 1000
"""Events listed at most; all are in events.jsonl."""


class Events(ModalScreen[None]):
    """The journal of a run."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,v,enter", "dismiss(None)", "close")]

    def __init__(self, events: Sequence[AnyEvent]):
        super().__init__()
        self._events = list(events)

    def compose(self) -> ComposeResult:
        def color(role: str) -> str:
            return role_color(self.app.theme, role)

        count = len(self._events)
        with VerticalScroll(classes="page") as page:
            page.border_title = f"events · {count:,}" + (f", the last {SHOWN:,}" if count > SHOWN else "")
            page.border_subtitle = "newest first · esc closes"
            lines = [told(event, color, clock=True) for event in reversed(self._events[-SHOWN:])]
            yield Static(Content("\n").join(lines) if lines else "No events yet.")
