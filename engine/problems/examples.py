"""Means over examples in batches: one batch in memory at a time, shared out over devices, the same mean however they are cut.

A batch holds a tree of arrays, an example in each row, and the weight of each in the mean: 1/n, or a weight of its own.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.base.errors import UserError, one_of
from engine.spec.sections import SHARDS
from engine.xla.shares import AXIS, FEW, Shares, shares


class Batches(NamedTuple):
    """Examples on the device, to take a mean over."""

    examples: Any
    """A tree of arrays (batches, size, …)."""
    weights: Array  # (batches, size), of sum 1; 0 for what fills up the last batch


Losses = Callable[[Array, Any], Array]
"""(θ, examples, a tree of arrays (n, …)) to a number for each, (n,)."""


# Functions made of the same parts are the same function, here as in `networks` and `problem`: jax compiles for a function, so that a
# problem which is built again, in a script of several runs, is compiled already.


@cache
def mean_of(losses: Losses) -> Callable[[Array, Batches], Array]:
    """(θ, batches) to the mean of what `losses` gives for each example."""

    def batch_sum(theta: Array, batch: Batches) -> Array:
        return jnp.sum(batch.weights.astype(theta.dtype) * losses(theta, batch.examples))

    return lambda theta, batches: _accumulated(batch_sum, theta, batches)


@cache
def linear_mean_of(
    outputs: Callable[[Array, Any], Any], criterion: Callable[[Any, Any], Array]
) -> Callable[[Array, Array, Batches], Array]:
    """(φ, θ, batches) to the mean at φ of a `criterion` (outputs, examples) -> (n,), of the `outputs` (θ, examples) linearised at θ."""

    def linear_mean(phi: Array, theta: Array, batches: Batches) -> Array:
        def batch_sum(phi: Array, batch: Batches) -> Array:
            there, moved = jax.jvp(lambda at: outputs(at, batch.examples), (theta,), (phi - theta,))
            return jnp.sum(batch.weights.astype(phi.dtype) * criterion(jax.tree.map(jnp.add, there, moved), batch.examples))

        return _accumulated(batch_sum, phi, batches)

    return linear_mean


def _accumulated(batch_sum: Callable[[Array, Batches], Array], theta: Array, batches: Batches) -> Array:
    """The sum of `batch_sum` over the leading axis of `batches`, one batch in memory at a time for every derivative."""
    if batches.weights.shape[0] == 1:
        return batch_sum(theta, jax.tree.map(lambda leaf: leaf[0], batches))
    body = jax.checkpoint(lambda total, batch: (total + batch_sum(theta, batch), None))
    return lax.scan(body, jnp.zeros((), theta.dtype), batches)[0]


def some(batches: Batches, indices: Array) -> Batches:
    """These examples (n,), weighted alike, in batches of the same size, or in one where they are fewer; the last is filled up with examples
    of weight 0."""
    return _chosen(batches, indices, None)


@cache
def some_weighted(count: int) -> Callable[[Batches, Array], Batches]:
    """The same for `count` examples that have weights of their own: a mean over some drawn at random is, on average, that over all."""
    return lambda batches, indices: _chosen(batches, indices, count)


def _chosen(batches: Batches, indices: Array, weighted: int | None) -> Batches:
    count, size = len(indices), min(batches.weights.shape[1], len(indices))
    places = jnp.arange(-(-count // size) * size)
    chosen = indices[jnp.minimum(places, count - 1)]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[chosen], batches)
    each = 1 / count if weighted is None else flat.weights * (weighted / count)
    flat = flat._replace(weights=jnp.where(places < count, each, 0).astype(flat.weights.dtype))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), flat)


def unweighted(batches: Batches, count: int) -> Batches:
    """The same so many examples, all of one weight."""
    weights = batches.weights
    even = np.where(np.arange(weights.size) < count, 1 / count, 0.0).reshape(weights.shape)
    return batches._replace(weights=jax.device_put(even.astype(weights.dtype), weights.sharding))


def passes(data: Any, count: int) -> int:
    """Device passes that a mean over so many of the examples takes."""
    return -(-count // data.weights.shape[1]) if isinstance(data, Batches) else 1


def devices(wanted: int, named: str) -> tuple[jax.Device, ...]:
    """The devices that share out the examples, so many of each process; all for 0. Raises UserError where there are fewer than is asked
    for where it is `named`."""
    there = jax.local_device_count()
    if wanted > there:
        raise UserError(f"{named} = {wanted}: this machine has {there} for jax; expected up to {there}, or 0 for all")
    return tuple(device for process in range(jax.process_count()) for device in jax.local_devices(process)[: wanted or there])


class Spread(NamedTuple):
    """Several devices, and what is shared out to them."""

    devices: tuple[jax.Device, ...]
    shard: str = "examples"

    @property
    def examples(self) -> bool:
        """Whether each takes a part of the examples; all of them otherwise."""
        return self.shard != "parameters"

    @property
    def everywhere(self) -> jax.sharding.NamedSharding:
        """All of an array on every device."""
        return jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(self.devices), (AXIS,)), jax.sharding.PartitionSpec())

    @property
    def facts(self) -> dict[str, str]:
        """What is on each of several devices, for the record; and that `shard` shares out nothing on one. Empty where nothing was asked."""
        count = len(self.devices)
        if count == 1:
            return {} if self.shard == "examples" else {"devices": f'1, which has all: shard = "{self.shard}" changes nothing here'}
        parts = [*["the examples"] * self.examples, *["every vector of p numbers"] * (self.shard != "examples")]
        return {"devices": f"{count}, each with 1/{count} of {' and of '.join(parts)}"}

    @property
    def notes(self) -> tuple[str, ...]:
        """The same of parameters as sentences, for a problem of one's own."""
        return () if self.shard == "examples" else tuple(f"devices: {each}" for each in self.facts.values())

    def shares(self, numbers: int, named: str) -> Shares | None:
        """Those of vectors of so many numbers; None where each device has all. Raises UserError where they are too few, with the setting
        as it is `named`."""
        if self.shard == "examples":
            return None
        if numbers <= FEW:
            raise UserError(
                f'{named} = "{self.shard}": the loss has {numbers} parameters, and up to {FEW} are not shared out; use "examples"'
            )
        return shares(self.devices, numbers)


def spread(wanted: int, shard: str, named: str) -> Spread:
    """The `devices` and what is shared out to them; the setting is `named` with a blank for its field. Raises UserError for what cannot
    be."""
    field = named.format("shard")
    if shard not in SHARDS:
        raise UserError(f'{field} = "{shard}"; expected one of {one_of(SHARDS)}')
    if shard != "examples" and wanted == 1:
        raise UserError(
            f'{field} = "{shard}": one device has nothing to share out, and {named.format("devices")} = 1 takes one; expected 0, for all '
            "there are, or 2 or more"
        )
    if shard != "examples" and jax.process_count() > 1:
        raise UserError(f'{field} = "{shard}": several processes share out examples alone; use "examples", or one process')
    return Spread(devices(wanted, named.format("devices")), shard)


def batches(examples: Any, size: int, spread: Spread, weights: np.ndarray | None = None) -> Batches:
    """A tree of examples (n, …) in batches of `size`, all in one for 0 or where there are fewer; the last is filled up with examples of
    weight 0. `weights` (n,) of sum 1 are their own; 1/n each where there are none.

    Several devices take equal shares of each batch, and a process puts on its own what they take. XLA then computes every mean on
    all of them and adds up the parts. Where `spread` is of parameters alone each device has all examples.
    """
    count = len(jax.tree.leaves(examples)[0])
    parts = len(spread.devices) if spread.examples else 1
    size = -(-min(size or count, count) // parts) * parts
    index = np.arange(-(-count // size) * size)
    inside, index = index < count, np.minimum(index, count - 1)
    each = np.where(inside, 1 / count if weights is None else weights[index], 0.0)
    sharding = None
    if len(spread.devices) > 1:
        along = jax.sharding.PartitionSpec(None, AXIS) if spread.examples else jax.sharding.PartitionSpec()
        sharding = jax.sharding.NamedSharding(spread.everywhere.mesh, along)

    def shaped(array: np.ndarray) -> Array:
        cut = array.reshape(-1, size, *array.shape[1:])
        return jnp.asarray(cut) if sharding is None else jax.make_array_from_callback(cut.shape, sharding, lambda at: cut[at])

    return Batches(jax.tree.map(lambda leaf: shaped(np.asarray(leaf)[index]), examples), shaped(each))
