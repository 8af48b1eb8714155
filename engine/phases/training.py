"""Training with readings of the sharpness at a cadence, and no constrained trajectory: Figure 6.

Every step records loss and gradient norm, those of its batch where it is taken on one. At every `sharpness_every`-th step, before it is
taken, the top eigenvalues, the accuracies and the test loss are read at θ, and with `schedule = "inverse_sharpness"` the learning rate
becomes 1/λ_max. What batches have read beside that is in `batch_readings`.

Weight decay on a scale-invariant loss (Appendix H). Let f(cθ) = f(θ) and T = L + (λ/2)‖θ‖². Then θ·∇L = 0, ∇L(cθ) = ∇L(θ)/c and
S_L(cθ) = S_L(θ)/c², so that S̄ = S_L‖θ‖² depends on the direction of θ alone, and:
- At the edge S_L + λ = 2/η, so ‖θ‖² = S̄/(2/η − λ).
- A step has ‖θ_{t+1}‖² = (1−ηλ)²‖θ_t‖² + η²‖∇L‖² exactly. It keeps ‖θ‖ where ‖∇L‖² = λ(2/η − λ)‖θ‖².
- Both together, with ‖∇̄L‖ = ‖∇L‖‖θ‖ the gradient norm on the unit sphere: S̄ = ‖∇̄L‖√((2/η − λ)/λ).
The last is self-stabilization in disguise. With ∇L ≈ S_L·x·u the balance says x² = λ‖θ‖²/S_L. By degree −2, θ·∇S_L = −2S_L; with
decay as the only push, α = 2λS_L, and where ∇S_L is radial, β = (2S_L/‖θ‖)²: then δ² = 2α/β is this x².
"""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from engine import spec as specs
from engine.base.errors import UserError
from engine.curvature import companions, guards
from engine.curvature.companions import Companions
from engine.curvature.companions import none as no_companions
from engine.curvature.eigensolver import random_start, solve_at
from engine.curvature.guards import Guards, unknown
from engine.curvature.predictor import push
from engine.dynamics.descent import DESCENT_CHUNK, descend, descend_on_batches
from engine.dynamics.optimizer import Optimizer
from engine.dynamics.rmsprop_flow import NO_FLOW, RmspropFlowState
from engine.dynamics.steepest import FRANK_WOLFE
from engine.phases import (
    batch_readings,
    context,
    derived,
    earlier,
    edge_readings,
    loss_identity,
    rmsprop_beside,
    sharpness_every_step,
    spectrum,
)
from engine.phases.approach import CHECK_TOLERANCE
from engine.phases.context import Clock, Progress, Setup, diverged, loss_goal
from engine.phases.loss_identity import Identity
from engine.phases.phase import Advanced, Phase, Restart
from engine.problems import batches, losses
from engine.problems import build as building
from engine.problems.examples import passes
from engine.problems.problem import MEANS, Problem, require_x64
from engine.record import edges
from engine.record.columns import Column
from engine.record.messages import AnyEvent, EdgeReached
from engine.record.reader import Outcome
from engine.xla.leaves import Earlier


class Training(NamedTuple):
    """What does not change during a run."""

    setup: Setup
    probe: Problem
    """The loss whose sharpness is read: on the first examples, or all."""
    readings: dict[str, Problem]
    """Column -> the mean that it is, as a function of θ."""

    @property
    def tracking(self) -> specs.SharpnessTracking:
        """What is read now and then."""
        return _tracking(self.setup.spec)


PRECONDITIONED_TOLERANCE = 3e-3
"""Where P turns the eigenvector at every step. The eigenvalue is off by about the square of the residual over the gap: at Adam's edge on
digits, where eight eigenvalues lie within 6 %, by 1.5e-4 in the mean, 4e-4 in 19 of 20 steps, and 1.2e-2 at most, where two cross."""
NOTHING: Any = np.zeros(0)
"""In place of a vector that is not followed."""


class TrainingState(NamedTuple):
    """The optimizer between two readings of the sharpness."""

    clock: Clock
    optimizer: Annotated[Any, Earlier(earlier.gradient_descent_state)]
    theta: Array  # (p,)
    eigenvector_history: Annotated[Array, Earlier(names=("bases",))]  # (4, k, p) the top ones at the last four readings
    guards: Annotated[Guards, Earlier(unknown("bases"))]  # of the eigenvectors
    looked: Annotated[int, Earlier(lambda leaves: leaves["clock.step"])]  # step of the last look around
    companions: Annotated[Companions, Earlier(lambda leaves: no_companions(leaves["theta"].size))]  # where every step is watched
    below: int  # 1 when the last reading was below 2/η
    edge_step: int  # of the first reading at or above 2/η after one below; −1 before
    plain_vector: Annotated[Array, Earlier(lambda leaves: np.zeros(0))] = NOTHING  # (p,) of H, where another operator is read
    maximiser: Annotated[Array, Earlier(lambda leaves: np.zeros(0))] = NOTHING  # (p,) where the generalized sharpness was met
    last_loss: Annotated[float, Earlier(lambda leaves: math.nan)] = math.nan  # L before the last step at this η
    flow: Annotated[RmspropFlowState, Earlier(lambda leaves: NO_FLOW)] = NO_FLOW  # the central flow beside


def _tracking(spec: specs.RunSpec) -> specs.SharpnessTracking:
    assert isinstance(spec.tracking, specs.SharpnessTracking)
    return spec.tracking


def build(spec: specs.RunSpec, columns: Sequence[Column] = ()) -> tuple[Training, Array, dict[str, Any]]:
    """The training of a specification whose run records these columns, its initial θ in float64, and facts on its data for the record."""
    part, products, wanted = spec.problem, spec.precision.products, _tracking(spec).sharpness_examples
    if not isinstance(part, specs.Network):
        total, theta, facts = building.build(spec)
        _require_examples(spec, total)
        probe = total.on(jnp.arange(wanted)) if 0 < wanted < total.count else total
        names: tuple[str, ...] = part.readings if isinstance(part, specs.Own) else ()
        recorded = {name: total.readings[name] for name in names}
        return Training(context.setup(spec, total, theta.size, columns), probe, recorded), theta, facts
    require_x64()
    network = building.learning(part, spec.seed)
    building.require_flat(spec, network.shares)
    data, criterion = network.dataset, losses.CRITERIA[part.criterion]
    examples = network.batches(data.inputs, data.targets)
    total = probe = building.specified(network.mean(criterion, examples, len(data.inputs)), spec)
    if 0 < wanted < len(data.inputs):
        first = first_examples(data.targets, wanted, data.classes)
        probe = building.specified(network.mean(criterion, network.batches(data.inputs[first], data.targets[first])), spec)
    readings = {"train.accuracy": network.mean(losses.correct, examples)} if data.classes else {}
    if data.test_inputs is not None and data.test_targets is not None:
        tests = network.batches(data.test_inputs, data.test_targets)
        readings |= {"test.loss": network.mean(criterion, tests), "test.accuracy": network.mean(losses.correct, tests)}
    readings = {name: building.with_products(each, products) for name, each in readings.items()}
    facts = network.facts | building.products_facts(total, network.theta, products)
    return Training(context.setup(spec, total, network.theta.size, columns), probe, readings), network.theta, facts


def _require_examples(spec: specs.RunSpec, problem: Problem) -> None:
    """Raise UserError where there are not as many examples as a batch is to have, or as the sharpness is to be read on."""
    size, count = spec.batch.size, problem.count
    for name, given in (("[batch] size", size), ("[tracking] sharpness_examples", _tracking(spec).sharpness_examples)):
        if given and not count:
            raise UserError(f"{name} = {given}: {problem.label}: its loss is no mean over examples; use 0, or {MEANS}")
        if given > count:
            raise UserError(f"{name} = {given}; {problem.label} has {count} examples, and 0 takes them all")


def first_examples(targets: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Indices of the first `count` examples; where the classes follow one another, the first of each class in turn."""
    flat = targets.reshape(len(targets), -1)[:, 0]
    if not classes or (np.diff(flat) < 0).any():
        return np.arange(count)
    _, starts, sizes = np.unique(flat, return_index=True, return_counts=True)
    rank = np.arange(len(flat)) - np.repeat(starts, sizes)
    return np.sort(np.argsort(rank, kind="stable")[:count])


def begin(training: Training, theta: Array) -> TrainingState:
    """The start of a training at θ."""
    spec = training.setup.spec
    count = min(spec.tracking.eigenvalues, theta.size)
    dtype, size, shares = spec.precision.curvature, theta.size, training.setup.problem.shares
    basis, known = random_start(spec.seed, 0, count, size, dtype, shares), guards.begin(spec.seed, 0, size, dtype, shares)
    rules, begun = training.setup.optimizer, theta.astype(spec.precision.approach)
    optimizer = rules.init(begun, training.setup.problem.unravel, spec.optimizer.learning_rate)
    return TrainingState(
        Clock(0, 0.0), optimizer, begun, jnp.stack([basis] * 4), known, looked=-guards.EVERY, companions=no_companions(size), below=0,
        edge_step=-1, plain_vector=basis[0] if edge_readings.changes_coordinates(rules) else NOTHING,
        maximiser=basis[0] if rules.norm is not None else NOTHING, flow=rmsprop_beside.room(spec, begun, shares),
    )


def advance(training: Training, state: TrainingState, limit: int) -> tuple[TrainingState, Progress]:
    """At most `limit` steps, with the central flow beside where one is followed: then one step."""
    since = training.tracking.central_from
    if not since or state.flow.ended:
        return _advance(training, state, limit)
    if state.clock.step < since:
        return _advance(training, state, min(limit, since - state.clock.step))
    moved, values, events = rmsprop_beside.advance(training.setup, state.flow, state.theta, state.optimizer, state.clock.step)
    state, progress = _advance(training, state._replace(flow=moved), 1)
    for row, (name, value) in itertools.product(progress.rows, values.items()):
        if (place := training.setup.column_index.get(name)) is not None:
            row[place] = row[place] + value if name.startswith("cost.") else value
    return state, progress._replace(events=[*events, *progress.events])


def _advance(training: Training, state: TrainingState, limit: int) -> tuple[TrainingState, Progress]:
    """At most `limit` steps as rows and events, the outcome when they end the run. Between readings many steps are one compiled call,
    and with readings at every step too, where the top eigenvalue alone is read.
    """
    setup, batch = training.setup, training.setup.spec.batch
    # One call takes no more than a step where a step takes many micro-batches: commands wait for its end.
    chunk = DESCENT_CHUNK if passes(setup.problem.data, batch.size or setup.problem.count) == 1 else 1
    limit = min(limit, setup.steps_until_due(state.clock.step))
    begun = state.clock.step > 1 or not edge_readings.changes_coordinates(setup.optimizer)  # P is known from step 1 on, and looked at there
    if watches(training) and begun:
        return _watch(training, state, min(limit, chunk))
    read: dict[str, float] = {}
    if is_due(training, state.clock.step):
        state, read = _read(training, state)
    _join_beside(setup, state, read)
    steps = min(steps_until_due(training, state.clock.step), limit, chunk)
    begin = setup.problem, setup.optimizer, state.theta, state.optimizer
    descent = descend_on_batches(*begin, _batches(setup, state.clock.step, steps), steps) if batch.size else descend(*begin, steps)
    of = "batch" if batch.size else "gd"
    taken = {f"{of}.loss": descent.losses, f"{of}.gradient_norm": descent.gradient_norms} | descent.passed
    passed = {name: np.array(column, float)[:steps] for name, column in taken.items()}
    if batch.size:
        passed["cost.gradients"] = np.full(steps, batch.size / setup.problem.count)
    derived.add(passed, {"cost.hvps": 0} | read, steps)
    state, rows, events, outcome = _rows(training, state, passed, steps)
    if outcome is None:
        clock = state.clock.after(steps, float(state.optimizer.learning_rate))
        state = state._replace(clock=clock, theta=descent.theta, optimizer=descent.optimizer_state)
    return state, Progress(rows, events, outcome)


def is_due(training: Training, step: int) -> bool:
    """Whether there is something to read before this step."""
    return any(every and step % every == 0 for every in _cadences(training))


def steps_until_due(training: Training, step: int) -> int:
    """Steps until there is again."""
    return min(every - step % every for every in _cadences(training) if every)


def _cadences(training: Training) -> tuple[int, ...]:
    return training.tracking.sharpness_every, *batch_readings.cadences(training.setup)


def _batches(setup: Setup, step: int, steps: int) -> np.ndarray:
    """The examples of so many steps, (DESCENT_CHUNK, b), with rows of zeros after them."""
    part = setup.spec.batch
    chosen = batches.indices(setup.spec.batch_seed, step, steps, setup.problem.count, part.size, part.replacement)
    return np.concatenate([chosen, np.zeros((DESCENT_CHUNK - steps, part.size), chosen.dtype)])


def watches(training: Training) -> bool:
    """Whether the sharpness of the training loss, and no other eigenvalue, is read at every step."""
    spec = training.setup.spec
    return (
        training.tracking.sharpness_every == training.tracking.eigenvalues == 1 and training.probe is training.setup.problem
        and spec.optimizer.schedule == "constant" and spec.precision.curvature == spec.precision.approach
        and training.setup.optimizer.norm is None and not spec.batch.size
    )


def means_of(training: Training) -> dict[str, Problem]:
    """What is read at every step beside the sharpness, by its column."""
    return training.readings | ({"norm.squared": Problem(_squared, (), "‖θ‖²")} if _decay(training) else {})


def _decay(training: Training) -> float:
    """λ where the balance of the norm is that of a gradient step on all examples; else 0."""
    spec = training.setup.spec
    return spec.optimizer.weight_decay if edges.is_plain(spec.optimizer) and not spec.batch.size else 0.0


def _watch(training: Training, state: TrainingState, steps: int) -> tuple[TrainingState, Progress]:
    setup, clock = training.setup, state.clock
    spec, decay, threshold = setup.spec, _decay(training), setup.threshold(state.optimizer)
    read: dict[str, float] = {}
    if edge_readings.changes_coordinates(setup.optimizer):
        every = plain_every(training)
        steps = min(steps, every - clock.step % every)
        state, read = _read_plain(training, state)
    _join_beside(setup, state, read)
    fresh = guards.fresh_rows(spec.seed, 0, state.theta.size, spec.precision.curvature, training.probe.shares)[0]
    known = state.companions
    if not known.values.size:
        known = companions.unknown(state.theta.size, spec.precision.curvature, setup.problem.shares)
    watched = sharpness_every_step.descend(
        setup.problem, setup.optimizer, state.theta, state.optimizer, state.eigenvector_history, known, fresh, clock.step,
        steps, reading_tolerance(setup.optimizer), means_of(training),
    )
    passed = {
        "gd.loss": watched.losses, "gd.gradient_norm": watched.gradient_norms, "gd.sharpness": watched.sharpness,
        "gd.eigen_residual": watched.residuals, "cost.hvps": watched.hvps,
    } | watched.readings | watched.passed
    columns = {name: np.array(column, float)[:steps] for name, column in passed.items()}
    derived.add(columns, read, steps)
    if decay:
        columns |= norms(columns["gd.sharpness"], columns["norm.squared"], threshold, decay)
    state, rows, events, outcome = _rows(training, state, columns, steps)
    if outcome is None:
        state = state._replace(
            clock=clock.after(steps, float(state.optimizer.learning_rate)), optimizer=watched.optimizer_state, theta=watched.theta,
            eigenvector_history=watched.eigenvector_history, companions=watched.companions,
        )
    return state, Progress(rows, events, outcome)


def reading_tolerance(optimizer: Optimizer) -> float:
    """Relative residual of the eigenpair that is read at every step of an optimizer."""
    return PRECONDITIONED_TOLERANCE if edge_readings.changes_coordinates(optimizer) else CHECK_TOLERANCE


class _Recorded(NamedTuple):
    """The rows of some steps, what they tell, and the outcome where one of them ends the run."""

    state: TrainingState
    rows: list[np.ndarray]
    events: list[AnyEvent]
    outcome: Outcome | None


def _rows(training: Training, state: TrainingState, columns: dict[str, np.ndarray], steps: int) -> _Recorded:
    """The rows of `steps` steps from columns of what they passed, (steps,) each."""
    setup, rows, clock, events = training.setup, list[np.ndarray](), state.clock, list[AnyEvent]()
    eta, of = float(state.optimizer.learning_rate), "batch" if setup.spec.batch.size else "gd"
    sharpness = columns.get(edges.held_at_edge(setup.spec), np.full(steps, math.nan))
    thresholds = np.asarray(columns.get("threshold", np.full(steps, setup.threshold(state.optimizer))), float)
    columns = edge_readings.named(setup, columns, thresholds)
    if setup.optimizer.norm is not None:
        losses, duals = (np.asarray(columns[name], float) for name in ("gd.loss", "dual_norm"))
        columns["smoothness.directional"] = edge_readings.directional_smoothness(
            losses, duals, state.last_loss, float(state.optimizer.dual_norm), eta, setup.optimizer.norm.dual_scaled
        )
    for k, time in enumerate(clock.times(steps, eta)[:steps]):
        values, threshold = {name: float(column[k]) for name, column in columns.items()}, float(thresholds[k])
        loss, norm = values[f"{of}.loss"], values[f"{of}.gradient_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return _Recorded(state, rows, events, diverged(clock.step + k))
        values |= {"step": clock.step + k, "time": time, "learning_rate": eta, "threshold": threshold}
        values = {"cost.gradients": 1, "cost.grad_sharpness": 0} | values
        if math.isfinite(squared := values.get("norm.squared", math.nan)):
            values |= balance(norm, squared, threshold, setup.spec.optimizer.weight_decay)
        rows.append(setup.row(values))
        state, edge = _seen(setup, state._replace(last_loss=loss), clock.step + k, float(sharpness[k]), threshold)
        events += edge
        outcome = loss_goal(setup.spec, values.get("gd.loss", math.nan), clock.step + k)
        if outcome is not None:
            return _Recorded(state, rows, events, outcome)
    return _Recorded(state, rows, events, None)


def _read(training: Training, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
    """What there is to read at θ; the learning rate follows where the schedule says so."""
    setup, spec, step = training.setup, training.setup.spec, state.clock.step
    values = {name: float(_mean(mean, state.theta)) for name, mean in training.readings.items()}
    if edge_readings.changes_coordinates(setup.optimizer):
        state, plain = _read_plain(training, state)
        values |= plain
    if setup.optimizer.norm is not None:
        state, smooth = _read_smoothness(training, state)
        values |= smooth
    operator = edge_readings.operator(setup.optimizer, state.optimizer, training.probe, spec.precision.curvature)
    if operator is None:
        return state, values
    # At the edge gradient descent alternates: where readings do too, the last but one is nearer.
    start = state.eigenvector_history[-2 if training.tracking.sharpness_every % 2 else -1]
    first = step == 0 or (state.looked < 0 and edge_readings.changes_coordinates(setup.optimizer))
    pairs, known, looked = guards.read(
        operator, state.theta, start, state.guards, state.looked, step, spec.seed, CHECK_TOLERANCE, spec.precision.curvature
    )
    state = state._replace(guards=known, looked=looked)
    sharpness = float(pairs.values[0])
    if spec.optimizer.schedule == "inverse_sharpness" and 0 < sharpness < math.inf:
        state = state._replace(optimizer=state.optimizer._replace(learning_rate=jnp.asarray(1 / sharpness, jnp.float64)))
    hvps = values.get("cost.hvps", 0) + int(pairs.hvps)
    values |= spectrum.values_of(pairs) | {"cost.hvps": hvps}
    if spec.batch.size:
        context.join(values, batch_readings.read(setup, state.theta, pairs.vectors[0], float(state.optimizer.learning_rate), step))
    if _decay(training):
        values |= norms(sharpness, float(state.theta @ state.theta), setup.threshold(state.optimizer), _decay(training))
    history = jnp.stack([pairs.vectors] * 4) if first else push(state.eigenvector_history, pairs.vectors)  # from no random start
    return state._replace(eigenvector_history=history), values


def _join_beside(setup: Setup, state: TrainingState, read: dict[str, float]) -> None:
    """Put to what was read at θ what is read there whichever the phase, where it is due."""
    eta, near = float(state.optimizer.learning_rate), state.eigenvector_history[-1]
    context.join(read, setup.read_at(state.clock.step, eta, state.theta, near))


def plain_every(training: Training) -> int:
    """Steps between readings of λ1(H) where the Hessian is read in other coordinates: a multiple of those between readings there."""
    every = training.tracking.sharpness_every
    return every * -(-edge_readings.PLAIN_EVERY // every)


def _read_plain(training: Training, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
    """λ1(H), where it is due, from the last vector and a random one."""
    spec, step = training.setup.spec, state.clock.step
    if step % plain_every(training):
        return state, {}
    dtype = spec.precision.curvature
    start = jnp.concatenate([state.plain_vector[None], guards.fresh_rows(spec.seed, step, state.theta.size, dtype, training.probe.shares)])
    pairs, _ = solve_at(training.probe, state.theta, start, CHECK_TOLERANCE, dtype, wanted=1, looked=len(start))
    return state._replace(plain_vector=pairs.vectors[0]), {edge_readings.PLAIN: float(pairs.values[0]), "cost.hvps": int(pairs.hvps)}


def _read_smoothness(training: Training, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
    """A lower bound on the generalized sharpness."""
    setup, dtype = training.setup, training.setup.spec.precision.curvature
    fresh = guards.fresh_rows(setup.spec.seed, state.clock.step, state.theta.size, dtype, training.probe.shares)[0]
    value, at = edge_readings.smoothness(
        training.probe, setup.optimizer, state.theta.astype(dtype), state.optimizer, state.maximiser, fresh
    )
    return state._replace(maximiser=at), {"smoothness.generalized": float(value), "cost.hvps": 3 * FRANK_WOLFE}


def _seen(setup: Setup, state: TrainingState, step: int, sharpness: float, threshold: float) -> tuple[TrainingState, list[AnyEvent]]:
    """The state after a reading of the sharpness, and the edge where it is the first above the threshold after one below."""
    if not math.isfinite(sharpness):
        return state, []
    events, section = list[AnyEvent](), setup.spec.optimizer
    if state.below and sharpness >= threshold and state.edge_step < 0:
        which = "batch sharpness" if setup.spec.batch.size else "sharpness"
        text = f"the edge: the {which}, {sharpness:.4g}, is above {edges.formula(section)} = {threshold:.4g} at step {step}"
        events.append(EdgeReached(step=step, text=text, sharpness=float(sharpness)))
        state = state._replace(edge_step=step)
    return state._replace(below=int(sharpness < threshold)), events


def _squared(theta: Array, _: Any) -> Array:
    """‖θ‖²."""
    return theta @ theta


_mean = jax.jit(Problem.loss)


def norms(sharpness: Any, squared: Any, threshold: float, weight_decay: float) -> dict[str, Any]:
    """‖θ‖², S̄, and the ‖θ‖² that would put this S̄ at the edge; NaN where decay alone is beyond it. S is that of T. Scalars or arrays."""
    normalised, room = (sharpness - weight_decay) * squared, threshold - weight_decay
    at_edge = normalised / (room if room > 0 else math.nan)
    return {"norm.squared": squared, "norm.sharpness": normalised, "norm.edge_squared": at_edge}


def balance(gradient_norm: float, squared: float, threshold: float, weight_decay: float) -> dict[str, float]:
    """S̄ from the balance at the edge. ‖∇T‖ is given, and ‖∇L‖² = ‖∇T‖² − λ²‖θ‖² since θ·∇L = 0."""
    room, bare = threshold - weight_decay, gradient_norm**2 - weight_decay**2 * squared
    known = bare > 0 and room > 0
    return {"norm.balance_sharpness": math.sqrt(bare * squared * room / weight_decay) if known else math.nan}


class TrainingPhase(Phase):
    """Training with readings of the sharpness, from the first step to the last."""

    name: ClassVar[str] = "training"
    State: ClassVar[type] = TrainingState

    def __init__(self, training: Training):
        super().__init__(training.setup)
        self.training = training

    def advance(self, state: TrainingState, limit: int) -> Advanced:
        """At most `limit` steps."""
        return Advanced(*advance(self.training, state, limit))

    def refuses_learning_rate(self) -> str:
        """A schedule sets it."""
        if self.setup.spec.optimizer.schedule == "inverse_sharpness":
            return "the learning rate of this run is 1/λ_max at every measurement; run it anew with --set optimizer.schedule=constant"
        return ""

    def set_learning_rate(self, state: TrainingState, learning_rate: float) -> Restart:
        """The same training: what was below or at the last threshold may come to be above the new one, its edge."""
        if learning_rate != self.learning_rate(state):
            state = state._replace(edge_step=-1, below=int(state.below or state.edge_step >= 0))
            state = state._replace(last_loss=math.nan)  # the step to come is judged by the η that it is taken at
        optimizer = state.optimizer._replace(learning_rate=jnp.asarray(learning_rate, jnp.float64))
        return Restart(state._replace(optimizer=optimizer))

    def edge_step(self, state: TrainingState) -> int | None:
        """The step of the first reading at or above the threshold after one below."""
        return state.edge_step if state.edge_step >= 0 else None

    def followed_eigenvectors(self, state: TrainingState) -> Array:
        """Those of the last reading, in the coordinates that it was taken in."""
        rows, optimizer = state.eigenvector_history[-1], self.setup.optimizer
        if watches(self.training) and edge_readings.changes_coordinates(optimizer):
            rows = rows / jnp.sqrt(optimizer.preconditioner(state.optimizer)).astype(rows.dtype)  # between steps they are P^½w
            rows /= jnp.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def identity(self, state: TrainingState) -> Identity:
        """By the functions that the training reads its own sharpness with."""
        setup, theta = self.setup, state.theta
        d = loss_identity.direction(theta.size, setup.spec.precision.curvature, setup.problem.shares)
        if setup.spec.batch.size and self.training.probe is setup.problem:
            return loss_identity.of_gradient(setup, theta, state.eigenvector_history.shape[1])
        if not watches(self.training) or edge_readings.changes_coordinates(setup.optimizer):
            return loss_identity.of_descent(setup, theta, state.optimizer, d, self.training.probe, state.eigenvector_history.shape[1])
        # One step, whose vector is taken for an eigenvector whatever its residual.
        rows = loss_identity.copies(d[None], 4, setup.problem.shares)
        known = companions.unknown(theta.size, d.dtype.name, setup.problem.shares)
        seen = sharpness_every_step.descend(
            setup.problem, setup.optimizer, theta, state.optimizer, rows, known, rows[0, 0], 1, 1, math.inf, means_of(self.training)
        )
        along, left = (float(np.asarray(each)[0]) for each in (seen.sharpness, seen.residuals))
        return loss_identity.numbers(theta, seen.losses, seen.gradient_norms, (along, math.hypot(along, along * left)), d)
