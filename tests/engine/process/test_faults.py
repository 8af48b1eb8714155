"""Nothing is lost: an engine that dies, or can write no more, at any of its writes; and what else befalls a run directory.

After each: no row is missing but a torn last one, none is there twice, no event either, every reader works, and the resumed
run equals an uninterrupted one bit for bit.
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from functools import cache

import numpy as np
import pytest

from engine.base import atomic, files
from engine.base.errors import BAD_INPUT, HELD
from engine.commands.main import main
from engine.jobs import launch
from engine.problems import build
from engine.process import runner
from engine.process.runner import Runner
from engine.process.state_file import StateFile
from engine.record import messages, store, writer
from engine.record.reader import Outcome, Run
from engine.record.writer import RESERVE_BYTES, Writer
from engine.report.comparison import outcomes
from engine.spec import load_spec, with_overrides

from places import ROOT
from small import toy_spec
from waiting import until

pytestmark = pytest.mark.usefixtures("x64")
PASSING = (messages.Started, messages.Finished, messages.CheckpointSkipped)


class Death(BaseException):
    """The engine is gone in the middle of a write."""


class Faults:
    """Counts the writes of an engine, and from one of them on fails every one: by death, or by an error of the system."""

    def __init__(self, monkeypatch, at: int, code: int | None):
        self.at, self.code, self.count = at, code, 0
        replace, truncate, fsync, append, create = os.replace, os.truncate, os.fsync, files.append_plain, files.create_plain
        monkeypatch.setattr(os, "replace", lambda *given: self.strike() or replace(*given))
        monkeypatch.setattr(os, "truncate", lambda *given: self.strike() or truncate(*given))
        monkeypatch.setattr(os, "fsync", lambda *given: self.strike() or fsync(*given))
        monkeypatch.setattr(writer, "append_plain", lambda *given, **options: Appended(self, append(*given, **options)))
        monkeypatch.setattr(atomic, "create_plain", lambda *given: self.created(create(*given)))
        monkeypatch.setattr(StateFile, "beat", lambda _: None)

    def strike(self, torn=lambda: None) -> None:
        self.count += 1
        if self.count >= self.at:
            if self.count == self.at:
                torn()
            raise Death if self.code is None else OSError(self.code, os.strerror(self.code))

    def created(self, handle):
        try:
            self.strike(lambda: handle.write(b"PK half an archive"))
        except BaseException:
            handle.close()
            raise
        return handle


class Appended:
    """A file of rows or events that may be torn in the middle of a write."""

    def __init__(self, faults: Faults, handle):
        self.faults, self.handle = faults, handle

    def write(self, body) -> int:
        self.faults.strike(lambda: self.handle.write(bytes(body)[: len(body) // 2]))
        return self.handle.write(body)

    def __getattr__(self, name: str):
        return getattr(self.handle, name)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()


@pytest.fixture
def cached_toy(monkeypatch):
    """One toy problem for every engine of this process: compiled once."""
    monkeypatch.setattr(build, "toy", cache(build.toy))


SPECS = {
    "toy": toy_spec(0.05, x0=0.3, anchor_every=3, landscape_every=0, gauges_every=0, flow=False, predictions=["transported"]),
    "phase": load_spec("phase", ["optimizer.learning_rate=0.001"]),
}
STEPS = {"toy": 6, "phase": 600}


def fresh(kind: str, name: str) -> Run:
    return store.create(with_overrides(SPECS[kind], [f"budget.steps={STEPS[kind]}", "recording.checkpoint_seconds=1e-9"]), name)


def carry_on(run: Run) -> Outcome:
    with Writer(run) as writer:
        return Runner(run, writer).work()


def reproducible(run: Run) -> np.ndarray:
    return run.rows()[:, [k for name, k in run.index.items() if name != "cost.seconds"]]


def contents(run: Run) -> list[tuple]:
    """The events of the computation, without their times."""
    return [(type(event), event.step, event.text) for event in run.events() if not isinstance(event, PASSING)]


def read_every_way(run: Run, capfd) -> np.ndarray:
    """The rows of a run that something befell, after every reader has had it."""
    reopened = Run(run.path)
    assert outcomes(reopened).run == run.name
    for argv in (["ls"], ["show", run.name], ["export", run.name], ["tail", run.name, "-n", "2"], ["tail", run.name, "--events"]):
        assert main(argv) == 0
    assert "Traceback" not in capfd.readouterr().err
    rows = reproducible(reopened)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(rows)))
    return rows


@pytest.mark.parametrize("code", [None, errno.ENOSPC, errno.EROFS, errno.EIO], ids=["death", "full disk", "read-only", "bad disk"])
@pytest.mark.parametrize("kind", SPECS)
def test_a_fault_at_any_write_loses_nothing(kind, code, cached_toy, capfd):
    whole = fresh(kind, "whole")
    with pytest.MonkeyPatch.context() as counting:
        faults = Faults(counting, 10**9, code)
        assert carry_on(whole).kind == "completed"
    for at in range(1, faults.count + 1, 4 if code in (None, errno.ENOSPC) else 12):  # the others are met as a full disk is
        run = fresh(kind, f"at{at}")
        with pytest.MonkeyPatch.context() as patched:
            Faults(patched, at, code)
            try:
                outcome = carry_on(run)
            except (Death, OSError):  # while the writer opened its files there is no runner yet to tell of it
                outcome = None
        if outcome is not None and outcome.kind != "completed":
            assert (outcome.kind, f"`eos resume at{at}`" in outcome.text) == ("failed", True)
        kept = read_every_way(run, capfd) if at % 7 == 0 else reproducible(run)
        assert carry_on(run).kind == "completed"
        np.testing.assert_array_equal(reproducible(run), reproducible(whole), err_msg=f"fault at write {at}")
        np.testing.assert_array_equal(kept, reproducible(run)[: len(kept)])
        assert contents(run) == contents(whole), f"fault at write {at}"
        shutil.rmtree(run.path)


def test_on_a_full_disk_there_is_room_for_the_last_words(own_home, cached_toy):
    run = fresh("toy", "one")
    with Writer(run) as writer:
        assert (run.path / ".reserve").stat().st_blocks * 512 >= RESERVE_BYTES
        writer.make_room()
        assert not (run.path / ".reserve").exists()
    with Writer(run):
        pass
    assert not (run.path / ".reserve").exists()


def kill_often(run: Run, times: int, seed: int) -> None:
    """Start the engine and kill it at a random moment, again and again; then let it end."""
    chance = random.Random(seed)
    for _ in range(times):
        pid = launch.start(run)
        moment = chance.random()
        if moment < 0.7:  # in the midst of its steps; else while it starts
            rows = min(run.row_count() + 1, run.spec.budget.steps)
            until(lambda rows=rows, pid=pid: run.row_count() >= rows or os.waitpid(pid, os.WNOHANG)[0])
        time.sleep(chance.random() * 0.3)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        rows = run.rows()[:, 0]
        np.testing.assert_array_equal(rows, np.arange(len(rows)))
    assert subprocess.run(launch.command(run), env=launch.environment(), timeout=200, check=False).returncode == 0


@pytest.mark.parametrize(("kind", "steps", "times"), [
    pytest.param("phase", 30_000, 3, marks=pytest.mark.slow),
    pytest.param("phase", 100_000, 100, marks=pytest.mark.slow),
    pytest.param("toy", 1500, 30, marks=pytest.mark.slow),
])  # fmt: skip
def test_engines_killed_at_random_moments_leave_the_record_of_one_that_was_not(kind, steps, times, monkeypatch, cached_toy):
    """A hundred deaths meet writes that no list of them foresees."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    spec = with_overrides(SPECS[kind], [f"budget.steps={steps}", "recording.checkpoint_seconds=0.02"])
    whole, killed = store.create(spec, "whole"), store.create(spec, "killed")
    assert carry_on(whole).kind == "completed"
    kill_often(killed, times, seed=len(kind))
    np.testing.assert_array_equal(reproducible(killed), reproducible(whole))
    assert contents(killed) == contents(whole)


def test_a_copy_of_a_live_run_is_read_and_goes_on(own_home, monkeypatch, cached_toy, capfd):
    """Whatever order its files are copied in: here the record first, and checkpoints of later steps after it."""
    whole = fresh("toy", "whole")
    assert carry_on(whole).kind == "completed"
    live = fresh("toy", "live")
    with Writer(live) as writer:
        steps = Runner(live, writer).blocks()
        next(steps)
        copy = own_home / "copy"
        shutil.copytree(live.path, copy, ignore=shutil.ignore_patterns("checkpoints", "events.jsonl"))
        for _ in range(3):
            next(steps)
        shutil.copytree(live.path / "checkpoints", copy / "checkpoints")
        shutil.copy(live.path / "events.jsonl", copy)
        steps.close()
    read_every_way(Run(copy), capfd)
    assert carry_on(Run(copy)).kind == "completed"
    np.testing.assert_array_equal(reproducible(Run(copy)), reproducible(whole))
    assert contents(Run(copy)) == contents(whole)


def test_torn_files_of_any_kind_leave_a_run_that_is_read_and_goes_on(own_home, cached_toy, capfd):
    whole = fresh("toy", "whole")
    carry_on(whole)
    for name in ("state.json", "provenance.json", "metrics.f64", "events.jsonl", "engine.log", "lock"):
        run = fresh("toy", name.replace(".", "-"))
        with Writer(run) as writer:
            steps = Runner(run, writer).blocks()
            for _ in range(3):
                next(steps)
            steps.close()
        for size in (0, 1):
            path = run.path / name
            body = path.read_bytes() if path.exists() else b"x"
            path.write_bytes(body[: len(body) // 2] if size else b"")
            read_every_way(run, capfd)
        if name == "metrics.f64":  # rows are gone that a checkpoint takes for granted: an older one, or the start, is gone back to
            assert run.row_count() == 0
        assert carry_on(run).kind == "completed"
        np.testing.assert_array_equal(reproducible(run), reproducible(whole), err_msg=name)


def test_a_clock_that_jumps_changes_no_row(cached_toy, monkeypatch):
    whole = fresh("toy", "whole")
    carry_on(whole)
    chance = random.Random(1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-1e9, 1e9))
    run = fresh("toy", "jumping")
    with Writer(run) as writer:
        blocks = Runner(run, writer).blocks()
        next(blocks)
        messages.send(run.path, messages.Checkpoint())
        for _ in blocks:
            assert run.liveness() in ("starting", "running")  # the next heartbeat says which
    np.testing.assert_array_equal(reproducible(run), reproducible(whole))
    assert run.liveness() == "finished"


def test_a_second_engine_leaves_the_first_alone(cached_toy, capfd, monkeypatch):
    monkeypatch.setattr(runner, "configure", lambda: None)
    run = fresh("toy", "one")
    with Writer(run) as writer:
        blocks = Runner(run, writer).blocks()
        next(blocks)
        assert main(["work", str(run.path)]) == HELD
        assert "another engine is at work on it" in capfd.readouterr().err
        assert main(["resume", "one"]) == HELD
        assert "its engine is" in capfd.readouterr().err
        for _ in blocks:
            pass
    assert run.state().outcome.kind == "completed"
    assert [type(event) for event in run.events()].count(messages.Started) == 1


def test_a_command_that_cannot_be_left_is_reported(own_home, capfd, cached_toy):
    run = fresh("toy", "one")
    (run.path / "inbox").rmdir()
    (run.path / "inbox").write_text("no folder")
    with Writer(run) as writer:
        blocks = Runner(run, writer).blocks()
        next(blocks)
        assert main(["pause", "one"]) == BAD_INPUT
        assert "the command could not be left there (Not a directory)" in capfd.readouterr().err
        for _ in blocks:
            pass
    assert run.state().outcome.kind == "completed"


def test_a_view_killed_in_the_middle_of_a_command_leaves_no_command(cached_toy):
    run = fresh("toy", "one")
    (run.path / "inbox" / ".00000000001-abc").write_bytes(b'{"command": "sto')
    assert carry_on(run).kind == "completed"
    assert not any(isinstance(event, messages.Refused) for event in run.events())
