"""The problem of a specification: its loss, where it starts, and facts on its data for the record."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from engine import data
from engine import spec as specs
from engine.base.errors import UserError
from engine.data import Dataset
from engine.problems import examples, losses, own
from engine.problems.examples import Batches
from engine.problems.problem import Problem, flatten, require_x64
from engine.problems.starts import started
from engine.problems.targets import require_finite, suited
from engine.problems.toy import toy, toy_k
from engine.record import edges
from engine.xla.float32_products import count, in_float32_products
from engine.xla.shares import Shares, numbers


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
    require_flat(spec, problem.shares)
    problem = specified(problem, spec)
    return problem, theta, facts | products_facts(problem, theta, spec.precision.products)


def specified(problem: Problem, spec: specs.RunSpec) -> Problem:
    """The problem with what a specification does to any: weight decay, and float64 products by float32 ones."""
    return with_products(decayed(problem, spec.optimizer.weight_decay), spec.precision.products)


def with_products(problem: Problem, products: specs.Products) -> Problem:
    """The problem, and what is read beside its loss, with the products of float64 numbers computed so."""
    if products == "float64":
        return problem
    readings = {name: with_products(each, products) for name, each in problem.readings.items()}
    line = problem.linearized and in_float32_products(problem.linearized)
    return replace(problem, loss_of=in_float32_products(problem.loss_of), linearized=line, readings=readings)


def without_products(problem: Problem) -> Problem:
    """A problem `with_products` of float32 numbers as it was, but for what is read beside its loss."""
    return replace(problem, loss_of=problem.loss_of.__wrapped__)  # type: ignore[attr-defined]  # of functools.wraps


def products_facts(problem: Problem, theta: Array, products: specs.Products) -> dict[str, str]:
    """How many of the products in a gradient, θ (p,) in float64, are made of float32 ones, for the record; nothing where none are to be."""
    if products == "float64":
        return {}
    ours, left = count(jax.value_and_grad(problem.loss), theta)
    return {"products": f"{products}, for {ours} of the {ours + left} in a gradient{'; the others stay float64' if left else ''}"}


def require_flat(spec: specs.RunSpec, shares: Shares | None) -> None:
    """Raise UserError where an optimizer's state is made of trees of parameters, and those are to lie in shares as one vector."""
    if shares is not None and isinstance(spec.optimizer, specs.OwnOptimizer):
        raise UserError(
            f'{spec.optimizer.function}: the state of an optimizer of your own is a tree of parameters, which is not shared out; '
            'use shard = "examples", or an optimizer of eos'
        )


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
    network = learning(part, seed)
    batches = network.batches(network.dataset.inputs, network.dataset.targets)
    return network.mean(losses.CRITERIA[part.criterion], batches, len(network.dataset.inputs)), network.theta, network.facts


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
    spread: examples.Spread
    shares: Shares | None
    label: str

    @property
    def facts(self) -> dict[str, Any]:
        """Which data and how many parameters, for the record."""
        return {**self.dataset.facts, "parameters": numbers(self.theta.size, self.shares), **self.origin, **self.spread.facts}

    def batches(self, inputs: np.ndarray, targets: np.ndarray) -> Batches:
        """Examples on the device, to take a mean over."""
        return examples.batches((inputs, targets), self.micro_batch, self.spread)

    def mean(self, per_example: Callable[[Array, Array], Array], batches: Batches, count: int = 0) -> Problem:
        """The mean of `per_example` (outputs, targets) -> (n,) over batches as a function of θ; `count` is how many examples there
        are, where a mean over a few of them will be asked for, too."""
        mean = examples.mean_of(_losses_of(per_example, self.outputs))
        line = examples.linear_mean_of(_outputs_on(self.outputs), _on_targets(per_example))
        return Problem(mean, batches, self.label, self.unravel, examples.some, line, count, self.shares)


def learning(part: specs.Network, seed: int) -> Learning:
    """The network of a specification at its start, and its data."""
    return learning_of(part, data.load(part.data), seed)


def learning_of(part: specs.Network, dataset: Dataset, seed: int) -> Learning:
    """The network of a specification at its start, on these data in place of its own."""
    from engine.problems import networks  # flax takes a second to import

    model = networks.build(part.model, dataset, part.rematerialize)
    spread, parameters = examples.spread(part.devices, part.shard, "[problem] {}"), model.init(jax.random.key(seed))
    shares = spread.shares(sum(leaf.size for leaf in jax.tree.leaves(parameters)), "[problem] shard")
    theta, restore = flatten(parameters, part.rematerialize, shares)
    for kind, inputs, wanted in (("training", dataset.inputs, dataset.targets), ("test", dataset.test_inputs, dataset.test_targets)):
        if inputs is not None and wanted is not None:
            require_finite(inputs, f"{dataset.name}: {kind} inputs")
            suited(part.criterion, (len(inputs), dataset.outputs), wanted, f"{dataset.name}: {kind} targets")
    label = f"{part.model.__struct_config__.tag} on {dataset.name}"
    theta, origin = started(part.start, restore, theta, label, shares) if part.start else (theta, {})
    return Learning(dataset, theta, restore, _outputs_of(model.apply, restore), origin, part.micro_batch, spread, shares, label)


# Functions made of the same parts are the same function, here as in `networks` and `problem`: jax compiles for a function, so that a
# problem which is built again, in a script of several runs, is compiled already.


@cache
def _outputs_of(apply: Callable[[Any, Array], Array], restore: Callable[[Array], Any]) -> Callable[[Array, Array], Array]:
    """(θ, inputs) to outputs."""
    return lambda theta, inputs: apply(restore(theta), inputs)


@cache
def _outputs_on(outputs: Callable[[Array, Array], Array]) -> Callable[[Array, Any], Array]:
    """(θ, (inputs, targets)) to outputs."""
    return lambda theta, examples: outputs(theta, examples[0])


@cache
def _on_targets(per_example: Callable[[Array, Array], Array]) -> Callable[[Array, Any], Array]:
    """(outputs, (inputs, targets)) to a number for each."""
    return lambda given, examples: per_example(given, examples[1])


@cache
def _losses_of(per_example: Callable[[Array, Array], Array], outputs: Callable[[Array, Array], Array]) -> Callable[[Array, Any], Array]:
    """(θ, (inputs, targets)) to a number for each."""
    return lambda theta, examples: per_example(outputs(theta, examples[0]), examples[1])
