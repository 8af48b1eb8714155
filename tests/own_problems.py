"""Problems for the tests of `problem = "own_problems:…"`: a good one, and one for everything that can be wrong."""

import random

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import engine
from engine.problem import Problem

START = np.array([0.3, -0.2, 0.5])


def good(scale: float = 1.0, seed: int = 0):
    return engine.from_loss(lambda w: scale * jnp.sum(jnp.tanh(w) ** 2 * (1 + seed + jnp.arange(3))), START)


def valley():
    """Appendix B in disguise, at the edge for η = 0.05."""
    return engine.from_loss(lambda w: (40 + w[1]) * w[0] ** 2 / 2 - w[1] - w[2] + 0.05 * w[2] ** 2, np.array([0.3, 0.0, 0.0]))


def with_data(seed: int = 0):
    """A loss that reads arrays of several shapes, a single number and a key of random numbers among them."""
    data = {"x": np.linspace(-1, 1, 6), "shift": np.float64(0.3), "key": jax.random.key(seed)}

    def loss(w, data):
        x, noise = data["x"].astype(w.dtype), jax.random.normal(data["key"], (6,), w.dtype)
        return jnp.mean((w[0] * jnp.tanh(w[1] * x + w[2]) - jnp.sin(3 * x) - data["shift"].astype(w.dtype) * noise) ** 2)

    return engine.from_loss(loss, START, data)


X = np.linspace(-1, 1, 6)[:, None]


def line():
    return engine.from_flax(linen.Sequential([linen.Dense(1), jnp.tanh, linen.Dense(1)]), X, np.sin(3 * X))


def line_of_nnx():
    rngs = nnx.Rngs(0)
    return engine.from_flax(nnx.Sequential(nnx.Linear(1, 1, rngs=rngs), jnp.tanh, nnx.Linear(1, 1, rngs=rngs)), X, np.sin(3 * X))


def tuple_of_two():
    made = good()
    return made.problem, made.theta


def fixed_format():
    return engine.from_loss(lambda w: jnp.sum(w.astype(jnp.float32) ** 3), START)


def raised_format():
    return engine.from_loss(lambda w: jnp.sum(w**3 * np.array([1.0, 2.0, 3.0])), START)


def vector():
    return engine.from_loss(lambda w: w**2, START)


def chance():
    return engine.from_loss(lambda w: jnp.sum(w**2) * random.random(), START)


def root():
    return engine.from_loss(lambda w: jnp.sqrt(jnp.sum((w - START.astype(w.dtype)) ** 2)), START)


def endless():
    return engine.from_loss(lambda w: jnp.sum(w**2) / 0, START)


def stopped():
    return engine.from_loss(lambda w: jnp.sum(w**2 * jax.lax.stop_gradient(w)), START)


def looping():
    def turns(w):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + jnp.sum(w**2)), (0, jnp.zeros((), w.dtype)))[1]

    return engine.from_loss(turns, START)


@jax.custom_vjp
def called_back(w):
    return jnp.sum(w**2)


called_back.defvjp(lambda w: (jnp.sum(w**2), w), lambda w, slope: (jax.pure_callback(lambda x: 2 * x, w, w) * slope,))


def once_only():
    return engine.from_loss(called_back, START)


def pair():
    return engine.from_loss(lambda w: (jnp.sum(w), w), START)


def missing():
    return engine.from_loss(lambda w, x: jnp.sum(w * x["x"].astype(w.dtype)), START, {"x": np.array([1, np.nan, 2])})


def infinite():
    return engine.from_loss(lambda w: jnp.sum(w**2), np.array([1, np.inf]))


def words():
    return good().problem, "abc"


def failing():
    return engine.from_loss(lambda w: w @ jnp.zeros(7, w.dtype), START)


def two_dimensional():
    return Problem(lambda theta, data: jnp.sum(theta**2), ()), jnp.zeros((2, 2))


def nothing():
    return None
