"""The state of a run at the edge, and what may be done to it between steps: θ† projected anew, predictions anchored."""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import theory
from engine.curvature.directions import Directions, none
from engine.curvature.eigensolver import Eigenpairs
from engine.curvature.expansion import Normals, Point, TaylorCenter
from engine.curvature.halves import Shortened, shortened
from engine.dynamics import predicted, prediction_scores, unrolled
from engine.dynamics.constrained import covariance
from engine.dynamics.unrolled import Unrolled
from engine.phases import averages, earlier
from engine.phases.averages import Averages
from engine.phases.context import Clock, Setup
from engine.phases.coupled_state import NO_MEMORY, CoupledState, PredictedTrack, StepParams, started
from engine.phases.projection import ProjectionState, expand, project_from, project_until_converged, start_projection
from engine.xla import small_matrices
from engine.xla.leaves import Earlier

STAYS = 0.05
"""How far under the λη at which its direction joined the edge an eigenvalue falls before it leaves: near the limit it would come and go."""


class EdgeState(NamedTuple):
    """Gradient descent at the edge with everything that is coupled to it, about the centre θ†_t."""

    clock: Clock
    edge_step: int
    coupled: Annotated[CoupledState, Earlier(earlier.coupled_state)]
    unrolled: Unrolled  # of no sources and no vectors when (5) is left out
    anchor_every: int  # 0: never
    anchor_phase: int  # step from which `anchor_every` counts
    stage: int
    failed: int  # bit k: assumption k does not hold now
    constraint_lost: int
    unstable: int  # eigenvalues that have been above 2/η
    audited: Annotated[int, Earlier(lambda leaves: -1)]  # step of the last audit of the eigenpairs; −1 before the first
    seeded: Annotated[int, Earlier(lambda leaves: 0)]  # directions whose oscillation was there, or was begun
    averages: Annotated[Averages, Earlier(lambda leaves: averages.begin())]  # running means over the last bursts

    @property
    def theta(self) -> Array:
        """θ of gradient descent, (p,)."""
        return self.coupled.descent.theta

    @property
    def optimizer(self) -> Any:
        """The optimizer's state."""
        return self.coupled.descent.optimizer

    @property
    def center(self) -> TaylorCenter:
        """θ† and the expansion about it."""
        return self.coupled.constrained.center


def step_params(setup: Setup, optimizer: Any, edge_step: int, seeded: int = 0) -> StepParams:
    """The numbers that coupled steps read; `seeded` is how many directions have their oscillation."""
    tracking = setup.tracking
    limit = math.inf if tracking.on_second_eigenvalue == "keep" else tracking.second_eigenvalue_limit
    return StepParams(
        float(optimizer.learning_rate), setup.threshold(optimizer), setup.plain_rate(optimizer), memory_of(setup),
        tracking.eigen_tolerance, tracking.sharpness_tolerance, tracking.gradient_tolerance, tracking.max_projections,
        tracking.horizon_tolerance, edge_step, tracking.flow_sharpness_every, setup.spec.budget.loss_goal, limit,
        tracking.second_eigenvalue_limit - STAYS, float(seeded) if tracking.seed_oscillation else math.inf, tracking.anchor_lost,
        tracking.central_substeps, tracking.eigenvalue_columns, setup.spec.seed,
    )


def memory_of(setup: Setup) -> theory.Memory:
    """What the optimizer's steps remember."""
    momentum = setup.optimizer.momentum
    return NO_MEMORY if momentum is None else momentum.memory


class Projected(NamedTuple):
    """A point of the stable set, with its expansion, the normals there, and the projections that led to it."""

    center: TaylorCenter
    normals: Normals | Directions
    projection: ProjectionState

    @property
    def directions(self) -> Directions:
        """Those at the edge; no room for any where one is followed by its own formulas."""
        return self.normals if isinstance(self.normals, Directions) else none(self.center.theta)


def project_afresh(
    setup: Setup, theta: Array, start: Array, previous_u: Array, optimizer: Any, directions: Directions | None = None
) -> Projected:
    """The point of the stable set that projections from any θ lead to; with several `directions` at the edge, which have the basis that
    theirs is to be nearest to. `start` (k, p) is for the eigensolver."""
    dtype, params = setup.spec.precision.curvature, step_params(setup, optimizer, 0)
    number, numbers = jnp.asarray(np.zeros((), theta.dtype)), jnp.asarray(np.zeros(len(start), start.dtype))
    nowhere = Point(theta, number, theta, Eigenpairs(numbers, start, numbers, jnp.array(0)))  # 0 as weakly typed as the solver's
    nothing = Normals(start, jnp.asarray(np.ones((), theta.dtype)), start[0], start[0])
    known = nothing if directions is None or not len(directions.basis) else directions
    unprojected = start_projection(theta, start, nowhere, known)
    projection = project_until_converged(setup.problem, params, unprojected, dtype, afresh=True)
    return Projected(*expand(setup.problem, projection, previous_u, dtype), projection)


@jax.jit
def remainder(projected: Projected, threshold: float) -> Shortened:
    """What the tolerances left of the way from the centre to the point of the stable set that is nearest to the target."""
    center, normals, projection = projected
    left = project_from(center, normals, projection.target, threshold, projection.multiplier).theta - center.theta
    return shortened(left.astype(center.small_format))


def replaced_center(setup: Setup, state: EdgeState, start: Array, directions: Directions | None = None) -> tuple[EdgeState, bool]:
    """The state with θ† projected anew from its own θ, with the eigensolver started from other vectors (k, p), along the directions at the
    edge that it has or along others; and whether the projections converged. What is predicted stays where it is.
    """
    track, threshold = state.coupled.constrained, setup.threshold(state.optimizer)
    old, known = track.center, track.directions if directions is None else directions
    projected = project_afresh(setup, old.theta, start, old.top_eigenvector, state.optimizer, known)
    center, _, projection = projected
    overlap = _overlap(track.overlap, old.top_eigenvector, center.top_eigenvector)
    polish, turn = started(projection.start, projection.start, center.eigen.vectors, projected.directions)
    constrained = track._replace(
        center=center, polish=polish, turn=turn, projections=track.projections + projection.taken,
        kept_remainder=remainder(projected, threshold), active=projection.active if directions is None else track.active,
        kept_correction=track.kept_correction._replace(length=jnp.zeros_like(track.kept_correction.length)), overlap=overlap,
        directions=projected.directions, covariance=covariance_at(setup, projected, state.optimizer, track.momentum),
    )
    displacements, momenta = state.coupled.predicted.displacements, state.coupled.predicted.momenta
    if not len(known.basis):
        displacements = predicted.turned(displacements, old.top_eigenvector, center.top_eigenvector)
        momenta = predicted.turned(momenta, old.top_eigenvector, center.top_eigenvector)
    elif directions is not None:
        displacements = _moved(displacements, old.theta, center.theta)
    coupled = state.coupled._replace(
        constrained=constrained, predicted=state.coupled.predicted._replace(displacements=displacements, momenta=momenta),
        costs=state.coupled.costs.plus(*projection.costs),
    )
    return state._replace(coupled=coupled), bool(projection.usable)


@jax.jit
def _overlap(overlap: Array, old_u: Array, new_u: Array) -> Array:
    """By how much u has turned, since it had turned by so much."""
    return overlap * jnp.abs(new_u @ old_u)


@jax.jit
def _moved(displacements: predicted.Displacements, old: Array, new: Array) -> predicted.Displacements:
    """The same points, seen from another centre."""
    return {form: v + (old - new).astype(v.dtype) for form, v in displacements.items()}


def covariance_at(setup: Setup, projected: Projected, optimizer: Any, momentum: Array) -> Array:
    """X† of several directions at a point that was projected to, with this m†; of none where one is followed."""
    center, normals, projection = projected
    if not isinstance(normals, Directions):
        return projection.multiplier
    rate, memory = float(optimizer.learning_rate), memory_of(setup)
    drift = center.grad + memory.recalled * momentum if momentum.size else center.grad
    return covariance(normals, drift, memory.gain(rate), setup.threshold(optimizer), jnp.zeros_like(projection.multiplier))


def began_with(setup: Setup, optimizer: Any, projected: Projected) -> Array:
    """m† of the first θ†, (p,): the optimizer's own m without what leads along the directions at the edge, or beyond it. Of no numbers
    where steps remember nothing."""
    if setup.optimizer.momentum is None:
        return jnp.zeros(0)
    return _tangent(projected, setup.optimizer.momentum.trace(optimizer))


@jax.jit
def _tangent(projected: Projected, m: Array) -> Array:
    center, normals, projection = projected
    if not isinstance(normals, Directions):
        m = m - center.top_eigenvector * (center.top_eigenvector @ m)
        over = jnp.minimum(center.grad_sharpness_perp @ m, 0) / center.beta  # θ goes along −m
        return m - jnp.where(projection.active > 0, over, 0) * center.grad_sharpness_perp
    m, across = m - (normals.basis @ m) @ normals.basis, normals.across
    inwards = small_matrices.pseudo_inverse(across @ across.T) @ (across @ m)
    return m - jnp.where(projection.active > 0, 1, 0) * inwards @ across


def apart(setup: Setup, optimizer: Any, momentum: Array) -> Array:
    """n = m − m†, (p,), of the optimizer's state."""
    assert setup.optimizer.momentum is not None
    return setup.optimizer.momentum.trace(optimizer) - momentum


def anchor(setup: Setup, state: EdgeState, forms: tuple[str, ...]) -> EdgeState:
    """Set v⋆ := v, and its momentum, in the given forms, and begin their scores anew."""
    track, v = state.coupled.predicted, state.theta - state.center.theta
    small = state.center.small_format
    chosen = [form for form in track.displacements if form in forms]
    momenta = {}
    if track.momenta:
        momenta = dict.fromkeys(chosen, apart(setup, state.optimizer, state.coupled.constrained.momentum).astype(small))
    moved = PredictedTrack(
        track.displacements | dict.fromkeys(chosen, v.astype(small)),
        track.scores | {form: prediction_scores.fresh(state.clock.step) for form in chosen}, track.momenta | momenta,
    )
    total = state.unrolled
    if len(total.recent) and "transported" in forms:  # (5) is another route to the transported form, and starts with it
        total = unrolled.begin(state.center, v, len(total.recent), len(total.starts))
    return state._replace(coupled=state.coupled._replace(predicted=moved), unrolled=total)
