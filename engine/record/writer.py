"""The one process that writes a run. It holds the lock; there is one writer at a time.

A torn last row, and rows at the end that no engine wrote there, are cut. Rows a resumed run computes again are not written twice.
"""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from engine.base import atomic
from engine.base.errors import UserError
from engine.base.files import append_plain, open_plain
from engine.record import lock
from engine.record.arrays import LAST_STEP, save_checkpoint, save_curve, save_density
from engine.record.lock import DisplacedError
from engine.record.messages import Event, encode
from engine.record.reader import FORMAT, MAX_EVENT_BYTES, HeldRun, Run, State
from engine.record.safe_read import refuse_links
from engine.record.snapshots import save_snapshot

RESERVE_BYTES = 32 * 1024
"""Held for the last words of an engine on a disk that is full: its state, an event, a line in its log."""
BLOCK = 4096
"""Rows looked at together."""
TAKEN = "another engine was given the run, with --force or by a sweep"


class Writer:
    """The one process that writes a run. Use as a context manager: it holds the lock, and the folder by its descriptor."""

    def __init__(self, run: Run, age: float = 0.0):
        """`age` is that of the process, in seconds, where it began to be the engine of this run."""
        refuse_links(run.path)
        self.run = run.held()
        with suppress(OSError):  # copies leave empty folders out; what keeps it from being made is reported to who leaves a command
            (self.run.path / "inbox").mkdir(mode=0o700, exist_ok=True)
        self.width = len(run.columns)
        with _by_name(self.run):
            self.lock = lock.take(self.run.path, run.name)
        self.engine = self.lock.holder.engine
        """The id of this engine: commands carry it."""
        self.began = self.lock.taken - age
        """When this engine began, by the clock of the run's file system."""
        self.cut = ""
        """What was taken off the end of the record, in words: rows that no engine wrote there."""
        self._flushing, self._flushed, self._failed = threading.Lock(), -2, ""
        self._taken = ""
        """Why the lock is not this engine's any more, in words."""
        with _by_name(self.run), ExitStack() as opened:  # whatever comes up before all is open gives the lock back
            opened.callback(self.lock.close)
            self._cut_torn_tail()
            self.last_step = self._last_step()
            self._reserve = self.run.path / ".reserve"
            opened.callback(self.make_room)
            with suppress(OSError):  # then its last words are lost on a full disk, and nothing else
                atomic.replace_with(self._reserve, b"\0" * RESERVE_BYTES, durable=True)
            self._metrics: IO[bytes] = append_plain(self.run.path / "metrics.f64")
            opened.callback(self._metrics.close)
            self._events: IO[bytes] = append_plain(self.run.path / "events.jsonl")
            opened.pop_all()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.make_room()
        self._metrics.close()
        self._events.close()
        self.lock.close()

    def make_room(self) -> None:
        """Give back what was held on the disk for the last words; what lies there now may be another engine's."""
        with suppress(OSError):
            if self.lock.is_mine:
                self._reserve.unlink(missing_ok=True)

    def append(self, rows: np.ndarray) -> None:
        """Append rows (rows, columns); those at steps already on disk are skipped. Raises OSError when there is no space."""
        rows = np.atleast_2d(np.asarray(rows, "<f8"))
        rows = rows[rows[:, 0] > self.last_step]
        if not len(rows):
            return
        self._need_lock()
        view = memoryview(rows.tobytes())
        while view:  # a write may be short when the disk fills; the next one then raises
            view = view[self._metrics.write(view):]
        self.last_step = int(rows[-1, 0])

    def event(self, event: Event) -> None:
        """Append one event."""
        self._events.write(encode(event) + b"\n")

    def flush(self) -> int:
        """Have the system write the rows to the disk, and return the last step that is there for good. Raises OSError where it cannot.

        The system reports such a failure once, and takes the rows for written after that: so no row is written after it.
        """
        with self._flushing:
            last = self.last_step
            if last != self._flushed:
                try:
                    os.fsync(self._metrics.fileno())
                except OSError as error:
                    self._failed = error.strerror or str(error)
                    raise
                self._flushed = last
            return last

    def state(self, state: State) -> None:
        """Replace the state, atomically; what it says of the record is on the disk before. Raises DisplacedError where the lock was taken
        away: another engine may be at work.
        """
        self._need_mine()
        whole = msgspec.structs.replace(state, format=FORMAT, layout=self.run.layout, engine=self.engine, recorded=self.flush())
        atomic.replace_with(self.run.path / "state.json", msgspec.json.encode(whole), durable=True)

    def _need_mine(self) -> None:
        """Look whose the lock is before anything is written over what another engine may have written."""
        if not self._taken and not self.lock.is_mine:
            self._taken = self.displaced or TAKEN
        self._need_lock()

    def _need_lock(self) -> None:
        if self._taken:
            ends = "this one ends, and what it computed since its last row is not written"
            raise DisplacedError(f"run {self.run.name}: {self._taken}; {ends}")
        if self._failed:
            raise OSError(errno.EIO, self._failed, str(self.run.path / "metrics.f64"))

    def shown(self, path: object) -> str:
        """A path in the run directory as a user knows it."""
        return self.run.folder.words(path)

    @property
    def displaced(self) -> str:
        """What has become of the folder's name, in words; empty where it is still that of this run."""
        return self.run.displaced

    def provenance(self, facts: dict[str, Any]) -> None:
        """Replace the provenance, atomically."""
        whole = {"format": FORMAT, "layout": self.run.layout} | facts
        atomic.replace_with(self.run.path / "provenance.json", json.dumps(whole, indent=1, ensure_ascii=False).encode(), durable=True)

    def checkpoint(self, step: int, arrays: dict[str, np.ndarray], keep: int) -> Path:
        """Write the arrays as the checkpoint at this step and drop the oldest beyond `keep`.

        The rows go to the disk first: a checkpoint never stands beyond the record it continues. Raises DisplacedError as `state` does.
        """
        self._need_mine()
        self.flush()
        os.fsync(self._events.fileno())
        final = save_checkpoint(self.run, step, arrays | {LAST_STEP: np.array(self.last_step)})
        for old in self.run.checkpoints()[:-keep]:
            old.unlink(missing_ok=True)
        return self.run.folder.shown / "checkpoints" / final.name

    def curve(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the curves sampled at this step."""
        save_curve(self.run, step, arrays)

    def snapshot(self, step: int, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Write the snapshot of this step, in place of one that an engine before this one wrote there."""
        self._need_lock()
        save_snapshot(self.run, step, arrays, facts)

    def density(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the spectral density read at this step."""
        save_density(self.run, step, arrays)

    def _last_step(self) -> int:
        """The step of the last row. Rows at the end that are not one step after the other are cut off: a loss of power leaves them, and so
        does whoever writes into the record; a step from the future would have every row up to it left out as written already.
        """
        count, path = self.run.row_count(), self.run.shown / "metrics.f64"
        first = float(self.run.rows(0, 1)[0, 0]) if count else 0.0
        if not (first.is_integer() and 0 <= first < 2**53):
            raise UserError(f"{path}: its first row is at step {first}, so not written by eos; the run cannot go on")
        kept = self._consecutive(first, count)
        if kept < count:
            last = float(self.run.rows(count - 1, count)[0, 0])
            if kept < 2 < count:
                raise UserError(
                    f"{path}: {count} rows of {self.width} columns go from step {first:g} to step {last:g}: these are not the columns of "
                    "columns.json; the run cannot go on"
                )
            due = first + count - 1
            self.cut = f"rows cut off the end of the record: {count - kept}; the last said step {last:g}, where {due:g} was due"
            with append_plain(self.run.path / "metrics.f64") as record:
                os.truncate(record.fileno(), kept * 8 * self.width)
        return int(first) + kept - 1 if count else -1

    def _consecutive(self, first: float, count: int) -> int:
        """How many rows there are up to the last one that is at the step due there."""
        for stop in range(count, 0, -BLOCK):
            start = max(stop - BLOCK, 0)
            due = np.flatnonzero(self.run.rows(start, stop)[:, 0] == first + np.arange(start, stop))
            if len(due):
                return start + int(due[-1]) + 1
        return 0

    def _cut_torn_tail(self) -> None:
        with append_plain(self.run.path / "metrics.f64") as record:
            os.truncate(record.fileno(), self.run.row_count() * 8 * self.width)
        with append_plain(self.run.path / "events.jsonl") as journal:
            os.truncate(journal.fileno(), _whole_lines(self.run.path / "events.jsonl"))


@contextmanager
def _by_name(run: HeldRun) -> Iterator[None]:
    """The system's errors tell of files by the path that a user knows."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename and run.folder.words(error.filename)
        raise


def _whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with open_plain(path) as handle:
        end = handle.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - MAX_EVENT_BYTES, 0)
            handle.seek(start)
            last = handle.read(end - start).rfind(b"\n")
            if last >= 0:
                return start + last + 1
            end = start
    return 0
