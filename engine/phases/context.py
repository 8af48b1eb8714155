"""What every phase of a run has in common: what does not change, where the run stands in time, and what some steps come to."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from engine.dynamics.optimizer import plain_rate, threshold_of
from engine.dynamics.optimizers import Optimizer, State, optimizer_of
from engine.phases.metrics import NO_METRICS, Metrics, metrics_of
from engine.phases.snapshots import Projections, Snapshots, Taken, steps_until
from engine.problems.problem import Problem
from engine.record.columns import Column, column_index, columns_for
from engine.record.messages import AnyEvent
from engine.record.reader import Outcome
from engine.spec import CoupledTracking, RunSpec

GROWN = 1e6
"""How many times the largest loss of the first rows a finite last one may be before the run counts as diverged."""
FIRST_ROWS = 10


class Clock(NamedTuple):
    """Where a run stands in time."""

    step: int
    time: float  # Σ η

    def times(self, steps: int, learning_rate: float) -> np.ndarray:
        """When each of the next `steps` begins, and when the last one ends, (steps + 1,). Added up one by one, so that it leaves no
        trace in the last digit how many are taken at once."""
        return np.add.accumulate([self.time, *[learning_rate] * steps])

    def after(self, steps: int, learning_rate: float) -> "Clock":
        """Where the run stands so many steps on."""
        return Clock(self.step + steps, float(self.times(steps, learning_rate)[-1]))


class Setup(NamedTuple):
    """What does not change during a run."""

    spec: RunSpec
    problem: Problem
    optimizer: Optimizer
    column_index: dict[str, int]  # column name -> place in a row of this run, which may be of an earlier version
    metrics: Metrics = NO_METRICS  # the user's own quantities
    projections: Projections | None = None  # of θ on fixed directions
    snapshots: Snapshots | None = None  # of the parameters

    @property
    def tracking(self) -> CoupledTracking:
        """What is followed at the edge, in a run that comes there."""
        assert isinstance(self.spec.tracking, CoupledTracking)
        return self.spec.tracking

    def row(self, values: dict[str, float]) -> np.ndarray:
        """One row of the record, NaN where `values` is silent; names the run does not record are left out."""
        row = np.full(len(self.column_index), np.nan)
        for name, value in values.items():
            if name in self.column_index:
                row[self.column_index[name]] = value
        return row

    def read_at(
        self, step: int, learning_rate: float, theta: Array, eigenvectors: Array, constrained: Array | None = None
    ) -> dict[str, float]:
        """What is read at θ before this step whichever the phase, by column, costs among it: the user's own quantities and projections; a
        snapshot is taken where one is due. `eigenvectors` (k, p) are near those of ∇²L; `constrained` is θ† where there is one."""
        values = self.metrics.read(self.problem, step, learning_rate, theta, eigenvectors)
        if self.projections is not None:
            join(values, self.projections.read(step, theta, self.problem.shares))
        if self.snapshots is not None:
            join(values, self.snapshots.read(self.problem, step, learning_rate, theta, eigenvectors, constrained))
        return values

    def reads_at(self, step: int) -> bool:
        """Whether there is something to read so at this step."""
        return self.steps_until_due(step - 1) == 1

    def steps_until_due(self, step: int) -> int:
        """Steps from this one until there is something to read so, or until there is again."""
        others = (steps_until(each.every, step) for each in (self.projections, self.snapshots) if each is not None)
        return min([self.metrics.steps_until_due(step), *others])

    def computing_alone(self) -> "Setup":
        """The setup with nothing read beside."""
        return self._replace(metrics=NO_METRICS, projections=None, snapshots=None)

    def threshold(self, optimizer_state: State) -> float:
        """The sharpness above which steps are unstable, 2/η for gradient descent."""
        return threshold_of(self.optimizer, optimizer_state)

    def plain_rate(self, optimizer_state: State) -> float:
        """The learning rate at which gradient descent has this edge."""
        return plain_rate(self.optimizer, optimizer_state)


Curves = tuple[tuple[int, dict[str, np.ndarray]], ...]
"""Sampled curves by the step they were sampled at."""


class Progress(NamedTuple):
    """What a stretch of work gave: rows, events, an outcome if it ended the run, curves by step, and snapshots."""

    rows: list[np.ndarray]
    events: list[AnyEvent]
    outcome: Outcome | None = None
    curves: Curves = ()
    snapshots: Sequence[Taken] = ()


def setup(spec: RunSpec, problem: Problem, size: int, columns: Sequence[Column] = ()) -> Setup:
    """The setup of a run with θ of `size` numbers that records these columns; those of a new run where none are given."""
    return Setup(
        spec, problem, optimizer_of(spec.optimizer), column_index(columns or columns_for(spec)), metrics_of(spec), Projections(spec),
        Snapshots(spec, problem, size),
    )


def join(values: dict[str, float], more: Mapping[str, float]) -> None:
    """Put more of what was read at a step to the rest of it: costs are added."""
    values |= {name: values.get(name, 0) + value if name.startswith("cost.") else value for name, value in more.items()}


def diverged(step: int) -> Outcome:
    """The outcome of a loss or gradient that is not a finite number: from the first step on it is none that η can mend."""
    if step == 0:
        text = (
            "the loss or its gradient is not a finite number at the start, before any step, so no learning rate would do: look for NaN "
            "or infinity in the data and in the initial parameters"
        )
        return Outcome(kind="failed", step=0, text=text)
    text = f"diverged at step {step}: the loss is no longer a finite number; try a smaller learning rate"
    return Outcome(kind="diverged", step=step, text=text)


def grown(first: np.ndarray, last: float, step: int) -> Outcome | None:
    """The outcome where the last loss of a run is finite but beyond any descent, given those of the first ten rows, (rows,)."""
    known = np.abs(first[np.isfinite(first)])
    largest = float(known.max()) if len(known) else 0.0
    if not (largest > 0 and GROWN * largest < abs(last) < math.inf):
        return None
    text = (
        f"diverged at step {step}: the loss is {last:.3g}, over a million times the {largest:.3g} of the first rows; "
        f"try a smaller learning rate"
    )
    return Outcome(kind="diverged", step=step, text=text)


def loss_goal(spec: RunSpec, loss: float, step: int) -> Outcome | None:
    """The outcome when the loss is under the goal of the budget, if it sets one."""
    goal = spec.budget.loss_goal
    return Outcome(kind="loss_goal", step=step, text=f"training loss below {goal:g} at step {step}") if loss < goal and goal > 0 else None
