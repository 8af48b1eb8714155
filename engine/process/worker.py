"""To be the engine of a run directory: what every engine process does, with as little as can be before its lock is taken."""

import gc
import signal
from collections.abc import Callable

from engine.base import stuck
from engine.base.exit import STOPPING
from engine.jobs.groups import Group
from engine.record import lock, messages, trust
from engine.record.reader import Run
from engine.record.writer import Writer


def density(run: Run, command: messages.Density, tell: Callable[[str], None]) -> messages.DensityTaken:
    """Read the whole spectrum of a run that is over, in this process, at its newest checkpoint; each part is told before it is computed."""
    tell("jax begins")
    from engine.process import whole_spectrum

    return whole_spectrum.of_last_checkpoint(run, command, tell)


def work(directory: str, group: Group | None = None, code: str = "") -> int:
    """Carry the run in a directory to its end, or on from its latest checkpoint. Returns the exit status; in a group it ends the process.

    `code` is the digest of the code that it may execute, as whoever starts it has seen it; without, the run is to be signed.
    """
    stuck.wait_for_disk()
    run = Run(directory)
    trust.need(run.path, run.spec, code)  # what is read here, whatever the caller has read
    # The lock first: where importing jax takes long, a run without one would look crashed.
    with Writer(run, lock.process_age()) as writer:
        asked: list[int] = []  # before there is anything that could stop: importing jax takes seconds
        for number in STOPPING:
            signal.signal(number, lambda number, _: asked.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # whoever starts it may keep them for a thread of its own
        gc.disable()  # until there is a row: what is imported and traced up to it stays
        try:
            from engine.process import runner

            status = runner.work(run, writer, group, asked)
        finally:
            gc.enable()
    if group is not None:
        from engine.process.rendezvous import leave

        leave(status)
    return status
