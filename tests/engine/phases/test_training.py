"""Training with readings of the sharpness: what is read and when, the learning rate that follows it, weight decay, raises."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import data
from engine import spec as specs
from engine.base.errors import UserError
from engine.curvature import eigensolver
from engine.phases import training
from engine.phases.experiment import Experiment
from engine.problems import build as building
from engine.problems.build import Learning, build, network
from engine.problems.losses import mse
from engine.problems.problem import Problem
from engine.record import columns, messages

from small import chebyshev_spec, dense_hessian, digits_spec, gradient_at, hvp_at, loss_at, rows, toy_spec

pytestmark = pytest.mark.usefixtures("x64")

ETA, DECAY = 0.05, 0.3


@pytest.fixture(autouse=True, scope="module")
def dense():
    """Eigenvalues from the dense Hessian: exact, and sooner compiled. The same network is begun once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eigensolver, "DENSE_UP_TO", 256)
        patch.setattr(building, "learning", cache(building.learning))
        jax.clear_caches()  # the same problem may be compiled already with the solver that it has else
        yield
    jax.clear_caches()


FOLLOWING = "optimizer.schedule=inverse_sharpness"
INVARIANT = ("problem.model.normalized=true", f"optimizer.weight_decay={DECAY}", "tracking.sharpness_every=1")


@cache
def experiment_of(*overrides: str) -> Experiment:
    """One experiment for all tests of these overrides: its functions are compiled once. `afresh` starts it."""
    return Experiment(digits_spec(*overrides))


def afresh(*overrides: str) -> Experiment:
    """The experiment at its start."""
    experiment = experiment_of(*overrides)
    experiment.state, experiment.raised = training.begin(experiment.phases["training"].training, plain()[0].theta), 0
    return experiment


@cache
def plain() -> tuple[Learning, Problem]:
    """The network and its training loss, without decay."""
    network = building.learning(digits_spec().problem, 0)
    return network, network.mean(mse, network.batches(network.dataset.inputs, network.dataset.targets))


@cache
def invariant() -> tuple[dict[str, np.ndarray], Problem, list[np.ndarray]]:
    """The record of a scale-invariant network with weight decay, its loss without decay, and θ before each step."""
    spec = digits_spec(*INVARIANT)
    record = rows(Experiment(spec), 12)
    loss, theta, _ = network(spec.problem, 0)
    return record, loss, path_of(loss, theta, DECAY)


def path_of(loss: Problem, theta: jax.Array, decay: float = 0.0) -> list[np.ndarray]:
    """θ before each of the first steps of gradient descent, written out."""
    gradient, path = jax.jit(loss.gradient), []
    for _ in range(10):
        path.append(np.asarray(theta))
        theta = theta - ETA * (gradient(theta) + decay * theta)
    return path


def top(loss: Problem, theta) -> np.ndarray:
    return np.linalg.eigvalsh(dense_hessian(loss, jnp.asarray(theta)))[::-1]


def test_every_reading_is_that_of_gradient_descent_at_its_step():
    record = rows(afresh(), 10)
    network, loss = plain()
    path, dataset = path_of(loss, network.theta), network.dataset
    read = np.isfinite(record["gd.sharpness"])
    np.testing.assert_array_equal(np.flatnonzero(read), [0, 4, 8])
    for name in ("gd.lambda2", "train.accuracy", "test.loss", "test.accuracy"):
        np.testing.assert_array_equal(np.isfinite(record[name]), read)
    np.testing.assert_allclose(record["gd.loss"], [loss_at(loss, theta) for theta in path], rtol=1e-12)
    for step in (0, 4, 8):
        theta = jnp.asarray(path[step])
        values = top(loss, theta)
        assert record["gd.sharpness"][step] == pytest.approx(values[0], rel=1e-10)
        assert record["gd.lambda2"][step] == pytest.approx(values[1], rel=1e-10)
        for name, inputs, targets in (("train", dataset.inputs, dataset.targets), ("test", dataset.test_inputs, dataset.test_targets)):
            outputs = np.asarray(network.outputs(theta, inputs))
            assert record[f"{name}.accuracy"][step] == pytest.approx(np.mean(np.sign(outputs) == targets))
        assert record["test.loss"][step] == pytest.approx(np.mean((outputs - targets) ** 2))


def test_a_run_records_what_it_says_and_nothing_else():
    spec = digits_spec(*INVARIANT)
    record = invariant()[0]
    assert list(record) == [column.name for column in columns.columns_for(spec)]
    assert [name for name, values in record.items() if np.isnan(values).any()] == ["cost.seconds"]
    assert not any(name.startswith(("constrained", "flow", "generalized")) for name in record)
    regression = specs.with_overrides(chebyshev_spec(), ["tracking.mode=sharpness"])
    assert not any("accuracy" in column.name or "norm" in column.name.split(".")[0] for column in columns.columns_for(regression))


def test_what_a_training_reads_has_its_plots():
    from eos_tui.draw.panels import line_plots

    shown = line_plots(columns.columns_for(digits_spec(*INVARIANT)), ("generalized",))
    assert [plot.id for plot in shown] == ["sharpness", "loss", "accuracy", "norm", "normalised"]
    assert [curve.column for curve in shown[1].curves] == ["gd.loss", "test.loss"]


@pytest.mark.parametrize("part", [
    specs.Data(name="digits", examples=40, classes=(3, 8)), specs.Data(name="digits", examples=40),
])
def test_the_first_examples_are_the_first_of_each_class_in_turn(part):
    targets, classes = data.load(part).targets, len(part.classes) or 10
    chosen = training.first_examples(targets, 20, classes)
    assert len(set(chosen)) == 20
    for label in np.unique(targets):
        np.testing.assert_array_equal(chosen[targets.ravel()[chosen] == label], np.flatnonzero(targets.ravel() == label)[: 20 // classes])


def test_the_first_examples_of_mixed_classes_and_of_a_regression_are_the_first():
    np.testing.assert_array_equal(training.first_examples(np.array([0, 1, 0, 1]), 3, 2), [0, 1, 2])
    np.testing.assert_array_equal(training.first_examples(np.array([[0.1], [0.2], [0.3]]), 2, 0), [0, 1])


def test_the_sharpness_is_read_on_the_first_examples_and_the_gradient_on_all():
    record = rows(Experiment(digits_spec("tracking.sharpness_examples=8")), 1)
    (network, whole), chosen = plain(), [0, 1, 2, 3, 12, 13, 14, 15]
    theta = network.theta
    probe = network.mean(mse, network.batches(network.dataset.inputs[chosen], network.dataset.targets[chosen]))
    assert record["gd.sharpness"][0] == pytest.approx(top(probe, theta)[0], rel=1e-5)
    assert record["gd.gradient_norm"][0] == pytest.approx(float(jnp.linalg.norm(gradient_at(whole, theta))), rel=1e-12)
    assert abs(top(whole, theta)[0] / top(probe, theta)[0] - 1) > 1e-3


def test_micro_batches_train_as_the_full_batch_to_rounding():
    whole = rows(afresh(), 9)
    batched = rows(Experiment(digits_spec("problem.micro_batch=7")), 9)  # 24 = 3·7 + 3: the last is filled up
    for name in ("gd.loss", "gd.gradient_norm", "train.accuracy", "test.loss", "test.accuracy"):
        np.testing.assert_allclose(batched[name], whole[name], rtol=1e-11)
    np.testing.assert_allclose(batched["gd.sharpness"], whole["gd.sharpness"], rtol=1e-8)


def test_the_learning_rate_is_one_over_the_sharpness_from_each_reading_on():
    record = rows(afresh(FOLLOWING), 11)
    expected = np.repeat(1 / record["gd.sharpness"][::4], 4)[:11]
    np.testing.assert_array_equal(record["learning_rate"], expected)
    np.testing.assert_allclose(record["time"], np.concatenate([[0], np.cumsum(expected)[:-1]]), rtol=1e-14)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_record_does_not_depend_on_where_it_is_cut_or_resumed(limit):
    whole = rows(afresh(FOLLOWING), 14)
    experiment, record = afresh(FOLLOWING), []
    while experiment.clock.step < 6:
        record += experiment.advance(min(limit, 6 - experiment.clock.step)).rows
    kept = {name: np.array(leaf) for name, leaf in experiment.leaves().items()}
    experiment = afresh(FOLLOWING)
    experiment.restore(kept)
    while experiment.clock.step < 14:
        record += experiment.advance(min(limit, 14 - experiment.clock.step)).rows
    for name, column in zip(whole, np.transpose(record), strict=True):
        np.testing.assert_array_equal(column, whole[name], err_msg=name)


def test_the_edge_is_announced_once_where_a_reading_first_passes_the_threshold():
    experiment, events = afresh(), []
    sharpness = afresh().advance(1).rows[0][experiment.setup.column_index["gd.sharpness"]]
    experiment.state = training.begin(experiment.phases["training"].training, plain()[0].theta)
    for _ in range(4):
        events += experiment.advance(4).events
        experiment.set_learning_rate(messages.SetLearningRate(learning_rate=float(4 / sharpness)))  # S near 2 × 2/η
    [event] = [event for event in events if isinstance(event, messages.EdgeReached)]
    assert event.step == experiment.edge_step == 4
    assert event.sharpness >= sharpness / 2
    assert experiment.budget_outcome().kind == "completed"


def test_a_start_beyond_the_threshold_is_no_edge():
    spec = specs.with_overrides(toy_spec(0.01), ["tracking.mode=sharpness", "tracking.sharpness_every=1"])
    experiment = Experiment(spec)
    assert experiment.advance(1).events == []  # the toy starts at 2/η exactly
    assert experiment.edge_step is None


def test_a_diverging_training_keeps_every_row_up_to_there():
    experiment = Experiment(specs.with_overrides(toy_spec(0.01, x0=300.0), ["tracking.mode=sharpness"]))
    record, outcome = [], None
    while outcome is None:
        progress = experiment.advance(1000)
        record += progress.rows
        outcome = progress.outcome
    assert outcome.kind == "diverged"
    assert outcome.step == len(record) > 1
    assert np.isfinite([row[experiment.setup.column_index["gd.loss"]] for row in record]).all()


def test_a_training_ends_at_its_loss_goal():
    experiment, outcome = Experiment(specs.with_overrides(toy_spec(0.01), ["tracking.mode=sharpness", "budget.loss_goal=1e-6"])), None
    while outcome is None:
        progress = experiment.advance(1000)
        outcome, last = progress.outcome, progress.rows[-1]
    assert outcome.kind == "loss_goal"
    assert last[experiment.setup.column_index["gd.loss"]] < 1e-6
    assert last[0] == outcome.step


def test_a_change_of_the_learning_rate_takes_effect_at_once_unless_it_follows_the_sharpness():
    experiment = afresh()
    experiment.advance(2)
    [event] = experiment.set_learning_rate(messages.SetLearningRate(learning_rate=0.01, id="ab"))
    assert (event.step, event.answers, event.learning_rate) == (2, "ab", 0.01)
    assert experiment.advance(1).rows[0][2] == 0.01
    following = afresh(FOLLOWING)
    [event] = following.set_learning_rate(messages.SetLearningRate(learning_rate=0.01, id="cd"))
    assert isinstance(event, messages.Refused)
    assert "1/λ_max" in event.text
    assert isinstance(following.anchor(messages.Anchor())[0], messages.Refused)


# -- raises of the learning rate


RAISES = "optimizer.raises=[[3, 0.06], [4, 0.07], [9, 0.02]]"


def test_raises_take_effect_at_their_steps_with_an_event_each():
    experiment, record, events = afresh(RAISES), [], []
    while experiment.clock.step < 12:
        progress = experiment.advance(12 - experiment.clock.step)
        record += progress.rows
        events += progress.events
    np.testing.assert_array_equal([row[2] for row in record], [ETA] * 3 + [0.06] + [0.07] * 5 + [0.02] * 3)
    assert [(event.step, event.learning_rate, event.answers) for event in events] == [(3, 0.06, ""), (4, 0.07, ""), (9, 0.02, "")]


def test_raises_survive_a_resume_and_give_way_to_a_command():
    experiment = afresh(RAISES)
    while experiment.clock.step < 3:
        experiment.advance(3 - experiment.clock.step)
    experiment.advance(1)
    experiment.set_learning_rate(messages.SetLearningRate(learning_rate=0.011))
    kept, resumed = {name: np.array(leaf) for name, leaf in experiment.leaves().items()}, afresh(RAISES)
    resumed.restore(kept)
    record = []
    while resumed.clock.step < 10:
        record += resumed.advance(10 - resumed.clock.step).rows
    np.testing.assert_array_equal([row[2] for row in record], [0.07] * 5 + [0.02])


def test_a_raise_restarts_a_coupled_run_on_the_lower_threshold():
    spec = specs.with_overrides(toy_spec(0.01, flow=False), ["optimizer.raises=[[30, 0.0101]]"])
    experiment, record, events = Experiment(spec), [], []
    while experiment.clock.step < 40:
        progress = experiment.advance(40 - experiment.clock.step)
        record += progress.rows
        events += progress.events
    wanted = (messages.EdgeReached, messages.LearningRateChanged)
    changes = [(type(event).__name__, event.step) for event in events if isinstance(event, wanted)]
    assert changes == [("EdgeReached", 0), ("LearningRateChanged", 30), ("EdgeReached", 30)]
    np.testing.assert_array_equal([row[0] for row in record], np.arange(40))
    places = experiment.setup.column_index
    assert record[-1][places["constrained.sharpness"]] == pytest.approx(2 / 0.0101, rel=1e-5)
    assert record[-1][places["gd.spike"]] == pytest.approx(record[-1][places["gd.x"]] ** 2 / 0.0101)


# -- weight decay


def test_weight_decay_adds_its_square_its_slope_and_its_curvature():
    bare, theta, _ = build(toy_spec())
    decayed, _, _ = build(specs.with_overrides(toy_spec(), [f"optimizer.weight_decay={DECAY}"]))
    theta, v = theta + 0.3, jnp.array([0.2, -0.5, 1.1])
    np.testing.assert_allclose(loss_at(decayed, theta), loss_at(bare, theta) + DECAY / 2 * theta @ theta, rtol=1e-14)
    np.testing.assert_allclose(gradient_at(decayed, theta), gradient_at(bare, theta) + DECAY * theta, atol=1e-13)
    np.testing.assert_allclose(hvp_at(decayed, theta, v), hvp_at(bare, theta, v) + DECAY * v, atol=1e-12)
    assert building.decayed(bare, 0.0) is bare


def test_the_squared_norm_of_a_scale_invariant_network_keeps_its_balance_to_the_step():
    """‖θ_{t+1}‖² = (1−ηλ)²‖θ_t‖² + η²‖∇L‖², with ‖∇L‖² = ‖∇T‖² − λ²‖θ‖²."""
    record, _, _ = invariant()
    squared, bare = record["norm.squared"], record["gd.gradient_norm"] ** 2 - DECAY**2 * record["norm.squared"]
    np.testing.assert_allclose(squared[1:], (1 - ETA * DECAY) ** 2 * squared[:-1] + ETA**2 * bare[:-1], rtol=1e-12)


def test_the_normalised_sharpness_is_that_of_the_loss_on_the_unit_sphere():
    record, loss, path = invariant()
    for step in (0, 9):
        theta = path[step]
        assert record["norm.squared"][step] == pytest.approx(theta @ theta, rel=1e-12)
        assert record["norm.sharpness"][step] == pytest.approx(top(loss, theta / np.linalg.norm(theta))[0], rel=1e-5)


def test_at_the_edge_the_squared_norm_is_the_predicted_one():
    sharpness = 2 / ETA  # of T = L + (λ/2)‖θ‖²
    assert training.norms(sharpness, 7.0, 2 / ETA, DECAY)["norm.edge_squared"] == pytest.approx(7.0)
    above = training.norms(1.1 * sharpness, 7.0, 2 / ETA, DECAY)["norm.edge_squared"]
    assert above > 7.0  # too sharp: ‖θ‖² has to grow
    assert np.isnan(training.norms(1.0, 7.0, 0.2, 0.3)["norm.edge_squared"])  # 2/η < λ


def test_in_balance_at_the_edge_the_gradient_predicts_the_normalised_sharpness():
    """Both conditions at once: S_L = 2/η − λ and ‖∇L‖² = λ(2/η − λ)‖θ‖²."""
    squared, room = 7.0, 2 / ETA - DECAY
    bare = DECAY * room * squared
    total = np.sqrt(bare + DECAY**2 * squared)
    assert (1 - ETA * DECAY) ** 2 * squared + ETA**2 * bare == pytest.approx(squared, rel=1e-14)
    assert training.balance(total, squared, 2 / ETA, DECAY)["norm.balance_sharpness"] == pytest.approx(room * squared, rel=1e-12)
    assert np.isnan(training.balance(0.0, squared, 2 / ETA, DECAY)["norm.balance_sharpness"])


# -- refusals


@pytest.mark.parametrize(("overrides", "sentence"), [
    (["tracking.sharpness_examples=30"], "[tracking] sharpness_examples = 30; [problem.data] has 24 examples, and 0 takes them all"),
    (["tracking.mode=coupled", "optimizer.schedule=inverse_sharpness"],
     '[optimizer] schedule = "inverse_sharpness" needs [tracking] mode = "sharpness"'),
    (["optimizer.schedule=inverse_sharpness", "optimizer.raises=[[3, 0.1]]"],
     '[optimizer] raises = …; with schedule = "inverse_sharpness" the learning rate is 1/λ_max, so use []'),
    (["optimizer.raises=[[3, 0.1], [3, 0.2]]"], "[optimizer] raises at steps [3, 3]; expected each later than the one before"),
    (["optimizer.raises=[[3]]"], "[optimizer] raises[0] = [3]; expected `array` of length 2, got 1"),
    (["optimizer.raises=[[3, 0]]"], "[optimizer] raises[0][1] = 0; expected `float` > 0.0"),
    (["problem.model.normalized=true", "problem.model.widths=[3, 1]"],
     "[problem.model] normalized = true needs widths of 2 or more: one number has no spread"),
    (["problem.model={kind='resnet', groups=16, widths=[16, 24]}"],
     "[problem.model] groups = 16 do not divide the 24 channels of widths[1]"),
])
def test_settings_that_cannot_go_together_are_refused(overrides, sentence):
    with pytest.raises(UserError) as caught:
        digits_spec(*overrides)
    assert str(caught.value) == f"digits with --set: {sentence}"


@pytest.mark.parametrize("override", ["tracking.mode=sharpness", "optimizer.raises=[[3, 0.1]]", "optimizer.weight_decay=0.1"])
def test_a_phase_portrait_trains_nothing(override):
    with pytest.raises(UserError, match="needs a training problem; a phase portrait has none"):
        specs.load_spec("phase", [override])


WATCHED = ("tracking.sharpness_every=1", "tracking.eigenvalues=1")


@pytest.mark.parametrize("overrides", [
    (), pytest.param(("problem.model.normalized=true", f"optimizer.weight_decay={DECAY}"), marks=pytest.mark.slow),
])  # fmt: skip
def test_watching_the_sharpness_of_every_step_reads_what_separate_readings_do(overrides):
    """Eigenvalues to the square of the residual that is asked for; what θ passes, to rounding."""
    watched, read = (Experiment(digits_spec(*overrides, "tracking.sharpness_every=1", f"tracking.eigenvalues={k}")) for k in (1, 2))
    assert training.watches(watched.phases["training"].training)
    assert not training.watches(read.phases["training"].training)
    one, two = rows(watched, 60), rows(read, 60)
    for name, column in one.items():
        if name in ("gd.eigen_residual", "cost.hvps"):
            continue
        np.testing.assert_allclose(column, two[name], rtol=1e-4 if "sharpness" in name or "edge" in name else 1e-9, err_msg=name)
    assert np.max(one["gd.eigen_residual"]) <= 1e-3
    if not overrides:
        assert np.median(one["cost.hvps"][30:]) == 1


def test_a_watched_run_does_not_depend_on_how_it_is_cut():
    whole, pieces = afresh(*WATCHED), Experiment(digits_spec(*WATCHED))
    records = [experiment.advance(limit).rows for experiment, limit in ((whole, 21), (pieces, 7), (pieces, 1), (pieces, 13))]
    np.testing.assert_array_equal(np.array(records[0]), np.concatenate(records[1:]))
    np.testing.assert_array_equal(whole.state.theta, pieces.state.theta)
