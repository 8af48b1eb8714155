"""Directions in half the bits of float32, as they are kept between steps where the eigensolver starts from them, or looks at them, and no
number is read off them. Each is off by 3e-4 of itself at most: of a vector whose residual is to be within less, what is kept so is what it
differs by from one that is kept whole. So are small steps (`Shortened`) to where a point is then measured. In float64, which is asked for
where digits count, they are kept as they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.xla.reductions import norms

UNIT = 2.0**-14
"""What a vector is told in units of: 16 bits have no number over 65,504, and fewer digits of what is under 6e-5."""


def halved(rows: Array) -> Array:
    """Vectors (…, p) of a length under 4 in half their bits, where they are float32; of the host where they are."""
    return (rows / np.asarray(UNIT, rows.dtype)).astype("float16") if rows.dtype == "float32" else rows


def whole(rows: Array, dtype: str | np.dtype) -> Array:
    """The vectors that were `halved`, in a number format."""
    return rows.astype(dtype) * np.asarray(UNIT, dtype) if rows.dtype == "float16" else rows.astype(dtype)


class Shortened(NamedTuple):
    """A vector of any length in half its bits, where it is float32."""

    halves: Array  # (p,) `halved`, of unit length
    length: Array  # ()

    def whole(self, dtype: str | np.dtype) -> Array:
        """In a number format, (p,)."""
        return whole(self.halves, dtype) * self.length.astype(dtype)


@jax.jit
def shortened(vector: Array) -> Shortened:
    """A vector (p,) as it is kept."""
    if vector.dtype != "float32":
        return Shortened(vector, jnp.ones((), vector.dtype))
    (length,) = norms(vector)
    return Shortened(halved(vector * (1 / jnp.where(length > 0, length, 1))), length)
