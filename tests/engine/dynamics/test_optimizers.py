"""The optimizers' room: optax takes gradient descent's step to the bit, and a batch is a mean over its own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine import spec as specs
from engine import theory
from engine.base.errors import UserError
from engine.dynamics.descent import descend
from engine.dynamics.optimizers import optimizer_of
from engine.phases import context
from engine.phases.experiment import Experiment
from engine.problems.build import build

from small import chebyshev_problem, chebyshev_spec, gradient_at, loss_at, toy_spec

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("format", ["float32", "float64"])
def test_gradient_descent_by_optax_is_theta_minus_eta_gradient_to_the_bit(format):
    problem, theta = chebyshev_problem()
    theta, eta = theta.astype(format), 0.037
    optimizer = optimizer_of(specs.GradientDescent(learning_rate=eta))
    plain = optimizer._replace(step=lambda theta, state, grad, _: (theta - jnp.asarray(eta, theta.dtype) * grad, state))
    state = optimizer.init(theta, problem.unravel, eta)
    moved, expected = (descend(problem, each, theta, state, 40).theta for each in (optimizer, plain))
    np.testing.assert_array_equal(moved, expected)
    assert moved.dtype == format


def test_the_threshold_of_gradient_descent_is_two_over_eta_and_recorded():
    spec = toy_spec(0.01)
    optimizer = optimizer_of(spec.optimizer)
    state = optimizer.init(jnp.zeros(3), lambda flat: flat, 0.01)
    assert float(optimizer.threshold(state)) == theory.threshold(0.01) == 200
    assert optimizer.preconditioner(state).shape == ()
    assert optimizer_of(specs.GradientDescent(learning_rate=0.02)) is optimizer  # nothing is compiled anew for another η
    experiment = Experiment(spec)
    rows = [row for _ in range(4) for row in experiment.advance(3).rows]
    recorded = np.array(rows)[:, experiment.setup.column_index["threshold"]]
    np.testing.assert_array_equal(recorded, 200)


def test_half_the_rate_leads_half_the_way():
    problem, theta = chebyshev_problem()
    optimizer = optimizer_of(specs.GradientDescent(learning_rate=0.1))
    state, gradient = optimizer.init(theta, problem.unravel, 0.1), gradient_at(problem, theta)
    whole, _ = optimizer.step(theta, state, gradient, problem.gradient)
    half, _ = optimizer.step(theta, state._replace(learning_rate=state.learning_rate / 2), gradient, problem.gradient)
    np.testing.assert_allclose(half, (theta + whole) / 2, atol=1e-15)


def test_a_state_unravels_into_the_parameters_it_is_made_of():
    problem, theta = chebyshev_problem()
    leaves = jax.tree.leaves(problem.unravel(theta))
    assert {leaf.ndim for leaf in leaves} == {1, 2}
    assert sum(leaf.size for leaf in leaves) == theta.size


@pytest.mark.parametrize("micro_batch", [pytest.param(0, marks=pytest.mark.slow), 5])
def test_a_batch_is_the_mean_over_its_own_examples_in_every_derivative(micro_batch):
    spec = specs.with_overrides(chebyshev_spec(), [f"problem.micro_batch={micro_batch}", "optimizer.weight_decay=0.1"])
    problem, theta, _ = build(spec)
    v = jax.random.normal(jax.random.key(3), theta.shape)
    alone = [problem.on(np.array([k])) for k in range(12)]
    chosen = np.array([7, 1, 4, 0, 10, 3, 9])
    batch = problem.on(chosen)
    derivatives = jax.jit(lambda p: [p.loss(theta), p.gradient(theta), p.product_at(theta)(v), p.derivative(theta, 3, v, v)])
    each = [derivatives(alone[k]) for k in chosen]
    for actual, wanted in zip(derivatives(batch), zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(actual, sum(wanted) / len(chosen), rtol=1e-9, atol=1e-12)
    for actual, wanted in zip(derivatives(problem.on(np.arange(12))), derivatives(problem), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-12)


def test_a_batch_of_a_module_is_one_too_and_a_plain_loss_has_none():
    from flax import nnx

    inputs, targets = np.random.default_rng(0).normal(size=(9, 2)), np.random.default_rng(1).normal(size=(9, 1))
    problem, theta = engine.from_flax(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), inputs, targets)
    parts = [float(loss_at(problem.on(np.array([k])), theta)) for k in (2, 5)]
    assert float(loss_at(problem.on(np.array([2, 5])), theta)) == pytest.approx(np.mean(parts))
    plain, _ = engine.from_loss(lambda w: w @ w, jnp.ones(3))
    with pytest.raises(UserError, match="its loss is no mean over examples; a batch takes a network on data"):
        plain.on(np.array([0]))


def test_a_phase_goes_on_from_its_snapshot_with_the_state_of_its_optimizer():
    experiment, again = Experiment(chebyshev_spec(0.2)), Experiment(chebyshev_spec(0.2))
    experiment.advance(5)
    again.restore(experiment.leaves())
    assert again.learning_rate == 0.2
    assert float(again.state.checked_optimizer.learning_rate) == 0.2
    np.testing.assert_array_equal(again.advance(4).rows, experiment.advance(4).rows)
    assert isinstance(again.clock, context.Clock)
