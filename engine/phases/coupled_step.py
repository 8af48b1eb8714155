"""One coupled step in its parts: gradient descent, its constrained trajectory, its predictions, and what is followed beside.

Order inside a step: measure everything about the old θ†; advance gradient descent, every prediction and what is followed beside about the
old θ† (`advance_about_center`); move θ† last, by projections from where it is expected (`projection`), and carry the predictions there
(`finish_step`). `coupled_loop` puts the parts together. What is compiled gives back what it changed alone: jax copies what a compiled
function only hands through, some twenty vectors of p a step.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from engine.curvature.expansion import Normals, Point, TaylorCenter, loss_along, taylor_center
from engine.curvature.predictor import eigenvector_offset, power_step, push
from engine.dynamics import prediction_scores
from engine.dynamics.constrained import project_center
from engine.dynamics.predicted import (
    FORMS,
    Advanced,
    AlongU,
    Coordinates,
    Displacements,
    Forecast,
    carry,
    coordinates,
    forecast,
    predict,
)
from engine.dynamics.prediction_scores import Score
from engine.dynamics.trajectories import TRAJECTORIES
from engine.dynamics.trajectory import Costs, Row, StepContext
from engine.phases.coupled_state import (
    ConstrainedTrack,
    CoupledState,
    DescentTrack,
    StaticConfig,
    StepParams,
    StepStatus,
    known_eigenvectors,
)
from engine.phases.projection import CONTRACTIONS, UNUSABLE, ProjectionState
from engine.problems.problem import Problem
from engine.xla.reductions import norms


@partial(jax.tree_util.register_dataclass, data_fields=["values", "count"], meta_fields=["names"])
class StepRows:
    """Rows (rows, names) of which the first `count` () are filled."""

    def __init__(self, values: Array, count: Array, names: tuple[str, ...]):
        self.values, self.count, self.names = values, count, names


class Positions(NamedTuple):
    """Where gradient descent and the predictions are about θ†."""

    descent: Coordinates
    predicted: dict[str, Coordinates]
    along: dict[str, AlongU]  # the loss along u where forms read it


class PartialStep(NamedTuple):
    """A step but for the move of θ†."""

    state: CoupledState  # the constrained trajectory and the predictions as before
    advanced: dict[str, Advanced]
    row: Row
    needs_host: Array
    diverged: Array


def locate(problem: Problem, state: CoupledState) -> Positions:
    """Where everything is about θ†. F' and F'' along u are read in θ's own format: near x⋆ = 0 they are small differences."""
    center = state.constrained.center
    true, predicted, points = coordinates(center, state.descent.theta - center.theta, state.predicted.displacements)
    along = {form: AlongU(*loss_along(problem, point, center.top_eigenvector)) for form, point in points.items()}
    return Positions(true, predicted, along)


def context(problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, around: bool, traced: bool) -> StepContext:
    """What the trajectories beside gradient descent read."""
    track = state.constrained
    return StepContext(
        problem, (state.step if traced else int(state.step)) - params.edge_step, params.flow_sharpness_every, params.learning_rate,
        track.center, lambda: known_eigenvectors(track), config.curvature, around, traced,
    )


def measure_beside(at: StepContext, state: CoupledState) -> dict[str, Any]:
    """What each trajectory beside gradient descent measures, under way."""
    return {name: TRAJECTORIES[name].measure(at, each) for name, each in state.beside.items()}


def advance_about_center(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array],
    at: StepContext, beside: dict[str, Any], positions: Positions,
) -> PartialStep:
    """Read all there is about the old θ†, and advance gradient descent, the predictions and what is followed beside.

    `measured` is what `expansion.measure_all` gives at gradient descent's θ, and `beside` what `measure_beside` gives.
    """
    descent, scores, advanced, row, costs, needs_host, diverged = _advanced(problem, config, params, state, measured, positions)
    moved = dict[str, Any]()
    for name, each in state.beside.items():
        moved[name], more, spent = TRAJECTORIES[name].step(at, each, beside[name])
        row, costs = row | more, costs.plus(*spent)
    changed = state._replace(step=state.step + 1, descent=descent, predicted=state.predicted._replace(scores=scores), beside=moved)
    row = row | {"cost.hvps": costs.hvps, "cost.gradients": costs.gradients, "cost.grad_sharpness": costs.grad_sharpness}
    return PartialStep(changed, advanced, row, needs_host, diverged)


@partial(jax.jit, static_argnames=("config",))
def _advanced(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions
) -> tuple[DescentTrack, dict[str, Score], dict[str, Advanced], Row, Costs, Array, Array]:
    point, images = measured
    center = state.constrained.center
    descent, row = _descend(problem, config, state, point, images, positions.descent, center)
    scores, advanced, forecasts, lost = _predict(problem, config, params, state, positions, center)
    if "transported" in state.predicted.displacements:
        row["deviation"] = norms(state.descent.theta - center.theta - state.predicted.displacements["transported"])[0]
    row |= _center_row(state.constrained, params) | forecasts
    forms = [FORMS[form] for form in state.predicted.displacements]
    along = sum(form.reads_along_u for form in forms)  # F' and F'' along u
    costs = state.costs.plus(point.eigen.hvps + len(forms) + along, 1 + along, sum(form.third_derivatives for form in forms))
    needs_host = (point.loss < params.loss_goal) & (params.loss_goal > 0) | params.host_at_loss & lost
    return descent, scores, advanced, row, costs, needs_host, ~jnp.isfinite(point.loss + row["gd.gradient_norm"])


def _descend(
    problem: Problem, config: StaticConfig, state: CoupledState, point: Point, images: Array, at: Coordinates, center: TaylorCenter
) -> tuple[DescentTrack, Row]:
    """The optimizer's step, and what there is to read where it begins."""
    track = state.descent
    vectors = power_step(point.eigen, images)
    theta, optimizer = config.optimizer.step(track.theta, track.optimizer, point.grad, problem.gradient)
    moved = DescentTrack(
        theta, optimizer, push(track.eigenvector_history, vectors),
        push(track.eigenvector_offsets, eigenvector_offset(vectors[0], center.top_eigenvector)), push(track.x_history, at.x),
    )
    row = {
        "step": state.step, "gd.loss": point.loss, "gd.gradient_norm": norms(point.grad)[0], "gd.sharpness": point.eigen.sharpness,
        "gd.eigen_residual": point.eigen.residuals[0], "gd.distance": at.distance, "gd.x": at.x, "gd.y": at.y,
        "threshold": config.optimizer.threshold(track.optimizer),
    }
    return moved, row | {f"gd.lambda{k + 1}": point.eigen.values[k] for k in range(1, track.eigenvector_history.shape[1])}


def _predict(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, positions: Positions, center: TaylorCenter
) -> tuple[dict[str, Score], dict[str, Advanced], Row, Array]:
    """Scores and predictions one step on, what each says here, and whether one of them is newly lost."""
    scores, row, lost = dict[str, Score](), Row(), jnp.array(False)
    if not state.predicted.displacements:
        return scores, {}, row, lost
    for form, before in state.predicted.scores.items():
        said = forecast(center, positions.predicted[form], positions.along.get(form), params.learning_rate)
        scores[form] = prediction_scores.observe(
            before, state.step, said.x, positions.descent.x, _delta(center), params.horizon_tolerance
        )
        row |= _forecast_row(form, said, before, scores[form], state.step)
        lost |= scores[form].lost > before.lost
    slopes = {form: along.slope for form, along in positions.along.items()}
    advanced = predict(
        problem, center, state.predicted.displacements, slopes, params.learning_rate, params.threshold, config.curvature
    )
    return scores, advanced, row, lost


def finish_without_center(step: PartialStep) -> tuple[CoupledState, StepRows, Array]:
    """The step when θ† stays where it is, since it ends here."""
    return step.state, _rows(step.row, step.diverged), jnp.where(step.diverged, StepStatus.DIVERGED, StepStatus.HOST)


def finish_step(
    params: StepParams, before: ConstrainedTrack, step: PartialStep, projection: ProjectionState, normals: Normals
) -> tuple[CoupledState, StepRows, Array]:
    """The step once θ† has moved to where projections ended, with the normals there."""
    center = taylor_center(projection.point, normals, before.center.top_eigenvector)
    changed, displacements, costs, rows, status = _finished(params, before, step, projection, center)
    constrained = before._replace(center=center, projections=projection.taken, **changed)
    predicted = step.state.predicted._replace(displacements=displacements)
    return step.state._replace(constrained=constrained, predicted=predicted, costs=costs), rows, status


@jax.jit
def _finished(
    params: StepParams, before: ConstrainedTrack, step: PartialStep, projection: ProjectionState, center: TaylorCenter
) -> tuple[dict[str, Any], Displacements, Costs, StepRows, Array]:
    next_u, onward = center.top_eigenvector, project_center(center, projection.target, params.threshold)
    overlap = jnp.abs(next_u @ before.center.top_eigenvector)
    changed = {
        "eigenvector_history": push(before.eigenvector_history, projection.start), "correction": onward.theta - projection.guess,
        "remainder": onward.theta - center.theta, "active": onward.pushes, "overlap": overlap,
    }
    costs = projection.costs.plus(grad_sharpness=CONTRACTIONS * jnp.asarray(~projection.afresh, int))
    row = step.row | {
        "next.sharpness_residual": onward.residuals.sharpness, "next.gradient_residual": onward.residuals.gradient,
        "next.eigen_residual": center.eigen.residuals[0], "next.hvps": center.eigen.hvps, "next.overlap": overlap,
    }
    needs_host = step.needs_host | (center.eigen.values[1] * params.learning_rate >= params.second_limit)
    unsolved = center.eigen.residuals[0] > UNUSABLE
    status = jnp.where(needs_host, StepStatus.HOST, StepStatus.ON)
    status = jnp.where(unsolved, StepStatus.UNSOLVED, jnp.where(~projection.usable, StepStatus.ENDED, status))
    rows = _rows(row, step.diverged)
    return changed, carry(step.advanced, next_u), costs, rows, jnp.where(step.diverged, StepStatus.DIVERGED, status)


@jax.jit
def _rows(row: Row, diverged: Array) -> StepRows:
    values = jnp.stack([jnp.asarray(value, jnp.float64) for value in row.values()])
    return StepRows(values[None], jnp.where(diverged, 0, 1), tuple(row))


def _delta(center: TaylorCenter) -> Array:
    positive = (center.alpha > 0) & (center.beta > 0)
    return jnp.where(positive, jnp.sqrt(jnp.abs(center.delta_squared)), jnp.nan)


def _center_row(track: ConstrainedTrack, params: StepParams) -> Row:
    center = track.center
    gap = center.sharpness.astype(center.theta.dtype) - params.threshold
    return {
        "constrained.loss": center.loss, "constrained.sharpness": center.sharpness, "constrained.lambda2": center.eigen.values[1],
        "constrained.alpha": center.alpha, "constrained.beta": center.beta, "constrained.gradient_norm": center.grad_norm,
        "constrained.skew": center.skew, "constrained.active": track.active,
        "constrained.sharpness_gap": jnp.where(track.active, jnp.abs(gap), jnp.maximum(gap, 0)),
        "constrained.gradient_along_u": jnp.abs(center.grad_along_u),
        "constrained.eigen_residual": center.eigen.residuals[0], "constrained.projections": track.projections,
        "constrained.overlap": track.overlap,
    }


def _forecast_row(form: str, said: Forecast, before: Score, score: Score, step: Array) -> Row:
    """What a form says, NaN where it is lost, and how well it has held."""
    row = {f"{form}.{name}": jnp.where(score.lost > 0, jnp.nan, value) for name, value in said._asdict().items()}
    return row | {
        f"{form}.since_anchor": step - score.anchored, f"{form}.correlation": prediction_scores.correlation(score),
        f"{form}.horizon": score.horizon, f"{form}.newly_lost": score.lost - before.lost,
    }
