"""Commands struck at their n-th system call: the process is killed there, or that call and perhaps every later one fails.

    python tests/striking.py HOME COMMAND HOW FIRST STRIDE     a line of JSON for each n, until one is reached that is not there
    python tests/striking.py HOME COMMAND undisturbed         for a tracer that strikes by itself; so `ready` before and `check` after

Every n is struck in a process of its own, forked before anything is open. What is struck are the calls that change something on the disk,
as Python announces them (`sys.addaudithook`), and fsync, of which it announces nothing.
"""

import errno
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from engine.base.errors import UserError
from engine.jobs import launch, sweep
from engine.jobs.fork import fork
from engine.record import messages, store
from engine.record.store import Outcome, Run, State, Writer
from engine.spec import load_spec

from synthetic import make_run, rows_of

CHANGING = (
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.chmod", "fcntl.flock", "fsync",
)  # fmt: skip
STEPS, AT = 60, 40
HOWS: dict[str, tuple[int, bool]] = {
    "kill": (0, False), "full": (errno.ENOSPC, True), "once": (errno.EIO, False), "read-only": (errno.EROFS, True),
}  # fmt: skip
"""What a call says, and whether every later one says it too."""


class Struck:
    """Counts the calls, and strikes from the n-th on."""

    def __init__(self, n: int, how: str):
        self.n, self.count, (self.code, self.lasts) = n, 0, HOWS[how]
        real = os.fsync
        os.fsync = lambda descriptor: self.strike("fsync") or real(descriptor)
        sys.addaudithook(self.heard)

    def heard(self, event: str, given: tuple) -> None:
        writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGING:
            self.strike(event)

    def strike(self, event: str) -> None:
        self.count += 1
        if self.count == self.n or (self.lasts and self.count > self.n):
            if not self.code:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.code, os.strerror(self.code), event)


# -- commands, each on a folder of runs as it is made ready for them


def ready(where: Path, command: str) -> None:
    """What there is before the command."""
    if command == "create":
        return
    if command == "sweep":
        (where / sweep_points()[0].name / "inbox").mkdir(parents=True)  # half a run, as an earlier version left it
        return
    made = make_run(where, AT if command == "resume" else STEPS, "one", finished=command != "resume")
    with Writer(made) as writer:
        writer.checkpoint(AT, {"phase": np.array("edge"), "state.theta": np.arange(3.0)}, keep=3)


def sweep_points() -> list[sweep.Point]:
    return sweep.points("phase", [sweep.axis("seed=0,1")], ["budget.steps=20"])


def carry(where: Path, command: str) -> None:
    """The command."""
    if command == "create":
        store.create(load_spec("toy"), "one", where)
    elif command == "fork":
        fork(Run(where / "one"), AT, ["optimizer.learning_rate=0.031", "budget.steps=900"], "two")
    elif command == "rm":
        store.discard("one", where=where)
    elif command == "resume":
        launch.subprocess.Popen = lambda *_, **__: SimpleNamespace(pid=2**22 + 7, returncode=None)
        launch.restart(Run(where / "one"))
        work(Run(where / "one"))
    else:
        sweep.launch.start = lambda run: work(run) or 2**22 + 7
        sweep.LOOK_SECONDS = 0.0
        sweep.sweep(sweep_points(), 1)


def work(run: Run) -> None:
    """What an engine does to a run: the rest of the rows, one step at a time, with checkpoints and a last word."""
    with Writer(run) as writer:
        for step in range(writer.last_step + 1, STEPS):
            writer.append(rows_of(run, step, step + 1) if run.name == "one" else np.full((1, len(run.columns)), step))
            if step % 10 == 0:
                writer.checkpoint(step + 1, {"phase": np.array("edge")}, keep=2)
                writer.state(State(status="running", step=step, pid=os.getpid(), host=socket.gethostname()))
        outcome = Outcome(kind="completed", step=STEPS, text="completed")
        writer.checkpoint(STEPS, {"phase": np.array("edge")}, keep=2)
        writer.state(State(status="finished", step=STEPS, outcome=outcome))
        writer.event(messages.Finished(step=STEPS, text="completed", outcome="completed"))


# -- what holds after each


def whole(run: Run, steps: int) -> None:
    """Every row is there, once."""
    np.testing.assert_array_equal(run.rows()[:, 0], np.arange(steps))
    assert run.id


def check(where: Path, command: str, done: bool) -> None:
    """Nothing half made is seen, what was acknowledged is there, and the same command again does what is left; whatever stays hidden goes
    with the next one.
    """
    runs = {run.name: run for run in store.all_runs(where)}
    shown = {entry.name for entry in os.scandir(where) if store.NAME.match(entry.name)}
    acknowledge(runs)
    for run in runs.values():
        os.utime(run.path / "spec.toml", (0, 0))  # no engine is to be expected there any more
    if command == "create":
        assert set(runs) == shown <= {"one"}
        if not runs:
            carry(where, command)
        assert store.Run(where / "one").spec == load_spec("toy")
    elif command == "fork":
        assert {"one"} <= set(runs) == shown
        whole(runs["one"], STEPS)
        assert done <= ("two" in runs)
        if "two" not in runs:
            carry(where, command)
        two = Run(where / "two")
        whole(two, AT)
        [(_, leaves)] = store.load_checkpoint(two)
        assert (two.spec.optimizer.learning_rate, leaves[store.CHANGED_RATE]) == (0.031, 0.031)
        assert [type(event) for event in two.events()][-1] is messages.Forked
    elif command == "rm":
        assert set(runs) == shown <= {"one"}
        if runs:
            whole(runs["one"], STEPS)
            carry(where, command)
        assert store.all_runs(where) == []
    elif command == "resume":
        if runs["one"].state().status != "finished":
            carry(where, command)
        whole(Run(where / "one"), STEPS)
        assert Run(where / "one").liveness() == "finished"
    else:
        carry(where, command)
        ended = [(run.name, run.liveness()) for run in store.all_runs(where)]
        assert ended == [(name, "finished") for name, _ in ended], ended
        assert {name for name, _ in ended} == {point.name for point in sweep_points()}
    for run in store.all_runs(where):
        os.utime(run.path / "spec.toml", (0, 0))  # no engine is to be expected there any more
        store.discard(run.name, where=where)
    store.clear(where)
    assert [*where.iterdir()] == []


def acknowledge(runs: dict[str, Run]) -> None:
    """Every row that a state speaks of is there."""
    for run in runs.values():
        assert run.state().recorded < max(run.row_count(), 0) or run.state().recorded == -1


def struck(where: Path, command: str, how: str, n: int) -> bool:
    """Whether the n-th call was there to be struck; everything holds after it."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    ready(where, command)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        strikes, said = Struck(n, how), "done"
        try:
            carry(where, command)
        except (UserError, OSError) as error:
            said = type(error).__name__
        except BaseException as error:  # the parent is to tell it
            said = f"! {error!r}"
        os.write(writing, json.dumps([said, strikes.count >= n]).encode())
        os._exit(0)
    os.close(writing)
    body = os.read(reading, 65536)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    said, reached = json.loads(body) if body else ("killed", True)
    assert os.WIFSIGNALED(status) == (said == "killed"), (said, status)
    assert not said.startswith("!"), said
    check(where, command, said == "done")
    return reached


def main(where: Path, command: str, how: str, first: int = 1, stride: int = 1) -> int:
    """Strike the command at every so many of its calls."""
    os.environ["EOS_HOME"] = str(where)
    if how == "undisturbed":
        carry(where, command)
        return 0
    if how in ("ready", "check"):
        where.mkdir(exist_ok=True)
        ready(where, command) if how == "ready" else check(where, command, False)
        return 0
    n = first
    while struck(where, command, how, n):
        n += stride
    print(json.dumps({"command": command, "how": how, "calls": n}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])))
