"""The directions at the edge: the eigenvectors of several eigenvalues near 2/η in one orthonormal basis, and how the loss bends along them.

Eigenvalues that θ† holds at 2/η are equal, and their eigenvectors are any of one space. So it is the space that is followed: a basis U of
it turns from step to step as little as it can, by the polar factor of U_{t+1}U_tᵀ, and no vector is ever matched with another. What is
written in this basis, the coordinates x of an oscillation and matrices of k × k, is then carried along unchanged.

Arrays have room for K directions, of which the first k are there: one compiled step serves as many as come, up to K.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature.eigensolver import Eigenpairs
from engine.curvature.expansion import DEGENERATE, Normals, Point
from engine.problems.problem import Problem
from engine.theory import pairs
from engine.xla import small_matrices
from engine.xla.jit import jit_by_format
from engine.xla.packed import packed, unpacked


class Directions(NamedTuple):
    """The directions at the edge at a point, and the normals of the stable set along them, in θ's number format."""

    basis: Array  # (K, p) U, orthonormal rows, zero beyond the first k
    number: Array  # () k
    hessian: Array  # (K, K) UHUᵀ
    third: Array  # (m, p) D_ij = ∇³L(u_i,u_j), i ≤ j, in the order of `packed`
    tilts: Array  # (K, p) ∇(u_i·∇L) − Hu_i: u_i turns with θ, and takes ∇L with it

    @property
    def there(self) -> Array:
        """Which of the K are there, (K,)."""
        return jnp.arange(len(self.basis)) < self.number

    @property
    def values(self) -> Array:
        """The eigenvalues of the directions, (K,), descending, −∞ beyond the first k."""
        return _descending(self)[0]

    @property
    def axes(self) -> Array:
        """The eigenvectors in coordinates of the basis, (K, K), as rows, in the order of `values`."""
        return _descending(self)[1]

    @property
    def skews(self) -> Array:
        """D_ij·u_k, (m, K)."""
        return self.third @ self.basis.T

    @property
    def across(self) -> Array:
        """D⊥_ij, (m, p): what of D_ij lies across all directions."""
        return self.third - self.skews @ self.basis

    def bent(self, x: Array) -> Array:
        """Σ_j x_j D_ij, (K, p): what Hu_i gains where θ moves by x (K,) along the directions."""
        return jnp.einsum("ijp,j->ip", unpacked(self.third), x)

    def weighed(self, matrix: Array) -> Array:
        """D[X] = Σ_ij X_ij D_ij, (p,), of a symmetric matrix (K, K)."""
        return weighed(matrix) @ self.third


def none(theta: Array) -> Directions:
    """No room for any: one direction alone is followed, by its own formulas."""
    size, dtype = theta.size, theta.dtype
    empty, square = (jnp.asarray(np.zeros(shape, dtype)) for shape in ((0, size), (0, 0)))  # of numpy: it compiles nothing
    return Directions(empty, jnp.asarray(np.array(0)), square, empty, empty)


@partial(jax.jit, static_argnames="room")
def around(basis: Array, room: int) -> Directions:
    """Directions of which nothing is known but the basis (k, p) that theirs is to be nearest to, with `room` for K."""
    (number, size), dtype = basis.shape, basis.dtype
    empty = jnp.zeros((room, size), dtype)
    third = jnp.zeros((room * (room + 1) // 2, size), dtype)
    return Directions(empty.at[:number].set(basis), jnp.asarray(np.array(number)), jnp.zeros((room, room), dtype), third, empty)


def contractions_along(number: Any) -> Any:
    """Contractions of ∇³L that the normals along so many directions take: k(k+1)/2 pairs, and a tilt for each. Numbers or arrays."""
    return number * (number + 3) // 2


def weighed(matrix: Array) -> Array:
    """The entries of a symmetric matrix as weights of D_ij in D[X] = Σ_ij X_ij D_ij, (m,)."""
    rows, columns = pairs(len(matrix))
    return packed(matrix) * jnp.where(rows == columns, 1, 2)


def _descending(directions: Directions) -> tuple[Array, Array]:
    there, hessian = directions.there, directions.hessian
    below = -1 - 2 * jnp.sum(jnp.abs(hessian))
    values, vectors = small_matrices.eigh(jnp.where(jnp.outer(there, there), hessian, jnp.diag(jnp.where(there, 0, below))))
    return jnp.where(there, values[::-1], -jnp.inf), jnp.where(jnp.outer(there, there), vectors.T[::-1], 0)


def aligned(vectors: Array, reference: Array, count: int | Array) -> Array:
    """The rotation W (K, K) for which the rows of W·`vectors` (K, p) are nearest to those of `reference` (K, p), the first `count` of
    each: the polar factor of reference·vectorsᵀ."""
    there = jnp.arange(len(vectors)) < count
    overlap = jnp.where(jnp.outer(there, there), reference @ vectors.T, jnp.eye(len(vectors), dtype=vectors.dtype))
    return small_matrices.polar_factor(overlap)


@jax.jit
def turned(eigen: Eigenpairs, images: Array, known: Directions) -> tuple[Directions, Array]:
    """The directions at a point of these eigenpairs (K + 1 of them, with their images under the Hessian, (K + 1, p)), in the basis that is
    nearest to the `known` one and with what is known of the third derivative; and Hu_i (K, p)."""
    dtype, size = known.basis.dtype, len(known.basis)
    there = known.there[:, None]
    vectors, along = (jnp.where(there, rows[:size].astype(dtype), 0) for rows in (eigen.vectors, images))
    turn = aligned(vectors, known.basis, known.number)
    basis, images = turn @ vectors, turn @ along
    hessian = basis @ images.T
    return known._replace(basis=basis, hessian=(hessian + hessian.T) / 2), images


def normals_along(problem: Problem, point: Point, directions: Directions, curvature_dtype: str) -> Directions:
    """The directions at a measured point with their normals there, computed in `curvature_dtype`: k(k+1)/2 + k contractions of ∇³L.

    (λ_i − H)⁺ is exact on the eigenvectors at hand and 1/λ_i on the rest, whose eigenvalues are small against λ_i.
    """
    vectors, others, turn = _arguments(point, directions)
    third, tilts = contractions(problem, point.theta, vectors, others, directions.number, curvature_dtype)
    return _rotated(directions, turn, third, tilts)


@jax.jit
def _arguments(point: Point, directions: Directions) -> tuple[Array, Array, Array]:
    """The eigenvectors that are directions, (K, p), (λ_i − H)⁺∇L for each, (K, p), and the rotation of the first into the basis."""
    there, axes, grad, dtype = directions.there[:, None], directions.axes, point.grad, directions.basis.dtype
    members, values = axes @ directions.basis, jnp.where(directions.there, directions.values, 1)[:, None]
    others, other_values = point.eigen.vectors.astype(dtype), point.eigen.values.astype(dtype)
    outside = jnp.arange(len(others)) >= directions.number
    along = jnp.where(outside, others @ grad, 0)
    gaps = jnp.maximum(values - other_values, DEGENERATE * values)
    rest = grad - along @ others - (members @ grad) @ members
    return members, jnp.where(there, rest / values + (along / gaps) @ others, 0), axes.T


def contractions(
    problem: Problem, theta: Array, vectors: Array, others: Array, count: Array, curvature_dtype: str
) -> tuple[Array, Array]:
    """∇³L(v_i,v_j) for the pairs i ≤ j of the first `count` of `vectors` (K, p), (m, p) in the order of `packed`, and ∇³L(v_i,w_i) with the
    rows w of `others` (K, p), (K, p), in θ's number format, computed in `curvature_dtype`; zero beyond the first `count`. No
    `others`, (0, p), cost none."""
    return _contractions(problem, theta, vectors.astype(curvature_dtype), others.astype(curvature_dtype), count, curvature_dtype)


@partial(jit_by_format, place=2, static_argnames=("curvature_dtype",))
def _contractions(
    problem: Problem, theta: Array, vectors: Array, others: Array, count: Array, curvature_dtype: str
) -> tuple[Array, Array]:
    size, at = len(vectors), theta.astype(curvature_dtype)
    entries, pairs_alone = size * (size + 1) // 2, not len(others)

    def from_one(i: Array, rows: Array) -> Array:
        """All contractions with v_i, from one linearisation of θ ↦ ∇²L(θ)v_i."""
        contraction = jax.linearize(lambda theta: problem.hvp(theta, vectors[i]), at)[1]

        def with_another(j: Array, rows: Array) -> Array:
            if pairs_alone:
                return lax.dynamic_update_index_in_dim(rows, contraction(vectors[j]), j * (j + 1) // 2 + i, 0)
            last = j == count
            vector = jnp.where(last, others[i], vectors[jnp.minimum(j, size - 1)])
            return lax.dynamic_update_index_in_dim(rows, contraction(vector), jnp.where(last, entries + i, j * (j + 1) // 2 + i), 0)

        return lax.fori_loop(i, count + (not pairs_alone), with_another, rows)

    rows = lax.fori_loop(0, count, from_one, jnp.zeros((entries + len(others), at.size), at.dtype))
    return rows[:entries].astype(theta.dtype), rows[entries:].astype(theta.dtype)


@jax.jit
def _rotated(known: Directions, turn: Array, third: Array, tilts: Array) -> Directions:
    """With normals that were computed along the eigenvectors, which the rotation `turn` (K, K) brings into the basis."""
    (rows, columns), turn = pairs(len(turn)), turn.astype(third.dtype)
    mix = turn[rows][:, rows] * turn[columns][:, columns]
    mix += jnp.where(rows == columns, 0, turn[rows][:, columns] * turn[columns][:, rows])
    return known._replace(third=mix @ third, tilts=turn @ tilts)


@jax.jit
def first(directions: Directions) -> Normals:
    """The normals along the top eigenvector alone."""
    c = directions.axes[0]
    return Normals((c @ directions.basis)[None], jnp.ones((), c.dtype), directions.weighed(jnp.outer(c, c)), c @ directions.tilts)
