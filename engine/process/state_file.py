"""The state of a run on the disk, written anew every second for as long as its engine lives."""

import threading
from collections.abc import Callable
from pathlib import Path

from engine.process.recorder import log
from engine.record.lock import DisplacedError
from engine.record.reader import State
from engine.record.writer import Writer

HEARTBEAT_SECONDS = 1.0


class StateFile:
    """`state.json`, as two threads write it."""

    def __init__(self, writer: Writer, state: Callable[[], State], folder: Path):
        """`folder` is the run's as a user knows it."""
        self.writer, self.state, self.folder = writer, state, folder
        self.displaced = ""
        """Why this engine writes nothing more, in words: another one was given the run."""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self.beat, daemon=True)

    def begin(self) -> None:
        """Write the state now, and every second."""
        self._thread.start()
        self.write()

    def write(self) -> None:
        """Write the state now."""
        with self._lock:
            self.writer.state(self.state())

    def end(self) -> None:
        """End the thread that writes the state."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def need_run(self) -> None:
        """Raise DisplacedError where another engine was given the run."""
        if self.displaced:
            raise DisplacedError(self.displaced)

    def beat(self) -> None:
        """Renew the heartbeat until the end, in a thread of its own."""
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self.write()
            except DisplacedError as error:
                self.displaced = str(error)
                return
            except OSError as error:
                log(f"{self.folder}: state.json could not be written ({error.strerror})")
