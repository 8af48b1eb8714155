"""Legs of a run that goes on elsewhere: some steps on so many simulated devices, by one process or by several."""

import os
import subprocess
import sys

from engine.jobs.groups import Group
from engine.record.reader import Run

from places import ROOT, TESTS


def take(run: Run, steps: int, devices: int, port: int = 0, overwrites: bool = False) -> None:
    """Take steps, to a checkpoint after the last: in one process of so many devices, or in two that meet at a `port`. Where it
    `overwrites`, the new state lies where the old one lay, as with many parameters."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    around = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{TESTS}"}
    groups = [Group(f"127.0.0.1:{port}", 2, process).options() for process in (0, 1)] if port else [[]]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "legs", str(run.path), str(steps), str(int(overwrites)), *group],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=around,
        )
        for group in groups
    ]  # fmt: skip
    outputs = [process.communicate(timeout=500) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), outputs
    assert run.state().device == f"CPU ×{devices * len(started)}{' in 2 processes' * bool(port)}"


def _leg(path: str, steps: str, overwrites: str, *options: str) -> None:
    import engine

    engine.configure(sparing=bool(options))
    from engine.jobs.groups import asked
    from engine.phases import edge, step_in_parts
    from engine.process.lockstep import follow
    from engine.process.rendezvous import leave
    from engine.process.runner import Runner
    from engine.record import messages
    from engine.record.writer import Writer

    if int(overwrites):
        edge.LARGE = step_in_parts.LARGE = 1
    group = asked(options[1], int(options[3]), int(options[5])) if options else None
    if group is not None and group.process:
        follow(group)
    run = Run(path)
    with Writer(run) as writer:
        runner = Runner(run, writer, group)
        runner.ask(messages.Advance(steps=int(steps)))
        for _ in runner.blocks():
            if runner.status == "paused":
                runner.ask(messages.Stop())
    assert runner.outcome is not None
    assert runner.outcome.kind == "stopped", runner.outcome.text
    if group is not None:
        leave(0)


if __name__ == "__main__":
    _leg(*sys.argv[1:])
