"""The way out, whatever the disk does: the program in a terminal, with reads and writes that never come back."""

import os
import signal
import time

import pytest

from engine.base.aside import wait_for
from eos_tui.terminal.leaving import begun_aside

from synthetic import FakeEngine, make_run
from terminals import LEAVE_SCREEN, SHOW_CURSOR, Terminal

HANGING = """import os, sys, time
from engine.record.reader import Run
from eos_tui import cli, opening
from eos_tui.model import source

def hanging(function):
    def hang(*given, **named):
        while os.path.exists({flag!r}):
            time.sleep(600)
        return function(*given, **named)
    return hang

{where} = hanging({where})
sys.exit(cli.main(['attach']))
"""
"""The view, with a function that never comes back once a file is there."""


@pytest.mark.parametrize(("where", "first", "leave", "status"), [
    ("Run.state", "", "q", 0),  # read aside
    pytest.param("Run.state", "", signal.SIGUSR1, 128 + signal.SIGUSR1, marks=pytest.mark.slow),
    pytest.param("source.send", " ", "\x03", 0, marks=pytest.mark.slow),  # a command, in the thread that draws
    ("source.send", " ", signal.SIGTERM, 143),
])  # fmt: skip
def test_keys_and_signals_leave_a_view_whose_disk_hangs(runs, tmp_path, where, first, leave, status):
    run = make_run(runs, finished=False)
    code = HANGING.format(flag=str(tmp_path / "hang"), where=where)
    with FakeEngine(run), Terminal(runs, "-c", code) as terminal:
        terminal.wait_for("● live")
        (tmp_path / "hang").touch()
        terminal.press(first)
        time.sleep(0.7)
        began = time.monotonic()
        if isinstance(leave, str):
            terminal.press(leave)
        else:
            terminal.process.send_signal(leave)
        assert terminal.wait_for_end(20) == status
        assert time.monotonic() - began < 6  # 0.5 s to 1.6 s on two idle cores
        assert LEAVE_SCREEN in terminal.sent
        assert SHOW_CURSOR in terminal.sent
        assert f"run made{': its folder does not answer' if not first else ' goes on; eos attach made'}" in terminal.parting
        assert run.liveness() == "running"


@pytest.mark.parametrize(("leave", "status"), [("\x03", 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_disk_that_hangs_before_there_is_a_view_holds_nobody(runs, tmp_path, leave, status):
    make_run(runs)
    (tmp_path / "hang").touch()
    code = HANGING.format(flag=str(tmp_path / "hang"), where="opening.resolve").replace("sys.exit", "print('begun', flush=True)\nsys.exit")
    with Terminal(runs, "-c", code) as terminal:
        terminal.wait_for("begun")
        time.sleep(0.5)
        if isinstance(leave, str):
            terminal.press(leave)
        else:
            terminal.process.send_signal(leave)
        assert terminal.wait_for_end(5) == status
        assert "Traceback" not in terminal.text


def test_a_view_that_is_not_stuck_leaves_in_its_own_way(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run), Terminal(runs, "-m", "eos_tui", "attach") as terminal:
        terminal.wait_for("● live")
        terminal.process.send_signal(signal.SIGUSR2)
        assert terminal.wait_for_end() == 128 + signal.SIGUSR2
        assert "run made goes on; eos attach made reopens it" in terminal.parting


async def test_what_is_read_aside_gives_its_value_or_its_error_and_may_be_abandoned():
    assert await begun_aside(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await begun_aside(lambda: 1 // 0)
    future = begun_aside(lambda: time.sleep(0.05))
    future.cancel()
    assert wait_for(os.getpid) == os.getpid()
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        wait_for(lambda: time.sleep(0.2), 0.01)
