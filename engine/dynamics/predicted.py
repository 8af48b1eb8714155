"""The predicted dynamics: displacements v⋆ from the constrained trajectory, in every form that is followed.

A form is an entry of `FORMS`; nothing else knows how many there are. All of them live on displacements v = θ − θ† about a
`TaylorCenter`.

Where we depart from the paper and from the authors' code: the generalized prediction (Appendix F) is advanced in the transported form of
Definition 7; the authors' form of it, which never re-projects v, agrees with it to four digits of correlation.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.curvature.expansion import TaylorCenter
from engine.problems.problem import Problem
from engine.xla.device import require_correct_sums
from engine.xla.reductions import dots

Displacements = dict[str, Array]
"""v⋆ (p,) by the form that predicts it."""


class Displacement(NamedTuple):
    """Where θ sits about the constrained trajectory θ†, in the two directions that matter."""

    x: Array  # () along the top eigenvector: the oscillation
    y: Array  # () along ∇S⊥: first-order change of sharpness


def displacement(v: Array, center: TaylorCenter) -> Displacement:
    """x = u·v and y = ∇S⊥·v of a displacement v (p,) = θ − θ†, as in (3): a length in parameter space, and a sharpness."""
    require_correct_sums()
    return Displacement(*dots((center.top_eigenvector, v), (center.grad_sharpness_perp, v)))


class AlongU(NamedTuple):
    """The loss along u at the place of the generalized prediction, in θ's number format (Appendix F)."""

    loss: Array  # L(θ† + x⋆u) = L(θ†) + F(x⋆)
    slope: Array  # F'(x⋆)
    curvature: Array  # F''(x⋆)


class FormInputs(NamedTuple):
    """What a form is advanced from."""

    v: Array  # (p,) v⋆
    x: Array
    y: Array
    image: Array  # (p,) ∇²L of v⋆, or of its part orthogonal to u where the form carries that apart
    slope: Array  # F'(x⋆)
    center: TaylorCenter
    push: Array  # δ², or the push that θ† meets (`TaylorCenter.balance`)
    learning_rate: float
    cubic: Callable[[Array], Array]  # ∇³L(v,v), (p,)


class Advanced(NamedTuple):
    """A prediction one step on, before it is carried to the next centre."""

    v: Array  # (p,); the part orthogonal to u where `x` is apart
    x: Array | None = None  # the next x⋆, along the next u


class Form(NamedTuple):
    """One form of the predicted dynamics."""

    step: Callable[[FormInputs], Advanced]
    carries_x: bool = False
    """x⋆ and the part orthogonal to u are advanced apart, and x⋆ goes on along the next u."""
    reads_along_u: bool = False
    """Loss, slope and curvature are read off the line along u (`AlongU`)."""
    third_derivatives: int = 0
    """Contractions of ∇³L that a step takes."""


def _across(at: FormInputs) -> Array:
    """P⊥(I − η∇²L)P⊥v + η∇S⊥(δ² − x²)/2."""
    u, eta = at.center.top_eigenvector, at.learning_rate
    tangent = at.v - at.x * u
    return tangent - eta * (at.image - u * (u @ at.image)) + eta * (at.push - at.x**2) / 2 * at.center.grad_sharpness_perp


def _generalized(at: FormInputs) -> Advanced:
    """Appendix F: the same across u, and (1 − ηy)x − ηF'(x) along it."""
    return Advanced(_across(at), (1 - at.learning_rate * at.y) * at.x - at.learning_rate * at.slope)


def _transported(at: FormInputs) -> Advanced:
    """Definition 7 (6): P⊥(I − η∇²L)P⊥v + η∇S⊥(δ² − x²)/2 across u, and −(1 + ηy)x along the next u, which is (1 − η(S† + y))x and the
    same on S† = 2/η.
    """
    return Advanced(_across(at), (1 - at.learning_rate * (at.center.sharpness + at.y)) * at.x)


def _code(at: FormInputs) -> Advanced:
    """The authors' code: v − η[½(x² − δ²)∇S⊥ + ∇²L v + xy·u], never re-projected."""
    u, dS_perp = at.center.top_eigenvector, at.center.grad_sharpness_perp
    return Advanced(at.v - at.learning_rate * (at.image + (at.x**2 - at.push) / 2 * dS_perp + at.x * at.y * u))


def _full_cubic(at: FormInputs) -> Advanced:
    """v − η[½∇³L(v,v) − ½δ²∇S⊥ + ∇²L v]: the code form with all of the cubic term instead of its part along u."""
    return Advanced(at.v - at.learning_rate * (at.image + at.cubic(at.v) / 2 - at.push / 2 * at.center.grad_sharpness_perp))


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
    """Where a displacement from θ† leads, () each."""

    distance: Array  # ‖v‖
    x: Array
    y: Array


@jax.jit
def coordinates(center: TaylorCenter, v: Array, predictions: Displacements) -> tuple[Coordinates, dict[str, Coordinates], dict[str, Array]]:
    """Of the true displacement v (p,), of the predictions, and the points θ† + x⋆u (p,) that forms read the loss at."""
    u, dS_perp = center.top_eigenvector, center.grad_sharpness_perp
    sums = iter(dots(*(pair for w in (v, *predictions.values()) for pair in ((w, w), (w, u), (w, dS_perp)))))
    true, *others = (Coordinates(jnp.sqrt(next(sums)), next(sums), next(sums)) for _ in range(1 + len(predictions)))
    predicted = dict(zip(predictions, others, strict=True))
    return true, predicted, {form: center.theta + at.x * u for form, at in predicted.items() if FORMS[form].reads_along_u}


class Forecast(NamedTuple):
    """What a prediction says at a step, () each."""

    x: Array
    y: Array
    loss: Array
    sharpness: Array
    distance: Array  # ‖v⋆‖ from θ†


def forecast(center: TaylorCenter, at: Coordinates, along: AlongU | None, learning_rate: float) -> Forecast:
    """Theorem 1 read off a prediction, and Appendix F off one that is given the loss `along` u.

    Loss L(θ†) + x²/η, sharpness S(θ†) + y + (∇S·u)x; along u: loss L(θ†) + F(x), sharpness F''(x) + y.
    """
    if along is not None:
        return Forecast(at.x, at.y, along.loss, along.curvature + at.y, at.distance)
    return Forecast(at.x, at.y, center.loss + at.x**2 / learning_rate, center.sharpness + at.y + center.skew * at.x, at.distance)


@partial(jax.jit, static_argnames=("dtype",))
def predict(
    problem: Problem, center: TaylorCenter, predictions: Displacements, slopes: dict[str, Array], learning_rate: float,
    threshold: float, dtype: str,
) -> dict[str, Advanced]:
    """Every form of the predicted dynamics that is followed one step on about the same centre; `slopes` are the F'(x⋆) of those that read
    along u. Products in `dtype`, one for each.
    """
    u, push, at = center.top_eigenvector, center.balance(learning_rate, threshold), center.theta.astype(dtype)

    def cubic(v: Array) -> Array:
        return problem.derivative(at, 3, v.astype(dtype), v.astype(dtype)).astype(u.dtype)

    places = {form: displacement(v, center) for form, v in predictions.items()}
    tangents = [v - places[form].x * u if FORMS[form].carries_x else v for form, v in predictions.items()]
    images = lax.map(problem.product_at(at), jnp.stack(tangents).astype(dtype)).astype(u.dtype)  # a map: one product to compile
    nowhere = jnp.full((), jnp.nan)
    return {
        form: FORMS[form].step(FormInputs(
            v, *places[form], image, slopes.get(form, nowhere), center, push, learning_rate, cubic,
        ))
        for (form, v), image in zip(predictions.items(), images, strict=True)
    }


@jax.jit
def carry(advanced: dict[str, Advanced], next_u: Array) -> Displacements:
    """The advanced predictions about the next centre, whose top eigenvector is `next_u` (its sign kept)."""
    return {form: v if x is None else v + (x - next_u @ v) * next_u for form, (v, x) in advanced.items()}


@jax.jit
def turned(predictions: Displacements, old_u: Array, new_u: Array) -> Displacements:
    """The predictions about the same centre, whose top eigenvector turned out to be another one."""
    advanced = {}
    for form, v in predictions.items():
        x = old_u @ v if FORMS[form].carries_x else None
        advanced[form] = Advanced(v, None) if x is None else Advanced(v - x * old_u, x)
    return carry(advanced, new_u)
