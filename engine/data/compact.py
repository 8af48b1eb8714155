"""The compact copy of a prepared data set: its images or sentences in file order, in one npz, with a note of its sum.

    DATA/ cifar10/3.0.2/…   what tensorflow-datasets wrote        downloads/   archives
          eos/cifar10.npz   the compact copy                      eos/cifar10.json   its sum and origin

The records of tensorflow-datasets are shuffled by hash and take half a minute to decode; the copy is read in a second, without
that package, and without writing anything.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.base.atomic import replace_with, replaced
from engine.base.errors import UserError
from engine.base.files import open_plain, read_plain
from engine.data.catalog import Entry, note_path
from engine.data.embedded import Pool

MAX_NOTE_BYTES = 64 * 1024


def copy_path(entry: Entry, where: Path) -> Path:
    """The npz of a data set."""
    return where / "eos" / f"{entry.name}.npz"


def write(entry: Entry, where: Path, pool: Pool, origin: str) -> None:
    """Write the compact copy, then its note: a copy without a note is half prepared, and told so."""
    arrays: dict[str, np.ndarray] = {}
    for split, inputs, labels in (("train", pool.inputs, pool.labels), ("test", pool.test_inputs, pool.test_labels)):
        assert inputs is not None
        assert labels is not None
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
        arrays[f"{split}_inputs"] = inputs if isinstance(inputs, np.ndarray) else _packed(inputs)
    path, note = copy_path(entry, where), note_path(entry, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    with replaced(path) as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    facts = {"name": entry.name, "origin": origin, "bytes": path.stat().st_size, "sha256": _sum(path)}
    replace_with(note, json.dumps(facts, indent=1).encode())


def read(entry: Entry, where: Path) -> tuple[Pool, str] | None:
    """The copy and its origin in words; None where there is no note, so no whole copy. Raises UserError when it is damaged."""
    path, facts = copy_path(entry, where), _note(entry, where)
    if facts is None:
        return None
    again = f"; `eos data prepare {entry.name} --data-dir {where}` writes it again"
    try:
        if _sum(path) != facts["sha256"]:
            raise UserError(f"{path}: damaged or half copied: its SHA-256 sum is not the one in {note_path(entry, where).name}{again}")
        with open_plain(path, follow=True) as handle, np.load(handle, allow_pickle=False) as arrays:
            found = [_unpacked(arrays[f"{split}_{what}"]) for split in ("train", "test") for what in ("inputs", "labels")]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}){again}") from None
    return Pool(*found), str(facts["origin"])


def _note(entry: Entry, where: Path) -> dict[str, Any] | None:
    note = note_path(entry, where)
    try:
        facts = json.loads(read_plain(note, MAX_NOTE_BYTES, follow=True))
        if isinstance(facts, dict) and {"origin", "sha256"} <= facts.keys():
            return facts
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{note}: cannot be read ({error.strerror})") from None
    except ValueError:
        pass
    raise UserError(f"{note}: damaged; `eos data prepare {entry.name} --data-dir {where}` writes it again")


def _sum(path: Path) -> str:
    with open_plain(path, follow=True) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _packed(sentences: list[str]) -> np.ndarray:
    """Sentences as UTF-8 bytes, one a line: no pickle, and no room for the longest a row."""
    return np.frombuffer("\n".join(sentences).encode(), np.uint8)[None]


def _unpacked(array: np.ndarray) -> Any:
    return array.tobytes().decode().split("\n") if array.ndim == 2 else array
