"""Symmetric matrices as vectors of the entries that they have: the upper triangle, column by column.

So ordered the entries of the leading rows and columns come first: a smaller matrix is the beginning of a larger one.
"""

import numpy as np
from jax import Array

from engine.theory import pairs


def packed(matrix: Array) -> Array:
    """The entries X_ij, i ≤ j, of a symmetric matrix (K, K), in the order of `theory.pairs`."""
    return matrix[pairs(len(matrix))]


def unpacked(vector: Array) -> Array:
    """The symmetric matrix (K, K) of entries (K(K+1)/2,) in the order of `theory.pairs`."""
    count = side(len(vector))
    rows, columns = np.indices((count, count))
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    return vector[high * (high + 1) // 2 + low]


def side(entries: int) -> int:
    """Rows of a symmetric matrix with so many entries."""
    return (int(np.sqrt(8 * entries + 1)) - 1) // 2
