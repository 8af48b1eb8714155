"""Problems for the tests of `problem = "own_problems:…"`: a good one, and one for everything that can be wrong."""

import random

import jax
import jax.numpy as jnp
import numpy as np

import engine
from engine.problem import Problem

START = np.array([0.3, -0.2, 0.5])


def good(scale: float = 1.0, seed: int = 0):
    return engine.from_loss(lambda w: scale * jnp.sum(jnp.tanh(w) ** 2 * (1 + seed + jnp.arange(3))), START)


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
