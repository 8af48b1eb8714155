"""Kinks: what the third derivative of a loss does not see of how its curvature changes, as with relu.

Self-stabilization takes the change of the Hessian along u from ∇S = ∇³L(u,u). Where activations have kinks their second derivative is 0
almost everywhere and infinite at the kink, so that ∇³L holds what the criterion and the product of layers contribute, and nothing of the
kinks that an oscillation crosses. Two shares say how much that is:

- *missed*: ‖D − ∇³L(u,u)‖/‖D‖ with D = (∇²L(θ+hu)u − ∇²L(θ−hu)u)/2h over a swing h of a thousandth of ‖θ‖. For a smooth loss it is O(h²).
- *straight*: of parameters drawn at random which the loss is curved in, the share along which the third derivative, less that of the
  criterion alone (of the network linearised at θ), is 0. It is 1 where the network is piecewise linear in each of its parameters, with relu
  or no activation at all, and else that of parameters which outputs are linear in, such as a last layer's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.problems.problem import Problem

SWING = 1e-3
"""h, in units of ‖θ‖."""
DRAWN = 32
"""Parameters drawn."""
EXAMPLES = 256
"""Examples that these are looked at on, the first, where the loss is a mean over more."""
ROUNDING = 1e-9
"""Of a third derivative, against the two that it is the difference of: what counts as 0."""
NO_CHANGE = 1e-8
"""Of ∇²L·u over ‖θ‖: a change that counts as none."""
WARNED_FROM = 5e-3
"""Missed share from which kinks are warned of: smooth networks come to 1e-4 over such a swing."""


class Kinks(NamedTuple):
    """How much of the change of curvature is in kinks."""

    missed: float
    """Share of the change of ∇²L·u along u that ∇³L(u,u) misses."""
    straight: float
    """Share of parameters along which the network's own third derivative is 0; NaN where the loss is curved in none."""

    @property
    def are_there(self) -> bool:
        """Whether ∇³L misses more than it would of a smooth loss."""
        return self.missed > WARNED_FROM


def kinks(problem: Problem, theta: Array, u: Array, seed: int = 0) -> Kinks:
    """The kinks around θ (p,), along the top eigenvector u (p,) of unit length, in float64."""
    theta, u = theta.astype(jnp.float64), u.astype(jnp.float64)
    some = problem.on(jnp.arange(EXAMPLES)) if problem.examples and problem.count > EXAMPLES else problem
    drawn = np.random.default_rng(seed).permutation(theta.size)[:DRAWN]
    curved, own, criterion = (np.asarray(each) for each in _along_each(some, theta, jnp.asarray(drawn)))
    straight = np.abs(own - criterion) <= ROUNDING * (np.abs(own) + np.abs(criterion))
    matters = curved != 0
    return Kinks(float(_missed(problem, theta, u)), float(straight[matters].mean()) if matters.any() else float("nan"))


@jax.jit
def _missed(problem: Problem, theta: Array, u: Array) -> Array:
    norm = jnp.linalg.norm(theta)
    size = jnp.where(norm > 0, norm, 1)
    h = SWING * size
    ahead, behind = lax.map(lambda at: problem.hvp(at, u), jnp.stack([theta + h * u, theta - h * u]))
    change = (ahead - behind) / (2 * h)
    least = NO_CHANGE * jnp.linalg.norm(ahead) / size  # of a quadratic what differs is rounding
    return jnp.linalg.norm(change - problem.grad_sharpness(theta, u)) / jnp.maximum(jnp.linalg.norm(change), least)


@jax.jit
def _along_each(problem: Problem, theta: Array, drawn: Array) -> tuple[Array, Array, Array]:
    """Along each of the parameters drawn (k,): ∂²L, ∂³L, and ∂³ of the criterion on the network linearised at θ, (k,) each."""

    def along(k: Array) -> tuple[Array, Array, Array]:
        axis = jnp.zeros_like(theta).at[k].set(1)

        def second(line):
            def slope(t):
                return jax.jvp(line, (t,), (jnp.ones_like(t),))[1]

            return lambda t: jax.jvp(slope, (t,), (jnp.ones_like(t),))[1]

        def third(line) -> tuple[Array, Array]:
            at = jnp.zeros((), theta.dtype)
            return jax.jvp(second(line), (at,), (jnp.ones_like(at),))

        curved, own = third(lambda t: problem.loss(theta + t * axis))
        line = problem.linearized
        criterion = jnp.zeros_like(own) if line is None else third(lambda t: line(theta + t * axis, theta, problem.data))[1]
        return curved, own, criterion

    return lax.map(along, drawn)
