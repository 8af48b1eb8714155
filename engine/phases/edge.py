"""At the edge: the host's side of the coupled steps, which are taken on the device, many at a time where they are small.

Between stretches of steps it reads what is read now and then (`occasional`), sets predictions anew, and tells what happened. A stretch
ends where one of these is due, or where a step asks to be looked at.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature import guards
from engine.curvature.eigensolver import LARGE, LOOSE_TOLERANCE, forms_hessian, sharpness_at
from engine.curvature.expansion import narrower
from engine.curvature.halves import halved, shortened, whole
from engine.curvature.predictor import eigenvector_offset
from engine.dynamics import predicted, prediction_scores, unrolled
from engine.dynamics.optimizer import in_format
from engine.dynamics.trajectories import TRAJECTORIES
from engine.dynamics.trajectory import Beginning
from engine.phases import approach, averages, coupled_loop, derived, loss_identity, occasional, several, spectrum, step_in_parts
from engine.phases.approach import ApproachState
from engine.phases.context import Clock, Progress, Setup, diverged, loss_goal
from engine.phases.coupled_loop import Steps, expected_eigenvectors, newest_eigenvectors
from engine.phases.coupled_state import (
    STATES,
    ConstrainedTrack,
    CoupledState,
    DescentTrack,
    PredictedTrack,
    StaticConfig,
    StepParams,
    StepStatus,
    copied,
    started,
)
from engine.phases.derived import Reported
from engine.phases.edge_state import EdgeState, anchor, apart, began_with, covariance_at, remainder, step_params
from engine.phases.loss_identity import Identity
from engine.phases.past_edge import DescentState
from engine.phases.phase import Advanced, Entered, Phase, Restart
from engine.phases.projection import (
    CONTRACTIONS,
)
from engine.record import edges, messages
from engine.record.columns import BESIDE
from engine.record.messages import AnyEvent
from engine.record.reader import Outcome
from engine.xla.leaves import Kinds


def enter(setup: Setup, at: ApproachState, anchor_every: int) -> Entered:
    """The coupled state at the edge, from gradient descent's θ: θ† is its projection onto the stable set.

    Gradient descent alone when the projection does not converge, with events that say so.
    """
    spec, tracking, clock, optimizer = setup.spec, setup.tracking, at.clock, in_format(at.optimizer, setup.spec.precision.edge)
    theta, threshold = at.theta.astype(spec.precision.edge), setup.threshold(optimizer)
    nothing = jnp.zeros_like(theta, dtype=narrower(theta.dtype, spec.precision.curvature))
    basis, known, hvps = _all_around(setup, theta, clock.step, at.eigenvectors)
    projected = several.begun(setup, theta, basis[:2], clock.step, optimizer)
    center, _, projection = projected
    if not projection.usable:
        alone = DescentState(clock, optimizer, clock.step, theta, jnp.stack([basis] * 4), 0, known)
        return Entered(alone, _without_center(setup, theta, clock, basis, threshold), "gradient descent")
    v, small = theta - center.theta, nothing.dtype
    total = unrolled.begin(center, v, tracking.beta_every, tracking.beta_window) if tracking.beta_every else unrolled.absent()
    offset, x = eigenvector_offset(basis[0], center.top_eigenvector), center.top_eigenvector @ v
    displacements = predicted.begun(v.astype(small), tracking.predictions)
    beginning = Beginning(theta, basis[0], center, projection.start[0], known)
    momentum = began_with(setup, optimizer, projected)
    momenta = predicted.begun(apart(setup, optimizer, momentum).astype(small), tracking.predictions) if momentum.size else {}
    coupled = CoupledState(
        step=jnp.asarray(np.array(clock.step)),
        descent=DescentTrack(theta, optimizer, jnp.stack([halved(basis)] * 2), jnp.stack([halved(offset)] * 4), jnp.stack([x] * 4)),
        constrained=ConstrainedTrack(
            center, *started(projection.start, projection.start, center.eigen.vectors, projected.directions), guards.kept(known),
            projection.taken, projection.active, kept_correction=shortened(nothing),
            kept_remainder=remainder(projected, threshold), overlap=jnp.ones((), theta.dtype),
            directions=projected.directions,
            covariance=covariance_at(setup, projected, optimizer, momentum), momentum=momentum,
        ),
        predicted=PredictedTrack(displacements, {form: prediction_scores.fresh(clock.step) for form in displacements}, momenta),
        beside={name: each.begin(beginning, tracking) for name, each in TRAJECTORIES.items() if BESIDE[name].follows(tracking)},
        costs=projection.costs.plus(hvps, grad_sharpness=CONTRACTIONS),
    )
    state = EdgeState(
        clock=clock, edge_step=clock.step, coupled=coupled, unrolled=total, anchor_every=anchor_every, anchor_phase=clock.step, stage=0,
        failed=0, constraint_lost=0, unstable=0, audited=-1, seeded=0, averages=averages.begin(),
    )
    together = several.count_of(state)
    along = f", along the {together} directions that are there" if together > 1 else ""
    edge = edges.formula(spec.optimizer)
    text = f"the edge: sharpness reached {edge} = {threshold:.4g} at step {clock.step}; θ† starts here{along}"
    return Entered(state, [messages.EdgeReached(step=clock.step, text=text, sharpness=float(center.sharpness))])


def _all_around(setup: Setup, theta: Array, step: int, basis: Array) -> tuple[Array, guards.Guards, Any]:
    """The top eigenvectors at θ from those of the approach (k, p), the next ones as guards, and the products it took."""
    seed, dtype = setup.spec.seed, setup.spec.precision.curvature
    known = guards.begin(seed, step, theta.size, dtype, setup.problem.shares)
    if forms_hessian(theta):
        return basis, known, 0
    pairs, _, known = guards.look(setup.problem, theta, basis, known, seed, step, LOOSE_TOLERANCE, dtype, settle=True)
    return pairs.vectors, known, pairs.hvps


def _without_center(setup: Setup, theta: Array, clock: Clock, basis: Array, threshold: float) -> list[AnyEvent]:
    """The edge where no θ† exists. The sharpness shown is that of gradient descent: where the projections wandered it says nothing."""
    dtype, step = setup.spec.precision.curvature, clock.step
    sharpness = float(sharpness_at(setup.problem, theta.astype(dtype), basis, LOOSE_TOLERANCE, dtype).values[0])
    edge = edges.formula(setup.spec.optimizer)
    here = f" from gradient descent's θ, where the sharpness is {sharpness / threshold:.3f} × {edge}" if math.isfinite(sharpness) else ""
    lost = f"the projection onto S ≤ {edge} did not converge at step {step}: it wandered{here}"
    reached = f"the edge: sharpness reached {edge} = {threshold:.4g} at step {step}"
    return [
        messages.EdgeReached(step=step, text=reached, sharpness=sharpness if math.isfinite(sharpness) else threshold),
        messages.ConstraintLost(step=step, text=lost),
        messages.TrackingEnded(step=step, text="there is no θ† to follow, and no prediction; gradient descent goes on"),
    ]


def precompile(setup: Setup, at: ApproachState, soon: Callable[[], bool]) -> str:
    """Enter the edge at any θ of the approach, and take steps there: the edge finds all compiled. At its first step everything looks
    around, at the next what is beside θ† does, and after that nothing.

    First what every step needs; what is read off now and then only if the edge does not come `soon`: it would come later for it. Gives the
    phase's name where nothing is left to compile.
    """
    alone = setup.computing_alone()
    whole = several.rough(
        alone, max_eigenvalues=setup.tracking.eigenvalues, on_second_eigenvalue="keep", rho_iterations=1, rho_starts=1
    )
    common = several.rough(whole, gauges_every=0, landscape_every=0)
    if at.sharpness > 0:  # where this θ would be at the edge
        rate = at.optimizer.learning_rate * (setup.threshold(at.optimizer) / at.sharpness)
        at = at._replace(optimizer=at.optimizer._replace(learning_rate=rate))
    state, _, elsewhere = enter(common, at._replace(clock=Clock(0, 0.0)), 0)
    if not elsewhere:
        state = state._replace(coupled=copied(state.coupled))  # its θ may be that of the approach, which goes on meanwhile
    for _ in range(3):
        if elsewhere:
            return ""
        state, _, elsewhere = advance(common, state, 1)
    if elsewhere or soon():
        return ""
    advance(whole, state._replace(edge_step=state.clock.step), 1)  # gauges and landscape are due at the edge's step
    return AtEdge.name


def advance(setup: Setup, state: EdgeState, limit: int) -> Advanced:
    """At most `limit` coupled steps, as rows and events; leads past the edge when θ† is given up on the way."""
    tracking = setup.tracking
    state, events, ended = several.adapted(setup, state)
    state, happened = occasional.anchored(setup, state)
    state, begun = several.seeded(setup, state)
    events += happened + begun
    ended = ended or several.exhausted(setup, state)
    reading = occasional.read(setup, state)
    steps = _take(setup, state, 1 if ended else min(limit, occasional.steps_until_due(setup, state)), bool(ended))
    table, happened, following = _report(setup, state, steps, reading.values)
    events += happened
    count = len(table["step"])
    outcome = loss_goal(setup.spec, table["gd.loss"][-1], int(table["step"][-1])) if count else None
    progress = Progress([*derived.rows(table, setup.column_index)], events, outcome, reading.curves)
    step = following.clock.step
    if steps.status == StepStatus.DIVERGED:
        return Advanced(following, progress._replace(outcome=diverged(step)))
    if steps.status == StepStatus.UNSOLVED:
        return Advanced(following, progress._replace(outcome=_unsolved(table, step)))
    if ended:
        if tracking.on_second_eigenvalue == "stop":
            return Advanced(state, progress._replace(outcome=Outcome(kind="second_eigenvalue", step=state.clock.step, text=ended)))
        return _past_edge(state, following, progress, ended)
    if steps.status == StepStatus.ENDED:
        edge = edges.formula(setup.spec.optimizer)
        return _past_edge(state, following, progress, f"the projection onto S ≤ {edge} no longer converges at step {step}")
    following, corrected = occasional.audited(setup, following)
    events += corrected
    return Advanced(_remembered(setup, state, following), progress)


def _report(
    setup: Setup, state: EdgeState, steps: Steps, readings: Mapping[str, float]
) -> tuple[derived.Table, list[AnyEvent], EdgeState]:
    """The table of some steps with what was read at the first of them, what happened over it in order, and the state after."""
    tracking, clock, eta = setup.tracking, state.clock, float(state.optimizer.learning_rate)
    table = derived.table(steps.rows, clock, derived.rates_of(setup, state.optimizer), tracking, state.stage)
    count = len(table["step"])
    derived.add(table, readings, count)
    table["audit.age"] = occasional.audit_age(state, table["step"])
    reported, happened = derived.events(table, Reported(state.stage, state.failed, state.constraint_lost), tracking, setup.spec.optimizer)
    unstable, risen = spectrum.unstable(setup, table, state.unstable)
    means = state.averages
    if tracking.on_second_eigenvalue == "follow":
        means, columns = averages.observe(means, table)
        table |= columns
    following = state._replace(
        clock=clock.after(count - 1 if steps.status == StepStatus.UNSOLVED else count, eta), coupled=steps.state, unstable=unstable,
        averages=means, **reported._asdict(),
    )
    return table, sorted([*steps.events, *risen, *happened], key=lambda event: event.step), following


def _unsolved(table: derived.Table, step: int) -> Outcome:
    """The outcome where no eigenpair was solved for at the next θ†."""
    residual = table["next.eigen_residual"][-1]
    size = f"relative residual {residual:.2g}" if math.isfinite(residual) else "no finite residual"
    text = (
        f"the eigen solver did not converge at step {step + 1}: {size} after "
        f"{table['next.hvps'][-1]:.0f} products; try curvature = \"float64\" under [precision]"
    )
    return Outcome(kind="eigensolver_failed", step=step + 1, text=text)


def _past_edge(state: EdgeState, following: EdgeState, progress: Progress, why: str) -> Advanced:
    """Gradient descent alone from here on."""
    text = f"{why}; θ† and the predictions end here, gradient descent goes on"
    progress.events.append(messages.TrackingEnded(step=following.clock.step, text=text))
    descent = following.coupled.descent
    eigenvectors = whole(descent.eigenvectors, following.center.eigen.vectors.dtype)
    alone = DescentState(
        following.clock, descent.optimizer, state.edge_step, descent.theta, jnp.concatenate([eigenvectors] * 2),
        following.unstable, following.coupled.constrained.guards,
    )
    return Advanced(alone, progress, "gradient descent")


def _take(setup: Setup, state: EdgeState, limit: int, alone: bool) -> Steps:
    """At most `limit` coupled steps on the device, with as many of gradient descent's eigenvalues as there are to follow.

    One at a time, out of parts, where a call does not take many; and, but where the Hessian is formed, at an audit, at the last step with
    θ†, and where more eigenvalues come to be followed. The solver is then the one of the approach, compiled already, and a larger number
    of eigenvalues compiles it alone anew.
    """
    formed = forms_hessian(state.theta)
    state = state if formed else state._replace(coupled=coupled_loop.with_room(state.coupled))
    by_itself = not formed and (alone or occasional.AUDITS.is_due(setup, state))
    if by_itself or not coupled_loop.takes_many(setup.tracking, state.theta):
        return _take_one(setup, state, alone)
    config, params = rules(setup, state)
    coupled = state.coupled
    overwrites = state.theta.size >= LARGE and not alone and not setup.tracking.beta_every  # (5) is summed on from the state before
    moved, rows, status = coupled_loop.advance(
        setup.problem, config, params, coupled, limit, spectrum.most_followed(setup, state.theta.size), alone, overwrites
    )
    if status != StepStatus.GROW and not (overwrites and status == StepStatus.UNSOLVED):
        return Steps(moved, rows, status, [])
    if int(rows.count):
        return Steps(moved, rows, StepStatus.HOST, [])
    if not formed:
        return _take_one(setup, state._replace(coupled=moved), alone)
    known = spectrum.read(
        setup, state.theta, expected_eigenvectors(coupled), coupled.descent.eigenvectors, state.clock.step,
        params.plain_rate,
    )
    followed = coupled._replace(descent=coupled.descent._replace(eigenvectors=known.history))
    steps = _take(setup, state._replace(coupled=followed), limit, alone)
    return steps._replace(events=known.events + steps.events)


def rules(setup: Setup, state: EdgeState) -> tuple[StaticConfig, StepParams]:
    """What is compiled into coupled steps, and the numbers that they read."""
    config = StaticConfig(setup.optimizer, setup.spec.precision.curvature)
    return config, step_params(setup, state.optimizer, state.edge_step, state.seeded)


def _each_way(setup: Setup, state: EdgeState) -> CoupledState:
    """Where one coupled step leads, taken in each of the ways that there are to come: to compile them."""
    if not forms_hessian(state.theta) and coupled_loop.takes_many(setup.tracking, state.theta):
        _take_one(setup, state._replace(coupled=copied(state.coupled)), False)
    return _take(setup, state, 1, False).state


def _take_one(setup: Setup, state: EdgeState, alone: bool) -> Steps:
    return step_in_parts.take(setup, state, *rules(setup, state), alone)


def _remembered(setup: Setup, state: EdgeState, following: EdgeState) -> EdgeState:
    """The following state with (5) summed one step on from the state before, where it is summed."""
    tracking, together = setup.tracking, several.count_of(state)
    if not tracking.beta_every or several.count_of(following) > 1:  # (5) is of one direction
        return following
    if together > 1:
        v = following.theta - following.center.theta
        return following._replace(unrolled=unrolled.begin(following.center, v, tracking.beta_every, tracking.beta_window))
    total = unrolled.advance(
        setup.problem, state.unrolled, state.clock.step, state.center, following.center, float(state.optimizer.learning_rate),
        setup.threshold(state.optimizer), setup.spec.precision.curvature,
    )
    coupled = following.coupled
    return following._replace(unrolled=total, coupled=coupled._replace(costs=coupled.costs.plus(tracking.beta_window + 1)))


class AtEdge(Phase):
    """Gradient descent at the edge, with θ†, the predictions and what is followed beside."""

    name: ClassVar[str] = "edge"
    State: ClassVar[type] = EdgeState

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.ahead = several.Ahead()
        """Compiles what a further direction takes before it joins."""

    def doing(self, state: EdgeState) -> str:
        """What is read now and then, where it is due."""
        return occasional.words_due(self.setup, state)

    def enter(self, state: ApproachState, anchor_every: int) -> Entered:
        """From the end of the approach."""
        return enter(self.setup, state, anchor_every)

    def advance(self, state: EdgeState, limit: int) -> Advanced:
        """At most `limit` coupled steps."""
        self.ahead.look(self.setup, state, _each_way)
        return advance(self.setup, state, limit)

    def set_learning_rate(self, state: EdgeState, learning_rate: float) -> Restart:
        """Back to an approach, to the new threshold."""
        newest = newest_eigenvectors(state.coupled)
        return approach.restart(self.setup, state.theta, state.clock, state.optimizer, newest, learning_rate)

    def settle(self) -> None:
        """Until no room for more directions is compiled any more."""
        self.ahead.wait()

    @property
    def is_compiling(self) -> bool:
        """Whether room for more directions is."""
        return self.ahead.is_at_work

    def edge_step(self, state: EdgeState) -> int:
        """The step of the edge."""
        return state.edge_step

    def anchored(self, state: EdgeState, every: int | None) -> EdgeState | None:
        """The predictions set to the true displacement; None where none is followed."""
        if not self.setup.tracking.predictions:
            return None
        state = anchor(self.setup, state, self.setup.tracking.predictions)
        return state if every is None else state._replace(anchor_every=every, anchor_phase=state.clock.step)

    def identity(self, state: EdgeState) -> Identity:
        """By the solver that θ† is measured with."""
        return loss_identity.of_gradient(self.setup, state.theta, len(state.center.eigen.vectors))

    def followed_eigenvectors(self, state: EdgeState) -> Array:
        """Those of the last step."""
        return newest_eigenvectors(state.coupled)

    def kinds(self, theta: Array) -> Kinds:
        """The optimizer's state, and those of the trajectories beside."""
        return {**super().kinds(theta), "beside": STATES}
