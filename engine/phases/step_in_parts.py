"""One coupled step out of programs that are compiled each for itself and shared with the approach, as on a CPU: inlined into one they would
take longer to compile, for each number of eigenvalues anew.

Between looks around, the host asks for nine programs and waits twice: for the verdict on what was measured, whether θ† has come within its
tolerances among it, before what hangs on that; and for the row.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.curvature import guards
from engine.curvature.eigensolver import LARGE, LOOSE_TOLERANCE
from engine.curvature.expansion import Point, measure_all
from engine.curvature.guards import KeptGuards, Known
from engine.phases import coupled_step, occasional, spectrum, step_in_turn
from engine.phases.context import Setup
from engine.phases.coupled_loop import Steps, expected_eigenvectors
from engine.phases.coupled_state import ConstrainedTrack, CoupledState, StaticConfig, StepParams, StepStatus, known_eigenvectors
from engine.phases.coupled_step import Positions, StepRows
from engine.phases.edge_state import EdgeState
from engine.phases.projection import (
    FirstTrial,
    Judged,
    ProjectionState,
    after_first,
    first_guess,
    first_trial,
    judged,
    newest_normals,
    project_until_converged,
    start_from_center,
    tight,
    tilt_is_due,
)
from engine.phases.spectrum import Spectrum
from engine.problems.problem import Problem
from engine.spec import FOLLOWED_FROM
from engine.xla.jit import jit_by_format


class Opening(NamedTuple):
    """What a step begins with."""

    trial: FirstTrial  # where the next θ† is looked for
    trial_point: Array  # (p,) in the format of the curvature
    theta: Array  # (p,) gradient descent's, in that format
    expected: Array  # (k, p) the eigenvectors that are expected there, in that format
    positions: Positions


def opened(problem: Problem, theta: Array, params: StepParams, state: CoupledState, dtype: str) -> Opening:
    """All that needs nothing measured but the loss along u, with gradient descent at θ."""
    several = len(state.constrained.directions.basis)  # along which the loss is read off a gradient and products, not forward alone
    return (_opened if several else _opened_forward)(problem, theta, params, state, dtype)


def _open(problem: Problem, theta: Array, params: StepParams, state: CoupledState, dtype: str) -> Opening:
    _, first = first_guess(params, state.constrained)
    point, start = first_trial(state.constrained, first)
    return Opening(
        FirstTrial(point, start.astype(dtype)), point.astype(dtype), theta.astype(dtype),
        expected_eigenvectors(state).astype(dtype), coupled_step.locate(problem, state),
    )


_opened, _opened_forward = (jit_by_format(_open, forward=forward, static_argnames="dtype") for forward in (False, True))


def take(setup: Setup, state: EdgeState, config: StaticConfig, params: StepParams, alone: bool) -> Steps:
    """One coupled step. `alone` leaves θ† where it is."""
    problem, step, dtype = setup.problem, state.clock.step, config.curvature
    coupled = coupled_step.with_host_values(state.coupled._replace(step=cast(Array, np.array(step))))
    audits = occasional.AUDITS.is_due(setup, state)
    # What θ† comes to know in a step, gradient descent and what is followed beside look at in the next.
    around, others = audits or guards.due(step - 1), cast(Known, ())
    if audits:
        coupled, others = occasional.audited_beside(setup, state, coupled)
    if state.theta.size >= LARGE and not alone:
        taken = step_in_turn.take(setup, state, coupled, config, params, around, others)
        if taken is not None:
            return taken

    at, history = coupled_step.context(problem, config, params, coupled, around, traced=False), coupled.descent.eigenvectors
    opening = opened(problem, state.theta, params, coupled._replace(beside={}), dtype)
    trial = None if alone else _measured_first(setup, params, coupled, opening)
    read = Spectrum(*measure_all(problem, state.theta, opening.expected, LOOSE_TOLERANCE, dtype, at=opening.theta), history, [])
    beside = coupled_step.measure_beside(at, coupled)
    asked = Asked(around, history.shape[1] < spectrum.most_followed(setup, state.theta.size), coupled_step.suffice_beside(beside))
    projection, verdict = _judged(params, coupled, opening, trial, read.point, asked)

    if verdict.again or others:
        known = known_eigenvectors(coupled.constrained, others) if around else None
        read = spectrum.read(setup, state.theta, opening.expected, history, step, params.plain_rate, known, (read.point, read.images))
    coupled = coupled._replace(descent=coupled.descent._replace(eigenvectors=read.history))
    beside = coupled_step.measure_more_beside(at, coupled, beside, verdict.suffice)
    given = (read.point, read.images), opening.positions, coupled_step.step_beside(at, coupled, beside)
    seen = trial and trial.guards
    del opening, trial, beside, at  # a dozen vectors of p, which would stand beside the new state
    if projection is None or seen is None:
        moved, rows, _ = coupled_step.take_without_center(problem, config, params, coupled, *given)
    else:
        if not projection.done:
            projection = project_until_converged(problem, params, projection, dtype)
        newest = newest_normals(problem, projection, dtype)
        moved, rows, _ = coupled_step.take(problem, config, params, coupled, *given, projection, newest)
        moved = moved._replace(constrained=moved.constrained._replace(beyond=seen))

    rows = StepRows(cast(Array, np.asarray(rows.values)), rows.count, rows.names)
    row = rows.row(0)
    status = StepStatus(int(row["status"]))
    if status >= StepStatus.GROW:
        moved = coupled
    elif not alone:
        moved = coupled_step.with_row(coupled, moved, row)
    count = cast(Array, np.array(int(status != StepStatus.DIVERGED)))
    return Steps(moved, StepRows(rows.values, count, rows.names), status, read.events)


class Trial(NamedTuple):
    """What is measured where the next θ† is looked for first."""

    measured: tuple[Point, Array]
    guards: KeptGuards


def _measured_first(setup: Setup, params: StepParams, coupled: CoupledState, opening: Opening) -> Trial:
    """Under way, with a look around where that is due: it needs nothing of gradient descent."""
    problem, track, step, at = setup.problem, coupled.constrained, int(coupled.step), opening.trial_point
    (theta, start), dtype, several = opening.trial, str(at.dtype), tight(track.normals)
    if not guards.due(step):
        return Trial(measure_all(problem, theta, start, params.eigen_tolerance, dtype, several, at), track.beyond)
    return Trial(*guards.measure_around(
        problem, theta, start, track.beyond, setup.spec.seed, step, params.eigen_tolerance, dtype, several, at
    ))


class Asked(NamedTuple):
    """What the verdict is asked for, beside whether θ† has come within its tolerances."""

    around: bool | Array  # whether gradient descent looks at what θ† knows
    more: bool | Array  # whether more of its eigenvalues can be followed
    suffice: tuple[Any, ...]  # what is known on the device of the verdict's


class Verdict(NamedTuple):
    """What the host goes by in the midst of a step."""

    again: bool  # whether gradient descent's eigenpairs are to be looked at again: for more of them, or for others
    suffice: tuple[bool, ...]  # whether what each trajectory beside has measured suffices


def _judged(
    params: StepParams, coupled: CoupledState, opening: Opening, trial: Trial | None, point: Point, asked: Asked
) -> tuple[ProjectionState | None, Verdict]:
    """Projections after the first trial, None where there is none, and the verdict: the host waits for it."""
    if trial is None:
        return None, Verdict(True, tuple(map(bool, asked.suffice)))
    track = coupled.constrained
    by, flags = _judged_first(params, tilt_is_due(coupled.step), track, trial.measured, point, asked)
    done, tilts, again, *rest = np.asarray(flags).tolist()
    return after_first(params, track, opening.trial.start, trial.measured, by, done, tilts), Verdict(again, tuple(rest))


@jax.jit
def _judged_first(
    params: StepParams, tilts: Array, track: ConstrainedTrack, measured: tuple[Point, Array], descent: Point, asked: Asked
) -> tuple[Judged, Array]:
    """The first point judged by the normals of the last centre, and all flags in one array. `descent` is gradient descent's point."""
    projection = start_from_center(params, track, tilts)
    by = judged(params, projection, measured, projection.normals, False)
    _, _, changed = by
    again = asked.more & (descent.eigen.values[-1].astype(float) * params.plain_rate > FOLLOWED_FROM)
    again |= lax.cond(asked.around, lambda: guards.misses(descent.eigen, known_eigenvectors(track))[1], lambda: jnp.array(False))
    return by, jnp.stack([changed["done"], changed["tilts"], again, *map(jnp.asarray, asked.suffice)])
