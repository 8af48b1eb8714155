"""The simplified system against integration and closed forms."""

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
    found = theory.conserved(orbit[:, 0] * DELTA, orbit[:, 1], ALPHA, BETA)
    np.testing.assert_allclose(found, g, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(("x", "y", "stage"), [(0.1, 1, 1), (0.5, 1, 2), (-1.2, 1, 3), (1.2, -1, 3), (0.5, -1, 4), (np.nan, 1, 0)])
def test_stages_follow_their_rule(x, y, stage):
    assert theory.stage(x, y, 1.0) == stage


def test_without_progressive_sharpening_nothing_is_defined():
    assert np.isnan(theory.delta(-1.0, 1.0))
    assert np.isnan(theory.epsilon(0.1, -1.0))
    assert theory.stage(0.1, 0.1, float("nan")) == 0
