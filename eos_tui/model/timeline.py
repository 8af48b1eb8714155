"""Which steps the plots show: zoom, pan, follow and the cursor, apart from any widget.

The whole run is shown with some room to its right, and the room is taken in strides: were the axis to grow with every
step, each frame would redraw every cell.
"""

import math
from collections.abc import Iterable

from engine.record.messages import AnyEvent, EdgeReached

ROOM = 1.25
"""Factor by which the axis outgrows the run when the run has reached its end."""
SMALLEST_SPAN = 4.0
STRIDES = 16
"""Moves in which a view that follows the newest step passes its own width."""


def first_edge(events: Iterable[AnyEvent]) -> float | None:
    """The step of the first edge; None where there was none."""
    return next((float(event.step) for event in events if isinstance(event, EdgeReached)), None)


class Timeline:
    """The steps in view."""

    def __init__(self) -> None:
        self.last = 0.0
        """The newest step there is."""
        self.span: float | None = None
        """Steps across; None shows the whole run."""
        self.stop: float | None = None
        """Right end of a zoomed view; None follows the newest step."""
        self.head: float | None = None
        """The step a replay has come to: what a zoomed view then follows."""
        self.cursor: float | None = None
        self.edge: float | None = None
        """Step of the first edge, where there was one."""
        self._limit = self._limit_past_edge = 40.0
        self._final = False

    def reach(self, last: float, final: bool = False) -> None:
        """The run has come to this step; `final` when it will go no further, so that no room is left for more."""
        self.last, self._final = last, final
        if last > self._limit:
            self._limit = _rounded_up(last * ROOM)
        if self.edge is not None and last - self.edge > self._limit_past_edge:
            self._limit_past_edge = _rounded_up((last - self.edge) * ROOM)

    def window(self, from_edge: bool = False) -> tuple[float, float]:
        """The first and the last step in view; `from_edge` leaves the approach out of a view of the whole run."""
        if self.span is None and from_edge and self.edge is not None:
            past = max(self.last - self.edge, SMALLEST_SPAN) if self._final else self._limit_past_edge
            return self.edge, self.edge + past
        if self.span is None:
            return 0.0, max(self.last, SMALLEST_SPAN) if self._final else self._limit
        stop = self._followed() if self.stop is None else self.stop
        return max(0.0, stop - self.span), max(stop, self.span)

    def zoom(self, factor: float, about: float | None = None) -> None:
        """Show `factor` times as many steps, keeping the step `about` or the cursor where it stands, or else the right end."""
        start, stop = self.window()
        stop = min(stop, max(self.last, SMALLEST_SPAN))  # the room to the right is nothing to zoom into
        span = max((stop - start) * factor, SMALLEST_SPAN)
        about = self.cursor if about is None else about
        if span >= max(self.last, SMALLEST_SPAN):
            self.reset()
        elif about is not None and start <= about <= stop:
            share = (stop - about) / (stop - start)
            self.span = span
            self._end_at(about + share * span)
        else:
            self.span = span

    def pan(self, quarters: float) -> None:
        """Move by quarters of the span: negative towards the start. Reaching the newest step follows it again."""
        start, stop = self.window()
        if self.span is None:
            self.span = max((min(stop, self.last) - start) / 2, SMALLEST_SPAN)
            stop = self.last
        self._end_at(stop + quarters * self.span / 4)

    def reset(self) -> None:
        """Show the whole run."""
        self.span = self.stop = None

    def toggle_cursor(self) -> None:
        """Put the cursor on the newest step in view, or take it away."""
        self.cursor = None if self.cursor is not None else min(self.window()[1], self.last)

    def move_cursor(self, direction: int, single: bool = False) -> None:
        """Move the cursor by a hundredth of the view, or by a single step, and the view with it where it would leave."""
        start, stop = self.window()
        if self.cursor is None:
            self.cursor = min(stop, self.last)
        by = 1.0 if single else max(1.0, math.floor((stop - start) / 100))
        self.cursor = min(max(round(self.cursor) + direction * by, 0.0), self.last)
        if self.span is not None and not start <= self.cursor <= stop:
            self._end_at(self.cursor + (0 if self.cursor > stop else self.span))

    def point(self, step: float) -> None:
        """Put the cursor on the nearest step of the run."""
        self.cursor = min(max(float(round(step)), 0.0), self.last)

    def _followed(self) -> float:
        """The end of a zoomed view that follows: it moves in strides, for each move redraws every cell."""
        assert self.span is not None
        if self._final and self.head is None:
            return self.last
        stride = max(math.floor(self.span / STRIDES), 1)
        return stride * math.ceil((self.last if self.head is None else self.head) / stride)

    def _end_at(self, stop: float) -> None:
        assert self.span is not None
        stop = max(stop, self.span)
        self.stop = None if stop >= self.last else stop


def _rounded_up(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * lead for lead in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * lead >= value), power * 10)
