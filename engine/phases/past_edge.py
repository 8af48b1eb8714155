"""Past the edge: gradient descent with its eigenvalues, when θ† is no longer followed."""

import math
from typing import Annotated, Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import LOOSE_TOLERANCE, forms_hessian
from engine.curvature.guards import Guards, unknown
from engine.curvature.predictor import alternating, power_step, push
from engine.phases import approach, earlier, loss_identity, spectrum
from engine.phases.context import Clock, Progress, diverged, join, loss_goal
from engine.phases.loss_identity import Identity
from engine.phases.phase import Advanced, Entered, Phase, Restart
from engine.xla.leaves import Earlier


class DescentState(NamedTuple):
    """Gradient descent past the edge."""

    clock: Clock
    optimizer: Annotated[Any, Earlier(earlier.gradient_descent_state)]
    edge_step: int
    theta: Array
    eigenvector_history: Annotated[Array, Earlier(names=("bases",))]  # (4, k, p) its top eigenvectors, four steps ago first
    unstable: int
    guards: Annotated[Guards, Earlier(unknown("bases"))]  # of them


class PastEdge(Phase):
    """Gradient descent alone, one step at a time."""

    name: ClassVar[str] = "gradient descent"
    State: ClassVar[type] = DescentState

    def enter(self, state: DescentState, anchor_every: int) -> Entered:
        """Where the coupled steps have led, without θ†."""
        return Entered(state, [])

    def advance(self, state: DescentState, limit: int) -> Advanced:
        """One step with its eigenvalues."""
        setup, clock, eta = self.setup, state.clock, self.learning_rate(state)
        start, known, measured = alternating(state.eigenvector_history), state.guards, None
        if guards.due(clock.step) and not forms_hessian(state.theta):
            dtype = setup.spec.precision.curvature
            seed = setup.spec.seed
            measured, known = guards.measure_around(setup.problem, state.theta, start, known, seed, clock.step, LOOSE_TOLERANCE, dtype)
        point, images, history, events = spectrum.read(
            setup, state.theta, start, state.eigenvector_history, clock.step, setup.plain_rate(state.optimizer),
            measured=measured,
        )
        values = {
            "step": clock.step, "time": clock.time, "learning_rate": eta, "threshold": setup.threshold(state.optimizer),
            "gd.loss": float(point.loss), "gd.gradient_norm": float(jnp.linalg.norm(point.grad)), "cost.gradients": 1,
            "cost.grad_sharpness": 0,
        } | spectrum.values_of(point.eigen)
        join(values, setup.read_at(clock.step, eta, state.theta, state.eigenvector_history[-1]))
        if not math.isfinite(values["gd.loss"] + values["gd.gradient_norm"]):
            return Advanced(state, Progress([], events, diverged(clock.step)))
        unstable, risen = spectrum.unstable(setup, {name: np.array([value]) for name, value in values.items()}, state.unstable)
        theta, optimizer = setup.optimizer.step(state.theta, state.optimizer, point.grad, setup.problem.gradient)
        following = DescentState(
            clock.after(1, eta), optimizer, state.edge_step, theta, push(history, power_step(point.eigen, images)), unstable, known,
        )
        outcome = loss_goal(setup.spec, values["gd.loss"], clock.step)
        return Advanced(following, Progress([setup.row(values)], [*events, *risen], outcome))

    def set_learning_rate(self, state: DescentState, learning_rate: float) -> Restart:
        """Back to an approach, to the new threshold."""
        return approach.restart(self.setup, state.theta, state.clock, state.optimizer, state.eigenvector_history[-1], learning_rate)

    def edge_step(self, state: DescentState) -> int:
        """The step of the edge."""
        return state.edge_step

    def followed_eigenvectors(self, state: DescentState) -> Array:
        """Those of the last step."""
        return state.eigenvector_history[-1]

    def identity(self, state: DescentState) -> Identity:
        """By the solver that its eigenvalues are followed with."""
        return loss_identity.of_gradient(self.setup, state.theta, state.eigenvector_history.shape[1])
