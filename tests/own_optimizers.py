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


def ascending():
    """Plain gradients with the sign of its own that it should not have."""
    return optax.scale(-1.0)


def noisy():
    """A little noise on every step, drawn with a key that its state holds."""
    def update(updates, state, params=None):
        key, drawn = jax.random.split(state)
        return jax.tree.map(lambda leaf: leaf + 1e-3 * jax.random.normal(drawn, leaf.shape, leaf.dtype), updates), key

    return optax.GradientTransformation(lambda params: jax.random.key(0), update)


def counting():
    """A step that depends on how often it was taken."""
    calls = []

    def update(updates, state, params=None):
        calls.append(None)
        return jax.tree.map(lambda leaf: leaf * len(calls), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def widening():
    """Moments in float64 whatever the parameters are in."""
    def update(updates, state, params=None):
        return updates, jax.tree.map(lambda leaf: leaf.astype(jnp.float64), updates)

    return optax.GradientTransformation(lambda params: params, update)


def infinite():
    """Divides by 0."""
    return optax.stateless(lambda updates, params: jax.tree.map(lambda leaf: leaf / 0, updates))


def negative_p():
    """P below 0."""
    return engine.from_optax(optax.identity(), lambda state: -1.0, lambda state: 2 / state.learning_rate)


def short_p():
    """P of another length than θ."""
    return engine.from_optax(optax.identity(), lambda state: jnp.ones(2))


def long_threshold():
    """A threshold for each of two things."""
    return engine.from_optax(optax.identity(), threshold=lambda state: jnp.ones(2))


def zero_threshold():
    """An edge at 0."""
    return engine.from_optax(optax.identity(), threshold=lambda state: 0.0)
