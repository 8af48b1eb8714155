"""Linear algebra of small matrices, up to some 64 rows, in operations of XLA alone: for devices on which a library's call is slow.

Eigenvalues and singular values are Jacobi's: n/2 pairs of rows at a time are rotated until they are orthogonal, by the tournament in which
each row meets each other one in n − 1 rounds (Brent and Luk, SIAM J. Sci. Stat. Comput. 6, 1985). A round is a few fused loops over n × 2n
numbers, and a sweep of rounds runs without the host. Near the end the rest is squared by each sweep: 5 to 8 of them do for random matrices
of 8 to 64 rows, and 3 for one that is nearly diagonal, as those of a warm-started solver are. Systems are solved by elimination, a column
at a time.

Each function is that of one matrix; `jax.vmap` makes it one of many, which all go on until the last is done. Whatever is not finite gives
NaN throughout.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

MOST_SWEEPS = 30
"""Sweeps after which a matrix is left as it is. Random and degenerate ones of up to 64 rows took at most 12, ones graded over 20 orders of
magnitude 17."""


@jax.jit
def eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (n,) of a symmetric matrix (n, n), ascending, and eigenvectors as columns (n, n), as `jnp.linalg.eigh`."""
    scaled, size = _scaled(matrix)
    values, vectors = _diagonalised((scaled + scaled.T) / 2)
    order = jnp.argsort(values)
    return values[order] * size, jnp.where(jnp.isnan(size), size, vectors[order].T)


@jax.jit
def singular_values(matrix: Array) -> Array:
    """Singular values (n,) of a matrix (m, n), m ≥ n, descending."""
    scaled, size = _scaled(matrix)
    return jnp.sort(_lengths(_orthogonalised(scaled.T, len(matrix))))[::-1] * size


@jax.jit
def polar_factor(matrix: Array) -> Array:
    """The orthogonal matrix UVᵀ that is nearest to a square one UΣVᵀ, (n, n). A singular one has many; it is taken to be larger by
    rounding along its diagonal."""
    scaled, size = _scaled(matrix)
    count, identity = len(matrix), jnp.eye(len(matrix), dtype=matrix.dtype)
    regular = scaled + 4 * jnp.finfo(matrix.dtype).eps * jnp.maximum(1, jnp.sqrt(jnp.sum(scaled**2))) * identity
    rows = _orthogonalised(jnp.concatenate([regular.T, identity], 1), count)
    images, axes = rows[:, :count], rows[:, count:]  # the first are those of the second under the matrix
    return jnp.where(jnp.isnan(size), size, (images / _lengths(images)[:, None]).T @ axes)


@jax.jit
def cholesky(matrix: Array) -> Array:
    """The lower L (n, n) with LLᵀ a positive definite matrix (n, n), as `jnp.linalg.cholesky`: NaN throughout where it is not."""
    return _whole(jnp.tril(_eliminated(matrix).T))


@jax.jit
def inverse_factor(matrix: Array) -> Array:
    """L⁻¹ (n, n) of LLᵀ, a positive definite matrix (n, n)."""
    return _whole(_eliminated(jnp.concatenate([matrix, jnp.eye(len(matrix), dtype=matrix.dtype)], 1))[:, len(matrix) :])


@jax.jit
def solve(matrix: Array, right: Array) -> Array:
    """X (n, …) of a system AX = B, with a matrix (n, n) and right sides (n,) or (n, k), as `jnp.linalg.solve`: Gauss and Jordan's
    elimination with the largest of each column as its pivot."""
    count, rows = len(matrix), np.arange(len(matrix))

    def step(k: Array, system: Array) -> Array:
        pivot = jnp.argmax(jnp.where(rows >= k, jnp.abs(system[:, k]), -1))
        system = system[jnp.where(rows == k, pivot, jnp.where(rows == pivot, k, rows))]
        row = system[k] / system[k, k]
        return jnp.where((rows == k)[:, None], row, system - system[:, k, None] * row)

    system = lax.fori_loop(0, count, step, jnp.concatenate([matrix, right.reshape(count, -1)], 1))
    return system[:, count:].reshape(right.shape)


def _scaled(matrix: Array) -> tuple[Array, Array]:
    """A matrix over its largest entry, so that squares neither overflow nor vanish, and that entry, (): 1 of zeros, else NaN where it is
    not finite."""
    largest = jnp.max(jnp.abs(matrix))
    largest = jnp.where(jnp.isfinite(largest), jnp.where(largest == 0, 1, largest), jnp.nan)
    return matrix / largest, largest


def _whole(matrix: Array) -> Array:
    """NaN throughout where one is."""
    return jnp.where(jnp.all(jnp.isfinite(matrix)), matrix, jnp.nan)


def _lengths(rows: Array) -> Array:
    return jnp.sqrt(jnp.sum(rows**2, axis=1))


def opponents(count: int) -> np.ndarray:
    """A tournament: whom each of so many meets in each round, (rounds, count). With an odd number of them one rests, and meets itself."""
    most = count - 1 + count % 2  # whoever is left over meets the last one, where there is one more
    rounds, players = np.indices((most, count))
    met = (2 * rounds - players) % most
    if count > most:
        met = np.where(met == players, most, met)
        met[:, most] = np.arange(most)
    return met


def _taken(array: Array, places: Any) -> Array:
    """array[places], all of which there are."""
    return array.at[places].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _rotation(own: Array, beside: Array, other: Array) -> Array:
    """tan φ, |φ| ≤ π/4, (n,) of rotations that make `own` and own[other] on the diagonal the eigenvalues of the two with `beside` off it:
    of opposite sign for the two rows, to the bit, for a rotation is orthogonal by that."""
    first = np.arange(len(own)) < other
    way = _taken(own, other) - own
    below = jnp.abs(way) + jnp.sqrt(way**2 + 4 * beside**2)
    t = jnp.where(first & (below > 0), jnp.where(way < 0, -2, 2) * beside / jnp.where(below > 0, below, 1), 0)
    return t - _taken(t, other)  # 0 for a row that meets itself


def _diagonalised(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues (n,) of a symmetric matrix (n, n) in no order, and eigenvectors as rows, (n, n).

    Both lie beside each other, V to the right: rotations of rows are of both, those of columns of the matrix alone.
    """
    count, dtype = len(matrix), matrix.dtype
    met, rows, columns, all_rows = jnp.asarray(opponents(count)), np.arange(count), np.arange(2 * count), slice(None)
    still, on_diagonal = np.ones(count, dtype), np.equal(rows[:, None], columns)
    negligible = jnp.finfo(dtype).eps * jnp.sqrt(jnp.sum(matrix**2))

    def step(k: Array, both: Array) -> Array:
        other = met[k]
        own, beside = (_taken(both, (rows, there)) for there in (rows, other))
        t = _rotation(own, jnp.where(jnp.abs(beside) > negligible, beside, 0), other)  # what is rounding would turn alike ones for ever
        c = 1 / jnp.sqrt(1 + t**2)
        s = -t * c
        across, c_all, s_all = (jnp.concatenate(each) for each in ((other, columns[count:]), (c, still), (s, 0 * still)))
        c, s, aside = c[:, None], s[:, None], _taken(both, (other,))
        turned = c * c_all * both + (c * s_all * _taken(both, (all_rows, across)) + s * c_all * aside)
        turned += s * s_all * _taken(aside, (all_rows, across))
        turned = jnp.where((columns == other[:, None]) & (t != 0)[:, None], 0, turned)  # exact, as is the diagonal
        return jnp.where(on_diagonal, (own - t * beside)[:, None], turned)

    def sweep(carried: tuple[Array, Array]) -> tuple[Array, Array]:
        return carried[0] + 1, lax.fori_loop(0, len(met), step, carried[1])

    def unfinished(carried: tuple[Array, Array]) -> Array:
        rest = jnp.max(jnp.where(on_diagonal, 0, jnp.abs(carried[1]))[:, :count])
        return (rest > negligible) & (carried[0] < MOST_SWEEPS)  # NaN is not

    _, both = lax.while_loop(unfinished, sweep, (jnp.zeros((), int), jnp.concatenate([matrix, jnp.eye(count, dtype=dtype)], 1)))
    return both[rows, rows], both[:, count:]


def _orthogonalised(start: Array, count: int) -> Array:
    """Rows (n, …) rotated among each other until their first `count` numbers are orthogonal: Hestenes' one-sided method, which leaves small
    singular values to their own rounding."""
    met, players = jnp.asarray(opponents(len(start))), np.arange(len(start))
    enough = len(start) * jnp.finfo(start.dtype).eps

    def step(k: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        (rows, worst), other = carried, met[k]
        aside = _taken(rows, other)
        squares, beside = jnp.sum(rows[:, :count] ** 2, 1), jnp.sum(rows[:, :count] * aside[:, :count], 1)
        scale = squares * _taken(squares, other)
        cosines = jnp.where((other != players) & (scale > 0), jnp.abs(beside) / jnp.sqrt(jnp.where(scale > 0, scale, 1)), 0)
        t = _rotation(squares, jnp.where(cosines > enough, beside, 0), other)
        c = 1 / jnp.sqrt(1 + t**2)
        return c[:, None] * rows - (t * c)[:, None] * aside, jnp.maximum(worst, jnp.max(cosines))

    def sweep(carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        return carried[0] + 1, *lax.fori_loop(0, len(met), step, (carried[1], jnp.zeros((), start.dtype)))

    def unfinished(carried: tuple[Array, Array, Array]) -> Array:
        return (carried[2] > enough) & (carried[0] < MOST_SWEEPS)

    begun = jnp.zeros((), int), start, jnp.asarray(jnp.inf, start.dtype)
    return lax.while_loop(unfinished, sweep, begun)[1]


def _eliminated(system: Array) -> Array:
    """Lᵀ and what L⁻¹ makes of further columns, of a positive definite matrix LLᵀ and these beside it, (n, …)."""
    rows = np.arange(len(system))

    def step(k: Array, system: Array) -> Array:
        row = system[k] / jnp.sqrt(system[k, k])
        below = (rows > k)[:, None]
        share = (system[:, k] / jnp.sqrt(system[k, k]))[:, None]
        return jnp.where((rows == k)[:, None], row, jnp.where(below, system - share * row, system))

    return lax.fori_loop(0, len(system), step, system)
