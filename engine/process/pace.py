"""How fast a run goes, how long it has worked, and where it is to pause next."""

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engine.record.messages import AnyEvent, Event

RATE_SECONDS = 3.0
"""Window over which the step rate is measured."""
CALL_SECONDS = 0.1
"""For the steps that one call takes at the edge, where one takes many: what a command waits for at most."""


class Pace:
    """The clock of a run at work."""

    def __init__(self, worked: float):
        """`worked` are the seconds that earlier engines worked on the run."""
        self.at_once = 1
        """Steps that a call may take at the edge."""
        self._worked, self._since, self._paused = worked, time.monotonic(), False
        self._ticks: deque[tuple[float, int]] = deque()

    def call_took(self, steps: int, seconds: float) -> None:
        """Choose the steps of the next call by those of the last one."""
        self.at_once = max(1, int(CALL_SECONDS * steps / max(seconds, 1e-6)))

    def stood_still(self, seconds: float) -> None:
        """Leave so many seconds since the last tick out of the rate."""
        self._ticks = deque((then + seconds, step) for then, step in self._ticks)

    def tick(self, step: int) -> None:
        """Note that the run is at this step now."""
        now = time.monotonic()
        self._ticks.append((now, step))
        while len(self._ticks) > 2 and now - self._ticks[0][0] > RATE_SECONDS:
            self._ticks.popleft()

    def pause(self) -> None:
        """Count no seconds from here on."""
        self._worked, self._paused = self.seconds, True

    def resume(self) -> None:
        """Count again, and measure the rate anew."""
        self._since, self._paused = time.monotonic(), False
        self._ticks.clear()

    @property
    def seconds(self) -> float:
        """Seconds that engines have worked on the run, pauses left out."""
        return self._worked + (0.0 if self._paused else time.monotonic() - self._since)

    @property
    def rate(self) -> float:
        """Steps a second, over the last seconds; 0 where that is not known."""
        ticks = tuple(self._ticks)  # the thread that writes the state asks, too
        if len(ticks) < 2:
            return 0.0
        (then, first), (now, last) = ticks[0], ticks[-1]
        return (last - first) / (now - then) if now > then else 0.0


class NextPause(NamedTuple):
    """Where a run is to pause by itself: at a step, or after an event of a kind."""

    step: int | None = None
    event: type[Event] | None = None
    answers: str = ""
    """The id of the command that asked for it."""

    def limit(self, left: int, step: int) -> int:
        """Steps to take at most, of those left."""
        return left if self.step is None else min(left, self.step - step)

    def is_reached(self, step: int, events: Sequence[AnyEvent]) -> bool:
        """Whether the run is at this step, or has just had such an event."""
        arrived = self.step is not None and step >= self.step
        return arrived or (self.event is not None and any(isinstance(event, self.event) for event in events))
