"""`eos play` without a terminal: as an asciicast, as a picture, and the recording itself."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.color import ColorSystem
from rich.style import Style
from textual.strip import Strip

from engine.base.atomic import check_output
from engine.base.errors import UserError
from engine.record.reader import Run
from eos_tui.draw import play, theme
from eos_tui.draw.play import Extent, Shot
from eos_tui.model import recording
from eos_tui.model.acts import Schedule, schedule
from eos_tui.model.recording import Recording
from eos_tui.terminal import cast, picture
from eos_tui.terminal.saving import save

FPS = 12
"""Frames a second of a cast."""


def save_recording(run: Run, file: Path, force: bool) -> None:
    """Save what is played of a run. Raises UserError."""
    save(file, recording.packed(run), force)


class Presentation(NamedTuple):
    """A recording at a size, on a ground."""

    recording: Recording
    schedule: Schedule
    extent: Extent
    width: int
    height: int
    ascii: bool
    theme: str

    @classmethod
    def of(cls, name: str | None, width: int, height: int, ascii: bool, theme: str) -> "Presentation":
        """Of the run of this name or path, or of the recording that comes with eos. Raises UserError."""
        if width < play.SMALLEST[0] or height < play.SMALLEST[1]:
            raise UserError(f"--columns {width} --rows {height}: too small; at least {play.SMALLEST[0]} by {play.SMALLEST[1]} are needed")
        shown = recording.recorded(name)
        return cls(shown, schedule(shown), play.extent(shown), width, height, ascii, theme)

    def frame(self, seconds: float) -> list[Strip]:
        """The frame at a time."""
        shot = Shot(self.recording, self.schedule, self.extent, self.schedule.place(seconds))
        return play.frame(shot, self.width, self.height, ascii=self.ascii, theme=self.theme)

    def frames(self) -> Iterator[tuple[float, list[Strip]]]:
        """Every frame, with the time at which it begins."""
        for k in range(math.ceil(self.schedule.seconds * FPS)):
            yield k / FPS, self.frame(k / FPS)

    def save_cast(self, file: Path, force: bool) -> None:
        """Save it as an asciicast. Raises UserError."""
        check_output(file, force)
        body = io.StringIO()
        title = f"eos: {self.recording.name} at the edge of stability"
        body.writelines(cast.lines(self.frames(), self.width, self.height, title, self.schedule.seconds))
        save(file, body.getvalue().encode(), force)

    def save_png(self, file: Path, seconds: float, force: bool) -> None:
        """Save the frame at a time. Raises UserError."""
        if seconds > self.schedule.seconds:
            raise UserError(f"--at {seconds:g}: it is over after {self.schedule.seconds:.1f} s")
        rows = ["".join((style or Style.null()).render(text, color_system=ColorSystem.TRUECOLOR) for text, style, _ in strip)
                for strip in self.frame(seconds)]
        save(file, picture.png("\n".join(rows), self.width, theme.picture_theme(self.theme)), force)
