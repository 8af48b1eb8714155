"""What a stretch of coupled steps tells beyond what was measured: the columns that follow from others, and the events.

A table is a dict of columns, one entry a step; all here is done on whole columns, for one step or for many.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from engine import theory
from engine.dynamics.optimizers import State
from engine.phases.context import Clock, Setup
from engine.phases.coupled_step import StepRows
from engine.record import edges, messages
from engine.record.messages import AnyEvent
from engine.spec import CoupledTracking, Optimizer

SWAP_OVERLAP = 0.7
"""|u_t·u_{t−1}| under which the top eigenvector counts as another one."""

Table = dict[str, np.ndarray]


class Rates(NamedTuple):
    """The rates of an optimizer at the edge: of gradient descent all are η."""

    learning_rate: float
    plain: float  # at which gradient descent has this edge
    slow: float  # of the cycle: that at which |x| grows and that at which y does, as their geometric mean


def rates_of(setup: Setup, optimizer: State) -> Rates:
    """Those of an optimizer's state."""
    eta = float(optimizer.learning_rate)
    if setup.optimizer.momentum is None:
        return Rates(eta, eta, eta)
    memory = setup.optimizer.momentum.memory
    return Rates(eta, setup.plain_rate(optimizer), math.sqrt(memory.growth(eta) * memory.drift(eta)))


def table(rows: StepRows, clock: Clock, rates: Rates, tracking: CoupledTracking, stage: int = 0) -> Table:
    """The columns of the steps from `clock` on, with those that follow from others; `stage` is the last one before them, or 0."""
    count, (eta, plain, slow) = int(rows.count), rates
    columns = dict(zip(rows.names, np.array(rows.values)[:count].T, strict=True))
    columns |= {"time": clock.times(count, eta)[:count], "learning_rate": np.full(count, eta)}
    alone = columns["constrained.directions"] == 1  # the cycle and Theorem 1 are of one direction at the edge
    alpha, beta, norm = (columns[f"constrained.{name}"] for name in ("alpha", "beta", "gradient_norm"))
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = theory.delta(alpha, beta)
        columns |= {
            "constrained.delta": delta, "constrained.epsilon": theory.epsilon(slow, alpha),
            "constrained.gamma": np.where((norm > 0) & (beta > 0), alpha / (norm * np.sqrt(beta)), np.nan),
            "stage": theory.stages(columns["gd.x"], columns["gd.y"], np.where(alone, delta, np.nan), alpha, stage),
            "gd.spike": columns["gd.x_norm"] ** 2 / plain,
        }
        columns["threshold_ratio"] = columns["gd.sharpness"] / columns["threshold"]
    if "transported" in tracking.predictions:
        x = np.where(alone, columns["transported.x"], np.nan)
        left = theory.theorem_residuals(
            columns["gd.loss"], columns["gd.sharpness"], np.where(np.isfinite(x), columns["deviation"], np.nan),
            columns["transported.loss"], columns["transported.sharpness"], x, delta, columns["constrained.epsilon"], eta,
            tracking.hypothesis,
        )
        columns |= {f"theorem.{name}": value for name, value in left.items()}
    return columns


def add(table: Table, read: Mapping[str, float], count: int) -> None:
    """Put what was read at the first of `count` steps into a table: costs are added, all else is NaN at the steps after."""
    for name, value in read.items() if count else ():
        column = table.get(name, np.full(count, 0.0 if name.startswith("cost.") else np.nan))
        column[0] = column[0] + value if name.startswith("cost.") else value
        table[name] = column


class Reported(NamedTuple):
    """What has been reported already, so that an event is reported once."""

    stage: int
    failed: int  # bit k: assumption k does not hold now
    constraint_lost: int


def events(
    table: Table, reported: Reported, tracking: CoupledTracking, optimizer: Optimizer
) -> tuple[Reported, list[AnyEvent]]:
    """What happened over a table, in order, and what stands at its end."""
    lost_forms = _lost(table, tracking)
    stage, stages = _stages(table, reported.stage)
    failed, assumptions = _assumptions(table, reported.failed, tracking, optimizer)
    lost, constraint = _constraint(table, reported.constraint_lost, tracking)
    every = [*stages, *lost_forms, *assumptions, *_swaps(table), *constraint]
    return Reported(stage, failed, lost), sorted(every, key=lambda event: event.step)


def _changes(flags: np.ndarray, before: bool) -> np.ndarray:
    """Where a flag is not as it was one step earlier."""
    return np.flatnonzero(flags != np.concatenate([[before], flags[:-1]]))


def _stages(table: Table, stage: int) -> tuple[int, list[AnyEvent]]:
    events: list[AnyEvent] = []
    for step, now in zip(table["step"], table["stage"], strict=True):
        if now not in (stage, 0):
            stage = int(now)
            events.append(messages.StageChanged(step=int(step), text=f"stage {stage}: {theory.STAGES[stage]}", stage=stage))
    return stage, events


def _lost(table: Table, tracking: CoupledTracking) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    for form in tracking.predictions:
        for row in np.flatnonzero(table[f"{form}.newly_lost"]):
            since = int(table[f"{form}.since_anchor"][row])
            text = f"the {form} prediction left validity {since} steps after its anchor"
            events.append(messages.PredictionLost(step=int(table["step"][row]), text=text, form=form))
    return events


def _assumptions(table: Table, failed: int, tracking: CoupledTracking, optimizer: Optimizer) -> tuple[int, list[AnyEvent]]:
    """Where Assumptions 1 (α > 0) and 2 (λ2 < 1.9/η) begin and cease to fail."""
    limit, events = tracking.second_eigenvalue_limit, list[AnyEvent]()
    alpha, plain = table["constrained.alpha"], table["learning_rate"] if edges.is_plain(optimizer) else 2 / table["threshold"]
    claimed = edges.in_units(optimizer, f"{limit:g}", limit)
    for number, (read, said, claim) in {
        1: (alpha, lambda value: f"α = {value:.3g}", "α > 0, progressive sharpening"),
        2: (table["constrained.lambda2"] * plain, lambda value: f"λ2 = {edges.in_units(optimizer, f'{value:.3g}', value)}",
            f"λ2 < {claimed}, a single unstable direction"),
    }.items():
        known = np.isfinite(read)
        values, steps = read[known], table["step"][known]
        fails = values <= 0 if number == 1 else values >= limit
        for row in _changes(fails, bool(failed & 1 << number)):
            step, words = int(steps[row]), said(values[row])
            if fails[row]:
                text = f"Assumption {number} fails at step {step}: {words} ({claim})"
                events.append(messages.AssumptionFailed(step=step, text=text, assumption=number))
            else:
                text = f"Assumption {number} holds again at step {step}: {words}"
                events.append(messages.AssumptionRestored(step=step, text=text, assumption=number))
        if len(fails):
            failed = failed & ~(1 << number) | int(fails[-1]) << number
    return failed, events


def _swaps(table: Table) -> list[AnyEvent]:
    """Where the top eigenvector of the next centre is another one."""
    if "next.overlap" not in table:
        return []
    events: list[AnyEvent] = []
    for row in np.flatnonzero(table["next.overlap"] < SWAP_OVERLAP):
        step, overlap = int(table["step"][row]) + 1, table["next.overlap"][row]
        text = f"the top eigenvector turned at step {step} (|u·u′| = {overlap:.2f}): two eigenvalues crossed; x and y changed meaning"
        events.append(messages.EigenvectorsSwapped(step=step, text=text))
    return events


def _constraint(table: Table, lost: int, tracking: CoupledTracking) -> tuple[int, list[AnyEvent]]:
    """Where θ† begins to miss its tolerances."""
    if "next.sharpness_residual" not in table:
        return lost, []
    gap, along = table["next.sharpness_residual"], table["next.gradient_residual"]
    missed, events = (gap > tracking.sharpness_tolerance) | (along > tracking.gradient_tolerance), list[AnyEvent]()
    numbers = {"|S−2/η|·η/2": gap, "|∇L·u|/‖∇L‖": along}
    for row in _changes(missed, bool(lost)):
        if missed[row]:
            step = int(table["step"][row]) + 1
            said = [f"{name} {f'= {at[row]:.1e}' if np.isfinite(at[row]) else 'is not a finite number'}" for name, at in numbers.items()]
            text = f"θ† misses its tolerances at step {step} after {tracking.max_projections} projections: {', '.join(said)}"
            events.append(messages.ConstraintLost(step=step, text=text))
    return int(missed[-1]) if len(missed) else lost, events


def rows(table: Mapping[str, np.ndarray], places: Mapping[str, int]) -> np.ndarray:
    """The rows of the record (steps, columns), NaN where the table is silent."""
    block = np.full((len(table["step"]), len(places)), np.nan)
    for name, place in places.items():
        if name in table:
            block[:, place] = table[name]
    return block
