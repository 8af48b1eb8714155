"""A phase-portrait run: the map (3) and the flow (4) of the simplified system from several starts. No training, no jax."""

from typing import NamedTuple

import numpy as np

from engine import theory
from engine.phases.states import Clock
from engine.record.columns import CLOCK, Column, phase
from engine.record.store import Outcome
from engine.spec import Phase, RunSpec

BLOCK = 256
"""Steps recorded at a time."""


class PortraitState(NamedTuple):
    """Where every orbit stands."""

    clock: Clock
    flow: np.ndarray  # (starts, 2) X and Y
    mapped: np.ndarray  # (starts, 2) x and y


def begin(spec: RunSpec) -> PortraitState:
    """All orbits at their start (X(0), 0)."""
    part = _phase(spec)
    start = np.stack([np.array(part.starts) * theory.delta(part.alpha, part.beta), np.zeros(len(part.starts))], axis=1)
    return PortraitState(Clock(0, 0.0, spec.optimizer.learning_rate), start, start.copy())


def advance(spec: RunSpec, state: PortraitState, limit: int) -> tuple[PortraitState, np.ndarray]:
    """At most `limit` steps of every orbit, and their rows (steps, columns), of the columns `read`."""
    part, (step, time, eta) = _phase(spec), state.clock
    count = min(limit, BLOCK - step % BLOCK)  # ends on multiples of BLOCK, however it is interrupted
    times = time + eta * np.arange(count + 1)
    parts: list[np.ndarray] = [step + np.arange(count + 1.0), times, np.full(count + 1, eta)]
    ends = []
    with np.errstate(over="ignore", invalid="ignore"):
        for flow_start, map_start in zip(state.flow, state.mapped, strict=True):
            flow = theory.flow_orbit(flow_start[0], flow_start[1], part.alpha, part.beta, times)
            mapped = theory.map_orbit(map_start[0], map_start[1], part.alpha, part.beta, eta, count)
            for orbit in (flow, mapped):
                parts += [orbit[:, 0], orbit[:, 1], theory.conserved(orbit[:, 0], orbit[:, 1], part.alpha, part.beta)]
            ends.append((flow[-1], mapped[-1]))
    rows = np.stack(parts, axis=1)[:count]
    moved = PortraitState(
        Clock(step + count, float(times[-1]), eta), np.stack([end[0] for end in ends]), np.stack([end[1] for end in ends])
    )
    return moved, rows


def read(spec: RunSpec) -> tuple[Column, ...]:
    """The columns of the rows that `advance` gives, in their order."""
    return CLOCK + phase(len(_phase(spec).starts))


def left(step: int) -> Outcome:
    """The outcome where an orbit is no longer a finite number."""
    text = f"diverged at step {step}: an orbit is no longer a finite number; try a smaller learning rate, or starts nearer to 1"
    return Outcome(kind="diverged", step=step, text=text)


def _phase(spec: RunSpec) -> Phase:
    assert isinstance(spec.problem, Phase)
    return spec.problem
