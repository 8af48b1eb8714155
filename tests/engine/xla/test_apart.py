"""Taking a vector apart is as jax's own split is, with all its derivatives, alone and many at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine.xla.split import take_apart

pytestmark = pytest.mark.usefixtures("x64")
SIZES = (2, 1, 4, 3)
POINT = np.arange(10.0) / 7


def loss_through(split):
    """A function of the parts, one of them unused."""

    def loss(theta):
        first, _, third, last = split(theta, SIZES)
        return jnp.sum(jnp.sin(first)) * jnp.sum(third**3) + jnp.sum(third) * last @ last

    return loss


@pytest.mark.parametrize("derivative", [
    jax.value_and_grad, jax.hessian, lambda f: jax.jacfwd(jax.jacfwd(jax.grad(f))), lambda f: jax.jacrev(jax.jacrev(f)),
    lambda f: lambda theta: jax.linearize(jax.grad(f), theta)[1](theta**2),
    lambda f: lambda theta: jax.vmap(f, in_axes=1)(jnp.stack([theta, 2 * theta], axis=1)),
    lambda f: lambda theta: jax.vmap(jax.grad(f))(jnp.stack([theta, 2 * theta])),
    lambda f: jax.grad(jax.checkpoint(f)),
], ids=["gradient", "Hessian", "third", "reverse twice", "product", "last axis", "batch", "checkpoint"])
def test_a_loss_of_the_parts_has_the_derivatives_that_it_has_through_split(derivative):
    theta = jnp.asarray(POINT)
    ours, jaxs = (jax.jit(derivative(loss_through(split)))(theta) for split in (take_apart, lax.split))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), ours, jaxs)


def test_outside_of_a_compiled_function_too():
    theta = jnp.asarray(POINT)
    for derivative in (jax.value_and_grad, lambda f: lambda at: jax.jvp(jax.grad(f), (at,), (at**2,))[1]):
        ours, jaxs = (derivative(loss_through(split)) for split in (take_apart, lax.split))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), ours(theta), jax.jit(jaxs)(theta))


def test_the_parts_are_put_together_one_by_one():
    """Not by a concatenation, into which XLA would fuse what makes the parts."""
    assert "concatenate" not in str(jax.make_jaxpr(jax.hessian(loss_through(take_apart)))(POINT))
    assert "concatenate" in str(jax.make_jaxpr(jax.hessian(loss_through(lax.split)))(POINT))


def test_the_two_largest_parts_are_the_first_and_the_last():
    """XLA fuses the last with what is computed of the vector: where that is a sum over examples, at every number of it."""
    jaxpr = jax.make_jaxpr(jax.grad(lambda theta: sum(jnp.sum(part**2) for part in take_apart(theta, SIZES))))(POINT)
    written = [eqn.invars[1].aval.size for eqn in jaxpr.eqns if eqn.primitive.name == "dynamic_update_slice"]
    assert written == [4, 1, 2, 3]
