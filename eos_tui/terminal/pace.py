"""The only refresh clock: it decides when the screen is drawn, never the arrival of data.

After each frame it asks the terminal where its cursor is (`ESC [6n`) and draws the next one only when the answer is here.
The answer comes through the same pipe as the picture, so a slow link gets fewer frames instead of a queue of stale ones,
and a key is answered after one frame at most. A terminal that does not answer is drawn once a second. Behind frames that
had nothing new to show it is asked once a second, only to notice when it is gone.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from time import monotonic

DEFAULT_FPS = 4.0
SLOWEST, FASTEST = 0.5, 10.0
MOVING_FPS = 12.0
"""Frames a second while something moves that the eye is to follow, where no fewer are asked for than by default."""
PATIENCE_SECONDS = 2.0
"""Wait for an answer before the terminal counts as slow."""
LOST_SECONDS = 10.0
"""Wait for an answer from a terminal that has answered before; after that the answer is taken for lost."""
RESTING_SECONDS = 1.0
"""Longest time without a question, and without a whole frame, while there is nothing new to show."""
UNFOCUSED_SECONDS = 0.5
"""Least time between frames while the terminal has not got the focus."""


class Pace:
    """Draws at `fps`, at once after `hurry`, and never before the terminal has taken the frame before."""

    def __init__(self, fps: float = DEFAULT_FPS):
        self.interval = 1 / min(max(fps, SLOWEST), FASTEST)
        self.frames = 0
        self.focused = True
        self.answers = 0
        self.slow = False
        """The terminal is behind, or does not answer."""
        self.moving = False
        """Whether what was drawn last moves on by itself: what is played."""
        self.hurried = True
        """Whether the frame being drawn was asked for: then it is to show everything, new or not."""
        self._asked, self._asked_at = 0, -math.inf
        self._answered = asyncio.Event()
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Draw as soon as the terminal can take it: a key was pressed."""
        self._hurry.set()

    def answered(self) -> None:
        """The terminal has taken everything up to a question."""
        self.answers += 1
        if not self.waiting:
            self._answered.set()

    @property
    def waiting(self) -> bool:
        """Whether an answer is outstanding."""
        return self.answers < self._asked

    async def run(self, draw: Callable[[], Awaitable[bool]], ask: Callable[[], bool]) -> None:
        """Draw for ever. `draw` says whether there was anything to show; `ask` puts the question behind the frame, and False
        says that there is no terminal to ask.
        """
        while True:
            began = monotonic()
            self.hurried = self._hurry.is_set() or not self.frames
            self._hurry.clear()
            shown = await draw()
            self.frames += 1
            self._answered.clear()
            if (shown or began - self._asked_at >= RESTING_SECONDS) and ask():
                self._asked, self._asked_at = self._asked + 1, began
                await self._taken()
            await self._sleep(self.spacing - (monotonic() - began))

    @property
    def spacing(self) -> float:
        """Seconds from one frame to the next, as things are."""
        quick = self.moving and self.interval <= 1 / DEFAULT_FPS
        own = min(self.interval, 1 / MOVING_FPS) if quick else self.interval
        return max(own, 1.0 if self.slow else 0.0, 0.0 if self.focused else UNFOCUSED_SECONDS)

    async def settle(self, seconds: float = 1.0) -> None:
        """Wait for an outstanding answer, so that it does not end up as typing in the user's shell."""
        if self.waiting:
            self._answered.clear()
            await _within(self._answered, seconds)

    async def _taken(self) -> None:
        """Wait for the terminal, within reason."""
        patience = PATIENCE_SECONDS if not self.answers else LOST_SECONDS
        if self.slow and not self.answers:
            patience = 0.0  # it never answers: the clock alone
        self.slow = not await _within(self._answered, patience)
        if self.slow and self.answers:
            self.answers = self._asked

    async def _sleep(self, seconds: float) -> None:
        await _within(self._hurry, max(seconds, 0.01))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came within so many seconds."""
    try:
        async with asyncio.timeout(seconds):  # `wait_for` would begin a task for it
            await event.wait()
    except TimeoutError:
        return False
    return True
