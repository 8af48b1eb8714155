"""The central flow of gradient descent (arXiv 2410.24206): where it goes once its oscillation has been averaged over.

With δ the oscillation about the flow w, and Σ its covariance, dw/dt = −η[∇L + ½∇³L(Σ)], where Σ is the positive semidefinite matrix that
keeps ∇²L ⪯ 2/η and lies in directions at 2/η. It starts where gradient flow does: at θ†_0, or at gradient descent's θ.

Each step is several Euler substeps of dt. One has the eigenvectors U of eigenvalues above 1.95/η as members, and in their basis
0 ⪯ X ⊥ (2/η)I − UᵀHU + dt·η(∇L·D_ij)_ij + dt·(η/2)B[X] ⪰ 0, D_ij = ∇³L(u_i,u_j) and B of products <D_ij, D_kl>; then
w ← w − dt·η(∇L + ½D[X]), and Σ = UXUᵀ. One substep is not enough: across the edge it is then unstable itself.

Where we depart from the authors' code: eigenvectors are refined by a step of power iteration, which costs no product; between the solves
for them all of UᵀHU is taken anew, not its diagonal alone, and of members only, which can then leave but not join until the next step;
and where fewer eigenvalues are above 1.5/η than are followed, some are dropped. Two substeps are the default, for their four.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine import theory
from engine.curvature import guards
from engine.curvature.directions import aligned, contractions, weighed
from engine.curvature.eigensolver import LOOSE_TOLERANCE, Eigenpairs, forms_hessian, sharpness_at, solve_at
from engine.curvature.expansion import loss_and_gradient
from engine.curvature.guards import Guards, Known
from engine.curvature.predictor import power_step, push
from engine.dynamics import complementarity
from engine.dynamics.trajectory import Beginning, Costs, Row, StepContext, Trajectory
from engine.problems.problem import Problem
from engine.spec import FOLLOWED_FROM, CoupledTracking
from engine.xla import small_matrices
from engine.xla.jit import jit_by_format
from engine.xla.packed import unpacked
from engine.xla.reductions import norms

MEMBER_FROM = 1.95
"""λη from which a direction is a member."""
LOOK = guards.COUNT + guards.FRESH
"""Rows beside those followed, as many as a look at θ† has: one compiled solver serves both."""


class CentralState(NamedTuple):
    """Where the central flow is."""

    theta: Array  # (p,) w
    eigenvectors: Array  # (2, K, p) at the last step but one, and at the last; those beyond the followed are 0
    followed: Array  # () how many are: one more than are above 1.5/η, and K grows with it; all of K where the Hessian is formed
    members: Array  # () how many were above 1.95/η
    covariance: Array  # (K, K) X in the basis of the last eigenvectors
    guard: Array  # (p,) the next eigenvector, so far as it is known
    descent: Array  # (p,) gradient descent's θ a step ago; NaN before
    behind: Array  # (p,) what the smoothed iterate a step ago differs from w there by, less a quarter of the next iterate; NaN before


class OnCentralFlow(NamedTuple):
    """What is measured at w."""

    loss: Array
    grad: Array  # (p,) in the number format of the curvature
    values: Array  # (K,) eigenvalues, −∞ beyond the followed
    vectors: Array  # (K, p) orthonormal, in w's format, 0 beyond the followed
    guard: Array  # (p,)
    hvps: Any


class Motion(NamedTuple):
    """Where substeps have come to."""

    theta: Array  # (p,)
    grad: Array  # (p,) there
    hessian: Array  # (K, K) UᵀHU there
    members: Array  # ()
    covariance: Array  # (K, K) X of the last substep
    trace: Array  # () tr X, added up over substeps,
    pull: Array  # () and <H, Σ>
    costs: Costs


def begin(at: Beginning, tracking: CoupledTracking) -> CentralState:
    """The flow at its start, with room for two eigenvectors, or for all that a run may have where that costs nothing."""
    from_descent = tracking.flow_start == "descent"
    theta, u = (at.theta, at.eigenvector) if from_descent else (at.center.theta, at.center_eigenvector)
    room = min(tracking.eigenvalue_columns, theta.size) if forms_hessian(theta) else 2
    vectors = jnp.zeros((room, theta.size), u.dtype).at[:2].set(jnp.stack([u, at.center.eigen.vectors[1].astype(u.dtype)])[:room])
    count, nothing = jnp.asarray(np.array(room)), jnp.full_like(theta, jnp.nan)
    return CentralState(
        theta, jnp.stack([vectors] * 2), count, jnp.asarray(np.array(1)), jnp.zeros((room, room)), at.guards.vectors[0], nothing, nothing
    )


def measure(at: StepContext, state: CentralState) -> OnCentralFlow:
    """Loss, gradient and eigenpairs at w."""
    theta, expected = _expected(state, at.dtype)
    loss, grad = loss_and_gradient(at.problem, theta)
    if forms_hessian(theta):
        pairs, images = solve_at(at.problem, theta, expected, LOOSE_TOLERANCE, at.dtype)
        return _seen(state, loss, grad, pairs, images, False)
    rows, looked, tight = _looked_at(state, expected, at.known, at.around)
    pairs, images = solve_at(
        at.problem, theta, rows, LOOSE_TOLERANCE, at.dtype, wanted=state.followed, looked=looked, tight=tight
    )
    return _seen(state, loss, grad, pairs, images, at.around)


def step(at: StepContext, state: CentralState, here: OnCentralFlow) -> tuple[CentralState, Row, Costs]:
    """The substeps of one step on, and the row here."""
    motion = _begun(state, here, at.learning_rate)

    def onward(_: Any, motion: Motion) -> Motion:
        return _moved(at, here.vectors, _measured(at, here.vectors, motion))

    if at.traced and forms_hessian(state.theta):  # what is known is measured once more, which costs nothing there: one loop of all substeps
        motion = lax.fori_loop(0, at.central_substeps, onward, motion)
    else:
        motion = _moved(at, here.vectors, motion)
        if at.traced:
            motion = lax.fori_loop(1, at.central_substeps, onward, motion)
        else:
            for substep in range(1, at.central_substeps):
                motion = onward(substep, motion)
    return _finished(state, here, motion, at.center.theta, at.descent, at.learning_rate, at.central_substeps, at.most_followed)


def audit(problem: Problem, state: CentralState, rows: Any, dtype: str) -> tuple[CentralState, Array]:
    """What random rows show that the flow does not follow becomes its guard."""
    pairs = sharpness_at(problem, state.theta, rows(2), LOOSE_TOLERANCE, dtype)
    return state._replace(guard=guards.unseen(state.eigenvectors[1], (Guards(pairs.vectors, pairs.values),))[0]), pairs.hvps


def lacks_room(state: CentralState) -> Array:
    """Whether more eigenvectors are to be followed than there is room for."""
    return state.followed > state.eigenvectors.shape[1]


def with_room(state: CentralState) -> CentralState:
    """With twice the room where more are to be followed than there is room for."""
    room, followed = state.eigenvectors.shape[1], int(state.followed)
    if followed <= room:
        return state
    more = max(followed, 2 * room) - room
    vectors = jnp.pad(state.eigenvectors, ((0, 0), (0, more), (0, 0)))
    vectors = vectors.at[:, followed - 1].set(state.guard.astype(vectors.dtype))
    return state._replace(eigenvectors=vectors, covariance=jnp.pad(state.covariance, (0, more)))


@partial(jax.jit, static_argnames="dtype")
def _expected(state: CentralState, dtype: str) -> tuple[Array, Array]:
    """w (p,), and where its eigenvectors are expected, (K, p), in a number format: those of members, whose noise is small, go on as from
    the step before to the last, in the basis of that which is nearest."""
    before, last = state.eigenvectors
    turn = aligned(before, last, state.members).astype(last.dtype)
    goes_on = (jnp.arange(len(last)) < state.members)[:, None]
    return state.theta.astype(dtype), jnp.where(goes_on, 2 * last - turn @ jnp.where(goes_on, before, 0), last).astype(dtype)


@jax.jit
def _looked_at(state: CentralState, expected: Array, known: Known, around: bool | Array) -> tuple[Array, Array, Array]:
    """What the solver starts from, in as many rows as a look has: the expected eigenvectors, then what θ† knows beside them and the guard;
    how many of the rows are looked at, the last two if it looks around; and how many pairs are members, one at the least."""
    rows = jnp.concatenate([expected, jnp.zeros((LOOK, expected.shape[1]), expected.dtype)])
    best, _ = guards.unseen(state.eigenvectors[1].astype(expected.dtype), known)
    rows = rows.at[state.followed].set(best.astype(rows.dtype)).at[state.followed + 1].set(state.guard.astype(rows.dtype))
    return rows, state.followed + jnp.where(around, 2, 0), jnp.maximum(1, state.members)


@jax.jit
def _seen(state: CentralState, loss: Array, grad: Array, pairs: Eigenpairs, images: Array, around: bool | Array) -> OnCentralFlow:
    """Eigenpairs with vectors one step of power iteration on, made orthonormal all at once; after a look the next one as a guard."""
    room = state.eigenvectors.shape[1]
    there = jnp.arange(room) < state.followed
    better = power_step(pairs, images)
    vectors = jnp.where(there[:, None], better[:room].astype(state.theta.dtype), 0)
    gram = jnp.where(jnp.outer(there, there), vectors @ vectors.T, jnp.eye(room))
    squares, axes = small_matrices.eigh(gram)
    vectors = ((axes / jnp.sqrt(squares)) @ axes.T).astype(vectors.dtype) @ vectors
    guard = jnp.where(around, better[state.followed], state.guard.astype(better.dtype))
    values = jnp.where(there, pairs.values[:room].astype(state.theta.dtype), -jnp.inf)
    return OnCentralFlow(loss, grad, values, vectors, guard.astype(state.guard.dtype), pairs.hvps)


@jax.jit
def _begun(state: CentralState, here: OnCentralFlow, learning_rate: float) -> Motion:
    """Before the first substep, with X of the last step in today's basis to begin with."""
    turn = here.vectors @ state.eigenvectors[1].astype(here.vectors.dtype).T
    zero = jnp.zeros((), int)
    return Motion(
        state.theta, here.grad.astype(state.theta.dtype), jnp.diag(jnp.where(jnp.isfinite(here.values), here.values, 0)),
        jnp.sum(here.values * learning_rate > MEMBER_FROM), turn @ state.covariance @ turn.T, jnp.zeros(()), jnp.zeros(()),
        Costs(zero, zero, zero),
    )


def _measured(at: StepContext, vectors: Array, motion: Motion) -> Motion:
    """Between substeps: gradient and UᵀHU where the last one has led."""
    theta = motion.theta.astype(at.dtype)
    grad = loss_and_gradient(at.problem, theta)[1]
    images = _images(at.problem, theta, vectors.astype(at.dtype), motion.members)
    return _remeasured(motion, vectors, grad, images, at.learning_rate)


@jit_by_format
def _images(problem: Problem, theta: Array, vectors: Array, count: Array) -> Array:
    """What the Hessian makes of the first `count` of vectors (K, p), (K, p); 0 of the others."""
    product = problem.product_at(theta)
    return lax.fori_loop(0, count, lambda k, rows: rows.at[k].set(product(vectors[k])), jnp.zeros_like(vectors))


@jax.jit
def _remeasured(motion: Motion, vectors: Array, grad: Array, images: Array, learning_rate: float) -> Motion:
    hessian = vectors @ images.astype(vectors.dtype).T
    stay = jnp.cumprod(jnp.diag(hessian) * learning_rate > MEMBER_FROM)
    return motion._replace(
        grad=grad.astype(motion.grad.dtype), hessian=(hessian + hessian.T) / 2, members=jnp.minimum(motion.members, jnp.sum(stay)),
        costs=motion.costs.plus(motion.members, 1),
    )


def _moved(at: StepContext, vectors: Array, motion: Motion) -> Motion:
    """A substep on."""
    third, _ = contractions(at.problem, motion.theta, vectors, vectors[:0], motion.members, at.dtype)
    return _pushed(motion, third, at.learning_rate, at.central_substeps)


@jax.jit
def _pushed(motion: Motion, third: Array, learning_rate: float, substeps: int) -> Motion:
    """A substep on, by D_ij (m, p); w is NaN from where no covariance is found."""
    time, size = learning_rate / substeps, len(motion.hessian)
    linear = theory.threshold(learning_rate) * jnp.eye(size) - motion.hessian + time * unpacked(third @ motion.grad)
    X = complementarity.solved(linear, time / 2 * third @ third.T, motion.members, motion.covariance)
    push = weighed(X).astype(third.dtype) @ third
    pairs = motion.members * (motion.members + 1) // 2
    return motion._replace(
        theta=motion.theta - time * (motion.grad + push / 2), covariance=X, trace=motion.trace + jnp.trace(X),
        pull=motion.pull + jnp.sum(motion.hessian * X), costs=motion.costs.plus(grad_sharpness=pairs),
    )


@jax.jit
def _finished(
    state: CentralState, here: OnCentralFlow, motion: Motion, center: Array, descent: Array, learning_rate: float, substeps: int, most: int
) -> tuple[CentralState, Row, Costs]:
    """The state after the step, the row where it began, and what both took: Σ is the mean over the substeps."""
    room = len(here.vectors)
    above = jnp.sum(here.values * learning_rate > FOLLOWED_FROM)
    followed = jnp.asarray(room) if forms_hessian(state.theta) else jnp.clip(above + 1, 2, jnp.maximum(2, most))
    newest = here.vectors.astype(state.eigenvectors.dtype)
    joins = (jnp.arange(room) >= state.followed) & (jnp.arange(room) < followed)
    newest = jnp.where(joins[:, None], here.guard.astype(newest.dtype), newest)
    following = CentralState(
        motion.theta, push(state.eigenvectors, newest), followed, jnp.sum(here.values * learning_rate > MEMBER_FROM), motion.covariance,
        here.guard, descent, (state.descent + 2 * descent) / 4 - state.theta,
    )
    distance, smoothed = norms(state.theta - center, state.behind + descent / 4)
    second = jnp.where(jnp.isfinite(here.values), here.values, jnp.nan)[min(1, room - 1)]
    row = {
        "central.loss": here.loss, "central.predicted_loss": here.loss + motion.pull / substeps / 2, "central.sharpness": here.values[0],
        "central.lambda2": second, "central.trace": motion.trace / substeps, "central.distance": distance,
        "central.distance_smoothed": smoothed,
    }
    return following, row, motion.costs.plus(here.hvps, 1)


CENTRAL = Trajectory(CentralState, begin, measure, step, audit, reads_descent=True, lacks_room=lacks_room, with_room=with_room)
