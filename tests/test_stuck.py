"""Commands whose main thread waits for a disk that does not answer: a signal ends them all the same, and what they started."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.base.errors import INTERRUPTED
from engine.record import store

from standing_in import STAND_IN
from synthetic import make_run
from waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wait is one of Linux")

CLI = """import ctypes, os, sys, threading
from engine.jobs import launch
from eos_tui import cli

libc, stack = ctypes.CDLL(None), ctypes.create_string_buffer(1 << 16)
top = ctypes.c_void_p((ctypes.addressof(stack) + len(stack)) & ~15)
VM, FS, FILES, SIGHAND, VFORK, THREAD = 0x100, 0x200, 0x400, 0x800, 0x4000, 0x10000
asleep = []

def hanging(event, given):
    reads = event in ('open', 'os.listdir', 'os.scandir') and str(given[0]).startswith({where!r})
    if reads and not asleep and threading.current_thread() is threading.main_thread() and os.path.exists({flag!r}):
        asleep.append(os.write(2, b'stuck\\n'))
        libc.clone(libc.sleep, top, VM | FS | FILES | SIGHAND | VFORK | THREAD, {seconds})

def stat(path, *given, _stat=os.stat, **named):
    hanging('open', [path])
    return _stat(path, *given, **named)

os.stat = stat  # which tells no hook
sys.addaudithook(hanging)
launch.command = lambda run: [sys.executable, {stand_in!r}, '60', str(run.path)]
sys.exit(cli.main({words!r}))
"""
"""A command line whose main thread, at its first look below a folder once a file is there, waits as for a disk: until a thread that has
been started has ended, a wait that the system interrupts no more than that one."""
SWEEP = ["sweep", "phase", "--grid", "seed=0,1", "--workers", "2"]
READING = (
    ["ls", "--json"], ["show", "made"], ["tail", "made"], ["compare", "made", "made"], ["doctor"], ["plot", "made"], ["rm", "made"],
    ["export", "made"], ["fork", "made"], ["resume", "made", "--headless"], ["stop", "made"], ["serve", "made"], [*SWEEP, "--table"],
)  # fmt: skip


def begun(runs: Path, tmp_path: Path, words: list[str], seconds: int = 60) -> subprocess.Popen:
    code = CLI.format(where=str(runs), flag=str(tmp_path / "hang"), stand_in=str(STAND_IN), words=words, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def last_words(process: subprocess.Popen, number: int) -> str:
    """What a process says on its way out that a signal finds stuck."""
    said = ""
    for line in process.stderr:
        said += line
        if line == "stuck\n":
            break
    time.sleep(0.2)
    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "D", said
    process.send_signal(number)
    rest = process.communicate(timeout=20)[1]
    assert "Traceback" not in rest
    return rest


@pytest.mark.parametrize(("words", "number", "status"), [
    (["ls"], signal.SIGINT, INTERRUPTED),
    (["show", "made"], signal.SIGTERM, -signal.SIGTERM),  # 143 in a shell: where nothing handles it the system ends a process at once
    *(pytest.param(words, signal.SIGINT, INTERRUPTED, marks=pytest.mark.slow) for words in READING),
])  # fmt: skip
def test_a_command_is_left_at_once_though_its_disk_hangs(runs, tmp_path, words, number, status):
    make_run(runs)
    (tmp_path / "hang").touch()
    process = begun(runs, tmp_path, words)
    said = last_words(process, number)
    assert (process.returncode, said) == (status, "eos: the disk does not answer; this command ended without it\n" * (status > 0))


@pytest.mark.parametrize(("number", "status"), [
    (signal.SIGTERM, 143), *(pytest.param(each, 128 + each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGUSR1)),
])  # fmt: skip
def test_a_sweep_that_its_disk_holds_takes_its_engines_along(runs, tmp_path, number, status):
    process = begun(runs, tmp_path, SWEEP)
    until(lambda: [run.state().status for run in store.all_runs()] == ["running"] * 2)
    engines = {run.state().pid for run in store.all_runs()}
    (tmp_path / "hang").touch()
    said = last_words(process, number)
    assert process.returncode == status
    head, _, tail = said.partition("processes ")
    assert (head, tail) == ("eos: the disk does not answer; the engines, ", f"{', '.join(map(str, sorted(engines)))}, were told to stop\n")
    until(lambda: {run.liveness() for run in store.all_runs()} == {"finished"}, 10)
    assert {run.state().outcome.kind for run in store.all_runs()} == {"stopped"}


def test_an_engine_waits_for_its_disk(runs, tmp_path):
    run = make_run(runs)
    (tmp_path / "hang").touch()
    began = time.monotonic()
    process = begun(runs, tmp_path, ["work", str(run.path)], seconds=4)
    assert last_words(process, signal.SIGINT) == ""
    assert process.returncode == INTERRUPTED
    assert time.monotonic() - began > 4


def test_a_thread_that_takes_its_signals_is_left_alone_and_what_is_blocked_on_purpose_too(capfd):
    code = """import os, signal, time
from engine.base.exit import STOPPING, status_of
heard = []
signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def busy():
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        sum(range(1000))
    return len(heard)
raise SystemExit(status_of(busy))"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    assert capfd.readouterr() == ("", "")
