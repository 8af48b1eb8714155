"""Derivatives of the loss against dense ones, in float64."""

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from engine import spec as specs
from engine.base.errors import UserError
from engine.problems.build import build, network
from engine.problems.problem import Problem, require_x64

from small import chebyshev_problem, chebyshev_spec, dense_hessian, digits_spec, toy_spec

pytestmark = pytest.mark.usefixtures("x64")


def unit(seed: int, size: int) -> jax.Array:
    v = jax.random.normal(jax.random.key(seed), (size,), jnp.float64)
    return v / jnp.linalg.norm(v)


def test_the_hvp_is_the_dense_hessian_times_the_vector():
    problem, theta = chebyshev_problem()
    hessian = dense_hessian(problem, theta)
    v = unit(2, theta.size)
    np.testing.assert_allclose(jax.jit(Problem.hvp)(problem, theta, v), hessian @ v, atol=1e-13)


def test_the_contracted_derivatives_are_those_of_dense_jacobians():
    problem, theta = chebyshev_problem()
    v, w, z = (unit(k, theta.size) for k in (2, 3, 4))
    third = jax.jit(jax.jacfwd(jax.hessian(problem.loss)))(theta)
    derivative = jax.jit(Problem.derivative, static_argnums=2)
    np.testing.assert_allclose(derivative(problem, theta, 1), jax.jit(jax.grad(problem.loss))(theta), atol=0)
    np.testing.assert_allclose(derivative(problem, theta, 2, v), jax.jit(Problem.hvp)(problem, theta, v), atol=1e-14)
    np.testing.assert_allclose(derivative(problem, theta, 3, v, w), third @ v @ w, atol=1e-12)
    h = 1e-4  # the fourth derivative against central differences of the third: error h²/6 of the sixth
    step = derivative(problem, theta + h * z, 3, v, w) - derivative(problem, theta - h * z, 3, v, w)
    np.testing.assert_allclose(derivative(problem, theta, 4, v, w, z), step / (2 * h), atol=1e-6)


def test_a_derivative_refuses_the_wrong_number_of_vectors():
    problem, theta = chebyshev_problem()
    with pytest.raises(ValueError, match="takes 2 vectors, given 1"):
        problem.derivative(theta, 3, theta)


def test_the_gradient_of_the_sharpness_is_that_of_central_differences():
    problem, theta = chebyshev_problem()

    def top(at):
        values, vectors = jnp.linalg.eigh(dense_hessian(problem, at))
        return values[-1], vectors[:, -1]

    dS = jax.jit(Problem.grad_sharpness)(problem, theta, top(theta)[1])
    for seed in range(3):
        v, h = unit(seed, theta.size), 1e-5
        difference = (top(theta + h * v)[0] - top(theta - h * v)[0]) / (2 * h)
        assert abs(difference - dS @ v) < 1e-7


@pytest.mark.parametrize("size", [1, 12, *(pytest.param(size, marks=pytest.mark.slow) for size in (5, 100))])
def test_micro_batches_give_the_full_batch_to_rounding(size):
    part = specs.Network(
        data=specs.Data(name="digits", examples=40), model=specs.Mlp(widths=(6,), activation="tanh"), criterion="mse"
    )
    whole, theta, _ = network(part, seed=0)
    batched, _, _ = network(msgspec.structs.replace(part, micro_batch=size), seed=0)
    assert batched.data.weights.shape == (-(-40 // size), min(size, 40))  # a batch larger than all examples would be filled up for nothing
    u = unit(5, theta.size)
    of_batches, of_all = (jax.jit(_derivatives)(problem, theta, u) for problem in (batched, whole))
    np.testing.assert_allclose(of_batches[0], of_all[0], rtol=1e-14)
    for actual, wanted, atol in zip(of_batches[1:], of_all[1:], (1e-14, 1e-13, 1e-12), strict=True):
        np.testing.assert_allclose(actual, wanted, atol=atol)


def _derivatives(problem: Problem, theta: jax.Array, u: jax.Array) -> tuple[jax.Array, ...]:
    """L, ∇L, ∇²Lu and ∇³L(u,u)."""
    return problem.loss(theta), problem.gradient(theta), problem.hvp(theta, u), problem.grad_sharpness(theta, u)


def test_number_formats_follow_theta():
    problem, theta = chebyshev_problem()
    low = theta.astype(jnp.float32)
    assert jax.eval_shape(problem.gradient, low).dtype == jnp.float32
    assert jax.eval_shape(problem.grad_sharpness, low, low).dtype == jnp.float32
    assert jax.eval_shape(problem.gradient, theta).dtype == jnp.float64


def test_gradient_descent_on_the_toy_is_the_map():
    from engine.theory import map_orbit

    eta, alpha, beta = 0.01, 1.3, 0.7
    spec = specs.with_overrides(toy_spec(eta, x0=0.2), [f"problem.alpha={alpha}", f"problem.beta={beta}"])
    problem, theta, _ = build(spec)
    orbit = map_orbit(0.2, 0.0, alpha, beta, eta, 400)
    gradient = jax.jit(problem.gradient)
    for x, y in orbit:
        np.testing.assert_allclose(theta[0], x, atol=1e-12 * max(1, abs(x)))
        np.testing.assert_allclose(np.sqrt(beta) * theta[1], y, atol=1e-12)
        theta = theta - eta * gradient(theta)


@pytest.mark.parametrize("spec", [
    toy_spec(), chebyshev_spec(), specs.with_overrides(chebyshev_spec(), ["problem.micro_batch=5"]), digits_spec(),
    specs.with_overrides(digits_spec(), ["problem.model.kind=cnn", "problem.rematerialize=true", "optimizer.weight_decay=0.1"]),
], ids=["toy", "mlp", "micro-batches", "digits", "decayed cnn"])  # fmt: skip
def test_what_is_built_again_is_compiled_already(spec):
    """jax compiles for the functions that a problem is made of; another seed and another η are other numbers in the same functions."""
    traced = []
    of = jax.jit(lambda problem, theta: traced.append(problem.label) or problem.gradient(theta))
    for seed, eta in ((0, 0.1), (1, 0.2)):
        problem, theta, _ = build(specs.with_overrides(spec, [f"seed={seed}", f"optimizer.learning_rate={eta}"]))
        of(problem, theta)
    assert len(traced) == 1
    other, theta, _ = build(specs.with_overrides(chebyshev_spec(), ["problem.model.activation=swish"]))
    of(other, theta)
    assert len(traced) == 2  # another function is none of them


def test_a_problem_asks_for_float64():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(UserError, match="jax_enable_x64"):
            require_x64()
    finally:
        jax.config.update("jax_enable_x64", True)
