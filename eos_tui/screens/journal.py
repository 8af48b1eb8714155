"""Every event of a run, the newest first."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from eos_tui.keys import closing
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula
from eos_tui.screens.live import LivePage
from eos_tui.widgets.journal import with_time

SHOWN = 1000
"""Events listed at most; all are in events.jsonl."""


NAMED = ("learning_rate", "gd.sharpness", "gd.x", "gd.y", "constrained.alpha", "constrained.lambda2", "stage")
"""Columns that most sentences of events name."""


class Events(LivePage):
    """The journal of a run."""

    BINDINGS: ClassVar[list[BindingType]] = [closing("dashboard.events")]

    def __init__(self, source: Source):
        super().__init__(source)
        self._page, self._list = VerticalScroll(classes="page"), Static(markup=False)
        self._listed = (-1, 0)
        """How many events are listed, and in which width."""

    def compose(self) -> ComposeResult:
        self._page.border_subtitle = f"newest first · {self.hint}"
        with self._page:
            yield self._list

    def action_formula(self) -> None:
        self.app.push_screen(Formula("events", [c for c in self.source.columns if c.name in NAMED], self.source.row()))

    def paint(self) -> None:
        if not self._list.is_attached:
            return
        events = self.source.events
        asked = len(events), self._page.scrollable_content_region.width
        self._page.border_title = f"events · {len(events):,}" + (f", the last {SHOWN:,}" if len(events) > SHOWN else "")
        if asked != self._listed:
            self._listed = asked
            lines = [with_time(event, self.color, asked[1] - 1) for event in reversed(events[-SHOWN:])]
            self._list.update(Content("\n").join(lines or [Content("No events yet.")]))
