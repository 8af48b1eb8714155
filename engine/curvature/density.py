"""The density of the Hessian's eigenvalues, by stochastic Lanczos quadrature.

For a random unit vector v, Σ_i (v·u_i)² δ(λ − λ_i) is a measure of mass 1 whose mean over v is the density of all p eigenvalues. m steps of
Lanczos from v give a tridiagonal T = QΘQᵀ, and with it the m-point Gauss quadrature of that measure: nodes θ_j with weights Q_1j², exact
for polynomials up to degree 2m − 1 (Golub and Welsch). The mean over K vectors, each node smoothed by a Gaussian of width w, is the density
that is drawn. It costs mK Hessian–vector products. The outermost nodes are eigenvalues; what lies between is seen at the resolution of m
nodes, and the weight of one eigenvalue, 1/p in the mean, varies with v as a χ² of one degree of freedom.

Every new vector is made orthogonal to all before it, twice: without that Lanczos finds the outermost eigenvalues again and again.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format
from engine.xla.shares import Shares, laid_out, numbers

PROBES, STEPS = 8, 40
"""Random vectors, and Lanczos steps from each."""
EXHAUSTED = 100
"""Rounding units of ‖Hv‖ within which a new vector is none: the space of a start that lies in few eigenvectors is at its end."""
RESOLUTION = 100
"""Widths of the Gaussian in the range of the nodes."""
POINTS = 401
"""Points that the density is evaluated at."""


class Quadrature(NamedTuple):
    """Gauss quadratures of the spectral measures of some random vectors."""

    nodes: np.ndarray  # (K, m)
    weights: np.ndarray  # (K, m) each row sums to 1

    @property
    def width(self) -> float:
        """w: a hundredth of the range of the nodes, or a number that is not zero where there is no range."""
        span = float(np.ptp(self.nodes))
        return (span or max(abs(float(self.nodes.flat[0])), 1.0)) / RESOLUTION

    def at(self, values: np.ndarray, width: float) -> np.ndarray:
        """Σ_j weight_j N(θ_j, w²) at each of the values (n,), averaged over the vectors."""
        nodes, weights = self.nodes.ravel(), self.weights.ravel() / len(self.nodes)
        kernel = np.exp(-(((values[:, None] - nodes) / width) ** 2) / 2) / (np.sqrt(2 * np.pi) * width)
        return kernel @ weights

    def grid(self, width: float) -> np.ndarray:
        """Values (n,) that the density is to be seen at: the range of the nodes, and five widths beyond either end."""
        return np.linspace(self.nodes.min() - 5 * width, self.nodes.max() + 5 * width, POINTS)


def probe(seed: int, step: int, number: int, size: int, dtype: str, shares: Shares | None = None) -> Array:
    """The random unit vector (p,) with this number, the same for the same seed and step."""
    v = np.random.default_rng([seed, step, number]).standard_normal(numbers(size, shares))
    return laid_out((v / np.linalg.norm(v)).astype(dtype), shares)


def quadrature(problem: Problem, theta: Array, v: Array, steps: int) -> Quadrature:
    """The quadrature of one unit vector v (p,) after so many products, at most p, in θ's number format: nodes and weights (1, m)."""
    diagonal, beside = (np.asarray(part, float) for part in _lanczos(problem, theta, v, min(steps, theta.size)))
    nodes, q = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return Quadrature(nodes[None], q[:1] ** 2)


def joined(parts: list[Quadrature]) -> Quadrature:
    """The quadratures of several vectors as one."""
    return Quadrature(*map(np.concatenate, zip(*parts, strict=True)))


@partial(jit_by_format, static_argnums=(3,))
def _lanczos(problem: Problem, theta: Array, v: Array, steps: int) -> tuple[Array, Array]:
    """T of `steps` Lanczos steps from a unit vector, as its diagonal and what lies beside it, (m,) each; the last of that is not part of T.
    Where the space is at its end what lies beside is 0, and what follows has no weight.
    """
    product = problem.product_at(theta)

    def step(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        rows, diagonal, beside, v, largest = carry  # rows (m, p): the vectors so far, zero from j on
        rows = lax.dynamic_update_index_in_dim(rows, v, j, 0)
        image = product(v)
        along, rest = v @ image, image
        for _ in range(2):
            rest = rest - (rows @ rest) @ rows
        left, largest = jnp.linalg.norm(rest), jnp.maximum(largest, jnp.linalg.norm(image))
        ended = left <= EXHAUSTED * jnp.finfo(theta.dtype).eps * largest
        left = jnp.where(ended, 0, left)
        following = jnp.where(ended, 0, rest / jnp.where(ended, 1, left))
        return rows, diagonal.at[j].set(along), beside.at[j].set(left), following, largest

    start = jnp.zeros((steps, theta.size), theta.dtype), jnp.zeros(steps, theta.dtype), jnp.zeros(steps, theta.dtype)
    _, diagonal, beside, *_ = lax.fori_loop(0, steps, step, (*start, v.astype(theta.dtype), jnp.zeros((), theta.dtype)))
    return diagonal, beside
