"""The criteria: one loss for each example, from the network's outputs and its target.

The training loss is their mean, so a criterion has neither a ½ nor a 1/k of its own unless it says so. Targets are ±1 for two
classes and real numbers for a regression, both (n, 1), or class labels (n,).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def mse(outputs: Array, targets: Array) -> Array:
    """‖f − y‖², with y the one-hot e_y of a class label. Without ½ (the paper), so twice the sharpness of `half_mse`."""
    wanted = targets if targets.ndim == outputs.ndim else jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
    return jnp.sum((outputs - wanted.astype(outputs.dtype)) ** 2, axis=-1)


def half_mse(outputs: Array, targets: Array) -> Array:
    """½‖f − y‖² (Cohen et al.)."""
    return mse(outputs, targets) / 2


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """−log softmax(f)_y for class labels y."""
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=-1)[:, 0]


def logistic(outputs: Array, targets: Array) -> Array:
    """−log σ(f·y) for y = ±1."""
    return -jax.nn.log_sigmoid(jnp.sum(outputs * targets.astype(outputs.dtype), axis=-1))


def correct(outputs: Array, targets: Array) -> Array:
    """1 where the answer is right: the sign of f for y = ±1, the largest output for a class label. No criterion, a reading."""
    right = jnp.sum(outputs * targets, axis=-1) > 0 if targets.ndim == outputs.ndim else jnp.argmax(outputs, axis=-1) == targets
    return right.astype(outputs.dtype)


CRITERIA: dict[str, Callable[[Array, Array], Array]] = {
    "mse": mse,
    "half_mse": half_mse,
    "cross_entropy": cross_entropy,
    "logistic": logistic,
}
"""(outputs (n, k), targets) -> losses (n,), in the number format of the outputs."""
