"""Every run, looked at again and again while nothing happens: of each only what has changed is read.

To read them all anew takes a fifth of a second for two hundred. Whatever an engine says of itself is put into its place by a rename,
which the folder it lies in shows: one look at a folder tells that nothing in it is new.
"""

import os
import time
from contextlib import suppress
from typing import NamedTuple

from engine.base.errors import UserError
from engine.record import store
from engine.record.store import Run, State
from eos_tui.model.source import OVER, Condition, cleaned

FRESH_NS = 2 * 10**9
"""Age from which a folder's time tells its changes apart: within less, two may have had the same."""


class Entry(NamedTuple):
    """A run in the list."""

    run: Run
    state: State
    condition: Condition


class _Seen(NamedTuple):
    """What was read of a run, and when its folder had last changed."""

    changed: tuple[int, int]
    settled: bool
    """Whether that was long enough ago for a change since to show."""
    order: tuple[int, str]
    entry: Entry | None
    """None for a folder that is no run."""


class Listing:
    """The runs in the folder of runs."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self) -> list[Entry]:
        """Every run, the newest first; an entry is the same object as before where nothing in it is new. Raises OSError and UserError
        where the folder of runs cannot be read.
        """
        found: dict[str, _Seen] = {}
        now = time.time_ns()
        try:
            with os.scandir(store.home()) as entries:
                for each in entries:
                    if store.NAME.match(each.name) and each.is_dir(follow_symlinks=False):
                        with suppress(OSError):  # removed while we look
                            found[each.path] = self._look_at(each, now)
        except FileNotFoundError:
            pass
        self._seen = found
        return [seen.entry for seen in sorted(found.values(), key=lambda seen: seen.order, reverse=True) if seen.entry is not None]

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
            run = known.run if known is not None else Run(folder.path)
        except UserError:
            return _Seen(changed, settled, (0, ""), None)
        order = before.order if known is not None and before is not None else ((run.path / "spec.toml").lstat().st_mtime_ns, run.name)
        state = run.state()
        entry = Entry(run, cleaned(state), run.liveness(state))
        return _Seen(changed, settled, order, known if known == entry and known is not None else entry)
