"""Products of float64 numbers as sums of float32 ones: exact to the bound that their docstring derives, at every order of derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine.curvature.expansion import loss_and_gradient
from engine.problems.build import build
from engine.spec import load_spec
from engine.xla import float32_products
from engine.xla.float32_products import bound, count, digit_bits, in_float32_products

pytestmark = pytest.mark.usefixtures("x64")
MATRICES = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "all near their largest": lambda random, shape: random.uniform(0.9, 1.0, shape),
    "over sixty orders of magnitude": lambda random, shape: random.standard_normal(shape) * 10.0 ** random.uniform(-30, 30, shape),
}


def off(computed, exact) -> float:
    """The largest difference of any number of two trees, over the largest number of the array that it is in."""
    pairs = zip(jax.tree.leaves(computed), jax.tree.leaves(exact), strict=True)
    return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)


@pytest.mark.parametrize("slices", [2, 3])
@pytest.mark.parametrize("length", [40, 256, 1000, 2500])
@pytest.mark.parametrize("kind", MATRICES)
def test_a_product_is_within_its_bound_of_the_exact_one(kind, length, slices):
    random = np.random.default_rng(length)
    a, c = (MATRICES[kind](random, shape) for shape in ((90, length), (length, 80)))
    function = in_float32_products(jnp.matmul, slices)
    assert count(function, a, c) == (1, 0)
    exact = a.astype(np.longdouble) @ c.astype(np.longdouble)  # 64 bits: 2^-64 of each of its sums' terms
    block = -(-length // -(-length // float32_products.BLOCK))
    largest = np.abs(a).max(1)[:, None] * np.abs(c).max(0)
    gap = np.abs(np.asarray(jax.jit(function)(a, c)) - exact) / largest
    assert gap.max() <= bound(block, slices) * -(-length // block)


@pytest.mark.parametrize("block", [16, 200, 1024])
def test_sums_of_products_of_digits_are_exact_and_digits_add_up_to_the_number(block):
    random, bits = np.random.default_rng(0), digit_bits(block)
    numbers = [jnp.asarray(random.uniform(-1, 1, (70, block))).at[0].set(1.0) for _ in range(2)]
    a, c = (float32_products._digits(each, bits, 3) for each in numbers)
    for left in a.digits:
        for right in c.digits:
            product = jax.jit(lambda x, y: jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST))(left, right)
            np.testing.assert_array_equal(np.asarray(product, np.float64), np.asarray(left, np.float64) @ np.asarray(right, np.float64).T)
    whole = sum(np.asarray(each, np.float64) for each in (*a.digits, a.rests[-1]))
    np.testing.assert_allclose(whole, numbers[0], rtol=0, atol=2.0 ** (-2 * bits - 24) + 2.0**-48)


NETWORKS = {
    "digits": ["problem.data.examples=100", "problem.micro_batch=50"],
    "fig4-cnn-small": ["problem.data.examples=8", "problem.model.widths=[8,16]"],
    "fig4-transformer-small": ["problem.data.examples=8", "problem.model.layers=1", "problem.model.hidden=32"],
}


def both_ways(name):
    """A network with its products in float64, the same with them made of float32 ones, and θ."""
    problem, theta, _ = build(load_spec(name, NETWORKS[name]))
    changed, _, facts = build(load_spec(name, [*NETWORKS[name], "precision.products=float32x6"]))
    ours, others = count(jax.grad(changed.loss), theta)
    assert ours > 2
    assert others > 0
    assert facts["products"].startswith(f"float32x6, for {ours} of the {ours + others} in a gradient")
    return problem, changed, theta


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradient_of_a_network_are_those_in_float64(name):
    problem, changed, theta = both_ways(name)
    (loss, grad), (loss_in_float64, in_float64) = (loss_and_gradient(each, theta) for each in (changed, problem))
    assert float(loss) == pytest.approx(float(loss_in_float64), rel=1e-10)
    assert 0 < jnp.linalg.norm(grad - in_float64) < 1e-10 * jnp.linalg.norm(in_float64)


@pytest.mark.slow  # compiles third derivatives, for a minute: only they show that rules within rules are followed
@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_of_a_network_are_those_in_float64_and_in_float32_what_they_were(name):
    problem, changed, theta = both_ways(name)
    v = jnp.asarray(np.random.default_rng(0).standard_normal(theta.size)) / theta.size**0.5
    derivatives = jax.jit(lambda problem, theta, v: (problem.hvp(theta, v), problem.grad_sharpness(theta, v)))
    assert 0 < off(derivatives(changed, theta, v), derivatives(problem, theta, v)) < 1e-9
    in_float32 = theta.astype("float32"), v.astype("float32")
    for ours, before in zip(derivatives(changed, *in_float32), derivatives(problem, *in_float32), strict=True):
        np.testing.assert_array_equal(ours, before)


@jax.custom_jvp
def ruled(a, c):
    return a @ c


@ruled.defjvp
def _(primals, tangents):
    (a, c), (da, dc) = primals, tangents
    return ruled(a, c), da @ c + a @ dc


@jax.custom_vjp
def pulled_back(a, c):
    return a @ c


pulled_back.defvjp(lambda a, c: (a @ c, (a, c)), lambda kept, ct: (ct @ kept[1].T, kept[0].T @ ct))

INSIDE = {
    "jit": jax.jit(jnp.matmul),
    "scan": lambda a, c: lax.scan(lambda at, _: (jnp.tanh(at @ c), None), a, length=3)[0],
    "checkpointed scan": lambda a, c: lax.scan(jax.checkpoint(lambda at, _: (jnp.tanh(at @ c), None)), a, length=3)[0],
    "cond": lambda a, c: lax.cond(a[0, 0] > 0, lambda: a @ c, lambda: jnp.sin(a) @ c),
    "fori_loop": lambda a, c: lax.fori_loop(0, 3, lambda _, at: jnp.tanh(at @ c), a),
    "vmap": lambda a, c: jax.vmap(lambda row: jnp.tanh(row @ c) @ c)(a),
    "custom_jvp": ruled,
    "einsum": lambda a, c: jnp.einsum("bijc,bkjc->ibk", a.reshape(2, 50, 10, 10), jnp.tanh(c).reshape(2, 50, 10, 10)),
}


@pytest.mark.parametrize("where", INSIDE)
def test_products_are_replaced_wherever_they_stand(where):
    random = np.random.default_rng(1)
    a, c = (jnp.asarray(random.standard_normal((100, 100))) / 8 for _ in range(2))

    def total(a, c):
        return jnp.sum(jnp.cos(INSIDE[where](a, c)))

    ours = in_float32_products(total)
    assert count(ours, a, c).in_float32 > 0 == count(ours, a, c).in_float64
    assert count(jax.grad(ours, (0, 1)), a, c).in_float64 == 0

    def derivatives(function):
        gradient = jax.grad(function, (0, 1))
        return jax.jit(lambda a, c: (function(a, c), *jax.jvp(gradient, (a, c), (c, a))))(a, c)

    assert off(derivatives(ours), derivatives(total)) < 1e-9


@pytest.mark.parametrize("axes", [(0, None), (None, 1), (2, 0)])
def test_many_products_at_a_time_are_products_too(axes):
    shapes = {None: (60, 70), 0: (3, 60, 70), 1: (60, 3, 70), 2: (60, 70, 3)}
    left, right = (jnp.asarray(np.random.default_rng(k).standard_normal(shapes[axis])) for k, axis in enumerate(axes))
    function = jax.vmap(lambda a, c: a @ c.T, axes)
    ours = jax.vmap(in_float32_products(lambda a, c: a @ c.T), axes)
    assert count(ours, left, right) == (1, 0)
    assert off(ours(left, right), function(left, right)) < 1e-10


def test_a_rule_for_reverse_derivatives_keeps_its_float64_products():
    a, c = (jnp.asarray(np.random.default_rng(k).standard_normal((100, 100))) for k in range(2))
    ours = in_float32_products(lambda a, c: jnp.sum(jnp.cos(pulled_back(a, c))))
    assert count(jax.grad(ours, (0, 1)), a, c) == (0, 3)


CONVOLUTIONS = {
    "same": {"padding": "SAME"},
    "strided": {"padding": "VALID", "window_strides": (2, 2)},
    "dilated": {"padding": ((2, 2), (1, 1)), "rhs_dilation": (2, 1), "lhs_dilation": (1, 2)},
    "grouped": {"padding": "SAME", "feature_group_count": 2},
    "batches grouped": {"padding": "SAME", "batch_group_count": 2},
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_and_their_derivatives_are_those_in_float64(kind, monkeypatch):
    monkeypatch.setattr(float32_products, "WINDOWS", 300)  # so that sums are cut in blocks
    settings = {"window_strides": (1, 1)} | CONVOLUTIONS[kind]
    random = np.random.default_rng(2)
    groups = settings.get("feature_group_count", 1)
    images, kernel = (jnp.asarray(random.standard_normal(shape)) for shape in ((6, 12, 12, 8), (3, 3, 8 // groups, 16)))

    def total(images, kernel):
        given = lax.conv_general_dilated(images, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings)
        return jnp.sum(jnp.cos(given))

    ours = float32_products._sliced(total, 3)
    assert count(jax.grad(ours, (0, 1)), images, kernel) == (3, 0)
    both = [jax.jit(jax.value_and_grad(each, (0, 1)))(images, kernel) for each in (ours, total)]
    assert off(*both) < 1e-8


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_what_is_not_finite_stays_so_and_spoils_no_other_row(spoilt):
    a, c = np.random.default_rng(3).standard_normal((2, 100, 100))
    a[7, 5] = spoilt
    given = np.asarray(in_float32_products(jnp.matmul)(a, c))
    assert not np.isfinite(given[7]).any()
    assert np.isfinite(np.delete(given, 7, 0)).all()


def test_zeros_and_numbers_that_float32_does_not_hold_are_multiplied():
    a, c = np.random.default_rng(4).standard_normal((2, 100, 100))
    a[3], a[4], c[:, 5] = 0, a[4] * 1e-200, c[:, 5] * 1e150
    given, exact = np.asarray(in_float32_products(jnp.matmul)(a, c)), a @ c
    assert (given[3] == 0).all()
    np.testing.assert_allclose(given[4] * 1e200, exact[4] * 1e200, atol=1e-8)
    np.testing.assert_allclose(given[:, 5] / 1e150, exact[:, 5] / 1e150, atol=1e-8)


@pytest.mark.parametrize(("rows", "length", "columns"), [(1, 10_000, 100), (300, 300, 1), (100, 4, 100), (2, 2, 2), (0, 5, 5)])
def test_a_product_that_would_not_gain_stays_float64(rows, length, columns):
    a, c = jnp.ones((rows, length)), jnp.ones((length, columns))
    assert count(in_float32_products(jnp.matmul), a, c) == (0, 1)


def test_a_sum_too_long_for_digits_stays_float64():
    """The derivative of a depthwise kernel by 200 images of 20×20: a sum of 80,000 terms in groups."""
    images, kernel = jnp.ones((200, 20, 20, 4)), jnp.ones((5, 5, 1, 64))
    depthwise = lambda kernel: jnp.sum(lax.conv_general_dilated(  # noqa: E731
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4) ** 2)
    assert count(jax.grad(in_float32_products(depthwise)), kernel) == (1, 1)


def test_on_a_gpu_no_product_of_float64_numbers_is_left():
    def gradients(theta, images, kernel):
        return jax.grad(in_float32_products(lambda *each: jnp.sum(jnp.tanh(each[0] @ each[0])) + jnp.sum(
            lax.conv_general_dilated(each[1], each[2], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) ** 2)), (0, 1, 2))(
                theta, images, kernel)

    given = jnp.ones((100, 100)), jnp.ones((10, 28, 28, 8)), jnp.ones((3, 3, 8, 16))
    text = jax.jit(gradients).trace(*given).lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    assert len(products) >= 12
    assert all("f64" not in line and "HIGHEST" in line for line in products)
    assert "custom_call" not in text
