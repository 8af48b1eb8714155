"""A run directory: the only thing the engine and its viewers share.

    RUN/ spec.toml  provenance.json  columns.json  identity.json  trust.json (where the spec names code of the user's own)
         metrics.f64   append-only float64 rows; column 0 is the step, strictly increasing; NaN where there is no value
         events.jsonl  one event a line        state.json  status, step, rate, heartbeat
         inbox/        one command a file      checkpoints/*.npz      curves/*.npz    engine.log      lock

`Run` reads, `Writer` writes; there is one writer at a time, and it holds the lock. A torn last row is ignored by readers
and cut by the next writer. Rows a resumed run computes again are not written twice.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import numpy as np
import platformdirs

from engine.columns import Column, arranged, columns_for, layout, places
from engine.control import AnyEvent, Event, decode_event, encode, shown_harmless
from engine.drafts import replaced
from engine.errors import UserError
from engine.identity import give_identity, identity
from engine.printed import print_line
from engine.spec import MAX_SPEC_BYTES, RunSpec, load_spec_text, to_toml
from engine.trust import grant
from engine.untrusted import open_plain, read_arrays, read_columns, read_plain, read_text, refuse_links

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
HEARTBEAT_SECONDS = 1.0
SILENT_AFTER_SECONDS = 30.0
MAX_STATE_BYTES = 64 * 1024
MAX_FACTS_BYTES = 1024 * 1024
"""Of provenance.json and columns.json."""
MAX_JOURNAL_BYTES = 64 * 1024 * 1024
"""Of events.jsonl, read at once."""
RESERVE_BYTES = 32 * 1024
"""Held for the last words of an engine on a disk that is full: its state, an event, a line in its log."""
FORMAT = 2
"""Of run directories that this version writes; it reads all up to that. Those without a number are of the first: what a checkpoint of it
lacks is made up for (`leaves`), and its rows are of the columns that its columns.json lists, as in every other."""
LAST_STEP = "record.last_step"
"""In a checkpoint: the last step of the record that it continues."""
MARKS = ARRAYS_FORMAT, ARRAYS_LAYOUT = "record.format", "record.layout"
"""In a file of arrays: the format of the run directory, and the layout of its rows."""
IDENTITY = "identity."
"""Prefix of what a checkpoint says of the loss."""
ROWS = ("state.pending",)
"""Leaves of a checkpoint that are rows of the record."""

Status = Literal["starting", "running", "paused", "finished"]
Liveness = Literal["starting", "running", "paused", "finished", "crashed", "silent"]


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


def home() -> Path:
    """The folder of all runs: `$EOS_HOME`, else the platform's user data folder."""
    chosen = os.environ.get("EOS_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("eos"))


class Run:
    """A run directory, as a reader sees it. Raises UserError when `path` is not one."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        if not (self.path / "spec.toml").is_file() or not (self.path / "columns.json").is_file():
            raise UserError(f"{self.path}: not a run directory (no spec.toml and columns.json); `eos ls` lists the runs")
        self.name = self.path.name
        state, where = self.state(), str(self.path / "state.json")
        refuse_newer(state.format, where)
        self.spec: RunSpec = load_spec_text(read_text(self.path / "spec.toml", MAX_SPEC_BYTES), str(self.path / "spec.toml"))
        self.columns: tuple[Column, ...] = read_columns(self.path / "columns.json", MAX_FACTS_BYTES)
        self.index, self.layout = places(self.columns), layout(self.columns)
        refuse_other_layout(state.layout, self.layout, where)

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
        """Its status, or `crashed` when the engine is gone without a word, `silent` when another host has not spoken. The
        state is read where it is not given.
        """
        state = state or self.state()
        if state.status == "finished":
            return "finished"
        if state.host in ("", socket.gethostname()):
            started_lately = state.pid == 0 and time.time() - self.path.stat().st_mtime < 10
            return state.status if started_lately or self.is_locked() else "crashed"
        return state.status if time.time() - state.heartbeat < SILENT_AFTER_SECONDS else "silent"

    def is_locked(self) -> bool:
        """Whether an engine on this host holds the run."""
        try:
            with open(self.path / "lock", "rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def row_count(self) -> int:
        """Whole rows on disk; a torn last one does not count."""
        try:
            return (self.path / "metrics.f64").stat().st_size // (8 * len(self.columns))
        except FileNotFoundError:
            return 0

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` as a float64 array (rows, columns), read now."""
        width = len(self.columns)
        stop = self.row_count() if stop is None else min(stop, self.row_count())
        if stop <= start:
            return np.empty((0, width))
        with open_plain(self.path / "metrics.f64") as handle:
            flat = np.fromfile(handle, "<f8", (stop - start) * width, offset=8 * width * start)
        return flat[: len(flat) // width * width].reshape(-1, width)

    def table(self) -> dict[str, np.ndarray]:
        """Every column by name."""
        rows = self.rows()
        return {column.name: rows[:, k] for k, column in enumerate(self.columns)}

    def events(self) -> list[AnyEvent]:
        """The journal from its beginning."""
        return EventTail(self).poll()

    def provenance(self) -> dict[str, Any]:
        """Versions, device, data and dtypes, as the engine wrote them at its start."""
        try:
            facts = json.loads(read_plain(self.path / "provenance.json", MAX_FACTS_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) and isinstance(facts.get("problem", {}), dict) else {}

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*.npz"))

    def curves(self) -> list[Path]:
        """Files of sampled curves, oldest first."""
        return sorted((self.path / "curves").glob("step-*.npz"))

    def samples(self) -> dict[int, Path]:
        """The same by the step that each was sampled at, as far as the names tell."""
        named = {path.stem.removeprefix("step-"): path for path in self.curves()}
        return {int(step): path for step, path in named.items() if step.isdecimal()}


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

    def poll(self) -> list[AnyEvent]:
        """The events that came since the last call; a line still being written waits for the next."""
        try:
            with open_plain(self.path) as handle:
                if os.fstat(handle.fileno()).st_size <= self.offset:
                    return []
                handle.seek(self.offset)
                body = handle.read(MAX_JOURNAL_BYTES)
        except OSError:
            return []
        whole = body.rfind(b"\n") + 1
        self.offset += whole
        decoded = (decode_event(line) for line in body[:whole].splitlines())
        return [event for event in decoded if event is not None]


def create(spec: RunSpec, name: str | None = None, where: Path | None = None) -> Run:
    """A new run directory for the specification. Raises UserError when the name is taken, not allowed or not writable.

    Code that the specification names is trusted from here on: whoever has it from elsewhere asks first (`engine.trust`).
    """
    where = where or home()
    wanted = name if name is not None else f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not NAME.match(wanted):
        raise UserError(f"run name {wanted[:100]!a}: use up to 80 letters, digits, '.', '_' and '-', beginning with a letter or digit")
    path = None
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = _claim(where, wanted, numbered=name is None)
        (path / "inbox").mkdir(mode=0o700)
        (path / "checkpoints").mkdir(mode=0o700)
        (path / "spec.toml").write_text(to_toml(spec), encoding="utf-8")
        (path / "metrics.f64").touch()
        (path / "events.jsonl").touch()
        columns = [column._asdict() for column in columns_for(spec)]
        (path / "columns.json").write_text(json.dumps(columns, ensure_ascii=False, indent=1), encoding="utf-8")
        give_identity(path)
    except OSError as error:
        if path is not None:  # half a run would keep its name, and could not be removed by it
            shutil.rmtree(path, ignore_errors=True)
        raise UserError(f"{where}: a run cannot be created there ({error.strerror}); set EOS_HOME to a folder you can write") from None
    run = Run(path)
    if unsigned := grant(run.path, run.spec):
        print_line(f"run {run.name}: to go on with it will take --trust, for it could not be signed ({unsigned})", error=True)
    return run


def _claim(where: Path, wanted: str, numbered: bool) -> Path:
    """Make the folder of that name; when `numbered`, the first free one of name, name-2, name-3, …"""
    for attempt in range(1, 1000):
        path = where / (wanted if attempt == 1 else f"{wanted}-{attempt}")
        try:
            path.mkdir(mode=0o700)
            return path
        except FileExistsError:
            if not numbered:
                break
    raise UserError(f"run {wanted}: exists already in {where}; choose another --name, or `eos rm {wanted}`")


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
    return Run(name)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # longer than a file's name may be
        return False


def remove(run: Run, force: bool = False) -> None:
    """Delete a run directory. Raises UserError while an engine holds it, or may hold it: `force` deletes a silent one."""
    liveness = run.liveness()
    if liveness in ("starting", "running", "paused"):
        raise UserError(f"run {run.name}: still {liveness}; `eos stop {run.name}` first")
    if liveness == "silent" and not force:
        raise UserError(f"run {run.name}: its engine on {run.state().host} is silent but may still be at work; `eos rm {run.name} --force`")
    try:
        shutil.rmtree(run.path)
    except OSError as error:
        raise UserError(f"{run.path}: cannot be deleted ({error.strerror})") from None


class Writer:
    """The one process that writes a run. Use as a context manager: it holds the lock."""

    def __init__(self, run: Run):
        refuse_links(run.path)
        with suppress(OSError):  # copies leave empty folders out; what keeps it from being made is told to who leaves a command
            (run.path / "inbox").mkdir(mode=0o700, exist_ok=True)
        self.run = run
        self.width = len(run.columns)
        self._lock = self._acquire()
        try:
            self._cut_torn_tail()
            self.last_step = self._last_step()
        except BaseException:
            self._lock.close()
            raise
        self._reserve = run.path / ".reserve"
        with suppress(OSError):  # then its last words are lost on a full disk, and nothing else
            self._reserve.write_bytes(b"\0" * RESERVE_BYTES)
        self._metrics: IO[bytes] = open(run.path / "metrics.f64", "ab", buffering=0)
        self._events: IO[bytes] = open(run.path / "events.jsonl", "ab", buffering=0)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.make_room()
        self._metrics.close()
        self._events.close()
        self._lock.close()

    def make_room(self) -> None:
        """Give back what was held on the disk for the last words."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def append(self, rows: np.ndarray) -> None:
        """Append rows (rows, columns); those at steps already on disk are skipped. Raises OSError when there is no space."""
        rows = np.atleast_2d(np.asarray(rows, "<f8"))
        rows = rows[rows[:, 0] > self.last_step]
        if not len(rows):
            return
        view = memoryview(rows.tobytes())
        while view:  # a write may be short when the disk fills; the next one then raises
            view = view[self._metrics.write(view):]
        self.last_step = int(rows[-1, 0])

    def event(self, event: Event) -> None:
        """Append one event."""
        self._events.write(encode(event) + b"\n")

    def state(self, state: State) -> None:
        """Replace the state, atomically."""
        whole = msgspec.structs.replace(state, format=FORMAT, layout=self.run.layout)
        _replace(self.run.path / "state.json", msgspec.json.encode(whole))

    def provenance(self, facts: dict[str, Any]) -> None:
        """Replace the provenance, atomically."""
        whole = {"format": FORMAT, "layout": self.run.layout} | facts
        _replace(self.run.path / "provenance.json", json.dumps(whole, indent=1, ensure_ascii=False).encode())

    def checkpoint(self, step: int, arrays: dict[str, np.ndarray], keep: int) -> Path:
        """Write the arrays as the checkpoint at this step and drop the oldest beyond `keep`.

        The rows go to the disk first: a checkpoint never stands beyond the record it continues.
        """
        os.fsync(self._metrics.fileno())
        final = save_checkpoint(self.run, step, arrays | {LAST_STEP: np.array(self.last_step)})
        for old in self.run.checkpoints()[:-keep]:
            old.unlink(missing_ok=True)
        return final

    def curve(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the curves sampled at this step."""
        _save(self.run.path / "curves", step, arrays | _marks(self.run))

    def _acquire(self) -> IO[bytes]:
        handle = open(self.run.path / "lock", "ab")
        for _ in range(20):  # a reader asking for liveness holds it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                time.sleep(0.05)
        handle.close()
        raise UserError(f"run {self.run.name}: another engine is at work on it; `eos attach {self.run.name}` shows it")

    def _last_step(self) -> int:
        count = self.run.row_count()
        path = self.run.path / "metrics.f64"
        first, last = (float(self.run.rows(k, k + 1)[0, 0]) for k in (0, count - 1)) if count else (-1.0, -1.0)
        if not (last.is_integer() and -1 <= last < 2**53):
            raise UserError(f"{path}: its last row is at step {last}, so not written by eos; the run cannot go on")
        if not first.is_integer() or last - first < count - 1:
            raise UserError(
                f"{path}: {count} rows of {self.width} columns go from step {first:g} to step {last:g}: these are not the columns of "
                "columns.json; the run cannot go on"
            )
        return int(last)

    def _cut_torn_tail(self) -> None:
        os.truncate(self.run.path / "metrics.f64", self.run.row_count() * 8 * self.width)
        journal = self.run.path / "events.jsonl"
        body = journal.read_bytes()
        os.truncate(journal, body.rfind(b"\n") + 1)


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
    with replaced(final) as draft, open(draft, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
        handle.flush()
        os.fsync(handle.fileno())
    return final


def _replace(path: Path, body: bytes) -> None:
    with replaced(path) as draft:
        draft.write_bytes(body)
