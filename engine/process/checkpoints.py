"""The checkpoints of a run at work: when one is due, what goes into it, and from which one the run goes on.

After a command that changes what comes next (η, an anchor) the state is saved at once, so that a killed engine, resumed, repeats no step
under other conditions than before; and only then is the event of the change written. The events still to be written are in that
checkpoint too, for an engine that dies between the two.
"""

import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from engine.base.errors import UserError, first_line
from engine.base.text import bytes_words
from engine.phases import loss_identity
from engine.phases.experiment import Experiment, Standing
from engine.phases.snapshots import planned
from engine.process.recorder import Recorder, log
from engine.record import messages
from engine.record.arrays import CHANGED_RATE, LAST_STEP, OWED, load_checkpoint, refuse_foreign
from engine.record.messages import AnyEvent
from engine.record.reader import Run
from engine.record.writer import Writer
from engine.xla.device import device_words
from engine.xla.float64_rate import products_words

NO_CHECKPOINT = (LookupError, ValueError, TypeError, OverflowError)
"""What comes of arrays that are no checkpoint of the run's specification."""
SHARE = 0.05
"""Of the time, that checkpoints may take at most: where a step takes long, so do the numbers that identify the loss (`loss_identity`)."""

Skipped = tuple[Path, str]
"""A checkpoint that the run cannot go on from, and why."""


def restored(experiment: Experiment, run: Run, leaves: dict[str, np.ndarray] | None) -> str:
    """Stand where the leaves of a checkpoint are, None for one that cannot be read; in what the loss is another than theirs, empty where it
    is the same. Raises one of `NO_CHECKPOINT` where they are none of the run."""
    if leaves is None:
        raise ValueError("not a readable npz file")
    refuse_foreign(leaves, run)
    experiment.restore(leaves)
    return loss_identity.changed(leaves, experiment.identify, experiment.state)


class Checkpoints:
    """Writes the checkpoints of a run, and takes the run up from them."""

    def __init__(self, writer: Writer, recorder: Recorder):
        self.run, self.writer, self.recorder = writer.run, writer, recorder
        self._saved = time.monotonic()
        self._took = deque([0.0], maxlen=2)  # the shorter counts: one may have compiled, or waited for a disk
        self._older = load_checkpoint(self.run)
        self._untried: Path | None = None  # the checkpoint gone on from, until a step has been taken,
        self._begun: Standing | None = None  # and where the run began before
        self._owed: list[AnyEvent] = []
        """Events that the checkpoint gone on from was to write."""
        self._changed_rate: float | None = None
        """The learning rate that a fork begins with, where it is not that of its checkpoint."""

    # -- written

    @property
    def is_due(self) -> bool:
        """Whether it is time for one."""
        least = max(self.run.spec.recording.checkpoint_seconds, min(self._took) / SHARE)
        return time.monotonic() - self._saved > least

    def save(self, experiment: Experiment, owed: Sequence[AnyEvent] = ()) -> Path:
        """Save the state, with the events that are written once it is saved."""
        began = time.monotonic()
        lines = np.frombuffer(b"\n".join(map(messages.encode, owed)), np.uint8)
        leaves = experiment.leaves() | loss_identity.leaves_of(experiment.identify()) | {OWED: lines}
        path = self.writer.checkpoint(experiment.clock.step, leaves, self.run.spec.recording.keep_checkpoints)
        self._saved = time.monotonic()
        self._took.append(self._saved - began)
        return path

    def save_change(self, experiment: Experiment, events: list[AnyEvent]) -> None:
        """Save what has changed, then write its events."""
        if not all(isinstance(event, messages.Refused) for event in events):
            self.save(experiment, events)
        self.recorder.emit(events)

    # -- gone on from

    def resume(self, experiment: Experiment) -> None:
        """Go on from the newest checkpoint that fits, or begin anew."""
        self._begun = experiment.standing
        self._go_on(experiment, self._restore(experiment))

    def step_taken(self) -> None:
        """The checkpoint gone on from is a good one."""
        self._untried = self._begun = None

    def fall_back(self, experiment: Experiment, error: Exception) -> bool:
        """Go on from the next older checkpoint where no step can be taken from this one; False where none fits: the fault may be
        another.
        """
        if self._untried is None:
            return False
        skipped, self._untried = (self._untried, f"no step can be taken from it: {first_line(error)}"), None
        tried, begun = experiment.standing, self._begun
        assert begun is not None
        experiment.put_back(begun)
        older = self._restore(experiment)
        if self._untried is None:
            experiment.put_back(tried)
            return False
        self._go_on(experiment, [skipped, *older])
        return True

    def _restore(self, experiment: Experiment) -> list[Skipped]:
        """Take the state of the next older checkpoint that fits; those that do not, and why. Raises UserError where one fits but the loss
        is another.
        """
        skipped, begun = list[Skipped](), experiment.standing
        self._owed, self._changed_rate = [], None
        for path, leaves in self._older:
            try:
                if leaves and int(leaves.get(LAST_STEP, -1)) > self.writer.last_step:  # as in a copy made of a live run
                    raise ValueError(f"it is ahead of the record, which ends at step {self.writer.last_step}")
                changed = restored(experiment, self.run, leaves)
                self._take_owed(leaves or {})
            except NO_CHECKPOINT as error:
                experiment.put_back(begun)
                skipped.append((path, f"it has no {error}" if isinstance(error, KeyError) else str(error).strip().partition("\n")[0][:300]))
                continue
            if changed:
                raise UserError(self._another_loss(experiment.clock.step, changed))
            self._untried = path
            return skipped
        return skipped

    def _take_owed(self, leaves: dict[str, np.ndarray]) -> None:
        """What a checkpoint holds beside the state: events that go with it, and the learning rate to go on with."""
        lines = np.asarray(leaves.get(OWED, ()), np.uint8).tobytes().splitlines()
        rate = float(leaves[CHANGED_RATE]) if CHANGED_RATE in leaves else None
        self._owed, self._changed_rate = [event for event in map(messages.decode_event, lines) if event is not None], rate

    def _go_on(self, experiment: Experiment, skipped: Sequence[Skipped]) -> None:
        """Say from where the run goes on, and which checkpoints were `skipped`: it begins anew where none fits. A fork does not, whose
        first rows are of another run.
        """
        step = experiment.clock.step
        if self._untried is None and any(isinstance(event, messages.Forked) for event in self.run.events()):
            why = _words(*skipped[0]) if skipped else "it has no checkpoint"
            raise UserError(f"run {self.run.name}: {why}, and a fork has no other beginning; fork anew")
        self.recorder.repeat_from(step)
        on = f"the run goes on from step {step}" if self._untried else "the run begins anew"
        for path, why in skipped:
            text = f"{_words(path, why)}; {on}"
            log(f"{self.run.name}: {text}")
            self.recorder.emit([messages.CheckpointSkipped(step=step, text=text)])
        self.recorder.emit_new(self._owed)
        if self.writer.cut:
            self.recorder.emit([messages.RecordCut(step=step, text=self.writer.cut)])
            self.writer.cut = ""  # reported once, from whichever checkpoint the run goes on
        text = f"continued from the checkpoint at step {step}" if self._untried else "started"
        self.recorder.emit([messages.Started(step=step, text=f"{text} on {device_words()}")])
        if words := products_words(self.run.spec, jax.devices()[0]):
            self.recorder.emit([messages.ProductsSlow(step=step, text=words)])
        if words := self._snapshots(experiment):
            self.recorder.emit([messages.SnapshotsPlanned(step=step, text=words)])
        if self._changed_rate is not None:
            self.save_change(experiment, experiment.set_learning_rate(messages.SetLearningRate(learning_rate=self._changed_rate)))

    def _snapshots(self, experiment: Experiment) -> str:
        """What the snapshots still to come take on the disk at most, and what there is; empty where none are taken."""
        if not self.run.spec.recording.snapshots_every:
            return ""
        needed = planned(self.run.spec, experiment.setup.problem, experiment.state.theta.size, experiment.clock.step)
        free = shutil.disk_usage(self.run.path).free
        left = f": more than the {bytes_words(free)} that are free there, and the run ends where the disk is full"
        room = "" if needed.bytes < free else left
        return f"{needed.words} to come, in {self.run.folder.shown / 'snapshots'}{room}"

    def _another_loss(self, step: int, changed: str) -> str:
        return (
            f"run {self.run.name}: its loss is not the one of its checkpoint at step {step}, where {changed}; bring that code and data "
            f"back, or begin anew with `eos run`; `eos fork {self.run.name} --step {step} --other-loss` goes on with this one as a new run"
        )


def _words(path: Path, why: str) -> str:
    return f"checkpoint {path.name} cannot be gone on from ({why})"
