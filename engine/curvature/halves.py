"""Directions in half the bits of float32, as they are kept between steps where the eigensolver starts from them, or looks at them, and no
number is read off them. Each is off by 3e-4 of itself at most: of a vector whose residual is to be within less, what is kept so is what it
differs by from one that is kept whole. In float64, which is asked for where digits count, they are kept as they are.
"""

import numpy as np
from jax import Array

UNIT = 2.0**-14
"""What a vector is told in units of: 16 bits have no number over 65,504, and fewer digits of what is under 6e-5."""


def halved(rows: Array) -> Array:
    """Vectors (…, p) of a length under 4 in half their bits, where they are float32; of the host where they are."""
    return (rows / np.asarray(UNIT, rows.dtype)).astype("float16") if rows.dtype == "float32" else rows


def whole(rows: Array, dtype: str | np.dtype) -> Array:
    """The vectors that were `halved`, in a number format."""
    return rows.astype(dtype) * np.asarray(UNIT, dtype) if rows.dtype == "float16" else rows.astype(dtype)
