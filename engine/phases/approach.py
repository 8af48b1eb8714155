"""The approach: gradient descent until the sharpness of a midpoint (θ_t + θ_{t+1})/2 reaches 2/η.

The midpoint leaves out the oscillation. Its sharpness is checked at a cadence in ODE time that shrinks near the edge; when a
check finds it beyond 2/η, gradient descent goes back to the last check and tests every step, so that the edge is found to
the step. Rows are held back until a check has passed, so that none is ever taken back.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import Eigenpairs, random_start
from engine.dynamics.trajectories import DESCENT_CHUNK, descend
from engine.phases.states import ApproachState, Clock
from engine.problems.problem import Problem
from engine.record.columns import Column, columns_for, places
from engine.record.messages import AnyEvent
from engine.record.store import Outcome
from engine.spec import RunSpec

MAX_STRIDE = 50
"""Most steps between checks: at small η a unit of ODE time is long to wait for."""
CHECK_TOLERANCE = 1e-3


class Setup(NamedTuple):
    """What does not change during a run."""

    spec: RunSpec
    problem: Problem
    places: dict[str, int]  # column name -> place in a row of this run, which may be of an earlier version

    def row(self, values: dict[str, float]) -> np.ndarray:
        """One row of the record, NaN where `values` is silent; names the run does not record are left out."""
        row = np.full(len(self.places), np.nan)
        for name, value in values.items():
            if name in self.places:
                row[self.places[name]] = value
        return row


Curves = tuple[tuple[int, dict[str, np.ndarray]], ...]
"""Sampled curves by the step they were sampled at."""


class Progress(NamedTuple):
    """What a stretch of work gave: rows, events, an outcome if it ended the run, and curves by step."""

    rows: list[np.ndarray]
    events: list[AnyEvent]
    outcome: Outcome | None = None
    curves: Curves = ()


def setup(spec: RunSpec, problem: Problem, columns: Sequence[Column] = ()) -> Setup:
    """The setup of a run that records these columns; those of a new run where none are given."""
    return Setup(spec, problem, places(columns or columns_for(spec)))


def begin(setup: Setup, theta: Array, clock: Clock) -> ApproachState:
    """The approach from θ, in θ's number format."""
    count = min(setup.spec.tracking.eigenvalues, theta.size)
    seed, dtype = setup.spec.seed, setup.spec.precision.curvature
    basis = random_start(seed, clock.step, count, theta.size, dtype)
    return ApproachState(
        clock=clock, theta=theta, basis=basis, sharpness=float("nan"), next_check=clock.step, careful=0, checked_clock=clock,
        checked_theta=theta, guards=guards.begin(seed, clock.step, theta.size, dtype), looked=clock.step - guards.EVERY,
        pending=np.empty((0, len(setup.places))),
    )


def check(setup: Setup, state: ApproachState) -> tuple[Eigenpairs, ApproachState]:
    """The top eigenpairs at the midpoint of the coming step, half a step of gradient descent on, and the state after a look around where
    one is due."""
    (step, _, eta), dtype, seed = state.clock, setup.spec.precision.curvature, setup.spec.seed
    point = descend(setup.problem, state.theta, eta / 2, 1).theta.astype(dtype)
    read = guards.read(setup.problem, point, state.basis, state.guards, state.looked, step, seed, CHECK_TOLERANCE, dtype)
    return read.pairs, state._replace(guards=read.guards, looked=read.looked)


def advance(setup: Setup, state: ApproachState, limit: int) -> tuple[ApproachState, Progress, bool]:
    """At most `limit` steps towards the edge: to the next check. Also whether the edge is reached at the new state.

    A limit before the next check asks for a check of its own, so that the rows up to it can be released; it leaves the
    warm start and the cadence alone, and so the trajectory does not depend on limits.
    """
    if state.clock.step == state.next_check:
        pairs, state = check(setup, state)
        state, went_back, at_edge = _judge(setup, state, pairs)
        if at_edge:
            return _release(state)[0], Progress([*state.pending], []), True
        if went_back:
            return state, Progress([], []), False
        state, released = _release(state)
    else:
        released = np.empty((0, len(setup.places)))

    steps = max(1, min(state.next_check - state.clock.step, limit, DESCENT_CHUNK))
    measured = state.sharpness if state.clock == state.checked_clock else float("nan")
    state, outcome = _descend(setup, state, steps, measured)
    if outcome is None and steps == limit:
        sharpness = float(check(setup, state)[0].values[0])
        if sharpness >= 2 / state.clock.learning_rate:
            exact = state.careful or state.clock.step - state.checked_clock.step <= 1
            state = state._replace(next_check=state.clock.step) if exact else _go_back(state)
        else:
            state = state._replace(checked_clock=state.clock, checked_theta=state.theta, sharpness=sharpness)
            state, more = _release(state)
            released = np.concatenate([released, more])
    if outcome is not None:
        released = np.concatenate([released, state.pending])
    return state, Progress([*released], [], outcome), False


def _judge(setup: Setup, state: ApproachState, pairs: Eigenpairs) -> tuple[ApproachState, bool, bool]:
    """The state after a check; whether it went back to the last one; whether the edge is here."""
    sharpness, eta, clock = float(pairs.values[0]), state.clock.learning_rate, state.clock
    state = state._replace(basis=pairs.vectors)
    if sharpness >= 2 / eta:
        if state.careful or clock.step - state.checked_clock.step <= 1:
            return state._replace(sharpness=sharpness), False, True
        return _go_back(state), True, False
    far, near, close = setup.spec.approach.check_times
    span = far if sharpness < 1 / eta else near if sharpness < 1.5 / eta else close
    stride = 1 if state.careful else min(max(1, round(span / eta)), MAX_STRIDE)
    return state._replace(
        sharpness=sharpness, next_check=clock.step + stride, checked_clock=clock, checked_theta=state.theta
    ), False, False


def _go_back(state: ApproachState) -> ApproachState:
    """The state at the last passed check, from where every step is tested."""
    back = state.checked_clock
    state, _ = _release(state)
    looked = min(state.looked, back.step)
    return state._replace(clock=back, theta=state.checked_theta, careful=1, next_check=back.step + 1, looked=looked)


def _release(state: ApproachState) -> tuple[ApproachState, np.ndarray]:
    return state._replace(pending=np.empty((0, state.pending.shape[1]))), state.pending


def _descend(setup: Setup, state: ApproachState, steps: int, sharpness: float) -> tuple[ApproachState, Outcome | None]:
    """Some steps of gradient descent into the pending rows; the outcome when the loss stops being a number, or is low enough."""
    clock, times = state.clock, state.clock.times(steps)
    descent = descend(setup.problem, state.theta, clock.learning_rate, steps)
    losses, norms = np.asarray(descent.losses), np.asarray(descent.gradient_norms)
    rows, outcome = [], None
    for k in range(steps):
        if not (np.isfinite(losses[k]) and np.isfinite(norms[k])):
            outcome, steps = diverged(clock.step + k), k  # what came after is none of its steps
            break
        rows.append(setup.row({
            "step": clock.step + k, "time": times[k], "learning_rate": clock.learning_rate,
            "gd.loss": losses[k], "gd.gradient_norm": norms[k],
            "gd.midpoint_sharpness": sharpness if k == 0 else np.nan,
        }))
        outcome = loss_goal(setup.spec, losses[k], clock.step + k)
        if outcome is not None:
            break
    moved = Clock(clock.step + steps, float(times[len(rows)]), clock.learning_rate)
    pending = np.concatenate([state.pending, np.reshape(rows, (-1, len(setup.places)))])
    return state._replace(clock=moved, theta=jnp.asarray(descent.theta), pending=pending), outcome


GROWN = 1e6
"""How many times the largest loss of the first rows a finite last one may be before the run counts as diverged."""
FIRST_ROWS = 10


def diverged(step: int) -> Outcome:
    """The outcome of a loss or gradient that is not a finite number: from the first step on it is none that η can mend."""
    if step == 0:
        text = (
            "the loss or its gradient is not a finite number at the start, before any step, so no learning rate would do: look for NaN "
            "or infinity in the data and in the initial parameters"
        )
        return Outcome(kind="failed", step=0, text=text)
    text = f"diverged at step {step}: the loss is no longer a finite number; try a smaller learning rate"
    return Outcome(kind="diverged", step=step, text=text)


def grown(first: np.ndarray, last: float, step: int) -> Outcome | None:
    """The outcome where the last loss of a run is finite but beyond any descent, given those of the first ten rows, (rows,)."""
    known = np.abs(first[np.isfinite(first)])
    largest = float(known.max()) if len(known) else 0.0
    if not (largest > 0 and GROWN * largest < abs(last) < math.inf):
        return None
    text = (
        f"diverged at step {step}: the loss is {last:.3g}, over a million times the {largest:.3g} of the first rows; "
        f"try a smaller learning rate"
    )
    return Outcome(kind="diverged", step=step, text=text)


def loss_goal(spec: RunSpec, loss: float, step: int) -> Outcome | None:
    """The outcome when the loss is under the goal of the budget, if it sets one."""
    goal = spec.budget.loss_goal
    return Outcome(kind="loss_goal", step=step, text=f"training loss below {goal:g} at step {step}") if loss < goal and goal > 0 else None
