"""Quantities of one's own for the tests of `metrics = ["own_metrics:…"]`: good ones, and some that fail."""

import jax.numpy as jnp
import numpy as np


def norm(context):
    """Norm of the parameters.

    More is not shown.
    """
    return jnp.linalg.norm(context.theta)


def gradient_norm(context):
    return jnp.linalg.norm(context.gradient)


def sharpness(context):
    """λ1 as it is given."""
    return context.sharpness


def rayleigh(context):
    return context.eigenvector @ context.problem.hvp(context.theta, context.eigenvector)


def loss(context):
    return context.problem.loss(context.theta)


def step(context):
    return context.step


def leaves(context):
    return float(np.sum([np.asarray(leaf).size for leaf in context.parameters.values()]))


def by_numpy(context):
    """What no compiler can take: a number by numpy."""
    return float(np.linalg.norm(np.asarray(context.theta)))


def until_three(context):
    if context.step >= 3:
        raise RuntimeError("no more")
    return 1.0


def vector(context):
    return context.theta


class Module:
    def norm(self, context):
        return jnp.linalg.norm(context.theta)
