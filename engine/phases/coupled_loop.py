"""Coupled steps put together out of their parts (`coupled`): many as one compiled call, or one at a time.

Where the Hessian is formed, small problems, `advance` takes many steps in one call, up to the first that the host has to look at; how
many makes no difference to what they give. Elsewhere `one` calls parts that are compiled each for itself and shared with the
approach: inlined into one function they would take five times as long to compile, and run no faster on a CPU.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature import guards
from engine.curvature.eigensolver import solve_at
from engine.curvature.expansion import Normals, Point, TaylorCenter, loss_along, loss_and_gradient, measure_all, normals, taylor_center
from engine.curvature.guards import Guards
from engine.curvature.tangent_pass import Glance, glance
from engine.dynamics.trajectories import AlongU, Places, places
from engine.phases.coupled import (
    DIVERGED,
    GROW,
    LOOSE_TOLERANCE,
    ON,
    UNSOLVED,
    Moving,
    OnFlow,
    Plan,
    Readings,
    Rules,
    Tried,
    ahead,
    ahead_on_flow,
    aim,
    arrive,
    flow_is_due,
    judge,
    known,
    leave,
    sharpened,
    stay,
)
from engine.problems.problem import Problem
from engine.spec import FOLLOWED_FROM
from engine.xla.reductions import norms

CHUNK = 512
"""Most steps in one compiled call."""
CHORDS = 2
"""Projections along the last centre's normals before one takes its own."""


def advance(
    problem: Problem, plan: Plan, rules: Rules, state: Moving, limit: int, alone: bool = False
) -> tuple[Moving, Readings, int]:
    """At most `limit` ≤ CHUNK steps as one compiled call: where they lead, what they read, and what the last came to.

    `alone` leaves θ† where it is, and takes one step.
    """
    moved, read, verdict = _advance(problem, plan, rules, state, np.array(limit), alone)
    found = int(verdict)
    if found >= GROW:  # the last is not to be taken: the others once more, which is rare, rather than a choice at every step
        taken = int(read.count) - (found == UNSOLVED)
        moved = _advance(problem, plan, rules, state, np.array(taken), alone)[0] if taken else state
    return moved, read, found


@partial(jax.jit, static_argnames=("plan", "alone"))
def _advance(
    problem: Problem, plan: Plan, rules: Rules, state: Moving, limit: Array, alone: bool
) -> tuple[Moving, Readings, Array]:
    names: tuple[str, ...] = ()

    def whole(state: Moving) -> tuple[Moving, Array, Array]:
        nonlocal names
        moved, read, verdict = _step(problem, plan, rules, state, alone)
        names = read.names
        return moved, read.values[0], verdict

    def body(carried: tuple[Moving, Array, Array, Array]) -> tuple[Moving, Array, Array, Array]:
        state, rows, count, _ = carried
        state, row, verdict = whole(state)
        told = (verdict != GROW) & (verdict != DIVERGED)
        return state, rows.at[count].set(row), count + told, verdict

    def more(carried: tuple[Moving, Array, Array, Array]) -> Array:
        return (carried[2] < limit) & (carried[3] == ON)

    width = jax.eval_shape(whole, state)[1].size
    begun = (state, jnp.full((CHUNK, width), jnp.nan), jnp.array(0), jnp.array(ON))
    state, rows, count, verdict = lax.while_loop(more, body, begun)
    return state, Readings(rows, count, names), verdict


def _step(problem: Problem, plan: Plan, rules: Rules, state: Moving, alone: bool) -> tuple[Moving, Readings, Array]:
    """`one` from its beginning, with jax's own loops in place of Python's."""
    dtype = plan.curvature

    def attempt(tried: Tried) -> Tried:
        measured = measure_all(problem, tried.aim, tried.start, rules.eigen_tolerance, dtype)
        afresh = tried.taken >= CHORDS
        newest = lax.cond(afresh, lambda: normals(problem, measured[0], dtype), lambda: tried.normals)
        return judge(rules, tried, measured, newest, afresh)

    measured = measure_all(problem, state.theta, ahead(state), LOOSE_TOLERANCE, dtype)
    here = None
    if state.flow.size:
        at, u = ahead_on_flow(state, dtype)
        here = _solved_on_flow(problem, state, at, u, *loss_and_gradient(problem, at))
    passed = leave(problem, plan, rules, state, measured, here, *_places(problem, plan, state))
    if alone:
        return stay(passed)
    tried = lax.while_loop(lambda tried: ~tried.done, attempt, attempt(aim(rules, state)))
    newest = lax.cond(tried.afresh, lambda: tried.normals, lambda: normals(problem, tried.point, dtype))
    moved, read, verdict = arrive(plan, rules, state, passed, tried, newest)
    above = measured[0].eigen.values[-1] * rules.learning_rate > FOLLOWED_FROM
    grow = above & (state.bases.shape[1] < plan.most_eigenvalues) & (verdict != DIVERGED)
    return moved, read, jnp.where(grow, GROW, verdict)


class Begun(NamedTuple):
    """What is measured first where the next θ† is expected, under way: it needs nothing of gradient descent."""

    tried: Tried
    measured: tuple[Point, Array]
    guards: Guards


def begin(problem: Problem, plan: Plan, rules: Rules, state: Moving, fresh: Array | None) -> Begun:
    """Have the device begin with what `one` waits for first; with random rows (`guards.FRESH`, p) it looks around."""
    tried, tolerance, dtype = aim(rules, state), rules.eigen_tolerance, plan.curvature
    if fresh is None:
        return Begun(tried, measure_all(problem, tried.aim, tried.start, tolerance, dtype), state.guards)
    return Begun(tried, *guards.measure_around(problem, tried.aim, tried.start, state.guards, fresh, tolerance, dtype))


def one(
    problem: Problem, plan: Plan, rules: Rules, state: Moving, measured: tuple[Point, Array], begun: Begun | None, around: bool
) -> tuple[Moving, Readings, Array]:
    """One step from what is `measured` at gradient descent's θ, out of functions that are compiled each for itself.

    The host waits twice or three times, for a glance at the flow and for projections. Without one `begun`, θ† stays where it is.
    `around`: the flow looks around.
    """
    dtype = plan.curvature
    flow = _look_on_flow(problem, rules, state, dtype, around)
    places = _places(problem, plan, state)
    tried = begun and judge(rules, begun.tried, begun.measured, begun.tried.normals, False)
    passed = leave(problem, plan, rules, state, measured, flow and _found_on_flow(problem, state, *flow), *places)
    if tried is None or begun is None:
        return stay(passed)
    tried = settle(problem, rules, tried, dtype)
    moved, read, verdict = arrive(plan, rules, state, passed, tried, _newest(problem, tried, dtype))
    return moved._replace(guards=begun.guards), read, verdict


def _look_on_flow(problem: Problem, rules: Rules, state: Moving, dtype: str, around: bool) -> tuple[Array, Glance | OnFlow] | None:
    """θ of the flow and what is seen there, under way: a glance where its sharpness is due, or a look `around`."""
    if not state.flow.size:
        return None
    at, u = ahead_on_flow(state, dtype)
    due = flow_is_due(rules, int(state.step))
    if due and not around:
        return at, glance(problem, at, u)
    loss, grad = loss_and_gradient(problem, at)
    if not due:
        return at, OnFlow(loss, grad, state.flow_sharpness, u, state.flow_guard, 0)
    rows = _rows_on_flow(state, u)
    pairs, images = solve_at(problem, at, rows, LOOSE_TOLERANCE, dtype, wanted=1, looked=3)
    vectors = sharpened(pairs, images)
    return at, OnFlow(loss, grad, pairs.sharpness, vectors[0], vectors[1], pairs.hvps)


@jax.jit
def _rows_on_flow(state: Moving, u: Array) -> Array:
    """What a look on the flow starts from, in as many rows as a look at θ† has: its own two vectors, and what θ† knows beside them."""
    best, _ = guards.unseen((u / norms(u)[0])[None], *known(state))
    return guards.with_another(jnp.stack([u, state.flow_guard.astype(u.dtype)]), best)


def _found_on_flow(problem: Problem, state: Moving, at: Array, seen: Glance | OnFlow) -> OnFlow:
    """What is known there at last: the host waits for the glance, and has the eigenpair solved for where it does not show it."""
    if isinstance(seen, OnFlow):
        return seen
    if seen.shows_eigenpair(LOOSE_TOLERANCE):
        return OnFlow(seen.loss, seen.grad, seen.sharpness, seen.sharpened, state.flow_guard, 1)
    return _solved_on_flow(problem, state, at, seen.vector, seen.loss, seen.grad, 1)


def _solved_on_flow(problem: Problem, state: Moving, at: Array, u: Array, loss: Array, grad: Array, hvps: int = 0) -> OnFlow:
    """With the eigenpair solved for from u, after so many products."""
    pairs, images = solve_at(problem, at, jnp.stack([u, u]), LOOSE_TOLERANCE, str(at.dtype), wanted=1)
    return OnFlow(loss, grad, pairs.sharpness, sharpened(pairs, images)[0], state.flow_guard, pairs.hvps + hvps)


def settle(problem: Problem, rules: Rules, tried: Tried, dtype: str, afresh: bool = False) -> Tried:
    """Linearised projections until one is done, each from the newest normals at hand: those of the last centre for the first two, so that
    a step usually takes them once, or such as are taken `afresh` each time."""
    while not tried.done:
        measured = measure_all(problem, tried.aim, tried.start, rules.eigen_tolerance, dtype)
        again = afresh or int(tried.taken) >= CHORDS
        tried = judge(rules, tried, measured, normals(problem, measured[0], dtype) if again else tried.normals, again)
    return tried


def center_of(problem: Problem, tried: Tried, previous_u: Array, dtype: str) -> TaylorCenter:
    """The expansion where projections ended."""
    return taylor_center(tried.point, _newest(problem, tried, dtype), previous_u)


def _newest(problem: Problem, tried: Tried, dtype: str) -> Normals:
    return tried.normals if tried.afresh else normals(problem, tried.point, dtype)


def _places(problem: Problem, plan: Plan, state: Moving) -> tuple[Places, AlongU]:
    """Where gradient descent and the predictions are about θ†, and the loss along u where the generalized one is: at θ† where it is not
    followed. F' and F'' are read in θ's own format: near x⋆ = 0 they are small differences."""
    center = state.center
    found = places(center, state.theta - center.theta, state.predictions)
    if "generalized" not in plan.forms:
        return found, AlongU(center.loss, center.grad_along_u, center.sharpness)
    return found, AlongU(*loss_along(problem, found.along, center.top_eigenvector))
