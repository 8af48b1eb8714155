"""The gauges of Appendix E against closed forms and dense derivative tensors, in float64; their colours against their rules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.curvature.eigensolver import sharpness_at
from engine.curvature.expansion import Point, normals, taylor_center
from engine.phases import gauge_readings
from engine.phases.experiment import Experiment
from engine.phases.gauge_readings import restarted_norm, tensor_norm
from engine.problems.problem import Problem
from engine.record.columns import columns_for
from engine.report import gauges
from engine.report.gauges import GAUGES, RULES, verdict

from small import chebyshev_spec, rows, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
C = np.array([1.5, -4.0, 2.5, 0.7])


def diagonal(order: int) -> Problem:
    """Σ c_i θ_i^order / order!, whose derivative of that order has operator norm max|c|, attained at the axes alone."""
    return Problem(lambda theta, c: jnp.sum(c * theta**order) / math.factorial(order), jnp.asarray(C))


def contraction(problem: Problem, order: int, theta=None):
    theta = jnp.zeros(len(C)) if theta is None else theta
    return jax.jit(lambda v: problem.derivative(theta, order, *[v] * (order - 1)))


def directions(count: int, size: int):
    return np.random.default_rng(0).normal(size=(count, size))


@pytest.mark.parametrize("order", [3, 4])
def test_the_norm_of_a_diagonal_form_is_its_largest_coefficient_from_below(order):
    contract = contraction(diagonal(order), order)
    values = [tensor_norm(contract, jnp.asarray(start), 100).value for start in directions(12, len(C))]
    assert max(values) == pytest.approx(4.0, rel=1e-3)
    assert max(values) <= 4.0 * (1 + 1e-12)
    for value in values:  # an axis is a local maximum each: power iteration promises no more
        assert min(abs(value - abs(C))) < 4e-2 or value > 2.5


@pytest.mark.parametrize("order", [3, 4])
def test_an_eigenvector_is_a_fixed_point_of_the_power_iteration(order):
    norm = tensor_norm(contraction(diagonal(order), order), jnp.eye(len(C))[2], 20)
    assert norm.value == pytest.approx(2.5, rel=1e-12)
    assert norm.contractions == 2  # the second sees that nothing changes


@pytest.mark.parametrize("order", [3, 4])
def test_the_norm_of_a_rank_one_form_is_found_from_any_start(order):
    a = np.array([0.5, -2.0, 1.0])
    problem = Problem(lambda theta, a: (a @ theta) ** order / math.factorial(order), jnp.asarray(a))
    for start in directions(5, 3):
        norm = tensor_norm(contraction(problem, order, jnp.zeros(3)), jnp.asarray(start), 60)
        assert norm.value == pytest.approx(np.linalg.norm(a) ** order, rel=1e-3)


def test_the_shift_finds_rho3_of_the_toy_where_plain_power_iteration_dies():
    """∇³L of Appendix B is √β·(2xy, x², 0): from u = e_x the plain iteration goes to e_y, which it maps to 0. ρ3 = 2√β/√3."""
    experiment = Experiment(toy_spec(0.01, flow=False))
    contract = contraction(experiment.setup.problem, 3, jnp.zeros(3))
    u = jnp.eye(3)[0]
    assert float(jnp.linalg.norm(contract(contract(u)))) == 0
    norm = tensor_norm(contract, u, 20)
    assert norm.value == pytest.approx(2 / math.sqrt(3), rel=2e-3)
    assert tensor_norm(contraction(experiment.setup.problem, 4, jnp.zeros(3)), u, 20).value == 0


def test_a_vanishing_tensor_has_norm_zero_at_once():
    norm = tensor_norm(jnp.zeros_like, jnp.ones(3), 20)
    assert norm == (0, 1)
    assert restarted_norm(jnp.zeros_like, directions(4, 3), 20).value == 0


@pytest.mark.parametrize("order", [3, 4])
def test_a_start_on_a_plateau_is_left_for_another(order):
    """The eigenvector of 1562 maps to itself for ever; that of 1667 is beside it, and a start orthogonal to the first finds it."""
    problem = Problem(lambda theta, c: jnp.sum(c * theta**order) / math.factorial(order), jnp.asarray([1562.0, 1667.0, 40.0]))
    contract, u = contraction(problem, order, jnp.zeros(3)), jnp.eye(3)[0]
    assert tensor_norm(contract, u, 100).value == pytest.approx(1562, rel=1e-12)
    norms = [restarted_norm(contract, (u, jnp.zeros(3), *map(jnp.asarray, directions(9, 3)[k : k + 2])), 20) for k in range(8)]
    assert [each.value for each in norms] == pytest.approx([1667.0] * 8, rel=1e-4)
    assert all(each.value <= 1667 * (1 + 1e-12) for each in norms)  # a lower bound


def test_a_slow_climb_past_a_plateau_is_followed_to_its_end():
    """Along (1, ξ) the norm of c₁θ₁⁴ + c₂θ₂⁴ hardly changes for many iterations, and then it rises."""
    problem = Problem(lambda theta, c: jnp.sum(c * theta**4) / 24, jnp.asarray([1562.0, 1667.0]))
    contract, start = contraction(problem, 4, jnp.zeros(2)), jnp.asarray([1.0, 0.97])
    alone = tensor_norm(contract, start, 200)
    assert alone.value < 1200  # it stopped on the saddle at (1, 1)
    assert restarted_norm(contract, [start], 200).value == pytest.approx(1667, rel=1e-4)


def test_a_maximum_between_the_ends_of_the_first_starts_is_found_in_the_plane():
    """θ₁⁴ + θ₂⁴ + 18θ₁²θ₂²: both axes are fixed points of norm 24, and the norm is 120 half way between them."""
    problem = Problem(lambda theta, c: jnp.sum(c * theta**4) + 18 * theta[0] ** 2 * theta[1] ** 2, jnp.ones(2))
    contract = contraction(problem, 4, jnp.zeros(2))
    axes, chance = list(jnp.eye(2)), map(jnp.asarray, directions(2, 2))
    assert [tensor_norm(contract, axis, 20).value for axis in axes] == [24, 24]
    assert restarted_norm(contract, [*axes, *chance], 20).value == pytest.approx(120, rel=1e-4)


def test_what_is_not_finite_is_reported_and_not_left_for_another_start():
    spoilt = restarted_norm(lambda v: jnp.where(v[0] == 1, jnp.nan, v), jnp.eye(3), 20)
    assert math.isnan(spoilt.value)
    assert spoilt.contractions == 1


def test_starts_that_leave_nothing_new_are_left_out():
    contract, u = contraction(diagonal(4), 4), jnp.eye(len(C))[1]
    norm = restarted_norm(contract, [u, -u, 2 * u, jnp.zeros(len(C))], 20)
    assert norm.value == pytest.approx(4, rel=1e-12)
    assert norm.contractions == 4  # two from u, and two more from its end


@pytest.fixture(scope="module")
def dense(x64):
    """A smooth loss of six parameters, a centre on it, and its derivative tensors of order 2, 3 and 4."""
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(9, 6)))
    problem = Problem(lambda theta, w: jnp.sum(jnp.tanh(w @ theta) ** 2 + jnp.sin(w @ theta)) / 9, weights)
    theta = jnp.asarray([0.3, -0.2, 0.4, 0.1, -0.5, 0.2])
    eigen = sharpness_at(problem, theta, jnp.ones((2, 6)), 1e-12, "float64")
    loss, grad = jax.value_and_grad(problem.loss)(theta)
    point = Point(theta, loss, grad, eigen)
    center = taylor_center(point, normals(problem, point, "float64"), jnp.zeros(6))
    second = jax.hessian(problem.loss)
    tensors = jax.jit(lambda at: (second(at), jax.jacfwd(second)(at), jax.jacfwd(jax.jacfwd(second))(at)))(theta)
    return problem, center, [np.asarray(tensor) for tensor in tensors]


def dense_norm(tensor: np.ndarray) -> float:
    """The operator norm of a symmetric tensor: projected gradient ascent on |T(v,…,v)| from many starts."""
    best = 0.0
    for v in directions(60, tensor.shape[0]):
        for sign in (1, -1):
            w = v / np.linalg.norm(v)
            for _ in range(400):
                image = tensor
                while image.ndim > 1:
                    image = image @ w
                best = max(best, float(np.linalg.norm(image)))
                w = sign * image + 2 * best * w
                w = w / np.linalg.norm(w)
    return best


def test_every_reading_is_that_of_the_dense_tensors(dense):
    problem, center, (second, third, fourth) = dense
    v, eta = jnp.asarray([0.2, 0.1, -0.3, 0.05, 0.4, 0.1]), 0.3
    gauges = gauge_readings.measure(problem, center, v, eta, 60, "float64")
    u = np.asarray(center.top_eigenvector)
    across = [w - u * (u @ w) for w in (np.asarray(v), np.asarray(center.grad))]
    rho3, rho4 = gauges.rho3.value, gauges.rho4.value
    assert rho3 <= dense_norm(third) * (1 + 1e-9)
    assert rho4 <= dense_norm(fourth) * (1 + 1e-9)
    assert rho3 >= float(jnp.linalg.norm(center.grad_sharpness)) * (1 - 1e-12)  # the first value met
    assert rho3 == pytest.approx(dense_norm(third), rel=2e-3)  # here the local maximum above u is the global one
    for name, w in (("cubic_displacement", across[0]), ("cubic_gradient", across[1])):
        expected = np.linalg.norm(third @ w @ w) / (rho3 * (w @ w))
        assert getattr(gauges, name) == pytest.approx(expected, rel=1e-9)
    expected = abs(across[0] @ second @ across[0]) / (2 / eta * (across[0] @ across[0]))
    assert gauges.quadratic_displacement == pytest.approx(expected, rel=1e-9)


def test_more_starts_never_read_less_and_one_is_the_iteration_from_u(dense):
    problem, center, (_, third, fourth) = dense
    gauges = [gauge_readings.measure(problem, center, jnp.ones(6), 0.3, 60, "float64", starts) for starts in (1, 2, 4, 8)]
    for name, norm in (("rho3", dense_norm(third)), ("rho4", dense_norm(fourth))):
        values = [getattr(each, name).value for each in gauges]
        assert values[-1] == pytest.approx(norm, rel=2e-3)
        assert max(values) <= norm * (1 + 1e-9)
        alone = tensor_norm(contraction(problem, int(name[-1]), center.theta), center.top_eigenvector, 60)
        assert values[0] == pytest.approx(alone.value, rel=2e-3)
        assert np.all(np.diff(values) >= -1e-3 * norm)


def test_no_displacement_leaves_its_gauges_without_a_value(dense):
    problem, center, _ = dense
    gauges = gauge_readings.measure(problem, center, jnp.zeros(6), 0.3, 60, "float64")
    assert math.isnan(gauges.cubic_displacement)
    assert math.isnan(gauges.quadratic_displacement)
    assert math.isfinite(gauges.cubic_gradient)


@pytest.fixture(scope="module")
def records(x64):
    """The toy for 25 steps, gauged every 10 steps and never, by column."""
    return [rows(Experiment(toy_spec(0.01, flow=False, gauges_every=every)), 25) for every in (10, 0)]


def test_the_record_holds_the_gauges_at_their_cadence_and_what_they_cost(records):
    """On the toy ‖∇S⊥‖/ρ3 = √3/2, and neither ∇⁴L nor any derivative along v⊥ = (0, y, z) or g⊥ is there."""
    record, _ = records
    measured = np.isfinite(record["assumption.rho3"])
    np.testing.assert_array_equal(np.flatnonzero(measured), [0, 10, 20])
    np.testing.assert_allclose(record["assumption.stabilization"][measured], math.sqrt(3) / 2, rtol=2e-3)
    for name in ("rho4", "quartic", "cubic_displacement", "cubic_gradient", "quadratic_displacement"):
        np.testing.assert_allclose(record[f"assumption.{name}"][measured], 0, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(record["cost.fourth_derivatives"], np.where(measured, 5, 0))  # four starts, and ∇³L(v⊥,v⊥)
    assert (record["cost.grad_sharpness"][measured] > record["cost.grad_sharpness"][~measured].max() + 3).all()
    assert (record["cost.grad_sharpness"][measured] <= record["cost.grad_sharpness"][~measured].max() + 101).all()


def test_gauges_change_nothing_but_their_own_columns(records):
    gauged, plain = records
    assert not any(name.startswith("assumption.") or name == "cost.fourth_derivatives" for name in plain)
    for name, values in plain.items():
        if not name.startswith("cost."):
            np.testing.assert_array_equal(values, gauged[name], err_msg=name)


GAUGE = {gauge.label: gauge for gauge in GAUGES}


@pytest.mark.parametrize(("label", "value", "eps", "expected"), [
    ("1", 1e-9, 0.1, "green"), ("1", 0.0, math.nan, "red"), ("1", -2.0, math.nan, "red"), ("1", math.nan, 0.1, "none"),
    ("2", 0.15, 0.15, "green"), ("2", 0.2, 0.2, "amber"), ("2", 0.31, 0.31, "red"),
    ("3", 0.6, 0.1, "green"), ("3", 0.02, 0.1, "amber"), ("3", 0.002, 0.1, "red"), ("3", -0.6, math.nan, "red"),
    ("4", 0.1, 0.1, "green"), ("4", 0.0, 0.1, "red"),
    ("5", 0.0, 0.1, "green"), ("5", 50.0, 0.1, "amber"), ("5", 101.0, 0.1, "red"),
    ("6", 0.06, 0.02, "green"), ("6", 0.1, 0.02, "amber"), ("6", 0.3, 0.02, "red"), ("6", 0.6, 0.3, "red"),
    ("7", 0.1, math.nan, "none"), ("7", 0.9, math.nan, "red"), ("8", 0.001, 0.02, "green"), ("8", math.inf, 0.02, "none"),
    ("A2", 1.7, 0.1, "green"), ("A2", 1.85, 0.1, "amber"), ("A2", 1.9, 0.1, "red"),
])  # fmt: skip
def test_a_reading_is_green_amber_or_red_by_the_stated_rule(label, value, eps, expected):
    assert verdict(GAUGE[label], value, eps, 1.9) == expected


def test_every_gauge_has_its_column_and_its_rule():
    recorded = {column.name: column for column in columns_for(chebyshev_spec())}
    assert [gauge.label for gauge in GAUGES] == ["1", "2", "3", "4", "5", "6", "7", "8", "A2"]
    for gauge in GAUGES:
        assert gauge.column in recorded
        assert RULES[gauge.rule].reason
        if gauge.label in "45678":
            assert gauge.formula == recorded[gauge.column].formula


def test_the_second_eigenvalue_is_read_in_units_of_the_learning_rate():
    row = {"constrained.lambda2": 40.0, "learning_rate": 0.02, "constrained.gamma": 0.5}
    assert gauges.reading(GAUGE["A2"], row) == pytest.approx(0.8)
    assert gauges.reading(GAUGE["3"], row) == 0.5
    assert math.isnan(gauges.reading(GAUGE["5"], row))
