"""How many of gradient descent's eigenvalues are followed: as many as lie above 1.5/η, so that whatever becomes unstable was
seen coming.

The number only grows. While the smallest one followed lies above 1.5/η the solver is asked for more at the same θ, from random
vectors beside the pairs it has, so that every row covers what it should, up to the columns allotted. Each new number of pairs
compiles the solver once; an event says so. Another event says when each eigenvalue is first above 2/η.
"""

from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from engine import control
from engine.approach import Setup
from engine.control import AnyEvent
from engine.curvature import Point, measure, random_start
from engine.spec import FOLLOWED_FROM
from engine.states import DescentState, EdgeState

GROWTH = 2
"""Eigenvalues added at once: each addition compiles the solver anew."""

AnyDescent = TypeVar("AnyDescent", EdgeState, DescentState)


class Spectrum(NamedTuple):
    """What is measured at gradient descent's θ, and what happened to its eigenvalues."""

    point: Point
    events: list[AnyEvent]


def read(setup: Setup, state: AnyDescent, tolerance: float) -> tuple[AnyDescent, Spectrum]:
    """Loss, gradient and eigenpairs at the state's θ, from its warm start; the state with as many vectors as there are pairs."""
    tracking, dtype, step, eta = setup.spec.tracking, setup.spec.precision.curvature, state.clock.step, state.clock.learning_rate
    begun, most = state.bases.shape[1], min(tracking.eigenvalue_columns, state.theta.size)
    point = measure(setup.problem, state.theta, state.bases[0], tolerance, dtype)
    hvps = point.eigen.hvps
    while (count := len(point.eigen.values)) < most and float(point.eigen.values[-1]) * eta > FOLLOWED_FROM:
        fresh = random_start(setup.spec.seed, step, min(GROWTH, most - count), state.theta.size, dtype)
        point = measure(setup.problem, state.theta, jnp.concatenate([point.eigen.vectors, fresh]), tolerance, dtype)
        hvps += point.eigen.hvps
    events: list[AnyEvent] = []
    if count > begun:
        point = point._replace(eigen=point.eigen._replace(hvps=hvps))
        more = jnp.stack([point.eigen.vectors[begun:]] * 2)
        state = state._replace(bases=jnp.concatenate([state.bases, more], axis=1))
        text = f"{count} eigenvalues are followed from step {step}: λ{begun} is above {FOLLOWED_FROM:g}/η = {FOLLOWED_FROM / eta:.4g}"
        events.append(control.SpectrumGrown(step=step, text=text, count=count))
    unstable = int(np.sum(np.asarray(point.eigen.values) * eta > 2))
    for k in range(state.unstable + 1, unstable + 1):
        text = f"λ{k} is above 2/η = {2 / eta:.4g} for the first time at step {step}"
        events.append(control.EigenvalueUnstable(step=step, text=text, number=k))
    return state._replace(unstable=max(state.unstable, unstable)), Spectrum(point, events)
