"""A float of fewer digits than θ, on a way from θ to the loss through floats, is found in whatever operation holds it; nothing else is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

import engine
from engine.problems.narrowing import narrowed

from small import chebyshev_problem

pytestmark = pytest.mark.usefixtures("x64")


def single(w):
    return w.astype(jnp.float32)


def back(w):
    return single(w).astype(w.dtype)


@jax.custom_vjp
def rounded_slope(w):
    return w**2


rounded_slope.defvjp(lambda w: (w**2, w), lambda w, slope: (back(2 * w * slope),))


def looped(w):
    """What the second turn makes of the first one's: the carried pair changes places."""
    return lax.scan(lambda pair, _: ((pair[1], back(w)), None), (w, w), jnp.ones(4))[0][0].sum()


NARROW = {
    "cast": lambda w: back(w).sum(),
    "jit": lambda w: jax.jit(back)(w).sum(),
    "remat": lambda w: jax.checkpoint(back)(w).sum(),
    "vmap": lambda w: jax.vmap(back)(w).sum(),
    "custom_jvp": lambda w: jax.nn.relu(single(w)).sum().astype(w.dtype),
    "scan": looped,
    "cond": lambda w: lax.cond(w[0] > 0, jnp.sum, lambda w: back(w).sum(), w),
    "while": lambda w: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, back(s[1])), (0, w))[1].sum(),
    "product": lambda w: lax.dot_general(w, w, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32).astype(w.dtype),
    "half": lambda w: w.astype(jnp.bfloat16).sum().astype(w.dtype),
    "complex": lambda w: jnp.abs(w.astype(jnp.complex64)).sum().astype(w.dtype),
    "attention": lambda w: jax.nn.dot_product_attention(*[w.reshape(1, 3, 1, 1)] * 3).sum(),
}
WIDE = {
    "plain": lambda w: jnp.tanh(w).sum() + jax.nn.softmax(w)[0] + jnp.abs(jnp.fft.fft(w))[1],
    "data": lambda w: (w * single(jnp.arange(3.0))).sum(),
    "compared": lambda w: jnp.where(single(w) > 0, w, 2 * w).sum(),
    "chosen": lambda w: w[jnp.argmax(single(w))],
    "counted": lambda w: w.sum() * single(w.astype(int)).sum(),
    "not used": lambda w: (back(w), w.sum())[1],
    "loop": lambda w: lax.scan(lambda carried, x: (carried * single(x), None), w, jnp.ones(4))[0].sum(),
}


@pytest.mark.parametrize("name", NARROW)
def test_fewer_digits_on_the_way_are_found(name):
    said = narrowed(NARROW[name], jax.ShapeDtypeStruct((3,), "float64"))
    format = {"half": "bfloat16", "complex": "complex64"}.get(name, "float32")
    assert f"computes in {format} where θ is float64" in said
    assert __file__ in said
    assert narrowed(NARROW["cast"], jax.ShapeDtypeStruct((3,), "float32")) == ""


@pytest.mark.parametrize("name", WIDE)
def test_casts_of_what_is_no_float_of_theta_are_left_alone(name):
    assert narrowed(WIDE[name], jax.ShapeDtypeStruct((3,), "float64")) == ""


def test_the_network_of_a_preset_keeps_its_format():
    problem, theta = chebyshev_problem()
    assert narrowed(problem.loss, theta) == narrowed(problem.gradient, theta) == ""


TOKENS = np.arange(12).reshape(4, 3)
ROWS = np.random.default_rng(0).normal(size=(4, 3, 2))


class Attention(linen.Module):
    single: bool

    @linen.compact
    def __call__(self, x):
        return linen.MultiHeadDotProductAttention(1, force_fp32_for_softmax=self.single)(x, x)


class Embedded(nnx.Module):
    def __init__(self, **options):
        self.table = nnx.Embed(12, 2, rngs=nnx.Rngs(0), **options)

    def __call__(self, x):
        return self.table(x)


def made(module, inputs):
    return engine.from_flax(module, inputs, ROWS, lambda f, y: jnp.sum((f - y) ** 2, (1, 2)))


@pytest.mark.parametrize(("module", "inputs", "said"), [
    (Embedded, TOKENS, r"nnx.Embed \(convert_element_type, .*test_narrowing.py, line \d+\) computes in float32 where θ is float64"),
    (lambda: Attention(True), ROWS, "linen.MultiHeadDotProductAttention (convert_element_type, .*test_narrowing.py, line"),
    (lambda: linen.Dense(2, dtype="float32"), ROWS, r"the loss is float64|linen.Dense \(convert_element_type, .*linear.py, line"),
])  # fmt: skip
def test_a_module_that_computes_in_a_format_of_its_own_is_named(module, inputs, said):
    (complaint,) = engine.complaints(*made(module(), inputs))
    assert re.search(said.replace("Attention (", r"Attention \("), complaint)
    assert complaint.endswith("set a module's dtype to None, as nnx.Embed's once it is made, and cast to the format of θ")


def test_modules_that_follow_theta_are_not_complained_of():
    assert engine.complaints(*made(Attention(False), ROWS)) == []
    mended = Embedded()
    mended.table.dtype = None
    assert engine.complaints(*made(mended, TOKENS)) == []


def test_a_derivative_in_another_format_is_found():
    said = engine.complaints(*engine.from_loss(lambda w: rounded_slope(w).sum(), jnp.ones(3)))
    assert re.match(r"in the gradient .*convert_element_type.* computes in float32 where θ is float64", said[0])
