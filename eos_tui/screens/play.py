"""A recording played on the whole screen, round and round: no engine, nothing to wait for, and nothing that can fail."""

from collections.abc import Callable
from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from eos_tui.draw import play
from eos_tui.draw.play import Picture, Shot
from eos_tui.keys import Place, bindings
from eos_tui.messages import OpenLauncher
from eos_tui.model.acts import Schedule, schedule
from eos_tui.model.recording import Recording
from eos_tui.screens.ground import Ground
from eos_tui.terminal.pace import Pace
from eos_tui.widgets.footer import Footer
from eos_tui.widgets.rows import RowsOf


class Player:
    """Where the playing is, by the clock."""

    def __init__(self, schedule: Schedule, clock: Callable[[], float] = monotonic):
        self.schedule, self.seconds, self.playing = schedule, 0.0, True
        self._clock, self._then = clock, clock()

    @property
    def place(self) -> float:
        """The row, with what has passed of the step to the next."""
        return self.schedule.place(self.seconds)

    def tick(self) -> None:
        """Move on by the time that has passed, and begin again after the end."""
        now = self._clock()
        if self.playing:
            self.seconds = (self.seconds + now - self._then) % self.schedule.seconds
        self._then = now

    def toggle(self) -> None:
        """Pause or play."""
        self.playing = not self.playing

    def seek(self, seconds: float) -> None:
        """Pause at a time."""
        self.playing, self.seconds = False, seconds

    def step(self, by: int) -> None:
        """Pause, so many steps on or back."""
        last = self.schedule.acts[-1].stop - 1
        self.seek(self.schedule.time_of(min(max(int(self.place + 1e-6) + by, 0), last)))


class Play(Ground):
    """The screen of `eos play`."""

    place: ClassVar[Place] = "play"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(place)]

    DEFAULT_CSS = "Play { layout: vertical; overflow: hidden; }"

    def __init__(self, recording: Recording, pace: Pace, ascii: bool = False):
        super().__init__(pace, ascii)
        self.player = Player(schedule(recording))
        self._recording, self._extent = recording, play.extent(recording)
        self.picture: Picture | None = None
        """The large picture; None leaves the choice to the act."""
        self.rows, self.footer = RowsOf(self._drawn), Footer("play")

    def compose(self) -> ComposeResult:
        yield self.rows
        yield self.footer

    @property
    def shot(self) -> Shot:
        """What is to be seen now."""
        return Shot(self._recording, self.player.schedule, self._extent, self.player.place, self.picture)

    def _drawn(self, width: int, height: int, theme: str):
        return play.frame(self.shot, width, height, ascii=self.ascii, theme=theme)

    async def draw(self) -> bool:
        """Draw the present frame; returns whether there was anything to draw. Called by the clock alone."""
        hurried = self.pace.hurried
        self.player.tick()
        self.pace.moving = self.player.playing
        if not (self.player.playing or hurried):
            return False
        self.footer.adapt(labels={"pause": "pause" if self.player.playing else "play"})
        self.rows.update()
        return True

    # -- keys

    def action_pause(self) -> None:
        self.player.toggle()
        self.pace.hurry()

    def action_step(self, by: int) -> None:
        self.player.step(by)
        self.pace.hurry()

    def action_turn(self) -> None:
        self.picture = "valley" if play.pictured(self.shot) == "orbit" else "orbit"
        self.pace.hurry()

    def action_leave(self) -> None:
        self.post_message(OpenLauncher())
