"""A run directory: what is written is read, whatever happened in between."""

import os
import socket
import stat
import time

import msgspec
import numpy as np
import pytest

from engine import control, store
from engine.errors import UserError

from small import toy_spec


@pytest.fixture
def run():
    return store.create(toy_spec(), "run")


def block(run: store.Run, first: int, count: int) -> np.ndarray:
    rows = np.full((count, len(run.columns)), np.nan)
    rows[:, 0] = np.arange(first, first + count)
    rows[:, 1] = np.random.default_rng(first).normal(size=count)
    return rows


def test_rows_are_read_as_they_were_written(run):
    written = block(run, 0, 7)
    tail = store.RowTail(run)
    with store.Writer(run) as writer:
        writer.append(written[:3])
        assert len(tail.poll()) == 3
        writer.append(written[3:])
    assert len(tail.poll()) == 4
    assert len(tail.poll()) == 0
    np.testing.assert_array_equal(run.rows(), written)
    np.testing.assert_array_equal(run.table()["time"], written[:, 1])


def test_a_torn_row_is_ignored_by_readers_and_cut_by_the_writer(run):
    with store.Writer(run) as writer:
        writer.append(block(run, 0, 5))
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(b"12345")
    with open(run.path / "events.jsonl", "ab") as handle:
        handle.write(b'{"event": "pau')
    assert run.row_count() == 5
    assert run.events() == []
    with store.Writer(run) as writer:
        writer.append(block(run, 5, 1))
        writer.event(control.Paused(step=6, text="paused"))
    np.testing.assert_array_equal(run.rows()[:, 0], np.arange(6))
    assert [event.text for event in run.events()] == ["paused"]


def test_rows_already_on_disk_are_not_written_twice(run):
    with store.Writer(run) as writer:
        writer.append(block(run, 0, 5))
    with store.Writer(run) as writer:
        writer.append(block(run, 3, 4))
    np.testing.assert_array_equal(run.rows()[:, 0], np.arange(7))


def test_there_is_one_writer(run):
    with store.Writer(run), pytest.raises(UserError, match="another engine is at work"):
        store.Writer(run)


def test_an_event_being_written_waits_for_its_end(run):
    tail = store.EventTail(run)
    line = control.encode(control.Paused(step=1, text="a"))
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


def test_run_folders_are_private_and_never_overwritten(run):
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
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
    assert [found.name for found in store.all_runs()] == ["run", "newer"]


def test_no_runs_at_all_is_told(own_home):
    with pytest.raises(UserError, match="no runs yet"):
        store.resolve()


def test_corrupt_files_are_told_or_passed_over(run):
    (run.path / "state.json").write_bytes(b"{broken")
    assert run.state() == store.State()
    (run.path / "events.jsonl").write_bytes(b'\xff\xfe\n{"event": "unheard_of"}\n[[[[\n')
    assert run.events() == []
    (run.path / "columns.json").write_text("[]")
    with pytest.raises(UserError, match=r"columns\.json"):
        store.Run(run.path)
    (run.path / "spec.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"spec\.toml: not UTF-8"):
        store.Run(run.path)


@pytest.mark.parametrize(
    ("state", "liveness"),
    [
        (store.State(status="finished"), "finished"),
        (store.State(status="running", pid=1, host=socket.gethostname(), heartbeat=0), "crashed"),
        (store.State(status="running", pid=1, host="elsewhere", heartbeat=0), "silent"),
        (store.State(status="paused", pid=1, host="elsewhere", heartbeat=1e12), "paused"),
    ],
)
def test_a_crash_is_told_from_silence(run, state, liveness):
    (run.path / "state.json").write_bytes(msgspec.json.encode(state))
    assert run.liveness() == liveness


def test_a_live_run_is_not_deleted(run):
    with store.Writer(run) as writer:
        writer.state(store.State(status="running", pid=os.getpid(), host=socket.gethostname(), heartbeat=time.time()))
        with pytest.raises(UserError, match="still running"):
            store.remove(run)
    store.remove(run)
    assert not run.path.exists()


def test_checkpoints_are_kept_to_their_number_and_read_without_pickle(run):
    with store.Writer(run) as writer:
        for step in (1, 2, 3):
            writer.checkpoint(step, {"theta": np.arange(3.0), "phase": np.array("edge")}, keep=2)
    assert [path.name for path in run.checkpoints()] == ["step-000000002.npz", "step-000000003.npz"]
    with open(run.checkpoints()[-1], "wb") as handle:
        np.savez(handle, theta=np.array([object()], dtype=object))
    found = list(store.load_checkpoint(run))
    assert found[0][1] is None
    np.testing.assert_array_equal(found[1][1]["theta"], np.arange(3.0))
