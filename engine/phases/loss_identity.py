"""What is computed is part of a run's identity: a checkpoint holds numbers at its θ that another loss would change.

They are L, ‖∇L‖ and the Hessian along one fixed direction d: d·Hd and ‖Hd‖, or the outermost of the eigenvalues followed where the
Hessian is formed. An engine that goes on computes them anew and compares, so that an edited loss, other data or another library that
computes something else are noticed whatever they are called. Each number is in the format that the phase computes it in, by functions
that the phase has compiled already, and is compared as that format allows, so that another device may go on.

Rounding is that of a θ moved at random by a few of its last digits: it changes L by up to ‖δ‖‖∇L‖ + ‖δ‖²‖Hd‖, and ∇L by ‖δ‖‖Hd‖, which is
more than a fraction of either near a minimum.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from engine.curvature.eigensolver import forms_hessian, solve_at
from engine.curvature.expansion import loss_and_gradient
from engine.dynamics.descent import descend
from engine.phases.context import Setup
from engine.problems.problem import Problem
from engine.record.arrays import IDENTITY
from engine.xla.leaves import pack, unpack
from engine.xla.shares import Shares, laid_out
from engine.xla.shares import numbers as numbers_of

RELATIVE = {"float64": 1e-9, "float32": 1e-4}
"""What a number may change by, of itself, by its format."""
LAST_DIGITS = 16
"""Units in the last place of θ that rounding may stand for."""


class Identity(NamedTuple):
    """The numbers, each in the format it was computed in."""

    loss: np.ndarray  # () L
    gradient_norm: np.ndarray  # () ‖∇L‖
    product: np.ndarray  # (2,) d·Hd and ‖Hd‖; where the Hessian is formed, the last eigenvalue followed and the first


def direction(size: int, dtype: str, shares: Shares | None = None) -> np.ndarray:
    """d (p,), of unit length: signs by integer arithmetic alone (splitmix64), the same with every version of every library."""
    size = numbers_of(size, shares)
    bits = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    signs = 1 - 2.0 * ((bits >> np.uint64(31)) & np.uint64(1)).astype(np.float64)
    return (signs / math.sqrt(size)).astype(dtype)


def of_descent(setup: Setup, theta: Array, optimizer: Any, d: np.ndarray, probe: Problem, count: int) -> Identity:
    """The numbers at θ by a step of the optimizer, and the Hessian of `probe` by the solver for `count` pairs."""
    descent = descend(setup.problem, setup.optimizer, theta, optimizer, 1)
    return numbers(theta, descent.losses, descent.gradient_norms, _product(probe, theta, d, count), d)


def of_gradient(setup: Setup, theta: Array, count: int) -> Identity:
    """The numbers at θ by its gradient, and the Hessian by the solver for `count` pairs."""
    d = direction(theta.size, setup.spec.precision.curvature, setup.problem.shares)
    loss, grad = loss_and_gradient(setup.problem, theta)
    with np.errstate(over="ignore"):  # of a run that diverges: what is not finite is not compared
        norm = np.linalg.norm(np.asarray(grad))
    return numbers(theta, loss, norm, _product(setup.problem, theta, d, count), d)


def numbers(theta: Array, loss: Any, norm: Any, product: tuple[float, float], d: np.ndarray) -> Identity:
    """The first of each in the format of θ, and the product in that of d."""
    value, slope = (np.asarray(np.asarray(each).reshape(-1)[0], theta.dtype) for each in (loss, norm))
    return Identity(value, slope, np.array(product, d.dtype))


def copies(d: np.ndarray, count: int, shares: Shares | None = None) -> Array:
    """So many times d on the device. All here is numpy but for what the phase has compiled: each small operation of jax is compiled too."""
    return laid_out(np.stack([d] * count), shares)


def _product(problem: Problem, theta: Array, d: np.ndarray, count: int) -> tuple[float, float]:
    """The Hessian along d by one product of the solver for `count` pairs, told that any residual will do."""
    pairs, images = solve_at(problem, theta, copies(d, count, problem.shares), math.inf, str(d.dtype), wanted=1)
    values = np.asarray(pairs.values, float)
    if forms_hessian(theta):
        return values[-1], abs(values[0])
    return values[0], float(np.linalg.norm(np.asarray(images)[0].astype(float)))


def checked(leaves: Mapping[str, np.ndarray]) -> Identity:
    """The numbers in a checkpoint. Raises ValueError where they are none."""
    identity: Identity = unpack(Identity, leaves, IDENTITY)
    shapes = [(leaf.shape, str(leaf.dtype) in RELATIVE) for leaf in identity]
    if shapes != [((), True), ((), True), ((2,), True)]:
        raise ValueError("what it says of the loss are not the numbers that an engine writes")
    return identity


def leaves_of(identity: Identity | None) -> dict[str, np.ndarray]:
    """The numbers as leaves of a checkpoint."""
    return {} if identity is None else pack(identity, IDENTITY)


def changed(leaves: Mapping[str, np.ndarray], identify: Callable[[], Identity | None], state: Any) -> str:
    """How the loss differs from that of a checkpoint just restored, in words. Empty where it does not, or where the checkpoint, of an
    earlier version, has nothing to compare.
    """
    if not any(path.startswith(IDENTITY) for path in leaves):
        return ""
    then, now = checked(leaves), identify()
    return "" if now is None else difference(then, now, state.theta)


def difference(then: Identity, now: Identity, theta: Array) -> str:
    """What of the numbers at one θ differs beyond rounding, in words; empty where nothing does, or nothing is finite."""
    size, slope, curved = float(np.linalg.norm(np.asarray(theta, float))), float(then.gradient_norm), abs(float(then.product[1]))
    moved = LAST_DIGITS * float(np.finfo(then.loss.dtype).eps) * size
    for what, a, b, scale, room in (
        ("L(θ)", then.loss, now.loss, abs(float(then.loss)), moved * slope + moved**2 * curved),
        ("‖∇L(θ)‖", then.gradient_norm, now.gradient_norm, slope, moved * curved),
        ("the Hessian along a fixed direction", then.product[1], now.product[1], curved, 0.0),
        ("the Hessian along a fixed direction", then.product[0], now.product[0], curved, 0.0),
    ):
        within = RELATIVE[str(a.dtype)] * scale + (room if math.isfinite(room) else 0.0)
        if math.isfinite(a) and not abs(float(a) - float(b)) <= within:  # NaN now is a difference
            digits = 7 if a.dtype == np.float32 else 12
            return f"{what} is {float(b):.{digits}g} and was {float(a):.{digits}g}"
    return ""
