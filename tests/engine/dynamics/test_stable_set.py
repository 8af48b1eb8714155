"""The constrained trajectory as the paper defines it: the projection onto the nearest point of M, S ≤ 2/η with u·∇L = 0. Against closed
forms, where the constraint is slack and where it holds θ† back, and against dense sequential quadratic programming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine import spec as specs
from engine.phases.experiment import Experiment

import own_problems
from oracle import expansion, nearest_stable
from small import gradient_at, rows

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.05
TIGHT = {"sharpness_tolerance": 1e-10, "gradient_tolerance": 1e-10, "eigen_tolerance": 1e-10}


def own_spec(function, eta, arguments=None, **tracking):
    """A problem of `own_problems`, in float64 throughout."""
    tracking = {"gauges_every": 0, "landscape_every": 0, "predictions": ["transported", "generalized"], "flow": False} | tracking
    return specs.from_tree(
        {
            "name": "own",
            "problem": {"kind": "own", "function": f"own_problems:{function}", "arguments": arguments or {}, "self_test": False},
            "optimizer": {"learning_rate": eta}, "tracking": tracking,
            "precision": {"approach": "float64", "edge": "float64", "curvature": "float64"},
        },
        "test",
    )


def let_go(y, z, steps):
    """θ† of `own_problems.let_go` in closed form: (steps, 2)."""
    path = []
    for _ in range(steps):
        path.append((y, z))
        y, z = min(0.0, y + ETA * np.cos(z) / 4), z + ETA * (1 - y * np.sin(z) / 4)
    return np.array(path)


FORMED_OR_NOT = [0, pytest.param(70, marks=pytest.mark.slow)]
"""Flat directions more: the Hessian formed, and not."""


@pytest.mark.parametrize("spare", FORMED_OR_NOT)
def test_the_constrained_trajectory_is_slack_then_slides_then_is_let_go(spare):
    made = own_problems.let_go(spare=spare)
    center, path = engine.stable_point(made.problem, made.theta, ETA), []
    for _ in range(90):
        path.append(np.asarray(center.theta[1:3]))
        center = engine.constrained_step(made.problem, center, ETA)
    exact = let_go(-0.1, 0.0, 90)
    np.testing.assert_allclose(path, exact, atol=1e-7)
    slides = exact[:, 0] == 0
    assert not slides[0]
    assert slides[15]
    assert not slides[89]  # it was all three


@pytest.mark.parametrize("spare", FORMED_OR_NOT)
def test_the_record_tells_where_the_constraint_holds_back(spare):
    """Entered at the first midpoint beyond 2/η; let go 31 steps after the start, when cos z becomes negative."""
    arguments = {"start": [0.02, -0.02, 0.0], "spare": spare}
    record = rows(Experiment(own_spec("let_go", ETA, arguments, **TIGHT)), 85)
    edge = int(np.flatnonzero(np.isfinite(record["constrained.loss"]))[0])
    excess = record["constrained.sharpness"][edge:] - 2 / ETA
    active = record["constrained.active"][edge:] == 1
    assert excess.max() < 1e-8
    assert active[3]
    assert not active[-1]  # let go once cos z < 0
    assert (np.abs(excess[active]) < 1e-8).all()
    assert (np.diff(excess[~active]) < 0).all()
    np.testing.assert_allclose(record["constrained.sharpness_gap"][edge:][~active], 0)
    alpha = record["constrained.alpha"][edge:]
    assert (alpha[active][:-1] > 0).all()
    assert (alpha[~active] < 0).all()
    y = record["constrained.sharpness"][edge:] - 40
    expected = y[:-1] - ETA * -alpha[:-1]  # α = ¼cos z here, whatever y
    np.testing.assert_allclose(y[1:], np.minimum(0, expected), atol=1e-8)


@pytest.mark.parametrize("form", ["transported", "generalized", "code"])
def test_predictions_hold_where_the_constraint_is_slack(form):
    """About a slack θ† nothing but −η∇L moves it: on this loss the prediction is gradient descent's own map, to third order in x."""
    made = own_problems.let_go()
    center = engine.stable_point(made.problem, jnp.array([0.0, -0.4, 0.3]), ETA)
    following = engine.constrained_step(made.problem, center, ETA)
    assert float(following.sharpness) < 2 / ETA - 0.2
    v = jnp.array([1e-3, 2e-3, 0.0])
    after = center.theta + v - ETA * gradient_at(made.problem, center.theta + v) - following.theta
    predicted = engine.predicted_step(made.problem, center, following, v, ETA, form)
    np.testing.assert_allclose(predicted, after, atol=2e-6)
    np.testing.assert_allclose(predicted[0], -(1 - 0.4 * ETA + ETA * 2e-3) * 1e-3, atol=1e-9)


def test_a_target_in_the_stable_set_is_its_own_projection():
    made = own_problems.let_go()
    inside = jnp.array([0.0, -0.7, 0.4])
    np.testing.assert_allclose(engine.stable_point(made.problem, inside, ETA).theta, inside, atol=1e-12)


def followed(side, eta, steps, every):
    """θ† of a network from the edge on, held to the nearest points by dense quadratic programming: its losses, whether the constraint
    held it back, and the last centre with its multiplier."""
    loss = own_problems.logistic(side).problem.loss
    experiment = Experiment(own_spec("logistic", eta, {"side": side}, on_second_eigenvalue="keep"))
    while experiment.edge_step is None:
        experiment.advance(1000)
    gradient = jax.jit(jax.grad(loss))
    exact, multiplier = nearest_stable(loss, np.asarray(experiment.state.theta), eta, tolerance=1e-9)
    losses, record = [], []
    for k in range(steps):
        center = experiment.state.center
        losses.append(float(center.loss))
        if k % every == every - 1:
            there = expansion(loss, jnp.asarray(exact))
            perp = there.grad_sharpness - there.vectors[0] * (there.vectors[0] @ there.grad_sharpness)
            delta = np.sqrt(abs(2 * (there.gradient @ there.grad_sharpness) / (perp @ perp)))
            assert np.linalg.norm(center.theta - exact) < 0.01 * delta, k
            np.testing.assert_allclose(float(center.sharpness), there.values[0], rtol=2e-4)
        target = exact - eta * np.asarray(gradient(jnp.asarray(exact)))
        exact, multiplier = nearest_stable(loss, target, eta, begin=exact, tolerance=1e-9)
        record += experiment.advance(1).rows
    active = np.array(record)[:, experiment.setup.column_index["constrained.active"]]
    return np.array(losses), active, experiment.state.center, multiplier


@pytest.mark.slow
def test_a_network_slides_along_the_nearest_points():
    """At ε = 0.15: within 1 % of δ, and the loss falls (Lemma 14)."""
    losses, active, _, multiplier = followed(4, 0.3, 24, 4)
    assert active[2:].all()
    assert multiplier > 0
    assert np.max(np.diff(losses)) < 0


@pytest.mark.slow
def test_an_episode_of_a_network_follows_the_nearest_points():
    """Sliding for 54 steps and let go, where α becomes negative: the sharpness falls under the threshold."""
    losses, active, center, multiplier = followed(7, 0.12, 75, 5)
    assert np.max(np.diff(losses)) < 0
    assert active[10] == 1
    assert active[-1] == 0
    assert multiplier == 0
    assert float(center.sharpness) * 0.12 / 2 < 0.99
