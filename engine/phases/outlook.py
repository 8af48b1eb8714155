"""What a run meets at its start, measured before it: the sharpness against its edge, a learning rate that would meet it, a step's time.

The suggestion is η = c/(2S): with an edge of c/η (c = 2 for gradient descent, 2+2β for momentum) and the sharpness S at the start, the
edge is then at twice the sharpness. The first steps are stable, and the run meets the edge where its sharpness doubles. Whether it does is
for progressive sharpening to decide, which no number at the start tells.
"""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from msgspec.structs import replace

from engine.curvature.eigensolver import Eigenpairs, random_start, sharpness_at
from engine.curvature.expansion import loss_and_gradient
from engine.dynamics.descent import DESCENT_CHUNK, descend, descend_on_batches
from engine.dynamics.optimizers import optimizer_of
from engine.phases import context
from engine.phases.approach import CHECK_TOLERANCE, Approach
from engine.phases.context import Setup
from engine.phases.coupled_loop import CHUNK
from engine.phases.edge import AtEdge
from engine.problems import batches
from engine.problems.build import with_products, without_products
from engine.problems.problem import Problem
from engine.record import edges
from engine.spec import CoupledTracking, GradientDescent, Momentum, RunSpec, SharpnessTracking

HEADROOM = 2.0
"""Edge over sharpness at the start, with the learning rate that is suggested."""
TIMED_SECONDS = 0.3
"""Of steps, to time one by."""
BEYOND = 1.001
"""Sharpness over the edge where a tracked step is timed."""
RISING = 12
"""Times DESCENT_CHUNK steps to let the sharpness rise, at most."""
TRACKED_STEPS = 12
"""Steps at the edge that are taken, of which the later half is timed."""
TIMED_GRADIENTS = 3
"""Gradients, the fastest of which counts."""


class AtStart(NamedTuple):
    """A problem where it starts, and what its spectrum is there."""

    spec: RunSpec
    problem: Problem
    theta: Array  # (p,)
    pairs: Eigenpairs


def at_start(spec: RunSpec, problem: Problem, theta: Array) -> AtStart:
    """The top eigenpairs at θ (p,), in the format of the run's curvature, as many as it records."""
    dtype = spec.precision.curvature
    basis = random_start(spec.seed, 0, min(spec.tracking.eigenvalues, theta.size), theta.size, dtype, problem.shares)
    return AtStart(spec, problem, theta, sharpness_at(problem, theta, basis, CHECK_TOLERANCE, dtype))


class Edge(NamedTuple):
    """The sharpness at the start against the edge."""

    sharpness: float
    """S, the top eigenvalue of ∇²L(θ0)."""
    residual: float
    """‖Hu−Su‖/S of its eigenpair."""
    largest_stable_step: float
    """2/S: gradient descent with a larger η diverges along u; NaN where S is not positive."""
    learning_rate: float
    """η of the specification,"""
    edge_over_sharpness: float
    """its edge over S; NaN where the edge of the optimizer is not read off ∇²L alone."""
    suggested_learning_rate: float
    """η with which the edge is at twice the sharpness; NaN where none can be told from S."""


def edge(at: AtStart) -> Edge:
    """The sharpness at the start against the edge of the run."""
    sharpness, eta = float(at.pairs.values[0]), at.spec.optimizer.learning_rate
    known = isinstance(at.spec.optimizer, GradientDescent | Momentum) and sharpness > 0
    scale = edges.of_hessian(at.spec.optimizer) * eta if known else math.nan  # the edge is scale/η
    stable = 2 / sharpness if sharpness > 0 else math.nan
    suggested = _rounded(scale / (HEADROOM * sharpness)) if known else math.nan
    return Edge(sharpness, float(at.pairs.residuals[0]), stable, eta, scale / eta / sharpness if known else math.nan, suggested)


def _rounded(value: float) -> float:
    """A number to two digits, as a person would give it."""
    return float(f"{value:.2g}")


def seconds_a_step(at: AtStart) -> float:
    """Seconds of a step of the optimizer alone, as the approach or a training takes it, once it is compiled."""
    spec = at.spec
    setup = context.setup(spec, at.problem, at.theta.size)
    theta = at.theta.astype(spec.precision.approach)
    state = setup.optimizer.init(theta, at.problem.unravel, spec.optimizer.learning_rate)

    def take(steps: int) -> float:
        began = time.perf_counter()
        given = at.problem, setup.optimizer, theta, state
        if spec.batch.size:
            part = spec.batch
            chosen = batches.indices(spec.batch_seed, 0, DESCENT_CHUNK, at.problem.count, part.size, part.replacement)
            jax.block_until_ready(descend_on_batches(*given, chosen, steps))
        else:
            jax.block_until_ready(descend(*given, steps))
        return time.perf_counter() - began

    take(1)  # compiles
    steps = max(1, min(DESCENT_CHUNK, int(TIMED_SECONDS / max(take(1), 1e-9))))
    return take(steps) / steps


class ProductsCompared(NamedTuple):
    """A gradient at the start in float64, with its products made of float32 ones against all of it in float64."""

    error: float
    """‖∇L − ∇L in float64‖ over the latter."""
    seconds: float
    seconds_in_float64: float

    @property
    def words(self) -> str:
        """In words."""
        if not self.error:
            return "no product in a gradient is large enough to gain by it"
        return f"∇L within {self.error:.1e} of that in float64, taking {self.seconds / self.seconds_in_float64:.2g} times as long"


def compare_products(at: AtStart) -> ProductsCompared:
    """Both gradients; two are compiled."""
    theta = at.theta.astype("float64")
    if at.spec.precision.products == "float64":
        ours, exact = with_products(at.problem, "float32x6"), at.problem
    else:
        ours, exact = at.problem, without_products(at.problem)
    (grad, seconds), (in_float64, seconds_in_float64) = _timed_gradient(ours, theta), _timed_gradient(exact, theta)
    return ProductsCompared(float(jnp.linalg.norm(grad - in_float64) / jnp.linalg.norm(in_float64)), seconds, seconds_in_float64)


def _timed_gradient(problem: Problem, theta: Array) -> tuple[Array, float]:
    """∇L(θ) (p,), and the least seconds it takes once it is compiled."""
    grad = jax.block_until_ready(loss_and_gradient(problem, theta)[1])
    return grad, min(_seconds(lambda: loss_and_gradient(problem, theta)) for _ in range(TIMED_GRADIENTS))


def seconds_a_tracked_step(at: AtStart, plain: float) -> float:
    """Seconds of a step with what the run reads beside it: at the edge θ†, its predictions and flows; of a training the sharpness, spread
    over the steps between two readings. NaN where there is no θ† near the start."""
    if isinstance(at.spec.tracking, SharpnessTracking):
        return plain + _seconds(lambda: _solved(at)) / at.spec.tracking.sharpness_every
    return _seconds_at_edge(at)


def _solved(at: AtStart) -> Any:
    dtype = at.spec.precision.curvature
    return sharpness_at(at.problem, at.theta, at.pairs.vectors, CHECK_TOLERANCE, dtype)


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def _seconds_at_edge(at: AtStart) -> float:
    """The same at an edge where the sharpness has risen to: at the start θ† can take a hundred times the products of later on."""
    theta, pairs = _risen(at)
    optimizer = at.spec.optimizer
    eta = edges.of_hessian(optimizer) * optimizer.learning_rate * BEYOND / float(pairs.values[0])
    tracking = at.spec.tracking
    if isinstance(tracking, CoupledTracking) and tracking.on_second_eigenvalue != "follow":
        tracking = replace(tracking, on_second_eigenvalue="keep")  # here a second one may be near, where the run has none
    spec = replace(at.spec, optimizer=replace(optimizer, learning_rate=eta), tracking=tracking)
    setup: Setup = context.setup(spec, at.problem, at.theta.size)
    phase = AtEdge(setup)
    approach = Approach(setup, lambda state, soon: "")
    below = approach.begin(theta)._replace(eigenvectors=pairs.vectors)
    state, _, leads_to = phase.enter(below, setup.tracking.anchor_every)
    each = list[float]()
    for _ in range(TRACKED_STEPS):
        if leads_to:
            return math.nan
        began = time.perf_counter()
        state, progress, leads_to = phase.advance(state, CHUNK)  # one, but where the Hessian is formed
        if not progress.rows:
            return math.nan
        each.append((time.perf_counter() - began) / len(progress.rows))
    phase.settle()
    return float(np.median(each[TRACKED_STEPS // 2 :]))  # the first ones compile, and go to the stable set


def _risen(at: AtStart) -> tuple[Array, Eigenpairs]:
    """θ (p,) and its eigenpairs where gradient descent, at a third of its edge, has doubled the sharpness; or where that took too long."""
    theta, pairs = at.theta.astype(at.spec.precision.approach), at.pairs
    descent = optimizer_of(GradientDescent(learning_rate=1.0))
    for _ in range(RISING):
        if pairs.values[0] > HEADROOM * at.pairs.values[0]:
            break
        begun = descent.init(theta, at.problem.unravel, 2 / 3 / float(pairs.values[0]))
        theta = descend(at.problem, descent, theta, begun, DESCENT_CHUNK).theta
        pairs = sharpness_at(at.problem, theta, pairs.vectors, CHECK_TOLERANCE, at.spec.precision.curvature)
    return theta, pairs
