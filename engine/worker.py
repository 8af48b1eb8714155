"""To be the engine of a run directory: what every engine process does, with as little as can be before its lock is taken."""

import gc

from engine.hosts import Group
from engine.store import Run, Writer


def work(directory: str, group: Group | None = None) -> int:
    """Carry the run in a directory to its end, or on from its latest checkpoint. Returns the exit status."""
    run = Run(directory)
    with Writer(run) as writer:  # the lock first: where importing jax takes long, a run without one would look crashed
        gc.disable()  # until there is a row: what is imported and traced up to it stays
        try:
            from engine import runner

            return runner.work(run, writer, group)
        finally:
            gc.enable()
