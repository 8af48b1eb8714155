"""Problems for the tests of `problem = "own_problems:…"`: a good one, and one for everything that can be wrong."""

import random
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import engine
from engine.problems.own import Made
from engine.problems.problem import Problem

START = np.array([0.3, -0.2, 0.5])


def good(scale: float = 1.0, seed: int = 0):
    return engine.from_loss(lambda w: scale * jnp.sum(jnp.tanh(w) ** 2 * (1 + seed + jnp.arange(3))), START)


@cache  # one function, compiled once
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


@cache
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


def logistic(side: int = 7):
    """A tanh network side²-5-5-1 that tells T-shirts from shirts, 60 images pooled to `side`×`side`, by the logistic loss. With 7 and
    η = 0.12 it comes to the edge at step 173 and leaves it again 54 steps later, since α becomes negative."""
    from engine.data import embedded

    pool, wide = embedded.fashion(), 28 // side
    kept = np.concatenate([np.flatnonzero(pool.labels == label)[:30] for label in (0, 6)])
    inputs = pool.inputs[kept, ..., 0].reshape(60, side, wide, side, wide).mean((2, 4)).reshape(60, side**2)
    inputs = (inputs - inputs.mean(0)) / (inputs - inputs.mean(0)).std()
    targets, rng = np.where(pool.labels[kept] == 0, -1.0, 1.0), np.random.default_rng(0)
    params = [(rng.uniform(-1, 1, shape) / np.sqrt(shape[0]), np.zeros(shape[1])) for shape in ((side**2, 5), (5, 5), (5, 1))]

    def loss(params, data):
        hidden, targets = data
        for weights, bias in params[:-1]:
            hidden = jnp.tanh(hidden.astype(weights.dtype) @ weights + bias)
        weights, bias = params[-1]
        return jnp.mean(jax.nn.softplus(-targets.astype(weights.dtype) * (hidden @ weights + bias)[:, 0]))

    return engine.from_loss(loss, params, (inputs, targets))


def let_go(start: tuple[float, ...] = (0.0, -0.1, 0.0), spare: int = 0):
    """L = ½(40 + y)x² − ¼cos(z)·y − z + ½·3‖w‖², with `spare` further parameters w: on x = w = 0 the stable set of η = 0.05 is y ≤ 0, and
    θ† has y ← min(0, y + ¼η·cos z), z ← z + η(1 − ¼y·sin z) exactly: slack, held back while cos z > 0, let go after."""
    return Made(Problem(let_go_loss, jnp.linspace(1.0, 3.0, spare), "let go"), jnp.asarray(np.concatenate([start, np.zeros(spare)])))


def let_go_loss(theta, bulk):
    """That of `let_go`: one function, compiled once wherever it starts."""
    (x, y, z), w = theta[:3], theta[3:]
    return (40 + y) / 2 * x**2 - jnp.cos(z) * y / 4 - z + bulk.astype(theta.dtype) @ w**2 / 2


def valleys(
    base: tuple[float, ...] = (195.0, 150.0, 60.0), rates: tuple[float, ...] = (0.5, 0.5, 4.0), mixing: float = 0.0, spare: int = 60,
    seed: int = 0,
):
    """Nearly independent parts, for η = 0.01: L = Σ ½(s_i + y_i)x_i² − r_i·y_i/η and `spare` small curvatures, in coordinates that are
    turned by exp(`mixing`·skew). Each valley's sharpness s_i rises by its rate r_i a step until its own x_i holds it at 2/η = 200."""
    from scipy.linalg import expm

    rng, count = np.random.default_rng(seed), len(base)
    size = 2 * count + spare
    skew = rng.standard_normal((size, size)) / np.sqrt(size)
    turn, bulk = expm(mixing * (skew - skew.T)), rng.uniform(1, 30, spare)
    start = np.concatenate([1e-3 * rng.standard_normal(count), np.zeros(count), 0.01 * rng.standard_normal(spare)])
    data = (turn, np.array(base), np.array(rates) / 0.01, bulk)
    return Made(Problem(valleys_loss, tuple(map(jnp.asarray, data)), "valleys"), jnp.asarray(turn.T @ start))


def valleys_loss(theta, data):
    """That of `valleys`: one function whatever the numbers, so that as many valleys are compiled once."""
    turn, base, drift, bulk = (part.astype(theta.dtype) for part in data)
    z, count = turn @ theta, len(base)
    x, y, w = z[:count], z[count : 2 * count], z[2 * count :]
    return jnp.sum((base + y) * x**2) / 2 - drift @ y + bulk @ w**2 / 2


def two_heads():
    """A tanh trunk 64-10 with two heads on 100 digits: which digit it is, and by how much ink. p = 771."""
    from engine.data import embedded

    pool = embedded.digits()
    images = pool.inputs[:100].reshape(100, 64).astype(float)
    ink = images.mean(1) - images.mean()
    inputs, targets = (images - images.mean(0)) / images.std(), np.eye(10)[pool.labels[:100]]
    rng = np.random.default_rng(0)
    params = {
        "trunk": (rng.uniform(-1, 1, (64, 10)) / 8, np.zeros(10)), "digit": rng.uniform(-1, 1, (10, 10)) / 30,
        "ink": rng.uniform(-1, 1, (10, 2)) / 6, "inked": np.full((2,), 0.6),
    }

    def loss(params, data):
        inputs, targets, ink = (jnp.asarray(part).astype(params["inked"].dtype) for part in data)
        hidden = jnp.tanh(inputs @ params["trunk"][0] + params["trunk"][1])
        amount = jnp.tanh(hidden @ params["ink"]) @ params["inked"]
        return jnp.mean(jnp.sum((hidden @ params["digit"] - targets) ** 2, axis=1)) / 2 + 2 * jnp.mean((amount - ink) ** 2)

    return engine.from_loss(loss, params, (inputs, targets, ink))


def chebyshev(scale: float = 1.0):
    """The network of `small.chebyshev_spec`, its loss times a power of two."""
    from engine.problems.build import build

    from small import chebyshev_spec

    problem, theta, _ = build(chebyshev_spec())
    data = (problem.data, jnp.asarray(scale, jnp.float64))
    return Made(replace(problem, loss_of=times(problem.loss_of), data=data, examples=None), theta)


@cache
def times(loss_of):
    """A loss times a number among its data: compiled once, whatever the number."""
    return lambda theta, data: loss_of(theta, data[0]) * data[1].astype(theta.dtype)


@cache  # one function, compiled once
def comes_and_goes(spare: int = 0, valleys: int = 1, speed: float = 3.0):
    """Appendix B, at the edge for η = 0.05, beside valleys whose curvature ηλ = 1.8 + 0.15·sin z, z growing by speed·η a step, comes within
    1.9 and goes again; `spare` flat directions more make the Hessian too large to be formed."""
    def loss(w):
        others = (1.8 + 0.15 * jnp.sin(w[2])) / 0.05 * jnp.sum(w[3 : 3 + valleys] ** 2)
        return (40 + w[1]) * w[0] ** 2 / 2 - w[1] + others / 2 - speed * w[2] + jnp.sum(w[3 + valleys :] ** 2) / 2

    return engine.from_loss(loss, np.concatenate([[0.2, 0.0, 0.0], np.full(valleys, 1e-3), np.zeros(spare)]))


@cache
def twins(spare: int = 0, start: float = -0.1):
    """Two valleys of Appendix B side by side, with α of 1 and 2, whose eigenvalues are equal at θ† at every step; at the edge for
    η = 0.05."""
    def loss(w):
        x, y = w[:2], w[2:4]
        return jnp.sum((40 + y) * x**2 / 2 - jnp.arange(1, 3) * y) + jnp.sum(w[4:] ** 2) / 2

    return engine.from_loss(loss, np.concatenate([[0.2, start], np.zeros(2 + spare)]))


def tested():
    """A line with examples held out."""
    return engine.from_flax(linen.Dense(1), X, np.sin(3 * X), test=(X + 1, np.sin(3 * X)))
