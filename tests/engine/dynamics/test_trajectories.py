"""The constrained trajectory and the predicted dynamics against their definitions, in float64."""

import itertools

import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from engine import spec as specs
from engine.curvature.eigensolver import Eigenpairs
from engine.curvature.expansion import Normals, Point, direction, normals
from engine.curvature.predictor import predict_eigenvectors
from engine.dynamics.constrained import project, project_center, slide
from engine.dynamics.descent import descend
from engine.dynamics.flow import flow_step
from engine.dynamics.predicted import FORMS, carry, displacement, predict
from engine.phases import projection
from engine.phases.coupled_loop import expected_eigenvectors
from engine.phases.edge_state import step_params
from engine.phases.experiment import Experiment
from engine.phases.projection import project_until_converged, start_projection
from engine.problems.problem import Problem
from engine.record.columns import columns_for

from small import chebyshev_spec, dense_hessian, gradient_at, loss_at, rows, third_at, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.2


@pytest.fixture(scope="module")
def at_the_edge(x64):
    """A small network at the edge for sixty steps: the experiment's setup, its states one a step, and its record."""
    tight = {"sharpness_tolerance": 1e-9, "gradient_tolerance": 1e-9, "eigen_tolerance": 1e-10, "flow": True, "anchor_every": 0}
    experiment = Experiment(chebyshev_spec(ETA, **tight))
    while experiment.edge_step is None:
        experiment.advance(10_000)
    states, record = [experiment.state], []
    for _ in range(60):
        record += experiment.advance(1).rows
        states.append(experiment.state)
    table = np.array(record)
    return experiment.setup, states, {name: table[:, k] for name, k in experiment.setup.column_index.items()}


def test_the_constrained_trajectory_stays_in_the_stable_set(at_the_edge):
    setup, states, _ = at_the_edge
    for state in states[::6]:
        center = state.center
        values, vectors = np.linalg.eigh(dense_hessian(setup.problem, center.theta))
        assert values[-1] * ETA / 2 - 1 < 1e-8
        gradient = gradient_at(setup.problem, center.theta)
        assert abs(gradient @ vectors[:, -1]) / np.linalg.norm(gradient) < 1e-8
        assert abs(center.top_eigenvector @ vectors[:, -1]) > 1 - 1e-8
        np.testing.assert_allclose(center.eigen.values[1], values[-2], rtol=1e-3)


def test_the_recorded_coefficients_are_their_formulas(at_the_edge):
    setup, states, record = at_the_edge
    for k in (0, 20, 59):
        theta = states[k].center.theta
        u = np.linalg.eigh(dense_hessian(setup.problem, theta))[1][:, -1]
        gradient = gradient_at(setup.problem, theta)
        dS = third_at(setup.problem, theta, u, u)
        perp = dS - u * (u @ dS)
        v = states[k].theta - theta
        alpha, beta = -gradient @ dS, perp @ perp
        expected = {
            "constrained.alpha": alpha, "constrained.beta": beta, "constrained.delta": np.sqrt(2 * alpha / beta),
            "constrained.epsilon": ETA * np.sqrt(alpha), "gd.y": perp @ v, "gd.distance": np.linalg.norm(v),
            "constrained.gamma": alpha / np.linalg.norm(gradient) / np.linalg.norm(perp),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(record[name][k], value, rtol=1e-6, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(abs(record["gd.x"][k]), abs(u @ v), rtol=1e-5, atol=1e-10)


def test_lemma_13_predicts_the_step_to_second_order(at_the_edge):
    """Projecting θ† − s∇L onto the same stable set differs from θ† − sP^⊥_{u,∇S}∇L by O(s²): halving s quarters it."""
    setup, states, _ = at_the_edge
    center = states[30].center
    misses, across = [], center.grad @ center.grad_sharpness_perp / center.beta
    for s in (ETA, ETA / 2, ETA / 4):
        target = center.theta - s * center.grad
        guess = project_center(center, target, 2 / ETA).theta
        lemma = center.theta - s * (center.grad - center.grad_along_u * center.top_eigenvector - across * center.grad_sharpness_perp)
        np.testing.assert_allclose(guess, lemma, atol=1e-9)
        begun = start_projection(target, center.eigen.vectors, center.point, center.normals)
        settled = project_until_converged(setup.problem, step_params(setup, states[30].optimizer, 0), begun, "float64", afresh=True).point
        misses.append(float(jnp.linalg.norm(settled.theta - guess)))
    assert misses[0] < 0.05 * ETA * float(jnp.linalg.norm(center.grad))
    assert 3.5 < misses[0] / misses[1] < 4.5
    assert 3.5 < misses[1] / misses[2] < 4.5


def test_a_tilt_serves_four_steps_where_a_step_has_little_along_it(monkeypatch):
    """θ† is then where it is with one of its own at every step, within a tenth of the tolerance at each."""
    ends, steps, tolerance = [], 20, 1e-4
    for every in (projection.TILT_EVERY, 1):
        monkeypatch.setattr(projection, "TILT_EVERY", every)
        monkeypatch.setattr(projection, "TILT_PHASE", every // 2)
        tolerances = {"sharpness_tolerance": tolerance, "gradient_tolerance": 1e-9, "eigen_tolerance": 1e-10}
        spec = chebyshev_spec(ETA, **tolerances, flow=False, gauges_every=0, landscape_every=0)
        experiment = Experiment(specs.with_overrides(spec, ["problem.data.degree=4"]))  # T3, which is odd, has no tilt
        while experiment.edge_step is None:
            experiment.advance(10_000)
        record = rows(experiment, experiment.edge_step + steps)
        assert jnp.linalg.norm(experiment.state.center.tilt) > 1e-3 * experiment.state.center.sharpness
        assert set(record["cost.grad_sharpness"][2:]) == ({1, 2} if every > 1 else {2})
        ends.append(experiment.state.center)
    apart = jnp.linalg.norm(ends[0].theta - ends[1].theta) * jnp.sqrt(ends[0].beta) * ETA / 2
    assert apart < steps * projection.TILTED * tolerance


def test_what_a_step_has_along_the_tilt_is_told(at_the_edge):
    """Of the way to the target it leaves μ(Su + tilt) + ν∇S out; |μ|‖tilt‖ in units of what ∇S makes of it."""
    center = at_the_edge[1][30].center
    center = center._replace(tilt=jnp.asarray(np.random.default_rng(0).standard_normal(center.theta.size)))  # which symmetry forbids here
    target = center.theta - ETA * center.grad + 1e-3 * center.tilt
    landed = project_center(center, target, 2 / ETA)
    normals = np.stack([center.sharpness * center.top_eigenvector + center.tilt, center.grad_sharpness])
    mu, _ = np.linalg.lstsq(normals.T, target - landed.theta, rcond=None)[0]
    expected = abs(mu) * np.linalg.norm(center.tilt) * np.linalg.norm(center.grad_sharpness) * ETA / 2
    np.testing.assert_allclose(landed.tilted, expected, rtol=1e-6)


def test_the_solver_starts_at_gradient_descent_from_what_u_turned_by_before(at_the_edge):
    """It begins nearer than with the eigenvector of two steps ago, on the same side, while x is nothing and once it swings."""
    setup, states, _ = at_the_edge
    misses = []
    for state in states[6:60:2]:
        hessian, starts = dense_hessian(setup.problem, state.theta), (
            expected_eigenvectors(state.coupled)[0], state.coupled.descent.eigenvectors[0][0],
        )
        for v in (np.asarray(start / jnp.linalg.norm(start)) for start in starts):
            misses.append(np.linalg.norm(hessian @ v - (v @ hessian @ v) * v) / (v @ hessian @ v))
    ours, before = np.reshape(misses, (-1, 2)).T
    assert np.median(ours) < np.median(before) / 3
    assert (ours < 1.2 * before).all()
    track, u = states[20].coupled.descent, states[20].center.top_eigenvector
    still = predict_eigenvectors(u, jnp.zeros_like(u), track.offsets, jnp.zeros(4), track.eigenvectors[0])
    assert jnp.isfinite(still).all()


def test_what_is_known_at_a_point_slides_with_it_to_third_order(at_the_edge):
    """Loss, gradient, S and the pair's residual after a slide are those measured there: an eighth of the way off at half the way."""
    setup, states, _ = at_the_edge
    problem, center = setup.problem, states[20].center
    u = center.top_eigenvector
    errors = []
    for size in (2e-3, 1e-3):
        theta = center.theta + size * u
        values, vectors = np.linalg.eigh(dense_hessian(problem, theta))
        pairs = Eigenpairs(jnp.asarray(values[::-1][:2]), jnp.asarray(vectors.T[::-1][:2]), jnp.zeros(2), jnp.array(0))
        point = Point(theta, loss_at(problem, theta), gradient_at(problem, theta), pairs)
        there = normals(problem, point, "float64")
        slid, turn = slide(point, direction(point, there), pairs.values[0] * pairs.vectors[0])
        there, first = dense_hessian(problem, slid.theta), pairs.vectors[0]
        residual = np.linalg.norm(there @ first - (first @ there @ first) * first)
        assert abs(first @ gradient_at(problem, slid.theta)) < 1e-7
        np.testing.assert_allclose(turn, float(slid.eigen.residuals[0]), rtol=1e-6)
        np.testing.assert_allclose(float(slid.eigen.residuals[0]), residual / float(slid.eigen.values[0]), rtol=2e-2)
        errors.append([
            abs(slid.loss - loss_at(problem, slid.theta)), np.linalg.norm(slid.grad - gradient_at(problem, slid.theta)),
            abs(slid.eigen.values[0] - first @ there @ first),
        ])
    assert np.all(errors[0] / np.array(errors[1]) > [14, 7, 3.5]), errors


def test_the_projection_removes_the_linearised_excess():
    """On a loss whose S is linear in θ one projection is exact: the toy, displaced along y."""
    from engine.curvature.eigensolver import random_start
    from engine.curvature.expansion import measure
    from engine.problems.build import build

    problem, theta, _ = build(toy_spec(0.01))
    moved = theta.at[0].set(0.0).at[1].set(3.0)  # S = 2/η + 3
    point = measure(problem, moved, random_start(0, 0, 2, 3, "float64"), 1e-8, "float64")
    normal = Normals(jnp.array([[1.0, 0, 0]]), jnp.ones(()), jnp.array([0.0, 1.0, 0.0]), jnp.zeros(3))
    landed = project(point, direction(point, normal), normal, moved, 2 / 0.01)
    assert int(landed.active) == 1
    np.testing.assert_allclose(landed.theta, [0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(landed.residuals.sharpness, 3 * 0.01 / 2, rtol=1e-12)


def test_prediction_is_real_on_the_toy():
    record = rows(Experiment(toy_spec(0.01, sharpness_tolerance=1e-13, gradient_tolerance=1e-13)), 400)
    for form in ("transported", "code", "generalized"):
        np.testing.assert_allclose(record[f"{form}.x"], record["gd.x"], atol=1e-8)
        np.testing.assert_allclose(record[f"{form}.y"], record["gd.y"], atol=1e-8)
    assert record["gd.x"].max() > 3  # it went through a burst, so that is not the trivial agreement of small numbers


def test_unrolling_definition_7_gives_equation_5(at_the_edge):
    """y⋆_{t+1} = η Σ_s β_{s→t}(δ_s² − x⋆_s²)/2 when v_0 lies along u, with β_{s→t} from dense products."""
    setup, states, _ = at_the_edge
    centers = [state.center for state in states[:13]]
    v = 0.02 * centers[0].top_eigenvector
    predictions = dict.fromkeys(FORMS, v)
    xs, ys = [], []
    for now, after in itertools.pairwise(centers):
        predicted = displacement(predictions["transported"], now)
        xs.append(float(predicted.x))
        ys.append(float(predicted.y))
        advanced = predict(setup.problem, now, predictions, {"generalized": jnp.zeros(())}, ETA, 2 / ETA, "float64")
        predictions = carry(advanced, after.top_eigenvector)

    def transport(t):
        u = centers[t].top_eigenvector
        hessian = dense_hessian(setup.problem, centers[t].theta)
        size = len(u)
        return (jnp.eye(size) - ETA * hessian) @ (jnp.eye(size) - jnp.outer(u, u))

    for t in range(len(xs) - 1):
        total = 0.0
        for s in range(t + 1):
            carried = centers[s].grad_sharpness_perp
            for k in range(s + 1, t + 1):
                carried = transport(k) @ carried
            beta = centers[t + 1].grad_sharpness_perp @ carried
            total += ETA * float(beta * (centers[s].delta_squared - xs[s] ** 2)) / 2
        np.testing.assert_allclose(ys[t + 1], total, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(xs[t + 1], -(1 + ETA * ys[t]) * xs[t], rtol=1e-9)


@pytest.mark.parametrize("span", [0.5, 1.0, 1.5, 2.1, 2.6, 3.0, 3.4, 4.7, 6.0])
def test_a_flow_step_is_nearer_the_flow_than_the_papers_for_no_more_gradients(span):
    """ηS = `span` on a quadratic loss, whose flow is e^−ηλ: against ⌈ηS⌉ Euler steps, eigenvalue by eigenvalue, up to S and 8 % beyond."""
    share = np.linspace(0, 1.08, 55)
    quadratic = Problem(lambda theta, values: jnp.sum(values * theta**2) / 2, jnp.asarray(share * span / ETA))
    theta = jnp.ones(share.size)
    moved, gradients = flow_step(quadratic, theta, gradient_at(quadratic, theta), ETA, jnp.array(span / ETA))
    euler = int(np.ceil(span))
    assert gradients <= euler
    assert (np.abs(moved) <= 1).all()
    slow = share < 0.1  # what is left to follow: the flow has come down the steep ones before
    misses, papers = (np.abs(factor - np.exp(-share * span))[slow] for factor in (np.asarray(moved), (1 - share * span / euler) ** euler))
    assert (misses <= 1.25 * papers + 1e-12).all()
    if span < 2.7:
        assert (misses <= papers + 1e-12).all()


def test_a_flow_step_is_gradients_within_substeps_or_euler_steps_by_an_earlier_sharpness(at_the_edge):
    setup, states, _ = at_the_edge
    theta, h = states[0].center.theta, ETA / 2
    moved, gradients = flow_step(setup.problem, theta, gradient_at(setup.problem, theta), ETA, jnp.array(5 / ETA))
    expected = theta
    for _ in range(2):
        within = expected - 0.9 / 2.5 * h * gradient_at(setup.problem, expected)
        expected = expected - h * gradient_at(setup.problem, within)
    assert gradients == 4
    np.testing.assert_allclose(moved, expected, atol=1e-14)
    moved, gradients = flow_step(setup.problem, theta, gradient_at(setup.problem, theta), ETA, jnp.array(2.5 / ETA), read=False)
    expected = theta
    for _ in range(3):
        expected = expected - ETA / 3 * gradient_at(setup.problem, expected)
    assert gradients == 3
    np.testing.assert_allclose(moved, expected, atol=1e-14)


def test_the_recorded_flow_is_the_flow(at_the_edge):
    """Against the classical Runge–Kutta method in sixteenths of a step, over sixty steps: nearer than by Euler steps as in the paper."""
    setup, states, record = at_the_edge
    exact = euler = begun = states[0].coupled.beside["flow"].theta
    for k in range(60):
        for _ in range(16):
            exact = _runge_kutta(setup.problem, exact, ETA / 16)
        count = int(np.ceil(ETA * record["flow.sharpness"][-60 + k]))
        for _ in range(count):
            euler = euler - ETA / count * gradient_at(setup.problem, euler)
    misses = [float(jnp.linalg.norm(theta - exact)) for theta in (states[60].coupled.beside["flow"].theta, euler)]
    assert misses[0] < 0.8 * misses[1]
    assert misses[0] < 2e-3 * float(jnp.linalg.norm(exact - begun))


def _runge_kutta(problem, theta, h):
    a = gradient_at(problem, theta)
    b = gradient_at(problem, theta - h / 2 * a)
    c = gradient_at(problem, theta - h / 2 * b)
    return theta - h / 6 * (a + 2 * b + 2 * c + gradient_at(problem, theta - h * c))


def test_the_flow_leaves_the_stable_set_and_the_constrained_trajectory_does_not(at_the_edge):
    _, _, record = at_the_edge
    assert (np.diff(record["flow.sharpness"]) > 0).all()
    assert record["flow.sharpness"][-1] > 1.1 * 2 / ETA
    np.testing.assert_allclose(record["constrained.sharpness"], 2 / ETA, rtol=1e-8)
    assert (np.diff(record["flow.distance"]) > 0).all()


@pytest.mark.parametrize("start", ["constrained", "descent"])
def test_gradient_flow_starts_where_it_is_asked_to_and_its_words_say_so(at_the_edge, start):
    from_center, (_, states, default) = start == "constrained", at_the_edge
    spec = chebyshev_spec(ETA, flow_start=start, landscape_every=0, gauges_every=0)
    experiment = Experiment(spec)
    record = rows(experiment, states[0].clock.step + 3)
    at = int(np.flatnonzero(record["step"] == states[0].clock.step)[0])
    family = "constrained" if from_center else "gd"
    assert record["flow.loss"][at] == pytest.approx(record[f"{family}.loss"][at], rel=1e-12)
    assert record["flow.sharpness"][at] == pytest.approx(record[f"{family}.sharpness"][at], rel=1e-3)
    assert record["flow.distance"][at] == pytest.approx(0 if from_center else record["gd.distance"][at], abs=1e-12)
    assert record["gd.distance"][at] > 1e-6
    if from_center:  # it is what is not asked for
        assert record["flow.loss"][at + 2] == pytest.approx(default["flow.loss"][2], rel=1e-4)
    words = {column.name: column.words for column in columns_for(spec)}
    assert words["flow.loss"].endswith("from θ†_0" if from_center else "from gradient descent's θ at the edge")


def test_the_predicted_distance_is_the_length_of_the_predicted_displacement(at_the_edge):
    _, states, record = at_the_edge
    for k in (0, 7, 30):
        for form in ("generalized", "transported", "code"):
            v = states[k].coupled.predicted.displacements[form]
            assert record[f"{form}.distance"][k] == pytest.approx(np.linalg.norm(v), rel=1e-12)
    assert record["transported.distance"][0] == pytest.approx(record["gd.distance"][0], rel=1e-12)  # anchored there


def test_descent_does_not_depend_on_how_it_is_cut(at_the_edge):
    setup, states, _ = at_the_edge
    theta = states[0].theta.astype("float32")
    optimizer, state = setup.optimizer, states[0].optimizer
    whole = descend(setup.problem, optimizer, theta, state, 20)
    first = descend(setup.problem, optimizer, theta, state, 7)
    second = descend(setup.problem, optimizer, first.theta, first.optimizer_state, 13)
    assert (whole.theta == second.theta).all()
    assert (whole.losses[7:20] == second.losses[:13]).all()


def test_the_generalized_sharpness_is_that_of_appendix_f(at_the_edge):
    """F''(x⋆) + y⋆, with F'' = uᵀ∇²L(θ† + x⋆u)u from the dense Hessian, and L(θ†) + F(x⋆); the slope is in θ's own format."""
    setup, states, record = at_the_edge
    for k in (10, 40, 59):
        center = states[k].center
        place = center.theta + record["generalized.x"][k] * center.top_eigenvector
        u = np.asarray(center.top_eigenvector)
        bend = u @ np.asarray(dense_hessian(setup.problem, place)) @ u
        np.testing.assert_allclose(record["generalized.sharpness"][k], bend + record["generalized.y"][k], rtol=1e-10)
        np.testing.assert_allclose(record["generalized.loss"][k], loss_at(setup.problem, place), rtol=1e-13)


SCALE = 2.0**27


def scaled_spec(scale):
    """A small network in mixed formats whose loss is divided by a power of two, and its η and ODE times multiplied by it."""
    tree = msgspec.to_builtins(chebyshev_spec(ETA, audit_every=10, landscape_every=20, gauges_every=0, beta_every=4))
    tree["problem"] = {"kind": "own", "function": "own_problems:chebyshev", "arguments": {"scale": 1 / scale}, "self_test": False}
    tree |= {"precision": {}, "approach": {"check_times": [time * scale for time in (1.0, 0.1, 0.01)]}}
    tree["optimizer"] = {"learning_rate": ETA * scale}
    return specs.from_tree(tree, "test")


@pytest.mark.slow
def test_no_number_hangs_on_the_size_of_the_loss():
    """L/2²⁷ with η·2²⁷ is the same problem to the bit: every column is, in its own units."""
    one, other = (rows(Experiment(scaled_spec(scale)), 420) for scale in (1.0, SCALE))
    assert np.isfinite(one["generalized.x"]).sum() > 100
    per_loss = {"loss", "sharpness", "midpoint_sharpness", "gradient_norm", "y", "spike", "skew", "sharpness_gap", "gradient_along_u",
                "loss_order", "sharpness_order", "limit", "limit_turned", "threshold", *(f"lambda{k}" for k in range(2, 17))}
    per_loss |= {"predicted_loss"}
    squared = {"alpha", "beta", "beta_oldest", "gradient_squared", "predicted_gradient_squared"}
    for name, values in one.items():
        quantity = name.rpartition(".")[2]
        units = 1 / SCALE**2 if quantity in squared else 1 / SCALE if quantity in per_loss else 1.0
        units = SCALE if name in ("time", "learning_rate") else 1.0 if name.startswith("covariance.") else units
        np.testing.assert_allclose(other[name], values * units, rtol=1e-9, err_msg=name)
