"""The constrained trajectory θ†: projected gradient descent on the stable set M, which is S ≤ 2/η and u·∇L = 0 (Section 3).

With several directions U at the edge it is M_k: UHUᵀ ⪯ (2/η)I and U∇L = 0. The multiplier of the first is then a positive semidefinite
matrix Y, of a semidefinite complementarity problem (`complementarity`), and Y/η for the step θ† − η∇L is X†, the covariance of the
oscillation that holds θ† where it is, as in central flows (arXiv 2410.24206).

With momentum θ† is the projected step of the optimizer in the same way, with a momentum of its own (`remembered`), and 2/η its edge.

Where we depart from the paper and from the authors' code: the projection is that on the nearest point, with S ≤ 2/η as the inequality it
is and the normal of u·∇L = 0 as θ and u move, where the authors' code moves along u alone and by no more than an excess of S. It reuses
the normals of the last centre (a chord step) and is repeated while a residual asks, not three times always. The tilt of that of u·∇L = 0,
along which a step mostly has a part of 1e-5 or less, is taken at every fourth step (`projection`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from engine import theory
from engine.curvature.directions import Directions, weighed
from engine.curvature.expansion import Direction, Normals, Point, TaylorCenter
from engine.dynamics import complementarity
from engine.theory import RANK
from engine.xla import small_matrices
from engine.xla.packed import unpacked
from engine.xla.reductions import dots, norms


class Residuals(NamedTuple):
    """How far a point is from being the nearest of the stable set M to a target: all vanish there."""

    sharpness: Array  # of S·η/2: |S − 2/η|·η/2 where the constraint pushes, else what is left of a push that it no longer gives
    gradient: Array  # |∇L·u|/‖∇L‖
    sideways: Array  # what is left of the way to the target along neither normal, as the change of S·η/2 that as long a way along ∇S makes


class Projection(NamedTuple):
    """One step of the projection onto the stable set M, from a point that it is measured at."""

    theta: Array  # (p,) where it leads
    residuals: Residuals  # of the point
    active: Array  # () in how many directions S ≤ 2/η holds θ back there: the rank of its multiplier
    multiplier: Array  # (K, K) Y of several directions, in their basis; (0, 0) where one is followed
    tilted: Array | float = 0.0  # () of the way there what is along the tilt, told as `Residuals.sideways` is; 0 with several directions


def project(point: Point, top: Direction, normals: Normals, target: Array, threshold: float | Array) -> Projection:
    """A step from a measured point θ towards the point of M nearest to `target` (p,): sequential quadratic programming. `threshold` is 2/η.

    M is S ≤ 2/η and u·∇L = 0 (Section 3). Both are linearised at θ, with the normals b = ∇S and a = Su + tilt: of the steps d with
    a·d = −u·∇L and b·d ≤ 2/η − S the one that leads nearest to the target is target − θ − μa − νb. The multiplier ν ≥ 0 is that of the
    whole way from the target. So S is brought to 2/η from below too while the constraint pushes, and where ν = 0 it is slack: a target
    in M is its own projection.
    """
    square, along = dots((point.grad, point.grad), (point.grad, top.u))
    return _landed(point.theta, top, normals.tilt, point.eigen.sharpness, jnp.sqrt(square), along, target, threshold)


def project_center(center: TaylorCenter, target: Array, threshold: float | Array) -> Projection:
    """`project` from where the loss is expanded about: what it needs is known there.

    For the target θ† − η∇L of the next step it is Lemma 13, θ†_{t+1} ≈ θ† − ηP^⊥_{u,∇S}∇L up to O(ε²), while the constraint pushes.
    """
    top = Direction(
        center.top_eigenvector, center.grad_sharpness.astype(center.theta.dtype), center.skew, center.grad_along_u, jnp.ones(())
    )
    return _landed(center.theta, top, center.tilt, center.sharpness, center.grad_norm, center.grad_along_u, target, threshold)


def _landed(
    theta: Array, top: Direction, tilt: Array, sharpness: Array, norm: Array, along: Array, target: Array,
    threshold: float | Array,
) -> Projection:
    (u, dS, skew, _, _), S, tilt = top, sharpness.astype(theta.dtype), tilt.astype(theta.dtype)
    way, gap = target - theta, S - threshold
    far, way_u, way_tilt, b_way, tilt_u, tilt_tilt, tilt_dS, bb = dots(
        (way, way), (way, u), (way, tilt), (way, dS), (tilt, u), (tilt, tilt), (tilt, dS), (dS, dS)
    )
    aa, ab, a_way = S**2 + 2 * S * tilt_u + tilt_tilt, S * skew + tilt_dS, S * way_u + way_tilt
    A, B, determinant = a_way + along, b_way + gap, aa * bb - ab**2
    pushes = ~(aa * B - ab * A <= 0)  # NaN counts, and leads nowhere
    nu = jnp.where(pushes, (aa * B - ab * A) / determinant, 0)
    mu = (A - nu * ab) / aa
    landed = theta + way - mu * S * u - mu * tilt - nu * dS
    within = jnp.where(determinant > 0, (a_way**2 * bb - 2 * a_way * b_way * ab + b_way**2 * aa) / determinant, a_way**2 / aa)
    unit, rises = 1 / threshold, b_way - mu * ab - nu * bb
    residuals = Residuals(
        jnp.abs(rises) * unit, jnp.abs(along) / jnp.where(norm == 0, 1, norm), jnp.sqrt(jnp.maximum(far - within, 0) * bb) * unit
    )
    tilted = jnp.abs(mu) * jnp.sqrt(tilt_tilt * bb) * unit
    return Projection(landed, residuals, pushes.astype(int), jnp.zeros((0, 0), landed.dtype), tilted)


def rank(matrix: Array) -> Array:
    """How many eigenvalues of a positive semidefinite matrix (K, K) are positive, ()."""
    values = small_matrices.eigvalsh(matrix)
    return jnp.sum(values > RANK * jnp.maximum(jnp.trace(matrix), 0))


@partial(jax.jit, static_argnames=("solved",))
def project_along(
    theta: Array, grad: Array, directions: Directions, target: Array, threshold: float | Array, start: Array, solved: bool = True
) -> Projection:
    """`project` with several directions at the edge, from a θ (p,) where the gradient and the directions are known. `start` (K, K) is a
    multiplier to begin with, or the one to go by where the problem is not to be `solved`.

    Of the steps d with a_i·d = −u_i·∇L, a_i = Hu_i + tilt_i, and UHUᵀ + (D_ij·d)_ij ⪯ 2/η the one that leads nearest to the target is
    P(w − ½D[Y]) less what a_i·d asks for, with w the way there, P the projection across all a_i, and
    0 ⪯ Y ⊥ 2/η − UHUᵀ − (D_ij·d)_ij ⪰ 0. Y/2 is the multiplier, so that Y/η is a covariance.
    """
    there, size = directions.there, len(directions.basis)
    block, absent = jnp.outer(there, there), jnp.diag(jnp.where(there, 0.0, 1.0).astype(theta.dtype))
    images = directions.hessian @ directions.basis + directions.tilts
    rows = jnp.concatenate([images, directions.third, (target - theta)[None]])
    products = rows @ rows.T
    normal = jnp.where(block, products[:size, :size], absent)  # a_i·a_j
    others, slope = products[size:, :size], directions.basis @ grad  # D_ij·a_k and w·a_k, and u_k·∇L
    across = products[size:, size:] - others @ small_matrices.solve(normal, others.T)
    asked = others @ small_matrices.solve(normal, slope)  # of what a_i·d asks for, along D_ij and w
    rises = unpacked(across[-1, :-1] - asked[:-1])
    slack = threshold * jnp.eye(size, dtype=theta.dtype) - directions.hessian
    multiplier = start
    if solved:
        multiplier = complementarity.solved(slack - rises, across[:-1, :-1] / 2, directions.number, start).astype(theta.dtype)
    weights = weighed(multiplier)
    mix = small_matrices.solve(normal, slope + others[-1] - others[:-1].T @ weights / 2)
    step = rows[-1] - weights @ directions.third / 2 - mix @ images
    moved = rises - unpacked(across[:-1, :-1] @ weights) / 2  # of UHUᵀ, by the step
    gradient, bend = jnp.sqrt(grad @ grad), jnp.sqrt(jnp.max(jnp.diag(across)[:-1]))
    length = jnp.sqrt(jnp.maximum(across[-1, -1] - across[-1, :-1] @ weights + weights @ across[:-1, :-1] @ weights / 4, 0))
    residuals = Residuals(
        jnp.linalg.norm(moved) / threshold, jnp.sqrt(slope @ slope) / jnp.where(gradient == 0, 1, gradient), length * bend / threshold
    )
    return Projection(theta + step, residuals, rank(multiplier), multiplier)


@jax.jit
def covariance(directions: Directions, grad: Array, learning_rate: float, threshold: float | Array, start: Array) -> Array:
    """X†, (K, K) in the basis of the directions: the covariance whose push −½D⊥[X†] balances that of the constraints on the next step;
    `TaylorCenter.balance` for one direction. `start` (K, K) is one to begin with.

    0 ⪯ X† ⊥ (2/η − UHUᵀ)/η − α + ½B⊥[X†] ⪰ 0, with α_ij = −∇L·D_ij and B⊥ of products D⊥_ij·D⊥_kl. For a step along another drift than
    ∇L that is `grad`, and η how far it goes along it.
    """
    across = directions.across
    slack = threshold * jnp.eye(len(directions.basis), dtype=grad.dtype) - directions.hessian
    linear = slack / learning_rate + unpacked(directions.third @ grad)
    return complementarity.solved(linear, across @ across.T / 2, directions.number, start).astype(grad.dtype)


@jax.jit
def next_target(center: TaylorCenter, learning_rate: float, drift: Array | None = None) -> Array:
    """θ† − η∇L(θ†), the step of gradient descent whose projection is the next θ† (2); or a step along another drift (p,)."""
    return center.theta - learning_rate * (center.grad if drift is None else drift)


@jax.jit
def remembered(center: TaylorCenter, momentum: Array, memory: theory.Memory, learning_rate: float, landed: Array) -> Array:
    """m† (p,) after the step of θ† to where the projection has `landed` (p,).

    θ† takes the optimizer's own step with a momentum m† of its own, and the projection of where that leads is as a force f in place of a
    gradient: m† ← βm† + ∇L(θ†) + f, with which θ† − η(own·(∇L + f) + carried·m†) is where it has landed.
    """
    length = memory.gain(learning_rate)
    force = (next_target(center, length, center.grad + memory.recalled * momentum) - landed) / length
    return memory.beta * momentum + center.grad + force


def slide(point: Point, top: Direction, image: Array) -> tuple[Point, Array]:
    """The point moved along u to where ∇L·u = 0, and how far u turns over that way d: |d|‖∇S⊥‖/S.

    What is known there moves by Taylor's formula and costs nothing: with `image` = Hu = Su + r (p,), ∇L gains dHu + ½d²∇S,
    S gains d∇S·u, and the eigenpair leaves r + d∇S⊥ over. What is left out is of order d³, but u itself stays: only a short
    way is one.
    """
    dtype = point.theta.dtype
    (u, dS, skew, along, size), sharpness, dS_perp = top, point.eigen.sharpness.astype(dtype), top.dS_perp
    image = image.astype(dtype) * (1 / size)
    d = -along / sharpness
    d = -(along + d**2 / 2 * skew) / sharpness
    eigen = point.eigen
    values = eigen.values.at[0].add((d * skew).astype(eigen.values.dtype))
    left, turning = (length / jnp.abs(sharpness) for length in norms(image - sharpness * u + d * dS_perp, dS_perp))
    moved = Point(
        point.theta + d * u, point.loss + along * d + sharpness * d**2 / 2 + skew * d**3 / 6,
        point.grad + d * image + d**2 / 2 * dS,
        eigen._replace(values=values, residuals=eigen.residuals.at[0].set(left.astype(eigen.residuals.dtype))),
    )
    return moved, jnp.abs(d) * turning


class SlidAlong(NamedTuple):
    """A point moved along several directions to where U∇L = 0."""

    point: Point
    directions: Directions
    angle: Array  # () how far U turns over the way


def slide_along(point: Point, directions: Directions, images: Array) -> SlidAlong:
    """`slide` along several directions, with `images` Hu_i (K, p): by d along U, ∇L gains dH + ½D[ddᵀ] and UHUᵀ gains (D_ij·Uᵀd)_ij.

    The basis stays, and the eigenvectors turn within it.
    """
    there, size, grad = directions.there, len(directions.basis), point.grad
    basis, hessian = directions.basis, directions.hessian
    inverse = jnp.where(jnp.outer(there, there), hessian, jnp.eye(size, dtype=grad.dtype))
    slope = basis @ grad
    first = -small_matrices.solve(inverse, slope)
    bent = directions.bent(first) @ basis.T  # (K, K) what UHUᵀ gains
    d = -small_matrices.solve(inverse, slope + bent @ first / 2)
    turn = directions.bent(d)
    gained = turn @ basis.T
    moved = directions._replace(hessian=hessian + (gained + gained.T) / 2)
    values, axes = moved.values, moved.axes
    vectors, lefts = axes @ basis, axes @ (images + turn)
    residuals = jnp.linalg.norm(lefts - jnp.where(there, values, 0)[:, None] * vectors, axis=1) / jnp.abs(values[0])
    angle = jnp.linalg.norm(turn - gained @ basis) / jnp.min(jnp.where(there, values, jnp.inf))

    def merged(new: Array, old: Array) -> Array:
        chosen = there if old.ndim == 1 else there[:, None]
        return old.at[:size].set(jnp.where(chosen, new.astype(old.dtype), old[:size]))

    eigen = point.eigen
    pairs = eigen._replace(
        values=merged(values, eigen.values), vectors=merged(vectors, eigen.vectors), residuals=merged(residuals, eigen.residuals)
    )
    loss = point.loss + slope @ d + d @ hessian @ d / 2 + d @ gained @ d / 6
    return SlidAlong(Point(point.theta + d @ basis, loss, grad + d @ images + d @ turn / 2, pairs), moved, angle)
