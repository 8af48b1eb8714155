"""The stability threshold of a record: the sharpness above which steps are unstable, 2/η for gradient descent.

A run records it in the column `threshold`. A record made before there was such a column holds a run of gradient descent: there it is
2/η of the column `learning_rate`. Whoever reads a record takes the threshold from here.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from engine import theory

THRESHOLD, RATE = "threshold", "learning_rate"

Values = TypeVar("Values", float, np.ndarray)


def of_gradient_descent(rate: Values) -> Values:
    """2/η; NaN where η is no positive number."""
    if isinstance(rate, np.ndarray):
        with np.errstate(over="ignore"):  # of the smallest rates it is ∞
            return theory.threshold(np.where(np.isfinite(rate) & (rate > 0), rate, np.nan))
    return theory.threshold(rate) if 0 < rate < math.inf else math.nan


def _positive(levels: Values) -> Values:
    """The levels, NaN where one is not above 0: a share of it would say nothing."""
    if isinstance(levels, np.ndarray):
        return np.where(levels > 0, levels, np.nan)
    return levels if levels > 0 else math.nan


def column_of(recorded: Callable[[str], bool]) -> str | None:
    """The column that the threshold is read from, of those recorded: its own, else `learning_rate`; None where there is neither."""
    return next((name for name in (THRESHOLD, RATE) if recorded(name)), None)


def read_threshold(read: Callable[[str], Values], recorded: Callable[[str], bool]) -> Values:
    """The threshold wherever `read` reads a column: in rows, in one row, in the parts of a window. NaN where there is no positive number;
    where the record has neither column, what `read` gives or raises for `learning_rate` stands.
    """
    return _positive(read(THRESHOLD)) if recorded(THRESHOLD) else of_gradient_descent(read(RATE))


def threshold(values: Mapping[str, Values]) -> Values:
    """The threshold of a table of columns, or of a row of values, by name."""
    return read_threshold(values.__getitem__, values.__contains__)


def at_rate(level: float, rate: float, other: float) -> float:
    """The threshold at another learning rate than the one it was recorded at: it is in inverse proportion to η. NaN where one is no positive
    number."""
    return level if rate == other else level * rate / other if rate > 0 and other > 0 else math.nan


def in_force(row: Mapping[str, float], rate: float) -> float:
    """The threshold of the next step, which is taken at this learning rate, by the newest row; NaN while there is no row."""
    if column_of(row.__contains__) is None:
        return math.nan
    return at_rate(threshold(row), row.get(RATE, math.nan), rate)
