"""The loss along the top eigenvector (Appendix F): F_t(x) = L(θ†_t + x·u_t) − L(θ†_t), and what its shape predicts.

The period-2 oscillation sees the even part of F. Where that lies under x²/η the loss is sub-quadratic and the sharpness
settles away from 2/η, at the value 2/η + F''(δ) − F'(δ)/δ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature import TaylorCenter
from engine.problem import Problem

REACH = 5
"""Largest |x| sampled, in units of δ."""
PER_DELTA = 5
"""Samples a unit of δ, so that x = δ is one of them."""


class Landscape(NamedTuple):
    """F_t sampled on −5δ…5δ, and two numbers of its even part at δ."""

    x: np.ndarray  # (51,)
    rise: np.ndarray  # (51,) F_t(x)
    ratio: float  # ηF(δ)/δ² of the even part: under 1 sub-quadratic, over 1 super-quadratic
    limit: float  # 2/η + F''(δ) − F'(δ)/δ of the even part: the sharpness that the oscillation settles at

    @property
    def even(self) -> np.ndarray:
        """(F(x) + F(−x))/2."""
        return (self.rise + self.rise[::-1]) / 2


def sample(problem: Problem, center: TaylorCenter, delta: float, learning_rate: float) -> Landscape:
    """The landscape about a centre, in θ's number format. `delta` must be a positive number."""
    x = np.linspace(-REACH, REACH, 2 * REACH * PER_DELTA + 1) * delta
    rise, slope, curvature = (np.asarray(part, float) for part in _along(problem, center.theta, center.top_eigenvector, jnp.asarray(x)))
    right, left = (REACH + 1) * PER_DELTA, (REACH - 1) * PER_DELTA  # the places of δ and −δ
    even_slope, even_curvature = (slope[right] - slope[left]) / 2, (curvature[right] + curvature[left]) / 2
    ratio = learning_rate * (rise[right] + rise[left]) / 2 / delta**2
    return Landscape(x, rise, float(ratio), float(2 / learning_rate + even_curvature - even_slope / delta))


@jax.jit
def _along(problem: Problem, theta: Array, u: Array, x: Array) -> tuple[Array, Array, Array]:
    """F, F' and F'' at each x, (n,) each; one pass for all three."""

    def along(s: Array) -> Array:
        return problem.loss(theta + s * u)

    def first(s: Array) -> tuple[Array, Array]:
        return jax.jvp(along, (s,), (jnp.ones_like(s),))

    def second(s: Array) -> tuple[Array, Array, Array]:
        (value, slope), (_, curvature) = jax.jvp(first, (s,), (jnp.ones_like(s),))
        return value, slope, curvature

    values, slopes, curvatures = lax.map(second, x)
    return values - problem.loss(theta), slopes, curvatures
