"""The memory that a problem needs, told before a run by the compiler: nothing is computed."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from engine.curvature.directions import contractions_along
from engine.curvature.eigensolver import BASIS
from engine.problems.problem import Problem

VECTORS = 34
"""Vectors of p numbers that a coupled step keeps at the edge: θ, θ†, their expansions, predictions and guards. Counted, rounded up."""


class DirectionCosts(NamedTuple):
    """What so many directions at the edge take more than one."""

    directions: int
    third_derivatives: int
    """Contractions of ∇³L for the normals of θ†, taken once a step: k(k+1)/2 pairs and a tilt for each direction."""
    vectors: int
    """Vectors of p numbers that are kept: the basis and its normals, and eigenvectors to start from."""


def direction_costs(most: int) -> list[DirectionCosts]:
    """For 2, 4, 8, … directions, up to the most that are followed."""
    counts = sorted({min(1 << power, most) for power in range(1, 5)} - {1})
    return [DirectionCosts(k, contractions_along(k), k * (k + 1) // 2 + 2 * k + 3 * (k - 1)) for k in counts]


class Memory(NamedTuple):
    """Bytes on the device, by what takes them."""

    examples: int
    parameters: int
    """θ and what is kept beside it, in float64, and the basis of the eigensolver."""
    gradient: int
    """The temporaries of ∇L in float64,"""
    hvp: int
    """of a Hessian–vector product,"""
    third_derivative: int
    """and of ∇³L(u,u), both in the format of the curvature. Only one of the three is needed at a time."""

    @property
    def total(self) -> int:
        """The most at a time."""
        return self.examples + self.parameters + max(self.gradient, self.hvp, self.third_derivative)


def estimate(problem: Problem, theta: Array, edge: str = "float64", curvature: str = "float32") -> Memory:
    """The memory for a run of this problem, θ of shape (p,), with parameters and curvature in these formats.

    Three compilations. Temporaries count as 0 on a device whose compiler does not tell of them.
    """

    def temporaries(function, format: str, vectors: int) -> int:
        given = [jax.ShapeDtypeStruct(theta.shape, format)] * (1 + vectors)
        needed = jax.jit(function).lower(problem, *given).compile().memory_analysis()
        return 0 if needed is None else int(needed.temp_size_in_bytes + needed.output_size_in_bytes)

    size, format = theta.size, jnp.dtype(curvature)
    return Memory(
        sum(_share(leaf) for leaf in jax.tree.leaves(problem.data)), size * (VECTORS * 8 + 2 * BASIS * format.itemsize),
        temporaries(Problem.gradient, edge, 0), temporaries(Problem.hvp, curvature, 1), temporaries(Problem.grad_sharpness, curvature, 1),
    )


def _share(leaf: Array) -> int:
    """Bytes of an array on each device that holds a part of it."""
    leaf = jnp.asarray(leaf)
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def words(count: int) -> str:
    """A number of bytes as a person reads it: `1.3 GB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
