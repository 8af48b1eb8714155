"""Who is at work on a run, as far as can be known: a lock, a folder that is held by its descriptor, and the age of a file.

The lock is flock on the file `lock`, which says who holds it: an id made for that engine, its host, the start of that host's system, and
its process. Where a file system has no flock, a file `lock.held` of the same words is the lock. A lock says enough among processes of one
system. Of one on another host nothing is sure but how long a file of the run is unchanged, and that is read off the clock of the file
system alone: a probe file is written beside it, and the two times are of one clock, whatever the clocks of the hosts say.
"""

import errno
import fcntl
import os
import socket
import stat
import tempfile
import time
import weakref
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec

from engine.base.errors import HELD as HELD_STATUS
from engine.base.errors import UserError
from engine.base.text import harmless
from engine.record.safe_read import open_plain, read_plain

LOCK, HELD, STATE = "lock", "lock.held", "state.json"
REMOVING = ".eos-removing-"
"""Begins the name of a run directory that is being removed."""
FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
SILENT_AFTER_SECONDS = 30.0
"""Without a word, after which an engine on another host may be gone: it writes its state every second."""
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPERM)
"""What a file system without flock says."""
CLOSED = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""What says nothing of a lock, one way or the other."""
MAX_BYTES = 4096
TRIES, TRY_SECONDS = 20, 0.05
"""A reader that asks who holds a lock holds it for an instant itself."""
PROBE_SECONDS = 5.0
"""For which one reading of a file system's clock is carried on."""
WRITE_SECONDS = 10.0
"""That a lock file may be empty, between its making and its first words."""


class Holder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine that holds a run, or held it last."""

    engine: str = ""
    """A random id: commands carry it."""
    host: str = ""
    system: str = ""
    """The id of the host's system since it was started: containers on one host share it."""
    space: str = ""
    """Within it, the number space of processes."""
    pid: int = 0
    began: str = ""
    """When the process began, as its system counts: a later process may get the same number."""
    folder: int = 0
    """The number of the run directory in its file system: a copy has another."""

    @property
    def shares_system(self) -> bool:
        """Whether it runs on this very system, so that flock tells of it."""
        return bool(self.system) and self.system == this_process().system

    @property
    def is_alive(self) -> bool | None:
        """Whether its process is there; None where that cannot be known from here."""
        if not (self.shares_system and self.space == this_process().space):
            return None
        return is_running(self.pid) and self.began in ("", _began(self.pid))


class HeldError(UserError):
    """Another engine is at work on the run."""

    status = HELD_STATUS


class DisplacedError(UserError):
    """The lock of this engine was taken away: another one may be at work on the run."""

    status = HELD_STATUS


@cache
def this_process() -> Holder:
    """This process, but for its number."""
    system = space = ""
    with suppress(OSError):
        system = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return Holder(host=socket.gethostname(), system=system, space=space)


def _began(pid: int) -> str:
    """When a process began, in the counting of its system; empty where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def process_age() -> float:
    """Seconds since this process began; 0 where the system does not say."""
    with suppress(OSError, IndexError, ValueError):
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - int(_began(os.getpid())) / os.sysconf("SC_CLK_TCK"), 0.0)
    return 0.0


def engine_of(folder: Path) -> Holder:
    """This process, as an engine of the run with a new id."""
    pid, number = os.getpid(), folder.stat().st_ino
    return msgspec.structs.replace(
        this_process(), engine=os.urandom(16).hex(), host=socket.gethostname(), pid=pid, began=_began(pid), folder=number
    )


def system_mark() -> str:
    """Eight letters for this system and its number space of processes."""
    here = this_process()
    return f"{zlib.crc32(f'{here.host} {here.system} {here.space}'.encode()):08x}"


def is_running(pid: int) -> bool:
    """Whether there is a process of this number here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


# -- a folder


class Folder:
    """A run directory, held by its descriptor: whatever becomes of its name, this is still the one that was opened."""

    def __init__(self, path: Path):
        self.shown = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        through = Path(f"/proc/self/fd/{self._descriptor}")
        self._through = through if self.is_at(through) else None  # elsewhere than on Linux there is no such way

    @property
    def path(self) -> Path:
        """A path by which it is reached. Raises OSError where that is only its name, and another folder has it."""
        if self._through is not None:
            return self._through
        if not self.is_at(self.shown):
            raise OSError(errno.ESTALE, "another folder lies there now", str(self.shown))
        return self.shown

    @property
    def is_moved(self) -> bool:
        """Whether another folder has its name, or none."""
        return not self.is_at(self.shown)

    @property
    def is_gone(self) -> bool:
        """Whether it was removed, or is just being removed."""
        if os.fstat(self._descriptor).st_nlink == 0:
            return True
        inside = self._through or self.shown
        if self._through is not None and self._through.readlink().name.startswith(REMOVING):
            return True
        return not any(os.path.lexists(inside / name) for name in ("spec.toml", "columns.json", "metrics.f64"))

    def words(self, path: object) -> str:
        """A path below it as a user knows it."""
        text = str(path)
        return text.replace(str(self._through), str(self.shown), 1) if self._through is not None else text

    def is_at(self, path: Path) -> bool:
        """Whether the folder lies at this path."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False


def named(folder: Path) -> Path:
    """The path of a folder that is given by its descriptor, as it is now; any other as it is."""
    with suppress(OSError):
        return folder.readlink() if str(folder).startswith("/proc/self/fd/") else folder
    return folder


# -- a lock


class Lock:
    """The lock of a run, held by this process until it is released."""

    def __init__(self, folder: Path, holder: Holder, descriptor: int, by_flock: bool):
        self.folder, self.holder, self.by_flock, self._descriptor = folder, holder, by_flock, descriptor
        self.taken = os.fstat(descriptor).st_mtime
        """When, by the clock of the file system: what the file says was written then."""

    @property
    def is_mine(self) -> bool:
        """Whether this process has the lock still. A file system that does not answer says nothing against that."""
        name = LOCK if self.by_flock else HELD
        try:
            if self.by_flock and not os.path.samestat((self.folder / name).stat(), os.fstat(self._descriptor)):
                return False
            said = _read(self.folder / name)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return said is None or said.engine == self.holder.engine

    def close(self) -> None:
        """Give the lock back."""
        if self._descriptor < 0:
            return
        if not self.by_flock:
            with suppress(OSError):
                _discard(self.folder / HELD, self.holder)
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)  # nobody holds it any more
        os.close(self._descriptor)
        self._descriptor = -1


def take(folder: Path, name: str) -> Lock:
    """Take the lock of a run directory, shown by this name. Raises HeldError while another engine has it, or may have it; OSError."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(TRY_SECONDS)
        with suppress(FileExistsError):  # another one came first to a lock without flock: what it says is looked at
            if lock := _try(folder, name, engine_of(folder)):
                return lock
    raise HeldError(_held_words(name))


def _try(folder: Path, name: str, mine: Holder) -> Lock | None:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | FLAGS, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(folder / LOCK))
        by_flock = _flock(descriptor, fcntl.LOCK_EX)
        if by_flock is False or not _is_there(descriptor, folder / LOCK):  # taken away between the two calls
            return None
        _need_gone(folder, HELD, name)
        if by_flock:
            _write(descriptor, mine)
            lock, descriptor = Lock(folder, mine, descriptor, True), -1
            return lock
        _need_gone(folder, LOCK, name)
        held = os.open(folder / HELD, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o666)
        _write(held, mine)
        return Lock(folder, mine, held, False)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _held_words(name: str) -> str:
    return f"run {name}: another engine is at work on it; `eos attach {name}` shows it"


def _flock(descriptor: int, kind: int) -> bool | None:
    """Whether flock gives the lock; None where there is none to be had. Raises OSError."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in NO_FLOCK:
            return None
        raise


def _is_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _need_gone(folder: Path, file: str, name: str) -> None:
    """See that the engine in a lock file is gone, and its file with it. Raises HeldError where it is not, or where nobody here can tell."""
    try:
        holder = _read(folder / file)
    except FileNotFoundError:
        return
    if holder is None:
        if file == HELD and not _was_left(folder / HELD):
            raise HeldError(_held_words(name))
        if file == HELD:
            _discard(folder / HELD, None)
        return
    gone = is_gone(folder, holder)
    if gone is False:
        raise HeldError(_held_words(name))
    if gone is None:
        raise HeldError(
            f"run {name}: an engine on {harmless(holder.host)} has it, by its file {file}, and may be at work; `eos resume {name} --force` "
            "takes it over where that one is gone for sure"
        )
    if file == HELD:
        _discard(folder / HELD, holder)


def is_gone(folder: Path, holder: Holder) -> bool | None:
    """Whether an engine is gone; None where that cannot be known from here. A host that bears this one's name is this one, started anew,
    unless the run has changed just now. What lies in a copy of its run says nothing of it.
    """
    if _is_copied(folder, holder):
        return True
    if (alive := holder.is_alive) is not None:
        return not alive
    if holder.host == socket.gethostname() and not holder.shares_system:
        for_long = age(folder / STATE)
        if for_long is not None and abs(for_long) >= SILENT_AFTER_SECONDS:
            return True
    return None


def _is_copied(folder: Path, holder: Holder) -> bool:
    with suppress(OSError):
        return holder.folder not in (0, folder.stat().st_ino)
    return False


def _was_left(path: Path) -> bool:
    """Whether an empty lock file is that of an engine that died as it made it."""
    for_long = age(path)
    return for_long is not None and for_long > WRITE_SECONDS


def holder_of(folder: Path) -> Holder | None:
    """Who holds the run, or was killed with it; None where that is not written, as by an earlier version."""
    for name in (HELD, LOCK):
        with suppress(OSError):
            if holder := _read(folder / name):
                return holder
    return None


def is_held(folder: Path) -> bool | None:
    """Whether an engine holds the run; None where a lock file is of another host, or of a process that cannot be seen from here."""
    try:
        holder = _read(folder / HELD)
        if holder is None:
            return not _was_left(folder / HELD)
        return False if _is_copied(folder, holder) else holder.is_alive
    except FileNotFoundError:
        pass
    except OSError:
        return None
    try:
        with open_plain(folder / LOCK) as handle:
            return _flock(handle.fileno(), fcntl.LOCK_SH) is False
    except OSError as error:
        return None if error.errno in CLOSED else False  # no lock, or none that an engine made


def break_lock(folder: Path) -> None:
    """Take a lock away from whoever has it: it notices at its next sign of life, and stops. Raises OSError."""
    for name in (HELD, LOCK):
        with suppress(FileNotFoundError):
            (folder / name).unlink()


def _discard(path: Path, of: Holder | None) -> None:
    """Remove the lock file of this engine: of several that try, one does, and none removes that of another."""
    away = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    with suppress(FileNotFoundError):
        path.rename(away)
        if _read(away) == of:
            away.unlink()
        else:
            away.rename(path)


def _read(path: Path) -> Holder | None:
    """The holder that a lock file names; None where the file is empty or cannot be read as one. Raises OSError."""
    try:
        return msgspec.json.decode(read_plain(path, MAX_BYTES), type=Holder)
    except (ValueError, RecursionError):
        return None


def _write(descriptor: int, holder: Holder) -> None:
    """Write the words of a lock in one call, so that nobody reads half of them. A full disk leaves the file empty, which is no reason
    not to run.
    """
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)


def has_flock(folder: Path) -> bool:
    """Whether the file system of a folder has flock. Raises OSError where nothing can be written there."""
    with tempfile.TemporaryFile(dir=folder) as handle:
        return _flock(handle.fileno(), fcntl.LOCK_EX) is not None


# -- the age of a file

clocks: dict[int, tuple[float, float]] = {}
"""By device: the time there, and this process's own at that moment."""
closed_folders: dict[tuple[int, str], float] = {}
"""By device and folder, where nothing could be written: when that was tried."""


def age(path: Path) -> float | None:
    """Seconds since a file was written, by its file system's own clock; None where nothing can be written there, or there is no file."""
    try:
        entry = path.lstat()
        if stat.S_ISREG(entry.st_mode):
            with open_plain(path) as handle:  # a shared file system looks anew at what is opened
                entry = os.fstat(handle.fileno())
    except OSError:
        return None
    now = _clock(entry.st_dev, path.parent)
    return None if now is None else now - entry.st_mtime


def _clock(device: int, folder: Path) -> float | None:
    """The time on a file system: that of a file which was written there just now."""
    known = clocks.get(device)
    moment = time.monotonic()
    if known is not None and moment - known[1] < PROBE_SECONDS:
        return known[0] + moment - known[1]
    tried = closed_folders.get((device, str(folder)))
    if tried is not None and moment - tried < PROBE_SECONDS:
        return None
    for there in (folder, folder.parent):
        with suppress(OSError), tempfile.TemporaryFile(dir=there, buffering=0) as probe:
            probe.write(b"\0")
            os.fsync(probe.fileno())
            entry = os.fstat(probe.fileno())
            if entry.st_dev == device:
                clocks[device] = (entry.st_mtime, time.monotonic())
                return entry.st_mtime
    closed_folders[device, str(folder)] = moment
    return None
