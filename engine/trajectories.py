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

from engine.curvature import Direction, Point, TaylorCenter, loss_and_gradient
from engine.device import require_correct_sums
from engine.formats import jit_by_format
from engine.problem import Problem
from engine.sums import dots, norms

DESCENT_CHUNK = 64
"""Most steps of gradient descent in one compiled call."""


class Descent(NamedTuple):
    """Some steps of gradient descent: where they end, and what they passed."""

    theta: Array  # (p,)
    losses: Array  # (DESCENT_CHUNK,) L before each step; NaN beyond the steps taken
    gradient_norms: Array  # (DESCENT_CHUNK,)


@jit_by_format
def descend(problem: Problem, theta: Array, learning_rate: float, steps: int) -> Descent:
    """`steps` ≤ DESCENT_CHUNK steps of θ ← θ − η∇L(θ). One compiled body, whatever the count: chunking leaves no trace."""
    blank = jnp.full(DESCENT_CHUNK, jnp.nan)

    def step(k: Array, state: Descent) -> Descent:
        loss, grad = jax.value_and_grad(problem.loss)(state.theta)
        moved = state.theta - jnp.asarray(learning_rate, theta.dtype) * grad
        return Descent(moved, state.losses.at[k].set(loss), state.gradient_norms.at[k].set(norms(grad)[0]))

    return lax.fori_loop(0, steps, step, Descent(theta, blank, blank))


def flow_step(problem: Problem, theta: Array, grad: Array, learning_rate: float, substeps: Array) -> Array:
    """Gradient flow over time η by `substeps` equal Euler steps (the paper takes ⌈ηS⌉), from a θ (p,) where the gradient is `grad`.

    Further gradients are in the number format of this one, added up in θ's own.
    """
    def descend(at: Array, grad: Array) -> Array:
        return at - learning_rate / substeps * grad.astype(at.dtype)

    def onward(_: Array, at: Array) -> Array:
        return descend(at, loss_and_gradient(problem, at.astype(grad.dtype))[1])

    return lax.fori_loop(1, substeps, onward, descend(theta, grad))


class Residuals(NamedTuple):
    """How far a point is from the stable set M: both vanish on it."""

    sharpness: Array  # |S − 2/η|·η/2; 0 below 2/η where the constraint does not push
    gradient: Array  # |∇L·u|/‖∇L‖


class Projection(NamedTuple):
    """One linearised projection onto the stable set M, from a point that it is measured at."""

    theta: Array  # (p,) where it leads
    residuals: Residuals  # of the point


def project(point: Point, top: Direction, dS: Array, learning_rate: float) -> Projection:
    """θ − max(0, S−2/η)·∇S⊥/‖∇S⊥‖² − u(u·∇L)/S; the gap counts when negative too where α = −∇L·∇S > 0.

    There the constraint pushes, and a trajectory slides along S = 2/η.
    """
    u, dS_perp = top.u, top.dS_perp
    slope, beta, square, along = dots((point.grad, dS), (dS_perp, dS_perp), (point.grad, point.grad), (point.grad, u))
    return _landed(point.theta, u, point.eigen.sharpness, dS_perp, -slope, beta, jnp.sqrt(square), along, learning_rate)


def project_center(center: TaylorCenter, learning_rate: float) -> Projection:
    """`project` from where the loss is expanded about: what it needs is known there."""
    return _landed(
        center.theta, center.top_eigenvector, center.sharpness, center.grad_sharpness_perp, center.alpha, center.beta, center.grad_norm,
        center.grad_along_u, learning_rate,
    )


def _landed(
    theta: Array, u: Array, sharpness: Array, dS_perp: Array, alpha: Array, beta: Array, norm: Array, along: Array, learning_rate: float
) -> Projection:
    sharpness = sharpness.astype(theta.dtype)
    gap = sharpness - 2 / learning_rate
    gap = jnp.where(alpha > 0, gap, jnp.maximum(gap, 0))
    landed = theta - gap / beta * dS_perp - u * along / sharpness
    return Projection(landed, Residuals(jnp.abs(gap) * learning_rate / 2, jnp.abs(along) / jnp.where(norm == 0, 1, norm)))


def slide(point: Point, top: Direction, image: Array, dS: Array) -> tuple[Point, Array]:
    """The point moved along u to where ∇L·u = 0, and how far u turns over that way d: |d|‖∇S⊥‖/S.

    What is known there moves by Taylor's formula and costs nothing: with `image` = Hu = Su + r (p,), ∇L gains dHu + ½d²∇S,
    S gains d∇S·u, and the eigenpair leaves r + d∇S⊥ over. What is left out is of order d³, but u itself stays: only a short
    way is one.
    """
    dtype = point.theta.dtype
    (u, skew, dS_perp, along, size), sharpness = top, point.eigen.sharpness.astype(dtype)
    image = image.astype(dtype) / size
    d = -along / sharpness
    d = -(along + d**2 / 2 * skew) / sharpness
    eigen = point.eigen
    values = eigen.values.at[0].add((d * skew).astype(eigen.values.dtype))
    left, turning = (length / jnp.abs(sharpness) for length in norms(image - sharpness * u + d * dS_perp, dS_perp))
    moved = Point(
        point.theta + d * u, point.loss + along * d + sharpness * d**2 / 2 + skew * d**3 / 6,
        point.grad + d * image + d**2 / 2 * dS,
        eigen._replace(values=values, residuals=eigen.residuals.at[0].set(left.astype(eigen.residuals.dtype))),
    )
    return moved, jnp.abs(d) * turning


@jax.jit
def first_guess(center: TaylorCenter, learning_rate: float) -> Array:
    """Lemma 13: θ†_{t+1} ≈ θ†_t − ηP^⊥_{u,∇S}∇L, up to O(ε²). Where α ≤ 0 the constraint lets go: only u is projected out."""
    across = -center.alpha - center.skew * center.grad_along_u  # ∇L·∇S⊥
    along = jnp.where(center.alpha > 0, across / center.beta, 0)
    return center.theta - learning_rate * (center.grad - center.grad_along_u * center.top_eigenvector - along * center.grad_sharpness_perp)


class Displacement(NamedTuple):
    """Where θ sits about the constrained trajectory θ†, in the two directions that matter."""

    x: Array  # () along the top eigenvector: the oscillation
    y: Array  # () along ∇S⊥: first-order change of sharpness


def displacement(v: Array, center: TaylorCenter) -> Displacement:
    """x = u·v and y = ∇S⊥·v of a displacement v (p,) = θ − θ†, as in (3): a length in parameter space, and a sharpness."""
    require_correct_sums()
    return Displacement(*dots((center.top_eigenvector, v), (center.grad_sharpness_perp, v)))


class Predictions(NamedTuple):
    """Displacements v⋆ (p,) by each form of the predicted dynamics; (0,) by those that are not followed."""

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
    """Where displacements from θ† are, each field (5,), NaN where nothing is followed, and the point that the generalized prediction
    reads the loss at."""

    distance: Array  # ‖v‖
    x: Array
    y: Array
    along: Array  # (p,) θ† + x·u for the generalized x


@jax.jit
def places(center: TaylorCenter, v: Array, predictions: Predictions) -> Places:
    """The true displacement v (p,) first, then the predictions in their order."""
    u, dS_perp = center.top_eigenvector, center.grad_sharpness_perp
    every = (v, *predictions)
    found = iter(dots(*(pair for w in every if w.size for pair in ((w, w), (w, u), (w, dS_perp)))))
    missing = jnp.full((), jnp.nan, v.dtype)
    square, x, y = jnp.stack([next(found) if w.size else missing for w in every for _ in range(3)]).reshape(-1, 3).T
    return Places(jnp.sqrt(square), x, y, center.theta + x[1] * u)


@jax.jit
def forecast(center: TaylorCenter, found: Places, loss: Array, learning_rate: float) -> Forecast:
    """Theorem 1 read off each prediction; `loss` is that at the place of the generalized one along u.

    Loss L(θ†) + x²/η (the generalized form: L(θ†) + F(x)), sharpness S(θ†) + y + (∇S·u)x.
    """
    x, y = found.x[1:], found.y[1:]
    losses = (center.loss + x**2 / learning_rate).at[0].set(loss)
    return Forecast(x, y, losses, center.sharpness + y + center.skew * x)


class Advance(NamedTuple):
    """Predictions one step on, before they are carried to the next centre."""

    moved: Predictions  # of the forms in ALONG the part orthogonal to u
    along: dict[str, Array]  # () of the forms in ALONG their next x⋆


ALONG = ("generalized", "transported")
"""The forms that are carried along with u: x⋆ and the part orthogonal to u apart."""


@partial(jax.jit, static_argnames=("dtype",))
def predict(
    problem: Problem, center: TaylorCenter, predictions: Predictions, slope: Array, learning_rate: float, dtype: str
) -> Advance:
    """Every form of the predicted dynamics that is followed one step on about the same centre; `slope` is F'(x⋆). Products in
    `dtype`, one for each.

    Transported, Definition 7 (6):  P⊥(I − η∇²L)P⊥v + η∇S⊥(δ² − x²)/2 across u, and −(1 + ηy)x along the next u.
    Generalized, Appendix F:  the same across u, and (1 − ηy)x − ηF'(x) along it.
    Code form:  v − η[½(x² − δ²)∇S⊥ + ∇²L v + xy·u], never re-projected.
    Full cubic:  v − η[½∇³L(v,v) − ½δ²∇S⊥ + ∇²L v], the code form with all of the cubic term instead of its part along u.
    """
    eta, u, dS_perp, delta_squared = learning_rate, center.top_eigenvector, center.grad_sharpness_perp, center.delta_squared
    followed = {form: v for form, v in predictions._asdict().items() if v.size}

    places = [displacement(v, center) for v in followed.values()]
    tangents = [v - x * u if form in ALONG else v for (form, v), (x, _) in zip(followed.items(), places, strict=True)]
    _, product = jax.linearize(problem.gradient, center.theta.astype(dtype))
    images = lax.map(product, jnp.stack(tangents).astype(dtype)).astype(u.dtype)  # a map: one product to compile
    moved, along = dict[str, Array](), dict[str, Array]()
    for (form, v), (x, y), tangent, image in zip(followed.items(), places, tangents, images, strict=True):
        if form in ALONG:
            moved[form] = tangent - eta * (image - u * (u @ image)) + eta * (delta_squared - x**2) / 2 * dS_perp
            along[form] = (1 - eta * y) * x - eta * slope if form == "generalized" else -(1 + eta * y) * x
        elif form == "code":
            moved[form] = v - eta * (image + (x**2 - delta_squared) / 2 * dS_perp + x * y * u)
        else:
            inner = v.astype(dtype)
            cubic = problem.derivative(center.theta.astype(dtype), 3, inner, inner).astype(u.dtype)
            moved[form] = v - eta * (image + cubic / 2 - delta_squared / 2 * dS_perp)
    return Advance(predictions._replace(**moved), along)


@jax.jit
def carry(advance: Advance, next_u: Array) -> Predictions:
    """The advanced predictions about the next centre, whose top eigenvector is `next_u` (its sign kept)."""
    moved = advance.moved._asdict()
    carried = {form: moved[form] + (x - next_u @ moved[form]) * next_u for form, x in advance.along.items()}
    return advance.moved._replace(**carried)


@jax.jit
def turned(v: Predictions, old_u: Array, new_u: Array) -> Predictions:
    """The predictions about the same centre, whose top eigenvector turned out to be another one."""
    along = {form: old_u @ w for form, w in v._asdict().items() if form in ALONG and w.size}
    across = {form: v._asdict()[form] - x * old_u for form, x in along.items()}
    return carry(Advance(v._replace(**across), along), new_u)
