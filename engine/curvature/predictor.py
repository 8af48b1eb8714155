"""Where an eigenvector will be at the next step, so that the solver starts within its tolerance: extrapolated from the last steps.

That of θ†, which moves smoothly, goes on from its last two. That of gradient descent is that of θ† and an offset, which grows and shrinks
with x where the two swing together, and differs on the two sides of θ† between which gradient descent alternates: the offset goes on from
two and four steps ago. Both starts are then mostly within the tolerance as they are, and each pair costs one product.
"""

import jax
import jax.numpy as jnp
from jax import Array

from engine.curvature.eigensolver import Eigenpairs
from engine.xla.reductions import dots

STEADY = 2.0
"""How much x may have grown or shrunk in four steps for the offset to follow it: where it changed more, x passed through 0."""


@jax.jit
def predict_eigenvectors(u: Array, displacement: Array, offsets: Array, x_history: Array, last: Array) -> Array:
    """A start for the eigensolver at gradient descent's θ, (k, p): what it needs no more than two products from.

    `u` (p,) is the eigenvector at θ†, `displacement` (p,) that of θ from θ†; `offsets` (4, p) and `x_history` (4,) are those of the last
    four steps, the oldest first, and `last` (k, p) the eigenvectors two steps ago.
    """
    x, alternation = dots((u, displacement), (offsets[3], offsets[2]))
    growth = x / x_history[::2]  # in four steps, and in two
    steady = jnp.all((growth > 1 / STEADY) & (growth < STEADY))  # not where x was 0
    steady &= alternation < 0  # the offset alternates as x does; what else lies between θ and θ† would not
    four, two = jnp.where(steady, growth, 1).astype(last.dtype)
    return last.at[0].set(u.astype(last.dtype) + 2 * two * offsets[2] - four * offsets[0])


@jax.jit
def eigenvector_offset(vector: Array, u: Array) -> Array:
    """What gradient descent's top eigenvector (p,) differs by from that of the centre."""
    u = u.astype(vector.dtype)
    along, square = dots((vector, u), (vector, vector))
    return vector * (1 / (jnp.where(along < 0, -1, 1) * jnp.sqrt(square))) - u


@jax.jit
def alternating(history: Array) -> Array:
    """A start for the eigensolver, (k, p), from the last four eigenvectors (4, k, p) of gradient descent that alternates about no θ†."""
    return extrapolated(history[0], history[2])


@jax.jit
def turn_between(before: Array, last: Array) -> Array:
    """What an eigenvector (p,) differs by from the one before, whose sign is of no meaning."""
    return last - jnp.where(dots((before, last))[0] < 0, -before, before)


def extrapolated(before: Array, last: Array) -> Array:
    """The rows a lag on, from those a lag and two lags ago: the first extrapolated, the others, whose noise is larger, as they are."""
    return last.at[0].add(turn_between(before[0], last[0]))


def likeliest(history: tuple[Array, Array, Array, Array], onward: float) -> Array:
    """A vector's next (p,), from its last four, the oldest first: `onward` times what it moved in the last step further; or, where it
    alternates, as gradient descent's does at the edge, and the newest is nearer that of two steps before, as far again as in two steps."""
    four, _, two, newest = history
    old4, old3, old2, new = (row.astype(jnp.float64) for row in history)
    square2, square3, *products = dots((old2, old2), (old3, old3), (old2, new), (old3, new), (old4, new))
    signs = [jnp.where(product < 0, -1, 1).astype(newest.dtype) for product in products]
    step, alternation = square2 - 2 * abs(products[0]), square3 - 2 * abs(products[1])  # each ‖newest − old‖² less ‖newest‖²
    two, four = signs[0] * two, signs[2] * four
    return jnp.where(step <= alternation, newest + onward * (newest - two), 2 * two - four)


@jax.jit
def power_step(pairs: Eigenpairs, images: Array) -> Array:
    """The eigenvectors one step of power iteration on, (k, p), from what the Hessian makes of them (k, p): the errors that the
    tolerance left become smaller as λ/S, most of them to nothing, and it costs no product. Small eigenvalues' stay as they are."""
    values = pairs.values[:, None]
    large = values > pairs.values[0] / 10
    return jnp.where(large, images * (1 / jnp.where(large, values, 1)), pairs.vectors)


@jax.jit
def push(history: Array, newest: Array) -> Array:
    """A history with one entry more at its end, and the oldest gone."""
    return jnp.concatenate([history[1:], newest[None]])
