"""Eigenpairs against `eigh`, in both number formats, warm and cold."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.curvature import eigensolver
from engine.curvature.eigensolver import BASIS, Eigenpairs, random_start, sharpness_at, solve_at, top_eigenpairs
from engine.curvature.expansion import Point, measure, normals, taylor_center, with_known_tilt
from engine.problems.problem import Problem

from small import chebyshev_problem, dense_hessian, gradient_at, third_at

pytestmark = pytest.mark.usefixtures("x64")


def quadratic(values: np.ndarray) -> tuple[Problem, jax.Array, jax.Array]:
    """½θᵀAθ with the given eigenvalues and a random orthonormal basis: the problem, a θ, and the basis as columns."""
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (len(values),) * 2, jnp.float64))[0]
    matrix = basis @ jnp.diag(jnp.asarray(values)) @ basis.T
    return Problem(lambda theta, a: theta @ a.astype(theta.dtype) @ theta / 2, matrix), jnp.ones(len(values)), basis


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_eigenpairs_are_those_of_eigh(dtype, tolerance):
    problem, theta = chebyshev_problem()
    hessian = dense_hessian(problem, theta)
    values, vectors = np.linalg.eigh(hessian)
    eigenpairs = sharpness_at(problem, theta.astype(dtype), random_start(0, 0, 3, theta.size, dtype), tolerance, dtype)
    top = eigenpairs.vectors[0].astype(jnp.float64)
    true_residual = np.linalg.norm(hessian @ top - eigenpairs.values[0] * top) / values[-1]
    rounding = 5e-6 if dtype == "float32" else 1e-9
    assert true_residual < tolerance + rounding
    assert abs(float(eigenpairs.residuals[0]) - true_residual) < rounding  # the stated residual is the true one
    np.testing.assert_allclose(eigenpairs.values, values[::-1][:3], atol=1e-2 * values[-1])
    assert abs(eigenpairs.values[0] - values[-1]) < max(tolerance**2, rounding) * values[-1] * 10
    assert abs(top @ vectors[:, -1]) > 1 - 10 * tolerance


def test_a_large_basis_is_restarted_and_still_converges():
    values = np.concatenate([[1.0, 0.999, 0.998], np.linspace(-0.5, 0.99, 297)])  # a small gap: many more products than BASIS
    problem, theta, basis = quadratic(values)
    start = random_start(3, 0, 2, 300, "float64")
    eigenpairs = jax.jit(lambda problem, theta: top_eigenpairs(problem, theta, start, 1e-6, max_hvps=2000))(problem, theta)
    assert int(eigenpairs.hvps) > 2 * BASIS
    assert float(eigenpairs.residuals[0]) <= 1e-6
    assert abs(float(eigenpairs.values[0]) - 1) < 1e-9
    assert abs(eigenpairs.vectors[0] @ basis[:, 0]) > 1 - 1e-5


def test_of_many_parameters_a_smaller_basis_comes_to_the_same_pairs(monkeypatch):
    """Restarts among the products, and each residual made by itself."""
    problem, theta, basis = quadratic(np.concatenate([[1.0, 0.99, 0.97], np.linspace(-0.5, 0.95, 297)]))
    for count in (2, 5):
        start = random_start(3, 0, count, 300, "float64")

        def solved(problem, theta, start=start):
            return eigensolver.solve(problem, theta, start, 1e-6, max_hvps=2000)

        monkeypatch.setattr(eigensolver, "LARGE", 300)
        assert (most := eigensolver.basis_rows(count, 300)) == count + 2
        (sparing, images), hessian = jax.jit(solved)(problem, theta), problem.hessian(theta)
        monkeypatch.setattr(eigensolver, "LARGE", 301)
        plain, _ = jax.jit(partial(solved))(problem, theta)  # compiled anew
        assert int(sparing.hvps) > 2 * most
        assert float(sparing.residuals[0]) <= 1e-6
        np.testing.assert_allclose(sparing.values[0], plain.values[0], rtol=1e-9)
        np.testing.assert_allclose(images, sparing.vectors @ hessian, atol=1e-12)
        left = np.linalg.norm(images - sparing.values[:, None] * sparing.vectors, axis=1) / sparing.values[0]
        np.testing.assert_allclose(sparing.residuals, left, rtol=1e-3, atol=1e-12)
        assert abs(sparing.vectors[0] @ basis[:, 0]) > 1 - 1e-5


def test_a_warm_start_takes_few_products():
    problem, theta = chebyshev_problem()
    cold = measure(problem, theta, random_start(0, 0, 2, theta.size, "float64"), 1e-4, "float64")
    near = measure(problem, theta - 0.01 * gradient_at(problem, theta), cold.eigen.vectors, 1e-4, "float64")
    assert int(near.eigen.hvps) <= 8 < int(cold.eigen.hvps)


def test_a_start_without_the_top_eigenvector_still_finds_it():
    values = np.concatenate([[2.0, 1.0], np.linspace(0, 0.5, 198)])
    problem, theta, basis = quadratic(values)
    start = basis.T[1:3] + 1e-7 * basis.T[0]  # as after a crossing: the basis holds the old pair
    eigenpairs = sharpness_at(problem, theta, start, 1e-4, "float64")
    # A residual-driven search may stop at the old pair; then its residual is honest and an audit from a random start differs.
    audit = sharpness_at(problem, theta, random_start(1, 0, 2, 200, "float64"), 1e-2, "float64")
    assert float(audit.values[0]) == pytest.approx(2, abs=1e-3)
    assert float(eigenpairs.values[0]) <= 2 + 1e-12


def test_products_run_out_with_an_honest_residual():
    values = np.linspace(0, 1, 200)
    problem, theta, _ = quadratic(values)
    eigenpairs = top_eigenpairs(problem, theta, random_start(3, 0, 2, 200, "float64"), 1e-8, max_hvps=10)
    assert int(eigenpairs.hvps) == 10
    assert float(eigenpairs.residuals[0]) > 1e-8


def test_the_center_expands_the_loss():
    problem, theta = chebyshev_problem()
    eigen = sharpness_at(problem, theta, random_start(0, 0, 2, theta.size, "float64"), 1e-10, "float64")
    u = eigen.vectors[0]
    loss, grad = jax.value_and_grad(problem.loss)(theta)
    dS, point = third_at(problem, theta, u, u), Point(theta, loss, grad, eigen)
    center = taylor_center(point, normals(problem, point, "float64"), -u)
    np.testing.assert_allclose(center.top_eigenvector, -u, atol=1e-15)  # the sign is the previous one
    assert abs(center.grad_sharpness_perp @ u) < 1e-10
    np.testing.assert_allclose(center.beta, center.grad_sharpness_perp @ center.grad_sharpness_perp)
    np.testing.assert_allclose(center.alpha, -grad @ dS)
    np.testing.assert_allclose(center.skew, -third_at(problem, theta, u, u) @ u, atol=1e-9)


def test_the_normals_are_the_gradients_of_what_defines_the_stable_set():
    """∇S and ∇(u·∇L) by differences of the dense eigenpair; with every eigenpair at hand the tilt is exact."""
    problem, theta = chebyshev_problem()
    loss, grad = jax.value_and_grad(problem.loss)(theta)
    hessian = np.asarray(dense_hessian(problem, theta))
    values, vectors = np.linalg.eigh(hessian)
    dense = Eigenpairs(jnp.asarray(values[::-1].copy()), jnp.asarray(vectors.T[::-1].copy()), jnp.zeros(theta.size), jnp.array(0))
    exact = normals(problem, Point(theta, loss, grad, dense), "float64")
    few = sharpness_at(problem, theta, random_start(0, 0, 2, theta.size, "float64"), 1e-10, "float64")
    rough = normals(problem, Point(theta, loss, grad, few), "float64")
    u = np.asarray(exact.u)

    def defining(at):
        values, vectors = np.linalg.eigh(dense_hessian(problem, at))
        top = vectors[:, -1] * np.sign(vectors[:, -1] @ u)
        return values[-1], top @ gradient_at(problem, at)

    rng = np.random.default_rng(0)
    for v in rng.standard_normal((4, theta.size)) / np.sqrt(theta.size):
        ahead, behind = defining(theta + 1e-4 * v), defining(theta - 1e-4 * v)
        rises = [(a - b) / 2e-4 for a, b in zip(ahead, behind, strict=True)]
        np.testing.assert_allclose([exact.dS @ v, (values[-1] * u + exact.tilt) @ v], rises, rtol=1e-5, atol=1e-6)
    sign = float(jnp.sign(rough.u @ u))
    np.testing.assert_allclose(rough.dS, exact.dS, atol=1e-7)
    assert np.linalg.norm(sign * rough.tilt - exact.tilt) < 0.1 * np.linalg.norm(exact.tilt)  # 1/S on the eigenvectors not at hand


def test_a_known_tilt_goes_with_the_sign_of_u():
    problem, theta = chebyshev_problem()
    point = Point(theta, *jax.value_and_grad(problem.loss)(theta), sharpness_at(
        problem, theta, random_start(0, 0, 2, theta.size, "float64"), 1e-10, "float64"
    ))
    here = normals(problem, point, "float64")
    for sign in (1, -1):
        again = with_known_tilt(problem, point, here._replace(length=sign * here.length, dS=0 * here.dS, tilt=sign * here.tilt), "float64")
        for actual, expected in zip(again, here, strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_float32_sums_of_many_parameters_do_not_limit_the_residual():
    """XLA's products on a CPU add up a row of 2e6 numbers to 2e-5 or so."""
    u = np.random.default_rng(0).standard_normal(2_000_000)
    u = (u / np.linalg.norm(u)).astype(np.float32)
    problem = Problem(lambda theta, u: 5 * jnp.sum(theta * u) ** 2 + jnp.sum(theta**2) / 20, jnp.asarray(u))
    eigenpairs = solve_at(problem, jnp.zeros(u.size, "float32"), random_start(0, 0, 2, u.size, "float32"), 1e-6, "float32")[0]
    assert eigenpairs.residuals[0] < 1e-6
    assert eigenpairs.hvps < 20
    assert float(eigenpairs.sharpness) == pytest.approx(10.1, rel=1e-6)
