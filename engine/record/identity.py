"""A run's identity: a random number in its files, the same wherever the folder is moved and whatever it is called."""

import json
import os
import re
from pathlib import Path

from engine.base import atomic
from engine.base.files import read_plain

FILE = "identity.json"
FORMAT = 1
MAX_BYTES = 4096
ID = re.compile(r"^[0-9a-f]{32}\Z")


def identity(run: Path) -> str:
    """The id of a run; empty where it has none, as runs of older versions."""
    facts = read_facts(run / FILE)
    given = facts.get("id")
    return given if isinstance(given, str) and ID.match(given) else ""


def give_identity(run: Path) -> str:
    """The id of a run, a new one where it has none. Raises OSError where that cannot be written."""
    known = identity(run)
    if not known:
        known = os.urandom(16).hex()
        write_facts(run / FILE, {"format": FORMAT, "id": known})
    return known


def read_facts(path: Path) -> dict[str, object]:
    """The object in a small file of JSON; an empty one where the file cannot be read, or holds no object."""
    try:
        facts = json.loads(read_plain(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write_facts(path: Path, facts: dict[str, object]) -> None:
    """Write a small file of JSON: the whole file or none, and through no link. Raises OSError where the file cannot be written."""
    with atomic.write(path, f".{os.urandom(8).hex()}", durable=True) as handle:
        os.fchmod(handle.fileno(), 0o600)
        handle.write(json.dumps(facts).encode() + b"\n")
