"""Problems of one's own that are means over examples: however they are cut, weighted and shared out, and what is read beside the loss."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import engine
from engine.base.errors import UserError
from engine.problems.build import build
from engine.spec import from_tree

from places import TESTS
from small import loss_at

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, LABELS, WEIGHTS = RNG.normal(size=(11, 3)), RNG.integers(0, 2, 11), RNG.uniform(0.5, 3, 11)
MODULE = linen.Sequential([linen.Dense(4), jnp.tanh, linen.Dense(2)])


def losses(params, data):
    """−log softmax of a linear model, a number for each example."""
    x, labels = data
    logits = x.astype(params.dtype) @ params
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


def right(params, data):
    return jnp.argmax(data[0] @ params, 1) == data[1]


def of_module(**options):
    return engine.from_flax(MODULE, X, LABELS, "cross_entropy", **options)


def of_losses(**options):
    return engine.from_loss(losses, RNG_PARAMS, (X, LABELS), per_example=True, **options)


RNG_PARAMS = RNG.normal(size=(3, 2))


@jax.jit
def derivatives(problem, theta):
    u = jnp.asarray(np.random.default_rng(1).normal(size=theta.size)) / theta.size**0.5
    return problem.loss(theta), problem.gradient(theta), problem.hvp(theta, u), problem.grad_sharpness(theta, u)


def agree(one, other, theta):
    for a, b in zip(derivatives(one, theta), derivatives(other, theta), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("maker", [of_module, of_losses])
def test_a_mean_is_the_same_in_micro_batches_with_equal_weights(maker):
    (whole, theta), (cut, start) = maker(), maker(micro_batch=4, weights=np.full(11, 7.0))
    np.testing.assert_array_equal(start, theta)
    agree(cut, whole, theta)
    np.testing.assert_allclose(*(loss_at(each.on(jnp.array([3, 1, 7])), theta) for each in (cut, whole)), rtol=1e-12)
    if whole.linearized:
        np.testing.assert_allclose(*(each.linearized(2 * theta, theta, each.data) for each in (cut, whole)), rtol=1e-12)


@pytest.mark.parametrize("maker", [of_module, of_losses])
def test_weights_count_by_their_ratios_and_a_batch_is_the_weighted_mean_on_average(maker):
    weighted, theta = maker(weights=WEIGHTS, micro_batch=4)
    each = np.array([loss_at(maker().problem.on(jnp.array([k])), theta) for k in range(11)])
    np.testing.assert_allclose(loss_at(weighted, theta), WEIGHTS @ each / WEIGHTS.sum(), rtol=1e-12)
    drawn = [loss_at(weighted.on(jnp.array([k])), theta) for k in range(11)]
    np.testing.assert_allclose(np.mean(drawn), loss_at(weighted, theta), rtol=1e-12)


@pytest.mark.parametrize("maker", [of_module, lambda **options: of_losses(correct=right, **options)])
def test_what_is_read_beside_the_loss_are_means_over_the_examples_of_each(maker):
    plain, theta = maker(test=(X[:5] + 1, LABELS[:5]))
    cut, _ = maker(test=(X[:5] + 1, LABELS[:5]), micro_batch=2, weights=WEIGHTS)
    for name, mean in plain.readings.items():
        at, labels = (X, LABELS) if name == "train.accuracy" else (X[:5] + 1, LABELS[:5])
        logits = MODULE.apply({"params": plain.unravel(theta)}, at) if maker is of_module else at @ plain.unravel(theta)
        of_each = -jax.nn.log_softmax(logits)[jnp.arange(len(at)), labels] if "loss" in name else logits.argmax(1) == labels
        wanted = np.mean(np.asarray(of_each, float))
        np.testing.assert_allclose([loss_at(mean, theta), loss_at(cut.readings[name], theta)], [wanted] * 2, rtol=1e-12)
    assert set(plain.readings) == {"train.accuracy", "test.loss", "test.accuracy"}


@pytest.mark.slow  # compiles a training, which other tests do; this one, that it reads a problem of one's own
def test_a_run_reads_test_loss_and_accuracies_and_the_sharpness_on_some_examples():
    made = of_module(test=(X[:5], LABELS[:5]), micro_batch=4)
    record = engine.run(made, learning_rate=0.1, mode="sharpness", steps=3, sharpness_every=1, sharpness_examples=6)
    np.testing.assert_allclose(record["test.loss"][0], loss_at(made.problem.readings["test.loss"], made.theta), rtol=1e-6)
    assert record["train.accuracy"][0] == pytest.approx(float(loss_at(made.problem.readings["train.accuracy"], made.theta)))
    top = np.linalg.eigvalsh(made.problem.on(jnp.arange(6)).hessian(made.theta))[-1]
    np.testing.assert_allclose(record["gd.sharpness"][0], top, rtol=1e-5)


def test_a_preset_names_the_readings_to_record():
    tree = {"kind": "own", "function": "own_problems:tested", "folder": str(TESTS), "readings": ["test.loss"]}
    spec = {"name": "mine", "problem": tree, "optimizer": {"learning_rate": 0.1}, "tracking": {"mode": "sharpness"}}
    facts = build(from_tree(spec, "test"))[2]
    assert facts["readings"] == {"test.loss": True}
    for changed, said in (
        ({"problem": {**tree, "readings": ["test.accuracy"]}}, r'test.accuracy is none of the problem\'s: it has "test.loss"'),
        ({"problem": {**tree, "function": "own_problems:good"}}, "it has none; test= and correct= of its maker give some"),
        ({"tracking": {"mode": "coupled"}}, r'readings = \[.*\] needs \[tracking\] mode = "sharpness"'),
    ):
        with pytest.raises(UserError, match=said):
            build(from_tree(spec | changed, "test"))


class Normed(nnx.Module):
    def __init__(self, dropout=0.0):
        rngs = nnx.Rngs(0)
        self.norm, self.last = nnx.BatchNorm(3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(self.norm(x)))


class NormedLinen(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(1)(linen.Dropout(0.5, deterministic=train)(x))


TRAIN = {"arguments": {"train": True}}


@pytest.mark.parametrize(("module", "options"), [(Normed(), {}), (NormedLinen(), TRAIN)])
def test_batch_norm_takes_the_statistics_of_all_examples_and_a_warning_says_so(module, options):
    with pytest.warns(UserWarning, match="BatchNorm takes the statistics of its batch: all 11 examples, in the loss and in every"):
        problem, theta = engine.from_flax(module, X, X[:, :1], "half_mse", **options)
    params = jax.tree.leaves(problem.unravel(theta), is_leaf=lambda leaf: getattr(leaf, "shape", None) is not None)
    scale, shift = (next(leaf for leaf in params if leaf.shape == (3,) and leaf[0] == value) for value in (1, 0))
    kernel = next(leaf for leaf in params if leaf.shape == (3, 1))
    normal = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5) * scale + shift
    np.testing.assert_allclose(loss_at(problem, theta), np.mean((normal @ kernel - X[:, :1]) ** 2) / 2, rtol=1e-10)
    assert len(problem.notes) == 1


@pytest.mark.parametrize(("module", "options", "said"), [
    (Normed(), {"micro_batch": 3}, "micro_batch = 3: BatchNorm takes the statistics of all examples at once; use 0"),
    (nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0)), {}, "BatchNorm reads running averages, which nothing here trains"),
    (NormedLinen(), {"arguments": {"train": False}}, r"NormedLinen: (draws random numbers|BatchNorm reads running averages)"),
    (Normed(0.5), {}, r'Normed: draws random numbers, so that its loss is another at each call \("Dropout"\); pass deterministic=True'),
])  # fmt: skip
def test_running_averages_and_dropout_are_refused_with_the_reason(module, options, said):
    with pytest.raises(UserError, match=said):
        engine.from_flax(module, X, X, lambda f, y: jnp.sum((f - y) ** 2, 1), **options)


def test_dropout_at_rest_is_let_be_beside_batch_norm():
    module = Normed(0.5)
    module.dropout.deterministic = True
    with pytest.warns(UserWarning, match="BatchNorm"):
        made = engine.from_flax(module, X, X[:, :1])
    assert engine.complaints(*made) == []


def test_inputs_and_targets_may_be_tuples_and_dicts():
    def criterion(outputs, targets):
        return jnp.sum((outputs - targets["y"]) ** 2, 1) * targets["w"][0]

    class Two(linen.Module):
        @linen.compact
        def __call__(self, inputs):
            return linen.Dense(2)(jnp.concatenate(inputs, 1))

    targets = {"y": X[:, :2], "w": (WEIGHTS,)}
    problem, theta = engine.from_flax(Two(), (X[:, :1], X[:, 1:]), targets, criterion, micro_batch=4, test=((X[:2, :1], X[:2, 1:]), {
        "y": X[:2, :2], "w": (WEIGHTS[:2],)}))
    single, _ = engine.from_flax(linen.Dense(2), X, X[:, :2], weights=WEIGHTS)
    np.testing.assert_allclose(loss_at(problem, theta), loss_at(single, theta) * WEIGHTS.mean(), rtol=1e-12)
    with pytest.raises(UserError, match="targets: a dict; mse takes one array, and a dict goes with a criterion"):
        engine.from_flax(linen.Dense(2), X, targets)


@pytest.mark.parametrize(("options", "said"), [
    ({"weights": [1, 2]}, r"weights: an array of shape \(2,\); expected one for each example, \(11,\)"),
    ({"weights": -WEIGHTS}, r"weights\[0\] = -.*; expected finite numbers, none below 0"),
    ({"weights": 0 * WEIGHTS}, "weights: all are 0"), ({"weights": ["a"] * 11}, "weights: a list; expected"),
    ({"micro_batch": -1}, "micro_batch = -1: expected a whole number, 0 for all"), ({"devices": 99}, "devices = 99: this machine has"),
    ({"test": (X,)}, r"test: a tuple of 1; expected \(inputs, targets\)"), ({"test": (X, LABELS + 5)}, r"test targets\[0\] = "),
    ({"correct": lambda f, y: f}, r"correct: gives an array of shape \(11, 2\); expected one number for each example"),
])  # fmt: skip
def test_what_will_not_do_is_refused_by_name(options, said):
    with pytest.raises(UserError, match=said):
        of_module(**options)


def test_what_belongs_to_examples_is_refused_where_a_loss_is_one_number():
    for options, said in (({"weights": WEIGHTS}, "weights: belongs to a loss"), ({"micro_batch": 4}, "pass per_example=True"),
                          ({"correct": lambda p, d: 1.0}, r"correct: gives an array of shape \(\)")):
        with pytest.raises(UserError, match=said):
            engine.from_loss(lambda p, d: jnp.mean(losses(p, d)), RNG_PARAMS, (X, LABELS), **options)
    with pytest.raises(UserError, match=r"test: needs data, loss\(params, data\)"):
        engine.from_loss(jnp.sum, jnp.ones(2), test=X)
    with pytest.raises(UserError, match=re.escape("the loss: gives an array of shape (); expected one number for each example, (11,)")):
        engine.from_loss(lambda p, d: jnp.mean(losses(p, d)), RNG_PARAMS, (X, LABELS), per_example=True)


def test_a_kink_beside_theta_is_none_of_its_own():
    """A relu whose kink is 1e-5 beside θ: differences over 1e-4 meet it, those over 1e-6 do not; at θ itself it is told."""
    def hinge(beside):
        return engine.from_loss(lambda w: jnp.sum(w + jax.nn.relu(w) ** 2 / 2), jnp.full(3, beside))

    assert engine.complaints(*hinge(1e-5)) == []
    (said,) = engine.complaints(*hinge(0.0))
    assert said.startswith("the Hessian–vector product is off from differences of the one below")
