"""The states of an experiment: NamedTuples of arrays, numbers and further states, which `leaves` puts into a checkpoint and takes back.
A field that comes to one later says, at its declaration, what stands in for it in an older checkpoint (`leaves.Earlier`).
"""

from typing import Annotated, NamedTuple

import numpy as np
from jax import Array

from engine.curvature.expansion import TaylorCenter
from engine.curvature.guards import Guards, unknown
from engine.dynamics.unrolled import Unrolled
from engine.phases.coupled import Moving
from engine.xla.leaves import Earlier


class Clock(NamedTuple):
    """Where a run stands in time."""

    step: int
    time: float  # Σ η
    learning_rate: float

    def times(self, steps: int) -> np.ndarray:
        """When each of the next `steps` begins, and when the last one ends, (steps + 1,). Added up one by one, so that it leaves no
        trace in the last digit how many are taken at once."""
        return np.add.accumulate([self.time, *[self.learning_rate] * steps])

    def after(self, steps: int) -> "Clock":
        """Where the run stands so many steps on."""
        return Clock(self.step + steps, float(self.times(steps)[-1]), self.learning_rate)


class ApproachState(NamedTuple):
    """Gradient descent below the edge, between two sharpness checks."""

    clock: Clock
    theta: Array  # (p,)
    basis: Array  # (k, p) top eigenvectors at the last check
    sharpness: float  # at the midpoint of the last check; NaN before the first
    next_check: int  # step of the next check
    careful: int  # 1 after an overshoot: check every step
    checked_clock: Clock  # where the last passed check was,
    checked_theta: Array  # and θ there, to go back to on an overshoot
    guards: Annotated[Guards, Earlier(unknown("basis"))]  # of the basis
    looked: Annotated[int, Earlier(lambda leaves: leaves["clock.step"])]  # step of the last check that looked around
    pending: np.ndarray  # (rows, columns) passed since then, not yet certain


class EdgeState(NamedTuple):
    """Gradient descent at the edge with everything that is coupled to it, about the centre θ†_t."""

    clock: Clock
    edge_step: int
    moving: Moving
    unrolled: Unrolled  # of no sources and no vectors when (5) is left out
    anchor_every: int  # 0: never
    anchor_phase: int  # step from which `anchor_every` counts
    stage: int
    failed: int  # bit k: assumption k does not hold now
    constraint_lost: int
    unstable: int  # eigenvalues that have been above 2/η
    audited: Annotated[int, Earlier(lambda leaves: -1)]  # step of the last audit of the eigenpairs; −1 before the first

    @property
    def theta(self) -> Array:
        """θ of gradient descent, (p,)."""
        return self.moving.theta

    @property
    def center(self) -> TaylorCenter:
        """θ† and the expansion about it."""
        return self.moving.center


class DescentState(NamedTuple):
    """Gradient descent past the edge with its eigenvalues, when θ† is no longer followed."""

    clock: Clock
    edge_step: int
    theta: Array
    bases: Array  # (4, k, p) its top eigenvectors, four steps ago first
    unstable: int
    guards: Annotated[Guards, Earlier(unknown("bases"))]  # of them
