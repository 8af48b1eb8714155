"""The requests of a screen to the app, which alone knows every screen: each is posted where the user asks, and bubbles up to it."""

from collections.abc import Sequence

from textual.message import Message

from engine.record.reader import Run


class OpenRun(Message):
    """Show the dashboard of a run in place of this screen, with others laid over it."""

    def __init__(self, run: Run, beside: Sequence[Run] = ()):
        super().__init__()
        self.run, self.beside = run, beside


class OpenLauncher(Message):
    """Show the launcher in place of this screen."""

    def __init__(self, origin: Run | None = None):
        super().__init__()
        self.origin = origin
        """The run to return to."""
