"""Files of a run directory as anyone may have written them: read only where they are plain, no larger than they may be, and harmless."""

import errno
import json
import os
import re
import stat
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from engine.columns import Column
from engine.errors import UserError
from engine.printed import is_harmless

COLUMN_NAME = re.compile(r"^[A-Za-z0-9_.]{1,64}\Z")


def open_plain(path: Path) -> IO[bytes]:
    """A file open for reading. Raises OSError for what is no plain file: a pipe would keep the reader waiting for ever."""
    handle = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return handle


def read_plain(path: Path, limit: int) -> bytes:
    """The bytes of a plain file. Raises OSError for any other, and for one larger than `limit`."""
    with open_plain(path) as handle:
        body = handle.read(limit + 1)
    if len(body) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit // 1024} kB", str(path))
    return body


def refuse_links(path: Path) -> None:
    """Raise UserError where something in a run directory is a link: what an engine writes would end up elsewhere."""
    folders = [path, *(path / name for name in ("inbox", "checkpoints", "curves"))]
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            with os.scandir(folder) as entries:
                links = [entry.path for entry in entries if entry.is_symlink()]
            if links:
                raise UserError(f"{links[0]}: a link, which an engine would follow out of the run; copy the run instead")


def read_text(path: Path, limit: int) -> str:
    """The text of a plain file of at most `limit` bytes. Raises UserError where it is no such file."""
    try:
        return read_plain(path, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text, so not written by eos") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def read_columns(path: Path, limit: int) -> tuple[Column, ...]:
    """The columns that a file of at most `limit` bytes lists. Raises UserError where eos has not written it."""
    try:
        columns = tuple(Column(**entry) for entry in json.loads(read_text(path, limit)))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: not a list of columns, so not written by eos") from None
    if not all(isinstance(field, str) for column in columns for field in column):
        raise UserError(f"{path}: not a list of columns, so not written by eos")
    if not columns or columns[0].name != "step":
        raise UserError(f"{path}: its first column is not the step, so not written by eos")
    names = [column.name for column in columns]
    if len(set(names)) < len(names) or not all(map(COLUMN_NAME.match, names)):
        raise UserError(f"{path}: its columns are not named apart in letters, digits, '_' and '.', so not written by eos")
    if not all(is_harmless(field) for column in columns for field in column):
        raise UserError(f"{path}: control characters in it, so not written by eos")
    return columns


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an npz file of a run; None where it cannot be read, or is packed, as no engine does: it might unpack into any size."""
    try:
        with open_plain(path) as handle, np.load(handle, allow_pickle=False) as arrays:  # np.load leaves a damaged file open
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in arrays.zip.infolist()):
                return None
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # zipfile, zlib, tokenize and numpy each have errors of their own for damaged bytes
        return None
