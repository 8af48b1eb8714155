"""What a number format is compiled to: fast float64 products that are right, and sums that never race."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.xla.jit import FORWARD_PRODUCTS, LONE_PRODUCTS, jit_by_format, layer_product, lone_products

pytestmark = pytest.mark.usefixtures("x64")


def layer(rows, kernel):
    """A product, and a sum over examples, as in a gradient."""
    hidden = jnp.tanh(rows @ kernel)
    return rows.T @ hidden, hidden.sum(axis=0), kernel


def arrays(dtype):
    draw = np.random.default_rng(0).standard_normal
    return jnp.asarray(draw((500, 60)), dtype), jnp.asarray(draw((60, 40)), dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-5)])
def test_a_format_gives_what_numpy_gives(dtype, tolerance):
    rows, kernel = (np.asarray(array, np.float64) for array in arrays(dtype))
    hidden = np.tanh(rows @ kernel)
    for actual, exact in zip(jit_by_format(layer)(*arrays(dtype)), (rows.T @ hidden, hidden.sum(axis=0), kernel), strict=True):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, exact, atol=tolerance * np.abs(exact).max())


def test_inside_another_function_it_is_a_part_of_it():
    part = jit_by_format(layer)
    whole = jax.jit(lambda rows, kernel: part(rows, kernel)[0])(*arrays("float64"))
    np.testing.assert_allclose(whole, part(*arrays("float64"))[0], rtol=1e-12)


@pytest.fixture
def with_products(x64):
    """The option, where this jaxlib is known to take it: asked in a test, since the question starts the device."""
    if not lone_products():
        pytest.skip("this jaxlib may not know the option, or computes elsewhere")
    return LONE_PRODUCTS


@pytest.fixture
def forward_products(with_products):
    return FORWARD_PRODUCTS


@pytest.fixture
def as_set():
    return {}


def test_only_products_go_to_the_library_whose_sums_race(with_products):
    text = jax.jit(layer, compiler_options=with_products).lower(*arrays("float64")).compile().as_text()
    called = set(re.findall(r"calls=%?([\w.\-]+),[^\n]*__ynn_fusion", text))
    bodies = [re.search(rf"^%?{re.escape(name)} .*?^}}", text, re.S | re.M).group() for name in called]
    assert bodies
    for body in bodies:
        assert " dot(" in body
        assert " reduce(" not in body


def spread(column):
    """2·1024² ones: by jaxlib 0.10.2 as it comes, more than half of the calls give another number."""
    return jnp.sum(jnp.broadcast_to(column, (2, 1024, 1024)))


def by_rows(points):
    """Σ of (E·row)² for each row: by jaxlib 0.10.2 as it comes, the last ones are wrong."""
    return jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=row.dtype) @ row) ** 2))(points)


@pytest.mark.parametrize("options", ["as_set", "with_products", "forward_products"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_right(options, dtype, request):
    options = request.getfixturevalue(options)
    total = jax.jit(spread, compiler_options=options)
    assert {float(total(jnp.ones((1024, 1), dtype))) for _ in range(50)} == {2.0**21}
    points = jnp.arange(40_000, dtype=dtype)[:, None] * jnp.array([1, 0, 0], dtype)
    np.testing.assert_array_equal(jax.jit(by_rows, compiler_options=options)(points), np.arange(40_000, dtype=dtype) ** 2)


def test_the_product_of_a_layer_has_the_derivatives_of_any_product():
    rng = np.random.default_rng(3)
    x, w, dx, dw = (jnp.asarray(rng.normal(size=size)) for size in ((5, 4), (4, 3), (5, 4), (4, 3)))
    dims = (((1,), (0,)), ((), ()))

    def loss(product):
        return lambda x, w: jnp.sum(jnp.tanh(product(jnp.tanh(product(x, w, dims)) @ w.T, w, dims)) ** 3)

    def derivatives(f):
        second = lambda x, w: jax.jvp(jax.grad(f, (0, 1)), (x, w), (dx, dw))[1]  # noqa: E731
        third = jax.jacfwd(lambda s: jax.jvp(jax.grad(lambda w: jax.jvp(f, (x, w), (dx, dw))[1]), (w + s * dw,), (dw,))[1])
        batched = jax.vmap(jax.grad(f, 1), (None, 0))(x, jnp.stack([w, dw]))
        return [f(x, w), *jax.grad(f, (0, 1))(x, w), *second(x, w), third(0.0), batched]

    for actual, expected in zip(*(derivatives(jax.jit(loss(product))) for product in (layer_product, jax.lax.dot_general)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    assert layer_product(x.astype("float32"), w.astype("float32"), dims).dtype == jnp.float32


def curvature_along(x, w, dw):
    """d²/ds² of Σ(x(w + s·dw))³ at 0: the products are x·w and x·dw."""

    def slope(w):
        return jax.jvp(lambda w: jnp.sum(layer_product(x, w, (((1,), (0,)), ((), ()))) ** 3), (w,), (dw,))[1]

    return jax.jvp(slope, (w,), (dw,))[1]


def test_data_have_no_tangent_and_cost_no_product():
    x, w = arrays("float64")
    text = jax.jit(curvature_along).lower(x, w, w[::-1]).compile().as_text()
    assert len(re.findall(r" dot\(|custom-call", text)) == 2
    along = 6 * jnp.sum((x @ w) * (x @ w[::-1]) ** 2)
    np.testing.assert_allclose(jit_by_format(curvature_along, forward=True)(x, w, w[::-1]), along, rtol=1e-12)


def test_every_product_of_forward_derivatives_goes_to_the_fast_library(forward_products):
    x, w = arrays("float64")
    text = jax.jit(curvature_along, compiler_options=forward_products).lower(x, w, w[::-1]).compile().as_text()
    assert len(re.findall("__ynn_fusion", text)) == 2
