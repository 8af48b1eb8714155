"""Runs side by side: what became of each in a row of numbers, for `compare` and `sweep`. Without jax."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.record.columns import METRIC
from engine.record.reader import Run
from engine.report.summary import FULL_SPAN, at_present, rate_in_force, summarize
from engine.spec import PREDICTIONS

HEADINGS = {
    "learning_rate": "η", "edge_step": "edge", "sharpness_over_threshold": "S·η/2", "threshold_ratio": "S/edge", "delta": "mean δ",
    "epsilon": "mean ε", "prediction_error": "error", "horizon": "horizon", "test_accuracy": "acc_test", "seconds": "s",
}
"""Short headings of a printed table."""


class Outcomes(NamedTuple):
    """The end of a run in numbers, for a comparison. None where a quantity does not exist."""

    run: str
    outcome: str
    """An outcome's kind; or `running`, `paused`, `crashed`, … while there is none."""
    learning_rate: float
    """The η in force, which raises, commands and forks change; all below is read at that."""
    steps: int
    edge_step: int | None
    """Step at which the sharpness first reached this 2/η."""
    sharpness_over_threshold: float | None
    """S over the threshold: the mean over the last rows at the edge, or its last value on the approach."""
    threshold_ratio: float | None
    """The median over the second half of all rows of the sharpness, on batches the batch sharpness, over the optimizer's edge; None where
    it has none."""
    delta: float | None
    """δ = √(2α/β), mean over the rows at the edge."""
    epsilon: float | None
    """ε = η√α, mean over the rows at the edge."""
    prediction_error: float | None
    """||x⋆|−|x||/max(δ, |x|) of the first recorded form, median over the first 100 steps after each anchor."""
    horizon: float | None
    """Steps that form kept to its tolerance after an anchor, median over the anchors; a lower bound where one still does."""
    test_accuracy: float | None
    """The last reading of the share of test examples answered right."""
    seconds: float
    """Seconds the engine worked."""
    metrics: dict[str, float]
    """The last value of each quantity of the user's own."""


@np.errstate(all="ignore")  # rows of unknown origin may hold anything
def outcomes(run: Run) -> Outcomes:
    """The outcomes of a run as it stands."""
    summary, state, whole = summarize(run), run.state(), run.table()
    rate, table = rate_in_force(state, whole) or run.spec.optimizer.learning_rate, at_present(state, whole)
    form = next((form for form in PREDICTIONS if f"{form}.x" in table), None)
    delta, epsilon, accuracy = (
        _known(whole.get(name, np.empty(0)) if name == "test.accuracy" else table.get(name, np.empty(0)))
        for name in ("constrained.delta", "constrained.epsilon", "test.accuracy")
    )
    return Outcomes(
        run.name, summary.outcome, rate, summary.steps, summary.edge_step, summary.sharpness_over_threshold, summary.threshold_ratio,
        float(delta.mean()) if len(delta) else None, float(epsilon.mean()) if len(epsilon) else None,
        prediction_error(table, form), horizon(table, form), float(accuracy[-1]) if len(accuracy) else None, summary.seconds,
        {name: float(known[-1]) for name in whole if name.startswith(METRIC) and len(known := _known(whole[name]))},
    )


def prediction_error(table: dict[str, np.ndarray], form: str | None) -> float | None:
    """The median of ||x⋆|−|x||/max(δ, |x|) over the first 100 steps after each anchor, the anchors themselves left out."""
    needed = [f"{form}.x", f"{form}.since_anchor", "gd.x", "constrained.delta"]
    if form is None or not set(needed) <= table.keys():
        return None
    predicted, since, x, delta = (table[name] for name in needed)
    early = (since > 0) & (since <= FULL_SPAN)
    size = np.fmax(delta, np.abs(x))  # δ may be undefined
    known = _known(np.abs(np.abs(predicted) - np.abs(x))[early] / size[early])
    return float(np.median(known)) if len(known) else None


def horizon(table: dict[str, np.ndarray], form: str | None) -> float | None:
    """The median over the anchors of the steps until the prediction first left its tolerance, or that it has held so far."""
    if form is None or not {f"{form}.horizon", f"{form}.since_anchor"} <= table.keys():
        return None
    left, since = table[f"{form}.horizon"], table[f"{form}.since_anchor"]
    measured = np.isfinite(since)
    left, since = left[measured], since[measured]
    if not len(since):
        return None
    ends = np.flatnonzero(np.append(np.diff(since) < 0, True))  # the last row of each anchor
    held = [left[end] if math.isfinite(left[end]) else since[end] for end in ends]
    return float(np.median(held))


def rows_of(ends: list[Outcomes]) -> tuple[list[str], list[list[object]]]:
    """Short headings and rows for a printed table; a column that no run has a value in is left out."""
    rows = with_metrics(ends)
    kept = [name for name in rows[0] if any(row[name] is not None for row in rows)] if rows else []
    return [HEADINGS.get(name, name) for name in kept], [[row[name] for name in kept] for row in rows]


def with_metrics(ends: Sequence[Outcomes]) -> list[dict[str, Any]]:
    """The outcomes by name, with an entry for each quantity of the user's own that one of the runs has; None where another has none."""
    own = list(dict.fromkeys(name for end in ends for name in end.metrics))
    fields = [name for name in Outcomes._fields if name != "metrics"]
    return [{name: getattr(end, name) for name in fields} | {name: end.metrics.get(name) for name in own} for end in ends]


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
