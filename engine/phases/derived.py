"""What a stretch of coupled steps tells beyond what was measured: the columns that follow from others, and the events.

A table is a dict of columns, one entry a step; all here is done on whole columns, for one step or for many.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from engine import theorem, theory
from engine.phases.coupled import Readings
from engine.phases.states import Clock
from engine.record import messages
from engine.record.messages import AnyEvent
from engine.spec import Tracking

SWAP_OVERLAP = 0.7
"""|u_t·u_{t−1}| under which the top eigenvector counts as another one."""

Table = dict[str, np.ndarray]


def table(read: Readings, clock: Clock, tracking: Tracking, stage: int = 0) -> Table:
    """The columns of the steps from `clock` on, with those that follow from others; `stage` is the last one before them, or 0."""
    count, eta = int(read.count), clock.learning_rate
    found = dict(zip(read.names, np.array(read.values)[:count].T, strict=True))
    found |= {"time": clock.times(count)[:count], "learning_rate": np.full(count, eta)}
    alpha, beta, norm = (found[f"constrained.{name}"] for name in ("alpha", "beta", "gradient_norm"))
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = theory.delta(alpha, beta)
        found |= {
            "constrained.delta": delta, "constrained.epsilon": theory.epsilon(eta, alpha),
            "constrained.gamma": np.where((norm > 0) & (beta > 0), alpha / (norm * np.sqrt(beta)), np.nan),
            "stage": theory.stages(found["gd.x"], found["gd.y"], delta, alpha, stage), "gd.spike": found["gd.x"] ** 2 / eta,
        }
    if "transported" in tracking.predictions:
        x = found["transported.x"]
        left = theorem.residuals(
            found["gd.loss"], found["gd.sharpness"], np.where(np.isfinite(x), found["deviation"], np.nan), found["transported.loss"],
            found["transported.sharpness"], x, delta, found["constrained.epsilon"], eta, tracking.hypothesis,
        )
        found |= {f"theorem.{name}": value for name, value in left.items()}
    return found


def add(found: Table, read: Mapping[str, float], count: int) -> None:
    """Put what was read at the first of `count` steps into a table: costs are added, all else is NaN at the steps after."""
    for name, value in read.items() if count else ():
        column = found.get(name, np.full(count, 0.0 if name.startswith("cost.") else np.nan))
        column[0] = column[0] + value if name.startswith("cost.") else value
        found[name] = column


class Standing(NamedTuple):
    """What has been told already, so that an event is told once."""

    stage: int
    failed: int  # bit k: assumption k does not hold now
    constraint_lost: int


def events(found: Table, standing: Standing, tracking: Tracking) -> tuple[Standing, list[AnyEvent]]:
    """What happened over a table, in order, and what stands at its end."""
    told = _lost(found, tracking)
    stage, stages = _stages(found, standing.stage)
    failed, assumptions = _assumptions(found, standing.failed, tracking)
    lost, constraint = _constraint(found, standing.constraint_lost, tracking)
    every = [*stages, *told, *assumptions, *_swaps(found), *constraint]
    return Standing(stage, failed, lost), sorted(every, key=lambda event: event.step)


def _changes(flags: np.ndarray, before: bool) -> np.ndarray:
    """Where a flag is not as it was one step earlier."""
    return np.flatnonzero(flags != np.concatenate([[before], flags[:-1]]))


def _stages(found: Table, stage: int) -> tuple[int, list[AnyEvent]]:
    told: list[AnyEvent] = []
    for step, now in zip(found["step"], found["stage"], strict=True):
        if now not in (stage, 0):
            stage = int(now)
            told.append(messages.StageChanged(step=int(step), text=f"stage {stage}: {theory.STAGES[stage]}", stage=stage))
    return stage, told


def _lost(found: Table, tracking: Tracking) -> list[AnyEvent]:
    told: list[AnyEvent] = []
    for form in tracking.predictions:
        for row in np.flatnonzero(found[f"{form}.newly_lost"]):
            since = int(found[f"{form}.since_anchor"][row])
            text = f"the {form} prediction left validity {since} steps after its anchor"
            told.append(messages.PredictionLost(step=int(found["step"][row]), text=text, form=form))
    return told


def _assumptions(found: Table, failed: int, tracking: Tracking) -> tuple[int, list[AnyEvent]]:
    """Where Assumptions 1 (α > 0) and 2 (λ2 < 1.9/η) begin and cease to fail."""
    limit, told = tracking.second_eigenvalue_limit, list[AnyEvent]()
    alpha, second = found["constrained.alpha"], found["constrained.lambda2"] * found["learning_rate"]
    for number, (read, reading, claim) in {
        1: (alpha, "α = {:.3g}", "α > 0, progressive sharpening"),
        2: (second, "λ2 = {:.3g}/η", f"λ2 < {limit:g}/η, a single unstable direction"),
    }.items():
        known = np.isfinite(read)
        values, steps = read[known], found["step"][known]
        fails = values <= 0 if number == 1 else values >= limit
        for row in _changes(fails, bool(failed & 1 << number)):
            step, words = int(steps[row]), reading.format(values[row])
            if fails[row]:
                text = f"Assumption {number} fails at step {step}: {words} ({claim})"
                told.append(messages.AssumptionFailed(step=step, text=text, assumption=number))
            else:
                text = f"Assumption {number} holds again at step {step}: {words}"
                told.append(messages.AssumptionRestored(step=step, text=text, assumption=number))
        if len(fails):
            failed = failed & ~(1 << number) | int(fails[-1]) << number
    return failed, told


def _swaps(found: Table) -> list[AnyEvent]:
    """Where the top eigenvector of the next centre is another one."""
    if "next.overlap" not in found:
        return []
    told: list[AnyEvent] = []
    for row in np.flatnonzero(found["next.overlap"] < SWAP_OVERLAP):
        step, overlap = int(found["step"][row]) + 1, found["next.overlap"][row]
        text = f"the top eigenvector turned at step {step} (|u·u′| = {overlap:.2f}): two eigenvalues crossed; x and y changed meaning"
        told.append(messages.EigenvectorsSwapped(step=step, text=text))
    return told


def _constraint(found: Table, lost: int, tracking: Tracking) -> tuple[int, list[AnyEvent]]:
    """Where θ† begins to miss its tolerances."""
    if "next.sharpness_residual" not in found:
        return lost, []
    gap, along = found["next.sharpness_residual"], found["next.gradient_residual"]
    missed, told = (gap > tracking.sharpness_tolerance) | (along > tracking.gradient_tolerance), list[AnyEvent]()
    numbers = {"|S−2/η|·η/2": gap, "|∇L·u|/‖∇L‖": along}
    for row in _changes(missed, bool(lost)):
        if missed[row]:
            step = int(found["step"][row]) + 1
            said = [f"{name} {f'= {at[row]:.1e}' if np.isfinite(at[row]) else 'is not a finite number'}" for name, at in numbers.items()]
            text = f"θ† misses its tolerances at step {step} after {tracking.max_projections} projections: {', '.join(said)}"
            told.append(messages.ConstraintLost(step=step, text=text))
    return int(missed[-1]) if len(missed) else lost, told


def rows(found: Mapping[str, np.ndarray], places: Mapping[str, int]) -> np.ndarray:
    """The rows of the record (steps, columns), NaN where the table is silent."""
    block = np.full((len(found["step"]), len(places)), np.nan)
    for name, place in places.items():
        if name in found:
            block[:, place] = found[name]
    return block
