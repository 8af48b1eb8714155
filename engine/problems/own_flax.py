"""Modules of flax as problems of your own: linen or nnx, with data, a criterion, and what a module keeps beside its parameters.

Parameters alone are trained. Running averages of batch statistics may be kept, since no output reads them where BatchNorm takes the
statistics of its batch: the loss is then a function of θ alone. What an output does read beside parameters is refused.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.base.errors import UserError, first_line, one_of
from engine.problems import examples as batched
from engine.problems.examples import linear_mean_of
from engine.problems.losses import CRITERIA
from engine.problems.losses import correct as answered
from engine.problems.own import Cut, Made, count_of, like, read_of, require_one_each, whole_number
from engine.problems.parameters import fitted
from engine.problems.problem import Problem, flatten, require_x64
from engine.problems.targets import require_finite, suited

FEW = 2
"""Examples that a module is tried on."""
OF_ALL = "pass use_running_average=False, or call module.train(), so that it takes the statistics of all examples at once"
DRAWS = "draws random numbers, so that its loss is another at each call"
AT_REST = "pass deterministic=True, or call module.eval()"


class Applied(NamedTuple):
    """A module as a pure function of its parameters."""

    apply: Callable[[Any, Any], Any]
    """(parameters, inputs) to outputs."""
    params: Any
    batch_statistics: bool
    """Whether an output hangs on the other examples of its batch."""


def from_flax(
    module: Any, inputs: Any, targets: Any, criterion: Any = "mse", seed: int = 0, label: str = "", params: Any = None, *,
    weights: Any = None, micro_batch: int = 0, devices: int = 1, shard: str = "examples", test: tuple[Any, Any] | None = None,
    correct: Callable[[Any, Any], Array] | None = None, arguments: Mapping[str, Any] | None = None,
) -> Made:
    """The mean of a criterion over all examples, for a flax module: linen, started here from `seed` or at `params`, a tree of arrays as its
    `init` gives it; or nnx, as it stands.

    `inputs` (n, …) are all the examples, an array or a tuple or dict of them. `criterion` is (outputs, targets) -> (n,), targets as it
    likes them, a tuple or dict too, or one of eos: `mse` and `half_mse` take real numbers in the shape of the outputs, or integer class
    labels (n,) where there are k ≥ 2 outputs; `cross_entropy` takes such labels, from 0 to k−1; `logistic` takes −1 and 1, and one output.
    `arguments` are what the module is called with beside its inputs, as {"train": True}. The module computes in the format of its
    parameters: leave its `dtype` at None, and set that of `nnx.Embed` to None once it is made.

    `weights` (n,) weight the examples by their ratios, Σwℓ/Σw. A pass takes `micro_batch` examples, 0 all, and each pass is shared out
    over so many `devices`, 0 for all; `shard` says what they share out: "examples", "parameters" or "both". `test` are (inputs, targets)
    held out. They give `test.loss`, and where a criterion of eos has right answers, or `correct` says (outputs, targets) -> (n,) which
    they are, `train.accuracy` and `test.accuracy`: means without weights, which a run in `mode = "sharpness"` reads.

    BatchNorm takes the statistics of its batch: those of all examples, so that the loss is one function of θ; a warning says so. It is
    refused where it reads running averages, which nothing here trains, and with `micro_batch`. So is Dropout that is not deterministic,
    with which the loss is another function at each call, and any other state that outputs read. Raises UserError for all of these, where
    shapes do not go together, and for the first input or target that will not do.
    """
    require_x64()
    per_example = _criterion(criterion)
    data = _tree("inputs", inputs), _tree("targets", targets)
    count = count_of(data if callable(criterion) else data[0], "inputs and targets")
    _require_finite(data[0], "inputs")
    name = type(module).__name__
    applied = _applied(module, data[0], seed, params, dict(arguments or {}))
    spread = batched.spread(whole_number("devices", devices), shard, "{}")
    shares = spread.shares(sum(leaf.size for leaf in jax.tree.leaves(applied.params)), "shard")
    theta, restore = flatten(applied.params, shares=shares)

    def outputs(theta: Array, examples: Any) -> Any:
        return applied.apply(restore(theta), like(theta, examples[0]))

    def losses_of(outputs: Any, examples: Any) -> Array:
        return per_example(outputs, like(outputs, examples[1]))

    def losses(theta: Array, examples: Any) -> Array:
        return losses_of(outputs(theta, examples), examples)

    given = jax.eval_shape(outputs, theta, data)
    data = data[0], _suited(criterion, name, given, data[1], count, "targets")
    require_one_each("the criterion", jax.eval_shape(losses, theta, data), count, "loss")
    cut = Cut.of(count, weights, micro_batch, spread)
    if applied.batch_statistics:
        _require_one_batch(name, cut)
    held_out = None if test is None else _held_out(test, data, criterion, name, lambda data: jax.eval_shape(outputs, theta, data))
    problem = cut.mean(losses, data)
    readings: dict[str, Problem] = {} if held_out is None else {"test.loss": cut.others.mean(losses, held_out)}
    if (right := correct or _right(criterion, data[1])) is not None:
        def correct_of(theta: Array, examples: Any) -> Array:
            return jnp.asarray(right(outputs(theta, examples), examples[1])).astype(theta.dtype)

        require_one_each("correct", jax.eval_shape(correct_of, theta, data), count)
        readings["train.accuracy"] = read_of(problem, correct_of)
        if held_out is not None:
            readings["test.accuracy"] = cut.others.mean(correct_of, held_out)
    line = linear_mean_of(outputs, losses_of) if hasattr(problem.data, "weights") else _linear_mean(outputs, losses_of)
    problem = replace(problem.named(label or name, restore, readings, shares), linearized=line, notes=spread.notes)
    if applied.batch_statistics:
        note = f"{name}: BatchNorm takes the statistics of its batch: all {count} examples, in the loss and in every derivative"
        warnings.warn(note, stacklevel=2)
        problem = replace(problem, notes=(note, *problem.notes))
    return Made(problem, theta)


def _linear_mean(outputs: Callable[[Array, Any], Any], losses_of: Callable[[Any, Any], Array]) -> Callable[[Array, Array, Any], Array]:
    """(φ, θ, examples) to the mean at φ, of outputs linearised at θ."""

    def linearized(phi: Array, theta: Array, data: Any) -> Array:
        there, change = jax.jvp(lambda at: outputs(at, data), (theta,), (phi - theta,))
        return jnp.mean(losses_of(jax.tree.map(jnp.add, there, change), data))

    return linearized


def _applied(module: Any, inputs: Any, seed: int, params: Any, arguments: dict[str, Any]) -> Applied:
    """A module as a function. Raises UserError where it is none of θ alone."""
    from flax import linen, nnx

    name = type(module).__name__
    if isinstance(module, linen.Module):
        return _linen(module, inputs, seed, params, arguments)
    if not isinstance(module, nnx.Module):
        raise UserError(f"{name}: expected a flax module, linen or nnx")
    if params is not None:
        raise UserError(f"{name}: params: those of an nnx module are its own; nnx.update(module, params) changes them")
    return _nnx(module, inputs, arguments)


def _linen(module: Any, inputs: Any, seed: int, params: Any, arguments: dict[str, Any]) -> Applied:
    from flax.errors import InvalidRngError

    name, few = type(module).__name__, _few(inputs)
    variables = dict(module.init(jax.random.key(seed), _first(inputs), **arguments))
    drawn = variables.pop("params", {})
    if others := sorted(set(variables) - {"batch_stats"}):
        raise UserError(f"{name}: has {one_of(others)} beside its parameters; expected a module of parameters alone")
    params = drawn if params is None else fitted(params, drawn, f"{name}: params")

    def apply_with(params: Any, state: Any, inputs: Any) -> Any:
        if not state:
            return module.apply({"params": params}, inputs, **arguments)
        return module.apply({"params": params, **state}, inputs, mutable=list(state), **arguments)[0]

    try:
        jax.eval_shape(apply_with, params, variables, few)
    except InvalidRngError as error:
        raise UserError(f"{name}: {DRAWS}; {AT_REST} ({first_line(error)})") from None
    if _reads(lambda state: apply_with(params, state, few), variables):
        raise UserError(f"{name}: BatchNorm reads running averages, which nothing here trains; {OF_ALL}")
    return Applied(lambda params, inputs: apply_with(params, variables, inputs), params, bool(variables))


def _nnx(module: Any, inputs: Any, arguments: dict[str, Any]) -> Applied:
    from flax import nnx

    parts: tuple[Any, ...] = nnx.split(module, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
    graph, params, statistics, chance, rest = parts
    name = type(module).__name__
    if jax.tree.leaves(rest):
        kinds = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
        raise UserError(f"{name}: has state beside its parameters ({one_of(kinds)}); expected a module of parameters alone")

    def apply_with(params: Any, statistics: Any, inputs: Any) -> tuple[Any, Any]:
        states = like(params, (statistics, chance))  # of this trace: a call writes to them
        merged = nnx.merge(graph, params, *states, rest)
        outputs = merged(inputs, **arguments)
        return outputs, nnx.state(merged, nnx.RngState)

    few = like(params, _few(inputs))
    if jax.tree.leaves(chance):
        states = chance, apply_with(params, statistics, few)[1]
        before, after = (jax.tree.leaves(nnx.filter_state(state, nnx.RngCount)) for state in states)
        if any(int(a) != int(b) for a, b in zip(before, after, strict=True)):
            drawing = {type(node).__name__ for _, node in nnx.iter_graph(module) if getattr(node, "deterministic", None) is False}
            by = f" ({one_of(sorted(drawing))})" if drawing else ""
            raise UserError(f"{name}: {DRAWS}{by}; {AT_REST}")
    if _reads(lambda state: apply_with(params, state, few)[0], statistics):
        raise UserError(f"{name}: BatchNorm reads running averages, which nothing here trains; {OF_ALL}")
    return Applied(lambda params, inputs: apply_with(params, statistics, inputs)[0], params, bool(jax.tree.leaves(statistics)))


def _reads(outputs: Callable[[Any], Any], state: Any) -> bool:
    """Whether outputs hang on a state: where it is no number, neither are they."""
    if not jax.tree.leaves(state):
        return False
    unknown = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, state)
    known, spoilt = (jax.tree.leaves(outputs(each)) for each in (state, unknown))
    return any(bool(jnp.any(jnp.isnan(b) & ~jnp.isnan(a))) for a, b in zip(known, spoilt, strict=True))


def _few(inputs: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:FEW], inputs)


def _first(inputs: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:1], inputs)


def _require_one_batch(name: str, cut: Cut) -> None:
    """Raise UserError where the statistics would not be those of all examples."""
    if cut.micro_batch:
        raise UserError(f"{name}: micro_batch = {cut.micro_batch}: BatchNorm takes the statistics of all examples at once; use 0")
    if cut.devices and cut.size % len(cut.devices):
        raise UserError(
            f"{name}: devices = {len(cut.devices)} do not divide the {cut.size} examples, and what fills up the last would be part of "
            "the statistics of BatchNorm; leave some examples out, or use 1"
        )


def _held_out(test: Any, data: Any, criterion: Any, name: str, outputs: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Held-out examples, of the kind of those trained on. Raises UserError for others."""
    if not (isinstance(test, tuple) and len(test) == 2):
        many = f" of {len(test)}" if isinstance(test, tuple) else ""
        raise UserError(f"test: a {type(test).__name__}{many}; expected (inputs, targets)")
    given = _tree("test inputs", test[0]), _tree("test targets", test[1])
    for what, mine, theirs in zip(("inputs", "targets"), given, data, strict=True):
        kinds = [str(jax.tree.structure(tree)) for tree in (mine, theirs)]
        if kinds[0] != kinds[1]:
            raise UserError(f"test {what}: {kinds[0]}; expected the same as for training, {kinds[1]}")
    count = count_of(given if callable(criterion) else given[0], "test inputs and targets")
    _require_finite(given[0], "test inputs")
    return given[0], _suited(criterion, name, outputs(given), given[1], count, "test targets")


def _suited(criterion: Any, name: str, outputs: Any, targets: Any, count: int, named: str) -> Any:
    """Targets as a criterion of eos takes them, and as they are for any other."""
    if callable(criterion):
        return targets
    if not isinstance(outputs, jax.ShapeDtypeStruct) or outputs.shape[:1] != (count,):
        kind = getattr(outputs, "shape", type(outputs).__name__)
        raise UserError(f"{name}: its outputs are {kind}; {criterion} expects ({count}, …), a row an example")
    if not isinstance(targets, Array):
        kind = type(targets).__name__
        goes = f"a {kind} goes with a criterion (outputs, targets) -> ({count},)"
        raise UserError(f"{named}: a {kind}; {criterion} takes one array, and {goes}")
    return jnp.asarray(suited(criterion, outputs.shape, np.asarray(targets), named))


def _right(criterion: Any, targets: Any) -> Callable[[Any, Any], Array] | None:
    """Which answers are right, where a criterion of eos says so: of classes, not of a regression."""
    if callable(criterion):
        return None
    return answered if criterion == "logistic" or jnp.ndim(targets) == 1 else None


def _tree(name: str, given: Any) -> Any:
    """Inputs or targets as arrays of examples, in tuples and dicts as they are given. Raises UserError for what is none."""
    if isinstance(given, Mapping):
        return {key: _tree(f"{name}[{key!r}]", each) for key, each in given.items()}
    if isinstance(given, tuple) and any(isinstance(each, Mapping | tuple) or np.ndim(each) for each in given):
        parts = [_tree(f"{name}[{k}]", each) for k, each in enumerate(given)]
        return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
    return _array(name, given)


def _require_finite(tree: Any, name: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        require_finite(np.asarray(leaf), f"{name}{jax.tree_util.keystr(path)}")


def _array(name: str, given: Any) -> Array:
    """Inputs or targets as an array of examples. Raises UserError for what is none."""
    try:
        array = given if isinstance(given, Array) else np.asarray(given)
    except ValueError as error:
        raise UserError(f"{name}: a {type(given).__name__}; expected an array of numbers ({first_line(error)})") from None
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise UserError(f"{name}: a {type(given).__name__} of format {array.dtype}; expected an array of numbers")
    if not array.ndim or not len(array):
        raise UserError(f"{name}: an array of shape {array.shape}; expected an example in each row")
    return jnp.asarray(array)


def _criterion(criterion: Any) -> Callable[[Array, Array], Array]:
    if callable(criterion):
        return criterion
    if criterion not in CRITERIA:
        raise UserError(f"criterion {str(criterion)[:80]!a}: not known; expected a function or one of {one_of(CRITERIA)}")
    return CRITERIA[criterion]
