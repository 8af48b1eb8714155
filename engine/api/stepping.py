"""A run that a script carries out, here or by an engine of its own, and what an interrupt does to it."""

import atexit
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from engine.base.errors import UserError, one_of
from engine.base.xla_flags import has_begun
from engine.jobs import groups, launch
from engine.jobs.follow import LOOK_SECONDS, has_ended, log_note
from engine.problems.handed_over import is_handed_over
from engine.record import messages
from engine.record import trust as trusts
from engine.record.reader import RowTail, Run
from engine.record.writer import Writer
from engine.spec import RunSpec
from engine.xla.device import configure, require_correct_sums

if TYPE_CHECKING:
    from engine.process.runner import Runner

AGAIN_SECONDS = 5.0
"""Between two interrupts of which the second is to end more than a run."""
OF_ITS_OWN = "; or give this run a process of its own with apart=True"


@contextmanager
def interrupts(stepping: "Stepping") -> Iterator[None]:
    """An interrupt inside stops the run, rather than raise in the middle of anything. Where a handler of the caller's is there it is called
    too. Nothing in a thread, where no signal can be handled: and none comes there.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):  # ignored, or handled outside Python
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        now, last = time.monotonic(), Stepping.interrupted_at
        Stepping.interrupted_at = now
        if stepping.interrupted or now - last < AGAIN_SECONDS:
            raise KeyboardInterrupt
        stepping.interrupt()
        with suppress(RuntimeError):  # it has interrupted a print on the same stream
            print(f"run {stepping.run.name} stops at its next step; once more within {AGAIN_SECONDS:.0f} s raises KeyboardInterrupt",
                  file=sys.stderr)
        if before is not signal.default_int_handler:
            cast(Callable[[int, Any], Any], before)(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stepping:
    """A run that is carried out for this process: by it, or by an engine of its own."""

    interrupted_at: ClassVar[float] = -math.inf
    """When the last interrupt came, in this run or an earlier one."""
    forked_from_jax: ClassVar[bool] = False
    """Whether this process was forked from one in which jax had begun, whose threads it lacks: what is computed here would never end."""
    under_way: ClassVar[set[Generator[np.ndarray]]] = set()
    """Rows that are not at their end: they are closed when Python ends, while what they are closed by is there."""

    def __init__(self, run: Run, apart: bool, made: bool = True):
        self.run, self.apart = run, apart
        self._made = made
        """Whether the run was made for this: where its problem is refused it goes."""
        self.interrupted = False
        self._runner: Runner | None = None

    @classmethod
    def of(cls, make: Callable[[], Run], spec: RunSpec, apart: bool, made: bool = True) -> "Stepping":
        """Of the run that `make` gives, of this specification: it is not asked where the run could not be carried out."""
        if apart and (here := [each for each in trusts.functions_of(spec) if is_handed_over(each)]):
            raise UserError(f"apart=True: {one_of(here)} was handed over to this process alone; put it into a file, or leave apart out")
        groups.refuse_copies("run it in one, or set EOS_COORDINATOR=none where each task has a run of its own")
        if not apart:
            if cls.forked_from_jax:
                raise UserError(
                    "this process was forked from one in which jax had begun, and what is computed here would never end; have "
                    f'multiprocessing start it by "spawn" or "forkserver"{OF_ITS_OWN}'
                )
            if has_begun():
                require_correct_sums(OF_ITS_OWN)
            configure(spec.rematerializes)
        return cls(make(), apart, made)

    def interrupt(self) -> None:
        """Have the run stop at its next step, with a checkpoint. A signal handler calls this."""
        self.interrupted = True
        if self._runner is not None:
            self._runner.ask(messages.Stop())

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows as they are recorded, (rows, columns). Raises UserError, and leaves no run, where the problem was refused."""
        rows = self._from_engine() if self.apart else self._here()
        try:
            for block in rows:
                if rows not in self.under_way:  # what is registered last is called first: before the ends of jax and of what writes
                    atexit.unregister(_close)
                    atexit.register(_close)
                    self.under_way.add(rows)
                yield block
        finally:
            rows.close()
            self.under_way.discard(rows)
        launch.refuse_unbuilt(self.run, self._made)

    def _here(self) -> Generator[np.ndarray]:
        from engine.process.runner import Runner

        with Writer(self.run) as writer:
            self._runner = Runner(self.run, writer)
            if self.interrupted:
                self._runner.ask(messages.Stop())
            yield from self._runner.blocks()

    def _from_engine(self) -> Generator[np.ndarray]:
        pid, rows, gone, asked = launch.start(self.run), RowTail(self.run), False, False
        try:
            while not gone:
                gone = has_ended(pid)  # before the rest is read: then that is all there is
                if self.interrupted and not (gone or asked):
                    asked = True
                    messages.send(self.run.path, messages.Stop())  # Ctrl-C has not reached it: its session is its own
                yield rows.poll()
                time.sleep(0 if gone else LOOK_SECONDS)
        except KeyboardInterrupt:  # the second: the engine is asked to stop, and writes its checkpoint by itself
            if not (gone or asked):
                messages.send(self.run.path, messages.Stop())
            gone = True
            raise
        finally:
            if not gone:
                messages.send(self.run.path, messages.Stop())
            while not (gone or has_ended(pid)):
                time.sleep(LOOK_SECONDS)
        if self.run.liveness() == "crashed":
            raise UserError(f"run {self.run.name}: its engine is gone without a word; {log_note(self.run)}")


def _close() -> None:
    """Stop the runs that are under way, each with its checkpoint."""
    for rows in list(Stepping.under_way):
        with suppress(ValueError):  # one that another thread is in the middle of
            rows.close()


def _after_fork() -> None:
    """What a process that was forked is: the runs that are under way are its parent's."""
    Stepping.forked_from_jax = Stepping.forked_from_jax or has_begun()
    Stepping.under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
