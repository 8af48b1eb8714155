"""The loss along the top eigenvector (Appendix F): F_t(x) = L(θ†_t + x·u_t) − L(θ†_t), and what its shape predicts.

The period-2 oscillation sees the even part of F. Where that lies under x²/η the loss is sub-quadratic and the sharpness
settles away from 2/η, at the value 2/η + F''(δ) − F'(δ)/δ.

And the loss in the plane of u and ∇S⊥ (Section 4), where self-stabilization happens: with y = ∇S⊥·v, as it is recorded,

    L(θ† + x·u + y·∇S⊥/β) − L(θ†) = x²/η + y(x² − δ²)/2 + …

A valley that is narrower where y, and so the sharpness, is larger; its floor slopes towards larger y, and beyond |x| = δ its
walls towards smaller y.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature import TaylorCenter
from engine.formats import jit_by_format
from engine.problem import Problem

REACH = 5
"""Largest |x| sampled, in units of δ."""
PER_DELTA = 5
"""Samples a unit of δ, so that x = δ is one of them."""
PLANE_REACH = 4
"""Largest |y| sampled in the plane, in units of √α: an orbit of Lemma 3 that goes there reaches |x| = 4.5δ."""
PLANE_POINTS = 13, 7
"""Chebyshev points along u and along ∇S⊥: the polynomial through them is the loss between them to a millionth of its range."""


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
    both = (REACH - 1) * PER_DELTA, (REACH + 1) * PER_DELTA  # the places of −δ and δ
    rise, slope, curvature = (
        np.asarray(part, float) for part in _along(problem, center.theta, center.top_eigenvector, jnp.asarray(x), jnp.asarray(x[[*both]])))
    even_slope, even_curvature = (slope[1] - slope[0]) / 2, curvature.mean()
    ratio = learning_rate * rise[[*both]].mean() / delta**2
    return Landscape(x, rise, float(ratio), float(2 / learning_rate + even_curvature - even_slope / delta))


class Plane(NamedTuple):
    """The loss in the plane of u and ∇S⊥ through θ†."""

    x: np.ndarray  # (13,) along u, between −5δ and 5δ
    y: np.ndarray  # (7,) ∇S⊥·v, between −4√α and 4√α
    rise: np.ndarray  # (13, 7) L(θ† + x·u + y·∇S⊥/β) − L(θ†)


def plane(problem: Problem, center: TaylorCenter, delta: float) -> Plane:
    """The plane about a centre, in θ's number format. `delta` must be a positive number."""
    x, y = (np.cos(np.pi * (np.arange(count) + 0.5) / count)[::-1] for count in PLANE_POINTS)
    x, y = x * REACH * delta, y * PLANE_REACH * np.sqrt(float(center.alpha))
    across = center.grad_sharpness_perp / center.beta
    rise = _in_plane(problem, center.theta, center.top_eigenvector, across, jnp.asarray(x), jnp.asarray(y))
    return Plane(x, y, np.asarray(rise, float))


@jit_by_format
def _in_plane(problem: Problem, theta: Array, u: Array, w: Array, x: Array, y: Array) -> Array:
    def loss(place: Array) -> Array:
        return problem.loss(theta + place[0] * u + place[1] * w)

    places = jnp.stack([jnp.zeros(2), *jnp.stack(jnp.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)])
    found = lax.map(loss, places)
    return (found[1:] - found[0]).reshape(x.size, y.size)


@jit_by_format
def _along(problem: Problem, theta: Array, u: Array, x: Array, bends: Array) -> tuple[Array, Array, Array]:
    """F at each x (n,), and F' and F'' at each of the few `bends`: these two cost three times as much as F."""

    def along(s: Array) -> Array:
        return problem.loss(theta + s * u)

    def first(s: Array) -> tuple[Array, Array]:
        return jax.jvp(along, (s,), (jnp.ones_like(s),))

    def second(s: Array) -> tuple[Array, Array]:
        (_, slope), (_, curvature) = jax.jvp(first, (s,), (jnp.ones_like(s),))
        return slope, curvature

    return lax.map(along, x) - problem.loss(theta), *lax.map(second, bends)
