"""Steps of an optimizer with the sharpness at each, many in one compiled call; with a preconditioner, the sharpness is that of P^-½HP^-½.

A step takes gradient and Hessian–vector product together (`tangent_pass`), the product along an eigenvector extrapolated from the last
ones (`predictor.likeliest`). The product gives S, the pair's residual, and by one step of power iteration the next eigenvector. Only where
the residual asks is the eigenpair solved for; and now and then, with a look around (`guards`).

P changes at every step, and the eigenvector w of P^-½HP^-½ with it. What is handed on is P^½w, along HP^-½w: where one eigenvalue stands
alone H is λgg^T nearly, and P^½w goes along g whatever P is.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.eigensolver import solve
from engine.curvature.predictor import likeliest
from engine.curvature.tangent_pass import TangentPass, value_grad_hvp
from engine.dynamics.descent import DESCENT_CHUNK
from engine.dynamics.optimizer import Optimizer, passed, unscaled
from engine.problems.problem import Problem, preconditioned
from engine.xla.jit import jit_by_format
from engine.xla.reductions import norms

EVERY = 5
"""Steps between looks around: at the guard,"""
EXPLORING = 20
"""and at what a random row shows, with `EXPLORED` products more, at every fourth of them."""
EXPLORED = 3


class Watched(NamedTuple):
    """Some steps of an optimizer: where they end, and what they passed. Entries beyond the steps taken are NaN."""

    theta: Array  # (p,)
    optimizer_state: Any
    eigenvector_history: Array  # (4, 1, p) P^½w of the last top eigenvectors w
    guard: Array  # (p,) the same of the next eigenvector, so far as it is known
    losses: Array  # (DESCENT_CHUNK,) L before each step
    gradient_norms: Array
    sharpness: Array
    residuals: Array  # ‖Hu−Su‖/S
    hvps: Array  # products that each step took
    passed: dict[str, Array]  # each (DESCENT_CHUNK,): `optimizer.passed`
    readings: dict[str, Array]  # each (DESCENT_CHUNK,)


class Seen(NamedTuple):
    """What a step of the optimizer takes, and what it records of θ."""

    loss: Array
    grad: Array  # (p,)
    grad_norm: Array


Carried = tuple[Array, Watched, TangentPass, Array]
"""Steps taken, where they led, what was seen last, and whether that sufficed."""


@partial(jit_by_format, place=2, static_argnames=("optimizer",))
def descend(
    problem: Problem, optimizer: Optimizer, theta: Array, optimizer_state: Any, history: Array, guard: Array, fresh: Array, first: int,
    steps: int, tolerance: float, means: dict[str, Problem],
) -> Watched:
    """`steps` ≤ DESCENT_CHUNK steps of the optimizer from step `first` on with the top eigenpair to a relative residual of `tolerance` at
    each, and `means` read there. Products are taken in θ's number format.

    Every `EVERY` steps the solver is started from the eigenvector and the `guard`, now and then from `fresh` (p,) too, a random vector that
    is turned round by the step, so that none of it depends on how steps are cut into calls. Steps whose product suffices go in a loop of
    their own, without the solver: beside it each would take an eighth longer. Their eigenvectors lie in a ring, the next in place of the
    oldest, so that none is moved.
    """
    dtype, blank = theta.dtype, jnp.full(DESCENT_CHUNK, jnp.nan, theta.dtype)

    def read(state: Watched) -> tuple[Problem, Array | float]:
        """The loss whose Hessian is the one that the step before has left to be read, and the scale of its coordinates, P^-½."""
        if optimizer.preconditioner is unscaled:
            return problem, 1.0
        scaled = preconditioned(problem, optimizer.preconditioner(state.optimizer_state), dtype)
        return scaled, scaled.scale

    def around(k: Array) -> Array:
        return (first + k) % EVERY == 0

    def expected(k: Array, rows: Array) -> Array:
        oldest, three, two, newest = (rows[(k + place) % 4, 0].astype(dtype) for place in range(4))
        return likeliest((oldest, three, two, newest))

    def stepped(k: Array, state: Watched, seen: Seen | TangentPass, vector: Array, pair: tuple[Array, Array, Array]) -> Watched:
        sharpness, residual, hvps = pair
        moved, following = optimizer.step(state.theta, state.optimizer_state, seen.grad, problem.gradient)
        rows = state.eigenvector_history
        return Watched(
            moved, following, lax.dynamic_update_index_in_dim(rows, vector[None].astype(rows.dtype), k % 4, 0), state.guard,
            state.losses.at[k].set(seen.loss), state.gradient_norms.at[k].set(seen.grad_norm),
            state.sharpness.at[k].set(sharpness), state.residuals.at[k].set(residual), state.hvps.at[k].set(hvps),
            {name: state.passed[name].at[k].set(value) for name, value in passed(optimizer, following).items()},
            {name: state.readings[name].at[k].set(mean.loss(state.theta)) for name, mean in means.items()},
        )

    def onward(carried: Carried) -> Carried:
        """A step, if its product suffices; else θ and the vectors stay, and what was written of the step is written anew."""
        k, state, _, _ = carried
        rows, (loss, scale) = state.eigenvector_history, read(state)
        seen = value_grad_hvp(loss, state.theta, scale * expected(k, rows))
        suffices = seen.shows_eigenpair(tolerance)
        vector = jnp.where(suffices, seen.power_step / scale, rows[k % 4, 0].astype(dtype))
        moved = stepped(k, state, seen, vector, (seen.sharpness, seen.residual, jnp.ones((), dtype)))
        kept = {
            name: jax.tree.map(lambda new, old: jnp.where(suffices, new, old), getattr(moved, name), getattr(state, name))
            for name in ("theta", "optimizer_state")
        }
        return k + suffices, moved._replace(**kept), seen, suffices

    def refined(carried: Carried) -> Carried:
        """The step whose product did not suffice, or that looks around for a larger eigenvalue, with the eigenpair solved for."""
        k, state, seen, _ = carried
        at, scale = read(state)
        loss, grad, product = at.linearized_at(state.theta)
        looking, exploring = around(k), (first + k) % EXPLORING == 0
        start = scale * expected(k, state.eigenvector_history)
        vector = jnp.where(looking, start / norms(start)[0], seen.vector)
        image = lax.cond(looking, lambda: product(vector), lambda: seen.image)
        rows = jnp.stack([vector, scale * state.guard.astype(dtype), jnp.roll(fresh, first + k).astype(dtype)])
        looked, explored = jnp.where(exploring, 3, jnp.where(looking, 2, 1)), jnp.where(exploring, EXPLORED, 0)
        pairs, images = solve(
            at, state.theta, rows, tolerance, wanted=1, looked=looked, explored=explored, image=image, product=product
        )
        pair = pairs.sharpness, pairs.residuals[0], (pairs.hvps + 1).astype(dtype)
        # One step of power iteration on, as in a tangent pass: the noise of the tolerance, extrapolated, would ask for the next solve.
        advanced = images[0], images[min(1, len(images) - 1)]
        vector, guard = (each / jnp.maximum(norms(each)[0], jnp.finfo(dtype).tiny) / scale for each in advanced)
        moved = stepped(k, state, Seen(loss, grad, norms(grad)[0]), vector, pair)
        guard = jnp.where(looking, guard.astype(state.guard.dtype), state.guard)
        return k + 1, moved._replace(guard=guard), seen, jnp.array(True)

    def step_and_solve(carried: Carried) -> Carried:
        carried = lax.while_loop(lambda c: (c[0] < steps) & c[3] & ~around(c[0]), onward, carried)
        return lax.cond(carried[0] < steps, refined, lambda c: c, carried)

    zero = jnp.zeros((), dtype)
    left = dict.fromkeys(passed(optimizer, optimizer_state), jnp.full(DESCENT_CHUNK, jnp.nan))
    start = Watched(theta, optimizer_state, history, guard, blank, blank, blank, blank, blank, left, dict.fromkeys(means, blank))
    nothing = TangentPass(zero, theta, zero, theta, theta, zero, zero)
    taken, state, _, _ = lax.while_loop(lambda c: c[0] < steps, step_and_solve, (jnp.zeros((), int), start, nothing, jnp.array(True)))
    return state._replace(eigenvector_history=jnp.roll(state.eigenvector_history, -(taken % 4), axis=0))
