"""One coupled step in its parts: gradient descent, its constrained trajectory, its predictions, and what is followed beside.

Order inside a step: measure everything about the old θ†; advance gradient descent, every prediction and what is followed beside about the
old θ†; move θ† last, by projections from where it is expected (`projection`), and carry the predictions there (`take`). `coupled_loop` and
`step_in_parts` put the parts together. What is compiled gives back what it changed alone: jax copies what a compiled
function only hands through, some twenty vectors of p a step.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine.curvature.directions import Directions
from engine.curvature.eigensolver import Eigenpairs
from engine.curvature.expansion import Normals, Point, TaylorCenter, loss_along
from engine.curvature.halves import halved, shortened
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
    in_format,
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
    PredictedTrack,
    StaticConfig,
    StepParams,
    StepStatus,
    joined,
    known_eigenvectors,
    next_drift,
    parted,
    started,
)
from engine.phases.projection import (
    UNUSABLE,
    ProjectionState,
    contracted_at_end,
    expansion_of,
    first_guess,
    project_from,
    with_expansion,
)
from engine.problems.problem import Problem
from engine.record.columns import CROSSED
from engine.theory import pairs
from engine.xla import small_matrices
from engine.xla.reductions import dots, norms


@partial(jax.tree_util.register_dataclass, data_fields=["values", "count"], meta_fields=["names"])
class StepRows:
    """Rows (rows, names) of which the first `count` () are filled."""

    def __init__(self, values: Array, count: Array, names: tuple[str, ...]):
        self.values, self.count, self.names = values, count, names

    def row(self, place: int) -> dict[str, float]:
        """One of the rows, whose values are the host's, by names."""
        return dict(zip(self.names, self.values[place].tolist(), strict=True))


class Positions(NamedTuple):
    """Where gradient descent and the predictions are about θ†."""

    descent: Coordinates
    predicted: dict[str, Coordinates]
    along: dict[str, AlongU]  # the loss along u where forms read it


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
        state.descent.theta, track.center, known_eigenvectors(track), config.curvature, around, traced, params.central_substeps,
        params.most_followed,
    )


def measure_beside(at: StepContext, state: CoupledState) -> dict[str, Any]:
    """What each trajectory beside gradient descent measures, under way."""
    return {name: TRAJECTORIES[name].measure(at, each) for name, each in state.beside.items()}


def suffice_beside(beside: dict[str, Any]) -> tuple[Any, ...]:
    """Whether what each trajectory beside gradient descent has measured suffices for its step, () each."""
    return tuple(TRAJECTORIES[name].suffices(measured) for name, measured in beside.items())


def measure_more_beside(at: StepContext, state: CoupledState, beside: dict[str, Any], suffice: Iterable[bool]) -> dict[str, Any]:
    """What each has measured, with what it takes more where that does not suffice."""
    return {
        name: measured if suffices else TRAJECTORIES[name].measure_more(at, state.beside[name], measured)
        for (name, measured), suffices in zip(beside.items(), suffice, strict=True)
    }


class Beside(NamedTuple):
    """What is followed beside gradient descent, one step on."""

    states: dict[str, Any]
    row: Row
    costs: tuple[Costs, ...]


def step_beside(at: StepContext, state: CoupledState, beside: dict[str, Any]) -> Beside:
    """The step of each trajectory beside gradient descent, from what it has measured."""
    states, row, spent = dict[str, Any](), Row(), list[Costs]()
    for name, measured in beside.items():
        states[name], more, costs = TRAJECTORIES[name].step(at, state.beside[name], measured)
        row |= more
        spent.append(costs)
    return Beside(states, row, (*spent,))


class _Advanced(NamedTuple):
    """What a step makes of all but θ†, about the old θ†."""

    descent: DescentTrack | None  # and predictions: none where they are moved by themselves
    scores: dict[str, Score]
    predicted: dict[str, Advanced]
    momenta: dict[str, Advanced]  # of the predictions; none where steps remember nothing
    row: Row
    costs: Costs
    needs_host: Array
    diverged: Array


def _advanced(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions
) -> _Advanced:
    """Read all there is about the old θ†, and advance gradient descent and the predictions."""
    point, images = measured
    descent, row = _descend(problem, config, state, point, newest_of(state.constrained.center, point.eigen, images), positions.descent)
    predicted, momenta = _predict(problem, config, params, state.constrained, state.predicted, _slopes(positions))
    return _with_predictions(params, state, point, positions, descent, row, predicted, momenta)


def _with_predictions(
    params: StepParams, state: CoupledState, point: Point, positions: Positions, descent: DescentTrack | None, row: Row,
    predicted: dict[str, Advanced], momenta: dict[str, Advanced],
) -> _Advanced:
    """With what is read off the centre and the predictions. Of gradient descent's state nothing is read."""
    scores, forecasts, lost = _scored(params, state, positions)
    row = row | _center_row(state.constrained, params) | forecasts
    row |= {"constrained.hvps": state.costs.hvps, "constrained.contractions": state.costs.grad_sharpness}
    forms = [FORMS[form] for form in state.predicted.scores]
    along = sum(form.reads_along_u for form in forms)  # F' and F'' along u
    products = point.eigen.hvps + len(forms) + along * max(1, len(state.constrained.directions.basis))
    costs = state.costs.plus(products, 1 + along, sum(form.third_derivatives for form in forms))
    needs_host = (point.loss < params.loss_goal) & (params.loss_goal > 0) | params.host_at_loss & lost
    return _Advanced(descent, scores, predicted, momenta, row, costs, needs_host, has_diverged(point.loss, point.grad))


@jax.jit
def has_diverged(loss: Array, grad: Array) -> Array:
    """Whether the loss at gradient descent's point is no number, or its gradient (p,), ()."""
    return ~jnp.isfinite(loss + norms(grad)[0])


def unsolved(residuals: Array) -> Array:
    """Whether no eigenpair was found, by the residuals (k,), ()."""
    return residuals[0] > UNUSABLE


class Newest(NamedTuple):
    """What gradient descent's track comes to have of the eigenvectors where its step begins, `halved`."""

    eigenvectors: Array  # (k, p)
    offset: Array  # (p,)


@jax.jit
def newest_of(center: TaylorCenter, eigen: Eigenpairs, images: Array) -> Newest:
    """From eigenpairs at gradient descent's θ, and what the Hessian makes of their vectors."""
    vectors, u = power_step(eigen, images), center.top_eigenvector
    return Newest(halved(vectors), halved(eigenvector_offset(vectors[0], u)))


def _descend(
    problem: Problem, config: StaticConfig, state: CoupledState, point: Point, newest: Newest, at: Coordinates
) -> tuple[DescentTrack, Row]:
    """The optimizer's step, and what there is to read where it begins; the point's eigenvectors are the `newest`."""
    track, center = state.descent, state.constrained.center
    theta, optimizer = config.optimizer.step(track.theta, track.optimizer, point.grad, problem.gradient)
    moved = DescentTrack(
        theta, optimizer, push(track.eigenvectors, newest.eigenvectors), push(track.offsets, newest.offset), push(track.x_history, at.x)
    )
    row = {
        "step": state.step, "gd.loss": point.loss, "gd.gradient_norm": norms(point.grad)[0], "gd.sharpness": point.eigen.sharpness,
        "gd.eigen_residual": point.eigen.residuals[0], "gd.distance": at.distance, "gd.x": at.x, "gd.y": at.y,
        "threshold": config.optimizer.threshold(track.optimizer), "gd.x_norm": at.size,
    }
    row |= _numbered("gd.x", jnp.atleast_1d(at.along), state.constrained)
    if "transported" in state.predicted.displacements:
        row["deviation"] = norms(track.theta - center.theta - state.predicted.displacements["transported"])[0]
    return moved, row | {f"gd.lambda{k + 1}": point.eigen.values[k] for k in range(1, track.eigenvectors.shape[1])}


def _scored(params: StepParams, state: CoupledState, positions: Positions) -> tuple[dict[str, Score], Row, Array]:
    """Scores one step on, what each prediction says here, and whether one of them is newly lost."""
    scores, row, lost = dict[str, Score](), Row(), jnp.array(False)
    track, center = state.constrained, state.constrained.center
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
    return scores, row, lost


def _slopes(positions: Positions) -> dict[str, Array]:
    return {form: along.slope for form, along in positions.along.items()}


def _predict(
    problem: Problem, config: StaticConfig, params: StepParams, track: ConstrainedTrack, predicted: PredictedTrack, slopes: dict[str, Array]
) -> tuple[dict[str, Advanced], dict[str, Advanced]]:
    """Predictions one step on, and their momenta."""
    if not predicted.displacements:
        return {}, {}
    if track.momentum.size:
        return predict_with_momentum(
            problem, track.center, predicted.displacements, predicted.momenta, slopes, params.memory, params.learning_rate,
            _balance(track, params), config.curvature, track.directions,
        )
    return predict(
        problem, track.center, predicted.displacements, slopes, params.learning_rate, params.threshold, config.curvature,
        track.directions, track.covariance,
    ), {}


def _balance(track: ConstrainedTrack, params: StepParams) -> Array:
    """X† of the next step, (), or (K, K) of several directions."""
    drift, length = next_drift(track, params)
    return balance(track.center, track.directions, track.covariance, length, params.threshold, drift)


def take_without_center(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions,
    beside: Beside,
) -> tuple[CoupledState, StepRows, Array]:
    """The step when θ† stays where it is, since it ends here. `measured` is what `expansion.measure_all` gives at gradient descent's θ."""
    descent, scores, rows, status = _taken_without_center(
        problem, config, params, state._replace(beside={}), measured, positions, beside._replace(states={})
    )
    return state._replace(
        step=state.step + 1, descent=descent, predicted=state.predicted._replace(scores=scores), beside=beside.states
    ), rows, status


@partial(jax.jit, static_argnames=("config",))
def _taken_without_center(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions,
    beside: Beside,
) -> tuple[DescentTrack, dict[str, Score], StepRows, Array]:
    advanced = _advanced(problem, config, params, state, measured, positions)
    status = jnp.where(advanced.diverged, StepStatus.DIVERGED, StepStatus.HOST)
    assert advanced.descent is not None
    return advanced.descent, advanced.scores, _rows(advanced, beside, {"status": status}), status


def take(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions,
    beside: Beside, projection: ProjectionState, normals: Normals | Directions,
) -> tuple[CoupledState, StepRows, Array]:
    """The step: all there is about the old θ† is read, gradient descent and the predictions are advanced, and θ† moves to where projections
    ended, with the normals there. `measured` is what `expansion.measure_all` gives at gradient descent's θ.
    """
    old, kept = state._replace(beside={}), beside._replace(states={})
    taken = _taken(problem, config, params, old, measured, positions, kept, projection, normals)
    predicted = PredictedTrack(taken.displacements, taken.scores, taken.momenta)
    assert taken.descent is not None
    return CoupledState(
        state.step + 1, taken.descent, with_center(state.constrained, taken, projection, normals), predicted, beside.states, taken.costs
    ), taken.rows, taken.status


class _Taken(NamedTuple):
    """What a step changes."""

    descent: DescentTrack | None
    scores: dict[str, Score]
    displacements: Displacements
    momenta: Displacements
    expansion: dict[str, Array]  # about the next θ†
    constrained: dict[str, Any]  # of the constrained trajectory beside it
    costs: Costs
    rows: StepRows
    status: Array


@partial(jax.jit, static_argnames=("config",))
def _taken(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, measured: tuple[Point, Array], positions: Positions,
    beside: Beside, projection: ProjectionState, normals: Normals | Directions,
) -> _Taken:
    advanced = _advanced(problem, config, params, state, measured, positions)
    known = expansion_of(projection.point, normals, state.constrained.center.top_eigenvector)
    displacements, momenta = _carried(state.constrained, advanced.predicted, advanced.momenta, known, projection, normals)
    return _with_center(params, state.constrained, advanced, beside, known, projection, normals)._replace(
        descent=advanced.descent, displacements=displacements, momenta=momenta
    )


def _carried(
    before: ConstrainedTrack, predicted: dict[str, Advanced], momenta: dict[str, Advanced], known: dict[str, Array],
    projection: ProjectionState, normals: Normals | Directions,
) -> tuple[Displacements, Displacements]:
    """Predictions and their momenta about the next centre, as they are kept."""
    ahead = normals.basis if isinstance(normals, Directions) else with_expansion(projection.point, normals, known).top_eigenvector
    small = before.center.small_format
    return in_format(carry(predicted, ahead), small), in_format(carry(momenta, ahead), small)


def _with_center(
    params: StepParams, before: ConstrainedTrack, advanced: _Advanced, beside: Beside, known: dict[str, Array],
    projection: ProjectionState, normals: Normals | Directions,
) -> _Taken:
    """The move of θ†, and the row of the step; nothing of gradient descent and of the predictions but numbers."""
    center, directions = with_expansion(projection.point, normals, known), before.directions
    if isinstance(normals, Directions):
        directions = normals
    next_u, several = center.top_eigenvector, len(directions.basis)
    target, guess = first_guess(params, before)
    onward = project_from(center, directions if several else center.normals, target, params.threshold, projection.multiplier)
    overlap = _overlap(before, next_u, directions)
    push_ahead, momentum = before.covariance, before.momentum
    if momentum.size:
        momentum = remembered(before.center, momentum, params.memory, params.learning_rate, center.theta)
    drift, length = next_drift(before._replace(center=center, momentum=momentum), params)
    if several:
        push_ahead = covariance(directions, center.grad if drift is None else drift, length, params.threshold, before.covariance)
    small = center.small_format
    changed = {
        **started(projection.start, before.refined, center.eigen.vectors, directions)._asdict(),
        "kept_correction": shortened((onward.theta - guess.theta).astype(small)),
        "kept_remainder": shortened((onward.theta - center.theta).astype(small)),
        "active": onward.active, "overlap": overlap, "covariance": push_ahead, "momentum": momentum,
    }
    costs = projection.costs.plus(grad_sharpness=contracted_at_end(projection))
    edge_values = center.eigen.values * params.plain_rate
    count = jnp.maximum(directions.number, 1)
    needs_host = advanced.needs_host | (edge_values[count] >= params.edge_limit) | (onward.active > params.most_seeded)
    needs_host |= (count > 1) & (edge_values[count - 1] < params.leave_limit)
    status = jnp.where(needs_host, StepStatus.HOST, StepStatus.ON)
    status = jnp.where(unsolved(center.eigen.residuals), StepStatus.UNSOLVED, jnp.where(~projection.usable, StepStatus.ENDED, status))
    status = jnp.where(advanced.diverged, StepStatus.DIVERGED, status)
    rows = _rows(advanced, beside, {
        "next.sharpness_residual": onward.residuals.sharpness, "next.gradient_residual": onward.residuals.gradient,
        "next.eigen_residual": center.eigen.residuals[0], "next.hvps": center.eigen.hvps, "next.overlap": overlap,
        "next.active": onward.active, "status": status,
        **{f"next.lambda{k + 1}": center.eigen.values[k] for k in range(len(center.eigen.values))},
        **{f"next.{form}.lost": score.lost for form, score in advanced.scores.items()},
    })
    return _Taken(None, advanced.scores, {}, {}, known, changed, costs, rows, status)


@partial(jax.jit, static_argnames=("config",), donate_argnames=("vectors",))
def _descended_in_place(
    vectors: DescentTrack, rest: DescentTrack, state: CoupledState, problem: Problem, config: StaticConfig, point: Point, newest: Newest,
    at: Coordinates,
) -> tuple[DescentTrack, Row]:
    return _descend(problem, config, state._replace(descent=joined(vectors, rest)), point, newest, at)


def descend_in_place(
    problem: Problem, config: StaticConfig, state: CoupledState, point: Point, newest: Newest, at: Coordinates
) -> tuple[DescentTrack, Row]:
    """Gradient descent one step on, its vectors where the old ones lay, and the row there; the point's θ and eigenvectors are not read."""
    others = state._replace(descent=None, beside={})  # type: ignore[arg-type]
    vectors, rest = parted(state.descent, state.descent.theta.size, (others, point))
    return _descended_in_place(vectors, rest, others, problem, config, point, newest, at)


@partial(jax.jit, static_argnames=("config",), donate_argnames=("vectors",))
def _predicted_in_place(
    vectors: PredictedTrack, problem: Problem, config: StaticConfig, params: StepParams, track: ConstrainedTrack, slopes: dict[str, Array],
    known: dict[str, Array], projection: ProjectionState, normals: Normals | Directions,
) -> tuple[Displacements, Displacements]:
    return _carried(track, *_predict(problem, config, params, track, vectors, slopes), known, projection, normals)


def predict_in_place(
    problem: Problem, config: StaticConfig, params: StepParams, state: CoupledState, positions: Positions, known: dict[str, Array],
    projection: ProjectionState, normals: Normals | Directions,
) -> tuple[Displacements, Displacements]:
    """Every prediction about the next centre, and its momentum, one after the other, each where the old one lay."""
    track, size = state.predicted._replace(scores={}), state.constrained.center.theta.size
    track, _ = parted(track, size, state._replace(predicted=None, beside={}))  # type: ignore[arg-type]
    displacements, momenta = dict[str, Array](), dict[str, Array]()
    for form in state.predicted.displacements:
        one = PredictedTrack({form: track.displacements[form]}, {}, {form: track.momenta[form]} if track.momenta else {})
        slopes = {name: slope for name, slope in _slopes(positions).items() if name == form}
        moved, remembered = _predicted_in_place(one, problem, config, params, state.constrained, slopes, known, projection, normals)
        displacements |= moved
        momenta |= remembered
    return displacements, momenta


OVERWRITTEN = ("polish", "turn", "kept_correction", "kept_remainder", "momentum")
"""What θ† has that lies where it lay before, when a step is put in the place of the old one."""


@partial(jax.jit, donate_argnames=("vectors",), keep_unused=True)
def _centered_in_place(
    vectors: dict[str, Any], rest: dict[str, Any], state: CoupledState, params: StepParams, point: Point, positions: Positions, row: Row,
    beside: Beside, known: dict[str, Array], projection: ProjectionState, normals: Normals | Directions,
) -> _Taken:
    track = state.constrained._replace(**joined(vectors, rest))
    advanced = _with_predictions(params, state._replace(constrained=track), point, positions, None, row, {}, {})
    return _with_center(params, track, advanced, beside, known, projection, normals)._replace(expansion={})


def center_in_place(
    params: StepParams, state: CoupledState, point: Point, positions: Positions, row: Row, beside: Beside, known: dict[str, Array],
    projection: ProjectionState, normals: Normals | Directions,
) -> _Taken:
    """θ† moved to where projections ended, and the row of the step with this one of gradient descent in it."""
    made, track = {name: getattr(state.constrained, name) for name in OVERWRITTEN}, state.constrained
    others = state._replace(
        descent=None, beside={}, constrained=track._replace(**dict.fromkeys(OVERWRITTEN)),  # type: ignore[arg-type]
        predicted=state.predicted._replace(displacements={}, momenta={}),
    )
    vectors, rest = parted(made, track.center.theta.size, (others, projection, normals))
    beside = beside._replace(states={})
    taken = _centered_in_place(vectors, rest, others, params, point, positions, row, beside, known, projection, normals)
    return taken._replace(expansion=known)


def with_center(before: ConstrainedTrack, taken: _Taken, projection: ProjectionState, normals: Normals | Directions) -> ConstrainedTrack:
    """The track with θ† where projections ended."""
    directions = normals if isinstance(normals, Directions) else before.directions
    return before._replace(
        center=with_expansion(projection.point, normals, taken.expansion), projections=projection.taken, directions=directions,
        **taken.constrained,
    )


def with_host_values(state: CoupledState) -> CoupledState:
    """The state with what no step changes and the host reads, η and how many directions there are, as arrays of the host: the device need
    not be asked for them."""
    return _with_constants(state, np.asarray(state.descent.optimizer.learning_rate), np.asarray(state.constrained.directions.number))


def with_row(before: CoupledState, state: CoupledState, row: Mapping[str, float]) -> CoupledState:
    """The state that steps have led to from one `with_host_values` before, with all that the host reads of it as arrays of the host, by the
    row of the last step."""
    state = _with_constants(state, before.descent.optimizer.learning_rate, before.constrained.directions.number)
    track, eigen, scores = state.constrained, state.constrained.center.eigen, state.predicted.scores
    values = np.array([row[f"next.lambda{k + 1}"] for k in range(len(eigen.values))], eigen.values.dtype)
    center = track.center._replace(eigen=eigen._replace(values=cast(Array, values)))
    held = {form: score._replace(lost=cast(Array, np.array(int(row[f"next.{form}.lost"])))) for form, score in scores.items()}
    return state._replace(
        constrained=track._replace(center=center, active=cast(Array, np.array(int(row["next.active"])))),
        predicted=state.predicted._replace(scores=held),
    )


def _with_constants(state: CoupledState, learning_rate: Any, number: Any) -> CoupledState:
    descent, track = state.descent, state.constrained
    return state._replace(
        descent=descent._replace(optimizer=descent.optimizer._replace(learning_rate=learning_rate)),
        constrained=track._replace(directions=track.directions._replace(number=number)),
    )


def _overlap(before: ConstrainedTrack, next_u: Array, directions: Directions) -> Array:
    """The cosine of the angle that the top eigenvector turned by, or of the largest that the space of several directions did."""
    if not len(directions.basis):
        return jnp.abs(dots((next_u, before.center.top_eigenvector))[0])
    there = directions.there
    turned = directions.basis @ before.directions.basis.T
    turned = jnp.where(jnp.outer(there, there), turned, jnp.eye(len(there), dtype=turned.dtype))
    return small_matrices.singular_values(turned)[-1]


def _rows(advanced: _Advanced, beside: Beside, more: Row) -> StepRows:
    """The row of a step: numbers in one array, since the host takes longer to be given sixty arrays than the device to fill them."""
    spent = advanced.costs
    for costs in beside.costs:
        spent = spent.plus(*costs)
    row = advanced.row | beside.row | {f"cost.{name}": number for name, number in spent._asdict().items()} | more
    values = jnp.stack([jnp.asarray(value, jnp.float64) for value in row.values()])
    return StepRows(values[None], jnp.where(advanced.diverged, 0, 1), tuple(row))


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
