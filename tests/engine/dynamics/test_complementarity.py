"""The semidefinite complementarity problem: its conditions on thousands of problems, closed forms, and a solver of cone programs."""

import clarabel
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import sparse

from engine.dynamics.complementarity import solve
from engine.theory import pairs
from engine.xla.packed import packed, side, unpacked

pytestmark = pytest.mark.usefixtures("x64")
KINDS = ("apart", "correlated", "nearly parallel", "far apart in size", "independent", "too few numbers")


def applied(gram, X):
    """B[X] by its definition, (n, k, k), of grams (n, m, m) and X (n, k, k)."""
    i, j = pairs(X.shape[-1])
    image = np.einsum("nab,b,nb->na", gram, np.where(i == j, 1, 2), X[:, i, j])
    full = np.empty_like(X)
    full[:, i, j] = full[:, j, i] = image
    return full


def made(kind, k, count, seed=0):
    """A (count, k, k) and the inner products (count, m, m) of so many problems, each of its own size."""
    rng = np.random.default_rng([seed, k, KINDS.index(kind)])
    i, j = pairs(k)
    m = len(i)
    D = rng.standard_normal((count, m, max(1, m // 2) if kind == "too few numbers" else 4 * m))
    if kind in ("correlated", "nearly parallel"):
        common = rng.standard_normal((count, m, 1)) * rng.standard_normal((count, 1, D.shape[2]))
        D = common + (0.1 if kind == "correlated" else 0.01) * D
    if kind == "far apart in size":
        sizes = 10 ** rng.uniform(-1.5, 1.5, (count, k))
        D *= (sizes[:, i] * sizes[:, j])[..., None]
    if kind == "independent":  # valleys that know nothing of each other
        D *= (i == j)[:, None]
    gram = D @ D.swapaxes(1, 2) / 2
    random = rng.standard_normal((count, k, k))
    A = (random + random.swapaxes(1, 2)) / 2 - rng.uniform(-1, 2, (count, 1, 1)) * np.eye(k)
    if kind in ("independent", "too few numbers"):  # B is singular: that there is a solution has to be seen to
        A = _of_solution(rng, np.linalg.qr(random)[0], gram)
    sizes = 10 ** rng.uniform(-4, 4, (2, count, 1, 1))
    return A * sizes[0], gram * sizes[1]


def _of_solution(rng, Q, gram):
    """A of problems that X and S with eigenvectors Q solve."""
    count, k, _ = Q.shape
    held = np.arange(k) < rng.integers(0, k + 1, (count, 1))
    sizes = np.abs(rng.standard_normal((count, k)))
    X, S = (np.einsum("nik,nk,njk->nij", Q, np.where(of, sizes, 0), Q) for of in (held, ~held))
    return S - applied(gram, X)


def scaled(A, gram, X):
    """The problems and their X in units in which B_ii,ii is 1 and A of norm 1."""
    i, j = pairs(A.shape[-1])
    T = np.einsum("naa->na", gram)[:, i == j] ** -0.25
    TT = T[:, :, None] * T[:, None, :]
    size = np.linalg.norm(A * TT, axis=(1, 2), keepdims=True)
    weights = TT[:, i, j]
    return A * TT / size, gram * weights[:, :, None] * weights[:, None, :], X / (TT * size)


def assert_solved(A, gram, X):
    """X ⪰ 0, S = A + B[X] ⪰ 0 and <X, S> = 0, each to rounding in the size of X, and X = Π(X − S) to 1e-11 of it."""
    A, gram, X = scaled(A, gram, X)
    S = A + applied(gram, X)
    size = np.maximum(1, np.linalg.norm(X, axis=(1, 2)))
    z, Q = np.linalg.eigh(X - S)
    left = X - np.einsum("nik,nk,njk->nij", Q, np.maximum(z, 0), Q)
    assert (np.linalg.norm(left, axis=(1, 2)) / size).max() < 1e-11
    assert (np.linalg.eigvalsh(X)[:, 0] / size).min() > -1e-11
    assert (np.linalg.eigvalsh(S)[:, 0] / size).min() > -1e-11
    assert (np.abs(np.sum(X * S, axis=(1, 2))) / size**2).max() < 1e-11


@jax.jit
def all_solved(A, gram, count, start):
    return jax.vmap(lambda A, gram, start: solve(A, gram, count, start))(A, gram, start)


one_solved = jax.jit(solve)


@pytest.mark.parametrize(("k", "count"), [
    *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((2, 400), (5, 100), (12, 8))), (3, 300),
])  # fmt: skip
def test_every_problem_that_has_a_solution_is_solved(k, count):
    """Some two thousand, three more in the slow suite, of sizes over eight decades; three of four begin far from where Newton's method
    descends in one kind or other."""
    problems = [made(kind, k, count) for kind in KINDS]
    A, gram = (np.concatenate(each) for each in zip(*problems, strict=True))
    solution = all_solved(A, gram, k, np.zeros_like(A))
    assert solution.residual.max() < 1e-11
    assert solution.iterations.max() < 60
    assert_solved(A, gram, np.asarray(solution.matrix))


def test_it_is_the_minimum_that_a_solver_of_cone_programs_finds():
    """½<X, B[X]> + <A, X> over X ⪰ 0: clarabel's X to its own tolerance."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for kind in ("apart", "correlated", "far apart in size"):
        A, gram, _ = scaled(*made(kind, 3, 20, seed=1), np.zeros((20, 3, 3)))
        solutions = np.asarray(all_solved(A, gram, 3, np.zeros_like(A)).matrix)
        i, j = pairs(3)
        root = np.where(i == j, 1, np.sqrt(2))
        for a, b, X in zip(A, gram, solutions, strict=True):
            P, q = sparse.csc_matrix(np.triu(b * np.outer(root, root))), a[i, j] * root
            cone = [clarabel.PSDTriangleConeT(3)]
            oracle = clarabel.DefaultSolver(P, q, sparse.csc_matrix(-np.eye(6)), np.zeros(6), cone, settings).solve()
            np.testing.assert_allclose(X[i, j] * root, oracle.x, atol=1e-4 * max(1, np.linalg.norm(X)))


def test_one_direction_is_the_closed_form():
    """X = (−A/B)₊, alone and as the only one of four that counts."""
    for a, b in ((-2.0, 3.0), (2.0, 3.0), (-1e-9, 1e7), (0.0, 2.0)):
        exact = max(0.0, -a / b)
        alone = one_solved(jnp.array([[a]]), jnp.array([[b]]), 1, jnp.zeros((1, 1)))
        assert alone.matrix[0, 0] == exact
        assert alone.residual == 0
        A, gram = (np.full((size, size), np.nan) for size in (4, 10))
        A[0, 0], gram[0, 0] = a, b
        among = one_solved(np.nan_to_num(A), np.nan_to_num(gram), 1, np.ones((4, 4)))
        assert among.matrix[0, 0] == pytest.approx(exact, rel=4e-16)
        assert np.count_nonzero(among.matrix) == (exact > 0)


def test_only_the_leading_rows_count():
    """The smaller problem within a larger one, the number of rows traced; what lies beyond is anything at all."""
    A, gram = (each[0] for each in made("apart", 8, 1))
    for count in (3, 2, 0):
        m = count * (count + 1) // 2
        A[count:], gram[m:] = np.nan, np.nan
        solution = one_solved(A, gram, count, np.full((8, 8), 7.0))
        assert not np.any(solution.matrix[count:]), count
        assert not np.any(solution.matrix[:, count:]), count
        if count:
            exact = one_solved(A[:count, :count], gram[:m, :m], count, np.zeros((count, count)))
            np.testing.assert_allclose(solution.matrix[:count, :count], exact.matrix, atol=1e-12 * np.linalg.norm(exact.matrix))
        assert solution.residual < 1e-12


def test_a_start_near_the_solution_takes_few_steps_and_any_start_leads_there():
    A, gram = made("correlated", 3, 200, seed=2)
    cold = all_solved(A, gram, 3, np.zeros_like(A))
    near = all_solved(A * (1 + 1e-3), gram, 3, cold.matrix)
    assert np.median(near.iterations) <= 4
    assert np.median(cold.iterations) > 4
    for start in (np.full_like(A, np.nan), 1e6 * A, -np.asarray(cold.matrix)):
        other = all_solved(A, gram, 3, start)
        X, Y = (scaled(A, gram, np.asarray(each.matrix))[2] for each in (cold, other))
        assert np.abs(X - Y).max() < 1e-9 * np.abs(X).max()


def test_where_nothing_pushes_nothing_is_held():
    """A ⪰ 0 gives X = 0 exactly, from any start."""
    A, gram = made("apart", 3, 50, seed=3)
    A = A @ A
    A[0] = 0
    assert not np.any(all_solved(A, gram, 3, np.ones_like(A)).matrix)


def test_what_has_no_solution_is_reported():
    """B is 0 along a direction in which A is negative: X would grow without end."""
    for k in (1, 3):
        gram = np.eye(k * (k + 1) // 2)
        gram[0] = gram[:, 0] = 0
        solution = all_solved(-np.eye(k)[None], gram[None], k, np.zeros((1, k, k)))
        assert solution.residual[0] > 1e-8, k


def test_it_can_be_part_of_a_loop_and_of_a_choice():
    """Inside `lax.while_loop` and `lax.cond`, with X of one turn as the start of the next."""
    A, gram = (each[0] for each in made("apart", 3, 1))

    @jax.jit
    def looped(gram):
        def turn(at):
            X, k = at
            return lax.cond(k > 0, lambda: solve((1 + 0.1 * k) * A, gram, 3, X).matrix, lambda: X), k + 1

        return lax.while_loop(lambda at: at[1] < 4, turn, (jnp.zeros((3, 3)), jnp.array(0)))[0]

    np.testing.assert_allclose(looped(jnp.asarray(gram)), one_solved(1.3 * A, gram, 3, np.zeros((3, 3))).matrix, rtol=1e-9)


def test_a_symmetric_matrix_is_the_vector_of_its_entries():
    """Column by column, so that the leading rows come first."""
    i, j = pairs(4)
    assert [*zip(i.tolist(), j.tolist(), strict=True)][:6] == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    matrix = jnp.array(made("apart", 4, 1)[0][0])
    assert len(packed(matrix)) == 10
    np.testing.assert_array_equal(unpacked(packed(matrix)), matrix)
    np.testing.assert_array_equal(packed(matrix)[:6], packed(matrix[:3, :3]))
    assert [side(k * (k + 1) // 2) for k in range(1, 17)] == [*range(1, 17)]
