"""Optimizers for the tests of `[optimizer] kind = "own"`."""

import jax
import jax.numpy as jnp
import optax

import engine


def lion(b1: float = 0.9):
    """With no edge that is known, and a state of trees."""
    return optax.chain(optax.scale_by_lion(b1), optax.add_decayed_weights(0.0))


def heavy_ball(beta: float = 0.9):
    """Momentum with its edge."""
    return engine.from_optax(optax.trace(beta), threshold=lambda state: (2 + 2 * beta) / state.learning_rate)


def rmsprop(beta2: float = 0.99, epsilon: float = 1e-8):
    """RMSProp with its preconditioner, a tree like the parameters."""
    def p(state):
        return jax.tree.map(lambda nu: jnp.sqrt(nu / (1 - beta2**state.rule.count).astype(nu.dtype)) + epsilon, state.rule.nu)

    rule = optax.scale_by_rms(beta2, epsilon, eps_in_sqrt=False, bias_correction=True)
    return engine.from_optax(rule, p, lambda state: 2 / state.learning_rate)


def nothing():
    return 3


def failing():
    def update(updates, state, params=None):
        raise RuntimeError("no step today")

    return optax.GradientTransformation(lambda params: (), update)
