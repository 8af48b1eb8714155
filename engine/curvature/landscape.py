"""The loss along the top eigenvector (Appendix F): F_t(x) = L(θ†_t + x·u_t) − L(θ†_t), and what its shape predicts.

The period-2 oscillation sees the even part of F. Where that lies under x²/η the loss is sub-quadratic and the sharpness
settles away from 2/η, at the value 2/η + F''(δ) − F'(δ)/δ.

That is the paper's S∞, and it lacks a term of its own order. F'' is the curvature along u as it is at θ†, but at θ† ± δu the
Hessian has another top eigenvector. Let θ_± = m ± d be a period-2 orbit. The odd part of ∇L(θ_±) = ±2d/η says d ≈ x·u with
S(m) + x²∇⁴L(u,u,u,u)/6 = 2/η. The even part says x² = δ², but for a share of the order of η times the harmonic mean of the
curvature along ∇S⊥. At m ± d the Hessian is that at m, plus ±x∇³L(u), plus x²∇⁴L(u,u)/2, and perturbation to second order gives
its top eigenvalue. Since ∇³L(u,u,e_j) = ∇S·e_j for the other eigenvectors e_j,

    mean S(θ_±) ≈ 2/η + F''(δ) − F'(δ)/δ + δ² Σ_j (∇S⊥·e_j)²/(2/η − λ_j).

Where the λ_j in which ∇S⊥ lies are far below 2/η the sum is βη/2, and the turn of u adds δ²βη/2 = ηα = ε²/η: `limit_turned`. It is
too low by the share Σ_j (∇S⊥·e_j)²λ_j/(2/η − λ_j)/β of that term. On exact period-2 orbits of three tanh networks, p = 97 and λ2 at
0.4, 0.6 and 0.8 of 2/η, that share was 0.06, 0.06 and 0.13 at ε = 0.0025 and at most 0.26, at ε = 0.024; the paper's form was low by
1.05 to 1.26 times the term, the whole sum off by at most 0.01 of it. Either says something of a run whose oscillation has settled
at |x| ≈ δ, where ε is small and no second eigenvalue is near: the default run, 1,450 steps past its edge at ε = 0.074, hovers at
0.9992 of 2/η (mean of 100 steps), where ours is 0.9993 and the paper's 0.9966. In a burst the sharpness is off by far more than ε²/η.

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

from engine import theory
from engine.curvature.expansion import TaylorCenter
from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format

REACH = 5
"""Largest |x| sampled, in units of δ."""
PER_DELTA = 5
"""Samples a unit of δ, so that x = δ is one of them."""
PLANE_REACH = 4
"""Largest |y| sampled in the plane, in units of √α: an orbit of Lemma 3 that goes there reaches |x| = 4.5δ."""
PLANE_POINTS = 13, 7
"""Chebyshev points along u and along ∇S⊥: the polynomial through them is the loss between them to a millionth of its range."""


class Landscape(NamedTuple):
    """F_t sampled on −5δ…5δ, two numbers of its even part at δ, and one that the turn of u adds to."""

    x: np.ndarray  # (51,)
    rise: np.ndarray  # (51,) F_t(x)
    ratio: float  # ηF(δ)/δ² of the even part: under 1 sub-quadratic, over 1 super-quadratic
    limit: float  # 2/η + F''(δ) − F'(δ)/δ of the even part: the sharpness that the oscillation settles at, by the paper
    limit_turned: float  # and with the turn of u, ηα more: ours

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
    limit = float(theory.threshold(learning_rate) + even_curvature - even_slope / delta)
    return Landscape(x, rise, float(ratio), limit, limit + delta**2 * float(center.beta) * learning_rate / 2)


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
    losses = lax.map(loss, places)
    return (losses[1:] - losses[0]).reshape(x.size, y.size)


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
