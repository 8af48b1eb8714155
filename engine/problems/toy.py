"""The smallest losses with progressive sharpening and self-stabilization: that of Appendix B, and its like for k directions at once.

Gradient descent on them is the map (3), or (3_k), exactly, and θ† is known in closed form.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import spec as specs
from engine import theory
from engine.problems.problem import Problem


def _toy_loss(theta: Array, constants: Array) -> Array:
    alpha, root_beta, threshold = constants.astype(theta.dtype)
    x, y, z = theta
    return (threshold + root_beta * y) * x**2 / 2 - alpha / root_beta * y - z


def toy(part: specs.Toy, edge: float) -> tuple[Problem, Array, dict[str, Any]]:
    """Appendix B: gradient descent on it whose 2/η is this `edge` is the map (3) exactly, with y of (3) equal to √β·y, unless it has a
    threshold set."""
    constants = np.array([part.alpha, math.sqrt(part.beta), part.threshold or edge])
    return Problem(_toy_loss, jnp.asarray(constants), "Appendix B toy"), jnp.array([part.x0, 0.0, 0.0]), {"parameters": 3}


def _toy_k_loss(theta: Array, constants: tuple[Array, ...]) -> Array:
    basis, pushes, scalars = (each.astype(theta.dtype) for each in constants)
    threshold, damping = scalars
    x, s = theta[: basis.shape[1]], theta[basis.shape[1] :]
    return threshold * x @ x / 2 + jnp.einsum("m,mij,i,j->", s, basis, x, x) / 2 - pushes @ s + damping * s @ s / 2


def toy_k(part: specs.ToyK, edge: float) -> tuple[Problem, Array, dict[str, Any]]:
    """L(x,s) = ½xᵀ[(2/η)I + Y(s)]x − a·s + ½κ|s|², Y(s) = Σ_m s_m E_m, on θ = (x, s) of k + k(k+1)/2 numbers, from x0
    and Y = diag(y0).

    The E_m are √β times an orthonormal basis of the symmetric matrices, `symmetric_basis`, and a_m = ½<E_m,X†>. So B⊥[M] = Σ_m E_m<E_m,M>
    is βM, and gradient descent whose 2/η is this `edge` is (3_k) with that B⊥, less ηκY a step. θ† has x = 0, and with every direction at
    the edge it is 0, with the multiplier X†.
    """
    count = len(part.covariance)
    basis = math.sqrt(part.beta) * symmetric_basis(count)
    pushes = np.einsum("mij,ij->m", basis, np.diag(part.covariance)) / 2
    scalars = np.array([part.threshold or edge, part.damping])
    offset = np.diag(np.broadcast_to(part.y0, count))
    start = np.concatenate([np.broadcast_to(part.x0, count), np.einsum("mij,ij->m", basis, offset) / part.beta])
    problem = Problem(_toy_k_loss, tuple(map(jnp.asarray, (basis, pushes, scalars))), f"toy of {count} directions")
    return problem, jnp.asarray(start), {"parameters": start.size}


def symmetric_basis(count: int) -> np.ndarray:
    """An orthonormal basis of the symmetric k×k matrices in <A,B> = tr AB, as (m, k, k), m = k(k+1)/2, in the order of `theory.pairs`:
    e_i e_iᵀ, and (e_i e_jᵀ + e_j e_iᵀ)/√2 for i < j."""
    i, j = theory.pairs(count)
    basis = np.zeros((len(i), count, count))
    m = np.arange(len(i))
    basis[m, i, j] = basis[m, j, i] = np.where(i == j, 1, math.sqrt(0.5))
    return basis
