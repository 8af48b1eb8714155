"""Files that are whole or not there: written beside their place, and moved into it. And the one door for output that a user names."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from engine.base.errors import UserError
from engine.base.files import create_plain
from engine.base.text import print_line

STDOUT = Path("-")
"""As a file to write: the standard output."""
_OPEN = ("/dev/fd/", "/proc/")
"""Where the system keeps names of what is open already: written to, for a file put in their place would reach nobody."""
_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/self/fd)/(\d{1,9})")


@contextmanager
def replaced(path: Path, mark: str = "", nested: bool = False, durable: bool = False) -> Iterator[IO[bytes]]:
    """A draft beside `path`, open for writing, that takes its place at the end; whatever goes wrong before leaves what was there. What
    was there may be a link: that is replaced, and never followed.

    `mark` tells the drafts of several writers apart. Without it a writer that was killed finds its own draft again. `nested` as in
    `files.open_plain`. `durable`: it is on the disk before it takes its place.
    """
    draft = path.with_name(f".{path.name}{mark}")
    try:
        handle = create_plain(draft, nested)
    except FileExistsError:  # of a writer that was killed, or a link or a pipe that somebody left there
        draft.unlink()
        handle = create_plain(draft, nested)
    try:
        with handle:
            yield handle
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def replace_with(path: Path, body: bytes, durable: bool = False) -> None:
    """Write a file whole, in place of what was there."""
    with replaced(path, durable=durable) as handle:
        handle.write(body)


@contextmanager
def output(path: Path, force: bool = False, anew: bool = False) -> Iterator[IO[bytes]]:
    """A file that a user names, open for writing. Raises UserError for what is not to be written over, and OSError.

    `-` is stdout. Devices and pipes are written to. A link is followed once, and told. Any other file is there whole or not at all: a new
    one, or with `force` in place of one that is there, read-only or not; `anew` replaces one that may be written, as in a folder of eos's.
    """
    stream = _stream(path)
    if stream is not None:
        stream.flush()
        yield stream.buffer
        stream.buffer.flush()
        return
    path, there = _place(path, force, anew)
    if (there is not None and not stat.S_ISREG(there.st_mode)) or _is_open(path):
        mine = _DESCRIPTOR.fullmatch(str(path))
        number = os.dup(int(mine[1])) if mine else os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(number, "wb") as handle:
            yield handle
        return
    with replaced(path, f".{os.getpid()}") as handle:
        if there is not None:
            os.fchmod(handle.fileno(), stat.S_IMODE(there.st_mode))
        yield handle


def check_output(path: Path, force: bool = False, anew: bool = False) -> None:
    """Raise UserError for what `output` would refuse: before hours of work."""
    if _stream(path) is None:
        _place(path, force, anew, told=False)


def _stream(path: Path) -> TextIO | None:
    """stdout or stderr, where the path is a name of it."""
    if path == STDOUT:
        return sys.stdout
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a stream of a test or a notebook has no number
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())) and (path.is_symlink() or not path.is_char_device()):
                return stream
    return None


def _place(path: Path, force: bool, anew: bool, told: bool = True) -> tuple[Path, os.stat_result | None]:
    """Where to write, and what is there."""
    try:
        if path.is_symlink() and not _is_open(path):
            target = path.parent / path.readlink()
            if target.is_symlink() and not _is_open(target):
                raise UserError(f"{path}: a link to a link, {target}; give the file that is to be written")
            if told:
                print_line(f"{path}: a link to {target}, which is written", error=True)
            path = target
        there = path.stat()
    except FileNotFoundError:
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent} to write it to, so it cannot be written") from None
        return path, None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    kind = there.st_mode
    if stat.S_ISDIR(kind):
        raise UserError(f"{path}: a folder; expected a file")
    if stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
        raise UserError(f"{path}: a disk or a socket; expected a file, a pipe, or - for stdout")
    may_write = kind & 0o222 and os.access(path, os.W_OK)  # root may write what is read-only, and is to mean it
    if stat.S_ISREG(kind) and not (force or (anew and may_write) or _is_open(path)):
        what = "there already" if may_write else "there already, and read-only"
        raise UserError(f"{path}: {what}; --force writes it anew, or give another name")
    return path, there


def _is_open(path: Path) -> bool:
    return str(path.absolute()).startswith(_OPEN)
