"""The toy of several directions: gradient descent on it is (3_k), and θ† holds by X†, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import spec as specs
from engine import theory
from engine.base.errors import UserError
from engine.problems.build import build
from engine.problems.toy import symmetric_basis
from engine.spec import load_spec

from small import dense_hessian, dense_third, gradient_at, third_at

pytestmark = pytest.mark.usefixtures("x64")
ETA, BETA = 0.01, 0.7
COVARIANCES = {2: [1.3, 0.4], 3: [1.0, 0.6, 0.3]}


def toy_k(covariance: list[float], **problem) -> specs.RunSpec:
    tree = {"kind": "toy_k", "covariance": covariance, "beta": BETA, "x0": [0.3 / k for k in range(1, len(covariance) + 1)]}
    return specs.from_tree({"name": "toy-k", "problem": tree | problem, "optimizer": {"learning_rate": ETA}}, "test")


def descent(spec: specs.RunSpec, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent on the problem: θ of each step (steps+1, p), and of it Y (steps+1, k, k)."""
    problem, theta, _ = build(spec)
    eta, count = spec.optimizer.learning_rate, len(spec.problem.covariance)

    def step(theta, _):
        moved = theta - eta * problem.gradient(theta)
        return moved, moved

    path = np.array(jax.jit(lambda theta: jax.lax.scan(step, theta, None, steps)[1])(theta))
    path = np.concatenate([theta[None], path])
    return path, np.sqrt(spec.problem.beta) * np.einsum("tm,mij->tij", path[:, count:], symmetric_basis(count))


@pytest.mark.parametrize("count", COVARIANCES)
@pytest.mark.parametrize("y0", [[0.0], [-0.2]])
def test_gradient_descent_on_it_is_the_matrix_map(count, y0):
    spec = toy_k(COVARIANCES[count], y0=y0)
    path, offsets = descent(spec, 600)
    covariance, gram = np.diag(COVARIANCES[count]), theory.gram_of_identity(count, BETA)
    x, y = path[0, :count], y0[0] * np.eye(count)
    for theta, offset in zip(path, offsets, strict=True):
        np.testing.assert_allclose(theta[:count], x, atol=1e-12)
        np.testing.assert_allclose(offset, y, atol=1e-12)
        x, y = theory.map_step_k(x, y, covariance, gram, ETA)
    assert abs(path[:, :count]).max() > 1  # the oscillation has grown, turned the sharpness, and is no rounding


def test_damping_holds_the_sharpness_back_alone():
    """Less ηκY a step, x as before."""
    spec = toy_k(COVARIANCES[2], damping=0.5)
    path, offsets = descent(spec, 50)
    for before, after, y, moved in zip(path, path[1:], offsets, offsets[1:], strict=False):
        x_next, y_next = theory.map_step_k(before[:2], y, np.diag(COVARIANCES[2]), theory.gram_of_identity(2, BETA), ETA)
        np.testing.assert_allclose(after[:2], x_next, atol=1e-14)
        np.testing.assert_allclose(moved, y_next - ETA * 0.5 * y, atol=1e-14)


@pytest.mark.parametrize("count", COVARIANCES)
def test_its_third_derivatives_make_the_gram_of_the_identity(count):
    problem, theta, _ = build(toy_k(COVARIANCES[count]))
    units = jnp.eye(theta.size)[:count]
    i, j = theory.pairs(count)
    vectors = np.array([third_at(problem, theta, units[a], units[b]) for a, b in zip(i, j, strict=True)])
    np.testing.assert_allclose(vectors[:, :count], 0, atol=1e-15)  # nothing of D lies along U: it is D⊥
    np.testing.assert_allclose(vectors @ vectors.T, theory.gram_of_identity(count, BETA), atol=1e-14)


@pytest.mark.parametrize("count", COVARIANCES)
def test_the_origin_is_held_at_the_edge_by_the_covariance(count):
    """θ† = 0: every λ_i is 2/η, ∇L lies across U, and X† solves 0 ⪯ X ⊥ (2/η − Λ)/η + ∇L·D + ½B⊥[X] ⪰ 0. As B⊥ is βI, the solution is
    the positive part of −(2/β)((2/η − Λ)/η + ∇L·D): no other."""
    problem, theta, _ = build(toy_k(COVARIANCES[count]))
    origin = jnp.zeros_like(theta)
    hessian, gradient = np.array(dense_hessian(problem, origin)), np.array(gradient_at(problem, origin))
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian)[-count:], 2 / ETA)
    np.testing.assert_allclose(gradient[:count], 0)
    third = np.array(dense_third(problem, origin))[:count, :count]
    pushed = third @ gradient
    values, vectors = np.linalg.eigh(-2 / BETA * pushed)
    covariance = (vectors * np.maximum(values, 0)) @ vectors.T
    np.testing.assert_allclose(covariance, np.diag(COVARIANCES[count]), atol=1e-14)
    np.testing.assert_allclose(pushed + theory.contract(theory.gram_of_identity(count, BETA), covariance) / 2, 0, atol=1e-14)
    stepped = np.einsum("ij,ijp->p", covariance, third)  # θ† − η∇L − (η/2)D[X†]: the push and the gradient cancel
    np.testing.assert_allclose(-gradient - stepped / 2, 0, atol=1e-14)


def test_with_one_variance_for_all_it_turns_as_the_closed_form_does():
    """x_t = (−1)^t√2σ(cos ωτ, sin ωτ) for a quarter of a turn, to the order η of the map's own error."""
    variance, eta = 0.8, 1e-3
    rate = theory.turning_rate(BETA * variance / 2)
    spec = specs.with_overrides(toy_k([variance, variance]), [f"optimizer.learning_rate={eta}"])
    problem, _, _ = build(spec)
    steps = round(theory.turning_period(eta, BETA * variance / 2) / 4)
    orbit, offsets = theory.turning_orbit(variance, BETA, eta * np.arange(steps + 1))
    coordinates = np.einsum("ij,mij->m", offsets[0], symmetric_basis(2)) / np.sqrt(BETA)
    theta = jnp.concatenate([jnp.asarray(orbit[0]), jnp.asarray(coordinates)])
    gradient = jax.jit(problem.gradient)
    for t in range(steps):
        np.testing.assert_allclose((-1) ** t * theta[:2], orbit[t], atol=2 * eta * rate)
        theta = theta - eta * gradient(theta)


def test_on_the_preset_the_mean_of_the_oscillation_is_the_covariance():
    """To 2 % of its trace over a long run, on which damping keeps x bounded and x turns all the while."""
    spec = load_spec("toy-k")
    covariance = np.diag(spec.problem.covariance)
    path, offsets = descent(spec, 100_000)
    x = path[20_000:, : len(covariance)]
    np.testing.assert_allclose(x.T @ x / len(x), covariance, atol=0.02 * np.trace(covariance))
    assert abs(x).max() < 5 * np.sqrt(np.trace(covariance))
    assert np.linalg.eigvalsh(offsets[20_000:])[:, -1].mean() > 5 * abs(offsets[20_000:].mean(0)).max()


def test_a_direction_that_starts_below_the_edge_rises_at_the_rate_of_its_variance():
    """½βσ²η a step while x is 0 there; the other directions as if it were not there."""
    spec = toy_k(COVARIANCES[2], x0=[0.3, 0.0], y0=[0.0, -2.0])
    _, offsets = descent(spec, 100)
    rises = BETA * COVARIANCES[2][1] / 2 * ETA
    np.testing.assert_allclose(offsets[:, 1, 1], -2 + rises * np.arange(101), atol=1e-12)
    alone = theory.map_orbit(0.3, 0.0, BETA * COVARIANCES[2][0] / 2, BETA, ETA, 100)
    np.testing.assert_allclose(offsets[:, 0, 0], alone[:, 1], atol=1e-12)


def test_one_number_is_where_every_direction_starts_and_others_must_be_as_many_as_there_are():
    assert build(toy_k([1.0, 0.5, 0.2], x0=[0.3]))[1].tolist() == [0.3] * 3 + [0.0] * 6
    for name, given in (("x0", [0.3, 0.2]), ("y0", [-0.3, 0.0])):
        with pytest.raises(UserError, match=rf"\[problem\] {name} = .*; expected one number, or as many as covariance has, 3"):
            toy_k([1.0, 0.5, 0.2], **{name: given})
