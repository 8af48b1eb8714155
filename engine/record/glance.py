"""A run as a list shows it: what its small files say, and of its specification the name of the preset alone.

To read a whole specification and a list of columns takes 4 ms, ten times as long: what may be wrong with them is said where a run is
opened.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from engine.base.errors import UserError
from engine.base.files import read_text
from engine.record.reader import FORMAT, Run, RunFolder, State
from engine.record.store import half_made, is_run, run_folders
from engine.record.tags import tags_of
from engine.spec import MAX_SPEC_BYTES, recorded_name


class Glance(RunFolder):
    """A run directory as a list shows it. Raises UserError and OSError when `path` is not one."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.name = self.path.name
        spec = self.path / "spec.toml"
        self.made = spec.lstat().st_mtime_ns
        """When, in nanoseconds since 1970."""
        (self.path / "columns.json").lstat()
        self.preset = recorded_name(read_text(spec, MAX_SPEC_BYTES), str(spec))

    @property
    def order(self) -> tuple[int, str]:
        """Its place among others: the older run first."""
        return self.made, self.name

    def tags(self) -> tuple[str, ...]:
        """The words that a user put on it."""
        return tags_of(self.path)

    def opened(self) -> Run:
        """The run itself. Raises UserError where it cannot be read."""
        return Run(self.path)


class UnopenedRun(NamedTuple):
    """A run that is listed apart from the others, as it cannot be opened."""

    path: Path
    status: str
    """`newer` where a later version wrote it, else `damaged`."""
    why: str


def is_newer(state: State) -> bool:
    """Whether a later version wrote the run: it is listed apart, as it cannot be opened."""
    return state.format > FORMAT


def all_glances(where: Path | None = None) -> list[tuple[Glance, State]]:
    """Every run with its engine's last word, oldest first."""
    glances = []
    for entry in run_folders(where):
        with suppress(UserError, OSError):  # OSError: removed while we look
            glance = Glance(entry.path)
            state = glance.state()
            if not is_newer(state):
                glances.append((glance, state))
    return sorted(glances, key=lambda each: each[0].order)


def unopened_runs(listed: Collection[str], where: Path | None = None) -> list[UnopenedRun]:
    """The runs of other names than these that cannot be opened, each with why, in the order of their names."""
    runs = []
    for entry in run_folders(where):
        path = Path(entry.path)
        with suppress(OSError):  # removed while we look
            if entry.name not in listed and (why := _why_unopened(path)):
                runs.append(UnopenedRun(path, "newer" if is_newer(RunFolder(path).state()) else "damaged", why))
    return sorted(runs)


def _why_unopened(path: Path) -> str:
    """Why a run cannot be opened; empty where it can, and for a folder that is no run."""
    if half_made(path):
        return "never made whole, or not removed to its end" if os.listdir(path) else ""
    if is_run(path):
        try:
            Run(path)
        except UserError as error:
            return str(error).removeprefix(f"{path}{os.sep}")
    return ""
