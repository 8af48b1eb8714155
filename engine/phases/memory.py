"""The memory that a problem needs, told before a run: nothing is computed.

What goes with the parameters are vectors of p numbers. They are counted by the shapes of the state at the edge, and by what a step needs
beside it. What goes with the examples too the compiler tells.
"""

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from engine.curvature import directions, guards
from engine.curvature.directions import contractions_along
from engine.curvature.eigensolver import LARGE, Eigenpairs, basis_rows
from engine.curvature.expansion import TaylorCenter, narrower
from engine.curvature.guards import Guards
from engine.curvature.halves import halved, shortened
from engine.dynamics import predicted, prediction_scores
from engine.dynamics.optimizers import optimizer_of
from engine.dynamics.trajectories import TRAJECTORIES
from engine.dynamics.trajectory import Beginning, Costs
from engine.phases.coupled_loop import takes_many
from engine.phases.coupled_state import ConstrainedTrack, CoupledState, DescentTrack, PredictedTrack
from engine.phases.several import room
from engine.problems.problem import Problem
from engine.record.columns import BESIDE
from engine.spec import CoupledTracking, GradientDescent, RunSpec
from engine.spec import Optimizer as OptimizerSection

PLAIN = GradientDescent(learning_rate=0.1)
"""An optimizer that remembers nothing; its η makes no difference here."""


class Formats(NamedTuple):
    """What the vectors of p numbers hang on, besides p."""

    edge: str = "float64"
    """The number format of parameters at the edge,"""
    curvature: str = "float32"
    """and that of the curvature."""
    tracking: CoupledTracking = CoupledTracking()
    """Which forms, trajectories and eigenvalues are followed."""
    optimizer: OptimizerSection = PLAIN

    @classmethod
    def of(cls, spec: RunSpec) -> "Formats":
        """Those of a run. What is not followed to the edge counts as if it were: it takes less."""
        tracking = spec.tracking if isinstance(spec.tracking, CoupledTracking) else CoupledTracking()
        return cls(spec.precision.edge, spec.precision.curvature, tracking, spec.optimizer)


BY_DEFAULT = Formats()


class DirectionCosts(NamedTuple):
    """What so many directions at the edge take more than one."""

    directions: int
    third_derivatives: int
    """Contractions of ∇³L for the normals of θ†, taken once a step: k(k+1)/2 pairs and a tilt for each direction."""
    bytes: int
    """On the device: the basis and its normals, and eigenvectors to start from."""


def direction_costs(most: int, problem: Problem, size: int, formats: Formats) -> list[DirectionCosts]:
    """For 2, 4, 8, … directions, up to the most that are followed, with θ of `size` numbers."""
    counts = sorted({min(1 << power, most) for power in range(1, 5)} - {1})
    one = of_parameters(problem, size, formats)
    return [DirectionCosts(k, contractions_along(k), of_parameters(problem, size, formats, k) - one) for k in counts]


class Memory(NamedTuple):
    """Bytes on the device, by what takes them."""

    examples: int
    parameters: int
    """The state at the edge, and what a step needs beside it (`of_parameters`)."""
    gradient: int
    """The temporaries of ∇L in the format of the edge,"""
    hvp: int
    """of a Hessian–vector product,"""
    third_derivative: int
    """and of ∇³L(u,u), both in the format of the curvature. Only one of the three is needed at a time."""

    @property
    def total(self) -> int:
        """The most at a time."""
        return self.examples + self.parameters + max(self.gradient, self.hvp, self.third_derivative)


def estimate(problem: Problem, theta: Array, formats: Formats = BY_DEFAULT) -> Memory:
    """The memory for a run of this problem, θ of shape (p,): on each device of several.

    Three compilations. Temporaries count as 0 on a device whose compiler does not tell of them.
    """
    shares = problem.shares

    def temporaries(function, format: str, vectors: int) -> int:
        given = [jax.ShapeDtypeStruct(theta.shape, format, sharding=shares and shares.along_last())] * (1 + vectors)
        needed = jax.jit(function).lower(problem, *given).compile().memory_analysis()
        return 0 if needed is None else int(needed.temp_size_in_bytes + needed.output_size_in_bytes)

    return Memory(
        sum(_share(leaf) for leaf in jax.tree.leaves(problem.data)), of_parameters(problem, theta.size, formats),
        temporaries(Problem.gradient, formats.edge, 0), temporaries(Problem.hvp, formats.curvature, 1),
        temporaries(Problem.grad_sharpness, formats.curvature, 1),
    )


def of_parameters(problem: Problem, size: int, formats: Formats, followed: int = 1) -> int:
    """Bytes that go with p = `size` parameters, on each device, at the most in a step with so many directions at the edge.

    Of many parameters a step out of parts is taken in turn (`step_in_turn`), and beside the state there is the most of three: θ†'s trial
    point where the solver looks around, that point with what is known of gradient descent and the flow, or the next centre while the flow
    steps. Of few the new state stands beside the old one, and with them what was measured, at θ†'s new point and at gradient descent's,
    other trajectories, and what the predictions are made of; in one program for many steps the solver's rows too.
    """
    state = state_at_edge(problem, size, formats, followed)
    wide, narrow = (size * jnp.dtype(format).itemsize for format in (formats.edge, formats.curvature))
    pairs, others = len(state.constrained.center.eigen.vectors), state.descent.eigenvectors.shape[1]
    forms, kept = len(state.predicted.displacements), sum(_size(leaf) for leaf in jax.tree.leaves(state))
    many = takes_many(formats.tracking, cast(Array, jax.ShapeDtypeStruct((size,), formats.edge)))
    rows = pairs + guards.COUNT + guards.FRESH
    basis = 2 * basis_rows(rows, size) * narrow  # V and W
    measured = 3 * wide + (2 * pairs + guards.COUNT + 2 + 2 * others) * narrow
    beside = sum(_size(leaf) for leaf in jax.tree.leaves(state.beside))
    made = (4 + others + pairs) * narrow + forms * (wide + narrow)
    end = measured + beside + made
    if many:
        between = end + basis + 2 * rows * narrow
    elif size >= LARGE:
        trial, known = 2 * narrow, wide + (others + 6) * narrow // 2  # with the residual; what is known of the two others
        centre = 2 * wide + (2 * pairs + 2) * narrow
        between = max(trial + basis, trial + known + 2 * basis_rows(pairs, size) * narrow, centre + known + 2 * wide)
    else:
        between = end
    whole = (kept if size >= LARGE else 2 * kept) + between
    return whole if problem.shares is None else whole // problem.shares.mesh.size


def state_at_edge(problem: Problem, size: int, formats: Formats = BY_DEFAULT, followed: int = 1) -> CoupledState:
    """The coupled state with so many directions at the edge as `edge.enter` and `several` make it, by the shapes of its arrays alone."""
    return jax.eval_shape(lambda: _state(problem, size, formats, followed))


def _state(problem: Problem, size: int, formats: Formats, followed: int) -> CoupledState:
    tracking, optimizer, capacity = formats.tracking, optimizer_of(formats.optimizer), room(followed, size)
    theta, number = jnp.zeros(size, formats.edge), jnp.zeros((), formats.edge)

    def narrow(*shape: int) -> Array:
        return jnp.zeros(shape, formats.curvature)

    small = jnp.zeros(size, narrower(formats.edge, formats.curvature))
    pairs, others = min(max(2, capacity + 1), size), min(tracking.eigenvalues, size)
    eigen = Eigenpairs(narrow(pairs), narrow(pairs, size), narrow(pairs), jnp.array(0))
    center = TaylorCenter(theta, number, theta, eigen, number, narrow(size), narrow(size), *[number] * 5)
    known = Guards(narrow(guards.COUNT, size), narrow(guards.COUNT))
    along = directions.around(theta[None].repeat(followed, 0), capacity) if capacity else directions.none(theta)
    displacements = predicted.begun(small, tracking.predictions)
    beginning = Beginning(theta, narrow(size), center, narrow(size), known)
    momentum = theta if optimizer.momentum is not None else jnp.zeros(0)
    rate = optimizer.init(theta, problem.unravel, formats.optimizer.learning_rate)
    return CoupledState(
        step=jnp.array(0), descent=DescentTrack(
            theta, rate, halved(narrow(2, others, size)), halved(narrow(4, size)), jnp.zeros(4, formats.edge)
        ),
        constrained=ConstrainedTrack(
            center, halved(narrow(pairs, size)), halved(narrow(max(1, capacity), size)), guards.kept(known), jnp.array(0),
            jnp.array(0), shortened(small), shortened(small), number, along, jnp.zeros((capacity, capacity), formats.edge), momentum,
        ),
        predicted=PredictedTrack(
            displacements, {form: prediction_scores.fresh(0) for form in displacements},
            predicted.begun(small, tracking.predictions) if momentum.size else {},
        ),
        beside={name: each.begin(beginning, tracking) for name, each in TRAJECTORIES.items() if BESIDE[name].follows(tracking)},
        costs=Costs(*[jnp.array(0)] * 3),
    )


def _size(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _share(leaf: Array) -> int:
    """Bytes of an array on each device that holds a part of it."""
    leaf = jnp.asarray(leaf)
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
