"""A run directory: what is written is read, whatever happened in between."""

import io
import json
import os
import socket
import stat
import time
import zipfile
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import UserError
from engine.jobs import launch
from engine.record import lock, messages, store
from engine.record.arrays import load_checkpoint
from engine.record.reader import EventTail, Liveness, RowTail, Run, State
from engine.record.writer import Writer

from fuzzing import TIMES, fuzz
from small import toy_spec


@pytest.fixture
def run():
    return store.create(toy_spec(), "run")


def block(run: Run, first: int, count: int) -> np.ndarray:
    rows = np.full((count, len(run.columns)), np.nan)
    rows[:, 0] = np.arange(first, first + count)
    rows[:, 1] = np.random.default_rng(first).normal(size=count)
    return rows


def test_rows_are_read_as_they_were_written(run):
    written = block(run, 0, 7)
    tail = RowTail(run)
    with Writer(run) as writer:
        writer.append(written[:3])
        assert len(tail.poll()) == 3
        writer.append(written[3:])
    assert len(tail.poll()) == 4
    assert len(tail.poll()) == 0
    np.testing.assert_array_equal(run.rows(), written)
    np.testing.assert_array_equal(run.table()["time"], written[:, 1])


def test_a_torn_row_is_ignored_by_readers_and_cut_by_the_writer(run):
    with Writer(run) as writer:
        writer.append(block(run, 0, 5))
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(b"12345")
    with open(run.path / "events.jsonl", "ab") as handle:
        handle.write(b'{"event": "pau')
    assert run.row_count() == 5
    assert run.events() == []
    with Writer(run) as writer:
        writer.append(block(run, 5, 1))
        writer.event(messages.Paused(step=6, text="paused"))
    np.testing.assert_array_equal(run.rows()[:, 0], np.arange(6))
    assert [event.text for event in run.events()] == ["paused"]


def test_rows_already_on_disk_are_not_written_twice(run):
    with Writer(run) as writer:
        writer.append(block(run, 0, 5))
    with Writer(run) as writer:
        writer.append(block(run, 3, 4))
    np.testing.assert_array_equal(run.rows()[:, 0], np.arange(7))


def test_a_record_torn_at_any_byte_gives_its_whole_rows(run):
    with Writer(run) as writer:
        writer.append(block(run, 0, 3))
    body = (run.path / "metrics.f64").read_bytes()
    for size in range(0, len(body) + 1, 7):
        (run.path / "metrics.f64").write_bytes(body[:size])
        assert len(run.rows()) == run.row_count() == size // (8 * len(run.columns))
    (run.path / "metrics.f64").unlink()
    assert (run.row_count(), run.rows().shape) == (0, (0, len(run.columns)))


def test_any_stretch_of_rows_can_be_read(run):
    written = block(run, 0, 9)
    with Writer(run) as writer:
        writer.append(written)
    for start, stop in ((0, 4), (3, 9), (8, 100), (9, 9), (7, 2)):
        np.testing.assert_array_equal(run.rows(start, stop), written[start:stop])


def test_there_is_one_writer_and_a_refused_second_leaves_the_first_its_record(run):
    with Writer(run) as writer:
        writer.append(block(run, 0, 2))
        with pytest.raises(UserError, match="another engine is at work on it; `eos attach run` shows it"):
            Writer(run)
        writer.append(block(run, 2, 1))
    assert run.row_count() == 3
    with Writer(run) as writer:
        assert writer.last_step == 2


def test_an_event_being_written_waits_for_its_end(run):
    tail = EventTail(run)
    line = messages.encode(messages.Paused(step=1, text="a"))
    with open(run.path / "events.jsonl", "ab") as handle:
        handle.write(line[:10])
        handle.flush()
        assert tail.poll() == []
        handle.write(line[10:] + b"\n")
        handle.flush()
        assert len(tail.poll()) == 1


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "", "a\nb", "\x1b[2J", ".hidden", "x" * 81, "a\n"])
def test_names_never_leave_the_folder(name):
    with pytest.raises(UserError, match="run name"):
        store.create(toy_spec(), name)


def test_runs_live_under_the_home_that_is_set(run, own_home, monkeypatch):
    assert store.home() == own_home == run.path.parent
    monkeypatch.setenv("EOS_HOME", "~/elsewhere")
    assert store.home() == type(own_home).home() / "elsewhere"
    monkeypatch.delenv("EOS_HOME")
    assert store.home().name == "eos"


def test_a_home_that_cannot_hold_runs_is_reported(own_home):
    own_home.write_text("a file")
    with pytest.raises(UserError, match=r"a run cannot be created there \(File exists\); set EOS_HOME to a folder you can write"):
        store.create(toy_spec(), "run")
    with pytest.raises(UserError, match="not found"):
        store.resolve("run")


def test_unnamed_runs_of_the_same_second_are_numbered(monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20220930-120000")
    names = [store.create(toy_spec()).name for _ in range(3)]
    assert names == ["toy-20220930-120000", "toy-20220930-120000-2", "toy-20220930-120000-3"]


def test_a_fresh_run_is_complete_and_silent(run):
    assert run.spec == toy_spec()
    assert (run.columns[0].name, run.state(), run.provenance(), run.events(), run.checkpoints()) == ("step", State(), {}, [], [])
    assert run.liveness() == "starting"


def test_run_folders_are_private_and_never_overwritten(run, own_home):
    for folder in (own_home, run.path, run.path / "inbox", run.path / "checkpoints"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(UserError, match="exists already"):
        store.create(toy_spec(), "run")


def test_runs_are_found_by_name_by_path_and_as_the_latest(run, own_home, tmp_path):
    newer = store.create(toy_spec(), "newer")
    os.utime(newer.path / "spec.toml", (time.time() + 5, time.time() + 5))
    assert store.resolve().name == "newer"
    assert store.resolve("run").path == run.path
    assert store.resolve(str(run.path)).name == "run"
    (own_home / "link").symlink_to(run.path)
    with pytest.raises(UserError, match="not found"):
        store.resolve("link")
    with pytest.raises(UserError, match="not found"):
        store.resolve("nothing")
    with pytest.raises(UserError, match="not a run directory"):
        store.resolve(str(tmp_path))
    assert [run_seen.name for run_seen in store.all_runs()] == ["run", "newer"]


@pytest.mark.parametrize("name", ["a/b", "x\n", "\x1b[2J", "x" * 300, "x" * 5000, "é", "\0", "../nothing", ".hidden"])
def test_what_names_no_run_is_refused_harmlessly(run, name):
    with pytest.raises(UserError) as caught:
        store.resolve(name)
    assert str(caught.value) == f"{name[:200]!a}: neither a run's name nor a run directory; `eos ls` lists the runs"


@pytest.mark.parametrize("ask", [store.resolve, store.discard])
def test_an_empty_name_is_not_the_run_one_is_in(run, monkeypatch, ask):
    monkeypatch.chdir(run.path)
    with pytest.raises(UserError, match="an empty name"):
        ask("")
    assert store.resolve(".").path == run.path
    assert (run.path / "spec.toml").is_file()


def test_a_folder_that_is_no_run_is_neither_listed_nor_the_latest(run, own_home):
    (own_home / "empty").mkdir()
    broken = own_home / "broken"
    broken.mkdir()
    (broken / "spec.toml").write_text("[")
    (broken / "columns.json").write_text("[")
    (own_home / "file").touch()
    assert [run_seen.name for run_seen in store.all_runs()] == ["run"]
    assert store.resolve().name == "run"


def test_no_runs_at_all_is_reported(own_home):
    with pytest.raises(UserError, match="no runs yet"):
        store.resolve()


def test_corrupt_files_are_reported_or_passed_over(run):
    (run.path / "state.json").write_bytes(b"{broken")
    assert run.state() == State()
    (run.path / "events.jsonl").write_bytes(b'\xff\xfe\n{"event": "unheard_of"}\n[[[[\n')
    assert run.events() == []
    (run.path / "columns.json").write_text("[]")
    with pytest.raises(UserError, match=r"columns\.json"):
        Run(run.path)
    (run.path / "spec.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"spec\.toml: not UTF-8"):
        Run(run.path)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xff", "not UTF-8 text, so not written by eos"),
        (b"{", "not a list of columns, so not written by eos"),
        (b"5", "not a list of columns, so not written by eos"),
        (b"[5]", "not a list of columns, so not written by eos"),
        (b'[{"name": "step"}]', "not a list of columns, so not written by eos"),
        (b"[" * 50_000, "not a list of columns, so not written by eos"),
        (b"[]", "its first column is not the step, so not written by eos"),
    ],
)
def test_broken_columns_are_reported(run, body, words):
    (run.path / "columns.json").write_bytes(body)
    with pytest.raises(UserError) as caught:
        Run(run.path)
    assert str(caught.value) == f"{run.path / 'columns.json'}: {words}"


def test_columns_are_text_and_begin_with_the_step(run):
    path = run.path / "columns.json"
    columns = json.loads(path.read_text())
    path.write_text(json.dumps(columns[1:]))
    with pytest.raises(UserError, match="its first column is not the step"):
        Run(run.path)
    columns[1]["name"] = ["time"]
    path.write_text(json.dumps(columns))
    with pytest.raises(UserError, match="not a list of columns"):
        Run(run.path)


def test_a_broken_specification_is_reported_with_its_place(run):
    path = run.path / "spec.toml"
    path.write_text(path.read_text().replace("learning_rate = 0.01", "learning_rate = -1.0"))
    with pytest.raises(UserError) as caught:
        Run(run.path)
    assert str(caught.value) == f"{path}: [optimizer] learning_rate = -1.0; expected `float` > 0.0"


BYTES = st.binary(max_size=120) | st.text(alphabet='{}[]":,0123456789.eE+-truefalsnl \\udstaprgi', max_size=60).map(str.encode)


@fuzz(50)
@given(BYTES)
def test_no_bytes_of_state_or_provenance_raise(run, body):
    (run.path / "state.json").write_bytes(body)
    (run.path / "provenance.json").write_bytes(body)
    assert isinstance(run.state(), State)
    assert isinstance(run.provenance(), dict)
    assert run.liveness() in get_args(Liveness)


@pytest.mark.parametrize("body", [b'{"phase": "\xff"}', b'{"x": ' + b"[" * 60_000, b'{"step": ' + b"9" * 5000 + b"}"])
def test_a_state_beyond_what_json_may_be_is_no_state(run, body):
    (run.path / "state.json").write_bytes(body)
    (run.path / "provenance.json").write_bytes(body)
    assert run.state() == State()
    assert run.provenance() == {}


@pytest.mark.parametrize(
    ("state", "liveness"),
    [
        (State(status="finished"), "finished"),
        (State(status="running", pid=1, host=socket.gethostname(), heartbeat=0), "crashed"),
        (State(status="running", pid=1, host="elsewhere", heartbeat=0), "running"),
        (State(status="paused", pid=1, host="elsewhere", heartbeat=1e12), "paused"),
    ],
)
def test_a_crash_differs_from_life_elsewhere_whatever_the_clocks_of_the_hosts_say(run, state, liveness):
    (run.path / "state.json").write_bytes(msgspec.json.encode(state))
    assert run.liveness() == liveness


def say(run: Run, age: float = 0.0, **state) -> None:
    """What an engine said last, so many seconds ago by the clock of the file system."""
    path = run.path / "state.json"
    path.write_bytes(msgspec.json.encode(State(**{"status": "running", "pid": 1, "host": "elsewhere"} | state)))
    os.utime(path, (path.stat().st_mtime - age,) * 2)


@pytest.mark.parametrize("age", [60.0, 3600.0, -60.0, -1e9])
def test_an_engine_elsewhere_is_silent_by_the_age_of_its_word_and_a_word_from_the_future_is_none(run, age):
    say(run, age)
    assert run.liveness() == "silent"
    with pytest.raises(UserError, match=r"on elsewhere is silent but may still be at work \(it has .*; `eos rm run --force` deletes it"):
        store.remove(run)
    store.remove(run, force=True)
    assert not run.path.exists()


def test_where_no_clock_can_be_read_nothing_is_known(run, monkeypatch):
    say(run)
    monkeypatch.setattr(lock, "clocks", {})
    monkeypatch.setattr(lock, "closed_folders", {})
    monkeypatch.setattr(lock.tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert run.liveness() == "unknown"
    with pytest.raises(UserError, match=r"whether its engine on elsewhere is at work cannot be told"):
        store.remove(run)
    with pytest.raises(UserError, match=r"cannot be told.*or here by `resume run --force`: where it still works, both write"):
        launch.restart(run)


def test_a_run_for_which_there_is_no_room_leaves_nothing(own_home, monkeypatch):
    def full(path, *_, **__):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(store.Path, "write_text", full)
        with pytest.raises(UserError, match=r"a run cannot be created there \(No space left on device\); set EOS_HOME"):
            store.create(toy_spec(), "full")
    assert list(own_home.iterdir()) == []
    assert store.create(toy_spec(), "full").name == "full"


def test_a_run_that_cannot_be_deleted_is_reported_by_its_path(run, monkeypatch, own_home):
    def read_only(*_):
        raise OSError(30, "Read-only file system", "state.json")

    (run.path / "state.json").write_bytes(msgspec.json.encode(State(status="finished")))
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.rename", read_only)
        with pytest.raises(UserError) as caught:
            store.remove(run)
        assert str(caught.value) == f"{run.path}: cannot be deleted (Read-only file system)"
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", read_only)
        with pytest.raises(UserError, match=r"cannot be deleted to its end \(Read-only file system\); the next `eos rm` goes on"):
            store.remove(run)
    assert [each.name[:14] for each in own_home.iterdir()] == [".eos-removing-"]
    assert store.all_runs() == []
    assert store.discard("run") == "run"  # finishes it
    assert list(own_home.iterdir()) == []


def test_a_live_run_is_not_deleted(run):
    with Writer(run) as writer:
        writer.state(State(status="running", pid=os.getpid(), host=socket.gethostname(), heartbeat=time.time()))
        with pytest.raises(UserError, match="still running"):
            store.remove(run)
    store.remove(run)
    assert not run.path.exists()


def test_a_run_that_may_live_elsewhere_is_not_deleted_but_a_crashed_one_is(run):
    say(run, status="paused")
    with pytest.raises(UserError, match="run run: still paused; `eos stop run` first"):
        store.remove(run)
    say(run, 60)
    with pytest.raises(UserError, match="its engine on elsewhere is silent but may still be at work"):
        store.remove(run)
    say(run, host=socket.gethostname())
    store.remove(run)
    assert not run.path.exists()


def test_checkpoints_are_kept_to_their_number_and_read_without_pickle(run):
    with Writer(run) as writer:
        for step in (1, 2, 3):
            writer.checkpoint(step, {"theta": np.arange(3.0), "phase": np.array("edge")}, keep=2)
    assert [path.name for path in run.checkpoints()] == ["step-000000002.npz", "step-000000003.npz"]
    with open(run.checkpoints()[-1], "wb") as handle:
        np.savez(handle, theta=np.array([object()], dtype=object))
    checkpoints = list(load_checkpoint(run))
    assert checkpoints[0][1] is None
    np.testing.assert_array_equal(checkpoints[1][1]["theta"], np.arange(3.0))


def damaged(body: bytes) -> list[bytes]:
    """An archive cut short, and with single bytes changed all over it: every third, or each where more are asked for."""
    step = 3 if TIMES == 1 else 1
    return [body[:size] for size in range(0, len(body), 31)] + [
        body[:at] + bytes([body[at] ^ change]) + body[at + 1 :] for at in range(0, len(body), step) for change in (1, 0xFF)
    ]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run):
    with Writer(run) as writer:
        writer.checkpoint(1, {"theta": np.arange(3.0)}, keep=2)
        newest = writer.checkpoint(2, {"theta": np.arange(4.0)}, keep=2)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("theta.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    plain = io.BytesIO()
    np.save(plain, np.arange(3.0))
    unreadable = 0
    for body in [b"", plain.getvalue(), packed.getvalue(), *damaged(packed.getvalue()), *damaged(newest.read_bytes())]:
        newest.write_bytes(body)
        (path, first), (_, second) = load_checkpoint(run)
        assert path == newest
        np.testing.assert_array_equal(second["theta"], np.arange(3.0))
        unreadable += first is None
    assert unreadable > 100


def test_a_checkpoint_being_written_is_not_seen(run):
    (run.path / "checkpoints" / ".step-000000009.npz").write_bytes(b"half")
    assert run.checkpoints() == []
