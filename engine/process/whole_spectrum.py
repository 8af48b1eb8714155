"""The reading of the whole spectrum that a run at work was asked for: a part at a time, and commands are heard between two."""

import time
from collections.abc import Callable

from engine.base.errors import UserError, is_out_of_memory
from engine.phases.experiment import Experiment
from engine.phases.whole_spectrum import Reading, whole
from engine.process.checkpoints import NO_CHECKPOINT, restored
from engine.process.recorder import Recorder
from engine.record import messages
from engine.record.arrays import load_checkpoint
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.xla.device import configure

NO_LOSS = "a phase portrait has no loss, so there is no spectrum to read"


class SpectrumReader:
    """At most one reading at a time, from the command to its answer."""

    def __init__(self, writer: Writer, recorder: Recorder):
        self.writer, self.recorder = writer, recorder
        self.task = ""
        """The part that is being computed, in words; empty where none is."""
        self.began = 0.0
        """When the reading began, by the monotonic clock."""
        self._reading: Reading | None = None
        self._asked, self._step = messages.Density(), 0

    @property
    def is_busy(self) -> bool:
        """Whether there is a reading to go on with."""
        return self._reading is not None

    def begin(self, experiment: Experiment, command: messages.Density) -> None:
        """Begin the reading at the present θ; refused while another one goes on, and where there is no loss."""
        step = experiment.clock.step
        if self._reading is not None:
            self._refuse(step, command.id, f"a spectral density is being taken already ({self.task}); ask again after it")
            return
        reading = experiment.whole_spectrum(command)
        if reading is None:
            self._refuse(step, command.id, NO_LOSS)
            return
        self._reading, self._asked, self._step = reading, command, step
        self.task, self.began = "spectral density: begins", time.monotonic()

    def go_on(self) -> None:
        """Compute the next part, or write down what the last one has made whole. Where the device has not enough memory for it, the reading
        is given up and the run goes on.
        """
        assert self._reading is not None
        try:
            self.task = next(self._reading)
        except StopIteration as ended:
            self._reading, self.task = None, ""
            self.writer.density(self._step, ended.value.arrays)
            self.recorder.emit([messages.DensityTaken(step=self._step, text=ended.value.text, answers=self._asked.id)])
            self.recorder.restart_clock()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            why = f"the device has not enough memory ({self.task}); fewer Lanczos steps need less: `eos density RUN --steps N`"
            self.give_up(why)
            self.recorder.restart_clock()

    def give_up(self, why: str) -> None:
        """Leave the reading, where there is one, and say why."""
        if self._reading is not None:
            self._reading, self.task = None, ""
            self._refuse(self._step, self._asked.id, f"the spectral density at step {self._step} was not taken: {why}")

    def _refuse(self, step: int, answers: str, text: str) -> None:
        self.recorder.emit([messages.Refused(step=step, text=text, answers=answers)])


def of_last_checkpoint(run: Run, command: messages.Density, tell: Callable[[str], None]) -> messages.DensityTaken:
    """Read the whole spectrum of a run that no engine is at work on, at its newest checkpoint, into its record; the event written.

    `tell` is called with each part before it is computed. Raises UserError where there is nothing to read it at.
    """
    configure(sparing=run.spec.rematerializes)
    with Writer(run) as writer:
        tell("the problem is built, and its newest checkpoint read")
        experiment = _at_last_checkpoint(run)
        reading, step = experiment.whole_spectrum(command), experiment.clock.step
        if reading is None:
            raise UserError(f"run {run.name}: {NO_LOSS}")
        spectrum = whole(reading, tell)
        event = messages.DensityTaken(step=step, text=spectrum.text, answers=command.id)
        writer.density(step, spectrum.arrays)
        writer.event(event)
        return event


def _at_last_checkpoint(run: Run) -> Experiment:
    """The experiment of a run as its newest readable checkpoint has it."""
    experiment, why = Experiment(run.spec, run.columns), "it has none"
    begun = experiment.standing
    for path, leaves in load_checkpoint(run):
        try:
            changed = restored(experiment, run, leaves)
        except NO_CHECKPOINT as error:
            experiment.put_back(begun)
            why = f"{path.name} cannot be read ({str(error).strip()[:200]})"
            continue
        if changed:
            raise UserError(f"run {run.name}: its loss is not the one of its checkpoint {path.name}, where {changed}")
        return experiment
    raise UserError(f"run {run.name}: no checkpoint to read the spectrum at: {why}")
