"""The headless command line: data on stdout, the story on stderr, one sentence for bad input, and honest exit statuses."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from engine.base.errors import BAD_END, BAD_INPUT, BROKEN_PIPE, HELD, INTERRUPTED
from engine.commands.main import main
from engine.jobs import launch
from engine.record import lock, store
from engine.record.messages import Advance, Anchor, SetLearningRate
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.report.summary import Summary, summarize
from engine.spec import load_spec, preset_names

from places import ROOT
from synthetic import EDGE, FakeEngine, make_run

FIELDS = ["run", "outcome", "steps", "edge_step", "sharpness_over_threshold", "threshold_ratio", "loss", "prediction_correlation",
          "seconds", "averages", "active"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Engine processes find this tree, installed or not, and no terminal is taken for granted."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("COLUMNS", "100")


def test_a_run_ends_with_one_json_object_on_stdout(capfd, own_home):
    assert main(["run", "toy", "--set", "budget.steps=60", "--set", "tracking.flow=false", "--name", "mine", "--json"]) == 0
    out, err = capfd.readouterr()
    summary = json.loads(out)
    assert list(summary) == FIELDS
    assert (summary["run"], summary["outcome"], summary["steps"], summary["edge_step"]) == ("mine", "completed", 60, 0)
    assert summary["prediction_correlation"] == pytest.approx(1, abs=1e-9)
    assert summary["seconds"] > 0
    assert "the edge: sharpness reached 2/η" in err
    assert err.endswith("completed 60 steps\n")
    assert store.resolve("mine").path == own_home / "mine"


def test_a_run_that_diverges_ends_badly(capfd):
    assert main(["run", "phase", "--set", "optimizer.learning_rate=5", "--json"]) == BAD_END
    out, err = capfd.readouterr()
    summary = json.loads(out)
    assert summary["outcome"] == "diverged"
    assert 0 < summary["steps"] < 1500
    assert "diverged at step" in err


def test_an_engine_that_dies_is_reported_with_the_end_of_its_log(capfd, monkeypatch, own_home):
    children = []

    def stillborn(run, group=None):
        with open(run.path / "engine.log", "wb") as log:
            children.append(subprocess.Popen([sys.executable, "-c", "print('no such device'); exit(1)"], stdout=log))
        return children[-1].pid

    monkeypatch.setattr(launch, "start", stillborn)
    stopped = make_run(own_home, name="stopped")
    text = (stopped.path / "state.json").read_text().replace('"kind":"completed"', '"kind":"stopped"')
    (stopped.path / "state.json").write_text(text)
    for argv in (["run", "toy", "--json"], ["resume", "stopped", "--json"]):
        assert main(argv) == BAD_END
        out, err = capfd.readouterr()
        assert json.loads(out)["outcome"] == "crashed"
        assert "the engine ended with status 1 and no outcome; every row on disk is kept, and `resume " in err
        assert err.endswith("no such device\n")
        children[-1].wait()


LEAN = [f"--set=tracking.{setting}" for setting in ("flow=false", 'predictions=["transported"]', "gauges_every=0", "landscape_every=0")]
"""What is followed beside the toy takes longer to compile than all of its steps."""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, INTERRUPTED), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_an_interrupt_stops_the_engine_cleanly_and_resume_goes_on(own_home, capfd, number, status):
    command = [sys.executable, "-m", "engine", "run", "toy", "--set", "budget.steps=400", *LEAN, "--name", "long", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    next(line for line in process.stderr if line.startswith("the edge"))
    process.send_signal(number)
    out, rest = process.communicate(timeout=60)
    assert process.returncode == status, rest
    assert json.loads(out)["outcome"] == "stopped"
    assert "stopping: the engine writes a checkpoint" in rest
    assert "Traceback" not in rest
    run = Run(own_home / "long")
    assert not run.is_locked()
    assert run.checkpoints()
    assert run.state().outcome.kind == "stopped"
    assert main(["resume", "long"]) == 0
    out, err = capfd.readouterr()
    assert "continued from the checkpoint" in err
    assert "the edge" not in err  # that was printed before
    assert run.state().outcome.kind == "completed"
    np.testing.assert_array_equal(run.table()["step"], np.arange(400))


BAD = [
    (["run", "fashon"], 'preset "fashon": not known; did you mean "fashion"?'),
    (["run", "toy", "--set", "optimizer.learning_rate=0"], "learning_rate = 0; expected `float` > 0.0"),
    (["run", "toy", "--set", "optimizer.momentum=0.9"], "[optimizer] momentum: unknown key"),
    (["run", "toy", "--set", "nothing"], "expected section.field=value"),
    (["run", "toy", "--name", "../away"], "run name '../away'"),
    (["run"], "eos: run PRESET: missing; `python -m engine run --help` tells what it is"),
    (["run", "toy", "--set"], "eos: run --set: expected a value after it; `python -m engine run --help` tells which"),
    (["run", "toy", "--name", "a", "--name", "b"], "eos: run --name: given more than once; expected one"),
    (["run", "toy", "--fast"], "eos: run --fast: no such option; "),
    (["ls", "--jsn"], 'eos: ls --jsn: no such option; did you mean "--json"?'),
    (["ls", "-q"], "eos: ls -q: no such option; `python -m engine ls --help` lists them"),
    (["ls", "a", "b"], 'eos: ls "a", "b": more than it takes; `python -m engine ls --help` tells what that is'),
    (["presets", "shw"], 'eos: presets "shw": more than it takes; did you mean "show"?'),
    (["rnu", "toy"], 'eos: rnu: no such command; did you mean "run"?'),
    (["data", "x"], "eos: data x: no such command; `python -m engine data --help` lists them"),
    (["advance", "x", "0"], "steps = 0: expected `int` >= 1"),
    (["advance", "x", "many"], 'eos: advance STEPS = "many"; expected a whole number'),
    (["eta", "x", "many"], 'eos: eta LEARNING_RATE = "many"; expected a number'),
    (["tail", "x", "-n", "many"], 'eos: tail -n = "many"; expected a whole number'),
    (["show", "--json=maybe"], 'eos: show --json = "maybe"; expected true or false'),
    (["bench", "--rounds", "0"], "eos: bench --rounds = 0; expected a number >= 1"),
    (["eta", "x", "1e-310"], "learning_rate = 1e-310: expected 1e-100 or more, for 2/η to be a number"),
    (["eta", "x", "-1"], "learning_rate = -1.0: expected `float` > 0.0"),
    (["show"], "no runs yet"),
    (["show", "nowhere"], "run nowhere: not found"),
    (["pause", "nowhere"], "run nowhere: not found"),
    (["work", "nowhere"], "not a run directory"),
    (["bench", "nothing"], '"nothing": not known; expected some of "digits", "fashion-1000", "fashion-5000", "fashion-cnn", "tr'),
    (["bench", "nothing"], 'or "scaling", "runs", "batch", "several", "memory" alone, or "device" and a folder'),
    (["bench", "device"], "bench device: expected one folder"),
    (["bench", "device", "nowhere"], "nowhere: nothing is prepared there; expected a folder of `bench device "),
    (["bench", "digits", "--small"], "bench digits: --prepare and --small are options of `bench device FOLDER` alone"),
]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_bad_input_is_reported_in_one_line_and_nothing_is_made(argv, said, capfd, own_home, monkeypatch):
    if argv[0] == "work":
        monkeypatch.setattr("engine.xla.device.configure", lambda: None)
    assert main(argv) == BAD_INPUT
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("eos: ")
    assert err.count("\n") == 1
    assert said in err
    assert not own_home.exists() or not list(own_home.iterdir())


def test_a_home_that_cannot_be_written_is_reported(capfd, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EOS_HOME", str(tmp_path / "file" / "home"))
    assert main(["run", "toy"]) == BAD_INPUT
    assert "a run cannot be created there" in capfd.readouterr().err


@pytest.mark.parametrize(("tokens", "option"), [
    (["reproduce", "fig2", "--small", "--out", ""], "--out ''"), (["reproduce", "fig2", "--out="], "--out ''"),
    (["export", "mine", "--tensorboard", ""], "--tensorboard ''"), (["help", "examples", "--copy", ""], "--copy ''"),
    (["run", "toy", "--data-dir", ""], "--data-dir ''"), (["tail", "-n", ""], "-n ''"), (["rm", ""], "''"),
])  # fmt: skip
def test_an_argument_of_nothing_is_not_the_folder_one_is_in(tokens, option, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(tokens) == BAD_INPUT
    assert capfd.readouterr().err == f"eos: {option}: an empty argument; give a value, `.` for this folder, or leave it out\n"
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_cannot_compute_as_it_is_says_why_and_leaves_no_run(capfd, own_home, monkeypatch):
    monkeypatch.setenv("JAX_DEBUG_NANS", "1")
    assert main(["run", "toy"]) == BAD_INPUT
    assert "eos: jax_debug_nans = True: eos cannot compute so" in capfd.readouterr().err
    assert list(store.run_folders()) == []


def test_a_taken_name_is_refused_and_the_run_untouched(capfd, own_home):
    made = make_run(own_home, name="taken")
    before = made.rows().tobytes()
    assert main(["run", "toy", "--name", "taken"]) == BAD_INPUT
    assert "exists already" in capfd.readouterr().err
    assert made.rows().tobytes() == before


def test_commands_are_answered_with_the_step_at_which_they_took_effect(capfd, own_home):
    run = make_run(own_home, steps=120, finished=False)
    with FakeEngine(run) as fake:
        for argv, answer in (
            (["pause", "made"], "paused at step 119"),
            (["advance", "made", "3"], "took 3 steps, paused at step 122"),
            (["go", "made"], "resumed at step 122"),
            (["eta", "made", "0.03"], "η is now 0.03"),
            (["anchor", "made", "--every", "50"], "re-anchored"),
            (["checkpoint", str(run.path)], "checkpoint at step 122"),
            (["stop", "made"], "stopped at step 122"),
        ):
            assert main(argv) == 0
            out, err = capfd.readouterr()
            assert (out, err) == (f"{answer}\n", "")
    commands = [command for command in fake.commands if isinstance(command, Advance | SetLearningRate | Anchor)]
    assert (commands[0].steps, commands[1].learning_rate, commands[2].every) == (3, 0.03, 50)


def test_a_run_without_an_engine_takes_no_commands(capfd, own_home):
    make_run(own_home)
    for argv in (["pause", "made"], ["stop", "made"]):
        assert main(argv) == BAD_INPUT
        assert "run made has finished: no engine takes commands; it is over (completed 399 steps)" in capfd.readouterr().err
    make_run(own_home, name="crashed", finished=False)
    assert main(["pause", "crashed"]) == BAD_INPUT
    assert "run crashed is crashed: no engine takes commands; `resume crashed` starts one" in capfd.readouterr().err


def test_only_a_run_with_something_left_is_resumed(capfd, own_home):
    run = make_run(own_home)
    assert main(["resume", "made"]) == BAD_INPUT
    assert "it has ended (completed 399 steps)" in capfd.readouterr().err
    with FakeEngine(run):
        assert main(["resume", "made"]) == HELD
        assert "its engine is running already\n" in capfd.readouterr().err
        assert main(["pause", "made"]) == 0
        assert main(["resume", "made"]) == HELD
        assert "its engine is paused already; `go made` lets it go on\n" in capfd.readouterr().err


def test_runs_are_listed_and_shown_and_removed(capfd, own_home):
    assert main(["ls"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "no runs" in err
    make_run(own_home, name="one")
    run = make_run(own_home, name="two")
    assert main(["ls"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "one", "two"]
    assert lines[1].split()[1:4] == ["synthetic", "finished", "399"]
    assert main(["ls", "--json"]) == 0
    assert [entry["run"] for entry in json.loads(capfd.readouterr().out)] == ["one", "two"]
    assert main(["show"]) == 0
    assert f"step {EDGE}: the sharpness reached 2/η" in capfd.readouterr().out
    assert main(["show", "one", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["summary"]["edge_step"] == EDGE
    assert shown["spec"]["problem"]["data"]["name"] == "fashion"
    with FakeEngine(run):
        assert main(["rm", "two"]) == BAD_INPUT
        assert "still running" in capfd.readouterr().err
    assert main(["rm", "one", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"run": "one", "removed": True}
    assert not (own_home / "one").exists()
    assert (own_home / "two").is_dir()


def spoil(file: str, body: bytes) -> Callable[[Path], object]:
    return lambda run: (run / file).write_bytes(body)


def rewrite_later(run: Path) -> None:
    """As a later version may: with a status and a file that are unknown here."""
    state = json.loads((run / "state.json").read_bytes())
    (run / "state.json").write_text(json.dumps(state | {"format": 99, "status": "dreaming"}))
    (run / "dreams.npz").touch()


@pytest.mark.parametrize(("harm", "status", "why"), [
    (rewrite_later, "newer", "state.json: written by a later eos, in format 99, and this one reads formats up to 2; upgrade it"),
    (spoil("state.json", b'{"format": 99, "status": "finished"}'), "newer", "state.json: written by a later eos, in format 99, and"),
    (spoil("spec.toml", b""), "damaged", "spec.toml: [top level] name: missing, and it has no default"),
    (spoil("spec.toml", b"\xff"), "damaged", "spec.toml: not UTF-8 text"),
    (lambda run: (run / "spec.toml").unlink(), "damaged", "never made whole, or not removed to its end"),
])  # fmt: skip
def test_a_run_that_cannot_be_opened_is_listed_as_what_it_is_and_removed(harm, status, why, capfd, own_home):
    for name in ("spoiled", "whole"):
        os.utime(make_run(own_home, name=name).path / "spec.toml", (0, 0))  # long ago: its engine is not about to begin
    harm(own_home / "spoiled")
    assert main(["ls", "--json"]) == 0
    whole, spoiled = json.loads(capfd.readouterr().out)
    assert whole.keys() == spoiled.keys()
    assert (whole["run"], spoiled["run"], spoiled["status"], spoiled["step"]) == ("whole", "spoiled", status, None)
    assert spoiled["outcome"].startswith(why)
    assert main(["ls"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].split()[:2] == ["spoiled", status]
    assert main(["rm", "spoiled", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"run": "spoiled", "removed": True}
    assert [each.name for each in own_home.iterdir()] == ["whole"]


def test_a_damaged_run_is_not_removed_while_an_engine_is_at_work_on_it(capfd, own_home):
    run = make_run(own_home)
    spoil("spec.toml", b"")(run.path)
    with closing(lock.take(run.path, run.name)):
        assert main(["rm", "made"]) == BAD_INPUT
        assert "`eos stop made` first" in capfd.readouterr().err
    assert (run.path / "metrics.f64").is_file()


@pytest.mark.parametrize("body", [b"", b"\xff", b"title = 'a project'"])
def test_a_folder_that_is_no_run_is_neither_listed_nor_removed_though_its_files_are_called_as_those_of_one(body, capfd, own_home):
    for name in ("spec.toml", "columns.json", "notes.txt"):
        (own_home / "project").mkdir(parents=True, exist_ok=True)
        (own_home / "project" / name).write_bytes(body)
    assert main(["ls", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == []
    for name in ("project", str(own_home / "project")):
        assert main(["rm", name]) == BAD_INPUT
    assert len(list((own_home / "project").iterdir())) == 3


@pytest.mark.parametrize("holds", [".profile", "checkpoints", "tags.json"])
def test_a_folder_of_somebody_elses_is_no_run(holds, capfd, own_home, tmp_path):
    """Of hidden files alone, or outside the runs of what many a project has: a run that was not made whole is one among the runs."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / holds).touch()
    assert main(["rm", str(tmp_path / "mine")]) == BAD_INPUT
    assert "not a run directory" in capfd.readouterr().err
    assert (tmp_path / "mine" / holds).is_file()


def test_several_runs_are_removed_and_one_that_is_not_there_keeps_no_other(capfd, own_home):
    for name in ("one", "two", "three"):
        make_run(own_home, name=name)
    assert main(["rm", "one", "twoo", "two", "--json"]) == BAD_INPUT
    out, err = capfd.readouterr()
    assert json.loads(out) == [{"run": "one", "removed": True}, {"run": "two", "removed": True}]
    assert 'did you mean "two"?' in err
    assert [run.name for run in store.all_runs()] == ["three"]


def test_the_name_given_to_a_command_is_that_of_a_new_run(capfd, own_home):
    make_run(own_home, name="one")
    for command in (["stop", "--name", "one"], ["show", "--name", "one"], ["fork", "--name", "other"]):
        assert main(command) == BAD_INPUT
    assert main(["export", "one", "--columns", "gd.sharpnes"]) == BAD_INPUT
    assert 'did you mean "gd.sharpness"?' in capfd.readouterr().err


def test_a_preset_is_shown_as_it_is_written_and_with_all_of_its_settings(capfd, tmp_path):
    assert main(["presets", "show", "toy"]) == 0
    text = capfd.readouterr().out
    (tmp_path / "mine.toml").write_text(text)
    assert replace(load_spec(str(tmp_path / "mine.toml")), name="toy") == load_spec("toy")
    assert text.startswith("#")
    assert main(["presets", "show", str(tmp_path / "mine.toml"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["recording"]["keep_checkpoints"] == 3


def test_a_module_beside_its_preset_is_the_one_that_is_meant_wherever_the_command_is_given(tmp_path, monkeypatch):
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / "made.py").touch()
    (beside / "mine.toml").write_text('problem = "made:f"\nmetrics = ["elsewhere:g"]\n[optimizer]\nlearning_rate = 1\n')
    monkeypatch.chdir(here)
    spec = load_spec("../beside/mine.toml")
    assert Path(spec.problem.folder).resolve() == beside.resolve()
    assert spec.metrics.folder == ""  # where the command is given


def test_the_presets_are_listed_with_what_they_show(capfd):
    assert main(["presets"]) == 0
    text = capfd.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    assert main(["presets", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)
    assert [entry["name"] for entry in listed] == preset_names()
    assert listed[0]["shows"] == load_spec(preset_names()[0]).shows


def test_help_is_for_people_and_goes_to_stdout(capfd):
    assert main(["--help"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for name in ("run", "resume", "ls", "presets", "pause", "eta", "rm"):
        assert f"│ {name} " in out
    assert "work" not in out  # for launchers, not for people


@pytest.mark.parametrize("columns", ["0", "1", "2", "-1", "many"])
def test_help_is_laid_out_whatever_the_environment_says_of_the_columns(columns, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["check", "--help"]) == 0
    assert "preset" in capfd.readouterr().out.lower()


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m engine presets --json | head -c 10"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("words", ["--help", "data", "--version", "presets --json"])
def test_what_nobody_reads_ends_a_command_by_the_status_of_a_broken_pipe(words):
    assert unread(words, "stdout") == (BROKEN_PIPE, "")


def test_an_error_that_nobody_reads_keeps_its_status():
    assert unread("show nowhere", "stderr") == (BAD_INPUT, "")


def unread(words: str, stream: str) -> tuple[int, str]:
    """The status of a command whose stdout or stderr is a pipe that nobody reads, and what stands on the other."""
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
    try:
        done = subprocess.run([sys.executable, "-m", "engine", *words.split()], text=True, cwd=ROOT, check=False, **streams)
    finally:
        os.close(writer)
    return done.returncode, (done.stderr if stream == "stdout" else done.stdout)


def test_the_summary_reads_the_settled_sharpness_and_the_latest_full_stretch(own_home):
    summary = summarize(make_run(own_home, steps=400))
    assert isinstance(summary, Summary)
    assert summary.edge_step == EDGE
    assert summary.sharpness_over_threshold == pytest.approx(1, abs=0.02)
    early = summarize(make_run(own_home, steps=60, name="early"))
    assert (early.edge_step, early.prediction_correlation) == (None, None)


def test_the_correlation_is_that_of_the_latest_hundred_steps_after_an_anchor(own_home):
    run = store.create(load_spec("toy"), "anchored")
    with Writer(run) as writer:
        writer.append(anchored_rows(run, 260))
    assert summarize(run).prediction_correlation == pytest.approx(0.95)


def anchored_rows(run: Run, steps: int) -> np.ndarray:
    """Anchors at 0, 101 and 240: at the hundredth step from the second on the correlation is 0.95, elsewhere 0.5."""
    table = np.full((steps, len(run.columns)), np.nan)
    step = np.arange(steps)
    since = np.where(step < 101, step, np.where(step < 240, step - 101, step - 240))
    table[:, 0] = step
    table[:, run.index["generalized.since_anchor"]] = since
    table[:, run.index["generalized.correlation"]] = np.where(step == 200, 0.95, 0.5)
    return table
