"""The words of a phase portrait: its caption of constants and cycle, and why it is empty."""

import math
from functools import lru_cache

from engine import theory
from engine.record.columns import Column
from eos_tui.draw import axes
from eos_tui.draw.decorations import nothing_before_the_edge
from eos_tui.draw.orbits import Constants, Scene
from eos_tui.model.history import History

FARTHEST = 12.0
"""|x|/δ and |y|/√α that the axes go to at most: the cycle of an orbit that comes there began with |x| = δ·10⁻³¹."""
READ_OFF = (
    Column("g", "g", "conserved along the flow (4), by which its orbits are told apart", "", "g = h(βX²/2α) + Y²/α", "Lemma 3"),
    Column("period", "period", "steps of a turn on the level set of g", "", "∮ dq/(2Y) / η, q = log X²", "Lemma 3"),
    Column("x_max", "|x| ≤", "how far the orbit goes along u", "", "δ√(−W₋₁(−e^(−1−g)))", "Lemma 3"),
    Column("y_max", "|y| ≤", "how far its sharpness goes", "", "√(αg)", "Lemma 3"),
)
"""Quantities in the caption below the portrait, of the orbit's last rows."""


def caption(scene: Scene, g: float, width: int) -> list[str]:
    """The period and height of the cycle of this g, and the constants: on one line where they fit."""
    known = scene.constants
    constants = "  ".join(
        f"{name} {axes.number(value, 3)}"
        for name, value in (("α", known.alpha), ("β", known.beta), ("δ", known.delta), ("ε", known.epsilon))
    )
    if scene.start is not None:
        where, turn = scene.start.words()
        return [f"{where}  {turn}", constants] if len(where) + 2 + len(turn) <= width else [where, turn]
    if scene.now and not _in_reach(scene.now, known.alpha):
        return ["the orbit has left the plot", constants]
    if not (g > 0 and known.epsilon > 0):
        return [constants]
    period = _unit_period(float(f"{g:.3g}")) / known.epsilon
    extremes = theory.bounds(g, known.alpha, known.beta)
    cycle = f"period {period:.0f}  |x| ≤ {extremes.x_max / known.delta:.2f}δ  |y| ≤ {axes.number(extremes.y_max, 3)}"
    return [f"{constants}  {cycle}"] if len(constants) + 2 + len(cycle) <= width else [cycle, constants]


def undefined(constants: Constants) -> str:
    """Why there is no portrait where α ≤ 0."""
    return (f"δ = √(2α/β) is undefined here: α = {axes.number(constants.alpha)}, β = {axes.number(constants.beta)}. "
            "Without progressive sharpening (α > 0, Assumption 1) there is no fixed point to turn around.")


def why_empty(history: History, at_end: bool) -> str:
    """Why a portrait has no constants, at the newest row (`at_end`) or at the cursor."""
    if history.has("ode1.x") and len(history):
        return "α and β of this run are not known"
    if history.columns and not history.has("constrained.alpha"):
        return "this run follows no θ†: there is no displacement x from it, and no δ"
    if history.columns and not math.isnan(history.last("constrained.alpha")) and at_end:
        return "θ† is no longer followed"
    return nothing_before_the_edge(history)


def reach(alpha: float) -> tuple[float, float]:
    """|x|/δ and |y| that the axes go to at most."""
    return FARTHEST, FARTHEST * math.sqrt(alpha)


def _in_reach(point: tuple[float, float], alpha: float) -> bool:
    right, height = reach(alpha)
    return point[0] <= right and abs(point[1]) <= height


@lru_cache(maxsize=64)
def _unit_period(g: float) -> float:
    """The period on the level set g times ε: y goes with √α, so that nothing but g is left."""
    return theory.period(g, 1.0, 1.0, 1.0)
