"""What the engine is at while it takes no step: in words, since when, and how long the same took before.

The seconds are kept in the cache folder, by host, device, preset and words: the next run of the preset is told how long it is to wait,
another preset what is usual here.
"""

import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from engine.base import atomic, folders
from engine.base.errors import UserError
from engine.base.files import read_plain

FILE, FORMAT = "waits.json", 1
MAX_BYTES, MOST = 256 * 1024, 500
"""Of the file, and waits in it: the oldest go."""
LEAST_SECONDS = 1.0
"""What is over sooner is neither told nor kept."""
COMPILING = {"edge": "compiling the steps at the edge"}
"""By phase, where it is not of the phase's own name."""
COMPILING_MORE = "compiling what these steps take for the first time"
"""In the midst of a phase: for more eigenvalues or directions than were followed, or a first reading of its kind."""
ENTERING = {"edge": "the edge is here: finding θ†, and compiling what is not yet"}


class Wait(NamedTuple):
    """Something that takes a while."""

    words: str = ""
    seconds: float = 0.0
    """Since it began."""
    estimate: float = 0.0
    """What the same took before; 0 where that is not known."""


NOTHING = Wait()


def compiling(phase: str) -> str:
    """The first call of a phase."""
    return COMPILING.get(phase, f"compiling the steps of the {phase}")


def entering(phase: str) -> str:
    """From the phase before to this one."""
    return ENTERING.get(phase, f"going on to the {phase}")


class Waits:
    """The waits of one engine. Another thread asks for the present one."""

    def __init__(self, preset: str):
        self._preset, self._where = preset, socket.gethostname()
        self._now: tuple[str, float] | None = None

    def on(self, device: str) -> None:
        """What is compiled is for this device."""
        self._where = f"{socket.gethostname()} {device}"

    @contextmanager
    def at(self, words: str) -> Iterator[None]:
        """Be at this until the end, and keep how long it took; with no words nothing is told."""
        self._now = (words, time.monotonic()) if words else None
        try:
            yield
            if self._now is not None:
                self.note(words, time.monotonic() - self._now[1])
        finally:
            self._now = None

    @property
    def words(self) -> str:
        """Those of the present wait."""
        return self._now[0] if self._now else ""

    def drop(self) -> None:
        """Do not keep how long the present wait took: it was more than its words say."""
        self._now = None

    def present(self, other: tuple[str, float] | None = None) -> Wait:
        """The present wait, or this other one: its words, and the moment that it began at."""
        words, began = other or self._now or ("", 0.0)
        seconds = time.monotonic() - began
        return Wait(words, seconds, self.before(words)) if words and seconds >= LEAST_SECONDS else NOTHING

    def before(self, words: str) -> float:
        """Seconds that the same took before: in the last run of this preset here, else in the usual one of any; 0 where there was none."""
        known = _read()
        if (own := known.get(self._key(words))) is not None:
            return own
        others = [seconds for key, seconds in known.items() if key.startswith(f"{self._where}|") and key.endswith(f"|{words}")]
        return statistics.median(others) if others else 0.0

    def note(self, words: str, seconds: float) -> None:
        """Keep how long it took. A cache that cannot be written keeps nothing."""
        if seconds < LEAST_SECONDS:
            return
        known = _read()
        known.pop(self._key(words), None)  # the newest stand last
        known[self._key(words)] = round(seconds, 2)
        kept = dict([*known.items()][-MOST:])
        with suppress(OSError, UserError):
            path = _path()
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic.write(path, f".{os.getpid()}") as handle:
                handle.write(json.dumps({"format": FORMAT, "seconds": kept}).encode())

    def _key(self, words: str) -> str:
        return f"{self._where}|{self._preset}|{words}"


def _path() -> Path:
    return folders.cache() / FILE


def _read() -> dict[str, float]:
    """The seconds kept; none where the file cannot be read, or is of another hand."""
    try:
        kept = json.loads(read_plain(_path(), MAX_BYTES))["seconds"]
        return {key: float(seconds) for key, seconds in kept.items() if isinstance(seconds, int | float) and 0 < seconds < 1e6}
    except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
