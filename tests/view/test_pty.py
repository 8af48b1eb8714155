"""The real program in a pseudo-terminal: what `run_test` cannot see, for it skips the display, the signals and the exit."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from engine.record import store

from synthetic import FakeEngine, make_run
from terminals import LEAVE_SCREEN, SHOW_CURSOR, Terminal, environment
from waiting import until


def test_a_run_is_started_paused_left_reopened_where_it_stands_and_stopped(runs):
    start = ("-m", "eos_tui", "run", "toy", "--name", "live", "--set", "budget.steps=20000000")
    with Terminal(runs, *start) as terminal:
        terminal.wait_for(r"● live +step +[\d,]*[1-9]", seconds=60)
        terminal.press(" ")
        step = terminal.wait_for(r"‖ paused +step +([\d,]+)")[1]
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        assert "run live is paused at step" in terminal.parting
        assert "eos attach live reopens it" in terminal.parting
    run = store.resolve("live", runs)
    try:
        assert run.liveness() == "paused"
        with Terminal(runs, "-m", "eos_tui", "attach") as terminal:
            assert terminal.wait_for(r"‖ paused +step +([\d,]+)")[1] == step
            terminal.press(".")
            terminal.wait_for(rf"step +{int(step.replace(',', '')) + 1:,}\b")
            terminal.press("xy")
            terminal.wait_for("■ finished")
            terminal.press("q")
            assert terminal.wait_for_end() == 0
    finally:
        if run.liveness() != "finished":
            os.kill(run.state().pid, signal.SIGTERM)


def test_the_screen_appears_within_a_second_or_two_and_rest_costs_nothing(runs):
    make_run(runs)
    began = time.monotonic()
    with Terminal(runs, "-m", "eos_tui", "attach") as terminal:
        terminal.wait_for("399")
        assert time.monotonic() - began < 5  # 0.8 s on two idle cores
        time.sleep(1.0)
        before = len(terminal.sent)
        time.sleep(2.0)
        assert len(terminal.sent) - before < 2 * 200  # the clock's question alone
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        assert "run made: completed 399 steps" in terminal.parting


def test_a_hang_up_ends_the_view_alone_and_restores_the_terminal(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run), Terminal(runs, "-m", "eos_tui", "attach") as terminal:
        terminal.wait_for("● live")
        began = time.monotonic()
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.wait_for_end() == 128 + signal.SIGHUP
        assert time.monotonic() - began < 2  # 0.2 s on two idle cores
        assert LEAVE_SCREEN in terminal.sent
        assert SHOW_CURSOR in terminal.sent
        assert run.liveness() == "running"


def test_a_terminal_that_is_closed_ends_the_view(runs):
    make_run(runs)
    with Terminal(runs, "-m", "eos_tui", "attach") as terminal:
        terminal.wait_for("399")
        terminal.close()
        terminal.process.wait(5)


def test_an_error_in_the_view_restores_the_terminal_and_says_where_the_run_stands(runs):
    make_run(runs)
    broken = ("from eos_tui import cli\nfrom eos_tui.screens.dashboard import Dashboard\nimport sys\n"
              "Dashboard.paint = lambda self: 1 / 0\nsys.exit(cli.main(['attach']))")
    with Terminal(runs, "-c", broken) as terminal:
        assert terminal.wait_for_end(20) == 1
        assert LEAVE_SCREEN in terminal.sent
        assert SHOW_CURSOR in terminal.sent
        assert "ZeroDivisionError" in terminal.text
        assert "run made: completed 399 steps" in terminal.parting


def test_no_answer_to_the_clock_is_left_in_the_shell(runs):
    make_run(runs)
    with Terminal(runs, "-m", "eos_tui", "attach") as terminal:
        terminal.wait_for("399")
        terminal.press("q")
        terminal.wait_for_end()
        assert "1;1R" not in terminal.parting


@pytest.mark.parametrize("command", [["attach"], ["demo"], ["run", "toy"], []])
def test_without_a_terminal_one_line_points_to_headless(runs, command):
    before = [make_run(runs).name] if command == ["attach"] else []
    done = subprocess.run([sys.executable, "-m", "eos_tui", *command], check=False, capture_output=True, text=True,
                          cwd=runs.parent, env=environment(runs), stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--headless" in done.stderr
    assert [run.name for run in store.all_runs(runs)] == before


def test_a_headless_run_on_a_terminal_has_a_bar_that_is_gone_at_its_end(runs):
    steps = ("--set", "budget.steps=20000000", "--set", "optimizer.learning_rate=0.0001")  # it ends when it is asked to
    with Terminal(runs, "-m", "eos_tui", "run", "phase", "--headless", "--name", "barred", *steps) as terminal:
        terminal.wait_for(r"barred +\S*━.* step \d+", 60)
        terminal.press("\x03")
        assert terminal.wait_for_end(60) == 130
        assert re.search(r"outcome +stopped", terminal.text)
        assert "━" not in terminal.text


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_draw_is_refused_by_name(runs, term):
    make_run(runs)
    with Terminal(runs, "-m", "eos_tui", "attach", TERM=term) as terminal:
        assert terminal.wait_for_end() == 2
        assert f'TERM = "{term}"' in terminal.text
        assert LEAVE_SCREEN not in terminal.sent


@pytest.mark.parametrize(("command", "said"), [
    (["run", "fashon"], "did you mean"),
    (["run", "toy", "--set", "optimizer.learning_rate=-1"], "learning_rate"),
    (["run", "toy", "--fps", "nan"], "expected a number from 0.5 to 10"),
    (["toy"], "`eos run toy` runs it"),
    (["atach"], "did you mean `eos attach`"),
    (["attach", "nothing"], "not found"),
    (["attach", "../outside"], "neither a run"),
    (["plot", "--theme", "drak"], 'plot --theme = "drak"; expected one of "auto", "dark", "light", "terminal"; did you mean "dark"?'),
    (["serve", "--port", "99999"], "serve --port = 99999; expected a number <= 65535"),
    (["plot", "--columns", "0"], "plot --columns = 0; expected a number >= 1"),
    (["plot", "--rows", "100000"], "plot --rows = 100000; expected a number <= 2000"),
])  # fmt: skip
def test_bad_input_is_one_line_and_makes_nothing(runs, command, said):
    with Terminal(runs, "-m", "eos_tui", *command) as terminal:
        assert terminal.wait_for_end() == 2
        assert said in terminal.text.replace("\n", "")
        assert "Traceback" not in terminal.text
    assert list(runs.iterdir()) == []


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again_while_the_engine_goes_on(runs):
    run = make_run(runs, finished=False)
    with FakeEngine(run), Terminal(runs, "-m", "eos_tui", "attach") as terminal:
        terminal.wait_for("● live")
        terminal.press("\x1a")
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)
        until(lambda: LEAVE_SCREEN in terminal.sent)
        assert run.liveness() == "running"
        before = len(terminal.sent)
        terminal.process.send_signal(signal.SIGCONT)
        until(lambda: b"\x1b[?1049h" in terminal.sent[before:] and b"sharpness" in terminal.sent[before:])
        terminal.press("q")
        assert terminal.wait_for_end() == 0
