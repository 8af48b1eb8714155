"""The optimizers: how each takes a step, and the sharpness above which its steps are unstable.

An optimizer is four pure functions of its state. The state is what the next step needs and is part of every checkpoint; whatever its kind,
it has a field `learning_rate`, in which a step's length is linear: half the rate leads half the way. Update rules are optax's:
`optax.sgd` gives θ − η∇L to the last bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from engine import theory
from engine.spec import sections

State = Any
"""A NamedTuple of arrays with a field `learning_rate`."""
Unravel = Callable[[Array], Any]
"""θ (p,) as the tree of parameters that it is made of."""
Gradient = Callable[[Array], Array]
"""∇L at any θ, (p,) each."""


class Optimizer(NamedTuple):
    """A step and the edge that belongs to it; hyperparameters are closed over."""

    init: Callable[[Array, Unravel, float], State]
    """θ (p,), its tree and η to the state before the first step."""
    step: Callable[[Array, State, Array, Gradient], tuple[Array, State]]
    """θ (p,), state, ∇L(θ), and ∇L where a step asks for it elsewhere, to the next θ, in its number format, and the state there."""
    preconditioner: Callable[[State], Array]
    """P, () or (p,): stability is read off the top eigenvalue of P^-½ ∇²L P^-½."""
    threshold: Callable[[State], Array]
    """That eigenvalue above which steps are unstable, ()."""


class GradientDescentState(NamedTuple):
    """What gradient descent needs to know for a step."""

    learning_rate: Array  # () η


def _begin(theta: Array, unravel: Unravel, learning_rate: float) -> GradientDescentState:
    return GradientDescentState(jnp.asarray(learning_rate, jnp.float64))


def _step(theta: Array, state: GradientDescentState, gradient: Array, gradient_at: Gradient) -> tuple[Array, GradientDescentState]:
    rule = optax.sgd(state.learning_rate.astype(theta.dtype))
    updates, _ = rule.update(gradient, rule.init(theta))
    return jnp.asarray(optax.apply_updates(theta, updates)), state


def _unscaled(state: GradientDescentState) -> Array:
    return jnp.ones(())


def _two_over_eta(state: GradientDescentState) -> Array:
    return theory.threshold(state.learning_rate)


GRADIENT_DESCENT = Optimizer(_begin, _step, _unscaled, _two_over_eta)
"""θ ← θ − η∇L(θ), stable on a quadratic while S ≤ 2/η."""

OPTIMIZERS: dict[type, Callable[[Any], Optimizer]] = {sections.GradientDescent: lambda section: GRADIENT_DESCENT}
"""By their section of the specification. Sections that differ in η alone give the same optimizer: what is compiled is compiled for it."""


def optimizer_of(section: sections.Optimizer) -> Optimizer:
    """The optimizer of a section."""
    return OPTIMIZERS[type(section)](section)
