"""The spectral density, the Gauss–Newton share and the sharpness by layer, against dense matrices in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine.curvature import blocks, density, gauss_newton
from engine.problems.build import build, decayed, learning
from engine.problems.problem import Problem
from engine.spec import with_overrides

from small import chebyshev_problem, dense_hessian, digits_spec, gradient_at, hvp_at, loss_at, toy_spec

pytestmark = pytest.mark.usefixtures("x64")
STEPS = 4


def quadratic(eigenvalues: np.ndarray) -> tuple[Problem, np.ndarray]:
    """½θᵀAθ with these eigenvalues in a random basis, and A (p, p)."""
    basis, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((len(eigenvalues),) * 2))
    matrix = basis * eigenvalues @ basis.T
    return Problem(lambda theta, a: theta @ (a.astype(theta.dtype) @ theta) / 2, jnp.asarray(matrix)), matrix


def moment(matrix: np.ndarray, v: np.ndarray, power: int) -> float:
    """vᵀAᵏv."""
    image = v
    for _ in range(power):
        image = matrix @ image
    return float(v @ image)


@pytest.mark.parametrize("number", [0, 1])
def test_the_quadrature_of_a_vector_is_exact_up_to_degree_2m_minus_1(number):
    """Gauss: the moments vᵀHᵏv of the spectral measure for k ≤ 2m − 1, to rounding; the next one is the first that is missed."""
    problem, theta = chebyshev_problem()
    hessian = np.asarray(dense_hessian(problem, theta))
    hessian = hessian / np.abs(np.linalg.eigvalsh(hessian)).max()
    scaled, at = Problem(lambda theta, a: theta @ a @ theta / 2, jnp.asarray(hessian)), jnp.zeros(len(theta))
    v = density.probe(5, 7, number, len(theta), "float64")
    nodes, weights = (part[0] for part in density.quadrature(scaled, at, v, STEPS))
    exact = [moment(hessian, np.asarray(v), power) for power in range(2 * STEPS + 1)]
    gauss = [float(weights @ nodes**power) for power in range(2 * STEPS + 1)]
    np.testing.assert_allclose(gauss[:-1], exact[:-1], rtol=1e-10, atol=1e-14)
    assert abs(gauss[-1] - exact[-1]) > 1e-9 * exact[-1]


def test_the_quadrature_of_a_network_has_its_mass_and_its_outermost_eigenvalues():
    problem, theta = chebyshev_problem()
    eigenvalues = np.linalg.eigvalsh(dense_hessian(problem, theta))
    several = density.joined([
        density.quadrature(problem, theta, density.probe(0, 0, k, len(theta), "float64"), 40) for k in range(8)
    ])
    assert several.nodes.shape == several.weights.shape == (8, 40)
    np.testing.assert_allclose(several.weights.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(several.nodes.max(axis=1), eigenvalues[-1], rtol=1e-9)
    np.testing.assert_allclose(several.nodes.min(axis=1), eigenvalues[0], rtol=1e-6, atol=1e-9)
    width = several.width
    grid = several.grid(width)
    smooth = several.at(grid, width)
    assert np.trapezoid(smooth, grid) == pytest.approx(1, abs=1e-5)  # five widths beyond the ends leave out 6e-7


def test_over_many_vectors_the_density_is_that_of_all_eigenvalues():
    """The mean over K vectors misses a mass N by about √(2/(K p))·√N of it: 5 % here, three times which is allowed."""
    eigenvalues = np.concatenate([np.linspace(-1, 1, 90), np.linspace(9, 10, 10)])
    problem, _ = quadratic(eigenvalues)
    several = density.joined([density.quadrature(problem, jnp.zeros(100), density.probe(1, 0, k, 100, "float64"), 60) for k in range(64)])
    upper = (several.weights * (several.nodes > 5)).sum(axis=1)
    assert upper.mean() == pytest.approx(0.1, abs=3 * 0.1 * np.sqrt(2 / (64 * 10)))
    assert (several.weights * several.nodes).sum(axis=1).mean() == pytest.approx(eigenvalues.mean(), abs=0.15)


def test_where_the_space_of_the_start_is_at_its_end_what_follows_has_no_weight():
    problem, _ = quadratic(np.repeat([3.0, -1.0, 0.5], [1, 4, 15]))
    quadrature = density.quadrature(problem, jnp.zeros(20), density.probe(0, 0, 0, 20, "float64"), 40)
    assert quadrature.nodes.shape == (1, 20)
    there = quadrature.weights[0] > 1e-12
    np.testing.assert_allclose(np.sort(quadrature.nodes[0][there]), [-1, 0.5, 3], atol=1e-12)
    assert quadrature.weights.sum() == pytest.approx(1, rel=1e-13)


def test_a_probe_is_the_same_for_the_same_seed_and_step_and_no_other():
    vectors = {key: np.asarray(density.probe(*key, 50, "float64")) for key in [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)]}
    np.testing.assert_array_equal(vectors[1, 2, 3], density.probe(1, 2, 3, 50, "float64"))
    for v in vectors.values():
        assert np.linalg.norm(v) == pytest.approx(1)
        assert sum(bool((v == other).all()) for other in vectors.values()) == 1


# -- Gauss–Newton


def test_the_gauss_newton_matrix_is_that_of_the_dense_jacobian():
    """In batches. Of the logistic loss ∂²ℓ is σ(f)(1 − σ(f))."""
    spec = with_overrides(digits_spec(), ['problem.criterion="logistic"', "problem.micro_batch=7"])
    problem, theta, _ = build(spec)
    network = learning(spec.problem, spec.seed)
    inputs = jnp.asarray(network.dataset.inputs)
    outputs, jacobian = jax.jit(lambda at: (network.outputs(at, inputs), jax.jacfwd(network.outputs)(at, inputs)))(theta)
    J, f = np.asarray(jacobian)[:, 0], np.asarray(outputs)
    dense = J.T @ (np.exp(-f) / (1 + np.exp(-f)) ** 2 / len(inputs) * J)
    line = gauss_newton.linearized_at(problem, theta)
    v = density.probe(0, 0, 0, theta.size, "float64")
    np.testing.assert_allclose(hvp_at(line, theta, v), dense @ np.asarray(v), atol=1e-11 * np.linalg.norm(dense, 2))
    assert float(loss_at(line, theta)) == pytest.approx(float(loss_at(problem, theta)), rel=1e-12)
    np.testing.assert_allclose(gradient_at(line, theta), gradient_at(problem, theta), atol=1e-12)
    u = np.linalg.eigh(np.asarray(dense_hessian(problem, theta)))[1].T[::-1][:3]
    forms = gauss_newton.forms(problem, theta, jnp.asarray(u))
    np.testing.assert_allclose(forms, np.einsum("ki,ij,kj->k", u, dense, u), rtol=1e-9, atol=1e-12)


def test_the_share_of_a_network_that_is_linear_is_one_and_weight_decay_belongs_to_both():
    spec = with_overrides(digits_spec(), ["problem.model.widths=[]"])
    problem, theta, _ = build(spec)
    v = density.probe(0, 0, 0, theta.size, "float64")
    for each in (problem, decayed(problem, 0.3)):
        np.testing.assert_allclose(hvp_at(gauss_newton.linearized_at(each, theta), theta, v), hvp_at(each, theta, v), atol=1e-10)


def test_an_own_flax_module_has_a_gauss_newton_matrix_and_an_own_loss_says_why_not():
    from flax import linen

    inputs, targets = np.random.default_rng(0).standard_normal((9, 4)), np.random.default_rng(1).standard_normal((9, 2))
    module = linen.Sequential([linen.Dense(3), jnp.tanh, linen.Dense(2)])
    problem, theta = engine.from_flax(module, inputs, targets, "half_mse")
    restored = problem.unravel

    def outputs(theta):
        return module.apply({"params": restored(theta)}, jnp.asarray(inputs))

    J = np.asarray(jax.jit(jax.jacfwd(outputs))(theta)).reshape(-1, theta.size)
    dense, v = J.T @ J / len(inputs), density.probe(0, 0, 0, theta.size, "float64")
    np.testing.assert_allclose(hvp_at(gauss_newton.linearized_at(problem, theta), theta, v), dense @ np.asarray(v), atol=1e-12)
    bare, _ = engine.from_loss(lambda theta: jnp.sum(theta**4), jnp.ones(3), label="quartic")
    assert gauss_newton.why_absent(bare).startswith("quartic: its loss is given as a whole")
    assert not gauss_newton.why_absent(problem)
    with pytest.raises(ValueError, match="not as a criterion"):
        gauss_newton.linearized_at(bare, jnp.ones(3))


# -- layers


def test_the_sharpness_of_each_layer_is_that_of_its_dense_block():
    problem, theta = chebyshev_problem()
    hessian = np.asarray(dense_hessian(problem, theta))
    layers = blocks.blocks(problem, theta)
    assert [each.name for each in layers] == [f"Dense_{k}/{part}" for k in range(3) for part in ("bias", "kernel")]
    assert sorted(np.concatenate([each.indices for each in layers])) == list(range(theta.size))
    top = np.linalg.eigvalsh(hessian)[-1]
    for each in layers:
        exact = np.linalg.eigvalsh(hessian[np.ix_(each.indices, each.indices)])[-1]
        measured = blocks.sharpness_of(problem, theta, each, 0, 0, "float64")
        assert measured == pytest.approx(exact, abs=1e-5 * top)  # the residual is 1e-3 of it, and the error its square over the gap
        assert measured <= top * (1 + 1e-9)


def test_a_block_below_zero_stays_as_it_is_and_a_theta_without_a_tree_is_one_block():
    for size in (6, 80):  # formed, and not
        problem, matrix = quadratic(np.linspace(-9, -1, size))
        half = size // 2
        split = replace(problem, unravel=lambda theta, half=half: {"a": theta[:half], "b": theta[half:]})
        for each, part in zip(blocks.blocks(split, jnp.zeros(size)), (slice(0, half), slice(half, size)), strict=True):
            exact = np.linalg.eigvalsh(matrix[part, part])[-1]
            assert blocks.sharpness_of(split, jnp.zeros(size), each, 0, 0, "float64") == pytest.approx(exact, rel=1e-3)
    toy, theta, _ = build(toy_spec())
    (only,) = blocks.blocks(toy, theta)
    assert only.name == "θ"
    exact = np.linalg.eigvalsh(np.asarray(dense_hessian(toy, theta)))[-1]
    assert blocks.sharpness_of(toy, theta, only, 0, 0, "float64") == pytest.approx(exact)
