"""The matrix forms (3_k) and (4_k) against those of one direction, the orbit that turns, and the mean that X† is."""

import numpy as np
import pytest

from engine import theory

ETA, BETA, VARIANCE = 1e-3, 0.7, 1.9
ALPHA = BETA * VARIANCE / 2


def symmetric(rng: np.random.Generator, count: int) -> np.ndarray:
    matrix = rng.normal(size=(count, count))
    return matrix + matrix.T


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_packed_gram_contracts_as_the_sum_over_all_pairs_does(count):
    rng = np.random.default_rng(count)
    i, j = theory.pairs(count)
    vectors = rng.normal(size=(count, count, 11))
    vectors = vectors + vectors.swapaxes(0, 1)  # D_ij = D_ji
    packed, matrix = vectors[i, j], symmetric(rng, count)
    dense = np.einsum("ijp,klp,kl->ij", vectors, vectors, matrix)
    np.testing.assert_allclose(theory.contract(packed @ packed.T, matrix), dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(theory.contract(theory.gram_of_identity(count, BETA), matrix), BETA * matrix, rtol=1e-15)


def test_a_direction_that_joins_moves_no_pair():
    assert list(zip(*map(np.ndarray.tolist, theory.pairs(3)), strict=True)) == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    for count in range(1, 6):
        for fewer, more in zip(theory.pairs(count), theory.pairs(count + 1), strict=True):
            np.testing.assert_array_equal(fewer, more[: len(fewer)])


def test_with_one_direction_the_matrix_map_is_the_map():
    """Bit for bit where every product is exact in binary, else to rounding."""
    for x, y, alpha, beta, eta, tolerance in ((0.5, 0.25, 2.0, 4.0, 0.125, 0), (0.3, -0.17, 1.3, 0.7, 0.01, 1e-15)):
        turned, moved = theory.map_step_k(np.array([x]), np.array([[y]]), np.array([[2 * alpha / beta]]), np.array([[beta]]), eta)
        np.testing.assert_allclose([turned[0], moved[0, 0]], theory.map_step(x, y, alpha, beta, eta), rtol=tolerance, atol=0)


def test_with_one_direction_the_matrix_flow_is_the_flow():
    times = np.linspace(0, 9, 40)
    x, y = theory.flow_orbit_k(np.array([0.4]), np.array([[0.2]]), np.array([[VARIANCE]]), np.array([[BETA]]), times)
    np.testing.assert_allclose(np.stack([x[:, 0], y[:, 0, 0]], 1), theory.flow_orbit(0.4, 0.2, ALPHA, BETA, times), atol=1e-9)


def test_a_direction_below_the_edge_decays_at_its_own_rate():
    x, y, slack = np.array([1.0, 1.0]), np.zeros((2, 2)), np.array([0.0, 3.0])
    turned, _ = theory.map_step_k(x, y, np.eye(2), theory.gram_of_identity(2, BETA), 0.1, slack)
    np.testing.assert_allclose(turned, [-1, -(1 - 0.3)])
    np.testing.assert_allclose(theory.flow_slope_k(x, y, np.eye(2), theory.gram_of_identity(2, BETA), slack)[0], [0, -3])


def test_the_map_follows_the_flow_with_alternating_sign():
    rng, count, eta, steps = np.random.default_rng(0), 3, 1e-4, 4000
    gram, covariance = theory.gram_of_identity(count, BETA), np.diag([1.0, 0.6, 0.3])
    x, y = rng.normal(size=count), 0.1 * symmetric(rng, count)
    flow_x, flow_y = theory.flow_orbit_k(x, y, covariance, gram, np.array([0, eta * steps]))
    for _ in range(steps):
        x, y = theory.map_step_k(x, y, covariance, gram, eta)
    np.testing.assert_allclose(x, flow_x[-1], atol=20 * eta)
    np.testing.assert_allclose(y, flow_y[-1], atol=20 * eta)


def test_the_orbit_that_turns_is_one_of_the_flow():
    times = np.linspace(0, 3 * ETA * theory.turning_period(ETA, ALPHA), 200)
    x, y = theory.turning_orbit(VARIANCE, BETA, times)
    integrated = theory.flow_orbit_k(x[0], y[0], VARIANCE * np.eye(2), theory.gram_of_identity(2, BETA), times)
    np.testing.assert_allclose(integrated[0], x, atol=1e-8)
    np.testing.assert_allclose(integrated[1], y, atol=1e-8)
    rate = theory.turning_rate(ALPHA)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1) ** 2, 2 * VARIANCE)
    np.testing.assert_allclose(np.linalg.eigvalsh(y), np.tile([-rate, rate], (200, 1)))


def test_x_turns_at_the_rate_of_the_equation():
    """To 0.1 % over four turns of the map, which begins on the orbit: at η = 1e-3 its |x|² grows by 0.07 % meanwhile."""
    steps, gram = round(4 * theory.turning_period(ETA, ALPHA)), theory.gram_of_identity(2, BETA)
    x, y = (each[0] for each in theory.turning_orbit(VARIANCE, BETA, np.zeros(1)))
    path = [x]
    for _ in range(steps):
        x, y = theory.map_step_k(x, y, VARIANCE * np.eye(2), gram, ETA)
        path.append(x)
    even = np.array(path[::2])  # every second step: x alternates
    angle = np.unwrap(np.arctan2(even[:, 1], even[:, 0]))
    rate = np.polyfit(2 * ETA * np.arange(len(even)), angle, 1)[0]
    assert rate == pytest.approx(theory.turning_rate(ALPHA), rel=1e-3)
    assert theory.turning_period(ETA, ALPHA) == pytest.approx(2 * np.pi * np.sqrt(2) / theory.epsilon(ETA, ALPHA))
    assert theory.turning_period(ETA, ALPHA) == pytest.approx(2 * theory.period(0.0, ALPHA, BETA, ETA))


@pytest.mark.parametrize("variances", [pytest.param((1.0, 0.5), marks=pytest.mark.slow), (1.0, 0.6, 0.3)])
def test_the_mean_of_the_oscillation_is_the_covariance(variances):
    """To 2 % of its trace, damped so that it stays bounded, over the second half of a long orbit; λ1(Y) is above 0 all the while, 0.5 and
    0.8 in the mean, and the mean of Y is not."""
    eta, damping, steps = 0.02, 0.05, 40_000
    count, covariance = len(variances), np.diag(variances)
    gram, x, y = theory.gram_of_identity(count, 1.0), 0.3 / np.arange(1, count + 1), np.zeros((count, count))
    path, offsets = [], []
    for _ in range(steps):
        x, moved = theory.map_step_k(x, y, covariance, gram, eta)
        y = moved - eta * damping * y
        path.append(x)
        offsets.append(y)
    half = np.array(path[steps // 2 :])
    measured, offsets = half.T @ half / len(half), np.array(offsets[steps // 2 :])
    np.testing.assert_allclose(measured, covariance, atol=0.02 * np.trace(covariance))
    mean = offsets.mean(0)
    np.testing.assert_allclose(covariance - measured, 2 * damping * mean, atol=1e-2)  # what damping takes, and no more
    assert np.linalg.eigvalsh(offsets)[:, -1].mean() > 5 * abs(mean).max()
