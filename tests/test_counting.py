"""The count of what the host asks of the device sees what it is to see."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from places import TESTS

sys.path.insert(0, str(TESTS / "bench"))

import counting


def test_executions_and_conversions_are_counted_a_planted_one_too():
    """`float(x)` between compiled calls, which a guard of transfers lets pass on a CPU."""
    double, total, start = jax.jit(lambda x: 2 * x), jax.jit(jnp.sum), jnp.ones(3)
    double(start).block_until_ready()
    total(start).block_until_ready()

    def clean():
        return double(double(double(start)))

    def planted():
        x = double(start)
        with jax.transfer_guard_device_to_host("disallow"):
            value = float(total(x))
        return double(double(x)), value

    def planted_in_numpy():
        return np.array(double(start)), np.asarray(double(start), float)

    assert counting.asked(clean) == (3, 0)
    assert counting.asked(planted) == (4, 1)
    assert counting.asked(planted_in_numpy) == (2, 2)
