"""Kinks, seen by what ∇³L misses of how the curvature changes along u: with relu percents, with smooth activations O(h²)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import engine
from engine.curvature.kinks import kinks

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(300, 4)), RNG.normal(size=(300, 1))
HIDDEN = 8


def around_start(activation, criterion="mse"):
    targets = Y if criterion == "mse" else np.sign(Y)
    problem, theta = engine.from_flax(linen.Sequential([linen.Dense(HIDDEN), activation, linen.Dense(1)]), X, targets, criterion)
    vectors = np.linalg.eigh(jax.jit(lambda p, t: p.hessian(t))(problem, theta))[1]
    return kinks(problem, theta, jnp.asarray(vectors[:, -1]))


@pytest.mark.parametrize("criterion", ["mse", pytest.param("logistic", marks=pytest.mark.slow)])
def test_relu_is_warned_of_and_is_straight_in_each_parameter(criterion):
    """Up to what the criterion's own third derivative is, which is none of its kinks."""
    seen = around_start(jax.nn.relu, criterion)
    assert seen.are_there
    assert seen.missed > 0.01
    assert seen.straight == 1


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.gelu])
def test_smooth_activations_are_not_and_the_head_alone_is_straight(activation):
    seen = around_start(activation)
    assert seen.missed < 1e-4  # O(h²)
    assert 0 < seen.straight < 0.6  # of 32 parameters drawn of 49, of which the head has 9
    assert not seen.are_there


def test_a_network_of_products_alone_is_straight_without_kinks():
    seen = around_start(lambda hidden: hidden)
    assert seen.straight == 1
    assert seen.missed < 1e-6
