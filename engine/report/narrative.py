"""What is happening in a run, in one plain sentence, and whether the theory applies right now. Without jax."""

import math
from collections.abc import Mapping

from engine.record.reader import State
from engine.record.threshold import RATE, in_force, of_gradient_descent
from engine.spec import PREDICTIONS

LENGTH = 110
"""Most characters of a sentence: it fits beside a margin on a wide terminal, and on two lines of a narrow one."""
LARGE_EPSILON = 0.15
"""ε from which the theory, an expansion in ε, holds for some tens of steps only."""
CLOSE_SECOND = 1.8
"""λ2·η from which a second direction is about to go unstable."""
HELD = 0.9
"""Correlation of |x⋆| with |x| under which a prediction counts as drifted off."""
SMALL = 0.25
"""|x|/δ under which x is too small to be predicted."""
LIMIT = 0.95
"""λ2·η/2 from which a second direction is at the edge: the paper's 1.9/η."""
TELLING = 20
"""Steps since the anchor from which a correlation says something."""

STAGE_WORDS = {
    1: "The oscillation is within δ, so the sharpness rises to 2/η",
    2: "The sharpness is above 2/η, so the oscillation grows",
    3: "The oscillation exceeds δ and drives the sharpness down",
    4: "The sharpness is below 2/η again, so the oscillation decays",
}


def sentence(state: State, row: Mapping[str, float]) -> str:
    """What is happening now, from the engine's last word and the newest value of every column (NaN where there is none)."""
    if state.outcome is not None:
        return shortened(state.outcome.text[:1].upper() + state.outcome.text[1:])
    if state.task:
        return shortened(busy(state))
    if state.phase == "approach":
        return _approach(state, row)
    if state.phase == "edge":
        return _edge(state, row)
    if state.phase == "gradient descent":
        return _descent(state, row)
    if state.phase == "training":
        return _training(state, row)
    if state.phase == "phase portrait":
        return "The flow (4) turns on its level sets for ever; the map (3) gains energy and spirals outward"
    return "The engine gets ready: it reads the data and compiles the derivatives"


def busy(state: State) -> str:
    """For how long no step is taken, how long that took before, and what for: last, since the end of a long sentence is cut off."""
    took = f" of about {lasting(state.task_estimate)}" if state.task_estimate >= 1 else ""
    return f"No step is taken {f'for {lasting(state.task_seconds)}{took}' if state.task_seconds >= 1 else 'meanwhile'}: {state.task}"


def lasting(seconds: float) -> str:
    """A stretch of time in whole seconds, or in minutes and seconds."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def percent(share: float) -> str:
    """A share of 2/η; what is not at 100 % is not rounded to it while three more digits tell."""
    for digits in range(4):
        text = f"{share:.{digits}%}"
        if share == 1 or float(text[:-1]) != 100:
            break
    return text


def shortened(text: str, length: int = LENGTH) -> str:
    """The text, cut at a word and marked with … where it is longer."""
    return text if len(text) <= length else text[: length - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


def _approach(state: State, row: Mapping[str, float]) -> str:
    share = _value(row, "gd.midpoint_sharpness") / in_force(row, state.learning_rate)
    if not math.isfinite(share):
        if (before := _value(row, RATE)) != state.learning_rate and math.isfinite(before):
            now = f"η is {state.learning_rate:g} now, and was {before:g}"
            return f"{now}: the next step measures how far the sharpness is from the new edge"
        return "On the way to the edge; the sharpness is not measured yet"
    if share >= 1:
        when = "is found once the engine goes on" if state.status == "paused" else "is being found"
        return f"The sharpness is at {percent(share)} of {_edge_words(row)}: the edge is here, and its exact step {when}"
    kept = "momentum does not oscillate yet" if _momentum(row) else "gradient descent stays close to gradient flow"
    return f"Stable: the sharpness is at {percent(share)} of {_edge_words(row)}, and {kept}"


def _momentum(row: Mapping[str, float]) -> bool:
    """Whether it is a run whose edge is not 2/η."""
    return "threshold_ratio" in row


def _edge_words(row: Mapping[str, float]) -> str:
    return "its edge" if _momentum(row) else "2/η"


def _edge(state: State, row: Mapping[str, float]) -> str:
    alpha = _value(row, "constrained.alpha")
    if math.isnan(alpha):
        return "At the edge: the constrained trajectory θ† begins"
    happening = STAGE_WORDS.get(int(_finite(_value(row, "stage"))), "At the edge, between two stages")
    if _value(row, "constrained.directions") >= 2:
        happening = _several(row)
    return f"{happening}; {_applicability(state, row, alpha)}"


def _several(row: Mapping[str, float]) -> str:
    """What goes on where more directions than one are at the edge: X† has one rank for each that swings, xxᵀ has but one."""
    count, active = _value(row, "constrained.directions"), _value(row, "constrained.active")
    at_edge = f"{count:.3g} directions at the edge"
    if active < 1:
        return f"{at_edge}, and S ≤ {_edge_words(row)} holds θ† back in none"
    if active < 2:
        return f"{at_edge}, one swings: with one x does not turn"
    which = f", {active:.3g} swing" if active < count else ""
    return f"{at_edge}{which}: λ1 hovers above {_edge_words(row)} because x turns"


def _applicability(state: State, row: Mapping[str, float], alpha: float) -> str:
    """Whether the theory applies, and if not, which of its conditions fails: the gravest first."""
    if alpha <= 0:
        return "but α ≤ 0, so the theory does not apply"
    second, several = _value(row, "constrained.lambda2") / in_force(row, state.learning_rate), _value(row, "constrained.directions")
    if second >= CLOSE_SECOND / 2 and not several >= 1:
        return f"but λ2 is at {percent(second)} of {_edge_words(row)}: too close for the theory"
    if second >= CLOSE_SECOND / 2 and several == 1:
        return f"λ2 is at {percent(second)} of {_edge_words(row)}, soon a second direction"
    epsilon = _value(row, "constrained.epsilon")
    if epsilon > LARGE_EPSILON:
        return f"ε = {epsilon:.2f} is large: predictions hold briefly"
    size = "" if math.isnan(epsilon) else f"ε = {epsilon:.2g}"
    applies = f"the theory applies ({size})" if size else "the theory applies"
    form = next((form for form in PREDICTIONS if f"{form}.since_anchor" in row), None)
    if form is None:
        return applies
    since, correlation = _value(row, f"{form}.since_anchor"), _value(row, f"{form}.correlation")
    if since > 0 and math.isnan(_value(row, f"{form}.x")):
        return "the prediction is lost until its next anchor"
    if since < TELLING or math.isnan(correlation):
        return applies
    size_of_x, of = abs(_value(row, "gd.x")) / _positive(_value(row, "constrained.delta")), "δ"
    if several >= 2:
        size_of_x, of = _value(row, "gd.x_norm") / _positive(math.sqrt(max(_value(row, "covariance.trace"), 0))), "√tr X†"
    if correlation < HELD and size_of_x < SMALL:
        return f"|x| is at {percent(size_of_x)} of {of}: too small to predict yet"
    if correlation < HELD:
        return f"the prediction drifted off (correlation {correlation:.2f})"
    return f"as predicted ({', '.join(filter(None, (size, f'correlation {correlation:.2f}')))})"


def _descent(state: State, row: Mapping[str, float]) -> str:
    threshold = in_force(row, state.learning_rate)
    share, second = _value(row, "gd.sharpness") / threshold, _value(row, "gd.lambda2") / threshold
    if not (math.isfinite(share) and math.isfinite(second)):
        return "Gradient descent goes on alone; θ† and its predictions have ended"
    why = "Two directions at the edge, so no θ†" if second >= LIMIT else "Gradient descent goes on without θ†"
    return f"{why}: the sharpness is at {percent(share)} of {_edge_words(row)}, λ2 at {percent(second)}"


def _training(state: State, row: Mapping[str, float]) -> str:
    share, what = _value(row, "gd.sharpness") / in_force(row, state.learning_rate), "the sharpness is at {} of 2/η"
    if "batch.sharpness" in row:
        return _on_batches(state, row)
    if "threshold_ratio" in row:
        share, what = row["threshold_ratio"], "the sharpness that its steps feel is at {} of their edge"
        if math.isnan(_value(row, "threshold")) and math.isfinite(_value(row, "gd.loss")):
            return "Training; of this optimizer no edge is known"
    elif "smoothness.directional" in row:
        share = row["smoothness.directional"] / in_force(row, state.learning_rate)
        what = "the smoothness along its steps is at {} of 2/η; no eigenvalue has an edge here"
    if not math.isfinite(share):
        return "Training; the sharpness is not measured yet"
    accuracy = row.get("test.accuracy", math.nan)
    tested = f"; {accuracy:.1%} of the test examples are right" if math.isfinite(accuracy) else ""
    return f"Training: {what.format(percent(share))}{tested}"


def _on_batches(state: State, row: Mapping[str, float]) -> str:
    edge = of_gradient_descent(state.learning_rate)
    of_batches, of_all = (_value(row, name) / edge for name in ("batch.sharpness", "gd.sharpness"))
    if not math.isfinite(of_batches):
        return "Training on batches; the batch sharpness is not measured yet"
    rest = f", that of the full loss at {percent(of_all)}" if math.isfinite(of_all) else ""
    return f"Training on batches: the batch sharpness is at {percent(of_batches)} of 2/η{rest}"


def _value(row: Mapping[str, float], name: str) -> float:
    return row.get(name, math.nan)


def _positive(value: float) -> float:
    return value if value > 0 else math.nan


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
