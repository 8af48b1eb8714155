"""Equation (5): the predicted dynamics unrolled into a sum over past steps, from the memory kernel β_{s→t}.

    x⋆_{t+1} = −(1 + ηy⋆_t)x⋆_t,   y⋆_{t+1} = η Σ_{s≤t} β_{s→t}(δ_s² − x⋆_s²)/2
    β_{s→t} = ∇S⊥_{t+1}ᵀ [∏_{k=t}^{s+1} (I − η∇²L_k)P⊥_{u_k}] ∇S⊥_s

Each start s costs one Hessian–vector product a step for as long as it is followed. Two bounds keep that in hand: starts are
taken every `every` steps, β between two starts being interpolated linearly in s; and beyond `window` starts the oldest is
folded, with its weight, into one vector that is carried on like the others, so that nothing is forgotten. The same vector
carries P⊥v_0, which (5) leaves out. With `every` = 1 this is Definition 7 to rounding, by another route.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature.expansion import TaylorCenter
from engine.dynamics.trajectories import displacement
from engine.problems.problem import Problem

FARTHEST = 1e150
"""The |x⋆| from which the sum counts as lost."""


class Unrolled(NamedTuple):
    """The sum of (5) at a step: its prediction, and the sources it is made of."""

    x: float  # x⋆_t
    y: float  # y⋆_t
    vectors: Array  # (window + 1, p): each start's ∇S⊥_s, carried; the last is the remainder
    starts: np.ndarray  # (window,) the step of each start, newest first; −1 where empty
    weights: np.ndarray  # (window,) Σ (δ²−x⋆²)/2 given to each start for good
    recent: np.ndarray  # (every,) (δ²−x⋆²)/2 from the newest start on
    betas: np.ndarray  # (window,) β_{s→t−1}; NaN where empty


def begin(center: TaylorCenter, v: Array, every: int, window: int) -> Unrolled:
    """The sum anchored to the displacement v (p,): no source yet, and v itself as the remainder."""
    x, y = displacement(v, center)
    vectors = jnp.zeros((window + 1, v.size), v.dtype).at[window].set(v)
    return Unrolled(float(x), float(y), vectors, np.full(window, -1), np.zeros(window), np.zeros(every), np.full(window, np.nan))


def absent() -> Unrolled:
    """No sum: when the specification leaves (5) out."""
    nothing = np.zeros(0)
    return Unrolled(np.nan, np.nan, jnp.zeros((0, 0)), nothing.astype(int), nothing, nothing, nothing)


def advance(
    problem: Problem, state: Unrolled, step: int, center: TaylorCenter, following: TaylorCenter, learning_rate: float, dtype: str
) -> Unrolled:
    """One step on, from the centre at `step` to the `following` one. Products in `dtype`, one for each vector."""
    every, window = len(state.recent), len(state.starts)
    x = state.x if abs(state.x) < FARTHEST else np.nan  # a prediction that ran off is lost; its square would overflow
    strength = (float(center.balance(learning_rate)) - x**2) / 2
    vectors = carried(problem, center, state.vectors, learning_rate, dtype)
    starts, weights, recent = state.starts.copy(), state.weights.copy(), state.recent.copy()
    since = step - starts[0] if starts[0] >= 0 else every
    if since == every:  # a new start takes its share of what lies between it and the last
        share = np.arange(every) / every
        weights[0] += recent @ (1 - share)
        remainder = vectors[window] + learning_rate * weights[-1] * vectors[window - 1]
        vectors = jnp.concatenate([center.grad_sharpness_perp[None], vectors[: window - 1], remainder[None]])
        starts, weights = np.roll(starts, 1), np.roll(weights, 1)
        starts[0], weights[0] = step, recent @ share
        recent, since = np.zeros(every), 0
    recent[since] = strength
    reading = np.asarray(vectors @ following.grad_sharpness_perp, float)  # (window + 1,)
    newest = float(center.grad_sharpness_perp @ following.grad_sharpness_perp)  # β_{t→t}
    share = np.arange(every) / since if since else np.zeros(every)
    between = recent * np.where(np.arange(every) <= since, 1, 0)
    total = weights @ reading[:window] + between @ ((1 - share) * reading[0] + share * newest)
    return Unrolled(
        x=(1 - learning_rate * (float(center.sharpness) + state.y)) * state.x,
        y=float(learning_rate * total + reading[window]), vectors=vectors,
        starts=starts, weights=weights, recent=recent, betas=np.where(starts >= 0, reading[:window], np.nan),
    )


@partial(jax.jit, static_argnames=("dtype",))
def carried(problem: Problem, center: TaylorCenter, vectors: Array, learning_rate: float, dtype: str) -> Array:
    """(I − η∇²L)P⊥_u w for each row w of `vectors`, all at once."""
    u = center.top_eigenvector
    across = vectors - jnp.outer(vectors @ u, u)
    _, product = jax.linearize(problem.gradient, center.theta.astype(dtype))
    return across - learning_rate * jax.vmap(product)(across.astype(dtype)).astype(u.dtype)
