"""The simplified system of Section 4: the map (3), the flow (4), and what Lemma 3 says of their orbits; and what Theorem 1 leaves over.
Without jax.

In ODE time τ = ηt the oscillation X and the change of sharpness Y follow X' = XY, Y' = α − βX²/2: a predator–prey
(Lotka–Volterra) system with fixed point (δ, 0), δ = √(2α/β), and conserved quantity g = h(X²/δ²) + Y²/α,
h(z) = z − log z − 1. The map (3) is its Euler step with alternating sign; it is not conservative: g grows by a factor of
about 1 + 2ε² a step, ε = η√α, so a long run of (3) spirals outward.
"""

import math
from typing import Any, NamedTuple

import numpy as np

STAGES = {
    1: "progressive sharpening",
    2: "blowup",
    3: "self-stabilization",
    4: "return to stability",
}
CONDITIONS = {1: "y ≤ 0, |x| ≤ δ", 2: "y > 0, |x| ≤ δ", 3: "y > 0, |x| > δ", 4: "y ≤ 0, |x| > δ"}
"""Where each stage is, by the text of Section 4.1."""
LARGEST_EXPONENT = 709.0
"""Of a number that float64 holds."""
HUGE = 1e60
"""α or β beyond which, or beneath whose inverse, the flow is not integrated."""
FLICKER = 0.05
"""How far beyond its border a stage must lie that is entered against the cycle's order: in units of δ for |x|, of √α for y."""


def threshold(learning_rate: Any) -> Any:
    """2/η, the sharpness above which gradient descent on a quadratic diverges (Section 1); scalars or arrays."""
    return 2 / learning_rate


def delta(alpha, beta):
    """δ = √(2α/β), the size of the oscillation at the fixed point; NaN unless α > 0 and β > 0. Scalars or arrays."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.greater(alpha, 0) & np.greater(beta, 0), np.sqrt(2 * np.divide(alpha, beta)), np.nan)[()]


def epsilon(learning_rate: float, alpha):
    """ε = η√α, the small parameter of the theory; NaN unless α > 0. Scalars or arrays."""
    with np.errstate(invalid="ignore"):
        return np.where(np.greater(alpha, 0), learning_rate * np.sqrt(alpha), np.nan)[()]


def map_step(x, y, alpha: float, beta: float, learning_rate: float):
    """One step of (3): x ← −(1+ηy)x, y ← y + η(α − βx²/2). Scalars or arrays."""
    return -(1 + learning_rate * y) * x, y + learning_rate * (alpha - beta * x**2 / 2)


def map_orbit(x0: float, y0: float, alpha: float, beta: float, learning_rate: float, steps: int) -> np.ndarray:
    """The orbit of (3) as (steps+1, 2) values of x and y, the start first."""
    points = [(float(x0), float(y0))]  # Python's own numbers: a third of the time of numpy's
    for _ in range(steps):
        try:
            points.append(map_step(*points[-1], alpha, beta, learning_rate))
        except OverflowError:
            points.append((np.nan, np.nan))
    return np.array(points)


def flow_orbit(x0: float, y0: float, alpha: float, beta: float, times: np.ndarray) -> np.ndarray:
    """The orbit of (4) at the given increasing ODE times, as (times, 2) values of X and Y; the first time is that of the start, and X
    keeps the sign of x0.

    Integrated by LSODA in q = log X², where it reads q' = 2Y, Y' = α − (β/2)e^q, to a tolerance of 1e-13 a step. NaN where |α| or |β|
    is beyond 1e60, or under 1e-60 and not 0: LSODA would complain on the terminal itself.
    """
    from scipy.integrate import odeint  # a quarter of a second that a viewer seldom needs

    times = np.asarray(times, float)
    if not all(constant == 0 or 1 / HUGE < abs(constant) < HUGE for constant in (alpha, beta)):
        return np.full((len(times), 2), np.nan)
    if x0 == 0:
        return np.stack([np.zeros_like(times), y0 + alpha * (times - times[0])], axis=1)

    def slope(state, _):
        q, y = state.tolist()
        return 2 * y, alpha - beta / 2 * (math.exp(q) if q < LARGEST_EXPONENT else math.inf)

    solution = odeint(slope, (np.log(x0**2), y0), times, rtol=1e-13, atol=1e-13, mxstep=100_000)
    return np.stack([np.sign(x0) * np.exp(solution[:, 0] / 2), solution[:, 1]], axis=1)


def h(z):
    """h(z) = z − log z − 1 ≥ 0, zero at z = 1. +inf at z = 0."""
    with np.errstate(divide="ignore"):
        return z - np.log(z) - 1


def conserved(x, y, alpha: float, beta: float):
    """Lemma 3: g = h(βX²/(2α)) + Y²/α, constant along (4). Scalars or arrays; α, β > 0."""
    return h(beta * np.square(x) / (2 * alpha)) + np.square(y) / alpha


def _log_intensity(level, branch: int):
    """q = log(X²/δ²) with h(e^q) = level: below the fixed point (branch 0) or above it (branch −1).

    This is q = −1 − g − W(−e^{−1−g}) with Lambert's W; but W loses half its digits near the fixed point, and scipy takes
    longer to import than a picture to draw. Newton's steps on the convex e^q − q − 1 = g begin at log(1 + g + √(2g)) above,
    and below at the series about q = 0 or, for large g, at −1 − g.
    """
    level = np.asarray(level, float)
    p = np.sqrt(2 * level)
    q = np.log1p(level + p) if branch == -1 else np.where(level < 1, -p - p**2 / 6 - p**3 / 36, -1 - level)
    for _ in range(4):
        slope = np.expm1(q)
        q = q - np.where(slope == 0, 0, (slope - q - level) / np.where(slope == 0, 1, slope))
    return q


class Bounds(NamedTuple):
    """The extremes of an orbit of (4), exact."""

    x_min: float
    x_max: float
    y_max: float


def bounds(g: float, alpha: float, beta: float) -> Bounds:
    """The extremes of |X| and |Y| on the level set g: X = δ√(−W(−e^{−1−g})) on both branches, |Y| = √(αg)."""
    d = delta(alpha, beta)
    low, high = (float(np.exp(_log_intensity(g, branch) / 2)) for branch in (0, -1))
    return Bounds(d * low, d * high, float(np.sqrt(alpha * g)))


def level_set(g: float, alpha: float, beta: float, points: int = 200) -> np.ndarray:
    """The closed orbit of level g as (points, 2) values of |X|/δ and Y, beginning at its smallest |X|.

    Points are even in the phase φ of log(X²/δ²) = mid + half·(−cos φ), so that both turning points are resolved.
    """
    if g <= 0:
        return np.tile([1.0, 0.0], (points, 1))
    low, high = _log_intensity(g, 0), _log_intensity(g, -1)
    phase = np.linspace(0, 2 * np.pi, points)
    q = (low + high) / 2 - (high - low) / 2 * np.cos(phase)
    y = np.sqrt(alpha * np.maximum(g - (np.exp(q) - q - 1), 0)) * np.where(phase < np.pi, 1, -1)
    return np.stack([np.exp(q / 2), y], axis=1)


def period(g: float, alpha: float, beta: float, learning_rate: float) -> float:
    """Steps around the level set g of (4): ∮ dq/(2Y)/η. Tends to 2π/(√2 ε) for small orbits, 2√g/ε for large ones. NaN where
    g < 0, which no orbit has.

    With Y = √(αg)·sin s, dτ = dY/|α(1 − e^q)| is integrated over s by the midpoint rule on both sides of X = δ; the
    integrand is smooth and periodic in s, so it converges fast.
    """
    if not g >= 0:
        return float("nan")
    if g == 0:
        return float(2 * np.pi / (np.sqrt(2) * epsilon(learning_rate, alpha)))
    points = 2000
    s = ((np.arange(points) + 0.5) / points - 0.5) * np.pi
    left = g * np.cos(s) ** 2  # h(e^q) at this Y
    speeds = [np.abs(alpha * np.expm1(_log_intensity(left, branch))) for branch in (0, -1)]
    total = sum(np.sum(np.sqrt(alpha * g) * np.cos(s) / speed) for speed in speeds) * np.pi / points
    return float(total / learning_rate)


def stage(x, y, delta):
    """The stage by the text of Section 4.1; 0 where δ or the displacement is undefined. Scalars or arrays.

    Those of `CONDITIONS`: the sharpness rises in 1 and 2 and falls in 3 and 4; |x| grows in 2 and 3 and decays in 4 and 1.
    """
    undefined = ~(np.isfinite(delta) & np.isfinite(x) & np.isfinite(y))
    large, above = np.greater(np.abs(x), delta), np.greater(y, 0)
    return np.select([undefined, large & above, large, above], [0, 3, 4, 2], 1)


ROUNDING = 1e-9
"""|y| in units of √α up to which it is none."""


def stages(x: np.ndarray, y: np.ndarray, delta: np.ndarray, alpha: np.ndarray, before: int = 0) -> np.ndarray:
    """The stages of successive steps, (steps,), each by the text of Section 4.1 but for flicker; `before` is that of earlier steps, or 0.

    An orbit of (4) goes through the stages in their order, so the next one begins where the text has it begin. One step back, from
    2 to 1 or from 1 to 4, is against that order: what the text calls so within 5 % of the border, in |x|/δ or in y/√α, keeps the
    stage that was. Near the fixed point |x| and y cross their borders at every other step. A y of rounding is 0: at its start θ† may lie
    a last digit beside 2/η.
    """
    labels = stage(x, np.where(np.abs(y) <= ROUNDING * np.sqrt(np.abs(alpha)), 0, y), delta)
    for k, now in enumerate(labels.tolist()):
        if now and before and (before - now) % 4 == 1:
            beyond = abs(abs(x[k]) - delta[k]) / delta[k] if now % 2 == 0 else abs(y[k]) / math.sqrt(alpha[k])
            if beyond < FLICKER:
                labels[k] = before
        before = int(labels[k]) or before
    return labels


def theorem_residuals(
    loss, sharpness, deviation, predicted_loss, predicted_sharpness, x, delta, epsilon, learning_rate: float, least: float
) -> dict[str, np.ndarray]:
    """Theorem 1 as numbers: how far gradient descent is from what the predicted dynamics say, next to the orders it states, by name.
    Scalars or arrays, one entry a step.

    For t ≤ O(1/ε) and |x⋆| ≥ cδ:  L(θ) = L(θ†) + x⋆²/η + O(εδ²/η),  S(θ) = 2/η + y⋆ + (∇S·u)x⋆ + O(ε²/η),  θ = θ† + v⋆ + O(εδ).

    `loss` and `sharpness` are those of gradient descent, `deviation` is ‖θ − θ† − v⋆‖, and `x` is x⋆. `hypothesis` is 1 where
    |x⋆| ≥ `least`·δ, else 0: there the theorem claims nothing. NaN where the prediction is lost or δ undefined.
    """
    holds = np.where(np.isnan(x) | np.isnan(delta), np.nan, np.abs(x) >= least * np.asarray(delta))
    return {
        "loss": abs(loss - predicted_loss), "loss_order": epsilon * delta**2 / learning_rate,
        "sharpness": abs(sharpness - predicted_sharpness), "sharpness_order": epsilon**2 / learning_rate,
        "deviation": deviation, "deviation_order": epsilon * delta, "hypothesis": holds,
    }
