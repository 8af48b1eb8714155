"""How long a burst takes, and how long the means over two of them are still to be waited for: a shorter window claims nothing, and the
screen says so.
"""

import math

import numpy as np

from engine.record.threshold import RATE
from eos_tui.model.history import History

MEASURED = ("average.", "covariance.measured_")
"""How the columns of such means begin."""
WINDOW, CENTER, EPSILON = "average.steps", "constrained.loss", "constrained.epsilon"


def period(history: History) -> float:
    """Steps from a small burst to the next at the newest row that has an ε, 2π/(√2 ε); NaN where there is none."""
    epsilon = history.last(EPSILON) if history.has(EPSILON) else math.nan
    return 2 * math.pi / (math.sqrt(2) * epsilon) if epsilon > 0 else math.nan


def words(history: History) -> str:
    """What the means wait for at the newest row; empty where they are there, or where there is no θ†."""
    return history.once(("two bursts",), lambda: _words(history))


def _words(history: History) -> str:
    last = len(history) - 1
    if last < 0 or not all(history.has(name) for name in (WINDOW, CENTER, RATE)):
        return ""
    steps = history.value(WINDOW, last)
    if not 0 < steps < math.inf or math.isfinite(history.value("average.loss", last)):
        return ""
    seen = _seen(history, last, int(min(steps, len(history))))
    if seen >= steps:
        return f"means need two bursts: {steps:,.0f} steps are too many to keep"
    return f"means need two bursts: {steps - seen:,.0f} more steps"


def _seen(history: History, last: int, most: int) -> int:
    """Of the rows up to the last, how many have a θ† at its learning rate; `most` are looked at."""
    center, rate = (history.values(name, last + 1 - most, last + 1)[::-1] for name in (CENTER, RATE))
    without = np.flatnonzero(~np.isfinite(center) | (rate != rate[:1]))
    return int(without[0]) if len(without) else most
