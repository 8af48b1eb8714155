"""The commit that eos runs from, where it runs from a clone of its sources."""

import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
"""The folder that holds `engine`."""
LONGEST = 20
"""Seconds that git is waited for."""


class Commit(NamedTuple):
    """A state of the sources."""

    commit: str
    """Forty hexadecimal digits."""
    dirty: bool
    """Whether a file of the sources is other than at that commit, or is not in it."""


@cache
def commit(root: Path = ROOT) -> Commit | None:
    """The commit of the clone whose top folder this is; None where it is none, as in an installed eos, or without git."""
    if not (root / ".git").exists():  # of a worktree it is a file; a clone around an environment is another's
        return None
    head = _git(root, "rev-parse", "--verify", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "engine", "presets")
    return None if head is None or changes is None else Commit(head.strip(), bool(changes))


def _git(root: Path, *words: str) -> str | None:
    """What git says. It runs no program that the clone's settings name, and writes nothing."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        return None
