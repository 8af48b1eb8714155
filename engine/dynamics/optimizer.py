"""What an optimizer is: a step, and the sharpness above which its steps are unstable.

It is pure functions of its state. The state is what the next step needs and is part of every checkpoint; whatever its kind, it has a field
`learning_rate`, in which a step's length is linear: half the rate leads half the way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from engine import theory

State = Any
"""A NamedTuple of arrays with a field `learning_rate`."""
Unravel = Callable[[Array], Any]
"""θ (p,) as the tree of parameters that it is made of."""
Gradient = Callable[[Array], Array]
"""∇L at any θ, (p,) each."""


class Norm(NamedTuple):
    """The norm in which an optimizer's steps are the steepest, where that is not the Euclidean one."""

    steepest: Callable[[Array, State], tuple[Array, Array]]
    """g (p,) to d = argmax <g,d> over ‖d‖ ≤ 1, and ‖g‖_* = <g,d>."""
    size: Callable[[Array, State], Array]
    """v (p,) to ‖v‖."""
    dual_scaled: bool
    """Whether a step is η‖g‖_*d, or ηd."""


class Momentum(NamedTuple):
    """What the steps of an optimizer remember, where that is a sum of gradients and nothing else."""

    memory: theory.Memory
    trace: Callable[[State], Array]
    """m (p,) as the last step left it."""


class Optimizer(NamedTuple):
    """A step and the edge that belongs to it; hyperparameters are closed over."""

    init: Callable[[Array, Unravel, float], State]
    """θ (p,), its tree and η to the state before the first step."""
    step: Callable[[Array, State, Array, Gradient], tuple[Array, State]]
    """θ (p,), state, ∇L(θ), and ∇L where a step asks for it elsewhere, to the next θ, in its number format, and the state there."""
    preconditioner: Callable[[State], Array]
    """P, () or (p,): stability is read off the top eigenvalue of P^-½ ∇²L P^-½. It is that of the step that led to the state, and not a
    number before the first one where it changes."""
    threshold: Callable[[State], Array]
    """That eigenvalue above which steps are unstable, (), as of the step that led to the state; NaN where no such number is known."""
    norm: Norm | None = None
    momentum: Momentum | None = None


def unscaled(state: State) -> Array:
    """P = 1."""
    return jnp.ones(())


def two_over_eta(state: State) -> Array:
    """2/η."""
    return theory.threshold(state.learning_rate)


def threshold_of(optimizer: Optimizer, state: State) -> float:
    """The edge that belongs to a state, as the host has it: 2/η divided there, for which the device need not be asked."""
    if optimizer.threshold is two_over_eta:
        return theory.threshold(float(state.learning_rate))
    return float(optimizer.threshold(state))


def plain_rate(optimizer: Optimizer, state: State) -> float:
    """The learning rate at which gradient descent has this edge: η itself where it is gradient descent."""
    if optimizer.threshold is two_over_eta:
        return float(state.learning_rate)
    return 2 / threshold_of(optimizer, state)


def in_format(state: State, dtype: str) -> State:
    """The state with its vectors in another number format; learning rates and counters stay."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, state)


def rate(learning_rate: float) -> Array:
    """η as a state has it."""
    return jnp.asarray(learning_rate, jnp.float64)


def moved(theta: Array, direction: Array, learning_rate: Array) -> Array:
    """θ − η·direction, (p,), in θ's number format."""
    return jnp.asarray(optax.apply_updates(theta, -learning_rate.astype(theta.dtype) * direction))


def shapes_of(theta: Array, unravel: Unravel) -> Any:
    """The tree of parameters as arrays of no numbers, (0, …) and the shape of each: what a step needs of it, in a state, for nothing."""
    return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), jax.eval_shape(unravel, theta))


def parts_of(vector: Array, shapes: Any) -> Any:
    """A vector (p,) as the tree of `shapes_of`, without what fills up the last share of it where it lies in shares."""
    leaves, structure = jax.tree.flatten(shapes)
    sizes = [int(np.prod(leaf.shape[1:])) for leaf in leaves]
    parts = lax.split(vector[: sum(sizes)], sizes)
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape[1:]) for part, leaf in zip(parts, leaves, strict=True)])


def vector_of(tree: Any, size: int = 0) -> Array:
    """The leaves of a tree as one vector (p,), with zeros after them where it is to be of a larger `size`."""
    vector = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return jnp.pad(vector, (0, size - len(vector))) if size > len(vector) else vector


def passed(optimizer: Optimizer, state: State) -> dict[str, Array]:
    """What a step leaves in the state after it that a record reads, by the name of the column or of what it is computed from; each ()."""
    edge = {} if optimizer.threshold is two_over_eta else {"threshold": optimizer.threshold(state).astype(jnp.float64)}
    return edge | ({} if optimizer.norm is None else {"dual_norm": state.dual_norm})
