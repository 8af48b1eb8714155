"""The eigenvectors next to the top one, kept so that one product a step, along the top one, separates it from them.

Where the largest eigenvalues lie within some percent of each other, a step of power iteration leaves their vectors mixed: of an error
along an eigenvector of eigenvalue λ it leaves λ/S. But the product Hu along the expected top vector shows that error, as q·Hu for each
companion q. With Hq ≈ λq as of the companions' own last products, the matrix of Rayleigh–Ritz on u and the companions is known, and new in
the row that matters; its eigenvectors are the directions separated. What is left of the residual is added as in power iteration.

No recorded eigenvalue is read off this matrix: it says where to look next, and how much a Rayleigh quotient may miss. Companions have
products of their own where a trajectory looks around.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.xla import small_matrices
from engine.xla.reductions import dots

COUNT = 8
"""Companions kept. At Adam's edge on digits eight eigenvalues lie within 6 % below the largest."""
INDEPENDENT = 0.1
"""Square of what must be left of companions beside fresher vectors, for a direction to be one of theirs."""
LARGE = 0.1
"""Fraction of the top eigenvalue from which a vector takes a step of power iteration."""


class Companions(NamedTuple):
    """The next eigenvectors after the top one, the largest first; rows of zeros where none is known."""

    vectors: Array  # (m, p) orthonormal, nearly
    values: Array  # (m,) their eigenvalues over the top one, as of their last products


def none(size: int) -> Companions:
    """No companions, where none are kept."""
    return Companions(jnp.zeros((0, size), jnp.float32), jnp.zeros(0, jnp.float32))


def unknown(size: int, dtype: str) -> Companions:
    """Room for them, before anything is known."""
    count = max(min(COUNT, size - 1), 1)
    return Companions(jnp.zeros((count, size), dtype), jnp.zeros(count, dtype))


def due(turn: Array, count: int) -> Array:
    """Which companion is the next to have a product of its own: the nearest at every other turn, 0, 1, 0, 2, 0, 3, …"""
    return jnp.where(turn % 2 == 0, 0, (1 + turn // 2 % max(count - 1, 1)) % count)


def together(companions: Companions) -> Array:
    """The sum of the companions (p,), of length 1 where they are orthonormal: one product of it shows the eigenvalues of all."""
    some = companions.values > 0
    return jnp.sum(jnp.where(some[:, None], companions.vectors, 0), axis=0) / _root_of_count(companions)


def risen(companions: Companions, image: Array) -> Array:
    """The eigenvalues (m,) that the image (p,) of their sum shows, as far as the companions are eigenvectors: what each is mixed with the
    others by is in it, too."""
    along = jnp.stack(dots(*((vector, image) for vector in companions.vectors)))
    return jnp.where(companions.values > 0, along * _root_of_count(companions), 0)


def _root_of_count(companions: Companions) -> Array:
    """The square root of how many are known, or 1."""
    return jnp.sqrt(jnp.maximum(jnp.sum(companions.values > 0), 1)).astype(companions.values.dtype)


class Separated(NamedTuple):
    """The directions that one product separated."""

    vector: Array  # (p,) the top one, one step of power iteration on
    companions: Companions
    shortfall: Array  # () by how much of the top eigenvalue the Rayleigh quotient of the expected vector is below it, of them all

    def error(self, residual: Array) -> Array:
        """The estimated relative error of that Rayleigh quotient, whose relative residual is given: the shortfall, and residual²/gap
        (Kato, Temple) with the gap to the least of the companions. Infinite where not all of them are known."""
        least = self.companions.values[-1]
        return jnp.where(least > 0, self.shortfall + residual**2 / (1 - least), jnp.inf)


def separated(vectors: Array, images: Array, companions: Companions, settled: bool = False) -> Separated:
    """What the `images` (n, p) under the Hessian of orthonormal `vectors` (n, p), the first of them the expected top one, show beside the
    companions. Rows of zeros are none. `settled` takes the companions for orthonormal, whose inner products are most of the cost.

    Inner products are written out: as a product of matrices so thin XLA's take six times as long on a CPU. So is the mixture that gives the
    top vector: where the companions after it are not asked for, nothing is computed of them.
    """
    count, kept = len(vectors), len(companions.vectors) + 1
    gram, products = _inner_products(vectors, images, companions.vectors, settled)
    quotient = products[0, 0]
    stale = gram * jnp.concatenate([jnp.zeros(count), companions.values * quotient])  # the image of a companion is along itself
    matrix = ((stale + stale.T) / 2).at[:count].set(products).at[:, :count].set(products.T)
    basis = _orthonormal(gram, count)
    values, mix = small_matrices.eigh(basis @ matrix @ basis.T)
    values, mix = values[::-1][:kept], mix.T[::-1][:kept]
    onward = mix[:, :count] / jnp.where(values > LARGE * values[0], values, jnp.inf)[:, None]  # the rest of each image, over λ
    coefficients = jnp.concatenate([mix @ basis - onward @ products @ basis.T @ basis, onward], axis=1).astype(vectors.dtype)
    rows = [*vectors, *companions.vectors, *images]
    top = sum((weight * row for weight, row in zip(coefficients[0], rows, strict=True)), jnp.zeros_like(rows[0]))
    after = jnp.matmul(coefficients[1:], jnp.stack(rows), precision=lax.Precision.HIGHEST)
    beside = Companions(after, jnp.maximum(values[1:] / values[0], 0).astype(vectors.dtype))
    return Separated(top, beside, 1 - quotient / values[0])


def _inner_products(vectors: Array, images: Array, others: Array, settled: bool) -> tuple[Array, Array]:
    """Those of vectors and others among themselves, (n+m, n+m), and of the images with both, (n, n+m), in float64."""
    count, many = len(vectors), len(others)
    between = jnp.stack(dots(*((u, q) for u in vectors for q in others))).reshape(count, many)
    products = jnp.stack(dots(*((image, row) for image in images for row in (*vectors, *others)))).reshape(count, count + many)
    gram = jnp.eye(count + many).at[:count, count:].set(between).at[count:, :count].set(between.T)
    if not settled:
        first, second = np.triu_indices(many)
        among = jnp.stack(dots(*((others[a], others[b]) for a, b in zip(first, second, strict=True)))).astype(jnp.float64)
        gram = gram.at[count + first, count + second].set(among).at[count + second, count + first].set(among)
    return gram, products.astype(jnp.float64)


def _orthonormal(gram: Array, count: int) -> Array:
    """Orthonormal combinations, (n, n), of vectors with this Gram matrix: the first `count`, which are orthonormal, and what these leave
    of the others; rows of zeros where that is not independent."""
    first, others = jnp.eye(len(gram))[:count], jnp.eye(len(gram))[count:]
    others -= gram[count:, :count] @ first
    squares, axes = small_matrices.eigh(others @ gram @ others.T)
    weights = jnp.where(squares > INDEPENDENT, 1 / jnp.sqrt(jnp.maximum(squares, INDEPENDENT)), 0)
    return jnp.concatenate([first, weights[:, None] * axes.T @ others])
