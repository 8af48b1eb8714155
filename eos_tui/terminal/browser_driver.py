"""Textual's driver of a page in a browser, made to end with whoever shows the page."""

import os
from typing import Any

from textual.drivers.web_driver import WebDriver

GRACE_SECONDS = 3.0
"""For the app to leave by itself once nobody is there."""


class PageDriver(WebDriver):
    """The driver of `eos` behind `eos serve`. Left alone, by a server that was killed, it ends with its pipes."""

    def __init__(self, app: Any, **options: Any):
        super().__init__(app, **options)
        self._gone = False
        self._write = self._put  # type: ignore[assignment]

    def _put(self, data: bytes) -> int:
        """Write to the server; nothing once it is gone."""
        view = memoryview(data)
        while view and not self._gone:
            try:
                view = view[os.write(self.fileno, view) :]
            except OSError:
                self._gone = True
                self._app.lost_terminal()  # type: ignore[attr-defined]
        return len(data)

    def run_input_thread(self) -> None:
        """Wait for input. Its end is that of the page, whatever the app is at."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._app.lost_terminal()  # type: ignore[attr-defined]
            if not self.exit_event.wait(GRACE_SECONDS):
                os._exit(129)
