"""The latest events of a run, in sentences, below the plots."""

import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime

from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget

from engine.record.messages import AnyEvent
from eos_tui.draw.theme import role_color
from eos_tui.widgets.line import Line

EVENT_ROLES = {
    "EdgeReached": "good",
    "Finished": "good",
    "AssumptionRestored": "good",
    "AssumptionFailed": "warn",
    "PredictionLost": "warn",
    "EigenvalueUnstable": "warn",
    "EigenvectorsSwapped": "warn",
    "EigenpairCorrected": "warn",
    "ConstraintLost": "warn",
    "TrackingEnded": "warn",
    "FlowEnded": "warn",
    "Refused": "bad",
    "CheckpointSkipped": "bad",
}
"""Events whose step is coloured; the sentence alone carries the meaning."""

ROWS = 4


def as_line(event: AnyEvent, color: Callable[[str], str]) -> Content:
    """One event: its step and its sentence."""
    role = EVENT_ROLES.get(type(event).__name__, "muted")
    return Content.assemble((f" {event.step:>7,} ", color(role)), event.text)


def with_time(event: AnyEvent, color: Callable[[str], str], width: int) -> Content:
    """One event with its time of day, its sentence on as many lines as it takes."""
    head = as_line(event, color)
    start = head.cell_length - len(event.text)
    when = f" {datetime.fromtimestamp(event.at):%H:%M:%S}"
    first, *others = textwrap.wrap(event.text, max(width - len(when) - start, 16)) or [""]
    margin = "\n" + " " * (len(when) + start)
    return Content.assemble((when, color("muted")), head[:start], first, *(margin + line for line in others))


class Journal(Widget):
    """The last events, the newest at the bottom."""

    DEFAULT_CSS = """
    Journal { height: 4; layout: vertical; }
    Journal.short { height: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = tuple(Line() for _ in range(ROWS))

    def compose(self) -> ComposeResult:
        yield from self.lines

    def show(self, events: Sequence[AnyEvent]) -> None:
        """Show the last of these events."""
        room = min(max(self.size.height, 1), ROWS)
        latest = list(events)[-room:]

        def color(role: str) -> str:
            return role_color(self.app.theme, role)

        for line, event in zip(self.lines, [*latest, *[None] * (ROWS - len(latest))], strict=True):
            line.show(Content("") if event is None else as_line(event, color))
