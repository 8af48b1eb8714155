"""The predicted dynamics: displacements v⋆ from the constrained trajectory, in every form that is followed.

A form is an entry of `FORMS`; nothing else knows how many there are. All of them live on displacements v = θ − θ† about a
`TaylorCenter`, and are written once for one direction at the edge and for several: then x is a vector, y a matrix Y of what the curvature
gains, δ² the covariance X† and x² the matrix xxᵀ, (3) becoming x ← (I − η(Λ† + Y))x, Y ← Y + ½ηB⊥[X† − xxᵀ].

With momentum a form says what acts on v in place of a gradient, G = (v − v′)/η of its step v ← v′, and a displacement has a momentum n of
its own, of ∇L(θ) − ∇L(θ†) less what holds θ† back: n ← βn + G, v ← v − η(own·G + carried·n). Along u that is for the heavy ball

    x_{t+1} = (1 + β − η(S† + y_t))x_t − βx_{t−1}        y_{t+1} = y_t + β(y_t − y_{t−1}) + ηβ_S(δ² − x_t²)/2 − …

with S† = (2+2β)/η at the edge, β_S = ‖∇S⊥‖², and the same terms of the loss kept as in (3): ∇L(θ) − ∇L(θ†) ≈ Hv + xy·u + ½x²∇S⊥. It is (3)
where β = 0. While |x| and y change little over 1/(1−β) steps it is (4) in the time ηt/(1−β), so that the fixed point δ² = 2α/β_S is the
same; of Nesterov's form |x| grows otherwise than y (`theory.Memory.growth`, `drift`). Averaged gradients have η(1−β) for η.

Where we depart from the paper and from the authors' code: the generalized prediction (Appendix F) is advanced in the transported form of
Definition 7; the authors' form of it, which never re-projects v, agrees with it to four digits of correlation.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine import theory
from engine.curvature.directions import Directions, weighed
from engine.curvature.expansion import TaylorCenter
from engine.problems.problem import Problem
from engine.xla import small_matrices
from engine.xla.device import require_correct_sums
from engine.xla.jit import jit_by_format
from engine.xla.packed import unpacked
from engine.xla.reductions import along_each, dots

Displacements = dict[str, Array]
"""v⋆ (p,) by the form that predicts it. Between steps they are kept in the format of the curvature, in which ∇²L of them is computed."""


class Displacement(NamedTuple):
    """Where θ sits about the constrained trajectory θ†, in the two directions that matter."""

    x: Array  # () along the top eigenvector: the oscillation
    y: Array  # () along ∇S⊥: first-order change of sharpness


def displacement(v: Array, center: TaylorCenter) -> Displacement:
    """x = u·v and y = ∇S⊥·v of a displacement v (p,) = θ − θ†, as in (3): a length in parameter space, and a sharpness."""
    require_correct_sums()
    return Displacement(*dots((center.top_eigenvector, v), (center.grad_sharpness_perp, v)))


class OneDirection(NamedTuple):
    """The direction at the edge about a centre, and what of an oscillation x along it acts on θ; matrices of k × k are numbers."""

    u: Array  # (p,)
    dS_perp: Array  # (p,) ∇S⊥
    curvature: Array  # () S(θ†)
    skew_along: Array  # () ∇S·u
    identity: Any = 1

    def place(self, v: Array) -> tuple[Array, Array]:
        """x = u·v and y = ∇S⊥·v, () each."""
        x, y = dots((v, self.u), (v, self.dS_perp))
        return x, y

    def along(self, x: Array) -> Array:
        """xu, (p,)."""
        return x * self.u

    def across(self, v: Array) -> Array:
        """P⊥v, (p,)."""
        return v - self.u * dots((self.u, v))[0]

    def times(self, matrix: Array, x: Array) -> Array:
        """A matrix and a vector."""
        return matrix * x

    def outer(self, x: Array) -> Array:
        """xxᵀ."""
        return x**2

    def push(self, matrix: Array) -> Array:
        """½D⊥[X], (p,)."""
        return matrix / 2 * self.dS_perp

    def skew(self, x: Array) -> Array:
        """What the curvature gains by x itself."""
        return self.skew_along * x

    def energy(self, x: Array, learning_rate: float) -> Array:
        """The rise of the loss by x, x²/η on S = 2/η (Theorem 1)."""
        return x**2 / learning_rate

    def top(self, matrix: Array) -> Array:
        """The largest eigenvalue."""
        return matrix

    def size(self, x: Array) -> Array:
        """|x|."""
        return jnp.abs(x)


class SeveralDirections(NamedTuple):
    """The directions at the edge about a centre, in one basis (`curvature.directions`)."""

    basis: Array  # (K, p) U
    third: Array  # (m, p) D⊥_ij
    curvature: Array  # (K, K) UHUᵀ
    skews: Array  # (m, K) D_ij·u_k
    identity: Array  # (K, K)

    def place(self, v: Array) -> tuple[Array, Array]:
        """x = Uv, (K,), and Y = (D⊥_ij·v)_ij, (K, K)."""
        return self.basis @ v, unpacked(self.third @ v)

    def along(self, x: Array) -> Array:
        """Uᵀx, (p,)."""
        return x @ self.basis

    def across(self, v: Array) -> Array:
        """P⊥v, (p,)."""
        return v - (self.basis @ v) @ self.basis

    def times(self, matrix: Array, x: Array) -> Array:
        """A matrix and a vector."""
        return matrix @ x

    def outer(self, x: Array) -> Array:
        """xxᵀ."""
        return jnp.outer(x, x)

    def push(self, matrix: Array) -> Array:
        """½D⊥[X], (p,)."""
        return weighed(matrix) @ self.third / 2

    def skew(self, x: Array) -> Array:
        """What the curvature gains by x itself: (D_ij·Uᵀx)_ij."""
        return unpacked(self.skews @ x)

    def energy(self, x: Array, learning_rate: float) -> Array:
        """The rise of the loss by x, ½xᵀΛx: x²/η where all are at 2/η."""
        return x @ self.curvature @ x / 2

    def top(self, matrix: Array) -> Array:
        """The largest eigenvalue."""
        return small_matrices.eigvalsh(matrix)[-1]

    def size(self, x: Array) -> Array:
        """|x|."""
        return jnp.sqrt(x @ x)


EdgeDirections = OneDirection | SeveralDirections


def edge_directions(center: TaylorCenter, directions: Directions | None) -> EdgeDirections:
    """What is at the edge about a centre: the directions where there is room for several, else the top eigenvector."""
    if directions is None or not len(directions.basis):
        curvature = center.sharpness.astype(center.theta.dtype)  # which may be the narrower of the two formats
        return OneDirection(center.top_eigenvector, center.grad_sharpness_perp, curvature, center.skew)
    identity = jnp.eye(len(directions.basis), dtype=directions.basis.dtype)
    return SeveralDirections(directions.basis, directions.across, directions.hessian, directions.skews, identity)


def balance(
    center: TaylorCenter, directions: Directions | None, covariance: Array | None, learning_rate: float, threshold: float | Array,
    drift: Array | None = None,
) -> Array:
    """X† about a centre, whose push balances that of the constraint: the `covariance` of several directions, (K, K), else
    `TaylorCenter.balance`, ()."""
    if directions is None or covariance is None or not len(directions.basis):
        return center.balance(learning_rate, threshold, drift)
    return covariance


class AlongU(NamedTuple):
    """The loss along the directions at the edge at the place of the generalized prediction, in θ's number format (Appendix F)."""

    loss: Array  # L(θ† + x⋆u) = L(θ†) + F(x⋆)
    slope: Array  # F'(x⋆), or (K,) of several directions
    curvature: Array  # F''(x⋆), or (K, K)


class FormInputs(NamedTuple):
    """What a form is advanced from."""

    v: Array  # (p,) v⋆
    x: Array  # along the directions at the edge
    y: Array  # what their curvature gains by v⋆ to first order
    image: Array  # (p,) ∇²L of v⋆, or of its part across the directions where the form carries that apart
    slope: Array  # F'(x⋆)
    edge: EdgeDirections
    covariance: Array  # X† (`balance`)
    learning_rate: float
    cubic: Callable[[Array], Array]  # ∇³L(v,v), (p,)


class Advanced(NamedTuple):
    """A prediction one step on, before it is carried to the next centre; or its momentum."""

    v: Array  # (p,); the part across the directions at the edge where `x` is apart
    x: Array | None = None  # the next x⋆, along the next u


class Form(NamedTuple):
    """One form of the predicted dynamics."""

    step: Callable[[FormInputs], Advanced]
    carries_x: bool = False
    """x⋆ and the part across u are advanced apart, and x⋆ goes on along the next u."""
    reads_along_u: bool = False
    """Loss, slope and curvature are read off the line along u (`AlongU`)."""
    third_derivatives: int = 0
    """Contractions of ∇³L that a step takes."""


def _across(at: FormInputs) -> Array:
    """P⊥(I − η∇²L)P⊥v + ½ηD⊥[X† − xxᵀ], which is η∇S⊥(δ² − x²)/2 along one direction."""
    edge, eta = at.edge, at.learning_rate
    tangent = at.v - edge.along(at.x)
    return tangent - eta * edge.across(at.image) + edge.push(eta * (at.covariance - edge.outer(at.x)))


def _generalized(at: FormInputs) -> Advanced:
    """Appendix F: the same across u, and (1 − ηy)x − ηF'(x) along it."""
    edge, eta = at.edge, at.learning_rate
    return Advanced(_across(at), edge.times(edge.identity - eta * at.y, at.x) - eta * at.slope)


def _transported(at: FormInputs) -> Advanced:
    """Definition 7 (6): P⊥(I − η∇²L)P⊥v + η∇S⊥(δ² − x²)/2 across u, and −(1 + ηy)x along the next u, which is (1 − η(S† + y))x and the
    same on S† = 2/η; (I − η(Λ† + Y))x along several.
    """
    edge = at.edge
    return Advanced(_across(at), edge.times(edge.identity - at.learning_rate * (edge.curvature + at.y), at.x))


def _code(at: FormInputs) -> Advanced:
    """The authors' code: v − η[½(x² − δ²)∇S⊥ + ∇²L v + xy·u], never re-projected."""
    edge = at.edge
    push = edge.push(edge.outer(at.x) - at.covariance)
    return Advanced(at.v - at.learning_rate * (at.image + push + edge.along(edge.times(at.y, at.x))))


def _full_cubic(at: FormInputs) -> Advanced:
    """v − η[½∇³L(v,v) − ½δ²∇S⊥ + ∇²L v]: the code form with all of the cubic term instead of its part along u."""
    return Advanced(at.v - at.learning_rate * (at.image + at.cubic(at.v) / 2 - at.edge.push(at.covariance)))


FORMS: Mapping[str, Form] = {
    "generalized": Form(_generalized, carries_x=True, reads_along_u=True),
    "transported": Form(_transported, carries_x=True),
    "code": Form(_code),
    "full_cubic": Form(_full_cubic, third_derivatives=1),
}
"""The forms by their names in a specification and in the columns."""


def begun(v: Array, forms: tuple[str, ...]) -> Displacements:
    """Every one of these forms set to the true displacement v (p,)."""
    return {form: v for form in FORMS if form in forms}


class Coordinates(NamedTuple):
    """Where a displacement from θ† leads."""

    distance: Array  # () ‖v‖
    x: Array  # () along the top eigenvector
    y: Array  # () along ∇S⊥
    along: Array  # x, or along each of several directions, (K,)
    bend: Array  # y, or what the curvature of several directions gains, (K, K)
    size: Array  # () |x| over all directions


@jax.jit
def coordinates(
    center: TaylorCenter, directions: Directions | None, v: Array, predictions: Displacements
) -> tuple[Coordinates, dict[str, Coordinates], dict[str, Array]]:
    """Of the true displacement v (p,), of the predictions, and the points θ† + x⋆u (p,) that forms read the loss at. `directions` are those
    at the edge, None for the top eigenvector alone."""
    edge = edge_directions(center, directions)
    u, dS_perp = center.top_eigenvector, center.grad_sharpness_perp
    predictions = in_format(predictions, v.dtype)
    sums = iter(dots(*(pair for w in (v, *predictions.values()) for pair in ((w, w), (w, u), (w, dS_perp)))))

    def place(w: Array) -> Coordinates:
        distance, x, y = jnp.sqrt(next(sums)), next(sums), next(sums)
        along, bend = (x, y) if isinstance(edge, OneDirection) else edge.place(w)
        return Coordinates(distance, x, y, along, bend, edge.size(along))

    true, predicted = place(v), {form: place(w) for form, w in predictions.items()}
    return true, predicted, {form: center.theta + edge.along(at.along) for form, at in predicted.items() if FORMS[form].reads_along_u}


@jit_by_format
def loss_along_several(problem: Problem, theta: Array, basis: Array) -> AlongU:
    """L(θ), its slope U∇L(θ) (K,) and its curvature U∇²L(θ)Uᵀ (K, K) along orthonormal directions U (K, p), in θ's number format."""
    loss, grad = jax.value_and_grad(problem.loss)(theta)
    images = lax.map(problem.product_at(theta), basis)
    curvature = images @ basis.T
    return AlongU(loss, basis @ grad, (curvature + curvature.T) / 2)


class Forecast(NamedTuple):
    """What a prediction says at a step, () each."""

    x: Array
    y: Array
    loss: Array
    sharpness: Array
    distance: Array  # ‖v⋆‖ from θ†
    x_norm: Array  # over all directions


def forecast(center: TaylorCenter, edge: EdgeDirections, at: Coordinates, along: AlongU | None, learning_rate: float) -> Forecast:
    """Theorem 1 read off a prediction, and Appendix F off one that is given the loss `along` u.

    Loss L(θ†) + x²/η, sharpness S(θ†) + y + (∇S·u)x; along u: loss L(θ†) + F(x), sharpness F''(x) + y. Along several directions the
    sharpness is the largest eigenvalue of these matrices.
    """
    if along is not None:
        return Forecast(at.x, at.y, along.loss, edge.top(along.curvature + at.bend), at.distance, at.size)
    loss = center.loss + edge.energy(at.along, learning_rate)
    return Forecast(at.x, at.y, loss, edge.top(edge.curvature + at.bend + edge.skew(at.along)), at.distance, at.size)


@partial(jax.jit, static_argnames=("dtype",))
def predict(
    problem: Problem, center: TaylorCenter, predictions: Displacements, slopes: dict[str, Array], learning_rate: float,
    threshold: float, dtype: str, directions: Directions | None = None, covariance: Array | None = None, push: Array | None = None,
) -> dict[str, Advanced]:
    """Every form of the predicted dynamics that is followed one step on about the same centre; `slopes` are the F'(x⋆) of those that read
    along u. Products in `dtype`, one for each. `directions` are those at the edge, with their covariance; None for the top eigenvector.
    `push` is X† where it is not that of a step of gradient descent.
    """
    edge = edge_directions(center, directions)
    push = balance(center, directions, covariance, learning_rate, threshold) if push is None else push
    own, at = center.theta.dtype, center.theta.astype(dtype)
    predictions = in_format(predictions, own)

    def cubic(v: Array) -> Array:
        return problem.derivative(at, 3, v.astype(dtype), v.astype(dtype)).astype(own)

    places = {form: edge.place(v) for form, v in predictions.items()}
    tangents = [v - edge.along(places[form][0]) if FORMS[form].carries_x else v for form, v in predictions.items()]
    images = lax.map(problem.product_at(at), jnp.stack([tangent.astype(dtype) for tangent in tangents]))  # a map: one product to compile
    nowhere = jnp.full((), jnp.nan)
    return {
        form: FORMS[form].step(FormInputs(v, *places[form], image.astype(own), slopes.get(form, nowhere), edge, push, learning_rate, cubic))
        for (form, v), image in zip(predictions.items(), images, strict=True)
    }


@partial(jax.jit, static_argnames=("dtype",))
def predict_with_momentum(
    problem: Problem, center: TaylorCenter, predictions: Displacements, momenta: Displacements, slopes: dict[str, Array],
    memory: theory.Memory, learning_rate: float, push: Array, dtype: str, directions: Directions | None = None,
) -> tuple[dict[str, Advanced], dict[str, Advanced]]:
    """`predict` for steps that remember, and the momentum of every form one step on. `push` is X†."""
    edge = edge_directions(center, directions)
    forces = predict(problem, center, predictions, slopes, 1.0, 0.0, dtype, directions, push=push)  # at η = 1 a step is what acts on v
    moved, remembered = dict[str, Advanced](), dict[str, Advanced]()
    predictions, momenta = (in_format(each, center.theta.dtype) for each in (predictions, momenta))

    def onward(v: Array, n: Array, force: Array) -> tuple[Array, Array]:
        n = memory.beta * n + force
        return v - learning_rate * (memory.own * force + memory.carried * n), n

    for form, force in forces.items():
        v, n = predictions[form], momenta[form]
        if force.x is None:
            v, n = onward(v, n, v - force.v)
            moved[form], remembered[form] = Advanced(v), Advanced(n)
            continue
        (x, _), (n_x, _) = edge.place(v), edge.place(n)
        tangent, n = v - edge.along(x), n - edge.along(n_x)
        x_next, n_x = onward(x, n_x, x - force.x)
        tangent, n = onward(tangent, n, tangent - force.v)
        moved[form], remembered[form] = Advanced(tangent, x_next), Advanced(n, n_x)
    return moved, remembered


@jax.jit
def carry(advanced: dict[str, Advanced], next_basis: Array) -> Displacements:
    """The advanced predictions about the next centre, whose top eigenvector is `next_basis` (p,), its sign kept; or whose directions at the
    edge are (K, p), in the basis nearest to the one before."""
    basis = jnp.atleast_2d(next_basis)
    return {form: v if x is None else v + (x - along_each(basis, v)) @ basis for form, (v, x) in advanced.items()}


def in_format(displacements: Displacements, dtype: str | np.dtype) -> Displacements:
    """The same in a number format."""
    return {form: v.astype(dtype) for form, v in displacements.items()}


@jax.jit
def turned(predictions: Displacements, old_u: Array, new_u: Array) -> Displacements:
    """The predictions about the same centre, whose top eigenvector turned out to be another one."""
    advanced, kept = {}, [v.dtype for v in predictions.values()]
    for form, v in in_format(predictions, old_u.dtype).items():
        x = old_u @ v if FORMS[form].carries_x else None
        advanced[form] = Advanced(v, None) if x is None else Advanced(v - x * old_u, x)
    return in_format(carry(advanced, new_u), kept[0]) if kept else {}
