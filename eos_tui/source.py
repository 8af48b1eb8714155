"""One run, followed: its rows, its journal and its engine's last word, read from the run directory alone.

Reading and taking are apart: `read` touches the disk and may run in a thread, `take` changes what the screen shows and
runs where the screen is drawn. A live run and a finished one go through the same two calls.
"""

from typing import Literal, NamedTuple

import numpy as np

from engine import launch
from engine.columns import COUPLED
from engine.control import AnyCommand, AnyEvent, send
from engine.errors import UserError
from engine.store import EventTail, Liveness, RowTail, Run, State
from eos_tui.series import History

LIVE = ("starting", "running", "paused")
_COUPLED = frozenset(column.name for column in COUPLED)

Condition = Liveness | Literal["removed"]


class News(NamedTuple):
    """What one look into the run directory found."""

    rows: np.ndarray
    events: list[AnyEvent]
    state: State
    condition: Condition
    log: str
    """The end of the engine's log, where it crashed."""


class Source:
    """What is known of a run, and the way to tell its engine something."""

    def __init__(self, run: Run):
        self.run = run
        self.history = History(run.columns)
        self.events: list[AnyEvent] = []
        self.state = State()
        self.condition: Condition = "starting"
        self.log = ""
        self.frozen = False
        """Rows wait on disk while the view is frozen; events and state come on."""
        self._rows, self._journal = RowTail(run), EventTail(run)

    def read(self) -> News:
        """Look for what is new."""
        nothing = np.empty((0, len(self.run.columns)))
        if not self.run.path.is_dir():
            return News(nothing, [], self.state, "removed", "")
        state, condition = self.run.state(), self.run.liveness()  # before the rows: "finished" then means all of them
        rows = nothing if self.frozen else self._rows.poll()
        return News(rows, self._journal.poll(), state, condition, launch.log_tail(self.run) if condition == "crashed" else "")

    def take(self, news: News) -> None:
        """Make it what is known."""
        self.history.extend(news.rows)
        self.events += news.events
        self.state, self.condition, self.log = news.state, news.condition, news.log

    @property
    def live(self) -> bool:
        """Whether an engine is there to take commands."""
        return self.condition in LIVE

    @property
    def step(self) -> int:
        """The newest step: that of the last row, or the one the engine is about to take; of the rows while frozen."""
        last = int(self.history.column("step")[-1]) if len(self.history) else 0
        return last if self.frozen else max(last, self.state.step)

    def row(self) -> dict[str, float]:
        """The present value of every column: of the newest row for what belongs to θ†, where a gap means that θ† is not
        followed; else the newest there is, for the sharpness is measured only now and then on the approach.
        """
        if not len(self.history):
            return {column.name: float("nan") for column in self.run.columns}
        return {
            column.name: float(self.history.column(column.name)[-1])
            if column.name in _COUPLED
            else self.history.last(column.name)
            for column in self.run.columns
        }

    def tell(self, command: AnyCommand) -> str:
        """Leave a command for the engine and return its id. Raises UserError when no engine is there to take it."""
        if not self.live:
            how = "has finished" if self.condition == "finished" else f"is {self.condition}"
            raise UserError(f"run {self.run.name} {how}: no engine takes commands; `eos resume {self.run.name}` starts one")
        return send(self.run.path, command)
