"""At the edge: one coupled step of gradient descent, its constrained trajectory, its predictions and gradient flow.

Order inside a step: measure everything about the old θ† and record it; advance gradient descent, the flow and every
prediction about the old θ†; move θ† last.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from msgspec.structs import replace

from engine import assumptions, control, landscape, scores, spectrum, theorem, theory, unrolled
from engine import trajectories as tr
from engine.approach import Curves, Progress, Setup, diverged, loss_goal
from engine.control import AnyEvent
from engine.curvature import Point, TaylorCenter, grad_sharpness, measure, random_start, sharpness_at, taylor_center
from engine.spec import PREDICTIONS
from engine.states import Clock, Costs, DescentState, EdgeState
from engine.store import Outcome

LOOSE_TOLERANCE = 1e-3
"""Relative eigen residual asked of gradient descent and gradient flow: their eigenvalue is read, their eigenvector is not."""
SWAP_OVERLAP = 0.7
"""|u_t·u_{t−1}| under which the top eigenvector counts as another one."""
AUDIT_MARGIN = 1e-3
"""Relative excess of an audit's eigenvalue over the tracked one that corrects it."""
HOPELESS = 0.05
"""Constraint residual from which θ† is no longer the constrained trajectory."""


def enter(
    setup: Setup, theta: Array, clock: Clock, basis: Array, anchor_every: int
) -> tuple[EdgeState | DescentState, list[AnyEvent]]:
    """The coupled state at the edge, from gradient descent's θ: θ† is its projection onto the stable set.

    Gradient descent alone when the projection does not converge, with an event that says so.
    """
    spec = setup.spec
    theta = theta.astype(spec.precision.edge)
    center, count, costs, converged = _settle(setup, theta, basis[:2], jnp.zeros_like(theta), None, clock.learning_rate)
    if not converged:
        text = (
            f"the projection onto S ≤ 2/η did not converge at step {clock.step}: the sharpness is "
            f"{float(center.sharpness) * clock.learning_rate / 2:.3f} × 2/η there; gradient descent goes on"
        )
        alone = DescentState(clock, clock.step, theta, jnp.stack([basis, basis]), 0)
        return alone, [control.ConstraintLost(step=clock.step, text=text)]
    flow = center.theta if spec.tracking.flow else jnp.zeros(0, theta.dtype)
    v = theta - center.theta
    tracking = spec.tracking
    total = unrolled.begin(center, v, tracking.beta_every, tracking.beta_window) if tracking.beta_every else unrolled.absent()
    state = EdgeState(
        clock=clock, edge_step=clock.step, theta=theta, bases=jnp.stack([basis, basis]), center=center, projections=count,
        correction=jnp.zeros_like(theta), remainder=_one_more(center, clock.learning_rate).theta - center.theta, overlap=1.0,
        predictions=tr.Predictions(v, v, v, v), unrolled=total, scores=scores.fresh(clock.step),
        anchor_every=anchor_every, anchor_phase=clock.step, flow=flow, flow_basis=center.eigen.vectors,
        flow_sharpness=float(center.sharpness), costs=costs, stage=0, failed=0, constraint_lost=0,
        unstable=0,
    )
    sharpness = float(center.sharpness)
    text = f"the edge: sharpness reached 2/η = {2 / clock.learning_rate:.4g} at step {clock.step}; θ† starts here"
    return state, [control.EdgeReached(step=clock.step, text=text, sharpness=sharpness)]


def rehearse(setup: Setup, theta: Array, basis: Array, sharpness: float, soon: Callable[[], bool]) -> None:
    """Enter the edge at any θ of the approach, of about that sharpness, and take steps there: the edge finds all compiled.

    First what every step needs; what is read off now and then only if the edge does not come `soon`: it would come later for it.
    """
    tracking = setup.spec.tracking
    roughly = replace(
        tracking, eigen_tolerance=HOPELESS, sharpness_tolerance=HOPELESS, gradient_tolerance=HOPELESS,
        max_eigenvalues=tracking.eigenvalues, on_second_eigenvalue="keep", rho_iterations=1,
    )
    seldom = replace(roughly, gauges_every=0, landscape_every=0)
    clock = Clock(0, 0.0, 2 / sharpness if sharpness > 0 else setup.spec.optimizer.learning_rate)
    common, whole = (setup._replace(spec=replace(setup.spec, tracking=part)) for part in (seldom, roughly))
    state, _ = enter(common, theta, clock, basis, 0)
    if isinstance(state, EdgeState):
        state, _ = step(common, state)
    if isinstance(state, EdgeState) and not soon():
        step(whole, state._replace(edge_step=state.clock.step))  # gauges and landscape are due at the edge's step


def step(setup: Setup, state: EdgeState) -> tuple[EdgeState | DescentState, Progress]:
    """One coupled step. The next state is a `DescentState` when θ† is given up on the way."""
    spec, tracking, problem = setup.spec, setup.spec.tracking, setup.problem
    clock, center, eta = state.clock, state.center, state.clock.learning_rate
    dtype = spec.precision.curvature
    events: list[AnyEvent] = []

    # Measure about the old θ†.
    state, anchored = _anchor_if_due(setup, state)
    events += anchored
    state, (point, told_of_spectrum) = spectrum.read(setup, state, LOOSE_TOLERANCE)
    events += told_of_spectrum
    costs = state.costs.plus(hvps=point.eigen.hvps, gradients=1)
    v = state.theta - center.theta
    found = tr.places(center, v, state.predictions)
    x, y = float(found.x[0]), float(found.y[0])
    values = _descent_values(clock, point) | _center_values(clock, center, state) | {
        "gd.distance": float(found.distance[0]), "gd.x": x, "gd.y": y,
    }
    if not math.isfinite(values["gd.loss"] + values["gd.gradient_norm"]):
        return state, Progress([], events, diverged(clock.step))
    stage = theory.stage(x, y, values["constrained.delta"])
    values["stage"] = stage
    values["gd.spike"] = x * x / eta
    events += _stage_change(state, stage, clock.step)
    forms = tracking.predictions
    slope = jnp.zeros(())
    if forms:
        forecast, slope = tr.forecast(problem, center, found, eta)
        state, told, lost = _score(setup, state, forecast, x, values["constrained.delta"])
        values |= told | _theorem(setup, state, values | told, v)
        events += lost
        costs = costs.plus(gradients=1)
    if tracking.beta_every:
        values |= _memory(state)
    curves: Curves = ()
    if tracking.landscape_every and (clock.step - state.edge_step) % tracking.landscape_every == 0:
        told, curves = _landscape(setup, state, values["constrained.delta"])
        values |= told
    state, flowed = _flow(setup, state)
    if tracking.flow:
        costs = costs.plus(hvps=flowed.pop("hvps"), gradients=flowed.pop("gradients"))
        values |= flowed
    gauged, spent_on_gauges = assumptions.gauges(setup, state, v)
    values |= gauged
    costs = costs.plus(**spent_on_gauges)
    failed, assumption_events = _assumptions(setup, state)
    events += assumption_events

    # Advance gradient descent and the predictions about the old θ†.
    theta = state.theta - eta * point.grad
    advance = None
    if forms:
        advance = tr.predict(problem, center, state.predictions, slope, eta, forms, dtype)
        costs = costs.plus(hvps=len(forms), grad_sharpness="full_cubic" in forms)
    moved = Clock(clock.step + 1, clock.time + eta, eta)
    bases = jnp.stack([state.bases[1], point.eigen.vectors])

    ended = None
    if failed & 1 << 2 and tracking.on_second_eigenvalue != "keep":
        ended = f"λ2 reached {tracking.second_eigenvalue_limit:g}/η at step {clock.step}: more than one direction is unstable"
        if tracking.on_second_eigenvalue == "stop":
            progress = Progress([_with_costs(setup, values, costs)], events,
                                Outcome(kind="second_eigenvalue", step=clock.step, text=ended))
            return state, progress

    # Move θ† last.
    if ended is None:
        guess = tr.first_guess(center, eta)
        expected = guess + state.remainder + state.correction  # what Lemma 13 leaves out changes little from step to step
        start = center.eigen.vectors
        moved_center, count, spent, good = _settle(setup, expected, start, center.top_eigenvector, center, eta)
        moved_center, count, spent, audit_events = _audit(setup, moved, moved_center, count, spent)
        events += audit_events
        residual = float(moved_center.eigen.residuals[0])
        if residual > HOPELESS:
            text = (
                f"the eigen solver did not converge at step {moved.step}: relative residual {residual:.2g} after "
                f"{int(moved_center.eigen.hvps)} products; try curvature = \"float64\" under [precision]"
            )
            failure = Outcome(kind="eigensolver_failed", step=moved.step, text=text)
            return state, Progress([_with_costs(setup, values, costs)], events, failure)
        if not good:
            ended = f"the projection onto S ≤ 2/η no longer converges at step {moved.step}"
    row = _with_costs(setup, values, costs)
    outcome = loss_goal(spec, values["gd.loss"], clock.step)
    if ended is not None:
        text = f"{ended}; θ† and the predictions end here, gradient descent goes on"
        events.append(control.TrackingEnded(step=moved.step, text=text))
        return DescentState(moved, state.edge_step, theta, bases, state.unstable), Progress([row], events, outcome, curves)

    overlap = float(jnp.abs(moved_center.top_eigenvector @ center.top_eigenvector))
    if overlap < SWAP_OVERLAP:
        text = f"the top eigenvector turned at step {moved.step} (|u·u′| = {overlap:.2f}): two eigenvalues crossed; x and y changed meaning"
        events.append(control.EigenvectorsSwapped(step=moved.step, text=text))
    onward = _one_more(moved_center, eta)
    lost_now, lost_events = _constraint_lost(setup, state, onward.residuals, moved)
    predictions = tr.carry(advance, moved_center.top_eigenvector) if advance is not None else state.predictions
    remainder = onward.theta - moved_center.theta
    correction = onward.theta - guess - state.remainder
    total = state.unrolled
    if tracking.beta_every:
        total = unrolled.advance(problem, total, clock.step, center, moved_center, eta, dtype)
        spent = spent.plus(hvps=tracking.beta_window + 1)
    following = state._replace(
        clock=moved, theta=theta, bases=bases, center=moved_center, projections=count,
        correction=correction, remainder=remainder, overlap=overlap, predictions=predictions,
        unrolled=total, costs=spent, stage=stage, failed=failed, constraint_lost=lost_now,
    )
    return following, Progress([row], events + lost_events, outcome, curves)


def descend_past(setup: Setup, state: DescentState) -> tuple[DescentState, Progress]:
    """One step of gradient descent with its eigenvalues, when θ† is no longer followed."""
    state, (point, events) = spectrum.read(setup, state, LOOSE_TOLERANCE)
    values = _descent_values(state.clock, point)
    if not math.isfinite(values["gd.loss"] + values["gd.gradient_norm"]):
        return state, Progress([], events, diverged(state.clock.step))
    clock, eta = state.clock, state.clock.learning_rate
    following = DescentState(
        Clock(clock.step + 1, clock.time + eta, eta), state.edge_step, state.theta - eta * point.grad,
        jnp.stack([state.bases[1], point.eigen.vectors]), state.unstable,
    )
    row = _with_costs(setup, values, Costs(int(point.eigen.hvps), 1, 0))
    return following, Progress([row], events, loss_goal(setup.spec, values["gd.loss"], clock.step))


def anchor(state: EdgeState, forms: tuple[str, ...] = PREDICTIONS) -> EdgeState:
    """Set v⋆ := v in the given forms, and begin their scores anew."""
    v = state.theta - state.center.theta
    chosen = np.array([form in forms for form in PREDICTIONS])
    new = scores.fresh(state.clock.step)
    merged = scores.Scores(*(
        np.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), fresh, old)
        for fresh, old in zip(new, state.scores, strict=True)
    ))
    predictions = tr.Predictions(*(v if pick else old for pick, old in zip(chosen, state.predictions, strict=True)))
    total = state.unrolled
    if len(total.recent) and "transported" in forms:  # (5) is another route to the transported form, and starts with it
        total = unrolled.begin(state.center, v, len(total.recent), len(total.starts))
    return state._replace(predictions=predictions, unrolled=total, scores=merged)


def _settle(
    setup: Setup, theta: Array, basis: Array, previous_u: Array, previous: TaylorCenter | None, eta: float
) -> tuple[TaylorCenter, int, Costs, bool]:
    """The point of the stable set that linearised projections from θ lead to, with its expansion.

    Each projection uses the newest ∇S at hand: the previous centre's for the first, so that a step usually costs one ∇S. At
    the first centre ∇S is taken afresh each time. Returns the centre, the projections, the work, and whether it is usable.
    """
    tracking, dtype = setup.spec.tracking, setup.spec.precision.curvature
    costs, count = Costs(), 0
    dS = previous.grad_sharpness if previous is not None else None
    while True:
        point: Point = measure(setup.problem, theta, basis, tracking.eigen_tolerance, dtype)
        costs = costs.plus(hvps=point.eigen.hvps, gradients=1)
        basis = point.eigen.vectors
        fresh = False
        if dS is None or count >= 2:
            fresh = True
            dS = grad_sharpness(setup.problem, theta, point.eigen.vectors[0], dtype)
            costs = costs.plus(grad_sharpness=1)
        projected = tr.project(point, dS, eta)
        gap, along = (float(left) for left in projected.residuals)
        within = gap <= tracking.sharpness_tolerance and along <= tracking.gradient_tolerance
        if within or count == tracking.max_projections or not math.isfinite(gap + along):
            break
        theta = projected.theta
        count += 1
    if not fresh:
        dS = grad_sharpness(setup.problem, theta, point.eigen.vectors[0], dtype)
        costs = costs.plus(grad_sharpness=1)
    usable = gap <= HOPELESS and along <= HOPELESS  # False for NaN
    return taylor_center(point, dS, previous_u), count, costs, usable


def _audit(setup: Setup, clock: Clock, center: TaylorCenter, count: int, costs: Costs) -> tuple[TaylorCenter, int, Costs, list[AnyEvent]]:
    """Every so many steps, look for a larger eigenvalue from a fresh random start; a Ritz value is never too large."""
    every, dtype = setup.spec.tracking.audit_every, setup.spec.precision.curvature
    if not every or clock.step % every:
        return center, count, costs, []
    start = random_start(setup.spec.seed, clock.step, len(center.eigen.values), center.theta.size, dtype)
    found = sharpness_at(setup.problem, center.theta.astype(dtype), start, LOOSE_TOLERANCE, dtype)
    costs = costs.plus(hvps=found.hvps)
    if not found.values[0] > center.sharpness * (1 + AUDIT_MARGIN):
        return center, count, costs, []
    ratio = float(found.values[0] / center.sharpness)
    text = f"an audit at step {clock.step} found an eigenvalue {ratio:.3f} times the tracked one; θ† was projected anew from it"
    center, more, spent, _ = _settle(setup, center.theta, found.vectors, center.top_eigenvector, None, clock.learning_rate)
    event = control.EigenpairCorrected(step=clock.step, text=text)
    return center, count + more, costs.plus(*spent), [event]


def _descent_values(clock: Clock, point: Point) -> dict[str, float]:
    eigenvalues = np.asarray(point.eigen.values)
    values = {
        "step": clock.step, "time": clock.time, "learning_rate": clock.learning_rate, "gd.loss": float(point.loss),
        "gd.gradient_norm": float(jnp.linalg.norm(point.grad)), "gd.sharpness": float(eigenvalues[0]),
        "gd.eigen_residual": float(point.eigen.residuals[0]),
    }
    return values | {f"gd.lambda{k + 1}": float(value) for k, value in enumerate(eigenvalues) if k}


def _center_values(clock: Clock, center: TaylorCenter, state: EdgeState) -> dict[str, float]:
    alpha, beta = float(center.alpha), float(center.beta)
    sharpness, norm = float(center.sharpness), float(jnp.linalg.norm(center.grad))
    return {
        "constrained.loss": float(center.loss), "constrained.sharpness": sharpness,
        "constrained.lambda2": float(center.eigen.values[1]), "constrained.alpha": alpha, "constrained.beta": beta,
        "constrained.delta": theory.delta(alpha, beta), "constrained.epsilon": theory.epsilon(clock.learning_rate, alpha),
        "constrained.gamma": alpha / (norm * math.sqrt(beta)) if norm and beta else math.nan,
        "constrained.gradient_norm": norm, "constrained.skew": float(center.skew),
        "constrained.sharpness_gap": abs(sharpness - 2 / clock.learning_rate),
        "constrained.gradient_along_u": abs(float(center.grad @ center.top_eigenvector)),
        "constrained.eigen_residual": float(center.eigen.residuals[0]), "constrained.projections": state.projections,
        "constrained.overlap": state.overlap,
    }


def _score(
    setup: Setup, state: EdgeState, forecast: tr.Forecast, x: float, delta: float
) -> tuple[EdgeState, dict[str, float], list[AnyEvent]]:
    """Compare the forecasts with gradient descent; tell, score, and mark those that left validity."""
    step, tracking = state.clock.step, setup.spec.tracking
    told = {name: np.asarray(part, float) for name, part in zip(forecast._fields, forecast, strict=True)}
    before = state.scores.lost
    seen = scores.observe(state.scores, step, told["x"], x, delta, tracking.horizon_tolerance)
    correlation = scores.correlation(seen)
    values: dict[str, float] = {}
    events: list[AnyEvent] = []
    for k, form in enumerate(PREDICTIONS):
        if form not in tracking.predictions:
            continue
        values[f"{form}.since_anchor"] = float(step - seen.anchored[k])
        values[f"{form}.correlation"] = correlation[k]
        values[f"{form}.horizon"] = seen.horizon[k]
        if seen.lost[k]:
            if not before[k]:
                text = f"the {form} prediction left validity {step - seen.anchored[k]} steps after its anchor"
                events.append(control.PredictionLost(step=step, text=text, form=form))
            continue
        values |= {f"{form}.{name}": part[k] for name, part in told.items()}
    return state._replace(scores=seen), values, events


def _theorem(setup: Setup, state: EdgeState, values: dict[str, float], v: Array) -> dict[str, float]:
    """What Theorem 1 leaves over, for the form that it is about."""
    if "transported" not in setup.spec.tracking.predictions:
        return {}
    nan = math.nan
    x = values.get("transported.x", nan)
    found = theorem.residuals(
        values["gd.loss"], values["gd.sharpness"], float(jnp.linalg.norm(v - state.predictions.transported)) if math.isfinite(x) else nan,
        values.get("transported.loss", nan), values.get("transported.sharpness", nan), x, values["constrained.delta"],
        values["constrained.epsilon"], state.clock.learning_rate, setup.spec.tracking.hypothesis,
    )
    return {f"theorem.{name}": value for name, value in found.items()}


def _memory(state: EdgeState) -> dict[str, float]:
    """The prediction summed from β, and the newest and oldest β at hand."""
    total = state.unrolled
    followed = total.betas[np.isfinite(total.betas)]
    newest, oldest = (followed[0], followed[-1]) if len(followed) else (math.nan, math.nan)
    return {"unrolled.x": total.x, "unrolled.y": total.y, "unrolled.beta": newest, "unrolled.beta_oldest": oldest}


def _landscape(setup: Setup, state: EdgeState, delta: float) -> tuple[dict[str, float], Curves]:
    """The loss along u about this centre, as two numbers and as curves with the β at hand; nothing where δ is undefined."""
    if not delta > 0:
        return {}, ()
    eta, step = state.clock.learning_rate, state.clock.step
    found = landscape.sample(setup.problem, state.center, delta, eta)
    curves = {
        "x": found.x, "F": found.rise, "F_even": found.even, "quadratic": found.x**2 / eta, "delta": np.array(delta),
        "beta_starts": state.unrolled.starts, "beta": state.unrolled.betas,
    }
    return {"landscape.ratio": found.ratio, "landscape.limit": found.limit}, ((step, curves),)


def _anchor_if_due(setup: Setup, state: EdgeState) -> tuple[EdgeState, list[AnyEvent]]:
    tracking = setup.spec.tracking
    since = state.clock.step - state.anchor_phase
    if state.anchor_every and since > 0 and since % state.anchor_every == 0:
        forms = tracking.predictions
    elif tracking.anchor_lost:
        forms = tuple(form for form, lost in zip(PREDICTIONS, state.scores.lost, strict=True) if lost and form in tracking.predictions)
    else:
        forms = ()
    if not forms:
        return state, []
    text = f"{', '.join(forms)}: set to the true displacement at step {state.clock.step}"
    return anchor(state, forms), [control.Anchored(step=state.clock.step, text=text, forms=forms)]


def _flow(setup: Setup, state: EdgeState) -> tuple[EdgeState, dict[str, Any]]:
    """Gradient flow one step of time η on, and what it reads here."""
    spec, clock = setup.spec, state.clock
    if not spec.tracking.flow:
        return state, {}
    values: dict[str, Any] = {"hvps": 0, "flow.distance": float(jnp.linalg.norm(state.flow - state.center.theta))}
    basis, sharpness = state.flow_basis, state.flow_sharpness
    if (clock.step - state.edge_step) % spec.tracking.flow_sharpness_every == 0:
        dtype = spec.precision.curvature
        pairs = sharpness_at(setup.problem, state.flow.astype(dtype), basis, LOOSE_TOLERANCE, dtype)
        basis, sharpness = pairs.vectors, float(pairs.values[0])
        values |= {"hvps": int(pairs.hvps), "flow.sharpness": sharpness}
    substeps = max(1, math.ceil(clock.learning_rate * sharpness)) if math.isfinite(sharpness) else 1
    flow, loss = tr.flow_step(setup.problem, state.flow, clock.learning_rate, substeps)
    values |= {"flow.loss": float(loss), "gradients": substeps}
    return state._replace(flow=flow, flow_basis=basis, flow_sharpness=sharpness), values


def _stage_change(state: EdgeState, stage: int, step: int) -> list[AnyEvent]:
    if stage in (state.stage, 0):
        return []
    return [control.StageChanged(step=step, text=f"stage {stage}: {theory.STAGES[stage]}", stage=stage)]


def _assumptions(setup: Setup, state: EdgeState) -> tuple[int, list[AnyEvent]]:
    """Which of Assumptions 1 (α > 0) and 2 (λ2 < 1.9/η) fail at this centre, as bits, and the changes as events."""
    step, center, limit = state.clock.step, state.center, setup.spec.tracking.second_eigenvalue_limit
    alpha, second = float(center.alpha), float(center.eigen.values[1]) * state.clock.learning_rate
    readings = {
        1: (not alpha > 0, f"α = {alpha:.3g}", "α > 0, progressive sharpening"),
        2: (second >= limit, f"λ2 = {second:.3g}/η", f"λ2 < {limit:g}/η, a single unstable direction"),
    }
    failed = 0
    events: list[AnyEvent] = []
    for number, (fails, reading, claim) in readings.items():
        failed |= fails << number
        was = bool(state.failed & 1 << number)
        if fails and not was:
            text = f"Assumption {number} fails at step {step}: {reading} ({claim})"
            events.append(control.AssumptionFailed(step=step, text=text, assumption=number))
        elif was and not fails:
            text = f"Assumption {number} holds again at step {step}: {reading}"
            events.append(control.AssumptionRestored(step=step, text=text, assumption=number))
    return failed, events


def _one_more(center: TaylorCenter, eta: float) -> tr.Projection:
    """One more projection from a centre: its residuals, and what the tolerances left of the way."""
    return tr.project(center.point, center.grad_sharpness, eta)


def _constraint_lost(setup: Setup, state: EdgeState, left: tr.Residuals, clock: Clock) -> tuple[int, list[AnyEvent]]:
    """Whether θ† misses its tolerances, and an event when that begins."""
    tracking = setup.spec.tracking
    missed = int(float(left.sharpness) > tracking.sharpness_tolerance or float(left.gradient) > tracking.gradient_tolerance)
    if not missed or state.constraint_lost:
        return missed, []
    text = (
        f"θ† misses its tolerances at step {clock.step} after {tracking.max_projections} projections: "
        f"|S−2/η|·η/2 = {float(left.sharpness):.1e}, |∇L·u|/‖∇L‖ = {float(left.gradient):.1e}"
    )
    return missed, [control.ConstraintLost(step=clock.step, text=text)]


def _with_costs(setup: Setup, values: dict[str, float], costs: Costs) -> np.ndarray:
    spent = {"cost.hvps": costs.hvps, "cost.gradients": costs.gradients, "cost.grad_sharpness": costs.grad_sharpness}
    return setup.row(values | spent)
