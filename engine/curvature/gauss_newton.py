"""The Gauss–Newton matrix G = Jᵀ(∂²ℓ)J: the part of the Hessian that the network's own curvature has no share in.

With L(θ) = Σ w ℓ(f(θ), y), J = ∂f/∂θ, the Hessian is G + Σ w ∂ℓ·∂²f. G is positive semidefinite where the criterion is convex. It is the
Hessian of the loss of the network linearised at θ, f(θ) + J(φ − θ), so that it is a `Problem` as any other; a weight decay belongs to both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array, lax

from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format


@dataclass(frozen=True)
class _Linearized:
    """The loss of a network linearised at a θ that is part of the data; equal where the network is, so that it is compiled once."""

    of: Callable[[Array, Array, Any], Array]

    def __call__(self, phi: Array, data: Any) -> Array:
        theta, given = data
        return self.of(phi, theta.astype(phi.dtype), given)


def why_absent(problem: Problem) -> str:
    """Why a problem has no Gauss–Newton matrix, in a sentence; empty where it has one."""
    if problem.linearized is not None:
        return ""
    return f"{problem.label}: its loss is given as a whole, not as a criterion of a network's outputs, so there is no Gauss–Newton matrix"


def linearized_at(problem: Problem, theta: Array) -> Problem:
    """The loss of the network linearised at θ (p,), whose Hessian at θ is the Gauss–Newton matrix there. Raises ValueError where the loss
    has no such structure.
    """
    if problem.linearized is None:
        raise ValueError(why_absent(problem))
    return Problem(_Linearized(problem.linearized), (theta, problem.data), problem.label, problem.unravel, shares=problem.shares)


@jit_by_format
def forms(problem: Problem, theta: Array, vectors: Array) -> Array:
    """uᵀGu at θ for each row u of `vectors` (k, p), (k,): forward derivatives alone, one row in memory at a time."""
    line = linearized_at(problem, theta)

    def form(u: Array) -> Array:
        def slope(at: Array) -> Array:
            return jax.jvp(line.loss, (at,), (u,))[1]

        return jax.jvp(slope, (theta,), (u,))[1]

    return lax.map(form, vectors)
