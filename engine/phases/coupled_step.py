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

from engine.curvature.directions import Directions
from engine.curvature.expansion import Normals, Point, TaylorCenter, loss_along
from engine.curvature.predictor import eigenvector_offset, power_step, push
from engine.dynamics import prediction_scores
from engine.dynamics.constrained import covariance, remembered
from engine.dynamics.predicted import (
    FORMS,
    Advanced,
    AlongU,
    Coordinates,
    Displacements,
    Forecast,
    OneDirection,
    balance,
    carry,
    coordinates,
    edge_directions,
    forecast,
    loss_along_several,
    predict,
    predict_with_momentum,
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
    next_drift,
)
from engine.phases.projection import UNUSABLE, ProjectionState, contracted, expansion_of, project_from, with_expansion
from engine.problems.problem import Problem
from engine.record.columns import CROSSED
from engine.theory import pairs
from engine.xla import small_matrices
from engine.xla.reductions import norms


@partial(jax.tree_util.register_dataclass, data_fields=["values", "count"], meta_fields=["names"])
class StepRows:
    """Rows (rows, names) of which the first `count` () are filled."""

    def __init__(self, values: Array, count: Array, names: tuple[str, ...]):
        self.values, self.count, self.names = values, count, names


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["names"])
class Readings:
    """Numbers (names,) in one array: the host takes longer to be given sixty arrays than the device to fill them."""

    def __init__(self, values: Array, names: tuple[str, ...]):
        self.values, self.names = values, names

    @classmethod
    def of(cls, row: Row) -> "Readings":
        """Those of a row."""
        return cls(jnp.stack([jnp.asarray(value, jnp.float64) for value in row.values()]), tuple(row))


class Positions(NamedTuple):
    """Where gradient descent and the predictions are about θ†."""

    descent: Coordinates
    predicted: dict[str, Coordinates]
    along: dict[str, AlongU]  # the loss along u where forms read it


class PartialStep(NamedTuple):
    """A step but for the move of θ†."""

    state: CoupledState  # the constrained trajectory and the predictions as before
    advanced: dict[str, Advanced]
    momenta: dict[str, Advanced]  # of the predictions; none where steps remember nothing
    readings: Readings
    beside: Row  # what is read beside gradient descent and its predictions
    costs: tuple[Costs, ...]
    needs_host: Array
    diverged: Array


def locate(problem: Problem, state: CoupledState) -> Positions:
    """Where everything is about θ†. F' and F'' along u are read in θ's own format: near x⋆ = 0 they are small differences."""
    center, directions = state.constrained.center, state.constrained.directions
    true, predicted, points = _located(center, directions, state.descent.theta, state.predicted.displacements)
    if len(directions.basis):
        return Positions(true, predicted, {form: loss_along_several(problem, point, directions.basis) for form, point in points.items()})
    along = {form: AlongU(*loss_along(problem, point, center.top_eigenvector)) for form, point in points.items()}
    return Positions(true, predicted, along)


@jax.jit
def _located(
    center: TaylorCenter, directions: Directions, theta: Array, displacements: Displacements
) -> tuple[Coordinates, dict[str, Coordinates], dict[str, Array]]:
    return coordinates(center, directions, theta - center.theta, displacements)


def context(problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, around: bool, traced: bool) -> StepContext:
    """What the trajectories beside gradient descent read."""
    track = state.constrained
    return StepContext(
        problem, (state.step if traced else int(state.step)) - params.edge_step, params.flow_sharpness_every, params.learning_rate,
        state.descent.theta, track.center, lambda: known_eigenvectors(track), config.curvature, around, traced, params.central_substeps,
        params.most_followed,
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
    following, descent, scores, (advanced, momenta), readings, costs, needs_host, diverged = _advanced(
        problem, config, params, state, measured, positions
    )
    moved, row, all_costs = dict[str, Any](), Row(), [costs]
    for name, each in state.beside.items():
        moved[name], more, spent = TRAJECTORIES[name].step(at, each, beside[name])
        row |= more
        all_costs.append(spent)
    changed = state._replace(step=following, descent=descent, predicted=state.predicted._replace(scores=scores), beside=moved)
    return PartialStep(changed, advanced, momenta, readings, row, (*all_costs,), needs_host, diverged)


@partial(jax.jit, static_argnames=("config",))
def _advanced(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions
) -> tuple[Array, DescentTrack, dict[str, Score], tuple[dict[str, Advanced], dict[str, Advanced]], Readings, Costs, Array, Array]:
    point, images = measured
    center = state.constrained.center
    descent, row = _descend(problem, config, state, point, images, positions.descent, center)
    scores, advanced, forecasts, lost = _predict(problem, config, params, state, positions, center)
    if "transported" in state.predicted.displacements:
        row["deviation"] = norms(state.descent.theta - center.theta - state.predicted.displacements["transported"])[0]
    row |= _center_row(state.constrained, params) | forecasts
    row |= {"constrained.hvps": state.costs.hvps, "constrained.contractions": state.costs.grad_sharpness}
    forms = [FORMS[form] for form in state.predicted.displacements]
    along = sum(form.reads_along_u for form in forms)  # F' and F'' along u
    products = point.eigen.hvps + len(forms) + along * max(1, len(state.constrained.directions.basis))
    costs = state.costs.plus(products, 1 + along, sum(form.third_derivatives for form in forms))
    needs_host = (point.loss < params.loss_goal) & (params.loss_goal > 0) | params.host_at_loss & lost
    diverged = ~jnp.isfinite(point.loss + row["gd.gradient_norm"])
    return state.step + 1, descent, scores, advanced, Readings.of(row), costs, needs_host, diverged


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
        "threshold": config.optimizer.threshold(track.optimizer), "gd.x_norm": at.size,
    }
    row |= _numbered("gd.x", jnp.atleast_1d(at.along), state.constrained)
    return moved, row | {f"gd.lambda{k + 1}": point.eigen.values[k] for k in range(1, track.eigenvector_history.shape[1])}


def _predict(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, positions: Positions, center: TaylorCenter
) -> tuple[dict[str, Score], tuple[dict[str, Advanced], dict[str, Advanced]], Row, Array]:
    """Scores and predictions one step on, with their momenta, what each says here, and whether one of them is newly lost."""
    scores, row, lost = dict[str, Score](), Row(), jnp.array(False)
    if not state.predicted.displacements:
        return scores, ({}, {}), row, lost
    track = state.constrained
    edge = edge_directions(center, track.directions)
    delta = _delta(center) if isinstance(edge, OneDirection) else jnp.sqrt(jnp.trace(track.covariance))
    for form, before in state.predicted.scores.items():
        said = forecast(center, edge, positions.predicted[form], positions.along.get(form), params.plain_rate)
        scores[form] = prediction_scores.observe(
            before, state.step, said.x_norm, positions.descent.size, delta, params.horizon_tolerance
        )
        row |= _forecast_row(form, said, before, scores[form], state.step)
        row[f"{form}.error"] = prediction_scores.error(scores[form]) / delta
        lost |= scores[form].lost > before.lost
    slopes = {form: along.slope for form, along in positions.along.items()}
    if track.momentum.size:
        advanced = predict_with_momentum(
            problem, center, state.predicted.displacements, state.predicted.momenta, slopes, params.memory, params.learning_rate,
            _balance(track, params), config.curvature, track.directions,
        )
        return scores, advanced, row, lost
    moved = predict(
        problem, center, state.predicted.displacements, slopes, params.learning_rate, params.threshold, config.curvature,
        track.directions, track.covariance,
    )
    return scores, (moved, {}), row, lost


def _balance(track: ConstrainedTrack, params: StepParams) -> Array:
    """X† of the next step, (), or (K, K) of several directions."""
    drift, length = next_drift(track, params)
    return balance(track.center, track.directions, track.covariance, length, params.threshold, drift)


def finish_without_center(step: PartialStep) -> tuple[CoupledState, StepRows, Array]:
    """The step when θ† stays where it is, since it ends here."""
    return step.state, _rows(step, {}), jnp.where(step.diverged, StepStatus.DIVERGED, StepStatus.HOST)


def finish_step(
    params: StepParams, before: ConstrainedTrack, step: PartialStep, projection: ProjectionState, normals: Normals | Directions
) -> tuple[CoupledState, StepRows, Array]:
    """The step once θ† has moved to where projections ended, with the normals there."""
    known, changed, displacements, momenta, costs, rows, status = _finished(params, before, step, projection, normals)
    center = with_expansion(projection.point, normals, known)
    directions = normals if isinstance(normals, Directions) else before.directions
    constrained = before._replace(center=center, projections=projection.taken, directions=directions, **changed)
    predicted = step.state.predicted._replace(displacements=displacements, momenta=momenta)
    return step.state._replace(constrained=constrained, predicted=predicted, costs=costs), rows, status


@jax.jit
def _finished(
    params: StepParams, before: ConstrainedTrack, step: PartialStep, projection: ProjectionState, normals: Normals | Directions
) -> tuple[dict[str, Array], dict[str, Any], Displacements, Displacements, Costs, StepRows, Array]:
    known = expansion_of(projection.point, normals, before.center.top_eigenvector)
    center, directions = with_expansion(projection.point, normals, known), before.directions
    if isinstance(normals, Directions):
        directions = normals
    next_u, several = center.top_eigenvector, len(directions.basis)
    onward = project_from(
        center, directions if several else center.normals, projection.target, params.threshold, projection.multiplier
    )
    overlap = _overlap(before, next_u, directions)
    push_ahead, momentum = before.covariance, before.momentum
    if momentum.size:
        momentum = remembered(before.center, momentum, params.memory, params.learning_rate, center.theta)
    drift, length = next_drift(before._replace(center=center, momentum=momentum), params)
    if several:
        push_ahead = covariance(directions, center.grad if drift is None else drift, length, params.threshold, before.covariance)
    changed = {
        "eigenvector_history": push(before.eigenvector_history, projection.start), "correction": onward.theta - projection.guess,
        "remainder": onward.theta - center.theta, "active": onward.active, "overlap": overlap, "covariance": push_ahead,
        "momentum": momentum,
    }
    costs = projection.costs.plus(grad_sharpness=contracted(projection.normals) * jnp.asarray(~projection.afresh, int))
    row = {
        "next.sharpness_residual": onward.residuals.sharpness, "next.gradient_residual": onward.residuals.gradient,
        "next.eigen_residual": center.eigen.residuals[0], "next.hvps": center.eigen.hvps, "next.overlap": overlap,
    }
    edge_values = center.eigen.values * params.plain_rate
    count = jnp.maximum(directions.number, 1)
    needs_host = step.needs_host | (edge_values[count] >= params.edge_limit) | (onward.active > params.most_seeded)
    needs_host |= (count > 1) & (edge_values[count - 1] < params.leave_limit)
    unsolved = center.eigen.residuals[0] > UNUSABLE
    status = jnp.where(needs_host, StepStatus.HOST, StepStatus.ON)
    status = jnp.where(unsolved, StepStatus.UNSOLVED, jnp.where(~projection.usable, StepStatus.ENDED, status))
    rows = _rows(step, row)
    ahead = directions.basis if several else next_u
    displacements, momenta = carry(step.advanced, ahead), carry(step.momenta, ahead)
    status = jnp.where(step.diverged, StepStatus.DIVERGED, status)
    return known, changed, displacements, momenta, costs, rows, status


def _overlap(before: ConstrainedTrack, next_u: Array, directions: Directions) -> Array:
    """The cosine of the angle that the top eigenvector turned by, or of the largest that the space of several directions did."""
    if not len(directions.basis):
        return jnp.abs(next_u @ before.center.top_eigenvector)
    there = directions.there
    turned = directions.basis @ before.directions.basis.T
    turned = jnp.where(jnp.outer(there, there), turned, jnp.eye(len(there), dtype=turned.dtype))
    return small_matrices.singular_values(turned)[-1]


@jax.jit
def _rows(step: PartialStep, more: Row) -> StepRows:
    """The row of a step with what is read at its end."""
    spent = step.costs[0]
    for costs in step.costs[1:]:
        spent = spent.plus(*costs)
    beside = Readings.of(step.beside | {f"cost.{name}": number for name, number in spent._asdict().items()} | more)
    values = jnp.concatenate([step.readings.values, beside.values])
    return StepRows(values[None], jnp.where(step.diverged, 0, 1), step.readings.names + beside.names)


def _delta(center: TaylorCenter) -> Array:
    positive = (center.alpha > 0) & (center.beta > 0)
    return jnp.where(positive, jnp.sqrt(jnp.abs(center.delta_squared)), jnp.nan)


def _numbered(name: str, values: Array, track: ConstrainedTrack) -> Row:
    """Numbers (K,) of the directions at the edge by columns with their number, NaN where there is none."""
    there = jnp.arange(len(values)) < jnp.maximum(track.directions.number, 1)
    return {f"{name}{i + 1}": value for i, value in enumerate(jnp.where(there, values, jnp.nan))}


def _directions_row(track: ConstrainedTrack, params: StepParams) -> Row:
    """What there is of the directions at the edge and of the oscillation X† that holds θ† there."""
    center, directions = track.center, track.directions
    edge = edge_directions(center, directions)
    matrix = jnp.atleast_2d(_balance(track, params))
    curvature = jnp.atleast_2d(edge.curvature).astype(center.theta.dtype)
    along = jnp.abs(center.grad_along_u) if isinstance(edge, OneDirection) else edge.size(edge.basis @ center.grad)
    size, (rows, columns) = len(matrix), pairs(len(matrix))
    values = small_matrices.eigvalsh(matrix)[::-1] if size > 1 else matrix[0]
    there = jnp.arange(size) < jnp.maximum(directions.number, 1)
    crossed = {
        f"covariance.x{i + 1}x{j + 1}": jnp.where(there[j], matrix[i, j], jnp.nan)
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if j < CROSSED
    }
    return {
        "constrained.directions": jnp.maximum(directions.number, 1),
        **{f"constrained.lambda{k + 1}": center.eigen.values[k] for k in range(2, len(center.eigen.values))},
        "constrained.excess": jnp.maximum(center.sharpness / params.threshold - 1, 0),
        "constrained.gradient_share": along / jnp.where(center.grad_norm == 0, 1, center.grad_norm),
        "covariance.trace": jnp.trace(matrix), **_numbered("covariance.lambda", values, track), **crossed,
        "mean.loss": center.loss + jnp.sum(curvature * matrix) / 2,
        "mean.gradient_squared": center.grad_norm**2 + jnp.sum(curvature @ curvature * matrix),
    }


def _center_row(track: ConstrainedTrack, params: StepParams) -> Row:
    center = track.center
    gap = center.sharpness.astype(center.theta.dtype) - params.threshold
    return {
        "constrained.loss": center.loss, "constrained.sharpness": center.sharpness, "constrained.lambda2": center.eigen.values[1],
        "constrained.alpha": center.alpha, "constrained.beta": center.beta, "constrained.gradient_norm": center.grad_norm,
        "constrained.skew": center.skew, "constrained.active": track.active,
        "constrained.sharpness_gap": jnp.where(track.active > 0, jnp.abs(gap), jnp.maximum(gap, 0)),
        "constrained.gradient_along_u": jnp.abs(center.grad_along_u),
        "constrained.eigen_residual": center.eigen.residuals[0], "constrained.projections": track.projections,
        "constrained.overlap": track.overlap,
    } | _directions_row(track, params)


def _forecast_row(form: str, said: Forecast, before: Score, score: Score, step: Array) -> Row:
    """What a form says, NaN where it is lost, and how well it has held."""
    row = {f"{form}.{name}": jnp.where(score.lost > 0, jnp.nan, value) for name, value in said._asdict().items()}
    return row | {
        f"{form}.since_anchor": step - score.anchored, f"{form}.correlation": prediction_scores.correlation(score),
        f"{form}.horizon": score.horizon, f"{form}.newly_lost": score.lost - before.lost,
    }
