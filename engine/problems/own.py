"""Problems of your own: a loss on any tree of parameters, or a flax module (linen or nnx) with data and a criterion.

A preset names a function, `problem = "my_module:make_problem"`, that returns one of these; it is imported by the engine that
runs the preset and by `check`, and by nothing else. `complaints` says what is wrong with a problem before a run begins.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import spec as specs
from engine.base.errors import UserError, first_line, one_of
from engine.problems import imported, starts
from engine.problems.losses import CRITERIA
from engine.problems.narrowing import narrowed
from engine.problems.parameters import fitted
from engine.problems.problem import Problem, flatten, require_x64
from engine.problems.targets import first, place, require_finite, suited

DIFFERENCE = 1e-4
"""Step of the central differences, in units of 1 + |θ|'s root mean square."""
AGREES = 1e-3
"""Relative error within which a derivative agrees with differences of the one below: their own is near 1e-7."""

DERIVATIVES = ("gradient", "Hessian–vector product", "third derivative ∇³L(v,v)")
KEPT = "set a module's dtype to None, as nnx.Embed's once it is made, and cast to the format of θ"


class Made(NamedTuple):
    """A problem and where it starts."""

    problem: Problem
    theta: Array  # (p,) float64

    def __repr__(self) -> str:
        return f"<Made {self.problem!r}, from θ of {self.theta.size:,} numbers>"


def from_loss(loss: Callable[..., Array], params: Any, data: Any = (), label: str = "own loss") -> Made:
    """The problem of a plain `loss(params)`, or `loss(params, data)` when `data`, a tree of arrays, is given.

    `params` is any tree of float arrays: where to start. The loss must be a scalar, a pure function, in the number format of its
    parameters, and three times differentiable. Large data belong into `data`: what a function closes over is compiled in.
    """
    require_x64()
    theta, restore = flatten(_floats(params))
    wants_data = len(jax.tree.leaves(data)) > 0

    def loss_of(theta: Array, data: Any) -> Array:
        return loss(restore(theta), data) if wants_data else loss(restore(theta))

    return Made(Problem(loss_of, jax.tree.map(jnp.asarray, data), label, restore), theta)


def from_flax(
    module: Any, inputs: np.ndarray, targets: np.ndarray, criterion: Any = "mse", seed: int = 0, label: str = "",
    params: Any = None,
) -> Made:
    """The mean of a criterion over all examples, for a flax module: linen, started here from `seed` or at `params`, a tree of arrays as its
    `init` gives it; or nnx, as it stands.

    `inputs` (n, …) are all the examples. `criterion` is (outputs, targets) -> (n,), targets as it likes them, or one of eos: `mse` and
    `half_mse` take real numbers in the shape of the outputs, or integer class labels (n,) where there are k ≥ 2 outputs;
    `cross_entropy` takes such labels, from 0 to k−1; `logistic` takes −1 and 1, and one output. The module computes in the format of its
    parameters: leave its `dtype` at None, and set that of `nnx.Embed` to None once it is made. Parameters alone are trained: batch
    statistics and other collections are refused, since the loss would have no gradient. Raises UserError where shapes do not go together,
    and for the first input or target that will not do.
    """
    require_x64()
    from flax import linen, nnx

    per_example = _criterion(criterion)
    data = (_array("inputs", inputs), _array("targets", targets))
    require_finite(np.asarray(data[0]), "inputs")
    apply: Callable[[Any, Array], Array]
    if isinstance(module, linen.Module):
        variables = module.init(jax.random.key(seed), data[0][:1])
        others = sorted(set(variables) - {"params"})
        if others:
            raise UserError(f"{type(module).__name__}: has {one_of(others)} beside its parameters; expected a module of parameters alone")
        params = variables["params"] if params is None else fitted(params, variables["params"], f"{type(module).__name__}: params")

        def apply(params: Any, inputs: Array) -> Any:
            return module.apply({"params": params}, inputs)
    elif isinstance(module, nnx.Module):
        if params is not None:
            raise UserError(f"{type(module).__name__}: params: those of an nnx module are its own; nnx.update(module, params) changes them")
        parts: tuple[Any, ...] = nnx.split(module, nnx.Param, ...)
        graph, params, rest = parts
        if jax.tree.leaves(rest):
            raise UserError(f"{type(module).__name__}: has state beside its parameters; expected a module of parameters alone")

        def apply(params: Any, inputs: Array) -> Array:
            return nnx.merge(graph, params, rest)(inputs)
    else:
        raise UserError(f"{type(module).__name__}: expected a flax module, linen or nnx")

    def losses(params: Any, data: Any) -> Array:
        inputs, targets = (_like(params, array) for array in data)
        return per_example(apply(params, inputs), targets)

    def loss(params: Any, data: Any) -> Array:
        return jnp.mean(losses(params, data))

    outputs = jax.eval_shape(apply, params, data[0])
    if not callable(criterion):
        if not isinstance(outputs, jax.ShapeDtypeStruct) or outputs.shape[:1] != (len(data[0]),):
            kind = getattr(outputs, "shape", type(outputs).__name__)
            raise UserError(f"{type(module).__name__}: its outputs are {kind}; {criterion} expects ({len(data[0])}, …), a row an example")
        data = (data[0], jnp.asarray(suited(criterion, outputs.shape, np.asarray(data[1]))))
    if (given := jax.eval_shape(losses, params, data)).shape != (len(data[0]),):
        raise UserError(f"the criterion: gives an array of shape {given.shape}; expected one loss for each example, ({len(data[0])},)")
    made = from_loss(loss, params, data, label or type(module).__name__)
    restore = made.problem.unravel

    def linearized(phi: Array, theta: Array, data: Any) -> Array:
        params, moved = restore(theta), restore(phi - theta)
        inputs, targets = (_like(params, array) for array in data)
        outputs, change = jax.jvp(lambda at: apply(at, inputs), (params,), (moved,))
        return jnp.mean(per_example(jax.tree.map(jnp.add, outputs, change), targets))

    def examples(data: Any, indices: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[indices], data)

    return made._replace(problem=replace(made.problem, examples=examples, linearized=linearized, count=len(data[0])))


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


def _like(params: Any, array: Array) -> Array:
    """Floats in the number format of the parameters; integers, as tokens and labels are, stay."""
    return array.astype(jax.tree.leaves(params)[0].dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _criterion(criterion: Any) -> Callable[[Array, Array], Array]:
    if callable(criterion):
        return criterion
    if criterion not in CRITERIA:
        raise UserError(f"criterion {str(criterion)[:80]!a}: not known; expected a function or one of {one_of(CRITERIA)}")
    return CRITERIA[criterion]


def _floats(params: Any) -> Any:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise UserError(f"parameters of formats {sorted({str(leaf.dtype) for leaf in leaves})}; expected a tree of float arrays")
    return jax.tree.map(jnp.asarray, params)


def build(part: specs.Own, seed: int) -> tuple[Problem, Array, dict[str, Any]]:
    """The problem that a specification names, tested, with θ0 and facts for the record. Imports and runs the code it names."""
    made, origin = _call(part, seed), dict[str, Any]()
    if part.start:
        theta, origin = starts.started(part.start, made.problem.unravel, made.theta, made.problem.label)
        made = made._replace(theta=theta)
    wrong = complaints(made.problem, made.theta) if part.self_test else list(filter(None, [not_derivable(made.problem, made.theta)]))
    if wrong:
        raise UserError(f"{part.function}: {'; '.join(wrong)}")
    leaves = [_plain(leaf) for leaf in (made.theta, *jax.tree.leaves(made.problem.data))]
    digest = sha256(b"".join(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes() for leaf in leaves)).hexdigest()
    facts = {"parameters": made.theta.size, "data": part.function, "rule": made.problem.label, "sha256": digest}
    return made.problem, made.theta, facts | origin | imported.source(part)


def _plain(leaf: Any) -> np.ndarray:
    """A leaf of a problem's data for numpy, which knows no keys of random numbers."""
    is_key = isinstance(leaf, Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


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


def complaints(problem: Problem, theta: Array, seed: int = 0) -> list[str]:
    """What is wrong with a problem at θ (p,), a sentence each; none when it can be run.

    It must be flat, finite, in the format of θ both ways and all the way through, the same twice, and its first three derivatives must
    agree with differences of the one below, which they do not where a gradient is stopped, an operation rounds, or a kink is near.
    """
    require_x64()
    if theta.ndim != 1 or not theta.size or not jnp.issubdtype(theta.dtype, jnp.floating):
        return [f"θ has shape {theta.shape} and format {theta.dtype}; expected a flat vector of floats"]
    if (at := first(~np.isfinite(np.asarray(theta)))) is not None:
        return [f"θ is not finite where it starts: {place('θ', at)} = {theta[at]}"]
    wrong: list[str] = []
    for format in ("float64", "float32"):
        start = jax.ShapeDtypeStruct(theta.shape, format)
        try:
            loss = jax.eval_shape(problem.loss, start)
            lost = narrowed(problem.loss, start) if format == "float64" else ""
        except Exception as error:  # whatever the code of others raises
            return [f"the loss fails: {first_line(error)}"]
        if not isinstance(loss, jax.ShapeDtypeStruct):
            return [f"the loss is a {type(loss).__name__}; expected a single number"]
        if loss.shape != ():
            return [f"the loss has shape {loss.shape}; expected a single number"]
        if str(loss.dtype) != format:
            why = "a module's dtype or a cast fixes it" if format == "float64" else "a float64 constant raises it; cast it to θ's"
            wrong.append(f"the loss is {loss.dtype} where θ is {format}; {f'{lost}; ' if lost else ''}{why}")
        elif lost:
            wrong.append(f"{lost}; {KEPT}")
    if wrong:
        return wrong
    theta = theta.astype(jnp.float64)
    direction = jnp.asarray(np.random.default_rng(seed).standard_normal(theta.size))
    direction = direction / jnp.linalg.norm(direction)
    once, again = (_traced_anew(problem, theta) for _ in range(2))  # chance drawn in Python shows between two traces
    if not np.isfinite(once):
        return [f"the loss is {once} where it starts{_not_finite(problem.data)}"]
    if once.tobytes() != again.tobytes():
        return [f"the loss is {once} and then {again} at the same θ; expected a function of its parameters alone"]
    try:
        return _derivatives(problem, theta, direction)
    except Exception:  # jax's own, of several kinds, or whatever the code of others raises
        if underived := not_derivable(problem, theta):
            return [underived]
        raise


def not_derivable(problem: Problem, theta: Array) -> str:
    """Which of the derivatives of a loss jax cannot take at all, and why, in a sentence; empty where it takes three."""
    start = jax.ShapeDtypeStruct(theta.shape, "float64")
    orders: tuple[Callable[..., Array], ...] = (problem.gradient, problem.hvp, lambda theta, v: problem.derivative(theta, 3, v, v))
    for order, (name, function) in enumerate(zip(DERIVATIVES, orders, strict=True)):
        try:
            jax.eval_shape(function, *[start] * min(order + 1, 2))
        except Exception as error:
            return f"the {name} cannot be taken: {first_line(error)}"
    return ""


def _not_finite(data: Any) -> str:
    """The first number of a problem's data that is none, in words."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        array = _plain(leaf)
        if (at := first(~np.isfinite(array.astype(complex)))) is not None:
            return f"; its data have {place(f'data{jax.tree_util.keystr(path)}', at)} = {array[at]}"
    return ""


def _traced_anew(problem: Problem, theta: Array) -> np.ndarray:
    """L(θ) by a trace of its own: a function that jax has not seen. The data are no constants of it, which XLA would fold."""

    def loss(problem: Problem, theta: Array) -> Array:
        return problem.loss(theta)

    return np.asarray(jax.jit(loss)(problem, theta))


@jax.jit
def _along(problem: Problem, theta: Array, v: Array) -> tuple[Array, Array, Array, Array]:
    """L, ∇L, ∇²Lv and ∇³L(v,v) at θ."""
    return problem.loss(theta), problem.gradient(theta), problem.hvp(theta, v), problem.derivative(theta, 3, v, v)


def _derivatives(problem: Problem, theta: Array, direction: Array) -> list[str]:
    """Complaints on ∇L, ∇²L and ∇³L along a direction (p,), against central differences, and on the format that ∇L is computed in."""
    if lost := narrowed(problem.gradient, jax.ShapeDtypeStruct(theta.shape, theta.dtype)):
        return [f"in the gradient {lost}; {KEPT}"]
    step = DIFFERENCE * (1 + float(jnp.sqrt(jnp.mean(theta**2))))

    here, ahead, behind = (_along(problem, theta + offset * step * direction, direction) for offset in (0, 1, -1))
    for order, name in enumerate(DERIVATIVES, start=1):
        if not bool(jnp.all(jnp.isfinite(here[order]))):
            return [f"the {name} is not finite where it starts; a root, a norm or a logarithm of zero does that"]
        exact = here[order] @ direction if order == 1 else here[order]
        difference = (ahead[order - 1] - behind[order - 1]) / (2 * step)
        size = float(jnp.linalg.norm(exact)) + float(jnp.linalg.norm(difference))
        floor = 1e-9 * (1 + float(jnp.linalg.norm(here[order - 1]))) / step  # rounding of the difference itself
        error = float(jnp.linalg.norm(exact - difference))
        if error > AGREES * size + floor:
            return [
                f"the {name} is off from differences of the one below by {error / size:.1e} of its size; "
                "a stopped gradient, a rounding or a kink does that"
            ]
    return []
