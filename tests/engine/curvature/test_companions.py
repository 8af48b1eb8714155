"""The eigenvectors beside the top one: separated by one product, against dense ones in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.curvature.companions import Companions, due, mixture, next_trial, risen, separated, tried, unknown

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
    return separated(jnp.asarray(vector)[None], jnp.asarray(MATRIX @ vector)[None], beside(vectors, values / quotient))


def beside(vectors, values):
    """Companions without a scout."""
    return Companions(jnp.asarray(vectors), jnp.asarray(values), jnp.zeros((1, SIZE)))


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
    apart = separated(vectors, vectors @ MATRIX, beside(stretched, CLOSE[1:4]))
    kept = np.asarray(apart.companions.vectors)
    np.testing.assert_allclose(kept[:2] @ kept[:2].T, np.eye(2), atol=1e-9)
    assert outside(apart.vector, AXES[0]) < 1e-9
    assert outside(kept[0], AXES[1]) < 0.03
    np.testing.assert_allclose(apart.companions.values, [0.99, 0.98, 0.97], rtol=2e-3)


def test_looks_take_the_nearest_companion_at_every_other_and_each_in_turn():
    assert [int(due(look, 4)) for look in range(8)] == [0, 1, 0, 2, 0, 3, 0, 1]
    assert {int(due(look, 1)) for look in range(5)} == {0}


def test_one_product_of_their_sum_shows_the_eigenvalues_of_all_companions_and_of_the_scout():
    """Of eigenvectors exactly, whatever they were thought to be: one has come to twice the top."""
    steep = AXES.T @ np.diag(np.where(np.arange(SIZE) == 2, 2.0, CLOSE)) @ AXES
    known = beside(AXES[1:4], CLOSE[1:4])._replace(scout=jnp.asarray(0.1 * AXES[0] + AXES[2] + 0.3 * AXES[5])[None])
    mixed = mixture(known, jnp.asarray(AXES[0]))
    np.testing.assert_allclose([mixed.vector @ mixed.vector, mixed.vector @ AXES[0]], [1, 0], atol=1e-12)
    np.testing.assert_allclose(risen(known, mixed, steep @ mixed.vector), [CLOSE[1], 2, CLOSE[3], CLOSE[5]], rtol=1e-9)


def test_the_scout_comes_to_the_largest_of_what_is_not_known():
    """In six looks, as in as many steps of power iteration: 0.6 among eigenvalues up to 0.3, from a random vector."""
    hidden = AXES.T @ np.diag(np.where(np.arange(SIZE) == 4, 0.6, CLOSE)) @ AXES
    known = beside(AXES[1:4], CLOSE[1:4])._replace(scout=jnp.asarray(np.random.default_rng(3).standard_normal((1, SIZE))))
    for _ in range(6):
        mixed = mixture(known, jnp.asarray(AXES[0]))
        shown = hidden @ mixed.vector
        known = known._replace(scout=shown[None])
    assert outside(mixed.scout, AXES[4]) < 0.4
    np.testing.assert_allclose(risen(known, mixed, shown)[-1], 0.6, rtol=0.1)


def test_a_further_product_finds_the_companion_that_is_missing():
    """The top eigenvector halfway to the second, which is none of the companions: what the first vector has beside the next is that one."""
    vector = jnp.asarray(unit(AXES[0] + AXES[1]))
    known = beside(AXES[2:4], CLOSE[2:4])
    image = jnp.asarray(MATRIX @ vector)
    first = tried(vector, image, separated(vector[None], image[None], known), 1)
    assert first.residual < 0.006  # small, since the two are 1 % apart: the value is off by half of that
    np.testing.assert_allclose(first.sharpness, 0.995)
    second = next_trial(lambda v: jnp.asarray(MATRIX) @ v, first._replace(beside=first.beside._replace(companions=known)))
    assert second.hvps == 2
    assert outside(second.beside.vector, AXES[0]) < 1e-6
    np.testing.assert_allclose(second.beside.companions.values, CLOSE[1:3], rtol=6e-3)  # of what is stale, relative to that vector's
    np.testing.assert_allclose(second.beside.shortfall, 1 - second.sharpness, rtol=1e-6)
