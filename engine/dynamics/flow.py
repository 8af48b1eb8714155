"""Gradient flow θ' = −∇L(θ) from the edge on.

It starts at θ†_0, where the paper's other trajectories part from; in the authors' code it starts at gradient descent's θ, as it does here
with `tracking.flow_start = "descent"`.

Where we depart from the paper, which takes ⌈ηS⌉ Euler steps for a step of time η: a substep h with hS ≤ 3 is two gradients,
θ ← θ − h∇L(θ − ch∇L(θ)), which is the midpoint rule where that is stable. Up to ηS = 3 a step takes two gradients for three, and up to 6
four for as many as six; it is nearer to the flow but for ηS in 2.7 to 3, where e^−hλ is missed by up to 1.2 times as much. With an S
of an earlier step (`tracking.flow_sharpness_every`) steps are the paper's, which stay stable while it doubles.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature import guards
from engine.curvature.eigensolver import LOOSE_TOLERANCE, Eigenpairs, forms_hessian, sharpness_at, solve, solve_at
from engine.curvature.expansion import loss_and_gradient
from engine.curvature.guards import Guards, Known
from engine.curvature.halves import halved, whole
from engine.curvature.predictor import power_step, turn_between
from engine.curvature.tangent_pass import value_grad_hvp
from engine.dynamics.trajectory import Beginning, Costs, Row, StepContext, Trajectory
from engine.problems.problem import Problem
from engine.spec import CoupledTracking
from engine.xla.jit import jit_by_format
from engine.xla.leaves import Earlier
from engine.xla.reductions import norms

SPAN = 3.0
"""Largest hS of a substep h of two gradients."""
LOOKED = 3
"""Rows that a look starts from: two of the flow's own, and one that θ† knows."""
SHORTENED = 0.9
"""chS of the first of its gradients beyond hS = 1.8, where c = ½ would come near to what it is stable to, hS = 2."""


class FlowState(NamedTuple):
    """Where gradient flow is."""

    theta: Array  # (p,)
    eigenvector: Annotated[Array, Earlier(lambda leaves: leaves["eigenvectors"][1])]  # (p,) its top one at the last reading,
    turn: Annotated[Array, Earlier(lambda leaves: halved(turn_between(*map(jnp.asarray, leaves["eigenvectors"]))))]
    """(p,) `halved`, and what it had turned by since the reading before"""
    sharpness: Array  # () at the last reading
    beyond: Annotated[Array, Earlier(lambda leaves: halved(leaves["guard"]))]
    """(p,) `halved`, the next eigenvector, so far as it is known"""

    @property
    def guard(self) -> Array:
        """The next eigenvector, (p,)."""
        return whole(self.beyond, self.eigenvector.dtype)

    @property
    def expected(self) -> Array:
        """What the top eigenvector is expected to be, (p,): as far on as it turned."""
        return self.eigenvector + whole(self.turn, self.eigenvector.dtype)


class OnFlow(NamedTuple):
    """What is measured at the θ where gradient flow is; of no meaning what hangs on its eigenpair, where that is not due."""

    loss: Array
    grad: Array  # (p,) in the number format of the curvature
    sharpness: Array
    vector: Array  # (p,) its eigenvector, one step of power iteration on
    hvps: Any
    beyond: Array | None = None  # (p,) `halved`, the next one, where more is known of it than before


def begin(at: Beginning, tracking: CoupledTracking) -> FlowState:
    """The flow at its start."""
    theta, u = (at.theta, at.eigenvector) if tracking.flow_start == "descent" else (at.center.theta, at.center_eigenvector)
    still = jnp.zeros_like(halved(u))
    return FlowState(theta, u, still, at.center.sharpness.astype(theta.dtype), halved(at.guards.vectors[0]))


class Looked(NamedTuple):
    """What a look around at the flow's θ gives: of its two pairs the second is the next eigenvector."""

    loss: Array
    grad: Array  # (p,) in the number format of the curvature
    pairs: Eigenpairs
    images: Array  # (k, p) of their vectors under the Hessian


class OnePass(NamedTuple):
    """The step from one tangent pass, if that shows the eigenpair."""

    shows: Array  # whether it does
    loss: Array
    grad: Array  # (p,) in the number format of the curvature
    vector: Array  # (p,) the expected eigenvector
    stepped: tuple[FlowState, Row, Costs]


def measure(at: StepContext, state: FlowState) -> OnePass | OnFlow | Looked:
    """What there is at the flow's θ, under way: one tangent pass where the sharpness is due, with the step from it, or a solve that looks
    around."""
    if at.traced:
        return _in_one_call(at, state, *_expected(state, at.dtype))
    if not _is_due(at):
        theta, u = _expected(state, at.dtype)
        return OnFlow(*loss_and_gradient(at.problem, theta), state.sharpness, u, 0)
    if at.around:
        return _look_in_turn(at, state) if at.in_turn else _look(at, state)
    if at.in_turn:
        return _by_pass(at.problem, state, *_expected(state, at.dtype))
    return _in_one_pass(at.problem, state, state.eigenvector, at.center.theta, at.learning_rate)


def suffices(measured: OnePass | OnFlow | Looked) -> Any:
    """Whether a tangent pass shows the eigenpair; a solve always does."""
    return measured.shows if isinstance(measured, OnePass) else True


def measure_more(at: StepContext, state: FlowState, measured: OnePass | OnFlow | Looked) -> OnFlow:
    """The eigenpair that a tangent pass does not show, solved for."""
    assert isinstance(measured, OnePass)
    return _solved(at.problem, state, state.theta.astype(at.dtype), measured.vector, measured.loss, measured.grad, 1)


def step(at: StepContext, state: FlowState, measured: OnePass | OnFlow | Looked) -> tuple[FlowState, Row, Costs]:
    """One step of time η on, and the row here."""
    if isinstance(measured, OnePass):
        return measured.stepped
    advanced = _advanced_over if at.in_turn else _advanced
    return advanced(at.problem, state, measured, at.center.theta, at.learning_rate, _is_due(at))


def _look(at: StepContext, state: FlowState) -> Looked:
    """By a solve that looks around."""
    theta, rows = _look_from(state, at.known, at.dtype)
    return Looked(*loss_and_gradient(at.problem, theta), *guards.look_at_another(at.problem, theta, rows, LOOKED, 1, at.dtype))


def _look_in_turn(at: StepContext, state: FlowState) -> OnFlow:
    """The same of many parameters, where the rows are made when nothing else is left to do, and read off at once."""
    theta, u = _expected(state, at.dtype)
    loss, grad = loss_and_gradient(at.problem, theta)
    rows = guards.with_another(*_rows(state, u, at.known))
    return _on_flow(loss, grad, *guards.look_at_another(at.problem, theta, rows, LOOKED, 1, at.dtype))


def _by_pass(problem: Problem, state: FlowState, theta: Array, u: Array) -> OnFlow:
    """By a tangent pass, or solved for where that does not show the eigenpair: whether it does is waited for."""
    seen = value_grad_hvp(problem, theta, u)
    if not seen.shows_eigenpair(LOOSE_TOLERANCE):
        return _solved(problem, state, theta, seen.vector, seen.loss, seen.grad, 1)
    return OnFlow(seen.loss, seen.grad, seen.sharpness, seen.power_step, 1)


@partial(jit_by_format, place=2)
def _in_one_pass(problem: Problem, state: FlowState, eigenvector: Array, center: Array, learning_rate: float) -> OnePass:
    """A tangent pass where the flow is, and the step from it; in the number format of the `eigenvector`, its own, which is the
    curvature's."""
    seen = value_grad_hvp(problem, *_expected(state, str(eigenvector.dtype)))
    here = OnFlow(seen.loss, seen.grad, seen.sharpness, seen.power_step, 1)
    stepped = _advanced(problem, state, here, center, learning_rate, True)
    return OnePass(seen.shows_eigenpair(LOOSE_TOLERANCE), seen.loss, seen.grad, seen.vector, stepped)


def audit(problem: Problem, state: FlowState, rows: Any, dtype: str) -> tuple[FlowState, Array]:
    """What random rows show that the flow does not follow becomes its guard."""
    pairs = sharpness_at(problem, state.theta, rows(2), LOOSE_TOLERANCE, dtype)
    return state._replace(beyond=halved(guards.unseen(state.eigenvector[None], (Guards(pairs.vectors, pairs.values),))[0])), pairs.hvps


def _is_due(at: StepContext) -> Any:
    """Whether the sharpness is read at this step."""
    return at.since_edge % at.sharpness_every == 0


def _advance(
    problem: Problem, state: FlowState, measured: OnFlow | Looked, center: Array, learning_rate: float, due: bool | Array
) -> tuple[FlowState, Row, Costs]:
    """Time η on."""
    here = _on_flow(*measured) if isinstance(measured, Looked) else measured
    sharpness = jnp.where(due, here.sharpness.astype(state.theta.dtype), state.sharpness)
    theta, gradients = flow_step(problem, state.theta, here.grad, learning_rate, sharpness, due)
    vector, before = here.vector.astype(state.eigenvector.dtype), state.eigenvector
    moved = FlowState(
        theta, jnp.where(due, vector, before), jnp.where(due, halved(turn_between(before, vector)), state.turn), sharpness,
        state.beyond if here.beyond is None else here.beyond,
    )
    row = {
        "flow.loss": here.loss, "flow.sharpness": jnp.where(due, sharpness, jnp.nan), "flow.distance": norms(state.theta - center)[0],
    }
    return moved, row, Costs(jnp.where(due, here.hvps, 0), gradients, jnp.zeros((), int))


_advanced, _advanced_over = jax.jit(_advance), jax.jit(_advance, donate_argnums=1)


def flow_step(
    problem: Problem, theta: Array, grad: Array, learning_rate: float, sharpness: Array, read: bool | Array = True
) -> tuple[Array, Array]:
    """Gradient flow over time η from a θ (p,) where the gradient and the sharpness are known, and how many gradients that took, this one
    among them.

    ⌈ηS/3⌉ equal substeps h of two gradients, θ ← θ − h∇L(θ − ch∇L(θ)) with c the smaller of ½ and 0.9/hS: of an eigenvalue λ they make
    1 − hλ + c(hλ)², which is within ±1 up to λ = S/0.9. Up to ηS = 1, and where the sharpness was not `read` at θ, ⌈ηS⌉ Euler steps.
    Further gradients are in the number format of the given one, added up in θ's own.
    """
    span = jnp.maximum(1, jnp.where(jnp.isfinite(sharpness), learning_rate * sharpness, 1))
    twofold = (span > 1) & read
    substeps = jnp.ceil(jnp.where(twofold, span / SPAN, span)).astype(int)
    length = learning_rate / substeps
    shortened = jnp.minimum(1 / 2, SHORTENED * substeps / span) * length
    gradients = jnp.where(twofold, 2, 1) * substeps

    def onward(k: Array, reached: tuple[Array, Array]) -> tuple[Array, Array]:
        """By the gradient at a point: with two in a substep every other one is within it, and ends it."""
        start, point = reached
        slope = loss_and_gradient(problem, point.astype(grad.dtype))[1].astype(theta.dtype)
        end = start - length * slope
        ends = ~twofold | (k % 2 == 0)
        return jnp.where(ends, end, start), jnp.where(ends, end, start - shortened * slope)

    slope = grad.astype(theta.dtype)
    point = theta - jnp.where(twofold, shortened, length) * slope
    moved, _ = lax.fori_loop(0, gradients - 1, onward, (jnp.where(twofold, theta, point), point))
    return moved, gradients


@partial(jax.jit, static_argnames="dtype")
def _expected(state: FlowState, dtype: str) -> tuple[Array, Array]:
    """θ, and what its top eigenvector is expected to be, (p,) each, in a number format."""
    return state.theta.astype(dtype), state.expected.astype(dtype)


def _solved(problem: Problem, state: FlowState, theta: Array, u: Array, loss: Array, grad: Array, hvps: int = 0) -> OnFlow:
    """With the eigenpair solved for from u, after so many products."""
    pairs, images = solve_at(problem, theta, jnp.stack([u, u]), LOOSE_TOLERANCE, str(theta.dtype), wanted=1)
    return OnFlow(loss, grad, pairs.sharpness, power_step(pairs, images)[0], pairs.hvps + hvps)


@jax.jit
def _on_flow(loss: Array, grad: Array, pairs: Eigenpairs, images: Array) -> OnFlow:
    """With the two pairs of a look: the second is the guard."""
    vectors = power_step(pairs, images)
    return OnFlow(loss, grad, pairs.sharpness, vectors[0], pairs.hvps, halved(vectors[1]))


def _in_one_call(at: StepContext, state: FlowState, theta: Array, u: Array) -> OnFlow:
    """`measure` inside a compiled call."""
    problem = at.problem
    if forms_hessian(theta):
        return _solved(problem, state, theta, u, *loss_and_gradient(problem, theta))

    def read() -> OnFlow:
        loss, grad, product = problem.linearized_at(theta)
        own, best = _rows(state, u, at.known)
        rows, looked = jnp.concatenate([own, best[None].astype(own.dtype)]), jnp.where(at.around, LOOKED, 1)
        pairs, images = solve(problem, theta, rows, LOOSE_TOLERANCE, wanted=1, looked=looked, product=product)
        here = _on_flow(loss, grad, pairs, images)
        return here._replace(beyond=jnp.where(at.around, here.beyond, state.beyond))

    def unread() -> OnFlow:
        return OnFlow(*loss_and_gradient(problem, theta), state.sharpness.astype(theta.dtype), u, jnp.array(0), state.beyond)

    return lax.cond(_is_due(at), read, unread)


@jax.jit
def _rows(state: FlowState, u: Array, known: Known) -> tuple[Array, Array]:
    """What a look starts from: the flow's own two vectors (2, p), and what θ† knows beside them (p,)."""
    best, _ = guards.unseen((u / norms(u)[0])[None], known)
    return jnp.stack([u, state.guard.astype(u.dtype)]), best


@partial(jax.jit, static_argnames="dtype")
def _look_from(state: FlowState, known: Known, dtype: str) -> tuple[Array, Array]:
    """θ, and the rows that a look there starts from, in a number format."""
    theta, u = _expected(state, dtype)
    return theta, guards.with_another(*_rows(state, u, known))


FLOW = Trajectory(FlowState, begin, measure, step, audit, suffices, measure_more)
