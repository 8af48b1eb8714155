"""A run's identity: a random number in its files, the same wherever the folder is moved and whatever it is called."""

import json
import os
import re
from pathlib import Path

from engine.base.atomic import replaced
from engine.base.files import read_plain

FILE = "identity.json"
FORMAT = 1
MAX_BYTES = 4096
ID = re.compile(r"^[0-9a-f]{32}\Z")


def identity(run: Path) -> str:
    """The id of a run; empty where it has none, as runs of older versions."""
    facts = read_facts(run / FILE)
    found = facts.get("id")
    return found if isinstance(found, str) and ID.match(found) else ""


def give_identity(run: Path) -> str:
    """The id of a run, a new one where it has none. Raises OSError where that cannot be written."""
    found = identity(run)
    if not found:
        found = os.urandom(16).hex()
        write_facts(run / FILE, {"format": FORMAT, "id": found})
    return found


def read_facts(path: Path) -> dict[str, object]:
    """What a small file of JSON holds; nothing where it cannot be read, or holds no object."""
    try:
        facts = json.loads(read_plain(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write_facts(path: Path, facts: dict[str, object]) -> None:
    """Write a small file of JSON: whole or not, and through no link. Raises OSError where it cannot be written."""
    with replaced(path, f".{os.urandom(8).hex()}", durable=True) as handle:
        os.fchmod(handle.fileno(), 0o600)
        handle.write(json.dumps(facts).encode() + b"\n")
