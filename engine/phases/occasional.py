"""What is read at the edge now and then, between steps: each with how often, and what it takes.

Readings and anchors come before the step that they are due at; an audit of θ† comes after it, about the θ† that the step has led to.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from engine import theory
from engine.curvature import landscape
from engine.curvature.eigensolver import LOOSE_TOLERANCE, forms_hessian, random_start, sharpness_at
from engine.curvature.guards import Guards, Known
from engine.dynamics.trajectories import TRAJECTORIES
from engine.phases import coupled_loop, gauge_readings
from engine.phases.context import Curves, Setup, join
from engine.phases.coupled_state import CoupledState
from engine.phases.edge_state import EdgeState, anchor, replaced_center
from engine.record import messages
from engine.record.messages import AnyEvent

AUDIT_MARGIN = 1e-3
"""Relative excess of an audit's eigenvalue over the tracked one that corrects it."""


class Reading(NamedTuple):
    """Columns of the step, the work among them, and sampled curves."""

    values: Mapping[str, float]
    curves: Curves = ()


NOTHING = Reading({})


class Occasional(NamedTuple):
    """Something that is done now and then."""

    every: Callable[[Setup, EdgeState], int]
    """Steps between; 0 means never."""
    since: Callable[[EdgeState], int]
    """The step that they count from."""
    read: Callable[[Setup, EdgeState], Reading] = lambda setup, state: NOTHING
    otherwise: Reading = NOTHING
    """At the steps between, where it is done at all."""
    words: str = ""
    """What it is, where it takes long."""

    def is_due(self, setup: Setup, state: EdgeState) -> bool:
        """Whether this step is one of them."""
        every = self.every(setup, state)
        return bool(every) and (state.clock.step - self.since(state)) % every == 0


# -- readings


def _memory(setup: Setup, state: EdgeState) -> Reading:
    """The prediction summed from β, and the newest and oldest β at hand; nothing with several directions at the edge."""
    if len(state.coupled.constrained.directions.basis):
        return NOTHING
    total = state.unrolled
    followed = total.betas[np.isfinite(total.betas)]
    newest, oldest = (followed[0], followed[-1]) if len(followed) else (math.nan, math.nan)
    return Reading({"unrolled.x": total.x, "unrolled.y": total.y, "unrolled.beta": newest, "unrolled.beta_oldest": oldest})


def _landscape(setup: Setup, state: EdgeState) -> Reading:
    """The loss along u about this centre, as three numbers and as curves, that in the plane of u and ∇S⊥, and the β at hand; nothing where
    δ is undefined.
    """
    eta, delta = float(state.optimizer.learning_rate), theory.delta(float(state.center.alpha), float(state.center.beta))
    if not delta > 0:
        return NOTHING
    line = landscape.sample(setup.problem, state.center, delta, eta)
    plane = landscape.plane(setup.problem, state.center, delta)
    curves = {
        "x": line.x, "F": line.rise, "F_even": line.even, "quadratic": line.x**2 / eta, "delta": np.array(delta),
        "plane_x": plane.x, "plane_y": plane.y, "plane": plane.rise,
        "beta_starts": state.unrolled.starts, "beta": state.unrolled.betas,
    }
    values = {"landscape.ratio": line.ratio}
    if not len(state.coupled.constrained.directions.basis):  # where it settles is of one direction: several do not
        values |= {"landscape.limit": line.limit, "landscape.limit_turned": line.limit_turned}
    return Reading(values, ((state.clock.step, curves),))


def _gauges(setup: Setup, state: EdgeState) -> Reading:
    """The gauges of Appendix E."""
    return Reading(gauge_readings.gauges(setup, state))


READINGS = (
    Occasional(lambda setup, state: int(setup.tracking.beta_every > 0), lambda state: 0, _memory),
    Occasional(lambda setup, state: setup.tracking.landscape_every, lambda state: state.edge_step, _landscape,
               words="sampling the loss along u and in its plane"),
    Occasional(
        lambda setup, state: setup.tracking.gauges_every, lambda state: state.edge_step, _gauges,
        Reading({"cost.fourth_derivatives": 0}), words="reading the gauges of the assumptions",
    ),
)
"""What is read before a step."""


def words_due(setup: Setup, state: EdgeState) -> str:
    """What is read at this step and takes long, in words."""
    due = [each.words for each in (*READINGS, AUDITS) if each.words and each.is_due(setup, state)]
    return ", ".join(due)


def read(setup: Setup, state: EdgeState) -> Reading:
    """All that is read at this step."""
    values, curves = dict[str, float](), Curves()
    for each in READINGS:
        if each.every(setup, state):
            reading = each.read(setup, state) if each.is_due(setup, state) else each.otherwise
            values, curves = {**values, **reading.values}, curves + reading.curves
    if setup.reads_at(state.clock.step):
        eigenvectors, eta = coupled_loop.newest_eigenvectors(state.coupled), float(state.optimizer.learning_rate)
        join(values, setup.read_at(state.clock.step, eta, state.theta, eigenvectors, state.center.theta))
    return Reading(values, curves)


# -- anchors


ANCHORS = Occasional(lambda setup, state: state.anchor_every, lambda state: state.anchor_phase)
"""When predictions are set to the true displacement, from the step after the first on."""


def anchored(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent]]:
    """The state with its predictions set to the true displacement where that is due, or where one is lost."""
    tracking = setup.tracking
    if ANCHORS.is_due(setup, state) and state.clock.step > state.anchor_phase:
        forms = tracking.predictions
    else:
        lost = {form for form, score in state.coupled.predicted.scores.items() if np.asarray(score.lost)} if tracking.anchor_lost else ()
        forms = tuple(form for form in tracking.predictions if form in lost)
    if not forms:
        return state, []
    text = f"{', '.join(forms)}: set to the true displacement at step {state.clock.step}"
    return anchor(setup, state, forms), [messages.Anchored(step=state.clock.step, text=text, forms=forms)]


# -- audits


AUDITS = Occasional(
    lambda setup, state: 0 if forms_hessian(state.theta) else setup.tracking.audit_every, lambda state: 0,
    words="looking for larger eigenvalues from random starts",
)
"""When the eigenpairs of every trajectory are looked for from random starts; never where the Hessian is formed, which misses none."""


def audit_age(state: EdgeState, steps: np.ndarray) -> np.ndarray:
    """Steps since the last audit: 0 where the Hessian is formed, which shows every eigenvalue; NaN before the first."""
    if forms_hessian(state.theta):
        return np.zeros_like(steps)
    return steps - state.audited if state.audited >= 0 else np.full_like(steps, np.nan)


def audited_beside(
    setup: Setup, state: EdgeState, coupled: CoupledState
) -> tuple[CoupledState, Known]:
    """The audits of gradient descent and of what is followed beside, before their step: what random starts show there is looked at in it.

    That of gradient descent is given back, to be looked at beside what θ† knows; another trajectory keeps its own.
    """
    dtype, seed, step, theta = setup.spec.precision.curvature, setup.spec.seed, state.clock.step, coupled.descent.theta

    def rows(count: int) -> jnp.ndarray:
        return random_start(seed, step, count, theta.size, dtype, setup.problem.shares)

    there = sharpness_at(setup.problem, theta, rows(coupled.descent.eigenvectors.shape[1]), LOOSE_TOLERANCE, dtype)
    costs, beside = coupled.costs.plus(there.hvps), dict(coupled.beside)
    for name, each in beside.items():
        beside[name], hvps = TRAJECTORIES[name].audit(setup.problem, each, rows, dtype)
        costs = costs.plus(hvps)
    return coupled._replace(costs=costs, beside=beside), (Guards(there.vectors, there.values),)


def audited(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent]]:
    """Every so many steps, look for a larger eigenvalue at θ† from a fresh random start; a Ritz value is never too large."""
    dtype, step, center = setup.spec.precision.curvature, state.clock.step, state.center
    if not AUDITS.is_due(setup, state):
        return state, []
    start = random_start(setup.spec.seed, step, len(center.eigen.values), center.theta.size, dtype, setup.problem.shares)
    pairs = sharpness_at(setup.problem, center.theta.astype(dtype), start, LOOSE_TOLERANCE, dtype)
    state = state._replace(audited=step, coupled=state.coupled._replace(costs=state.coupled.costs.plus(pairs.hvps)))
    held = max(1, int(state.coupled.constrained.directions.number))
    ratio = float(np.max(np.asarray(pairs.values[:held], float) / np.asarray(center.eigen.values[:held], float)))
    if not ratio > 1 + AUDIT_MARGIN:
        return state, []
    text = f"an audit at step {step} found an eigenvalue {ratio:.3f} times the tracked one; θ† was projected anew from it"
    return replaced_center(setup, state, pairs.vectors)[0], [messages.EigenpairCorrected(step=step, text=text)]


# -- when


def steps_until_due(setup: Setup, state: EdgeState) -> int:
    """Steps until something has to be read or set that the compiled steps do not."""
    periods = [(each.every(setup, state), each.since(state)) for each in (*READINGS, ANCHORS, AUDITS)]
    beside = setup.steps_until_due(state.clock.step)
    return min([coupled_loop.CHUNK, beside, *(every - (state.clock.step - since) % every for every, since in periods if every)])
