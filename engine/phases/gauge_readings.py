"""The gauges of Appendix E, measured: how large the third and fourth derivatives of the loss are at θ†, and how much of them
the directions that matter feel.

ρ3 and ρ4 are the operator norms of ∇³L and ∇⁴L at θ†: the largest ‖T(v,…,v)‖ over unit vectors v. They are looked for by
power iteration. Every value met on the way is attained, hence a lower bound on ρ, and the largest one is kept; no more is
guaranteed, since power iteration on a symmetric tensor climbs to a local maximum, or stays on a plateau before one. It is
therefore begun several times: from the top eigenvector u as the authors do, from ∇S⊥, and from random vectors, each without its
part along what the iterations before it ended at, to which it would climb again. From u alone the plain iteration of the
authors need not even climb: T(u,u) is nearly ∇S⊥, T(∇S⊥,∇S⊥) is small, and on the default problem ‖T(v,v)‖ jumps between 45 and
530 for the first ten iterations. A shift by a quarter of the best value so far makes it climb; the shifted power method of Kolda
and Mayo (2011), which is provably monotone, shifts by more and is slower for it.

⊥ means with the component along u removed. v is the displacement θ − θ† of gradient descent, g is ∇L(θ†).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from engine.curvature.eigensolver import random_start
from engine.curvature.expansion import TaylorCenter, grad_sharpness
from engine.phases.context import Setup
from engine.phases.edge_state import EdgeState
from engine.problems.problem import Problem

SHIFT = 0.25
"""Shift of the power iteration, in units of the largest norm met so far."""
SETTLED = 1e-3
"""Relative change of the norm from one iteration to the next that ends them: a gauge is read to two digits."""
MOST_STARTS = 100
"""As the specification allows, so that no two steps share a random start and more starts hold those of fewer."""
SPENT = 1e-6
"""Share of a start under which what is left of it is rounding."""


class Norm(NamedTuple):
    """A lower bound on the operator norm of a symmetric tensor, and the contractions it took."""

    value: float
    contractions: int


def tensor_norm(contract: Callable[[Array], Array], start: Array, iterations: int) -> Norm:
    """The largest ‖T(v,…,v)‖ met by shifted power iteration on v ↦ T(v,…,v) = `contract(v)` from `start` (p,).

    At most `iterations` contractions, fewer once the norm has settled. Where the form T(v,…,v)·v is negative, −T is followed.
    """
    return _climb(contract, start, iterations, SETTLED)[0]


def restarted_norm(contract: Callable[[Array], Array], starts: Iterable[Array], iterations: int) -> Norm:
    """The largest ‖T(v,…,v)‖ met by power iterations from each of `starts`, each (p,): still a lower bound.

    A start goes without its part along the vectors that the iterations before it ended at, and is left out where nothing else is
    left of it. The best of them is followed on until its norm has settled ten times as well: between two iterations of a plateau
    the norm changes as little as at a maximum. At most `iterations` contractions for each start, and as many for the best.
    """
    best, top, ends, taken = 0.0, None, list[Array](), 0
    for start in starts:
        fresh = _without(start, ends)
        if fresh is None:
            continue
        met, end = _climb(contract, fresh, iterations, SETTLED)
        taken += met.contractions
        if not math.isfinite(met.value):
            return Norm(met.value, taken)
        left = _without(end, ends) if len(ends) < len(end) else None
        ends += [] if left is None else [left]
        if met.value > best:
            best, top = met.value, end
    if top is None:
        return Norm(best, taken)
    met, _ = _climb(contract, top, iterations, SETTLED / 10)
    return Norm(max(best, met.value), taken + met.contractions)


def _climb(contract: Callable[[Array], Array], start: Array, iterations: int, settled: float) -> tuple[Norm, Array]:
    """One power iteration until the norm changes by less than `settled`, and the unit vector that it ended at."""
    v = start / jnp.linalg.norm(start)
    best = last = 0.0
    for taken in range(1, iterations + 1):
        image = contract(v)
        norm = float(jnp.linalg.norm(image))
        if not norm > 0:  # T vanishes here, or is not finite
            return Norm(best if norm == 0 else norm, taken), v
        best = max(best, norm)
        if abs(norm - last) <= settled * norm:
            return Norm(best, taken), v
        last = norm
        v = jnp.where(image @ v < 0, -image, image) + SHIFT * best * v
        v = v / jnp.linalg.norm(v)
    return Norm(best, iterations), v


def _without(start: Array, ends: Sequence[Array]) -> Array | None:
    """The direction of what orthonormal vectors leave of a start, (p,); None where they leave nothing. That of all of it once they
    span the whole space."""
    size = float(jnp.linalg.norm(start))
    if not size > 0:
        return None
    left = start / size
    if len(ends) == len(start):
        return left
    for _ in range(2):  # the second pass takes what rounding left
        for end in ends:
            left = left - end * (end @ left)
    rest = float(jnp.linalg.norm(left))
    return left / rest if rest > SPENT else None


class Derivatives(NamedTuple):
    """The derivatives of the loss along a direction w, each (p,)."""

    second: Array  # ∇²L w
    third: Array  # ∇³L(w,w)
    fourth: Array  # ∇⁴L(w,w,w)


@partial(jax.jit, static_argnames=("dtype",))
def along(problem: Problem, theta: Array, w: Array, dtype: str) -> Derivatives:
    """The derivatives at θ along w, computed in `dtype`, in θ's number format. The lower ones come free with the fourth."""

    def derived(function: Callable) -> Callable:
        return lambda at: jax.jvp(function, (at,), (w.astype(dtype),))

    ((_, second), _), (_, (third, fourth)) = derived(derived(derived(problem.gradient)))(theta.astype(dtype))
    return Derivatives(*(part.astype(theta.dtype) for part in (second, third, fourth)))


class Gauges(NamedTuple):
    """What the gauges need of one θ†."""

    rho3: Norm
    rho4: Norm
    cubic_displacement: float  # ‖∇³L(v⊥,v⊥)‖/(ρ3‖v⊥‖²); NaN where v⊥ = 0
    cubic_gradient: float  # ‖∇³L(g⊥,g⊥)‖/(ρ3‖g⊥‖²)
    quadratic_displacement: float  # |∇²L(v⊥,v⊥)|/((2/η)‖v⊥‖²)


def measure(
    problem: Problem, center: TaylorCenter, v: Array, learning_rate: float, iterations: int, dtype: str,
    starts: int = 4, seed: int = 0, step: int = 0,
) -> Gauges:
    """The readings at a centre, for gradient descent displaced by v (p,) from it; derivatives in `dtype`.

    ρ3 and ρ4 are looked for from u, then from ∇S⊥, then from random vectors, so many `starts` in all; the random ones are the same for
    the same seed and step.
    """
    theta, u = center.theta, center.top_eigenvector

    def third(w: Array) -> Array:
        return grad_sharpness(problem, theta, w, dtype)  # ∇³L(w,w) for any w, compiled for ∇S already

    def across(w: Array) -> Array:
        left = w - u * (u @ w)
        return left / jnp.linalg.norm(left)

    def begun() -> Iterator[Array]:  # one at a time: each is as large as θ
        yield from (u, center.grad_sharpness_perp)[:starts]
        for k in range(2, starts):
            yield random_start(seed, MOST_STARTS * step + k, 1, theta.size, str(theta.dtype), problem.shares)[0]

    rho3 = restarted_norm(third, begun(), iterations)
    rho4 = restarted_norm(lambda w: along(problem, theta, w, dtype).fourth, begun(), iterations)
    displaced = across(v)
    felt = along(problem, theta, displaced, dtype)
    scale = rho3.value or math.nan
    return Gauges(
        rho3, rho4,
        float(jnp.linalg.norm(felt.third)) / scale,
        float(jnp.linalg.norm(third(across(center.grad)))) / scale,
        abs(float(displaced @ felt.second)) * learning_rate / 2,
    )


def gauges(setup: Setup, state: EdgeState) -> dict[str, float]:
    """The gauges' columns at this step and the work they took."""
    tracking, center, eta = setup.tracking, state.center, float(state.optimizer.learning_rate)
    read = measure(
        setup.problem, center, state.theta - center.theta, eta, tracking.rho_iterations, setup.spec.precision.curvature,
        tracking.rho_starts, setup.spec.seed, state.clock.step,
    )
    rho3, rho4 = read.rho3.value, read.rho4.value
    values = {
        "rho3": rho3, "rho4": rho4, "stabilization": math.sqrt(float(center.beta)) / (rho3 or math.nan),
        "quartic": rho4 / (eta * rho3**2 or math.nan), "cubic_displacement": read.cubic_displacement,
        "cubic_gradient": read.cubic_gradient, "quadratic_displacement": read.quadratic_displacement,
    }
    costs = {"cost.fourth_derivatives": read.rho4.contractions + 1, "cost.grad_sharpness": read.rho3.contractions + 1}
    return {f"assumption.{name}": value for name, value in values.items()} | costs
