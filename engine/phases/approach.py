"""The approach: gradient descent until the sharpness of a midpoint (θ_t + θ_{t+1})/2 reaches the edge, 2/η.

The midpoint leaves out the oscillation. Its sharpness is checked at a cadence in ODE time that shrinks near the edge; when a
check finds it beyond 2/η, gradient descent goes back to the last check and tests every step, so that the edge is found to
the step. Rows are held back until a check has passed, so that none is ever taken back.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import Eigenpairs, forms_hessian, random_start
from engine.curvature.guards import Guards, unknown
from engine.dynamics.descent import DESCENT_CHUNK, descend
from engine.phases import earlier, loss_identity
from engine.phases.context import Clock, Progress, Setup, diverged, loss_goal
from engine.phases.loss_identity import Identity
from engine.phases.phase import Advanced, Phase, Restart
from engine.record import edges
from engine.record.reader import Outcome
from engine.report.narrative import percent
from engine.xla.leaves import Earlier, Kinds
from engine.xla.shares import several_devices

MAX_STRIDE = 50
"""Most steps between checks: at small η a unit of ODE time is long to wait for."""
CHECK_TOLERANCE = 1e-3
MEASURING, COMPILING = "measuring the sharpness", "compiling what measures the sharpness"
"""What a check does."""


class ApproachState(NamedTuple):
    """Gradient descent below the edge, between two sharpness checks."""

    clock: Clock
    optimizer: Annotated[Any, Earlier(earlier.gradient_descent_state)]
    theta: Array  # (p,)
    eigenvectors: Annotated[Array, Earlier(names=("basis",))]  # (k, p) the top ones at the last check
    sharpness: float  # at the midpoint of the last check; NaN before the first
    next_check: int  # step of the next check
    careful: int  # 1 after an overshoot: check every step
    checked_clock: Clock  # where the last passed check was,
    checked_theta: Array  # θ there, to go back to on an overshoot,
    checked_optimizer: Annotated[Any, Earlier(earlier.gradient_descent_state)]  # and the optimizer's state
    guards: Annotated[Guards, Earlier(unknown("basis"))]  # of the eigenvectors
    looked: Annotated[int, Earlier(lambda leaves: leaves["clock.step"])]  # step of the last check that looked around
    pending: np.ndarray  # (rows, columns) passed since then, not yet certain


def begin(setup: Setup, theta: Array, clock: Clock, optimizer: Any) -> ApproachState:
    """The approach from θ, in θ's number format."""
    count = min(setup.spec.tracking.eigenvalues, theta.size)
    seed, dtype = setup.spec.seed, setup.spec.precision.curvature
    basis = random_start(seed, clock.step, count, theta.size, dtype, setup.problem.shares)
    return ApproachState(
        clock=clock, optimizer=optimizer, theta=theta, eigenvectors=basis, sharpness=float("nan"), next_check=clock.step, careful=0,
        checked_clock=clock, checked_theta=theta, checked_optimizer=optimizer,
        guards=guards.begin(seed, clock.step, theta.size, dtype, setup.problem.shares), looked=clock.step - guards.EVERY,
        pending=np.empty((0, len(setup.column_index))),
    )


def check(setup: Setup, state: ApproachState, around: bool = False) -> tuple[Eigenpairs, ApproachState]:
    """The top eigenpairs at the midpoint of the coming step, half a step of gradient descent on, and the state after a look `around`,
    where it is asked for or due."""
    dtype, seed = setup.spec.precision.curvature, setup.spec.seed
    half = state.optimizer._replace(learning_rate=state.optimizer.learning_rate / 2)  # half the rate leads half the way
    point = descend(setup.problem, setup.optimizer, state.theta, half, 1).theta.astype(dtype)
    step = state.clock.step
    looked = step - guards.EVERY if around else state.looked
    read = guards.read(setup.problem, point, state.eigenvectors, state.guards, looked, step, seed, CHECK_TOLERANCE, dtype)
    return read.pairs, state._replace(guards=read.guards, looked=read.looked)


def compile_check(setup: Setup, state: ApproachState) -> None:
    """Have compiled what a check that looks around needs: its solver, which takes the longest, beside the rest. Where several devices work
    together they are not asked for two things at once."""
    problem, dtype = setup.problem, setup.spec.precision.curvature
    if forms_hessian(state.theta) or several_devices(problem.data, state.theta):
        return
    with ThreadPoolExecutor(1) as beside:
        look = beside.submit(
            guards.compile_look, problem, state.theta.astype(dtype), state.eigenvectors, state.guards, CHECK_TOLERANCE, dtype
        )
        descend(problem, setup.optimizer, state.theta, state.optimizer, 0)
    look.result()


def advance(setup: Setup, state: ApproachState, limit: int) -> tuple[ApproachState, Progress, bool]:
    """At most `limit` steps towards the edge: to the next check. Also whether the edge is reached at the new state.

    A limit before the next check asks for a check of its own, so that the rows up to it can be released; it leaves the
    warm start and the cadence alone, and so the trajectory does not depend on limits. It looks around, as the first check does: with a
    limit of one step the first row then waits for one solver to be compiled, not for two.
    """
    if state.clock.step == state.next_check:
        pairs, state = check(setup, state)
        state, went_back, at_edge = _judged(setup, state, pairs)
        if at_edge:
            return _release(state)[0], Progress([*state.pending], []), True
        if went_back:
            return state, Progress([], []), False
        state, released = _release(state)
    else:
        released = np.empty((0, len(setup.column_index)))

    steps = min(state.next_check - state.clock.step, limit, DESCENT_CHUNK, setup.steps_until_due(state.clock.step))
    steps = max(1, steps)
    measured = state.sharpness if state.clock == state.checked_clock else float("nan")
    state, outcome = _descend(setup, state, steps, measured)
    if outcome is None and steps == limit:
        sharpness = float(check(setup, state, around=True)[0].values[0])
        if sharpness >= setup.threshold(state.optimizer):
            exact = state.careful or state.clock.step - state.checked_clock.step <= 1
            state = state._replace(next_check=state.clock.step) if exact else _go_back(state)
        else:
            state = state._replace(
                checked_clock=state.clock, checked_theta=state.theta, checked_optimizer=state.optimizer, sharpness=sharpness
            )
            state, more = _release(state)
            released = np.concatenate([released, more])
    if outcome is not None:
        released = np.concatenate([released, state.pending])
    return state, Progress([*released], [], outcome), False


def _judged(setup: Setup, state: ApproachState, pairs: Eigenpairs) -> tuple[ApproachState, bool, bool]:
    """The state after a check; whether it went back to the last one; whether the edge is here."""
    sharpness, eta, clock = float(pairs.values[0]), float(state.optimizer.learning_rate), state.clock
    threshold = setup.threshold(state.optimizer)
    state = state._replace(eigenvectors=pairs.vectors)
    if sharpness >= threshold:
        if state.careful or clock.step - state.checked_clock.step <= 1:
            return state._replace(sharpness=sharpness), False, True
        return _go_back(state), True, False
    far, near, close = setup.spec.approach.check_times
    span = far if sharpness < threshold / 2 else near if sharpness < 0.75 * threshold else close
    stride = 1 if state.careful else min(max(1, round(span / eta)), MAX_STRIDE)
    return state._replace(
        sharpness=sharpness, next_check=clock.step + stride, checked_clock=clock, checked_theta=state.theta,
        checked_optimizer=state.optimizer,
    ), False, False


def _go_back(state: ApproachState) -> ApproachState:
    """The state at the last passed check, from where every step is tested."""
    back = state.checked_clock
    state, _ = _release(state)
    looked = min(state.looked, back.step)
    return state._replace(
        clock=back, theta=state.checked_theta, optimizer=state.checked_optimizer, careful=1, next_check=back.step + 1, looked=looked
    )


def _release(state: ApproachState) -> tuple[ApproachState, np.ndarray]:
    return state._replace(pending=np.empty((0, state.pending.shape[1]))), state.pending


def _descend(setup: Setup, state: ApproachState, steps: int, sharpness: float) -> tuple[ApproachState, Outcome | None]:
    """Some steps of gradient descent into the pending rows; the outcome when the loss stops being a number, or is low enough."""
    clock, eta = state.clock, float(state.optimizer.learning_rate)
    times, threshold = clock.times(steps, eta), setup.threshold(state.optimizer)
    descent = descend(setup.problem, setup.optimizer, state.theta, state.optimizer, steps)
    losses, norms = np.asarray(descent.losses), np.asarray(descent.gradient_norms)
    own = setup.read_at(clock.step, eta, state.theta, state.eigenvectors)
    rows, outcome = [], None
    for k in range(steps):
        if not (np.isfinite(losses[k]) and np.isfinite(norms[k])):
            outcome, steps = diverged(clock.step + k), k  # what came after is none of its steps
            break
        rows.append(setup.row({
            "step": clock.step + k, "time": times[k], "learning_rate": eta, "threshold": threshold,
            "gd.loss": losses[k], "gd.gradient_norm": norms[k],
            "gd.midpoint_sharpness": sharpness if k == 0 else np.nan, **(own if k == 0 else {}),
        }))
        outcome = loss_goal(setup.spec, losses[k], clock.step + k)
        if outcome is not None:
            break
    moved = Clock(clock.step + steps, float(times[len(rows)]))
    pending = np.concatenate([state.pending, np.reshape(rows, (-1, len(setup.column_index)))])
    following = state._replace(clock=moved, theta=jnp.asarray(descent.theta), optimizer=descent.optimizer_state, pending=pending)
    return following, outcome


class Approach(Phase):
    """Gradient descent below the edge."""

    name: ClassVar[str] = "approach"
    State: ClassVar[type] = ApproachState

    def __init__(self, setup: Setup, precompile_edge: Callable[[ApproachState, Callable[[], bool]], str]):
        super().__init__(setup)
        self._precompile_edge = precompile_edge
        self._compiled: set[bool] = set()
        """Of checks that look around and of those that do not, the ones made here: each has a solver of its own."""

    def begin(self, theta: Array) -> ApproachState:
        """The run's first state."""
        optimizer = self.setup.optimizer.init(theta, self.setup.problem.unravel, self.setup.spec.optimizer.learning_rate)
        return begin(self.setup, theta, Clock(0, 0.0), optimizer)

    def advance(self, state: ApproachState, limit: int) -> Advanced:
        """At most `limit` steps towards the edge: to the next check."""
        checks, looks = state.clock.step == state.next_check, guards.overdue(state.clock.step, state.looked)
        if checks and looks and looks not in self._compiled:
            compile_check(self.setup, state)
        moved, progress, at_edge = advance(self.setup, state, limit)
        if checks:
            self._compiled.add(looks)
        return Advanced(moved, progress, "edge" if at_edge else "")

    def doing(self, state: ApproachState) -> str:
        """A check, where it is due."""
        if state.clock.step != state.next_check:
            return ""
        return MEASURING if guards.overdue(state.clock.step, state.looked) in self._compiled else COMPILING

    def set_learning_rate(self, state: ApproachState, learning_rate: float) -> Restart:
        """The approach to another threshold, from the same θ."""
        anew = restart(self.setup, state.theta, state.clock, state.optimizer, state.eigenvectors, learning_rate)
        return anew._replace(state=anew.state._replace(pending=state.pending))

    def outcome(self, state: ApproachState, edge: int | None) -> Outcome:
        """Completed where the edge was reached before at another η; else never reached."""
        step, eta = state.clock.step, self.learning_rate(state)
        share, at = state.sharpness / self.setup.threshold(state.optimizer), state.checked_clock.step
        edge_words = edges.formula(self.setup.spec.optimizer)
        where = f": the sharpness is at {percent(share)} of {edge_words} at step {at}" if math.isfinite(share) else ""
        if edge is not None:
            text = f"completed {step} steps; the edge was reached at step {edge}, and not again at η = {eta:g}{where}"
            return Outcome(kind="completed", step=step, text=text)
        text = f"edge never reached in {step} steps{where}; try a larger learning rate or more steps"
        return Outcome(kind="edge_never_reached", step=step, text=text)

    def precompile(self, state: ApproachState, soon: Callable[[], bool]) -> str:
        """Have the functions of the edge compiled beside the approach."""
        return self._precompile_edge(state, soon)

    def is_far_from_edge(self, state: ApproachState) -> bool:
        """Whether the sharpness is not half way to the edge; NaN, before the first check, counts."""
        return not state.sharpness > self.setup.threshold(state.optimizer) / 2

    def identity(self, state: ApproachState) -> Identity:
        """By the functions of the approach."""
        d = loss_identity.direction(state.theta.size, self.setup.spec.precision.curvature, self.setup.problem.shares)
        return loss_identity.of_descent(self.setup, state.theta, state.optimizer, d, self.setup.problem, state.eigenvectors.shape[0])

    def followed_eigenvectors(self, state: ApproachState) -> Array:
        """Those of the last check."""
        return state.eigenvectors

    def kinds(self, theta: Array) -> Kinds:
        """The optimizer's state, here and at the last check."""
        kinds = super().kinds(theta)
        return {**kinds, "checked_optimizer": kinds["optimizer"]}


def restart(setup: Setup, theta: Array, clock: Clock, optimizer: Any, eigenvectors: Array, learning_rate: float) -> Restart:
    """The approach anew from θ with another learning rate and these eigenvectors (k, p) to start from."""
    state = begin(setup, theta, clock, optimizer._replace(learning_rate=jnp.asarray(learning_rate, jnp.float64)))
    return Restart(state._replace(eigenvectors=eigenvectors), "approach", "; θ† and the predictions restart there")
