"""Leaving at once where the main thread waits for a disk that does not answer.

No signal interrupts such a wait. The system keeps the signal for the main thread, which is always the one to be given it, and no handler
of Python's runs before the wait is over. That can be seen: the signal is pending. A main thread that computes, or has a handler of its own
that stops an engine cleanly, takes a signal at once, so it is never taken for a stuck one, however long it goes on.

A view goes further (`eos_tui.terminal.leaving`): it takes its signals from the thread that draws, and asks that one for a sign of life.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from engine.base.aside import start, wait_for
from engine.base.errors import UserError

LOOK_SECONDS, PATIENCE_SECONDS = 0.25, 2.0
"""Between two looks at what is pending, and for a command to end in its own way."""
PARTING_SECONDS = 0.5
"""For a last word: where it is written to may be on that disk, too."""

_over = threading.Event()
_engines: list[Callable[[], Iterable[int]]] = []


@contextmanager
def way_out(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Inside, one of these signals ends the process though its main thread is stuck."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _over.clear()
    watch = threading.Thread(target=_watch, args=(frozenset(signals),), daemon=True)
    start(watch)
    try:
        yield
    finally:
        _over.set()
        watch.join()


def wait_for_disk() -> None:
    """From here on a signal waits for as long as a disk does: this process is an engine, whose last checkpoint is worth it."""
    _over.set()


@contextmanager
def taking_along(engines: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Inside, the engines of these process ids do not outlive a command that has to leave at once."""
    _engines.append(engines)
    try:
        yield
    finally:
        _engines.remove(engines)


def farewell() -> str:
    """Have the engines that are to be taken along stop, by a signal, as what goes to the disk reaches nobody; says what was done."""
    stopped = [pid for engines in _engines for pid in list(engines())]
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not stopped:
        return "the disk does not answer; this command ended without it"
    several = len(stopped) > 1
    who = f"engines, processes {', '.join(map(str, stopped))}, were" if several else f"engine, process {stopped[0]}, was"
    return f"the disk does not answer; the {who} told to stop"


def _watch(signals: frozenset[signal.Signals]) -> None:
    # None of them is for this thread, which only then sees those that are pending. What the main thread does not take on purpose, as
    # this process was started like that, says nothing of a disk.
    heeded = signals - signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    looks = 0  # rather than a clock: a process that was halted with its signal pending had no time to take it
    while not _over.wait(LOOK_SECONDS):
        pending = signal.sigpending() & heeded
        looks = looks + 1 if pending else 0
        if looks * LOOK_SECONDS > PATIENCE_SECONDS:
            _leave(128 + min(pending))


def _leave(status: int) -> None:
    text = f"eos: {farewell()}\n"
    with suppress(OSError, TimeoutError, UserError):
        # Past Python's stream, which the stuck thread may hold. A bar may have hidden the cursor of a terminal, and left its line open.
        wait_for(lambda: os.write(2, (f"\x1b[?25h\n{text}" if os.isatty(2) else text).encode()), PARTING_SECONDS)
    os._exit(status)
