"""Loss, gradient and sharpness at one θ from a single pass: the gradient with its tangent along a vector that is expected to be the top
eigenvector. The tangent is a Hessian–vector product and shares the gradient's own work; its residual says whether the vector was one.
"""

from typing import NamedTuple

import jax
from jax import Array

from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format
from engine.xla.reductions import dots, norms


class Glance(NamedTuple):
    """What a pass tells of θ, in θ's number format."""

    loss: Array
    grad: Array  # (p,)
    grad_norm: Array
    vector: Array  # (p,) of unit length, the expected eigenvector
    sharpened: Array  # (p,) it one step of power iteration on: Hu of unit length
    sharpness: Array  # u·Hu
    residual: Array  # ‖Hu−Su‖/|S|

    def shows_eigenpair(self, tolerance: float) -> Array:
        """Whether the vector is an eigenvector to this relative residual, of a positive eigenvalue."""
        return (self.residual <= tolerance) & (self.sharpness > 0)


@jit_by_format
def glance(problem: Problem, theta: Array, vector: Array) -> Glance:
    """θ seen along a vector (p,) of any length."""
    u = vector / norms(vector)[0]
    (loss, grad), (_, image) = jax.jvp(jax.value_and_grad(problem.loss), (theta,), (u,))
    (sharpness,) = dots((u, image))
    left, grad_norm, image_norm = norms(image - sharpness * u, grad, image)
    return Glance(loss, grad, grad_norm, u, image / image_norm, sharpness, left / abs(sharpness))
