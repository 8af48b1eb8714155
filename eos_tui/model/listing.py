"""The runs of the folder, listed again and again: of each run only the files that have changed are read.

To read two hundred runs anew takes a fifth of a second. An engine puts its state file into place by a rename, which changes the time
of the run's folder: one `stat` of that folder shows that nothing in it is new.
"""

import os
import time
from contextlib import suppress
from typing import NamedTuple

from engine.base.errors import UserError
from engine.record import store
from engine.record.reader import Run, State
from eos_tui.model.source import OVER, Condition, cleaned

FRESH_NS = 2 * 10**9
"""Age from which a folder's time tells its changes apart: within less, two may have had the same."""


class ListedRun(NamedTuple):
    """A run in the list."""

    run: Run
    state: State
    condition: Condition


class _Seen(NamedTuple):
    """A run as it was read, and the time of its folder's last change."""

    changed: tuple[int, int]
    settled: bool
    """Whether that was long enough ago for a change since to show."""
    order: tuple[int, str]
    entry: ListedRun | None
    """None for a folder that is no run."""


class Listing:
    """The runs in the folder of runs."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self) -> list[ListedRun]:
        """Every run, the newest first; an entry is the same object as before where nothing in it is new. Raises OSError and UserError
        where the folder of runs cannot be read.
        """
        seen_now: dict[str, _Seen] = {}
        now = time.time_ns()
        try:
            with os.scandir(store.home()) as entries:
                for each in entries:
                    if store.NAME.match(each.name) and each.is_dir(follow_symlinks=False):
                        with suppress(OSError):  # removed while we look
                            seen_now[each.path] = self._look_at(each, now)
        except FileNotFoundError:
            pass
        self._seen = seen_now
        return [seen.entry for seen in sorted(seen_now.values(), key=lambda seen: seen.order, reverse=True) if seen.entry is not None]

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
        entry = ListedRun(run, cleaned(state), run.liveness(state))
        return _Seen(changed, settled, order, known if known == entry and known is not None else entry)
