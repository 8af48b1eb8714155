"""The trajectories: gradient descent, gradient flow, the constrained trajectory, and the predicted dynamics.

Each is a pure step. All of them live on flat θ, and all predictions on displacements v = θ − θ† about a `TaylorCenter`.

Where we depart from the paper and from the authors' code:
- The projection is that on the nearest point, with S ≤ 2/η as the inequality it is and the normal of u·∇L = 0 as θ and u move, where
  the authors' code moves along u alone and by no more than an excess of S. It reuses the normals of the last centre (a chord step) and
  is repeated while a residual asks, not three times always.
- The generalized prediction (Appendix F) is advanced in the transported form of Definition 7; the authors' form of it, which
  never re-projects v, agrees with it to four digits of correlation.
- Gradient flow starts at θ†_0, where the paper's other trajectories part from; in the authors' code it starts at gradient descent's
  θ, as it does here with `tracking.flow_start = "descent"`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.expansion import Direction, Normals, Point, TaylorCenter, loss_and_gradient
from engine.problems.problem import Problem
from engine.xla.device import require_correct_sums
from engine.xla.jit import jit_by_format
from engine.xla.reductions import dots, norms

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
    """How far a point is from being the nearest of the stable set M to a target: all vanish there."""

    sharpness: Array  # of S·η/2: |S − 2/η|·η/2 where the constraint pushes, else what is left of a push that it no longer gives
    gradient: Array  # |∇L·u|/‖∇L‖
    sideways: Array  # what is left of the way to the target along neither normal, as the change of S·η/2 that as long a way along ∇S makes


class Projection(NamedTuple):
    """One step of the projection onto the stable set M, from a point that it is measured at."""

    theta: Array  # (p,) where it leads
    residuals: Residuals  # of the point
    pushes: Array  # whether S ≤ 2/η holds θ back there: its multiplier is positive


def project(point: Point, top: Direction, normals: Normals, target: Array, learning_rate: float) -> Projection:
    """A step from a measured point θ towards the point of M nearest to `target` (p,): sequential quadratic programming.

    M is S ≤ 2/η and u·∇L = 0 (Section 3). Both are linearised at θ, with the normals b = ∇S and a = Su + tilt: of the steps d with
    a·d = −u·∇L and b·d ≤ 2/η − S the one that leads nearest to the target is target − θ − μa − νb. The multiplier ν ≥ 0 is that of the
    whole way from the target. So S is brought to 2/η from below too while the constraint pushes, and where ν = 0 it is slack: a target
    in M is its own projection.
    """
    square, along = dots((point.grad, point.grad), (point.grad, top.u))
    return _landed(point.theta, top, normals.tilt, point.eigen.sharpness, jnp.sqrt(square), along, target, learning_rate)


def project_center(center: TaylorCenter, target: Array, learning_rate: float) -> Projection:
    """`project` from where the loss is expanded about: what it needs is known there.

    For the target θ† − η∇L of the next step it is Lemma 13, θ†_{t+1} ≈ θ† − ηP^⊥_{u,∇S}∇L up to O(ε²), while the constraint pushes.
    """
    top = Direction(center.top_eigenvector, center.skew, center.grad_sharpness_perp, center.grad_along_u, jnp.ones(()))
    return _landed(center.theta, top, center.tilt, center.sharpness, center.grad_norm, center.grad_along_u, target, learning_rate)


def _landed(
    theta: Array, top: Direction, tilt: Array, sharpness: Array, norm: Array, along: Array, target: Array, learning_rate: float
) -> Projection:
    (u, skew, dS_perp, _, _), S = top, sharpness.astype(theta.dtype)
    way, gap = target - theta, S - 2 / learning_rate
    far, way_u, way_tilt, way_dS, tilt_u, tilt_tilt, tilt_dS, beta = dots(
        (way, way), (way, u), (way, tilt), (way, dS_perp), (tilt, u), (tilt, tilt), (tilt, dS_perp), (dS_perp, dS_perp)
    )
    aa, bb = S**2 + 2 * S * tilt_u + tilt_tilt, beta + skew**2
    ab = skew * (S + tilt_u) + tilt_dS
    a_way, b_way = S * way_u + way_tilt, skew * way_u + way_dS
    A, B, determinant = a_way + along, b_way + gap, aa * bb - ab**2
    pushes = ~(aa * B - ab * A <= 0)  # NaN counts, and leads nowhere
    nu = jnp.where(pushes, (aa * B - ab * A) / determinant, 0)
    mu = (A - nu * ab) / aa
    landed = theta + way - (mu * S + nu * skew) * u - mu * tilt - nu * dS_perp
    within = jnp.where(determinant > 0, (a_way**2 * bb - 2 * a_way * b_way * ab + b_way**2 * aa) / determinant, a_way**2 / aa)
    half, rises = learning_rate / 2, b_way - mu * ab - nu * bb
    residuals = Residuals(
        jnp.abs(rises) * half, jnp.abs(along) / jnp.where(norm == 0, 1, norm), jnp.sqrt(jnp.maximum(far - within, 0) * bb) * half
    )
    return Projection(landed, residuals, pushes)


@jax.jit
def next_target(center: TaylorCenter, learning_rate: float) -> Array:
    """θ† − η∇L(θ†), the step of gradient descent whose projection is the next θ† (2)."""
    return center.theta - learning_rate * center.grad


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
    distance: Array  # ‖v⋆‖ from θ†


class Places(NamedTuple):
    """Where displacements from θ† are, each field (5,), NaN where nothing is followed, and the point that the generalized prediction
    reads the loss at."""

    distance: Array  # ‖v‖
    x: Array
    y: Array
    along: Array  # (p,) θ† + x·u for the generalized x


class AlongU(NamedTuple):
    """The loss along u at the place of the generalized prediction, in θ's number format (Appendix F)."""

    loss: Array  # L(θ† + x⋆u) = L(θ†) + F(x⋆)
    slope: Array  # F'(x⋆)
    curvature: Array  # F''(x⋆)


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
def forecast(center: TaylorCenter, found: Places, along: AlongU, learning_rate: float) -> Forecast:
    """Theorem 1 read off each prediction, and Appendix F off the generalized one, which is `along` u.

    Loss L(θ†) + x²/η, sharpness S(θ†) + y + (∇S·u)x; generalized: loss L(θ†) + F(x), sharpness F''(x) + y.
    """
    x, y = found.x[1:], found.y[1:]
    losses = (center.loss + x**2 / learning_rate).at[0].set(along.loss)
    sharpness = (center.sharpness + y + center.skew * x).at[0].set(along.curvature + y[0])
    return Forecast(x, y, losses, sharpness, found.distance[1:])


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
    δ² stands for the push that θ† meets (`TaylorCenter.balance`) and −(1 + ηy)x for (1 − η(S† + y))x, which is the same on S† = 2/η.
    """
    eta, u, dS_perp, delta_squared = learning_rate, center.top_eigenvector, center.grad_sharpness_perp, center.balance(learning_rate)
    followed = {form: v for form, v in predictions._asdict().items() if v.size}

    places = [displacement(v, center) for v in followed.values()]
    tangents = [v - x * u if form in ALONG else v for (form, v), (x, _) in zip(followed.items(), places, strict=True)]
    _, product = jax.linearize(problem.gradient, center.theta.astype(dtype))
    images = lax.map(product, jnp.stack(tangents).astype(dtype)).astype(u.dtype)  # a map: one product to compile
    moved, along = dict[str, Array](), dict[str, Array]()
    for (form, v), (x, y), tangent, image in zip(followed.items(), places, tangents, images, strict=True):
        if form in ALONG:
            moved[form] = tangent - eta * (image - u * (u @ image)) + eta * (delta_squared - x**2) / 2 * dS_perp
            along[form] = (1 - eta * y) * x - eta * slope if form == "generalized" else (1 - eta * (center.sharpness + y)) * x
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
