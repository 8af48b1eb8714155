"""Equation (5) summed from β_{s→t}, the loss along u, and what Theorem 1 leaves over, in float64."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from engine import theory
from engine.curvature import landscape
from engine.dynamics import unrolled
from engine.dynamics.constrained import next_target, project_center
from engine.dynamics.predicted import predict
from engine.phases.experiment import Experiment

from small import chebyshev_spec, dense_hessian, gradient_at, loss_at, rows, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.2
FORMS = ("transported", "full_cubic")


@pytest.fixture(scope="module")
def followed(x64):
    """Forty steps at the edge of a small network: setup, states, record and curves; the sum with starts every step and a short window."""
    experiment = Experiment(chebyshev_spec(ETA, flow=False, predictions=FORMS, beta_every=1, beta_window=6, landscape_every=10))
    while experiment.edge_step is None:
        experiment.advance(10_000)
    states, record, curves = [experiment.state], [], []
    for _ in range(40):
        progress = experiment.advance(1)
        record += progress.rows
        curves += progress.curves
        states.append(experiment.state)
    table = np.array(record)
    return experiment.setup, states, {name: table[:, k] for name, k in experiment.setup.column_index.items()}, curves


def test_the_sum_over_beta_is_definition_7(followed):
    """Though the window forgets single starts after six steps: what leaves it is carried on as a sum."""
    _, _, record, _ = followed
    for part in ("x", "y"):
        expected = record[f"transported.{part}"]
        np.testing.assert_allclose(record[f"unrolled.{part}"], expected, rtol=1e-8, atol=1e-9 * np.max(np.abs(expected)))


def test_beta_is_its_formula(followed):
    setup, states, record, _ = followed
    start, end = 10, 14  # β_{s→t} with t = s + 4
    carried = states[start].center.grad_sharpness_perp
    for state in states[start + 1 : end + 1]:
        u = state.center.top_eigenvector
        across = carried - u * (u @ carried)
        carried = across - ETA * dense_hessian(setup.problem, state.center.theta) @ across
    following = states[end + 1]
    place = list(following.unrolled.starts).index(following.clock.step - 1 - (end - start))
    np.testing.assert_allclose(following.unrolled.betas[place], following.center.grad_sharpness_perp @ carried, rtol=1e-9)
    newest = following.center.grad_sharpness_perp @ states[end].center.grad_sharpness_perp  # β_{t→t}
    np.testing.assert_allclose(record["unrolled.beta"][end + 1], newest, rtol=1e-9)


def test_starts_every_few_steps_cost_less_and_stay_near(followed):
    setup, states, record, _ = followed
    v = states[0].coupled.predicted.displacements["transported"]
    total = unrolled.begin(states[0].center, v, every=4, window=5)
    ys = []
    for now, then in itertools.pairwise(states):
        ys.append(total.y)
        total = unrolled.advance(setup.problem, total, now.clock.step, now.center, then.center, ETA, 2 / ETA, "float64")
    exact = record["transported.y"]
    assert len(total.starts) == 5
    assert np.max(np.abs(np.array(ys) - exact)) < 0.03 * np.max(np.abs(exact))


def test_all_of_the_cubic_term_predicts_gradient_descent_to_third_order(followed):
    """From θ† + s·w, gradient descent and the full cubic form differ by the quartic term: an eighth at half the s."""
    setup, states, _, _ = followed
    center, problem = states[20].center, setup.problem
    direction = jnp.sin(jnp.arange(1.0, center.theta.size + 1))
    direction = direction / jnp.linalg.norm(direction)
    guess = project_center(center, next_target(center, ETA), 2 / ETA).theta
    left_along_u = center.top_eigenvector * (center.top_eigenvector @ center.grad)  # the projection takes it out
    errors = []
    for size in (0.1, 0.05):
        v = size * direction
        moved = center.theta + v - ETA * (gradient_at(problem, center.theta + v) - left_along_u)
        predictions = dict.fromkeys(FORMS, v)
        advance = predict(problem, center, predictions, {"generalized": jnp.zeros(())}, ETA, 2 / ETA, "float64")
        errors.append(float(jnp.linalg.norm(moved - guess - advance["full_cubic"].v)))
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


def test_the_landscape_is_the_loss_along_u(followed):
    setup, states, record, curves = followed
    step, curve = curves[2]
    state = next(state for state in states if state.clock.step == step)
    center, problem, delta = state.center, setup.problem, float(curve["delta"])
    assert curve["x"][30] == pytest.approx(delta)
    rise = [float(loss_at(problem, center.theta + s * center.top_eigenvector) - center.loss) for s in curve["x"]]
    np.testing.assert_allclose(curve["F"], rise, atol=1e-14)

    def even(s):
        return sum(float(loss_at(problem, center.theta + sign * s * center.top_eigenvector)) for sign in (1, -1)) / 2

    h = 1e-3 * delta
    slope = (even(delta + h) - even(delta - h)) / (2 * h)
    bend = (even(delta + h) - 2 * even(delta) + even(delta - h)) / h**2
    limit = record["landscape.limit"][record["step"] == step][0]
    assert limit == pytest.approx(2 / ETA + bend - slope / delta, rel=1e-4)
    assert np.isfinite(record["landscape.ratio"]).sum() == 4  # every ten steps of forty


def test_the_plane_holds_the_loss_and_its_mixed_derivative_is_one(followed):
    """∂L/∂y = −δ²/2, ∂²L/∂x² = S and ∂³L/∂x²∂y = ∇S·∇S⊥/β = 1 at θ†, whatever the problem."""
    setup, states, _, curves = followed
    step, curve = curves[2]
    state = next(state for state in states if state.clock.step == step)
    center, problem, delta = state.center, setup.problem, float(curve["delta"])
    plane = landscape.plane(problem, center, delta)

    def loss(x, y):
        at = center.theta + x * center.top_eigenvector + y * center.grad_sharpness_perp / center.beta
        return float(loss_at(problem, at) - center.loss)

    for i, k in ((0, 0), (3, 6), (12, 2)):
        assert plane.rise[i, k] == pytest.approx(loss(plane.x[i], plane.y[k]), abs=1e-13)
    scale = np.ptp(plane.rise)
    across, up = np.polynomial.chebyshev.chebfit(plane.x / plane.x[-1], plane.rise, 12), plane.y[-1]
    both = np.polynomial.chebyshev.chebfit(plane.y / up, across.T, 6).T

    def value(x, y):
        return np.polynomial.chebyshev.chebval2d(x / plane.x[-1], y / up, both)

    rng = np.random.default_rng(0)
    for x, y in zip(rng.uniform(-1, 1, 20) * plane.x[-1], rng.uniform(-1, 1, 20) * up, strict=True):
        assert value(x, y) == pytest.approx(loss(x, y), abs=1e-6 * scale)
    h, k = 0.05 * delta, 0.05 * up
    assert (value(0, k) - value(0, -k)) / (2 * k) == pytest.approx(-(delta**2) / 2, rel=1e-2)
    assert (value(h, 0) - 2 * value(0, 0) + value(-h, 0)) / h**2 == pytest.approx(float(center.sharpness), rel=1e-3)
    bend = [(value(h, at) - 2 * value(0, at) + value(-h, at)) / h**2 for at in (k, -k)]
    assert (bend[0] - bend[1]) / (2 * k) == pytest.approx(1, rel=1e-2)
    np.testing.assert_allclose(curve["plane"], plane.rise, atol=1e-5 * scale)  # recorded in the curvature's format


def test_the_toy_is_quadratic_along_u():
    record = rows(Experiment(toy_spec(flow=False, landscape_every=1)), until=40)
    np.testing.assert_allclose(record["landscape.ratio"], 1, rtol=1e-9)
    np.testing.assert_allclose(record["landscape.limit"], record["constrained.sharpness"], rtol=1e-9)


def test_theorem_1_leaves_nothing_over_on_the_toy_and_marks_where_it_claims_nothing():
    record = rows(Experiment(toy_spec(x0=0.01, flow=False, hypothesis=0.5)), until=120)
    assert np.max(record["theorem.deviation"]) < 1e-10
    second_order = record["gd.x"] ** 2 / record["gd.sharpness"]  # βx²/S: the eigenvalue's shift by the off-diagonal √β·x
    np.testing.assert_allclose(record["theorem.sharpness"], second_order, rtol=1e-3)
    small = np.abs(record["transported.x"]) < 0.5 * record["constrained.delta"]
    assert small[0]
    np.testing.assert_array_equal(record["theorem.hypothesis"], np.where(small, 0, 1))


def test_a_lost_prediction_has_no_residual():
    nan = math.nan
    residuals = theory.theorem_residuals(1.0, 2.0, nan, nan, nan, nan, 0.5, 0.1, 0.1, 0.1)
    assert all(math.isnan(residuals[name]) for name in ("loss", "sharpness", "deviation", "hypothesis"))
    assert residuals["loss_order"] == pytest.approx(0.25)


def test_the_samples_hold_delta_itself():
    x = np.linspace(-landscape.REACH, landscape.REACH, 2 * landscape.REACH * landscape.PER_DELTA + 1)
    assert x[(landscape.REACH + 1) * landscape.PER_DELTA] == pytest.approx(1)
    assert x[(landscape.REACH - 1) * landscape.PER_DELTA] == pytest.approx(-1)


def test_a_sum_that_ran_off_is_lost_and_does_not_raise(followed):
    setup, states, _, _ = followed
    gone = states[0].unrolled._replace(x=1e200)
    for before, after in itertools.pairwise(states[:4]):
        gone = unrolled.advance(setup.problem, gone, before.clock.step, before.center, after.center, ETA, 2 / ETA, "float64")
    assert math.isnan(gone.x)
    assert math.isnan(gone.y)
