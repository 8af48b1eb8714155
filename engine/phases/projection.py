"""The move of θ†: linearised projections of the next target until one is within its tolerances.

Eigenpairs are solved for at each trial point; the normals of the stable set are those of the last centre for the first trials, so that a
step usually takes new ones once: ∇S always, and the tilt of the other normal at every fourth step, as long as what a step has along
it is far within the tolerance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature import guards
from engine.curvature.directions import Directions, aligned, contractions_along, first, normals_along, turned
from engine.curvature.eigensolver import forms_hessian
from engine.curvature.expansion import Normals, Point, TaylorCenter, direction, expansion, measure_all, normals, with_known_tilt
from engine.curvature.guards import Guards
from engine.curvature.predictor import power_step
from engine.dynamics.constrained import Projection, next_target, project, project_along, project_center, slide, slide_along
from engine.dynamics.trajectory import Costs
from engine.phases.coupled_state import ConstrainedTrack, StepParams, next_drift
from engine.problems.problem import Problem

UNUSABLE = 0.05
"""Constraint residual from which θ† is no longer the constrained trajectory, and eigen residual from which no pair was found."""
CONTRACTIONS = 2
"""Contractions of the third derivative that the normals of the stable set take, with one direction at the edge; ∇S alone takes 1."""
TILT_EVERY, TILT_PHASE = 4, 2
"""Steps between tilts, and which they are: not those that look around. Within four steps the tilt changes by 1.2 to 7 %, and with two
eigenpairs at hand it is exact to 10 %."""
TILTED = 0.1
"""Part of the sharpness tolerance from which what a step has along the tilt asks for a new one at every step."""
CHORDS = 2
"""Projections along the last centre's normals before one takes its own."""
SLIDES = 1e-3
"""How far u may turn on a slide of a point that misses its tolerances: farther, the point stays where it was measured."""


class ProjectionState(NamedTuple):
    """Where linearised projections have come to."""

    target: Array  # (p,) what is projected
    trial_point: Array  # (p,) where to measure next
    start: Array  # (k, p) for the eigensolver there
    point: Point  # the last one measured, slid along the directions at the edge
    normals: Normals | Directions  # of the stable set, the newest
    afresh: Array  # whether they were taken at that point
    tilts: Array  # whether those at the end are to be taken with a tilt of their own
    taken: Array  # projections
    costs: Costs
    active: Array  # in how many directions S ≤ 2/η holds the point back from the target
    multiplier: Array  # (K, K) of several directions
    usable: Array
    done: Array


def start_projection(
    target: Array, start: Array, point: Point, normals: Normals | Directions, multiplier: Array | None = None, tilts: Any = True
) -> ProjectionState:
    """Projections of a target (p,), to begin there; with several directions from a multiplier (K, K), 0 where none is given."""
    if multiplier is None:
        size = len(normals.basis) if isinstance(normals, Directions) else 0
        multiplier = jnp.asarray(np.zeros((size, size), target.dtype))
    no, zero = cast(Array, np.array(False)), cast(Array, np.array(0))  # the device need not be asked for these
    return ProjectionState(
        target, target, start, point, normals, no, tilts, zero, Costs(zero, zero, zero), zero, multiplier, usable=no, done=no
    )


def tilt_is_due(step: Any) -> Any:
    """Whether a step takes a tilt of its own, () each."""
    return step % TILT_EVERY == TILT_PHASE


def start_from_center(params: StepParams, track: ConstrainedTrack, tilts: Array) -> ProjectionState:
    """Where to look for the next θ† first, and whether that `tilts` anew."""
    target, first = first_guess(params, track)
    trial = first_trial(track, first)
    begun = start_projection(target, trial.start, track.center.point, track.normals, first.multiplier, tilts)
    return begun._replace(trial_point=trial.point)


class FirstTrial(NamedTuple):
    """Where the next θ† is looked for first."""

    point: Array  # (p,)
    start: Array  # (k, p) for the eigensolver there


def first_trial(track: ConstrainedTrack, first: Projection) -> FirstTrial:
    """The `first_guess` with what it left out last time."""
    return FirstTrial(first.theta + track.correction, track.expected())  # what is left out changes little


@jax.jit
def first_guess(params: StepParams, track: ConstrainedTrack) -> tuple[Array, Projection]:
    """The target (p,) of the next θ†, and its projection made at the last centre: Lemma 13's guess. Not kept for a step, since whatever
    reads them makes them while it reads."""
    drift, length = next_drift(track, params)
    target = next_target(track.center, length, drift) + track.remainder
    known = length * track.covariance  # the multiplier but for the remainder
    return target, project_from(track.center, track.normals, target, params.threshold, known, solved=False)


def project_from(
    center: TaylorCenter, normals: Normals | Directions, target: Array, threshold: float | Array, multiplier: Array, solved: bool = True
) -> Projection:
    """A projection of a target (p,) made at a centre, with the normals there and a multiplier to begin with, or to go by, not `solved`."""
    if isinstance(normals, Directions):
        return project_along(center.theta, center.grad, normals, target, threshold, multiplier, solved)
    return project_center(center, target, threshold)


def projection_step(
    params: StepParams, projection: ProjectionState, measured: tuple[Point, Array], normals: Normals | Directions, afresh: bool | Array
) -> ProjectionState:
    """Whether the point `measured` at the trial point is in the stable set, and where to look next if not.

    What is left along the directions at the edge alone needs no projection: the point slides there (`constrained.slide`).
    """
    return stepped(projection, measured, normals, judged(params, projection, measured, normals, afresh))


Judged = tuple[tuple[Array, ...], tuple[Directions, Array] | None, dict[str, Any]]
"""What a step of the projection changes: of the point, of the directions, and of the rest."""


def stepped(projection: ProjectionState, measured: tuple[Point, Array], normals: Normals | Directions, by: Judged) -> ProjectionState:
    """Projections after what was `judged` of the point that they were `measured` at."""
    (theta, loss, grad, values, residuals), along, changed = by
    eigen = measured[0].eigen._replace(values=values, residuals=residuals)
    if along is not None:
        normals, eigen = along[0], eigen._replace(vectors=along[1])
    return projection._replace(point=Point(theta, loss, grad, eigen), normals=normals, **changed)


def after_first(
    params: StepParams, track: ConstrainedTrack, start: Array, measured: tuple[Point, Array], by: Judged, done: bool, tilts: bool
) -> ProjectionState:
    """Projections after the first trial was `judged` from the normals of the last centre, with its flags as arrays of the host."""
    here = measured[0].theta
    target = here if done else first_guess(params, track)[0]  # projected no more where it is done
    begun = start_projection(target, start, track.center.point, track.normals, track.covariance)
    projection = stepped(begun, measured, begun.normals, by)
    if done:
        projection = projection._replace(trial_point=here)  # and nothing is measured any more
    no, ends, own = (cast(Array, np.array(flag)) for flag in (False, done, tilts))
    return projection._replace(afresh=no, done=ends, tilts=own)


@jax.jit
def judged(
    params: StepParams, projection: ProjectionState, measured: tuple[Point, Array], normals: Normals | Directions, afresh: bool | Array
) -> Judged:
    """What a measured point changes."""
    point, images = measured
    vectors = power_step(point.eigen, images)
    if isinstance(normals, Directions):
        there, along = turned(point.eigen, images, normals)
        slid = slide_along(point, there, along)
        near = slid.angle <= SLIDES
        kept, there = jax.tree.map(lambda a, b: jnp.where(near, a, b), (slid.point, slid.directions), (point, there))
        landed = project_along(kept.theta, kept.grad, there, projection.target, params.threshold, projection.multiplier)
        angle, start, moved_along = slid.angle, _in_basis(vectors, there), (there, kept.eigen.vectors)
    else:
        top = direction(point, normals)
        moved, angle = slide(point, top, images[0])
        kept = jax.tree.map(lambda a, b: jnp.where(angle <= SLIDES, a, b), moved, point)
        landed = project(kept, top, normals, projection.target, params.threshold)
        start, moved_along = vectors, None
    gap, along_u, sideways = landed.residuals
    within = (gap <= params.sharpness_tolerance) & (angle <= params.gradient_tolerance)
    # With the normals of the point itself the rest of the way counts too; with older ones `remainder` has it, and the next target.
    within &= ~jnp.asarray(afresh) | (sideways <= params.sharpness_tolerance)
    done = within | (projection.taken >= params.max_projections) | ~jnp.isfinite(gap)
    changed = {
        "trial_point": landed.theta, "start": start, "afresh": jnp.asarray(afresh), "taken": projection.taken + ~done,
        "tilts": projection.tilts | (landed.tilted > TILTED * params.sharpness_tolerance),
        "costs": projection.costs.plus(point.eigen.hvps, 1, contracted(normals) * jnp.asarray(afresh, int)),
        "active": landed.active, "multiplier": landed.multiplier,
        "usable": (gap <= UNUSABLE) & (along_u <= UNUSABLE),  # False for NaN
        "done": done,
    }
    return (kept.theta, kept.loss, kept.grad, kept.eigen.values, kept.eigen.residuals), moved_along, changed


def _in_basis(vectors: Array, directions: Directions) -> Array:
    """Eigenvectors (K + 1, p) with those of the directions at the edge in their basis, which moves smoothly where they are degenerate."""
    size, dtype = len(directions.basis), directions.basis.dtype
    rows = jnp.where(directions.there[:, None], vectors[:size].astype(dtype), 0)
    basis = aligned(rows, directions.basis, directions.number) @ rows
    return vectors.at[:size].set(jnp.where(directions.there[:, None], basis.astype(vectors.dtype), vectors[:size]))


def contracted(normals: Normals | Directions) -> int | Array:
    """Contractions of the third derivative that the normals of the stable set take."""
    if isinstance(normals, Directions):
        return contractions_along(normals.number)
    return CONTRACTIONS


def measured_at_trial(problem: Problem, params: StepParams, projection: ProjectionState, dtype: str) -> tuple[Point, Array]:
    """What `expansion.measure_all` gives where to look next."""
    return measure_all(
        problem, projection.trial_point, projection.start, params.eigen_tolerance, dtype, tight(projection.normals)
    )


def tight(normals: Normals | Directions) -> int | Array:
    """How many eigenpairs are asked for to the tolerance: those of the directions at the edge."""
    return normals.number if isinstance(normals, Directions) else 1


def normals_at(
    problem: Problem, measured: tuple[Point, Array], known: Normals | Directions, dtype: str
) -> Normals | Directions:
    """The normals of the stable set at a measured point; of several directions in the basis nearest to the known one."""
    point, images = measured
    if isinstance(known, Directions):
        return normals_along(problem, point, turned(point.eigen, images, known)[0], dtype)
    return normals(problem, point, dtype)


def project_until_converged(
    problem: Problem, params: StepParams, projection: ProjectionState, dtype: str, afresh: bool = False
) -> ProjectionState:
    """Linearised projections until one is done, each from the newest normals at hand: those of the last centre for the first two, or such
    as are taken `afresh` each time."""
    while not projection.done:
        measured = measured_at_trial(problem, params, projection, dtype)
        again = afresh or int(projection.taken) >= CHORDS
        newest = normals_at(problem, measured, projection.normals, dtype) if again else projection.normals
        projection = projection_step(params, projection, measured, newest, again)
    return projection


def project_in_one_call(
    problem: Problem, params: StepParams, projection: ProjectionState, dtype: str, known: Guards, step: Array
) -> tuple[ProjectionState, Guards]:
    """`project_until_converged` with jax's own loop in place of Python's; at the first point of a step that is due for it the solver looks
    around, from the guards that are `known`. Gives back those after it."""
    size, formed = projection.target.size, forms_hessian(projection.target)
    looks, rows = guards.due(step), jnp.zeros((guards.FRESH, size), dtype)
    fresh = rows if formed else lax.cond(looks, lambda: guards.fresh_rows(params.seed, step, size, dtype, problem.shares), lambda: rows)

    def attempt(carried: tuple[ProjectionState, Guards]) -> tuple[ProjectionState, Guards]:
        projection, known = carried
        if formed:
            measured = measured_at_trial(problem, params, projection, dtype)
        else:
            measured, known = guards.measure_in_one_call(
                problem, projection.trial_point, projection.start, known, fresh, looks & (projection.taken == 0),
                params.eigen_tolerance, dtype, tight(projection.normals),
            )
        afresh = projection.taken >= CHORDS
        newest = lax.cond(afresh, lambda: normals_at(problem, measured, projection.normals, dtype), lambda: projection.normals)
        return projection_step(params, projection, measured, newest, afresh), known

    return lax.while_loop(lambda carried: ~carried[0].done, attempt, (projection, known))


def _by_host(condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """`lax.cond` of a condition that the host has."""
    return if_true() if condition else if_false()


def newest_normals(
    problem: Problem, projection: ProjectionState, dtype: str, choose: Callable[..., Any] = _by_host
) -> Normals | Directions:
    """The normals at the point where projections ended; `choose` is `lax.cond` inside a compiled call."""
    point, known = projection.point, projection.normals

    def taken() -> Normals | Directions:
        if isinstance(known, Directions):
            return normals_along(problem, point, known, dtype)
        return choose(projection.tilts, lambda: normals(problem, point, dtype), lambda: with_known_tilt(problem, point, known, dtype))

    return choose(projection.afresh, lambda: known, taken)


def contracted_at_end(projection: ProjectionState) -> Array:
    """Contractions of ∇³L that `newest_normals` take."""
    known = projection.normals
    count = contracted(known) if isinstance(known, Directions) else jnp.where(projection.tilts, CONTRACTIONS, 1)
    return jnp.where(projection.afresh, 0, count)


def expand(problem: Problem, projection: ProjectionState, previous_u: Array, dtype: str) -> tuple[TaylorCenter, Normals | Directions]:
    """The expansion where projections ended, and the normals there; the sign of u is that of `previous_u` (p,)."""
    newest = newest_normals(problem, projection, dtype)
    return centered(projection.point, newest, previous_u), newest


def centered(point: Point, newest: Normals | Directions, previous_u: Array) -> TaylorCenter:
    """The expansion about a measured point with the normals there, along the top eigenvector."""
    return with_expansion(point, newest, expansion_of(point, newest, previous_u))


@jax.jit
def expansion_of(point: Point, newest: Normals | Directions, previous_u: Array) -> dict[str, Any]:
    """What a centre has beyond its point, and beyond the normals where they are those of one direction."""
    if not isinstance(newest, Directions):
        return expansion(point, newest, previous_u)
    along_top = first(newest)
    return {"grad_sharpness": along_top.dS.astype(point.eigen.vectors.dtype), **expansion(point, along_top, previous_u)}


def with_expansion(point: Point, newest: Normals | Directions, known: dict[str, Any]) -> TaylorCenter:
    """The centre at a point with the normals there, from `expansion_of` them."""
    if not isinstance(newest, Directions):
        known = {"grad_sharpness": newest.dS, **known}
    return TaylorCenter(*point, **known)
