"""Every event of a run, the newest first."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from eos_tui.keys import Place, bindings, closing, shown
from eos_tui.model.source import Source
from eos_tui.screens.formula import Formula
from eos_tui.screens.live import LivePage
from eos_tui.widgets.filter import Filter, matches
from eos_tui.widgets.journal import with_time

SHOWN = 1000
"""Events listed at most; all are in events.jsonl."""


NAMED = ("learning_rate", "gd.sharpness", "gd.x", "gd.y", "constrained.alpha", "constrained.lambda2", "stage")
"""Columns that most sentences of events name."""


class Events(LivePage):
    """The journal of a run."""

    place: ClassVar[Place] = "events"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("events"), closing("dashboard.events")]
    CSS = """
    Events .page { height: 96%; }
    Events VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
    """

    def __init__(self, source: Source):
        super().__init__(source)
        self._page, self._text, self._list = Vertical(classes="page"), VerticalScroll(), Static(markup=False)
        self._filter = Filter("events")
        self._listed = (-1, 0, "")
        """How many events are listed, in which width, and by which words."""

    @property
    def hint(self) -> str:
        return f"{shown('events.filter')} filter · {super().hint}"

    def compose(self) -> ComposeResult:
        self._page.border_subtitle = f"newest first · {self.hint}"
        with self._page:
            yield self._filter
            with self._text:
                yield self._list

    def on_mount(self) -> None:
        super().on_mount()
        self._text.focus()

    def action_filter(self) -> None:
        self._filter.begin(self._text)

    def on_filter_narrowed(self) -> None:
        self.paint()

    def action_formula(self) -> None:
        self.app.push_screen(Formula("events", [c for c in self.source.columns if c.name in NAMED], self.source.row()))

    def paint(self) -> None:
        if not self._list.is_attached:
            return
        events, words = self.source.events, self._filter.words
        asked = len(events), self._text.scrollable_content_region.width, words
        if asked == self._listed:
            return
        self._listed = asked
        passing = [event for event in events if matches(f"{event.step} {event.step:,} {event.text}", words)] if words.strip() else events
        count = f"{len(passing):,} of {len(events):,}" if len(passing) < len(events) else f"{len(events):,}"
        self._page.border_title = f"events · {count}" + (f", the last {SHOWN:,}" if len(passing) > SHOWN else "")
        lines = [with_time(event, self.color, asked[1] - 1) for event in reversed(passing[-SHOWN:])]
        none = "No event has all of these words." if events else "No events yet."
        self._list.update(Content("\n").join(lines or [Content(none)]))
