"""Many coupled steps as one compiled call.

Where the Hessian is formed, small problems, and on accelerators, `advance` takes many steps in one call, up to the first that the host has
to look at; how many makes no difference to what they give. Elsewhere a step is put together out of parts (`step_in_parts`).
"""

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature import guards
from engine.curvature.eigensolver import LOOSE_TOLERANCE, forms_hessian
from engine.curvature.expansion import Point, loss_and_gradient, measure_all
from engine.curvature.halves import whole
from engine.curvature.predictor import predict_eigenvectors
from engine.dynamics.trajectories import TRAJECTORIES
from engine.dynamics.trajectory import StepContext
from engine.phases.coupled_state import CoupledState, StaticConfig, StepParams, StepStatus, joined, parted
from engine.phases.coupled_step import (
    StepRows,
    context,
    has_diverged,
    locate,
    measure_beside,
    step_beside,
    take,
    take_without_center,
    unsolved,
    with_host_values,
    with_row,
)
from engine.phases.projection import newest_normals, project_in_one_call, start_from_center, tilt_is_due
from engine.problems.problem import Problem
from engine.record.messages import AnyEvent
from engine.spec import FOLLOWED_FROM, CoupledTracking

CHUNK = 512
"""Most steps in one compiled call."""


class Steps(NamedTuple):
    """Some coupled steps: where they lead, what they read, what the last came to, and events of the eigenvalues followed."""

    state: CoupledState
    rows: StepRows
    status: StepStatus
    events: list[AnyEvent]


def takes_many(tracking: CoupledTracking, theta: Array) -> bool:
    """Whether one compiled call takes many steps at a θ (p,)."""
    if forms_hessian(theta) or tracking.steps_per_call == "many":
        return True
    return tracking.steps_per_call == "auto" and jax.default_backend() != "cpu"


def advance(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, limit: int, most: int, alone: bool = False,
    overwrites: bool = False,
) -> tuple[CoupledState, StepRows, StepStatus]:
    """At most `limit` ≤ CHUNK steps as one compiled call: where they lead, what they read, and what the last came to. `most` is how many
    eigenvalues of gradient descent may be followed.

    `alone` leaves θ† where it is, and takes one step. A call that `overwrites` has the vectors of the new state lie where those of the old
    one lay, which is none any more; a step to which no eigenpair is found has no row then.
    """
    state = with_host_values(state)
    if overwrites:
        moved, rows, last = _call_in_place(*parted(state, state.descent.theta.size), problem, config, params, np.array(limit), most)
    else:
        moved, rows, last = call_of_many(problem, config, params, state, np.array(limit), most, alone)
    status, taken = StepStatus(int(last)), int(rows.count)
    rows = StepRows(cast(Array, np.asarray(rows.values)), cast(Array, np.array(taken)), rows.names)
    if status >= StepStatus.GROW and not overwrites:  # the last is not to be taken: the others once more, which is rare
        taken -= status == StepStatus.UNSOLVED
        moved = call_of_many(problem, config, params, state, np.array(taken), most, alone)[0] if taken else state
    if taken and not alone:
        moved = with_row(state, moved, rows.row(taken - 1))
    return moved, rows, status


@partial(jax.jit, static_argnames=("config", "most", "alone", "in_place"))
def call_of_many(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, limit: Array, most: int, alone: bool,
    in_place: bool = False,
) -> tuple[CoupledState, StepRows, Array]:
    """`advance` as one program, but for what follows from the status of its last step. Made to overwrite its state it leaves a step that
    would be taken back, which then has no row."""
    names: tuple[str, ...] = ()

    def step(state: CoupledState) -> tuple[CoupledState, Array, Array]:
        nonlocal names
        moved, rows, status = _step(problem, config, params, state, most, alone, in_place)
        names = rows.names
        return moved, rows.values[0], status

    def body(carried: tuple[CoupledState, Array, Array, Array]) -> tuple[CoupledState, Array, Array, Array]:
        state, rows, count, _ = carried
        moved, row, status = step(state)
        has_row = (status < StepStatus.GROW) | (status == StepStatus.UNSOLVED) & (not in_place)
        return moved, rows.at[count].set(row), count + has_row, status

    def more(carried: tuple[CoupledState, Array, Array, Array]) -> Array:
        return (carried[2] < limit) & (carried[3] == StepStatus.ON)

    width = jax.eval_shape(step, state)[1].size
    start = (state, jnp.full((CHUNK, width), jnp.nan), jnp.array(0), jnp.array(int(StepStatus.ON)))
    state, rows, count, status = lax.while_loop(more, body, start)
    return state, StepRows(rows, count, names), status


@partial(jax.jit, static_argnames=("config", "most"), donate_argnames=("vectors",))
def _call_in_place(
    vectors: CoupledState, rest: CoupledState, problem: Problem, config: StaticConfig, params: StepParams, limit: Array, most: int
) -> tuple[CoupledState, StepRows, Array]:
    """`call_of_many`, with the new vectors in the place of the old ones."""
    return call_of_many(problem, config, params, joined(vectors, rest), limit, most, alone=False, in_place=True)


def _step(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, most: int, alone: bool, in_place: bool
) -> tuple[CoupledState, StepRows, Array]:
    """One step, inside one compiled call."""
    dtype, track = config.curvature, state.constrained
    # As in `edge`: what θ† comes to know in a step, gradient descent and what is followed beside look at in the next.
    at = context(problem, config, params, state, around=guards.due(state.step - 1), traced=True)
    measured, beside = _measured(at, state), step_beside(at, state, measure_beside(at, state))
    positions = locate(problem, state)
    if alone:
        return take_without_center(problem, config, params, state, measured, positions, beside)
    begun = start_from_center(params, track, tilt_is_due(state.step))
    projection, known = project_in_one_call(problem, params, begun, dtype, track.guards, state.step)
    newest = newest_normals(problem, projection, dtype, lax.cond)
    diverged, above = has_diverged(measured[0].loss, measured[0].grad), measured[0].eigen.values[-1] * params.plain_rate > FOLLOWED_FROM
    grow = above & (state.descent.eigenvectors.shape[1] < most) & ~diverged

    def taken() -> tuple[CoupledState, StepRows, Array]:
        moved, rows, status = take(problem, config, params, state, measured, positions, beside, projection, newest)
        moved = moved._replace(constrained=moved.constrained._replace(beyond=guards.kept(known)))
        full = jnp.any(jnp.array([TRAJECTORIES[name].lacks_room(each) for name, each in moved.beside.items()], bool))
        status = jnp.where(full & (status == StepStatus.ON), StepStatus.HOST, status)
        return moved, rows, jnp.where(grow, StepStatus.GROW, status)

    if not in_place:
        return taken()
    _, rows, _ = jax.eval_shape(taken)

    def left() -> tuple[CoupledState, StepRows, Array]:
        why = jnp.where(diverged, StepStatus.DIVERGED, jnp.where(grow, StepStatus.GROW, StepStatus.UNSOLVED))
        return state, StepRows(jnp.full(rows.values.shape, jnp.nan), jnp.array(0), rows.names), why

    return lax.cond(diverged | grow | unsolved(projection.point.eigen.residuals), left, taken)


def _measured(at: StepContext, state: CoupledState) -> tuple[Point, Array]:
    """What is measured at gradient descent's θ inside a compiled call: `spectrum.read` without more eigenvalues to follow."""
    theta, start = state.descent.theta, expected_eigenvectors(state)
    if forms_hessian(theta):
        return measure_all(at.problem, theta, start, LOOSE_TOLERANCE, at.dtype)
    loss, grad = loss_and_gradient(at.problem, theta)
    pairs, images = guards.pairs_in_one_call(at.problem, theta, start, at.known, at.around, LOOSE_TOLERANCE, at.dtype)
    return Point(theta, loss, grad, pairs), images


def with_room(state: CoupledState) -> CoupledState:
    """The state with room for what is followed beside gradient descent to follow more."""
    return state._replace(beside={name: TRAJECTORIES[name].with_room(each) for name, each in state.beside.items()})


def newest_eigenvectors(state: CoupledState) -> Array:
    """Gradient descent's of the last step, (k, p)."""
    return whole(state.descent.eigenvectors[-1], state.constrained.center.eigen.vectors.dtype)


def expected_eigenvectors(state: CoupledState) -> Array:
    """A start for the eigensolver at gradient descent's θ, (k, p)."""
    descent, center = state.descent, state.constrained.center
    return _expected(
        center.theta, center.top_eigenvector, descent.theta, descent.offsets, descent.x_history, descent.eigenvectors,
        center.eigen.vectors.dtype,
    )


@partial(jax.jit, static_argnames="dtype")
def _expected(center: Array, u: Array, theta: Array, offsets: Array, x_history: Array, eigenvectors: Array, dtype: np.dtype) -> Array:
    return predict_eigenvectors(u, theta - center, whole(offsets, dtype), x_history, whole(eigenvectors[0], dtype))
