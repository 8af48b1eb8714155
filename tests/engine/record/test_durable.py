"""The truth of the record: what a run says is on the disk, a run is known by its id, and a lock says who has it, with flock or without."""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.base.errors import BAD_INPUT, HELD, NO_PLACE, NO_PORT, UserError
from engine.commands.main import main
from engine.jobs import follow, groups, launch, sweep
from engine.jobs.groups import Group
from engine.record import lock, messages, store
from engine.record.lock import DisplacedError, HeldError
from engine.record.messages import SetLearningRate, Stop
from engine.record.reader import Outcome, Run, State
from engine.record.writer import TAKEN, Writer
from engine.spec import load_spec
from eos_tui import doctor
from eos_tui.model.source import Source

from synthetic import FakeEngine, make_run, rows_of
from waiting import until


@pytest.fixture
def run(own_home):
    return make_run(own_home, 20, "one", finished=False)


def own(run: Run, age: float = 0.0, **state) -> None:
    """A last word of an engine elsewhere, so many seconds ago by the clock of the file system."""
    path = run.path / "state.json"
    path.write_bytes(msgspec.json.encode(State(**{"status": "running", "pid": 1, "host": "elsewhere"} | state)))
    os.utime(path, (path.stat().st_mtime - age,) * 2)


def no_flock(*_) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


# -- acknowledged, and durable


def test_what_a_state_acknowledges_was_flushed_before_it_could_be_seen(run, monkeypatch):
    """The loss of power, at any moment: of each file what was flushed is left, and of a renamed one what it was when it was renamed."""
    flushed: dict[int, int] = {}  # inode -> bytes that are on the disk for good
    seen: list[State] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        flushed[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def replace(draft, final) -> None:
        entry = Path(draft).stat()
        assert flushed.get(entry.st_ino) == entry.st_size, f"{final} might be empty after a loss of power"
        if Path(final).name == "state.json":
            state = msgspec.json.decode(Path(draft).read_bytes(), type=State)
            rows = flushed.get((run.path / "metrics.f64").stat().st_ino, 0) // (8 * len(run.columns))
            assert state.recorded < rows
            seen.append(state)
        real_replace(draft, final)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with Writer(run) as writer:
        for step in range(20, 60, 2):
            writer.append(rows_of(run, step, step + 2))
            if step % 4 == 0:
                writer.state(State(status="running", step=step + 2))
            if step % 10 == 0:
                writer.checkpoint(step + 2, {"theta": np.arange(3.0)}, keep=2)
        writer.state(State(status="paused", step=60))
    assert [state.recorded for state in seen] == [*range(21, 60, 4), 59]
    assert all(state.engine == writer.engine for state in seen)


def test_after_a_flush_that_failed_nothing_is_acknowledged_any_more(run, monkeypatch):
    """The system tells of it once, and takes the rows for written from then on."""
    with Writer(run) as writer:
        writer.append(rows_of(run, 20, 22))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
            with pytest.raises(OSError, match="Input/output"):
                writer.state(State(status="running"))
        for act in (lambda: writer.state(State()), lambda: writer.append(rows_of(run, 22, 23)), lambda: writer.checkpoint(9, {}, 1)):
            with pytest.raises(OSError, match="Input/output"):
                act()
    assert run.state().recorded == 19


def test_a_new_run_is_on_the_disk_before_it_has_its_name(own_home, monkeypatch):
    flushed, real = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: real(descriptor) or flushed.add(os.fstat(descriptor).st_ino))
    rename = Path.rename

    def renamed(path: Path, to: Path) -> Path:
        needed = [path, path / "spec.toml", path / "columns.json", path / "identity.json"]
        assert {each.stat().st_ino for each in needed} <= flushed
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", renamed)
    made = store.create(load_spec("toy"), "new")
    assert own_home.stat().st_ino in flushed
    assert [entry.name for entry in own_home.iterdir()] == [made.name]


def test_rows_that_are_none_of_the_run_are_cut_off_and_reported_and_what_is_no_record_is_left_alone(run):
    record, width = run.path / "metrics.f64", len(run.columns)
    body = record.read_bytes()
    future = rows_of(run, 20, 21)
    future[0, 0] = 1e9
    zeros = b"\0" * 8 * width * 3
    for tail, words in ((future.tobytes(), "the last said step 1e+09, where 20 was due"), (zeros, "step 0, where 22 was due")):
        record.write_bytes(body + tail)
        with Writer(run) as writer:
            assert (writer.last_step, words in writer.cut) == (19, True)
        assert record.read_bytes() == body
    columns = json.loads((run.path / "columns.json").read_text())
    (run.path / "columns.json").write_text(json.dumps(columns[:-7]))
    (run.path / "state.json").unlink()  # which names the layout of the rows; that of an earlier version does not
    with pytest.raises(UserError, match=r"these are not the columns of columns.json; the run cannot go on"):
        Writer(Run(run.path))
    assert record.read_bytes() == body[: len(body) // (8 * (width - 7)) * 8 * (width - 7)]


# -- a run by its id and its folder


def test_an_engine_a_view_and_a_command_stay_with_their_run_when_another_takes_its_name(run, own_home):
    view, held = Source(run), run.held()
    with FakeEngine(run) as first:
        run.path.rename(own_home / "away")
        other = make_run(own_home, 20, "one", finished=False)
        with FakeEngine(other) as second:
            first.writer.append(rows_of(run, 20, 25))
            first.say()
            assert (Run(own_home / "away").row_count(), other.row_count()) == (25, 20)
            assert Run(own_home / "away").state().engine == first.writer.engine != other.state().engine
            assert first.writer.displaced == f"{run.path} is another folder now: this run was moved away"
            view.take(view.read())
            assert (len(view.history), view.displaced) == (25, first.writer.displaced)
            assert view.live
            view.tell(messages.Pause())
            messages.send(held.path, messages.Checkpoint())
            until(lambda: len(first.commands) == 2)
            assert (len(first.commands), second.commands) == (2, [])
            with pytest.raises(UserError, match=r"another run lies at .* by now; give the command again"):
                run.held()
    store.remove(Run(own_home / "away"))
    assert view.read().condition == "removed"


def test_what_is_wrong_with_a_file_is_said_by_the_path_that_a_user_knows(run):
    held, record, inbox = run.held(), run.path / "metrics.f64", run.path / "inbox"
    body = record.read_bytes()
    record.write_bytes(np.full(len(body) // 8, 0.5).tobytes())
    with pytest.raises(UserError) as first:
        Writer(run)
    record.unlink()
    record.mkdir()
    with pytest.raises(UserError) as second:
        held.rows()
    with pytest.raises((UserError, OSError)) as third:
        Writer(run)
    inbox.rmdir()
    inbox.touch()
    with pytest.raises(UserError) as fourth:
        messages.send(held.path, Stop())
    for error, path in ((first, record), (second, record), (third, record), (fourth, inbox)):
        assert (str(path) in str(error.value), "/proc/" in str(error.value)) == (True, False), error.value


def test_commands_carry_the_engine_that_holds_the_run_and_no_other(run):
    with Writer(run) as writer:
        messages.send(run.path, Stop())
        [command] = messages.receive(run.path).commands
        assert command.engine == writer.engine == run.engine()
    messages.send(run.path, SetLearningRate(learning_rate=0.1))
    [command] = messages.receive(run.path).commands  # for whichever engine comes
    assert command.engine == ""


def test_a_command_sent_as_an_engine_takes_over_from_one_that_was_killed_is_for_the_new_one(run):
    killed = msgspec.structs.replace(lock.engine_of(run.path), pid=2**22 + 7)
    (run.path / lock.LOCK).write_bytes(msgspec.json.encode(killed))
    messages.send(run.path, Stop())
    [command] = messages.receive(run.path).commands
    assert command.engine == ""


def test_a_command_left_for_an_engine_that_is_gone_is_reported_and_not_carried_out(own_home, x64):
    from engine.process.runner import Runner

    run = store.create(load_spec("phase", ["budget.steps=30"]), "stale")
    messages.send(run.path, Stop(), "0" * 32)
    messages.send(run.path, Stop())
    with Writer(run) as writer:
        assert Runner(run, writer).work().kind == "completed"
    refusals = [event.text for event in run.events() if isinstance(event, messages.Refused)]
    assert refusals == ["Stop: left for an engine of this run that is gone, so not carried out; give it again if it still holds"] * 2


@pytest.mark.parametrize("dies", [
    "between", pytest.param("before", marks=pytest.mark.slow), pytest.param("after", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_fork_goes_on_at_its_own_learning_rate_wherever_its_first_engine_dies(dies, own_home, x64, monkeypatch):
    """Before the checkpoint with the change, between that and the event that tells it, and after it."""
    from engine.jobs.fork import fork
    from engine.process.recorder import Recorder
    from engine.process.runner import Runner

    from small import toy_spec

    run = store.create(load_spec_of(toy_spec(0.02), "budget.steps=4"), "first")
    with Writer(run) as writer:
        Runner(run, writer).work()
    made = fork(run, 4, ["optimizer.learning_rate=0.025", "budget.steps=8"], "second")

    class Death(BaseException):
        pass

    def die(*_, **__):
        raise Death

    with monkeypatch.context() as patched:
        if dies == "before":
            patched.setattr(Writer, "checkpoint", die)
        emit = Recorder.emit
        has_changed = lambda events: any(isinstance(event, messages.LearningRateChanged) for event in events)  # noqa: E731
        if dies == "between":
            patched.setattr(Recorder, "emit", lambda self, events: die() if has_changed(events) else emit(self, events))
        if dies == "after":
            patched.setattr(Recorder, "emit", lambda self, events: emit(self, events) or (die() if has_changed(events) else None))
        with pytest.raises(Death), Writer(made) as writer:
            Runner(made, writer).work()
    with Writer(made) as writer:
        Runner(made, writer).work()
    assert (made.rows()[4:, made.index["learning_rate"]] == 0.025).all()
    assert len(made.rows()) == 8
    assert [event.step for event in made.events() if isinstance(event, messages.LearningRateChanged)] == [4]


def load_spec_of(spec, *overrides):
    from engine.spec import with_overrides

    return with_overrides(spec, overrides)


# -- who has it


@pytest.mark.parametrize("flock", [True, False])
def test_a_lock_is_one_engines_and_is_free_when_that_one_is_gone(run, flock, monkeypatch):
    if not flock:
        monkeypatch.setattr(fcntl, "flock", no_flock)
    with Writer(run):
        assert (run.is_locked(), run.liveness()) == (True, "paused")
        with pytest.raises(HeldError, match="another engine is at work on it; `eos attach one` shows it"):
            Writer(run)
    assert (run.is_locked(), run.liveness()) == (False, "crashed")
    gone = msgspec.structs.replace(lock.engine_of(run.path), pid=2**22 + 7)  # no process has so large a number
    (run.path / lock.HELD).write_bytes(msgspec.json.encode(gone))
    assert run.liveness() == "crashed"
    with Writer(run):
        pass
    assert not (run.path / lock.HELD).exists()


def test_a_lock_file_of_another_host_is_taken_over_by_force_alone_and_the_other_engine_notices(run, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr("engine.jobs.launch.start", lambda run, group=None: 1)
    here = lock.this_process()
    with Writer(run) as writer:
        there = msgspec.structs.replace(writer.lock.holder, system="another", host="elsewhere")
        (run.path / lock.HELD).write_bytes(msgspec.json.encode(there))
        own(run)
        assert run.liveness() == "running"
        own(run, 60)
        assert run.liveness() == "silent"
        with pytest.raises(HeldError, match=r"an engine on elsewhere has it, by its file lock.held, .* `eos resume one --force`"):
            Writer(run)
        with pytest.raises(UserError, match="its engine on elsewhere is silent but may still be at work"):
            launch.restart(run)
        assert launch.restart(run, force=True) == 1
        with Writer(run) as second:
            assert second.lock.holder.system == here.system
            with pytest.raises(DisplacedError, match="another engine was given the run"):
                writer.state(State(status="running"))
            for act in (lambda: writer.append(rows_of(run, 20, 21)), lambda: writer.checkpoint(3, {}, 1)):
                with pytest.raises(DisplacedError):
                    act()
            second.state(State(status="running"))
    assert run.row_count() == 20


def test_an_engine_that_was_displaced_ends_and_writes_nothing_more(own_home, x64, monkeypatch):
    from engine.process import runner, state_file

    run = store.create(load_spec("phase", ["budget.steps=1000000", "optimizer.learning_rate=1e-5"]), "taken")
    monkeypatch.setattr(state_file, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(runner, "configure", lambda **_: None)
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    with Writer(run) as first:
        took = lock.take
        advance = runner.Runner.advance
        monkeypatch.setattr(runner.Runner, "advance", lambda self, experiment: lock.break_lock(run.path) or advance(self, experiment))
        assert runner.work(run, first) == HELD
        events, state = len(run.events()), (run.path / "state.json").read_bytes()
        took(run.path, "taken").close()
    assert (len(run.events()), (run.path / "state.json").read_bytes()) == (events, state)
    assert not any(isinstance(event, messages.Finished) for event in run.events())


@pytest.mark.parametrize("how", ["forced", "moved"])
def test_an_engine_that_is_displaced_at_its_last_word_says_so_and_loses_nothing(how, own_home, x64, monkeypatch, capfd):
    """By --force, or where a folder is known by its name alone, as elsewhere than on Linux: another run has the name."""
    from engine.process import runner

    run, save, ours = store.create(load_spec("phase", ["budget.steps=20"]), "taken"), runner.Checkpoints.save, own_home / "taken"
    if how == "moved":
        is_it = lock.Folder.is_at
        monkeypatch.setattr(lock.Folder, "is_at", lambda self, path: not str(path).startswith("/proc") and is_it(self, path))
        ours = own_home / "elsewhere"

    def save_and_be_displaced(self, experiment, owed=()):
        path = save(self, experiment, owed)
        if how == "moved":
            run.path.rename(ours)
            store.create(run.spec, "taken")
        else:
            lock.break_lock(run.path)
        (run.path / "state.json").write_bytes(b"{}")
        (run.path / ".reserve").write_bytes(b"another's")
        return path

    monkeypatch.setattr(runner, "configure", lambda **_: None)
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    monkeypatch.setattr(runner.Checkpoints, "save", save_and_be_displaced)
    with Writer(run) as writer:
        assert runner.work(run, writer) == HELD
    why = f"{run.path} is another folder now: this run was moved away" if how == "moved" else TAKEN
    [said] = capfd.readouterr().err.splitlines()
    assert said == f"run taken: {why}; this one ends, and what it computed since its last row is not written"
    assert [(run.path / name).read_bytes() for name in ("state.json", ".reserve")] == [b"{}", b"another's"]
    (ours / "state.json").unlink()
    kept = Run(ours)
    np.testing.assert_array_equal(kept.rows()[:, 0], range(20))
    assert kept.checkpoints()[-1].name == "step-000000020.npz"
    assert not any(isinstance(event, messages.Finished) for event in kept.events())


def test_the_same_name_of_another_start_of_this_host_is_this_host(run):
    """A machine that lost its power is not another one, and its runs are crashed, not silent."""
    there = msgspec.structs.replace(lock.engine_of(run.path), system="the start before", pid=1)
    (run.path / lock.LOCK).write_bytes(msgspec.json.encode(there))
    own(run, 60, host=socket.gethostname())
    assert run.liveness() == "crashed"


def test_doctor_says_where_there_is_no_flock(own_home, monkeypatch):
    own_home.mkdir()
    assert doctor.locks(own_home)[0].verdict == "good"
    monkeypatch.setattr(fcntl, "flock", no_flock)
    [finding] = doctor.locks(own_home)
    assert (finding.verdict, "has no flock: a file lock.held with its engine's id and host locks a run" in finding.state) == ("note", True)


# -- every error its own sentence, and status


@pytest.mark.parametrize(("status", "log", "kind", "words"), [
    (HELD, "", HeldError, "another engine was first, and is at work on it"),
    (BAD_INPUT, "eos: run one: what the engine said\n", UserError, "run one: what the engine said"),
    (NO_PORT, "eos: --coordinator h:1: port 1 is taken\n", UserError, "port 1 is taken"),
])  # fmt: skip
def test_an_engine_that_never_began_says_why(run, status, log, kind, words, monkeypatch):
    (run.path / "engine.log").write_text(f"noise\n{log}more noise\n")
    monkeypatch.setitem(follow.exit_statuses, 77, status)
    error = follow.refusal(run, 77)
    assert (type(error), words in str(error), error.status) == (kind, True, status)


def test_an_engine_that_was_killed_is_no_want_of_memory_for_sure(run, monkeypatch):
    for status, words in ((-9, "killed (SIGKILL, by somebody or by the system for want of memory)"), (-15, "killed (SIGTERM)"),
                          (1, "ended with status 1 and no outcome"), (None, "gone without a word")):  # fmt: skip
        monkeypatch.setitem(follow.exit_statuses, 78, status)
        assert words in follow.gone_words(run, 78)
        assert follow.refusal(run, 78) is None


def test_a_port_that_is_taken_is_reported_before_anything_is_made(own_home, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        group = Group(f"127.0.0.1:{port}", 2, 0)
        assert main(["run", "toy", "--name", "never", *group.options()]) == NO_PORT
        assert f"port {port} is taken by another process on this host; give another one to all processes" in capfd.readouterr().err
        groups.need_port(group._replace(process=1))
    assert not (own_home / "never").exists()
    groups.need_port(group)


def test_a_place_that_another_process_has_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(groups, "places_taken", [])
    groups.take_place(Group("n1:4000", 2, 1))
    groups.take_place(Group("n1:4001", 2, 1))
    with pytest.raises(UserError, match=r"--process 1: another process on this host is that one already, at n1:4000") as refused:
        groups.take_place(Group("n1:4000", 2, 1))
    assert refused.value.status == NO_PLACE
    for descriptor in groups.places_taken:
        os.close(descriptor)


# -- half made, and half gone


def test_half_a_run_is_removed_by_its_name_and_another_folder_is_not(own_home, capfd):
    (own_home / "half" / "inbox").mkdir(parents=True)
    (own_home / "half" / "metrics.f64").touch()
    (own_home / "mine").mkdir()
    (own_home / "mine" / "thesis.tex").touch()
    assert main(["rm", "half"]) == 0
    assert main(["rm", "mine"]) == BAD_INPUT
    assert main(["rm", "nothing"]) == BAD_INPUT
    assert "not found" in capfd.readouterr().err
    assert [entry.name for entry in own_home.iterdir()] == ["mine"]


@pytest.mark.parametrize("words", [["rm"], ["show"], ["resume"], ["run"]])
def test_a_link_that_leads_in_a_circle_is_no_run_and_no_preset(words, own_home, capfd):
    own_home.mkdir()
    (own_home / "loop.toml").symlink_to("loop.toml")
    assert main([*words, str(own_home / "loop.toml")]) == BAD_INPUT
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_run_is_removed_from_within_and_reported_by_its_name(own_home, monkeypatch, capfd):
    run = make_run(own_home, 5, "here")
    monkeypatch.chdir(run.path)
    assert main(["rm", "."]) == 0
    assert capfd.readouterr().err == "run here: removed\n"
    assert [*own_home.iterdir()] == []


def test_what_was_begun_by_a_process_that_is_gone_is_finished_and_what_is_being_made_is_left(own_home):
    own_home.mkdir()
    mark, gone, mine = lock.system_mark(), 2**22 + 7, os.getpid()
    names = {f".eos-making-{mark}-{gone}-{'0' * 16}": False, f".eos-making-{mark}-{mine}-{'1' * 16}": True,
             f".eos-making-{'f' * 8}-{gone}-{'2' * 16}": True, f".eos-removing-{mark}-{mine}-{'3' * 16}-old": False}  # fmt: skip
    for name in names:
        (own_home / name / "inbox").mkdir(parents=True)
    assert store.clear(own_home) == ["old"]
    assert {entry.name for entry in own_home.iterdir()} == {name for name, stays in names.items() if stays}


def test_a_sweep_waits_for_a_silent_point_and_takes_it_over_after_so_long(own_home, monkeypatch, capfd):
    [point] = sweep.points("phase", [sweep.axis("seed=3")], ["budget.steps=20"])
    run = store.create(point.spec, point.name)
    started = []

    def start(run, group=None):
        started.append(run.name)
        with Writer(run) as writer:
            writer.state(State(status="finished", outcome=Outcome(kind="completed", step=1, text="completed")))
        return 2**22 + 7

    monkeypatch.setattr(launch, "start", start)
    own(run, 120)
    assert not sweep.may_be_taken(run, 600)
    assert sweep.may_be_taken(run, 100)
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.01)
    ages = iter([50.0] * 5 + [700.0] * 99)
    monkeypatch.setattr(Run, "unchanged_for", lambda self: next(ages))
    assert sweep.sweep([point], 1).status == 0
    err = capfd.readouterr().err
    assert started == [point.name]
    assert "is silent but may still be at work" in err
    assert "taken over from another host; where it still works, both write one record until it notices" in err


def test_a_point_that_a_silent_host_holds_is_free_after_so_long_and_one_that_is_begun_anew_here_is_not(run):
    with Writer(run) as writer:
        own(run, outcome=Outcome(kind="stopped", step=3, text=""), status="finished", pid=0)
        assert not sweep.may_be_taken(run, 0)  # it had ended, and an engine here has not said a word yet
        there = msgspec.structs.replace(writer.lock.holder, system="another", host="elsewhere")
        (run.path / lock.LOCK).write_bytes(msgspec.json.encode(there))  # on a file system that tells of flock across hosts
        own(run, 700)
        assert (run.liveness(), run.is_locked(), sweep.is_busy(run)) == ("silent", True, False)
        assert [sweep.may_be_taken(run, seconds) for seconds in (600, 1000)] == [True, False]


def test_a_later_process_with_the_number_of_one_that_is_gone_is_not_taken_for_it():
    mine = lock.engine_of(Path.cwd())
    assert mine.is_alive is True
    assert msgspec.structs.replace(mine, began="1").is_alive is False
    assert msgspec.structs.replace(mine, space="pid:[1]").is_alive is None


def test_a_half_made_run_of_a_figure_is_made_anew(own_home, monkeypatch, capfd):
    from engine.figures import catalog, runs

    want = runs.wanted(catalog.named("fig1"), True)[0]
    (own_home / want.name / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(launch, "start", lambda run, group=None: 1)
    assert runs.read(want) is None
    assert runs.start(want)[0].spec == want.spec
    assert capfd.readouterr().err == f"{want.name}: was there half made, and is made anew\n"
