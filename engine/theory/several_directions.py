"""The matrix forms of the map and the flow, (3_k) and (4_k), for k directions at the edge at once; and the orbit that turns, exact.
Without jax.

v = θ − θ† has the coordinates x = Uᵀv (k,) along the top eigenvectors U = (u_1 … u_k) of θ†, and changes their block of the Hessian by
Y_ij = ∇³L(u_i,u_j)·v (k, k), without what lies along U itself: UᵀH(θ)U ≈ Λ† + Y. With D⊥_ij = ∇³L(u_i,u_j) less its part along U, the
operator B⊥[M]_ij = Σ_kl <D⊥_ij,D⊥_kl>M_kl takes the place of β, and the covariance X† that of σ² = 2α/β. For k = 1 these are (3) and (4).

xxᵀ has rank one and X† has not, so nothing settles: x turns, and only the mean of xxᵀ over many steps is X†.
"""

from typing import Any

import numpy as np

RANK = 1e-6
"""Share of its trace above which an eigenvalue of X† counts as positive."""


def pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs i ≤ j of `count` directions, (0,0), (0,1), (1,1), (0,2), …, as two index arrays (m,), m = k(k+1)/2.

    A direction that joins adds pairs at the end and moves none.
    """
    j, i = np.tril_indices(count)
    return i, j


def gram_of_identity(count: int, beta: float) -> np.ndarray:
    """The packed gram (m, m) of B⊥[M] = βM on symmetric matrices: β for i = j and β/2 for i < j, where M_ij and M_ji both contribute."""
    i, j = pairs(count)
    return np.diag(np.where(i == j, beta, beta / 2))


def contract(gram: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """B⊥[M], (k, k), of a symmetric M (k, k): B⊥[M]_ij = Σ_{k≤l} gram[ij,kl](2−[k=l])M_kl, with gram (m, m) in the order of `pairs`."""
    i, j = pairs(len(matrix))
    packed = gram @ (np.where(i == j, 1, 2) * matrix[i, j])
    contracted = np.empty(matrix.shape)
    contracted[i, j] = contracted[j, i] = packed
    return contracted


def map_step_k(
    x: np.ndarray, y: np.ndarray, covariance: np.ndarray, gram: np.ndarray, learning_rate: float, slack: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """One step of (3_k): x ← (I − η(Λ† + Y))x, Y ← Y + (η/2)B⊥[X† − xxᵀ], for x (k,), Y (k, k), X† (k, k) and gram (m, m).

    Λ† = 2/η − `slack`: 0 where every direction is at the edge, (k,) where some are below it.
    """
    turned = -(x + learning_rate * (y @ x - slack * x))
    return turned, y + learning_rate / 2 * contract(gram, covariance - np.outer(x, x))


def flow_slope_k(
    x: np.ndarray, y: np.ndarray, covariance: np.ndarray, gram: np.ndarray, slack: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(4_k) in ODE time τ = ηt: X' = (Λ† − 2/η + Y)X, Y' = ½B⊥[X† − XXᵀ]. Shapes and `slack` as in `map_step_k`."""
    return y @ x - slack * x, contract(gram, covariance - np.outer(x, x)) / 2


def flow_orbit_k(
    x0: np.ndarray, y0: np.ndarray, covariance: np.ndarray, gram: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The orbit of (4_k), every direction at the edge, at the given increasing ODE times, the first that of the start: X (times, k) and
    Y (times, k, k). Integrated by LSODA to a tolerance of 1e-12 a step."""
    from scipy.integrate import odeint  # a quarter of a second that a viewer seldom needs

    count = len(x0)

    def slope(state: np.ndarray, _: float) -> np.ndarray:
        x_slope, y_slope = flow_slope_k(state[:count], state[count:].reshape(count, count), covariance, gram)
        return np.concatenate([x_slope, y_slope.ravel()])

    solution = odeint(slope, np.concatenate([x0, np.ravel(y0)]), times, rtol=1e-12, atol=1e-12, mxstep=100_000)
    return solution[:, :count], solution[:, count:].reshape(-1, count, count)


def turning_rate(alpha: float) -> float:
    """ω = √(α/2), radians a unit of ODE time, at which x turns where X† = σ²I and B⊥[M] = βM: α = βσ²/2, as for one direction."""
    return float(np.sqrt(alpha / 2))


def turning_period(learning_rate: float, alpha: float) -> float:
    """Steps of one full turn, 2π/(ηω) = 2π√2/ε with ε = η√α: twice the period of a small orbit of one direction."""
    return float(2 * np.pi / (learning_rate * turning_rate(alpha)))


def turning_orbit(variance: float, beta: float, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The orbit of (4_k) for two directions, X† = σ²I and B⊥[M] = βM, on which nothing but the angle φ = ωτ changes: X (times, 2) and
    Y (times, 2, 2).

    X = √2σe with e = (cos φ, sin φ), so |X|² = tr X†, and Y = ω(enᵀ + neᵀ) with n = (−sin φ, cos φ), so that YX = ωJX and λ(Y) = ±ω: the
    sharpness stays ω above 2/η, while the mean of Y over a turn is 0 and that of XXᵀ is X†. At the edge x alternates: x_t = (−1)^t X(ηt).
    """
    rate = turning_rate(beta * variance / 2)
    angle = rate * np.asarray(times, float)
    e = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    n = np.stack([-e[..., 1], e[..., 0]], axis=-1)
    outer = e[..., :, None] * n[..., None, :]
    return np.sqrt(2 * variance) * e, rate * (outer + np.swapaxes(outer, -1, -2))
