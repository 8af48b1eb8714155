"""The states of an experiment, and how they go into a checkpoint and come back.

A state is a NamedTuple of arrays, numbers and further states; `pack` names every leaf by its path, so a checkpoint is a plain
npz file that says what it holds.
"""

from typing import Any, NamedTuple, get_type_hints

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.coupled import Moving
from engine.curvature import TaylorCenter
from engine.guards import Guards
from engine.unrolled import Unrolled


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
    guards: Guards  # of the basis
    looked: int  # step of the last check that looked around
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
    audited: int  # step of the last audit of the eigenpairs; −1 before the first

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
    guards: Guards  # of them


def pack(state: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Every leaf of a state by its dotted path."""
    leaves: dict[str, np.ndarray] = {}
    for name, value in zip(state._fields, state, strict=True):
        if hasattr(value, "_fields"):
            leaves |= pack(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = np.asarray(value)
    return leaves


def unpack(kind: type, leaves: dict[str, np.ndarray], prefix: str = "") -> Any:
    """The state of this kind in the leaves. Raises KeyError when one is missing."""
    values = {}
    for name, hint in get_type_hints(kind).items():
        if name not in kind._fields:  # type: ignore[attr-defined]
            continue
        if hasattr(hint, "_fields"):
            values[name] = unpack(hint, leaves, f"{prefix}{name}.")
        elif hint in (int, float):
            values[name] = hint(leaves[prefix + name])
        else:
            values[name] = leaves[prefix + name] if hint is np.ndarray else jnp.asarray(leaves[prefix + name])
    return kind(**values)
