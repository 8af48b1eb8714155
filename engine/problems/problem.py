"""A full-batch training loss as a function of one flat vector of parameters, with derivatives of every order.

`Problem` is a jax pytree: its data are leaves, so that compiled functions take a problem as an argument and large data
sets are never baked into them. Number formats follow θ: a float32 θ gives float32 arithmetic throughout.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine import spec as specs
from engine.base.errors import UserError
from engine.problems.targets import require_finite, suited
from engine.xla.device import require_correct_sums
from engine.xla.split import take_apart

if TYPE_CHECKING:
    from engine.data import Dataset


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["loss_of", "label"])
@dataclass(frozen=True)
class Problem:
    """A loss L(θ) on flat parameters θ of p numbers."""

    loss_of: Callable[[Array, Any], Array]
    """(θ, data) -> L(θ), a scalar in θ's number format."""
    data: Any
    """Whatever `loss_of` reads: a pytree of arrays."""
    label: str = "loss"

    def __post_init__(self) -> None:
        require_correct_sums()

    def loss(self, theta: Array) -> Array:
        """L(θ)."""
        return self.loss_of(theta, self.data)

    def gradient(self, theta: Array) -> Array:
        """∇L(θ), shape (p,)."""
        return jax.grad(self.loss)(theta)

    def hvp(self, theta: Array, vector: Array) -> Array:
        """∇²L(θ)v, shape (p,)."""
        return jax.jvp(self.gradient, (theta,), (vector,))[1]

    def derivative(self, theta: Array, order: int, *vectors: Array) -> Array:
        """∇^kL(θ)(v_1, …, v_{k−1}), shape (p,): the k-th derivative contracted with k−1 vectors."""
        if len(vectors) != order - 1:
            raise ValueError(f"the derivative of order {order} takes {order - 1} vectors, given {len(vectors)}")
        contracted: Callable[[Array], Array] = self.gradient
        for vector in vectors:
            contracted = _along(contracted, vector)
        return contracted(theta)

    def grad_sharpness(self, theta: Array, u: Array) -> Array:
        """∇S = ∇³L(u,u), shape (p,), for the unit top eigenvector u (Lemma 2).

        Forward over forward over reverse: a quarter cheaper on a CPU than the gradient of uᵀ∇²L(θ)u.
        """
        return self.derivative(theta, 3, u, u)


def _along(function: Callable[[Array], Array], vector: Array) -> Callable[[Array], Array]:
    """The derivative of a function along a fixed vector."""
    return lambda theta: jax.jvp(function, (theta,), (vector.astype(theta.dtype),))[1]


def require_x64() -> None:
    """Raise UserError unless jax computes in float64 where asked, which entry points switch on, and adds up right."""
    require_correct_sums()
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise UserError('float64 is switched off in jax; call jax.config.update("jax_enable_x64", True) first')


def build(spec: specs.RunSpec) -> tuple[Problem, Array, dict[str, Any]]:
    """The problem of a specification, its initial θ in float64, and facts on its data for the record."""
    require_x64()
    if isinstance(spec.problem, specs.Toy):
        problem, theta, facts = toy(spec.problem, spec.optimizer.learning_rate)
    elif isinstance(spec.problem, specs.Network):
        problem, theta, facts = network(spec.problem, spec.seed)
    elif isinstance(spec.problem, specs.Own):
        from engine.problems import own

        problem, theta, facts = own.build(spec.problem, spec.seed)
    else:
        raise UserError(f"{spec.name}: a phase portrait has no training problem")
    return decayed(problem, spec.optimizer.weight_decay), theta, facts


def decayed(problem: Problem, weight_decay: float) -> Problem:
    """The problem with (λ/2)‖θ‖² added to its loss; the problem itself where λ = 0."""

    def loss_of(theta: Array, data: Any) -> Array:
        return problem.loss_of(theta, data) + weight_decay / 2 * theta @ theta

    return replace(problem, loss_of=loss_of) if weight_decay else problem


def toy(part: specs.Toy, learning_rate: float) -> tuple[Problem, Array, dict[str, Any]]:
    """Appendix B: gradient descent on it with this η is the map (3) exactly, with y of (3) equal to √β·y, unless it has a threshold set."""

    def loss_of(theta: Array, constants: Array) -> Array:
        alpha, root_beta, threshold = constants.astype(theta.dtype)
        x, y, z = theta
        return (threshold + root_beta * y) * x**2 / 2 - alpha / root_beta * y - z

    constants = np.array([part.alpha, math.sqrt(part.beta), part.threshold or 2 / learning_rate])
    return Problem(loss_of, jnp.asarray(constants), "Appendix B toy"), jnp.array([part.x0, 0.0, 0.0]), {"parameters": 3}


def network(part: specs.Network, seed: int) -> tuple[Problem, Array, dict[str, Any]]:
    """A flax model on a data set: L(θ) = mean of the criterion over all examples."""
    from engine.problems import losses

    found = learning(part, seed)
    batches = found.batches(found.dataset.inputs, found.dataset.targets)
    return found.mean(losses.CRITERIA[part.criterion], batches), found.theta, found.facts


class Learning(NamedTuple):
    """A network and its data, from which means over examples are made: of a criterion, of the right answers."""

    dataset: "Dataset"
    theta: Array  # (p,) float64, initial
    outputs: Callable[[Array, Array], Array]
    """(θ, inputs (n, …)) to the network's outputs (n, k)."""
    micro_batch: int
    devices: tuple[jax.Device, ...]
    label: str

    @property
    def facts(self) -> dict[str, Any]:
        """Which data and how many parameters, for the record."""
        return {**self.dataset.facts, "parameters": self.theta.size}

    def batches(self, inputs: np.ndarray, targets: np.ndarray) -> "Batches":
        """Examples on the device, to take a mean over."""
        return _batches(inputs, targets, self.micro_batch, self.devices)

    def mean(self, per_example: Callable[[Array, Array], Array], batches: "Batches") -> Problem:
        """The mean of `per_example` (outputs, targets) -> (n,) over batches as a function of θ."""

        def batch_sum(theta: Array, batch: Batches) -> Array:
            inputs, targets, weights = batch
            return jnp.sum(weights.astype(theta.dtype) * per_example(self.outputs(theta, inputs), targets))

        return Problem(partial(_accumulated, batch_sum), batches, self.label)


def learning(part: specs.Network, seed: int) -> Learning:
    """The network of a specification at its start, and its data."""
    from engine import data
    from engine.problems import networks

    dataset = data.load(part.data)
    model = networks.build(part.model, dataset, part.rematerialize)
    theta, restore = flatten(model.init(jax.random.key(seed)), part.rematerialize)

    def outputs(theta: Array, inputs: Array) -> Array:
        return model.apply(restore(theta), inputs)

    for kind, inputs, wanted in (("training", dataset.inputs, dataset.targets), ("test", dataset.test_inputs, dataset.test_targets)):
        if inputs is not None and wanted is not None:
            require_finite(inputs, f"{dataset.name}: {kind} inputs")
            suited(part.criterion, (len(inputs), dataset.outputs), wanted, f"{dataset.name}: {kind} targets")
    label = f"{part.model.__struct_config__.tag} on {dataset.name}"
    return Learning(dataset, theta, outputs, part.micro_batch, _devices(part.devices), label)


Batches = tuple[Array, Array, Array]
"""Inputs, targets and weights 1/n, each (batches, size, …)."""


def _accumulated(batch_loss: Callable, theta: Array, batches: Batches) -> Array:
    """The sum of `batch_loss` over the leading axis of `batches`, one batch in memory at a time for every derivative."""
    if batches[2].shape[0] == 1:
        return batch_loss(theta, jax.tree.map(lambda leaf: leaf[0], batches))
    body = jax.checkpoint(lambda total, batch: (total + batch_loss(theta, batch), None))
    return lax.scan(body, jnp.zeros((), theta.dtype), batches)[0]


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


def flatten(tree: Any, sparing: bool = False) -> tuple[Array, Callable[[Array], Any]]:
    """The leaves of a tree of parameters as one float64 vector, and the way back, which keeps the vector's format.

    `sparing` puts memory first: layers that are computed again need less where jax itself takes the vector apart.
    """
    leaves, structure = jax.tree.flatten(tree)
    shapes = [leaf.shape for leaf in leaves]
    sizes = tuple(math.prod(shape) for shape in shapes)
    split = lax.split if sparing or jax.default_backend() != "cpu" else take_apart

    def restore(theta: Array) -> Any:
        parts = split(theta, sizes)
        return jax.tree.unflatten(structure, [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    return jnp.asarray(np.concatenate([np.ravel(leaf) for leaf in leaves], dtype=np.float64)), restore
