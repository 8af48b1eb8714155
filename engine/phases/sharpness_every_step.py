"""Gradient descent with the sharpness at every step, many steps in one compiled call.

A step takes gradient and Hessian–vector product together (`glance`), the product along an eigenvector extrapolated from those of two
and four steps ago: at the edge gradient descent alternates. The product gives S, the pair's residual, and by one step of power
iteration the next eigenvector. Only where the residual asks is the eigenpair solved for; and now and then, with a look around (`guards`).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.eigensolver import solve
from engine.curvature.tangent_pass import Glance, glance
from engine.dynamics.trajectories import DESCENT_CHUNK
from engine.phases.coupled import extrapolated
from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format
from engine.xla.reductions import norms

EVERY = 5
"""Steps between looks around: at the guard,"""
EXPLORING = 20
"""and at what a random row shows, with `EXPLORED` products more, at every fourth of them."""
EXPLORED = 3


class Watched(NamedTuple):
    """Some steps of gradient descent: where they end, and what they passed. Entries beyond the steps taken are NaN."""

    theta: Array  # (p,)
    bases: Array  # (4, 1, p) the last top eigenvectors
    guard: Array  # (p,) the next eigenvector, so far as it is known
    losses: Array  # (DESCENT_CHUNK,) L before each step
    gradient_norms: Array
    sharpness: Array
    residuals: Array  # ‖Hu−Su‖/S
    hvps: Array  # products that each step took
    readings: dict[str, Array]  # each (DESCENT_CHUNK,)


Carried = tuple[Array, Watched, Glance, Array]
"""Steps taken, where they led, what was seen last, and whether that sufficed."""


@jit_by_format
def descend(
    problem: Problem, theta: Array, bases: Array, guard: Array, fresh: Array, first: int, learning_rate: float, steps: int,
    tolerance: float, means: dict[str, Problem],
) -> Watched:
    """`steps` ≤ DESCENT_CHUNK steps of θ ← θ − η∇L(θ) from step `first` on with the top eigenpair to a relative residual of `tolerance` at
    each, and `means` read there. Products are taken in θ's number format.

    Every `EVERY` steps the solver is started from the eigenvector and the `guard`, now and then from `fresh` (p,) too, a random vector that
    is turned round by the step, so that none of it depends on how steps are cut into calls. Steps whose product suffices go in a loop of
    their own, without the solver: beside it each would take an eighth longer. Their eigenvectors lie in a ring, the next in place of the
    oldest, so that none is moved.
    """
    dtype, blank = theta.dtype, jnp.full(DESCENT_CHUNK, jnp.nan, theta.dtype)

    def around(k: Array) -> Array:
        return (first + k) % EVERY == 0

    def stepped(k: Array, state: Watched, seen: Glance, vector: Array, pair: tuple[Array, Array, Array]) -> Watched:
        sharpness, residual, hvps = pair
        return Watched(
            state.theta - jnp.asarray(learning_rate, dtype) * seen.grad,
            lax.dynamic_update_index_in_dim(state.bases, vector[None].astype(state.bases.dtype), k % 4, 0), state.guard,
            state.losses.at[k].set(seen.loss), state.gradient_norms.at[k].set(seen.grad_norm),
            state.sharpness.at[k].set(sharpness), state.residuals.at[k].set(residual), state.hvps.at[k].set(hvps),
            {name: state.readings[name].at[k].set(mean.loss(state.theta)) for name, mean in means.items()},
        )

    def onward(carried: Carried) -> Carried:
        """A step, if its product suffices; else θ and the vectors stay, and what was written of the step is written anew."""
        k, state, _, _ = carried
        seen = glance(problem, state.theta, extrapolated(state.bases[k % 4], state.bases[(k + 2) % 4])[0].astype(dtype))
        suffices = seen.shows_eigenpair(tolerance) & ~around(k)
        vector = jnp.where(suffices, seen.sharpened, state.bases[k % 4, 0].astype(dtype))
        moved = stepped(k, state, seen, vector, (seen.sharpness, seen.residual, jnp.ones((), dtype)))
        return k + suffices, moved._replace(theta=jnp.where(suffices, moved.theta, state.theta)), seen, suffices

    def refined(carried: Carried) -> Carried:
        """The step whose product did not suffice, with the eigenpair solved for, and looked around for a larger one."""
        k, state, seen, _ = carried
        rows = jnp.stack([seen.vector, state.guard.astype(dtype), jnp.roll(fresh, first + k).astype(dtype)])
        exploring = (first + k) % EXPLORING == 0
        looked, explored = jnp.where(exploring, 3, jnp.where(around(k), 2, 1)), jnp.where(exploring, EXPLORED, 0)
        pairs, images = solve(problem, state.theta, rows, tolerance, wanted=1, looked=looked, explored=explored)
        pair = pairs.sharpness, pairs.residuals[0], (pairs.hvps + 1).astype(dtype)
        # One step of power iteration on, as `glance` hands it out: the noise of the tolerance, extrapolated, would ask for the next solve.
        advanced = images[0], images[min(1, len(images) - 1)]
        vector, guard = (image / jnp.maximum(norms(image)[0], jnp.finfo(dtype).tiny) for image in advanced)
        moved = stepped(k, state, seen, vector, pair)
        guard = jnp.where(around(k), guard.astype(state.guard.dtype), state.guard)
        return k + 1, moved._replace(guard=guard), seen, jnp.array(True)

    def stretch(carried: Carried) -> Carried:
        carried = lax.while_loop(lambda c: (c[0] < steps) & c[3], onward, carried)
        return lax.cond(carried[3], lambda c: c, refined, carried)

    zero = jnp.zeros((), dtype)
    begun = Watched(theta, bases, guard, blank, blank, blank, blank, blank, dict.fromkeys(means, blank))
    nothing = Glance(zero, theta, zero, theta, theta, zero, zero)
    taken, state, _, _ = lax.while_loop(lambda c: c[0] < steps, stretch, (jnp.zeros((), int), begun, nothing, jnp.array(True)))
    return state._replace(bases=jnp.roll(state.bases, -(taken % 4), axis=0))
