"""One coupled step of many parameters, of which the vectors take the memory: what is measured is made use of before more is measured, and
the new state lies where the old one lay.

First comes what may have the step be taken back: where gradient descent is, and the next θ†, the one that looks around before the other.
Then gradient descent is moved, what is followed beside is measured and moved, each prediction, and θ† last. A step that would be taken
back is left to `step_in_parts`, with the state as it was: it ends the run.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import Eigenpairs, solve_at, with_room
from engine.curvature.expansion import Point, loss_and_gradient
from engine.curvature.guards import KeptGuards, Known
from engine.dynamics.trajectories import TRAJECTORIES
from engine.phases import coupled_step, spectrum
from engine.phases.context import Setup
from engine.phases.coupled_loop import Steps, expected_eigenvectors
from engine.phases.coupled_state import (
    ConstrainedTrack,
    CoupledState,
    PredictedTrack,
    StaticConfig,
    StepParams,
    StepStatus,
    joined,
    known_eigenvectors,
    parted,
)
from engine.phases.coupled_step import Newest, StepRows, has_diverged, newest_of, unsolved
from engine.phases.edge_state import EdgeState
from engine.phases.projection import (
    Judged,
    ProjectionState,
    after_first,
    expansion_of,
    first_guess,
    first_trial,
    judged,
    newest_normals,
    project_until_converged,
    start_from_center,
    tight,
    tilt_is_due,
)
from engine.record.messages import AnyEvent
from engine.xla.shares import Shares


def take(
    setup: Setup, state: EdgeState, coupled: CoupledState, config: StaticConfig, params: StepParams, around: bool, others: Known
) -> Steps | None:
    """The step from a `coupled_step.with_host_values` of the state, None where it would be taken back. Gradient descent and what is
    followed beside look `around`, at `others` too."""
    problem, theta = setup.problem, state.theta
    at = coupled_step.context(problem, config, params, coupled, around, traced=False)._replace(in_turn=True)
    if any(TRAJECTORIES[name].reads_descent for name in coupled.beside):
        at = at._replace(descent=jnp.copy(theta))
    coupled = coupled._replace(beside=_owned(coupled.beside, theta.size, coupled._replace(beside={})))
    positions = coupled_step.locate(problem, coupled)  # numbers alone, read off while nothing else is at hand

    projected = _projected(setup, params, coupled) if guards.due(int(coupled.step)) else None
    here = _measured(setup, params, coupled, known_eigenvectors(coupled.constrained, others) if around else None)
    if here is None:
        return None
    measured = coupled_step.measure_beside(at, coupled) if around else None
    projection, known = projected or _projected(setup, params, coupled)
    del projected
    if unsolved(projection.point.eigen.residuals):
        return None

    coupled = coupled._replace(descent=coupled.descent._replace(eigenvectors=here.history))
    descent, row = coupled_step.descend_in_place(problem, config, coupled, here.point, here.newest, positions.descent)
    events, point = here.events, here.point._replace(grad=row["gd.gradient_norm"][None])
    del here
    beside = coupled_step.step_beside(at, coupled, measured or coupled_step.measure_beside(at, coupled))
    del measured, at
    normals = newest_normals(problem, projection, config.curvature)
    expansion = expansion_of(projection.point, normals, coupled.constrained.center.top_eigenvector)
    displacements, momenta = coupled_step.predict_in_place(problem, config, params, coupled, positions, expansion, projection, normals)
    taken = coupled_step.center_in_place(params, coupled, point, positions, row, beside, expansion, projection, normals)
    track = coupled_step.with_center(coupled.constrained, taken, projection, normals)._replace(beyond=known)
    moved = CoupledState(
        coupled.step + 1, descent, track, PredictedTrack(displacements, taken.scores, momenta), beside.states, taken.costs
    )
    rows = StepRows(cast(Array, np.asarray(taken.rows.values)), cast(Array, np.array(1)), taken.rows.names)
    values = rows.row(0)
    return Steps(coupled_step.with_row(coupled, moved, values), rows, StepStatus(int(values["status"])), events)


def _owned(tree: Any, size: int, beside: Any) -> Any:
    """The tree with vectors of its own, which may be overwritten."""
    return joined(*parted(tree, size, beside))


class Measured(NamedTuple):
    """What there is at gradient descent's θ."""

    point: Point  # of no θ and no eigenvectors
    newest: Newest
    history: Array  # (2, k, p) `halved`, of as many eigenvectors as are followed
    events: list[AnyEvent]


def _measured(
    setup: Setup, params: StepParams, coupled: CoupledState, others: Known | None
) -> Measured | None:
    """None where it is not finite."""
    history, center = coupled.descent.eigenvectors, coupled.constrained.center
    point, images, history, events = spectrum.read(
        setup, coupled.descent.theta, with_room(expected_eigenvectors(coupled)), history, int(coupled.step), params.plain_rate, others,
        rows=history.shape[1],
    )
    if has_diverged(point.loss, point.grad):
        return None
    newest = newest_of(center, point.eigen, images)
    return Measured(point._replace(theta=point.loss, eigen=point.eigen._replace(vectors=point.loss)), newest, history, events)


def _projected(setup: Setup, params: StepParams, coupled: CoupledState) -> tuple[ProjectionState, KeptGuards]:
    """Projections of the next target until one is done, and the guards at the first; that looks around where that is due."""
    problem, track, step, dtype = setup.problem, coupled.constrained, int(coupled.step), setup.spec.precision.curvature
    count, several, at = len(track.center.eigen.vectors), tight(track.normals), _trial_point(params, track, dtype)
    if guards.due(step):
        rows = _rows_around(track, setup.spec.seed, step, at.size, dtype, problem.shares)
        pairs, images, seen = guards.look_in_turn(problem, at, rows, count, params.eigen_tolerance, dtype, several)
        known = guards.kept(seen)
        del rows, seen
    else:
        pairs, images = solve_at(problem, at, _rows(track, dtype), params.eigen_tolerance, dtype, tight=several, count=count)
        known = track.beyond
    theta = _trial_point(params, track, str(track.center.theta.dtype))  # made twice, not kept beside the solver's rows
    del at
    loss, grad = loss_and_gradient(problem, theta)
    by = _judged(theta, grad, images, params, tilt_is_due(step), track, loss, pairs)
    del theta, grad, images
    (here, *_), _, changed = by
    done, tilts = bool(changed["done"]), bool(changed["tilts"])
    projection = after_first(params, track, here, (Point(here, loss, here, pairs), here), by, done, tilts)
    if done:
        return projection, known
    projection = projection._replace(point=track.center.point)  # it is measured elsewhere now
    del by, changed, here, pairs
    return project_until_converged(problem, params, projection, dtype), known


@partial(jax.jit, static_argnames="dtype")
def _trial_point(params: StepParams, track: ConstrainedTrack, dtype: str) -> Array:
    return first_trial(track, first_guess(params, track)[1]).point.astype(dtype)


@partial(jax.jit, static_argnames="dtype")
def _rows(track: ConstrainedTrack, dtype: str) -> Array:
    """What the solver starts from at the next centre, with room after it."""
    return with_room(track.expected().astype(dtype))


@partial(jax.jit, static_argnames=("size", "dtype", "shares"))
def _rows_around(track: ConstrainedTrack, seed: int, step: int, size: int, dtype: str, shares: Shares | None) -> Array:
    """The same for a look around."""
    return with_room(*guards.rows(track.expected(), track.beyond, guards.fresh_rows(seed, step, size, dtype, shares), dtype))


@partial(jax.jit, donate_argnames=("theta", "grad", "images"))
def _judged(
    theta: Array, grad: Array, images: Array, params: StepParams, tilts: bool, track: ConstrainedTrack, loss: Array, pairs: Eigenpairs
) -> Judged:
    """The first point judged by the normals of the last centre; what comes of it lies where it was measured."""
    projection = start_from_center(params, track, jnp.asarray(tilts))
    return judged(params, projection, (Point(theta, loss, grad, pairs), images), projection.normals, False)
