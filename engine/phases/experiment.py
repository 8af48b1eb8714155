"""An experiment: which phase a run is in, and how one phase leads to the next. The runner drives it; it touches no files."""

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from engine.phases import approach, edge, loss_identity, simplified, training
from engine.phases.approach import Progress
from engine.phases.loss_identity import Identity
from engine.phases.simplified import PortraitState
from engine.phases.states import ApproachState, Clock, DescentState, EdgeState
from engine.phases.training import TrainingState
from engine.problems.problem import build
from engine.record import messages
from engine.record.columns import Column, arranged, columns_for, places
from engine.record.messages import AnyEvent
from engine.record.store import IDENTITY, Outcome
from engine.report.narrative import percent
from engine.spec import Phase, RunSpec
from engine.xla.leaves import pack, shapes, unpack

AnyState = ApproachState | EdgeState | DescentState | TrainingState | PortraitState
PHASES: dict[str, type] = {
    "approach": ApproachState, "edge": EdgeState, "gradient descent": DescentState, "training": TrainingState,
    "phase portrait": PortraitState,
}


Standing = tuple[AnyState, int, int]
"""What a step changes: the state, `anchor_every` and `raised`."""


class Experiment:
    """A run's problem and state, advanced step by step."""

    def __init__(self, spec: RunSpec, columns: Sequence[Column] = ()):
        """`columns` are those that the run records, where it has begun already: an earlier version may have had others."""
        self.spec, self.columns = spec, tuple(columns) or columns_for(spec)
        self.anchor_every = spec.tracking.anchor_every
        self.raised = 0
        """Raises of the learning rate that have taken effect."""
        self.facts: dict[str, Any] = {}
        self.rehearsal: threading.Thread | None = None
        """Has the functions of the edge compiled beside the approach, once it is begun."""
        self.engaged = False
        """In the middle of what several processes do together; see `together.Leading`."""
        self.state: AnyState
        if isinstance(spec.problem, Phase):
            self.state = simplified.begin(spec)
            return
        if spec.tracking.mode == "sharpness":
            self.training, theta, self.facts = training.build(spec, self.columns)
            self.setup = self.training.setup
            self.state = training.begin(self.training, theta)
            return
        problem, theta, self.facts = build(spec)
        self.setup = approach.setup(spec, problem, self.columns)
        clock = Clock(0, 0.0, spec.optimizer.learning_rate)
        self.state = approach.begin(self.setup, theta.astype(spec.precision.approach), clock)

    @property
    def clock(self) -> Clock:
        return self.state.clock

    @property
    def phase(self) -> str:
        return next(name for name, kind in PHASES.items() if isinstance(self.state, kind))

    @property
    def edge_step(self) -> int | None:
        """The step of the last edge; None on the approach and in a phase portrait."""
        if isinstance(self.state, TrainingState):
            return self.state.edge_step if self.state.edge_step >= 0 else None
        return self.state.edge_step if isinstance(self.state, EdgeState | DescentState) else None

    def advance(self, limit: int) -> Progress:
        """Some steps, at most `limit`, as rows and events; the outcome when they end the run."""
        raises, events = self.spec.optimizer.raises, []
        while self.raised < len(raises) and raises[self.raised][0] <= self.clock.step:
            events.append(self._change_learning_rate(raises[self.raised][1]))
            self.raised += 1
        if self.raised < len(raises):
            limit = min(limit, raises[self.raised][0] - self.clock.step)
        progress = self._advance(limit)
        return progress._replace(events=[*events, *progress.events])

    def _advance(self, limit: int) -> Progress:
        state = self.state
        if isinstance(state, TrainingState):
            self.state, progress = training.advance(self.training, state, limit)
            return progress
        if isinstance(state, PortraitState):
            self.state, rows = simplified.advance(self.spec, state, limit)
            finite = np.isfinite(rows).all(axis=1)
            own = arranged(rows, places(simplified.read(self.spec)), places(self.columns))
            if not finite.all():
                first = int(np.argmin(finite))
                return Progress([*own[:first]], [], simplified.left(int(rows[first, 0])))
            return Progress([*own], [])
        if isinstance(state, EdgeState):
            self.state, progress = edge.advance(self.setup, state, limit)
            return progress
        if isinstance(state, DescentState):
            self.state, progress = edge.descend_past(self.setup, state)
            return progress
        approached, progress, at_edge = approach.advance(self.setup, state, limit)
        self.state = approached
        if not at_edge:
            return progress
        if self.rehearsal is not None:
            self.rehearsal.join()  # two threads that need one function compile it twice
        self.state, events = edge.enter(self.setup, approached.theta, approached.clock, approached.basis, self.anchor_every)
        return Progress(progress.rows, [*progress.events, *events], progress.outcome)

    def rehearse(self) -> None:
        """Have the functions of the edge compiled beside the approach; what goes wrong there shows again at the edge."""
        state = self.state

        def work() -> None:
            if isinstance(state, ApproachState):
                with suppress(Exception):
                    edge.rehearse(self.setup, state.theta, state.basis, state.sharpness, self._close)

        self.rehearsal = threading.Thread(target=work, daemon=True)
        self.rehearsal.start()

    def hold(self) -> None:
        """Called now and then while the run is paused."""

    def end(self) -> None:
        """Called when the run has ended."""

    def _close(self) -> bool:
        """Whether the edge is here or soon: the sharpness is half way to 2/η."""
        return not isinstance(self.state, ApproachState) or self.state.sharpness * self.clock.learning_rate > 1

    def budget_left(self) -> int:
        """Steps until a budget ends the run."""
        budget = self.spec.budget
        left = budget.steps - self.clock.step
        if budget.edge_steps and self.edge_step is not None:
            left = min(left, self.edge_step + budget.edge_steps - self.clock.step)
        return max(left, 0)

    def budget_outcome(self, edge: int | None = None) -> Outcome:
        """The outcome when no steps are left; `edge` is the step of the last edge at another η, before the present approach."""
        step, eta = self.clock.step, self.clock.learning_rate
        if isinstance(self.state, ApproachState):
            share, at = self.state.sharpness * eta / 2, self.state.checked_clock.step
            where = f": the sharpness is at {percent(share)} of 2/η at step {at}" if math.isfinite(share) else ""
            if edge is not None:
                text = f"completed {step} steps; the edge was reached at step {edge}, and not again at η = {eta:g}{where}"
                return Outcome(kind="completed", step=step, text=text)
            text = f"edge never reached in {step} steps{where}; try a larger learning rate or more steps"
            return Outcome(kind="edge_never_reached", step=step, text=text)
        return Outcome(kind="completed", step=step, text=f"completed {step} steps")

    def set_learning_rate(self, command: messages.SetLearningRate) -> list[AnyEvent]:
        """Change η: gradient descent goes on from its θ, and approaches the new threshold."""
        text = ""
        if isinstance(self.state, PortraitState):
            text = "the learning rate of a phase portrait is fixed; run it anew with --set optimizer.learning_rate=…"
        elif self.spec.optimizer.schedule == "inverse_sharpness":
            text = "the learning rate of this run is 1/λ_max at every measurement; run it anew with --set optimizer.schedule=constant"
        if text:
            return [messages.Refused(step=self.clock.step, text=text, answers=command.id)]
        return [self._change_learning_rate(command.learning_rate, command.id)]

    def _change_learning_rate(self, eta: float, answers: str = "") -> AnyEvent:
        state, step = self.state, self.clock.step
        assert not isinstance(state, PortraitState)
        clock = Clock(step, self.clock.time, eta)
        text = f"η is {eta:g} from step {step}: the threshold 2/η moved to {2 / eta:.4g}"
        if isinstance(state, TrainingState):
            if eta != state.clock.learning_rate:  # what was below or at the last threshold may come to be above the new one: its edge
                state = state._replace(edge_step=-1, below=int(state.below or state.edge_step >= 0))
            self.state = state._replace(clock=clock)
            return messages.LearningRateChanged(step=step, text=text, answers=answers, learning_rate=eta)
        begun = approach.begin(self.setup, state.theta, clock)
        bases = state.basis if isinstance(state, ApproachState) else edge.newest(state)
        pending = state.pending if isinstance(state, ApproachState) else begun.pending
        self.state = begun._replace(basis=bases, pending=pending)
        text += "; θ† and the predictions restart there"
        return messages.LearningRateChanged(step=step, text=text, answers=answers, learning_rate=eta)

    def anchor(self, command: messages.Anchor) -> list[AnyEvent]:
        """Set the predictions to the true displacement now; with `every`, also periodically from here."""
        step = self.clock.step
        if not isinstance(self.state, EdgeState) or not self.spec.tracking.predictions:
            text = "no prediction to anchor: they begin at the edge"
            return [messages.Refused(step=step, text=text, answers=command.id)]
        self.state = edge.anchor(self.state, self.spec.tracking.predictions)
        text = f"predictions set to the true displacement at step {step}"
        if command.every is not None:
            self.anchor_every = command.every
            self.state = self.state._replace(anchor_every=command.every, anchor_phase=step)
            text += f", and every {command.every} steps from here" if command.every else "; no more by themselves"
        return [messages.Anchored(step=step, text=text, answers=command.id, forms=self.spec.tracking.predictions)]

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything needed to go on, for a checkpoint."""
        kept = {"phase": np.array(self.phase), "anchor_every": np.array(self.anchor_every), "raised": np.array(self.raised)}
        return kept | pack(self.state, "state.")

    @property
    def standing(self) -> Standing:
        """Where the run stands, to be put back there."""
        return self.state, self.anchor_every, self.raised

    def put_back(self, standing: Standing) -> None:
        """Stand there again."""
        self.state, self.anchor_every, self.raised = standing

    def identify(self) -> Identity | None:
        """Numbers at this θ that another loss would change; None in a phase portrait, which has none."""
        if isinstance(self.state, PortraitState):
            return None
        return loss_identity.identify(self.setup, self.state, self.training if isinstance(self.state, TrainingState) else None)

    def identified(self) -> dict[str, np.ndarray]:
        """The same as leaves of a checkpoint."""
        numbers = self.identify()
        return {} if numbers is None else pack(numbers, IDENTITY)

    def difference(self, leaves: Mapping[str, np.ndarray]) -> str:
        """How the loss differs from that of a checkpoint just restored, in words. Empty where it does not, or where the checkpoint, of an
        earlier version, has nothing to compare.
        """
        if isinstance(self.state, PortraitState) or not any(path.startswith(IDENTITY) for path in leaves):
            return ""
        then, now = loss_identity.checked(leaves), self.identify()
        assert now is not None
        return loss_identity.difference(then, now, self.state.theta)

    def restore(self, leaves: dict[str, np.ndarray]) -> None:
        """Go on from a snapshot. Raises KeyError, ValueError, TypeError or OverflowError when it is none of this specification."""
        kind = PHASES.get(str(leaves["phase"]))
        if kind is None or self._family(kind) is not self._family(type(self.state)):
            raise ValueError(f"it is of the phase {str(leaves['phase'])[:40]!a}, which this specification does not come to")
        self.anchor_every, self.raised = int(leaves["anchor_every"]), int(leaves["raised"])
        restored: AnyState = unpack(kind, leaves, "state.")
        if not isinstance(restored, PortraitState) and restored.theta.shape != self.state.theta.shape:  # type: ignore[union-attr]
            raise ValueError(f"θ has {restored.theta.size} numbers, the problem {self.state.theta.size}")  # type: ignore[union-attr]
        if type(restored) is type(self.state):  # rows as long as here; how many there are may differ
            here = shapes(self.state, "state.")
            for path, shape in shapes(restored, "state.").items():
                if (len(shape), shape[-1:]) != (len(here[path]), here[path][-1:]):
                    raise ValueError(f"{path} is of shape {shape}, which does not go with {here[path]}")
        self.state = restored

    @staticmethod
    def _family(kind: type) -> type:
        """Whichever phases one specification comes to."""
        return kind if kind in (TrainingState, PortraitState) else EdgeState
