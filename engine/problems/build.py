"""The problem of a specification: its loss, where it starts, and facts on its data for the record."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine import data
from engine import spec as specs
from engine.base.errors import UserError
from engine.data import Dataset
from engine.problems import losses, own
from engine.problems.problem import Problem, flatten, require_x64
from engine.problems.starts import started
from engine.problems.targets import require_finite, suited
from engine.problems.toy import toy, toy_k
from engine.record import edges


def build(spec: specs.RunSpec) -> tuple[Problem, Array, dict[str, Any]]:
    """The problem of a specification, its initial θ in float64, and facts on its data for the record."""
    require_x64()
    if isinstance(spec.problem, specs.Toy):
        problem, theta, facts = toy(spec.problem, edges.of_hessian(spec.optimizer))
    elif isinstance(spec.problem, specs.ToyK):
        problem, theta, facts = toy_k(spec.problem, edges.of_hessian(spec.optimizer))
    elif isinstance(spec.problem, specs.Network):
        problem, theta, facts = network(spec.problem, spec.seed)
    elif isinstance(spec.problem, specs.Own):
        problem, theta, facts = own.build(spec.problem, spec.seed)
    else:
        raise UserError(f"{spec.name}: a phase portrait has no training problem")
    return decayed(problem, spec.optimizer.weight_decay), theta, facts


def decayed(problem: Problem, weight_decay: float) -> Problem:
    """The problem with (λ/2)‖θ‖² added to its loss; the problem itself where λ = 0."""
    if not weight_decay:
        return problem
    line = problem.linearized and _decayed_line(problem.linearized, weight_decay)
    return replace(problem, loss_of=_decayed(problem.loss_of, weight_decay), linearized=line)


@cache
def _decayed(loss_of: Callable[[Array, Any], Array], weight_decay: float) -> Callable[[Array, Any], Array]:
    return lambda theta, data: loss_of(theta, data) + weight_decay / 2 * theta @ theta


@cache
def _decayed_line(linearized: Callable[[Array, Array, Any], Array], weight_decay: float) -> Callable[[Array, Array, Any], Array]:
    return lambda phi, theta, data: linearized(phi, theta, data) + weight_decay / 2 * phi @ phi


def network(part: specs.Network, seed: int) -> tuple[Problem, Array, dict[str, Any]]:
    """A flax model on a data set: L(θ) = mean of the criterion over all examples."""
    examples = learning(part, seed)
    batches = examples.batches(examples.dataset.inputs, examples.dataset.targets)
    return examples.mean(losses.CRITERIA[part.criterion], batches, len(examples.dataset.inputs)), examples.theta, examples.facts


class Learning(NamedTuple):
    """A network and its data, from which means over examples are made: of a criterion, of the right answers."""

    dataset: Dataset
    theta: Array  # (p,) float64, initial
    unravel: Callable[[Array], Any]
    """θ (p,) to the network's parameters."""
    outputs: Callable[[Array, Array], Array]
    """(θ, inputs (n, …)) to the network's outputs (n, k)."""
    origin: dict[str, Any]
    """What θ is from, for the record; empty where it was drawn."""
    micro_batch: int
    devices: tuple[jax.Device, ...]
    label: str

    @property
    def facts(self) -> dict[str, Any]:
        """Which data and how many parameters, for the record."""
        return {**self.dataset.facts, "parameters": self.theta.size, **self.origin}

    def batches(self, inputs: np.ndarray, targets: np.ndarray) -> "Batches":
        """Examples on the device, to take a mean over."""
        return _batches(inputs, targets, self.micro_batch, self.devices)

    def mean(self, per_example: Callable[[Array, Array], Array], batches: "Batches", count: int = 0) -> Problem:
        """The mean of `per_example` (outputs, targets) -> (n,) over batches as a function of θ; `count` is how many examples there
        are, where a mean over a few of them will be asked for, too."""
        parts = per_example, self.outputs
        return Problem(_mean_of(*parts), batches, self.label, self.unravel, _examples, _linear_mean_of(*parts), count)


def learning(part: specs.Network, seed: int) -> Learning:
    """The network of a specification at its start, and its data."""
    from engine.problems import networks  # flax takes a second to import

    dataset = data.load(part.data)
    model = networks.build(part.model, dataset, part.rematerialize)
    theta, restore = flatten(model.init(jax.random.key(seed)), part.rematerialize)
    for kind, inputs, wanted in (("training", dataset.inputs, dataset.targets), ("test", dataset.test_inputs, dataset.test_targets)):
        if inputs is not None and wanted is not None:
            require_finite(inputs, f"{dataset.name}: {kind} inputs")
            suited(part.criterion, (len(inputs), dataset.outputs), wanted, f"{dataset.name}: {kind} targets")
    label = f"{part.model.__struct_config__.tag} on {dataset.name}"
    theta, origin = started(part.start, restore, theta, label) if part.start else (theta, {})
    return Learning(dataset, theta, restore, _outputs_of(model.apply, restore), origin, part.micro_batch, _devices(part.devices), label)


# Functions made of the same parts are the same function, here as in `networks` and `problem`: jax compiles for a function, so that a
# problem which is built again, in a script of several runs, is compiled already.


@cache
def _outputs_of(apply: Callable[[Any, Array], Array], restore: Callable[[Array], Any]) -> Callable[[Array, Array], Array]:
    """(θ, inputs) to outputs."""
    return lambda theta, inputs: apply(restore(theta), inputs)


Batches = tuple[Array, Array, Array]
"""Inputs, targets and weights 1/n, each (batches, size, …)."""


@cache
def _mean_of(
    per_example: Callable[[Array, Array], Array], outputs: Callable[[Array, Array], Array]
) -> Callable[[Array, Batches], Array]:
    """(θ, batches) to the mean of `per_example` (outputs, targets) -> (n,)."""

    def batch_sum(theta: Array, batch: Batches) -> Array:
        inputs, targets, weights = batch
        return jnp.sum(weights.astype(theta.dtype) * per_example(outputs(theta, inputs), targets))

    return lambda theta, batches: _accumulated(batch_sum, theta, batches)


@cache
def _linear_mean_of(
    per_example: Callable[[Array, Array], Array], outputs: Callable[[Array, Array], Array]
) -> Callable[[Array, Array, Batches], Array]:
    """(φ, θ, batches) to the same mean at φ, of the outputs linearised at θ."""

    def linear_mean(phi: Array, theta: Array, batches: Batches) -> Array:
        def batch_sum(phi: Array, batch: Batches) -> Array:
            inputs, targets, weights = batch
            there, moved = jax.jvp(lambda at: outputs(at, inputs), (theta,), (phi - theta,))
            return jnp.sum(weights.astype(phi.dtype) * per_example(there + moved, targets))

        return _accumulated(batch_sum, phi, batches)

    return linear_mean


def _accumulated(batch_loss: Callable, theta: Array, batches: Batches) -> Array:
    """The sum of `batch_loss` over the leading axis of `batches`, one batch in memory at a time for every derivative."""
    if batches[2].shape[0] == 1:
        return batch_loss(theta, jax.tree.map(lambda leaf: leaf[0], batches))
    body = jax.checkpoint(lambda total, batch: (total + batch_loss(theta, batch), None))
    return lax.scan(body, jnp.zeros((), theta.dtype), batches)[0]


def _examples(batches: Batches, indices: Array) -> Batches:
    """These examples (n,) in batches of the same size, or in one where they are fewer; the last is filled up with examples of weight 0."""
    count, size = len(indices), min(batches[2].shape[1], len(indices))
    places = jnp.arange(-(-count // size) * size)
    chosen = indices[jnp.minimum(places, count - 1)]
    inputs, targets, weights = (leaf.reshape(-1, *leaf.shape[2:])[chosen] for leaf in batches)
    weights = jnp.where(places < count, 1 / count, 0).astype(weights.dtype)
    return tuple(leaf.reshape(-1, size, *leaf.shape[1:]) for leaf in (inputs, targets, weights))  # type: ignore[return-value]


def _devices(wanted: int) -> tuple[jax.Device, ...]:
    """The devices that share out the examples, so many of each process; all for 0. Raises UserError where there are fewer."""
    there = jax.local_device_count()
    if wanted > there:
        raise UserError(f"[problem] devices = {wanted}: this machine has {there} for jax; expected up to {there}, or 0 for all")
    return tuple(device for process in range(jax.process_count()) for device in jax.local_devices(process)[: wanted or there])


def _batches(inputs: np.ndarray, targets: np.ndarray, size: int, devices: tuple[jax.Device, ...]) -> Batches:
    """Examples in batches of `size`, all in one for 0 or where there are fewer; the last is filled up with examples of weight 0.

    Several devices take equal shares of each batch, and a process puts on its own what they take. XLA then computes every mean on
    all of them and adds up the parts: θ, and whatever else is no example, is on each.
    """
    count = len(inputs)
    size = -(-min(size or count, count) // len(devices)) * len(devices)
    index = np.arange(-(-count // size) * size)
    weights = np.where(index < count, 1 / count, 0.0)
    index = np.minimum(index, count - 1)
    shares = None
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.array(devices), ("examples",))
        shares = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "examples"))

    def shaped(array: np.ndarray) -> Array:
        batches = array.reshape(-1, size, *array.shape[1:])
        return jnp.asarray(batches) if shares is None else jax.make_array_from_callback(batches.shape, shares, lambda at: batches[at])

    return shaped(inputs[index]), shaped(targets[index]), shaped(weights)
