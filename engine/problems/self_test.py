"""What is wrong with a loss, told before a run begins: its format, whether it is a function of θ alone, its first three derivatives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.base.errors import first_line
from engine.problems.narrowing import narrowed, widened
from engine.problems.problem import Problem, require_x64
from engine.problems.targets import first, place
from engine.xla.leaves import plain

DIFFERENCE = 1e-4
"""Step of the central differences, in units of 1 + |θ|'s root mean square."""
CLOSER = (1e-6, 1e-8)
"""The same where a kink may lie between: of a network's, a hundredth is met on a hundredth of the way."""
AGREES = 1e-3
"""Relative error within which a derivative agrees with differences of the one below: their own is near 1e-7."""

DERIVATIVES = ("gradient", "Hessian–vector product", "third derivative ∇³L(v,v)")
KEPT = "set a module's dtype to None, as nnx.Embed's once it is made, and cast to the format of θ"


def complaints(problem: Problem, theta: Array, seed: int = 0) -> list[str]:
    """What is wrong with a problem at θ (p,), a sentence each; none when it can be run.

    It must be flat, finite, in the format of θ both ways and all the way through, the same twice, and its first three derivatives must
    agree with differences of the one below, which they do not where a gradient is stopped, an operation rounds, or θ is at a kink.
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
            lost = (narrowed if format == "float64" else widened)(problem.loss, start) if _is_number(loss) else ""
        except Exception as error:  # whatever the code of others raises
            return [f"the loss fails: {first_line(error)}"]
        if not isinstance(loss, jax.ShapeDtypeStruct):
            return [f"the loss is a {type(loss).__name__}; expected a single number"]
        if loss.shape != ():
            return [f"the loss has shape {loss.shape}; expected a single number"]
        if str(loss.dtype) != format:
            fixed = KEPT if lost else "a module's dtype or a cast fixes it"
            why = fixed if format == "float64" else "a float64 constant raises it; cast it to θ's"
            wrong.append(f"the loss is {loss.dtype} where θ is {format}; {f'{lost}; ' if lost else ''}{why}")
        elif lost and format == "float64":
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


def _is_number(given: Any) -> bool:
    return isinstance(given, jax.ShapeDtypeStruct) and given.shape == ()


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
        array = plain(leaf)
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
    """Complaints on ∇L, ∇²L and ∇³L along a direction (p,), against central differences, and on the format that ∇L is computed in.

    Kinks between the points of a difference are none of θ's: where ∇²L or ∇³L is off, closer points say whether it is at θ itself.
    """
    if lost := narrowed(problem.gradient, jax.ShapeDtypeStruct(theta.shape, theta.dtype)):
        return [f"in the gradient {lost}; {KEPT}"]
    size = 1 + float(jnp.sqrt(jnp.mean(theta**2)))
    first = Disagreement(0, "")
    for step, rounding in ((DIFFERENCE, 1e-9), *((closer, 1e-13) for closer in CLOSER)):
        off = _disagreement(problem, theta, direction, step * size, rounding)
        if off is None:
            return []
        first = first if first.words else off
        if off.order < 2:
            break
    return [first.words]


class Disagreement(NamedTuple):
    """A derivative that differences of the one below are off from."""

    order: int
    words: str


def _disagreement(problem: Problem, theta: Array, direction: Array, step: float, rounding: float) -> Disagreement | None:
    """The first derivative that differences over a step are off from; `rounding` is that of the one below, relative."""
    here, ahead, behind = (_along(problem, theta + offset * step * direction, direction) for offset in (0, 1, -1))
    for order, name in enumerate(DERIVATIVES, start=1):
        if not bool(jnp.all(jnp.isfinite(here[order]))):
            return Disagreement(0, f"the {name} is not finite where it starts; a root, a norm or a logarithm of zero does that")
        exact = here[order] @ direction if order == 1 else here[order]
        difference = (ahead[order - 1] - behind[order - 1]) / (2 * step)
        size = float(jnp.linalg.norm(exact)) + float(jnp.linalg.norm(difference))
        floor = rounding * (1 + float(jnp.linalg.norm(here[order - 1]))) / step  # rounding of the difference itself
        error = float(jnp.linalg.norm(exact - difference))
        if error > AGREES * size + floor:
            return Disagreement(
                order, f"the {name} is off from differences of the one below by {error / size:.1e} of its size; "
                "a stopped gradient, a rounding or a kink does that",
            )
    return None
