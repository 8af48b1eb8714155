"""Sweeps: a grid of runs that goes on where it was left, here or through submitit, and its table."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest

from engine.base.errors import BAD_END, BAD_INPUT, INTERRUPTED
from engine.commands.main import main
from engine.jobs import launch
from engine.jobs.sweep import axis, points, split
from engine.record import store

from places import ROOT
from synthetic import make_run
from waiting import until

PHASE = ["sweep", "phase", "--set", "budget.steps=20"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Engine processes find this tree, installed or not."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # as a sweep sets it, and gone after the test


def test_a_grid_is_every_combination_the_last_field_fastest():
    grid = points("toy", [axis("optimizer.learning_rate=0.02,0.04"), axis("seed=0..2")], ["budget.steps=9"])
    assert [tuple(point.values.values()) for point in grid] == [(0.02, 0), (0.02, 1), (0.02, 2), (0.04, 0), (0.04, 1), (0.04, 2)]
    assert {point.spec.budget.steps for point in grid} == {9}
    assert len({point.name for point in grid}) == 6
    assert all(point.name.startswith("toy-sweep-") for point in grid)
    again = points("toy", [axis("seed=1..3"), axis("optimizer.learning_rate=0.04")], ["budget.steps=9"])
    assert again[0].name == grid[4].name  # the same specification is the same run


def test_values_keep_their_brackets_and_quotes():
    assert split('[8, 8],[16],"a,b",x') == ["[8, 8]", "[16]", '"a,b"', "x"]
    assert [p.spec.problem.model.widths for p in points("fashion", [axis("problem.model.widths=[8, 8],[16]")])] == [(8, 8), (16,)]


BAD = [
    (["sweep", "phase"], "--grid: missing"),
    (["sweep", "phase", "--grid", "seed"], "--grid seed: expected section.field=value"),
    (["sweep", "phase", "--grid", "seed="], "--grid seed=: expected section.field=value"),
    (["sweep", "phase", "--grid", "seed=1,,2"], "expected section.field=value"),
    (["sweep", "phase", "--grid", "seed=5..1"], "expected a range that rises"),
    (["sweep", "phase", "--grid", "seed=0..99999999"], "of up to 10,000 values"),
    (["sweep", "phase", "--grid", "seed=0..999", "--grid", "budget.steps=1..999"], "more than 10,000 points"),
    (["sweep", "phase", "--grid", "seed=1", "--grid", "seed=2"], "--grid seed: given twice"),
    (["sweep", "phase", "--grid", "optimizer.learning_rate=0.1,0.10"], "is a point that was there before"),
    (["sweep", "phase", "--grid", "optimizer.momentum=0.1"], "[optimizer] momentum: unknown key"),
    (["sweep", "phase", "--grid", "seed=1", "--name", "../x"], "sweep name '../x'"),
    (["sweep", "phase", "--grid", "seed=1", "--workers", "0"], "--workers = 0; expected a number >= 1"),
    (["sweep", "phase", "--grid", "seed=1", "--cluster", "slurm", "--submit", "x"], "expected key=value"),
]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=[" ".join(argv[2:]) for argv, _ in BAD])
def test_a_grid_that_makes_no_sense_is_reported_and_nothing_is_made(argv, said, capfd, own_home):
    assert main(argv) == BAD_INPUT
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert not own_home.exists() or not list(own_home.iterdir())


def test_a_grid_goes_over_kinds_of_optimizers_each_with_its_own_fields():
    grid = points("adam", [axis("optimizer.kind=gradient_descent,momentum,adam,sign")], ["optimizer.learning_rate=0.02"])
    kinds = [type(point.spec.optimizer).__name__ for point in grid]
    assert kinds == ["GradientDescent", "Momentum", "Adam", "Sign"]
    assert all(point.spec.optimizer.learning_rate == 0.02 for point in grid)


def test_a_sweep_is_carried_out_once_and_a_larger_one_takes_it_over(capfd, own_home, monkeypatch, tmp_path):
    start, started = launch.start, []
    monkeypatch.setattr(launch, "start", lambda run: started.append(run.name) or start(run))
    assert main([*PHASE, "--grid", "optimizer.learning_rate=0.02,0.03", "--workers", "2", "--json"]) == 0
    out, err = capfd.readouterr()
    first = json.loads(out)
    ends = [(row["optimizer.learning_rate"], row["outcome"], row["steps"]) for row in first]
    assert ends == [(0.02, "completed", 20), (0.03, "completed", 20)]
    assert [line.split()[0] for line in err.splitlines()] == ["1/2", "2/2"]
    assert sorted(started) == sorted(row["run"] for row in first)
    assert main([*PHASE, "--grid", "optimizer.learning_rate=0.02,5.0,0.03", "--csv"]) == BAD_END
    header, *rows = csv.reader(io.StringIO(capfd.readouterr().out))
    assert [row[header.index("outcome")] for row in rows] == ["completed", "diverged", "completed"]
    assert len(started) == 3
    assert main([*PHASE, "--grid", "optimizer.learning_rate=0.02,0.07", "--table"]) == 0
    out, err = capfd.readouterr()
    assert err == "1 of 2 points have not begun\n"
    assert [line.split()[0] for line in out.splitlines()] == ["optimizer.learning_rate", "0.02"]
    assert len(started) == 3


def test_a_run_of_the_same_name_is_not_taken_for_a_point(own_home, capfd):
    [point] = points("phase", [axis("seed=3")])
    make_run(own_home, name=point.name)
    assert main(["sweep", "phase", "--grid", "seed=3"]) == BAD_INPUT
    assert "its specification is not that of this point" in capfd.readouterr().err


def test_a_sweep_is_opened_by_the_name_that_its_runs_begin_with(own_home, monkeypatch, capfd):
    from eos_tui import cli as view
    from eos_tui import opening

    opened: list = []
    monkeypatch.setattr(opening, "need_terminal", lambda arguments: None)
    monkeypatch.setattr(opening, "view", lambda run, arguments, beside: opened.append([each.name for each in (run, *beside)]) or 0)
    names = [point.name for point in points("phase", [axis("seed=0..9")])]
    for name in (*names, "alone", "phase-sweep-other"):
        make_run(own_home, name=name, steps=20)
    assert view.main(["attach", "phase-sweep"]) == 0
    assert capfd.readouterr().err == "10 runs: the first 9 are drawn, and the key m chooses others\n"
    assert view.main(["attach", "alone", names[2], str(own_home / names[1])]) == 0
    assert view.main(["attach"]) == 0
    assert opened == [names[:9], ["alone", names[2], names[1]], ["phase-sweep-other"]]
    make_run(own_home, name="phase-sweep", steps=20)
    assert view.main(["attach", "phase-sweep"]) == 0
    assert opened[-1] == ["phase-sweep"]
    assert view.main(["attach", "alone", "toy-sweep"]) == BAD_INPUT
    assert "run toy-sweep: not found" in capfd.readouterr().err


def test_an_interrupt_stops_every_engine_cleanly_and_the_same_command_goes_on(own_home):
    slow = ["--set", "optimizer.learning_rate=1e-5"]  # the map gains (1 + 2η²) a step: it does not run off meanwhile
    endless = ["--set", "budget.steps=900000000", *slow, "--grid", "seed=0,1,2", "--workers", "2"]
    command, pipe = [sys.executable, "-m", "engine", "sweep", "phase", *endless], subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    until(lambda: sum(run.row_count() > 0 for run in store.all_runs()) == 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    assert "the same command goes on" in err
    runs = store.all_runs()
    assert [run.state().outcome.kind for run in runs] == ["stopped", "stopped"]  # the third never began
    assert out.count("stopped") == 2


def test_the_outcomes_are_drawn(own_home, tmp_path):
    pytest.importorskip("matplotlib")
    from engine.figures.sweep_plot import save
    from engine.report.comparison import outcomes

    ends = [outcomes(make_run(own_home, steps=steps, name=f"r{steps}")) for steps in (150, 200, 60)]
    grid = [{"optimizer.learning_rate": rate, "seed": seed} for rate, seed in ((0.02, 0), (0.04, 0), (0.02, 1))]
    save(grid, ends, tmp_path / "sweep.svg")
    text = (tmp_path / "sweep.svg").read_text()
    assert "<svg" in text
    assert len(text) > 10_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_submitit_carries_runs_out_and_leaves_ended_ones_alone(own_home):
    pytest.importorskip("submitit")

    def swept(*argv):  # a process of its own: submitit keeps hold of the streams it finds
        command = [sys.executable, "-m", "engine", *PHASE, "--grid", "seed=0,1", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    status, out, err = swept("--cluster", "local", "--wait", "--submit", "timeout_min=2", "--json")
    assert status == 0
    assert [row["outcome"] for row in json.loads(out)] == ["completed", "completed"]
    assert err.count(": job ") == 2
    status, _, err = swept("--cluster", "debug", "--json")
    assert (status, err) == (0, "")
    made = {run.name for run in store.all_runs()}
    for refused in (["--cluster", "local", "--submit", "nonsense=2"], ["--cluster", "slurm"]):  # where there is no SLURM
        status, _, err = swept(*refused, "--set", "budget.steps=21")
        assert status == BAD_INPUT
        assert "submitit says" in err
    assert {run.name for run in store.all_runs()} == made
