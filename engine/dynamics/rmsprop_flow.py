"""The central flow of RMSProp (arXiv 2410.24206): where it goes once its oscillation has been averaged over.

Of scalar RMSProp, whose P = √ν̂ + ε is one number, with Σ the covariance of the oscillation and s = 2P/η the edge of λ1(H):

    dw/dt = −(η/P)[∇L + ½∇³L(Σ)]        dν̂/dt = c(‖∇L‖² + <H²,Σ> − ν̂)        c = a/(1−a), a = (1−β₂)/(1−β₂^t)

Σ is the positive semidefinite matrix that keeps H ⪯ sI, an edge that moves with ν̂, and lies in directions at s. So the oscillation does two
things: it pushes the sharpness down, and it enlarges ν̂ and so lifts the edge. With one direction and ε = 0, β₂^t = 0 it is

    σ² = [α + c(s²/4 − ‖∇L‖²/η²)] / [‖∇S‖²/2 + cs²/η²]        α = −∇L·∇S.

ν̂ with its bias correction has exactly this c: ν̂_t − ν̂_{t−1} = c(‖∇L‖² − ν̂_t), as with averaged moments of the step itself.

A step is several Euler substeps of dt. Members are the eigenvalues above 0.975 s, X in their basis is the solution of
0 ⪯ X ⊥ sI − UHUᵀ + dt(ṡ_0 I + (η/P)(∇L·D_ij)) + dt((η/2P)B[X] + r·trX·I) ⪰ 0, with ṡ_0 and r·trX what ν̂ moves s by without and with X
(`complementarity`, `central_flow`).

Of full RMSProp, with one ν for each parameter, it is followed before its edge alone, where Σ = 0: experimental.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature.directions import contractions, weighed
from engine.curvature.eigensolver import LOOSE_TOLERANCE, Eigenpairs, solve_at
from engine.curvature.expansion import loss_and_gradient
from engine.dynamics import complementarity
from engine.dynamics.central_flow import MEMBER_FROM
from engine.dynamics.trajectory import Costs, Row
from engine.problems.problem import Problem, preconditioned
from engine.theory import pairs
from engine.xla.packed import unpacked
from engine.xla.shares import bare

SUBSTEPS = 4
"""Euler substeps of a step."""
ROOM = 8
"""Eigenvalues that are followed, at most."""


class RmspropFlowState(NamedTuple):
    """Where the flow is; of no numbers where none is followed."""

    theta: Array  # (p,) w
    second_moment: Array  # () or (p,) ν̂
    eigenvectors: Array  # (k, p) at the last substep; of P^-½HP^-½ where P is of as many numbers
    covariance: Array  # (k, k) X in their basis
    begun: int  # 1 from where it has begun
    ended: int  # 1 where it is followed no more


class Settings(NamedTuple):
    """Numbers of the optimizer."""

    learning_rate: float
    beta2: float
    epsilon: float


_NOTHING: Any = np.zeros(0)
_NONE: Any = np.zeros((0, 0))
NO_FLOW = RmspropFlowState(_NOTHING, _NOTHING, _NONE, _NONE, 0, 0)
"""Where none is followed."""


def begin(theta: Array, second_moment: Array, start: Array, begun: int = 1) -> RmspropFlowState:
    """The flow at an iterate θ (p,) of RMSProp and its ν̂, with vectors (k, p) for the eigensolver to start from."""
    return RmspropFlowState(theta, second_moment, start, jnp.zeros((len(start), len(start)), theta.dtype), begun, 0)


def rate_of_average(beta2: float, step: float | Array) -> Any:
    """c of ν̂ at a step, the first being 1: infinite there."""
    share = (1 - beta2) / (1 - beta2**step)
    return share / (1 - share)


class Here(NamedTuple):
    """What is measured at w."""

    loss: Array
    grad: Array  # (p,)
    pairs: Eigenpairs  # of P^-½HP^-½


def measure(problem: Problem, state: RmspropFlowState, settings: Settings, dtype: str) -> Here:
    """Loss, gradient and the top eigenpairs at w."""
    p = _preconditioner(state.second_moment, settings.epsilon)
    loss, grad = loss_and_gradient(problem, state.theta)
    start = state.eigenvectors
    swings = jnp.sum(jnp.diag(state.covariance) > 0) + 1  # those, and the next one
    solved, _ = solve_at(preconditioned(problem, p, dtype), state.theta, start, LOOSE_TOLERANCE, dtype, tight=swings)
    return Here(loss, grad, solved)


def step(
    problem: Problem, state: RmspropFlowState, settings: Settings, number: int, dtype: str
) -> tuple[RmspropFlowState, Row, Costs]:
    """A step of time 1 on, the `number`th of the run, and the row where it began."""
    none = jnp.zeros((), int)
    here, costs = measure(problem, state, settings, dtype), Costs(none, none, none)
    moments = bare(state.second_moment, problem.shares) if state.second_moment.ndim else state.second_moment
    edge, scalar = 2 / settings.learning_rate, not state.second_moment.ndim
    row: Row = {
        "central.loss": here.loss, "central.sharpness": here.pairs.values[0], "central.second_moment": jnp.mean(moments),
    }
    if not scalar and float(here.pairs.values[0]) >= edge:
        return state._replace(ended=1), {}, costs.plus(here.pairs.hvps, 1)
    trace = rise = jnp.zeros(())
    for k in range(SUBSTEPS):
        if k:
            here = measure(problem, state, settings, dtype) if scalar else here._replace(grad=loss_and_gradient(problem, state.theta)[1])
        costs = costs.plus(here.pairs.hvps if scalar or not k else 0, 1)
        time = number + k / SUBSTEPS
        if not scalar:
            state = _drifted(state._replace(eigenvectors=here.pairs.vectors), here.grad, settings, time)
            continue
        members = jnp.sum(here.pairs.values > MEMBER_FROM / settings.learning_rate)
        third, _ = contractions(problem, state.theta, here.pairs.vectors.astype(state.theta.dtype), here.pairs.vectors[:0], members, dtype)
        state, X, pull = _pushed(state, here, third, members, settings, time)
        trace, rise = trace + jnp.trace(X) / SUBSTEPS, rise + pull / SUBSTEPS
        costs = costs.plus(grad_sharpness=members * (members + 1) // 2)
    row |= {"central.trace": trace, "central.predicted_loss": row["central.loss"] + rise / 2}
    return state, row, costs


def _preconditioner(second_moment: Array, epsilon: float) -> Array:
    return jnp.sqrt(second_moment) + epsilon


@jax.jit
def _drifted(state: RmspropFlowState, grad: Array, settings: Settings, time: float) -> RmspropFlowState:
    """A substep without an oscillation."""
    dt, nu = 1 / SUBSTEPS, state.second_moment
    theta = state.theta - dt * settings.learning_rate * grad / _preconditioner(nu, settings.epsilon)
    return state._replace(theta=theta, second_moment=nu + dt * rate_of_average(settings.beta2, time) * (grad**2 - nu))


@jax.jit
def _pushed(
    state: RmspropFlowState, here: Here, third: Array, members: Array, settings: Settings, time: float
) -> tuple[RmspropFlowState, Array, Array]:
    """A substep by D_ij (m, p), X, and <H, Σ>."""
    (eta, beta2, epsilon), dt, nu, grad = settings, 1 / SUBSTEPS, state.second_moment, here.grad
    p, c = _preconditioner(nu, epsilon), rate_of_average(beta2, time)
    edge, rate, lifts = 2 * p / eta, eta / p, c / (eta * jnp.sqrt(nu))  # ds/dt over what ν̂ moves by
    size = len(here.pairs.values)
    values = p * here.pairs.values.astype(grad.dtype)
    vectors = here.pairs.vectors.astype(grad.dtype)
    square = grad @ grad
    linear = edge * jnp.eye(size) - jnp.diag(values) + dt * (lifts * (square - nu) * jnp.eye(size) + rate * unpacked(third @ grad))
    rows, columns = (jnp.asarray(np.asarray(each)) for each in pairs(size))
    diagonal = (rows == columns).astype(grad.dtype)
    quadratic = dt * (rate / 2 * third @ third.T + lifts * edge**2 * jnp.outer(diagonal, diagonal))
    turn = vectors @ state.eigenvectors.astype(grad.dtype).T
    X = complementarity.solved(linear, quadratic, members, turn @ state.covariance @ turn.T)
    push = weighed(X).astype(third.dtype) @ third
    following = state._replace(
        theta=state.theta - dt * rate * (grad + push / 2), second_moment=nu + dt * c * (square + edge**2 * jnp.trace(X) - nu),
        eigenvectors=here.pairs.vectors, covariance=X,
    )
    return following, X, jnp.sum(values * jnp.diag(X))
