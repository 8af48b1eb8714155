"""The simplified system against integration and closed forms."""

from itertools import pairwise

import numpy as np
import pytest

from engine import theory

ALPHA, BETA, ETA = 1.3, 0.7, 0.01
DELTA = theory.delta(ALPHA, BETA)


@pytest.mark.parametrize("start", [0.9, 0.3, 0.01, -0.3])
def test_the_flow_keeps_the_quantity_of_lemma_3(start):
    orbit = theory.flow_orbit(start * DELTA, 0.0, ALPHA, BETA, np.linspace(0, 20, 500))
    assert np.ptp(theory.conserved(orbit[:, 0], orbit[:, 1], ALPHA, BETA)) < 1e-8
    assert (np.sign(orbit[:, 0]) == np.sign(start)).all()


@pytest.mark.parametrize("eta", [0.05, 0.02, 0.01])
def test_the_energy_of_the_map_grows_by_two_epsilon_squared_a_step(eta):
    orbit = theory.map_orbit(1.01 * DELTA, 0.0, ALPHA, BETA, eta, 2000)
    g = theory.conserved(orbit[:, 0], orbit[:, 1], ALPHA, BETA)
    epsilon = theory.epsilon(eta, ALPHA)
    period = round(2 * np.pi / (np.sqrt(2) * epsilon))
    steps = 5 * period
    growth = (g[steps] / g[0]) ** (1 / steps) - 1
    assert growth == pytest.approx(2 * epsilon**2, rel=0.1)


@pytest.mark.parametrize("start", [0.9, 0.3, 0.01])
def test_period_and_bounds_are_those_of_the_integrated_orbit(start):
    g = float(theory.conserved(start * DELTA, 0.0, ALPHA, BETA))
    period = theory.period(g, ALPHA, BETA, ETA)
    orbit = theory.flow_orbit(start * DELTA, 0.0, ALPHA, BETA, np.linspace(0, period * ETA, 4001))
    np.testing.assert_allclose(orbit[-1], orbit[0], atol=1e-9)
    bounds = theory.bounds(g, ALPHA, BETA)
    np.testing.assert_allclose([orbit[:, 0].min(), orbit[:, 0].max(), orbit[:, 1].max()], bounds, rtol=1e-4)


def test_period_tends_to_its_limits():
    epsilon = theory.epsilon(ETA, ALPHA)
    assert theory.period(1e-8, ALPHA, BETA, ETA) == pytest.approx(2 * np.pi / (np.sqrt(2) * epsilon), rel=1e-6)
    assert theory.period(400.0, ALPHA, BETA, ETA) == pytest.approx(2 * np.sqrt(400.0) / epsilon, rel=0.03)


@pytest.mark.parametrize("g", [1e-9, 1e-3, 1.0, 30.0])
def test_level_sets_lie_on_their_level(g):
    orbit = theory.level_set(g, ALPHA, BETA)
    conserved = theory.conserved(orbit[:, 0] * DELTA, orbit[:, 1], ALPHA, BETA)
    np.testing.assert_allclose(conserved, g, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "y", "stage"),
    [(0.9, -1, 1), (-0.1, 0, 1), (0.01, 1, 2), (1, 1, 2), (-1.2, 1, 3), (1.2, 0, 4), (1.2, -1, 4), (1, -1, 1), (np.nan, 1, 0)],
)
def test_stages_are_those_of_the_text_of_section_4_1(x, y, stage):
    assert theory.stage(x, y, 1.0) == stage


@pytest.mark.parametrize("eta", [0.05, 0.02])
def test_on_the_map_the_sharpness_rises_in_stages_1_and_2_alone_and_x_grows_in_2_and_3_alone(eta):
    x, y = theory.map_orbit(0.1 * DELTA, 0.0, ALPHA, BETA, eta, 600).T
    stage = theory.stages(x, y, np.full(601, DELTA), np.full(601, ALPHA))
    assert set(stage) == {1, 2, 3, 4}
    np.testing.assert_array_equal(np.diff(y) >= 0, np.isin(stage[:-1], (1, 2)))
    np.testing.assert_array_equal(np.diff(np.abs(x)) > 0, np.isin(stage[:-1], (2, 3)))
    np.testing.assert_array_equal(stage, theory.stage(x, y, DELTA))  # a regular cycle has no flicker


def test_a_step_back_counts_where_it_is_no_flicker_and_however_the_rows_are_cut():
    """About the borders at every other step: within 5 % the stage stays, beyond it goes back."""
    step = np.arange(20)
    for size, kept in ((0.03, True), (0.3, False)):
        swing = size * (-1.0) ** step
        x, y = 1 + swing, np.full(20, 0.5)
        stages = theory.stages(x, y, np.ones(20), np.ones(20))
        assert (stages == 3).all() if kept else stages.tolist() == [3, 2] * 10
        sideways = theory.stages(0 * x + 0.5, swing, np.ones(20), np.ones(20))
        assert (sideways[1:] == 2).all() if kept else sideways.tolist() == [2, 1] * 10
        first = theory.stages(x[:7], y[:7], np.ones(7), np.ones(7))
        np.testing.assert_array_equal(theory.stages(x[7:], y[7:], np.ones(13), np.ones(13), int(first[-1])), stages[7:])
    assert theory.stages(np.array([1.2, np.nan, 0.99]), np.ones(3), np.ones(3), np.ones(3)).tolist() == [3, 0, 3]


def test_without_progressive_sharpening_nothing_is_defined():
    assert np.isnan(theory.delta(-1.0, 1.0))
    assert np.isnan(theory.epsilon(0.1, -1.0))
    assert theory.stage(0.1, 0.1, float("nan")) == 0
    assert theory.stages(np.full(3, 0.1), np.full(3, 0.1), np.full(3, np.nan), np.full(3, -1.0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("eta", [0.05, 0.02, 0.005])
def test_a_small_orbit_of_the_map_gains_two_epsilon_squared_every_step(eta):
    epsilon = theory.epsilon(eta, ALPHA)
    orbit = theory.map_orbit((1 + 1e-4) * DELTA, 0.0, ALPHA, BETA, eta, 60)
    g = theory.conserved(orbit[:, 0], orbit[:, 1], ALPHA, BETA)
    np.testing.assert_allclose(g[1:] / g[:-1], 1 + 2 * epsilon**2, rtol=0, atol=5e-4 * epsilon)


def test_the_map_alternates_and_its_even_steps_follow_the_flow():
    eta, steps = 1e-4, 2000
    orbit = theory.map_orbit(0.5 * DELTA, 0.3, ALPHA, BETA, eta, steps)
    assert (np.sign(orbit[:, 0]) == (-1.0) ** np.arange(steps + 1)).all()
    flow = theory.flow_orbit(0.5 * DELTA, 0.3, ALPHA, BETA, eta * np.arange(steps + 1))
    np.testing.assert_allclose(np.abs(orbit[:, 0]), flow[:, 0], atol=10 * eta)
    np.testing.assert_allclose(orbit[:, 1], flow[:, 1], atol=10 * eta)


def test_from_either_side_of_zero_the_orbits_are_mirror_images():
    times = np.linspace(0, 8, 50)
    right, left = (theory.flow_orbit(sign * 0.2 * DELTA, 0.1, ALPHA, BETA, times) for sign in (1, -1))
    np.testing.assert_array_equal(right * [-1, 1], left)
    right, left = (theory.map_orbit(sign * 0.2 * DELTA, 0.1, ALPHA, BETA, ETA, 50) for sign in (1, -1))
    np.testing.assert_array_equal(right * [-1, 1], left)


def test_without_oscillation_the_sharpness_rises_at_the_rate_alpha():
    times = np.linspace(2, 5, 7)
    np.testing.assert_allclose(theory.flow_orbit(0.0, 0.5, ALPHA, BETA, times), np.stack([0 * times, 0.5 + ALPHA * (times - 2)], 1))


def test_the_fixed_point_stays():
    np.testing.assert_allclose(theory.map_orbit(DELTA, 0.0, ALPHA, BETA, ETA, 9)[:, 1], 0, atol=1e-15)
    np.testing.assert_allclose(theory.flow_orbit(DELTA, 0.0, ALPHA, BETA, np.linspace(0, 5, 9)), [[DELTA, 0]] * 9, atol=1e-12)
    assert theory.h(1.0) == theory.conserved(DELTA, 0.0, ALPHA, BETA) == 0
    assert theory.bounds(0.0, ALPHA, BETA) == pytest.approx((DELTA, DELTA, 0))
    np.testing.assert_array_equal(theory.level_set(0.0, ALPHA, BETA, 5), [[1.0, 0.0]] * 5)
    assert theory.period(0.0, ALPHA, BETA, ETA) == pytest.approx(2 * np.pi / np.sqrt(2) / theory.epsilon(ETA, ALPHA))


def test_bounds_are_those_of_the_closed_form_of_lambert():
    from scipy.special import lambertw

    for g in (0.5, 3.0, 50.0):
        low, high = (DELTA * np.sqrt(-lambertw(-np.exp(-1 - g), branch).real) for branch in (0, -1))
        np.testing.assert_allclose(theory.bounds(g, ALPHA, BETA), [low, high, np.sqrt(ALPHA * g)], rtol=1e-9)


def test_level_sets_close_and_touch_their_bounds():
    for g in (1e-3, 1.0, 30.0, 2000.0):
        orbit, bounds = theory.level_set(g, ALPHA, BETA, 401), theory.bounds(g, ALPHA, BETA)
        np.testing.assert_allclose(orbit[0], orbit[-1], atol=1e-5 * bounds.y_max)
        assert orbit[:, 0].max() * DELTA == pytest.approx(bounds.x_max, rel=1e-6)
        assert np.abs(orbit[:, 1]).max() <= bounds.y_max * (1 + 1e-9)
        assert np.isfinite(orbit).all()


def test_an_orbit_of_the_flow_goes_through_the_stages_in_order():
    times = np.linspace(0, 1.99 * theory.period(4.0, ALPHA, BETA, 1.0), 4000)
    start = theory.bounds(4.0, ALPHA, BETA).x_min
    stages = [theory.stage(x, y, DELTA) for x, y in theory.flow_orbit(start, 0.0, ALPHA, BETA, times)]
    assert [b for a, b in pairwise(stages) if a != b] == [2, 3, 4, 1] * 2


@pytest.mark.parametrize(("alpha", "beta"), [(1e300, 1e300), (1.0, 1e-80), (np.nan, 1.0), (np.inf, 1.0)])
def test_a_flow_beyond_what_can_be_integrated_is_nan_and_says_nothing(alpha, beta, capfd):
    assert np.isnan(theory.flow_orbit(1.0, 0.0, alpha, beta, np.linspace(0, 1, 5))).all()
    assert capfd.readouterr() == ("", "")
