"""The eigenvectors beside the top one: separated by one product, against dense ones in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.curvature.companions import Companions, due, separated, unknown

pytestmark = pytest.mark.usefixtures("x64")

SIZE = 60
CLOSE = np.concatenate([[1.0, 0.99, 0.98, 0.97], np.linspace(0.3, 0.0, SIZE - 4)])
"""Four eigenvalues within 3 %: a step of power iteration leaves 97 % and more of what is mixed of them."""
AXES = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE, SIZE)))[0].T
"""Eigenvectors, as rows."""
MATRIX = AXES.T @ np.diag(CLOSE) @ AXES


def unit(vector):
    """The vector with length 1."""
    return np.asarray(vector) / np.linalg.norm(vector)


def outside(vector, axis):
    """The part of a vector's direction that is not along an axis of length 1."""
    return np.linalg.norm(unit(vector) - (unit(vector) @ axis) * axis)


def seen(vector, vectors, values):
    """What one product along a vector shows beside such companions, whose eigenvalues are given."""
    quotient = vector @ MATRIX @ vector
    return separated(jnp.asarray(vector)[None], jnp.asarray(MATRIX @ vector)[None], Companions(jnp.asarray(vectors), values / quotient))


@pytest.mark.parametrize("mixed", [0.1, 1.0])
def test_one_product_tells_the_top_eigenvector_from_those_close_to_it(mixed):
    vector = unit(AXES[0] + mixed * (AXES[1] - AXES[2] + AXES[3]))
    apart = seen(vector, AXES[1:4], CLOSE[1:4])
    assert outside(apart.vector, AXES[0]) < 1e-7
    assert outside(MATRIX @ vector, AXES[0]) > 0.16  # by power iteration
    np.testing.assert_allclose(apart.companions.values, CLOSE[1:4], rtol=1e-9)
    np.testing.assert_allclose(np.abs(apart.companions.vectors @ AXES[1:4].T), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(apart.shortfall, 1 - vector @ MATRIX @ vector, rtol=1e-9)


def test_what_no_companion_explains_is_left_to_power_iteration():
    vector = unit(AXES[0] + 0.01 * AXES[1] + 0.01 * AXES[10])
    apart = seen(vector, AXES[1:4], CLOSE[1:4])
    assert abs(apart.vector @ AXES[1]) < 1e-6
    np.testing.assert_allclose(abs(apart.vector @ AXES[10]), 0.01 * CLOSE[10], rtol=1e-3)


def test_the_estimated_error_bounds_that_of_the_rayleigh_quotient():
    random = np.random.default_rng(1)
    for _ in range(20):
        vector = unit(AXES[0] + 0.02 * random.standard_normal(SIZE) @ AXES)
        image, quotient = MATRIX @ vector, vector @ MATRIX @ vector
        residual = np.linalg.norm(image - quotient * vector) / quotient
        estimate = seen(vector, AXES[1:4], CLOSE[1:4]).error(residual)
        assert 1 - quotient <= estimate < 50 * (1 - quotient)  # the rest is counted as if next to the companions
    assert np.isinf(separated(jnp.asarray(vector)[None], jnp.asarray(image)[None], unknown(SIZE, "float64")).error(residual))


def test_companions_that_are_no_longer_orthonormal_or_are_met_again_are_one_direction_each():
    """As where P has changed since, and where the solver has come upon a companion."""
    stretched = AXES[1:4] * (1 + 0.01 * np.random.default_rng(2).standard_normal(SIZE))
    vectors = jnp.asarray(AXES[[0, 1]])
    apart = separated(vectors, vectors @ MATRIX, Companions(jnp.asarray(stretched), jnp.asarray(CLOSE[1:4])))
    kept = np.asarray(apart.companions.vectors)
    np.testing.assert_allclose(kept[:2] @ kept[:2].T, np.eye(2), atol=1e-9)
    assert outside(apart.vector, AXES[0]) < 1e-9
    assert outside(kept[0], AXES[1]) < 0.03
    np.testing.assert_allclose(apart.companions.values, [0.99, 0.98, 0.97], rtol=2e-3)


def test_looks_take_the_nearest_companion_at_every_other_and_each_in_turn():
    assert [int(due(look, 4)) for look in range(8)] == [0, 1, 0, 2, 0, 3, 0, 1]
    assert {int(due(look, 1)) for look in range(5)} == {0}
