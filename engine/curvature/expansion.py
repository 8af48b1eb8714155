"""The loss expanded about a point: what is measured there, the normals of the stable set, and α, β and ∇S⊥ at θ†."""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature.eigensolver import Eigenpairs, solve_at
from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format
from engine.xla.leaves import Earlier, Leaves
from engine.xla.reductions import dots, norms


class Point(NamedTuple):
    """What is measured at one θ: loss and gradient in θ's number format, curvature in its own."""

    theta: Array  # (p,)
    loss: Array
    grad: Array  # (p,)
    eigen: Eigenpairs


def measure(problem: Problem, theta: Array, start: Array, tolerance: float, curvature_dtype: str) -> Point:
    """Loss and gradient at θ, and the top eigenpairs from `start` (k, p) with products in `curvature_dtype`."""
    return measure_all(problem, theta, start, tolerance, curvature_dtype)[0]


def measure_all(
    problem: Problem, theta: Array, start: Array, tolerance: float, curvature_dtype: str, tight: int | Array = 1, at: Array | None = None,
    count: int | None = None,
) -> tuple[Point, Array]:
    """`measure`, and what the Hessian makes of the eigenvectors, (k, p); the first `tight` of them within the tolerance. `at` is θ in
    `curvature_dtype`, where it is at hand. A start with room after its `count` rows is none any more (`eigensolver.solve_at`).

    Two compiled functions rather than one: the solver is then compiled once for the approach and the edge.
    """
    pairs, images = solve_at(problem, theta if at is None else at, start, tolerance, curvature_dtype, tight=tight, count=count)
    loss, grad = loss_and_gradient(problem, theta)  # after the solver, which of many parameters takes the most memory
    return Point(theta, loss, grad, pairs), images


@jit_by_format
def loss_and_gradient(problem: Problem, theta: Array) -> tuple[Array, Array]:
    """L(θ) and ∇L(θ), in θ's number format."""
    return jax.value_and_grad(problem.loss)(theta)


@partial(jit_by_format, forward=True)
def loss_along(problem: Problem, theta: Array, direction: Array) -> tuple[Array, Array, Array]:
    """L(θ), its slope ∇L(θ)·d and its curvature dᵀ∇²L(θ)d along a direction d (p,), in θ's number format.

    All forward: no vector of p numbers is made, and it costs as much as a gradient.
    """
    d = (direction.astype(theta.dtype),)

    def with_slope(theta: Array) -> tuple[Array, Array]:
        return jax.jvp(problem.loss, (theta,), d)

    (loss, slope), (_, curvature) = jax.jvp(with_slope, (theta,), d)
    return loss, slope, curvature


def grad_sharpness(problem: Problem, theta: Array, u: Array, curvature_dtype: str) -> Array:
    """∇S = ∇³L(u,u) at θ, in θ's number format, computed in `curvature_dtype`; compiled once for every format of u."""
    return _grad_sharpness(problem, theta, u.astype(curvature_dtype), curvature_dtype)


@partial(jit_by_format, place=2, static_argnames=("curvature_dtype",))
def _grad_sharpness(problem: Problem, theta: Array, u: Array, curvature_dtype: str) -> Array:
    return problem.grad_sharpness(theta.astype(curvature_dtype), u).astype(theta.dtype)


def narrower(one: Any, other: Any) -> np.dtype:
    """The narrower of two number formats."""
    return min(np.dtype(one), np.dtype(other), key=lambda format: format.itemsize)


class Normals(NamedTuple):
    """The normals of the stable set M at a point, (p,) each: ∇S of S ≤ 2/η, and ∇(u·∇L) = Su + `tilt` of u·∇L = 0."""

    vectors: Array  # (k, p) eigenvectors,
    length: Array  # () and that of the first, whose sign is that of u and the tilt: it is in their number format alone
    dS: Array  # ∇S = ∇³L(u,u), in the number format of the curvature: it is computed in no other
    tilt: Array  # ∇³L(u, (S − H)⁺∇L), in the same: u turns with θ, and takes ∇L with it

    @property
    def u(self) -> Array:
        """The top eigenvector of unit length in the number format of θ."""
        return unit(self.vectors, self.length)


def unit(vectors: Array, length: Array) -> Array:
    """u (p,) of eigenvectors (k, p) in their own number format and the signed length () of the first in θ's: not kept, since whatever reads
    it makes it while it reads. Not divided by the length, since what is divided XLA would write down."""
    return vectors[0].astype(length.dtype) * (1 / length)


DEGENERATE = 0.05
"""Least gap S − λ_j, in units of S, that the tilt counts with: where two eigenvalues meet u turns without bound, and M has no normal."""


def normals(problem: Problem, point: Point, curvature_dtype: str) -> Normals:
    """The normals of M at a measured point, contracted in `curvature_dtype`. Two contractions of ∇³L, which share half of their work.

    (S − H)⁺ is exact on the eigenvectors at hand and 1/S on the rest, whose eigenvalues are small against S.
    """
    return Normals(point.eigen.vectors, *_normals(problem, point, point.eigen.vectors, curvature_dtype))


def _arguments(point: Point) -> tuple[Array, Array, Array]:
    """u of unit length and (S − H)⁺∇L, (p,) each, and the length of the eigenvector that is measured."""
    grad, sharpness = point.grad, point.eigen.sharpness.astype(point.theta.dtype)
    vectors, values = point.eigen.vectors.astype(grad.dtype), point.eigen.values.astype(grad.dtype)
    sizes = norms(*vectors)
    u, *others = (vector * (1 / size) for vector, size in zip(vectors, sizes, strict=True))
    along = dots(*((grad, vector) for vector in (u, *others)))
    gaps = jnp.maximum(sharpness - values, DEGENERATE * sharpness)
    w = (grad - along[0] * u) / sharpness
    for slope, vector, gap in zip(along[1:], others, gaps[1:], strict=True):
        w += slope * (1 / gap - 1 / sharpness) * vector
    return u, w, sizes[0]


@partial(jit_by_format, place=2, static_argnames=("curvature_dtype",))
def _normals(problem: Problem, point: Point, vectors: Array, curvature_dtype: str) -> tuple[Array, Array, Array]:
    """`normals` but for the vectors, compiled by the format of the `vectors`, which are the point's."""
    del vectors
    u, w, length = _arguments(point)
    at, along, across = (vector.astype(curvature_dtype) for vector in (point.theta, u, w))
    dS, tilt = problem.derivative(at, 3, along, along), problem.derivative(at, 3, along, across)  # they share the tangent along u
    return length, dS, tilt


def with_known_tilt(problem: Problem, point: Point, known: Normals, curvature_dtype: str) -> Normals:
    """`normals` with ∇S alone taken at the point, one contraction of ∇³L, and the tilt that is known from nearby."""
    return Normals(point.eigen.vectors, *_with_known_tilt(problem, point, point.eigen.vectors, known, curvature_dtype))


@partial(jit_by_format, place=2, static_argnames=("curvature_dtype",))
def _with_known_tilt(
    problem: Problem, point: Point, vectors: Array, known: Normals, curvature_dtype: str
) -> tuple[Array, Array, Array]:
    """`with_known_tilt` but for the vectors, compiled by the format of the `vectors`, which are the point's."""
    (length,) = norms(vectors[0].astype(point.theta.dtype))
    u = unit(vectors, length)
    sign = jnp.where(dots((u, known.u))[0] < 0, -1, 1).astype(known.tilt.dtype)
    dS = problem.grad_sharpness(point.theta.astype(curvature_dtype), u.astype(curvature_dtype))
    return length, dS, (sign * known.tilt).astype(curvature_dtype)


class Direction(NamedTuple):
    """The top eigenvector at a point, and ∇S split by it, in θ's number format."""

    u: Array  # (p,) of unit length in it, its sign that of the normals
    dS: Array  # (p,) ∇S
    skew: Array  # () ∇S·u
    along: Array  # () ∇L·u
    size: Array  # () of the measured eigenvector in units of u

    @property
    def dS_perp(self) -> Array:
        """∇S⊥ = ∇S − u(u·∇S), (p,)."""
        return self.dS - self.skew * self.u


def direction(point: Point, normals: Normals) -> Direction:
    """That of a measured point, with the normals there or nearby."""
    u = point.eigen.vectors[0].astype(point.theta.dtype)
    dS = normals.dS.astype(u.dtype)
    square, sign, skew, along = dots((u, u), (u, normals.u), (u, dS), (u, point.grad))
    size = jnp.where(sign < 0, -1, 1) * jnp.sqrt(square)
    u, skew = u * (1 / size), skew / size
    return Direction(u, dS, skew, along / size, size)


def in_format_of_eigenvectors(leaf: np.ndarray, leaves: Leaves) -> np.ndarray:
    """What earlier checkpoints have of an array of ∇³L: they had it in θ's number format."""
    return leaf.astype(leaves["eigen.vectors"].dtype)


def signed_length(leaves: Leaves) -> np.ndarray:
    """That of the first eigenvector in a checkpoint that has u too."""
    vector, u = leaves["eigen.vectors"][0].astype(leaves["top_eigenvector"].dtype), leaves["top_eigenvector"]
    return np.copysign(np.sqrt(vector @ vector), vector @ u)


class TaylorCenter(NamedTuple):
    """A point θ† of the constrained trajectory with the expansion of the loss about it, in θ's number format but for what is of ∇³L."""

    theta: Array  # (p,)
    loss: Array  # () L(θ†)
    grad: Array  # (p,) ∇L
    eigen: Eigenpairs  # the top two
    length: Annotated[Array, Earlier(signed_length)]  # () of the first eigenvector, with the sign that makes u of it
    grad_sharpness: Annotated[Array, Earlier(fitted=in_format_of_eigenvectors)]  # (p,) ∇S
    tilt: Annotated[Array, Earlier(lambda leaves: np.zeros_like(leaves["eigen.vectors"][0]), fitted=in_format_of_eigenvectors)]
    """(p,) ∇(u·∇L) − Su"""
    alpha: Array  # () −∇L·∇S
    beta: Array  # () ‖∇S⊥‖²
    skew: Array  # () ∇S·u
    grad_norm: Array  # () ‖∇L‖
    grad_along_u: Array  # () ∇L·u: 0 but for the tolerance

    @property
    def point(self) -> Point:
        """What was measured here, without the expansion."""
        return Point(self.theta, self.loss, self.grad, self.eigen)

    @property
    def normals(self) -> Normals:
        """The normals of M here."""
        return Normals(self.eigen.vectors, self.length, self.grad_sharpness, self.tilt)

    @property
    def small_format(self) -> np.dtype:
        """The number format of what is small beside θ: the narrower of θ's and the curvature's."""
        return narrower(self.theta.dtype, self.eigen.vectors.dtype)

    @property
    def sharpness(self) -> Array:
        return self.eigen.values[0]

    @property
    def top_eigenvector(self) -> Array:
        """u, (p,), its sign kept from step to step."""
        return unit(self.eigen.vectors, self.length)

    @property
    def grad_sharpness_perp(self) -> Array:
        """∇S⊥ = ∇S − u(u·∇S), (p,): not kept, since whatever reads it makes it while it reads."""
        return self.grad_sharpness.astype(self.theta.dtype) - self.skew * self.top_eigenvector

    @property
    def delta_squared(self) -> Array:
        """δ² = 2α/β; negative where progressive sharpening fails."""
        return 2 * self.alpha / self.beta

    def balance(self, learning_rate: float, threshold: float | Array, drift: Array | None = None) -> Array:
        """x² whose push −½x²∇S⊥ balances that of the constraint on the next step: δ² where θ† slides along S = 2/η, 0 where the
        constraint is slack, and less than δ² at the step that brings θ† there.

        max(0, S + ηα − 2/η) is how far S would go beyond 2/η, and the multiplier of the next projection is that over β. A step along
        another `drift` (p,) than ∇L has −drift·∇S in place of α, and how far it goes along it for η.
        """
        alpha = self.alpha if drift is None else -(drift @ self.grad_sharpness.astype(drift.dtype))
        excess = alpha + (self.sharpness.astype(self.theta.dtype) - threshold) / learning_rate
        return 2 * jnp.where(excess > 0, excess / self.beta, 0)


def taylor_center(point: Point, normals: Normals, previous_u: Array) -> TaylorCenter:
    """The expansion about a measured point, with the normals there; the sign of u is that of `previous_u` (p,)."""
    return TaylorCenter(*point, grad_sharpness=normals.dS, **expansion(point, normals, previous_u))


@jax.jit
def expansion(point: Point, normals: Normals, previous_u: Array) -> dict[str, Array]:
    """What `taylor_center` has beyond the point and ∇S, by its name there."""
    top, grad = direction(point, normals), point.grad
    before, slope, beta, square = dots((top.u, previous_u), (grad, normals.dS.astype(grad.dtype)), (top.dS_perp, top.dS_perp), (grad, grad))
    sign = jnp.where(before < 0, -1, 1)
    return {
        "length": sign * top.size, "tilt": (sign * normals.tilt).astype(point.eigen.vectors.dtype), "alpha": -slope, "beta": beta,
        "skew": sign * top.skew, "grad_norm": jnp.sqrt(square), "grad_along_u": sign * top.along,
    }
