"""Small matrices by operations of XLA alone, against numpy; and what other platforms than a CPU are given, read and executed here."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from engine.base.errors import UserError
from engine.curvature import directions, eigensolver
from engine.dynamics import constrained
from engine.problems.build import build
from engine.spec import load_spec
from engine.xla import jacobi, small_matrices

from places import ROOT

pytestmark = pytest.mark.usefixtures("x64")
TOLERANCE = 1e-12


def symmetric(count):
    """Symmetric matrices (kinds, n, n): random, with equal eigenvalues, with every one equal but one, of zeros, of two scales beyond whose
    squares there is no number, graded over 20 orders of magnitude by eigenvalues and by rows, nearly diagonal, and without a diagonal."""
    rng = np.random.default_rng(count)
    random = rng.standard_normal((2, count, count))
    axes, random = np.linalg.qr(random[0])[0], random[1] + random[1].T
    sizes = 10.0 ** -np.linspace(0, 20, count)
    equal = np.where(np.arange(count) < count // 2, 1.0, 2.0)
    matrices = np.stack([
        random, (axes * equal) @ axes.T, np.ones((count, count)), np.zeros((count, count)), np.eye(count),
        1e300 * random / np.abs(random).max(), 1e-300 * random, (axes * sizes) @ axes.T, np.outer(sizes, sizes) * random,
        np.diag(np.arange(count)) + 1e-3 * random, np.ones((count, count)) - np.eye(count),
    ])
    return (matrices + matrices.swapaxes(1, 2)) / 2


def assert_eigenpairs(matrices, values, vectors):
    """Ascending eigenvalues as numpy's, residuals and orthonormal columns, to the tolerance in units of the largest eigenvalue."""
    scale = np.abs(matrices).max((1, 2), keepdims=True)
    unit, values = (each / np.where(scale == 0, 1, scale) for each in (matrices, np.asarray(values)[:, None]))
    exact, vectors = np.linalg.eigvalsh(unit), np.asarray(vectors)
    largest = np.maximum(np.abs(exact).max(1), 1e-3)
    assert (np.diff(values[:, 0]) >= 0).all()
    assert (np.abs(values[:, 0] - exact).max(1) <= TOLERANCE * largest).all()
    assert (np.linalg.norm(unit @ vectors - vectors * values, axis=(1, 2)) <= TOLERANCE * largest).all()
    assert np.abs(vectors.swapaxes(1, 2) @ vectors - np.eye(matrices.shape[1])).max() <= TOLERANCE


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_eigenpairs_are_those_of_eigh_for_degenerate_and_graded_matrices_too(count):
    matrices = symmetric(count)
    assert_eigenpairs(matrices, *jax.vmap(jacobi.eigh)(matrices))


@pytest.mark.slow
@pytest.mark.parametrize("count", range(1, small_matrices.SMALL + 1))
def test_eigenpairs_of_every_small_size(count):
    matrices = symmetric(count)
    assert_eigenpairs(matrices, *jax.vmap(jacobi.eigh)(matrices))


def test_eigenpairs_in_float32_are_right_to_its_rounding():
    matrix = symmetric(7)[0].astype(np.float32)
    values, vectors = jacobi.eigh(matrix)
    assert values.dtype == vectors.dtype == jnp.float32
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix.astype(float)), atol=5e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(7), atol=5e-6)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_each_meets_each_other_one_in_a_tournament(count):
    rounds = jacobi.opponents(count)
    assert len(rounds) == max(1, count - 1 + count % 2)
    assert all((met[met] == np.arange(count)).all() for met in rounds)
    assert all(sorted(column) == [k for k in range(count) if k != player or count % 2] for player, column in enumerate(rounds.T))


def test_what_is_not_finite_gives_nan_and_ends():
    for bad in (np.nan, np.inf):
        matrix = np.eye(7)
        matrix[1, 2] = matrix[2, 1] = bad
        for result in (*jacobi.eigh(matrix), jacobi.polar_factor(matrix), jacobi.singular_values(matrix)):
            assert np.isnan(result).all()
    for indefinite in (np.diag([1.0, -1, 1]), np.full((3, 3), np.nan)):
        assert np.isnan(jacobi.cholesky(indefinite)).all()
        assert np.isnan(jacobi.inverse_factor(indefinite)).all()


def for_cuda(function, *arguments):
    """The code that a GPU of NVIDIA would be given for a function: none of it is a library's call."""
    exported = export.export(jax.jit(function), platforms=["cuda"], disabled_checks=[export.DisabledSafetyCheck.platform()])(*arguments)
    assert not re.findall(r"custom_call @([\w.]+)", exported.mlir_module())
    return exported


def as_given_to_cuda(function, *arguments):
    """What a function gives by that code, executed on this device."""
    return for_cuda(function, *arguments).call(*arguments)


def test_systems_and_factors_of_other_platforms_are_those_of_the_library():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 5))
    definite, singular = a @ a.T + np.eye(5), a[:, :3] @ a[:, :3].T

    def each(a, b, definite, singular):
        both = jnp.stack([definite, singular])
        return (
            small_matrices.solve(a, b), small_matrices.solve(a, b[0]), small_matrices.cholesky(definite),
            small_matrices.factored(definite)(b[0]), small_matrices.pseudo_inverse(singular), small_matrices.polar_factor(a),
            jax.vmap(small_matrices.singular_values)(both), small_matrices.eigvalsh(both),
            jax.vmap(small_matrices.solve, (None, 0))(a, jnp.stack([b, a])),
        )

    for own, library in zip(as_given_to_cuda(each, a, b, definite, singular), each(a, b, definite, singular), strict=True):
        np.testing.assert_allclose(own, library, atol=1e-12 * max(1, float(jnp.max(jnp.abs(library)))))


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), np.ones((4, 4)), np.diag(np.arange(4.0)), np.eye(4, k=1)])
def test_the_polar_factor_of_a_singular_matrix_is_one_of_them(matrix):
    factor = np.asarray(jacobi.polar_factor(matrix))
    np.testing.assert_allclose(factor @ factor.T, np.eye(4), atol=TOLERANCE)
    rest = factor.T @ matrix  # √(MᵀM)
    np.testing.assert_allclose(rest, rest.T, atol=TOLERANCE)
    assert np.linalg.eigvalsh((rest + rest.T) / 2).min() > -TOLERANCE


def test_the_eigensolver_of_a_gpu_gives_the_same_pairs_of_digits():
    problem, theta, _ = build(load_spec("digits", ["problem.data.examples=100", "problem.model.widths=[20, 20]"]))
    start = eigensolver.random_start(0, 0, 2, theta.size, "float64")

    def solved(problem, theta, start):
        return eigensolver.solve(problem, theta, start, 1e-9)

    (own, images), (library, expected) = as_given_to_cuda(solved, problem, theta, start), jax.jit(solved)(problem, theta, start)
    assert int(own.hvps) == int(library.hvps) > 2 * eigensolver.BASIS  # restarts among them
    np.testing.assert_allclose(own.values, library.values, rtol=1e-10)
    signs = np.sign(np.sum(own.vectors * library.vectors, 1))[:, None]
    np.testing.assert_allclose(own.vectors, signs * library.vectors, atol=1e-10)
    np.testing.assert_allclose(images, signs * expected, atol=1e-10 * float(library.values[0]))


def several_directions():
    """Directions about a θ (p,), with a gradient there and a multiplier to begin with."""
    rng, size = np.random.default_rng(0), 20
    basis = np.linalg.qr(rng.standard_normal((size, 2)))[0].T
    known = directions.around(jnp.asarray(basis), 3)._replace(
        third=jnp.asarray(rng.standard_normal((6, size)) * np.isin(np.arange(6), np.arange(3))[:, None]),
        hessian=jnp.diag(jnp.asarray([2.6, 2.55, 0])), tilts=jnp.asarray(0.1 * rng.standard_normal((3, size)) * np.array([[1], [1], [0]])),
    )
    return jnp.ones(size), known, jnp.asarray(rng.standard_normal(size)), jnp.zeros((3, 3))


def parts_of_a_step(theta, known, grad, start):
    """The small problems of a step with several directions: their projection, covariance, alignment, eigenvalues and turn."""
    return (
        constrained.project_along(theta, grad, known, theta - 0.1 * grad, 2.5, start).theta,
        constrained.covariance(known, grad, 0.8, 2.5, start), directions.aligned(known.basis, known.basis[::-1], 2), known.values[:2],
        constrained.rank(known.hessian), small_matrices.singular_values(known.hessian),
    )


def test_no_small_problem_of_a_step_is_a_library_call_on_a_gpu():
    for_cuda(parts_of_a_step, *several_directions())


@pytest.mark.slow
def test_the_small_problems_of_a_step_have_the_same_solutions_on_a_gpu():
    given = several_directions()
    for own, library in zip(as_given_to_cuda(parts_of_a_step, *given), jax.jit(parts_of_a_step)(*given), strict=True):
        assert np.isfinite(library).all()
        np.testing.assert_allclose(own, library, atol=1e-10)


LIBRARY = re.compile(r"(jnp|jax\.numpy)\.linalg\.(?!norm\b)\w+|(jax\.scipy|jax\.lax|lax)\.linalg\b[\w.]*")
LARGE = {"engine/dynamics/steepest.py": "the parameters of a layer as a matrix, by a singular value decomposition"}
"""Files that ask the platform's library for what is not small."""


def test_compiled_code_asks_no_library_of_small_matrices_but_through_one_door():
    asking = set()
    for path in (ROOT / "engine").rglob("*.py"):
        if "linalg" in (source := path.read_text(encoding="utf-8")):
            nodes = [*ast.walk(ast.parse(source))]
            names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
            names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
            asking |= {str(path.relative_to(ROOT)) for name in names if LIBRARY.fullmatch(name)}
    assert asking == {"engine/xla/small_matrices.py", *LARGE}


def test_the_environment_chooses_and_an_unknown_choice_is_refused(monkeypatch):
    read, matrix = small_matrices.chosen.__wrapped__, jnp.eye(3)
    for given, cpu, cuda in (("", True, False), ("library", True, True), ("xla", False, False)):
        monkeypatch.setenv(small_matrices.VARIABLE, given)
        monkeypatch.setattr(small_matrices, "chosen", read)
        for platform, by_library in (("cpu", cpu), ("cuda", cuda)):
            traced = jax.jit(lambda a: small_matrices.eigh(a)).trace(matrix)  # noqa: PLW0108  one that is compiled anew
            assert ("custom_call" in traced.lower(lowering_platforms=(platform,)).as_text()) == by_library
    monkeypatch.setenv(small_matrices.VARIABLE, "fast")
    with pytest.raises(UserError, match='EOS_SMALL_MATRICES: "fast"; expected one of "platform", "library", "xla"'):
        read()


def test_what_is_not_small_is_left_to_the_library_everywhere():
    wide = jnp.eye(small_matrices.SMALL + 1)
    assert "cusolver" in jax.jit(small_matrices.eigh).trace(wide).lower(lowering_platforms=("cuda",)).as_text()
