"""The optimizer's own steps, on the training loss or on batches of it, many in one compiled call."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.dynamics.optimizer import Optimizer, passed
from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format
from engine.xla.reductions import norms

DESCENT_CHUNK = 64
"""Most steps in one compiled call."""


class Descent(NamedTuple):
    """Some steps of an optimizer: where they end, and what they passed."""

    theta: Array  # (p,)
    optimizer_state: Any
    losses: Array  # (DESCENT_CHUNK,) L before each step; NaN beyond the steps taken
    gradient_norms: Array  # (DESCENT_CHUNK,)
    passed: dict[str, Array]  # each (DESCENT_CHUNK,): `optimizer.passed`


@partial(jit_by_format, place=2, static_argnames=("optimizer",))
def descend(problem: Problem, optimizer: Optimizer, theta: Array, optimizer_state: Any, steps: int) -> Descent:
    """`steps` ≤ DESCENT_CHUNK steps from θ (p,). One compiled body, whatever the count: chunking leaves no trace."""
    return _descended(lambda k: problem, optimizer, theta, optimizer_state, steps)


@partial(jit_by_format, place=2, static_argnames=("optimizer",))
def descend_on_batches(
    problem: Problem, optimizer: Optimizer, theta: Array, optimizer_state: Any, batches: Array | np.ndarray, steps: int
) -> Descent:
    """The same, each step on the mean over its row of `batches` (DESCENT_CHUNK, b), the indices of examples; losses and gradients are of
    that mean."""
    return _descended(lambda k: problem.on(jnp.asarray(batches)[k]), optimizer, theta, optimizer_state, steps)


def _descended(loss_at: Callable[[Array], Problem], optimizer: Optimizer, theta: Array, optimizer_state: Any, steps: int) -> Descent:
    """Steps of which the k-th is taken on `loss_at(k)`."""
    blank = jnp.full(DESCENT_CHUNK, jnp.nan)

    def step(k: Array, state: Descent) -> Descent:
        problem = loss_at(k)
        loss, grad = jax.value_and_grad(problem.loss)(state.theta)
        moved, following = optimizer.step(state.theta, state.optimizer_state, grad, problem.gradient)
        left = {name: state.passed[name].at[k].set(value) for name, value in passed(optimizer, following).items()}
        return Descent(moved, following, state.losses.at[k].set(loss), state.gradient_norms.at[k].set(norms(grad)[0]), left)

    left = dict.fromkeys(passed(optimizer, optimizer_state), blank)
    return lax.fori_loop(0, steps, step, Descent(theta, optimizer_state, blank, blank, left))
