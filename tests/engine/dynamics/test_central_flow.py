"""The central flow against closed forms, against a flow written out with dense Hessians, and as a part of a run, in float64."""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from engine import spec as specs
from engine.curvature import guards
from engine.curvature.guards import Guards
from engine.dynamics.central_flow import CENTRAL, CentralState
from engine.dynamics.trajectory import Beginning, StepContext
from engine.phases.experiment import Experiment
from engine.problems.build import build
from engine.problems.problem import Problem
from engine.problems.toy import symmetric_basis
from engine.record.columns import columns_for
from engine.xla.leaves import pack, unpack

from small import chebyshev_spec, dense_hessian, gradient_at, rows, third_at, toy_spec

pytestmark = pytest.mark.usefixtures("x64")


class Flow:
    """The central flow by itself, from a θ with the learning rate at which it is at the edge there; gradient descent stays where it is."""

    def __init__(self, problem, theta, eta, substeps=2, room=8, traced=False):
        values, vectors = np.linalg.eigh(dense_hessian(problem, theta))
        tops = jnp.asarray(vectors.T[::-1])
        center = SimpleNamespace(theta=theta, eigen=SimpleNamespace(vectors=tops[:2]))
        unknown, known = guards.begin(0, 0, theta.size, "float64"), Guards(tops[:4], jnp.asarray(values[::-1][:4]))
        self.state = CENTRAL.begin(
            Beginning(theta, tops[0], center, tops[0], unknown), specs.CoupledTracking(flow="central", max_eigenvalues=room)
        )

        def at(problem, around=False):
            return StepContext(problem, 0, 1, eta, theta, center, (known,), "float64", around, traced, substeps, room)

        def one(problem, state):
            return CENTRAL.step(at(problem), state, CENTRAL.measure(at(problem), state))

        one = jax.jit(one) if traced else one
        self.taken = []
        self._step = lambda state: one(problem, state)
        self._look = lambda state: CENTRAL.step(at(problem, True), state, CENTRAL.measure(at(problem, True), state))

    def steps(self, count, looks=False):
        for _ in range(count):
            self.state = CENTRAL.with_room(self.state)  # as a run does it before a step
            self.state, row, costs = (self._look if looks else self._step)(self.state)
            self.taken.append({name.removeprefix("central."): float(value) for name, value in row.items()} | {"costs": costs})
        return self

    def column(self, name):
        return np.array([row[name] for row in self.taken])


@cache
def at_the_edge():
    """A small network where gradient descent comes to the edge, and the learning rate at which it is there to the last digit."""
    problem, theta, _ = build(chebyshev_spec())
    theta = jax.jit(lambda theta: lax.fori_loop(0, 318, lambda _, at: at - 0.2 * problem.gradient(at), theta))(theta)
    return problem, theta, 2 / float(np.linalg.eigvalsh(dense_hessian(problem, theta))[-1])


@jax.jit
def derivatives(problem, theta, u):
    """∇L, ∇²L and ∇S = ∇³L(u,u)."""
    return gradient_at(problem, theta), dense_hessian(problem, theta), third_at(problem, theta, u, u)


def written_out(problem, theta, eta, steps, substeps):
    """The flow of one direction, with σ² = (−A/B)₊ in closed form; its θ, and σ² as a mean over each step."""
    moved, variances = [np.asarray(theta)], []
    for _ in range(steps):
        u = np.linalg.eigh(dense_hessian(problem, theta))[1][:, -1]
        taken = []
        for _ in range(substeps):
            gradient, hessian, dS = map(np.asarray, derivatives(problem, theta, u))
            dt = eta / substeps
            excess = u @ hessian @ u - 2 / eta - dt * gradient @ dS
            taken.append(max(0.0, excess / (dt * dS @ dS / 2)))
            theta = theta - dt * (gradient + taken[-1] / 2 * dS)
        moved.append(np.asarray(theta))
        variances.append(np.mean(taken))
    return np.array(moved), np.array(variances)


def test_one_direction_is_held_at_the_edge_by_the_closed_form():
    """σ² = 2α₊/‖∇S‖² (arXiv 2410.24206), with the sharpness at 2/η; and the flow is that written out with dense Hessians."""
    problem, theta, eta = at_the_edge()
    flow = Flow(problem, theta, eta, substeps=4).steps(8)
    moved, variances = written_out(problem, theta, eta, 8, 4)
    assert np.linalg.norm(flow.state.theta - moved[-1]) < 1e-5 * np.linalg.norm(moved[-1] - moved[0])
    np.testing.assert_allclose(flow.column("trace"), variances, rtol=1e-4)
    assert flow.column("sharpness").max() * eta / 2 - 1 < 1e-5
    here = moved[-2]
    gradient, _, dS = map(np.asarray, derivatives(problem, here, np.linalg.eigh(dense_hessian(problem, here))[1][:, -1]))
    assert flow.column("trace")[-1] == pytest.approx(-2 * gradient @ dS / (dS @ dS), rel=1e-3)
    np.testing.assert_allclose(flow.column("predicted_loss") - flow.column("loss"), flow.column("trace") / eta, rtol=1e-4)
    assert [int(row["costs"].grad_sharpness) for row in flow.taken] == [4] * 8


def test_two_substeps_are_nearly_sixteen():
    problem, theta, eta = at_the_edge()
    two, many = (Flow(problem, theta, eta, substeps).steps(10) for substeps in (2, 16))
    way = np.linalg.norm(many.state.theta - theta)
    assert 0 < np.linalg.norm(two.state.theta - many.state.theta) < 0.01 * way
    assert two.column("trace")[2:].mean() == pytest.approx(many.column("trace")[2:].mean(), rel=0.01)


def several(count=3, spare=0):
    """`engine.problems.toy` of several directions, θ† at 0, with parameters beside that do nothing much: a problem, θ†, η, and X†."""
    basis, X, eta = symmetric_basis(count), np.diag(np.linspace(1, 0.5, count)), 0.1
    a = np.einsum("mij,ij->m", basis, X) / 2

    def loss_of(theta, constants):
        basis, a = constants
        x, s, rest = theta[:count], theta[count : count + len(a)], theta[count + len(a) :]
        return x @ x / eta + jnp.einsum("m,mij,i,j->", s, basis, x, x) / 2 - a @ s + rest @ rest / 2

    problem = Problem(loss_of, (jnp.asarray(basis), jnp.asarray(a)), "several")
    return problem, jnp.zeros(count + len(a) + spare), eta, X


@pytest.mark.parametrize("traced", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_several_directions_are_held_where_they_are(traced):
    """The covariance is X† at once, and the flow does not move."""
    problem, theta, eta, X = several()
    flow = Flow(problem, theta, eta, traced=traced).steps(3)
    np.testing.assert_allclose(flow.column("trace"), np.trace(X), rtol=1e-9)
    assert np.abs(flow.state.theta).max() < 1e-9
    np.testing.assert_allclose(np.linalg.eigvalsh(flow.state.covariance)[-3:], np.diag(X)[::-1], rtol=1e-8)
    np.testing.assert_allclose(flow.column("predicted_loss"), np.trace(X) / eta, rtol=1e-9)
    assert [int(row["costs"].grad_sharpness) for row in flow.taken] == [2 * 6] * 3


@pytest.mark.slow
def test_as_many_are_followed_as_come_and_a_pause_leaves_no_trace(tmp_path):
    """From room for two to room for four, and X of all three in the end; a state through a checkpoint goes on to the bit."""
    problem, theta, eta, X = several(spare=70)
    flow = Flow(problem, theta, eta).steps(1)
    assert flow.state.eigenvectors.shape[1] == 2
    flow.steps(2, looks=True).steps(3)
    assert flow.state.eigenvectors.shape[1] == 4
    other = Flow(problem, theta, eta)
    np.savez(tmp_path / "state.npz", **pack(flow.state))
    with np.load(tmp_path / "state.npz") as leaves:
        other.state = unpack(CentralState, dict(leaves))
    flow.steps(6)
    other.steps(6)
    for name, leaf in pack(flow.state).items():
        np.testing.assert_array_equal(leaf, pack(other.state)[name], err_msg=name)
    assert flow.column("trace")[-1] == pytest.approx(np.trace(X), rel=1e-3)
    assert flow.column("sharpness")[-1] * eta / 2 == pytest.approx(1, abs=1e-5)


def test_a_run_follows_the_flows_that_it_is_asked_for():
    """By words and by the true and false of before; in one compiled step, beside gradient flow, on from a checkpoint to the bit."""
    for asked, there in ((True, {"flow"}), (False, set()), ("gradient", {"flow"}), ("central", {"central"}), ("both", {"flow", "central"}),
                         ("none", set())):
        spec = toy_spec(flow=asked)
        assert set(spec.tracking.flows) == there
        assert {column.name.partition(".")[0] for column in columns_for(spec)} & {"flow", "central"} == there
    experiment = Experiment(toy_spec(flow="both", predictions=[], landscape_every=0, gauges_every=0))
    first = rows(experiment, 20)
    assert set(experiment.state.coupled.beside) == {"flow", "central"}
    np.testing.assert_allclose(first["central.trace"], 2, rtol=1e-9)  # δ² = 2α/β
    np.testing.assert_allclose(first["central.distance"], 0, atol=1e-9)
    np.testing.assert_allclose(first["central.predicted_loss"], first["central.loss"] + 2 / 0.01, rtol=1e-9)
    assert np.isnan(first["central.distance_smoothed"][:2]).all()
    assert np.isfinite(first["central.distance_smoothed"][2:]).all()
    other = Experiment(experiment.spec)
    other.restore(experiment.leaves())
    on, again = rows(experiment, 40), rows(other, 40)
    for name in on.keys() - {"cost.seconds"}:
        np.testing.assert_array_equal(on[name], again[name], err_msg=name)


@pytest.mark.slow
def test_on_a_network_its_covariance_is_the_multiplier_of_the_constrained_trajectory():
    """From the fourth step on, when the flow has come to the edge; and it stays a thousandth of the way that gradient flow leaves by."""
    spec = chebyshev_spec(0.1, flow="both", predictions=[], gauges_every=0, landscape_every=0)
    table = rows(Experiment(spec), 980)
    edge = np.flatnonzero(np.isfinite(table["constrained.loss"]))[4:]
    assert len(edge) > 100
    ratio = table["central.trace"][edge] / table["covariance.trace"][edge]
    np.testing.assert_allclose(ratio, 1, atol=0.01)
    assert np.median(ratio) == pytest.approx(1, abs=1e-3)
    assert table["central.distance"][edge].max() < 0.05 * table["flow.distance"][edge[-1]]
    assert table["central.sharpness"][edge].max() < 2 / 0.1 * (1 + 1e-5)
