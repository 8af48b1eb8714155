"""The optimizer's own steps on the training loss, many in one compiled call."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
    blank = jnp.full(DESCENT_CHUNK, jnp.nan)

    def step(k: Array, state: Descent) -> Descent:
        loss, grad = jax.value_and_grad(problem.loss)(state.theta)
        moved, following = optimizer.step(state.theta, state.optimizer_state, grad, problem.gradient)
        left = {name: state.passed[name].at[k].set(value) for name, value in passed(optimizer, following).items()}
        return Descent(moved, following, state.losses.at[k].set(loss), state.gradient_norms.at[k].set(norms(grad)[0]), left)

    left = dict.fromkeys(passed(optimizer, optimizer_state), blank)
    return lax.fori_loop(0, steps, step, Descent(theta, optimizer_state, blank, blank, left))
