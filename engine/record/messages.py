"""What is said to a run and what it answers: commands into its inbox, events into its journal.

A command is one small JSON file in `RUN/inbox/`, put there by an atomic rename; the engine takes it at the next step
boundary, and answers with an event that carries the command's id and the step at which it took effect. A command carries the id of
the engine that it is for: one that reached no engine is not carried out by the next. Events are lines of `RUN/events.jsonl`. Both are
untrusted input to whoever reads them: decoding checks every field.
"""

import errno
import math
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from engine.base import atomic
from engine.base.errors import UserError
from engine.base.files import NOT_PLAIN, listed, read_plain
from engine.base.text import harmless
from engine.record import lock
from engine.spec.sections import LEAST_RATE

MAX_COMMAND_BYTES = 4096
_COMMAND_FILE = re.compile(r"[^.].*\.json", re.DOTALL)

Message = TypeVar("Message", bound=msgspec.Struct)
Text = Annotated[str, Meta(max_length=2000)]
Identifier = Annotated[str, Meta(pattern=r"^[0-9a-f]{0,32}\Z")]


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command", forbid_unknown_fields=True, omit_defaults=True):
    """Something a run is asked to do."""

    id: Identifier = msgspec.field(default_factory=lambda: os.urandom(8).hex())
    engine: Identifier = ""
    """The engine that it is for, by its id: another one does not carry it out. Empty for whichever engine comes."""


class Pause(Command, frozen=True, kw_only=True, tag="pause"):
    """Stop at the next step boundary and wait."""


class Resume(Command, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause."""


class Advance(Command, frozen=True, kw_only=True, tag="advance"):
    """Take exactly this many steps, then pause."""

    steps: Annotated[int, Meta(ge=1, le=10**9)]


class AdvanceTo(Command, frozen=True, kw_only=True, tag="advance_to"):
    """Go on until the next stage of the cycle, or the next event of any kind, then pause."""

    what: Literal["stage", "event"]


class Checkpoint(Command, frozen=True, kw_only=True, tag="checkpoint"):
    """Write a checkpoint now."""


class Stop(Command, frozen=True, kw_only=True, tag="stop"):
    """Checkpoint and end the run."""


class SetLearningRate(Command, frozen=True, kw_only=True, tag="set_learning_rate"):
    """Change η; the constrained trajectory and the predictions restart from there."""

    learning_rate: Annotated[float, Meta(gt=0, le=1e12)]

    def __post_init__(self) -> None:
        if self.learning_rate < LEAST_RATE:
            raise ValueError(f"expected {LEAST_RATE:g} or more, for 2/η to be a number")


class Anchor(Command, frozen=True, kw_only=True, tag="anchor"):
    """Set every prediction to the true displacement now; with `every`, also every so many steps from here (0: no more)."""

    every: Annotated[int, Meta(ge=0, le=10**9)] | None = None


class Density(Command, frozen=True, kw_only=True, tag="density"):
    """Read the whole spectrum at the present θ: its density, the Gauss–Newton share of each eigenvalue followed, the sharpness by layer."""

    probes: Annotated[int, Meta(ge=1, le=256)] = 8
    """Random vectors."""
    steps: Annotated[int, Meta(ge=2, le=512)] = 40
    """Lanczos steps from each: a Hessian–vector product apiece."""


AnyCommand = Pause | Resume | Advance | AdvanceTo | Checkpoint | Stop | SetLearningRate | Anchor | Density


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Something that happened to a run, in a sentence."""

    step: int
    text: Text
    at: float = msgspec.field(default_factory=time.time)
    """Seconds since 1970."""
    answers: Identifier = ""
    """The id of the command that caused it; empty when none did."""


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """The engine took up the run, fresh or from a checkpoint."""


class SnapshotsPlanned(Event, frozen=True, kw_only=True, tag="snapshots_planned"):
    """What the snapshots of the run will take on the disk, told before its first step."""


class ProductsSlow(Event, frozen=True, kw_only=True, tag="products_slow"):
    """Products of float64 numbers are slow on the device in the way that the run computes them, told before its first step."""


class Forked(Event, frozen=True, kw_only=True, tag="forked"):
    """The run goes on from a checkpoint of another."""

    parent: str


class EdgeReached(Event, frozen=True, kw_only=True, tag="edge_reached"):
    """The sharpness reached 2/η: at a midpoint, where the constrained trajectory starts, or at a reading while training."""

    sharpness: float


class StageChanged(Event, frozen=True, kw_only=True, tag="stage_changed"):
    """The cycle of Section 4.1 entered another stage."""

    stage: int


class Anchored(Event, frozen=True, kw_only=True, tag="anchored"):
    """The predictions (all, or those named) were set to the true displacement."""

    forms: tuple[str, ...]


class PredictionLost(Event, frozen=True, kw_only=True, tag="prediction_lost"):
    """A prediction left validity: it is not finite, or far outside the orbit."""

    form: str


class AssumptionFailed(Event, frozen=True, kw_only=True, tag="assumption_failed"):
    """An assumption of the theory does not hold here."""

    assumption: int


class AssumptionRestored(Event, frozen=True, kw_only=True, tag="assumption_restored"):
    """An assumption of the theory holds again."""

    assumption: int


class EigenvalueUnstable(Event, frozen=True, kw_only=True, tag="eigenvalue_unstable"):
    """An eigenvalue of gradient descent is above 2/η for the first time."""

    number: int


class SpectrumGrown(Event, frozen=True, kw_only=True, tag="spectrum_grown"):
    """More eigenvalues are followed: the smallest came near the edge."""

    count: int


class DirectionJoined(Event, frozen=True, kw_only=True, tag="direction_joined"):
    """One direction more is at the edge, and θ† is held along it."""

    count: int


class DirectionLeft(Event, frozen=True, kw_only=True, tag="direction_left"):
    """One direction fewer is at the edge."""

    count: int


class OscillationSeeded(Event, frozen=True, kw_only=True, tag="oscillation_seeded"):
    """Gradient descent's θ was moved, so that it swings where an oscillation is predicted and none had begun."""


class EigenvectorsSwapped(Event, frozen=True, kw_only=True, tag="eigenvectors_swapped"):
    """The top eigenvector turned more than a step can turn it: two eigenvalues crossed."""


class EigenpairCorrected(Event, frozen=True, kw_only=True, tag="eigenpair_corrected"):
    """An audit from a random start met a larger eigenvalue than the tracked one."""


class ConstraintLost(Event, frozen=True, kw_only=True, tag="constraint_lost"):
    """The projection onto the stable set did not reach its tolerance."""


class DensityTaken(Event, frozen=True, kw_only=True, tag="density_taken"):
    """The spectral density at this step is on disk, with the Gauss–Newton shares and the sharpness by layer."""


class MetricFailed(Event, frozen=True, kw_only=True, tag="metric_failed"):
    """A quantity of the user's own could not be computed; its column has no value from this step on."""

    metric: str


class TrackingEnded(Event, frozen=True, kw_only=True, tag="tracking_ended"):
    """θ† is no longer followed; gradient descent goes on."""


class FlowEnded(Event, frozen=True, kw_only=True, tag="flow_ended"):
    """The central flow beside a training is no longer followed; the training goes on."""


class LearningRateChanged(Event, frozen=True, kw_only=True, tag="learning_rate_changed"):
    """η changed; the approach to the new threshold starts here."""

    learning_rate: float


class Paused(Event, frozen=True, kw_only=True, tag="paused"):
    """The run waits at this step."""


class Resumed(Event, frozen=True, kw_only=True, tag="resumed"):
    """The run goes on from this step."""


class Checkpointed(Event, frozen=True, kw_only=True, tag="checkpointed"):
    """The state at this step is on disk."""


class CheckpointSkipped(Event, frozen=True, kw_only=True, tag="checkpoint_skipped"):
    """A checkpoint could not be gone on from; the one before was tried."""


class RecordCut(Event, frozen=True, kw_only=True, tag="record_cut"):
    """Rows at the end of the record were no rows of this run, and were cut off."""


class FolderMoved(Event, frozen=True, kw_only=True, tag="folder_moved"):
    """The run directory has lost its name; the engine goes on in it."""


class Refused(Event, frozen=True, kw_only=True, tag="refused"):
    """A command could not be carried out."""


class Finished(Event, frozen=True, kw_only=True, tag="finished"):
    """The run ended."""

    outcome: str


AnyEvent = (
    Started | SnapshotsPlanned | ProductsSlow | Forked | EdgeReached | StageChanged | Anchored | PredictionLost
    | AssumptionFailed | AssumptionRestored | EigenvalueUnstable | SpectrumGrown | DirectionJoined | DirectionLeft | OscillationSeeded
    | EigenvectorsSwapped | EigenpairCorrected | ConstraintLost | TrackingEnded | FlowEnded | DensityTaken | MetricFailed
    | LearningRateChanged
    | Paused | Resumed | Checkpointed | CheckpointSkipped | RecordCut | FolderMoved | Refused | Finished
)

def edge_in_force(events: Iterable[AnyEvent]) -> int | None:
    """The step at which the sharpness first reached 2/η at the η in force at the end of these events; None where it has not since η
    changed."""
    edge, rate = None, math.nan
    for event in events:
        if isinstance(event, LearningRateChanged):
            edge, rate = edge if event.learning_rate == rate else None, event.learning_rate
        elif isinstance(event, EdgeReached) and edge is None:
            edge = event.step
    return edge


COMMANDS = msgspec.json.Decoder(AnyCommand)
_EVENT = msgspec.json.Decoder(AnyEvent)


def encode(message: Command | Event) -> bytes:
    """One line of JSON, without the newline. Non-finite numbers become null, so events carry finite ones only."""
    return msgspec.json.encode(message)


def decode_event(line: bytes) -> AnyEvent | None:
    """The event on a line of the journal; None where the line is torn or of a kind this version does not know."""
    try:
        return shown_harmless(_EVENT.decode(line))
    except (ValueError, RecursionError):  # ValueError: msgspec's own errors, and text that is not UTF-8
        return None


def shown_harmless(message: Message) -> Message:
    """The message with every character in its texts that a terminal would obey shown as its escape."""
    texts = {name: value for name in message.__struct_fields__ if isinstance(value := getattr(message, name), str)}
    shown = {name: harmless(value) for name, value in texts.items()}
    return message if shown == texts else msgspec.structs.replace(message, **shown)


def send(run: Path, command: AnyCommand, engine: str = "") -> str:
    """Put a command into the run's inbox and return its id. It is for the engine with the id given, else for that which holds the run now.
    Raises UserError when the inbox cannot be written.
    """
    if not engine and (holder := lock.holder_of(run)) is not None and holder.is_alive is not False:  # else a new one is just starting
        engine = holder.engine
    command = msgspec.structs.replace(command, engine=engine) if engine else command
    inbox, shown = run / "inbox", lock.named(run) / "inbox"
    if inbox.is_symlink():
        raise UserError(f"{shown}: a link, so no inbox of eos; the command was not left there")
    name = f"{time.time_ns():020d}-{command.id}"
    try:
        with atomic.write(inbox / f"{name}.json", nested=True) as draft:
            draft.write(encode(command))
    except OSError as error:
        raise UserError(f"{shown}: the command could not be left there ({error.strerror})") from None
    return command.id


class Received(msgspec.Struct, frozen=True):
    """The commands of one look into the inbox, when each was written, and the refusals of what is no command."""

    commands: list[AnyCommand]
    refusals: list[str]
    """One sentence for each file that was no command."""
    written: list[float] = []
    """When each command was left, by the clock of its file system."""


def receive(run: Path) -> Received:
    """Take every waiting command, oldest first. Files that are no commands are removed and reported."""
    commands: list[AnyCommand] = []
    refusals: list[str] = []
    written: list[float] = []
    for name in sorted(listed(run / "inbox", _COMMAND_FILE, odd=True)):
        path = run / "inbox" / name
        try:
            body, moment = _read_command(path), path.lstat().st_mtime
            path.unlink()  # before it is carried out: a command that cannot be removed would be obeyed at every step
        except OSError as error:
            refusals.append(f"{name[:60]!a} in the inbox cannot be taken ({error.strerror}); it is not carried out")
            continue
        try:
            commands.append(COMMANDS.decode(body or b""))
            written.append(moment)
        except (ValueError, RecursionError) as error:
            why = str(error)[:120] if body is not None else "a link, or too large"
            refusals.append(f"{name[:60]!a} in the inbox is no command ({why}); it was removed")
    return Received(commands, refusals, written)


def _read_command(path: Path) -> bytes | None:
    """The bytes of a command; None where it is no plain file, or too large for one. Raises OSError where it cannot be read."""
    try:
        return read_plain(path, MAX_COMMAND_BYTES, nested=True)
    except OSError as error:
        if error.errno not in (*NOT_PLAIN, errno.EFBIG):
            raise
        return None
