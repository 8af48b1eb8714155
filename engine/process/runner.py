"""The host loop of a run: commands in, rows and events out, checkpoints, and an outcome. One process, one run directory; where
several processes take the steps, this is the one that leads (`lockstep`).

Commands take effect at step boundaries.
"""

import atexit
import errno
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Sequence

import numpy as np

from engine.base.collector import collect_from_here
from engine.base.errors import HELD, UserError, first_line, is_out_of_memory
from engine.base.exit import STOPPING, end_at_once
from engine.jobs.groups import Group
from engine.phases.experiment import Experiment
from engine.process import endings
from engine.process.checkpoints import NO_CHECKPOINT, Checkpoints
from engine.process.company import Company
from engine.process.inbox import Inbox
from engine.process.load import Meter
from engine.process.pace import NextPause, Pace
from engine.process.provenance import precision_words, provenance
from engine.process.recorder import Recorder, log
from engine.process.state_file import StateFile
from engine.process.waits import COMPILING_MORE, Wait, Waits, compiling, entering
from engine.process.whole_spectrum import SpectrumReader
from engine.record import messages
from engine.record.lock import DisplacedError
from engine.record.messages import AnyCommand
from engine.record.reader import Outcome, Run, State, Status
from engine.record.writer import Writer
from engine.xla.compilations import Compilations
from engine.xla.device import configure, device_words, give_memory_back
from engine.xla.mappings import make_room

DENSITY = "spectral density"
"""Under which the seconds of one are kept."""
IDLE_SECONDS = 0.05
"""Sleep between looks into the inbox while paused."""


def work(run: Run, writer: Writer, group: Group | None = None, asked: Sequence[int] = ()) -> int:
    """Carry a run to its end, from its latest checkpoint if it has one. Returns the exit status: 0, or 3 for a bad end.

    `asked` are the signals that have asked it to stop before.
    """
    runner = Runner(run, writer, group, settles=group is not None)
    try:
        configure(sparing=run.spec.rematerializes or group is not None)
    except UserError as error:
        return endings.exit_status(runner.refuse(error))
    for number in STOPPING:
        signal.signal(number, lambda *_: runner.ask(messages.Stop()))
    if asked:
        runner.ask(messages.Stop())
    status = endings.exit_status(runner.work())
    if runner.company.deserted:
        end_at_once(status)  # jax would wait for the others; the run directory is as it should be
    if runner.state_file.displaced:
        status = HELD
    if runner.experiment is not None and runner.experiment.is_compiling:
        atexit.register(end_at_once, status)  # the interpreter must not end in the middle of a compilation, which may take half a minute
    return status


class Runner:
    """One engine at work on one run."""

    def __init__(self, run: Run, writer: Writer, group: Group | None = None, settles: bool = True):
        """One that `settles` leaves nothing that is still compiled behind."""
        self.run, self.writer, self.spec = writer.run, writer, run.spec
        self.folder = run.path
        """As a user knows it."""
        self.status: Status = "starting"
        self.outcome: Outcome | None = None
        self.experiment: Experiment | None = None
        self.company = Company(group)
        self.recorder = Recorder(writer)
        self.checkpoints = Checkpoints(writer, self.recorder)
        self.inbox = Inbox(writer, self.recorder)
        self.spectrum = SpectrumReader(writer, self.recorder)
        self.pace = Pace(run.state().seconds)
        self.state_file = StateFile(writer, self._state, run.path)
        self.waits, self.meter = Waits(self.spec.name), Meter()
        self.compilations = Compilations()
        """Of the thread that takes the steps."""
        self._compiled: set[str] = set()
        """Phases that have taken steps in this process."""
        self._next_pause = NextPause()
        self._device, self._stop_id = "", ""
        self._settles = settles
        self._refused = False
        """The problem could not be built from what was given."""
        self._finishing = threading.Lock()

    def ask(self, command: AnyCommand) -> None:
        """Hand in a command from inside the process; signal handlers use it."""
        self.inbox.ask(command)

    def work(self) -> Outcome:
        """Run to the end. Whatever goes wrong becomes an outcome; rows already written stay."""
        for _ in self.blocks():
            collect_from_here()
        assert self.outcome is not None
        return self.outcome

    def refuse(self, error: UserError) -> Outcome:
        """End where nothing can be computed as this process is."""
        self._refused = True
        self._fail(self.writer.shown(error))
        assert self.outcome is not None
        self._finish(self.outcome)
        return self.outcome

    def blocks(self) -> Iterator[np.ndarray]:
        """Run to the end, giving the rows as they are recorded, (rows, columns). Closing the iterator stops the run."""
        try:
            self.company.join(self._give_up)
            self._device = device_words()
            self.waits.on(self._device)
            self.state_file.begin()
            experiment = self._begin()
            while self.outcome is None:
                self._obey(experiment)
                if self.outcome is None and self.spectrum.is_busy:
                    self.spectrum.go_on()
                    if not self.spectrum.is_busy:
                        self.waits.note(DENSITY, time.monotonic() - self.spectrum.began)
                elif self.status == "paused":
                    time.sleep(IDLE_SECONDS)
                    experiment.hold()
                elif self.outcome is None:
                    try:
                        yield self.advance(experiment)
                    except GeneratorExit:
                        self._carry_out(messages.Stop(), experiment)
            self.spectrum.give_up("the run was stopped")
            self.checkpoints.save(experiment)
        except KeyboardInterrupt:  # a script's, in the middle of anything: what is in memory may be between two steps
            text = f"interrupted at step {self._step}; {endings.what_stands(self.run)}"
            self.outcome = Outcome(kind="stopped", step=self._step, text=text)
            raise
        except DisplacedError as error:
            self._leave(str(error))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            text = f"{self.writer.shown(error.filename or self.run.path)}: {error.strerror or error}; {endings.last_row_kept(self.run)}."
            self._fail(f"{text} {'Make room' if full else 'Mend that'}, then `eos resume {self.run.name}`")
        except UserError as error:
            self._refused = self.experiment is None
            self._fail(self.writer.shown(error))
        except Exception as error:
            traceback.print_exc()  # into engine.log, for whoever mends it
            if gone := self.company.loss_in(error):
                self._fail_alone(gone)
            elif is_out_of_memory(error):
                self._fail(endings.out_of_memory(self.run))
            else:
                self._fail(f"the engine failed: {first_line(error)}; see {self.folder / 'engine.log'}, then `eos resume {self.run.name}`")
        finally:
            self.state_file.end()
            if self.outcome is not None:
                self._finish(self.outcome)
            if self.experiment is not None and self._settles:
                self.experiment.settle()
            self.company.dismiss(self.experiment)

    def _begin(self) -> Experiment:
        """The experiment, from where the run goes on."""
        make_room()
        with self.waits.at("reading the data and building the problem"):
            begins = not self.run.checkpoints()
            experiment = self.company.experiment(self.spec, self.run.columns, begins, lambda: self.ask(messages.Stop()))
        self.experiment = experiment
        if experiment.counts_memory:
            give_memory_back()
        began_with = self.run.provenance().get("problem", {}).get("sha256")
        if began_with and began_with != experiment.facts.get("sha256"):
            raise UserError(f"run {self.run.name}: its data are not those it began with (SHA-256 {began_with}); bring those back")
        with self.waits.at("going back to the last checkpoint"):
            self.checkpoints.resume(experiment)
        self.writer.provenance(provenance(self.spec, experiment.facts))
        self.status = "running"
        self.recorder.restart_clock()
        return experiment

    # -- steps

    def advance(self, experiment: Experiment) -> np.ndarray:
        """Some steps; the rows they gave."""
        left = experiment.budget_left()
        if left == 0:
            self.outcome = endings.judged(experiment.budget_outcome(endings.last_edge(self.run)), self.run)
            return np.empty((0, len(self.run.columns)))
        began, step, phase = time.monotonic(), experiment.clock.step, experiment.phase
        self.compilations.begin()
        try:
            compiled = phase in self._compiled or phase == experiment.compiled_ahead
            with self.waits.at(experiment.doing if compiled else compiling(phase)):
                progress = experiment.advance(self._limit(experiment, left))
                if experiment.phase != phase:
                    self.waits.drop()
                    self.waits.note(entering(experiment.phase), experiment.entered_in)
        except NO_CHECKPOINT as error:
            if self.company.group is not None or not self.checkpoints.fall_back(experiment, error):
                raise
            return np.empty((0, len(self.run.columns)))
        self._compiled.add(phase)
        self.checkpoints.step_taken()
        if self.compilations.seconds:
            self.pace.stood_still(self.compilations.seconds)
        self.pace.call_took(experiment.clock.step - step, time.monotonic() - began - self.compilations.seconds)
        block = self.recorder.progress(progress)
        self.outcome = progress.outcome and endings.judged(progress.outcome, self.run)
        self.pace.tick(experiment.clock.step)
        if experiment.precompilation is None:
            experiment.precompile()
        if self.outcome is None and self._next_pause.is_reached(experiment.clock.step, progress.events):
            self._pause(experiment.clock.step, self._next_pause.answers)
        if self.checkpoints.is_due:
            self.checkpoints.save(experiment)
        return block

    def _limit(self, experiment: Experiment, left: int) -> int:
        """Steps to take at once, of those left."""
        left = self._next_pause.limit(left, experiment.clock.step)
        if experiment.phase == "approach" and experiment.clock.step == 0:
            return 1  # the first row soon
        if experiment.phase == "edge":  # to the step, where it is to pause at an event
            return min(left, 1 if self._next_pause.event else self.pace.at_once)
        return left

    # -- commands

    def _obey(self, experiment: Experiment) -> None:
        self.state_file.need_run()
        self.recorder.note_move(experiment.clock.step)
        for command in self.inbox.commands(experiment.clock.step):
            self._carry_out(command, experiment)

    def _carry_out(self, command: AnyCommand, experiment: Experiment) -> None:
        step, answers = experiment.clock.step, command.id
        if isinstance(command, messages.Pause):
            self._pause(step, answers)
        elif isinstance(command, messages.Resume):
            self._go(NextPause(), step, f"resumed at step {step}", answers)
        elif isinstance(command, messages.Advance):
            self._go(NextPause(step + command.steps, None, answers), step,
                     f"advancing {command.steps} step{'s' * (command.steps != 1)} from step {step}", answers)
        elif isinstance(command, messages.AdvanceTo):
            event = messages.StageChanged if command.what == "stage" else messages.Event
            self._go(NextPause(None, event, answers), step, f"going on from step {step} to the next {command.what}", answers)
        elif isinstance(command, messages.Checkpoint):
            path = self.checkpoints.save(experiment)
            self.recorder.emit([messages.Checkpointed(step=step, text=f"checkpoint at step {step}: {path.name}", answers=answers)])
        elif isinstance(command, messages.Stop):
            self._stop_id = answers
            self.outcome = Outcome(kind="stopped", step=step, text=f"stopped at step {step}; `eos resume {self.run.name}` goes on")
        elif isinstance(command, messages.SetLearningRate):
            self.checkpoints.save_change(experiment, experiment.set_learning_rate(command))
        elif isinstance(command, messages.Density):
            self.spectrum.begin(experiment, command)
            self.state_file.write()  # the view is to know at once why no step is taken
        else:
            self.checkpoints.save_change(experiment, experiment.anchor(command))

    def _pause(self, step: int, answers: str) -> None:
        self.status, self._next_pause = "paused", NextPause()
        self.pace.pause()
        self.state_file.write()
        self.recorder.emit([messages.Paused(step=step, text=f"paused at step {step}", answers=answers)])

    def _go(self, next_pause: NextPause, step: int, text: str, answers: str) -> None:
        self._next_pause = next_pause
        if self.status == "paused":
            self.pace.resume()
            self.recorder.restart_clock()
        self.status = "running"
        self.state_file.write()
        self.recorder.emit([messages.Resumed(step=step, text=text, answers=answers)])

    # -- the end

    def _fail(self, text: str) -> None:
        self.outcome = Outcome(kind="failed", step=self._step, text=text)

    def _fail_alone(self, text: str) -> None:
        """Fail for want of another process."""
        self._fail(f"{text}; {endings.what_stands(self.run)}. `eos resume {self.run.name}` goes on in one process")

    def _give_up(self, text: str) -> None:
        """End this process with the run's outcome, from another thread: another process has not come, or is gone."""
        if self.outcome is None:
            self._fail_alone(text)
        assert self.outcome is not None
        self._finish(self.outcome)
        end_at_once(endings.exit_status(self.outcome))

    def _finish(self, outcome: Outcome) -> None:
        """Write how the run ended; once, whichever thread comes to it."""
        with self._finishing:
            if self.status == "finished":
                return
            self.status = "finished"
            self.writer.make_room()
            try:
                self.state_file.write()
                self.recorder.emit([messages.Finished(step=outcome.step, text=outcome.text, outcome=outcome.kind, answers=self._stop_id)])
            except DisplacedError as error:
                self._leave(str(error))
            except OSError as error:  # a full disk: the log is the last place to say it
                log(f"{self.folder}: the outcome could not be written ({error.strerror}): {outcome.text}")

    def _leave(self, why: str) -> None:
        """End, and write nothing more: another engine may be at work."""
        self.state_file.displaced, self.status = why, "finished"
        self._fail(why)
        log(why)

    @property
    def _step(self) -> int:
        return self.experiment.clock.step if self.experiment else 0

    def _wait(self) -> Wait:
        """What no step is taken for, just now."""
        experiment = self.experiment
        if self.spectrum.task:
            seconds = time.monotonic() - self.spectrum.began
            return Wait(self.spectrum.task, seconds, self.waits.before(DENSITY))
        if experiment and experiment.entering:
            phase, began = experiment.entering
            return self.waits.present((entering(phase), began))
        since = self.compilations.since
        return self.waits.present(None if self.waits.words or since is None else (COMPILING_MORE, since))

    def _state(self) -> State:
        experiment, wait = self.experiment, self._wait()
        return State(
            status=self.status, phase=experiment.phase if experiment else "starting", step=self._step,
            rate=self.pace.rate if self.status == "running" and not wait.words else 0.0,
            task=wait.words, task_seconds=round(wait.seconds, 1), task_estimate=wait.estimate, load=self.meter.load(),
            learning_rate=experiment.learning_rate if experiment else self.spec.optimizer.learning_rate,
            device=self._device, precision=precision_words(self.spec), pid=os.getpid(), host=socket.gethostname(),
            heartbeat=time.time(), seconds=self.pace.seconds, outcome=self.outcome, refused=self._refused,
        )
