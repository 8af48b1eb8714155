"""The networks, as flax modules behind two pure functions: `init(key) -> parameters` and `apply(parameters, inputs)`.

They are smooth in their parameters (relu aside), so derivatives of every order exist, and compute in the number format of the
parameters. Initial parameters are drawn in float32, so that they do not depend on jax's global setting.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from engine import spec as specs
from engine.data import Dataset
from engine.data.words import MAX_TOKENS, PAD

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "swish": jax.nn.swish,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
}

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform on ±1/√fan_in."""


def scaled(factor: float) -> nn.initializers.Initializer:
    """`UNIFORM` times a factor."""

    def draw(key: Array, shape: Any, dtype: Any = jnp.float32, *_: Any) -> Array:
        return factor * UNIFORM(key, shape, dtype)

    return draw


class Mlp(nn.Module):
    """Flatten, then (dense, activation) for each width, then a dense head."""

    part: specs.Mlp
    outputs: int

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        activate = ACTIVATIONS[self.part.activation]
        hidden = inputs.reshape(len(inputs), -1)  # (n, features)
        for width in self.part.widths:
            hidden = activate(nn.Dense(width, kernel_init=UNIFORM)(hidden))
        return nn.Dense(self.outputs, kernel_init=scaled(self.part.head_scale))(hidden)


class Conv(nn.Module):
    """A 3×3 convolution with zero padding, written as one product with the nine shifted copies of its input.

    XLA's own convolutions lose a factor of ten on a CPU inside loops and in their second and third derivatives.
    """

    width: int

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        height, width = maps.shape[1:3]
        framed = jnp.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [framed[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return nn.Dense(self.width, kernel_init=UNIFORM)(jnp.concatenate(shifted, axis=-1))


def average_pool(maps: Array) -> Array:
    """The mean over 2×2 squares, (n, h, w, c) to (n, h//2, w//2, c); an odd last row or column is left out."""
    count, height, width, channels = maps.shape
    even = maps[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Cnn(nn.Module):
    """(3×3 convolution, activation, 2×2 average pool) for each width, then a dense head on the flattened maps."""

    part: specs.Cnn
    outputs: int

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        activate = ACTIVATIONS[self.part.activation]
        maps = inputs  # (n, height, width, channels)
        for width in self.part.widths:
            maps = average_pool(activate(Conv(width)(maps)))
        return nn.Dense(self.outputs, kernel_init=scaled(self.part.head_scale))(maps.reshape(len(maps), -1))


class Transformer(nn.Module):
    """Post-LayerNorm encoder on token ids: learned positions, mean over the words, zero-initialised head."""

    part: specs.Transformer
    vocabulary: int
    outputs: int

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        part, activate = self.part, ACTIVATIONS[self.part.activation]
        present = inputs != PAD  # (n, length)
        length = inputs.shape[1]
        places = nn.Embed(MAX_TOKENS, part.hidden, name="positions")(jnp.arange(length))
        hidden = nn.LayerNorm()(nn.Embed(self.vocabulary, part.hidden, name="words")(inputs) + places)  # (n, length, hidden)
        mask = present[:, None, None, :]  # no word looks at [PAD]
        for _ in range(part.layers):
            hidden = nn.LayerNorm()(hidden + nn.MultiHeadDotProductAttention(part.heads)(hidden, mask=mask))
            inner = activate(nn.Dense(4 * part.hidden)(hidden))
            hidden = nn.LayerNorm()(hidden + nn.Dense(part.hidden)(inner))
        weights = present[..., None].astype(hidden.dtype)
        pooled = jnp.sum(hidden * weights, axis=1) / jnp.sum(weights, axis=1)  # (n, hidden)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(pooled)


class Model(NamedTuple):
    """A network as pure functions."""

    init: Callable[[Array], Any]
    """A random key to a tree of float32 parameters."""
    apply: Callable[[Any, Array], Array]
    """(parameters, inputs (n, …)) to outputs (n, k) in the parameters' number format."""


def build(part: specs.Mlp | specs.Cnn | specs.Transformer, dataset: Dataset) -> Model:
    """The network of a specification, sized for a data set."""
    module: nn.Module
    if isinstance(part, specs.Transformer):
        module = Transformer(part, len(dataset.vocabulary), dataset.outputs)
    elif isinstance(part, specs.Mlp):
        module = Mlp(part, dataset.outputs)
    else:
        module = Cnn(part, dataset.outputs)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # used once: one program, quickly compiled
    def init(key: Array) -> Any:
        return module.init(key, dataset.inputs[:1])["params"]

    def apply(parameters: Any, inputs: Array) -> Any:
        return module.apply({"params": parameters}, inputs)

    return Model(init, apply)
