"""Leaving at once, whatever the disk does. A read that hangs is done in a thread that is abandoned, and never awaited at the end.

What waits for a disk cannot be interrupted: not by a signal, on some file systems not even by the end of the process's other threads.
So whatever is read again and again is read aside, and one thread does nothing but wait for the signals that ask for the end. Where the
thread that draws is stuck all the same, as after a key whose command goes to the disk, the way out leads past it.
"""

import asyncio
import os
import signal
import socket
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TextIO, TypeVar

from engine.base.aside import Aside, start, wait_for
from engine.base.errors import UserError
from engine.base.exit import STOPPING
from engine.base.stuck import PARTING_SECONDS, PATIENCE_SECONDS

Result = TypeVar("Result")
STUCK_SECONDS = 1.0
"""For the thread that draws to give a sign of life when the app is to end."""
SIGNALS = (signal.SIGHUP, *STOPPING)
TAKEN_DOWN = (
    "\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2004l\x1b[?7h\x1b[?2048l"  # mouse, paste, no wrap, sizes in band
    "\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"  # keyboard, screen, cursor, focus: as Textual sends them
)
"""What gives the terminal back."""


def begun_aside(function: Callable[[], Result]) -> "asyncio.Future[Result]":
    """What the function will give, which is carried out aside: a future that may be abandoned."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def tell() -> None:
        if future.done():  # cancelled: nobody waits any more
            return
        if read.error is not None:
            future.set_exception(read.error)
        else:
            future.set_result(read.value)

    def done() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell)

    read = Aside(function, done)
    return future


async def aside(function: Callable[[], Result]) -> Result:
    """What the function gives, carried out where it hangs nothing but itself."""
    return await begun_aside(function)


class Leavable(Protocol):
    """The app, as far as the way out needs it."""

    way_out: "WayOut | None"
    loop: asyncio.AbstractEventLoop | None
    """The loop of the thread that draws; None until it runs."""

    @property
    def _driver(self) -> object: ...

    def call_later(self, callback: Callable[[int], object], status: int) -> bool: ...

    def exit(self, result: int) -> None: ...


class WayOut:
    """The way out of the view, for keys and for signals. Inside, the thread that draws takes none of the latter, for it may be stuck; one
    that does nothing else hears of each by a pipe, as whatever thread takes it writes there at once.

    `part` says where the run stands, given the status and the stream to say it on.
    """

    def __init__(self, app: Leavable, part: Callable[[int, TextIO | None], None]):
        self._app, self._part = app, part
        self._over, self._armed = threading.Event(), threading.Lock()
        self._restore: Callable[[], object] = lambda: None

    def __enter__(self) -> "WayOut":
        self._app.way_out = self
        if threading.current_thread() is threading.main_thread():
            self._restore = self._take_signals()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._app.way_out = None
        self._restore()

    def _take_signals(self) -> Callable[[], None]:
        """Have signals come here; returns what has them go where they went before."""
        heard, written = socket.socketpair()
        written.setblocking(False)
        heeding = threading.Thread(target=self._heed, args=(heard,), daemon=True)
        start(heeding)
        handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        wakeup = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # and in every thread begun from here on; engines undo it

        def restore() -> None:
            signal.set_wakeup_fd(wakeup)
            written.close()
            heeding.join()
            heard.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        return restore

    def arm(self, status: int) -> None:
        """The app is to end: from now on it has a little while."""
        if self._armed.acquire(blocking=False):
            threading.Thread(target=self._end, args=(status,), daemon=True).start()

    def look(self, status: int = 0) -> None:
        """A key or a signal asks to leave: the app does what it does then, unless it does nothing any more."""
        threading.Thread(target=self._look, args=(status,), daemon=True).start()

    def _heed(self, heard: socket.socket) -> None:
        while numbers := heard.recv(64):
            for number in filter(SIGNALS.__contains__, numbers):
                self.arm(128 + number)
                self.look(128 + number)
                self._app.call_later(self._app.exit, 128 + number)

    def _look(self, status: int) -> None:
        alive, loop = threading.Event(), self._app.loop
        if loop is not None:
            with suppress(RuntimeError):  # closed since
                loop.call_soon_threadsafe(alive.set)
        if not alive.wait(STUCK_SECONDS):
            self._force(status)

    def _end(self, status: int) -> None:
        if not self._over.wait(PATIENCE_SECONDS):
            self._force(status)

    def _force(self, status: int) -> None:
        """End the process, with the terminal as it was."""
        if self._over.is_set():
            return
        driver = self._app._driver
        attributes = getattr(driver, "attrs_before", None)
        if attributes is not None:
            with suppress(TimeoutError, OSError, UserError, termios.error):  # a terminal that is gone as well
                wait_for(lambda: _give_back(attributes), PARTING_SECONDS)
        with suppress(Exception):  # a terminal that is gone, or words that the stuck thread is about to write: nothing is to keep it here
            wait_for(lambda: self._part(status, sys.__stdout__), 2 * PARTING_SECONDS)  # Textual has put its own in place of stdout
        os._exit(status)


def _give_back(attributes: Any) -> None:
    assert sys.__stdin__ is not None
    assert sys.__stderr__ is not None
    termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, attributes)
    os.write(sys.__stderr__.fileno(), TAKEN_DOWN.encode())  # where Textual draws
