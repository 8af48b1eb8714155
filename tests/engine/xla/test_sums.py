"""Inner products taken together: the same as exact ones, however long the vectors are and however many there are."""

from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.xla.reductions import LONG, SHARES, TOGETHER, along_each, dots, inner_products, norms

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("size", [1, 3, LONG - 1, LONG, LONG + 1, LONG + SHARES - 1, 200_003])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_inner_product_is_that_of_its_pair(size, dtype):
    """All pairs of five vectors, more than one pass takes; float32's are added up in float64, whose rounding grows as √p."""
    vectors = np.random.default_rng(size).standard_normal((5, size)).astype(dtype)
    pairs = list(combinations_with_replacement(vectors, 2))
    assert len(pairs) > TOGETHER
    products = jax.jit(dots)(*((jnp.asarray(a), jnp.asarray(b)) for a, b in pairs))
    exact = [np.dot(a.astype(np.longdouble), b.astype(np.longdouble)) for a, b in pairs]
    rounding = 2 * np.finfo(dtype).eps + np.sqrt(size) * np.finfo(float).eps
    assert {entry.dtype.name for entry in products} == {dtype}
    np.testing.assert_allclose(np.array(products, float), np.array(exact, float), atol=rounding * max(np.abs(exact)), rtol=0)
    np.testing.assert_array_equal(jax.jit(inner_products)(*((jnp.asarray(a), jnp.asarray(b)) for a, b in pairs)), products)
    np.testing.assert_allclose(along_each(vectors, jnp.asarray(vectors[0])), np.array(exact[:5], float), atol=rounding * max(np.abs(exact)))
    np.testing.assert_allclose(np.array(norms(*vectors), float), np.linalg.norm(vectors.astype(float), axis=1), rtol=1e-6)


def test_many_at_once_under_vmap():
    vectors = jnp.asarray(np.random.default_rng(0).standard_normal((4, 2, LONG + 5)))
    squares, mixed = jax.vmap(lambda pair: dots((pair[0], pair[0]), (pair[0], pair[1])))(vectors)
    np.testing.assert_allclose(squares, jnp.sum(vectors[:, 0] ** 2, axis=1), rtol=1e-13)
    np.testing.assert_allclose(mixed, jnp.sum(vectors[:, 0] * vectors[:, 1], axis=1), rtol=1e-11)


def test_no_number_stays_none():
    for place in (0, LONG, LONG + 4):
        vector = jnp.ones(LONG + 5).at[place].set(jnp.nan)
        assert jnp.isnan(norms(vector)[0])
