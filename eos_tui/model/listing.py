"""The runs of the folder, listed again and again: of each run only the files that have changed are read.

An engine puts its state file into place by a rename, which changes the time of the run's folder: one `stat` of that folder shows that
nothing in it is new. And a run in a list is read in a fifteenth of the time that it takes to open it (`engine.record.glance`).
"""

import os
import time
from contextlib import suppress
from typing import NamedTuple

from engine.base.errors import UserError
from engine.record.glance import Glance, is_newer
from engine.record.reader import State
from engine.record.store import run_folders
from eos_tui.model.source import OVER, Condition, cleaned

FRESH_NS = 2 * 10**9
"""Age from which a folder's time tells its changes apart: within less, two may have had the same."""


class ListedRun(NamedTuple):
    """A run in the list."""

    run: Glance
    state: State
    condition: Condition
    tags: tuple[str, ...] = ()


class _Seen(NamedTuple):
    """A run as it was read, and the time of its folder's last change."""

    changed: tuple[int, int]
    settled: bool
    """Whether that was long enough ago for a change since to show."""
    entry: ListedRun | None
    """None for a folder that is no run."""


class Listing:
    """The runs in the folder of runs."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self) -> list[ListedRun]:
        """Every run, the newest first; an entry is the same object as before where nothing in it is new. Raises UserError where the
        folder of runs cannot be read.
        """
        seen_now: dict[str, _Seen] = {}
        now = time.time_ns()
        for each in run_folders():
            with suppress(OSError):  # removed while we look
                seen_now[each.path] = self._look_at(each, now)
        self._seen = seen_now
        entries = [seen.entry for seen in seen_now.values() if seen.entry is not None]
        return sorted(entries, key=lambda entry: entry.run.order, reverse=True)

    def _look_at(self, folder: os.DirEntry[str], now: int) -> _Seen:
        facts, before = folder.stat(follow_symlinks=False), self._seen.get(folder.path)
        changed, settled = (facts.st_mtime_ns, facts.st_ino), now - facts.st_mtime_ns >= FRESH_NS
        known = before.entry if before is not None and before.changed[1] == facts.st_ino else None
        if before is not None and before.settled and before.changed == changed:
            if known is None or known.condition in OVER:
                return before
            condition = known.run.liveness(known.state)  # which the clock may change, or the lock
            return before if condition == known.condition else before._replace(entry=known._replace(condition=condition))
        try:
            run = known.run if known is not None else Glance(folder.path)
        except (UserError, OSError):
            return _Seen(changed, settled, None)
        state = run.state()
        if is_newer(state):
            return _Seen(changed, settled, None)
        entry = ListedRun(run, cleaned(state), run.liveness(state), run.tags())
        return _Seen(changed, settled, known if known == entry and known is not None else entry)
