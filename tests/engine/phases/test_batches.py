"""Steps on batches: which examples they take, what is read of them, and that a run goes on from any step to the bit."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine import spec as specs
from engine import theory
from engine.base.errors import UserError
from engine.curvature.expansion import grad_sharpness
from engine.phases import batch_readings, context, training
from engine.phases.batch_readings import batch_sharpness, estimated, noise_interaction
from engine.phases.experiment import Experiment
from engine.problems import batches
from engine.problems.build import build
from engine.record.columns import columns_for
from engine.record.messages import SetLearningRate

from small import dense_hessian, digits_spec, gradient_at, loss_at, rows

pytestmark = pytest.mark.usefixtures("x64")


def batched(*overrides: str) -> specs.RunSpec:
    """The network of `digits_spec` on batches of 4 of its 24 examples."""
    return digits_spec("batch.size=4", "batch.sharpness_every=8", "batch.gni_every=12", "batch.samples=50", *overrides)


@cache
def begun(*overrides: str) -> Experiment:
    """One experiment for all tests of these overrides: its functions are compiled once."""
    return Experiment(batched(*overrides))


def afresh(*overrides: str) -> Experiment:
    """The experiment at its start."""
    experiment = begun(*overrides)
    _, theta, _ = build(experiment.spec)
    experiment.state, experiment.raised = training.begin(experiment.phases["training"].training, theta), 0
    return experiment


# -- which examples


def test_a_shuffle_is_gone_through_before_the_next_one_begins():
    taken = batches.indices(3, 0, 6, 13, 4)
    assert taken.shape == (6, 4)
    for shuffle in (taken[:3], taken[3:]):  # 13 examples make three batches of 4, and one sits it out
        assert len(set(shuffle.ravel().tolist())) == 12
    assert set(taken[:3].ravel().tolist()) != set(taken[3:].ravel().tolist())


@pytest.mark.parametrize("replacement", [False, True])
def test_the_examples_of_a_step_hang_on_seed_and_step_alone(replacement):
    at_once = batches.indices(3, 0, 40, 24, 5, replacement)
    parts = [batches.indices(3, first, 8, 24, 5, replacement) for first in range(0, 40, 8)]  # whose ends fall within a shuffle
    np.testing.assert_array_equal(np.concatenate(parts), at_once)
    assert not np.array_equal(at_once[:1], batches.indices(4, 0, 1, 24, 5, replacement))
    assert any(len(set(row)) < 5 for row in at_once.tolist()) is replacement


def test_readings_draw_batches_of_their_own_each_time_the_same():
    once, again = (batches.Drawn(3, 7, 24, 5) for _ in range(2))
    np.testing.assert_array_equal(np.concatenate([once.next(4), once.next(4)]), again.next(8))
    assert not np.array_equal(batches.Drawn(3, 7, 24, 5).next(1), batches.indices(3, 7, 1, 24, 5))


def test_every_step_is_that_of_its_batch():
    experiment = afresh()
    record = rows(experiment, 10)
    problem, theta, _ = build(experiment.spec)
    gradient = jax.jit(lambda theta, chosen: jax.value_and_grad(problem.on(chosen).loss)(theta))
    for step, chosen in enumerate(batches.indices(0, 0, 10, 24, 4)):
        loss, grad = gradient(theta, chosen)
        assert record["batch.loss"][step] == pytest.approx(float(loss), rel=1e-12)
        assert record["batch.gradient_norm"][step] == pytest.approx(float(jnp.linalg.norm(grad)), rel=1e-12)
        if step % 4 == 0:
            assert record["gd.loss"][step] == pytest.approx(float(loss_at(problem, theta)), rel=1e-12)
        theta = theta - 0.05 * grad
    np.testing.assert_allclose(experiment.state.theta, theta, rtol=0, atol=1e-14)
    read = {name: np.flatnonzero(np.isfinite(record[name])).tolist() for name in ("gd.loss", "batch.sharpness", "batch.gni")}
    assert read == {"gd.loss": [0, 4, 8], "batch.sharpness": [0, 8], "batch.gni": [0]}


@pytest.mark.parametrize("overrides", [(), ("batch.replacement=true", "batch.seed=5"), ("optimizer.kind=momentum",)])
def test_a_run_goes_on_from_the_middle_of_a_shuffle_to_the_bit(overrides):
    """Six steps make a shuffle here; the run is left after nine, between two readings."""
    whole = rows(afresh(*overrides), 26)
    experiment = afresh(*overrides)
    rows(experiment, 9)
    kept = experiment.leaves()
    rows(experiment, 14)  # elsewhere by now
    experiment.restore(kept)
    resumed = rows(experiment, 26)
    for name, values in whole.items():
        if name != "cost.seconds":
            np.testing.assert_array_equal(resumed[name], values[9:], err_msg=name)


def test_a_batch_of_all_examples_is_gradient_descent_to_rounding():
    full, all_of_them = rows(Experiment(digits_spec()), 20), rows(Experiment(digits_spec("batch.size=24", "batch.samples=50")), 20)
    np.testing.assert_allclose(all_of_them["batch.loss"], full["gd.loss"], rtol=1e-12)
    np.testing.assert_allclose(all_of_them["gd.sharpness"], full["gd.sharpness"], rtol=1e-9)  # NaN where the other one is
    assert all_of_them["batch.samples"][0] == 50
    assert all_of_them["batch.sharpness_error"][0] < 1e-12 * all_of_them["batch.sharpness"][0]
    assert all_of_them["batch.gni"][0] == pytest.approx(all_of_them["batch.sharpness"][0], rel=1e-12)  # of one batch they are the same


def test_momentum_on_batches_is_that_of_its_batches_gradients():
    experiment = afresh("optimizer.kind=momentum")
    rows(experiment, 6)
    problem, theta, _ = build(experiment.spec)
    gradient, velocity = jax.jit(lambda theta, chosen: problem.on(chosen).gradient(theta)), 0.0
    for chosen in batches.indices(0, 0, 6, 24, 4):
        velocity = 0.9 * velocity + gradient(theta, chosen)
        theta = theta - 0.05 * velocity
    np.testing.assert_allclose(experiment.state.theta, theta, rtol=0, atol=1e-14)


# -- what is read


def linear(inputs: np.ndarray, targets: np.ndarray) -> engine.Problem:
    """½·mean (x·θ − y)² of a module without bias, whose θ is its kernel."""
    from flax import nnx

    module = nnx.Linear(inputs.shape[1], 1, use_bias=False, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    return engine.from_flax(module, inputs, targets[:, None], "half_mse").problem


def setup_of(problem: engine.Problem, size: int, *overrides: str) -> context.Setup:
    """What readings on batches of so many examples of a problem need."""
    return context.setup(batched(f"batch.size={size}", *overrides), problem, 0)


@cache
def regression() -> tuple[engine.Problem, np.ndarray, np.ndarray, np.ndarray]:
    """Seven examples of three numbers each, with its θ, the gradient of each example and all of its batches of three."""
    from itertools import combinations

    rng = np.random.default_rng(0)
    inputs, targets, theta = rng.normal(size=(7, 3)), rng.normal(size=7), rng.normal(size=3)
    return linear(inputs, targets), theta, inputs * (inputs @ theta - targets)[:, None], np.array(list(combinations(range(7), 3)))


def test_both_means_are_those_over_all_batches():
    """Of 35 batches, by dense matrices: within four standard errors of the mean over all of them, which are what they say."""
    problem, theta, each, every = regression()
    inputs = np.asarray(problem.data[0])
    setup, u = setup_of(problem, 3, "batch.samples=2000", "batch.tolerance=1e-9"), jnp.asarray([1.0, 0.0, 0.0])
    grads = each[every].mean(axis=1)
    own = np.array([inputs[chosen].T @ inputs[chosen] / 3 for chosen in every])
    quotients = np.einsum("ki,kij,kj->k", grads, own, grads) / np.sum(grads**2, axis=1)
    read, noise = batch_sharpness(setup, jnp.asarray(theta), u, 0)
    assert read.samples == 2000
    assert read.error == pytest.approx(quotients.std() / math.sqrt(2000), rel=0.1)
    assert abs(read.mean - quotients.mean()) < 4 * read.error
    assert noise == pytest.approx(grads[:, 0].var(), rel=0.1)
    square = float(np.sum(each.mean(axis=0) ** 2))
    products = np.einsum("ki,ij,kj->k", grads, inputs.T @ inputs / 7, grads) / square
    interaction = noise_interaction(setup, jnp.asarray(theta), math.sqrt(square), 0)
    assert interaction.samples == 500
    assert abs(interaction.mean - products.mean()) < 4 * interaction.error
    assert interaction.error == pytest.approx(products.std() / math.sqrt(500), rel=0.15)


def test_samples_are_drawn_until_the_error_is_small_enough():
    rng = np.random.default_rng(1)
    read = estimated(lambda: 1 + 0.1 * rng.normal(size=50), 1000, 0.005)
    assert 300 < read.samples < 1000  # (0.1/0.005)² = 400
    assert read.error <= 0.005 * read.mean
    assert estimated(lambda: np.ones(50), 1000, 0.005) == (1.0, 0.0, 50)
    assert math.isnan(estimated(lambda: np.full(50, np.nan), 1000, 0.005).mean)


def test_on_a_convex_quadratic_the_interaction_is_at_two_over_eta_and_the_batch_sharpness_far_below():
    """½λ_j(θ_j − y_j)² for examples y, with ηλ/2 near 0.10: once SGD falls no more GNI·η/2 is 1, and S_B·η/2 is 0.101. No edge is near.

    Over 60 readings while it stays there: the mean of g·Hg over that of ‖∇L‖² is 2/η exactly where the loss is as large after as before.
    """
    from flax import nnx

    eta, count, size, rng = 0.2, 64, 4, np.random.default_rng(0)
    curvatures, wanted = np.linspace(0.9, 1.1, 200), rng.normal(size=(count, 200))
    module = nnx.Linear(1, 200, use_bias=False, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    problem, theta = engine.from_flax(
        module, np.ones((count, 1)), wanted, lambda outputs, targets: jnp.sum(curvatures * (outputs - targets) ** 2, axis=1) / 2
    )
    setup, u = setup_of(problem, size, "batch.replacement=true", "batch.samples=200"), jnp.eye(200)[0]
    chosen = batches.indices(1, 0, 1300, count, size, replacement=True)

    @jax.jit
    def path(theta):
        return jax.lax.scan(lambda theta, each: (theta - eta * problem.on(each).gradient(theta), theta), theta, chosen)[1]

    products, squares = [], []
    for step, at in list(enumerate(path(theta)))[100::20]:  # 20 steps shrink what was by (1 − 0.2)²⁰ = 0.01
        square = float(jnp.sum(gradient_at(problem, at) ** 2))
        products.append(noise_interaction(setup, at, math.sqrt(square), step).mean * square)
        squares.append(square)
    assert np.mean(products) / np.mean(squares) * eta / 2 == pytest.approx(0.998, abs=0.01)
    sharpness, _ = batch_sharpness(setup, at, u, 0)
    assert sharpness.mean * eta / 2 == pytest.approx(0.101, abs=0.0005)
    assert sharpness.error * eta / 2 < 0.0002


# -- the gap


def test_the_gap_is_the_first_order_of_what_the_balance_of_noise_and_curvature_says():
    """x ← (1 − ηS)x − ηξ keeps E x²·S(2/η − S) = σ²; with E x² = 2α/β held, S = (1 + √(1 − η²βσ²/(2α)))/η."""
    eta, alpha, beta = 0.1, 2.0, 3.0
    for noise in (1e-3, 1e-4):
        exact = 2 / eta - (1 + math.sqrt(1 - eta**2 * beta * noise / (2 * alpha))) / eta
        assert theory.sharpness_gap(eta, alpha, beta, noise) == pytest.approx(exact, rel=noise)
    assert math.isnan(theory.sharpness_gap(eta, -1.0, beta, 1e-3))


def test_the_gap_is_read_off_the_derivatives_at_the_iterate():
    problem, theta, _ = build(batched())
    setup = setup_of(problem, 4)
    _, vectors = np.linalg.eigh(dense_hessian(problem, theta))
    u, grad = jnp.asarray(vectors[:, -1]), gradient_at(problem, theta)
    dS = np.asarray(grad_sharpness(problem, theta, u, "float64"))
    across = np.eye(theta.size) - np.outer(u, u)
    alpha, beta = -float(across @ grad @ dS), float(np.sum((across @ dS) ** 2))
    expected = theory.sharpness_gap(0.05, alpha, beta, 0.7)
    assert batch_readings.gap(setup, theta, grad, u, 0.05, 0.7) == pytest.approx(expected, rel=1e-9, nan_ok=True)


# -- a run


def test_a_run_on_batches_records_what_it_says():
    spec = batched()
    record = rows(afresh(), 13)
    assert list(record) == [column.name for column in columns_for(spec)]
    assert [name for name, values in record.items() if np.isnan(values).all()] == ["cost.seconds"]
    np.testing.assert_allclose(record["threshold_ratio"], record["batch.sharpness"] * 0.05 / 2)
    momentum = [column.name for column in columns_for(batched("optimizer.kind=momentum"))]
    assert "batch.sharpness" in momentum
    assert not {"threshold_ratio", "batch.gap"} & {*momentum}  # what edge they have hangs on the size of the batches
    assert record["cost.gradients"][1] == pytest.approx(4 / 24)
    assert record["cost.hvps"][8] >= 50 * 4 / 24


def test_the_edge_is_that_of_the_batch_sharpness():
    experiment = afresh("batch.samples=20")
    below = rows(experiment, 9)["batch.sharpness"][[0, 8]].max()
    experiment.set_learning_rate(SetLearningRate(learning_rate=2 / (2 * below)))
    rows(experiment, 17)
    assert experiment.edge_step is None
    experiment.set_learning_rate(SetLearningRate(learning_rate=2 / (below / 4)))
    events = [event for _ in range(8) for event in experiment.advance(1).events]
    assert experiment.edge_step == 24
    assert events[-1].text.startswith("the edge: the batch sharpness, ")


@pytest.mark.slow
def test_sgd_brings_the_batch_sharpness_to_two_over_eta_and_the_sharpness_stays_below():
    """Only a run of thousands of steps shows it: half a minute."""
    record = rows(Experiment(specs.load_spec("sgd")), 3840)
    half = slice(1920, None)
    assert np.nanmedian(record["threshold_ratio"][half]) == pytest.approx(1, abs=0.05)
    assert np.nanstd(record["threshold_ratio"][half]) < 0.06
    assert np.nanmax(record["gd.sharpness"][half]) < 0.8 * record["threshold"][-1]


@pytest.mark.parametrize(("overrides", "sentence"), [
    (("batch.size=25",), "[batch] size = 25; [problem.data] has 24 examples, and 0 takes them all"),
    (("optimizer.kind=adam",), '[batch] size = 4: not with [optimizer] kind = "adam": what its batches have to be read against is known '
     "for gradient descent and momentum alone; use 0, or one of these"),
    (("tracking.mode=coupled",), '[batch] size = 4 needs [tracking] mode = "sharpness": θ†, its predictions and its flows are those of '
     "steps on all examples"),
])  # fmt: skip
def test_what_takes_no_batches_is_refused_by_name(overrides, sentence):
    with pytest.raises(UserError) as caught:
        batched(*overrides)
    assert str(caught.value).endswith(sentence)


def test_a_loss_that_is_no_mean_over_examples_is_refused_by_name():
    toy = specs.load_spec("toy", ["tracking.mode=sharpness"])
    with pytest.raises(UserError, match=r'\[batch\] size = 4: \[problem\] kind = "toy" has no examples to take a batch of; use 0'):
        specs.with_overrides(toy, ["batch.size=4"])
