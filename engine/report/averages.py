"""The means of gradient descent at the edge beside those that the theory predicts, over a whole stretch of a record. Without jax.

About θ† gradient descent swings with the covariance X† that holds θ† where it is. Every direction that swings is at the edge, Λ = 2/η along
it, so the second-order means are L(θ†) + ½⟨Λ,X†⟩ = L(θ†) + tr X†/η and ‖∇L(θ†)‖² + ⟨Λ²,X†⟩ = ‖∇L(θ†)‖² + 4 tr X†/η²
(arXiv 2410.24206, at θ†). What stands there without X† is what θ† alone, and so gradient flow, would say.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from engine.record.threshold import column_of, threshold
from engine.theory import RANK

BURSTS = 2
"""A mean over less says more of where it begins than of what it is."""
SOUGHT = (
    "gd.loss", "gd.gradient_norm", "gd.x_norm", "constrained.loss", "constrained.gradient_norm", "constrained.epsilon", "covariance.trace",
)
"""Columns that the means are read from; of them ε may be undefined, where α ≤ 0."""

Table = Mapping[str, np.ndarray]


class Mean(NamedTuple):
    """A mean of gradient descent: measured, predicted, and what θ† alone would have it."""

    measured: float
    predicted: float
    without: float


class Averages(NamedTuple):
    """The means over a stretch; None, each of them, where `reason` says why there are none."""

    loss: Mean | None
    gradient_squared: Mean | None
    covariance_trace: Mean | None
    """Of |Uᵀ(θ − θ†)|², over the directions at the edge."""
    steps: int
    """Steps of the stretch at which θ† is known,"""
    bursts: float
    """and how many periods 2π/(√2 ε) they make."""
    reason: str | None


def averages(table: Table) -> Averages:
    """The means over the rows of a table that have a θ†."""
    if "constrained.loss" not in table or not np.isfinite(table["constrained.loss"]).any():
        return _none("no θ† was followed at the learning rate in force")
    if not {*SOUGHT} <= table.keys() or column_of(table.__contains__) is None:
        return _none("the record has no covariance of the oscillation: tracking.on_second_eigenvalue = \"follow\" records it")
    columns = {name: table[name] for name in SOUGHT} | {"threshold": threshold(dict(table))}
    known = np.all([np.isfinite(column) for name, column in columns.items() if name != "constrained.epsilon"], axis=0)
    columns = {name: column[known] for name, column in columns.items()}
    steps, bursts = int(known.sum()), float(np.nansum(np.sqrt(2) * columns["constrained.epsilon"]) / (2 * np.pi))
    if bursts < BURSTS:
        return _none(f"{bursts:.2g} bursts of the {BURSTS} that a mean needs, in {steps} steps with θ†", steps, bursts)
    trace, edge = columns["covariance.trace"], columns["threshold"]
    loss, squared = columns["constrained.loss"], columns["constrained.gradient_norm"] ** 2
    means = (
        _mean(columns["gd.loss"], loss + edge / 2 * trace, loss),
        _mean(columns["gd.gradient_norm"] ** 2, squared + edge**2 * trace, squared),
        _mean(columns["gd.x_norm"] ** 2, trace, np.zeros(1)),
    )
    if not np.isfinite(means).all():
        return _none("the means are too large to be written", steps, bursts if np.isfinite(bursts) else 0.0)
    return Averages(*means, steps, round(bursts, 2), None)


def active(table: Table) -> int | None:
    """The largest rank of X† in a table: its eigenvalues above a millionth of its trace. None where no X† is known."""
    trace = table.get("covariance.trace", np.empty(0))
    known = np.isfinite(trace)
    if not known.any():
        return None
    rank, i = np.zeros(int(known.sum()), int), 1
    while (eigenvalue := table.get(f"covariance.lambda{i}")) is not None:
        rank, i = rank + (eigenvalue[known] > np.maximum(RANK * trace[known], 0)), i + 1
    return int(rank.max())


def as_json(means: Averages) -> dict[str, Any]:
    """The means as plain values, to be printed as JSON."""
    return {name: value._asdict() if isinstance(value, Mean) else value for name, value in means._asdict().items()}


def words(means: Averages) -> list[tuple[str, str]]:
    """The means as labelled text, for a table."""
    if means.reason is not None:
        return [("means at the edge", f"– ({means.reason})")]
    labels = {"loss": "mean training loss", "gradient_squared": "mean ‖∇L‖²", "covariance_trace": "mean |x|²"}
    return [(label, _compared(getattr(means, name))) for name, label in labels.items()]


def _compared(mean: Mean) -> str:
    return f"{mean.measured:.4g} measured, {mean.predicted:.4g} predicted, {mean.without:.4g} of θ† alone"


def _mean(measured: np.ndarray, predicted: np.ndarray, without: np.ndarray) -> Mean:
    return Mean(*(float(column.mean()) for column in (measured, predicted, without)))


def _none(reason: str, steps: int = 0, bursts: float = 0.0) -> Averages:
    return Averages(None, None, None, steps, round(bursts, 2), reason)
