"""Files of a run directory as anyone may have written them: read only where they are plain, no larger than they may be, and harmless."""

import json
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from engine.base.errors import UserError
from engine.base.files import append_plain, listed, open_plain, read_plain, read_text, size_of
from engine.base.text import is_harmless
from engine.record.columns import Column

__all__ = [
    "append_plain", "listed", "open_plain", "read_arrays", "read_columns", "read_plain", "read_tensors", "read_text", "refuse_links",
    "size_of",
]  # fmt: skip

COLUMN_NAME = re.compile(r"^[A-Za-z0-9_.]{1,64}\Z")
MAX_COLUMNS = 2048
MAX_ARRAYS, MAX_DIRECTORY_BYTES = 512, 128 * 1024
"""Of an npz file: what it lists, and the list itself."""
MAX_CURVE_BYTES = 16 * 1024**2
MAX_CHECKPOINT_BYTES = 64 * 1024**3
NUMBERS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4",
    "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""Number formats of a safetensors file, as numpy has them."""
MAX_TENSORS, MAX_HEADER_BYTES = 65536, 16 * 1024**2
"""Of a safetensors file: what it lists, and the list itself."""
OF_ITSELF = "__metadata__"
"""Under which a safetensors file speaks of itself: no tensor has that name."""
END, LARGE_END = 22, 76
"""Bytes of the record at the end of a zip archive, and of the two before it where it is larger than 4 GiB."""


def refuse_links(path: Path) -> None:
    """Raise UserError where something in a run directory is a link, for what an engine writes would end up elsewhere; or a pipe or a
    device, for which it would wait.
    """
    folders = [path, *(path / name for name in ("inbox", "checkpoints", "curves", "snapshots"))]
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            with os.scandir(folder) as entries:
                odd = [entry for entry in entries if entry.is_symlink() or not (entry.is_file() or entry.is_dir())]
            if odd and odd[0].is_symlink():
                raise UserError(f"{odd[0].path}: a link, which an engine would follow out of the run; copy the run instead")
            if odd:
                raise UserError(f"{odd[0].path}: not a plain file, so not written by eos; remove it")


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
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{path}: {len(names)} columns, so not written by eos")
    if len(set(names)) < len(names) or not all(map(COLUMN_NAME.match, names)):
        raise UserError(f"{path}: its columns are not named apart in letters, digits, '_' and '.', so not written by eos")
    if not all(is_harmless(field) for column in columns for field in column):
        raise UserError(f"{path}: control characters in it, so not written by eos")
    return columns


def read_arrays(path: Path, limit: int = MAX_CHECKPOINT_BYTES) -> dict[str, np.ndarray] | None:
    """The arrays of an npz file in a folder of a run; None where it cannot be read, or is none that an engine writes: packed, it might
    unpack into any size, and so it might where two entries are the same bytes; and thousands of entries take as long as they like.
    """
    try:
        with open_plain(path, nested=True) as handle:
            size = os.fstat(handle.fileno()).st_size
            if size > limit or not _ends_as_written(handle, size):
                return None
            handle.seek(0)
            with np.load(handle, allow_pickle=False) as arrays:
                entries = arrays.zip.infolist()
                if len(entries) > MAX_ARRAYS or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                    return None
                if sum(entry.file_size for entry in entries) > size:
                    return None
                return {name: arrays[name] for name in arrays.files}
    except Exception:  # zipfile, zlib, tokenize and numpy each have errors of their own for damaged bytes
        return None


class Tensors(NamedTuple):
    """What a safetensors file holds."""

    arrays: dict[str, np.ndarray]
    """By name; read-only."""
    words: dict[str, str]
    """What it says of itself."""


class NoTensorsError(ValueError):
    """Why a file is no safetensors file that can be read, in words."""


def read_tensors(path: Path, limit: int = MAX_CHECKPOINT_BYTES, follow: bool = False) -> Tensors:
    """The arrays of a safetensors file; `follow` as in `files.open_plain`. Nothing in it is executed, and it has no room for more numbers
    than its bytes hold. Raises NoTensorsError where it is none, OSError where it cannot be read.
    """
    from safetensors import SafetensorError, deserialize

    with open_plain(path, follow=follow, nested=not follow) as handle:
        if os.fstat(handle.fileno()).st_size > limit:
            raise NoTensorsError(f"larger than {limit // 1024**3} GB")
        length = int.from_bytes(handle.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise NoTensorsError("not a safetensors file: its header has no end")
        handle.seek(0)
        body = handle.read()
    try:
        parts = deserialize(body)
        header = json.loads(body[8 : 8 + length])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise NoTensorsError(f"not a safetensors file: {str(error)[:200]}") from None
    if len(parts) > MAX_TENSORS:
        raise NoTensorsError(f"{len(parts)} tensors in it, and {MAX_TENSORS} are read at most")
    arrays = {name: _array(name, part) for name, part in parts}
    words = header.get(OF_ITSELF) if isinstance(header, dict) else None
    return Tensors(arrays, words if isinstance(words, dict) else {})


def _array(name: str, part: dict[str, Any]) -> np.ndarray:
    """A tensor for numpy, which has no number format of its own for bfloat16: its bits are the upper half of a float32."""
    kind, data = part["dtype"], part["data"]
    if kind == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << np.uint32(16)).view("<f4").reshape(part["shape"])
    if kind not in NUMBERS:
        raise NoTensorsError(f"tensor {name[:100]!a} is of the format {kind}; expected one of {', '.join(NUMBERS)} or BF16")
    return np.frombuffer(data, NUMBERS[kind]).reshape(part["shape"])


def _ends_as_written(handle: IO[bytes], size: int) -> bool:
    """Whether an archive ends with the records of a directory of a size that an engine writes. The directory is read whole before
    anything in it can be looked at.
    """
    handle.seek(max(size - LARGE_END - END, 0))
    last = handle.read(LARGE_END + END)
    end, large = last[-END:], last[:-END]
    if len(last) < END or not end.startswith(b"PK\5\6") or end[20:] != b"\0\0":  # no comment: what is after it is nothing
        return False
    directory = int.from_bytes(end[12:16], "little")
    if large[-20:-16] == b"PK\6\7":  # of an archive of more than 4 GiB: what is said there counts
        if not large.startswith(b"PK\6\6") or int.from_bytes(large[-12:-4], "little") != size - LARGE_END - END:
            return False
        directory = int.from_bytes(large[40:48], "little")
    return directory <= MAX_DIRECTORY_BYTES
