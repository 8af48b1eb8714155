"""Loss, gradient and sharpness at one θ from a single pass: the gradient with its tangent along a vector that is expected to be the top
eigenvector. The tangent is a Hessian–vector product and shares the gradient's own work; its residual says whether the vector was one.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from engine.problems.problem import Problem
from engine.xla.jit import jit_by_format
from engine.xla.reductions import dots, norms


class TangentPass(NamedTuple):
    """What a pass shows of θ, in θ's number format."""

    loss: Array
    grad: Array  # (p,)
    grad_norm: Array
    vector: Array  # (p,) of unit length, the expected eigenvector
    image: Array  # (p,) Hu
    sharpness: Array  # u·Hu
    residual: Array  # ‖Hu−Su‖/|S|

    @property
    def power_step(self) -> Array:
        """The vector (p,) one step of power iteration on: Hu of unit length."""
        return self.image / (abs(self.sharpness) * jnp.sqrt(1 + self.residual**2))

    def shows_eigenpair(self, tolerance: float | Array) -> Array:
        """Whether the vector is an eigenvector to this relative residual, of a positive eigenvalue."""
        return (self.residual <= tolerance) & (self.sharpness > 0)


@jit_by_format
def value_grad_hvp(problem: Problem, theta: Array, vector: Array) -> TangentPass:
    """Loss and gradient at θ, and the Hessian along a vector (p,) of any length."""
    u = vector / norms(vector)[0]
    loss, grad, image = problem.tangent(theta, u)
    (sharpness,) = dots((u, image))
    left, grad_norm = norms(image - sharpness * u, grad)
    return TangentPass(loss, grad, grad_norm, u, image, sharpness, left / abs(sharpness))
