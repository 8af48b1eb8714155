"""Sharpness by layer: the top eigenvalue of the Hessian's diagonal block of each parameter, all others held still.

The block of the numbers B is MHM restricted to B, M the projection onto them. It is the Hessian in φ of L(θ + M(φ − θ)), a problem as any
other: the mask is part of its data, so that one compiled solver serves every block, and started inside the block it stays there. No
block's top eigenvalue is above the sharpness (Cauchy interlacing).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from engine.curvature.eigensolver import LOOSE_TOLERANCE, forms_hessian, random_start, solve_at
from engine.problems.problem import Problem
from engine.xla.shares import bare, laid_out, numbers


class Block(NamedTuple):
    """One parameter of the tree that θ is made of."""

    name: str
    """Its path in the tree, `Dense_0/kernel`."""
    indices: np.ndarray  # (n,) its numbers in θ


def blocks(problem: Problem, theta: Array) -> tuple[Block, ...]:
    """The parameters that hold numbers, in the order of θ. A θ that is no tree is one block."""
    tree = problem.unravel(laid_out(np.arange(numbers(theta.size, problem.shares), dtype=np.float64), problem.shares))
    named = [
        Block(jax.tree_util.keystr(path, simple=True, separator="/") or "θ", np.asarray(leaf).ravel().astype(int))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return tuple(sorted((block for block in named if block.indices.size), key=lambda block: int(block.indices.min())))


@dataclass(frozen=True)
class _Masked:
    """A loss along one block; equal where the loss is, so that it is compiled once for all blocks."""

    of: Callable[[Array, Any], Array]

    def __call__(self, phi: Array, data: Any) -> Array:
        theta, mask, given = data
        theta, mask = theta.astype(phi.dtype), mask.astype(phi.dtype)
        return self.of(theta + mask * (phi - theta), given)


def masked(problem: Problem, theta: Array, block: Block) -> Problem:
    """The problem with all but one block of θ (p,) held still, as a function of p numbers."""
    mask = np.zeros(numbers(theta.size, problem.shares))
    mask[block.indices] = 1
    data = theta, laid_out(mask, problem.shares), problem.data
    return Problem(_Masked(problem.loss_of), data, problem.label, problem.unravel, shares=problem.shares)


def sharpness_of(problem: Problem, theta: Array, block: Block, seed: int, step: int, dtype: str) -> float:
    """The top eigenvalue of a block at θ, from a random start inside it."""
    at = theta.astype(dtype)
    if forms_hessian(theta):
        inside = np.asarray(_dense(problem, at))[np.ix_(block.indices, block.indices)]
        return float(np.linalg.eigvalsh(inside)[-1])
    outside = np.ones(theta.size, bool)
    outside[block.indices] = False
    start = np.array(random_start(seed, step, 1, theta.size, dtype, problem.shares))
    start[:, outside] = 0
    begun = laid_out(bare(start, problem.shares), problem.shares)
    pairs, _ = solve_at(masked(problem, at, block), at, begun, LOOSE_TOLERANCE, dtype)
    return float(pairs.values[0])


@jax.jit
def _dense(problem: Problem, theta: Array) -> Array:
    return problem.hessian(theta)
