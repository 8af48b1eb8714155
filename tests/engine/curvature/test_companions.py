"""The eigenvectors beside the top one: separated by one product, against dense ones in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.curvature.companions import Companions, mixture, next_trial, risen, separated, tried, unknown

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


def rising(known, hessian, turn=0):
    """What a look's product of all of them shows to have risen under a Hessian, and that product."""
    mixed = mixture(known, jnp.asarray(AXES[0]), jnp.asarray(turn))
    image = jnp.asarray(hessian @ mixed)
    return np.asarray(risen(known, mixed, image, jnp.asarray(1.0))), mixed, image


def test_one_product_of_their_sum_shows_which_companion_has_risen():
    """Of eigenvectors exactly, whatever the scout: one has come to twice the top, another has fallen to half of its own."""
    now = np.where(np.arange(SIZE) == 2, 2.0, np.where(np.arange(SIZE) == 3, 0.5 * CLOSE, CLOSE))
    steep = AXES.T @ np.diag(now) @ AXES
    known = beside(AXES[1:4], CLOSE[1:4])._replace(scout=jnp.asarray(0.1 * AXES[0] + AXES[2] + 0.3 * AXES[5])[None])
    for turn in range(4):
        row, mixed, _ = rising(known, steep, turn)
        np.testing.assert_allclose([mixed @ mixed, mixed @ AXES[0]], [1, 0], atol=1e-12)
        share = AXES[1:4] @ mixed
        np.testing.assert_allclose(AXES[1:4] @ row, share * np.array([0, 2 - CLOSE[2], now[3] * (now[3] - CLOSE[3])]), atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(AXES[1:4] @ row), np.linalg.norm(row), rtol=1e-12)


def test_what_cancels_in_one_sum_of_the_companions_does_not_in_the_next():
    """The top one of three eigenvectors that three companions are mixed of: their sum has none of it, with other signs it has."""
    turned, _ = np.linalg.qr(np.stack([[1, 1, 1], [1, 0, 0], [0, 1, 0]]).T)  # rows of `turned.T` but the first have no sum
    turned = turned[:, [1, 0, 2]].T
    assert abs(turned[0].sum()) < 1e-12
    hessian = AXES.T @ np.diag(np.where(np.arange(SIZE) == 1, 2.0, CLOSE)) @ AXES
    known = beside(turned.T @ AXES[1:4], CLOSE[1:4])  # companion k has turned[0, k] of the one that rises
    along = [abs(rising(known, hessian, turn)[1] @ AXES[1]) for turn in range(4)]
    assert along[0] < 1e-12
    assert min(along[1:]) > 0.3


def test_exact_products_stand_and_what_is_not_known_of_the_rest_stays_as_it_was():
    """Of symmetric matrices with the images of two vectors that is nearest to what the companions say: Powell's update."""
    turn = np.random.default_rng(4).standard_normal((SIZE, SIZE))
    hessian = MATRIX + 0.01 * (turn + turn.T)
    given = np.stack([AXES[0], unit(AXES[1] + AXES[2] + AXES[6])])
    quotient, onto = AXES[0] @ hessian @ AXES[0], given.T @ given
    held = AXES[1:4].T @ np.diag(CLOSE[1:4] * quotient) @ AXES[1:4]
    rest = np.eye(SIZE) - onto
    nearest = hessian @ onto + onto @ hessian @ rest + rest @ held @ rest
    space, _ = np.linalg.qr(np.stack([*given, *AXES[1:4]]).T)
    values = np.linalg.eigvalsh(space.T @ nearest @ space)[::-1]
    apart = separated(jnp.asarray(given), jnp.asarray(given @ hessian), beside(AXES[1:4], CLOSE[1:4]))
    np.testing.assert_allclose(apart.shortfall, 1 - quotient / values[0], rtol=1e-9)
    np.testing.assert_allclose(apart.companions.values, values[1:4] / values[0], rtol=1e-9)


def test_the_scout_comes_to_the_largest_of_what_is_not_known():
    """In six looks, as in as many steps of power iteration: 0.6 among eigenvalues up to 0.3, from a random vector."""
    hidden = AXES.T @ np.diag(np.where(np.arange(SIZE) == 4, 0.6, CLOSE)) @ AXES
    known = beside(AXES[1:4], CLOSE[1:4])._replace(scout=jnp.asarray(np.random.default_rng(3).standard_normal((1, SIZE))))
    for turn in range(6):
        _, mixed, image = rising(known, hidden, turn)
        known = known._replace(scout=image[None])
    rest = mixed - AXES[1:4].T @ (AXES[1:4] @ mixed)
    assert outside(rest, AXES[4]) < 0.4
    np.testing.assert_allclose(unit(rest) @ hidden @ unit(rest), 0.6, rtol=0.1)


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
