"""A run directory as whoever reads it sees it: the only thing the engine and its viewers share.

    RUN/ spec.toml  provenance.json  columns.json  identity.json  trust.json (where the spec names code of the user's own)
         metrics.f64   append-only float64 rows; column 0 is the step, strictly increasing; NaN where there is no value
         events.jsonl  one event a line        state.json  status, step, rate, heartbeat
         inbox/        one command a file      checkpoints/*.npz      curves/*.npz    snapshots/*.safetensors
         engine.log      lock, lock.held

A torn last row is ignored: the next writer cuts it. What state.json acknowledges survives a loss of power: the rows up to its `recorded`
are on the disk before it is.
"""

import json
import os
import re
import socket
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from engine.base.errors import UserError
from engine.base.files import listed, open_plain, read_plain, read_text, size_of
from engine.base.text import harmless
from engine.record import lock
from engine.record.columns import Column, column_index, layout
from engine.record.identity import identity
from engine.record.lock import SILENT_AFTER_SECONDS, Folder, Holder
from engine.record.messages import AnyEvent, Identifier, Refused, decode_event, shown_harmless
from engine.record.safe_read import read_columns
from engine.spec import MAX_SPEC_BYTES, RunSpec, load_recorded

STEP_FILE, DENSITY_FILE = (re.compile(rf"{kind}-[0-9]{{1,15}}\.npz") for kind in ("step", "density"))
SNAPSHOT_FILE = re.compile(r"step-[0-9]{1,15}\.safetensors")
STARTING_SECONDS = 10.0
"""For an engine to take the lock of a run that was just made."""
MAX_STATE_BYTES = 64 * 1024
MAX_FACTS_BYTES = 1024 * 1024
"""Of provenance.json and columns.json."""
MAX_JOURNAL_BYTES = 64 * 1024 * 1024
"""Of events.jsonl, read at once; and of the events in it, in all."""
MAX_PASSED_BYTES = 256 * 1024 * 1024
"""Of events.jsonl, events or not."""
MAX_EVENT_BYTES = 64 * 1024
"""Of one event; a line that is longer is passed over, and nothing behind it lost."""
MAX_ROWS_BYTES = 16 * 1024**3
"""Of rows, read at once."""
FORMAT = 2
"""Of run directories that this version writes; it reads all up to that. Those without a number are of the first: what a checkpoint of it
lacks is made up for (`leaves`), and its rows are of the columns that its columns.json lists, as in every other."""
RISK = "where it still works, both write one record until it notices, at its next sign of life, that it was taken over"
"""What --force may do."""
Status = Literal["starting", "running", "paused", "finished"]
Liveness = Literal["starting", "running", "paused", "finished", "crashed", "silent", "unknown"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, in a sentence."""

    kind: Literal["completed", "stopped", "edge_never_reached", "second_eigenvalue", "diverged", "loss_goal",
                  "eigensolver_failed", "failed"]
    step: int
    text: str


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU of the engine's host."""

    name: str = ""
    load: float | None = None
    """Per cent of the time in which it computed; None where that is not told."""
    memory: int = 0
    memory_total: int = 0
    """Bytes."""


class HostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine takes of its host, over the last seconds."""

    cpu: float
    """Of the engine's process, in per cent of one core."""
    host_cpu: float
    """Of everything, in per cent of all cores."""
    cores: int
    memory: int
    """Bytes of the engine's process."""
    host_memory: int
    host_memory_total: int
    """Bytes taken by everything, and bytes there are."""
    gpus: tuple[Gpu, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The last word of an engine on itself and its run."""

    status: Status = "starting"
    phase: str = "starting"
    """`starting`, `approach`, `edge`, `gradient descent` or `phase portrait`."""
    step: int = 0
    rate: float = 0.0
    """Steps a second, over the last seconds."""
    task: str = ""
    """What it is at between two steps, in words; empty while it takes them."""
    task_seconds: float = 0.0
    """For how long it has been at that."""
    task_estimate: float = 0.0
    """How long the same took before on this host; 0 where that is not known."""
    load: HostLoad | None = None
    """None before the first reading, and of an engine of an earlier version."""
    learning_rate: float = 0.0
    device: str = ""
    precision: str = ""
    pid: int = 0
    host: str = ""
    heartbeat: float = 0.0
    """Seconds since 1970."""
    seconds: float = 0.0
    """Seconds the engine has worked on this run, pauses left out."""
    outcome: Outcome | None = None
    format: int = 1
    """Of the run directory: the store writes its own."""
    layout: str = ""
    """That of the rows (`columns.layout`), as the store writes it."""
    refused: bool = False
    """The problem could not be built from what was given, so that nothing was computed."""
    engine: Identifier = ""
    """The id of the engine, as the store writes it."""
    recorded: int = -1
    """The last step whose row is on the disk for good: it was flushed to it before this was written."""


class _Format(msgspec.Struct):
    """Of a state that is none for this version, the format that it says it is of."""

    format: int = 1


class RunFolder:
    """A run directory as far as its small files tell of it: who is at work on it, and how far."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name

    @property
    def shown(self) -> Path:
        """Its path as a user knows it."""
        return self.path

    @property
    def id(self) -> str:
        """The random number that this run has and no other, wherever the folder lies; empty for a run of an older version."""
        return identity(self.path)

    def state(self) -> State:
        """The engine's last word; a fresh `State` where it has said nothing yet, or nothing that this version knows."""
        try:
            state = _decoded(read_plain(self.path / "state.json", MAX_STATE_BYTES))
            outcome = None if state.outcome is None else shown_harmless(state.outcome)
            load = state.load and msgspec.structs.replace(state.load, gpus=tuple(map(shown_harmless, state.load.gpus)))
            return msgspec.structs.replace(shown_harmless(state), outcome=outcome, load=load)
        except (OSError, ValueError, RecursionError):  # ValueError: msgspec's own errors, and text that is not UTF-8
            return State()

    def liveness(self, state: State | None = None) -> Liveness:
        """Its status; `crashed` when the engine is gone without a word, `silent` when one on another host has not spoken for a while,
        `unknown` where no clock of the run's file system tells how long. The state is read where it is not given.
        """
        state = state or self.state()
        if state.status == "finished":
            return "finished"
        held, holder = lock.is_held(self.path), lock.holder_of(self.path)
        if held and (holder is None or not holder.system or holder.shares_system):
            return state.status
        if held is False and self._is_of_here(state, holder):
            age = lock.age(self.path / "spec.toml") if state.pid == 0 else None
            return state.status if age is not None and abs(age) < STARTING_SECONDS else "crashed"
        if (age := self.unchanged_for()) is None:
            return state.status if held else "unknown"
        return state.status if abs(age) < SILENT_AFTER_SECONDS else "silent"  # from the future is no sign of life either

    def _is_of_here(self, state: State, holder: Holder | None) -> bool:
        """Whether its engine was on this system, where a lock says all there is."""
        if holder is None or not holder.system:
            return state.host in ("", socket.gethostname())
        return holder.shares_system or lock.is_gone(self.path, holder) is True

    def unchanged_for(self) -> float | None:
        """Seconds since its engine last wrote its state, or since it was made, by the clock of its file system; None where that cannot be
        known, as on a file system that is read-only.
        """
        path = self.path / "state.json"
        return lock.age(path if os.path.lexists(path) else self.path / "spec.toml")

    def is_locked(self) -> bool:
        """Whether an engine holds the run, as far as can be known from this host."""
        return lock.is_held(self.path) is True

    def engine(self, state: State | None = None) -> str:
        """The id of the engine that holds it, or held it last; empty where there was none, or one of an earlier version."""
        holder = lock.holder_of(self.path)
        return holder.engine if holder is not None else (state or self.state()).engine


class Run(RunFolder):
    """A run directory, as a reader sees it. Raises UserError when `path` is not one."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        if not (self.path / "spec.toml").is_file() or not (self.path / "columns.json").is_file():
            raise UserError(f"{self.path}: not a run directory (no spec.toml and columns.json); `eos ls` lists the runs")
        self.name = self.path.name
        self.known_id = self.id
        """Its id when it was opened."""
        state, where = self.state(), str(self.path / "state.json")
        refuse_newer(state.format, where)
        self.spec: RunSpec = load_recorded(read_text(self.path / "spec.toml", MAX_SPEC_BYTES), str(self.path / "spec.toml"))
        self.columns: tuple[Column, ...] = read_columns(self.path / "columns.json", MAX_FACTS_BYTES)
        self.index, self.layout = column_index(self.columns), layout(self.columns)
        refuse_other_layout(state.layout, self.layout, where)

    def held(self) -> "HeldRun":
        """The same run by its folder's descriptor, whatever becomes of the name. Raises UserError where the folder is not there, or another
        run's.
        """
        try:
            run = HeldRun(self)
        except OSError as error:
            raise UserError(f"run {self.name}: not there any more ({error.strerror})") from None
        if self.known_id and run.id != self.known_id:
            raise UserError(f"run {self.name}: another run lies at {self.path} by now; give the command again if it is for that one")
        return run

    def need(self) -> None:
        """Raise UserError where the folder is not there any more."""
        if not self.path.is_dir():
            raise UserError(f"run {self.name}: not there any more: {self.shown} was deleted or moved away; `eos ls` lists the runs")

    def row_count(self) -> int:
        """Whole rows on disk; a torn last one does not count. Raises UserError where the record is no plain file, or the run is gone."""
        path = self.path / "metrics.f64"
        try:
            size = size_of(path)
        except OSError as error:
            raise _unreadable(self.shown / path.name, error) from None
        if size is None:
            self.need()
        return (size or 0) // (8 * len(self.columns))

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` as a float64 array (rows, columns), read now. Raises UserError where the record cannot be read, or the run
        is gone."""
        width, path = len(self.columns), self.path / "metrics.f64"
        stop = self.row_count() if stop is None else min(stop, self.row_count())
        if stop <= start:
            return np.empty((0, width))
        if 8 * width * (stop - start) > MAX_ROWS_BYTES:
            raise MemoryError
        try:
            with open_plain(path) as handle:
                flat = np.fromfile(handle, "<f8", (stop - start) * width, offset=8 * width * start)
        except FileNotFoundError:
            return np.empty((0, width))
        except OSError as error:
            raise _unreadable(self.shown / path.name, error) from None
        return flat[: len(flat) // width * width].reshape(-1, width)

    def table(self) -> dict[str, np.ndarray]:
        """Every column by name."""
        rows = self.rows()
        return {column.name: rows[:, k] for k, column in enumerate(self.columns)}

    def events(self) -> list[AnyEvent]:
        """The journal from its beginning."""
        return EventTail(self).rest()

    def provenance(self) -> dict[str, Any]:
        """Versions, device, data and dtypes, as the engine wrote them at its start."""
        try:
            facts = json.loads(read_plain(self.path / "provenance.json", MAX_FACTS_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) and isinstance(facts.get("problem", {}), dict) else {}

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return self._samples_in("checkpoints")

    def curves(self) -> list[Path]:
        """Files of sampled curves, oldest first."""
        return self._samples_in("curves")

    def snapshots(self) -> list[Path]:
        """Files of snapshots, oldest first."""
        return self._samples_in("snapshots", SNAPSHOT_FILE)

    def _samples_in(self, folder: str, kind: re.Pattern[str] = STEP_FILE) -> list[Path]:
        return [self.path / folder / name for name in sorted(listed(self.path / folder, kind), key=step_of)]

    def samples(self) -> dict[int, Path]:
        """The curves by the step that each was sampled at."""
        return {step_of(path.name): path for path in self.curves()}

    def densities(self) -> dict[int, Path]:
        """The files of spectral densities by the step that each was read at, oldest first."""
        return {step_of(path.name): path for path in self._samples_in("curves", DENSITY_FILE)}


class HeldRun(Run):
    """A run whose folder is held by its descriptor: `path` leads there, `folder.shown` is the path that a user knows."""

    def __init__(self, run: Run):
        self.name, self.spec, self.columns, self.index, self.layout = run.name, run.spec, run.columns, run.index, run.layout
        self.folder, self.known_id = Folder(run.path), run.known_id
        self.path = self.folder.path

    @property
    def shown(self) -> Path:
        """Its path as a user knows it."""
        return self.folder.shown

    @property
    def displaced(self) -> str:
        """What has become of its name, in words; empty where it is still that of this run."""
        shown = self.folder.shown
        if not self.folder.is_moved:
            return "" if identity(shown) in ("", self.known_id) or not self.known_id else f"{shown} holds another run now"
        if not os.path.lexists(shown):
            return f"{shown} was moved away"
        return f"{shown} is another folder now: this run was moved away"


def _decoded(written: bytes) -> State:
    """The state in a file; of one that a later version gave words of its own, the format alone. Raises ValueError, RecursionError."""
    try:
        return msgspec.json.decode(written, type=State)
    except msgspec.ValidationError:
        return State(format=msgspec.json.decode(written, type=_Format).format)


def step_of(name: str) -> int:
    """The step in the name of a checkpoint, a sample, a density or a snapshot."""
    return int(name.rpartition("-")[2].partition(".")[0])


def doubt(run: RunFolder, liveness: Liveness) -> str:
    """Why nobody here can say whether an engine is at work on a run that is silent, or whose state is unknown."""
    holder, state = lock.holder_of(run.path), run.state()
    host = harmless(holder.host if holder is not None else "") or state.host or "another host"
    if liveness == "unknown":
        why = "for no file can be written beside it to read the folder's clock"
        return f"run {run.name}: whether its engine on {host} is at work cannot be told, {why}"
    age = run.unchanged_for()
    since = f"has changed nothing for {age:.0f} s" if age is not None and age >= 0 else "has left a state from the future"
    return f"run {run.name}: its engine on {host} is silent but may still be at work (it {since})"


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror}); the run has no record")


def refuse_newer(format: int, where: str) -> None:
    """Raise UserError where a run directory is of a format that this version does not know."""
    if format > FORMAT:
        raise UserError(f"{where}: written by a later eos, in format {format}, and this one reads formats up to {FORMAT}; upgrade it")


def refuse_other_layout(said: str, listed: str, where: str) -> None:
    """Raise UserError where a file of a run was written beside rows of other columns than its columns.json lists."""
    if said not in ("", listed):
        raise UserError(
            f"{where}: written beside rows of the columns {said[:16]!a}, and columns.json lists {listed!a}: files of two runs, or one of "
            "them was changed; bring back the columns.json that belongs to the rows"
        )


class RowTail:
    """Rows as they arrive."""

    def __init__(self, run: Run, start: int = 0):
        self.run, self.next = run, start

    def poll(self, most: int | None = None) -> np.ndarray:
        """The rows that came since the last call, (rows, columns), the oldest `most` of them."""
        rows = self.run.rows(self.next, None if most is None else self.next + most)
        self.next += len(rows)
        return rows


class EventTail:
    """Events as they arrive."""

    def __init__(self, run: Run):
        self.path, self.offset = run.path / "events.jsonl", 0
        self._passing = False
        """Whether the line at the offset is one that is too long to be an event, and is passed over to its end."""
        self._taken = 0
        """Bytes of events so far."""
        self._over = False
        """Whether nothing more is read."""

    def poll(self) -> list[AnyEvent]:
        """The events that came since the last call; a line still being written waits for the next."""
        try:
            with open_plain(self.path) as handle:
                if os.fstat(handle.fileno()).st_size <= self.offset or self._over:
                    return []
                handle.seek(self.offset)
                body = handle.read(MAX_JOURNAL_BYTES)
        except OSError:
            return []
        whole = body.rfind(b"\n") + 1
        lines = body[:whole].split(b"\n")[:-1]
        passed = lines[1:] if self._passing else lines
        self._passing = self._passing and not whole
        if len(body) - whole > MAX_EVENT_BYTES:
            whole, self._passing = len(body), True
        self.offset += whole
        events = [line for line in passed if len(line) <= MAX_EVENT_BYTES]
        self._taken += sum(map(len, events))
        decoded = [event for event in map(decode_event, events) if event is not None]
        self._over = self._taken > MAX_JOURNAL_BYTES or self.offset > MAX_PASSED_BYTES
        return [*decoded, _end_of_reading(decoded)] if self._over else decoded

    def rest(self) -> list[AnyEvent]:
        """Every event up to the end of the journal as it is now."""
        events, before = self.poll(), -1
        while self.offset > before:
            before = self.offset
            events += self.poll()
        return events


def _end_of_reading(events: list[AnyEvent]) -> AnyEvent:
    """An event in place of all those that are not read."""
    text = (f"events.jsonl holds more than {MAX_JOURNAL_BYTES // 1024**2} MB of events, or {MAX_PASSED_BYTES // 1024**2} MB in all; what "
            "comes after is not read")
    return Refused(step=events[-1].step if events else 0, text=text)
