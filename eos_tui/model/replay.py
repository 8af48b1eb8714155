"""A run shown again as it went: a playhead that moves over its rows by the clock, at any speed, forward or to any step."""

from collections.abc import Callable, Sequence
from time import monotonic

import msgspec

from engine.record.messages import AnyEvent, EdgeReached, LearningRateChanged, TrackingEnded
from engine.record.reader import State

SLOWEST, FASTEST = 0.125, 2.0**20
"""Steps a second."""
SECONDS = 30.0
"""How long a whole run takes at the speed it is first played at."""
FOLLOWED = 60.0
"""Steps a second that the eye can follow where each of them says something."""


class Replay:
    """Where the playhead is, and how fast it moves. Begins to play at once."""

    def __init__(self, step: float, last: float, clock: Callable[[], float] = monotonic, speed: float = 0.0):
        self.step, self.last = min(step, last), last
        self.speed = speed or 1.0
        """Steps a second; by default as many as show the whole run in half a minute."""
        while not speed and self.speed < min(last / SECONDS, FASTEST):
            self.speed *= 2
        self.playing = True
        self._clock, self._then = clock, clock()

    @property
    def over(self) -> bool:
        """Whether the newest step is shown."""
        return self.step >= self.last

    def tick(self, last: float) -> None:
        """Move on by the time that has passed, at most to the newest step."""
        now, self.last = self._clock(), last
        if self.playing:
            self.step = min(self.step + self.speed * (now - self._then), last)
            self.playing = not self.over
        self._then = now

    def toggle(self) -> None:
        """Pause or play; from the end, play from the beginning."""
        self.playing = not self.playing
        if self.playing and self.over:
            self.step = 0.0

    def seek(self, step: float) -> None:
        """Go to a step."""
        self.step = min(max(step, 0.0), self.last)

    def change_speed(self, factor: float) -> None:
        """Play faster or slower."""
        self.speed = min(max(self.speed * factor, SLOWEST), FASTEST)


def as_it_stood(state: State, events: Sequence[AnyEvent], step: int, learning_rate: float, rate: float) -> State:
    """The engine's word on itself at a step that has passed, from the events up to it."""
    phase = "phase portrait" if state.phase == "phase portrait" else "approach"
    for event in events:
        if isinstance(event, EdgeReached):
            phase = "edge"
        elif isinstance(event, TrackingEnded):
            phase = "gradient descent"
        elif isinstance(event, LearningRateChanged):
            phase = "approach"
    return msgspec.structs.replace(
        state, status="running", phase=phase, step=step, learning_rate=learning_rate, rate=rate, task="", outcome=None
    )
