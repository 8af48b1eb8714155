"""A run in a few numbers: what the headless commands print at the end. Without jax."""

from typing import Any, NamedTuple

import numpy as np

from engine.record.messages import edge_in_force
from engine.record.reader import Run, State
from engine.record.threshold import column_of, threshold
from engine.report import averages
from engine.report.averages import Averages
from engine.spec import PREDICTIONS

SETTLED_ROWS = 100
"""Rows at the end over which the sharpness is averaged: at the edge it oscillates from step to step."""
RATIO, SMOOTHNESS = "threshold_ratio", "smoothness.directional"
"""Columns of optimizers other than gradient descent: the one that says S/edge, and one of those that have no such edge."""
BATCHES = "batch.sharpness"
"""A column of runs on batches: of gradient descent it is this sharpness that RATIO is of, and of momentum no edge is known for it."""
FULL_SPAN = 100
"""Steps from an anchor on over which a prediction's correlation is read, if it lived that long."""
SHORT_SPAN = 20
"""Steps after an anchor before which a correlation says nothing."""


class Summary(NamedTuple):
    """How a run went. None where a quantity does not exist."""

    run: str
    outcome: str
    """An outcome's kind; or `running`, `paused`, `crashed`, … while there is none."""
    steps: int
    edge_step: int | None
    """Step at which the sharpness, on batches the batch sharpness, first reached 2/η, at the η in force."""
    sharpness_over_threshold: float | None
    """S over the threshold, at the η in force: the mean over the last rows at the edge, or its last value on the approach."""
    threshold_ratio: float | None
    """The same as a median over the second half of all rows, on batches that of the batch sharpness; None where neither has an edge that is
    known, as of sign and spectral steps and of momentum on batches."""
    loss: float | None
    """Training loss, the last that was recorded."""
    prediction_correlation: float | None
    """corr(|x⋆|, |x|) of the first recorded form over the latest 100 steps from an anchor on, or the longest stretch of 20 or more, at
    the η in force."""
    seconds: float
    """Seconds the engine worked."""
    averages: Averages
    """Means of gradient descent over the whole stretch past the edge at the η in force, measured and predicted."""
    active: int | None
    """The largest rank of the predicted covariance X† there: directions that swing."""


@np.errstate(all="ignore")  # rows of unknown origin may hold anything
def summarize(run: Run) -> Summary:
    """The summary of a run as it stands."""
    state, table = run.state(), run.table()
    edge = edge_in_force(run.events())
    outcome = state.outcome.kind if state.outcome else run.liveness()
    last = table["step"][-1:]
    steps = int(last[0]) + 1 if len(last) and 0 <= last[0] < 2**53 else 0
    present = at_present(state, table)
    return Summary(
        run.name, outcome, max(steps, state.step), edge, _sharpness(present), threshold_ratio(table), _loss(table), _correlation(present),
        round(state.seconds, 2), averages.averages(present), averages.active(present),
    )


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values, to be printed as JSON."""
    return summary._asdict() | {"averages": averages.as_json(summary.averages)}


def rate_in_force(state: State, table: dict[str, np.ndarray]) -> float | None:
    """The η that the engine takes its next step with; that of the newest row where it has said nothing yet."""
    if state.learning_rate > 0:
        return state.learning_rate
    rates = table.get("learning_rate", np.empty(0))
    return float(rates[-1]) if len(rates) else None


def at_present(state: State, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows at the learning rate in force: the last ones, none of them where it has just changed."""
    if "learning_rate" not in table:
        return table
    rate = table["learning_rate"]
    others = np.flatnonzero((rate != rate_in_force(state, table)) & np.isfinite(rate))
    start = int(others[-1]) + 1 if len(others) else 0
    return {name: column[start:] for name, column in table.items()}


def _loss(table: dict[str, np.ndarray]) -> float | None:
    known = table["gd.loss"][np.isfinite(table["gd.loss"])] if "gd.loss" in table else np.empty(0)
    return float(known[-1]) if len(known) else None


def threshold_ratio(table: dict[str, np.ndarray]) -> float | None:
    """The median over the second half of the rows of the sharpness over the optimizer's edge; None where it has none."""
    share = table.get(RATIO) if BATCHES in table else _share(table, "gd.sharpness")
    if share is None:
        return None
    late = share[len(share) // 2 :]
    known = late[np.isfinite(late)]
    return float(np.median(known)) if len(known) else None


def _share(table: dict[str, np.ndarray], sharpness: str) -> np.ndarray | None:
    """The sharpness over the threshold in each row: as recorded, else that of gradient descent; None where the optimizer has no edge."""
    if RATIO in table and BATCHES not in table:
        return table[RATIO]
    if sharpness not in table or not column_of(table.__contains__) or SMOOTHNESS in table:
        return None
    return table[sharpness] / threshold(table)


def _sharpness(table: dict[str, np.ndarray]) -> float | None:
    for name, count in (("gd.sharpness", SETTLED_ROWS), ("gd.midpoint_sharpness", 1)):
        if (share := _share(table, name)) is not None:
            known = share[np.isfinite(share)]
            last = share[-count:]  # the sharpness may be read now and then only: the mean is over rows, not readings
            recent = last[np.isfinite(last)]
            if len(known):
                return float((recent if len(recent) else known[-count:]).mean())
    return None


def _correlation(table: dict[str, np.ndarray]) -> float | None:
    form = next((form for form in PREDICTIONS if {f"{form}.correlation", f"{form}.since_anchor"} <= table.keys()), None)
    if form is None:
        return None
    correlation, since = table[f"{form}.correlation"], table[f"{form}.since_anchor"]
    known = np.flatnonzero(np.isfinite(correlation) & (since >= SHORT_SPAN))
    if not len(known):
        return None
    full = known[since[known] == FULL_SPAN - 1]  # the anchor's own step counts
    chosen = full[-1] if len(full) else known[::-1][np.argmax(since[known][::-1])]
    return float(correlation[chosen])


def words(summary: Summary) -> list[tuple[str, str]]:
    """The summary as labelled text, for a table."""
    said = {
        "loss": "training loss", "prediction_correlation": f"correlation over {FULL_SPAN} steps", "active": "directions that swing",
    }
    shown = [(said.get(name, name.replace("_", " ")), _shown(value)) for name, value in summary._asdict().items() if name != "averages"]
    return shown + averages.words(summary.averages)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
