"""Textual's terminal driver, made to survive the loss of its terminal.

Textual writes in a thread of its own, which ends at the first write that fails; what is sent afterwards fills its queue, and
the program then waits for ever on the way out. Here such writes are dropped and the app leaves.
"""

from collections.abc import Callable
from typing import IO, Any

from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key
from textual.message import Message


class Outlet:
    """A file to write to that is closed quietly from the other end."""

    def __init__(self, file: IO[str], lost: Callable[[], object]):
        self._file, self._lost = file, lost
        self.gone = False

    def _try(self, do: Callable[..., object], *args: str) -> None:
        if self.gone:
            return
        try:
            do(*args)
        except OSError:  # there is nobody left to tell; leaving is the answer
            self.gone = True
            self._lost()

    def write(self, text: str) -> None:
        self._try(self._file.write, text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return not self.gone and self._file.isatty()


class TerminalDriver(LinuxDriver):
    """The driver of the view. The app's `lost_terminal` is called, from a thread, when writing fails, and `pressed` for each key."""

    def __init__(self, app: Any, **options: Any):
        super().__init__(app, **options)
        if self._file is not None:
            self._file = Outlet(self._file, app.lost_terminal)  # type: ignore[assignment]

    def process_message(self, message: Message) -> None:
        if isinstance(message, Key):
            self._app.pressed(message)  # type: ignore[attr-defined]
        super().process_message(message)
