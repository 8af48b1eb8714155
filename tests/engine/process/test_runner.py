"""The engine and its process: commands, checkpoints, sudden death, and a record that does not depend on them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from engine import spec as specs
from engine.base.errors import HELD
from engine.base.exit import end_at_once
from engine.jobs import launch
from engine.jobs.fork import fork
from engine.process import pace, runner
from engine.process.runner import Runner
from engine.process.waits import COMPILING_MORE
from engine.record import messages, store
from engine.record.reader import Outcome, Run
from engine.record.writer import Writer
from engine.xla.compilations import LOWERED

from small import chebyshev_spec, toy_spec
from waiting import answer, until_run

pytestmark = pytest.mark.usefixtures("x64")
LEAN = {"flow": False, "landscape_every": 0, "gauges_every": 0, "predictions": ["transported"]}
"""What each engine compiles for itself is most of its time; that every part goes on as if never interrupted, `test_experiment` shows."""


def make(spec: specs.RunSpec, *overrides: str, name: str | None = None) -> Run:
    return store.create(specs.with_overrides(spec, overrides), name)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def work(run: Run) -> Outcome:
    """The run carried on in this process, where most is compiled already: a new engine, as one in a process of its own is."""
    with Writer(run) as writer:
        return Runner(run, writer).work()


def reproducible(run: Run) -> np.ndarray:
    """The record without the clock's column."""
    keep = [k for name, k in run.index.items() if name != "cost.seconds"]
    return run.rows()[:, keep]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, x64):
    """A run of 360 steps through the edge, never disturbed."""
    run = store.create(specs.with_overrides(chebyshev_spec(0.2, **LEAN), ["budget.steps=360"]), "whole", tmp_path_factory.mktemp("runs"))
    assert work(run).kind == "completed"
    return run


def test_a_run_ends_with_its_outcome_and_every_row(uninterrupted):
    state = uninterrupted.state()
    assert (state.status, state.step, state.outcome.kind) == ("finished", 360, "completed")
    assert uninterrupted.liveness() == "finished"
    np.testing.assert_array_equal(uninterrupted.rows()[:, 0], np.arange(360))
    kinds = [type(event).__name__ for event in uninterrupted.events()]
    assert kinds[0] == "Started"
    assert kinds[-1] == "Finished"
    assert "EdgeReached" in kinds
    facts = uninterrupted.provenance()
    assert facts["problem"]["parameters"] == 97
    assert facts["versions"]["jax"]


def test_how_a_run_ended_is_written_before_what_is_compiled_beside_it_is_waited_for(monkeypatch):
    """Which takes half a minute where more directions were to come."""
    run, seen = make(toy_spec(), "budget.steps=3"), []
    monkeypatch.setattr("engine.phases.experiment.Experiment.settle", lambda _: seen.append(run.state().status))
    assert work(run).kind == "completed"
    assert seen == ["finished"]


@pytest.mark.parametrize("compiles", [True, False])
def test_an_engine_that_is_to_end_while_something_is_compiled_ends_at_once(compiles, monkeypatch):
    """With its status, and without the end of the interpreter, which a compilation does not survive."""
    run, ends = make(toy_spec(), "budget.steps=3"), []
    monkeypatch.setattr("engine.phases.experiment.Experiment.is_compiling", compiles)
    monkeypatch.setattr("engine.phases.experiment.Experiment.settle", lambda _: pytest.fail("it waits"))
    monkeypatch.setattr("engine.process.runner.atexit.register", lambda *given: ends.append(given))
    monkeypatch.setattr("engine.process.runner.signal.signal", lambda *_: None)
    with Writer(run) as writer:
        assert runner.work(run, writer) == 0
    assert ends == [(end_at_once, 0)] * compiles


def test_what_compiling_takes_in_the_midst_of_a_phase_is_told_and_left_out_of_the_rate(monkeypatch):
    """More eigenvalues are followed, say: the state says so, and the rate is that of the steps."""
    run, states = make(toy_spec(), "budget.steps=40"), []

    def advance(self, experiment):
        if experiment.clock.step == 20:
            self.compilations.note(LOWERED, 5.0)
            states.append(self._state())
        return Runner.advance(self, experiment)

    with Writer(run) as writer:
        engine = Runner(run, writer)
        monkeypatch.setattr(engine, "advance", lambda experiment: advance(engine, experiment))
        monkeypatch.setattr(engine, "_limit", lambda experiment, left: min(left, 10))
        engine.work()
    assert [(state.task, round(state.task_seconds), state.rate) for state in states] == [(COMPILING_MORE, 5, 0.0)]


@pytest.mark.parametrize("at_step", [pytest.param(150, marks=pytest.mark.slow), 335])
def test_a_killed_run_resumed_equals_an_uninterrupted_one_bit_for_bit(uninterrupted, at_step):
    run = make(chebyshev_spec(0.2, **LEAN), "budget.steps=360", "recording.checkpoint_seconds=0.05")
    launch.start(run)
    until_run(run, lambda: run.row_count() >= at_step)
    os.kill(run.state().pid, signal.SIGKILL)
    until_run(run, lambda: run.liveness() == "crashed")
    with open(run.path / "metrics.f64", "ab") as handle:
        handle.write(b"torn")
    kept = run.row_count()
    assert kept >= at_step
    assert work(run).kind == "completed"
    assert any("continued from the checkpoint" in event.text for event in run.events())
    np.testing.assert_array_equal(reproducible(run), reproducible(uninterrupted))


def test_a_fork_goes_on_from_the_checkpoint_with_another_learning_rate(uninterrupted):
    made = fork(uninterrupted, 1000, ["optimizer.learning_rate=0.21", "budget.steps=364"], "forked")
    assert work(made).kind == "completed"
    mine, theirs = reproducible(made), reproducible(uninterrupted)
    np.testing.assert_array_equal(mine[:360], theirs)
    np.testing.assert_array_equal(made.rows()[360:, :1], np.arange(360.0, 364)[:, None])
    assert (made.rows()[360:, made.index["learning_rate"]] == 0.21).all()
    kinds = [type(event).__name__ for event in made.events()]
    assert kinds[:2] == ["Started", "EdgeReached"]
    assert kinds[kinds.index("Forked") :][:3] == ["Forked", "Started", "LearningRateChanged"]


def test_commands_are_answered_at_the_step_they_took_effect():
    run = make(toy_spec(0.01, **LEAN), "budget.steps=1000000", name="journal")
    launch.start(run)
    until_run(run, lambda: run.row_count() > 5)
    paused = answer(run, messages.send(run.path, messages.Pause()))
    assert isinstance(paused, messages.Paused)
    assert run.liveness() == "paused"
    assert run.rows()[-1, 0] == paused.step - 1

    messages.send(run.path, advance := messages.Advance(steps=17))
    ended = answer(run, advance.id, messages.Paused)
    assert ended.step == paused.step + 17
    assert run.rows()[-1, 0] == ended.step - 1

    messages.send(run.path, onward := messages.AdvanceTo(what="stage"))
    ended = answer(run, onward.id, messages.Paused)
    turned = [event.step for event in run.events() if isinstance(event, messages.StageChanged)]
    assert turned[-1] == ended.step - 1
    assert len([step for step in turned if step >= paused.step + 17]) == 1

    assert answer(run, messages.send(run.path, messages.Anchor())).step == ended.step
    changed = answer(run, messages.send(run.path, messages.SetLearningRate(learning_rate=0.009)))
    assert isinstance(changed, messages.LearningRateChanged)
    saved = answer(run, messages.send(run.path, messages.Checkpoint()))
    assert f"step-{saved.step:09d}.npz" in saved.text
    (run.path / "inbox" / "0-nonsense.json").write_text('{"command": "explode"}')
    refused = until_run(run, lambda: next((e for e in run.events() if isinstance(e, messages.Refused)), None))
    assert "is no command" in refused.text
    resumed = answer(run, messages.send(run.path, messages.Resume()))
    assert resumed.step == ended.step
    messages.send(run.path, messages.Stop())
    until_run(run, lambda: run.liveness() == "finished")
    assert run.state().outcome.kind == "stopped"
    steps = run.rows()[:, 0]
    np.testing.assert_array_equal(steps, np.arange(len(steps)))


def test_a_pause_is_no_work_however_often_it_is_asked_for_and_even_where_the_run_ends_in_it(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace.time, "monotonic", clock)
    paced = pace.Pace(100.0)
    clock.now += 7
    paced.tick(0)
    clock.now += 1
    paced.tick(50)
    assert (paced.seconds, paced.rate) == (108.0, 50.0)
    for _ in range(2):
        paced.pause()
        clock.now += 1000
        assert paced.seconds == 108
    paced.resume()
    clock.now += 2
    assert (paced.seconds, paced.rate) == (110, 0)


def test_seconds_that_a_run_stood_still_are_left_out_of_its_rate(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace.time, "monotonic", clock)
    paced = pace.Pace(0.0)
    paced.tick(0)
    clock.now += 21
    paced.stood_still(20.0)
    paced.tick(50)
    assert (paced.seconds, paced.rate) == (21.0, 50.0)


def test_a_run_pauses_at_a_step_or_after_an_event():
    stage = messages.StageChanged(step=8, text="", stage=2)
    assert (pace.NextPause(step=9).limit(50, 4), pace.NextPause().limit(50, 4)) == (5, 50)
    assert [pace.NextPause(step=9).is_reached(step, [stage]) for step in (8, 9, 10)] == [False, True, True]
    assert [pace.NextPause(event=messages.Event).is_reached(8, events) for events in ([], [stage])] == [False, True]
    assert not pace.NextPause(event=messages.EdgeReached).is_reached(8, [stage])
    assert not pace.NextPause().is_reached(8, [stage])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_what_a_scheduler_sends_stops_an_engine_as_sigterm_does_even_before_it_has_begun(number):
    run = make(specs.load_spec("phase"), "budget.steps=900000000", "optimizer.learning_rate=1e-5")
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])  # as a view does, which keeps signals for a thread of its own
    try:
        pid = launch.start(run)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    until_run(run, run.is_locked)
    time.sleep(0.1)
    os.kill(pid, number)
    until_run(run, lambda: run.liveness() == "finished")
    assert run.state().outcome.kind == "stopped"
    assert run.checkpoints()[-1].name == f"step-{run.state().step:09d}.npz"


def test_two_engines_never_work_on_one_run_and_one_that_is_terminated_saves_its_state():
    run = make(toy_spec(0.01, **LEAN), "budget.steps=2000000")
    launch.start(run)
    until_run(run, lambda: run.row_count() > 5)
    second = subprocess.run(
        [sys.executable, "-m", "engine", "work", str(run.path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == HELD
    assert "another engine is at work" in second.stderr
    assert "Traceback" not in second.stderr
    os.kill(run.state().pid, signal.SIGTERM)
    until_run(run, lambda: run.liveness() == "finished")
    assert run.state().outcome.kind == "stopped"
    assert run.checkpoints()[-1].name == f"step-{run.state().step:09d}.npz"


def test_a_diverging_run_ends_badly_with_its_rows():
    run = make(toy_spec(0.01, x0=300.0, **LEAN))
    outcome = work(run)
    assert outcome.kind == run.state().outcome.kind == "diverged"
    assert run.row_count() == outcome.step


def test_an_unusable_checkpoint_is_skipped_for_an_older_one():
    run = make(toy_spec(0.01, **LEAN), "budget.steps=30", "recording.checkpoint_seconds=0.001")
    work(run)
    newest = run.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    assert work(run).kind == "completed"
    assert any("continued from the checkpoint" in event.text for event in run.events())
    np.testing.assert_array_equal(run.rows()[:, 0], np.arange(30))


def test_a_full_disk_ends_the_run_with_a_sentence(monkeypatch):
    run = make(toy_spec(0.01, **LEAN), "budget.steps=50")
    with Writer(run) as writer:
        limited = writer.append

        def append(rows):
            limited(rows[rows[:, 0] < 20])
            if len(rows) and rows[-1, 0] >= 20:
                raise OSError(28, os.strerror(28))

        monkeypatch.setattr(writer, "append", append)
        outcome = Runner(run, writer).work()
    assert outcome.kind == "failed"
    assert "No space left on device; the last row on it is that of step 19. Make room, then" in outcome.text
    assert "eos resume" in outcome.text
    assert run.row_count() == 20
