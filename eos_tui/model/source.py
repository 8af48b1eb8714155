"""One run, followed: its rows, its journal and its engine's last word, read from the run directory alone.

Reading and taking are apart: `read` and `read_on` touch the disk and may run in a thread, `take` changes what the screen
shows and runs where the screen is drawn. A live run, a finished one and one that is played again go through the same calls.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from engine.base.errors import UserError
from engine.base.text import harmless
from engine.jobs import launch
from engine.record.columns import COUPLED, MOST_DIRECTIONS, THEOREM, UNROLLED, Column, directions, meets_threshold, predicted
from engine.record.messages import AnyCommand, AnyEvent, LearningRateChanged, send
from engine.record.reader import EventTail, HeldRun, Liveness, RowTail, Run, State
from engine.spec import PREDICTIONS
from eos_tui.model.history import History
from eos_tui.model.last_values import with_values
from eos_tui.model.replay import Replay, as_it_stood

OVER = ("finished", "crashed", "removed")
"""Conditions in which no row comes any more."""
BLOCK = 16384
"""Rows read at a time."""
_ABOUT_CENTER = frozenset(
    column.name for column in (
        *COUPLED, *directions(MOST_DIRECTIONS), *THEOREM, *UNROLLED, *(c for form in PREDICTIONS for c in predicted(form, several=True))
    )
)
"""Columns that belong to θ† and to the predictions about it: a gap in them says that there is nothing to follow."""

Condition = Liveness | Literal["removed"]
View = Literal["live", "frozen", "replay"]


class News(NamedTuple):
    """The news of a run directory since the reading before."""

    rows: np.ndarray
    events: list[AnyEvent]
    state: State
    condition: Condition
    log: str
    """The end of the engine's log, where it crashed."""
    valued: np.ndarray | None = None
    """Which columns have values in these rows, where they are many."""
    more: bool = False
    """Whether rows are left to read."""
    on_disk: int = 0
    """Rows that there are, where some are left to read."""
    provenance: Mapping[str, Any] | None = None
    """As the engine wrote it at its start; read once."""
    trouble: str = ""
    """Why the rows could not be read; empty where they could."""
    displaced: str = ""
    """What has become of the run's path, where it is not this run's any more."""

    def tells_more(self, state: State, condition: Condition) -> bool:
        """Whether anything in it was not known, given the engine's last word and condition."""
        return bool(len(self.rows) or self.events or self.provenance) or (self.state, self.condition) != (state, condition)


class DataFacts(NamedTuple):
    """Which data a run trains on, as the engine recorded at its start."""

    name: str
    sha256: str
    """Of the prepared training inputs and targets; empty where the run has none recorded."""
    rule: str
    """How the examples were chosen and prepared."""
    origin: str

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> "DataFacts | None":
        """The facts in a run's provenance; None where it names no data."""
        facts = provenance.get("problem")
        if not isinstance(facts, dict) or not isinstance(facts.get("data"), str):
            return None
        return cls(*(harmless(str(facts.get(name, ""))) for name in ("data", "sha256", "rule", "origin")))


class Source:
    """A run as the view knows it, and the way to send its engine a command."""

    def __init__(self, run: Run):
        self.run = run
        self.name = harmless(run.name)
        self.columns: tuple[Column, ...] = tuple(Column(*map(harmless, column)) for column in run.columns)
        record = run.path / "metrics.f64"
        self.history = _history(self.columns, record)
        self.journal: list[AnyEvent] = []
        self.engine = State()
        """The engine's last word."""
        self.condition: Condition = "starting"
        self.log = ""
        self._moved_at = time.monotonic()
        """When the last row came, or was first looked for."""
        self.left = 0
        """Rows on the disk that are still to be read, while a record is being caught up with."""
        self.frozen = False
        """Rows wait on disk while the view is frozen; events and state come on."""
        self.replay: Replay | None = None
        self.data: DataFacts | None = None
        self._identified = False
        self.displaced = ""
        """What has become of the run's path, where another run lies there now or none; this one is followed where it is."""
        self._held = _held(run)
        self._rows, self._events = RowTail(self._held or run), EventTail(self._held or run)

    def read(self) -> News:
        """The news of the run directory."""
        nothing = np.empty((0, len(self.columns)))
        run = self._held
        if run is None or run.folder.is_gone:
            return News(nothing, [], self.engine, "removed", "")
        displaced = run.displaced
        state = run.state()  # before the rows: "finished" then means all of them
        if state.layout not in ("", run.layout):  # another run's files lie there now, with rows of other columns
            return News(nothing, [], self.engine, "removed", "")
        condition = run.liveness(state)
        rows, trouble = (nothing, "") if self.frozen else self._poll()
        provenance = None if self._identified else run.provenance()
        log = launch.log_tail(run) if condition == "crashed" else ""
        events = [_harmless_event(event) for event in self._events.poll()]
        more = len(rows) == BLOCK
        on_disk = run.row_count() if more else 0
        return News(rows, events, cleaned(state), condition, log, _valued(rows), more, on_disk, provenance, trouble, displaced)

    def read_on(self, news: News) -> News:
        """The next rows of a record that is being caught up with; all else is as it was a moment before."""
        rows = news.rows[:0] if self.frozen else self._poll()[0]
        return news._replace(rows=rows, events=[], valued=_valued(rows), more=len(rows) == BLOCK, provenance=None)

    def _poll(self) -> tuple[np.ndarray, str]:
        """The next rows, and why there are none where they cannot be read."""
        try:
            return self._rows.poll(BLOCK), ""
        except UserError as error:
            return np.empty((0, len(self.columns))), str(error)

    def take(self, news: News) -> bool:
        """Take the news into history, journal and state, and move a replay on. Returns whether there is anything new to show."""
        fresh = self.replay is not None or news.tells_more(self.engine, self.condition) or news.displaced != self.displaced
        self.displaced = news.displaced
        self.left = max(news.on_disk - len(self.history) - len(news.rows), 0) if news.more else 0
        self.history.extend(news.rows, news.valued)
        if len(news.rows) or self.engine.status == "paused":
            self._moved_at = time.monotonic()
        self.journal += news.events
        self.engine, self.condition, self.log = news.state, news.condition, news.log
        self.history.over = news.condition in OVER and not news.more and self.replay is None
        if news.provenance:
            self.data, self._identified = DataFacts.of(news.provenance), True
        self.history.limit = None
        if self.replay is not None:
            self.replay.tick(self.history.last_step)
            self.history.limit = self.history.row_near(self.replay.step) + 1
        return fresh

    # -- as it is shown

    @property
    def view(self) -> View:
        """What is shown: the newest rows, those of the moment it was frozen, or past ones."""
        return "replay" if self.replay is not None else "frozen" if self.frozen else "live"

    @property
    def live(self) -> bool:
        """Whether an engine is there to take commands."""
        return self.condition in launch.LIVE

    @property
    def still_for(self) -> float:
        """Seconds since the last row came, while an engine is at work and nothing keeps its rows from being shown; else 0."""
        at_work = self.view == "live" and self.condition in ("starting", "running")
        return time.monotonic() - self._moved_at if at_work else 0.0

    @property
    def step(self) -> int:
        """The newest step: that of the last row, or the one the engine is about to take; of the rows in any other view."""
        last = int(self.history.last_step)
        return max(last, self.engine.step) if self.view == "live" else last

    @property
    def events(self) -> Sequence[AnyEvent]:
        """The journal, in a replay up to its step."""
        return self.journal if self.replay is None else [event for event in self.journal if event.step <= self.step]

    @property
    def state(self) -> State:
        """The engine's last word, in a replay as it was at its step."""
        if self.replay is None or (self.replay.over and self.engine.outcome is not None):
            return self.engine
        row = len(self.history) - 1
        known = row >= 0 and self.history.has("learning_rate")
        rate = self.history.value("learning_rate", row) if known else self.engine.learning_rate
        return as_it_stood(self.engine, self.events, self.step, rate, self.replay.speed)

    @property
    def learning_rate(self) -> float:
        """η in force: the engine's, or the specification's while the engine has said nothing."""
        return self.state.learning_rate or self.run.spec.optimizer.learning_rate

    def row(self) -> dict[str, float]:
        """The present value of every column: of the newest row for what belongs to θ†, where a gap means that nothing is
        followed; else the newest there is, for the sharpness is measured only now and then on the approach. An eigenvalue that was
        read before η last changed says nothing of the present threshold: NaN.
        """
        row = self.history.latest() | {
            name: value for name, value in self.history.newest().items() if name in _ABOUT_CENTER
        }
        since = next((event.step for event in reversed(self.events) if isinstance(event, LearningRateChanged)), 0)
        last = len(self.history) - 1
        for name in (name for name in row if since and meets_threshold(name) and name not in _ABOUT_CENTER):
            read = self.history.lately(name, last)
            if read < 0 or self.history.value("step", read) < since:
                row[name] = math.nan
        return row

    def tell(self, command: AnyCommand) -> str:
        """Leave a command for the engine and return its id. Raises UserError when no engine is there to take it."""
        self.need_engine()
        assert self._held is not None
        return send(self._held.path, command, self.engine.engine)

    def need_engine(self) -> None:
        """Raises UserError when there is no engine to take commands."""
        if not self.live:
            if self.condition == "removed":
                raise UserError(f"run {self.name} was removed: no engine takes commands, and nothing can be resumed; l leads to other runs")
            how = "has finished" if self.condition == "finished" else f"is {self.condition}"
            outcome = self.engine.outcome
            over = outcome is not None and outcome.kind not in launch.RESUMABLE
            further = "F forks it, with a larger budget" if over else f"`eos resume {self.name}` starts one"
            raise UserError(f"run {self.name} {how}: no engine takes commands; {further}")


def _held(run: Run) -> HeldRun | None:
    """The run by its folder's descriptor; None where the folder is gone."""
    try:
        return run.held()
    except UserError:
        return None


def _history(columns: Sequence[Column], record: Path) -> History:
    """A history that reads old rows from the record; one in memory where there is none to read from."""
    try:
        return History(columns, record)
    except OSError:
        return History(columns)


def _valued(rows: np.ndarray) -> np.ndarray | None:
    """Of a whole block, which columns have values: looked at where it was read, beside the drawing of what came before."""
    return with_values(rows) if len(rows) == BLOCK else None


def cleaned(state: State) -> State:
    """The state with its words made harmless: whoever can write a run directory is not to steer the viewer's terminal."""
    outcome = state.outcome and msgspec.structs.replace(state.outcome, text=harmless(state.outcome.text))
    return msgspec.structs.replace(
        state, phase=harmless(state.phase), device=harmless(state.device), precision=harmless(state.precision),
        host=harmless(state.host), task=harmless(state.task), outcome=outcome,
    )


def _harmless_event(event: AnyEvent) -> AnyEvent:
    """The event with a harmless sentence."""
    return event if harmless(event.text) == event.text else msgspec.structs.replace(event, text=harmless(event.text))
