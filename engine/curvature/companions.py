"""The eigenvectors next to the top one, kept so that one product a step, along the top one, separates it from them.

Where the largest eigenvalues lie within some percent of each other, a step of power iteration leaves their vectors mixed: of an error
along an eigenvector of eigenvalue λ it leaves λ/S. But the product Hu along the expected top vector shows that error, as q·Hu for each
companion q. With Hq ≈ λq as of the companions' own last products, the matrix of Rayleigh–Ritz on u and the companions is known, and new in
the row that matters; its eigenvectors are the directions separated. What is left of the residual is added as in power iteration.

No recorded eigenvalue is read off this matrix: it says where to look next, and how much a Rayleigh quotient may miss.

A companion that rises above the top one shows in no product of that one. So where a trajectory looks around it takes one product of a sum
of all of them, with other signs at each look, as directions that are mixed in several companions may cancel in one sum. What is in it along
the companions and not expected of them has risen, and that direction has a product of its own. In the same sum, as long as the companions
together, there is a *scout*: a random vector, of which each such product leaves what neither the top one nor the companions have. That is a
step of power iteration among all other directions, for no product more. What promises more than the least companion takes its place.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.xla import small_matrices
from engine.xla.leaves import Earlier
from engine.xla.reductions import along_each, dots, inner_products, norms
from engine.xla.shares import Shares

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
    scout: Annotated[Array, Earlier(lambda leaves: np.zeros_like(leaves["vectors"][:1]))]
    """(1, p) the image of the last sum: what is in it beside the top one and the companions is the scout. Zeros where there is none, and no
    row where no companions are kept."""


def none(size: int) -> Companions:
    """No companions, where none are kept."""
    return Companions(jnp.zeros((0, size), jnp.float32), jnp.zeros(0, jnp.float32), jnp.zeros((0, size), jnp.float32))


def unknown(size: int, dtype: str, shares: Shares | None = None) -> Companions:
    """Room for them, before anything is known."""
    count = max(min(COUNT, size - 1), 1)
    lies = shares and shares.along_last(2)
    return Companions(jnp.zeros((count, size), dtype, device=lies), jnp.zeros(count, dtype), jnp.zeros((1, size), dtype, device=lies))


def mixture(companions: Companions, beside: Array, turn: Array) -> Array:
    """All companions and the scout together at a look, (p,) of length 1, orthogonal to an expected top vector (p,) of length 1.

    The companions' signs are the rows of a Hadamard matrix by turns.
    """
    some = companions.values > 0
    weight = jnp.sqrt(jnp.maximum(jnp.sum(some), 1)).astype(beside.dtype)
    scout = outside(companions.scout[0], [beside, *companions.vectors])
    common = lax.population_count(jnp.asarray(turn, jnp.uint32) & jnp.arange(len(some), dtype=jnp.uint32))
    signs = jnp.where(some, jnp.where(common % 2 == 0, 1, -1), 0).astype(beside.dtype)
    return outside(combined(signs, companions.vectors) + weight * scout, [beside])


def outside(vector: Array, rows: list[Array]) -> Array:
    """What orthonormal rows leave of a vector (p,), to the length 1; zeros where that is nothing."""
    for along, row in zip(dots(*((row, vector) for row in rows)), rows, strict=True):
        vector = vector - along * row
    (length,) = norms(vector)
    return vector / jnp.where(length > 0, length, 1)


def risen(companions: Companions, mixed: Array, image: Array, sharpness: Array) -> Array:
    """The direction (p,) among the companions in which the image (p,) of their mixture (p,) is not what their eigenvalues, times the
    `sharpness`, would make of it: each companion by what it has gained, and by the eigenvalue that it would have, the top one's at most."""
    share, seen = along_each(companions.vectors, mixed), along_each(companions.vectors, image)
    eigenvalues = jnp.clip(seen / jnp.where(share == 0, 1, sharpness * share), 0, 1)
    return combined((eigenvalues * (seen - sharpness * companions.values * share)).astype(image.dtype), companions.vectors)


def combined(weights: Array, rows: Iterable[Array]) -> Array:
    """The sum of rows (n, p), or several of (p,), times their weights (n,). Written out: of a product so thin XLA's takes longer."""
    first, *others = (weight * row for weight, row in zip(weights, rows, strict=True))
    return sum(others, first)


class Separated(NamedTuple):
    """The directions that one product separated."""

    vector: Array  # (p,) the top one, one step of power iteration on
    companions: Companions
    shortfall: Array  # () by how much of the top eigenvalue the Rayleigh quotient of the expected vector is below it, of them all
    shared: Array  # () square of the part of the relative residual that lies along the companions

    def error(self, residual: Array) -> Array:
        """The estimated relative error of that Rayleigh quotient, whose relative residual is given: the shortfall, and what residual the
        companions leave by residual²/gap (Kato, Temple) with the gap to the least of them. Infinite where not all of them are known."""
        least, left = self.companions.values[-1], jnp.maximum(residual**2 - self.shared, 0)
        return jnp.where(least > 0, self.shortfall + left / (1 - least), jnp.inf)


def separated(vectors: Array, images: Array, companions: Companions, settled: bool = False) -> Separated:
    """What the `images` (n, p) under the Hessian of orthonormal `vectors` (n, p), the first of them the expected top one, show beside the
    companions. Rows of zeros are none. `settled` takes the companions for orthonormal, whose inner products are most of the cost.

    The images stand. Beside them the first one's and the companions' eigenvalues say what the Hessian was before, and as much of that
    stays as a symmetric matrix with these images can have (Powell's symmetric update: Dennis and Moré, SIAM Review 19, 1977).

    Inner products are written out: as a product of matrices so thin XLA's take six times as long on a CPU. So are the sums of rows that
    give the vectors: where the companions are not asked for, nothing is computed of them.
    """
    count, kept = len(vectors), len(companions.vectors) + 1
    gram, products = _inner_products(vectors, images, companions.vectors, settled)
    quotient = products[0, 0]
    basis = _orthonormal(gram, count, count)
    stale = gram * jnp.concatenate([jnp.zeros(count), companions.values * quotient])  # the image of a companion is along itself
    before = ((stale + stale.T) / 2).at[0].set(products[0]).at[:, 0].set(products[0])
    known = basis if count == 1 else _orthonormal(gram, 1, count)
    inner, exact = basis @ gram @ known.T, products @ basis.T
    matrix = (inner @ (known @ before @ known.T) @ inner.T).at[:count].set(exact).at[:, :count].set(exact.T)
    along = basis[1:] @ (products[0] - quotient * gram[0])
    values, mix = small_matrices.eigh(matrix)
    values, mix = values[::-1][:kept], mix.T[::-1][:kept]
    onward = mix[:, :count] / jnp.where(values > LARGE * values[0], values, jnp.inf)[:, None]  # the rest of each image, over λ
    coefficients = jnp.concatenate([mix @ basis - onward @ products @ basis.T @ basis, onward], axis=1).astype(vectors.dtype)
    rows = [*vectors, *companions.vectors, *images]
    top, *after = (combined(weights, rows) for weights in coefficients)
    beside = Companions(jnp.stack(after), jnp.maximum(values[1:] / values[0], 0).astype(vectors.dtype), companions.scout)
    return Separated(top, beside, 1 - quotient / values[0], along @ along / quotient**2)


class Trial(NamedTuple):
    """A vector that may be the top one, its product, and what that shows beside the companions."""

    vector: Array  # (p,) of length 1
    image: Array  # (p,)
    sharpness: Array  # () their inner product
    residual: Array  # () ‖Hu−Su‖/S
    beside: Separated
    hvps: Array  # () products that led to it


def tried(vector: Array, image: Array, beside: Separated, hvps: Array) -> Trial:
    """A trial of a vector (p,) of length 1, whose image (p,) is known."""
    (sharpness,) = dots((vector, image))
    (residual,) = norms(image - sharpness * vector)
    return Trial(vector, image, sharpness, residual / sharpness, beside, hvps)


def next_trial(product: Callable[[Array], Array], trial: Trial) -> Trial:
    """That of the vector which the last product has separated from the companions, for one product more.

    What the last vector has beside it is a direction in which the companions lack something, and has an image that is known.
    """
    vector = trial.beside.vector / norms(trial.beside.vector)[0]
    image = product(vector)
    (overlap,) = dots((vector, trial.vector))
    rest, rest_image = trial.vector - overlap * vector, trial.image - overlap * image
    (length,) = norms(rest)
    inverse = jnp.where(length > 0, 1 / length, 0)
    rows, images = jnp.stack([vector, inverse * rest]), jnp.stack([image, inverse * rest_image])
    return tried(vector, image, separated(rows, images, trial.beside.companions, settled=True), trial.hvps + 1)


def _inner_products(vectors: Array, images: Array, others: Array, settled: bool) -> tuple[Array, Array]:
    """Those of vectors and others among themselves, (n+m, n+m), and of the images with both, (n, n+m), in float64."""
    count, many = len(vectors), len(others)
    both = [*vectors, *images]
    between, seen = jnp.split(inner_products(*((row, q) for q in others for row in both)).reshape(many, -1).T, 2)  # each q is read once
    own = inner_products(*((image, u) for image in images for u in vectors)).reshape(count, count)
    products = jnp.concatenate([own, seen], axis=1)
    gram = jnp.eye(count + many).at[:count, count:].set(between).at[count:, :count].set(between.T)
    if not settled:
        first, second = np.triu_indices(many)
        among = inner_products(*((others[a], others[b]) for a, b in zip(first, second, strict=True))).astype(jnp.float64)
        gram = gram.at[count + first, count + second].set(among).at[count + second, count + first].set(among)
    return gram, products.astype(jnp.float64)


def _orthonormal(gram: Array, first: int, others: int) -> Array:
    """Orthonormal combinations, (m, n), of n vectors with this Gram matrix: the `first` ones, which are orthonormal, and what these leave
    of those from place `others` on; rows of zeros where that is not independent."""
    unit = jnp.eye(len(gram))
    left = unit[others:] - gram[others:, :first] @ unit[:first]
    squares, axes = small_matrices.eigh(left @ gram @ left.T)
    weights = jnp.where(squares > INDEPENDENT, 1 / jnp.sqrt(jnp.maximum(squares, INDEPENDENT)), 0)
    return jnp.concatenate([unit[:first], weights[:, None] * axes.T @ left])
