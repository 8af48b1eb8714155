"""At the edge: the host's side of the coupled steps (`coupled`), which are taken on the device, many at a time where they are small.

Between stretches of steps it reads what is read now and then (the landscape, the gauges, an audit of the eigenpair), sets
predictions anew, and tells what happened. A stretch ends where one of these is due, or where a step asks to be looked at.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from msgspec.structs import replace

from engine import theory
from engine.curvature import guards, landscape
from engine.curvature.eigensolver import Eigenpairs, forms_hessian, random_start, sharpness_at
from engine.curvature.expansion import Normals, Point, TaylorCenter
from engine.dynamics import prediction_scores, unrolled
from engine.dynamics import trajectories as tr
from engine.phases import coupled, coupled_loop, derived, gauge_readings, spectrum
from engine.phases.approach import Curves, Progress, Setup, diverged, loss_goal
from engine.phases.coupled import HOPELESS, LOOSE_TOLERANCE, Moving, Plan, Rules
from engine.phases.derived import Standing
from engine.phases.states import Clock, DescentState, EdgeState
from engine.record import messages
from engine.record.messages import AnyEvent
from engine.record.store import Outcome
from engine.spec import PREDICTIONS

AUDIT_MARGIN = 1e-3
"""Relative excess of an audit's eigenvalue over the tracked one that corrects it."""


def enter(
    setup: Setup, theta: Array, clock: Clock, basis: Array, anchor_every: int
) -> tuple[EdgeState | DescentState, list[AnyEvent]]:
    """The coupled state at the edge, from gradient descent's θ: θ† is its projection onto the stable set.

    Gradient descent alone when the projection does not converge, with events that say so.
    """
    spec, tracking = setup.spec, setup.spec.tracking
    theta = theta.astype(spec.precision.edge)
    nothing, (basis, known, hvps) = jnp.zeros_like(theta), _all_around(setup, theta, clock.step, basis)
    center, tried = _afresh(setup, theta, basis[:2], nothing, clock.learning_rate)
    if not tried.usable:
        alone = DescentState(clock, clock.step, theta, jnp.stack([basis] * 4), 0, known)
        return alone, _without_center(setup, theta, clock, basis)
    v, eta = theta - center.theta, clock.learning_rate
    total = unrolled.begin(center, v, tracking.beta_every, tracking.beta_window) if tracking.beta_every else unrolled.absent()
    flow_theta, flow_u = (theta, basis[0]) if tracking.flow_start == "descent" else (center.theta, tried.start[0])
    turn, x = coupled.turn(basis[0], center.top_eigenvector), center.top_eigenvector @ v
    moving = Moving(
        step=jnp.asarray(np.array(clock.step)), theta=theta, bases=jnp.stack([basis] * 2), turns=jnp.stack([turn] * 4),
        swings=jnp.stack([x] * 4), center=center, center_bases=jnp.stack([tried.start] * 2), projections=tried.taken,
        correction=nothing, remainder=_remainder(center, theta, eta), sliding=tried.pushes, overlap=jnp.ones((), theta.dtype),
        predictions=tr.Predictions(*(v if form in tracking.predictions else v[:0] for form in PREDICTIONS)),
        scores=prediction_scores.fresh(clock.step),
        flow=flow_theta if tracking.flow else jnp.zeros(0, theta.dtype), flow_vectors=jnp.stack([flow_u] * 2),
        flow_sharpness=center.sharpness.astype(theta.dtype), guards=known, flow_guard=known.vectors[0] if tracking.flow else nothing[:0],
        costs=tried.costs.plus(hvps, grad_sharpness=coupled.CONTRACTIONS),
    )
    state = EdgeState(
        clock=clock, edge_step=clock.step, moving=moving, unrolled=total, anchor_every=anchor_every, anchor_phase=clock.step, stage=0,
        failed=0, constraint_lost=0, unstable=0, audited=-1,
    )
    text = f"the edge: sharpness reached 2/η = {2 / clock.learning_rate:.4g} at step {clock.step}; θ† starts here"
    return state, [messages.EdgeReached(step=clock.step, text=text, sharpness=float(center.sharpness))]


def _all_around(setup: Setup, theta: Array, step: int, basis: Array) -> tuple[Array, guards.Guards, Any]:
    """The top eigenvectors at θ from those of the approach (k, p), the next ones as guards, and the products it took."""
    seed, dtype = setup.spec.seed, setup.spec.precision.curvature
    known = guards.begin(seed, step, theta.size, dtype)
    if forms_hessian(theta):
        return basis, known, 0
    fresh = guards.fresh_rows(seed, step, theta.size, dtype)
    pairs, _, known = guards.look(setup.problem, theta, basis, known, fresh, LOOSE_TOLERANCE, dtype, settle=True)
    return pairs.vectors, known, pairs.hvps


def _without_center(setup: Setup, theta: Array, clock: Clock, basis: Array) -> list[AnyEvent]:
    """The edge where no θ† is found. The sharpness told is that of gradient descent: where the projections wandered it says nothing."""
    dtype, (step, _, eta) = setup.spec.precision.curvature, clock
    sharpness = float(sharpness_at(setup.problem, theta.astype(dtype), basis, LOOSE_TOLERANCE, dtype).values[0])
    here = f" from gradient descent's θ, where the sharpness is {sharpness * eta / 2:.3f} × 2/η" if math.isfinite(sharpness) else ""
    lost = f"the projection onto S ≤ 2/η did not converge at step {step}: it wandered{here}"
    reached = f"the edge: sharpness reached 2/η = {2 / eta:.4g} at step {step}"
    return [
        messages.EdgeReached(step=step, text=reached, sharpness=sharpness if math.isfinite(sharpness) else 2 / eta),
        messages.ConstraintLost(step=step, text=lost),
        messages.TrackingEnded(step=step, text="there is no θ† to follow, and no prediction; gradient descent goes on"),
    ]


def rehearse(setup: Setup, theta: Array, basis: Array, sharpness: float, soon: Callable[[], bool]) -> None:
    """Enter the edge at any θ of the approach, of about that sharpness, and take steps there: the edge finds all compiled.

    First what every step needs; what is read off now and then only if the edge does not come `soon`: it would come later for it.
    """
    tracking = setup.spec.tracking
    roughly = replace(
        tracking, eigen_tolerance=HOPELESS, sharpness_tolerance=HOPELESS, gradient_tolerance=HOPELESS,
        max_eigenvalues=tracking.eigenvalues, on_second_eigenvalue="keep", rho_iterations=1, rho_starts=1,
    )
    seldom = replace(roughly, gauges_every=0, landscape_every=0)
    clock = Clock(0, 0.0, 2 / sharpness if sharpness > 0 else setup.spec.optimizer.learning_rate)
    common, whole = (setup._replace(spec=replace(setup.spec, tracking=part)) for part in (seldom, roughly))
    state, _ = enter(common, theta, clock, basis, 0)
    if isinstance(state, EdgeState):
        state, _ = advance(common, state, 1)
    if isinstance(state, EdgeState) and not soon():
        advance(whole, state._replace(edge_step=state.clock.step), 1)  # gauges and landscape are due at the edge's step


def advance(setup: Setup, state: EdgeState, limit: int) -> tuple[EdgeState | DescentState, Progress]:
    """At most `limit` coupled steps, as rows and events. The next state is a `DescentState` when θ† is given up on the way."""
    tracking, clock, eta = setup.spec.tracking, state.clock, state.clock.learning_rate
    state, told = _anchor_if_due(setup, state)
    second = float(np.asarray(state.center.eigen.values)[1]) * eta
    alone = second >= tracking.second_eigenvalue_limit and tracking.on_second_eigenvalue != "keep"
    occasional, curves = _occasional(setup, state)
    taken, read, verdict, grown = _take(setup, state, 1 if alone else min(limit, _until_due(setup, state)), alone)
    found = derived.table(read, clock, tracking, state.stage)
    count = len(found["step"])
    derived.add(found, occasional, count)
    found["audit.age"] = _audit_age(state, found["step"])
    standing, happened = derived.events(found, Standing(state.stage, state.failed, state.constraint_lost), tracking)
    unstable, risen = spectrum.unstable(found, state.unstable)
    told += sorted([*grown, *risen, *happened], key=lambda event: event.step)
    outcome = loss_goal(setup.spec, found["gd.loss"][-1], int(found["step"][-1])) if count else None
    progress = Progress([*derived.rows(found, setup.places)], told, outcome, curves)

    moved = clock.after(count - 1 if verdict == coupled.UNSOLVED else count)
    following = state._replace(
        clock=moved, moving=taken, stage=standing.stage, failed=standing.failed, constraint_lost=standing.constraint_lost, unstable=unstable
    )
    if verdict == coupled.DIVERGED:
        return following, progress._replace(outcome=diverged(moved.step))
    if verdict == coupled.UNSOLVED:
        residual = found["next.eigen_residual"][-1]
        size = f"relative residual {residual:.2g}" if math.isfinite(residual) else "no finite residual"
        text = (
            f"the eigen solver did not converge at step {moved.step + 1}: {size} after "
            f"{found['next.hvps'][-1]:.0f} products; try curvature = \"float64\" under [precision]"
        )
        return following, progress._replace(outcome=Outcome(kind="eigensolver_failed", step=moved.step + 1, text=text))
    ended = None
    if alone:
        ended = (
            f"λ2 = {second:.3g}/η at step {clock.step}, not below {tracking.second_eigenvalue_limit:g}/η: a second direction is at the edge"
        )
        if tracking.on_second_eigenvalue == "stop":
            return state, progress._replace(outcome=Outcome(kind="second_eigenvalue", step=clock.step, text=ended))
    elif verdict == coupled.ENDED:
        ended = f"the projection onto S ≤ 2/η no longer converges at step {moved.step}"
    if ended is not None:
        text = f"{ended}; θ† and the predictions end here, gradient descent goes on"
        told.append(messages.TrackingEnded(step=moved.step, text=text))
        bases = jnp.concatenate([taken.bases] * 2)
        return DescentState(moved, state.edge_step, taken.theta, bases, unstable, taken.guards), progress
    following, corrected = _audit(setup, following)
    told += corrected
    return _remember(setup, state, following), progress


def descend_past(setup: Setup, state: DescentState) -> tuple[DescentState, Progress]:
    """One step of gradient descent with its eigenvalues, when θ† is no longer followed."""
    clock, eta = state.clock, state.clock.learning_rate
    start, known, measured = coupled.ahead_alone(state.bases), state.guards, None
    if guards.due(clock.step) and not forms_hessian(state.theta):
        dtype = setup.spec.precision.curvature
        fresh = guards.fresh_rows(setup.spec.seed, clock.step, state.theta.size, dtype)
        measured, known = guards.measure_around(setup.problem, state.theta, start, known, fresh, LOOSE_TOLERANCE, dtype)
    point, images, bases, events = spectrum.read(setup, state.theta, start, state.bases, clock, measured=measured)
    values = {
        "step": clock.step, "time": clock.time, "learning_rate": eta, "gd.loss": float(point.loss),
        "gd.gradient_norm": float(jnp.linalg.norm(point.grad)), "cost.gradients": 1, "cost.grad_sharpness": 0,
    } | spectrum.values_of(point.eigen)
    if not math.isfinite(values["gd.loss"] + values["gd.gradient_norm"]):
        return state, Progress([], events, diverged(clock.step))
    unstable, risen = spectrum.unstable({name: np.array([value]) for name, value in values.items()}, state.unstable)
    following = DescentState(
        clock.after(1), state.edge_step, state.theta - eta * point.grad,
        coupled.followed_by(bases, coupled.sharpened(point.eigen, images)), unstable, known,
    )
    return following, Progress([setup.row(values)], [*events, *risen], loss_goal(setup.spec, values["gd.loss"], clock.step))


def anchor(state: EdgeState, forms: tuple[str, ...] = PREDICTIONS) -> EdgeState:
    """Set v⋆ := v in the given forms, and begin their scores anew."""
    moving, v = state.moving, state.theta - state.center.theta
    chosen = np.array([form in forms for form in PREDICTIONS])
    new = prediction_scores.fresh(state.clock.step)
    merged = prediction_scores.Scores(*(
        jnp.asarray(np.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), fresh, old))
        for fresh, old in zip(new, moving.scores, strict=True)
    ))
    predictions = tr.Predictions(*(v if pick and old.size else old for pick, old in zip(chosen, moving.predictions, strict=True)))
    total = state.unrolled
    if len(total.recent) and "transported" in forms:  # (5) is another route to the transported form, and starts with it
        total = unrolled.begin(state.center, v, len(total.recent), len(total.starts))
    return state._replace(moving=moving._replace(predictions=predictions, scores=merged), unrolled=total)


def newest(state: EdgeState | DescentState) -> Array:
    """The last top eigenvectors of gradient descent, (k, p)."""
    return (state.moving.bases if isinstance(state, EdgeState) else state.bases)[-1]


def _afresh(setup: Setup, theta: Array, start: Array, previous_u: Array, eta: float) -> tuple[TaylorCenter, coupled.Tried]:
    """The point of the stable set that projections from any θ lead to, with its expansion, and how they went."""
    dtype, rules = setup.spec.precision.curvature, _rules(setup, eta, 0)
    nowhere = Point(theta, theta[0], theta, Eigenpairs(start[:, 0], start, start[:, 0], jnp.array(0)))
    unprojected = coupled.aimed(theta, start, nowhere, Normals(theta, theta, theta))
    tried = coupled_loop.settle(setup.problem, rules, unprojected, dtype, afresh=True)
    return coupled_loop.center_of(setup.problem, tried, previous_u, dtype), tried


def _remainder(center: TaylorCenter, target: Array, eta: float) -> Array:
    """What the tolerances left of the way from the centre to the point of the stable set that is nearest to a target."""
    return tr.project_center(center, target, eta).theta - center.theta


def _rules(setup: Setup, eta: float, edge_step: int) -> Rules:
    tracking = setup.spec.tracking
    keep = tracking.on_second_eigenvalue == "keep"
    return Rules(
        eta, tracking.eigen_tolerance, tracking.sharpness_tolerance, tracking.gradient_tolerance, tracking.max_projections,
        tracking.horizon_tolerance, edge_step, tracking.flow_sharpness_every, setup.spec.budget.loss_goal,
        math.inf if keep else tracking.second_eigenvalue_limit, tracking.anchor_lost,
    )


def _take(setup: Setup, state: EdgeState, limit: int, alone: bool) -> tuple[Moving, coupled.Readings, int, list[AnyEvent]]:
    """At most `limit` coupled steps on the device, with as many of gradient descent's eigenvalues as there are to follow.

    One at a time where the Hessian is too large to be formed: the solver is then the one of the approach, compiled already, and a
    larger number of eigenvalues compiles it alone anew.
    """
    spec, problem, moving = setup.spec, setup.problem, state.moving
    most = spectrum.most_followed(setup, state.theta.size)
    plan = Plan(spec.tracking.predictions, spec.precision.curvature, most)
    rules = _rules(setup, state.clock.learning_rate, state.edge_step)
    if not forms_hessian(state.theta):
        step, audited = state.clock.step, _audit_is_due(setup, state)
        # What θ† comes to know in a step, gradient descent and the flow look at in the next.
        around = audited or guards.due(step - 1)
        others = coupled.known(moving) if around else None
        if audited:
            moving, others = _audit_beside(setup, state, moving, others)
        fresh = guards.fresh_rows(spec.seed, step, state.theta.size, plan.curvature) if guards.due(step) else None
        begun = None if alone else coupled_loop.begin(problem, plan, rules, moving, fresh)
        point, images, bases, events = spectrum.read(setup, moving.theta, coupled.ahead(moving), moving.bases, state.clock, others)
        moving = moving._replace(bases=bases)
        moved, read, verdict = coupled_loop.one(problem, plan, rules, moving, (point, images), begun, around)
        found = int(verdict)
        return moving if found >= coupled.GROW else moved, read, found, events
    moved, read, found = coupled_loop.advance(problem, plan, rules, moving, limit, alone)
    if found != coupled.GROW:
        return moved, read, found, []
    taken = int(read.count)
    if taken:
        return moved, read, coupled.HOST, []
    _, _, bases, events = spectrum.read(setup, moving.theta, coupled.ahead(moving), moving.bases, state.clock)
    grown = state._replace(moving=moving._replace(bases=bases))
    moved, read, found, more = _take(setup, grown, limit, alone)
    return moved, read, found, events + more


def _until_due(setup: Setup, state: EdgeState) -> int:
    """Steps until something has to be read or set that the compiled steps do not."""
    tracking, step = setup.spec.tracking, state.clock.step
    periods = [
        (tracking.landscape_every, state.edge_step), (tracking.gauges_every, state.edge_step), (state.anchor_every, state.anchor_phase),
        (_audit_every(setup, state), 0),
    ]
    if tracking.beta_every:
        return 1
    return min([coupled_loop.CHUNK, *(every - (step - since) % every for every, since in periods if every)])


def _occasional(setup: Setup, state: EdgeState) -> tuple[dict[str, float], Curves]:
    """What is read at some steps only, where this is one of them, and the work it took."""
    tracking, values, curves = setup.spec.tracking, dict[str, float](), Curves()
    if tracking.beta_every:
        values |= _memory(state)
    if tracking.landscape_every and (state.clock.step - state.edge_step) % tracking.landscape_every == 0:
        told, curves = _landscape(setup, state)
        values |= told
    return values | gauge_readings.gauges(setup, state), curves


def _audit_every(setup: Setup, state: EdgeState) -> int:
    """Steps between audits; 0, never, where the Hessian is formed: no eigenvalue is missed there."""
    return 0 if forms_hessian(state.theta) else setup.spec.tracking.audit_every


def _audit_age(state: EdgeState, steps: np.ndarray) -> np.ndarray:
    """Steps since the last audit: 0 where the Hessian is formed, which shows every eigenvalue; NaN before the first."""
    if forms_hessian(state.theta):
        return np.zeros_like(steps)
    return steps - state.audited if state.audited >= 0 else np.full_like(steps, np.nan)


def _audit_is_due(setup: Setup, state: EdgeState) -> bool:
    every = _audit_every(setup, state)
    return bool(every) and state.clock.step % every == 0


def _audit_beside(setup: Setup, state: EdgeState, moving: Moving, others: guards.Guards | None) -> tuple[Moving, guards.Guards | None]:
    """The audits of gradient descent and of the flow, before their step: what random starts find there is looked at in it.

    That of gradient descent joins what `others` know, and that of the flow becomes its guard.
    """
    dtype, seed, step, size = setup.spec.precision.curvature, setup.spec.seed, state.clock.step, moving.theta.size
    there = sharpness_at(setup.problem, moving.theta, random_start(seed, step, moving.bases.shape[1], size, dtype), LOOSE_TOLERANCE, dtype)
    spent = moving.costs.plus(there.hvps)
    if others is not None:
        others = guards.Guards(jnp.concatenate([others.vectors, there.vectors]), jnp.concatenate([others.values, there.values]))
    if moving.flow.size:
        start = random_start(seed, step, len(moving.center.eigen.values), size, dtype)
        on_flow = sharpness_at(setup.problem, moving.flow, start, LOOSE_TOLERANCE, dtype)
        moving = moving._replace(flow_guard=guards.unseen(moving.flow_vectors[1:], on_flow.vectors, on_flow.values)[0])
        spent = spent.plus(on_flow.hvps)
    return moving._replace(costs=spent), others


def _audit(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent]]:
    """Every so many steps, look for a larger eigenvalue at θ† from a fresh random start; a Ritz value is never too large."""
    dtype, clock, center = setup.spec.precision.curvature, state.clock, state.center
    if not _audit_is_due(setup, state):
        return state, []
    state = state._replace(audited=clock.step)
    start = random_start(setup.spec.seed, clock.step, len(center.eigen.values), center.theta.size, dtype)
    found = sharpness_at(setup.problem, center.theta.astype(dtype), start, LOOSE_TOLERANCE, dtype)
    moving = state.moving
    spent = moving.costs.plus(found.hvps)
    if not found.values[0] > center.sharpness * (1 + AUDIT_MARGIN):
        return state._replace(moving=moving._replace(costs=spent)), []
    ratio = float(found.values[0] / center.sharpness)
    text = f"an audit at step {clock.step} found an eigenvalue {ratio:.3f} times the tracked one; θ† was projected anew from it"
    old = center.top_eigenvector
    center, tried = _afresh(setup, center.theta, found.vectors, old, clock.learning_rate)
    moving = moving._replace(
        center=center, center_bases=jnp.stack([tried.start] * 2), projections=moving.projections + tried.taken,
        remainder=_remainder(center, tried.target, clock.learning_rate), sliding=tried.pushes, correction=jnp.zeros_like(moving.correction),
        overlap=moving.overlap * jnp.abs(center.top_eigenvector @ old),
        predictions=tr.turned(moving.predictions, old, center.top_eigenvector),
        costs=spent.plus(*tried.costs),
    )
    return state._replace(moving=moving), [messages.EigenpairCorrected(step=clock.step, text=text)]


def _remember(setup: Setup, state: EdgeState, following: EdgeState) -> EdgeState:
    """The following state with (5) summed one step on from the state before, where it is summed."""
    tracking, clock = setup.spec.tracking, state.clock
    if not tracking.beta_every:
        return following
    total = unrolled.advance(
        setup.problem, state.unrolled, clock.step, state.center, following.center, clock.learning_rate, setup.spec.precision.curvature
    )
    moving = following.moving._replace(costs=following.moving.costs.plus(tracking.beta_window + 1))
    return following._replace(unrolled=total, moving=moving)


def _memory(state: EdgeState) -> dict[str, float]:
    """The prediction summed from β, and the newest and oldest β at hand."""
    total = state.unrolled
    followed = total.betas[np.isfinite(total.betas)]
    newest, oldest = (followed[0], followed[-1]) if len(followed) else (math.nan, math.nan)
    return {"unrolled.x": total.x, "unrolled.y": total.y, "unrolled.beta": newest, "unrolled.beta_oldest": oldest}


def _landscape(setup: Setup, state: EdgeState) -> tuple[dict[str, float], Curves]:
    """The loss along u about this centre, as three numbers and as curves, that in the plane of u and ∇S⊥, and the β at hand; nothing where
    δ is undefined.
    """
    eta, step, delta = state.clock.learning_rate, state.clock.step, theory.delta(float(state.center.alpha), float(state.center.beta))
    if not delta > 0:
        return {}, ()
    found = landscape.sample(setup.problem, state.center, delta, eta)
    plane = landscape.plane(setup.problem, state.center, delta)
    curves = {
        "x": found.x, "F": found.rise, "F_even": found.even, "quadratic": found.x**2 / eta, "delta": np.array(delta),
        "plane_x": plane.x, "plane_y": plane.y, "plane": plane.rise,
        "beta_starts": state.unrolled.starts, "beta": state.unrolled.betas,
    }
    values = {"landscape.ratio": found.ratio, "landscape.limit": found.limit, "landscape.limit_turned": found.limit_turned}
    return values, ((step, curves),)


def _anchor_if_due(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent]]:
    tracking = setup.spec.tracking
    since = state.clock.step - state.anchor_phase
    if state.anchor_every and since > 0 and since % state.anchor_every == 0:
        forms = tracking.predictions
    elif tracking.anchor_lost:
        lost = np.asarray(state.moving.scores.lost)
        forms = tuple(form for form, gone in zip(PREDICTIONS, lost, strict=True) if gone and form in tracking.predictions)
    else:
        forms = ()
    if not forms:
        return state, []
    text = f"{', '.join(forms)}: set to the true displacement at step {state.clock.step}"
    return anchor(state, forms), [messages.Anchored(step=state.clock.step, text=text, forms=forms)]
