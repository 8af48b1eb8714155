"""The state of a run at the edge, and what may be done to it between steps: θ† projected anew, predictions anchored."""

import math
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from engine.curvature.eigensolver import Eigenpairs
from engine.curvature.expansion import Normals, Point, TaylorCenter
from engine.dynamics import predicted, prediction_scores, unrolled
from engine.dynamics.constrained import project_center
from engine.dynamics.unrolled import Unrolled
from engine.phases import earlier
from engine.phases.context import Clock, Setup
from engine.phases.coupled_state import CoupledState, PredictedTrack, StepParams
from engine.phases.projection import ProjectionState, expand, project_until_converged, start_projection
from engine.xla.leaves import Earlier


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


def step_params(setup: Setup, optimizer: Any, edge_step: int) -> StepParams:
    """The numbers that coupled steps read."""
    tracking = setup.tracking
    keep = tracking.on_second_eigenvalue == "keep"
    return StepParams(
        float(optimizer.learning_rate), setup.threshold(optimizer), tracking.eigen_tolerance, tracking.sharpness_tolerance,
        tracking.gradient_tolerance, tracking.max_projections, tracking.horizon_tolerance, edge_step, tracking.flow_sharpness_every,
        setup.spec.budget.loss_goal, math.inf if keep else tracking.second_eigenvalue_limit, tracking.anchor_lost,
    )


def project_afresh(
    setup: Setup, theta: Array, start: Array, previous_u: Array, optimizer: Any
) -> tuple[TaylorCenter, ProjectionState]:
    """The point of the stable set that projections from any θ lead to, with its expansion, and how they went."""
    dtype, params = setup.spec.precision.curvature, step_params(setup, optimizer, 0)
    nowhere = Point(theta, theta[0], theta, Eigenpairs(start[:, 0], start, start[:, 0], jnp.array(0)))
    unprojected = start_projection(theta, start, nowhere, Normals(theta, theta, theta))
    projection = project_until_converged(setup.problem, params, unprojected, dtype, afresh=True)
    return expand(setup.problem, projection, previous_u, dtype), projection


def remainder(center: TaylorCenter, target: Array, threshold: float) -> Array:
    """What the tolerances left of the way from the centre to the point of the stable set that is nearest to a target."""
    return project_center(center, target, threshold).theta - center.theta


def replaced_center(setup: Setup, state: EdgeState, vectors: Array) -> EdgeState:
    """The state with θ† projected anew from its own θ along other eigenvectors (k, p)."""
    track, threshold = state.coupled.constrained, setup.threshold(state.optimizer)
    old = track.center.top_eigenvector
    center, projection = project_afresh(setup, track.center.theta, vectors, old, state.optimizer)
    constrained = track._replace(
        center=center, eigenvector_history=jnp.stack([projection.start] * 2), projections=track.projections + projection.taken,
        remainder=remainder(center, projection.target, threshold), active=projection.pushes,
        correction=jnp.zeros_like(track.correction), overlap=track.overlap * jnp.abs(center.top_eigenvector @ old),
    )
    displacements = predicted.turned(state.coupled.predicted.displacements, old, center.top_eigenvector)
    return state._replace(coupled=state.coupled._replace(
        constrained=constrained, predicted=state.coupled.predicted._replace(displacements=displacements),
        costs=state.coupled.costs.plus(*projection.costs),
    ))


def anchor(state: EdgeState, forms: tuple[str, ...]) -> EdgeState:
    """Set v⋆ := v in the given forms, and begin their scores anew."""
    track, v = state.coupled.predicted, state.theta - state.center.theta
    chosen = [form for form in track.displacements if form in forms]
    moved = PredictedTrack(
        track.displacements | dict.fromkeys(chosen, v),
        track.scores | {form: prediction_scores.fresh(state.clock.step) for form in chosen},
    )
    total = state.unrolled
    if len(total.recent) and "transported" in forms:  # (5) is another route to the transported form, and starts with it
        total = unrolled.begin(state.center, v, len(total.recent), len(total.starts))
    return state._replace(coupled=state.coupled._replace(predicted=moved), unrolled=total)
