"""The networks, as flax modules behind two pure functions: `init(key) -> parameters` and `apply(parameters, inputs)`.

They are smooth in their parameters (relu aside), so derivatives of every order exist, and compute in the number format of the
parameters. Initial parameters are drawn in float32, so that they do not depend on jax's global setting.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from engine.data import Dataset
from engine.data.words import MAX_TOKENS, PAD
from engine.spec import sections
from engine.xla.jit import layer_product

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


Section = Callable[[nn.Module, Array], Array]
"""A part of a network as a function of the module that holds its parameters, and of what enters it."""


def sectioned(section: Section, rematerialize: bool) -> Section:
    """The section, or one whose inside is computed again where a derivative needs it: what enters it is all that is kept.

    The names of its parameters, and so the order of θ and its start, stay.
    """
    return nn.remat(section) if rematerialize else section


class Mlp(nn.Module):
    """Flatten, then (dense, activation) for each width, then a dense head. √depth layers make a section."""

    part: sections.Mlp
    outputs: int
    rematerialize: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        part, activate, dense = self.part, ACTIVATIONS[self.part.activation], partial(nn.Dense, dot_general=layer_product)
        hidden = inputs.reshape(len(inputs), -1)  # (n, features)

        def layers(_: nn.Module, hidden: Array, widths: tuple[int, ...]) -> Array:
            for width in widths:
                if part.normalized:
                    # A random bias, not zero: an input of zeros would leave nothing to divide by.
                    hidden = normalized(dense(width, kernel_init=UNIFORM, bias_init=nn.initializers.normal(1.0))(hidden))
                else:
                    hidden = dense(width, kernel_init=UNIFORM)(hidden)
                hidden = activate(hidden)
            return hidden

        many = math.isqrt(max(len(part.widths) - 1, 0)) + 1
        for at in range(0, len(part.widths), many):
            hidden = sectioned(partial(layers, widths=part.widths[at : at + many]), self.rematerialize)(self, hidden)
        if part.normalized:
            return UnitHead(self.outputs, part.head_scale)(hidden)
        return dense(self.outputs, kernel_init=scaled(part.head_scale))(hidden)


def normalized(features: Array) -> Array:
    """Each row (n, k) less its mean, divided by its standard deviation. Nothing is added to that, so the scale drops out exactly."""
    centred = features - features.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True))


class UnitHead(nn.Module):
    """A linear head g·hW/‖W‖ of fixed size: only the direction of W matters."""

    outputs: int
    size: float

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        kernel = self.param("kernel", UNIFORM, (hidden.shape[-1], self.outputs))
        return hidden @ (self.size * kernel / jnp.linalg.norm(kernel))


class Conv(nn.Module):
    """A square convolution with zero padding, written as one product with the shifted copies of its input.

    XLA's own convolutions lose a factor of ten on a CPU inside loops and in their second and third derivatives.
    """

    width: int
    side: int = 3
    stride: int = 1
    bias: bool = True
    kernel_init: nn.initializers.Initializer = UNIFORM

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        height, width = maps.shape[1:3]
        edge = self.side // 2
        framed = jnp.pad(maps, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
        places = range(self.side)
        shifted = [framed[:, i : i + height : self.stride, j : j + width : self.stride] for i in places for j in places]
        return nn.Dense(self.width, self.bias, kernel_init=self.kernel_init)(jnp.concatenate(shifted, axis=-1))


def average_pool(maps: Array) -> Array:
    """The mean over 2×2 squares, (n, h, w, c) to (n, h//2, w//2, c); an odd last row or column is left out."""
    count, height, width, channels = maps.shape
    even = maps[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class Cnn(nn.Module):
    """(3×3 convolution, activation, 2×2 average pool) for each width, a section each, then a dense head on the flattened maps."""

    part: sections.Cnn
    outputs: int
    rematerialize: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        activate = ACTIVATIONS[self.part.activation]
        maps = inputs  # (n, height, width, channels)

        def layer(_: nn.Module, maps: Array, width: int) -> Array:
            return average_pool(activate(Conv(width)(maps)))

        for width in self.part.widths:
            maps = sectioned(partial(layer, width=width), self.rematerialize)(self, maps)
        return nn.Dense(self.outputs, kernel_init=scaled(self.part.head_scale))(maps.reshape(len(maps), -1))


class Residual(nn.Module):
    """A block of two 3×3 convolutions beside a shortcut, normalised after each convolution, activated after the sum.

    The first convolution takes the stride. Where the shape changes the shortcut is a 1×1 convolution, normalised too.
    """

    width: int
    stride: int
    groups: int
    activation: str

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        activate = ACTIVATIONS[self.activation]
        inner = activate(group_norm(self.groups, self.width)(conv(self.width, 3, self.stride)(maps)))
        inner = group_norm(self.groups, self.width)(conv(self.width)(inner))
        if maps.shape[-1] != self.width or self.stride > 1:
            maps = group_norm(self.groups, self.width)(conv(self.width, 1, self.stride)(maps))
        return activate(maps + inner)


def conv(width: int, side: int = 3, stride: int = 1) -> Conv:
    """A convolution that a norm follows: without bias, and started at variance 1/fan_in."""
    return Conv(width, side, stride, bias=False, kernel_init=nn.initializers.lecun_normal())


def group_norm(groups: int, width: int) -> nn.GroupNorm:
    """GroupNorm whose variance is the mean square of centred values: flax's quick difference of means is clipped at zero."""
    return nn.GroupNorm(min(groups, width), use_fast_variance=False)


class ResNet(nn.Module):
    """3×3 stem of stride 1, stages of residual blocks, a section each, the mean over all places, zero-initialised head."""

    part: sections.ResNet
    outputs: int
    rematerialize: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        part = self.part
        maps = conv(part.widths[0])(inputs)  # (n, height, width, channels)
        maps = ACTIVATIONS[part.activation](group_norm(part.groups, part.widths[0])(maps))

        def block_of(_: nn.Module, maps: Array, width: int, stride: int) -> Array:
            return Residual(width, stride, part.groups, part.activation)(maps)

        for stage, width in enumerate(part.widths):
            for block in range(part.blocks):
                stride = 2 if stage and not block else 1
                maps = sectioned(partial(block_of, width=width, stride=stride), self.rematerialize)(self, maps)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(maps.mean(axis=(1, 2)))


class Transformer(nn.Module):
    """Post-LayerNorm encoder on token ids: learned positions, layers, a section each, mean over the words, zero-initialised head."""

    part: sections.Transformer
    vocabulary: int
    outputs: int
    rematerialize: bool = False

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        part, activate = self.part, ACTIVATIONS[self.part.activation]
        present = inputs != PAD  # (n, length)
        length = inputs.shape[1]
        places = nn.Embed(MAX_TOKENS, part.hidden, name="positions")(jnp.arange(length))
        hidden = nn.LayerNorm()(nn.Embed(self.vocabulary, part.hidden, name="words")(inputs) + places)  # (n, length, hidden)
        mask = present[:, None, None, :]  # no word looks at [PAD]

        def layer(_: nn.Module, hidden: Array) -> Array:
            hidden = nn.LayerNorm()(hidden + nn.MultiHeadDotProductAttention(part.heads)(hidden, mask=mask))
            inner = activate(nn.Dense(4 * part.hidden)(hidden))
            return nn.LayerNorm()(hidden + nn.Dense(part.hidden)(inner))

        for _ in range(part.layers):
            hidden = sectioned(layer, self.rematerialize)(self, hidden)
        weights = present[..., None].astype(hidden.dtype)
        pooled = jnp.sum(hidden * weights, axis=1) / jnp.sum(weights, axis=1)  # (n, hidden)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(pooled)


class Model(NamedTuple):
    """A network as pure functions."""

    init: Callable[[Array], Any]
    """A random key to a tree of float32 parameters."""
    apply: Callable[[Any, Array], Array]
    """(parameters, inputs (n, …)) to outputs (n, k) in the parameters' number format."""


NETWORKS: dict[type, Callable[[Any, Dataset, bool], nn.Module]] = {
    sections.Mlp: lambda part, dataset, rematerialize: Mlp(part, dataset.outputs, rematerialize),
    sections.Cnn: lambda part, dataset, rematerialize: Cnn(part, dataset.outputs, rematerialize),
    sections.ResNet: lambda part, dataset, rematerialize: ResNet(part, dataset.outputs, rematerialize),
    sections.Transformer: lambda part, dataset, rematerialize: Transformer(
        part, len(dataset.vocabulary), dataset.outputs, rematerialize
    ),
}
"""By their section of the specification: sized for a data set, and what is inside a section of theirs computed again or kept."""


def build(part: sections.Model, dataset: Dataset, rematerialize: bool = False) -> Model:
    """The network of a specification, sized for a data set."""
    module = NETWORKS[type(part)](part, dataset, rematerialize)
    return Model(_drawn(module, dataset.inputs.shape[1:], dataset.inputs.dtype), _applied(module))


@cache
def _drawn(module: nn.Module, shape: tuple[int, ...], dtype: Any) -> Callable[[Array], Any]:
    """A random key to parameters, for inputs of a shape: the same function for equal modules, which are traced once."""
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # used once: one program, quickly compiled
    def draw(key: Array) -> Any:
        return module.init(key, np.zeros((1, *shape), dtype))["params"]  # no parameter hangs on what the input is
    return draw


@cache
def _applied(module: nn.Module) -> Callable[[Any, Array], Any]:
    """The same function for equal modules: what is compiled of one problem serves its like."""
    return lambda parameters, inputs: module.apply({"params": parameters}, inputs)
