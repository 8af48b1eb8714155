"""Progress over all runs of a figure, with an estimate of the time left: a bar on a terminal, else a line now and then."""

import math
import sys
import time
from contextlib import ExitStack

from engine.figures.runs import Wanted
from engine.jobs.follow import LINE_SECONDS, Display, Followed, progress_line, redraws
from engine.record.reader import State
from engine.record.threshold import in_force
from engine.spec import CoupledTracking

APPROACH_SHARE = 0.2
"""Part of a coupled run that the approach counts for: tracked steps cost more, and when the edge comes is not known."""


class Estimate:
    """How much of the work is done, a number from 0 to 1, and the seconds left at the pace since this began."""

    def __init__(self, runs: int, kept: int):
        self.runs, self.begun = runs, kept / runs
        self.since = time.monotonic()
        self.share = self.begun

    def update(self, done: int, current: float) -> float | None:
        """With so many runs ended and this much of the current one: the seconds left, None while there is nothing to go by."""
        self.share = max(self.share, (done + current) / self.runs)
        gained, elapsed = self.share - self.begun, time.monotonic() - self.since
        return elapsed * (1 - self.share) / gained if gained > 0.01 and elapsed > 2 else None


def share(followed: Followed, state: State) -> float:
    """How much of a run is done, as far as is known."""
    spec = followed.run.spec
    total = max(followed.steps_in_all(), 1)
    if spec.budget.edge_steps and isinstance(spec.tracking, CoupledTracking):
        if followed.edge_step is None:
            rise = followed.row.get("gd.midpoint_sharpness", math.nan) / in_force(followed.row, state.learning_rate)
            return APPROACH_SHARE * min(rise, 1) if math.isfinite(rise) else 0.0
        tracked = max(state.step - followed.edge_step, 0) / spec.budget.edge_steps
        return APPROACH_SHARE + (1 - APPROACH_SHARE) * min(tracked, 1)
    return min(state.step / total, 1)


def time_left(seconds: float | None) -> str:
    """`about 3 min left`, in the one unit that serves."""
    if seconds is None:
        return "time left not known yet"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.0f} {unit} left"
    return f"about {max(seconds, 1):.0f} s left"


class FigureProgress:
    """The display of a figure's runs, for `runs.carry_out`."""

    def __init__(self, wants: list[Wanted], kept: int):
        self.wants = wants
        self.estimate = Estimate(len(wants), kept)

    def display(self, stack: ExitStack, done: int) -> Display:
        """How to tell events and show progress during the run with this many before it."""
        want = self.wants[done]
        title = f"{want.preset}{', ' if want.label else ''}{want.label} ({done + 1} of {len(self.wants)})"
        return self._bar(stack, done, title) if redraws() else self._lines(done, title)

    def _lines(self, done: int, title: str) -> Display:
        _tell(title)
        last = time.monotonic()

        def draw(followed: Followed, state: State) -> None:
            nonlocal last
            left = self.estimate.update(done, share(followed, state))
            if time.monotonic() - last >= LINE_SECONDS and not followed.gone:
                last = time.monotonic()
                _tell(f"{self.estimate.share:.0%} · {time_left(left)} · {progress_line(followed, state)}")

        return lambda text: _tell(f"  {text}"), draw

    def _bar(self, stack: ExitStack, done: int, title: str) -> Display:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True, highlight=False)
        share_done, description = TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}")
        columns = (TextColumn("{task.fields[title]}"), BarColumn(24), share_done, description)
        bars = stack.enter_context(Bars(*columns, console=console, transient=True, refresh_per_second=4))
        whole = bars.add_task("", title="all runs", total=1.0)
        current = bars.add_task("", title=title, total=1.0)
        console.print(title, markup=False)

        def draw(followed: Followed, state: State) -> None:
            part = share(followed, state)
            left = self.estimate.update(done, part)
            bars.update(whole, completed=self.estimate.share, description=time_left(left))
            bars.update(current, completed=part, description=progress_line(followed, state))

        return lambda text: console.print(f"  {text}", markup=False), draw


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
