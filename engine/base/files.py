"""The one door to files that somebody else may have put there: a run directory of unknown origin, and what a user names.

Only plain files are opened, and none is waited for: a pipe would keep a reader for ever, and a device has no end. Inside a run nothing
may be a link, neither the file nor the folder it lies in; the run's own folder may be reached through one, and what a user names too.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from itertools import islice
from pathlib import Path
from typing import IO

from engine.base.errors import UserError

MOST_LISTED = 200_000
"""Entries of a folder that are looked at."""
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
NOT_PLAIN = (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO)
"""Errors of what is there and no plain file."""
REASONS = {errno.ELOOP: "a link, which is not followed", errno.EMLINK: "a link, which is not followed", errno.ENXIO: "not a plain file"}
"""What the system says of things that are no plain files, in words that tell which."""


def open_plain(path: Path, follow: bool = False, nested: bool = False) -> BufferedReader:
    """A plain file open for reading; `follow` goes through a link, and `nested` says that its folder lies in a run, so that this may be
    no link either. Raises OSError for anything else.
    """
    return BufferedReader(FileIO(descriptor_of(path, os.O_RDONLY, follow, nested), "rb"))


def append_plain(path: Path, create: bool = False) -> FileIO:
    """A plain file open for appending, unbuffered, so that a write may be short; with `create` it is made where there is none. Raises
    OSError for anything else.
    """
    flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT if create else 0)
    return FileIO(descriptor_of(path, flags, False, False), "ab")


def create_plain(path: Path, nested: bool = False) -> IO[bytes]:
    """A new file open for writing. Raises OSError where there is anything of this name."""
    return os.fdopen(descriptor_of(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, False, nested), "wb")


def descriptor_of(path: Path, flags: int, follow: bool, nested: bool) -> int:
    """A file of one of the ways above, opened; all of them come through here."""
    try:
        with _folder(path.parent) if nested else _anywhere() as folder:
            opened = os.open(
                path.name if nested else path, flags | FLAGS | (0 if follow else os.O_NOFOLLOW), 0o666, dir_fd=folder
            )  # fmt: skip
    except OSError as error:
        raise _explained(error, path) from None
    kind = os.fstat(opened).st_mode
    if stat.S_ISREG(kind):
        return opened
    os.close(opened)
    raise OSError(errno.EISDIR, "a folder", str(path)) if stat.S_ISDIR(kind) else OSError(errno.EINVAL, "not a plain file", str(path))


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """A folder that is no link, open."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | FLAGS)
    except NotADirectoryError:
        number = errno.ELOOP if path.is_symlink() else errno.ENOTDIR
        raise OSError(number, REASONS.get(number, os.strerror(number)), str(path)) from None
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def _anywhere() -> Iterator[None]:
    yield None


def _explained(error: OSError, path: Path) -> OSError:
    """The error with the whole path, and with a reason that names the kind of thing that lies there."""
    number = error.errno or 0
    return OSError(number, REASONS.get(number, error.strerror), error.filename if number == errno.ENOTDIR else str(path))


def read_plain(path: Path, limit: int, follow: bool = False, nested: bool = False) -> bytes:
    """The bytes of a plain file. Raises OSError for any other, and for one larger than `limit`."""
    with open_plain(path, follow, nested) as handle:
        body = handle.read(limit + 1)
    if len(body) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit // 1024} kB", str(path))
    return body


def read_text(path: Path, limit: int, follow: bool = False) -> str:
    """The text of a plain file of at most `limit` bytes. Raises UserError where it is no such file."""
    try:
        return read_plain(path, limit, follow).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text, so not written by eos") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def resolved(path: str | Path) -> Path:
    """The path without links; one that leads in a circle as it is, where `Path.resolve` of Python 3.11 raises RuntimeError."""
    return Path(os.path.realpath(path))


def size_of(path: Path) -> int | None:
    """The bytes of a plain file; None where there is nothing of this name. Raises OSError for anything but a plain file."""
    try:
        entry = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(entry.st_mode):
        why = REASONS[errno.ELOOP] if stat.S_ISLNK(entry.st_mode) else "not a plain file"
        raise OSError(errno.EINVAL, why, str(path))
    return entry.st_size


def listed(folder: Path, pattern: re.Pattern[str], odd: bool = False) -> list[str]:
    """The names in a folder that match the pattern whole: of plain files, with `odd` of anything. None where the folder is a link, or no
    folder.
    """
    try:
        with _folder(folder) as opened, os.scandir(opened) as entries:
            return [
                entry.name for entry in islice(entries, MOST_LISTED)
                if pattern.fullmatch(entry.name) and (odd or entry.is_file(follow_symlinks=False))
            ]  # fmt: skip
    except OSError:
        return []


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
