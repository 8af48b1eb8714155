"""Steps that are the steepest in a norm other than the Euclidean one: sign descent in ℓ∞, spectral descent in the largest singular value.

With d = argmax <g,d> over ‖d‖ ≤ 1 and ‖g‖_* = <g,d> a step is θ − ηd, or θ − η‖g‖_*d where it is scaled by the dual norm. λ1 of the Hessian
is no measure of their stability; what is, is what a step itself shows. The directional smoothness of the step s from θ_t to θ_{t+1},

    D_t = 2[L_{t+1} − L_t − <g,s>]/‖s‖²        with <g,s> = −η‖g‖_*², ‖s‖ = η‖g‖_* where scaled, −η‖g‖_* and η where not,

is below 2/η, or below 2‖g‖_*/η where not scaled, exactly where the loss falls: an identity. There it is divided by ‖g‖_*, so that 2/η is
the line for both. In a step of a quadratic D_t = dᵀHd, at most the generalized sharpness, the maximum over the ball [arXiv 2603.05002].
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.dynamics.optimizer import (
    Gradient,
    Norm,
    Optimizer,
    Unravel,
    moved,
    parts_of,
    rate,
    shapes_of,
    two_over_eta,
    unscaled,
    vector_of,
)


class SteepestState(NamedTuple):
    """What a steepest step needs to know."""

    learning_rate: Array  # () η
    dual_norm: Array  # () ‖g‖_* of the last step; NaN before
    shapes: Any  # of the parameters, where the norm is one of matrices: `shapes_of`; else ()


def _steepest(norm: Norm, shapes: Callable[[Array, Unravel], Any]) -> Optimizer:
    def init(theta: Array, unravel: Unravel, learning_rate: float) -> SteepestState:
        return SteepestState(rate(learning_rate), jnp.asarray(jnp.nan, theta.dtype), shapes(theta, unravel))

    def step(theta: Array, state: SteepestState, gradient: Array, gradient_at: Gradient) -> tuple[Array, SteepestState]:
        direction, dual = norm.steepest(gradient, state)
        return moved(theta, dual * direction if norm.dual_scaled else direction, state.learning_rate), state._replace(dual_norm=dual)

    return Optimizer(init, step, unscaled, two_over_eta, norm)


@cache
def sign(dual_scaled: bool) -> Optimizer:
    """d = sign(g), ‖g‖_* = ‖g‖₁."""
    norm = Norm(lambda g, state: (jnp.sign(g), jnp.sum(jnp.abs(g))), lambda v, state: jnp.max(jnp.abs(v)), dual_scaled)
    return _steepest(norm, lambda theta, unravel: ())


@cache
def muon(dual_scaled: bool) -> Optimizer:
    """d = UVᵀ of every matrix UΣVᵀ of g, ‖g‖_* the sum of their nuclear norms; ‖v‖ is the largest singular value of any."""

    def steepest(g: Array, state: SteepestState) -> tuple[Array, Array]:
        parts, structure = jax.tree.flatten(parts_of(g, state.shapes))
        factors, duals = zip(*[polar_factor(as_matrix(part)) for part in parts], strict=True)
        shaped = [factor.reshape(part.shape) for factor, part in zip(factors, parts, strict=True)]
        return vector_of(jax.tree.unflatten(structure, shaped), g.size), sum(duals, jnp.zeros((), g.dtype))

    def size(v: Array, state: SteepestState) -> Array:
        parts = jax.tree.leaves(parts_of(v, state.shapes))
        return jnp.max(jnp.stack([jnp.linalg.svd(as_matrix(part), compute_uv=False)[0] for part in parts]))

    return _steepest(Norm(steepest, size, dual_scaled), shapes_of)


def as_matrix(part: Array) -> Array:
    """A parameter as a matrix: a vector is one column, a kernel has a row for each of its inputs."""
    return part.reshape(-1, part.shape[-1]) if part.ndim > 1 else part.reshape(-1, 1)


def polar_factor(matrix: Array) -> tuple[Array, Array]:
    """UVᵀ of a matrix (m, n) over its singular values above rounding, and the sum of all of them, ()."""
    u, values, v = jnp.linalg.svd(matrix, full_matrices=False)
    kept = values > jnp.finfo(matrix.dtype).eps * max(matrix.shape) * values[0]
    return (u * kept) @ v, jnp.sum(values)


FRANK_WOLFE = 8
"""Products from each start."""


def generalized_sharpness(norm: Norm, state: Any, product: Callable[[Array], Array], starts: Array) -> tuple[Array, Array]:
    """The largest vᵀHv/‖v‖² met by Frank–Wolfe, (), and the v (p,) that it was met at: a lower bound on the maximum, which is as hard to
    find as a maximal cut. `starts` (k, p) are climbed from one by one, `FRANK_WOLFE` products each: v ← v + 2/(j+2)(argmax <Hv,·> − v).
    """

    def climbed(start: Array) -> tuple[Array, Array]:
        def onward(j: Array, carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            v, best, at = carried
            image, size = product(v), jnp.maximum(norm.size(v, state), jnp.finfo(v.dtype).tiny)
            value = v @ image / size**2
            best, at = jnp.where(value > best, value, best), jnp.where(value > best, v / size, at)
            vertex, _ = norm.steepest(image, state)
            return v + (2 / (j + 2)).astype(v.dtype) * (vertex - v), best, at

        _, best, at = lax.fori_loop(0, FRANK_WOLFE, onward, (start, jnp.asarray(-jnp.inf, start.dtype), start))
        return best, at

    values, vectors = lax.map(climbed, starts)
    return jnp.max(values), vectors[jnp.argmax(values)]
