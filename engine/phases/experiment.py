"""An experiment: which phase a run is in, and how one phase leads to the next. The runner drives it; it touches no files."""

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from engine.curvature.eigensolver import LARGE
from engine.dynamics.own_optimizer import require_sound
from engine.phases import context, edge, simplified, training, whole_spectrum
from engine.phases.approach import Approach
from engine.phases.context import Clock, Progress, Setup
from engine.phases.edge import AtEdge
from engine.phases.loss_identity import Identity
from engine.phases.metrics import NO_METRICS, Metrics
from engine.phases.past_edge import PastEdge
from engine.phases.phase import Phase
from engine.phases.simplified import Simplified
from engine.phases.snapshots import Snapshots
from engine.phases.training import TrainingPhase
from engine.problems.build import build
from engine.record import edges, messages
from engine.record.columns import Column, column_index, columns_for
from engine.record.messages import AnyEvent
from engine.record.reader import Outcome
from engine.spec import OwnOptimizer, RunSpec, SharpnessTracking
from engine.spec import Phase as PhasePortrait
from engine.xla.ahead import compiling_ahead
from engine.xla.leaves import pack, shapes, unpack
from engine.xla.shares import Shares, on_devices, on_host, put

OWN_LENGTHS = ("directions.hessian", "covariance", "averages.rows", "companions.values")
"""Leaves whose rows are as long as there are directions at the edge, or companions."""


class Standing(NamedTuple):
    """What a step changes."""

    phase: str
    state: Any
    anchor_every: int
    raised: int


class Experiment:
    """A run's problem and state, advanced step by step."""

    setup: Setup

    def __init__(self, spec: RunSpec, columns: Sequence[Column] = ()):
        """`columns` are those that the run records, where it has begun already: an earlier version may have had others."""
        self.spec, self.columns = spec, tuple(columns) or columns_for(spec)
        self.anchor_every = spec.tracking.anchor_every
        self.raised = 0
        """Raises of the learning rate that have taken effect."""
        self.facts: dict[str, Any] = {}
        self.entering: tuple[str, float] | None = None
        """The phase that is being entered, and since when, by the monotonic clock; another thread may look."""
        self.entered_in = 0.0
        """Seconds that the last entry took."""
        self.precompilation: threading.Thread | None = None
        """Has the functions of the edge compiled beside the approach, once it is begun."""
        self.compiled_ahead = ""
        """The phase of which nothing is left to compile since."""
        self.metrics: Metrics = NO_METRICS
        self.snapshots: Snapshots | None = None
        self.state, *phases = self._begin()
        self.phases: dict[str, Phase] = {each.name: each for each in phases}
        """Those that this specification comes to, the first first."""
        self._now = phases[0]

    def _begin(self) -> tuple[Any, *tuple[Phase, ...]]:
        """The first state, and the phases that follow one another from it."""
        spec = self.spec
        if isinstance(spec.problem, PhasePortrait):
            return simplified.begin(spec), Simplified(spec, column_index(self.columns))
        if isinstance(spec.tracking, SharpnessTracking):
            trained, theta, self.facts = training.build(spec, self.columns)
            self._set_up(trained.setup)
            return training.begin(trained, theta), TrainingPhase(trained)
        problem, theta, self.facts = build(spec)
        self._set_up(context.setup(spec, problem, theta.size, self.columns))
        approach = Approach(self.setup, lambda state, soon: edge.precompile(self.setup, state, soon))
        return approach.begin(theta.astype(spec.precision.approach)), approach, AtEdge(self.setup), PastEdge(self.setup)

    def _set_up(self, setup: Setup) -> None:
        self.setup, self.metrics, self.snapshots = setup, setup.metrics, setup.snapshots

    def test_optimizer(self) -> None:
        """Take two steps of an optimizer of one's own, where the run begins. Raises UserError for one that cannot be run."""
        optimizer = self.spec.optimizer
        if isinstance(optimizer, OwnOptimizer) and optimizer.self_test:
            require_sound(optimizer, self.setup.problem, self.state.theta)

    @property
    def clock(self) -> Clock:
        return self.state.clock

    @property
    def learning_rate(self) -> float:
        """η in force."""
        return self._now.learning_rate(self.state)

    @property
    def phase(self) -> str:
        return self._now.name

    @property
    def edge_step(self) -> int | None:
        """The step of the last edge; None on the approach and in a phase portrait."""
        return self._now.edge_step(self.state)

    def advance(self, limit: int) -> Progress:
        """Some steps, at most `limit`, as rows and events; the outcome when they end the run."""
        raises, events = self.spec.optimizer.raises, []
        while self.raised < len(raises) and raises[self.raised][0] <= self.clock.step:
            events.append(self._change_learning_rate(raises[self.raised][1]))
            self.raised += 1
        if self.raised < len(raises):
            limit = min(limit, raises[self.raised][0] - self.clock.step)
        self.state, progress, leads_to = self._now.advance(self.state, limit)
        events += self.metrics.events()
        if leads_to:
            progress = progress._replace(events=[*progress.events, *self._go_on(leads_to)])
        taken = self.snapshots.taken() if self.snapshots is not None else []
        return progress._replace(events=[*events, *progress.events], snapshots=taken)

    def _go_on(self, name: str) -> list[AnyEvent]:
        """Go on to the phase of this name, from the state that the last one ended at."""
        began = time.monotonic()
        self.entering = name, began
        try:
            if self.precompilation is not None:
                self.precompilation.join()  # two threads that need one function compile it twice
            self.state, events, elsewhere = self.phases[name].enter(self.state, self.anchor_every)
        finally:
            self.entering = None
        self.entered_in = time.monotonic() - began
        self._now = self.phases[elsewhere or name]
        return events

    @property
    def counts_memory(self) -> bool:
        """Whether there are so many parameters that memory counts before speed, as for the eigensolver."""
        theta = getattr(self.state, "theta", None)  # a phase portrait has none
        return theta is not None and theta.size >= LARGE

    @property
    def doing(self) -> str:
        """What the next call of `advance` does beside taking steps, in words."""
        return self._now.doing(self.state)

    def precompile(self) -> None:
        """Have what comes later compiled beside the first steps."""
        phase, state = self._now, self.state

        def soon() -> bool:
            return self._now is not phase or not phase.is_far_from_edge(self.state)

        def work() -> None:
            with compiling_ahead():
                self.compiled_ahead = phase.precompile(state, soon)

        self.precompilation = threading.Thread(target=work, daemon=True)
        self.precompilation.start()

    def settle(self) -> None:
        """Until nothing is compiled beside the run any more."""
        if self.precompilation is not None:
            self.precompilation.join()
        for phase in self.phases.values():
            phase.settle()

    @property
    def is_compiling(self) -> bool:
        """Whether something is compiled beside the run."""
        beside = self.precompilation is not None and self.precompilation.is_alive()
        return beside or any(phase.is_compiling for phase in self.phases.values())

    engaged = False
    """In the middle of what several processes do together: see `lockstep.Leader`, which has these three of its own."""

    def hold(self) -> None:
        """Called now and then while the run is paused."""

    def end(self) -> None:
        """Called when the run has ended."""

    def budget_left(self) -> int:
        """Steps until a budget ends the run."""
        budget = self.spec.budget
        left = budget.steps - self.clock.step
        if budget.edge_steps and self.edge_step is not None:
            left = min(left, self.edge_step + budget.edge_steps - self.clock.step)
        return max(left, 0)

    def budget_outcome(self, edge: int | None = None) -> Outcome:
        """The outcome when no steps are left; `edge` is the step of the last edge at another η, before the present approach."""
        return self._now.outcome(self.state, edge)

    def set_learning_rate(self, command: messages.SetLearningRate) -> list[AnyEvent]:
        """Change η: gradient descent goes on from its θ, and approaches the new threshold."""
        if refusal := self._now.refuses_learning_rate():
            return [messages.Refused(step=self.clock.step, text=refusal, answers=command.id)]
        return [self._change_learning_rate(command.learning_rate, command.id)]

    def _change_learning_rate(self, eta: float, answers: str = "") -> AnyEvent:
        step = self.clock.step
        self.state, leads_to, words = self._now.set_learning_rate(self.state, eta)
        if leads_to:
            self._now = self.phases[leads_to]
        threshold = self.setup.threshold(self._now.optimizer_state(self.state))
        text = f"η is {eta:g} from step {step}: the threshold {edges.formula(self.spec.optimizer)} moved to {threshold:.4g}{words}"
        return messages.LearningRateChanged(step=step, text=text, answers=answers, learning_rate=eta)

    def anchor(self, command: messages.Anchor) -> list[AnyEvent]:
        """Set the predictions to the true displacement now; with `every`, also periodically from here."""
        step = self.clock.step
        state = self._now.anchored(self.state, command.every)
        if state is None:
            text = "no prediction to anchor: they begin at the edge"
            return [messages.Refused(step=step, text=text, answers=command.id)]
        self.state = state
        text = f"predictions set to the true displacement at step {step}"
        if command.every is not None:
            self.anchor_every = command.every
            text += f", and every {command.every} steps from here" if command.every else "; no more by themselves"
        return [messages.Anchored(step=step, text=text, answers=command.id, forms=self.spec.tracking.predictions)]

    def whole_spectrum(self, command: messages.Density) -> whole_spectrum.Reading | None:
        """A reading of the whole spectrum at the present θ, to be taken part by part; None in a phase portrait, which has no loss."""
        start = self._now.followed_eigenvectors(self.state)
        if start is None:
            return None
        threshold = self.setup.threshold(self._now.optimizer_state(self.state))
        return whole_spectrum.read(self.setup, self.state.theta, start, self.clock.step, self.learning_rate, threshold, command)

    def leaves(self) -> dict[str, np.ndarray]:
        """Everything needed to go on, for a checkpoint."""
        kept = {"phase": np.array(self.phase), "anchor_every": np.array(self.anchor_every), "raised": np.array(self.raised)}
        return kept | pack(on_host(self.state, self._shares), "state.")

    @property
    def _shares(self) -> Shares | None:
        """How vectors of p numbers lie on several devices."""
        return None if isinstance(self.spec.problem, PhasePortrait) else self.setup.problem.shares

    @property
    def standing(self) -> Standing:
        """Where the run stands, to be put back there."""
        return Standing(self.phase, self.state, self.anchor_every, self.raised)

    def put_back(self, standing: Standing) -> None:
        """Stand there again."""
        name, self.state, self.anchor_every, self.raised = standing
        self._now = self.phases[name]

    def identify(self) -> Identity | None:
        """Numbers at this θ that another loss would change; None in a phase portrait, which has none."""
        return self._now.identity(self.state)

    def restore(self, leaves: dict[str, np.ndarray]) -> None:
        """Go on from a checkpoint. Raises KeyError, ValueError, TypeError or OverflowError when it is none of this specification."""
        phase = self.phases.get(str(leaves["phase"]))
        if phase is None:
            raise ValueError(f"it is of the phase {str(leaves['phase'])[:40]!a}, which this specification does not come to")
        here = getattr(self.state, "theta", None)
        kinds = phase.kinds(jnp.zeros(0) if here is None else here)
        restored = unpack(phase.State, leaves, "state.", kinds, lambda leaf: put(leaf, self._shares))
        restored = on_devices(restored, self._shares)  # what stands in for leaves of an earlier version, too
        anchor_every, raised = int(leaves["anchor_every"]), int(leaves["raised"])
        if here is not None and restored.theta.shape != here.shape:
            raise ValueError(f"θ has {restored.theta.size} numbers, the problem {here.size}")
        if type(restored) is type(self.state):  # rows as long as here; how many there are may differ
            expected = shapes(self.state, "state.")
            for path, shape in shapes(restored, "state.").items():
                goes = (len(shape), shape[-1:]) == (len(expected.get(path, shape)), expected.get(path, shape)[-1:])
                if not goes and not path.endswith(OWN_LENGTHS):
                    raise ValueError(f"{path} is of shape {shape}, which does not go with {expected[path]}")
        self.anchor_every, self.raised, self.state, self._now = anchor_every, raised, restored, phase
