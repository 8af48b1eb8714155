"""What a run has to say, as it goes to the disk: rows with the seconds they took, curves, and every event once."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import numpy as np

from engine.phases.context import Progress
from engine.record import messages
from engine.record.messages import AnyEvent
from engine.record.writer import Writer


class Recorder:
    """The record of a run at work."""

    def __init__(self, writer: Writer):
        self.run, self.writer = writer.run, writer
        self._seconds_at = writer.run.index.get("cost.seconds")
        self._last_row = time.monotonic()
        self._repeated: set[AnyEvent] = set()
        """Events of steps that a killed engine took and this one takes again."""
        self._moved = ""
        """What has become of the run's folder, in the words of the last event on it."""

    def progress(self, progress: Progress) -> np.ndarray:
        """Record what some steps gave; their rows, (rows, columns)."""
        block = np.reshape(progress.rows, (-1, len(self.run.columns)))
        if len(block) and self._seconds_at is not None:
            now = time.monotonic()
            block[:, self._seconds_at] = (now - self._last_row) / len(block)
            self._last_row = now
        self.writer.append(block)
        for step, arrays in progress.curves:
            self.writer.curve(step, arrays)
        for taken in progress.snapshots:
            self.writer.snapshot(*taken)
        self.emit_new(progress.events)
        return block

    def restart_clock(self) -> None:
        """Count the seconds of the next row from here."""
        self._last_row = time.monotonic()

    def emit(self, events: Sequence[AnyEvent]) -> None:
        """Write events down."""
        for event in events:
            self.writer.event(event)

    def emit_new(self, events: Sequence[AnyEvent]) -> None:
        """Write down the events that an engine before this one has not written."""
        self.emit([event for event in events if timeless(event) not in self._repeated])

    def repeat_from(self, step: int) -> None:
        """Steps are taken again from here on: what the journal has of them is not written twice."""
        self._repeated = {timeless(event) for event in self.run.events() if event.step >= step}

    def note_move(self, step: int) -> None:
        """Say so where the run's folder has lost its name: it is written all the same."""
        moved = self.writer.displaced
        if moved and moved != self._moved:
            self.emit([messages.FolderMoved(step=step, text=f"{moved}; this engine goes on in the folder it began in")])
        self._moved = moved


def timeless(event: AnyEvent) -> AnyEvent:
    """The event without its time, as a repeated step gives it again."""
    return msgspec.structs.replace(event, at=0.0)


def log(text: str) -> None:
    """A line in engine.log, where there is room for it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
