"""Trajectories that are followed beside gradient descent from the edge on: what one is. `trajectories` says which there are.

Each is a state, where it begins, and a step `state -> (state, row)`; its columns are declared in `engine.record.columns`, where no jax is.
A step is taken in two parts: `measure` has the device begin, and `step` is given what came of it, so that the host need not wait between:
whether that suffices only the device knows, and it is read together with what the host waits for anyhow.
Each runs inside one compiled call where the problem is small, and out of functions that are compiled each for itself elsewhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from engine.curvature.expansion import TaylorCenter
from engine.curvature.guards import Guards, Known
from engine.problems.problem import Problem
from engine.spec import CoupledTracking

Row = dict[str, Array]
"""Numbers () by their columns' names."""


class Costs(NamedTuple):
    """Work since the last row: how many of each."""

    hvps: Array  # ()
    gradients: Array  # ()
    grad_sharpness: Array  # ()

    def plus(self, hvps: Any = 0, gradients: Any = 0, grad_sharpness: Any = 0) -> "Costs":
        """With more of each."""
        return Costs(self.hvps + hvps, self.gradients + gradients, self.grad_sharpness + grad_sharpness)


class Beginning(NamedTuple):
    """Where trajectories part at the edge."""

    theta: Array  # (p,) gradient descent's
    eigenvector: Array  # (p,) the top one there
    center: TaylorCenter
    center_eigenvector: Array  # (p,) the top one at θ†, one step of power iteration on
    guards: Guards  # the next eigenvectors, so far as they are known


class StepContext(NamedTuple):
    """What a step reads besides its own state."""

    problem: Problem
    since_edge: Any  # steps
    sharpness_every: Any  # steps between readings of the sharpness
    learning_rate: float
    descent: Array  # (p,) gradient descent's θ
    center: TaylorCenter
    known: Known  # eigenvectors at θ†
    dtype: str  # of the curvature
    around: Any  # whether the eigensolver looks around
    traced: bool  # inside one compiled call
    central_substeps: Any  # Euler substeps of the central flow
    most_followed: Any  # eigenvalues at most
    in_turn: bool = False  # whether memory counts: a step is taken as soon as it is measured, and may overwrite the state


class Trajectory(NamedTuple):
    """A trajectory beside gradient descent."""

    state: type
    """A NamedTuple of arrays, for a checkpoint to be read into."""
    begin: Callable[[Beginning, CoupledTracking], Any]
    measure: Callable[[StepContext, Any], Any]
    step: Callable[[StepContext, Any, Any], tuple[Any, Row, Costs]]
    """From the state and what was measured there to the next state, the row here and the work both took."""
    audit: Callable[[Problem, Any, Callable[[int], Array], str], tuple[Any, Any]] = lambda problem, state, rows, dtype: (state, 0)
    """The state after a look for a larger eigenvalue from so many random rows (count, p), in a format, and the products it took."""
    suffices: Callable[[Any], Any] = lambda measured: True
    """Whether what was measured suffices for the step, ()."""
    measure_more: Callable[[StepContext, Any, Any], Any] = lambda at, state, measured: measured
    """What was measured with what it takes for a step where it did not suffice."""
    lacks_room: Callable[[Any], Any] = lambda state: False
    """Whether a state is to follow more than it has room for: a compiled call ends there, for arrays of another shape."""
    with_room: Callable[[Any], Any] = lambda state: state
    """The state with room for what it is to follow, made by the host between steps."""
    reads_descent: bool = False
    """Whether a step reads where gradient descent is."""
