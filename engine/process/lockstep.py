"""Several processes at one run: process 0 leads, the others follow its orders and take the same steps.

The problem is shared out, an equal part of the examples to every device of every process (`problem`); θ and whatever else is no
example is on all of them, computed alike. All must therefore call the same compiled functions in the same order, and one that took
another turn would leave the others waiting for ever. So nothing is decided twice: process 0 reads the inbox, the clock and the disk,
and before its state changes it sends what changes it, as the command that a user would give. The others only obey.

Before each order all compare their steps and the bits of their states. Where one differs (after a resume, or in rounding) all go on from
the state of process 0.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from engine.base import stuck
from engine.base.errors import UserError, first_line
from engine.base.exit import STOPPING, end_at_once
from engine.jobs.fork import differences
from engine.jobs.groups import Group, PlaceError
from engine.phases.context import Progress
from engine.phases.experiment import Experiment, Standing
from engine.phases.loss_identity import Identity
from engine.phases.whole_spectrum import Reading, whole
from engine.process.rendezvous import Heartbeat, join, leave
from engine.record import messages, trust
from engine.record.columns import Column
from engine.record.messages import AnyCommand, AnyEvent
from engine.spec import Network, Own, RunSpec, load_spec_text, to_toml

PIECE = 1 << 26
"""Most bytes sent at once: as many again, for each process, are needed on the device."""
ORDER = 256
"""Bytes of an order."""
SAID = 600
"""Bytes of what went wrong."""
LOST = ("Gloo", "NCCL", "ncclCommAbort", "coordination service", "CoordinationService")
"""What an error speaks of when another process is gone."""
PATHS = (
    "problem.data.data_dir", "problem.data.vocab_file", "problem.start", "problem.folder", "optimizer.folder", "metrics.folder",
)  # fmt: skip
"""Fields that each host may have its own way."""


def share(body: bytes = b"") -> bytes:
    """The bytes that process 0 gives, in all processes."""
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(body))))
    given = np.frombuffer(body, np.uint8) if jax.process_index() == 0 else np.zeros(size, np.uint8)
    pieces = [multihost_utils.broadcast_one_to_all(given[at : at + PIECE]) for at in range(0, size, PIECE)]
    return b"".join(np.asarray(piece, np.uint8).tobytes() for piece in pieces)


def everyone(text: str) -> list[str]:
    """The text of each process, in the order of the processes."""
    said = np.frombuffer(text.encode()[:SAID].ljust(SAID, b"\0"), np.uint8)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in multihost_utils.process_allgather(said)]


def is_lost(error: Exception) -> bool:
    """Whether an error says that another process is gone."""
    return any(word in str(error) for word in LOST)


class Participant:
    """An experiment that is carried out by several processes, as each of them has it."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.asked_to_stop = False
        """By a signal to this process."""
        self.apart = False
        """Has a state that the others do not have, whatever its bits say."""

    def agree(self) -> tuple[bool, bool]:
        """Have all processes at the state of process 0. Returns whether one was asked to stop, and whether one had drifted off."""
        mine = np.array([self.experiment.clock.step, fingerprint(self.experiment), self.apart, self.asked_to_stop], np.int64)
        states = multihost_utils.process_allgather(mine)
        drifted, anew = bool((states[:, :2] != states[0, :2]).any()), bool(states[:, 2].any())
        if drifted or anew:
            # All of them anew from the same bytes: arrays that lie elsewhere would be compiled for anew, in one process alone.
            given = share(_packed(self.experiment.leaves()) if jax.process_index() == 0 else b"")
            self.experiment.restore(_unpacked(given))
            self.apart = False
        return bool(states[:, 3].any()), drifted and not anew


def fingerprint(experiment: Experiment) -> int:
    """A sum over the bits of this process's own state on the device: θ, θ†, the predictions, every eigenvector."""
    leaves = [leaf for leaf in jax.tree.leaves(experiment.state) if isinstance(leaf, Array)]
    return int(_bits([leaf.addressable_data(0) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]))


@jax.jit
def _bits(leaves: list[Array]) -> Array:
    return sum((jnp.sum(jax.lax.bitcast_convert_type(leaf, jnp.uint32), dtype=jnp.uint32) for leaf in leaves), jnp.uint32(0))


def _packed(leaves: dict[str, np.ndarray]) -> bytes:
    body = io.BytesIO()
    np.savez(body, **leaves)  # type: ignore[arg-type]
    return body.getvalue()


def _unpacked(body: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def begin_alike(spec: RunSpec, begin: Callable[[], Experiment]) -> Experiment:
    """The experiment of this process, as every process builds its own. Raises UserError in all of them where one could not, or has
    other data.
    """
    problem, begun = "", None
    try:
        refuse_unshared(spec)
        begun = begin()
    except UserError as error:
        problem = str(error)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    said = everyone(problem)
    first = next((f"process {process}: {text}" for process, text in enumerate(said) if text), "")
    if first:
        raise UserError(first)
    assert begun is not None
    hashes = everyone(str(begun.facts.get("sha256", "")))
    other = next((process for process, sha256 in enumerate(hashes) if sha256 != hashes[0]), 0)
    if other:
        raise UserError(f"process {other}: its data (SHA-256 {hashes[other]}) are not those of process 0 ({hashes[0]})")
    return begun


def refuse_unshared(spec: RunSpec) -> None:
    """Raise UserError where there are no examples to share out, or a few of them a step."""
    if not isinstance(spec.problem, Network):
        if isinstance(spec.problem, Own):
            raise UserError(f"{spec.name}: a problem of your own is not shared out to several processes; devices= of its maker, in one")
        kind = spec.problem.__struct_config__.tag
        raise UserError(f'{spec.name}: [problem] kind = "{kind}" has no examples to share out to several processes; run it in one')
    if spec.batch.size:
        raise UserError(f"{spec.name}: [batch] size = {spec.batch.size}: a batch is not shared out to several processes; run it in one")


def refuse_other(spec: RunSpec, asked: RunSpec | None) -> None:
    """Raise UserError where this process was asked for another run than that of process 0."""
    mine, theirs = ({}, {}) if asked is None else (differences(spec, asked), differences(asked, spec))
    other = next((field for field in mine if field not in PATHS), None)
    if other is not None:
        raise UserError(f"asked for {other} = {mine[other]}, and process 0 for {theirs.get(other)}; give all the same preset and --set")


class Leader:
    """The experiment of process 0: what changes its state is done by all, and all else is the experiment's own."""

    def __init__(self, spec: RunSpec, ask_to_stop: Callable[[], None], columns: Sequence[Column] = (), begins: bool = False):
        self.ask_to_stop = ask_to_stop
        self.engaged = False
        """In the middle of what all do: others may be stuck in it."""
        share(to_toml(spec).encode())
        share(json.dumps([list(columns), begins]).encode())
        self.experiment = begin_alike(spec, lambda: Experiment(spec, columns))
        if begins:
            self.experiment.test_optimizer()
        self.participant = Participant(self.experiment)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.experiment, name)

    def advance(self, limit: int) -> Progress:
        """At most `limit` steps, in every process."""
        with self._together(messages.Advance(steps=limit)):
            return self.experiment.advance(limit)

    def set_learning_rate(self, command: messages.SetLearningRate) -> list[AnyEvent]:
        """Change η in every process."""
        with self._together(command):
            return self.experiment.set_learning_rate(command)

    def anchor(self, command: messages.Anchor) -> list[AnyEvent]:
        """Set the predictions to the true displacement in every process."""
        with self._together(command):
            return self.experiment.anchor(command)

    def whole_spectrum(self, command: messages.Density) -> Reading | None:
        """A reading of the whole spectrum, taken at once by every process: no other order comes between its parts."""
        reading = self.experiment.whole_spectrum(command)
        return None if reading is None else self._read_at_once(reading, command)

    def _read_at_once(self, reading: Reading, command: messages.Density) -> Reading:
        yield f"spectral density from {command.probes} vectors, and what is read with it, by all processes at once"
        with self._together(command):
            return whole(reading)

    def restore(self, leaves: dict[str, np.ndarray]) -> None:
        """Go on from a checkpoint; the others are given it with the next order."""
        self.experiment.restore(leaves)
        self.participant.apart = True

    def put_back(self, standing: Standing) -> None:
        """Stand there again."""
        self.experiment.put_back(standing)

    def identify(self) -> Identity | None:
        """The numbers that identify the loss, which every process has a part in."""
        with self._together(messages.Checkpoint()):
            return self.experiment.identify()

    def precompile(self) -> None:
        """Nothing: what a second thread computes with the others would come in another order in each process."""

    def hold(self) -> None:
        """Have the others wait, and see whether they are there."""
        with self._together(messages.Pause()):
            pass

    def end(self) -> None:
        """Have the others end; nothing where they would not hear it."""
        if not self.engaged:
            with self._together(messages.Stop()):
                pass

    @contextmanager
    def _together(self, command: AnyCommand) -> Iterator[None]:
        """Have the other processes carry out a command, as the caller does inside; after an error there `engaged` stays, for the others
        may be stuck in that command.
        """
        self.engaged = True
        asked, drifted = self.participant.agree()
        if drifted:
            print(f"step {self.clock.step}: one process had drifted off; all go on from process 0's state", file=sys.stderr, flush=True)
        if asked:
            self.ask_to_stop()
        body = np.frombuffer(messages.encode(command).ljust(ORDER), np.uint8)
        multihost_utils.broadcast_one_to_all(body)
        yield
        self.engaged = False


def refuse_code(spec: RunSpec, asked: RunSpec | None) -> None:
    """Raise UserError where process 0 names code that this process was not asked for: whoever reaches the port could be process 0."""
    if trust.heeds_leader():
        return
    mine = trust.code_of(asked) if asked is not None else {}
    other = {field: value for field, value in trust.code_of(spec).items() if field not in PATHS and mine.get(field) != value}
    if other:
        raise UserError(f"process 0 would have this process execute code: {'; '.join(trust.words(other))}; --trust allows it")


def follow(group: Group, asked: RunSpec | None = None) -> NoReturn:
    """Be a process that follows, to the end of the run, and end with it.

    The specification comes from process 0; where this process was asked for one, it is to be the same. Code that it names is executed
    where this process was asked for it, or is to trust process 0.
    """
    leave(_followed(group, asked))


def _followed(group: Group, asked: RunSpec | None) -> int:
    """The exit status once the run has ended; ends the process where another one is gone."""
    stuck.wait_for_disk()
    heartbeat: Heartbeat | None = None

    def ended(text: str) -> None:
        print(f"eos: process {group.process}: {text}", file=sys.stderr, flush=True)
        end_at_once(3)  # jax would wait for the others, who wait for this one

    os.dup2(2, 1)  # Gloo greets on stdout, which carries data
    try:
        heartbeat = join(group, ended)
        spec = load_spec_text(share().decode(), "process 0")
        listed, begins = json.loads(share())
        columns = [Column(*each) for each in listed]

        def begin() -> Experiment:
            refuse_other(spec, asked)
            refuse_code(spec, asked)
            return Experiment(spec, columns)

        participant = Participant(begin_alike(spec, begin))
        if begins:
            participant.experiment.test_optimizer()
        for number in STOPPING:
            signal.signal(number, lambda *_: setattr(participant, "asked_to_stop", True))
        while True:
            participant.agree()
            order = multihost_utils.broadcast_one_to_all(np.zeros(ORDER, np.uint8))
            command = messages.COMMANDS.decode(np.asarray(order, np.uint8).tobytes().strip())
            if isinstance(command, messages.Stop):
                return 0
            obey(participant.experiment, command)
    except UserError as error:
        print(f"eos: {error}", file=sys.stderr, flush=True)
        return error.status if isinstance(error, PlaceError) else 3
    except Exception as error:
        ended(heartbeat.who_is_gone() if heartbeat is not None and is_lost(error) else first_line(error))
        raise
    finally:
        if heartbeat is not None:
            heartbeat.stop()


def obey(experiment: Experiment, order: AnyCommand) -> None:
    """Carry out an order of process 0."""
    if isinstance(order, messages.Advance):
        experiment.advance(order.steps)
    elif isinstance(order, messages.SetLearningRate):
        experiment.set_learning_rate(order)
    elif isinstance(order, messages.Anchor):
        experiment.anchor(order)
    elif isinstance(order, messages.Checkpoint):
        experiment.identify()
    elif isinstance(order, messages.Density):
        reading = experiment.whole_spectrum(order)
        if reading is not None:
            whole(reading)
