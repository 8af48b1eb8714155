"""A vector taken apart, as a step of its own to jax: its derivative puts the parts together one by one.

That of `lax.split` is a concatenation. XLA fuses what makes the parts into it, sums over examples too: one loop over the whole vector
that has every part to load, behind a mask, at every number. On a CPU it takes 0.3 to 7 ms for 2e5 numbers, by where in memory the
parts happen to lie; written one after the other they take 0.2.

The first and the last of them are the two largest. XLA makes of the first a loop over the whole vector, and puts the last into the loop
of what is computed from that. Where the last was a bias, whose derivative is a sum over examples, P^-½ times a product with the Hessian
took 48 ms for 2e5 numbers; where it is a kernel's, which is a product of matrices and stays by itself, it takes 0.3.

A vector in shares on several devices is put together on each of them first, and what comes back lies in shares again.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from engine.xla.known_jax import unknown
from engine.xla.shares import Shares

try:
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir
except ImportError as error:
    raise unknown(error, "a vector taken apart") from None


def take_apart(vector: Array, sizes: tuple[int, ...], shares: Shares | None = None) -> Sequence[Array]:
    """The parts of a vector, of these sizes, one after the other, without what fills up the last of its `shares`."""
    return _apart.bind(vector, sizes=sizes, shares=shares)


def _split(vector: Array, *, sizes: tuple[int, ...], shares: Shares | None) -> Sequence[Array]:
    if shares is not None:
        vector = lax.with_sharding_constraint(vector, shares.everywhere)
        vector = lax.slice_in_dim(vector, 0, sum(sizes), axis=vector.ndim - 1)
    return lax.split(vector, sizes, axis=vector.ndim - 1)


def _together(parts: list[Any], vector: Any, *, sizes: tuple[int, ...], shares: Shares | None) -> list[Any]:
    """The transpose: parts in their places, zeros where there is none."""
    whole = jnp.zeros(vector.aval.shape, vector.aval.dtype)
    places = [*accumulate(sizes, initial=0)]
    largest, *others = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    for k in (largest, *reversed(others)):
        if type(parts[k]) is not ad.Zero:
            whole = lax.dynamic_update_slice_in_dim(whole, parts[k], places[k], whole.ndim - 1)
    if shares is not None:
        # Whole first: of several vectors at once (`jax.vmap`) this is a scatter, and XLA puts its parts in wrong places among shares.
        whole = lax.with_sharding_constraint(whole, shares.everywhere)
        whole = lax.with_sharding_constraint(whole, shares.along_last(whole.ndim))
    return [whole]


def _batched(
    operands: tuple[Array], axes: tuple[int], *, sizes: tuple[int, ...], shares: Shares | None
) -> tuple[list[Array], list[int]]:
    return _apart.bind(jnp.moveaxis(operands[0], axes[0], 0), sizes=sizes, shares=shares), [0] * len(sizes)


def _of_shape(vector: Any, *, sizes: tuple[int, ...], shares: Shares | None) -> list[Any]:
    return [vector.update(shape=(*vector.shape[:-1], size)) for size in sizes]


_apart = Primitive("take_apart")
_apart.multiple_results = True
_apart.def_impl(jax.jit(_split, static_argnames=("sizes", "shares")))
_apart.def_abstract_eval(_of_shape)
ad.deflinear2(_apart, _together)
batching.primitive_batchers[_apart] = _batched
mlir.register_lowering(_apart, mlir.lower_fun(_split, multiple_results=True))
