"""The criteria against their formulas, written out in numpy, and their gradients in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.problems.losses import CRITERIA, correct
from engine.spec import Criterion

pytestmark = pytest.mark.usefixtures("x64")

RANDOM = np.random.default_rng(0)
OUTPUTS = 3 * RANDOM.normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 2, 2, 0], np.int32)
ONE_HOT = np.eye(4)[LABELS]
SINGLE = 3 * RANDOM.normal(size=(6, 1))
SIGNS = np.array([1, -1, -1, 1, 1, -1], np.float32)[:, None]
EXACT = {"rtol": 1e-13, "atol": 1e-15}
"""Sums of a few terms in float64."""


def softmax(outputs: np.ndarray) -> np.ndarray:
    return np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)


def gradient(name: str, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The derivative of the summed losses by the outputs, (n, k)."""
    return jax.grad(lambda f: jnp.sum(CRITERIA[name](f, targets)))(jnp.asarray(outputs))


V = RANDOM.normal(size=(6, 4))
"""Directions, one an example."""


def higher(name: str, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∇²(v) and ∇³(v,v) of the summed losses by the outputs, (n, k) each: examples do not mix."""
    v = jnp.asarray(V[:, : outputs.shape[1]])

    def slope(f):
        return jax.grad(lambda g: jnp.sum(CRITERIA[name](g, targets)))(f)

    def curvature(f):
        return jax.jvp(slope, (f,), (v,))[1]

    return jax.jvp(curvature, (jnp.asarray(outputs),), (v,))


def test_every_criterion_of_the_specification_exists():
    assert set(CRITERIA) == set(Criterion.__args__)


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "wanted"),
    [
        ("mse", SINGLE, SIGNS, (SINGLE - SIGNS)[:, 0] ** 2),
        ("mse", OUTPUTS, LABELS, ((OUTPUTS - ONE_HOT) ** 2).sum(axis=1)),
        ("half_mse", SINGLE, SIGNS, (SINGLE - SIGNS)[:, 0] ** 2 / 2),
        ("half_mse", OUTPUTS, LABELS, ((OUTPUTS - ONE_HOT) ** 2).sum(axis=1) / 2),
        ("cross_entropy", OUTPUTS, LABELS, -np.log(softmax(OUTPUTS)[np.arange(6), LABELS])),
        ("logistic", SINGLE, SIGNS, np.log(1 + np.exp(-SINGLE * SIGNS))[:, 0]),
    ],
)
def test_a_criterion_is_its_formula_for_each_example(name, outputs, targets, wanted):
    losses = CRITERIA[name](jnp.asarray(outputs), targets)
    assert losses.dtype == jnp.float64
    np.testing.assert_allclose(losses, wanted, **EXACT)
    assert CRITERIA[name](jnp.asarray(outputs, jnp.float32), targets).dtype == jnp.float32


@pytest.mark.parametrize(("outputs", "targets"), [(SINGLE, SIGNS), (OUTPUTS, LABELS)])
def test_half_mse_is_half_of_mse(outputs, targets):
    np.testing.assert_array_equal(2 * CRITERIA["half_mse"](outputs, targets), CRITERIA["mse"](outputs, targets))


def test_gradients_have_their_closed_forms():
    np.testing.assert_allclose(gradient("mse", SINGLE, SIGNS), 2 * (SINGLE - SIGNS), **EXACT)
    np.testing.assert_allclose(gradient("cross_entropy", OUTPUTS, LABELS), softmax(OUTPUTS) - ONE_HOT, **EXACT)
    np.testing.assert_allclose(gradient("logistic", SINGLE, SIGNS), -SIGNS / (1 + np.exp(SINGLE * SIGNS)), **EXACT)


@pytest.mark.parametrize(("name", "outputs", "targets"), [("mse", SINGLE, SIGNS), ("mse", OUTPUTS, LABELS), ("half_mse", OUTPUTS, LABELS)])
def test_a_square_has_a_constant_second_derivative_and_no_third(name, outputs, targets):
    second, third = higher(name, outputs, targets)
    np.testing.assert_allclose(second, (2 if name == "mse" else 1) * V[:, : outputs.shape[1]], **EXACT)
    np.testing.assert_array_equal(third, 0)


def test_cross_entropy_has_the_moments_of_the_softmax_as_derivatives():
    p = softmax(OUTPUTS)[0]
    v = V[0]
    mean = p @ v
    second, third = higher("cross_entropy", OUTPUTS, LABELS)
    np.testing.assert_allclose(second[0], p * (v - mean), **EXACT)  # the covariance times v
    np.testing.assert_allclose(third[0], p * ((v - mean) ** 2 - p @ (v - mean) ** 2), **EXACT)


def test_logistic_has_the_derivatives_of_the_sigmoid():
    sigma = 1 / (1 + np.exp(-SINGLE))
    second, third = higher("logistic", SINGLE, SIGNS)
    v = V[:, :1]
    np.testing.assert_allclose(second, sigma * (1 - sigma) * v, **EXACT)  # even in the target
    np.testing.assert_allclose(third, sigma * (1 - sigma) * (1 - 2 * sigma) * v**2, **EXACT)


def test_the_right_answers_are_those_of_sign_and_of_the_largest_output():
    np.testing.assert_array_equal(correct(jnp.array([[0.1], [-3.0], [2.0]]), np.array([[1.0], [1.0], [-1.0]])), [1, 0, 0])
    np.testing.assert_array_equal(correct(jnp.array([[0.1, 0.2], [3.0, -1.0]]), np.array([1, 1])), [1, 0])


def test_extreme_outputs_give_finite_losses_and_gradients():
    far, signs = np.array([[1000.0], [-1000.0]]), np.array([[-1.0], [-1.0]])
    np.testing.assert_allclose(CRITERIA["logistic"](far, signs), [1000, 0], atol=1e-300)
    np.testing.assert_allclose(gradient("logistic", far, signs), [[1], [0]], atol=1e-300)
    pair = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    np.testing.assert_array_equal(CRITERIA["cross_entropy"](pair, np.array([1, 1])), [1000, 0])
    np.testing.assert_array_equal(gradient("cross_entropy", pair, np.array([1, 1])), [[1, -1], [0, 0]])
