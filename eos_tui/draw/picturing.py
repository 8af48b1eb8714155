"""A plot as a picture over the cells of a terminal: its pixels, and where they lie."""

from typing import NamedTuple

import numpy as np


class CellSize(NamedTuple):
    """Pixels of a terminal's cell."""

    width: int
    height: int


class Pixels(NamedTuple):
    """A picture and the cell, of the rows that it lies over, where it begins."""

    row: int
    column: int
    rgba: np.ndarray
    """(pixels down, pixels across, 4), of whole cells."""
