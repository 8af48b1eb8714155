"""θ† and the predictions with several directions at the edge: against closed forms, and against what one direction gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine import spec as specs
from engine import theory
from engine.curvature import directions
from engine.curvature.eigensolver import random_start
from engine.curvature.expansion import direction, measure_all, normals, taylor_center
from engine.dynamics import predicted
from engine.dynamics.constrained import covariance, project, project_along, slide, slide_along
from engine.problems.toy import symmetric_basis, toy_k
from engine.xla.packed import packed

from small import chebyshev_problem

pytestmark = pytest.mark.usefixtures("x64")
ETA = 0.05


def along_at(problem, theta, number, room, basis=None):
    """A point with its directions and their normals."""
    start = random_start(0, 0, room + 1, theta.size, "float64")
    point, images = measure_all(problem, theta, start, 1e-12, "float64", tight=number)
    known = directions.around(point.eigen.vectors[:number] if basis is None else basis, room)
    there, along = directions.turned(point.eigen, images, known)
    return point, directions.normals_along(problem, point, there, "float64"), along


def chebyshev_near_edge():
    """A network at a θ where 2/η is between its sharpness and what that would become."""
    problem, theta = chebyshev_problem()
    sharpness = float(measure_all(problem, theta, random_start(0, 0, 2, theta.size, "float64"), 1e-10, "float64")[0].eigen.sharpness)
    return problem, theta, sharpness * 0.999


@pytest.mark.slow
def test_one_direction_is_projected_as_one():
    problem, theta, threshold = chebyshev_near_edge()
    point, there, along = along_at(problem, theta, 1, 2)
    one = normals(problem, point, "float64")._replace(tilt=there.tilts[0] * jnp.sign(there.basis[0] @ point.eigen.vectors[0]))
    point = point._replace(grad=0.3 * point.grad - 0.1 * one.dS / jnp.linalg.norm(one.dS))  # one that sharpens
    point = point._replace(grad=point.grad - (point.grad @ one.u) * one.u)
    target = theta - 0.01 * point.grad
    alone = project(point, direction(point, one), one, target, threshold)
    several = project_along(theta, point.grad, there, target, threshold, jnp.zeros((2, 2)))
    size = float(jnp.linalg.norm(alone.theta - theta))
    np.testing.assert_allclose(several.theta, alone.theta, atol=1e-10 * size)
    assert float(several.residuals.sharpness) == pytest.approx(float(alone.residuals.sharpness), rel=1e-8)
    assert int(several.active) == int(alone.active) == 1

    center = taylor_center(point, one, one.u)
    balance = float(center.balance(0.01, threshold))
    matrix = covariance(there, point.grad, 0.01, threshold, jnp.zeros((2, 2)))
    assert float(matrix[0, 0]) == pytest.approx(balance, rel=1e-9)
    assert not np.asarray(matrix)[1].any()

    moved, angle = slide(point, direction(point, one), along[0] * jnp.sign(there.basis[0] @ one.u))
    slid = slide_along(point, there, along)
    np.testing.assert_allclose(slid.point.theta, moved.theta, atol=1e-12)
    np.testing.assert_allclose(slid.point.grad, moved.grad, atol=1e-12)
    assert float(slid.point.loss) == pytest.approx(float(moved.loss), rel=1e-13)
    assert float(slid.point.eigen.sharpness) == pytest.approx(float(moved.eigen.sharpness), rel=1e-8)
    assert float(slid.angle) == pytest.approx(float(angle), rel=1e-6)


@pytest.mark.parametrize("form", ["generalized", "transported", "code", "full_cubic"])
def test_one_direction_is_predicted_as_one(form):
    problem, theta, threshold = chebyshev_near_edge()
    point, there, _ = along_at(problem, theta, 1, 2)
    point = point._replace(grad=0.3 * point.grad - 0.1 * there.third[0] / jnp.linalg.norm(there.third[0]))
    sign = jnp.sign(there.basis[0] @ point.eigen.vectors[0])
    center = taylor_center(point, normals(problem, point, "float64"), sign * point.eigen.vectors[0])
    v = 0.01 * jnp.asarray(np.random.default_rng(0).standard_normal(theta.size))
    matrix = covariance(there, point.grad, ETA, threshold, jnp.zeros((2, 2)))
    slope = jnp.asarray(0.3)
    alone = predicted.predict(problem, center, {form: v}, {form: slope}, ETA, threshold, "float64")
    several = predicted.predict(problem, center, {form: v}, {form: jnp.array([slope, 0.0])}, ETA, threshold, "float64", there, matrix)
    one = predicted.carry(alone, center.top_eigenvector)[form]
    both = predicted.carry(several, there.basis)[form]
    np.testing.assert_allclose(both, one, atol=1e-9 * float(jnp.linalg.norm(one)))


def toy(covariances, beta=1.0):
    part = specs.ToyK(covariance=covariances, beta=beta)
    problem, theta, _ = toy_k(part, 2 / ETA)
    return problem, jnp.asarray(theta, jnp.float64)


@pytest.mark.parametrize(("count", "room"), [(3, 4), *(pytest.param(size, size, marks=pytest.mark.slow) for size in (2, 4))])
def test_the_nearest_point_of_the_stable_set_is_the_negative_part_of_a_matrix(count, room):
    """On the toy of k directions M_k is x = 0 and Y(s) ⪯ 0, and s are coordinates of Y/√β in an orthonormal basis of matrices: the
    projection keeps the negative part of Y, and its multiplier is the positive one."""
    problem, theta = toy(tuple(np.linspace(1, 2, count)))
    random = np.random.default_rng(count)
    for _ in range(5):
        matrix = random.standard_normal((count, count)) * 0.3
        matrix += matrix.T
        values, axes = np.linalg.eigh(matrix)
        positive = (axes * np.maximum(values, 0)) @ axes.T
        coordinates = np.einsum("mij,ij->m", symmetric_basis(count), matrix)
        # linearised at x = 0, s = 0, where the frame is any: D_ij is exact everywhere and one step leads there
        point, there, _ = along_at(problem, theta.at[:count].set(0.0), count, room, jnp.eye(count, theta.size))
        target = jnp.concatenate([0.1 * jnp.asarray(random.standard_normal(count)), jnp.asarray(coordinates)])
        landed = project_along(point.theta, point.grad, there, target, 2 / ETA, jnp.zeros((room, room)))
        np.testing.assert_allclose(landed.theta[:count], 0, atol=1e-10)
        np.testing.assert_allclose(landed.multiplier[:count, :count], 2 * positive, atol=1e-9)
        assert int(landed.active) == (values > 1e-6).sum()
        kept = np.einsum("mij,ij->m", symmetric_basis(count), matrix - positive)
        np.testing.assert_allclose(landed.theta[count:], kept, atol=1e-9)


def test_the_covariance_of_the_toy_is_the_one_it_is_made_of():
    problem, theta = toy((1.0, 2.5, 4.0), beta=0.7)
    point, there, _ = along_at(problem, theta.at[:3].set(0.0), 3, 4, jnp.eye(3, theta.size))
    matrix = covariance(there, point.grad, ETA, 2 / ETA, jnp.zeros((4, 4)))
    np.testing.assert_allclose(np.asarray(matrix)[:3, :3], np.diag([1.0, 2.5, 4.0]), atol=1e-9)


def test_the_transported_prediction_is_the_map_of_several_directions():
    """(3_k) for 200 steps on the toy, whose θ† stays at x = 0 with Y = 0."""
    problem, theta = toy((1.0, 2.0), beta=0.9)
    origin = theta.at[:2].set(0.0)
    point, there, _ = along_at(problem, origin, 2, 2, jnp.eye(2, theta.size))
    center = taylor_center(point, directions.first(there), point.eigen.vectors[0])
    matrix = covariance(there, point.grad, ETA, 2 / ETA, jnp.zeros((2, 2)))
    v = jnp.zeros(theta.size).at[:2].set(jnp.array([0.9, -0.4]))
    x, y, gram = np.array([0.9, -0.4]), np.zeros((2, 2)), theory.gram_of_identity(2, 0.9)
    for _ in range(200):
        advanced = predicted.predict(problem, center, {"transported": v}, {}, ETA, 2 / ETA, "float64", there, matrix)
        v = predicted.carry(advanced, there.basis)["transported"]
        x, y = theory.map_step_k(x, y, np.diag([1.0, 2.0]), gram, ETA)
        _, at, _ = predicted.coordinates(center, there, v, {"transported": v})
        np.testing.assert_allclose(at["transported"].along, x, atol=1e-11)
        np.testing.assert_allclose(packed(at["transported"].bend), packed(jnp.asarray(y)), atol=1e-10)
