"""The semidefinite complementarity problem of several directions at the edge: 0 ⪯ X ⊥ S ⪰ 0 with S = A + B[X], B positive semidefinite.

X is the covariance that holds θ†, or the central flow, where it is: S ⪰ 0 says that no eigenvalue passes 2/η, and <X, S> = 0 that only
directions at 2/η are pushed (arXiv 2410.24206). It is the minimiser of ½<X, B[X]> + <A, X> over X ⪰ 0.

Two methods take turns. Semismooth Newton on F(X) = X − Π(X − S), Π the projection onto X ⪰ 0, needs two to six steps where its start has
the rank of the solution, as that of the last step mostly has. Where it does not descend an infeasible interior point method begins at
X = S = I (Nesterov–Todd direction, Mehrotra's predictor and corrector), and Newton's method ends what that has brought near. Each step of
either is a linear system in coordinates in which what it is about is diagonal: the eigenvectors of X − S, with eigenvalues p − n, where
the derivative of Π is a factor (p_i + p_j)/(p_i + p_j + n_i + n_j) for each entry; or those G in which X and S are one diagonal matrix.
So one loop has one body for both, since it is compiled into steps of many sizes. No time is spent on the host.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from engine.theory import pairs
from engine.xla import small_matrices
from engine.xla.packed import unpacked

SOLVED = 1e-14
"""Residual at which nothing is left to gain."""
SOLVABLE = 1e-8
"""Residual from which a problem has no solution: those that have one come to 1e-13."""
SOUND = 1e-12
"""Residual at which a step of Newton's method that gains nothing is the last one."""
DESCENDS = 0.5
"""Share of the residual that a step of Newton's method may leave."""
MOST = 80
"""Most steps: problems that have a solution took 30, those with B singular among them."""
NEAR = 1e-8
"""<X, S>/K at which the interior point method hands over. Eigenvectors are then known to its root, and no better much further on."""
BACK = 0.9
"""Share of the way to the boundary that an interior step takes."""
SHORTEST = 1e-6
"""Share of an interior step below which it leads nowhere."""
RIDGE = 1e-9
"""Added to B in the system of Newton's method, not to its residual: where B is singular X may not be unique, and the system singular."""
TINY = 1e-60
"""Least p that stands for 0."""
FLAT = 1e-12
"""Least B_ii,ii that the scaling heeds, of the largest."""
LARGEST = 1e6
"""‖X‖, scaled, beyond which the residual is not relative to it any more: X runs off where there is no solution."""
WARM, INTERIOR, LAST = range(3)
"""What a step is of: Newton's method from the start, the interior point method, Newton's method from where that has come to."""


class Solution(NamedTuple):
    """X, and how good it is."""

    matrix: Array  # (K, K) X
    residual: Array  # () ‖F(X)‖/max(1, ‖X‖) in units of B_ii,ii = 1 and ‖A‖ = 1: some 1e-14 of a solution, large where there is none
    iterations: Array  # () steps


def solved(linear: Array, gram: Array, count: int | Array, start: Array) -> Array:
    """`solve`, X alone, (K, K); NaN where there is none, which leads nowhere."""
    solution = solve(linear, gram, count, start)
    return jnp.where(solution.residual <= SOLVABLE, solution.matrix, jnp.nan)


def solve(linear: Array, gram: Array, count: int | Array, start: Array) -> Solution:
    """0 ⪯ X ⊥ A + B[X] ⪰ 0 in the leading `count` rows of A = `linear` (K, K); the rest of X is 0.

    `gram` (m, m), m = K(K+1)/2, are the inner products <D_ij, D_kl> that B consists of, in the order of `packed.pairs`:
    B[X]_ij = Σ_kl gram[ij,kl] X_kl over all k and l. Newton's method begins at `start` (K, K), which may be any matrix.

    Scaled by X ↦ TXT, T diagonal, which keeps the problem: directions whose D differ by orders of magnitude then weigh the same.
    """
    A, gram, start = (jnp.asarray(each, jnp.float64) for each in (linear, gram, start))
    if len(A) == 1:
        return _single(A, gram, count)
    counts = jnp.arange(len(A)) < count
    place = unpacked(jnp.arange(len(gram)))
    diagonal = jnp.where(counts, jnp.diag(gram)[jnp.diag(place)], 0)
    T = counts / _scale(jnp.maximum(diagonal, FLAT * jnp.max(diagonal))) ** 0.25
    TT = T[:, None] * T
    weights = TT[:, :, None, None] * TT
    A, B = jnp.where(TT > 0, A * TT, 0), jnp.where(weights > 0, gram[place[:, :, None, None], place] * weights, 0)
    size = _scale(jnp.linalg.norm(A))
    X = _iterated(A / size + jnp.diag(1.0 - counts), B, start / _scale(TT * size), count)  # S_ii = 1, so X_ii = 0, where i does not count
    return Solution(jnp.where(TT > 0, X.best * TT * size, 0), X.residual, X.steps)


def _single(A: Array, B: Array, count: int | Array) -> Solution:
    """X = (−A/B)₊ of one direction."""
    pushed = (A < 0) & (count > 0)
    X = jnp.where(pushed & (B > 0), -A / _scale(B), 0)
    return Solution(X, jnp.where(pushed & ~(B > 0), 1.0, 0.0)[0, 0], jnp.zeros((), int))


def _scale(size: Array) -> Array:
    """What to divide by: 1 for 0."""
    return jnp.where(size > 0, size, 1.0)


class _State(NamedTuple):
    """Where the methods are, in the scaled problem."""

    mode: Array
    newton: Array  # (K, K) X of Newton's method,
    before: Array  # () and the residual before its last step
    primal: Array  # (K, K) X ≻ 0 of the interior point method,
    dual: Array  # (K, K) its S ≻ 0,
    handover: Array  # () the <X, S>/K at which Newton's method is tried,
    stuck: Array  # () and whether it goes no further
    steps: Array
    best: Array  # (K, K) the X of the least residual so far,
    residual: Array  # () and that
    done: Array


def _iterated(A: Array, B: Array, start: Array, count: int | Array) -> _State:
    """X from A (K, K) and B (K, K, K, K), from a start (K, K)."""
    size = len(A)
    identity = np.eye(size)

    def step(at: _State) -> _State:
        inside = at.mode == INTERIOR
        X = jnp.where(inside, at.primal, at.newton)
        given = A + jnp.tensordot(B, X)
        S = jnp.where(inside, at.dual, given)
        L = small_matrices.cholesky(jnp.where(inside, X, identity))
        z, Q = small_matrices.eigh(jnp.where(inside, L.T @ S @ L, X - S))
        d = jnp.where(inside, jnp.sqrt(jnp.abs(z)), 1)  # G⁻¹XG⁻ᵀ = GᵀSG = diag(d)
        G = jnp.where(inside, L @ Q / jnp.sqrt(d), Q)
        turned = B
        for _ in range(4):  # B of the coordinates G, one index after the other
            turned = (G.T @ turned.reshape(size, -1)).T
        turned = turned.reshape(B.shape)

        # The system (n + p·B)[Δ] = −F with F of Newton's method, or that of the predictor.
        p, n = (jnp.where(inside, 1, jnp.maximum(each, 0)) for each in (z, -z))
        p, n = p[:, None] + p, n[:, None] + n
        p, n = (jnp.where(p + n > 0, each / _scale(p + n), 0.5) for each in (p, n))
        F = G.T @ X @ G - jnp.diag(jnp.maximum(z, 0))
        left = jnp.linalg.norm(F) / jnp.clip(jnp.linalg.norm(X), 1, LARGEST)
        infeasible = G.T @ (S - given) @ G
        F = jnp.where(inside, (jnp.diag(d) - infeasible) / 2, F)
        solved = _solver(p, n, turned)
        dX = solved(-F)

        def share(dX: Array, dS: Array) -> Array:
            """How far X and S may go so that both stay inside."""
            least = jnp.min(small_matrices.eigvalsh(jnp.stack([dX, dS]) / jnp.sqrt(d[:, None] * d)))
            return jnp.where(least < 0, jnp.minimum(1, -BACK / least), 1)

        # The corrector: towards <X, S>/K = σμ, less what the predictor's step would leave of second order.
        dS = jnp.tensordot(turned, dX) - infeasible
        ahead, mu = share(dX, dS), jnp.vdot(X, S) / size
        sigma = jnp.clip((jnp.vdot(jnp.diag(d) + ahead * dX, jnp.diag(d) + ahead * dS) / size / mu) ** 3, 1e-3, 0.9)
        second = (dX @ dS + dS @ dX) / (d[:, None] + d)
        dX = jnp.where(inside, solved((jnp.diag(sigma * mu / d) - second) / 2 - F), dX)
        ahead = share(dX, jnp.tensordot(turned, dX) - infeasible)
        moved = G @ dX @ G.T
        primal, dual = X + ahead * moved, S + ahead * (jnp.tensordot(B, moved) - (S - given))

        stuck = inside & ~((ahead > SHORTEST) & jnp.all(jnp.isfinite(primal + dual)))
        onward = inside & ~stuck
        reached = jnp.vdot(primal, dual) / size <= at.handover
        lost = ~inside & ~(left <= DESCENDS * at.before)
        better = ~inside & (left < at.residual)
        best, residual = jnp.where(better, X, at.best), jnp.where(better, left, at.residual)
        over = lost & (at.stuck | (residual <= SOUND))
        return _State(
            mode=jnp.where(inside, jnp.where(stuck | reached, LAST, INTERIOR), jnp.where(lost, INTERIOR, at.mode)),
            newton=jnp.where(inside, jnp.where(stuck, at.primal, primal), X + moved),
            before=jnp.where(inside, jnp.inf, left),
            primal=jnp.where(onward, primal, at.primal), dual=jnp.where(onward, dual, at.dual),
            handover=jnp.where(lost & (at.mode == LAST), at.handover / 100, at.handover), stuck=at.stuck | stuck,
            steps=at.steps + 1, best=best, residual=residual, done=over | (residual <= SOLVED),
        )

    far, no = jnp.array(jnp.inf), jnp.array(False)
    one = jnp.zeros_like(A).at[0, 0].set(jnp.maximum(-A[0, 0], 0) / _scale(B[0, 0, 0, 0]))
    begun = jnp.where(count == 1, one, start)
    begun = jnp.where((small_matrices.eigvalsh(A)[0] >= 0) | ~jnp.all(jnp.isfinite(begun)), 0, begun)
    state = _State(
        jnp.array(WARM), begun, far, jnp.eye(size), jnp.eye(size), jnp.array(NEAR), no, jnp.zeros((), int), jnp.zeros_like(A), far, no,
    )
    return lax.while_loop(lambda at: ~at.done & (at.steps < MOST), step, state)


def _solver(p: Array, n: Array, B: Array) -> Callable[[Array], Array]:
    """F (K, K) ↦ (n + p·B)⁻¹F with p, n ≥ 0 (K, K) of sum 1 for each entry, of symmetric matrices: the system of their entries i ≤ j, those
    with i < j × √2, is made symmetric by Δ = √p·w."""
    i, j = pairs(len(p))
    double = np.where(i == j, 1, np.sqrt(2))
    root = jnp.sqrt(jnp.maximum(p[i, j], TINY))
    weights = root * double
    system = small_matrices.factored(jnp.outer(weights, weights) * B[i[:, None], j[:, None], i, j] + jnp.diag(n[i, j] + RIDGE * root**2))
    return lambda F: unpacked(root / double * system(F[i, j] * double / root))
