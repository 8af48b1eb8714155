"""The central flow of RMSProp: against its closed form with one direction, and against the run that it is the mean of."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from engine import spec as specs
from engine.base.errors import UserError
from engine.curvature.eigensolver import Eigenpairs
from engine.dynamics import rmsprop_flow
from engine.dynamics.descent import descend
from engine.dynamics.optimizers import rmsprop, scalar_rmsprop, second_moment
from engine.dynamics.rmsprop_flow import Here, Settings, _pushed, begin
from engine.phases.experiment import Experiment
from engine.problems.problem import Problem
from engine.record import messages
from engine.record.columns import columns_for

from small import chebyshev_problem, chebyshev_spec, dense_hessian, gradient_at, rows, third_at

pytestmark = pytest.mark.usefixtures("x64")


def test_of_one_number_scalar_rmsprop_is_rmsprop():
    problem = Problem(lambda theta, _: 3 * theta[0] ** 2 / 2, (), "½·3x²")
    ends = []
    for optimizer in (rmsprop(0.9, 1e-8), scalar_rmsprop(0.9, 1e-8)):
        theta = jnp.array([0.3])
        moved = descend(problem, optimizer, theta, optimizer.init(theta, problem.unravel, 0.01), 50)
        ends.append((float(moved.theta[0]), float(jnp.squeeze(optimizer.preconditioner(moved.optimizer_state)))))
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)


def test_scalar_rmsprop_adapts_to_any_sharpness():
    """On ½Sx² |x| comes to η/2 and S/P to 2/η, whatever S is."""
    for curvature in (0.5, 40.0):
        problem = Problem(lambda theta, curvature: curvature * theta[0] ** 2 / 2, jnp.asarray(curvature), "½Sx²")
        optimizer, theta = scalar_rmsprop(0.9, 1e-12), jnp.array([0.006])
        state = optimizer.init(theta, problem.unravel, 0.01)
        for _ in range(10):
            moved = descend(problem, optimizer, theta, state, 64)
            theta, state = moved.theta, moved.optimizer_state
        assert abs(float(theta[0])) == pytest.approx(0.005, rel=1e-6)
        assert curvature / float(optimizer.preconditioner(state)) == pytest.approx(200, rel=1e-6)


def test_with_one_direction_the_variance_is_the_closed_form():
    """σ² = [α + c(s²/4 − ‖∇L‖²/η²)]/[‖∇S‖²/2 + cs²/η²] where λ1 is at the edge s = 2√ν̂/η."""
    problem, theta = chebyshev_problem()
    beta2, number = 0.99, 4000.0
    values, vectors = np.linalg.eigh(dense_hessian(problem, theta))
    edge, u, grad = values[-1], jnp.asarray(vectors[:, -1]), gradient_at(problem, theta)
    grad = grad - (grad @ u) * u
    dS = third_at(problem, theta, u, u)
    for eta in (0.05, 0.2, 1.0):
        nu = (edge * eta / 2) ** 2
        share = (1 - beta2) / (1 - beta2**number)
        c = share / (1 - share)
        expected = (-grad @ dS + c * (edge**2 / 4 - grad @ grad / eta**2)) / (dS @ dS / 2 + c * edge**2 / eta**2)
        state = begin(theta, jnp.asarray(nu), u[None])
        pairs = Eigenpairs(jnp.array([edge / np.sqrt(nu)]), u[None], jnp.zeros(1), jnp.array(0))
        here = Here(jnp.zeros(()), grad, pairs)
        following, X, pull = _pushed(state, here, dS[None], jnp.asarray(1), Settings(eta, beta2, 0.0), number)
        assert float(X[0, 0]) == pytest.approx(max(float(expected), 0.0), rel=1e-9, abs=1e-12)
        assert float(pull) == pytest.approx(edge * float(X[0, 0]), rel=1e-12)
        # and the edge has moved as λ1 has, to first order in time
        rise = 2 * jnp.sqrt(following.second_moment) / eta - edge
        if expected > 0:
            assert float(dS @ (following.theta - theta)) == pytest.approx(float(rise), rel=0.02)


def test_the_average_has_the_bias_correction_of_the_optimizer():
    """ν̂_t − ν̂_{t−1} = c_t(‖∇L‖² − ν̂_t)."""
    optimizer, theta = scalar_rmsprop(0.97, 0.0), jnp.ones(3)
    state, moments = optimizer.init(theta, lambda theta: theta, 0.1), []
    for k in range(6):
        grad = jnp.arange(3.0) + k
        _, state = optimizer.step(theta, state, grad, lambda theta: theta)
        moments.append((float(second_moment(state, 0.97)), float(grad @ grad)))
    for number, ((before, _), (nu, square)) in enumerate(pairwise(moments), start=2):
        assert nu - before == pytest.approx(rmsprop_flow.rate_of_average(0.97, number) * (square - nu), rel=1e-9)


def spec_of(*more):
    tree = {"mode": "sharpness", "sharpness_every": 4, "eigenvalues": 1}
    return specs.with_overrides(chebyshev_spec(0.05, **tree), ["optimizer.kind=rmsprop", "tracking.central_from=5", *more])


@pytest.fixture(scope="module")
def scalar(x64):
    """A small network under scalar RMSProp, with its flow from step 5 on, and a checkpoint at step 60."""
    experiment = Experiment(spec_of("optimizer.scalar=true"))
    first = rows(experiment, 60)
    kept = {name: np.array(leaf) for name, leaf in experiment.leaves().items()}
    second = rows(experiment, 130)
    return experiment.spec, {name: np.concatenate([first[name], second[name]]) for name in first}, kept, second


@pytest.mark.slow
def test_the_flow_of_scalar_rmsprop_keeps_to_its_edge(scalar):
    _, table, _, _ = scalar
    flow = table["central.sharpness"] / table["threshold"]
    assert np.isnan(flow[:5]).all()
    assert np.isfinite(flow[5:]).all()
    late = slice(100, None)
    assert np.max(flow[late]) < 1.01
    assert np.all(table["central.trace"][5:] >= 0)


@pytest.mark.slow
def test_the_flow_goes_on_from_a_checkpoint_to_the_bit(scalar):
    spec, _, kept, second = scalar
    again = Experiment(spec)
    again.restore(kept)
    repeated = rows(again, 72)
    for name, column in repeated.items():
        if name != "cost.seconds":
            np.testing.assert_array_equal(column, second[name][:12], err_msg=name)


def test_the_flow_of_full_rmsprop_is_followed_before_its_edge_and_keeps_to_the_run():
    experiment = Experiment(spec_of("optimizer.learning_rate=0.001", "optimizer.epsilon=0.05", "tracking.central_from=10"))
    table = rows(experiment, 60)
    np.testing.assert_array_equal(np.isfinite(table["central.loss"]), np.arange(60) >= 10)
    assert np.max((table["central.sharpness"] / table["threshold"])[10:]) < 1
    np.testing.assert_allclose(table["central.loss"][10:], table["gd.loss"][10:], rtol=0.02)
    np.testing.assert_allclose(table["central.second_moment"][10:], table["second_moment"][10:], rtol=0.1)
    assert all("experimental" in column.words for column in columns_for(experiment.spec) if column.name.startswith("central."))


def test_the_flow_of_full_rmsprop_ends_at_its_edge_and_says_so():
    experiment, ended, recorded = Experiment(spec_of("optimizer.learning_rate=0.0005")), [], []
    while experiment.clock.step < 60:
        progress = experiment.advance(60)
        ended += [event for event in progress.events if isinstance(event, messages.FlowEnded)]
        recorded += progress.rows
    assert len(ended) == 1
    loss = np.array(recorded)[:, experiment.setup.column_index["central.loss"]]
    assert np.isnan(loss[ended[0].step :]).all()


def test_the_flow_is_refused_by_name_for_other_optimizers():
    with pytest.raises(UserError, match=r'\[tracking\] central_from = 5; with \[optimizer\] kind = "adam" expected 0'):
        spec_of("optimizer.kind=adam")


@pytest.mark.slow
def test_the_flow_predicts_the_mean_loss_and_second_moment_of_a_network():
    """226 steps on digits from step 5 on, θ moved by σ along each axis of Σ that comes to have one, where in float64 nothing swings for a
    hundred steps: means within 3 % of the loss (0.7 % measured) and 2 % of ν̂ (1.2 %)."""
    spec = specs.load_spec("rmsprop", ["optimizer.scalar=true", "optimizer.learning_rate=0.15", "tracking.central_from=5"])
    experiment, swinging, recorded = Experiment(spec), 0, []
    while experiment.clock.step < 231:
        recorded += experiment.advance(1).rows
        state = experiment.state
        values, axes = np.linalg.eigh(np.asarray(state.flow.covariance))
        if (values > 1e-6 * max(values.sum(), 1e-12)).sum() > swinging:
            move = np.sqrt(values[::-1][swinging]) * axes.T[::-1][swinging] @ np.asarray(state.flow.eigenvectors)
            experiment.state, swinging = state._replace(theta=state.theta + move), swinging + 1
    table = dict(zip(experiment.setup.column_index, np.array(recorded).T, strict=True))
    assert swinging >= 3
    followed = np.isfinite(table["central.loss"])
    means = {name: table[name][followed].mean() for name in ("gd.loss", "central.predicted_loss", "central.loss")}
    assert means["central.predicted_loss"] == pytest.approx(means["gd.loss"], rel=0.03)
    assert means["central.loss"] < 0.95 * means["gd.loss"]
    ratio = table["central.second_moment"][followed] / table["second_moment"][followed]
    assert ratio.mean() == pytest.approx(1, abs=0.02)
