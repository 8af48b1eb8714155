"""The doors: what is opened to be read, what is written over, where eos keeps things, and streams that are not there."""

import csv
import errno
import io
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from engine.base import folders, toml
from engine.base.errors import BAD_INPUT, BROKEN_PIPE, UserError
from engine.base.files import append_plain, listed, open_plain, read_plain
from engine.base.text import as_cell
from engine.commands.main import main
from engine.commands.records import as_csv
from engine.jobs.fork import fork
from engine.record import messages, reader, store
from engine.record.reader import STEP_FILE, EventTail, Run
from engine.record.safe_read import read_arrays
from engine.report.comparison import outcomes
from engine.spec import MAX_SPEC_BYTES, load_spec

from places import ROOT
from synthetic import EDGE, make_run

# -- what is read


@pytest.mark.parametrize("make", [
    os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to(path.parent / "plain"),
], ids=["pipe", "folder", "device", "loop", "link to a file"])  # fmt: skip
def test_only_plain_files_are_opened_and_none_is_waited_for(make, tmp_path):
    (tmp_path / "plain").write_bytes(b"rows")
    make(tmp_path / "odd")
    for opens in (open_plain, append_plain, lambda path: read_plain(path, 100), lambda path: open_plain(path, nested=True)):
        before = len(os.listdir("/dev/fd"))
        with pytest.raises(OSError, match=r"not a plain file|a folder|a link, which is not followed|Is a directory"):
            opens(tmp_path / "odd")
        assert len(os.listdir("/dev/fd")) == before
    assert listed(tmp_path, STEP_FILE) == []
    assert (tmp_path / "plain").read_bytes() == b"rows"


def test_a_folder_inside_a_run_may_be_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "step-000000001.npz").write_bytes(b"PK")
    (tmp_path / "curves").symlink_to("elsewhere")
    assert listed(tmp_path / "elsewhere", STEP_FILE) == ["step-000000001.npz"]
    assert listed(tmp_path / "curves", STEP_FILE) == []
    with pytest.raises(OSError, match="a link, which is not followed"):
        open_plain(tmp_path / "curves" / "step-000000001.npz", nested=True)


def test_a_run_s_own_folder_may_be_reached_through_a_link(tmp_path):
    run = make_run(tmp_path, steps=110)
    (tmp_path / "link").symlink_to(run.path)
    linked = Run(tmp_path / "link")
    assert (linked.row_count(), len(linked.events()), linked.state().step) == (110, 3, 109)


def test_a_name_that_tells_no_step_is_no_checkpoint(tmp_path):
    run = make_run(tmp_path, steps=110)
    for name in ("step-abc.npz", "step-٣.npz", "step-.npz", "step-1.npz.part", "step--1.npz"):
        (run.path / "checkpoints" / name).write_bytes(b"PK")
    assert run.checkpoints() == []
    with pytest.raises(UserError, match="no checkpoint at or before step"):
        fork(run, 5)


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/hostname"])
def test_a_fork_copies_no_checkpoint_through_a_link(target, own_home):
    run = make_run(own_home, steps=110)
    (run.path / "checkpoints" / "step-000000090.npz").symlink_to(target)
    with pytest.raises(UserError, match="no checkpoint at or before"):
        fork(run, 100)
    (run.path / "checkpoints").rename(own_home / "kept")
    (run.path / "checkpoints").symlink_to(own_home / "kept")
    with pytest.raises(UserError, match="no checkpoint at or before"):
        fork(run, 100)
    assert [each.name for each in store.all_runs()] == ["made"]


def test_a_fork_copies_nothing_that_is_no_checkpoint(own_home):
    run = make_run(own_home, steps=110)
    with open(run.path / "checkpoints" / "step-000000090.npz", "wb") as handle:
        handle.truncate(2**40)  # a terabyte that takes no room until it is copied
    with pytest.raises(UserError, match="cannot be read; give the step of an earlier one"):
        fork(run, 100)
    assert [each.name for each in store.all_runs()] == ["made"]


def many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(5000):
            archive.writestr(f"a{k}.npy", b"\0" * 1500)


def the_same_bytes(path: Path) -> None:
    """Entries that all are one and the same megabyte: the archive unpacks into three hundred."""
    np.savez(path, a=np.zeros(2**17))
    body = path.read_bytes()
    start = body.rindex(b"PK\1\2")
    entry, end = body[start : body.rindex(b"PK\5\6")], bytearray(body[body.rindex(b"PK\5\6") :])
    copies = b"".join(entry.replace(b"a.npy", b"%c.npy" % (97 + k % 26)) for k in range(300))
    end[8:10] = end[10:12] = (300).to_bytes(2, "little")
    end[12:16] = len(copies).to_bytes(4, "little")
    path.write_bytes(body[:start] + copies + end)


def nothing_but_a_list(path: Path) -> None:
    """A directory of entries that are not there, four megabytes of it."""
    np.savez(path, a=np.zeros(3))
    body = path.read_bytes()
    start = body.rindex(b"PK\1\2")
    entry, end = body[start : body.rindex(b"PK\5\6")], bytearray(body[body.rindex(b"PK\5\6") :])
    copies = entry * (4 * 2**20 // len(entry))
    end[8:10] = end[10:12] = (0xFFFF).to_bytes(2, "little")
    end[12:16] = len(copies).to_bytes(4, "little")
    path.write_bytes(body[:start] + copies + end)


@pytest.mark.parametrize("make", [many_entries, the_same_bytes, nothing_but_a_list])
def test_an_archive_that_lists_more_than_an_engine_writes_is_not_read(make, tmp_path):
    path = tmp_path / "step-000000001.npz"
    make(path)
    began = time.process_time()
    assert read_arrays(path) is None
    assert time.process_time() - began < 0.2


def test_an_archive_as_an_engine_writes_it_is_read(tmp_path):
    path = tmp_path / "step-000000001.npz"
    np.savez(path, **{f"a{k}": np.arange(k + 1.0) for k in range(200)})
    assert len(read_arrays(path) or {}) == 200


KEY = '"a".' * (MAX_SPEC_BYTES // 4 - 10)


@pytest.mark.parametrize("text", [
    "a." * (MAX_SPEC_BYTES // 2 - 10) + "a = 1", f"[{KEY}a]", f"x = {{ {KEY}a = 1 }}", "a . \t" * (MAX_SPEC_BYTES // 5) + "a = 1",
    '"\\' * (MAX_SPEC_BYTES // 2), '"""x"' * (MAX_SPEC_BYTES // 5), "'" * MAX_SPEC_BYTES, "x = " + "[" * (MAX_SPEC_BYTES - 4),
    "\n".join(f"{'a.' * 15}k{k} = 1" for k in range(MAX_SPEC_BYTES // 45)),
], ids=["dotted", "header", "inline", "blanks", "escapes", "quotes", "apostrophes", "nested", "fifteen parts each"])  # fmt: skip
def test_no_toml_takes_longer_than_its_length(text, tmp_path, capsys):
    path = tmp_path / "evil.toml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(UserError):
        load_spec(str(path))
    assert time.process_time() - began < 5  # a minute and a half by the standard library alone


def test_dots_in_texts_and_comments_are_no_keys():
    text = f'a = "{"x." * 40}"\nb = \'\'\'{"y." * 40}\n"\'\'\'\n# {"z." * 40}\nc.d = """\n{"w." * 40}\\"""" """\n'
    text = text.replace('\\"""" """', '"""')
    assert toml.loads(text)["c"] == {"d": "w." * 40}


def test_a_line_without_an_end_hides_no_event_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_JOURNAL_BYTES", 2**20)
    run = make_run(tmp_path, steps=110)
    journal = run.path / "events.jsonl"
    before = journal.read_bytes()
    tail = EventTail(run)
    assert len(tail.poll()) == 3
    late = messages.encode(messages.Started(step=7, text="late")) + b"\n"
    journal.write_bytes(before + b"x" * (5 * 2**20) + b"\n" + late)
    assert [event.text for event in run.events()][-1] == "late"
    assert len(run.events()) == 4
    assert [event.text for event in tail.rest()] == ["late"]
    journal.write_bytes(before + b"y" * 2**18)  # torn: what is still being written
    assert len(run.events()) == 3


def test_more_events_than_are_read_are_reported(tmp_path, monkeypatch):
    run = make_run(tmp_path, steps=110)
    monkeypatch.setattr(reader, "MAX_JOURNAL_BYTES", 10_000)
    line = messages.encode(messages.Started(step=1, text="again")) + b"\n"
    (run.path / "events.jsonl").write_bytes(line * 5000)
    events = run.events()
    assert "what comes after is not read" in events[-1].text
    assert len(events) < 300


def test_a_record_that_is_no_plain_file_is_reported(own_home, capfd):
    run = make_run(own_home, steps=110)
    (run.path / "metrics.f64").unlink()
    os.mkfifo(run.path / "metrics.f64")
    for command in (["show", "made"], ["export", "made"], ["tail", "made"], ["compare", "made"], ["resume", "made"]):
        assert main(command) == BAD_INPUT
    assert capfd.readouterr().err.count("not a plain file") == 4  # and the run has ended, for the last
    assert main(["rm", "made"]) == 0


def test_a_pipe_in_place_of_the_log_starts_no_engine(own_home):
    from engine.jobs import launch

    run = store.create(load_spec("phase"), "one")
    os.mkfifo(run.path / "engine.log")
    with pytest.raises(UserError, match=r"engine\.log: not a plain file, so not written by eos"):
        launch.start(run)


# -- what is written over


def exported(*argv: str) -> int:
    return main(["export", "made", "--columns", "step", *argv])


@pytest.fixture
def made(own_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_run(own_home, steps=110)


ROWS = "step\n" + "".join(f"{k}\n" for k in range(110))


def test_a_file_that_is_there_is_replaced_only_by_force(made, tmp_path, capfd):
    path = tmp_path / "kept.csv"
    path.write_text("mine")
    assert exported("--out", "kept.csv") == BAD_INPUT
    assert "kept.csv: there already; --force writes it anew" in capfd.readouterr().err
    path.chmod(0o640)
    assert exported("--out", "kept.csv", "--force") == 0
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (ROWS, 0o640)
    path.chmod(0o444)
    assert exported("--out", "kept.csv") == BAD_INPUT
    assert "there already, and read-only" in capfd.readouterr().err
    assert exported("--out", "kept.csv", "--force") == 0
    assert exported("--out", "new.csv") == 0
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == ["kept.csv", "new.csv"]


def test_a_link_is_followed_once_and_reported(made, tmp_path, capfd):
    (tmp_path / "link.csv").symlink_to("target.csv")
    assert exported("--out", "link.csv") == 0
    assert "link.csv: a link to target.csv, which is written" in capfd.readouterr().err
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text() == ROWS
    assert exported("--out", "link.csv") == BAD_INPUT  # what it leads to is there now
    (tmp_path / "chain.csv").symlink_to("link.csv")
    assert exported("--out", "chain.csv", "--force") == BAD_INPUT
    assert "chain.csv: a link to a link, link.csv" in capfd.readouterr().err
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert exported("--out", "loop.csv", "--force") == BAD_INPUT


def test_devices_and_pipes_are_written_to(made, tmp_path, capfd):
    assert exported("--csv", "--out", "/dev/null") == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    os.mkfifo(tmp_path / "pipe.csv")
    with subprocess.Popen(["cat", "pipe.csv"], stdout=subprocess.PIPE, text=True) as reader:
        assert exported("--out", "pipe.csv") == 0
        assert reader.communicate()[0] == ROWS
    assert stat.S_ISFIFO((tmp_path / "pipe.csv").stat().st_mode)
    capfd.readouterr()
    assert exported("--out", "-") == 0
    assert capfd.readouterr().out == ROWS
    if Path("/dev/full").exists():
        assert exported("--csv", "--out", "/dev/full") == BAD_INPUT
        assert "No space left on device" in capfd.readouterr().err


@pytest.mark.parametrize(("out", "to"), [("/dev/stdout", "| cat"), ("/dev/stdout", "> got.csv; cat got.csv"), ("-", "| cat"),
                                         ("/dev/fd/3", "3>&1 | cat"), ("/dev/fd/3", "3> got.csv; cat got.csv"),
                                         ("/proc/self/fd/1", "| cat")])  # fmt: skip
def test_every_name_of_a_stream_is_that_stream(out, to, made, tmp_path):
    done = shell(f"python -m engine export made --columns step --csv --out {out} {to}")
    assert (done.stdout, "Traceback" in done.stderr) == (ROWS, False)
    assert Path("/dev/stdout").is_symlink()
    if "got.csv" not in to:
        assert not any(path.is_file() for path in tmp_path.iterdir())


# -- formulas


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "＝1")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_in_a_table_is_a_formula(text, tmp_path):
    assert as_cell(text).startswith("'")
    run = make_run(tmp_path, steps=EDGE)
    ends = outcomes(run)._replace(run=text, learning_rate=-0.5)
    header, row = csv.reader(io.StringIO(as_csv([ends], [{text: text}])))
    assert header[0].startswith("'")
    assert row[0].startswith("'")
    assert row[1].startswith("'")
    assert "-0.5" in row  # a number is none
    assert as_cell("digits-eta0.1") == "digits-eta0.1"


# -- places and streams


def shell(command: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """A command of a shell in the current folder, whose `python` is this one."""
    kept = {name: value for name, value in {**os.environ, "PYTHONPATH": str(ROOT), **environment}.items() if value is not None}
    whole = command.replace("python", sys.executable, 1)
    return subprocess.run(["/bin/bash", "-c", whole], capture_output=True, text=True, env=kept, check=False, timeout=100)


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_traceback(closed, made):
    done = shell(f"python -m engine show made {closed}")
    assert done.returncode == (BROKEN_PIPE if ">&-" in closed.split() else 0)
    assert done.stderr == ("eos: stdout is closed, so nothing could be printed\n" if closed == ">&-" else "")
    assert made.row_count() == 110


def test_what_is_written_while_streams_are_closed_stays_what_it_is(made, tmp_path):
    done = shell("python -m eos_tui export made --columns step --out rows.csv <&- >&- 2>&-")
    assert (done.returncode, (tmp_path / "rows.csv").read_text()) == (0, ROWS)


NOBODY = "import pwd\ndef nobody(*_): raise KeyError('no such user')\npwd.getpwuid = nobody\n"
PLACES = "from engine.base import folders\nfor each in (folders.data, folders.cache, folders.settings):\n    print(each())"


def test_one_rule_for_every_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable, place in (("EOS_HOME", folders.data), ("EOS_CACHE", folders.cache), ("EOS_CONFIG", folders.settings)):
        for given, known in {"~/x": Path.home() / "x", "x/y": tmp_path / "x" / "y", "/x": Path("/x"), "./~": tmp_path / "~"}.items():
            monkeypatch.setenv(variable, given)
            assert place() == known
            assert folders.environment()[variable] == str(known)  # an engine works elsewhere
        monkeypatch.setenv(variable, "~nobody-of-this-name/x")
        with pytest.raises(UserError, match=rf"{variable}: ~nobody-of-this-name/x: no user is called nobody-of-this-name"):
            place()
        monkeypatch.setenv(variable, "")
        assert place().is_absolute()
        assert variable not in folders.environment()


@pytest.mark.parametrize("given", [None, "~/runs"])
def test_a_user_without_a_home_folder_makes_no_folder_called_tilde(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = NOBODY + "from engine.commands.main import main\nraise SystemExit(main(['ls']))"
    done = shell(f"python -c \"{code}\"", HOME=None, EOS_HOME=given, XDG_DATA_HOME=None)
    assert (done.returncode, len(done.stderr.splitlines())) == (BAD_INPUT, 1)
    assert "this user has no home folder" in done.stderr
    assert "give an absolute path in EOS_HOME" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_nowhere_is_reported_before_a_run_is_made(own_home, monkeypatch):
    monkeypatch.setenv("EOS_CACHE", "~nobody-of-this-name")
    with pytest.raises(UserError, match="EOS_CACHE: ~nobody-of-this-name"):
        store.create(load_spec("phase"), "one")
    assert not own_home.exists()


def test_a_home_folder_that_is_not_there_is_no_place_to_work_in(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere/at/all")
    assert folders.home() == Path("/")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_settings_that_are_no_file_are_reported(make, tmp_path, monkeypatch, capfd):
    from eos_tui import cli

    make(tmp_path / "odd.toml")
    monkeypatch.setenv("EOS_CONFIG", str(tmp_path / "odd.toml"))
    assert cli.main(["config", "validate"]) == BAD_INPUT
    assert "odd.toml: cannot be read" in capfd.readouterr().err


def test_errors_of_what_is_no_plain_file_say_which(tmp_path):
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(OSError, match="a link") as raised:
        open_plain(tmp_path / "link")
    assert (raised.value.errno, raised.value.filename) == (errno.ELOOP, str(tmp_path / "link"))
