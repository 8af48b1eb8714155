"""The host loop of a run: commands in, rows and events out, checkpoints, and an outcome. One process, one run directory; where
several processes take the steps, this is the one that leads (`together`).

Commands take effect at step boundaries. After a command that changes what comes next (η, an anchor) the state is saved at
once, so that a killed engine, resumed, repeats no step under other conditions than before; and only then is the change told. What is to be
told is in that checkpoint too, for an engine that dies between the two.
"""

import errno
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from engine.base.collector import collect_from_here
from engine.base.errors import BAD_END, HELD, UserError, first_line, is_out_of_memory
from engine.base.exit import STOPPING
from engine.jobs.groups import Group
from engine.jobs.launch import BAD_ENDS
from engine.phases.approach import FIRST_ROWS, grown
from engine.phases.experiment import Experiment, Standing
from engine.record import messages
from engine.record.lock import DisplacedError
from engine.record.messages import AnyCommand, AnyEvent
from engine.record.store import (
    CHANGED_RATE,
    HEARTBEAT_SECONDS,
    LAST_STEP,
    OWED,
    Outcome,
    Run,
    State,
    Status,
    Writer,
    load_checkpoint,
    refuse_foreign,
)
from engine.spec import Network, Phase, RunSpec
from engine.xla.device import configure, device_words, process_count, version_of

if TYPE_CHECKING:
    from engine.process.rendezvous import Pulse

RATE_SECONDS = 3.0
"""Window over which the step rate is measured."""
CALL_SECONDS = 0.1
"""For the steps that one call takes at the edge, where one takes many: what a command waits for at most."""
NO_CHECKPOINT = (LookupError, ValueError, TypeError, OverflowError)
"""What comes of arrays that are no snapshot of the run's specification."""
CHECKPOINTS_SHARE = 0.05
"""Of the time, that checkpoints may take at most: where a step takes long, so do the numbers that identify the loss (`loss_identity`)."""
UNJUDGED = ("diverged", "failed", "loss_goal")
"""Outcomes that say enough of the loss."""
IDLE_SECONDS = 0.05
"""Sleep between looks into the inbox while paused."""


def work(run: Run, writer: Writer, group: Group | None = None, asked: Sequence[int] = ()) -> int:
    """Carry a run to its end, from its latest checkpoint if it has one. Returns the exit status: 0, or 3 for a bad end.

    `asked` are the signals that have asked it to stop before.
    """
    configure(sparing=run.spec.rematerializes or group is not None)
    runner = Runner(run, writer, group)
    for number in STOPPING:
        signal.signal(number, lambda *_: runner.ask(messages.Stop()))
    if asked:
        runner.ask(messages.Stop())
    status = exit_status(runner.work())
    if runner.deserted:
        os._exit(status)  # jax would wait for the others; the run directory is as it should be
    return HELD if runner.displaced else status


def exit_status(outcome: Outcome) -> int:
    """Of an engine whose run ended so."""
    return BAD_END if outcome.kind in BAD_ENDS else 0


class Runner:
    """One engine at work on one run."""

    def __init__(self, run: Run, writer: Writer, group: Group | None = None):
        self.run, self.writer, self.spec, self.group = writer.run, writer, run.spec, group
        self.folder = run.path
        """As a user knows it."""
        self.deserted = False
        """The other processes of the group are gone, or do not listen any more."""
        self.status: Status = "starting"
        self.outcome: Outcome | None = None
        self.experiment: Experiment | None = None
        self._pulse: Pulse | None = None
        self._device = ""
        self._refuses = False  # the problem that it is given
        self._asked: deque[AnyCommand] = deque()
        self._stop_id = ""
        self.displaced = ""
        """Why this engine writes nothing more, in words: another one was given the run."""
        self._moved = ""
        """What has become of the run's folder, as far as it was told."""
        self._owed: list[AnyEvent] = []
        """What the checkpoint gone on from was to tell."""
        self._changed_rate: float | None = None
        """The learning rate that a fork begins with, where it is not that of its checkpoint."""
        self._refused: set[str] = set()  # told once: a file that cannot be removed is found again at every step
        self._pause_at: int | None = None
        self._pause_on: type[messages.Event] | None = None  # kinds of event to pause at
        self._at_once = 1  # steps that a call may take at the edge
        self._advancing = ""  # id of the advance command in progress
        self._told: set[AnyEvent] = set()  # of steps that a killed engine took and this one takes again
        self._ticks: deque[tuple[float, int]] = deque()
        self._worked = run.state().seconds
        self._since = time.monotonic()
        self._last_row = time.monotonic()
        self._last_checkpoint = time.monotonic()
        self._checkpoints_took = deque([0.0], maxlen=2)  # the shorter counts: one may have compiled, or waited for a disk
        self._older = load_checkpoint(run)
        self._untried: Path | None = None  # the checkpoint gone on from, until a step has been taken,
        self._begun: Standing | None = None  # and where the run began before
        self._state_lock, self._finishing = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._seconds_at = run.index.get("cost.seconds")

    def ask(self, command: AnyCommand) -> None:
        """Hand in a command from inside the process; signal handlers use it."""
        self._asked.append(command)

    def work(self) -> Outcome:
        """Run to the end. Whatever goes wrong becomes an outcome; rows already written stay."""
        for _ in self.blocks():
            collect_from_here()
        assert self.outcome is not None
        return self.outcome

    def blocks(self) -> Iterator[np.ndarray]:
        """Run to the end, giving the rows as they are recorded, (rows, columns). Closing the iterator stops the run."""
        beat = threading.Thread(target=self._heartbeat, daemon=True)
        try:
            if self.group is not None:
                self._join(self.group)
            self._device = device_words()
            beat.start()
            self._write_state()
            self._begin()
            while self.outcome is None:
                self._obey()
                if self.status == "paused":
                    time.sleep(IDLE_SECONDS)
                    self._experiment().hold()
                elif self.outcome is None:
                    try:
                        yield self._advance()
                    except GeneratorExit:
                        self._carry_out(messages.Stop())
            self._checkpoint()
        except KeyboardInterrupt:  # a script's, in the middle of anything: what is in memory may be between two steps
            step = self.experiment.clock.step if self.experiment else 0
            self.outcome = Outcome(kind="stopped", step=step, text=f"interrupted at step {step}; {self._what_stands()}")
            raise
        except DisplacedError as error:
            self._leave(str(error))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            text = f"{self.writer.shown(error.filename or self.run.path)}: {error.strerror or error}; {self._last_row_kept()}."
            self._fail(f"{text} {'Make room' if full else 'Mend that'}, then `eos resume {self.run.name}`")
        except UserError as error:
            self._refuses = self.experiment is None
            self._fail(self.writer.shown(error))
        except Exception as error:
            traceback.print_exc()  # into engine.log, for whoever mends it
            if self.group is not None and self._is_lost(error):
                return
            if is_out_of_memory(error):
                self._fail(self._out_of_memory())
                return
            self._fail(f"the engine failed: {first_line(error)}; see {self.folder / 'engine.log'}, then `eos resume {self.run.name}`")
        finally:
            self._ended.set()
            if beat.is_alive():
                beat.join()
            if self.experiment is not None and self.experiment.rehearsal is not None:
                self.experiment.rehearsal.join()  # a process must not end in the middle of a compilation
            if self.outcome is not None:
                self._finish(self.outcome)
            if self.experiment is not None:
                self._dismiss(self.experiment)
            if self._pulse is not None:
                self._pulse.stop()

    def _join(self, group: Group) -> None:
        """Meet the other processes of the run. Where they do not come, or one falls silent, this process ends with the run's outcome."""
        from engine.process.rendezvous import join

        def give_up(text: str) -> None:
            if self.outcome is None:
                self._fail_alone(text)
            assert self.outcome is not None
            self._finish(self.outcome)
            os._exit(exit_status(self.outcome))

        self._pulse = join(group, give_up)

    def _is_lost(self, error: Exception) -> bool:
        """Whether another process is gone: then that is the outcome."""
        from engine.process import lockstep

        self.deserted = lockstep.is_lost(error)
        if self.deserted:
            self._fail_alone(self._pulse.who_is_gone() if self._pulse is not None else "another process is gone")
        return self.deserted

    def _fail_alone(self, text: str) -> None:
        """Fail for want of another process."""
        self._fail(f"{text}; {self._what_stands()}. `eos resume {self.run.name}` goes on in one process")

    def _dismiss(self, experiment: Experiment) -> None:
        """Have the other processes end."""
        try:
            experiment.end()
        except Exception as error:
            _log(f"the other processes could not be told of the end ({first_line(error)})")
            self.deserted = True
        self.deserted = self.deserted or experiment.engaged

    def _begin(self) -> None:
        self.experiment = self._build()
        began_with = self.run.provenance().get("problem", {}).get("sha256")
        if began_with and began_with != self.experiment.facts.get("sha256"):
            raise UserError(f"run {self.run.name}: its data are not those it began with (SHA-256 {began_with}); bring those back")
        self._begun = self.experiment.standing
        self._go_on(self.experiment, self._restore(self.experiment))
        self.writer.provenance(provenance(self.spec, self.experiment.facts))
        self.status = "running"
        self._last_row = time.monotonic()

    def _build(self) -> Experiment:
        if self.group is None:
            return Experiment(self.spec, self.run.columns)
        from engine.process.lockstep import Leading

        return Leading(self.spec, lambda: self.ask(messages.Stop()), self.run.columns)

    def _go_on(self, experiment: Experiment, skipped: Sequence[tuple[Path, str]]) -> None:
        """Tell from where the run goes on, and which checkpoints were `skipped`: it begins anew where none fits. A fork does not, whose
        first rows are of another run.
        """
        step = experiment.clock.step
        if self._untried is None and any(isinstance(event, messages.Forked) for event in self.run.events()):
            why = _skip_words(*skipped[0]) if skipped else "it has no checkpoint"
            raise UserError(f"run {self.run.name}: {why}, and a fork has no other beginning; fork anew")
        self._told = {_timeless(event) for event in self.run.events() if event.step >= step}
        on = f"the run goes on from step {step}" if self._untried else "the run begins anew"
        for path, why in skipped:
            text = f"{_skip_words(path, why)}; {on}"
            _log(f"{self.run.name}: {text}")
            self._emit([messages.CheckpointSkipped(step=step, text=text)])
        self._emit([event for event in self._owed if _timeless(event) not in self._told])
        if self.writer.cut:
            self._emit([messages.RecordCut(step=step, text=self.writer.cut)])
            self.writer.cut = ""  # told once, from whichever checkpoint the run goes on
        text = f"continued from the checkpoint at step {step}" if self._untried else "started"
        self._emit([messages.Started(step=step, text=f"{text} on {device_words()}")])
        if self._changed_rate is not None:
            self._change(experiment.set_learning_rate(messages.SetLearningRate(learning_rate=self._changed_rate)))

    def _restore(self, experiment: Experiment) -> list[tuple[Path, str]]:
        """Take the state of the next older checkpoint that fits; those that do not, and why. Raises UserError where one fits but the loss
        is another.
        """
        skipped, begun = list[tuple[Path, str]](), experiment.standing
        self._owed, self._changed_rate = [], None
        for path, leaves in self._older:
            try:
                if leaves is None:
                    raise ValueError("not a readable npz file")
                if int(leaves.get(LAST_STEP, -1)) > self.writer.last_step:  # as in a copy made of a live run
                    raise ValueError(f"it is ahead of the record, which ends at step {self.writer.last_step}")
                refuse_foreign(leaves, self.run)
                experiment.restore(leaves)
                changed = experiment.difference(leaves)
                self._take_owed(leaves)
            except NO_CHECKPOINT as error:
                experiment.put_back(begun)
                skipped.append((path, f"it has no {error}" if isinstance(error, KeyError) else str(error).strip().partition("\n")[0][:300]))
                continue
            if changed:
                raise UserError(self._another_loss(experiment.clock.step, changed))
            self._untried = path
            return skipped
        return skipped

    def _another_loss(self, step: int, changed: str) -> str:
        return (
            f"run {self.run.name}: its loss is not the one of its checkpoint at step {step}, where {changed}; bring that code and data "
            f"back, or begin anew with `eos run`; `eos fork {self.run.name} --step {step} --other-loss` goes on with this one as a new run"
        )

    def _take_owed(self, leaves: dict[str, np.ndarray]) -> None:
        """What a checkpoint holds beside the state: events that go with it, and the learning rate to go on with."""
        lines = np.asarray(leaves.get(OWED, ()), np.uint8).tobytes().splitlines()
        rate = float(leaves[CHANGED_RATE]) if CHANGED_RATE in leaves else None
        self._owed, self._changed_rate = [event for event in map(messages.decode_event, lines) if event is not None], rate

    def _advance(self) -> np.ndarray:
        """Some steps; the rows they gave."""
        experiment = self._experiment()
        left = experiment.budget_left()
        if left == 0:
            self.outcome = self._judged(experiment.budget_outcome(self._edge_before()))
            return np.empty((0, len(self.run.columns)))
        if self._pause_at is not None:
            left = min(left, self._pause_at - experiment.clock.step)
        if experiment.phase == "approach" and experiment.clock.step == 0:
            left = 1  # the first row soon
        if experiment.phase == "edge":  # to the step, where it is to pause at an event
            left = min(left, 1 if self._pause_on else self._at_once)
        began, step = time.monotonic(), experiment.clock.step
        try:
            progress = experiment.advance(left)
        except NO_CHECKPOINT as error:
            if self._untried is None or self.group is not None:
                raise
            skipped, self._untried = (self._untried, f"no step can be taken from it: {first_line(error)}"), None
            tried, begun = experiment.standing, self._begun
            assert begun is not None
            experiment.put_back(begun)
            older = self._restore(experiment)
            if self._untried is None:  # no older one fits: the fault may be another
                experiment.put_back(tried)
                raise
            self._go_on(experiment, [skipped, *older])
            return np.empty((0, len(self.run.columns)))
        self._untried = self._begun = None
        self._at_once = max(1, int(CALL_SECONDS * (experiment.clock.step - step) / max(time.monotonic() - began, 1e-6)))
        block = self._record(progress.rows)
        for step, arrays in progress.curves:
            self.writer.curve(step, arrays)
        self._emit([event for event in progress.events if _timeless(event) not in self._told])
        self.outcome = progress.outcome and self._judged(progress.outcome)
        self._tick(experiment.clock.step)
        if experiment.rehearsal is None:
            experiment.rehearse()
        arrived = self._pause_at is not None and experiment.clock.step >= self._pause_at
        met = self._pause_on is not None and any(isinstance(event, self._pause_on) for event in progress.events)
        if (arrived or met) and self.outcome is None:
            self._pause(self._advancing)
        least = max(self.spec.recording.checkpoint_seconds, min(self._checkpoints_took) / CHECKPOINTS_SHARE)
        if time.monotonic() - self._last_checkpoint > least:
            self._checkpoint()
        return block

    def _judged(self, outcome: Outcome) -> Outcome:
        """The outcome, or that the run diverged where its last loss is finite but beyond any descent: then no other word is true."""
        loss, rows = self.run.index.get("gd.loss"), self.run.row_count()
        if loss is None or not rows or outcome.kind in UNJUDGED:
            return outcome
        (last,) = self.run.rows(rows - 1)
        return grown(self.run.rows(0, FIRST_ROWS)[:, loss], float(last[loss]), int(last[0])) or outcome

    def _edge_before(self) -> int | None:
        """The last edge of the run, whatever η was then."""
        return max((event.step for event in self.run.events() if isinstance(event, messages.EdgeReached)), default=None)

    def _record(self, rows: list[np.ndarray]) -> np.ndarray:
        block = np.reshape(rows, (-1, len(self.run.columns)))
        if len(block) and self._seconds_at is not None:
            now = time.monotonic()
            block[:, self._seconds_at] = (now - self._last_row) / len(block)
            self._last_row = now
        self.writer.append(block)
        return block

    def _obey(self) -> None:
        self._look_around()
        received = messages.receive(self.run.path)
        step = self._experiment().clock.step
        fresh = [refusal for refusal in received.refusals if refusal not in self._refused]
        self._refused.update(fresh)
        self._emit([messages.Refused(step=step, text=refusal) for refusal in fresh])
        for command, written in zip(received.commands, received.written, strict=True):
            if self._is_stale(command, written):
                kind = type(command).__name__
                text = f"{kind}: left for an engine of this run that is gone, so not carried out; give it again if it still holds"
                self._emit([messages.Refused(step=step, text=text, answers=command.id)])
            else:
                self._carry_out(command)
        while self._asked:
            self._carry_out(self._asked.popleft())

    def _is_stale(self, command: AnyCommand, written: float) -> bool:
        """Whether a command was for another engine. One that names none is for whichever comes; but nobody asks an engine to stop that is
        not there yet.
        """
        if command.engine:
            return command.engine != self.writer.engine
        return isinstance(command, messages.Stop) and written < self.writer.began

    def _look_around(self) -> None:
        """Say so where the run's folder has lost its name: it is written all the same. Raises DisplacedError where another has it."""
        if self.displaced:
            raise DisplacedError(self.displaced)
        moved = self.writer.displaced
        if moved and moved != self._moved:
            text = f"{moved}; this engine goes on in the folder it began in"
            self._emit([messages.FolderMoved(step=self._experiment().clock.step, text=text)])
        self._moved = moved

    def _carry_out(self, command: AnyCommand) -> None:
        experiment = self._experiment()
        step, answers = experiment.clock.step, command.id
        if isinstance(command, messages.Pause):
            self._pause(answers)
        elif isinstance(command, messages.Resume):
            self._go(None, "")
            self._emit([messages.Resumed(step=step, text=f"resumed at step {step}", answers=answers)])
        elif isinstance(command, messages.Advance):
            self._go(step + command.steps, answers)
            text = f"advancing {command.steps} steps from step {step}"
            self._emit([messages.Resumed(step=step, text=text, answers=answers)])
        elif isinstance(command, messages.AdvanceTo):
            self._go(None, answers, messages.StageChanged if command.what == "stage" else messages.Event)
            text = f"going on from step {step} to the next {command.what}"
            self._emit([messages.Resumed(step=step, text=text, answers=answers)])
        elif isinstance(command, messages.Checkpoint):
            path = self._checkpoint()
            self._emit([messages.Checkpointed(step=step, text=f"checkpoint at step {step}: {path.name}", answers=answers)])
        elif isinstance(command, messages.Stop):
            self._stop_id = answers
            self.outcome = Outcome(kind="stopped", step=step, text=f"stopped at step {step}; `eos resume {self.run.name}` goes on")
        elif isinstance(command, messages.SetLearningRate):
            self._change(experiment.set_learning_rate(command))
        else:
            self._change(experiment.anchor(command))

    def _change(self, events: list[AnyEvent]) -> None:
        """Save what has changed, then tell it."""
        if not all(isinstance(event, messages.Refused) for event in events):
            self._checkpoint(events)
        self._emit(events)

    def _pause(self, answers: str) -> None:
        step = self._experiment().clock.step
        self.status, self._pause_at, self._pause_on, self._advancing = "paused", None, None, ""
        self._worked += time.monotonic() - self._since
        self._since = time.monotonic()
        self._write_state()
        self._emit([messages.Paused(step=step, text=f"paused at step {step}", answers=answers)])

    def _go(self, pause_at: int | None, answers: str, pause_on: type[messages.Event] | None = None) -> None:
        self._pause_at, self._pause_on, self._advancing = pause_at, pause_on, answers
        if self.status == "paused":
            self._since = self._last_row = time.monotonic()
            self._ticks.clear()
        self.status = "running"
        self._write_state()

    def _checkpoint(self, owed: Sequence[AnyEvent] = ()) -> Path:
        """Save the state, with the events that are told once it is saved."""
        experiment, began = self._experiment(), time.monotonic()
        lines = np.frombuffer(b"\n".join(map(messages.encode, owed)), np.uint8)
        leaves = experiment.snapshot() | experiment.identified() | {OWED: lines}
        path = self.writer.checkpoint(experiment.clock.step, leaves, self.spec.recording.keep_checkpoints)
        self._last_checkpoint = time.monotonic()
        self._checkpoints_took.append(self._last_checkpoint - began)
        return path

    def _fail(self, text: str) -> None:
        step = self.experiment.clock.step if self.experiment else 0
        self.outcome = Outcome(kind="failed", step=step, text=text)

    def _out_of_memory(self) -> str:
        stands = self._what_stands()
        if not isinstance(self.spec.problem, Network):
            return f"{device_words()} has not enough memory for this problem; {stands}"
        again = f"eos fork {self.run.name}" if self.run.checkpoints() else f"eos run {self.spec.name}"
        return (
            f"{device_words()} has not enough memory; {stands}. `{again} --set problem.micro_batch=N` goes on with N examples a pass, "
            f"and `eos check {self.spec.name} --set problem.micro_batch=N` says what that needs"
        )

    def _last_row_kept(self) -> str:
        """Which row is the last one on the disk, in words: a block that did not fit may be there in part."""
        count = self.run.row_count()
        return f"the last row on it is that of step {self.run.rows(count - 1)[0, 0]:.0f}" if count else "no row is on it yet"

    def _what_stands(self) -> str:
        """What there is to go on from, in words."""
        kept = self.run.checkpoints()
        return f"the last checkpoint, {kept[-1].name}, stands" if kept else "there is no checkpoint yet"

    def _finish(self, outcome: Outcome) -> None:
        """Write how the run ended; once, whichever thread comes to it."""
        with self._finishing:
            if self.status == "finished":
                return
            self.status = "finished"
            self.writer.make_room()
            try:
                self._write_state()
                self._emit([messages.Finished(step=outcome.step, text=outcome.text, outcome=outcome.kind, answers=self._stop_id)])
            except DisplacedError as error:
                self._leave(str(error))
            except OSError as error:  # a full disk: the log is the last place to say it
                _log(f"{self.folder}: the outcome could not be written ({error.strerror}): {outcome.text}")

    def _leave(self, why: str) -> None:
        """End, and write nothing more: another engine may be at work."""
        self.displaced, self.status = why, "finished"
        self._fail(why)
        _log(why)

    def _emit(self, events: list[AnyEvent]) -> None:
        for event in events:
            self.writer.event(event)

    def _experiment(self) -> Experiment:
        assert self.experiment is not None
        return self.experiment

    def _tick(self, step: int) -> None:
        now = time.monotonic()
        self._ticks.append((now, step))
        while len(self._ticks) > 2 and now - self._ticks[0][0] > RATE_SECONDS:
            self._ticks.popleft()

    def _rate(self) -> float:
        if len(self._ticks) < 2 or self.status != "running":
            return 0.0
        (then, first), (now, last) = self._ticks[0], self._ticks[-1]
        return (last - first) / (now - then) if now > then else 0.0

    def _heartbeat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self._write_state()
            except DisplacedError as error:
                self.displaced = str(error)
                return
            except OSError as error:
                _log(f"{self.folder}: state.json could not be written ({error.strerror})")

    def _write_state(self) -> None:
        with self._state_lock:
            self.writer.state(self._state())

    def _state(self) -> State:
        experiment = self.experiment
        working = 0.0 if self.status == "paused" else time.monotonic() - self._since
        return State(
            status=self.status, phase=experiment.phase if experiment else "starting",
            step=experiment.clock.step if experiment else 0, rate=self._rate(),
            learning_rate=experiment.clock.learning_rate if experiment else self.spec.optimizer.learning_rate,
            device=self._device, precision=precision_words(self.spec), pid=os.getpid(), host=socket.gethostname(),
            heartbeat=time.time(), seconds=self._worked + working, outcome=self.outcome, refused=self._refuses,
        )


def precision_words(spec: RunSpec) -> str:
    """The number formats in words: `f32 → f64, curvature f32`."""
    if isinstance(spec.problem, Phase):
        return "f64"
    short = {"float32": "f32", "float64": "f64"}
    chosen = spec.precision
    if spec.tracking.mode == "sharpness":
        return f"{short[chosen.approach]}, curvature {short[chosen.curvature]}"
    return f"{short[chosen.approach]} → {short[chosen.edge]}, curvature {short[chosen.curvature]}"


def provenance(spec: RunSpec, facts: dict[str, Any]) -> dict[str, Any]:
    """What a reader needs to trust or repeat a run."""
    return {
        "versions": {name: version_of(name) for name in ("eos-tui", "jax", "jaxlib", "flax", "numpy", "scipy", "tensorflow-datasets")},
        "python": platform.python_version(), "platform": platform.platform(), "device": device_words(),
        "processes": process_count(), "precision": precision_words(spec), "matmul_precision": "highest", "seed": spec.seed,
        "problem": facts, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _skip_words(path: Path, why: str) -> str:
    return f"checkpoint {path.name} cannot be gone on from ({why})"


def _log(text: str) -> None:
    """A line in engine.log, where there is room for it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _timeless(event: AnyEvent) -> AnyEvent:
    """The event without its time, as a repeated step gives it again."""
    return msgspec.structs.replace(event, at=0.0)
