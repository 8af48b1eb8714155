"""Which steps the plots show: zoom, pan, follow and the cursor, apart from any widget.

The whole run is shown with some room to its right, and the room is taken in strides: were the axis to grow with every
step, each frame would redraw every cell. After the edge a run that goes on, or is played again, is followed over its last
bursts.
"""

import math
from collections.abc import Iterable

from engine.record.messages import AnyEvent, EdgeReached

ROOM = 1.25
"""Factor by which the axis outgrows the run when the run has reached its end."""
SMALLEST_SPAN = 4.0
BURSTS = 5
"""Bursts that are followed after the edge."""
STRIDES, WIDE_STRIDES = 16, 8
"""Moves in which a view that follows the newest step passes its own width, and in which that of the last bursts does."""


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
        self.whole = False
        """Whether the whole run is to be shown although its last bursts could be followed."""
        self._bursts = math.nan
        """Steps of the last bursts; NaN before they are known."""
        self._limit = self._limit_past_edge = 40.0
        self._final = False

    def reach(self, last: float, final: bool = False) -> None:
        """The run has come to this step; `final` when it will go no further, so that no room is left for more."""
        self.last, self._final = last, final
        if self.cursor is not None:
            self.cursor = min(self.cursor, self.newest)
        if last > self._limit:
            self._limit = _rounded_up(last * ROOM)
        if self.edge is not None and last - self.edge > self._limit_past_edge:
            self._limit_past_edge = _rounded_up((last - self.edge) * ROOM)

    def expect(self, period: float) -> None:
        """A burst takes about so many steps: what is followed changes when that is far from what it was, for then every cell does."""
        wanted = BURSTS * period
        if math.isfinite(wanted) and not self._bursts / 1.5 <= wanted <= 1.5 * self._bursts:
            self._bursts = _rounded_up(max(wanted, SMALLEST_SPAN))

    @property
    def newest(self) -> float:
        """The newest step that is shown: of a replay the one that it has come to."""
        return self.last if self.head is None else min(self.head, self.last)

    @property
    def bursts_known(self) -> bool:
        """Whether there are last bursts to follow: of a run at rest there is nothing to follow."""
        at = self.last if self.head is None else self.head
        moves = not self._final or self.head is not None
        return moves and self.edge is not None and at >= self.edge and self._bursts < max(self.last, SMALLEST_SPAN)

    @property
    def follows(self) -> bool:
        """Whether the last bursts are in view."""
        return self.span is None and not self.whole and self.bursts_known

    def window(self, from_edge: bool = False) -> tuple[float, float]:
        """The first and the last step in view; `from_edge` leaves the approach out of a view of the whole run, which it asks for where the
        last bursts are followed.
        """
        if self.follows and not from_edge:
            stop = self._followed(self._bursts, WIDE_STRIDES)
            return max(0.0, stop - self._bursts), max(stop, self._bursts)
        if self.span is None and from_edge and self.edge is not None:
            past = max(self.last - self.edge, SMALLEST_SPAN) if self._final else self._limit_past_edge
            return self.edge, self.edge + past
        if self.span is None:
            return 0.0, max(self.last, SMALLEST_SPAN) if self._final else self._limit
        stop = self._followed(self.span, STRIDES) if self.stop is None else self.stop
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
        self.span, self.stop, self.whole = None, None, True

    def toggle_whole(self) -> None:
        """Show the whole run, or where it is shown follow its last bursts again."""
        whole = self.span is None and not self.follows
        self.reset()
        self.whole = not whole

    def toggle_cursor(self) -> None:
        """Put the cursor on the newest step in view, or take it away."""
        self.cursor = None if self.cursor is not None else min(self.window()[1], self.newest)

    def move_cursor(self, direction: int, single: bool = False) -> None:
        """Move the cursor by a hundredth of the view, or by a single step, and the view with it where it would leave."""
        start, stop = self.window()
        if self.cursor is None:
            self.cursor = min(stop, self.newest)
        by = 1.0 if single else max(1.0, math.floor((stop - start) / 100))
        self.cursor = min(max(round(self.cursor) + direction * by, 0.0), self.newest)
        if self.follows and not start <= self.cursor <= stop:
            self.span = stop - start
        if self.span is not None and not start <= self.cursor <= stop:
            self._end_at(self.cursor + (0 if self.cursor > stop else self.span))

    def point(self, step: float) -> None:
        """Put the cursor on the nearest step of the run."""
        self.cursor = min(max(float(round(step)), 0.0), self.newest)

    def _followed(self, span: float, strides: int) -> float:
        """The end of a view of so many steps that follows: it moves in strides, for each move redraws every cell."""
        if self._final and self.head is None:
            return self.last
        stride = max(math.floor(span / strides), 1)
        return stride * math.ceil((self.last if self.head is None else self.head) / stride)

    def _end_at(self, stop: float) -> None:
        assert self.span is not None
        stop = max(stop, self.span)
        self.stop = None if stop >= self.last else stop


def _rounded_up(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * lead for lead in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * lead >= value), power * 10)
