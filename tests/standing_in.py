"""An engine's stand-in, without jax: python standing_in.py SECONDS RUN takes the run's lock, says that it works, and completes it.

SIGTERM, or a stop in its inbox, ends it as it ends an engine; with `deaf` for SECONDS nothing does.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from engine.base.exit import status_of
from engine.record import messages
from engine.record.reader import Outcome, Run, State
from engine.record.writer import Writer

STAND_IN = Path(__file__)


def main(seconds: str, path: str) -> int:
    """Be the engine of a run for so many seconds."""
    deaf, run, asked = seconds == "deaf", Run(path), list[int]()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: asked.append(number))
    with Writer(run) as writer:

        def say(status, outcome=None):
            writer.state(State(status=status, pid=os.getpid(), host=socket.gethostname(), heartbeat=time.time(), outcome=outcome))

        say("running")
        with open(os.environ.get("STARTS", os.devnull), "a") as starts:
            starts.write(f"{run.name}\n")
        until = time.monotonic() + (60 if deaf else float(seconds))
        while deaf or not (asked or time.monotonic() > until or messages.receive(run.path).commands):
            time.sleep(0.02)
        kind = "completed" if time.monotonic() > until else "stopped"
        say("finished", Outcome(kind=kind, step=0, text=f"{kind}, as far as a stand-in can"))
    return 0


if __name__ == "__main__":
    sys.exit(status_of(lambda: main(*sys.argv[1:])))
