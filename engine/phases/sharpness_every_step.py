"""Steps of an optimizer with the sharpness at each, many in one compiled call; with a preconditioner, the sharpness is that of P^-½HP^-½.

A step takes gradient and Hessian–vector product together (`tangent_pass`), the product along an eigenvector extrapolated from the last
ones (`predictor.likeliest`). The product gives S, the pair's residual, and the next eigenvector: it separates the top one from those whose
eigenvalues lie near (`companions`), and is a step of power iteration. Only where the residual asks is the eigenpair solved for; and now and
then, with a look around, as in `guards`: at a companion's own product, and at what a random row shows.

P changes at every step, and the eigenvector w of P^-½HP^-½ with it. What is handed on is P^½w, along HP^-½w: where one eigenvalue stands
alone H is λgg^T nearly, and P^½w goes along g whatever P is.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.companions import Companions, Separated, due, risen, separated, together
from engine.curvature.eigensolver import solve
from engine.curvature.predictor import likeliest
from engine.curvature.tangent_pass import TangentPass, value_grad_hvp
from engine.dynamics.descent import DESCENT_CHUNK
from engine.dynamics.optimizer import Optimizer, passed, unscaled
from engine.problems.problem import Problem, preconditioned
from engine.xla.jit import jit_by_format
from engine.xla.reductions import dots, norms

EVERY = 5
"""Steps between looks around at the companions together,"""
EXPLORING = 20
"""and at what a random row shows, with `EXPLORED` products more; half way between these, at one companion."""
EXPLORED = 2
ONWARD = 0.5
"""How far an eigenvector is extrapolated where P turns it. All of what it moved, as where P does not, would carry on the noise of the
tolerance, too: along eigenvectors whose eigenvalues lie near the largest nothing damps it."""
FURTHER = 1.7
"""Where P turns the eigenvector at every step, a residual beyond the tolerance by as much suffices,"""
ERROR = 1e-3
"""if the eigenvalue is off by no more than this, relatively, so far as the companions say."""


class Watched(NamedTuple):
    """Some steps of an optimizer: where they end, and what they passed. Entries beyond the steps taken are NaN."""

    theta: Array  # (p,)
    optimizer_state: Any
    eigenvector_history: Array  # (4, 1, p) P^½w of the last top eigenvectors w
    companions: Companions  # the same of the next eigenvectors, so far as they are known
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
    problem: Problem, optimizer: Optimizer, theta: Array, optimizer_state: Any, history: Array, companions: Companions, fresh: Array,
    first: int, steps: int, tolerance: float, means: dict[str, Problem],
) -> Watched:
    """`steps` ≤ DESCENT_CHUNK steps of the optimizer from step `first` on with the top eigenpair to a relative residual of `tolerance` at
    each, and `means` read there. Products are taken in θ's number format.

    Every `EVERY` steps a look around takes a product of all companions together, and the solver is started from any that has risen above
    the top. At every second look it is started from one companion in turn and from `fresh` (p,), by turns: a random vector that is turned
    round by the step, so that none of it depends on how steps are cut into calls.

    Steps whose product suffices go in a loop of their own, without the solver: beside it each would take an eighth longer. The companions
    stay as they are meanwhile. The eigenvectors lie in a ring, the next in place of the oldest, so that none is moved.
    """
    dtype, blank = theta.dtype, jnp.full(DESCENT_CHUNK, jnp.nan, theta.dtype)
    count, unturned = len(companions.values), optimizer.preconditioner is unscaled

    def read(state: Watched) -> tuple[Problem, Array | float]:
        """The loss whose Hessian is the one that the step before has left to be read, and the scale of its coordinates, P^-½."""
        if unturned:
            return problem, 1.0
        scaled = preconditioned(problem, optimizer.preconditioner(state.optimizer_state), dtype)
        return scaled, scaled.scale

    def around(k: Array) -> Array:
        return (first + k) % EVERY == 0

    def expected(k: Array, rows: Array) -> Array:
        oldest, three, two, newest = (rows[(k + place) % 4, 0].astype(dtype) for place in range(4))
        return likeliest((oldest, three, two, newest), 1.0 if unturned else ONWARD)

    def in_coordinates(known: Companions, scale: Array | float) -> Companions:
        return known._replace(vectors=scale * known.vectors)

    def stepped(k: Array, state: Watched, seen: Seen | TangentPass, vector: Array, pair: tuple[Array, Array, Array]) -> Watched:
        sharpness, residual, hvps = pair
        moved, following = optimizer.step(state.theta, state.optimizer_state, seen.grad, problem.gradient)
        rows = state.eigenvector_history
        return Watched(
            moved, following, lax.dynamic_update_index_in_dim(rows, vector[None].astype(rows.dtype), k % 4, 0), state.companions,
            state.losses.at[k].set(seen.loss), state.gradient_norms.at[k].set(seen.grad_norm),
            state.sharpness.at[k].set(sharpness), state.residuals.at[k].set(residual), state.hvps.at[k].set(hvps),
            {name: state.passed[name].at[k].set(value) for name, value in passed(optimizer, following).items()},
            {name: state.readings[name].at[k].set(mean.loss(state.theta)) for name, mean in means.items()},
        )

    def enough(residual: Array, seen_beside: Separated) -> Array:
        """The relative residual that a vector's may be, whose own is given, to be read as it is."""
        if unturned:
            return jnp.asarray(tolerance, dtype)
        return jnp.where(seen_beside.error(residual) <= ERROR, FURTHER * tolerance, tolerance).astype(dtype)

    def onward(carried: Carried) -> Carried:
        """A step, if its product suffices; else θ and the vectors stay, and what was written of the step is written anew."""
        k, state, _, _ = carried
        rows, (loss, scale) = state.eigenvector_history, read(state)
        seen = value_grad_hvp(loss, state.theta, scale * expected(k, rows))
        beside = separated(seen.vector[None], seen.image[None], in_coordinates(state.companions, scale), settled=True)
        suffices = seen.shows_eigenpair(enough(seen.residual, beside))
        vector = jnp.where(suffices, beside.vector / scale, rows[k % 4, 0].astype(dtype))
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
        start, others = scale * expected(k, state.eigenvector_history), in_coordinates(state.companions, scale)
        vector = jnp.where(looking, start / norms(start)[0], seen.vector)
        image = lax.cond(looking, lambda: product(vector), lambda: seen.image)
        beside, (quotient,) = separated(vector[None], image[None], others, settled=True), dots((vector, image))
        sufficient = enough(norms(image - quotient * vector)[0] / quotient, beside)
        # What is no look is a solve: the vector separated from its companions is then the row that helps most.
        shown = risen(others, lax.cond(looking, lambda: product(together(others)), lambda: jnp.zeros_like(vector)))
        above = jnp.max(shown) > quotient
        one = above | ((first + k) % EXPLORING == EXPLORING // 2)
        place = jnp.where(above, jnp.argmax(shown), due((first + k) // EXPLORING, count))
        random = jnp.roll(fresh, first + k).astype(dtype)
        looked_at = jnp.where(others.values[place] > 0, others.vectors[place], random)
        rows = jnp.stack([vector, jnp.where(looking, jnp.where(one, looked_at, random), beside.vector), random])
        looked, explored = jnp.where(looking, 1 + one + exploring, 2), jnp.where(exploring, EXPLORED, 0)
        pairs, images = solve(
            at, state.theta, rows, jnp.where(looking, sufficient, tolerance), wanted=1, looked=looked, explored=explored, image=image,
            product=product,
        )
        pair = pairs.sharpness, pairs.residuals[0], (pairs.hvps + 1 + looking).astype(dtype)
        # One step of power iteration on, as in a tangent pass: the noise of the tolerance, extrapolated, would ask for the next solve.
        replaced = looking & one & (jnp.arange(count) == place)
        others = Companions(jnp.where(replaced[:, None], 0, others.vectors), jnp.where(replaced, 0, others.values))
        beside = separated(pairs.vectors, images, others)
        moved = stepped(k, state, Seen(loss, grad, norms(grad)[0]), beside.vector / scale, pair)
        return k + 1, moved._replace(companions=in_coordinates(beside.companions, 1 / scale)), seen, jnp.array(True)

    def step_and_solve(carried: Carried) -> Carried:
        carried = lax.while_loop(lambda c: (c[0] < steps) & c[3] & ~around(c[0]), onward, carried)
        return lax.cond(carried[0] < steps, refined, lambda c: c, carried)

    zero = jnp.zeros((), dtype)
    left = dict.fromkeys(passed(optimizer, optimizer_state), jnp.full(DESCENT_CHUNK, jnp.nan))
    known = jax.tree.map(lambda each: each.astype(dtype), companions)
    start = Watched(theta, optimizer_state, history, known, blank, blank, blank, blank, blank, left, dict.fromkeys(means, blank))
    nothing = TangentPass(zero, theta, zero, theta, theta, zero, zero)
    taken, state, _, _ = lax.while_loop(lambda c: c[0] < steps, step_and_solve, (jnp.zeros((), int), start, nothing, jnp.array(True)))
    return state._replace(eigenvector_history=jnp.roll(state.eigenvector_history, -(taken % 4), axis=0))
