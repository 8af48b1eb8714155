"""The central flow beside a training with RMSProp: where it begins, what a row has of it, and where it ends."""

import jax.numpy as jnp
from jax import Array

from engine.curvature.eigensolver import random_start
from engine.dynamics import rmsprop_flow
from engine.dynamics.optimizers import State, second_moment
from engine.dynamics.rmsprop_flow import NO_FLOW, ROOM, RmspropFlowState, Settings
from engine.phases.context import Setup
from engine.record import messages
from engine.record.messages import AnyEvent
from engine.spec import RmsProp, RunSpec, SharpnessTracking
from engine.xla.shares import Shares


def room(spec: RunSpec, theta: Array, shares: Shares | None) -> RmspropFlowState:
    """A state with room for the flow at θ (p,), which has not begun; none where none is followed."""
    if not (isinstance(spec.tracking, SharpnessTracking) and spec.tracking.central_from and isinstance(spec.optimizer, RmsProp)):
        return NO_FLOW
    count = min(ROOM if spec.optimizer.scalar else 1, theta.size)
    moment = jnp.zeros((), theta.dtype) if spec.optimizer.scalar else jnp.zeros_like(theta)
    start = random_start(spec.seed, 0, count, theta.size, spec.precision.curvature, shares)
    return rmsprop_flow.begin(theta, moment, start, begun=0)


def advance(
    setup: Setup, state: RmspropFlowState, theta: Array, optimizer: State, step: int
) -> tuple[RmspropFlowState, dict[str, float], list[AnyEvent]]:
    """The flow a step on, what the row at this step has of it, and what happened; it begins at θ (p,) of the run and its ν̂."""
    section, dtype = setup.spec.optimizer, setup.spec.precision.curvature
    assert isinstance(section, RmsProp)
    moment = second_moment(optimizer, section.beta2)
    if not state.begun:
        state = rmsprop_flow.begin(theta, moment, state.eigenvectors)
    settings = Settings(float(optimizer.learning_rate), section.beta2, section.epsilon)
    away = float(jnp.linalg.norm(state.theta - theta))
    following, row, costs = rmsprop_flow.step(setup.problem, state, settings, step + 1, dtype)
    values = {name: float(value) for name, value in row.items()} | {f"cost.{name}": float(spent) for name, spent in costs._asdict().items()}
    values["second_moment"] = float(jnp.mean(moment))
    if following.ended:
        text = f"the central flow of RMSProp is at its edge at step {step}, where it ends: beyond it, it is known with one ν for all alone"
        return following, values, [messages.FlowEnded(step=step, text=text)]
    return following, values | {"central.distance_run": away}, []
