"""Vectors of p numbers in equal shares on several devices, by `jax.sharding`.

What is declared is how θ lies, once, where a problem is built. Compiled functions hand that on to whatever they make of θ: sums over p
become sums of the devices' own, and a loss has θ put together where it takes it apart into parameters (`split.take_apart`), for as long
as it needs them.

jax puts arrays on devices in equal shares alone, so that vectors are filled up with a few zeros. No loss reads them: derivatives by them
are 0, and random vectors have 0 there, so that everything is what it is without. Nothing that leaves the devices has them: checkpoints and
snapshots are of p numbers, and a run goes on from them on any number of devices.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from engine.xla.reductions import SHARES

State = TypeVar("State")
Rows = TypeVar("Rows", Array, np.ndarray)
AXIS = "devices"
"""The name of the one axis of a mesh."""
FEW = 64
"""Numbers up to which vectors are not shared out: the Hessian of so few is formed (`eigensolver.DENSE_UP_TO`)."""


class Shares(NamedTuple):
    """How vectors lie on the devices of a mesh: the same share on each."""

    mesh: Mesh
    numbers: int
    """p, without what fills up the last share."""

    @property
    def size(self) -> int:
        """Numbers of a vector on the devices: p, and what fills up the last share. A multiple of the parts that `reductions` sums apart,
        too, so that each part is on one device where these are 2, 4, 8 or 16."""
        multiple = math.lcm(self.mesh.size, SHARES)
        return -(-self.numbers // multiple) * multiple

    @property
    def everywhere(self) -> NamedSharding:
        """All of an array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def along_last(self, dimensions: int = 1) -> NamedSharding:
        """An array of so many dimensions, the last of them in shares."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * (dimensions - 1), AXIS))

    def place(self, rows: Array | np.ndarray) -> Array:
        """Vectors (…, p) as they lie on the devices, (…, size)."""
        filled = np.pad(np.asarray(rows), [(0, 0)] * (np.ndim(rows) - 1) + [(0, self.size - self.numbers)])
        return jax.device_put(filled, self.along_last(filled.ndim))

    def fill(self, rows: Array) -> Array:
        """Vectors (…, p) filled up inside a compiled function, (…, size)."""
        filled = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, self.size - self.numbers)])
        return jax.lax.with_sharding_constraint(filled, self.along_last(filled.ndim))


def shares(devices: Sequence[jax.Device], numbers: int) -> Shares | None:
    """Equal shares of vectors of so many numbers on these devices; None where one has all."""
    return Shares(Mesh(np.array(devices), (AXIS,)), numbers) if len(devices) > 1 else None


def numbers(size: int, shares: Shares | None) -> int:
    """p of a vector of this size: without what fills up the last share."""
    return size if shares is None else shares.numbers


def bare(rows: Rows, shares: Shares | None) -> Rows:
    """Vectors (…, p) without what fills up the last share."""
    return rows if shares is None else rows[..., : shares.numbers]


def laid_out(rows: np.ndarray, shares: Shares | None) -> Array:
    """Vectors (…, p) of the host on the device, or on all of them."""
    return jnp.asarray(rows) if shares is None else shares.place(rows)


def put(leaf: Any, shares: Shares | None) -> Array:
    """A leaf of a state on the devices: in shares where it is made of vectors of p numbers."""
    if shares is None or not np.ndim(leaf) or np.shape(leaf)[-1] != shares.numbers:
        return jnp.asarray(leaf)
    lies = isinstance(leaf, Array) and leaf.sharding == shares.along_last(leaf.ndim)
    return leaf if lies else shares.place(leaf)


def on_devices(state: State, shares: Shares | None) -> State:
    """A state whose vectors of p numbers lie in shares."""
    return state if shares is None else jax.tree.map(lambda leaf: put(leaf, shares) if isinstance(leaf, Array) else leaf, state)


def several_devices(*states: Any) -> bool:
    """Whether more devices than one share out an array of these states, or have it each."""
    return any(len(leaf.sharding.device_set) > 1 for leaf in jax.tree.leaves(states) if isinstance(leaf, Array))


def on_host(state: State, shares: Shares | None) -> State:
    """A state whose vectors are the host's, of p numbers."""
    if shares is None:
        return state
    return jax.tree.map(
        lambda leaf: np.asarray(leaf)[..., : shares.numbers]
        if isinstance(leaf, Array) and leaf.ndim and leaf.shape[-1] == shares.size else leaf, state
    )
