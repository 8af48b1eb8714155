"""A phase of a run, as one kind: what the experiment asks of each, whichever it is.

A phase has no state of its own: it takes states and gives states, NamedTuples with a field `clock`, which go into checkpoints.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from jax import Array

from engine.dynamics.optimizers import State as OptimizerState
from engine.phases.context import Progress, Setup
from engine.phases.loss_identity import Identity
from engine.record.messages import AnyEvent
from engine.record.reader import Outcome
from engine.xla.leaves import Kinds


class Advanced(NamedTuple):
    """Some steps of a phase."""

    state: Any
    progress: Progress
    leads_to: str = ""
    """The phase that follows; empty while this one goes on."""


class Entered(NamedTuple):
    """The start of a phase."""

    state: Any
    events: list[AnyEvent]
    leads_to: str = ""
    """Another phase, where this one cannot begin and the state is of that one."""


class Restart(NamedTuple):
    """Where a run stands once its learning rate is another one."""

    state: Any
    leads_to: str = ""
    """The phase that the run goes back to; empty where it stays in this one."""
    words: str = ""


class Phase:
    """What does not change while a run is in a phase."""

    name: ClassVar[str]
    """In checkpoints and in the run's state."""
    State: ClassVar[type]

    def __init__(self, setup: Setup):
        self.setup = setup

    def advance(self, state: Any, limit: int) -> Advanced:
        """At most `limit` steps."""
        raise NotImplementedError

    def doing(self, state: Any) -> str:
        """What the next call of `advance` does beside taking steps, in words; empty for nothing that takes long."""
        return ""

    def enter(self, state: Any, anchor_every: int) -> Entered:
        """The phase from the state of the one before."""
        raise NotImplementedError

    def learning_rate(self, state: Any) -> float:
        """η in force."""
        return float(state.optimizer.learning_rate)

    def optimizer_state(self, state: Any) -> OptimizerState:
        """The optimizer's own state."""
        return state.optimizer

    def refuses_learning_rate(self) -> str:
        """Why the learning rate cannot be changed here, in a sentence; empty where it can."""
        return ""

    def set_learning_rate(self, state: Any, learning_rate: float) -> Restart:
        """The state with another learning rate."""
        raise NotImplementedError

    def edge_step(self, state: Any) -> int | None:
        """The step of the last edge; None before it."""
        return None

    def outcome(self, state: Any, edge: int | None) -> Outcome:
        """The outcome when no steps are left; `edge` is the step of the last edge at another η, before the present approach."""
        step = state.clock.step
        return Outcome(kind="completed", step=step, text=f"completed {step} steps")

    def anchored(self, state: Any, every: int | None) -> Any | None:
        """The state with its predictions set to the true displacement, now and `every` so many steps; None where there are none."""
        return None

    def followed_eigenvectors(self, state: Any) -> Array | None:
        """The eigenvectors (k, p) at gradient descent's θ that are followed, as of the last look; None where there is no Hessian."""
        return None

    def precompile(self, state: Any, soon: Callable[[], bool]) -> str:
        """Have what comes later compiled; called beside the first steps. The phase of which nothing is left to compile then, if any."""
        return ""

    def settle(self) -> None:
        """Until nothing is compiled beside the run any more."""

    @property
    def is_compiling(self) -> bool:
        """Whether something is compiled beside the run."""
        return False

    def is_far_from_edge(self, state: Any) -> bool:
        """Whether there is time to compile for the edge."""
        return False

    def identity(self, state: Any) -> Identity | None:
        """Numbers at this θ that another loss would change; None where there is no loss."""
        return None

    def kinds(self, theta: Array) -> Kinds:
        """What a checkpoint of this phase holds that depends on the run."""
        return {"optimizer": self.setup.optimizer.init(theta, self.setup.problem.unravel, self.setup.spec.optimizer.learning_rate)}
