"""The constrained trajectory θ†: projected gradient descent on the stable set M, which is S ≤ 2/η and u·∇L = 0 (Section 3).

Where we depart from the paper and from the authors' code: the projection is that on the nearest point, with S ≤ 2/η as the inequality it
is and the normal of u·∇L = 0 as θ and u move, where the authors' code moves along u alone and by no more than an excess of S. It reuses
the normals of the last centre (a chord step) and is repeated while a residual asks, not three times always.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from engine.curvature.expansion import Direction, Normals, Point, TaylorCenter
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
    pushes: Array  # whether S ≤ 2/η holds θ back there: its multiplier is positive


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
    top = Direction(center.top_eigenvector, center.skew, center.grad_sharpness_perp, center.grad_along_u, jnp.ones(()))
    return _landed(center.theta, top, center.tilt, center.sharpness, center.grad_norm, center.grad_along_u, target, threshold)


def _landed(
    theta: Array, top: Direction, tilt: Array, sharpness: Array, norm: Array, along: Array, target: Array,
    threshold: float | Array,
) -> Projection:
    (u, skew, dS_perp, _, _), S = top, sharpness.astype(theta.dtype)
    way, gap = target - theta, S - threshold
    far, way_u, way_tilt, way_dS, tilt_u, tilt_tilt, tilt_dS, beta = dots(
        (way, way), (way, u), (way, tilt), (way, dS_perp), (tilt, u), (tilt, tilt), (tilt, dS_perp), (dS_perp, dS_perp)
    )
    aa, bb = S**2 + 2 * S * tilt_u + tilt_tilt, beta + skew**2
    ab = skew * (S + tilt_u) + tilt_dS
    a_way, b_way = S * way_u + way_tilt, skew * way_u + way_dS
    A, B, determinant = a_way + along, b_way + gap, aa * bb - ab**2
    pushes = ~(aa * B - ab * A <= 0)  # NaN counts, and leads nowhere
    nu = jnp.where(pushes, (aa * B - ab * A) / determinant, 0)
    mu = (A - nu * ab) / aa
    landed = theta + way - (mu * S + nu * skew) * u - mu * tilt - nu * dS_perp
    within = jnp.where(determinant > 0, (a_way**2 * bb - 2 * a_way * b_way * ab + b_way**2 * aa) / determinant, a_way**2 / aa)
    unit, rises = 1 / threshold, b_way - mu * ab - nu * bb
    residuals = Residuals(
        jnp.abs(rises) * unit, jnp.abs(along) / jnp.where(norm == 0, 1, norm), jnp.sqrt(jnp.maximum(far - within, 0) * bb) * unit
    )
    return Projection(landed, residuals, pushes)


@jax.jit
def next_target(center: TaylorCenter, learning_rate: float) -> Array:
    """θ† − η∇L(θ†), the step of gradient descent whose projection is the next θ† (2)."""
    return center.theta - learning_rate * center.grad


def slide(point: Point, top: Direction, image: Array, dS: Array) -> tuple[Point, Array]:
    """The point moved along u to where ∇L·u = 0, and how far u turns over that way d: |d|‖∇S⊥‖/S.

    What is known there moves by Taylor's formula and costs nothing: with `image` = Hu = Su + r (p,), ∇L gains dHu + ½d²∇S,
    S gains d∇S·u, and the eigenpair leaves r + d∇S⊥ over. What is left out is of order d³, but u itself stays: only a short
    way is one.
    """
    dtype = point.theta.dtype
    (u, skew, dS_perp, along, size), sharpness = top, point.eigen.sharpness.astype(dtype)
    image = image.astype(dtype) / size
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
