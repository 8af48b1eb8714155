"""The stable set by dense algebra, in float64: what the engine's projections are held against. Nothing here is the engine's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Expansion(NamedTuple):
    """A loss at a point by its dense derivatives."""

    gradient: np.ndarray  # (p,)
    values: np.ndarray  # (p,) eigenvalues of the Hessian, descending
    vectors: np.ndarray  # (p, p) their eigenvectors, as rows
    grad_sharpness: np.ndarray  # (p,) ∇S = ∇³L(u,u)
    grad_along_u: np.ndarray  # (p,) ∇(u·∇L) = Su + ∇³L(u, (S − H)⁺∇L)


def expansion(loss, theta):
    """The expansion of a loss at θ (p,)."""
    gradient, hessian, third = _derivatives(loss)
    g = np.asarray(gradient(theta))
    values, vectors = np.linalg.eigh(np.asarray(hessian(theta)))
    values, vectors = values[::-1], vectors.T[::-1]
    u, gaps = vectors[0], values[0] - values[1:]
    turn = (vectors[1:] @ g / gaps) @ vectors[1:]
    return Expansion(g, values, vectors, np.asarray(third(theta, u, u)), values[0] * u + np.asarray(third(theta, u, turn)))


_kept: dict = {}


def _derivatives(loss):
    if loss not in _kept:
        gradient = jax.grad(loss)

        def third(theta, a, b):
            return jax.jvp(lambda t: jax.jvp(gradient, (t,), (a,))[1], (theta,), (b,))[1]

        _kept[loss] = jax.jit(gradient), jax.jit(jax.hessian(loss)), jax.jit(third)
    return _kept[loss]


def nearest_stable(loss, target, learning_rate, begin=None, steps=200, tolerance=1e-11):
    """The point of M, S ≤ 2/η and u·∇L = 0, nearest to `target` (p,), by sequential quadratic programming with the exact normals of both
    constraints, and the multiplier of S ≤ 2/η; a step that lowers nothing is halved.
    """
    theta = np.array(target if begin is None else begin)
    for _ in range(steps):
        at = expansion(loss, jnp.asarray(theta))
        a, b = at.grad_along_u, at.grad_sharpness
        equal, excess = at.vectors[0] @ at.gradient, at.values[0] - 2 / learning_rate
        way = target - theta
        normals = np.stack([a, b])
        gram, needs = normals @ normals.T, np.array([equal, excess]) + normals @ way
        multipliers = np.linalg.solve(gram, needs)
        if multipliers[1] < 0:
            multipliers = np.array([needs[0] / gram[0, 0], 0.0])
        step = way - multipliers @ normals
        theta = theta + step
        if np.linalg.norm(step) < tolerance:
            return theta, multipliers[1]
    raise AssertionError(f"the last step was {np.linalg.norm(step):.1e}")
