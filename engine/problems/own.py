"""Problems of your own: a loss on any tree of parameters, with data of any kind or a number for each example.

A preset names a function, `problem = "my_module:make_problem"`, that returns one of these, or what `own_flax` makes of a module; it is
imported by the engine that runs the preset and by `check`, and by nothing else.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import spec as specs
from engine.base.errors import UserError, first_line, one_of
from engine.problems import examples, imported, starts
from engine.problems.problem import Problem, flatten, require_x64
from engine.problems.self_test import complaints, not_derivable
from engine.xla.leaves import plain
from engine.xla.shares import bare


class Made(NamedTuple):
    """A problem and where it starts."""

    problem: Problem
    theta: Array  # (p,) float64

    def __repr__(self) -> str:
        return f"<Made {self.problem!r}, from θ of {self.theta.size:,} numbers>"


def from_loss(
    loss: Callable[..., Array], params: Any, data: Any = (), label: str = "own loss", *, per_example: bool = False,
    weights: Any = None, micro_batch: int = 0, devices: int = 1, shard: str = "examples", test: Any = None,
    correct: Callable[[Any, Any], Array] | None = None,
) -> Made:
    """The problem of a plain `loss(params)`, or `loss(params, data)` when `data`, a tree of arrays, is given.

    `params` is any tree of float arrays: where to start. The loss must be a scalar, a pure function, in the number format of its
    parameters, and three times differentiable. Large data belong into `data`: what a function closes over is compiled in. The floats of
    `data` come in that format, too, whatever they are given in.

    With `per_example` the loss gives a number for each example, (n,), of data whose arrays all have n rows, and the problem is their mean:
    with `weights` (n,), whose ratios count, Σwℓ/Σw; in passes of `micro_batch` examples, 0 for all at once; shared out over so many
    `devices`, 0 for all; and a run may take its steps on batches. `shard` says what those devices share out: "examples", "parameters", for
    which any loss will do, or "both".

    `test` are data held out, of the same kind, and `correct(params, data)` says of each example, (n,), whether it is answered right: they
    give `test.loss`, `train.accuracy` and `test.accuracy`, means without weights, which a run in `mode = "sharpness"` reads.
    """
    require_x64()
    parameters, spread = _floats(params), examples.spread(whole_number("devices", devices), shard, "{}")
    shares = spread.shares(sum(leaf.size for leaf in jax.tree.leaves(parameters)), "shard")
    theta, restore = flatten(parameters, shares=shares)
    wants_data = len(jax.tree.leaves(data)) > 0

    def loss_of(theta: Array, data: Any) -> Array:
        return loss(restore(theta), like(theta, data)) if wants_data else loss(restore(theta))

    def correct_of(theta: Array, data: Any) -> Array:
        right = correct(restore(theta), like(theta, data))  # type: ignore[misc]  # asked where it is given
        return jnp.asarray(right).astype(theta.dtype)

    if not wants_data and (test is not None or correct is not None):
        raise UserError(f"{'correct' if test is None else 'test'}: needs data, loss(params, data)")
    if per_example:
        cut = Cut.of(count_of(data, "data"), weights, micro_batch, spread)
        require_one_each("the loss", jax.eval_shape(loss_of, theta, _arrays(data)), cut.size)
        problem = cut.mean(loss_of, data)
    else:
        shared = "devices" if shard == "examples" else f'shard = "{shard}"', spread.examples and devices != 1
        for name, given in (("weights", weights is not None), ("micro_batch", micro_batch), shared):
            if given:
                raise UserError(f"{name}: belongs to a loss that gives a number for each example; pass per_example=True")
        cut = AT_ONCE._replace(spread=spread)
        problem = Problem(loss_of, cut.arrays(data))
    readings = {}
    if test is not None:
        readings["test.loss"] = cut.others.mean(loss_of, test) if per_example else Problem(loss_of, cut.arrays(test))
    for name, on in (("train.accuracy", data), ("test.accuracy", test)) if correct is not None else ():
        if on is not None:
            require_one_each("correct", jax.eval_shape(correct_of, theta, _arrays(on)), count_of(on, name.partition(".")[0]))
            readings[name] = read_of(problem, correct_of) if on is data else cut.others.mean(correct_of, on)
    return Made(replace(problem.named(label, restore, readings, shares), notes=spread.notes), theta)


def _arrays(data: Any) -> Any:
    """Data as arrays of jax. Raises UserError for what can be none."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _array(f"data{jax.tree_util.keystr(path)}", leaf), data)


def _array(name: str, given: Any) -> Array:
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: a {type(given).__name__}; expected an array of numbers ({first_line(error)})") from None


def like(given: Any, tree: Any) -> Any:
    """Floats in the format of those given; integers, as tokens and labels are, stay."""
    format = jnp.result_type(*(leaf for leaf in jax.tree.leaves(given) if jnp.issubdtype(leaf.dtype, jnp.floating)))
    return jax.tree.map(lambda leaf: leaf.astype(format) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def whole_number(name: str, given: Any) -> int:
    """A number that is given to a maker. Raises UserError where it is none, or below 0."""
    if not isinstance(given, int | np.integer) or given < 0:
        raise UserError(f"{name} = {given!r}: expected a whole number, 0 for all")
    return int(given)


class Cut(NamedTuple):
    """How a mean over examples is taken."""

    size: int
    """Of how many examples; 0 for any."""
    weights: np.ndarray | None  # (n,) of sum 1
    micro_batch: int
    spread: examples.Spread | None

    @classmethod
    def of(cls, count: int, weights: Any, micro_batch: int, spread: examples.Spread) -> "Cut":
        """The cut of so many examples. Raises UserError for weights and batches that there are not."""
        return cls(count, _weights(weights, count), whole_number("micro_batch", micro_batch), spread)

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """Those that share out the examples; none where one takes all, or each does."""
        return self.spread.devices if self.spread and len(self.spread.devices) > 1 and self.spread.examples else ()

    def arrays(self, data: Any) -> Any:
        """Data as jax has them, on each of several devices."""
        several = self.spread is not None and len(self.spread.devices) > 1
        return jax.device_put(_arrays(data), self.spread.everywhere) if self.spread and several else _arrays(data)

    @property
    def others(self) -> "Cut":
        """The same cut of other examples, all of one weight."""
        return self._replace(size=0, weights=None)

    def mean(self, losses: examples.Losses, data: Any) -> Problem:
        """The mean of what `losses` (θ, examples) gives for each, as a problem."""
        count = self.size or count_of(data, "data")
        if self.weights is None and not self.micro_batch and not self.devices:
            return Problem(partial(_mean, losses), self.arrays(data), examples=_rows, count=count)
        some = examples.some if self.weights is None else examples.some_weighted(count)
        cut = examples.batches(data, self.micro_batch, self.spread or examples.Spread((jax.devices()[0],)), self.weights)
        return Problem(examples.mean_of(losses), cut, examples=some, count=count)


def read_of(problem: Problem, losses: examples.Losses) -> Problem:
    """The mean without weights of another number of each example of a problem; the examples are not held twice."""
    if isinstance(problem.data, examples.Batches):
        return Problem(examples.mean_of(losses), examples.unweighted(problem.data, problem.count))
    return Problem(partial(_mean, losses), problem.data)


AT_ONCE = Cut(0, None, 0, None)
"""All examples in one pass."""


def _mean(losses: examples.Losses, theta: Array, data: Any) -> Array:
    return jnp.mean(losses(theta, data))


def _rows(data: Any, indices: Array) -> Any:
    """These examples (n,) of a tree of arrays."""
    return jax.tree.map(lambda leaf: leaf[indices], data)


def _weights(given: Any, count: int) -> np.ndarray | None:
    """Weights of sum 1. Raises UserError where there are no such weights of so many examples."""
    if given is None:
        return None
    try:
        weights = np.asarray(given, float)
    except (TypeError, ValueError) as error:
        raise UserError(f"weights: a {type(given).__name__}; expected ({count},) numbers ({first_line(error)})") from None
    if weights.shape != (count,):
        raise UserError(f"weights: an array of shape {weights.shape}; expected one for each example, ({count},)")
    if len(bad := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))):
        raise UserError(f"weights[{bad[0]}] = {weights[bad[0]]}; expected finite numbers, none below 0")
    if not weights.sum() > 0:
        raise UserError("weights: all are 0; expected one above 0")
    return weights / weights.sum()


def count_of(data: Any, name: str) -> int:
    """Examples in a tree of arrays (n, …). Raises UserError where its arrays have no n in common."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    if not shapes or any(not shape or not shape[0] for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        given = ", ".join(map(str, shapes)) or "no arrays"
        raise UserError(f"{name}: arrays of shapes {given}; expected as many rows in each, an example in each")
    return int(shapes[0][0])


def require_one_each(name: str, given: Any, count: int, number: str = "number") -> None:
    """Raise UserError unless there is a number for each example."""
    if getattr(given, "shape", None) != (count,):
        kind = f"an array of shape {given.shape}" if hasattr(given, "shape") else f"a {type(given).__name__}"
        raise UserError(f"{name}: gives {kind}; expected one {number} for each example, ({count},)")


def _floats(params: Any) -> Any:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise UserError(f"parameters of formats {sorted({str(leaf.dtype) for leaf in leaves})}; expected a tree of float arrays")
    return jax.tree.map(jnp.asarray, params)


def build(part: specs.Own, seed: int) -> tuple[Problem, Array, dict[str, Any]]:
    """The problem that a specification names, tested, with θ0 and facts for the record. Imports and runs the code it names."""
    made, origin = _call(part, seed), dict[str, Any]()
    if part.start:
        theta, origin = starts.started(part.start, made.problem.unravel, made.theta, made.problem.label, made.problem.shares)
        made = made._replace(theta=theta)
    absent = [name for name in part.readings if name not in made.problem.readings]
    if absent:
        has = f"has {one_of(made.problem.readings)}" if made.problem.readings else "has none; test= and correct= of its maker give some"
        raise UserError(f"{part.function}: [problem] readings = {list(part.readings)}: {absent[0]} is none of the problem's: it {has}")
    wrong = complaints(made.problem, made.theta) if part.self_test else list(filter(None, [not_derivable(made.problem, made.theta)]))
    if wrong:
        raise UserError(f"{part.function}: {'; '.join(wrong)}")
    read = [reading.data for reading in made.problem.readings.values()]
    start = bare(np.asarray(made.theta), made.problem.shares)
    leaves = [plain(leaf) for leaf in (start, *jax.tree.leaves((made.problem.data, read)))]
    digest = sha256(b"".join(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes() for leaf in leaves)).hexdigest()
    facts = {"parameters": start.size, "data": part.function, "rule": made.problem.label, "sha256": digest}
    if made.problem.readings:
        facts["readings"] = {name: name in part.readings for name in made.problem.readings}
    if made.problem.notes:
        facts["notes"] = "; ".join(made.problem.notes)
    return made.problem, made.theta, facts | origin | imported.source(part)


def _call(part: specs.Own, seed: int) -> Made:
    made = imported.call(part, "problem", seed=seed)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Problem)):
        expected = "expected that of engine.from_loss or engine.from_flax"
        raise UserError(f"{part.function}: returned a {type(made).__name__}; {expected} ({imported.origin_of(part)})")
    try:
        return Made(made[0], jnp.asarray(made[1]))
    except (TypeError, ValueError) as error:
        given = type(made[1]).__name__
        raise UserError(f"{part.function}: returned a {given} to start from; expected θ (p,): {first_line(error)}") from None
