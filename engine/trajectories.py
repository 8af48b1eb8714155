"""The trajectories: gradient descent, gradient flow, the constrained trajectory, and the predicted dynamics.

Each is a pure step. All of them live on flat θ, and all predictions on displacements v = θ − θ† about a `TaylorCenter`.

Where we depart from the paper and from the authors' code:
- The projection reuses ∇S of the last centre (a chord step) and is repeated while a residual asks, not three times always.
- The generalized prediction (Appendix F) is advanced in the transported form of Definition 7; the authors' form of it, which
  never re-projects v, agrees with it to four digits of correlation.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature import Point, TaylorCenter, loss_and_gradient
from engine.problem import Problem

DESCENT_CHUNK = 64
"""Most steps of gradient descent in one compiled call."""


class Descent(NamedTuple):
    """Some steps of gradient descent: where they end, and what they passed."""

    theta: Array  # (p,)
    losses: Array  # (DESCENT_CHUNK,) L before each step; NaN beyond the steps taken
    gradient_norms: Array  # (DESCENT_CHUNK,)


@jax.jit
def descend(problem: Problem, theta: Array, learning_rate: float, steps: int) -> Descent:
    """`steps` ≤ DESCENT_CHUNK steps of θ ← θ − η∇L(θ). One compiled body, whatever the count: chunking leaves no trace."""
    blank = jnp.full(DESCENT_CHUNK, jnp.nan)

    def step(k: Array, state: Descent) -> Descent:
        loss, grad = jax.value_and_grad(problem.loss)(state.theta)
        moved = state.theta - jnp.asarray(learning_rate, theta.dtype) * grad
        return Descent(moved, state.losses.at[k].set(loss), state.gradient_norms.at[k].set(jnp.linalg.norm(grad)))

    return lax.fori_loop(0, steps, step, Descent(theta, blank, blank))


def flow_step(problem: Problem, theta: Array, learning_rate: float, substeps: Array, dtype: str) -> tuple[Array, Array]:
    """Gradient flow over time η by `substeps` equal Euler steps (the paper takes ⌈ηS⌉), and the loss at its start.

    Gradients in `dtype`, added up in θ's own format.
    """
    def descend(k: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
        at, first = carried
        loss, grad = loss_and_gradient(problem, at.astype(dtype))
        return at - learning_rate / substeps * grad.astype(at.dtype), jnp.where(k == 0, loss.astype(at.dtype), first)

    return lax.fori_loop(0, substeps, descend, (theta, jnp.zeros((), theta.dtype)))


class Residuals(NamedTuple):
    """How far a point is from the stable set M: both vanish on it."""

    sharpness: Array  # |S − 2/η|·η/2; 0 below 2/η where the constraint does not push
    gradient: Array  # |∇L·u|/‖∇L‖


class Projection(NamedTuple):
    """One linearised projection onto the stable set M, from a point that it is measured at."""

    theta: Array  # (p,) where it leads
    residuals: Residuals  # of the point


@jax.jit
def project(point: Point, dS: Array, learning_rate: float) -> Projection:
    """θ − max(0, S−2/η)·∇S⊥/‖∇S⊥‖² − u(u·∇L)/S; the gap counts when negative too where α = −∇L·∇S > 0.

    There the constraint pushes, and a trajectory slides along S = 2/η.
    """
    dtype, norm = point.theta.dtype, jnp.linalg.norm(point.grad)
    u, sharpness = point.eigen.vectors[0].astype(dtype), point.eigen.sharpness.astype(dtype)
    u = u / jnp.linalg.norm(u)
    gap = sharpness - 2 / learning_rate
    gap = jnp.where(point.grad @ dS < 0, gap, jnp.maximum(gap, 0))
    along = u @ point.grad
    dS_perp = dS - u * (u @ dS)
    landed = point.theta - gap / (dS_perp @ dS_perp) * dS_perp - u * along / sharpness
    return Projection(landed, Residuals(jnp.abs(gap) * learning_rate / 2, jnp.abs(along) / jnp.where(norm == 0, 1, norm)))


def slide(point: Point, remainder: Array, dS: Array) -> tuple[Point, Array]:
    """The point moved along u to where ∇L·u = 0, and how far u turns over that way d: |d|‖∇S⊥‖/S.

    What is known there moves by Taylor's formula and costs nothing: with Hu = Su + r and r = `remainder` (p,), ∇L gains
    d(Su + r) + ½d²∇S, S gains d∇S·u, and the eigenpair leaves r + d∇S⊥ over. What is left out is of order d³, but u itself
    stays: only a short way is one.
    """
    dtype = point.theta.dtype
    u, sharpness = point.eigen.vectors[0].astype(dtype), point.eigen.sharpness.astype(dtype)
    size = jnp.linalg.norm(u)
    u, r = u / size, remainder.astype(dtype) / size
    along, skew = u @ point.grad, dS @ u
    d = -along / sharpness
    d = -(along + d**2 / 2 * skew) / sharpness
    eigen = point.eigen
    values = eigen.values.at[0].add((d * skew).astype(eigen.values.dtype))
    dS_perp = dS - skew * u
    left = jnp.linalg.norm(r + d * dS_perp) / jnp.abs(sharpness)
    moved = Point(
        point.theta + d * u, point.loss + along * d + sharpness * d**2 / 2 + skew * d**3 / 6,
        point.grad + d * (sharpness * u + r) + d**2 / 2 * dS,
        eigen._replace(values=values, residuals=eigen.residuals.at[0].set(left.astype(eigen.residuals.dtype))),
    )
    return moved, jnp.abs(d / sharpness) * jnp.linalg.norm(dS_perp)


@jax.jit
def first_guess(center: TaylorCenter, learning_rate: float) -> Array:
    """Lemma 13: θ†_{t+1} ≈ θ†_t − ηP^⊥_{u,∇S}∇L, up to O(ε²). Where α ≤ 0 the constraint lets go: only u is projected out."""
    u, dS_perp = center.top_eigenvector, center.grad_sharpness_perp
    g = center.grad - u * (u @ center.grad)
    along = jnp.where(center.alpha > 0, g @ dS_perp / center.beta, 0)
    return center.theta - learning_rate * (g - along * dS_perp)


class Displacement(NamedTuple):
    """Where θ sits about the constrained trajectory θ†, in the two directions that matter."""

    x: Array  # along the top eigenvector: the oscillation
    y: Array  # along ∇S⊥: first-order change of sharpness


def displacement(v: Array, center: TaylorCenter) -> Displacement:
    """x = u·v and y = ∇S⊥·v, with v = θ − θ†."""
    return Displacement(center.top_eigenvector @ v, center.grad_sharpness_perp @ v)


class Predictions(NamedTuple):
    """Displacements v⋆ (p,) by each form of the predicted dynamics."""

    generalized: Array
    transported: Array
    code: Array
    full_cubic: Array


class Forecast(NamedTuple):
    """What the predictions say at a step, each field (4,) in the order of `Predictions`."""

    x: Array
    y: Array
    loss: Array
    sharpness: Array


class Places(NamedTuple):
    """Where displacements from θ† are, each field (m,), and the point that the generalized prediction reads the loss at."""

    distance: Array  # ‖v‖
    x: Array
    y: Array
    along: Array  # (p,) θ† + x·u for the generalized x


@jax.jit
def places(center: TaylorCenter, v: Array, predictions: Predictions) -> Places:
    """The true displacement v (p,) first, then the predictions in their order: m = 5."""
    every = jnp.stack([v, *predictions])
    x, y = every @ center.top_eigenvector, every @ center.grad_sharpness_perp
    return Places(jnp.linalg.norm(every, axis=1), x, y, center.theta + x[1] * center.top_eigenvector)


@jax.jit
def forecast(center: TaylorCenter, found: Places, along: tuple[Array, Array], learning_rate: float) -> tuple[Forecast, Array]:
    """Theorem 1 read off each prediction, and F'(x⋆) of the generalized one, (); `along` has loss and gradient at its place along u.

    Loss L(θ†) + x²/η (the generalized form: L(θ†) + F(x)), sharpness S(θ†) + y + (∇S·u)x.
    """
    (loss, grad), x, y = along, found.x[1:], found.y[1:]
    losses = (center.loss + x**2 / learning_rate).at[0].set(loss)
    return Forecast(x, y, losses, center.sharpness + y + center.skew * x), grad @ center.top_eigenvector


class Advance(NamedTuple):
    """Predictions one step on, before they are carried to the next centre."""

    across: Array  # (2, p) generalized and transported: the part orthogonal to u
    along: Array  # (2,) their next x⋆
    code: Array  # (p,)
    full_cubic: Array  # (p,)


@partial(jax.jit, static_argnames=("forms", "dtype"))
def predict(
    problem: Problem, center: TaylorCenter, v: Predictions, slope: Array, learning_rate: float, forms: tuple[str, ...], dtype: str
) -> Advance:
    """Every form of the predicted dynamics one step on about the same centre; `slope` is F'(x⋆). Products in `dtype`,
    one for each of `forms`; the others are carried along without meaning.

    Transported, Definition 7 (6):  P⊥(I − η∇²L)P⊥v + η∇S⊥(δ² − x²)/2 across u, and −(1 + ηy)x along the next u.
    Generalized, Appendix F:  the same across u, and (1 − ηy)x − ηF'(x) along it.
    Code form:  v − η[½(x² − δ²)∇S⊥ + ∇²L v + xy·u], never re-projected.
    Full cubic:  v − η[½∇³L(v,v) − ½δ²∇S⊥ + ∇²L v], the code form with all of the cubic term instead of its part along u.
    """
    eta, u, dS_perp = learning_rate, center.top_eigenvector, center.grad_sharpness_perp

    def orthogonal(w: Array) -> Array:
        return w - u * (u @ w)

    x, y = (jnp.stack(parts) for parts in zip(*(displacement(w, center) for w in v), strict=True))
    tangents = jnp.stack([orthogonal(v.generalized), orthogonal(v.transported), v.code, v.full_cubic])
    wanted = jnp.array([k for k, form in enumerate(Predictions._fields) if form in forms])
    _, product = jax.linearize(problem.gradient, center.theta.astype(dtype))
    images = jnp.zeros_like(tangents).at[wanted].set(lax.map(product, tangents[wanted].astype(dtype)).astype(u.dtype))
    pull = (center.delta_squared - x**2) / 2

    across = jnp.stack([tangents[k] - eta * orthogonal(images[k]) + eta * pull[k] * dS_perp for k in (0, 1)])
    along = jnp.stack([(1 - eta * y[0]) * x[0] - eta * slope, -(1 + eta * y[1]) * x[1]])
    code = v.code - eta * (images[2] - pull[2] * dS_perp + x[2] * y[2] * u)
    full_cubic = v.full_cubic
    if "full_cubic" in forms:
        inner = v.full_cubic.astype(dtype)
        cubic = problem.derivative(center.theta.astype(dtype), 3, inner, inner).astype(u.dtype)
        full_cubic = v.full_cubic - eta * (images[3] + cubic / 2 - center.delta_squared / 2 * dS_perp)
    return Advance(across, along, code, full_cubic)


@jax.jit
def carry(advance: Advance, next_u: Array) -> Predictions:
    """The advanced predictions about the next centre, whose top eigenvector is `next_u` (its sign kept)."""
    moved = [w - next_u * (next_u @ w) + x * next_u for w, x in zip(advance.across, advance.along, strict=True)]
    return Predictions(moved[0], moved[1], advance.code, advance.full_cubic)


@jax.jit
def turned(v: Predictions, old_u: Array, new_u: Array) -> Predictions:
    """The predictions about the same centre, whose top eigenvector turned out to be another one."""
    forms = (v.generalized, v.transported)
    along = jnp.stack([old_u @ form for form in forms])
    across = jnp.stack([form - x * old_u for form, x in zip(forms, along, strict=True)])
    return carry(Advance(across, along, v.code, v.full_cubic), new_u)
