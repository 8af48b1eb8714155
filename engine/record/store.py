"""A run directory: the only thing the engine and its viewers share.

    RUN/ spec.toml  provenance.json  columns.json  identity.json  trust.json (where the spec names code of the user's own)
         metrics.f64   append-only float64 rows; column 0 is the step, strictly increasing; NaN where there is no value
         events.jsonl  one event a line        state.json  status, step, rate, heartbeat
         inbox/        one command a file      checkpoints/*.npz      curves/*.npz    engine.log      lock, lock.held

`Run` reads, `Writer` writes; there is one writer at a time, and it holds the lock. A torn last row is ignored by readers
and cut by the next writer. Rows a resumed run computes again are not written twice. A directory is made under a hidden name and renamed
when it is whole and on the disk, and is renamed to a hidden name before it is removed.

What state.json acknowledges survives a loss of power: the rows up to its `recorded` are on the disk before it is.
"""

import errno
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import numpy as np

from engine.base.atomic import replace_with, replaced
from engine.base.errors import UserError
from engine.base.files import append_plain, listed, open_plain, read_plain, read_text, resolved, size_of
from engine.base.folders import data, environment
from engine.base.text import harmless, print_line
from engine.record import lock
from engine.record.columns import Column, arranged, columns_for, layout, places
from engine.record.identity import give_identity, identity
from engine.record.lock import SILENT_AFTER_SECONDS, DisplacedError, Folder, HeldError, Holder
from engine.record.messages import AnyEvent, Event, Identifier, Refused, decode_event, encode, shown_harmless
from engine.record.safe_read import read_arrays, read_columns, refuse_links
from engine.record.trust import RUN_FILES, grant
from engine.spec import MAX_SPEC_BYTES, RunSpec, load_spec_text, to_toml

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
STEP_FILE = re.compile(r"step-[0-9]{1,15}\.npz")
HEARTBEAT_SECONDS = 1.0
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
RESERVE_BYTES = 32 * 1024
"""Held for the last words of an engine on a disk that is full: its state, an event, a line in its log."""
FORMAT = 2
"""Of run directories that this version writes; it reads all up to that. Those without a number are of the first: what a checkpoint of it
lacks is made up for (`leaves`), and its rows are of the columns that its columns.json lists, as in every other."""
BLOCK = 4096
"""Rows looked at together."""
LAST_STEP = "record.last_step"
"""In a checkpoint: the last step of the record that it continues."""
MARKS = ARRAYS_FORMAT, ARRAYS_LAYOUT = "record.format", "record.layout"
"""In a file of arrays: the format of the run directory, and the layout of its rows."""
IDENTITY = "identity."
"""Prefix of what a checkpoint says of the loss."""
ROWS = ("state.pending",)
"""Leaves of a checkpoint that are rows of the record."""
OWED = "record.owed"
"""In a checkpoint: the events that are told once it is on the disk, as bytes of JSON lines."""
CHANGED_RATE = "fork.learning_rate"
"""In the first checkpoint of a fork: the learning rate to go on with, where that is another than the state's."""

Status = Literal["starting", "running", "paused", "finished"]
Liveness = Literal["starting", "running", "paused", "finished", "crashed", "silent", "unknown"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, in a sentence."""

    kind: Literal["completed", "stopped", "edge_never_reached", "second_eigenvalue", "diverged", "loss_goal",
                  "eigensolver_failed", "failed"]
    step: int
    text: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine last said of itself."""

    status: Status = "starting"
    phase: str = "starting"
    """`starting`, `approach`, `edge`, `gradient descent` or `phase portrait`."""
    step: int = 0
    rate: float = 0.0
    """Steps a second, over the last seconds."""
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


def home() -> Path:
    """The folder of all runs: `$EOS_HOME`, else the platform's user data folder."""
    return data()


class Run:
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
        self.spec: RunSpec = load_spec_text(read_text(self.path / "spec.toml", MAX_SPEC_BYTES), str(self.path / "spec.toml"))
        self.columns: tuple[Column, ...] = read_columns(self.path / "columns.json", MAX_FACTS_BYTES)
        self.index, self.layout = places(self.columns), layout(self.columns)
        refuse_other_layout(state.layout, self.layout, where)

    @property
    def shown(self) -> Path:
        """Its path as a user knows it."""
        return self.path

    @property
    def id(self) -> str:
        """What tells it from any other run, wherever it lies; empty for one of an older version."""
        return identity(self.path)

    def state(self) -> State:
        """The engine's last word; a fresh `State` where it has said nothing yet."""
        try:
            state = msgspec.json.decode(read_plain(self.path / "state.json", MAX_STATE_BYTES), type=State)
            outcome = None if state.outcome is None else shown_harmless(state.outcome)
            return msgspec.structs.replace(shown_harmless(state), outcome=outcome)
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
        told, as on a file system that is read-only.
        """
        path = self.path / "state.json"
        return lock.age(path if os.path.lexists(path) else self.path / "spec.toml")

    def is_locked(self) -> bool:
        """Whether an engine holds the run, as far as can be told from this host."""
        return lock.is_held(self.path) is True

    def engine(self, state: State | None = None) -> str:
        """The id of the engine that holds it, or held it last; empty where there was none, or one of an earlier version."""
        holder = lock.holder_of(self.path)
        return holder.engine if holder is not None else (state or self.state()).engine

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

    def row_count(self) -> int:
        """Whole rows on disk; a torn last one does not count. Raises UserError where the record is no plain file."""
        path = self.path / "metrics.f64"
        try:
            return (size_of(path) or 0) // (8 * len(self.columns))
        except OSError as error:
            raise _unreadable(self.shown / path.name, error) from None

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` as a float64 array (rows, columns), read now. Raises UserError where the record cannot be read."""
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

    def _samples_in(self, folder: str) -> list[Path]:
        return [self.path / folder / name for name in sorted(listed(self.path / folder, STEP_FILE), key=step_of)]

    def samples(self) -> dict[int, Path]:
        """The curves by the step that each was sampled at."""
        return {step_of(path.name): path for path in self.curves()}


def step_of(name: str) -> int:
    """The step in the name of a checkpoint or a sample."""
    return int(name.removeprefix("step-").removesuffix(".npz"))


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


@contextmanager
def _by_name(run: HeldRun) -> Iterator[None]:
    """The system's errors tell of files by the path that a user knows."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename and run.folder.words(error.filename)
        raise


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
        """Every event that there is now."""
        found, before = self.poll(), -1
        while self.offset > before:
            before = self.offset
            found += self.poll()
        return found


def _end_of_reading(events: list[AnyEvent]) -> AnyEvent:
    """What is said in place of the events behind those that are read."""
    text = (f"events.jsonl holds more than {MAX_JOURNAL_BYTES // 1024**2} MB of events, or {MAX_PASSED_BYTES // 1024**2} MB in all; what "
            "comes after is not read")
    return Refused(step=events[-1].step if events else 0, text=text)


def create(spec: RunSpec, name: str | None = None, where: Path | None = None, fill: Callable[[Run], None] | None = None) -> Run:
    """A new run directory for the specification. Raises UserError when the name is taken, not allowed or not writable.

    It is made under a hidden name, where `fill` may put more into it, and has its own when it is whole and on the disk. Code that the
    specification names is trusted from here on: whoever has it from elsewhere asks first (`engine.record.trust`).
    """
    where = where or home()
    wanted = name if name is not None else f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not NAME.match(wanted):
        raise UserError(f"run name {wanted[:100]!a}: use up to 80 letters, digits, '.', '_' and '-', beginning with a letter or digit")
    environment()  # what would keep its engine from starting is told before anything is made
    draft = where / _hidden(MAKING)
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        clear(where)
        _free(where, wanted, numbered=name is None)  # before anything is made
        draft.mkdir(mode=0o700)
        (draft / "inbox").mkdir(mode=0o700)
        (draft / "checkpoints").mkdir(mode=0o700)
        (draft / "spec.toml").write_text(to_toml(spec), encoding="utf-8")
        (draft / "metrics.f64").touch()
        (draft / "events.jsonl").touch()
        columns = [column._asdict() for column in columns_for(spec)]
        (draft / "columns.json").write_text(json.dumps(columns, ensure_ascii=False, indent=1), encoding="utf-8")
        give_identity(draft)
        made = Run(draft)
        if fill is not None:
            fill(made)
        unsigned = grant(draft, made.spec)
        for part in (draft / "spec.toml", draft / "columns.json", draft):
            sync(part)
        path = _named(draft, where, wanted, numbered=name is None)
        sync(where)
    except OSError as error:
        raise UserError(f"{where}: a run cannot be created there ({error.strerror}); set EOS_HOME to a folder you can write") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # not there any more, where all went well
    run = Run(path)
    if unsigned:
        print_line(f"run {run.name}: to go on with it will take --trust, for it could not be signed ({unsigned})", error=True)
    return run


def sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk. Raises OSError where it cannot."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # a folder, on file systems that write no names on demand
            raise
    finally:
        os.close(descriptor)


def _free(where: Path, wanted: str, numbered: bool) -> Path:
    """A path of that name which nothing has; when `numbered`, the first free one of name, name-2, name-3, …"""
    for attempt in range(1, 1000 if numbered else 2):
        path = where / (wanted if attempt == 1 else f"{wanted}-{attempt}")
        if not os.path.lexists(path):
            return path
    raise UserError(f"run {wanted}: exists already in {where}; choose another --name, or `eos rm {wanted}`")


def _named(draft: Path, where: Path, wanted: str, numbered: bool) -> Path:
    """Give a folder its name. Of several that want the same one, one has it."""
    while True:
        path = _free(where, wanted, numbered)
        try:
            draft.rename(path)
            return path
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise


# -- what is not there yet, or not any more

MAKING, REMOVING = "making", "removing"
HIDDEN = re.compile(rf"\.eos-({MAKING}|{REMOVING})-([0-9a-f]{{8}})-([0-9]{{1,10}})-[0-9a-f]{{16}}(?:-(.*))?\Z", re.DOTALL)
"""Names of folders that are being made or removed: by a process of which system, and of which run."""
ABANDONED_SECONDS = 3600.0
"""Unchanged, after which a folder that a process of another host was making is nobody's."""
PARTS = (*RUN_FILES, "spec.toml", "curves", "engine.log", lock.LOCK, lock.HELD)
"""What there may be in a run directory, but for hidden files."""


def _hidden(purpose: str, name: str = "") -> str:
    return f".eos-{purpose}-{lock.system_mark()}-{os.getpid()}-{os.urandom(8).hex()}{name and f'-{name}'}"


def _leftovers(where: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders that a process which is gone was making or removing: path, purpose, and the run's name where it is known."""
    with suppress(OSError):
        for entry in os.scandir(where):
            if (given := HIDDEN.match(entry.name)) and entry.is_dir(follow_symlinks=False):
                purpose, system, pid, name = given[1], given[2], int(given[3]), given[4] or ""
                here = system == lock.system_mark()
                left = not lock.is_running(pid) if here else (lock.age(Path(entry.path)) or 0.0) > ABANDONED_SECONDS
                if left or purpose == REMOVING:  # two may well remove one thing
                    yield Path(entry.path), purpose, name


def clear(where: Path) -> list[str]:
    """Finish what was begun in a folder of runs and is nobody's any more. Returns the names of the runs that are removed by this."""
    finished = []
    for path, purpose, name in _leftovers(where):
        if purpose == MAKING:
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(UserError, OSError):  # an engine has it: it ends by itself, and the next look finishes this
            held = lock.take(path, name) if (path / "spec.toml").exists() else None
            try:
                shutil.rmtree(path)
                finished.append(name)
            finally:
                if held is not None:
                    held.close()
    return finished


def half_made(path: Path) -> bool:
    """Whether a folder is a run that was never made whole, or not removed to its end: nothing in it but what a run directory holds."""
    if path.is_symlink() or not _is_folder(str(path)) or ((path / "spec.toml").is_file() and (path / "columns.json").is_file()):
        return False
    with suppress(OSError):
        return all(name in PARTS or name.startswith(".") for name in os.listdir(path))
    return False


def all_runs(where: Path | None = None) -> list[Run]:
    """Every readable run, oldest first."""
    found = []
    with suppress(FileNotFoundError):
        for entry in os.scandir(where or home()):
            if entry.is_dir(follow_symlinks=False) and NAME.match(entry.name):
                with suppress(UserError, OSError):  # OSError: removed while we look
                    run = Run(entry.path)
                    found.append(((run.path / "spec.toml").stat().st_mtime_ns, run.name, run))
    return [run for _, _, run in sorted(found, key=lambda made: made[:2])]


def resolve(name: str | None = None, where: Path | None = None) -> Run:
    """The run of this name, the run directory at this path, or the latest run. Raises UserError when there is none."""
    where = where or home()
    if name is None:
        runs = all_runs(where)
        if not runs:
            raise UserError(f"{where}: no runs yet; `eos demo` makes one")
        return runs[-1]
    if NAME.match(name):
        if not (where / name).is_symlink() and (where / name).is_dir():
            return Run(where / name)
        if not _is_folder(name):
            raise UserError(f"run {name}: not found in {where}; `eos ls` lists the runs")
    if not _is_folder(name):
        raise UserError(f"{name[:200]!a}: neither a run's name nor a run directory; `eos ls` lists the runs")
    path = Path(name)
    return Run(path.resolve() if path.name in ("", "..") else path)  # "." has no name to call it by


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # longer than a file's name may be
        return False


RISK = "where it still works, both write one record until it notices, at its next sign of life, that it was taken over"
"""What --force may do."""


TAKEN = "another engine was given the run, with --force or by a sweep"


def doubt(run: Run, liveness: Liveness) -> str:
    """Why nobody here can say whether an engine is at work on a run that is silent, or whose state is unknown."""
    holder, state = lock.holder_of(run.path), run.state()
    host = harmless(holder.host if holder is not None else "") or state.host or "another host"
    if liveness == "unknown":
        why = "for no file can be written beside it to read the folder's clock"
        return f"run {run.name}: whether its engine on {host} is at work cannot be told, {why}"
    age = run.unchanged_for()
    since = f"has changed nothing for {age:.0f} s" if age is not None and age >= 0 else "has left a state from the future"
    return f"run {run.name}: its engine on {host} is silent but may still be at work (it {since})"


def remove(run: Run, force: bool = False) -> None:
    """Delete a run directory. Raises UserError while an engine holds it, or may hold it: with `force` only where one is heard of.

    It is renamed first, so that half of it is never taken for a run, and then locked.
    """
    path = resolved(run.path)
    liveness = run.liveness()
    if liveness in ("starting", "running", "paused"):
        raise UserError(f"run {run.name}: still {liveness}; `eos stop {run.name}` first")
    if liveness in ("silent", "unknown") and not force:
        raise UserError(f"{doubt(run, liveness)}; `eos rm {run.name} --force` deletes it all the same, and what that engine does from then "
                        "on is lost")
    clear(path.parent)
    _delete(path, run.name, force)


def _delete(path: Path, name: str, force: bool = False) -> None:
    away = path.with_name(_hidden(REMOVING, path.name)[:255])
    try:
        path.rename(away)
    except FileNotFoundError:
        raise UserError(f"{path}: not there any more") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be deleted ({error.strerror})") from None
    try:
        if force:
            lock.break_lock(away)
        held = lock.take(away, name)
    except (HeldError, OSError) as error:
        with suppress(OSError):
            away.rename(path)
        if isinstance(error, HeldError):
            raise UserError(f"run {name}: an engine has just begun on it; `eos stop {name}` first") from None
        raise UserError(f"{path}: cannot be deleted ({error.strerror})") from None
    try:
        shutil.rmtree(away)
    except OSError as error:
        raise UserError(f"{path}: cannot be deleted to its end ({error.strerror}); the next `eos rm` goes on with {away.name}") from None
    finally:
        held.close()


def discard(name: str, force: bool = False, where: Path | None = None) -> str:
    """Remove the run of this name, or at this path; also one that was never made whole, or that an earlier removal has left half of.
    Returns its name. Raises UserError where there is none, and as `remove`.
    """
    where, finished = where or home(), list[str]()
    named = NAME.match(name) and (os.path.lexists(where / name) or not _is_folder(name))
    path = where / name if named else Path(name)
    with suppress(OSError, ValueError):  # a name that is none
        finished = clear(resolved(path).parent)
    if half_made(path):
        if lock.is_held(path):
            raise UserError(f"{path}: an engine is at work on it, though files of it are gone; end that process first")
        _delete(resolved(path), path.name, force)
        return path.name
    if path.name in finished and not os.path.lexists(path):
        return path.name
    run = resolve(name, where)
    remove(run, force)
    return run.name


class Writer:
    """The one process that writes a run. Use as a context manager: it holds the lock, and the folder by its descriptor."""

    def __init__(self, run: Run, age: float = 0.0):
        """`age` is that of the process, in seconds, where it began to be the engine of this run."""
        refuse_links(run.path)
        self.run = run.held()
        with suppress(OSError):  # copies leave empty folders out; what keeps it from being made is told to who leaves a command
            (self.run.path / "inbox").mkdir(mode=0o700, exist_ok=True)
        self.width = len(run.columns)
        with _by_name(self.run):
            self._lock = lock.take(self.run.path, run.name)
        self.engine = self._lock.holder.engine
        """The id of this engine: commands carry it."""
        self.began = self._lock.taken - age
        """When this engine began, by the clock of the run's file system."""
        self.cut = ""
        """What was taken off the end of the record, in words: rows that no engine wrote there."""
        self._flushing, self._flushed, self._failed = threading.Lock(), -2, ""
        self._taken = ""
        """Why the lock is not this engine's any more, in words."""
        with _by_name(self.run), ExitStack() as opened:  # whatever comes up before all is open gives the lock back
            opened.callback(self._lock.close)
            self._cut_torn_tail()
            self.last_step = self._last_step()
            self._reserve = self.run.path / ".reserve"
            opened.callback(self.make_room)
            with suppress(OSError):  # then its last words are lost on a full disk, and nothing else
                replace_with(self._reserve, b"\0" * RESERVE_BYTES, durable=True)
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
        self._lock.close()

    def make_room(self) -> None:
        """Give back what was held on the disk for the last words; what lies there now may be another engine's."""
        with suppress(OSError):
            if self._lock.is_mine:
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

        It is told of such a failure once, and takes the rows for written after that: so no row is written after it.
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
        replace_with(self.run.path / "state.json", msgspec.json.encode(whole), durable=True)

    def _need_mine(self) -> None:
        """Look whose the lock is before anything is written over what another engine may have written."""
        if not self._taken and not self._lock.is_mine:
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
        replace_with(self.run.path / "provenance.json", json.dumps(whole, indent=1, ensure_ascii=False).encode(), durable=True)

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
        _save(self.run.path / "curves", step, arrays | _marks(self.run))

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


def load_checkpoint(run: Run) -> Iterator[tuple[Path, dict[str, np.ndarray] | None]]:
    """Checkpoints from the newest back: the path and its arrays, or None where the file cannot be read."""
    for path in reversed(run.checkpoints()):
        yield path, read_arrays(path)


def save_checkpoint(run: Run, step: int, arrays: dict[str, np.ndarray]) -> Path:
    """Write the arrays as the run's checkpoint at this step."""
    return _save(run.path / "checkpoints", step, arrays | _marks(run))


def _marks(run: Run) -> dict[str, np.ndarray]:
    return {ARRAYS_FORMAT: np.array(FORMAT), ARRAYS_LAYOUT: np.array(run.layout)}


def refuse_foreign(arrays: dict[str, np.ndarray], run: Run) -> None:
    """Raise ValueError where a checkpoint is of a later format, or holds rows of other columns than the run's."""
    said = str(arrays.get(ARRAYS_LAYOUT, ""))
    if int(arrays.get(ARRAYS_FORMAT, 1)) > FORMAT:
        raise ValueError(f"written by a later version of eos, in format {arrays[ARRAYS_FORMAT]}")
    if said not in ("", run.layout):
        raise ValueError(f"it continues rows of the columns {said[:16]!a}, and columns.json lists {run.layout!a}")
    for name in ROWS:
        if name in arrays and arrays[name].shape[1:] != (len(run.columns),):
            raise ValueError(f"{name} is of shape {arrays[name].shape}, and the run has {len(run.columns)} columns")


def rearranged(arrays: dict[str, np.ndarray], run: Run, other: Run) -> dict[str, np.ndarray]:
    """A checkpoint of a run with the rows in it as another run has them."""
    return arrays | {name: arranged(arrays[name], run.index, other.index) for name in ROWS if name in arrays}


def _save(folder: Path, step: int, arrays: dict[str, np.ndarray]) -> Path:
    """The arrays as `step-N.npz` in the folder: whole and on the disk, or not there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    final = folder / f"step-{step:09d}.npz"
    with replaced(final, nested=True, durable=True) as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    sync(folder)  # before an older one is removed
    return final
