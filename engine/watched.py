"""Gradient descent with the sharpness at every step, many steps in one compiled call.

A step takes gradient and Hessian–vector product together, the product along an eigenvector extrapolated from those of two and four
steps ago: at the edge gradient descent alternates. The product gives S, the pair's residual, and by one step of power iteration the
next eigenvector. Only where the residual asks is the eigenpair solved for.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.coupled import ahead_alone, followed_by
from engine.curvature import solve
from engine.formats import jit_by_format
from engine.problem import Problem
from engine.trajectories import DESCENT_CHUNK


class Watched(NamedTuple):
    """Some steps of gradient descent: where they end, and what they passed. Entries beyond the steps taken are NaN."""

    theta: Array  # (p,)
    bases: Array  # (4, 1, p) the last top eigenvectors
    losses: Array  # (DESCENT_CHUNK,) L before each step
    gradient_norms: Array
    sharpness: Array
    residuals: Array  # ‖Hu−Su‖/S
    hvps: Array  # products that each step took
    readings: dict[str, Array]  # each (DESCENT_CHUNK,)


@jit_by_format
def descend(
    problem: Problem, theta: Array, bases: Array, learning_rate: float, steps: int, tolerance: float, means: dict[str, Problem]
) -> Watched:
    """`steps` ≤ DESCENT_CHUNK steps of θ ← θ − η∇L(θ) with the top eigenpair to a relative residual of `tolerance` at each, and
    `means` read there. Products are taken in θ's number format."""
    blank = jnp.full(DESCENT_CHUNK, jnp.nan, theta.dtype)

    def step(k: Array, state: Watched) -> Watched:
        u = ahead_alone(state.bases)[0].astype(theta.dtype)
        u = u / jnp.linalg.norm(u)
        (loss, grad), (_, image) = jax.jvp(jax.value_and_grad(problem.loss), (state.theta,), (u,))
        sharpness = u @ image
        residual = jnp.linalg.norm(image - sharpness * u) / jnp.abs(sharpness)

        def refined() -> tuple[Array, Array, Array, Array]:
            pairs, _ = solve(problem, state.theta, u[None], tolerance)
            return pairs.vectors[0], pairs.sharpness, pairs.residuals[0], pairs.hvps + 1

        passes = (residual <= tolerance) & (sharpness > 0)
        found = image / jnp.linalg.norm(image), sharpness, residual, jnp.ones_like(k)
        vector, sharpness, residual, hvps = lax.cond(passes, lambda: found, refined)
        return Watched(
            state.theta - jnp.asarray(learning_rate, theta.dtype) * grad, followed_by(state.bases, vector[None].astype(state.bases.dtype)),
            state.losses.at[k].set(loss), state.gradient_norms.at[k].set(jnp.linalg.norm(grad)), state.sharpness.at[k].set(sharpness),
            state.residuals.at[k].set(residual), state.hvps.at[k].set(hvps),
            {name: state.readings[name].at[k].set(mean.loss(state.theta)) for name, mean in means.items()},
        )

    begun = Watched(theta, bases, blank, blank, blank, blank, blank, dict.fromkeys(means, blank))
    return lax.fori_loop(0, steps, step, begun)
