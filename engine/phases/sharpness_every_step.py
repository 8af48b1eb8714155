"""Steps of an optimizer with the sharpness at each, many in one compiled call; with a preconditioner, the sharpness is that of P^-½HP^-½.

A step takes gradient and Hessian–vector product together (`tangent_pass`), the product along an eigenvector extrapolated from the last
ones (`predictor.likeliest`). The product gives S, the pair's residual, and the next eigenvector: it separates the top one from those whose
eigenvalues lie near (`companions`), and is a step of power iteration. Only where the residual asks is the eigenpair solved for; and now and
then, with a look around, as in `guards`: at all companions and a random row in one product, and at what has risen in it.

P changes at every step, and the eigenvector w of P^-½HP^-½ with it. What is handed on is P^½w, along HP^-½w: where one eigenvalue stands
alone H is λgg^T nearly, and P^½w goes along g whatever P is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.companions import Companions, Separated, Trial, mixture, next_trial, outside, risen, separated, tried
from engine.curvature.eigensolver import solve
from engine.curvature.predictor import likeliest
from engine.curvature.tangent_pass import TangentPass, value_grad_hvp
from engine.dynamics.descent import DESCENT_CHUNK
from engine.dynamics.optimizer import Optimizer, passed, unscaled
from engine.problems.problem import Problem, preconditioned
from engine.xla.jit import jit_by_format
from engine.xla.reductions import dots, norms

EVERY = 5
"""Steps between looks around, each of which takes a product of all companions and the scout together, and one along what has risen."""
SCOUTING = 4
"""Looks from one random vector to the next, the scout."""
ANOTHER = 0.5
"""Of the square of an eigenvector so much must lie along the one expected, for it to be the same one."""
AGAIN = 2
"""Further products of a step between looks, each along the vector that the last one has separated and in a pass of its own, the companions
as they are,"""
ALIKE = 2e-3
"""so long as the shortfall is no more than this, relatively: beyond, one of them has overtaken, and they are to know of the former top one.
More products are taken at one linearization, and separate the companions, too:"""
TRIALS = 4
"""at most so many of these, before the eigenpair is solved for."""
ONWARD = 0.5
"""How far an eigenvector is extrapolated where P turns it. All of what it moved, as where P does not, would carry on the noise of the
tolerance, too: along eigenvectors whose eigenvalues lie near the largest nothing damps it."""
FURTHER = 4.0
"""Where P turns the eigenvector at every step, a residual beyond the tolerance by as much suffices,"""
ERROR = 5e-4
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
"""Steps taken, where they led, what was seen last, and how many products of the next step have not sufficed."""


@partial(jit_by_format, place=2, static_argnames=("optimizer",))
def descend(
    problem: Problem, optimizer: Optimizer, theta: Array, optimizer_state: Any, history: Array, companions: Companions, fresh: Array,
    first: int, steps: int, tolerance: float, means: dict[str, Problem],
) -> Watched:
    """`steps` ≤ DESCENT_CHUNK steps of the optimizer from step `first` on with the top eigenpair to a relative residual of `tolerance` at
    each, and `means` read there. Products are taken in θ's number format.

    Every `EVERY` steps a look around takes a product of all companions together, and another along what has risen in them. The scout begins
    anew as `fresh` (p,): a random vector that is turned round by the step, so that none of it depends on how steps are cut into calls.

    Steps between looks go in a loop of their own, without the solver: beside it each would take an eighth longer. The companions stay as
    they are meanwhile. The eigenvectors lie in a ring, the next in place of the oldest, so that none is moved; one that overtakes is in all
    places, as extrapolated from the former it would alternate with that. Where a product does not
    suffice, the vector that it separates has the next one, twice in that loop, then with what that shows of the companions; only where some
    of these have not sufficed either the eigenpair is solved for: a Krylov space would first have to tell apart again what the companions
    tell apart.
    """
    dtype, blank = theta.dtype, jnp.full(DESCENT_CHUNK, jnp.nan, theta.dtype)
    unturned = optimizer.preconditioner is unscaled

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
        return known._replace(vectors=scale * known.vectors, scout=scale * known.scout)

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
        """A step, if its product suffices; else θ stays, and the vector that the product has separated is the next to be tried."""
        k, state, _, failed = carried
        loss, scale = read(state)
        rows = state.eigenvector_history
        vector = jnp.where(failed > 0, rows[k % 4, 0].astype(dtype), expected(k, rows))
        seen = value_grad_hvp(loss, state.theta, scale * vector)
        beside = separated(seen.vector[None], seen.image[None], in_coordinates(state.companions, scale), settled=True)
        suffices = seen.shows_eigenpair(enough(seen.residual, beside))
        moved = stepped(k, state, seen, beside.vector / scale, (seen.sharpness, seen.residual, (1 + failed).astype(dtype)))
        kept = {
            name: jax.tree.map(lambda new, old: jnp.where(suffices, new, old), getattr(moved, name), getattr(state, name))
            for name in ("theta", "optimizer_state")
        }
        alike = beside.shortfall <= ALIKE
        return k + suffices, moved._replace(**kept), seen, jnp.where(suffices, 0, jnp.where(alike, failed, AGAIN) + 1)

    def look(product: Callable[[Array], Array], vector: Array, known: Companions, step: Array) -> tuple[Trial, Array]:
        """What a look shows beside the expected vector (p,), and the scout (1, p) after it.

        One product of all companions and the scout together, and one along what that shows to have risen.
        """
        vector = vector / norms(vector)[0]
        image, turn = product(vector), step // EVERY
        anew = (turn % SCOUTING == 0) | ~jnp.any(known.scout)
        known = known._replace(scout=jnp.where(anew, jnp.roll(fresh, step).astype(dtype)[None], known.scout))
        (sharpness,) = dots((vector, image))
        mixed = mixture(known, vector, turn)
        shown = product(mixed)
        row = outside(risen(known, mixed, shown, sharpness), [vector, mixed])
        beside = separated(jnp.stack([vector, mixed, row]), jnp.stack([image, shown, product(row)]), known)
        return tried(vector, image, beside, jnp.asarray(3, dtype)), shown[None]

    def refined(carried: Carried) -> Carried:
        """The step whose product did not suffice, or that looks around for a larger eigenvalue, with the eigenpair solved for where that
        shows one or the product does not suffice."""
        k, state, seen, failed = carried
        at, scale = read(state)
        loss, grad, product = at.linearized_at(state.theta)
        known = lax.optimization_barrier(in_coordinates(state.companions, scale))
        before = expected(k, state.eigenvector_history)

        def looked() -> tuple[Trial, Array]:
            return look(product, scale * before, known, first + k)

        def tried_before() -> tuple[Trial, Array]:
            beside = separated(seen.vector[None], seen.image[None], known)
            return tried(seen.vector, seen.image, beside, failed.astype(dtype)), known.scout

        trial, scout = lax.cond(around(k), looked, tried_before)

        def unsettled(trial: Trial) -> Array:
            suffices = (trial.sharpness > 0) & (trial.residual <= enough(trial.residual, trial.beside)) & (trial.beside.shortfall <= ERROR)
            return ~suffices

        def solved(trial: Trial) -> tuple[Array, Companions, tuple[Array, Array, Array]]:
            rows = jnp.stack([trial.vector, trial.beside.vector])
            pairs, images = solve(at, state.theta, rows, tolerance, wanted=1, looked=2, image=trial.image, product=product)
            # One step of power iteration on, as in a tangent pass: the noise of the tolerance, extrapolated, would ask for the next solve.
            after = separated(pairs.vectors, images, trial.beside.companions)
            return after.vector, after.companions, (pairs.sharpness, pairs.residuals[0], pairs.hvps + trial.hvps)

        def read_off(trial: Trial) -> tuple[Array, Companions, tuple[Array, Array, Array]]:
            return trial.beside.vector, trial.beside.companions, (trial.sharpness, trial.residual, trial.hvps)

        last = trial.hvps + TRIALS
        trial = lax.while_loop(lambda trial: unsettled(trial) & (trial.hvps < last), partial(next_trial, product), trial)
        vector, others, pair = lax.cond(unsettled(trial), solved, read_off, trial)
        vector = vector / scale
        moved = stepped(k, state, Seen(loss, grad, norms(grad)[0]), vector, pair)
        along, square, square_before = dots((vector, before), (vector, vector), (before, before))
        another = along**2 < ANOTHER * square * square_before
        rows = jnp.where(another, vector.astype(moved.eigenvector_history.dtype), moved.eigenvector_history)
        others = in_coordinates(others._replace(scout=scout), 1 / scale)
        return k + 1, moved._replace(eigenvector_history=rows, companions=others), seen, jnp.zeros((), int)

    def step_and_solve(carried: Carried) -> Carried:
        carried = lax.while_loop(lambda c: (c[0] < steps) & (c[3] <= AGAIN) & ~around(c[0]), onward, carried)
        return lax.cond(carried[0] < steps, refined, lambda c: c, carried)

    zero = jnp.zeros((), dtype)
    left = dict.fromkeys(passed(optimizer, optimizer_state), jnp.full(DESCENT_CHUNK, jnp.nan))
    known = jax.tree.map(lambda each: each.astype(dtype), companions)
    start = Watched(theta, optimizer_state, history, known, blank, blank, blank, blank, blank, left, dict.fromkeys(means, blank))
    nothing = TangentPass(zero, theta, zero, theta, theta, zero, zero)
    taken, state, _, _ = lax.while_loop(lambda c: c[0] < steps, step_and_solve, (jnp.zeros((), int), start, nothing, jnp.zeros((), int)))
    return state._replace(eigenvector_history=jnp.roll(state.eigenvector_history, -(taken % 4), axis=0))
