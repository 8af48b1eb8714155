"""A start (X, Y) placed in the phase portrait, and where the flow (4) and the map (3) go from there."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from engine import theory

TURNS = 3
"""Turns of the flow that are followed."""
MOST = 4000
"""Steps followed at most, and those of a start from which the flow does not turn."""
FRAMES = 40
"""Frames in which a turn is drawn."""
LEAST = 1e-3
"""Smallest |X|/δ of a start: an orbit from X = 0 never turns."""
BOUND = 12.0
"""Largest |X|/δ and |Y|/√α of a start."""


class Start(NamedTuple):
    """A start, the constants it was placed under, and how far its orbits are drawn."""

    x: float
    """|X|/δ."""
    y: float
    alpha: float
    beta: float
    learning_rate: float
    age: int = 0
    """Steps drawn."""

    def moved(self, x: float, y: float) -> "Start":
        """Another start under the same constants, drawn from its beginning."""
        bound = BOUND * math.sqrt(self.alpha)
        return self._replace(x=min(max(x, LEAST), BOUND), y=min(max(y, -bound), bound), age=0)

    def older(self) -> "Start":
        """A frame later."""
        steps = len(self.orbits()[0]) - 1
        return self._replace(age=min(self.age + max(round(self.period() / FRAMES), 1), steps))

    def energy(self) -> float:
        """Lemma 3's g at the start."""
        return float(theory.conserved(self.x, self.y, self.alpha, 2 * self.alpha))  # δ = 1 in these coordinates

    def period(self) -> float:
        """Steps of a turn of the flow."""
        steps = theory.period(float(f"{self.energy():.4g}"), self.alpha, self.beta, self.learning_rate)
        return steps if math.isfinite(steps) else float(MOST)

    def orbits(self) -> tuple[np.ndarray, np.ndarray]:
        """The flow and the map from the start, each (steps, 2) of |X|/δ and Y; NaN where they overflow."""
        return _orbits(self.x, self.y, self.alpha, self.beta, self.learning_rate, min(math.ceil(TURNS * self.period()), MOST))

    def words(self) -> tuple[str, str]:
        """Where it is, and the period and the amplitude of its orbit."""
        bounds = theory.bounds(self.energy(), self.alpha, self.beta)
        most = bounds.x_max / theory.delta(self.alpha, self.beta)
        return (f"start X {self.x:.3g}δ  Y {self.y:.3g}",
                f"period {self.period():.0f}  |X| ≤ {most:.2f}δ  |Y| ≤ {bounds.y_max:.3g}")


@lru_cache(maxsize=8)
def _orbits(x: float, y: float, alpha: float, beta: float, learning_rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    delta, times = theory.delta(alpha, beta), learning_rate * np.arange(steps + 1)
    with np.errstate(all="ignore"):
        flow = theory.flow_orbit(x * delta, y, alpha, beta, times)
        mapped = theory.map_orbit(x * delta, y, alpha, beta, learning_rate, steps)
        mapped[~np.isfinite(mapped).all(axis=1)] = np.nan
    mapped[:, 0] = np.abs(mapped[:, 0])  # its sign alternates
    return flow / (delta, 1), mapped / (delta, 1)
