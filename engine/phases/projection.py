"""The move of θ†: linearised projections of the next target until one is within its tolerances.

Eigenpairs are solved for at each trial point; the normals of the stable set are those of the last centre for the first trials, so that a
step usually takes new ones once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.expansion import Normals, Point, TaylorCenter, direction, measure_all, normals, taylor_center
from engine.curvature.predictor import extrapolated, power_step
from engine.dynamics.constrained import next_target, project, project_center, slide
from engine.dynamics.trajectory import Costs
from engine.phases.coupled_state import ConstrainedTrack, StepParams
from engine.problems.problem import Problem

UNUSABLE = 0.05
"""Constraint residual from which θ† is no longer the constrained trajectory, and eigen residual from which no pair was found."""
CONTRACTIONS = 2
"""Contractions of the third derivative that the normals of the stable set take."""
CHORDS = 2
"""Projections along the last centre's normals before one takes its own."""
SLIDES = 1e-3
"""How far u may turn on a slide of a point that misses its tolerances: farther, the point stays where it was measured."""


class ProjectionState(NamedTuple):
    """Where linearised projections have come to."""

    target: Array  # (p,) what is projected
    guess: Array  # (p,) where the first one, made at the last centre, leads
    trial_point: Array  # (p,) where to measure next
    start: Array  # (2, p) for the eigensolver there
    point: Point  # the last one measured, slid along u
    normals: Normals  # of the stable set, the newest
    afresh: Array  # whether they were taken at that point
    taken: Array  # projections
    costs: Costs
    pushes: Array  # whether S ≤ 2/η holds the point back from the target
    usable: Array
    done: Array


def start_projection(target: Array, start: Array, point: Point, normals: Normals) -> ProjectionState:
    """Projections of a target (p,), to begin there."""
    no, zero = jnp.array(False), jnp.zeros((), int)
    return ProjectionState(target, target, target, start, point, normals, no, zero, Costs(zero, zero, zero), no, no, no)


def start_from_center(params: StepParams, track: ConstrainedTrack) -> ProjectionState:
    """Where to look for the next θ† first: Lemma 13's guess with what it left out last time."""
    target, guess, corrected, start = _first_trial(params, track)
    center = track.center
    return start_projection(target, start, center.point, center.normals)._replace(guess=guess, trial_point=corrected)


@jax.jit
def _first_trial(params: StepParams, track: ConstrainedTrack) -> tuple[Array, Array, Array, Array]:
    target = next_target(track.center, params.learning_rate) + track.remainder
    guess = project_center(track.center, target, params.threshold).theta
    return target, guess, guess + track.correction, extrapolated(*track.eigenvector_history)  # what it leaves out changes little


def projection_step(
    params: StepParams, projection: ProjectionState, measured: tuple[Point, Array], normals: Normals, afresh: bool | Array
) -> ProjectionState:
    """Whether the point `measured` at the trial point is in the stable set, and where to look next if not.

    What is left along u alone needs no projection: the point slides there (`constrained.slide`).
    """
    (theta, loss, grad, values, residuals), changed = _judged(params, projection, measured, normals, afresh)
    eigen = measured[0].eigen._replace(values=values, residuals=residuals)
    return projection._replace(point=Point(theta, loss, grad, eigen), normals=normals, **changed)


@jax.jit
def _judged(
    params: StepParams, projection: ProjectionState, measured: tuple[Point, Array], normals: Normals, afresh: bool | Array
) -> tuple[tuple[Array, ...], dict[str, Any]]:
    point, images = measured
    top = direction(point, normals)
    slid, angle = slide(point, top, images[0], normals.dS)
    kept = jax.tree.map(lambda a, b: jnp.where(angle <= SLIDES, a, b), slid, point)
    theta, (gap, along, sideways), pushes = project(kept, top, normals, projection.target, params.threshold)
    within = (gap <= params.sharpness_tolerance) & (angle <= params.gradient_tolerance)
    # With the normals of the point itself the rest of the way counts too; with older ones `remainder` has it, and the next target.
    within &= ~jnp.asarray(afresh) | (sideways <= params.sharpness_tolerance)
    done = within | (projection.taken >= params.max_projections) | ~jnp.isfinite(gap)
    changed = {
        "trial_point": theta, "start": power_step(point.eigen, images), "afresh": jnp.asarray(afresh), "taken": projection.taken + ~done,
        "costs": projection.costs.plus(point.eigen.hvps, 1, CONTRACTIONS * jnp.asarray(afresh, int)),
        "pushes": pushes, "usable": (gap <= UNUSABLE) & (along <= UNUSABLE),  # False for NaN
        "done": done,
    }
    return (kept.theta, kept.loss, kept.grad, kept.eigen.values, kept.eigen.residuals), changed


def project_until_converged(
    problem: Problem, params: StepParams, projection: ProjectionState, dtype: str, afresh: bool = False
) -> ProjectionState:
    """Linearised projections until one is done, each from the newest normals at hand: those of the last centre for the first two, or such
    as are taken `afresh` each time."""
    while not projection.done:
        measured = measure_all(problem, projection.trial_point, projection.start, params.eigen_tolerance, dtype)
        again = afresh or int(projection.taken) >= CHORDS
        newest = normals(problem, measured[0], dtype) if again else projection.normals
        projection = projection_step(params, projection, measured, newest, again)
    return projection


def project_in_one_call(problem: Problem, params: StepParams, projection: ProjectionState, dtype: str) -> ProjectionState:
    """`project_until_converged` with jax's own loop in place of Python's."""

    def attempt(projection: ProjectionState) -> ProjectionState:
        measured = measure_all(problem, projection.trial_point, projection.start, params.eigen_tolerance, dtype)
        afresh = projection.taken >= CHORDS
        newest = lax.cond(afresh, lambda: normals(problem, measured[0], dtype), lambda: projection.normals)
        return projection_step(params, projection, measured, newest, afresh)

    return lax.while_loop(lambda projection: ~projection.done, attempt, attempt(projection))


def newest_normals(problem: Problem, projection: ProjectionState, dtype: str) -> Normals:
    """The normals at the point where projections ended."""
    return projection.normals if projection.afresh else normals(problem, projection.point, dtype)


def expand(problem: Problem, projection: ProjectionState, previous_u: Array, dtype: str) -> TaylorCenter:
    """The expansion where projections ended; the sign of u is that of `previous_u` (p,)."""
    return taylor_center(projection.point, newest_normals(problem, projection, dtype), previous_u)
