"""A tracked step as published, for comparison: every quantity afresh, from its own compiled call.

Our own code, after the description in the paper and its appendix: the solver is jax's `lobpcg_standard` at tol 1e-9 on float32
products, started from the last eigenvector; θ† takes one eigen solve and one ∇S at its gradient step and again after each of
three linearised projections; gradient descent, the prediction and gradient flow take an eigen solve each; and each step has
two normalised third derivatives of the real and two of the predicted displacement. Its float64 gradients are compiled as ours are.

It has no second eigenvalues, which a step of eos has at θ and at θ†. Where they are asked for, the same solver takes them of what the top
pair leaves of the Hessian, from the last one and as loosely as eos does.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse.linalg import lobpcg_standard

from engine.curvature.eigensolver import LOOSE
from engine.phases.edge_state import EdgeState
from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format

PROJECTIONS = 3
TOLERANCE = 1e-9


class Published(NamedTuple):
    """Gradient descent, the constrained trajectory, the generalized prediction and gradient flow, as published."""

    theta: Array
    center: Array
    u: Array  # of the centre
    v: Array  # the predicted displacement
    flow: Array
    warm: dict[str, Array]  # eigenvectors of gradient descent, of the prediction and of the flow
    seconds: dict[str, Array]  # the next ones of gradient descent and of the centre
    hvps: int
    residual: float  # ‖Hu − Su‖/S at the centre
    constraint: float  # |S − 2/η|·η/2
    along: float  # |∇L·u|/‖∇L‖


def begin(state: EdgeState) -> Published:
    """The same place as a state of the engine."""
    u, second = state.center.top_eigenvector, state.center.eigen.vectors[1].astype(state.theta.dtype)
    v, flow = state.coupled.predicted.displacements["generalized"], state.coupled.beside["flow"].theta
    warm, seconds = dict.fromkeys(("descent", "predicted", "flow"), u), dict.fromkeys(("descent", "center"), second)
    return Published(state.theta, state.center.theta, u, v, flow, warm, seconds, 0, 0.0, 0.0, 0.0)


@jit_by_format
def gradient(problem: Problem, theta: Array) -> Array:
    """∇L, in θ's format."""
    return problem.gradient(theta)


@jit_by_format
def loss(problem: Problem, theta: Array) -> Array:
    """L, in θ's format."""
    return problem.loss(theta)


@jax.jit
def solve(problem: Problem, theta: Array, start: Array) -> tuple[Array, Array, Array]:
    """The top eigenpair and the iterations it took, on float32 products."""
    return _solved(partial(problem.hvp, theta.astype(jnp.float32)), theta, start, TOLERANCE)


@jax.jit
def solve_second(problem: Problem, theta: Array, sharpness: Array, u: Array, start: Array) -> tuple[Array, Array, Array]:
    """The second eigenpair and the iterations it took: the top one of the Hessian without the pair (S, u)."""
    point, top = theta.astype(jnp.float32), u.astype(jnp.float32)

    def product(v: Array) -> Array:
        return problem.hvp(point, v) - sharpness * top * (top @ v)

    return _solved(product, theta, start - u * (u @ start), LOOSE / (20 * theta.size))  # a residual within LOOSE of the eigenvalue


def _solved(product: Callable[[Array], Array], theta: Array, start: Array, tolerance: float) -> tuple[Array, Array, Array]:
    values, vectors, iterations = lobpcg_standard(
        jax.vmap(product, in_axes=1, out_axes=1), start.astype(jnp.float32)[:, None], m=100, tol=tolerance
    )
    return values[0], vectors[:, 0].astype(theta.dtype), iterations


def products(iterations: Array) -> int:
    """Those that the solver took: one at its start, and four in each iteration."""
    return 1 + 4 * int(iterations)


@jax.jit
def third(problem: Problem, theta: Array, v: Array, w: Array) -> Array:
    """∇³L(v, w), on float32."""
    point = theta.astype(jnp.float32)
    return problem.derivative(point, 3, v.astype(jnp.float32), w.astype(jnp.float32)).astype(theta.dtype)


@jax.jit
def product(problem: Problem, theta: Array, v: Array) -> Array:
    """∇²L v, on float32."""
    return problem.hvp(theta.astype(jnp.float32), v.astype(jnp.float32)).astype(theta.dtype)


def step(problem: Problem, state: Published, eta: float, statistics: bool = True, second_pairs: bool = False) -> Published:
    """One tracked step; without the statistics and with the second pairs, it has the quantities that a step of eos has.

    The statistics are four third derivatives along displacements, and sharpness and loss where the prediction stands.
    """
    center, u = state.center, state.u
    hvps, seconds = 0, dict(state.seconds)

    # Statistics about the old centre.
    g = gradient(problem, center)
    dS = third(problem, center, u, u)
    perp = dS - u * (u @ dS)
    for v in (state.theta - center, state.v) if statistics else ():
        across = v - u * (u @ v)
        for w in (across, across - perp * (perp @ across) / (perp @ perp)):
            third(problem, center, w, w)
    warm = dict(state.warm)
    places = {"descent": state.theta, "flow": state.flow} | ({"predicted": center + state.v} if statistics else {})
    for name, place in places.items():
        sharpness, warm[name], iterations = solve(problem, place, warm[name])
        hvps += products(iterations)
        if second_pairs and name in seconds:
            _, seconds[name], iterations = solve_second(problem, place, sharpness, warm[name], seconds[name])
            hvps += products(iterations)
        loss(problem, place)

    # Gradient descent, the prediction and the flow.
    theta = state.theta - eta * gradient(problem, state.theta)
    x, y = u @ state.v, perp @ state.v
    across = state.v - x * u
    slope = u @ gradient(problem, center + x * u)
    delta_squared = -2 * (g @ dS) / (perp @ perp)
    pull = (x**2 - delta_squared) / 2 * perp
    v = state.v - eta * (pull + product(problem, center, across) + u * slope + x * y * u)
    flow = state.flow
    substeps = max(1, math.ceil(eta * float(warm["flow"] @ product(problem, flow, warm["flow"]))))
    for _ in range(substeps):
        flow = flow - eta / substeps * gradient(problem, flow)

    # The constrained trajectory.
    moved = center - eta * g
    for projection in range(PROJECTIONS + 1):
        sharpness, vector, iterations = solve(problem, moved, u)
        hvps += products(iterations)
        u = jnp.where(vector @ u < 0, -vector, vector)
        g = gradient(problem, moved)
        dS = third(problem, moved, u, u)
        if projection == PROJECTIONS:
            break
        perp = dS - u * (u @ dS)
        moved = moved - jnp.maximum(0, sharpness - 2 / eta) * perp / (perp @ perp) - u * (u @ g) / sharpness
    if second_pairs:
        _, seconds["center"], iterations = solve_second(problem, moved, sharpness, u, seconds["center"])
        hvps += products(iterations)
    residual = float(jnp.linalg.norm(product(problem, moved, u) - sharpness * u) / sharpness)
    jax.block_until_ready((theta, moved, v, flow, seconds))
    return Published(
        theta, moved, u, v, flow, warm, seconds, hvps, residual, abs(float(sharpness) * eta / 2 - 1),
        float(jnp.abs(g @ u) / jnp.linalg.norm(g)),
    )
