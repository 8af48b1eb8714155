"""Optimizers of your own: a function that returns an optax transformation, with the P and the edge that belong to it where they are known.

    def make_lion(b1: float = 0.9, b2: float = 0.99):
        return optax.scale_by_lion(b1, b2)

    def make_heavy_ball(beta: float = 0.9):
        return engine.from_optax(optax.trace(beta), threshold=lambda state: (2 + 2 * beta) / state.learning_rate)

The transformation is given ∇L and θ as the tree of parameters that the problem is made of, and gives the direction of the step,
θ ← θ − η·direction: neither the learning rate nor a minus sign is its own. It is started, and its state kept, as all optimizers' are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from engine import spec as specs
from engine.base.errors import UserError, first_line
from engine.curvature.expansion import loss_and_gradient
from engine.dynamics.optimizer import Gradient, Optimizer, Unravel, moved, parts_of, rate, shapes_of, unscaled, vector_of
from engine.problems import imported
from engine.problems.problem import Problem
from engine.xla.leaves import plain


class OwnState(NamedTuple):
    """What a transformation needs to know for a step."""

    learning_rate: Array  # () η
    rule: Any  # the transformation's own state
    shapes: Any  # the tree of parameters: `shapes_of`


class MadeOptimizer(NamedTuple):
    """A transformation, and what is known of its edge."""

    rule: optax.GradientTransformation
    preconditioner: Callable[[OwnState], Any] | None
    threshold: Callable[[OwnState], Any] | None


def from_optax(
    rule: optax.GradientTransformation, preconditioner: Callable[[OwnState], Any] | None = None,
    threshold: Callable[[OwnState], Any] | None = None,
) -> MadeOptimizer:
    """An optax transformation with its edge, for `[optimizer] kind = "own"`.

    Both functions are of the state after a step, with fields `learning_rate` and `rule`, the transformation's own. `preconditioner` gives
    P, a number, (p,) or a tree like the parameters; it is 1 where left out. `threshold` gives the top eigenvalue of P^-½HP^-½ above which
    a step with that P is unstable; where left out, the optimizer has no edge that is known, and `threshold_ratio` is NaN.
    """
    return MadeOptimizer(rule, preconditioner, threshold)


def own(section: specs.OwnOptimizer) -> Optimizer:
    """The optimizer of a section. Imports and runs the code that it names."""
    made = imported.call(section, "optimizer")
    if isinstance(made, optax.GradientTransformation):
        made = from_optax(made)
    if not isinstance(made, MadeOptimizer):
        raise UserError(
            f"{section.function}: returned a {type(made).__name__}; expected an optax transformation, or engine.from_optax of one "
            f"({imported.origin_of(section)})"
        )
    rule = optax.with_extra_args_support(made.rule)

    def init(theta: Array, unravel: Unravel, learning_rate: float) -> OwnState:
        try:
            state = OwnState(rate(learning_rate), rule.init(unravel(theta)), shapes_of(theta, unravel))
            following = jax.eval_shape(lambda theta: step(theta, state, theta, lambda theta: theta), theta)
            for function in filter(None, (made.preconditioner, made.threshold)):
                jax.eval_shape(function, following[1])
        except Exception as error:  # whatever the code of others raises
            raise UserError(f"{section.function}: its transformation fails: {first_line(error)}") from error
        before, after = (str(jax.tree.structure(each)) for each in (state, following[1]))
        if before != after:
            raise UserError(f"{section.function}: its state has another structure after a step than before; no checkpoint could hold both")
        return state

    def step(theta: Array, state: OwnState, gradient: Array, gradient_at: Gradient) -> tuple[Array, OwnState]:
        tree = parts_of(gradient, state.shapes)
        direction, following = rule.update(tree, state.rule, parts_of(theta, state.shapes))
        return moved(theta, vector_of(direction), state.learning_rate), state._replace(rule=following)

    def preconditioner(state: OwnState) -> Array:
        assert made.preconditioner is not None
        given = made.preconditioner(state)
        return jnp.asarray(given) if isinstance(given, Array | float | int) else vector_of(given)

    def threshold(state: OwnState) -> Array:
        return jnp.full((), jnp.nan) if made.threshold is None else jnp.asarray(made.threshold(state), jnp.float64)

    return Optimizer(init, step, unscaled if made.preconditioner is None else preconditioner, threshold)


def require_sound(section: specs.OwnOptimizer, problem: Problem, theta: Array) -> None:
    """Raise UserError where the optimizer of a section cannot be run from θ (p,): see `complaints`."""
    if wrong := complaints(section, problem, theta):
        raise UserError(f"{section.function}: {'; '.join(wrong)}")


def complaints(section: specs.OwnOptimizer, problem: Problem, theta: Array) -> list[str]:
    """What is wrong with the optimizer of a section at θ (p,), a sentence each; none when it can be run.

    Two steps are taken in both number formats, the second from the state that the first has left. A state keeps its shapes and formats, as
    a checkpoint does; a step is finite, in the format of θ, the same twice, and goes down at first; P is positive, and a threshold is a
    positive number, or NaN where none is known.
    """
    optimizer = own(section)
    for format in ("float64", "float32"):
        here = theta.astype(format)
        state = optimizer.init(here, problem.unravel, section.learning_rate)
        once, again = (_traced_anew(optimizer) for _ in range(2))  # what hangs on more than its arguments shows between two traces
        for number in (1, 2):
            _, grad = loss_and_gradient(problem, here)
            try:
                taken = once(problem, here, state, grad)
                wrong = _wrong_step(here, state, taken, again(problem, here, state, grad))
            except Exception as error:  # whatever the code of others raises
                wrong = [f"its transformation fails: {first_line(error)}"]
            if not wrong and number == 1 and float((here - taken.theta) @ grad) < 0:
                wrong = ["its first step goes up: neither the learning rate nor a minus sign is its own, θ ← θ − η·direction"]
            if wrong:
                return [f"{each} (step {number} in {format})" for each in wrong]
            here, state = taken.theta, taken.state
    return []


class _Taken(NamedTuple):
    """A step, and the P and the threshold that it leaves."""

    theta: Array
    state: OwnState
    p: Array
    threshold: Array


def _traced_anew(optimizer: Optimizer) -> Callable[[Problem, Array, OwnState, Array], _Taken]:
    """A step of the optimizer, compiled: a function that jax has not seen."""

    def taken(problem: Problem, theta: Array, state: OwnState, grad: Array) -> _Taken:
        moved, following = optimizer.step(theta, state, grad, problem.gradient)
        return _Taken(moved, following, optimizer.preconditioner(following), optimizer.threshold(following))

    return jax.jit(taken)


def _wrong_step(theta: Array, state: OwnState, taken: _Taken, again: _Taken) -> list[str]:
    """What is wrong with a step and with the P and the threshold that it leaves."""
    before, after = (jax.tree_util.tree_leaves_with_path(each.rule) for each in (state, taken.state))
    for (path, old), (_, new) in zip(before, after, strict=True):
        was, now = (f"{jnp.result_type(leaf)} {jnp.shape(leaf)}" for leaf in (old, new))
        if was != now:
            name = jax.tree_util.keystr(path) or "itself"
            return [f"its state changes: {name} is {now} after a step and was {was} before; no checkpoint could hold both"]
    moved, p, threshold = taken.theta, plain(taken.p), float(taken.threshold) if taken.threshold.shape == () else None
    if (moved.dtype, moved.shape) != (theta.dtype, theta.shape):
        return [f"a step makes θ {moved.dtype} {moved.shape}; expected {theta.dtype} {theta.shape}"]
    wrong = [
        f"{what} is not finite" for what, tree in (("θ after a step", moved), ("its state after a step", taken.state.rule))
        if not all(np.isfinite(plain(leaf)).all() for leaf in jax.tree.leaves(tree))
    ]
    if any(plain(one).tobytes() != plain(other).tobytes() for one, other in zip(*map(jax.tree.leaves, (taken, again)), strict=True)):
        wrong.append("the same step is another one when it is taken again; expected a pure function of ∇L, θ and its state")
    if p.shape not in ((), theta.shape):
        wrong.append(f"preconditioner gives shape {p.shape}; expected a number, ({theta.size},), or a tree like the parameters")
    elif not (np.isfinite(p) & (p > 0)).all():
        wrong.append("preconditioner gives a P that is not positive; expected every number of it above 0")
    if threshold is None:
        wrong.append(f"threshold gives shape {taken.threshold.shape}; expected a single number")
    elif not (math.isnan(threshold) or 0 < threshold < math.inf):
        wrong.append(f"threshold gives {threshold:g}; expected a positive number, or NaN where none is known")
    return wrong
