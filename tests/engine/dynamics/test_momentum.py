"""Momentum at its edge: θ†, the oscillation about it and its prediction, against the two-step recursion, the toy and a network."""

import jax.numpy as jnp
import msgspec
import numpy as np
import optax
import pytest

from engine import spec as specs
from engine import theory
from engine.base.errors import UserError
from engine.dynamics.descent import descend
from engine.dynamics.optimizers import momentum
from engine.phases.edge_state import anchor, apart
from engine.phases.experiment import Experiment
from engine.problems.problem import Problem
from engine.record.columns import columns_for
from engine.spec import from_tree, load_spec, with_overrides
from engine.xla.leaves import pack

from small import chebyshev_spec, rows, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
FORMS = (
    {"beta": 0.5}, {"beta": 0.9}, {"beta": 0.5, "nesterov": True}, {"beta": 0.8, "ema": True}, {"beta": 0.6, "ema": True, "nesterov": True},
)  # fmt: skip
"""Of the section."""


def with_momentum(spec, **fields):
    """A specification with momentum, and what is followed of it."""
    tree = msgspec.to_builtins(spec)
    followed = {name: value for name, value in tree["tracking"].items() if name not in specs.Momentum.unknown}
    optimizer = {"kind": "momentum", "learning_rate": spec.optimizer.learning_rate} | fields
    return from_tree(tree | {"optimizer": optimizer, "tracking": followed}, "test")


def coefficients(learning_rate, beta, nesterov=False, ema=False):
    """c and d of θ_{t+1} = θ_t + β(θ_t − θ_{t−1}) − c∇L_t + d∇L_{t−1}, from the definitions."""
    rate = learning_rate * (1 - beta if ema else 1)
    return (rate * (1 + beta), rate * beta) if nesterov else (rate, 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_the_rates_at_the_edge_are_those_of_the_root_that_passes_minus_one(form):
    eta, h = 0.02, 1e-5
    (c, d), beta = coefficients(eta, **form), form["beta"]
    memory, edge = theory.memory_of(**form), theory.momentum_edge(eta, **form)

    def root(curvature):
        return np.roots([1, -(1 + beta - c * curvature), beta - d * curvature]).real.min()

    assert root(edge) == pytest.approx(-1, abs=1e-12)
    assert memory.gain(eta) == pytest.approx(c, rel=1e-12)
    assert memory.growth(eta) == pytest.approx((root(edge - h) - root(edge + h)) / (2 * h), rel=1e-7)
    assert memory.drift(eta) == pytest.approx((c - d) / (1 - beta), rel=1e-12)  # of a gradient that stays


@pytest.mark.parametrize("form", FORMS)
def test_the_oscillation_on_a_quadratic_is_the_two_step_recursion(form):
    """x_t along each eigenvector: x_{t+1} = (1+β−cλ)x_t − (β−dλ)x_{t−1}, a little above and below the edge too."""
    eta, steps = 0.02, 60
    (c, d), beta = coefficients(eta, **form), form["beta"]
    values = theory.momentum_edge(eta, **form) * np.array([1.001, 1.0, 0.999, 0.4, 0.01])
    optimizer = momentum(form["beta"], form.get("nesterov", False), form.get("ema", False))
    problem = Problem(lambda theta, scales: jnp.sum(scales * theta**2) / 2, jnp.asarray(values), "quadratic")
    theta = jnp.ones(5, jnp.float64)
    state, x = optimizer.init(theta, problem.unravel, eta), [np.ones(5)]
    for k in range(steps):
        moved = descend(problem, optimizer, theta, state, 1)
        theta, state = moved.theta, moved.optimizer_state
        first = x[0] * (1 - c * values)
        x.append(first if k == 0 else (1 + beta - c * values) * x[-1] - (beta - d * values) * x[-2])
        if k == 0 and form.get("nesterov"):  # m is 0 before the first step
            x[-1] = x[0] - c * values * x[0]
        np.testing.assert_allclose(theta, x[-1], atol=1e-12)


@pytest.mark.parametrize("form", [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[1:])])  # what compiles anew
def test_on_the_toy_everything_followed_is_what_direct_iteration_gives(form):
    """The toy has no terms but those that the prediction keeps, and θ† = (0, 0, z): gradient by hand, in numpy, over two bursts."""
    eta, alpha = 0.01, 1.0
    spec = with_momentum(toy_spec(eta), **form)
    table = rows(Experiment(spec), 300)
    (c, d), beta, edge = coefficients(eta, **form), form["beta"], theory.momentum_edge(eta, **form)
    path, forces = [np.array([0.1, 0.0, 0.0])], []
    for t in range(300):
        x, y, _ = path[t]
        forces.append(np.array([(edge + y) * x, x**2 / 2 - alpha, -1.0]))
        last = path[t - 1] if t else path[0]
        path.append(path[t] + beta * (path[t] - last) - c * forces[t] + (d * forces[t - 1] if t else 0))
    x, y, _ = np.array(path[:300]).T
    from_edge = np.isfinite(table["gd.x"])
    assert from_edge.sum() > 250
    np.testing.assert_allclose(np.abs(table["gd.x"][from_edge]), np.abs(x[from_edge]), atol=1e-9)
    np.testing.assert_allclose(table["gd.y"][from_edge], y[from_edge], atol=1e-9)
    for predicted in ("transported", "generalized", "code"):
        np.testing.assert_allclose(table[f"{predicted}.x"], table["gd.x"], atol=1e-9)
        np.testing.assert_allclose(table[f"{predicted}.y"], table["gd.y"], atol=1e-9)
    # δ² = 2α/β_S, whatever the momentum, but for how far S is off 2/η at first, over ηα
    np.testing.assert_allclose(table["covariance.trace"][from_edge], 2.0, rtol=1e-6)
    assert np.nanmax(table["constrained.sharpness_gap"]) < 1e-8 * edge


def displaced(experiment, share):
    """The experiment with θ off θ† by a share of δ along u, in the two-cycle that is there at the edge, and the predictions set there."""
    state, setup = experiment.state, experiment.setup
    center, track, edge = state.center, state.coupled.constrained, setup.threshold(state.optimizer)
    x, u = share * jnp.sqrt(center.delta_squared), center.top_eigenvector
    m = track.momentum - edge * x / (1 + setup.optimizer.momentum.memory.beta) * u  # m of x, −x, x, …
    optimizer = state.optimizer._replace(rule=optax.TraceState(m))
    descent = state.coupled.descent._replace(theta=center.theta + x * u, optimizer=optimizer)
    experiment.state = anchor(setup, state._replace(coupled=state.coupled._replace(descent=descent)), setup.tracking.predictions)


@pytest.fixture(scope="module")
def network(x64):
    """A small network with β = 0.3 ten steps past its edge, displaced by 0.6 δ: ε = 0.10."""
    tight = {"sharpness_tolerance": 1e-9, "gradient_tolerance": 1e-9, "eigen_tolerance": 1e-8}
    experiment = Experiment(with_momentum(chebyshev_spec(0.1, predictions=["generalized", "transported"], **tight), beta=0.3))
    while experiment.edge_step is None:
        experiment.advance(10_000)
    for _ in range(10):
        experiment.advance(1)
    displaced(experiment, 0.6)
    yield experiment, pack(experiment.state, "state."), rows(experiment, experiment.clock.step + 80)
    experiment.settle()


@pytest.mark.slow
def test_the_oscillation_of_a_network_is_the_predicted_one(network):
    """Over 80 steps, two bursts nearly: correlation of |x| 0.998 measured with the generalized form, 0.89 with the cubic one, which keeps
    0.989 over the first 40."""
    _, _, table = network
    x, y = table["gd.x"], table["gd.y"]
    assert np.abs(table["threshold_ratio"] - 1).max() < 0.06
    assert np.all(np.sign(x[1:40]) == -np.sign(x[:39]))
    said = {form: (table[f"{form}.x"], table[f"{form}.y"]) for form in ("generalized", "transported")}
    for form, count, least in (("generalized", 80, 0.99), ("transported", 40, 0.97)):
        assert np.corrcoef(np.abs(x[:count]), np.abs(said[form][0][:count]))[0, 1] > least
        assert np.corrcoef(y[:count], said[form][1][:count])[0, 1] > least
    error = (table["generalized.sharpness"] - table["gd.sharpness"]) / table["threshold"]
    assert np.sqrt(np.mean(error**2)) < 0.005
    bursts = 2 * np.pi / (np.sqrt(2) * table["constrained.epsilon"][0])
    peaks = np.flatnonzero((np.abs(x)[1:-1] > np.abs(x)[2:]) & (np.abs(x)[1:-1] > np.abs(x)[:-2]))
    assert peaks[-1] - peaks[0] == pytest.approx(bursts, rel=0.25)


def test_the_constrained_trajectory_is_the_projected_step_with_a_momentum_of_its_own(network):
    """m† is what θ† has moved by over −η, as the heavy ball's m is; it is in the stable set; and n = m − m†."""
    experiment, _, table = network
    state, setup = experiment.state, experiment.setup
    before = state.center.theta
    experiment.advance(1)
    following = experiment.state
    moved = (before - following.center.theta) / 0.1
    np.testing.assert_allclose(following.coupled.constrained.momentum, moved, atol=1e-12 + 1e-10 * float(jnp.abs(moved).max()))
    assert np.nanmax(table["constrained.sharpness_gap"] / table["threshold"]) < 1e-8
    n = apart(setup, following.optimizer, following.coupled.constrained.momentum)
    v = following.theta - following.center.theta
    np.testing.assert_allclose(state.theta - before - v, 0.1 * n, atol=1e-12)


def test_a_run_with_momentum_goes_on_from_its_checkpoint_to_the_bit(network):
    experiment, leaves, table = network
    again = Experiment(experiment.spec)
    again.restore({"phase": np.array("edge"), "anchor_every": np.array(0), "raised": np.array(0)} | leaves)
    repeated = rows(again, again.clock.step + 12)
    for name, column in repeated.items():
        if name != "cost.seconds":
            np.testing.assert_array_equal(column, table[name][:12], err_msg=name)


def test_what_is_known_of_gradient_descent_alone_is_left_out_with_momentum_and_refused_by_name():
    spec = load_spec("digits", ["optimizer.kind=momentum"])
    assert isinstance(spec.tracking, specs.CoupledTracking)
    assert not spec.tracking.flows
    assert not spec.tracking.gauges_every
    names = {column.name for column in columns_for(spec)}
    assert {"gd.x", "constrained.delta", "threshold_ratio", "transported.x"} <= names
    assert not {name for name in names if name.startswith(("theorem", "flow", "central", "landscape", "unrolled", "assumption"))}
    again = with_overrides(with_overrides(spec, ["optimizer.kind=gradient_descent"]), ["optimizer.kind=momentum"])
    assert again.tracking == spec.tracking
    for given in ("tracking.flow=central", "tracking.gauges_every=10", "tracking.landscape_every=5", "tracking.beta_every=5",
                  "tracking.seed_oscillation=true"):
        name = given.partition("=")[0].removeprefix("tracking.")
        with pytest.raises(UserError, match=rf'\[tracking\] {name} = .*; with \[optimizer\] kind = "momentum" expected'):
            load_spec("digits", ["optimizer.kind=momentum", given])
    with pytest.raises(UserError, match="θ† and its predictions are those of gradient descent and momentum"):
        load_spec("digits", ["optimizer.kind=adam"])
