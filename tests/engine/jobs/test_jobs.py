"""Jobs and signals: what a scheduler, a terminal or a second sweep does to the processes of a run, tried on stand-ins without jax."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from engine.base.errors import BAD_END, BAD_INPUT, INTERRUPTED, UserError
from engine.commands import sweep as sweep_cli
from engine.commands.main import main
from engine.jobs import cluster, groups, launch, sweep
from engine.jobs.cluster import Work, check_parameters
from engine.record import lock, messages, store
from engine.record.reader import RISK, Run, State
from engine.spec import load_spec

from places import ROOT, TESTS
from standing_in import STAND_IN
from waiting import until

PHASE = ["sweep", "phase", "--set", "budget.steps=20"]
STARTED = """import sys
from engine.jobs import launch
from engine.commands.main import main
launch.command = lambda run: [sys.executable, {stand_in!r}, {seconds!r}, str(run.path)]
sys.exit(main({words!r}))
"""
"""A command with stand-ins for engines."""
JOB = """import os, signal, sys, threading
from engine.jobs import launch
from engine.jobs.cluster import Work
launch.command = lambda run: [sys.executable, {stand_in!r}, {seconds!r}, str(run.path)]
work, back = Work(sys.argv[1], patience=1.0), []
signal.signal(signal.SIGUSR2, lambda *_: back.append(work.checkpoint()))
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR2)).start()
print(work(), [type(each).__name__ for each in back], back[0].function.path == sys.argv[1])
"""
"""A job whose time is up after a second, as submitit tells it: by a signal whose handler is to come back."""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Processes find this tree, installed or not."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))


def process(code: str, *words: str, **settings: object) -> subprocess.Popen:
    filled = code.format(stand_in=str(STAND_IN), **settings)
    return subprocess.Popen([sys.executable, "-c", filled, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("seconds", "status", "outcome"), [("60", 0, "stopped"), ("deaf", -signal.SIGKILL, None)])
def test_a_job_whose_time_is_up_is_handed_in_anew_from_inside_the_signal(own_home, seconds, status, outcome):
    pytest.importorskip("submitit")
    run = store.create(load_spec("phase"), "job")
    job = process(JOB, str(run.path), seconds=seconds)
    out, err = job.communicate(timeout=60)
    assert out == f"{status} ['DelayedSubmission'] True\n", err
    assert (run.state().outcome.kind if run.state().outcome else None) == outcome
    assert not run.is_locked()


def test_a_job_that_is_ended_takes_its_engine_along(own_home):
    run = store.create(load_spec("phase"), "job")
    job = process("import sys\n" + JOB.partition("signal.signal")[0] + "\nwork()", str(run.path), seconds="60")
    until(lambda: run.state().pid)
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=60)
    assert run.state().outcome.kind == "stopped"


def test_a_job_of_a_run_that_is_gone_tells_it_and_opens_no_debugger(own_home, capfd):
    assert Work(str(own_home / "gone"))() == BAD_INPUT
    assert "not a run directory" in capfd.readouterr().err


def silent(run: Run) -> Run:
    """The run as an engine on another host left it, on a file system without flock."""
    there = msgspec.structs.replace(lock.engine_of(run.path), system="another", host="elsewhere")
    (run.path / lock.HELD).write_bytes(msgspec.json.encode(there))
    state = run.path / "state.json"
    state.write_bytes(msgspec.json.encode(State(status="running", pid=1, host="elsewhere")))
    os.utime(state, (state.stat().st_mtime - 120,) * 2)
    return run


def test_a_job_takes_a_silent_point_over_without_flock_after_as_long_as_a_sweep_does(own_home, monkeypatch, capfd):
    run, ages = silent(store.create(load_spec("phase"), "job")), iter([50.0] * 5 + [700.0] * 99)
    monkeypatch.setattr(launch, "command", lambda run: [sys.executable, str(STAND_IN), "0.1", str(run.path)])
    monkeypatch.setattr(cluster, "SILENT_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(Run, "unchanged_for", lambda self: next(ages))
    assert Work(str(run.path), take_over_after=600)() == 0
    assert run.state().outcome.kind == "completed"
    assert not (run.path / lock.HELD).exists()
    waits, takes = capfd.readouterr().err.splitlines()
    assert "is silent but may still be at work" in waits
    assert waits.endswith("; it is taken over once that is 600 s")
    assert takes == f"job: taken over from another host; {RISK}"


def test_a_silent_point_is_handed_in_and_one_that_is_worked_on_is_not(own_home, monkeypatch):
    class Executor:
        def submit(self, work):
            handed.append((Path(work.path).name, work.take_over_after))
            return SimpleNamespace(job_id=1)

    handed: list = []
    monkeypatch.setattr(sweep_cli, "queue", lambda *_: Executor())
    first, second = (store.create(point.spec, point.name) for point in sweep.points("phase", [sweep.axis("seed=0,1")], PHASE[3:]))
    silent(first)
    (second.path / "state.json").write_bytes(msgspec.json.encode(State(status="running", pid=1, host="elsewhere")))
    assert main([*PHASE, "--grid", "seed=0,1", "--cluster", "local", "--take-over-after", "90"]) == 0
    assert handed == [(first.name, 90)]


@pytest.mark.parametrize(("cluster", "given", "said"), [
    ("local", {"timeout_min": 0}, "--submit timeout_min=0: expected a whole number, 1 or more"),
    ("slurm", {"slurm_time": -5}, "slurm_time=-5: expected a whole number"),
    ("slurm", {"slurm_time": "4:00:00"}, "slurm_time=4:00:00: expected a whole number"),
    ("local", {"timeout_min": True}, "timeout_min=True: expected a whole number"),
    ("slurm", {"slurm_max_num_timeout": -1}, "0 or more"),
    ("slurm", {"mem_gb": float("nan")}, "mem_gb=nan: expected a number above 0"),
    ("local", {"tasks_per_node": 2}, "tasks_per_node=2: each job of a sweep is one process"),
    ("slurm", {"slurm_ntasks_per_node": 4}, "--coordinator slurm"),
    ("slurm", {"nodes": 2}, "nodes=2: each job of a sweep is one process"),
    ("slurm", {"timeout_min": 1}, "jobs are told 90 s before their time is up"),
    ("slurm", {"timeout_min": 2, "slurm_signal_delay_s": 120}, "as in slurm_signal_delay_s=60"),
])  # fmt: skip
def test_parameters_of_jobs_that_can_do_nothing_are_refused(cluster, given, said):
    with pytest.raises(UserError) as error:
        check_parameters(cluster, given)
    assert said in str(error.value)


def test_how_often_a_job_is_handed_in_anew_is_taken(own_home, tmp_path):
    pytest.importorskip("submitit")
    from engine.jobs.cluster import queue

    for given in ({"slurm_max_num_timeout": 9}, {"local_max_num_timeout": 5, "timeout_min": 3}, {"max_num_timeout": 7, "name": "mine"}):
        executor = queue("local", given, tmp_path / "jobs")
        assert executor._executor.max_num_timeout == given.get("local_max_num_timeout", given.get("max_num_timeout", 3))


@pytest.mark.parametrize("around", [
    {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, {"EOS_PROCESSES": "2", "EOS_PROCESS": "1"},
])  # fmt: skip
def test_several_tasks_without_a_coordinator_are_no_copies_of_a_run(around, monkeypatch, capfd, own_home):
    import engine

    for name, value in around.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "start", lambda *_: pytest.fail("started"))
    for words in (["run", "phase"], ["demo"], ["resume", "it"]):
        assert main(words) == BAD_INPUT
        assert "each would compute this run by itself; --coordinator slurm" in capfd.readouterr().err
    with pytest.raises(UserError, match="each would compute this run by itself"):
        engine.run("phase", steps=5)
    assert not store.all_runs()
    groups.refuse_copies("", around | {"EOS_COORDINATOR": "none"})
    assert groups.asked("none", environment=around) is None


def test_the_script_of_a_batch_job_is_one_task():
    assert groups.several({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == (1, 0)
    assert groups.several({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == (1, 0)
    assert groups.several({"SLURM_STEP_NUM_TASKS": "many", "PMI_SIZE": "3", "PMI_RANK": "2"}) == (3, 2)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGUSR1, marks=pytest.mark.slow), signal.SIGUSR2])
def test_what_a_scheduler_sends_before_it_kills_stops_a_sweep_cleanly(number, own_home):
    sweep = process(STARTED, seconds="60", words=[*PHASE, "--grid", "seed=0,1", "--workers", "2"])
    until(lambda: sum(bool(run.state().pid) for run in store.all_runs()) == 2)
    sweep.send_signal(number)
    out, err = sweep.communicate(timeout=60)
    assert (sweep.returncode, out.count("stopped")) == (128 + number, 2), err
    assert not any(run.is_locked() for run in store.all_runs())


def test_two_equal_sweeps_at_once_share_the_points(own_home, tmp_path, monkeypatch):
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    words = [*PHASE, "--grid", "seed=0..3", "--json"]
    sweeps = [process(STARTED, seconds="0.6", words=words) for _ in range(2)]
    outputs = [sweep.communicate(timeout=90) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], outputs
    for out, err in outputs:
        assert [row["outcome"] for row in json.loads(out)] == ["completed"] * 4
        assert err.count("completed, as far") == 4
    assert sorted((tmp_path / "starts").read_text().split()) == sorted(run.name for run in store.all_runs())  # each once


def test_what_one_sweep_leaves_the_other_takes_up(own_home, tmp_path, monkeypatch):
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    first = process(STARTED, seconds="60", words=[*PHASE, "--grid", "seed=0"])
    until((tmp_path / "starts").exists)
    second = process(STARTED, seconds="0.2", words=[*PHASE, "--grid", "seed=0", "--json"])
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (INTERRUPTED, 0), err
    assert json.loads(out)[0]["outcome"] == "completed"


def test_whatever_ends_a_sweep_ends_its_engines(own_home, monkeypatch):
    monkeypatch.setattr(launch, "command", lambda run: [sys.executable, str(STAND_IN), "60", str(run.path)])
    start, started = launch.start, []

    def failing(run):
        if started:
            until(lambda: started[0].state().pid)
            raise OSError(11, "Resource temporarily unavailable")
        started.append(run)
        return start(run)

    monkeypatch.setattr(launch, "start", failing)
    assert main([*PHASE, "--grid", "seed=0,1", "--workers", "2"]) == BAD_INPUT
    assert started[0].state().outcome.kind == "stopped"  # and by now: nothing is left behind


def test_a_point_that_is_removed_meanwhile_is_reported(own_home, capfd, monkeypatch):
    import shutil

    started: list = []

    def removing(run):
        started.append(run)
        pid = start(run)
        if len(started) == 1:
            until(lambda: run.state().pid)
            shutil.rmtree(run.path)
        return pid

    start = launch.start
    monkeypatch.setattr(launch, "command", lambda run: [sys.executable, str(STAND_IN), "0.3", str(run.path)])
    monkeypatch.setattr(launch, "start", removing)
    assert main([*PHASE, "--grid", "seed=0,1", "--json"]) == BAD_END
    out, err = capfd.readouterr()
    assert f"1/2 {started[0].name}: removed while the sweep was at work" in err
    assert "1 of 2 points are gone: removed meanwhile" in err
    assert [row["run"] for row in json.loads(out)] == [started[1].name]


HANGING = """import os, sys, time
from engine.jobs.follow import Followed
poll = Followed.poll
Followed.poll = lambda self: time.sleep(600) if os.path.exists({flag!r}) else poll(self)
"""
"""Looks that never come back once a file is there."""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, 143)])
def test_whoever_follows_a_run_leaves_at_once_where_the_disk_hangs(own_home, tmp_path, number, status):
    followed = process(HANGING + STARTED, flag=str(tmp_path / "hang"), seconds="60", words=["run", "phase"])
    until(lambda: any(run.state().pid for run in store.all_runs()))
    (tmp_path / "hang").touch()
    time.sleep(0.5)
    followed.send_signal(number)
    _, err = followed.communicate(timeout=20)
    assert followed.returncode == status, err
    [run] = store.all_runs()
    assert err.endswith(f"the disk does not answer; the engine, process {run.state().pid}, was told to stop\n")
    until(lambda: run.liveness() == "finished")
    assert run.state().outcome.kind == "stopped"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_submitit_hands_a_job_in_anew_whose_time_is_up(own_home, tmp_path):
    """Only submitit's own handler, requeue and controller show that a job comes back."""
    pytest.importorskip("submitit")
    endless = ["--set", "budget.steps=900000000", "--set", "optimizer.learning_rate=1e-5", "--grid", "seed=0"]
    words = ["sweep", "phase", *endless, "--cluster", "local", "--submit", "timeout_min=3", "--submit", "local_max_num_timeout=2"]
    with open(tmp_path / "said", "w") as said:  # no pipe: the controller of jobs keeps what it inherits
        subprocess.run([sys.executable, "-m", "engine", *words], stdout=said, stderr=said, timeout=60, check=True)
    controller = int(re.search(r": job (\d+)", (tmp_path / "said").read_text())[1])
    [run] = store.all_runs()
    until(lambda: run.row_count() > 0)
    for times in (1, 2):
        task = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0]
        os.kill(int(task), signal.SIGTERM)  # what a preemption begins with: the run goes on
        until(run.checkpoints)
        os.kill(int(task), signal.SIGUSR2)
        until(lambda times=times: sum("continued from the checkpoint" in event.text for event in run.events()) == times)
        until(lambda: run.state().status == "running")
    messages.send(run.path, messages.Stop())
    until(lambda: run.liveness() == "finished")
    until(lambda: not Path(f"/proc/{controller}").exists() or Path(f"/proc/{controller}/status").read_text().find("Z (zombie)") > 0)
    steps = run.rows()[:, 0]
    assert (steps == range(len(steps))).all()
