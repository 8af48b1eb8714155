"""The orbits of a phase portrait, |x|/δ against y: those that a run has recorded, and those from a start that the user placed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine import theory
from eos_tui.draw.plot_spec import DASHED, OTHERS, Pen, Window
from eos_tui.model.history import History
from eos_tui.model.placed_orbit import Start

TRAIL = 150
"""Rows of an orbit that are drawn: the newest third bright, the two before it fading."""
SETTLED_ROWS = 15
"""Rows at an orbit's end over which its g is a median: each step of the map shifts it a little."""
REAL = Pen("━━", 1, 0, "*")


class Orbit(NamedTuple):
    """A path through the portrait, the newest point last; NaN where it has none."""

    label: str
    role: str
    pen: Pen
    x: np.ndarray
    """|x|/δ."""
    y: np.ndarray

    @property
    def now(self) -> tuple[float, float] | None:
        """Its newest point, unless it has left."""
        if not len(self.x) or not (np.isfinite(self.x[-1]) and np.isfinite(self.y[-1])):
            return None
        return float(self.x[-1]), float(self.y[-1])

    def level(self, alpha: float) -> float:
        """Lemma 3's g: the median over the last rows; NaN where there is none."""
        with np.errstate(all="ignore"):
            g = theory.conserved(self.x[-SETTLED_ROWS:], self.y[-SETTLED_ROWS:], alpha, 2 * alpha)  # δ = 1 in these coordinates
        g = g[np.isfinite(g)]
        return float(np.median(g)) if len(g) else math.nan


class Constants(NamedTuple):
    """The constants of the simplified system."""

    alpha: float
    beta: float
    delta: float
    epsilon: float
    learning_rate: float

    @property
    def turns(self) -> bool:
        """Whether there is a fixed point to turn around: α > 0, so that δ is defined."""
        return math.isfinite(self.delta)


class Scene(NamedTuple):
    """The contents of a portrait at one moment."""

    constants: Constants
    orbits: list[Orbit]
    """The real orbit first, then the predicted ones; of a phase run those of the map before those of the flow."""
    start: Start | None = None
    """A start that the user placed."""

    @property
    def own(self) -> list[Orbit]:
        """The flow and the map from the placed start, as far as they are drawn."""
        if self.start is None:
            return []
        flow, mapped = (orbit[max(self.start.age + 1 - TRAIL, 0) : self.start.age + 1] for orbit in self.start.orbits())
        return [Orbit("flow (4) from +", "good", OTHERS[0], *flow.T), Orbit("map (3) from +", "warn", OTHERS[1], *mapped.T)]

    @property
    def now(self) -> tuple[float, float] | None:
        """The newest point of the real orbit."""
        return self.orbits[0].now if self.orbits else None


def scene(history: History, window: Window, forms: Sequence[str], given: tuple[float, float] | None, start: Start | None) -> Scene | None:
    """The scene at the cursor, or else at the end of the window; None before there are any constants. α and β are `given` where the run
    does not record them. There are no orbits where δ is undefined.
    """
    row = _row_shown(history, window)
    constants = _constants(history, row, given)
    if constants is None:
        return None
    return Scene(constants, _recorded(history, row, forms, constants) if constants.turns else [], start)


def _row_shown(history: History, window: Window) -> int:
    """The row at the cursor, or the last in view; −1 while there is none."""
    if not len(history):
        return -1
    return history.row_near(window.stop if window.cursor is None else window.cursor)


def _constants(history: History, row: int, given: tuple[float, float] | None) -> Constants | None:
    if row < 0:
        return None
    if history.has("constrained.alpha"):
        recorded = _latest(history, "constrained.alpha", row), _latest(history, "constrained.beta", row)
        given = given if math.isnan(recorded[0]) else recorded
    if given is None:
        return None
    (alpha, beta), rate = given, history.value("learning_rate", row)
    if history.has("threshold_ratio"):  # of momentum: neither (3) nor (4) go on at its η
        return Constants(alpha, beta, theory.delta(alpha, beta), history.value("constrained.epsilon", row), math.nan)
    return Constants(alpha, beta, theory.delta(alpha, beta), theory.epsilon(rate, alpha), rate)


def _recorded(history: History, row: int, forms: Sequence[str], constants: Constants) -> list[Orbit]:
    rows = max(row + 1 - TRAIL, 0), row + 1

    def orbit(family: str, label: str, role: str, pen: Pen, delta: np.ndarray | float) -> Orbit:
        x, y = history.values(f"{family}.x", *rows), history.values(f"{family}.y", *rows)
        with np.errstate(all="ignore"):
            return Orbit(label, role, pen, np.abs(x) / delta, y)

    if history.has("ode1.x"):
        starts = [k for k in range(1, 9) if history.has(f"ode{k}.x")]
        kinds = ("map", "map (3)", "gd", REAL), ("ode", "flow (4)", "flow", DASHED[0])
        return [orbit(f"{family}{k}", label, role, pen, constants.delta) for family, label, role, pen in kinds for k in starts]
    delta = history.values("constrained.delta", *rows)
    predicted = [(form, form, DASHED[k]) for k, form in enumerate(forms) if history.has(f"{form}.x")]
    return [orbit(family, label, family, pen, delta) for family, label, pen in (("gd", "real", REAL), *predicted)]


def _latest(history: History, name: str, row: int) -> float:
    """The value at the row, or the last finite one within the trail before it."""
    values = history.values(name, row + 1 - TRAIL, row + 1)
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else math.nan
