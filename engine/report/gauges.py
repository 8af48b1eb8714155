"""The assumptions of the theory as gauges: what each asks for, and when its reading is green, amber or red. Without jax.

Appendix E shows eight quantities a setting, in plots that are numbered 1 to 8 here: plot 1 is Assumption 1 (α > 0), plot 2 that ε is
small, plots 3 and 4 Assumption 4 (γ, ‖∇S⊥‖/ρ3), plot 5 Assumption 3 (ρ4/(ηρ3²)), plots 6 to 8 Assumption 5 (v⊥, g⊥). Assumption 2 is read
off λ2. What "small", "Θ(1)" and "O(ε)" mean in numbers is
not the paper's but ours, by one rule each, stated with its reason in `RULES`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from engine.base.citations import PLACES
from engine.report.narrative import CLOSE_SECOND, LARGE_EPSILON

Verdict = Literal["green", "amber", "red", "none"]
"""`none`: not measured, or nothing to measure it against."""

LOST_EPSILON = 0.3
NEAR_ONE, FAR_FROM_ONE = 10.0, 100.0
NEAR_EPSILON, FAR_FROM_EPSILON = 3.0, 10.0
NO_LONGER_SMALL = 0.5


class Rule(NamedTuple):
    """What a reading is judged by."""

    words: str
    reason: str
    judge: Callable[[float, float, float], Verdict]
    """(reading, ε, limit of λ2·η) -> verdict; the reading is finite."""


def _banded(value: float, green: float, amber: float) -> Verdict:
    return "green" if value <= green else "amber" if value <= amber else "red"


def _order_epsilon(value: float, epsilon: float, _: float) -> Verdict:
    if not math.isfinite(epsilon):
        return "red" if value > NO_LONGER_SMALL else "none"
    found = _banded(value, NEAR_EPSILON * epsilon, FAR_FROM_EPSILON * epsilon)
    return "red" if value > NO_LONGER_SMALL else found


def _gap(value: float, _: float, limit: float) -> Verdict:
    return "red" if value >= limit else _banded(value, CLOSE_SECOND, limit)


RULES: dict[str, Rule] = {
    "positive": Rule(
        "green above 0, else red", "at α ≤ 0 nothing drives the sharpness to the edge, and δ and ε do not exist",
        lambda value, _, __: "green" if value > 0 else "red",
    ),
    "small": Rule(
        f"green to {LARGE_EPSILON:g}, amber to {LOST_EPSILON:g}, red beyond",
        "the default problem's predictions hold 100 steps at ε = 0.1, 40 at 0.19; at 0.3, 1/ε is 3 steps",
        lambda value, _, __: _banded(value, LARGE_EPSILON, LOST_EPSILON),
    ),
    "order one": Rule(
        f"green from {1 / NEAR_ONE:g}, amber from {1 / FAR_FROM_ONE:g}, red below",
        "neither exceeds 1; within a decade is Θ(1); γ of a random direction is 1/√p, at p = 10⁴ that is 0.01",
        lambda value, _, __: "red" if value <= 0 else _banded(1 / value, NEAR_ONE, FAR_FROM_ONE),
    ),
    "bounded": Rule(
        f"green to {NEAR_ONE:g}, amber to {FAR_FROM_ONE:g}, red beyond", "O(1) within one decade, and doubtful within two",
        lambda value, _, __: _banded(value, NEAR_ONE, FAR_FROM_ONE),
    ),
    "order epsilon": Rule(
        f"green to {NEAR_EPSILON:g}ε, amber to {FAR_FROM_EPSILON:g}ε, red beyond or above {NO_LONGER_SMALL:g}",
        "O(ε) with a constant up to 3, doubtful to 10; 1 is the worst case, and half of it is never small",
        _order_epsilon,
    ),
    "gap": Rule(
        f"green to {CLOSE_SECOND:g}, red at the limit, else amber",
        "a second direction is unstable at 2; the authors stop at 1.9, the limit unless the run sets another",
        _gap,
    ),
}


class Gauge(NamedTuple):
    """One quantity that an assumption speaks of."""

    label: str
    """Its number among the plots of Appendix E, which is no assumption's; A2 is Assumption 2, on λ2."""
    formula: str
    claim: str
    column: str
    rule: str
    """Key of `RULES`."""
    source: str


GAUGES: tuple[Gauge, ...] = (
    Gauge("1", "α = −∇L·∇S", "> 0", "constrained.alpha", "positive", PLACES["α > 0"] + "; α: " + PLACES["α"]),
    Gauge("2", "ε = η√α", "small", "constrained.epsilon", "small", PLACES["ε"]),
    Gauge("3", "γ = α/(‖∇L‖‖∇S⊥‖)", "Θ(1)", "constrained.gamma", "order one", PLACES["γ"]),
    Gauge("4", "‖∇S⊥‖/ρ3", "Θ(1)", "assumption.stabilization", "order one", PLACES["‖∇S⊥‖/ρ3"]),
    Gauge("5", "ρ4/(ηρ3²)", "O(1)", "assumption.quartic", "bounded", PLACES["ρ4/(ηρ3²)"]),
    Gauge("6", "‖∇³L(v⊥,v⊥)‖/(ρ3‖v⊥‖²)", "O(ε)", "assumption.cubic_displacement", "order epsilon", PLACES["v⊥"]),
    Gauge("7", "‖∇³L(g⊥,g⊥)‖/(ρ3‖g⊥‖²)", "O(ε)", "assumption.cubic_gradient", "order epsilon", PLACES["g⊥"]),
    Gauge("8", "|∇²L(v⊥,v⊥)|/((2/η)‖v⊥‖²)", "O(ε)", "assumption.quadratic_displacement", "order epsilon", PLACES["v⊥"]),
    Gauge("A2", "η·λ2(θ†)", "< 1.9", "constrained.lambda2", "gap", PLACES["λ2"]),
)
"""At θ†, with v = θ − θ†, g = ∇L(θ†), and ⊥ for what is left when the component along u is removed. ρ3 and ρ4 are lower bounds, so
4, 6 and 7 are upper ones, and 5 is neither."""


def reading(gauge: Gauge, row: Mapping[str, float]) -> float:
    """What the gauge shows in a row of the record; NaN where it was not measured."""
    value = row.get(gauge.column, math.nan)
    return value * row.get("learning_rate", math.nan) if gauge.rule == "gap" else value


def verdict(gauge: Gauge, value: float, epsilon: float, second_eigenvalue_limit: float) -> Verdict:
    """Green, amber or red for a reading, ε at the same step, and the specification's limit of λ2·η."""
    if not math.isfinite(value):
        return "none"
    return RULES[gauge.rule].judge(value, epsilon, second_eigenvalue_limit)
