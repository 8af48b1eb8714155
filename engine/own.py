"""Problems of your own: a loss on any tree of parameters, or a flax module (linen or nnx) with data and a criterion.

A preset names a function, `problem = "my_module:make_problem"`, that returns one of these; it is imported by the engine that
runs the preset and by `check`, and by nothing else. `complaints` says what is wrong with a problem before a run begins.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import places
from engine import spec as specs
from engine.errors import UserError, first_line, one_of
from engine.losses import CRITERIA
from engine.problem import Problem, flatten, require_x64

DIFFERENCE = 1e-4
"""Step of the central differences, in units of 1 + |θ|'s root mean square."""
AGREES = 1e-3
"""Relative error within which a derivative agrees with differences of the one below: their own is near 1e-7."""


class Made(NamedTuple):
    """A problem and where it starts."""

    problem: Problem
    theta: Array  # (p,) float64


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

    return Made(Problem(loss_of, jax.tree.map(jnp.asarray, data), label), theta)


def from_flax(module: Any, inputs: np.ndarray, targets: np.ndarray, criterion: Any = "mse", seed: int = 0, label: str = "") -> Made:
    """The mean of a criterion over all examples, for a flax module: linen, started here from `seed`, or nnx, as it stands.

    `inputs` (n, …) are all the examples. `targets` are class labels (n,), integers, or of the shape of the outputs; `criterion` is one
    of eos (`mse`, `half_mse`, `cross_entropy`, `logistic`) or (outputs, targets) -> (n,), targets as it likes them. The module computes
    in the format of its parameters: leave its `dtype` at None. Parameters alone are trained: batch statistics and other collections
    are refused, since the loss would have no gradient. Raises UserError where shapes do not go together.
    """
    from flax import linen, nnx

    per_example = _criterion(criterion)
    data = (jnp.asarray(inputs), jnp.asarray(targets))
    apply: Callable[[Any, Array], Array]
    if isinstance(module, linen.Module):
        variables = module.init(jax.random.key(seed), data[0][:1])
        others = sorted(set(variables) - {"params"})
        if others:
            raise UserError(f"{type(module).__name__}: has {one_of(others)} beside its parameters; expected a module of parameters alone")
        params = variables["params"]

        def apply(params: Any, inputs: Array) -> Any:
            return module.apply({"params": params}, inputs)
    elif isinstance(module, nnx.Module):
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

    _fit(criterion, jax.eval_shape(apply, params, data[0]), *data)
    if (given := jax.eval_shape(losses, params, data)).shape != (len(data[0]),):
        raise UserError(f"the criterion: gives an array of shape {given.shape}; expected one loss for each example, ({len(data[0])},)")
    return from_loss(loss, params, data, label or type(module).__name__)


def _fit(criterion: Any, outputs: Any, inputs: Array, targets: Array) -> None:
    """Refuse targets that a criterion of eos would broadcast, or take for something else."""
    if callable(criterion):
        return
    labels = targets.shape == (len(inputs),) and jnp.issubdtype(targets.dtype, jnp.integer) and len(outputs.shape) == 2
    same = targets.shape == outputs.shape
    if not {"cross_entropy": labels, "logistic": same}.get(criterion, labels or same):
        wanted = {"cross_entropy": "", "logistic": f"{outputs.shape}, −1 or 1"}.get(criterion, f"{outputs.shape}, as the outputs,")
        choices = " or ".join(filter(None, [wanted, "" if criterion == "logistic" else f"integer class labels ({len(inputs)},)"]))
        raise UserError(f"targets: an array of shape {targets.shape} and format {targets.dtype}; {criterion} expects {choices}")


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
    made = _call(part, seed)
    wrong = complaints(made.problem, made.theta) if part.self_test else []
    if wrong:
        raise UserError(f"{part.function}: {'; '.join(wrong)}")
    leaves = [np.asarray(leaf) for leaf in (made.theta, *jax.tree.leaves(made.problem.data))]
    digest = sha256(b"".join(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes() for leaf in leaves)).hexdigest()
    return made.problem, made.theta, {"parameters": made.theta.size, "data": part.function, "rule": made.problem.label, "sha256": digest}


def _call(part: specs.Own, seed: int) -> Made:
    name, _, attribute = part.function.partition(":")
    folder = str(places.absolute(part.folder, "[problem] folder")) if part.folder else ""
    if folder and folder not in sys.path:
        sys.path.append(folder)
    try:
        function = getattr(importlib.import_module(name), attribute)
    except ModuleNotFoundError as error:
        where = f"{folder} or " if folder else ""
        raise UserError(f"{part.function}: no module {error.name} in {where}Python's path; [problem] folder says where it lies") from None
    except AttributeError as error:
        if getattr(error, "obj", None) is not sys.modules.get(name):
            raise UserError(_failed(part, error)) from error
        raise UserError(f"{part.function}: module {name} has no {attribute}") from None
    except Exception as error:  # whatever the code of others raises
        raise UserError(_failed(part, error)) from error
    arguments = dict(part.arguments)
    try:
        accepted = inspect.signature(function).parameters
        if "seed" in accepted:
            arguments.setdefault("seed", seed)
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UserError(f"{part.function}: does not take [problem.arguments] {', '.join(arguments) or '(none)'}: {error}") from None
    try:
        made = function(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_failed(part, error)) from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Problem)):
        raise UserError(f"{part.function}: returned a {type(made).__name__}; expected that of engine.from_loss or engine.from_flax")
    return Made(made[0], jnp.asarray(made[1]))


def _failed(part: specs.Own, error: Exception) -> str:
    """That the code of others failed, how, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    return f"{part.function}: fails: {first_line(error)} ({where[0]}, line {where[1]})"


def complaints(problem: Problem, theta: Array, seed: int = 0) -> list[str]:
    """What is wrong with a problem at θ (p,), a sentence each; none when it can be run.

    It must be flat, finite, in the format of θ both ways, the same twice, and its first three derivatives must agree with
    differences of the one below, which they do not where a gradient is stopped, an operation rounds, or a kink is near.
    """
    require_x64()
    if theta.ndim != 1 or not theta.size or not jnp.issubdtype(theta.dtype, jnp.floating):
        return [f"θ has shape {theta.shape} and format {theta.dtype}; expected a flat vector of floats"]
    if not bool(jnp.all(jnp.isfinite(theta))):
        return ["θ is not finite where it starts"]
    found: list[str] = []
    for format in ("float64", "float32"):
        try:
            loss = jax.eval_shape(problem.loss, jax.ShapeDtypeStruct(theta.shape, format))
        except Exception as error:  # whatever the code of others raises
            return [f"the loss fails: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"]
        if loss.shape != ():
            return [f"the loss has shape {loss.shape}; expected a single number"]
        if str(loss.dtype) != format:
            why = "a module's dtype or a cast fixes it" if format == "float64" else "a float64 constant raises it; cast it to θ's"
            found.append(f"the loss is {loss.dtype} where θ is {format}; {why}")
    if found:
        return found
    theta = theta.astype(jnp.float64)
    direction = jnp.asarray(np.random.default_rng(seed).standard_normal(theta.size))
    direction = direction / jnp.linalg.norm(direction)
    first, second = (_traced_anew(problem, theta) for _ in range(2))  # chance drawn in Python shows between two traces
    if not np.isfinite(first):
        return [f"the loss is {first} where it starts"]
    if first.tobytes() != second.tobytes():
        return [f"the loss is {first} and then {second} at the same θ; expected a function of its parameters alone"]
    return _derivatives(problem, theta, direction)


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
    """Complaints on ∇L, ∇²L and ∇³L along a direction (p,), against central differences."""
    step = DIFFERENCE * (1 + float(jnp.sqrt(jnp.mean(theta**2))))

    here, ahead, behind = (_along(problem, theta + offset * step * direction, direction) for offset in (0, 1, -1))
    names = ("gradient", "Hessian–vector product", "third derivative ∇³L(v,v)")
    for order, name in enumerate(names, start=1):
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
