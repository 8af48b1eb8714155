"""Follow a run from a plain command line: progress and events on stderr until it ends. Ctrl-C stops the engine cleanly.

The engine is a child in a session of its own, so the signal that a terminal sends on Ctrl-C does not reach it: it is asked
to stop through its inbox, like from everywhere else.
"""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from engine.base import stuck
from engine.base.aside import Aside
from engine.base.errors import BAD_INPUT, HELD, NO_PLACE, NO_PORT, UserError
from engine.base.exit import STOPPING
from engine.base.text import harmless
from engine.jobs import launch
from engine.record import messages
from engine.record.lock import HeldError
from engine.record.messages import AnyEvent, EdgeReached, LearningRateChanged
from engine.record.reader import EventTail, RowTail, Run, State
from engine.report.narrative import sentence
from engine.spec import SharpnessTracking

LOOK_SECONDS = 0.2
MOST_ASKED = 2
"""Times that one may have to ask for the end: that engines stop, and that they are killed."""
BAR_CELLS, SPARE_CELLS = 24, 6
"""Width of a progress bar, and of what is between its parts and after them: the terminal's echo of ^C."""
STUCK_SECONDS = 1.0
"""That a look may take once the end is asked for."""
LINE_SECONDS = 10.0
"""Between two lines of progress where nothing can be redrawn."""
QUIET = (messages.StageChanged, messages.Checkpointed, messages.Anchored, messages.Finished)
"""Events that come too often to be printed one by one, and the one that the caller prints."""

Tell = Callable[[str], None]
Draw = Callable[["Followed", State], None]
Display = tuple[Tell, Draw]
"""How to tell an event, and how to show progress."""


class Followed:
    """A run that this process has started an engine on."""

    def __init__(self, run: Run, pid: int):
        self.run, self.pid = run, pid
        self.row: dict[str, float] = {}
        self.edge_step: int | None = None
        self.gone = False
        """The engine process has ended, however it did."""
        self._readings = isinstance(run.spec.tracking, SharpnessTracking)
        self._since = 0
        """The step from which on η has been what it is."""
        self._rows, self._journal = RowTail(run), EventTail(run)
        self._note(self._journal.poll())  # of an earlier engine, not to be printed again

    def poll(self) -> tuple[State, list[AnyEvent]]:
        """The state of the run, and the events since the last call."""
        self.gone = self.gone or has_ended(self.pid)  # before the rest is read: then that is all there is
        rows, events = self._rows.poll(), self._note(self._journal.poll())
        if any(isinstance(event, LearningRateChanged) for event in events):
            self.row = {}  # what was read before says nothing of the new threshold
        for column, k in self.run.index.items():
            values = rows[rows[:, 0] >= self._since, k]
            if column == "gd.midpoint_sharpness" or self._readings:  # measured only now and then
                values = values[np.isfinite(values)]
            if len(values):
                self.row[column] = float(values[-1])
        return self.run.state(), events

    def _note(self, events: list[AnyEvent]) -> list[AnyEvent]:
        for event in events:
            if isinstance(event, LearningRateChanged):
                self._since, self.edge_step = event.step, None
            elif isinstance(event, EdgeReached):
                self.edge_step = event.step
        return events

    def steps_in_all(self) -> int:
        """Steps after which a budget ends the run, as far as is known now."""
        budget = self.run.spec.budget
        if self.edge_step is not None and budget.edge_steps:
            return min(budget.steps, self.edge_step + budget.edge_steps)
        return budget.steps


class StopRequests:
    """How often a signal asked for the end."""

    def __init__(self) -> None:
        self.times = 0
        self.status = 0
        """Of a command that a signal ended, as Ctrl-C does; 0 while none came."""


@contextmanager
def signals_counted() -> Iterator[StopRequests]:
    """Signals that ask for the end are only counted while inside: an exception could come in the middle of anything. The third signal does
    raise one: then whoever counts has not looked since the second, as where a disk does not answer.
    """
    asked = StopRequests()

    def ask(number: int, _: object) -> None:
        asked.times, asked.status = asked.times + 1, 128 + number
        if asked.times > MOST_ASKED:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, ask) for number in STOPPING}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def follow(run: Run, pid: int, display: Callable[[ExitStack], Display] | None = None) -> int:
    """Show a run until its engine has ended, as `display` says, else by a bar or lines. Returns the status of a command that a signal
    ended, as Ctrl-C does; 0 where none came."""
    heeded = 0
    with signals_counted() as asked, ExitStack() as stack:
        stack.enter_context(stuck.taking_along(lambda: [] if pid in exit_statuses else [pid]))
        followed = Followed(run, pid)
        tell, draw = (display or _display)(stack)
        while True:
            state, events = _look(followed, asked)
            for event in events:
                if not isinstance(event, QUIET):
                    tell(event.text)
            draw(followed, state)
            if followed.gone:
                return asked.status
            if asked.times > heeded:
                heeded += 1
                tell(_stop(followed, heeded))
            time.sleep(LOOK_SECONDS)


def _look(followed: Followed, asked: StopRequests) -> tuple[State, list[AnyEvent]]:
    """What is new. Where one asks for the end while the disk does not answer, the engine gets a signal, and this process ends."""
    done = threading.Event()
    look, since = Aside(followed.poll, done.set), math.inf
    while not done.wait(LOOK_SECONDS):
        since = min(since, time.monotonic()) if asked.times else math.inf
        if time.monotonic() - since > STUCK_SECONDS:
            print(stuck.farewell(), file=sys.stderr, flush=True)
            sys.exit(asked.status)
    return look.result()


def _stop(followed: Followed, times: int) -> str:
    """Ask the engine to stop; end it when asked for the second time. Says what was done."""
    if times == 1:
        messages.send(followed.run.path, messages.Stop())
        return "stopping: the engine writes a checkpoint and ends at its next step; once more, as with Ctrl-C, kills it"
    os.kill(followed.pid, signal.SIGKILL)  # a child that was not waited for keeps its number
    return f"killed; every row on disk is kept, and `resume {followed.run.name}` goes on from the last checkpoint"


exit_statuses: dict[int, int] = {}
"""Of children that have ended and were reaped here."""


def has_ended(pid: int) -> bool:
    """Whether a child has ended. It is reaped here."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    if ended == pid:
        exit_statuses[pid] = os.waitstatus_to_exitcode(status)
    return ended == pid


def exit_status(pid: int) -> int | None:
    """The status of a child that ended, −n for signal n; None where this process has not seen the end."""
    return exit_statuses.get(pid)


def _display(stack: ExitStack) -> Display:
    """How to tell an event and how to show progress: a bar that is redrawn on a terminal, else a line now and then."""
    if redraws():
        return _bar(stack)
    last = time.monotonic()

    def tell(text: str) -> None:
        print(harmless(text), file=sys.stderr, flush=True)

    def draw(followed: Followed, state: State) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS and not followed.gone:
            last = time.monotonic()
            tell(progress_line(followed, state))

    return tell, draw


def redraws() -> bool:
    """Whether stderr is a terminal on which a line can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _bar(stack: ExitStack) -> Display:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.fields[run]}"), BarColumn(BAR_CELLS), TextColumn("{task.description}"))
    progress = stack.enter_context(Progress(*columns, console=console, transient=True, refresh_per_second=4))
    task = progress.add_task("", run="", total=None)

    def draw(followed: Followed, state: State) -> None:
        total = followed.steps_in_all() if state.step else None
        line = Text(progress_line(followed, state))  # what does not fit is cut from it, not from name and bar
        line.truncate(max(console.width - cell_len(followed.run.name) - BAR_CELLS - SPARE_CELLS, 1), overflow="ellipsis")
        progress.update(task, total=total, completed=state.step, run=followed.run.name, description=line.plain)

    return lambda text: console.print(harmless(text), markup=False), draw


def progress_line(followed: Followed, state: State) -> str:
    """Step, rate, loss and what is happening."""
    loss = followed.row.get("gd.loss", math.nan)
    parts = [f"step {state.step}"]
    parts += [f"{state.rate:.3g}/s"] if state.rate else []
    parts += [f"loss {loss:.4g}"] if math.isfinite(loss) else []
    return " · ".join([*parts, sentence(state, followed.row)])


def refusal(run: Run, pid: int) -> UserError | None:
    """Why an engine did not take up its run, in its own words; None where it did, or was killed."""
    status = exit_status(pid)
    if status == HELD:
        return HeldError(f"run {run.name}: another engine was first, and is at work on it; `attach {run.name}` shows it")
    said = [line.removeprefix("eos: ") for line in launch.log_tail(run, 20).splitlines() if line.startswith("eos: ")]
    if status not in (BAD_INPUT, NO_PORT, NO_PLACE) or not said:
        return None
    error = UserError(said[-1])
    error.status = status
    return error


def gone_words(run: Run, pid: int) -> str:
    """How an engine went that left no outcome."""
    status, on = exit_status(pid), f"every row on disk is kept, and `resume {run.name}` goes on; {log_note(run)}"
    if status is not None and status < 0 and status != -signal.SIGABRT:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        memory = ", by somebody or by the system for want of memory" if -status == signal.SIGKILL else ""
        return f"the engine was killed ({name}{memory}); {on}"
    if "tried to connect with a different incarnation" in launch.log_tail(run, 200):
        return f"a second process came for a place that another one had, and jax ended them all: give each another --process; {on}"
    ended = f"the engine ended with status {status} and no outcome" if status is not None else "the engine is gone without a word"
    return f"{ended}; {on}"


def log_note(run: Run) -> str:
    """Where the engine's own words are, and the last of them."""
    last = launch.log_tail(run, 3)
    return f"its log, {run.shown / 'engine.log'}, ends:\n{last}" if last else f"its log, {run.shown / 'engine.log'}, is empty"
