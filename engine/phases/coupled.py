"""One coupled step in its parts: gradient descent, its constrained trajectory, its predictions and gradient flow.

Order inside a step: measure everything about the old θ†; advance gradient descent, the flow and every prediction about the old θ†
(`leave`); move θ† last, by projections from where it is expected (`aim`, `judge`, `arrive`). `stretch` puts the parts together.
What is compiled gives back what it changed alone: jax copies what a compiled function only hands through, some twenty vectors of p a step.

Eigenvectors are extrapolated: that of θ†, which moves smoothly, from its last two. That of gradient descent is this one and a turn,
which goes with x where it swings with it, and differs on the two sides of θ† between which gradient descent alternates: it is extrapolated
from two and four steps ago. Both starts are then mostly within the tolerance as they are, and each pair costs one product.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature.eigensolver import Eigenpairs
from engine.curvature.expansion import Normals, Point, TaylorCenter, direction, taylor_center
from engine.curvature.guards import Guards, unknown
from engine.dynamics import prediction_scores
from engine.dynamics import trajectories as tr
from engine.dynamics.prediction_scores import Scores
from engine.problems.problem import Problem
from engine.spec import PREDICTIONS
from engine.xla.leaves import Earlier
from engine.xla.reductions import dots, norms

LOOSE_TOLERANCE = 1e-3
"""Relative eigen residual asked of gradient descent and gradient flow: their eigenvalue is read, their eigenvector is not."""
HOPELESS = 0.05
"""Constraint residual from which θ† is no longer the constrained trajectory, and eigen residual from which no pair was found."""
CONTRACTIONS = 2
"""Contractions of the third derivative that the normals of the stable set take."""
ON, HOST, ENDED, GROW, DIVERGED, UNSOLVED = range(6)
"""What a step came to: go on; go on after the host has looked; θ† cannot be followed further; more eigenvalues are to be followed
before this step is taken; the loss is no number; no eigenpair was found at the next θ†. The last three leave the state as it was,
and GROW and DIVERGED give no row."""


class Costs(NamedTuple):
    """Work since the last row: how many of each."""

    hvps: Array
    gradients: Array
    grad_sharpness: Array

    def plus(self, hvps: Any = 0, gradients: Any = 0, grad_sharpness: Any = 0) -> "Costs":
        """With more of each."""
        return Costs(self.hvps + hvps, self.gradients + gradients, self.grad_sharpness + grad_sharpness)


class Moving(NamedTuple):
    """What a coupled step moves: all that it reads but the settings."""

    step: Array  # ()
    theta: Array  # (p,) gradient descent
    bases: Array  # (2, k, p) its top eigenvectors, two steps ago first: it alternates
    turns: Array  # (4, p) what the first differed by from that of the centre, four steps ago first,
    swings: Array  # (4,) and x there
    center: TaylorCenter
    center_bases: Array  # (2, 2, p) the top eigenvectors at the centre before, and at this one, to start the solver from
    projections: Array  # () that the centre took
    sliding: Annotated[Array, Earlier(lambda leaves: np.array(True))]  # () whether S ≤ 2/η holds the centre back, or is slack
    correction: Array  # (p,) what the first guess left out
    remainder: Array  # (p,) what the tolerances left: one more step of the projection would move the centre so
    overlap: Array  # () |u_t·u_{t−1}|
    predictions: tr.Predictions
    scores: Scores
    flow: Array  # (p,); (0,) when not followed
    flow_vectors: Array  # (2, p) its top eigenvector at the last reading but one, and at the last
    flow_sharpness: Array  # ()
    guards: Annotated[Guards, Earlier(unknown("bases"))]  # of the centre's eigenvectors
    flow_guard: Annotated[Array, Earlier(lambda leaves: np.zeros_like(leaves["flow"]))]  # (p,) the flow's next; (0,) when not followed
    costs: Costs  # of making the centre


def known(state: Moving) -> Guards:
    """The eigenvectors that are known at θ†: its pairs and their guards."""
    eigen, beyond = state.center.eigen, state.guards
    return Guards(jnp.concatenate([eigen.vectors, beyond.vectors]), jnp.concatenate([eigen.values, beyond.values]))


class Plan(NamedTuple):
    """What is compiled in."""

    forms: tuple[str, ...]  # of the predictions
    curvature: str  # number format
    most_eigenvalues: int


class Rules(NamedTuple):
    """Numbers of the specification that a step reads."""

    learning_rate: float
    eigen_tolerance: float
    sharpness_tolerance: float
    gradient_tolerance: float
    max_projections: int
    horizon_tolerance: float
    edge_step: int
    flow_sharpness_every: int
    loss_goal: float
    second_limit: float  # λ2·η from which the host looks
    host_at_loss: bool  # of a prediction


@partial(jax.tree_util.register_dataclass, data_fields=["values", "count"], meta_fields=["names"])
class Readings:
    """Rows (rows, names) of which the first `count` () are filled."""

    def __init__(self, values: Array, count: Array, names: tuple[str, ...]):
        self.values, self.count, self.names = values, count, names


Read = dict[str, Array]
"""Numbers () by their columns' names, or vectors by as many names with a space between: one piece of a row, not many to join."""


class OnFlow(NamedTuple):
    """What is found at the θ where gradient flow is; of no meaning what hangs on its eigenpair, where that is not due."""

    loss: Array
    grad: Array  # (p,) in the number format of the curvature
    sharpness: Array
    vector: Array  # (p,) its eigenvector, `sharpened`
    guard: Array  # (p,) the next one, so far as it is known
    hvps: Any


class Passed(NamedTuple):
    """A step but for the move of θ†."""

    moved: Moving  # the centre and what hangs on it as before
    advanced: tr.Advance | None
    read: Read
    look: Array  # whether the host has to
    diverged: Array


def leave(
    problem: Problem, plan: Plan, rules: Rules, state: Moving, measured: tuple[Point, Array], on_flow: OnFlow | None,
    found: tr.Places, along: tr.AlongU,
) -> Passed:
    """Read all there is about the old θ†, and advance gradient descent, the flow and the predictions.

    `measured` is what `curvature.measure_all` gives at gradient descent's θ, and `along` the loss where the generalized prediction lies
    on the line along u: one of the places `found`.
    """
    changed, *rest = _leave(problem, plan, rules, state, measured, on_flow, found, along)
    return Passed(state._replace(**changed), *rest)


@partial(jax.jit, static_argnames=("plan",))
def _leave(
    problem: Problem, plan: Plan, rules: Rules, state: Moving, measured: tuple[Point, Array], on_flow: OnFlow | None,
    found: tr.Places, along: tr.AlongU,
) -> tuple[dict[str, Any], tr.Advance | None, Read, Array, Array]:
    point, images = measured
    center, eta, dtype = state.center, rules.learning_rate, plan.curvature
    lengths = {"gd.gradient_norm": point.grad}
    if "transported" in plan.forms:
        lengths["deviation"] = state.theta - center.theta - state.predictions.transported
    if on_flow is not None:
        lengths["flow.distance"] = state.flow - center.theta
    read = dict(zip(lengths, norms(*lengths.values()), strict=True)) | {
        "step": state.step, "gd.loss": point.loss,
        "gd.sharpness": point.eigen.sharpness, "gd.eigen_residual": point.eigen.residuals[0],
        "gd.distance": found.distance[0], "gd.x": found.x[0], "gd.y": found.y[0],
    } | {f"gd.lambda{k + 1}": point.eigen.values[k] for k in range(1, state.bases.shape[1])} | _about_center(center, state, eta)
    spent, scored, advanced = state.costs.plus(point.eigen.hvps, 1), state.scores, None
    look = (point.loss < rules.loss_goal) & (rules.loss_goal > 0)
    if plan.forms:
        forecast = tr.forecast(center, found, along, eta)
        scored = prediction_scores.observe(state.scores, state.step, forecast.x, found.x[0], _delta(center), rules.horizon_tolerance)
        read |= _forecast(plan.forms, forecast, state.scores, scored, state.step)
        look |= rules.host_at_loss & jnp.any(scored.lost > state.scores.lost)
        advanced = tr.predict(problem, center, state.predictions, along.slope, eta, dtype)
        generalized = int("generalized" in plan.forms)  # reads F' and F'' along u
        spent = spent.plus(len(plan.forms) + generalized, generalized, int("full_cubic" in plan.forms))
    vectors = sharpened(point.eigen, images)
    changed = {
        "step": state.step + 1, "theta": state.theta - eta * point.grad, "scores": scored, "bases": followed_by(state.bases, vectors),
        "turns": followed_by(state.turns, turn(vectors[0], center.top_eigenvector)), "swings": followed_by(state.swings, found.x[0]),
    }
    if on_flow is not None:
        flowed, told, spent = _flow(problem, rules, state, on_flow, spent)
        changed |= flowed
        read |= told
    read |= {"cost.hvps": spent.hvps, "cost.gradients": spent.gradients, "cost.grad_sharpness": spent.grad_sharpness}
    return changed, advanced, read, look, ~jnp.isfinite(point.loss + read["gd.gradient_norm"])


def stay(passed: Passed) -> tuple[Moving, Readings, Array]:
    """The step when θ† stays where it is, since it ends here."""
    return passed.moved, _readings(passed.read, passed.diverged), jnp.where(passed.diverged, DIVERGED, HOST)


class Tried(NamedTuple):
    """Where linearised projections have come to."""

    target: Array  # (p,) what is projected
    guess: Array  # (p,) where the first one, made at the last centre, leads
    aim: Array  # (p,) where to measure next
    start: Array  # (2, p) for the eigensolver there
    point: Point  # the last one measured, slid along u
    normals: Normals  # of the stable set, the newest
    afresh: Array  # whether they were taken at that point
    taken: Array  # projections
    costs: Costs
    pushes: Array  # whether S ≤ 2/η holds the point back from the target
    usable: Array
    done: Array


def aim(rules: Rules, state: Moving) -> Tried:
    """Where to look for the next θ† first: Lemma 13's guess with what it left out last time."""
    center = state.center
    target, guess, corrected, start = _aim(rules, state)
    return aimed(target, start, center.point, center.normals)._replace(guess=guess, aim=corrected)


@jax.jit
def _aim(rules: Rules, state: Moving) -> tuple[Array, Array, Array, Array]:
    center, eta = state.center, rules.learning_rate
    target = tr.next_target(center, eta) + state.remainder
    guess = tr.project_center(center, target, eta).theta
    return target, guess, guess + state.correction, extrapolated(*state.center_bases)  # what it leaves out changes little


def aimed(target: Array, start: Array, point: Point, normals: Normals) -> Tried:
    """Projections of a target (p,), to begin there."""
    no, zero = jnp.array(False), jnp.zeros((), int)
    return Tried(target, target, target, start, point, normals, no, zero, Costs(zero, zero, zero), no, no, no)


def judge(rules: Rules, tried: Tried, measured: tuple[Point, Array], normals: Normals, afresh: bool | Array) -> Tried:
    """Whether the point `measured` at the aim is in the stable set, and where to look next if not.

    What is left along u alone needs no projection: the point slides there (`trajectories.slide`).
    """
    (theta, loss, grad, values, residuals), changed = _judge(rules, tried, measured, normals, afresh)
    eigen = measured[0].eigen._replace(values=values, residuals=residuals)
    return tried._replace(point=Point(theta, loss, grad, eigen), normals=normals, **changed)


@jax.jit
def _judge(
    rules: Rules, tried: Tried, measured: tuple[Point, Array], normals: Normals, afresh: bool | Array
) -> tuple[tuple[Array, ...], dict[str, Any]]:
    eta, (point, images) = rules.learning_rate, measured
    top = direction(point, normals)
    slid, turned = tr.slide(point, top, images[0], normals.dS)
    kept = jax.tree.map(lambda a, b: jnp.where(turned <= SLIDES, a, b), slid, point)
    theta, (gap, along, sideways), pushes = tr.project(kept, top, normals, tried.target, eta)
    within = (gap <= rules.sharpness_tolerance) & (turned <= rules.gradient_tolerance)
    # With the normals of the point itself the rest of the way counts too; with older ones `remainder` has it, and the next target.
    within &= ~jnp.asarray(afresh) | (sideways <= rules.sharpness_tolerance)
    done = within | (tried.taken >= rules.max_projections) | ~jnp.isfinite(gap)
    changed = {
        "aim": theta, "start": sharpened(point.eigen, images), "afresh": jnp.asarray(afresh), "taken": tried.taken + ~done,
        "costs": tried.costs.plus(point.eigen.hvps, 1, CONTRACTIONS * jnp.asarray(afresh, int)),
        "pushes": pushes, "usable": (gap <= HOPELESS) & (along <= HOPELESS),  # False for NaN
        "done": done,
    }
    return (kept.theta, kept.loss, kept.grad, kept.eigen.values, kept.eigen.residuals), changed


def arrive(plan: Plan, rules: Rules, state: Moving, passed: Passed, tried: Tried, normals: Normals) -> tuple[Moving, Readings, Array]:
    """The step once θ† has moved to where projections ended, with the normals there."""
    center = taylor_center(tried.point, normals, state.center.top_eigenvector)
    changed, *rest = _arrive(plan, rules, state, passed, tried, center)
    return passed.moved._replace(center=center, projections=tried.taken, **changed), *rest


@partial(jax.jit, static_argnames=("plan",))
def _arrive(
    plan: Plan, rules: Rules, state: Moving, passed: Passed, tried: Tried, center: TaylorCenter
) -> tuple[dict[str, Any], Readings, Array]:
    next_u, onward = center.top_eigenvector, tr.project_center(center, tried.target, rules.learning_rate)
    overlap = jnp.abs(next_u @ state.center.top_eigenvector)
    changed = {
        "center_bases": followed_by(state.center_bases, tried.start), "correction": onward.theta - tried.guess,
        "remainder": onward.theta - center.theta, "sliding": onward.pushes, "overlap": overlap,
        "costs": tried.costs.plus(grad_sharpness=CONTRACTIONS * jnp.asarray(~tried.afresh, int)),
    }
    if passed.advanced is not None:
        changed["predictions"] = tr.carry(passed.advanced, next_u)
    read = passed.read | {
        "next.sharpness_residual": onward.residuals.sharpness, "next.gradient_residual": onward.residuals.gradient,
        "next.eigen_residual": center.eigen.residuals[0], "next.hvps": center.eigen.hvps, "next.overlap": overlap,
    }
    look = passed.look | (center.eigen.values[1] * rules.learning_rate >= rules.second_limit)
    unsolved = center.eigen.residuals[0] > HOPELESS
    verdict = jnp.where(unsolved, UNSOLVED, jnp.where(~tried.usable, ENDED, jnp.where(look, HOST, ON)))
    return changed, _readings(read, passed.diverged), jnp.where(passed.diverged, DIVERGED, verdict)


@jax.jit
def _readings(read: Read, diverged: Array) -> Readings:
    row = jnp.concatenate([jnp.ravel(jnp.asarray(value, jnp.float64)) for value in read.values()])
    return Readings(row[None], jnp.where(diverged, 0, 1), tuple(" ".join(read).split()))


SLIDES = 1e-3
"""How far u may turn on a slide of a point that misses its tolerances: farther, the point stays where it was measured."""


STEADY = 2.0
"""How much x may have grown or shrunk in four steps for turns to go with it: beyond, it passed through nothing."""


@jax.jit
def ahead(state: Moving) -> Array:
    """A start for the eigensolver at gradient descent's θ, (k, p): what it needs no more than two products from."""
    u, last = state.center.top_eigenvector, state.bases[0]
    x, fro = dots((u, state.theta - state.center.theta), (state.turns[3], state.turns[2]))
    grown = x / state.swings[::2]  # in four steps, and in two
    steady = jnp.all((grown > 1 / STEADY) & (grown < STEADY))  # not where x was 0
    steady &= fro < 0  # they go to and fro: with x, and not with what else lies between θ and θ†
    four, two = jnp.where(steady, grown, 1).astype(last.dtype)
    return last.at[0].set(u.astype(last.dtype) + 2 * two * state.turns[2] - four * state.turns[0])


@jax.jit
def turn(vector: Array, u: Array) -> Array:
    """What gradient descent's top eigenvector (p,) differs by from that of the centre."""
    u = u.astype(vector.dtype)
    along, square = dots((vector, u), (vector, vector))
    return vector / (jnp.where(along < 0, -1, 1) * jnp.sqrt(square)) - u


@jax.jit
def ahead_alone(bases: Array) -> Array:
    """A start for the eigensolver, (k, p), from the last four bases (4, k, p) of gradient descent that alternates about no centre."""
    return extrapolated(bases[0], bases[2])


@partial(jax.jit, static_argnames="dtype")
def ahead_on_flow(state: Moving, dtype: str) -> tuple[Array, Array]:
    """θ of the flow, and what its top eigenvector is expected to be, (p,) each, in a number format."""
    return state.flow.astype(dtype), extrapolated(*state.flow_vectors[:, None])[0].astype(dtype)


def sharpened(pairs: Eigenpairs, images: Array) -> Array:
    """The eigenvectors one step of power iteration on, (k, p), from what the Hessian makes of them (k, p): the errors that the
    tolerance left become smaller as λ/S, most of them to nothing, and it costs no product. Small eigenvalues' stay as they are."""
    values = pairs.values[:, None]
    large = values > pairs.values[0] / 10
    return jnp.where(large, images / jnp.where(large, values, 1), pairs.vectors)


@jax.jit
def followed_by(last: Array, newest: Array) -> Array:
    """The last few when one more has come, and the first has gone."""
    return jnp.concatenate([last[1:], newest[None]])


def extrapolated(before: Array, last: Array) -> Array:
    """The rows a lag on, from those a lag and two lags ago: the first extrapolated, the others, whose noise is larger, as they are."""
    return last.at[0].set(2 * last[0] - jnp.where(before[0] @ last[0] < 0, -before[0], before[0]))


def _delta(center: TaylorCenter) -> Array:
    positive = (center.alpha > 0) & (center.beta > 0)
    return jnp.where(positive, jnp.sqrt(jnp.abs(center.delta_squared)), jnp.nan)


def _about_center(center: TaylorCenter, state: Moving, eta: float) -> Read:
    gap = center.sharpness.astype(center.theta.dtype) - 2 / eta
    return {
        "constrained.loss": center.loss, "constrained.sharpness": center.sharpness, "constrained.lambda2": center.eigen.values[1],
        "constrained.alpha": center.alpha, "constrained.beta": center.beta, "constrained.gradient_norm": center.grad_norm,
        "constrained.skew": center.skew, "constrained.active": state.sliding,
        "constrained.sharpness_gap": jnp.where(state.sliding, jnp.abs(gap), jnp.maximum(gap, 0)),
        "constrained.gradient_along_u": jnp.abs(center.grad_along_u),
        "constrained.eigen_residual": center.eigen.residuals[0], "constrained.projections": state.projections,
        "constrained.overlap": state.overlap,
    }


def _forecast(forms: tuple[str, ...], forecast: tr.Forecast, before: Scores, scored: Scores, step: Array) -> Read:
    """What each form says, and how well it has held; NaN in what a lost one says."""
    said = jnp.where(scored.lost > 0, jnp.nan, jnp.stack(forecast))
    parts = dict(zip(forecast._fields, said, strict=True)) | {
        "since_anchor": step - scored.anchored, "correlation": prediction_scores.correlation(scored), "horizon": scored.horizon,
        "newly_lost": scored.lost - before.lost,
    }
    followed = [k for k, form in enumerate(PREDICTIONS) if form in forms]
    names = " ".join(f"{PREDICTIONS[k]}.{name}" for name in parts for k in followed)
    return {names: jnp.stack([part[k] for part in parts.values() for k in followed])}


def _flow(problem: Problem, rules: Rules, state: Moving, here: OnFlow, spent: Costs) -> tuple[dict[str, Any], Read, Costs]:
    """Gradient flow one step of time η on by ⌈ηS⌉ Euler steps, as in the paper, and what it reads here."""
    eta, due = rules.learning_rate, flow_is_due(rules, state.step)
    sharpness = jnp.where(due, here.sharpness.astype(state.flow.dtype), state.flow_sharpness)
    substeps = jnp.where(jnp.isfinite(sharpness), jnp.maximum(1, jnp.ceil(eta * sharpness)), 1).astype(int)
    changed = {
        "flow": tr.flow_step(problem, state.flow, here.grad, eta, substeps), "flow_sharpness": sharpness,
        "flow_vectors": jnp.where(due, followed_by(state.flow_vectors, here.vector), state.flow_vectors), "flow_guard": here.guard,
    }
    told = {"flow.loss": here.loss, "flow.sharpness": jnp.where(due, sharpness, jnp.nan)}
    return changed, told, spent.plus(jnp.where(due, here.hvps, 0), substeps)


def flow_is_due(rules: Rules, step: Any) -> Any:
    """Whether the flow's sharpness is read at this step."""
    return (step - rules.edge_step) % rules.flow_sharpness_every == 0
