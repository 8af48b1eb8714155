"""Training with readings of the sharpness: what is read and when, the learning rate that follows it, weight decay, raises."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from engine import columns, control, data, training
from engine import spec as specs
from engine.errors import UserError
from engine.experiment import Experiment
from engine.problem import build, learning, network

from small import chebyshev_spec, dense_hessian, rows, toy_spec

pytestmark = pytest.mark.usefixtures("x64")

ETA, DECAY = 0.05, 0.3


def digits_spec(*overrides: str) -> specs.RunSpec:
    """A tanh network 64-3-1 tells threes from eights, in float64, with a reading at every fourth step: p = 199."""
    spec = specs.from_tree(
        {
            "name": "digits",
            "problem": {
                "kind": "network", "criterion": "mse", "data": {"name": "digits", "classes": [3, 8], "examples": 24, "test_examples": 10},
                "model": {"kind": "mlp", "widths": [3], "activation": "tanh"},
            },
            "optimizer": {"learning_rate": ETA},
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
            "tracking": {"mode": "sharpness", "sharpness_every": 4},
        },
        "test",
    )
    return specs.with_overrides(spec, overrides)


INVARIANT = ("problem.model.normalized=true", f"optimizer.weight_decay={DECAY}", "tracking.sharpness_every=1")


def thetas(spec: specs.RunSpec, steps: int) -> list[np.ndarray]:
    """θ before each of the first steps of plain gradient descent, written out."""
    problem, theta, _ = build(spec)
    gradient, found = jax.jit(problem.gradient), []
    for _ in range(steps):
        found.append(np.asarray(theta))
        theta = theta - spec.optimizer.learning_rate * gradient(theta)
    return found


def top(problem, theta) -> np.ndarray:
    return np.linalg.eigvalsh(dense_hessian(problem, jnp.asarray(theta)))[::-1]


def test_every_reading_is_that_of_gradient_descent_at_its_step():
    spec = digits_spec()
    record, path = rows(Experiment(spec), 10), thetas(spec, 10)
    problem, _, _ = build(spec)
    found = learning(spec.problem, 0)
    dataset = found.dataset
    read = np.isfinite(record["gd.sharpness"])
    np.testing.assert_array_equal(np.flatnonzero(read), [0, 4, 8])
    for name in ("gd.lambda2", "train.accuracy", "test.loss", "test.accuracy"):
        np.testing.assert_array_equal(np.isfinite(record[name]), read)
    np.testing.assert_allclose(record["gd.loss"], [problem.loss(theta) for theta in path], rtol=1e-12)
    for step in (0, 4, 8):
        theta = jnp.asarray(path[step])
        values = top(problem, theta)
        assert record["gd.sharpness"][step] == pytest.approx(values[0], rel=1e-5)
        assert record["gd.lambda2"][step] == pytest.approx(values[1], rel=1e-2)
        for name, inputs, targets in (("train", dataset.inputs, dataset.targets), ("test", dataset.test_inputs, dataset.test_targets)):
            outputs = np.asarray(found.outputs(theta, inputs))
            assert record[f"{name}.accuracy"][step] == pytest.approx(np.mean(np.sign(outputs) == targets))
        assert record["test.loss"][step] == pytest.approx(np.mean((outputs - targets) ** 2))


def test_a_run_records_what_it_says_and_nothing_else():
    spec = digits_spec(*INVARIANT)
    record = rows(Experiment(spec), 3)
    assert list(record) == [column.name for column in columns.columns_for(spec)]
    assert [name for name, values in record.items() if np.isnan(values).any()] == ["cost.seconds"]
    assert not any(name.startswith(("constrained", "flow", "generalized")) for name in record)
    regression = specs.with_overrides(chebyshev_spec(), ["tracking.mode=sharpness"])
    assert not any("accuracy" in column.name or "norm" in column.name.split(".")[0] for column in columns.columns_for(regression))


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
    spec = digits_spec("tracking.sharpness_examples=8")
    record = rows(Experiment(spec), 1)
    found = learning(spec.problem, 0)
    chosen = [0, 1, 2, 3, 12, 13, 14, 15]
    few = msgspec.structs.replace(spec.problem, data=spec.problem.data)
    from engine.losses import mse

    probe = found.mean(mse, found.batches(found.dataset.inputs[chosen], found.dataset.targets[chosen]))
    whole, theta, _ = network(few, 0)
    assert record["gd.sharpness"][0] == pytest.approx(top(probe, theta)[0], rel=1e-5)
    assert record["gd.gradient_norm"][0] == pytest.approx(float(jnp.linalg.norm(whole.gradient(theta))), rel=1e-12)
    assert abs(top(whole, theta)[0] / top(probe, theta)[0] - 1) > 1e-3


def test_micro_batches_train_as_the_full_batch_to_rounding():
    whole = rows(Experiment(digits_spec()), 9)
    batched = rows(Experiment(digits_spec("problem.micro_batch=7")), 9)  # 24 = 3·7 + 3: the last is filled up
    for name in ("gd.loss", "gd.gradient_norm", "train.accuracy", "test.loss", "test.accuracy"):
        np.testing.assert_allclose(batched[name], whole[name], rtol=1e-11)
    np.testing.assert_allclose(batched["gd.sharpness"], whole["gd.sharpness"], rtol=1e-8)


def test_the_learning_rate_is_one_over_the_sharpness_from_each_reading_on():
    record = rows(Experiment(digits_spec("optimizer.schedule=inverse_sharpness")), 11)
    expected = np.repeat(1 / record["gd.sharpness"][::4], 4)[:11]
    np.testing.assert_array_equal(record["learning_rate"], expected)
    np.testing.assert_allclose(record["time"], np.concatenate([[0], np.cumsum(expected)[:-1]]), rtol=1e-14)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_record_does_not_depend_on_where_it_is_cut_or_resumed(limit):
    spec = digits_spec("optimizer.schedule=inverse_sharpness")
    whole = rows(Experiment(spec), 14)
    first, found = Experiment(spec), []
    while first.clock.step < 6:
        found += first.advance(min(limit, 6 - first.clock.step)).rows
    second = Experiment(spec)
    second.restore({name: np.array(leaf) for name, leaf in first.snapshot().items()})
    while second.clock.step < 14:
        found += second.advance(min(limit, 14 - second.clock.step)).rows
    for name, column in zip(whole, np.transpose(found), strict=True):
        np.testing.assert_array_equal(column, whole[name], err_msg=name)


def test_the_edge_is_told_once_where_a_reading_first_passes_the_threshold():
    spec = specs.with_overrides(chebyshev_spec(0.2), ["tracking.mode=sharpness", "tracking.sharpness_every=20", "budget.edge_steps=100"])
    experiment, events, found = Experiment(spec), [], []
    while experiment.budget_left():
        progress = experiment.advance(experiment.budget_left())
        events += [event for event in progress.events if isinstance(event, control.EdgeReached)]
        found += progress.rows
    assert [event.step for event in events] == [320]  # the step itself is 318
    assert experiment.edge_step == 320
    assert (len(found), experiment.budget_outcome().kind) == (420, "completed")
    assert events[0].sharpness >= 10


def test_a_start_beyond_the_threshold_is_no_edge():
    spec = specs.with_overrides(toy_spec(0.01), ["tracking.mode=sharpness", "tracking.sharpness_every=1"])
    experiment = Experiment(spec)
    assert experiment.advance(1).events == []  # the toy starts at 2/η exactly
    assert experiment.edge_step is None


def test_a_diverging_training_keeps_every_row_up_to_there():
    experiment = Experiment(specs.with_overrides(toy_spec(0.01, x0=300.0), ["tracking.mode=sharpness"]))
    found, outcome = [], None
    while outcome is None:
        progress = experiment.advance(1000)
        found += progress.rows
        outcome = progress.outcome
    assert outcome.kind == "diverged"
    assert outcome.step == len(found) > 1
    assert np.isfinite([row[experiment.setup.places["gd.loss"]] for row in found]).all()


def test_a_training_ends_at_its_loss_goal():
    experiment = Experiment(digits_spec("budget.loss_goal=0.5"))
    outcome = None
    while outcome is None:
        progress = experiment.advance(1000)
        outcome, last = progress.outcome, progress.rows[-1]
    assert outcome.kind == "loss_goal"
    assert last[experiment.setup.places["gd.loss"]] < 0.5
    assert last[0] == outcome.step


def test_a_change_of_the_learning_rate_takes_effect_at_once_unless_it_follows_the_sharpness():
    experiment = Experiment(digits_spec())
    experiment.advance(2)
    [event] = experiment.set_learning_rate(control.SetLearningRate(learning_rate=0.01, id="ab"))
    assert (event.step, event.answers, event.learning_rate) == (2, "ab", 0.01)
    assert experiment.advance(1).rows[0][2] == 0.01
    following = Experiment(digits_spec("optimizer.schedule=inverse_sharpness"))
    [event] = following.set_learning_rate(control.SetLearningRate(learning_rate=0.01, id="cd"))
    assert isinstance(event, control.Refused)
    assert "1/λ_max" in event.text
    assert isinstance(following.anchor(control.Anchor())[0], control.Refused)


# -- raises of the learning rate


RAISES = "optimizer.raises=[[3, 0.06], [4, 0.07], [9, 0.02]]"


def test_raises_take_effect_at_their_steps_with_an_event_each():
    experiment, found, events = Experiment(digits_spec(RAISES)), [], []
    while experiment.clock.step < 12:
        progress = experiment.advance(12 - experiment.clock.step)
        found += progress.rows
        events += progress.events
    np.testing.assert_array_equal([row[2] for row in found], [ETA] * 3 + [0.06] + [0.07] * 5 + [0.02] * 3)
    assert [(event.step, event.learning_rate, event.answers) for event in events] == [(3, 0.06, ""), (4, 0.07, ""), (9, 0.02, "")]


def test_raises_survive_a_resume_and_give_way_to_a_command():
    experiment = Experiment(digits_spec(RAISES))
    while experiment.clock.step < 3:
        experiment.advance(3 - experiment.clock.step)
    experiment.advance(1)
    experiment.set_learning_rate(control.SetLearningRate(learning_rate=0.011))
    resumed = Experiment(digits_spec(RAISES))
    resumed.restore({name: np.array(leaf) for name, leaf in experiment.snapshot().items()})
    found = []
    while resumed.clock.step < 10:
        found += resumed.advance(10 - resumed.clock.step).rows
    np.testing.assert_array_equal([row[2] for row in found], [0.07] * 5 + [0.02])


def test_a_raise_restarts_a_coupled_run_on_the_lower_threshold():
    spec = specs.with_overrides(chebyshev_spec(0.2, flow=False, predictions=[]), ["optimizer.raises=[[330, 0.201]]"])
    experiment, found, events = Experiment(spec), [], []
    while experiment.clock.step < 340:
        progress = experiment.advance(340 - experiment.clock.step)
        found += progress.rows
        events += progress.events
    told = [(type(event).__name__, event.step) for event in events if not isinstance(event, control.StageChanged)]
    assert told == [("EdgeReached", 318), ("LearningRateChanged", 330), ("EdgeReached", 330)]
    np.testing.assert_array_equal([row[0] for row in found], np.arange(340))
    places = experiment.setup.places
    assert found[-1][places["constrained.sharpness"]] == pytest.approx(2 / 0.201, rel=1e-4)
    assert found[-1][places["gd.spike"]] == pytest.approx(found[-1][places["gd.x"]] ** 2 / 0.201)


# -- weight decay


def test_weight_decay_adds_its_square_its_slope_and_its_curvature():
    plain, theta, _ = build(digits_spec())
    decayed, _, _ = build(digits_spec(f"optimizer.weight_decay={DECAY}"))
    v = jnp.asarray(np.random.default_rng(0).normal(size=theta.shape))
    np.testing.assert_allclose(decayed.loss(theta), plain.loss(theta) + DECAY / 2 * theta @ theta, rtol=1e-14)
    np.testing.assert_allclose(decayed.gradient(theta), plain.gradient(theta) + DECAY * theta, atol=1e-14)
    np.testing.assert_allclose(decayed.hvp(theta, v), plain.hvp(theta, v) + DECAY * v, atol=1e-13)


def test_the_squared_norm_of_a_scale_invariant_network_keeps_its_balance_to_the_step():
    """‖θ_{t+1}‖² = (1−ηλ)²‖θ_t‖² + η²‖∇L‖², with ‖∇L‖² = ‖∇T‖² − λ²‖θ‖²."""
    record = rows(Experiment(digits_spec(*INVARIANT)), 12)
    squared, bare = record["norm.squared"], record["gd.gradient_norm"] ** 2 - DECAY**2 * record["norm.squared"]
    np.testing.assert_allclose(squared[1:], (1 - ETA * DECAY) ** 2 * squared[:-1] + ETA**2 * bare[:-1], rtol=1e-12)


def test_the_normalised_sharpness_is_that_of_the_loss_on_the_unit_sphere():
    spec = digits_spec(*INVARIANT)
    record = rows(Experiment(spec), 3)
    plain, _, _ = network(spec.problem, 0)
    for step, theta in enumerate(thetas(spec, 3)):
        assert record["norm.squared"][step] == pytest.approx(theta @ theta, rel=1e-12)
        assert record["norm.sharpness"][step] == pytest.approx(top(plain, theta / np.linalg.norm(theta))[0], rel=1e-5)


def test_at_the_edge_the_squared_norm_is_the_predicted_one():
    sharpness = 2 / ETA  # of T = L + (λ/2)‖θ‖²
    assert training.norms(sharpness, 7.0, ETA, DECAY)["norm.edge_squared"] == pytest.approx(7.0)
    above = training.norms(1.1 * sharpness, 7.0, ETA, DECAY)["norm.edge_squared"]
    assert above > 7.0  # too sharp: ‖θ‖² has to grow
    assert np.isnan(training.norms(1.0, 7.0, 10.0, 0.3)["norm.edge_squared"])  # 2/η < λ


def test_in_balance_at_the_edge_the_gradient_predicts_the_normalised_sharpness():
    """Both conditions at once: S_L = 2/η − λ and ‖∇L‖² = λ(2/η − λ)‖θ‖²."""
    squared, room = 7.0, 2 / ETA - DECAY
    bare = DECAY * room * squared
    total = np.sqrt(bare + DECAY**2 * squared)
    assert (1 - ETA * DECAY) ** 2 * squared + ETA**2 * bare == pytest.approx(squared, rel=1e-14)
    assert training.balance(total, squared, ETA, DECAY)["norm.balance_sharpness"] == pytest.approx(room * squared, rel=1e-12)
    assert np.isnan(training.balance(0.0, squared, ETA, DECAY)["norm.balance_sharpness"])


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
